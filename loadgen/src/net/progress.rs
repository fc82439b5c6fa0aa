//! How far booting is, and why a network is not up.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::spec::{Kind, SpecError};

/// How far booting has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Keys are being made.
    Keys,
    /// Waiting for every authority to list every relay.
    Consensus {
        /// Relays that the authority which is furthest behind lists as running.
        listed: usize,
        /// Relays there are, authorities included.
        expected: usize,
    },
    /// Waiting for a client.
    Client {
        /// Its name.
        nickname: String,
        /// How far it says it is.
        percent: u8,
    },
    /// The network is usable.
    Ready,
}

/// Why a network is not up.
#[derive(Debug, Error)]
pub enum BootError {
    /// The description makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Files, sockets or processes.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What happened.
        source: io::Error,
    },
    /// A node ended by itself.
    #[error(
        "{nickname} ({kind}) ended with {status} while the network was booting; its log ends with:\n{log}"
    )]
    NodeEnded {
        /// The node.
        nickname: String,
        /// What it runs.
        kind: Kind,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: String,
        /// Its directory, which stays.
        directory: PathBuf,
    },
    /// Time is up.
    #[error("the network is not usable after {after:?}: {missing}\n{logs}all files are kept in {directory}", directory = directory.display())]
    NotUsable {
        /// For how long it was waited.
        after: Duration,
        /// What is missing, by node.
        missing: String,
        /// The last lines of the log of each node concerned.
        logs: String,
        /// The network's directory, which stays.
        directory: PathBuf,
    },
    /// The caller broke it off.
    #[error("interrupted")]
    Interrupted,
}

/// Attaches what was being done to an I/O error.
pub(super) fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> BootError {
    let doing = what.into();
    move |source| BootError::Io { doing, source }
}
