//! An onion proxy: it takes the streams of applications, and carries them through the network.
//!
//! [`network`] is the seam between the two halves. On the one side are the [`ports`], which speak with applications and
//! know nothing of circuits. On the other, [`streams`] opens what they ask for through [`circuits`], which begin at
//! [`guards`] on [`links`]; [`isolation`] says which streams may share a circuit. [`directory`] is what the proxy knows of
//! the network, [`memory`] what it remembers of itself over a restart.
//!
//! The program is [`cli`], [`config`] and [`daemon`], where all parts are put together ([`daemon::parts`]); [`control`] is
//! how commands reach it while it runs, [`tallies`] what it counts.
#![forbid(unsafe_code)]

pub mod circuits;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod directory;
pub mod guards;
pub mod isolation;
pub mod limits;
pub mod links;
pub mod memory;
pub mod network;
pub mod ports;
pub mod streams;
pub mod tallies;

use std::process::ExitCode;

/// The program `onionring-proxy`: obeys the command line of this process.
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
