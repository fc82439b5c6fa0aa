//! Why a measurement ends before its time.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use onionring_proto::cell::{Command, DestroyReason, FrameError};
use onionring_proto::link::LinkError;
use thiserror::Error;

/// What went wrong, in the words of the person who started the measurement.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Nobody answers at the relay's address.
    #[error("no relay answers at {address}: {source}; is it running, and is this its ORPort?")]
    Unreachable {
        /// Where the relay was looked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody answers who is not a relay.
    #[error("what answers at {address} is no relay: {what}; is this its ORPort?")]
    NoRelay {
        /// Where the relay was looked for.
        address: SocketAddr,
        /// What is wrong with the answer.
        what: String,
    },
    /// Another relay answers.
    #[error(
        "{address} is another relay than expected: {found}; use the descriptor or fingerprint of that relay"
    )]
    WrongIdentity {
        /// Where it answers.
        address: SocketAddr,
        /// What differs.
        found: LinkError,
    },
    /// The relay closed a link in the middle.
    #[error("the relay closed {which}: {how}; its log may say why")]
    LinkLost {
        /// Which link.
        which: &'static str,
        /// What was seen of it.
        how: String,
    },
    /// The relay destroyed a circuit in the middle.
    #[error("the relay destroyed a circuit {when}: reason {}; its log may say why", .reason.label())]
    Destroyed {
        /// What the circuit was doing.
        when: &'static str,
        /// What the relay says.
        reason: DestroyReason,
    },
    /// A cell that no correct relay sends.
    #[error("the relay sent a {command} cell {when}")]
    UnexpectedCell {
        /// The cell's command.
        command: Command,
        /// Why it is wrong here.
        when: &'static str,
    },
    /// Bytes that are no cells.
    #[error("the relay sent what is no cell: {0}")]
    Frame(#[from] FrameError),
    /// A cell whose bytes are not those that were sent.
    #[error("cell {index} of a circuit did not arrive as sent: the relay changed, lost or reordered it")]
    Corrupt {
        /// Which cell of its circuit and direction, the first being 0.
        index: u64,
    },
    /// A stream whose bytes are not those that were sent.
    #[error(
        "a stream did not arrive as sent, near byte {near}: the relay changed, lost or reordered its data"
    )]
    CorruptStream {
        /// The first byte of the piece that differs.
        near: u64,
    },
    /// A stream that was refused or cut off.
    #[error(
        "the relay ended a stream after {bytes} bytes: {why}; as an exit it needs `ExitRelay 1`, an `ExitPolicy` that \
         accepts loadgen's address, `ExitPolicyRejectPrivate 0` and `RefuseUnknownExits 0`"
    )]
    Stream {
        /// Bytes that had passed.
        bytes: u64,
        /// What it says.
        why: String,
    },
    /// A private network that does not boot or carry.
    #[error("{kind}: {why}")]
    Network {
        /// What its relays run.
        kind: String,
        /// What went wrong.
        why: String,
    },
    /// A relay elsewhere, which nothing can be sent to from several addresses of ours.
    #[error(
        "--flood-sources {sources} needs a relay on loopback (127.0.0.0/8), and {address} is none; leave it at 1"
    )]
    Sources {
        /// How many were asked for.
        sources: u32,
        /// The relay.
        address: SocketAddr,
    },
    /// A circuit handshake that does not verify.
    #[error("the relay answered a {what} handshake with what does not verify: {why}")]
    Handshake {
        /// Its kind.
        what: &'static str,
        /// What is wrong with the answer.
        why: String,
    },
    /// The onion key is needed, and the relay does not say it.
    #[error("the relay does not tell its onion key: {0}; give its descriptor with --descriptor")]
    NoDescriptor(String),
    /// Nothing moved for too long.
    #[error("the relay stalled: no progress for {after:?} while {doing}")]
    Stalled {
        /// For how long it was waited.
        after: Duration,
        /// What should have moved.
        doing: String,
    },
    /// The process of the relay is gone.
    #[error("the relay's process has ended: {0}")]
    Died(String),
    /// The relay could not be started.
    #[error("{kind} does not start: {why}")]
    Start {
        /// What was started.
        kind: String,
        /// What is known of the reason.
        why: String,
    },
    /// A file that is no descriptor.
    #[error("{} is no relay descriptor: {why}", file.display())]
    Descriptor {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Figures of `/proc` cannot be had.
    #[error("cannot read what process {pid} uses: {source}; is --pid the relay's, and does it run?")]
    Usage {
        /// The process.
        pid: u32,
        /// What the system says.
        source: io::Error,
    },
    /// The caller broke it off.
    #[error("interrupted")]
    Interrupted,
    /// Something of our own: sockets, threads, keys.
    #[error("{doing}: {source}")]
    Own {
        /// What was being done.
        doing: &'static str,
        /// What happened.
        source: io::Error,
    },
}

impl LoadError {
    /// A short stable name for machines.
    pub fn label(&self) -> &'static str {
        match self {
            LoadError::Unreachable { .. } => "unreachable",
            LoadError::NoRelay { .. } => "no_relay",
            LoadError::WrongIdentity { .. } => "wrong_identity",
            LoadError::LinkLost { .. } => "link_lost",
            LoadError::Destroyed { .. } => "destroyed",
            LoadError::UnexpectedCell { .. } => "unexpected_cell",
            LoadError::Frame(_) => "frame",
            LoadError::Corrupt { .. } => "corrupt",
            LoadError::CorruptStream { .. } => "corrupt_stream",
            LoadError::Stream { .. } => "stream",
            LoadError::Network { .. } => "network",
            LoadError::Sources { .. } => "sources",
            LoadError::Handshake { .. } => "handshake",
            LoadError::NoDescriptor(_) => "no_descriptor",
            LoadError::Stalled { .. } => "stalled",
            LoadError::Died(_) => "died",
            LoadError::Start { .. } => "start",
            LoadError::Descriptor { .. } => "descriptor",
            LoadError::Usage { .. } => "usage",
            LoadError::Interrupted => "interrupted",
            LoadError::Own { .. } => "own",
        }
    }
}

/// Attaches what was being done to an error of our own.
pub(super) fn own<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: &'static str,
) -> impl FnOnce(E) -> LoadError {
    move |e| LoadError::Own { doing, source: io::Error::other(e) }
}
