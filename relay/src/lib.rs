//! A thread-per-core onion-routing relay.

pub mod cli;
pub mod config;
pub mod control;
pub mod dir;
pub mod engine;
pub mod exit;
pub mod heartbeat;
pub mod io;
pub mod limits;
pub mod load;
pub mod metrics_port;
pub mod run;
pub mod startup;
pub mod status_page;
pub mod streams;
pub mod telemetry;

use std::process::ExitCode;

/// The program `onionring-relay`: obeys the command line of this process.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into()).collect();
    match cli::run(&words) {
        cli::Outcome::Done(code) => code,
        cli::Outcome::Run(start) => match run::run(*start, run::Hidden::from_environment()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => cli::failed(&error, error.exit_code()),
        },
    }
}
