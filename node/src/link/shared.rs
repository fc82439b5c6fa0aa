//! What the handles of a link and its task share: the table of circuits, and who has something to send.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onionring_proto::cell::{Body, CircId, Command, DestroyReason, write_destroy, write_fixed};
use onionring_proto::limits::CIRC_ID_TRIES;
use onionring_proto::link::{Established, PeerIdentity};
use onionring_proto::origin::{FirstHop, OriginConfig};
use onionring_proto::time::Mono;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::circuit::Circuit;
use super::connection::Connection;
use super::error::{CircuitError, LinkFailure};
use super::responder::{Responder, Service};
use super::task;
use crate::limits;

/// A circuit as its link sees it.
pub(super) trait LinkCircuit: Send + Sync {
    /// A cell has arrived; `body` is decrypted in place.
    fn handle_cell(&self, now: Mono, command: Command, body: &mut Body);

    /// Makes cells while there are some, at most `most`.
    fn transmit(&self, most: usize, send: &mut dyn FnMut(Command, &Body)) -> Turn;

    /// The link is gone.
    fn link_lost(&self, why: &Arc<LinkFailure>);
}

/// How a circuit stands after its turn to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may have more to send.
    More,
    /// It has nothing to send until something happens.
    Idle,
    /// It is gone, and has nothing left to send.
    Over,
}

/// An open link; see the [module](super). It closes when this and all circuits built on it are dropped.
pub struct Link {
    lease: Arc<LinkLease>,
}

impl Link {
    /// Starts the link's task. Without a service the peer can build no circuits to us.
    pub(super) fn start(
        connection: Connection,
        established: Established,
        service: Option<Arc<Service>>,
    ) -> Link {
        let shared = Arc::new(Shared {
            established,
            peer_address: connection.peer_address,
            service,
            epoch: Instant::now(),
            table: Mutex::default(),
            work: Notify::new(),
            ended: Notify::new(),
        });
        tokio::spawn(task::run(connection, shared.clone()));
        Link { lease: Arc::new(LinkLease(shared)) }
    }

    /// What the link handshake found: who the peer is, and what it says of our address and clock.
    pub fn established(&self) -> &Established {
        &self.lease.0.established
    }

    /// Who the peer has proven to be; `None` for a client.
    pub fn peer(&self) -> Option<PeerIdentity> {
        self.established().peer
    }

    /// Number of circuits on the link, those of the peer's included.
    pub fn circuits(&self) -> usize {
        self.lease.0.table().circuits.len()
    }

    /// Builds a circuit whose first hop is the peer, within `config.hop_timeout`.
    pub async fn create(&self, first: FirstHop<'_>, config: OriginConfig) -> Result<Circuit, CircuitError> {
        Circuit::create(self.lease.clone(), first, config).await
    }

    /// Closes the link, whoever still uses it.
    pub fn close(&self) {
        self.lease.0.abandon();
    }

    /// Why the link is gone, `None` while it is open.
    pub fn failure(&self) -> Option<Arc<LinkFailure>> {
        self.lease.0.table().end.clone()
    }

    /// Waits until the link is gone; returns why it is.
    pub async fn closed(&self) -> Arc<LinkFailure> {
        let shared = &self.lease.0;
        loop {
            // Made before the look, so that no end is missed between the two.
            let ended = shared.ended.notified();
            if let Some(failure) = self.failure() {
                return failure;
            }
            ended.await;
        }
    }
}

/// Keeps the link open.
pub(super) struct LinkLease(pub Arc<Shared>);

impl Drop for LinkLease {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The shared part of a link.
pub(super) struct Shared {
    pub established: Established,
    pub peer_address: IpAddr,
    service: Option<Arc<Service>>,
    /// The zero of the link's monotonic clock.
    epoch: Instant,
    table: Mutex<Table>,
    /// Tells the task that there is something to do.
    pub work: Notify,
    /// Tells everybody that the link is gone.
    ended: Notify,
}

/// Invariant: `ready` holds each circuit whose `is_ready` is set once, and no other that exists.
#[derive(Default)]
struct Table {
    circuits: HashMap<CircId, Entry>,
    ready: VecDeque<CircId>,
    /// Circuits of the peer's that we did not take, which it is still to hear.
    refusals: VecDeque<(CircId, DestroyReason)>,
    abandoned: bool,
    end: Option<Arc<LinkFailure>>,
}

struct Entry {
    circuit: Arc<dyn LinkCircuit>,
    is_ready: bool,
}

impl Shared {
    pub fn now(&self) -> Mono {
        Mono(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// A panic elsewhere leaves the table as consistent as every other moment does.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a circuit of ours under a new ID.
    pub fn add(&self, circuit: Arc<dyn LinkCircuit>) -> Result<CircId, CircuitError> {
        let mut table = self.table();
        if let Some(end) = &table.end {
            return Err(CircuitError::Link(end.clone()));
        }
        if table.circuits.len() >= limits::LINK_CIRCUITS {
            return Err(CircuitError::LinkFull(table.circuits.len()));
        }
        let circ_ids = &self.established.circ_ids;
        let id =
            circ_ids.allocate(CIRC_ID_TRIES, &mut rand::rng(), |id| !table.circuits.contains_key(&id))?;
        table.circuits.insert(id, Entry { circuit, is_ready: false });
        Ok(id)
    }

    /// Circuit `id` may have something to send.
    pub fn mark_ready(&self, id: CircId) {
        let mut table = self.table();
        table.mark_ready(id);
        drop(table);
        self.work.notify_one();
    }

    /// Nobody needs the link any more.
    fn abandon(&self) {
        self.table().abandoned = true;
        self.work.notify_one();
    }

    pub fn is_abandoned(&self) -> bool {
        self.table().abandoned
    }

    /// The circuit with this ID.
    fn circuit(&self, id: CircId) -> Option<Arc<dyn LinkCircuit>> {
        self.table().circuits.get(&id).map(|entry| entry.circuit.clone())
    }

    /// The peer has destroyed circuit `id`: nothing is left to say, and the peer may use its ID again at once.
    fn forget(&self, id: CircId) {
        let mut table = self.table();
        if table.circuits.remove(&id).is_some_and(|entry| entry.is_ready) {
            table.ready.retain(|ready| *ready != id);
        }
    }

    fn answer_create(self: &Arc<Self>, id: CircId, command: Command, body: &Body) {
        // A client is asked for nothing.
        let Some(service) = &self.service else { return };
        let answer = if !self.established.circ_ids.peer_may_use(id) {
            Err(DestroyReason::Protocol)
        } else if self.table().circuits.len() >= limits::SERVED_CIRCUITS {
            Err(DestroyReason::ResourceLimit)
        } else {
            Responder::accept(self, id, service, command, body)
        };
        let mut table = self.table();
        match answer {
            Ok(circuit) => {
                table.circuits.insert(id, Entry { circuit, is_ready: false });
                table.mark_ready(id);
            }
            Err(reason) => table.refusals.push_back((id, reason)),
        }
    }

    /// Whether the peer has been refused so much that it should take that first.
    pub fn is_backlogged(&self) -> bool {
        self.table().refusals.len() >= limits::LINK_REFUSALS
    }

    /// Makes a batch of cells, refusals first and then circuits in turn, and appends them to `out`.
    pub fn gather(&self, out: &mut Vec<u8>) {
        let version = self.established.version;
        let end = out.len() + limits::LINK_BATCH;
        while out.len() < end
            && let Some((id, reason)) = self.next_refusal()
        {
            write_destroy(version, id, reason, out);
        }
        while out.len() < end {
            let Some((id, circuit)) = self.table().next_ready() else { return };
            let turn = circuit.transmit(limits::CIRCUIT_TURN, &mut |command, body| {
                write_fixed(version, id, command, body, out);
            });
            match turn {
                Turn::More => self.table().mark_ready(id),
                Turn::Idle => {}
                // Its last cell, a DESTROY, goes out before any of a circuit that gets the ID next.
                Turn::Over => drop(self.table().circuits.remove(&id)),
            }
        }
    }

    fn next_refusal(&self) -> Option<(CircId, DestroyReason)> {
        self.table().refusals.pop_front()
    }

    /// The link is gone: so are its circuits. Only the first reason counts.
    pub fn end(&self, failure: LinkFailure) {
        let (why, lost) = {
            let mut table = self.table();
            if table.end.is_some() {
                return;
            }
            let why = Arc::new(failure);
            table.end = Some(why.clone());
            table.ready.clear();
            (why, std::mem::take(&mut table.circuits))
        };
        for entry in lost.into_values() {
            entry.circuit.link_lost(&why);
        }
        self.ended.notify_waiters();
    }
}

/// Hands out the cells of one read. A circuit is looked up, and looked at again for what follows, once for all cells
/// that come for it in a row.
pub(super) struct Delivery<'a> {
    shared: &'a Arc<Shared>,
    now: Mono,
    current: Option<(CircId, Arc<dyn LinkCircuit>)>,
}

impl<'a> Delivery<'a> {
    pub fn new(shared: &'a Arc<Shared>) -> Delivery<'a> {
        Delivery { shared, now: shared.now(), current: None }
    }

    /// Hands a cell to its circuit, or to the service if it is to be a new one. What else comes for a circuit that is
    /// not there is dropped: it may just have been closed.
    pub fn deliver(&mut self, id: CircId, command: Command, body: &mut Body) {
        if !matches!(self.current, Some((current, _)) if current == id) {
            self.finish();
            self.current = self.shared.circuit(id).map(|circuit| (id, circuit));
        }
        match (&self.current, command) {
            (Some((_, circuit)), _) => {
                circuit.handle_cell(self.now, command, body);
                if command == Command::DESTROY {
                    self.current = None;
                    self.shared.forget(id);
                }
            }
            (None, Command::CREATE | Command::CREATE_FAST | Command::CREATE2) => {
                self.shared.answer_create(id, command, body);
            }
            (None, _) => {}
        }
    }

    /// The current circuit may have to answer, or be over, or a stream of it has ended of which its writer is to hear.
    fn finish(&mut self) {
        if let Some((id, _)) = self.current.take() {
            self.shared.table().mark_ready(id);
        }
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Table {
    fn mark_ready(&mut self, id: CircId) {
        if let Some(entry) = self.circuits.get_mut(&id)
            && !entry.is_ready
        {
            entry.is_ready = true;
            self.ready.push_back(id);
        }
    }

    fn next_ready(&mut self) -> Option<(CircId, Arc<dyn LinkCircuit>)> {
        loop {
            let id = self.ready.pop_front()?;
            if let Some(entry) = self.circuits.get_mut(&id) {
                entry.is_ready = false;
                return Some((id, entry.circuit.clone()));
            }
        }
    }
}
