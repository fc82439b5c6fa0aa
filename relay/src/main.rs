//! The relay's program: everything is in the library.

use std::process::ExitCode;

use onionring_node::lock::DataLock;
use onionring_relay::cli::{self, Outcome, PrepareError, Start};
use onionring_relay::config::Config;
use onionring_relay::process::PidFile;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into()).collect();
    match cli::run(&words) {
        Outcome::Done(code) => code,
        Outcome::Run(start) => run(&start),
    }
}

fn run(start: &Start) -> ExitCode {
    match prepare(&start.config) {
        Ok(_held) => {
            eprintln!("[err] this version checks its configuration and keys, and carries no traffic yet");
            ExitCode::from(3)
        }
        Err(error) => cli::failed(&error),
    }
}

/// Becomes the right user and takes what only one relay can have.
fn prepare(config: &Config) -> Result<(DataLock, Option<PidFile>), PrepareError> {
    cli::become_user(config)?;
    let lock = cli::take_directories(config)?;
    let pid_file = config.pid_file.as_deref().map(PidFile::create).transpose()?;
    Ok((lock, pid_file))
}
