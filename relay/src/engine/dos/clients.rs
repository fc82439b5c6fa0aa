//! The clients that are counted, of all shards: how many connections and circuits each has asked for.
//!
//! A client is an IPv4 address, or a /64 of IPv6, whose holder has all of it (C tor counts each IPv6 address for itself).
//! The table is in stripes with a lock each. It is touched when a client connects, creates a circuit, or leaves, and never
//! for a cell.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onionring_proto::rate::{Bucket, Rate};
use onionring_proto::time::Mono;

use super::super::ids::HomeRule;
use super::{CircuitLimits, ConnectionLimits, DosLimits, Refused};
use crate::limits;

#[cfg(test)]
mod tests;

/// A client as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address.to_bits()),
            IpAddr::V6(address) => Source::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// What is known of one.
#[derive(Debug, Default)]
struct Client {
    connections: u32,
    /// Connections that it may still open, once that was asked.
    connects: Option<Bucket>,
    /// Circuits that it may still create, once that was asked.
    creates: Option<Bucket>,
    /// Until then, its connections are refused.
    no_connects: Mono,
    /// Until then, its circuits are refused.
    no_circuits: Mono,
    /// Circuits of its that filled the queue away from it since it was last marked for that.
    full_queues: u32,
    /// It has been counted as one whose circuits are refused, which happens once however often it is marked.
    counted: bool,
    /// When it last connected or filled a queue.
    seen: Mono,
}

impl Client {
    /// Whether nothing would be lost by forgetting it, but what is forgotten after a time anyway.
    fn is_as_new(&self, now: Mono) -> bool {
        self.is_idle(now)
            && (!self.is_noted() || now.since(self.seen) >= limits::DOS_MEMORY)
            && self.connects.is_none_or(|bucket| bucket.is_full(now))
            && self.creates.is_none_or(|bucket| bucket.is_full(now))
    }

    /// Whether something is known of it that does not pass by itself.
    fn is_noted(&self) -> bool {
        self.counted || self.full_queues > 0
    }

    /// Whether it has no connection and no mark.
    fn is_idle(&self, now: Mono) -> bool {
        self.connections == 0 && self.no_connects <= now && self.no_circuits <= now
    }

    /// Why a further connection is one too many.
    fn over(&self, now: Mono, limits: &ConnectionLimits) -> Option<Refused> {
        if now < self.no_connects {
            Some(Refused::Connects)
        } else if self.connections > limits.concurrent {
            Some(Refused::Concurrent)
        } else {
            None
        }
    }

    /// A connection that is accepted; whether it marks the client.
    fn connect(&mut self, now: Mono, limits: Option<&ConnectionLimits>, spread: u64) -> bool {
        self.connections += 1;
        self.seen = now;
        let Some(limits) = limits else { return false };
        let marks = takes_last(&mut self.connects, limits.connects, now) && self.no_connects <= now;
        if marks {
            self.no_connects = marked_until(now, limits.period, spread);
        }
        marks
    }

    /// A circuit; whether it is one too many, and whether the client is marked for the first time.
    fn create(&mut self, now: Mono, limits: &CircuitLimits, spread: u64) -> (bool, bool) {
        let exhausted =
            takes_last(&mut self.creates, limits.creates, now) && self.connections >= limits.min_connections;
        // Whoever goes on stays marked.
        let first = exhausted && self.mark(now, limits, spread);
        (now < self.no_circuits, first)
    }

    /// A circuit filled the queue away from the client; whether that marks the client for the first time.
    fn note_outq(&mut self, now: Mono, limits: &CircuitLimits, spread: u64) -> bool {
        if now < self.no_circuits || limits.max_outq == 0 {
            return false;
        }
        self.seen = now;
        self.full_queues += 1;
        if self.full_queues < limits.max_outq {
            return false;
        }
        self.full_queues = 0;
        self.mark(now, limits, spread)
    }

    /// Has its circuits refused from now on; whether that never happened before.
    fn mark(&mut self, now: Mono, limits: &CircuitLimits, spread: u64) -> bool {
        self.no_circuits = marked_until(now, limits.period, spread);
        !std::mem::replace(&mut self.counted, true)
    }
}

/// What is said of a connection.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Whether it is accepted.
    pub(super) result: Result<Admission, Refused>,
    /// Why it is one too many; it may be accepted nevertheless.
    pub(super) over: Option<Refused>,
    /// Whether it marks the client.
    pub(super) marks: bool,
}

/// Takes one out of a bucket with this rate; whether none is left.
fn takes_last(bucket: &mut Option<Bucket>, rate: Rate, now: Mono) -> bool {
    let bucket = bucket.get_or_insert_with(|| Bucket::full(rate));
    bucket.adjust(rate, now);
    !bucket.take_one(now) || bucket.level(now) < 1
}

/// The end of a mark, which nobody can foresee: up to half a period later, as in C tor.
fn marked_until(now: Mono, period: Duration, spread: u64) -> Mono {
    let micros = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
    now + period + Duration::from_micros(spread % (micros / 2).max(1))
}

/// The clients of all shards.
#[derive(Debug)]
pub struct Clients {
    /// Says which stripe a client is in, under a key that nobody outside knows.
    stripes: HomeRule,
    tables: Vec<Mutex<Table>>,
}

#[derive(Debug)]
struct Table {
    clients: HashMap<Source, Client, HomeRule>,
    /// When those that need not be known any more were last looked for.
    swept: Mono,
    /// Clients that had neither connection nor mark then, some of them, for when the table is full.
    idle: Vec<Source>,
}

impl Clients {
    /// Nobody; `key` is random.
    pub fn new(key: [u8; 16]) -> Clients {
        let stripes = HomeRule::new(key, limits::DOS_STRIPES);
        let table = || Table {
            clients: HashMap::with_hasher(stripes.clone()),
            swept: Mono::default(),
            idle: Vec::new(),
        };
        let tables = (0..limits::DOS_STRIPES).map(|_| Mutex::new(table())).collect();
        Clients { stripes, tables }
    }

    /// How many clients are known.
    pub fn len(&self) -> usize {
        let lock = |table: &Mutex<Table>| table.lock().unwrap_or_else(PoisonError::into_inner).clients.len();
        self.tables.iter().map(lock).sum()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&self, source: Source) -> MutexGuard<'_, Table> {
        let stripe = self.stripes.pick(self.stripes.hash_one(source));
        // Whoever panicked left numbers behind, of which none depends on another.
        self.tables[usize::from(stripe.0)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connect(
        self: &Arc<Self>,
        now: Mono,
        address: IpAddr,
        limits: &DosLimits,
        spread: u64,
    ) -> Verdict {
        let source = Source::from(address);
        let mut table = self.table(source);
        table.sweep_after(now, limits::DOS_SWEEP);
        if !table.clients.contains_key(&source) && !table.make_room(now) {
            return Verdict { result: Ok(Admission::uncounted()), over: None, marks: false };
        }
        let client = table.clients.entry(source).or_default();
        let limits = limits.connections.as_ref();
        let over = limits.and_then(|limits| client.over(now, limits));
        if let Some(refused) = over.filter(|_| limits.is_some_and(|limits| limits.refuse)) {
            return Verdict { result: Err(refused), over, marks: false };
        }
        let marks = client.connect(now, limits, spread);
        Verdict { result: Ok(Admission(Some((self.clone(), source)))), over, marks }
    }

    pub(super) fn create(
        &self,
        now: Mono,
        address: IpAddr,
        limits: &CircuitLimits,
        spread: u64,
    ) -> (bool, bool) {
        let source = Source::from(address);
        match self.table(source).clients.get_mut(&source) {
            Some(client) => client.create(now, limits, spread),
            // It connected when nobody counted.
            None => (false, false),
        }
    }

    /// A circuit of this client filled the queue away from it; whether that marks the client for the first time.
    pub(super) fn note_outq(&self, now: Mono, address: IpAddr, limits: &CircuitLimits, spread: u64) -> bool {
        let source = Source::from(address);
        let mut table = self.table(source);
        table.clients.get_mut(&source).is_some_and(|client| client.note_outq(now, limits, spread))
    }
}

impl Table {
    /// Forgets those that need not be known, if that was not done for so long.
    fn sweep_after(&mut self, now: Mono, pause: Duration) {
        if now.since(self.swept) >= pause {
            self.swept = now;
            self.idle.clear();
            self.clients.retain(|&source, client| {
                let keep = !client.is_as_new(now);
                if keep && client.is_idle(now) && self.idle.len() < limits::DOS_EVICTIONS {
                    self.idle.push(source);
                }
                keep
            });
        }
    }

    /// Sees to it that one more finds room; whether one does.
    fn make_room(&mut self, now: Mono) -> bool {
        if self.has_room() {
            return true;
        }
        self.sweep_after(now, limits::DOS_SWEEP_FULL);
        self.has_room() || self.evict(now)
    }

    fn has_room(&self) -> bool {
        self.clients.len() < limits::DOS_CLIENTS_PER_STRIPE
    }

    /// Gives up what is known of somebody who is not here and has no mark, though he could do more sooner than he should;
    /// whether there was one. Whoever comes from many addresses gains less by that than by not being counted at all.
    fn evict(&mut self, now: Mono) -> bool {
        while let Some(source) = self.idle.pop() {
            // He may have come back.
            if self.clients.get(&source).is_some_and(|client| client.is_idle(now)) {
                self.clients.remove(&source);
                return true;
            }
        }
        false
    }
}

/// Leave to have a connection; the client has one less when it is dropped.
#[derive(Debug, Default)]
pub struct Admission(Option<(Arc<Clients>, Source)>);

impl Admission {
    /// For connections that are not those of a client.
    pub fn uncounted() -> Admission {
        Admission(None)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some((clients, source)) = self.0.take()
            && let Some(client) = clients.table(source).clients.get_mut(&source)
        {
            client.connections = client.connections.saturating_sub(1);
        }
    }
}
