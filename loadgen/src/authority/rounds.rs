//! Two votes, one after the other.

use std::thread;
use std::time::{Duration, Instant};

use onionring_proto::netdoc::consensus::{Flavor, PendingConsensus, UnverifiedConsensus};
use onionring_proto::netdoc::detached::DetachedSignatures;
use onionring_proto::netdoc::tally::{SharedRandomTerms, Tally, Terms};
use onionring_proto::netdoc::vote::SignedVote;
use onionring_proto::time::Unix;

use super::subject::Subject;
use super::{AuthorityError, Bytes, Figure, Step, Which, clock};
use crate::net::directory::Document;
use crate::synthetic::{Directory, Slot, SyntheticError};

/// Time to make the votes on paper and to hand them in before the authority votes itself.
const HEAD_START: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
const OWN_VOTE: &str = "/tor/status-vote/next/authority";

/// All that both votes need.
pub(super) struct Rounds<'a> {
    pub subject: &'a Subject,
    pub directory: &'a Directory,
    pub interval: Duration,
    pub stop: &'a (dyn Fn() -> bool + Sync),
    pub tell: &'a dyn Fn(&str),
}

/// What came of them.
pub(super) struct Outcome {
    /// The consensuses that name microdescriptors, the first and the second.
    pub consensuses: [String; 2],
    /// Whether all were computed as the library computes them.
    pub agrees: bool,
    /// Sizes of the second.
    pub bytes: Bytes,
}

struct Round {
    microdesc: String,
    agrees: bool,
    bytes: Bytes,
}

impl Rounds<'_> {
    pub(super) fn run(&self, figures: &mut Vec<Figure>) -> Result<Outcome, AuthorityError> {
        let first = self.round(Which::First, figures)?;
        let second = self.round(Which::Second, figures)?;
        Ok(Outcome {
            consensuses: [first.microdesc, second.microdesc],
            agrees: first.agrees && second.agrees,
            bytes: second.bytes,
        })
    }

    /// Only the first.
    pub(super) fn first(&self) -> Result<(), AuthorityError> {
        self.round(Which::First, &mut Vec::new()).map(drop)
    }

    fn round(&self, which: Which, figures: &mut Vec<Figure>) -> Result<Round, AuthorityError> {
        let slot = self.slot(which)?;
        (self.tell)("making the votes of the others");
        let mut votes = self.votes(&slot)?;
        let [voting_starts, voting_ends] = self.subject.timing().instants(&slot);

        (self.tell)("votes of the others");
        figures.push(self.subject.measured(Step::Votes(which), || {
            votes.iter().enumerate().try_for_each(|(n, (text, _))| {
                self.subject.post("a vote", Some(n + 1), "/tor/post/vote", text.as_bytes())
            })
        })?);
        if clock() + Duration::from_secs(1) >= voting_starts {
            return Err(AuthorityError::Late("the time to hand in votes", String::new()));
        }

        (self.tell)("its own vote");
        let mut own = String::new();
        self.wait(voting_starts)?;
        figures.push(self.subject.measured(Step::OwnVote(which), || {
            own = self.document("its vote", OWN_VOTE, "", voting_ends)?;
            Ok(())
        })?);
        let vote = SignedVote::parse(&own);
        let vote = vote.map_err(|error| AuthorityError::Unreadable("its vote", error.to_string()))?;
        let mut bytes = Bytes { vote: own.len(), ..Bytes::default() };
        votes.push((own, vote));
        let tallies = self.tallies(&votes)?;

        (self.tell)("its consensus");
        self.wait(voting_ends)?;
        let mut agrees = false;
        let signing = self.subject.measured(Step::Consensus(which), || {
            let path = Document::NextConsensus.to_string();
            let consensus = self.document("its consensus", &path, "", slot.valid_after)?;
            let ours = tallies.iter().find(|tally| consensus.starts_with(&tally.ns.text));
            agrees = ours.is_some();
            // Nothing that differs can be signed; there will be no consensus.
            ours.map_or(Ok(()), |tally| self.sign(tally.clone()))
        })?;
        figures.push(signing);

        (self.tell)("publication");
        self.wait(slot.valid_after)?;
        let mut microdesc = String::new();
        let end = slot.valid_after + self.interval / 2;
        figures.push(self.subject.measured(Step::Publication(which), || {
            microdesc = self.published(Flavor::Microdesc, &slot, end)?;
            Ok(())
        })?);
        let ns = self.published(Flavor::Ns, &slot, end)?;
        agrees &= tallies
            .iter()
            .any(|tally| ns.starts_with(&tally.ns.text) && microdesc.starts_with(&tally.microdesc.text));
        (bytes.ns, bytes.microdesc) = (ns.len(), microdesc.len());
        Ok(Round { microdesc, agrees, bytes })
    }

    /// The next slot that leaves enough time.
    fn slot(&self, which: Which) -> Result<Slot, AuthorityError> {
        let number = if which == Which::First { 0 } else { 1 };
        loop {
            let slot = self.subject.timing().slot(number, clock());
            let [voting_starts, _] = self.subject.timing().instants(&slot);
            if clock() + HEAD_START <= voting_starts {
                return Ok(slot);
            }
            self.wait(slot.valid_after + Duration::from_secs(2))?;
        }
    }

    /// What all but the first authority vote.
    fn votes(&self, slot: &Slot) -> Result<Vec<(String, SignedVote)>, SyntheticError> {
        let directory = self.directory;
        let others = 1..directory.authorities.len();
        thread::scope(|scope| {
            let makers: Vec<_> = others.map(|n| scope.spawn(move || directory.vote(n, slot))).collect();
            makers.into_iter().map(|maker| maker.join().expect("making votes does not panic")).collect()
        })
    }

    /// What the library computes. How the authority stands with shared randomness is its own business, and each way
    /// gives the same but for that.
    fn tallies(&self, votes: &[(String, SignedVote)]) -> Result<Vec<Tally>, AuthorityError> {
        let authorities = self.directory.authorities.len();
        let terms = [None, Some(SharedRandomTerms { fresh: false }), Some(SharedRandomTerms { fresh: true })];
        let mut tallies: Vec<Tally> = Vec::new();
        for shared_random in terms {
            let tally = Tally::of(votes.iter().map(|(_, vote)| vote), &Terms { authorities, shared_random })?;
            if !tallies.contains(&tally) {
                tallies.push(tally);
            }
        }
        Ok(tallies)
    }

    /// The others sign, each for itself.
    fn sign(&self, tally: Tally) -> Result<(), AuthorityError> {
        let rng = &mut rand::rng();
        for (n, authority) in self.directory.authorities.iter().enumerate().skip(1) {
            let (mut ns, mut microdesc) =
                (PendingConsensus::new(tally.ns.clone()), PendingConsensus::new(tally.microdesc.clone()));
            authority.sign([&mut ns, &mut microdesc], rng)?;
            let signatures =
                DetachedSignatures::of(&ns, &microdesc).map(|doc| doc.encode()).unwrap_or_default();
            let path = "/tor/post/consensus-signature";
            self.subject.post("a signature", Some(n), path, signatures.as_bytes())?;
        }
        Ok(())
    }

    /// The consensus of a slot, once it is in force.
    fn published(&self, flavor: Flavor, slot: &Slot, until: Unix) -> Result<String, AuthorityError> {
        // Until then the one before may be there, which is not asked for.
        let newer = httpdate::fmt_http_date(
            std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(slot.valid_after.0 - 1),
        );
        let (path, headers) =
            (Document::Consensus(flavor).to_string(), format!("If-Modified-Since: {newer}\r\n"));
        let text = self.document("the consensus in force", &path, &headers, until)?;
        let parsed = UnverifiedConsensus::parse(&text);
        let unreadable = |error| AuthorityError::Unreadable("the consensus in force", error);
        let valid_after = parsed.map_err(|e| unreadable(e.to_string()))?.peek().lifetime.valid_after;
        if valid_after == slot.valid_after { Ok(text) } else { Err(unreadable("another time's".to_owned())) }
    }

    fn document(
        &self,
        what: &'static str,
        path: &str,
        headers: &str,
        until: Unix,
    ) -> Result<String, AuthorityError> {
        self.subject.await_document(what, path, headers, until, self.stop)
    }

    /// Waits until a time.
    fn wait(&self, until: Unix) -> Result<(), AuthorityError> {
        let began = Instant::now();
        while clock() < until {
            if (self.stop)() {
                return Err(AuthorityError::Interrupted);
            }
            debug_assert!(began.elapsed() < self.interval * 2);
            thread::sleep(POLL);
        }
        Ok(())
    }
}
