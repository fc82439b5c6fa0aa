//! The proxy's program: everything is in the library.

use std::process::ExitCode;

use onionring_proxy::cli::{self, Outcome, Start};
use onionring_proxy::daemon;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into()).collect();
    match cli::run(&words) {
        Outcome::Done(code) => code,
        Outcome::Run(start) => run(*start),
    }
}

fn run(start: Start) -> ExitCode {
    match daemon::run(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failed(&error, error.exit_code()),
    }
}
