//! The relay's program: everything is in the library.

use std::process::ExitCode;

use onionring_relay::cli::{self, Outcome, Start};
use onionring_relay::run::{self, Hidden};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into()).collect();
    match cli::run(&words) {
        Outcome::Done(code) => code,
        Outcome::Run(start) => run(*start),
    }
}

fn run(start: Start) -> ExitCode {
    match run::run(start, Hidden::from_environment()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failed(&error, error.exit_code()),
    }
}
