//! New circuits: the queue of public-key work, and the work itself.
//!
//! CREATE2 costs about a hundred times what a cell costs, so it waits until the shard has nothing better to do. The
//! queue is bounded; when it is full, the link that has most in it loses its oldest request, so that nobody who floods
//! the relay takes the place of others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use onionring_proto::cell::{BODY_LEN, Body, Command, DestroyReason};
use onionring_proto::handshake::{
    Create2, CreateFast, Created2, CreatedFast, Terms, fast, htype, respond_with,
};
use onionring_proto::time::Mono;

use super::Engine;
use super::cross::Message;
use super::ids::{HomeRule, Leg, LinkId};
use super::link::LinkFacts;
use super::snapshot::Snapshot;
use crate::limits;

/// Requests that wait for their public-key work, by number, in the order in which they came.
///
/// Invariant: `by_leg` and `by_link` name exactly the requests in `queue`; no link is there without any.
pub(super) struct PendingCreates {
    queue: BTreeMap<u64, Pending>,
    by_leg: HashMap<Leg, u64, HomeRule>,
    by_link: BTreeMap<LinkId, BTreeSet<u64>>,
    next: u64,
}

/// A request for a circuit.
pub(super) struct Pending {
    pub(super) since: Mono,
    pub(super) leg: Leg,
    pub(super) command: Command,
    pub(super) body: Box<Body>,
    pub(super) facts: Arc<LinkFacts>,
}

impl Pending {
    /// Whether a relay asks for an ntor handshake of either version: of those C tor judges whether it is overloaded, and
    /// leaves out what clients ask for.
    fn is_relay_ntor(&self) -> bool {
        let is_ntor = |create: Create2<'_>| matches!(create.htype, htype::NTOR | htype::NTOR_V3);
        !self.facts.is_client()
            && self.command == Command::CREATE2
            && Create2::parse(&self.body).is_ok_and(is_ntor)
    }
}

impl PendingCreates {
    pub(super) fn new(hasher: HomeRule) -> Self {
        PendingCreates {
            queue: BTreeMap::new(),
            by_leg: HashMap::with_hasher(hasher),
            by_link: BTreeMap::new(),
            next: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    fn push(&mut self, pending: Pending) {
        self.by_leg.insert(pending.leg, self.next);
        self.by_link.entry(pending.leg.link).or_default().insert(self.next);
        self.queue.insert(self.next, pending);
        self.next += 1;
    }

    fn take(&mut self, number: u64) -> Option<Pending> {
        let pending = self.queue.remove(&number)?;
        self.by_leg.remove(&pending.leg);
        let link = pending.leg.link;
        if let Some(numbers) = self.by_link.get_mut(&link) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_link.remove(&link);
            }
        }
        Some(pending)
    }

    fn take_oldest(&mut self) -> Option<Pending> {
        let (&oldest, _) = self.queue.first_key_value()?;
        self.take(oldest)
    }

    /// Takes the oldest request of the link that has most.
    fn take_from_greediest(&mut self) -> Option<Pending> {
        let numbers = self.by_link.values().max_by_key(|numbers| numbers.len())?;
        self.take(*numbers.first()?)
    }

    /// Drops the request on this leg, if one waits.
    pub(super) fn cancel(&mut self, leg: Leg) {
        if let Some(&number) = self.by_leg.get(&leg) {
            self.take(number);
        }
    }

    /// Drops all requests that came on this link.
    pub(super) fn cancel_link(&mut self, link: LinkId) {
        for number in self.by_link.remove(&link).unwrap_or_default() {
            self.take(number);
        }
    }
}

impl Engine {
    /// Takes a request for a circuit. If its id is in use it is ignored, as deployed relays do (tor-spec 5.1.1): a
    /// DESTROY for the new circuit would be taken for the old one's.
    ///
    /// `flood` says that the client asks for too many, `link_full` that the link has all the circuits it may have.
    pub(super) fn queue_create(&mut self, now: Mono, pending: Pending, flood: bool, link_full: bool) {
        let (leg, command) = (pending.leg, pending.command);
        // An id in use: a request that waits has it too.
        if self.circuits.find(leg).is_some() || self.creates.by_leg.contains_key(&leg) {
            self.counters.ignored("circuit_id_in_use");
            return;
        }
        if !pending.facts.circ_ids.peer_may_use(leg.circ) {
            return self.refuse_create(now, leg, "circuit_id_of_wrong_half", DestroyReason::Protocol);
        }
        // The TAP handshake is not offered: nobody answers it any more.
        if command == Command::CREATE {
            self.counters.handshake("tap", false);
            return self.refuse_create(now, leg, "tap", DestroyReason::Protocol);
        }
        if self.draining {
            return self.refuse_create(now, leg, "draining", DestroyReason::Hibernating);
        }
        // Of those that would be refused for another reason anyway, none is counted as a flood's.
        if flood && self.refuses_flood() {
            return self.refuse_create(now, leg, "flood", DestroyReason::ResourceLimit);
        }
        if link_full {
            return self.refuse_create(now, leg, "circuits_of_link", DestroyReason::ResourceLimit);
        }
        self.counters.relay_ntor += u64::from(pending.is_relay_ntor());
        if self.circuits.len() + self.creates.len() >= self.snapshot.params.circuits_per_shard {
            return self.refuse_create(now, leg, "circuits_of_shard", DestroyReason::ResourceLimit);
        }
        if self.creates.len() >= limits::PENDING_CREATES
            && let Some(shed) = self.creates.take_from_greediest()
        {
            self.counters.creates_shed += 1;
            self.counters.relay_ntor_shed += u64::from(shed.is_relay_ntor());
            self.refuse_create(now, shed.leg, "shed", DestroyReason::ResourceLimit);
        }
        self.creates.push(pending);
    }

    /// Whether [`Engine::run_background`] has anything to do.
    pub fn has_background(&self) -> bool {
        !self.creates.queue.is_empty()
    }

    /// Does up to `budget` pieces of public-key work. Returns whether more is waiting.
    pub fn run_background(&mut self, now: Mono, budget: usize) -> bool {
        for _ in 0..budget {
            let Some(pending) = self.creates.take_oldest() else { return false };
            self.create_circuit(now, pending);
        }
        !self.creates.queue.is_empty()
    }

    fn create_circuit(&mut self, now: Mono, pending: Pending) {
        let Pending { since, leg, command, body, facts } = pending;
        self.counters.create_wait.record(now.since(since));
        if now.since(since) > self.snapshot.params.create_wait {
            return self.refuse_create(now, leg, "waited_too_long", DestroyReason::ResourceLimit);
        }
        let snapshot = self.snapshot.clone();
        let mut reply: Body = [0; BODY_LEN];
        let (kind, result) = if command == Command::CREATE_FAST {
            let (answer, keys) = fast::server(&mut self.rng, &CreateFast::parse(&body).x);
            CreatedFast { reply: answer }.write(&mut reply);
            ("fast", Ok((Command::CREATED_FAST, keys, Terms::default())))
        } else {
            match Create2::parse(&body) {
                Ok(create) => {
                    let Snapshot { identity, onion_keys, params, .. } = &*snapshot;
                    let (rng, hdata) = (&mut self.rng, create.hdata);
                    let result = respond_with(rng, identity, onion_keys, params.offer, create.htype, hdata);
                    let result = result.map(|(hdata, keys, terms)| {
                        Created2 { hdata: &hdata }.write(&mut reply);
                        (Command::CREATED2, keys, terms)
                    });
                    (kind_of(create.htype), result)
                }
                Err(error) => ("malformed", Err(error)),
            }
        };
        self.counters.handshake(kind, result.is_ok());
        match result {
            Ok((reply_command, keys, terms)) => {
                self.add_circuit(now, leg, facts, command == Command::CREATE_FAST, &keys, terms);
                self.send_cell(now, leg, reply_command, &reply);
            }
            Err(error) => self.refuse_create(now, leg, error.label(), DestroyReason::Protocol),
        }
    }

    fn refuse_create(&mut self, now: Mono, leg: Leg, label: &'static str, reason: DestroyReason) {
        *self.counters.creates_refused.entry(label).or_default() += 1;
        self.tell(now, leg.link.shard(), Message::Refuse(leg, reason));
    }
}

/// A handshake type as a metric label.
fn kind_of(handshake: u16) -> &'static str {
    match handshake {
        htype::NTOR => "ntor",
        htype::NTOR_V3 => "ntor_v3",
        _ => "unknown",
    }
}
