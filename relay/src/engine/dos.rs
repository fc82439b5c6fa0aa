//! Defence against floods from single clients, as C tor's `dos.c` has it: connections, circuits and streams.
//!
//! Connections of one address come to any shard, so what is known of addresses is in one table for all of them,
//! [`Clients`].
//!
//! What is one too many is counted even if the defence is to do nothing about it (type 1), also as in C tor.
//!
//! Every connection that comes to an ORPort counts, whoever its peer proves to be, as in C tor since 0.4.8.4 (its bug
//! 40821): a flood may come from the address of a relay, or from a relay. Circuits and full queues are held against
//! whoever did not prove to be a relay of the consensus. There C tor exempts all who authenticate, and with them those who
//! make up an identity for that.

use std::net::IpAddr;
use std::time::Duration;

use onionring_proto::cell::DestroyReason;
use onionring_proto::rate::{Bucket, Rate};
use onionring_proto::time::Mono;
use rand_core::Rng as _;

use super::Engine;
use super::ids::CircuitId;
use super::link::LinkFacts;

mod clients;

pub use clients::{Admission, Clients};

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
    /// After so many circuits that filled their queue away from the client, it is marked as well, however few connections
    /// it has; 0 is never (`dos_num_circ_max_outq`).
    pub max_outq: u32,
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

impl Engine {
    /// Judges a connection that came from this address, before anything is spent on it. What it gives belongs into
    /// [`NewLink`](super::link::NewLink).
    pub fn admit(&mut self, now: Mono, address: IpAddr) -> Result<Admission, Refused> {
        let limits = self.snapshot.dos;
        if limits.connections.is_none() && limits.circuits.is_none() {
            return Ok(Admission::uncounted());
        }
        let spread = self.rng.next_u64();
        let verdict = self.snapshot.clients.connect(now, address, &limits, spread);
        if verdict.marks {
            self.count_marked("connects");
        }
        if let Some(refused) = verdict.over {
            self.count_refused(refused.label());
        }
        verdict.result
    }

    /// A peer asks for a circuit; whether its client asks for too many.
    pub(super) fn is_create_flood(&mut self, now: Mono, facts: &LinkFacts) -> bool {
        let Some(limits) = self.snapshot.dos.circuits else { return false };
        if self.snapshot.is_listed(facts) {
            return false;
        }
        let spread = self.rng.next_u64();
        let (flood, first) = self.snapshot.clients.create(now, facts.address, &limits, spread);
        if first {
            self.count_marked("circuits");
        }
        flood
    }

    /// Counts a circuit of a client that asks for too many; whether it is refused.
    pub(super) fn refuses_flood(&mut self) -> bool {
        self.count_refused("circuits");
        self.snapshot.dos.circuits.is_some_and(|limits| limits.refuse)
    }

    /// A circuit that came on this link filled its queue away from the client, which by default holds more than Tor's
    /// windows allow to be under way.
    pub(super) fn note_outq(&mut self, now: Mono, facts: &LinkFacts) {
        let Some(limits) = self.snapshot.dos.circuits else { return };
        if self.snapshot.is_listed(facts) {
            return;
        }
        let spread = self.rng.next_u64();
        if self.snapshot.clients.note_outq(now, facts.address, &limits, spread) {
            self.count_marked("queues");
        }
    }

    fn count_marked(&mut self, label: &'static str) {
        *self.counters.dos_marked.entry(label).or_default() += 1;
    }

    /// Counts what is one too many, also if nothing is refused for it.
    fn count_refused(&mut self, label: &'static str) {
        *self.counters.dos_refused.entry(label).or_default() += 1;
    }

    /// A circuit asks for a stream to the outside or a look-up; whether that is one too many, and not only counted, but
    /// dealt with: by closing the circuit, or by `refuse`.
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
        self.count_refused("streams");
        match limits.defence {
            StreamDefence::Count => return false,
            StreamDefence::Refuse => refuse(self),
            StreamDefence::CloseCircuit => {
                self.close_circuit(now, id, "too_many_streams", DestroyReason::ResourceLimit);
            }
        }
        true
    }
}
