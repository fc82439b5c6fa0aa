//! The four rounds of one period.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use onionring_proto::netdoc::consensus::Lifetime;
use onionring_proto::netdoc::detached::DetachedSignatures;
use onionring_proto::netdoc::tally::{SharedRandomTerms, Tally, Terms};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::netdoc::vote::{SignedVote, split};
use onionring_proto::time::Unix;
use rand_core::CryptoRng;
use thiserror::Error;

use super::ballots::{Ballots, Standing, Taken};
use super::double::{DoublePolicy, Evidence, Seen};
use super::signatures::{FORGED, OTHER_TIMES, Pair, QUEUED, Queue, UNREADABLE, is_forged, verified};
use super::{Action, Alarm, Answer, NoConsensus, Period, Rules, Signer, Whence};
use crate::limits::{SIGNATURES, VOTE, VOTES_PER_BODY};

/// The shortest time from one consensus to the next outside of testing networks, as in C tor.
const INTERVAL_MIN: Duration = Duration::from_secs(300);

const STORED: Answer = Answer::ok("Vote stored");
const DUPLICATE: Answer = Answer::ok("Duplicate discarded");
const UNPARSABLE: Answer = Answer::refused("Unable to parse vote");
/// To a vote of somebody who is no configured authority.
pub const STRANGER: Answer = Answer::refused("Vote not from a recognized v3 authority");
const OTHER_SLOT: Answer = Answer::refused("Bad valid-after time");
const TOO_LATE: Answer = Answer::refused("Posted vote received too late, would be dangerous to count it");
const OLDER: Answer = Answer::refused("Already have a newer pending vote");

/// Why our own vote is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OwnVoteError {
    /// There is one.
    #[error(
        "this period has a vote of ours already, and a second one would be a double vote: post that one again"
    )]
    Already,
    /// Nobody would take it any more.
    #[error(
        "the vote was made too late: it takes longer than half of the vote delay, so raise V3AuthVoteDelay"
    )]
    TooLate,
    /// It is refused as anybody's would be.
    #[error("our own vote would be refused by others: {0}")]
    Refused(&'static str),
    /// Another identity made it.
    #[error(
        "the vote is one of another authority: does the certificate belong to the configured v3 identity?"
    )]
    NotOurs,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Vote,
    FetchVotes,
    Tell,
    Compute,
    FetchSignatures,
    Publish,
    Over,
}

/// What the consensus was computed by besides the votes. After a restart it is computed by the same, whatever has come to
/// light meanwhile: an authority signs no two consensuses of a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// The authorities that were left out, as they had voted twice.
    pub excluded: BTreeSet<Fingerprint>,
    /// Our part in the shared random protocol.
    pub shared_random: Option<SharedRandomTerms>,
}

/// Voting for one consensus.
///
/// Actions are to be done in their order, and each [`Action::Save`] before the ones that follow it: a vote or signature
/// that left before it was saved could be followed by another one after a restart.
#[derive(Clone, Debug)]
pub struct Round {
    pub(super) rules: Rules,
    pub(super) period: Period,
    step: Step,
    pub(super) ballots: Ballots,
    pub(super) queue: Queue,
    pub(super) pair: Option<Pair>,
    /// What the consensus was computed by, once it was: no other votes count from then on.
    pub(super) settled: Option<Settled>,
    /// Who has signed another consensus than ours.
    dissenters: BTreeSet<Fingerprint>,
    /// Digests of votes that the others were told of as evidence.
    told: BTreeSet<Fingerprint>,
    actions: VecDeque<Action>,
}

impl Round {
    /// Nothing has happened yet in this period.
    pub fn new(rules: Rules, period: Period) -> Self {
        Round {
            rules,
            period,
            step: Step::Vote,
            ballots: Ballots::default(),
            queue: Queue::default(),
            pair: None,
            settled: None,
            dissenters: BTreeSet::new(),
            told: BTreeSet::new(),
            actions: VecDeque::new(),
        }
    }

    /// Its times.
    pub fn period(&self) -> &Period {
        &self.period
    }

    /// Whether it has ended: with a consensus or without, it is time for the next one.
    pub fn is_over(&self) -> bool {
        self.step == Step::Over
    }

    /// Whether a round of `next`, which the schedule finds now, is to take its place: because it is over; because it has
    /// not begun and the clock, or a consensus from elsewhere, has moved the slots meanwhile; or because it has begun in
    /// what is the future now, as the clock was set back by more than a slot. If only the slots move, a round that has
    /// begun goes on: what is found then still ends after this one began.
    pub fn gives_way_to(&self, next: &Period) -> bool {
        let is_of_the_future = next.valid_after <= self.period.voting_starts;
        self.is_over() || self.period != *next && (self.step == Step::Vote || is_of_the_future)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Round::handle_timeout`] has something to do; `None` when the round is over.
    pub fn poll_timeout(&self) -> Option<Unix> {
        match self.step {
            Step::Vote => Some(self.period.voting_starts),
            Step::FetchVotes => Some(self.period.fetch_votes),
            Step::Tell => Some(self.tell_at()),
            Step::Compute => Some(self.period.voting_ends),
            Step::FetchSignatures => Some(self.period.fetch_signatures),
            Step::Publish => Some(self.period.valid_after),
            Step::Over => None,
        }
    }

    /// The vote of an authority that counts, to be served to others.
    pub fn vote(&self, authority: &Fingerprint) -> Option<(&Arc<str>, &SignedVote)> {
        self.ballots.get(authority).map(|ballot| (&ballot.seen.text, &ballot.vote))
    }

    /// The votes that count, by authority.
    pub fn votes(&self) -> impl Iterator<Item = (&Arc<str>, &SignedVote)> {
        self.ballots.iter().map(|(_, ballot)| (&ballot.seen.text, &ballot.vote))
    }

    /// The signatures that are known, to be served to others; `None` as long as there is none.
    pub fn signatures(&self) -> Option<String> {
        let is_signed = |pair: &&Pair| pair.flavors().iter().any(|flavor| flavor.signers().next().is_some());
        self.pair.as_ref().filter(is_signed).map(Pair::detached)
    }

    /// The consensus that we computed, of the flavour that names descriptors, with the signatures so far, to be served to
    /// others.
    pub fn consensus(&self) -> Option<String> {
        self.pair.as_ref().map(Pair::text)
    }

    /// Whether we have computed a consensus.
    pub fn has_consensus(&self) -> bool {
        self.pair.is_some()
    }

    /// Who has signed what we computed, in both flavours or in one.
    pub fn signers(&self) -> impl Iterator<Item = Fingerprint> {
        let pairs = self.pair.iter().flat_map(Pair::flavors);
        pairs.flat_map(|pending| pending.signers()).copied().collect::<BTreeSet<_>>().into_iter()
    }

    /// Does what is due. What is overdue is done at once if it still makes sense.
    pub fn handle_timeout(&mut self, now: Unix, signer: &Signer, rng: &mut impl CryptoRng) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            match self.step {
                Step::Vote => self.start(now),
                Step::FetchVotes => self.fetch_votes(now),
                Step::Tell => self.tell_of_doubles(),
                Step::Compute => self.compute(now, signer, rng),
                Step::FetchSignatures => {
                    self.fetch_signatures(now);
                    self.tell_of_doubles();
                }
                Step::Publish | Step::Over => self.publish(),
            }
            self.step = match self.step {
                Step::Vote => Step::FetchVotes,
                Step::FetchVotes => Step::Tell,
                Step::Tell => Step::Compute,
                Step::Compute => Step::FetchSignatures,
                Step::FetchSignatures => Step::Publish,
                Step::Publish | Step::Over => Step::Over,
            };
        }
    }

    /// Takes our vote, made after [`Action::MakeVote`].
    ///
    /// # Errors
    /// [`OwnVoteError`]; the round goes on without our vote.
    pub fn handle_own_vote(&mut self, now: Unix, text: &str) -> Result<(), OwnVoteError> {
        if self.own_vote().is_some() {
            return Err(OwnVoteError::Already);
        }
        if now > self.period.fetch_votes {
            return Err(OwnVoteError::TooLate);
        }
        let (seen, vote) =
            self.parse(now, text, Whence::Own).map_err(|answer| OwnVoteError::Refused(answer.reason))?;
        if vote.vote.authority.identity != self.rules.us {
            return Err(OwnVoteError::NotOurs);
        }
        self.take(seen, vote, Standing::Full);
        self.post_vote();
        Ok(())
    }

    /// Takes votes that were posted, or that an authority sent when we asked.
    ///
    /// If a body has several, the answer is the first refusal, and otherwise the best.
    pub fn handle_vote(&mut self, now: Unix, body: &[u8], whence: Whence) -> Answer {
        let Some(text) = std::str::from_utf8(body).ok().filter(|t| t.starts_with("network-status-version"))
        else {
            return UNPARSABLE;
        };
        let mut votes = split(text);
        let answers: Vec<Answer> =
            votes.by_ref().take(VOTES_PER_BODY).map(|vote| self.handle_one(now, vote, whence)).collect();
        let refused = answers.iter().find(|answer| answer.status != 200);
        match refused {
            Some(refused) => *refused,
            None if answers.is_empty() || votes.next().is_some() => UNPARSABLE,
            None if answers.contains(&STORED) => STORED,
            None => DUPLICATE,
        }
    }

    fn handle_one(&mut self, now: Unix, text: &str, whence: Whence) -> Answer {
        let (seen, vote) = match self.parse(now, text, whence) {
            Ok(parsed) => parsed,
            Err(answer) => return answer,
        };
        let late = !matches!(whence, Whence::Fetched(_)) && now > self.period.fetch_votes;
        let standing = match whence {
            _ if self.settled.is_some() || late => Standing::None,
            Whence::Fetched(_) => Standing::IfMissing,
            Whence::Own | Whence::Posted(_) => Standing::Full,
        };
        match self.take(seen, vote, standing) {
            _ if late => TOO_LATE,
            Taken::Stored => STORED,
            Taken::Same => DUPLICATE,
            Taken::Older => OLDER,
            Taken::Dropped => TOO_LATE,
        }
    }

    /// A vote that is right in itself, of a configured authority, and for this period.
    pub(super) fn parse(&self, now: Unix, text: &str, whence: Whence) -> Result<(Seen, SignedVote), Answer> {
        if text.len() > VOTE {
            return Err(UNPARSABLE);
        }
        let vote = SignedVote::parse(text).map_err(|_| UNPARSABLE)?;
        if !self.rules.testing && !has_intervals_of_the_public_network(&vote.vote.lifetime) {
            return Err(UNPARSABLE);
        }
        // The certificate may have expired meanwhile: C tor counts the vote all the same, and so must all.
        if !self.rules.authorities.contains(&vote.vote.authority.identity) {
            return Err(STRANGER);
        }
        if vote.vote.lifetime.valid_after != self.period.valid_after {
            return Err(OTHER_SLOT);
        }
        let published = vote.vote.published;
        let cert = vote.vote.certificate.cert().clone();
        Ok((Seen { text: text.into(), digest: vote.digest, published, cert, whence, at: now }, vote))
    }

    fn take(&mut self, seen: Seen, vote: SignedVote, standing: Standing) -> Taken {
        let authority = vote.vote.authority.identity;
        let (new, before) = (seen.clone(), self.ballots.get(&authority).map(|ballot| ballot.seen.clone()));
        let (taken, finding) = self.ballots.admit(seen, vote, standing);
        if let Some(finding) = finding {
            for seen in before.iter().chain([&new]) {
                let (name, contents) = seen.file(&authority, self.period.valid_after);
                self.actions.push_back(Action::Store { name, contents });
            }
            self.actions.push_back(Action::Alarm(Alarm::Double(finding)));
        }
        if taken == Taken::Stored || finding.is_some() {
            self.save();
        }
        taken
    }

    /// Takes a vote of a snapshot, the one of each authority that counts before others.
    pub(super) fn restore(&mut self, seen: Seen, vote: SignedVote) {
        self.ballots.admit(seen, vote, Standing::IfMissing);
    }

    /// Takes signatures of a snapshot: they wait for the consensus to be computed again.
    pub(super) fn restore_signatures(&mut self, doc: DetachedSignatures) {
        if let Some(doc) = verified(doc, &self.ballots.certs(), Unix(0)) {
            self.queue.push(doc);
        }
    }

    /// Takes signatures that were posted, or that an authority sent when we asked.
    pub fn handle_signatures(&mut self, now: Unix, body: &[u8]) -> Answer {
        let doc = std::str::from_utf8(body).ok().filter(|text| text.len() <= SIGNATURES);
        let doc = doc.and_then(|text| DetachedSignatures::parse(text).ok());
        match (doc, self.pair.is_some()) {
            (Some(doc), true) => self.add_signatures(now, doc),
            (Some(doc), false) => self.queue_signatures(now, doc),
            (None, _) => UNREADABLE,
        }
    }

    /// Keeps what is right. Of those whose votes are not here nothing is known, so that is answered as by C tor.
    fn queue_signatures(&mut self, now: Unix, doc: DetachedSignatures) -> Answer {
        let certs = self.ballots.certs();
        if doc.lifetime.valid_after != self.period.valid_after {
            return OTHER_TIMES;
        }
        if is_forged(&doc, &certs) {
            return FORGED;
        }
        if let Some(doc) = verified(doc, &certs, now)
            && self.queue.push(doc)
        {
            self.save();
        }
        QUEUED
    }

    fn add_signatures(&mut self, now: Unix, doc: DetachedSignatures) -> Answer {
        let Some(pair) = &mut self.pair else { return QUEUED };
        let certs = self.ballots.certs();
        let (added, answer) = pair.add(&doc, &certs, now);
        if doc.lifetime.valid_after == self.period.valid_after && pair.differs(&doc) {
            let signers = verified(doc, &certs, now).into_iter().flat_map(|doc| doc.signatures);
            for signer in signers.map(|signature| signature.identity) {
                if self.dissenters.insert(signer) {
                    self.actions.push_back(Action::Alarm(Alarm::OtherConsensus(signer)));
                }
            }
        }
        if added > 0 {
            self.save();
        }
        answer
    }

    fn start(&mut self, now: Unix) {
        if now >= self.period.fetch_votes && now > self.period.voting_starts {
            if self.own_vote().is_none() {
                self.actions.push_back(Action::Alarm(Alarm::TooLateToVote));
            }
        } else if self.own_vote().is_some() {
            // Made before a restart. Who has it already discards it.
            self.post_vote();
        } else {
            self.actions.push_back(Action::MakeVote(self.period));
        }
    }

    fn post_vote(&mut self) {
        let Some(text) = self.own_vote() else { return };
        for to in self.peers() {
            self.actions.push_back(Action::PostVote { to, text: text.clone() });
        }
    }

    fn fetch_votes(&mut self, now: Unix) {
        if now >= self.period.voting_ends {
            return;
        }
        let missing = |id: &&Fingerprint| self.rules.compare || self.ballots.get(id).is_none();
        let of: Vec<Fingerprint> = self.rules.authorities.iter().filter(missing).copied().collect();
        let of: Vec<Fingerprint> = of.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        if of.is_empty() {
            return;
        }
        for from in self.peers() {
            self.actions.push_back(Action::FetchVotes { from, of: of.clone() });
        }
    }

    fn compute(&mut self, now: Unix, signer: &Signer, rng: &mut impl CryptoRng) {
        if now >= self.period.valid_after {
            return self.give_up(NoConsensus::Missed);
        }
        let settled = self.settled.take().unwrap_or_else(|| self.settle());
        self.settled = Some(settled.clone());
        if let Some(authority) = self.stopped_by() {
            return self.give_up(NoConsensus::Stopped(authority));
        }
        match self.tally(&settled) {
            Ok(tally) => self.sign(now, tally, signer, rng),
            Err(error) => self.give_up(error),
        }
    }

    /// In time for others to leave out who voted twice, and long enough after votes count for clocks to differ: stock
    /// authorities would count the vote that was published later.
    fn tell_at(&self) -> Unix {
        let Period { fetch_votes, voting_ends, .. } = self.period;
        fetch_votes + Duration::from_secs(voting_ends.0.saturating_sub(fetch_votes.0).div_ceil(2))
    }

    /// Posts the votes of who voted twice to the others, as nobody else may have got both. They are too late to count.
    fn tell_of_doubles(&mut self) {
        let doubles = self.ballots.iter().filter(|(_, ballot)| ballot.evidence == Some(Evidence::Double));
        for (authority, ballot) in doubles {
            for seen in ballot.all().filter(|seen| self.told.insert(seen.digest)) {
                let others = self.rules.authorities.iter();
                for to in others.filter(|id| **id != self.rules.us && *id != authority) {
                    self.actions.push_back(Action::TellVote { to: *to, text: seen.text.clone() });
                }
            }
        }
    }

    fn settle(&self) -> Settled {
        let excluded = match self.rules.doubles {
            DoublePolicy::Exclude => self.ballots.doubles().copied().collect(),
            DoublePolicy::Alert | DoublePolicy::Stop => BTreeSet::new(),
        };
        Settled { excluded, shared_random: self.rules.terms.shared_random }
    }

    fn tally(&self, settled: &Settled) -> Result<Tally, NoConsensus> {
        let counted = self.ballots.iter().filter(|(id, _)| !settled.excluded.contains(id));
        let terms = Terms { authorities: self.rules.authorities.len(), shared_random: settled.shared_random };
        Ok(Tally::of(counted.map(|(_, ballot)| &ballot.vote), &terms)?)
    }

    fn sign(&mut self, now: Unix, tally: Tally, signer: &Signer, rng: &mut impl CryptoRng) {
        // Others take signatures only of those whose votes they counted.
        let are_source = tally.ns.sources.contains(&self.rules.us);
        let mut pair = Pair::new(tally);
        let signed = are_source && {
            let result = pair.sign(signer, rng);
            if result.is_err() {
                self.actions.push_back(Action::Alarm(Alarm::Signing));
            }
            result.is_ok()
        };
        let own = signed.then(|| Arc::<str>::from(pair.detached()));
        self.pair = Some(pair);
        for doc in std::mem::take(&mut self.queue).iter() {
            self.add_signatures(now, doc.clone());
        }
        self.save();
        if let Some(text) = own {
            for to in self.peers() {
                self.actions.push_back(Action::PostSignatures { to, text: text.clone() });
            }
        }
    }

    fn fetch_signatures(&mut self, now: Unix) {
        let wanting = self.pair.as_ref().is_some_and(|pair| !pair.signed_by_all(&self.rules.authorities));
        if wanting && now < self.period.valid_after {
            for from in self.peers() {
                self.actions.push_back(Action::FetchSignatures { from });
            }
        }
    }

    fn publish(&mut self) {
        // Without one, the reason was told when it should have been computed.
        let Some(pair) = &self.pair else { return };
        if let Some(authority) = self.stopped_by() {
            return self.give_up(NoConsensus::Stopped(authority));
        }
        let authorities = &self.rules.authorities;
        let complete = pair.complete(authorities);
        if complete.is_empty() {
            let (signed, needed) = (pair.signed_by(authorities), authorities.len() / 2 + 1);
            return self.give_up(NoConsensus::TooFewSignatures { signed, needed });
        }
        self.actions.push_back(Action::Publish(complete));
    }

    fn give_up(&mut self, reason: NoConsensus) {
        self.actions.push_back(Action::NoConsensus(reason));
    }

    /// The authority on whose account we stop.
    fn stopped_by(&self) -> Option<Fingerprint> {
        let stop = self.rules.doubles == DoublePolicy::Stop;
        self.ballots.doubles().next().filter(|_| stop).copied()
    }

    fn own_vote(&self) -> Option<Arc<str>> {
        self.ballots.get(&self.rules.us).map(|ballot| ballot.seen.text.clone())
    }

    fn peers(&self) -> Vec<Fingerprint> {
        self.rules.authorities.iter().filter(|id| **id != self.rules.us).copied().collect()
    }

    /// One that nobody has done yet is enough, if nothing is queued behind it.
    fn save(&mut self) {
        if self.actions.back() != Some(&Action::Save) {
            self.actions.push_back(Action::Save);
        }
    }
}

/// Whether a consensus lasts as long as C tor wants it outside of testing networks; what it wants within them, every vote
/// that was read has.
fn has_intervals_of_the_public_network(lifetime: &Lifetime) -> bool {
    let Lifetime { valid_after, fresh_until, valid_until } = *lifetime;
    fresh_until >= valid_after + INTERVAL_MIN && valid_until >= valid_after + 2 * INTERVAL_MIN
}
