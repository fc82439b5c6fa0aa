//! `onionring-loadgen`: see `--help`.
//!
//! It holds all programs of onionring, so that one file boots whole networks: called by the name of one of them, it is that
//! program. [`NetworkSpec`](onionring_loadgen::net::NetworkSpec) makes links of such names.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(|name| name.to_str()) {
        Some("onionring-relay") => onionring_relay::main(),
        Some("onionring-dirauth") => onionring_dirauth::main(),
        Some("onionring-proxy") => onionring_proxy::main(),
        _ => onionring_loadgen::cli::main(),
    }
}
