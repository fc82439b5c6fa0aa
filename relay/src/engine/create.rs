//! New circuits: the queue of public-key work, and the work itself.
//!
//! CREATE2 costs about a hundred times what a cell costs, so it waits until the shard has nothing better to do. The
//! queue is bounded; when it is full, the oldest request is refused, because its client has the least patience left.

use std::collections::VecDeque;
use std::sync::Arc;

use onionring_proto::cell::{BODY_LEN, Body, Command, DestroyReason};
use onionring_proto::handshake::{Create2, CreateFast, Created2, CreatedFast, fast, htype, respond};
use onionring_proto::time::Mono;

use super::Engine;
use super::cross::Message;
use super::ids::Leg;
use super::link::LinkFacts;
use crate::limits;

/// Requests that wait for their public-key work.
#[derive(Default)]
pub(super) struct PendingCreates {
    queue: VecDeque<Pending>,
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
        self.queue.iter().any(|pending| pending.leg == leg)
    }

    /// Drops the request on this leg, if one waits.
    pub(super) fn cancel(&mut self, leg: Leg) -> bool {
        let before = self.queue.len();
        self.queue.retain(|pending| pending.leg != leg);
        self.queue.len() < before
    }

    /// Drops all requests that came on this link.
    pub(super) fn cancel_link(&mut self, link: super::ids::LinkId) {
        self.queue.retain(|pending| pending.leg.link != link);
    }
}

impl Engine {
    /// Takes a CREATE2 or CREATE_FAST. An id that is in use is ignored, as deployed relays do (tor-spec 5.1.1).
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
        if self.draining {
            self.refuse_create(now, leg, DestroyReason::Hibernating);
            return;
        }
        if self.creates.len() >= limits::PENDING_CREATES
            && let Some(oldest) = self.creates.queue.pop_front()
        {
            self.counters.creates_shed += 1;
            self.refuse_create(now, oldest.leg, DestroyReason::ResourceLimit);
        }
        self.creates.queue.push_back(Pending { leg, command, body: Box::new(*body), facts });
    }

    /// Whether [`Engine::run_background`] has anything to do.
    pub fn has_background(&self) -> bool {
        !self.creates.queue.is_empty()
    }

    /// Does up to `budget` pieces of public-key work. Returns whether more is waiting.
    pub fn run_background(&mut self, now: Mono, budget: usize) -> bool {
        for _ in 0..budget {
            let Some(pending) = self.creates.queue.pop_front() else { return false };
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
