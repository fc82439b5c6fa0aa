//! Defence against floods from single clients, as C tor's `dos.c` has it: connections, circuits and streams.
//!
//! Connections of one address come to any shard, so what is known of addresses is in one table for all of them,
//! [`Clients`], in stripes with a lock each. It is touched when a client connects, creates a circuit, or leaves, and
//! never for a cell. A client is an IPv4 address, or a /64 of IPv6, whose holder has all of it (C tor counts each IPv6
//! address for itself).
//!
//! Relays of the consensus are exempt: by their address before they have said who they are, and by their identity after.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onionring_proto::cell::DestroyReason;
use onionring_proto::rate::{Bucket, Rate};
use onionring_proto::time::Mono;
use rand_core::Rng as _;

use super::Engine;
use super::ids::{CircuitId, HomeRule};
use super::link::LinkFacts;
use crate::limits;

#[cfg(test)]
mod tests;

/// What a client may do; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DosLimits {
    /// Connections of one client (`DoSConnection*`).
    pub connections: Option<ConnectionLimits>,
    /// Circuits of one client (`DoSCircuitCreation*`).
    pub circuits: Option<CircuitLimits>,
    /// Streams of one circuit (`DoSStreamCreation*`).
    pub streams: Option<StreamLimits>,
}

/// How many connections a client may have and open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// With more than so many at a time, no further one is accepted (`DoSConnectionMaxConcurrentCount`).
    pub concurrent: u32,
    /// Connections a second, and how many at once (`DoSConnectionConnectRate`, `DoSConnectionConnectBurst`); the one that
    /// takes the last of them marks the client.
    pub connects: Rate,
    /// Whether anything is refused, and not only counted (`DoSConnectionDefenseType` 2).
    pub refuse: bool,
    /// How long a marked client is refused, and up to half as long again
    /// (`DoSConnectionConnectDefenseTimePeriod`).
    pub period: Duration,
}

/// How many circuits a client may create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitLimits {
    /// Connections below which a client is never marked (`DoSCircuitCreationMinConnections`).
    pub min_connections: u32,
    /// Circuits a second, and how many at once (`DoSCircuitCreationRate`, `DoSCircuitCreationBurst`).
    pub creates: Rate,
    /// Whether anything is refused, and not only counted (`DoSCircuitCreationDefenseType` 2).
    pub refuse: bool,
    /// How long a marked client is refused, and up to half as long again
    /// (`DoSCircuitCreationDefenseTimePeriod`).
    pub period: Duration,
}

/// How many streams to the outside and look-ups a circuit may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Streams a second, and how many at once (`DoSStreamCreationRate`, `DoSStreamCreationBurst`).
    pub opens: Rate,
    /// What happens to one more.
    pub defence: StreamDefence,
}

/// `DoSStreamCreationDefenseType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamDefence {
    /// 1: it is only counted.
    Count,
    /// 2: it is refused.
    Refuse,
    /// 3: its circuit is closed.
    CloseCircuit,
}

/// Why a connection is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The client has too many.
    Concurrent,
    /// The client has opened too many lately.
    Connects,
}

impl Refused {
    /// A short name for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Refused::Concurrent => "concurrent_connections",
            Refused::Connects => "connects",
        }
    }
}

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
}

impl Client {
    /// Whether nothing would be lost by forgetting it.
    fn is_as_new(&self, now: Mono) -> bool {
        self.connections == 0
            && self.no_connects <= now
            && self.no_circuits <= now
            && self.connects.is_none_or(|bucket| bucket.is_full(now))
            && self.creates.is_none_or(|bucket| bucket.is_full(now))
    }

    /// A connection; whether it is accepted, and whether it marks the client.
    fn connect(&mut self, now: Mono, limits: &DosLimits, spread: u64) -> (Result<(), Refused>, bool) {
        let Some(limits) = &limits.connections else {
            self.connections += 1;
            return (Ok(()), false);
        };
        if limits.refuse && now < self.no_connects {
            return (Err(Refused::Connects), false);
        }
        if limits.refuse && self.connections > limits.concurrent {
            return (Err(Refused::Concurrent), false);
        }
        self.connections += 1;
        let marks = takes_last(&mut self.connects, limits.connects, now) && self.no_connects <= now;
        if marks {
            self.no_connects = marked_until(now, limits.period, spread);
        }
        (Ok(()), marks)
    }

    /// A circuit; whether it is refused, and whether it marks the client.
    fn create(&mut self, now: Mono, limits: &CircuitLimits, spread: u64) -> (bool, bool) {
        let was_marked = now < self.no_circuits;
        let exhausted =
            takes_last(&mut self.creates, limits.creates, now) && self.connections >= limits.min_connections;
        if exhausted {
            // Whoever goes on stays marked.
            self.no_circuits = marked_until(now, limits.period, spread);
        }
        (limits.refuse && now < self.no_circuits, exhausted && !was_marked)
    }
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
}

impl Clients {
    /// Nobody; `key` is random.
    pub fn new(key: [u8; 16]) -> Clients {
        let stripes = HomeRule::new(key, limits::DOS_STRIPES);
        let table = || Table { clients: HashMap::with_hasher(stripes.clone()), swept: Mono::default() };
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

    fn connect(
        self: &Arc<Self>,
        now: Mono,
        address: IpAddr,
        limits: &DosLimits,
        spread: u64,
    ) -> (Result<Admission, Refused>, bool) {
        let source = Source::from(address);
        let mut table = self.table(source);
        table.sweep(now);
        if table.clients.len() >= limits::DOS_CLIENTS_PER_STRIPE && !table.clients.contains_key(&source) {
            return (Ok(Admission::uncounted()), false);
        }
        let client = table.clients.entry(source).or_default();
        let (result, marks) = client.connect(now, limits, spread);
        (result.map(|()| Admission(Some((self.clone(), source)))), marks)
    }

    fn create(&self, now: Mono, address: IpAddr, limits: &CircuitLimits, spread: u64) -> (bool, bool) {
        let source = Source::from(address);
        match self.table(source).clients.get_mut(&source) {
            Some(client) => client.create(now, limits, spread),
            // It connected when nobody counted.
            None => (false, false),
        }
    }
}

impl Table {
    /// Forgets now and then those that need not be known.
    fn sweep(&mut self, now: Mono) {
        if now.since(self.swept) >= limits::DOS_SWEEP {
            self.swept = now;
            self.clients.retain(|_, client| !client.is_as_new(now));
        }
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

impl Engine {
    /// Judges a connection that came from this address, before anything is spent on it. What it gives belongs into
    /// [`NewLink`](super::link::NewLink).
    pub fn admit(&mut self, now: Mono, address: IpAddr) -> Result<Admission, Refused> {
        let limits = self.snapshot.dos;
        if (limits.connections.is_none() && limits.circuits.is_none())
            || self.snapshot.relays.has_address(address)
        {
            return Ok(Admission::uncounted());
        }
        let spread = self.rng.next_u64();
        let (result, marks) = self.snapshot.clients.connect(now, address, &limits, spread);
        if marks {
            *self.counters.dos_marked.entry("connects").or_default() += 1;
        }
        if let Err(refused) = result {
            *self.counters.dos_refused.entry(refused.label()).or_default() += 1;
        }
        result
    }

    /// A peer asks for a circuit; whether it is refused because its client asks for too many.
    pub(super) fn is_create_flood(&mut self, now: Mono, facts: &LinkFacts) -> bool {
        let Some(limits) = self.snapshot.dos.circuits else { return false };
        if self.snapshot.is_listed(facts) {
            return false;
        }
        let spread = self.rng.next_u64();
        let (refused, marks) = self.snapshot.clients.create(now, facts.address, &limits, spread);
        if marks {
            *self.counters.dos_marked.entry("circuits").or_default() += 1;
        }
        if refused {
            *self.counters.dos_refused.entry("circuits").or_default() += 1;
        }
        refused
    }

    /// A circuit asks for a stream to the outside or a look-up; whether that is one too many, which is dealt with then:
    /// by closing the circuit, or by `refuse`.
    pub(super) fn is_stream_flood(
        &mut self,
        now: Mono,
        id: CircuitId,
        refuse: impl FnOnce(&mut Engine),
    ) -> bool {
        let Some(limits) = self.snapshot.dos.streams else { return false };
        let Some(circuit) = self.circuits.get_mut(id) else { return false };
        let bucket = circuit.opens.get_or_insert_with(|| Bucket::full(limits.opens));
        bucket.adjust(limits.opens, now);
        if bucket.take_one(now) {
            return false;
        }
        match limits.defence {
            StreamDefence::Count => return false,
            StreamDefence::Refuse => refuse(self),
            StreamDefence::CloseCircuit => {
                self.close_circuit(now, id, "too_many_streams", DestroyReason::ResourceLimit);
            }
        }
        *self.counters.dos_refused.entry("streams").or_default() += 1;
        true
    }
}
