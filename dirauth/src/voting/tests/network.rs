//! Authorities that vote over a network made of a queue: messages take time, get lost and overtake each other, all by a
//! seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use onionring_proto::netdoc::consensus::Flavor;
use onionring_proto::netdoc::tally::Terms;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::maker::{PERIOD, VALID_AFTER, identities, maker};
use crate::voting::{Action, Alarm, DoublePolicy, Evidence, NoConsensus, Round, Rules, Whence};

/// Milliseconds from one look at the clock to the next.
const TICK: u64 = 250;
/// Milliseconds before the consensus at which everything starts and ends.
const START: i64 = -18_000;
const END: i64 = 4_000;

/// An authority and what became of it.
pub struct Node {
    pub round: Option<Round>,
    /// What its disk has.
    saved: Option<String>,
    /// Milliseconds by which its clock is ahead.
    pub skew: i64,
    /// Milliseconds more that its messages take.
    pub slow: u64,
    /// Not reachable, though it runs.
    pub cut_off: bool,
    /// Votes that it serves instead of taking part: the test plays it.
    pub puppet: Option<Vec<Arc<str>>>,
    pub published: Option<Vec<(Flavor, String)>>,
    pub failure: Option<NoConsensus>,
    pub alarms: Vec<Alarm>,
    pub stored: BTreeMap<String, String>,
    /// Own votes that it made.
    pub made: usize,
}

enum Message {
    Vote(Arc<str>),
    Signatures(Arc<str>),
    AskVotes(Vec<Fingerprint>),
    AskSignatures,
    VotesFor(Vec<Arc<str>>),
    SignaturesFor(String),
}

/// A network of authorities.
pub struct Network {
    pub nodes: Vec<Node>,
    /// Messages of a hundred that get lost.
    pub loss: u64,
    /// Milliseconds that messages take at most.
    pub delay: u64,
    dice: ChaCha8Rng,
    rules: Rules,
    /// Milliseconds since the consensus.
    pub now: i64,
    queue: BTreeMap<(i64, u64), (usize, usize, Message)>,
    sent: u64,
}

impl Network {
    pub fn new(n: usize, seed: u64, doubles: DoublePolicy) -> Self {
        let authorities = identities(n);
        let terms = Terms { authorities: n, shared_random: None };
        let rules = Rules { us: authorities[0], authorities, terms, doubles, compare: true, testing: true };
        let nodes = (0..n).map(|i| Node {
            round: Some(Round::new(Rules { us: maker(i).identity(), ..rules.clone() }, PERIOD)),
            saved: None,
            skew: 0,
            slow: 0,
            cut_off: false,
            puppet: None,
            published: None,
            failure: None,
            alarms: Vec::new(),
            stored: BTreeMap::new(),
            made: 0,
        });
        let dice = ChaCha8Rng::seed_from_u64(seed);
        let nodes = nodes.collect();
        Network { nodes, loss: 0, delay: 700, dice, rules, now: START, queue: BTreeMap::new(), sent: 0 }
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.dice.next_u64() % n
    }

    pub fn kill(&mut self, n: usize) {
        self.nodes[n].round = None;
    }

    /// Back with what was saved.
    pub fn restart(&mut self, n: usize) {
        let rules = self.rules_of(n);
        let node = &mut self.nodes[n];
        node.round = Some(match &node.saved {
            Some(saved) => Round::from_snapshot(rules, PERIOD, saved).unwrap(),
            None => Round::new(rules, PERIOD),
        });
    }

    pub fn rules_of(&self, n: usize) -> Rules {
        Rules { us: maker(n).identity(), ..self.rules.clone() }
    }

    /// The test plays this one: it does nothing by itself but serve these votes.
    pub fn puppet(&mut self, n: usize, votes: &[&Arc<str>]) {
        self.kill(n);
        self.nodes[n].puppet = Some(votes.iter().map(|vote| Arc::clone(vote)).collect());
    }

    pub fn post_vote(&mut self, from: usize, to: usize, vote: &Arc<str>) {
        self.send(from, to, Message::Vote(vote.clone()));
    }

    pub fn finish(&mut self) {
        self.run_until(END);
    }

    /// Lets time pass until so many milliseconds after the consensus begins.
    pub fn run_until(&mut self, end: i64) {
        while self.now < end {
            self.now += TICK as i64;
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, to, message) = entry.remove();
                self.deliver(from, to, message);
            }
            for n in 0..self.nodes.len() {
                let now = self.clock(n);
                if let Some(round) = &mut self.nodes[n].round {
                    round.handle_timeout(now, &maker(n).signer, &mut self.dice);
                }
                self.act(n);
            }
        }
    }

    fn clock(&self, n: usize) -> Unix {
        let millis = VALID_AFTER as i64 * 1000 + self.now + self.nodes[n].skew;
        Unix(millis as u64 / 1000)
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let lost = self.below(100) < self.loss || self.nodes[from].cut_off || self.nodes[to].cut_off;
        let takes = 1 + self.below(self.delay) + self.nodes[from].slow.max(self.nodes[to].slow);
        if !lost {
            self.sent += 1;
            self.queue.insert((self.now + takes as i64, self.sent), (from, to, message));
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        if self.nodes[to].cut_off || self.nodes[from].cut_off {
            return;
        }
        let now = self.clock(to);
        let asker = maker(from).identity();
        let node = &mut self.nodes[to];
        if let (Some(votes), Message::AskVotes(_)) = (&node.puppet, &message) {
            let answer = Message::VotesFor(votes.clone());
            return self.send(to, from, answer);
        }
        let Some(round) = &mut node.round else { return };
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, from as u8));
        match message {
            Message::Vote(text) => drop(round.handle_vote(now, text.as_bytes(), Whence::Posted(address))),
            Message::Signatures(text) => drop(round.handle_signatures(now, text.as_bytes())),
            Message::SignaturesFor(text) => drop(round.handle_signatures(now, text.as_bytes())),
            Message::VotesFor(votes) => {
                for text in votes {
                    round.handle_vote(now, text.as_bytes(), Whence::Fetched(asker));
                }
            }
            Message::AskVotes(ids) => {
                let votes =
                    ids.iter().filter_map(|id| round.vote(id)).map(|(text, _)| text.clone()).collect();
                self.send(to, from, Message::VotesFor(votes));
            }
            Message::AskSignatures => {
                if let Some(text) = round.signatures() {
                    self.send(to, from, Message::SignaturesFor(text));
                }
            }
        }
        self.act(to);
    }

    fn act(&mut self, n: usize) {
        let index = |id: Fingerprint| self.rules.authorities.iter().position(|other| *other == id).unwrap();
        let now = self.clock(n);
        let mut out = Vec::new();
        let node = &mut self.nodes[n];
        let Some(round) = &mut node.round else { return };
        while let Some(action) = round.poll_action() {
            match action {
                Action::MakeVote(_) => {
                    node.made += 1;
                    // No two are alike, so that a second one would be noticed.
                    let vote = maker(n).vote(now.0, &format!("someone, at {}", self.now));
                    round.handle_own_vote(now, &vote).unwrap();
                }
                Action::PostVote { to, text } | Action::TellVote { to, text } => {
                    out.push((index(to), Message::Vote(text)));
                }
                Action::FetchVotes { from, of } => out.push((index(from), Message::AskVotes(of))),
                Action::PostSignatures { to, text } => out.push((index(to), Message::Signatures(text))),
                Action::FetchSignatures { from } => out.push((index(from), Message::AskSignatures)),
                Action::Publish(documents) => {
                    assert!(node.published.is_none(), "published twice");
                    node.published = Some(documents);
                }
                Action::NoConsensus(why) => node.failure = Some(why),
                Action::Save => node.saved = Some(round.snapshot()),
                Action::Store { name, contents } => drop(node.stored.insert(name, contents)),
                Action::Alarm(alarm) => node.alarms.push(alarm),
            }
        }
        for (to, message) in out {
            self.send(n, to, message);
        }
    }

    /// Those that published.
    pub fn publishers(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].published.is_some()).collect()
    }

    /// Checks what must hold whatever happens: all that publish anything publish the same, in both flavours, and each
    /// with the signatures of more than half. Returns the least number of signatures.
    pub fn check_agreement(&self) -> usize {
        let mut bodies = BTreeSet::new();
        let mut least = usize::MAX;
        for documents in self.nodes.iter().filter_map(|node| node.published.as_ref()) {
            assert_eq!(documents.len(), 2);
            let unsigned = |(_, text): &(Flavor, String)| {
                let (body, signatures) = text.split_once("\ndirectory-signature ").unwrap();
                (body.to_owned(), 1 + signatures.matches("\ndirectory-signature ").count())
            };
            let parts: Vec<_> = documents.iter().map(unsigned).collect();
            for (_, signatures) in &parts {
                assert!(*signatures > self.nodes.len() / 2);
                least = least.min(*signatures);
            }
            bodies.insert(parts.into_iter().map(|(body, _)| body).collect::<Vec<_>>());
        }
        assert!(bodies.len() <= 1, "two consensuses of one period");
        least
    }

    /// What this node found out about votes of another.
    pub fn findings(&self, n: usize, about: usize) -> Vec<Evidence> {
        let finding = |alarm: &Alarm| match alarm {
            Alarm::Double(finding) if finding.authority == maker(about).identity() => Some(finding.evidence),
            _ => None,
        };
        self.nodes[n].alarms.iter().filter_map(finding).collect()
    }
}
