//! What a directory authority decides about relays, the state that it keeps, how it votes with the others, and the
//! documents that it serves.
//!
//! Decisions are plain logic: time, randomness and configuration come in as arguments, and the state of each mechanism
//! is read from and written to the text of its file, in the format of C tor, so that one may take over from the other
//! with the history of the network intact; only what [`voting`] and [`reach`] keep, C tor never writes. Only [`files`],
//! [`store`], [`keys`] and [`cli`] touch the disk; [`uploads`] feeds what relays send through the decisions into the
//! store. [`directory`] answers requests, whatever they came over, and [`http`] is the DirPort. [`reach`] finds out which
//! relays do what they should.
#![forbid(unsafe_code)]

pub mod admission;
pub mod approval;
pub mod bandwidth_file;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod directory;
pub mod files;
pub mod flags;
pub mod http;
pub mod keypin;
pub mod keys;
pub mod limits;
pub mod opinion;
pub mod options;
pub mod peers;
pub mod reach;
pub mod relay_set;
pub mod shared_random;
pub mod stability;
pub mod store;
pub mod uploads;
pub mod version;
pub mod voting;

use std::process::ExitCode;

/// The program `onionring-dirauth`: obeys the command line of this process.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into()).collect();
    match cli::run(&words) {
        cli::Outcome::Done(code) => code,
        cli::Outcome::Run(start) => match daemon::run(*start) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => cli::failed(&error, error.exit_code()),
        },
    }
}
