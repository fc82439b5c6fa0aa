//! `onionring-loadgen`: see `--help`.
//!
//! It holds all programs of onionring, so that one file boots whole networks: called by the name of one of them, it is that
//! program. [`NetworkSpec`](onionring_loadgen::net::NetworkSpec) makes links of such names.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "programs")]
    if let Some(program) = program() {
        return program();
    }
    onionring_loadgen::cli::main()
}

/// The program by whose name this one was called, if it is another.
#[cfg(feature = "programs")]
fn program() -> Option<fn() -> ExitCode> {
    let called = std::env::args_os().next()?;
    Some(match std::path::Path::new(&called).file_name()?.to_str()? {
        "onionring-relay" => onionring_relay::main,
        "onionring-dirauth" => onionring_dirauth::main,
        "onionring-proxy" => onionring_proxy::main,
        _ => return None,
    })
}
