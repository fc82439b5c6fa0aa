//! Voting: how authorities come to one consensus (dir-spec 3.4 to 3.11), without doing any of the sending.
//!
//! The paper's four rounds, as authorities run them in each [`Period`]:
//!
//! 1. each signs its opinion and posts it to all others;
//! 2. each passes on the opinions that it has. Here that is by asking: every authority is asked for the votes of all,
//!    so that two different votes of one come to light wherever they are. Stock authorities answer that as well, and
//!    themselves ask for what they miss, so that nothing has to be configured about who runs what. Who has two votes of
//!    one authority serves that which counts, and posts both to the others when no more votes count: they are the proof;
//! 3. each computes the consensus of the votes that it has, signs it, and posts the signature to all others;
//! 4. each asks the others for the signatures that they have, and publishes what more than half have signed.
//!
//! A [`Round`] is all of that for one period. It is told what arrives and what the time is, and says through
//! [`Round::poll_action`] what is to be done. Times are whole seconds.
//!
//! What is counted is what a stock authority counts, unless a [`DoublePolicy`] says otherwise: if authorities count
//! different votes, they compute different consensuses, and the minority publishes none.

use std::net::IpAddr;
use std::sync::Arc;

use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::netdoc::authcert::AuthCert;
use onionring_proto::netdoc::consensus::Flavor;
use onionring_proto::netdoc::tally::{TallyError, Terms};
use onionring_proto::netdoc::text::Fingerprint;
use thiserror::Error;

mod ballots;
pub mod double;
mod round;
pub mod schedule;
mod signatures;
mod snapshot;

pub use double::{DoublePolicy, Evidence, Finding};
pub use round::{OwnVoteError, Round, STRANGER};
pub use schedule::{Period, Schedule};
pub use snapshot::SnapshotError;

/// What a round goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The v3 identities of all configured authorities, ours among them.
    pub authorities: Vec<Fingerprint>,
    /// Our own v3 identity.
    pub us: Fingerprint,
    /// What the consensus is computed by; the number of authorities is that of `authorities`.
    pub terms: Terms,
    /// What becomes of an authority that votes twice.
    pub doubles: DoublePolicy,
    /// Whether every authority is asked for all votes, to compare them, and not for the missing ones alone. That is as
    /// many votes each period as there are pairs of authorities.
    pub compare: bool,
    /// Whether this is a testing network, where consensuses may follow each other at shorter intervals.
    pub testing: bool,
}

/// What we sign with.
#[derive(Clone)]
pub struct Signer {
    /// Our certificate.
    pub cert: AuthCert,
    /// The signing key that it names.
    pub key: RsaPrivate,
}

/// Without the key.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// Where a document came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// We made it.
    Own,
    /// Somebody at this address posted it.
    Posted(IpAddr),
    /// This authority had it when we asked.
    Fetched(Fingerprint),
}

/// Written and read back in the state of a round.
impl std::fmt::Display for Whence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Whence::Own => f.write_str("own -"),
            Whence::Posted(address) => write!(f, "posted {address}"),
            Whence::Fetched(authority) => write!(f, "fetched {authority}"),
        }
    }
}

/// The answer to a posted document: that of C tor, but that it says 200 to signatures which it throws away as unreadable,
/// forged or of another time, and this does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 or 400.
    pub status: u16,
    /// What the status line says besides.
    pub reason: &'static str,
}

impl Answer {
    const fn ok(reason: &'static str) -> Self {
        Answer { status: 200, reason }
    }

    const fn refused(reason: &'static str) -> Self {
        Answer { status: 400, reason }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make our vote for this period, and hand it to [`Round::handle_own_vote`].
    MakeVote(Period),
    /// Post our vote to an authority.
    PostVote {
        /// To whom.
        to: Fingerprint,
        /// The vote.
        text: Arc<str>,
    },
    /// Post a vote to an authority that is part of the proof that its maker voted twice, now that it is too late for it to
    /// count.
    TellVote {
        /// Whom.
        to: Fingerprint,
        /// The vote.
        text: Arc<str>,
    },
    /// Ask an authority for votes, and hand what it sends to [`Round::handle_vote`].
    FetchVotes {
        /// Whom.
        from: Fingerprint,
        /// Whose votes, ascending.
        of: Vec<Fingerprint>,
    },
    /// Post the signatures that we know to an authority.
    PostSignatures {
        /// To whom.
        to: Fingerprint,
        /// The document.
        text: Arc<str>,
    },
    /// Ask an authority for the signatures that it knows, and hand them to [`Round::handle_signatures`].
    FetchSignatures {
        /// Whom.
        from: Fingerprint,
    },
    /// The consensus: serve it from now on. It is there in each flavour that enough authorities signed, both as a rule.
    Publish(Vec<(Flavor, String)>),
    /// There is no consensus of this period; the one before stays.
    NoConsensus(NoConsensus),
    /// Write [`Round::snapshot`] to the disk, so that a restart finds it.
    Save,
    /// Write a file that the operator may want to show around.
    Store {
        /// Its name.
        name: String,
        /// Its contents.
        contents: String,
    },
    /// Tell the operator.
    Alarm(Alarm),
}

/// Why a period ends without a consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoConsensus {
    /// None can be computed.
    #[error("no consensus can be computed: {0}")]
    Tally(#[from] TallyError),
    /// Too few authorities have signed the one that we computed.
    #[error(
        "{signed} authorities have signed our consensus, {needed} have to: did they get other votes than this one, or \
         are they down?"
    )]
    TooFewSignatures {
        /// Those that have, in the flavour that more signed.
        signed: usize,
        /// How many it takes.
        needed: usize,
    },
    /// An authority voted twice, and [`DoublePolicy::Stop`] is set.
    #[error("authority {0} voted twice, and this one is set to stop then: ask its operator")]
    Stopped(Fingerprint),
    /// The time for it went by while the program did not run.
    #[error("the time for computing the consensus went by: did the machine sleep, or the clock jump?")]
    Missed,
}

/// What the operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Alarm {
    /// An authority has two votes.
    #[error("{0}")]
    Double(Finding),
    /// The period began without us.
    #[error("too late to vote for this period: the others would not take the vote any more")]
    TooLateToVote,
    /// An authority has signed another consensus than ours.
    #[error("authority {0} has signed another consensus than ours: it counted other votes")]
    OtherConsensus(Fingerprint),
    /// Our key did not sign.
    #[error("the signing key does not sign: is it the one that the certificate names?")]
    Signing,
}

impl NoConsensus {
    /// A name for counting.
    pub fn label(&self) -> &'static str {
        match self {
            NoConsensus::Tally(_) => "no_tally",
            NoConsensus::TooFewSignatures { .. } => "too_few_signatures",
            NoConsensus::Stopped(_) => "stopped",
            NoConsensus::Missed => "missed",
        }
    }
}

impl Alarm {
    /// A name for counting.
    pub fn label(&self) -> &'static str {
        match self {
            Alarm::Double(Finding { evidence: Evidence::Double, .. }) => "double_vote",
            Alarm::Double(Finding { evidence: Evidence::Restart, .. }) => "second_vote",
            Alarm::TooLateToVote => "too_late_to_vote",
            Alarm::OtherConsensus(_) => "other_consensus",
            Alarm::Signing => "signing",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
