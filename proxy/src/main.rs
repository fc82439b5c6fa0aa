//! The proxy's program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    onionring_proxy::main()
}
