//! One directory authority of any implementation, measured as a black box: it takes the descriptors of a
//! [`synthetic`](crate::synthetic) network, votes on it twice with eight others that exist on paper only, and serves what
//! comes of it.
//!
//! ```text
//! uploads of all relays -> [ votes of the others -> own vote -> consensus -> publication ] twice -> clients
//! ```
//!
//! The second vote is what an authority does every hour: there is a consensus, and diffs from it to the next are made.
//! CPU time and memory are those of the authority's process, from `/proc`; what loadgen does for the others is not among
//! them. The authority's own vote is its own opinion; what it computes of all votes is held, byte for byte, against what
//! the library computes of the same.

mod bootstrap;
mod clients;
mod http;
mod rounds;
mod subject;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use onionring_proto::crypto::rsa::RsaError;
use onionring_proto::netdoc::tally::TallyError;
use onionring_proto::time::Unix;
use serde::Serialize;
use thiserror::Error;

pub use bootstrap::{Bootstrap, Client, bootstrap};

use crate::synthetic::{Directory, SyntheticError};
use subject::Subject;

/// Why a measurement ends.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The program does not start, or ended.
    #[error("{kind} has ended or did not listen in time: {why}")]
    Start {
        /// What it is called.
        kind: String,
        /// What is known.
        why: String,
    },
    /// It does not take what it must.
    #[error("the authority refuses {what}: {status} {reason}; its log ends with:\n{log}")]
    Refused {
        /// What was sent or asked for.
        what: &'static str,
        /// Status of its answer.
        status: u16,
        /// Reason of its answer.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// Something did not come in time.
    #[error("{0} did not come in time; give it more with --interval. The authority's log ends with:\n{1}")]
    Late(&'static str, String),
    /// What it serves is no document of the kind.
    #[error("what the authority serves as {0} cannot be read: {1}")]
    Unreadable(&'static str, String),
    /// There are no documents to work with.
    #[error(transparent)]
    Synthetic(#[from] SyntheticError),
    /// The others on paper cannot count.
    #[error("the votes give no consensus: {0}")]
    Tally(#[from] TallyError),
    /// The others on paper cannot sign.
    #[error(transparent)]
    Key(#[from] RsaError),
    /// The user wants to stop.
    #[error("interrupted")]
    Interrupted,
    /// The system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is measured, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the authority is called in results.
    pub kind: String,
    /// Its program, with C tor's command line.
    pub program: PathBuf,
    /// Time from one consensus to the next; divides half an hour.
    pub interval: Duration,
    /// Requests of clients.
    pub clients: usize,
    /// How many of them come at a time.
    pub concurrency: usize,
    /// More torrc lines.
    pub torrc: Vec<String>,
}

/// What one step took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The step.
    pub step: Step,
    /// CPU seconds of the authority, all threads.
    pub cpu_seconds: f64,
    /// Seconds until what comes of it could be had.
    pub wall_seconds: f64,
    /// The most memory until then, in bytes.
    pub rss_max_bytes: u64,
}

/// What an authority does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Taking a descriptor and an extra-info of each relay.
    Uploads,
    /// Taking the votes of the others.
    Votes(Which),
    /// Forming its opinion, signing it, and sending it to others who do not answer.
    OwnVote(Which),
    /// Computing and signing both flavours, and taking the signatures of the others.
    Consensus(Which),
    /// Checking, compressing and publishing both; diffs to the second.
    Publication(Which),
    /// Answering clients.
    Clients,
}

/// Which of the two votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// The first.
    First,
    /// The second.
    Second,
}

impl Step {
    /// All, in their order.
    pub const ALL: [Step; 10] = [
        Step::Uploads,
        Step::Votes(Which::First),
        Step::OwnVote(Which::First),
        Step::Consensus(Which::First),
        Step::Publication(Which::First),
        Step::Votes(Which::Second),
        Step::OwnVote(Which::Second),
        Step::Consensus(Which::Second),
        Step::Publication(Which::Second),
        Step::Clients,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Step::Uploads => "uploads of all relays",
            Step::Votes(Which::First) => "votes of the others",
            Step::OwnVote(Which::First) => "own vote",
            Step::Consensus(Which::First) => "consensus and signatures",
            Step::Publication(Which::First) => "publication",
            Step::Votes(Which::Second) => "votes of the others, again",
            Step::OwnVote(Which::Second) => "own vote, again",
            Step::Consensus(Which::Second) => "consensus, again",
            Step::Publication(Which::Second) => "publication, with diffs",
            Step::Clients => "clients",
        }
    }
}

/// What was measured of one authority.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// What it is called.
    pub kind: String,
    /// Each step.
    pub figures: Vec<Figure>,
    /// Whether each consensus was, byte for byte, what the library computes of the same votes.
    pub agrees: bool,
    /// Bytes of its vote and of the consensus in both flavours, uncompressed.
    pub bytes: Bytes,
    /// Bytes that the clients were sent.
    pub served_bytes: u64,
}

/// Sizes of documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Its vote.
    pub vote: usize,
    /// The consensus that names descriptors.
    pub ns: usize,
    /// The one that names microdescriptors.
    pub microdesc: usize,
}

impl Measured {
    /// The figure of a step.
    pub fn figure(&self, step: Step) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.step == step)
    }

    /// CPU seconds of a vote and its consensus: the votes of the others, the own one, the count and signatures. The worse
    /// of the two.
    pub fn vote_and_consensus(&self) -> f64 {
        let one = |which| {
            let steps = [Step::Votes(which), Step::OwnVote(which), Step::Consensus(which)];
            steps.into_iter().filter_map(|step| self.figure(step)).map(|figure| figure.cpu_seconds).sum()
        };
        f64::max(one(Which::First), one(Which::Second))
    }

    /// The most memory.
    pub fn rss_max_bytes(&self) -> u64 {
        self.figures.iter().map(|figure| figure.rss_max_bytes).max().unwrap_or(0)
    }
}

/// Measures one authority from its start to its end. `stop` is asked now and then whether the user wants to; `tell` is told
/// what comes next.
///
/// # Errors
/// [`AuthorityError`].
pub fn measure(
    settings: &Settings,
    directory: &Directory,
    stop: &(dyn Fn() -> bool + Sync),
    tell: &dyn Fn(&str),
) -> Result<Measured, AuthorityError> {
    tell("starting");
    let subject = Subject::start(settings, directory)?;
    let mut figures = Vec::new();
    tell("uploads");
    figures.push(subject.measured(Step::Uploads, || clients::upload(&subject, directory, stop))?);
    let rounds = rounds::Rounds { subject: &subject, directory, interval: settings.interval, stop, tell };
    let votes = rounds.run(&mut figures)?;
    tell("clients");
    let mut served_bytes = 0;
    figures.push(subject.measured(Step::Clients, || {
        let requests = clients::requests(&votes, settings.clients);
        served_bytes = clients::serve(&subject, &requests, settings.concurrency, stop)?;
        Ok(())
    })?);
    Ok(Measured {
        kind: settings.kind.clone(),
        figures,
        agrees: votes.agrees,
        bytes: votes.bytes,
        served_bytes,
    })
}

/// The machine's clock.
fn clock() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs())
}
