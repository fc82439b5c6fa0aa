//! The program `onionring-loadgen`.

mod authority;
mod bench;
mod compare;
mod demo;
mod load;
mod net;
mod proxy;
mod relay;
mod ui;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use thiserror::Error;

use crate::authority::AuthorityError;
use crate::load::LoadError;
use crate::net::control::ControlError;
use crate::net::{BootError, SpecError, netns};
use crate::traffic::TrafficError;

/// Exit status of what went wrong while running.
const EXIT_FAILED: u8 = 1;
/// Exit status of a request that makes no sense; clap's own.
const EXIT_USAGE: u8 = 2;
/// Exit status when no network fits what `net status` or `net down` was asked.
const EXIT_NO_NETWORK: u8 = 3;
/// Exit status after Ctrl-C, as a shell reports it.
const EXIT_INTERRUPTED: u8 = 130;

/// Boots private onion-routing networks on loopback, of any mix of implementations, and drives load through them.
///
/// Nothing ever leaves the machine. Everything that is started ends with this program, however that ends.
///
/// Exit status: 0 done, 1 failed, 2 wrong usage, 3 no such network, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "onionring-loadgen", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot a network, look at networks, end them
    #[command(subcommand)]
    Net(net::Command),
    /// Drive one relay of any implementation to its limit
    Relay(Box<relay::Arguments>),
    /// Measure implementations in turn, and tell their ratios
    Compare(Box<compare::Arguments>),
    /// Boot a network with onionring in every position, download a file through it and report
    Demo(demo::Arguments),
    /// Compare implementations side by side
    #[command(subcommand)]
    Bench(bench::Command),
}

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The options do not go together.
    #[error("{0}")]
    Usage(String),
    /// The results say what went wrong.
    #[error("the measurement is not complete: {0}")]
    Incomplete(String),
    #[error("{0}")]
    NoNetwork(String),
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl CliError {
    fn exit_status(&self) -> u8 {
        match self {
            CliError::Interrupted
            | CliError::Boot(BootError::Interrupted)
            | CliError::Load(LoadError::Interrupted)
            | CliError::Authority(AuthorityError::Interrupted) => EXIT_INTERRUPTED,
            CliError::Usage(_) | CliError::Spec(_) | CliError::Boot(BootError::Spec(_)) => EXIT_USAGE,
            CliError::NoNetwork(_) => EXIT_NO_NETWORK,
            _ => EXIT_FAILED,
        }
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Net(command) => command.run(),
        Command::Relay(arguments) => arguments.run(),
        Command::Compare(arguments) => arguments.run(),
        Command::Demo(arguments) => arguments.run(),
        Command::Bench(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("onionring-loadgen: {e}");
            ExitCode::from(e.exit_status())
        }
    }
}

/// Moves into a network namespace if asked to.
fn enter_netns(wanted: bool) -> Result<(), CliError> {
    if wanted { Ok(netns::enter()?) } else { Ok(()) }
}
