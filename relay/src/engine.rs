//! One shard of the relay, without I/O.
//!
//! An [`Engine`] owns links and circuits: it takes the bytes that came out of a link's TLS session, moves cells one
//! onion layer on, and gives the bytes that go into the next link's TLS session. It knows no socket, no clock and no
//! thread, so the same code runs under glommio, in a deterministic simulation and in a benchmark.
//!
//! A relay has several engines, one per core. A link belongs to the engine that its connection arrived at; a circuit
//! belongs to the engine that [`ids::HomeRule`] names, on both of its legs. Cells and messages for another engine
//! leave in batches ([`cross`]) and are taken in there by [`Engine::handle_batch`].
//!
//! # Driving an engine
//!
//! Time never goes backwards between calls. After any call that takes `&mut self`, the driver
//!
//! 1. passes on batches: [`Engine::take_batch`] for every other shard;
//! 2. does what [`Engine::poll_event`] asks, until it asks nothing;
//! 3. gives queued public-key work a turn when nothing else is to do: [`Engine::run_background`];
//! 4. calls [`Engine::handle_timeout`] at the time that [`Engine::poll_timeout`] names.
//!
//! While [`Engine::congested`] says so, the driver reads from no link and no exit connection of this shard.

pub mod circuit;
pub mod counters;
mod create;
pub mod cross;
pub mod dos;
pub mod durations;
pub mod event;
mod extend;
pub mod ids;
pub mod link;
mod memory;
pub mod queue;
pub mod rate;
mod registry;
pub mod snapshot;
mod stream;
mod timer;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use onionring_proto::cell::Body;
use onionring_proto::time::Mono;
use rand_chacha::ChaCha20Rng;

use circuit::Circuits;
use counters::Counters;
use create::{Pending, PendingCreates};
use cross::{Batch, Cross, Message, Outgoing};
use event::Event;
use ids::{HomeRule, LinkId, ShardIndex};
use link::{Link, LinkEnd};
use queue::CellPool;
use registry::{Registry, Todo};
use snapshot::Snapshot;
use timer::{Timer, Timers};

/// One shard: its links, its circuits, and its share of the registry of peers.
pub struct Engine {
    me: ShardIndex,
    homes: HomeRule,
    rng: ChaCha20Rng,
    snapshot: Arc<Snapshot>,
    links: HashMap<LinkId, Link, HomeRule>,
    next_link: u64,
    circuits: Circuits,
    creates: PendingCreates,
    registry: Registry,
    pool: CellPool,
    /// Where cells of this relay's own are made.
    draft: Option<Box<Body>>,
    outgoing: Outgoing,
    events: VecDeque<Event>,
    timers: Timers,
    counters: Counters,
    /// When set, no new circuit is accepted: the relay is shutting down.
    draining: bool,
}

impl Engine {
    /// The engine of shard `me`. `rng` is the only source of randomness; `queue_bytes` bounds the memory of cells that
    /// wait to be sent.
    pub fn new(
        me: ShardIndex,
        homes: HomeRule,
        snapshot: Arc<Snapshot>,
        queue_bytes: usize,
        rng: ChaCha20Rng,
    ) -> Self {
        assert!(me.0 < homes.shards(), "shard {} of {}", me.0, homes.shards());
        Engine {
            me,
            rng,
            snapshot,
            links: HashMap::with_hasher(homes.clone()),
            next_link: 0,
            circuits: Circuits::new(homes.clone()),
            creates: PendingCreates::new(homes.clone()),
            registry: Registry::new(homes.clone()),
            pool: CellPool::new(queue_bytes / CellPool::BYTES_PER_CELL),
            draft: None,
            outgoing: Outgoing::new(homes.shards()),
            events: VecDeque::new(),
            timers: Timers::default(),
            counters: Counters::default(),
            draining: false,
            homes,
        }
    }

    /// Which shard this is.
    pub fn shard(&self) -> ShardIndex {
        self.me
    }

    /// Puts new keys, parameters and knowledge of the network in force.
    pub fn set_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Changes the bound on the memory of waiting cells.
    pub fn set_queue_bytes(&mut self, queue_bytes: usize) {
        self.pool.set_limit(queue_bytes / CellPool::BYTES_PER_CELL);
    }

    /// Stops accepting circuits, for a shutdown; those that exist live on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// What has happened so far, in numbers.
    pub fn counters(&mut self) -> &Counters {
        self.counters.links = self.links.len();
        self.counters.circuits = self.circuits.len();
        self.counters.legs = self.circuits.legs();
        self.counters.ids_leaving = self.circuits.ids_leaving();
        self.counters.peers = self.registry.peers();
        self.counters.queued_cells = self.pool.used();
        self.counters.spare_bytes = self.pool.spare_bytes();
        self.counters.pending_creates = self.creates.len();
        self.counters.inbox_bytes = self.pool.charged_bytes();
        self.counters.dials_pending = self.registry.dials();
        self.counters.seekers = self.registry.waiters();
        self.counters.timers = self.timers.len();
        self.counters.batches_waiting = self.outgoing.waiting();
        &self.counters
    }

    /// The next thing for the driver to do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next batch for another shard.
    pub fn take_batch(&mut self, to: ShardIndex) -> Option<Batch> {
        self.outgoing.take(to)
    }

    /// Puts back a batch that found the ring full; it will be the next that [`Engine::take_batch`] gives.
    pub fn put_back_batch(&mut self, to: ShardIndex, batch: Batch) {
        self.outgoing.put_back(to, batch);
    }

    /// Returns the memory of a batch of this shard's that the other shard has read.
    pub fn recycle_batch(&mut self, batch: Batch) {
        self.outgoing.recycle(batch);
    }

    /// Whether another shard is so far behind that nothing more should be read for now.
    pub fn congested(&self) -> bool {
        self.outgoing.congested()
    }

    /// Takes in what another shard sent, leaving the batch empty for its return.
    pub fn handle_batch(&mut self, now: Mono, batch: &mut Batch) {
        self.counters.crossed += batch.len() as u64;
        let mut bodies = batch.bodies.iter_mut();
        for item in batch.items.drain(..) {
            match (item, &mut bodies) {
                (Cross::Message(message), _) => self.handle_message(now, *message),
                (Cross::Inward(leg, command), bodies) => {
                    bodies.next().into_iter().for_each(|body| self.circuit_cell(now, leg, command, body));
                }
                (Cross::Outward(leg, command), bodies) => {
                    bodies.next().into_iter().for_each(|body| self.queue_cell(now, leg, command, body));
                }
            }
        }
        batch.bodies.clear();
    }

    /// When [`Engine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Mono) {
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Handshake(link) => self.handshake_timeout(now, link),
                Timer::Idle(link) => self.idle_timeout(now, link),
                Timer::Overrun(link) => self.overrun_timeout(now, link),
                Timer::Padding(link) => self.padding_timeout(now, link),
                Timer::Extend(circuit) => self.extend_timeout(now, circuit),
            }
        }
    }

    /// Hands a message to a shard, this one included.
    fn tell(&mut self, now: Mono, to: ShardIndex, message: Message) {
        if to == self.me {
            self.handle_message(now, message);
        } else {
            self.outgoing.push(to, message);
        }
    }

    fn handle_message(&mut self, now: Mono, message: Message) {
        match message {
            Message::Create { leg, command, body, facts, flood, link_full } => {
                let pending = Pending { since: now, leg, command, body, facts };
                self.queue_create(now, pending, flood, link_full)
            }
            Message::Destroyed(leg) => self.leg_destroyed(now, leg),
            Message::Overrun(leg, cause) => self.leg_overrun(now, leg, cause),
            Message::QueueHigh(leg) => self.hold_streams(leg),
            Message::QueueLow(leg) => self.release_streams(leg),
            Message::Destroy(leg, reason) => self.send_destroy(now, leg, reason),
            Message::Free(leg) => self.circuits.free_leg(leg),
            Message::Refuse(leg, reason) => self.send_refusal(now, leg, reason),
            Message::Joined(leg) => self.leg_joined(leg),
            Message::Left(leg) => self.leg_left(now, leg),
            Message::Extended(link) => self.link_extended(now, link),
            Message::LinkClosed(link) => self.link_lost(now, link),
            Message::FindLink(ask) => {
                let mut todo = Vec::new();
                self.registry.find(ask, &mut todo);
                self.registry_todo(now, todo);
            }
            Message::StopSeeking(seeker, rsa_id) => self.registry.stop(seeker, &rsa_id),
            Message::LinkFound { seeker, link, facts } => self.extend_on(now, seeker, link, facts),
            Message::LinkFailed { seeker, reason } => self.extend_failed(now, seeker, reason),
            Message::LinkOpened(link, facts) => {
                let mut todo = Vec::new();
                self.registry.opened(link, facts, &mut todo);
                self.registry_todo(now, todo);
            }
            Message::LinkRetired(link, facts) => self.registry.retired(link, &facts),
        }
    }

    fn registry_todo(&mut self, now: Mono, todo: Vec<Todo>) {
        for item in todo {
            match item {
                Todo::Tell(shard, message) => self.tell(now, shard, message),
                Todo::Dial { dial, addresses, rsa_id, ed_id } => {
                    self.counters.dials += 1;
                    self.events.push_back(Event::Link(event::LinkEvent::Dial {
                        dial,
                        addresses,
                        rsa_id,
                        ed_id,
                    }));
                }
                Todo::GiveUp { dial, link } => {
                    self.counters.dials_shed += 1;
                    match link {
                        Some(link) => self.close_link(now, link, LinkEnd::Shed),
                        None => self.events.push_back(Event::Link(event::LinkEvent::GiveUp(dial))),
                    }
                }
            }
        }
    }
}
