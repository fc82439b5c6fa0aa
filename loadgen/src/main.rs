//! `onionring-loadgen`: see `--help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    onionring_loadgen::cli::main()
}
