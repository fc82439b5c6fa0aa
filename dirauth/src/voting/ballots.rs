//! The votes of a period: of each authority the one that counts, and what else it signed.

use std::collections::BTreeMap;

use onionring_proto::netdoc::authcert::CertStore;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::netdoc::vote::SignedVote;

use super::double::{Evidence, Finding, Seen};
use crate::limits::OTHER_VOTES;

/// What an authority voted.
#[derive(Clone, Debug)]
pub(super) struct Ballot {
    /// The vote that counts.
    pub seen: Seen,
    pub vote: SignedVote,
    /// Different ones, in the order in which they were found; at most [`OTHER_VOTES`].
    pub others: Vec<Seen>,
    /// What the worst pair among them is.
    pub evidence: Option<Evidence>,
}

/// By authority.
#[derive(Clone, Debug, Default)]
pub(super) struct Ballots(BTreeMap<Fingerprint, Ballot>);

/// How far a vote may change what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It counts if it is the latest of its authority.
    Full,
    /// It counts if there is no other of its authority.
    IfMissing,
    /// It does not count, and can only be evidence.
    None,
}

/// What became of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It counts now.
    Stored,
    /// It counted already.
    Same,
    /// Another of its authority counts.
    Older,
    /// It came without standing, and its authority has no vote.
    Dropped,
}

impl Ballots {
    /// Takes a valid vote of a configured authority. The second value is what was found out by it, once for each vote.
    pub fn admit(&mut self, seen: Seen, vote: SignedVote, standing: Standing) -> (Taken, Option<Finding>) {
        let authority = vote.vote.authority.identity;
        let Some(ballot) = self.0.get_mut(&authority) else {
            if standing == Standing::None {
                return (Taken::Dropped, None);
            }
            self.0.insert(authority, Ballot { seen, vote, others: Vec::new(), evidence: None });
            return (Taken::Stored, None);
        };
        if ballot.seen.digest == seen.digest {
            return (Taken::Same, None);
        }
        let finding = ballot.compare(&seen).map(|evidence| Finding {
            authority,
            evidence,
            votes: [ballot.seen.digest, seen.digest],
        });
        let taken = if standing == Standing::Full && seen.published > ballot.seen.published {
            ballot.replace(seen, vote);
            Taken::Stored
        } else {
            ballot.keep(seen);
            Taken::Older
        };
        (taken, finding)
    }

    /// The vote of an authority that counts.
    pub fn get(&self, authority: &Fingerprint) -> Option<&Ballot> {
        self.0.get(authority)
    }

    /// All that voted, by identity.
    pub fn iter(&self) -> impl Iterator<Item = (&Fingerprint, &Ballot)> {
        self.0.iter()
    }

    /// The certificates of all votes that are kept.
    pub fn certs(&self) -> CertStore {
        let mut certs = CertStore::default();
        self.0.values().flat_map(Ballot::all).for_each(|seen| certs.insert(seen.cert.clone()));
        certs
    }

    /// The authorities of which two votes are at hand that no restart explains.
    pub fn doubles(&self) -> impl Iterator<Item = &Fingerprint> {
        self.iter().filter(|(_, ballot)| ballot.evidence == Some(Evidence::Double)).map(|(id, _)| id)
    }
}

impl Ballot {
    /// All votes, the one that counts first.
    pub fn all(&self) -> impl Iterator<Item = &Seen> {
        std::iter::once(&self.seen).chain(&self.others)
    }

    /// What the vote is beside those that are there; nothing if it is one of them, or if there are too many and it proves
    /// nothing new. A double vote is found however many restarts were made up before it.
    fn compare(&mut self, new: &Seen) -> Option<Evidence> {
        if self.others.iter().any(|seen| seen.digest == new.digest) {
            return None;
        }
        let evidence = self.all().map(|seen| seen.against(new)).max()?;
        if self.others.len() >= OTHER_VOTES && Some(evidence) <= self.evidence {
            return None;
        }
        self.evidence = self.evidence.max(Some(evidence));
        Some(evidence)
    }

    /// Keeps a vote beside the one that counts; in place of the last, if there are too many and it is part of the proof.
    fn keep(&mut self, seen: Seen) {
        if self.others.iter().any(|other| other.digest == seen.digest) {
            return;
        }
        if self.others.len() < OTHER_VOTES {
            self.others.push(seen);
        } else if self.evidence == Some(Evidence::Double)
            && self.others.iter().all(|other| other.against(&self.seen) != Evidence::Double)
            && let Some(last) = self.others.last_mut()
        {
            *last = seen;
        }
    }

    /// The present vote gives way to `seen`, which may have been there among the others.
    fn replace(&mut self, seen: Seen, vote: SignedVote) {
        self.others.retain(|other| other.digest != seen.digest);
        let before = std::mem::replace(&mut self.seen, seen);
        self.vote = vote;
        self.keep(before);
    }
}
