//! The relay's program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    onionring_relay::main()
}
