//! New circuits: the queue of public-key work, and the work itself.
//!
//! CREATE2 costs about a hundred times what a cell costs, so it waits until the shard has nothing better to do. The
//! queue is bounded; when it is full, the link that has most in it loses its oldest request, so that nobody who floods
//! the relay takes the place of others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use onionring_proto::cell::{BODY_LEN, Body, Command, DestroyReason};
use onionring_proto::handshake::{Create2, CreateFast, Created2, CreatedFast, fast, htype, respond};
use onionring_proto::time::Mono;

use super::Engine;
use super::cross::Message;
use super::ids::{Leg, LinkId};
use super::link::LinkFacts;
use crate::limits;

/// Requests that wait for their public-key work, in the order in which they came.
///
/// Invariant: `per_link` counts the requests in `queue`, and has no zeros.
#[derive(Default)]
pub(super) struct PendingCreates {
    queue: VecDeque<Pending>,
    per_link: BTreeMap<LinkId, usize>,
}

struct Pending {
    leg: Leg,
    command: Command,
    body: Box<Body>,
    facts: Arc<LinkFacts>,
}

impl PendingCreates {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether a request with this circuit id waits; the id is in use then.
    fn contains(&self, leg: Leg) -> bool {
        self.per_link.contains_key(&leg.link) && self.queue.iter().any(|pending| pending.leg == leg)
    }

    fn push(&mut self, pending: Pending) {
        *self.per_link.entry(pending.leg.link).or_default() += 1;
        self.queue.push_back(pending);
    }

    fn take(&mut self, index: usize) -> Option<Pending> {
        let pending = self.queue.remove(index)?;
        let link = pending.leg.link;
        if let Some(count) = self.per_link.get_mut(&link) {
            *count -= 1;
            if *count == 0 {
                self.per_link.remove(&link);
            }
        }
        Some(pending)
    }

    /// Takes the oldest request of the link that has most.
    fn take_from_greediest(&mut self) -> Option<Pending> {
        let (&link, _) = self.per_link.iter().max_by_key(|(_, count)| **count)?;
        let oldest = self.queue.iter().position(|pending| pending.leg.link == link)?;
        self.take(oldest)
    }

    /// Drops the request on this leg, if one waits.
    pub(super) fn cancel(&mut self, leg: Leg) {
        if self.per_link.contains_key(&leg.link)
            && let Some(index) = self.queue.iter().position(|pending| pending.leg == leg)
        {
            self.take(index);
        }
    }

    /// Drops all requests that came on this link.
    pub(super) fn cancel_link(&mut self, link: LinkId) {
        if self.per_link.remove(&link).is_some() {
            self.queue.retain(|pending| pending.leg.link != link);
        }
    }
}

impl Engine {
    /// Takes a request for a circuit. If its id is in use it is ignored, as deployed relays do (tor-spec 5.1.1): a
    /// DESTROY for the new circuit would be taken for the old one's.
    pub(super) fn queue_create(
        &mut self,
        now: Mono,
        leg: Leg,
        command: Command,
        body: &Body,
        facts: Arc<LinkFacts>,
    ) {
        if self.circuits.find(leg).is_some() || self.creates.contains(leg) {
            self.counters.ignored("circuit_id_in_use");
            return;
        }
        if !facts.circ_ids.peer_may_use(leg.circ) {
            self.counters.ignored("circuit_id_of_wrong_half");
            return self.refuse_create(now, leg, DestroyReason::Protocol);
        }
        // The TAP handshake is not offered: nobody answers it any more.
        if command == Command::CREATE {
            self.counters.handshake("tap", false);
            return self.refuse_create(now, leg, DestroyReason::Protocol);
        }
        if self.draining {
            return self.refuse_create(now, leg, DestroyReason::Hibernating);
        }
        if self.creates.len() >= limits::PENDING_CREATES
            && let Some(shed) = self.creates.take_from_greediest()
        {
            self.counters.creates_shed += 1;
            self.refuse_create(now, shed.leg, DestroyReason::ResourceLimit);
        }
        self.creates.push(Pending { leg, command, body: Box::new(*body), facts });
    }

    /// Whether [`Engine::run_background`] has anything to do.
    pub fn has_background(&self) -> bool {
        !self.creates.queue.is_empty()
    }

    /// Does up to `budget` pieces of public-key work. Returns whether more is waiting.
    pub fn run_background(&mut self, now: Mono, budget: usize) -> bool {
        for _ in 0..budget {
            let Some(pending) = self.creates.take(0) else { return false };
            self.create_circuit(now, pending);
        }
        !self.creates.queue.is_empty()
    }

    fn create_circuit(&mut self, now: Mono, pending: Pending) {
        let Pending { leg, command, body, facts } = pending;
        let snapshot = self.snapshot.clone();
        let mut reply: Body = [0; BODY_LEN];
        let (kind, result) = if command == Command::CREATE_FAST {
            let (answer, keys) = fast::server(&mut self.rng, &CreateFast::parse(&body).x);
            CreatedFast { reply: answer }.write(&mut reply);
            ("fast", Ok((Command::CREATED_FAST, keys)))
        } else {
            match Create2::parse(&body) {
                Ok(create) => {
                    let identity = &snapshot.identity;
                    let result =
                        respond(&mut self.rng, identity, &snapshot.onion_keys, create.htype, create.hdata);
                    let result = result.map(|(hdata, keys)| {
                        Created2 { hdata: &hdata }.write(&mut reply);
                        (Command::CREATED2, keys)
                    });
                    (kind_of(create.htype), result)
                }
                Err(error) => ("malformed", Err(error)),
            }
        };
        self.counters.handshake(kind, result.is_ok());
        match result {
            Ok((reply_command, keys)) => {
                self.add_circuit(now, leg, facts, command == Command::CREATE_FAST, &keys);
                self.send_cell(now, leg, reply_command, &reply);
            }
            Err(_) => self.refuse_create(now, leg, DestroyReason::Protocol),
        }
    }

    fn refuse_create(&mut self, now: Mono, leg: Leg, reason: DestroyReason) {
        self.tell(now, leg.link.shard(), Message::Destroy(leg, reason));
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
