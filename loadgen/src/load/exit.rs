//! The job behind `exit`: circuits of one hop that end at the relay under test, and streams through it to a server of
//! ours, each followed by the next.
//!
//! Relays refuse streams that come directly from clients. So our links authenticate as a relay, one that the relay
//! under test has never heard of, which it takes with `RefuseUnknownExits 0`. That costs it nothing per cell.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use onionring_proto::cell::{Body, CircId, Command};
use onionring_proto::handshake::Terms;
use onionring_proto::origin::{
    Event, FirstHop, HandshakeKind, HopTarget, OriginCircuit, OriginConfig, StreamKey,
};
use onionring_proto::relay_msg::{Begin, BeginFlags, EndReason, Host, LinkSpecs};
use onionring_proto::time::Mono;

use super::board::{Count, Stage};
use super::error::LoadError;
use super::lane::{Core, Job, circuit_of, client_id};
use super::latencies::Timed;
use super::onionskin::RelayKeys;
use super::server::{REQUEST, Server, chunk};
use super::settings::Direction;

/// What one lane does.
pub(super) struct Plan {
    pub(super) keys: RelayKeys,
    pub(super) links: usize,
    pub(super) circuits: usize,
    pub(super) streams: usize,
    /// Bytes of each stream.
    pub(super) bytes: u64,
    pub(super) direction: Direction,
    pub(super) server: Server,
}

/// One stream under way.
struct Transfer {
    began: Instant,
    /// Bytes of the body that have passed.
    bytes: u64,
}

struct Circuit {
    link: usize,
    origin: OriginCircuit,
    transfers: HashMap<StreamKey, Transfer>,
}

/// See the [module](self).
pub(super) struct Exit {
    plan: Plan,
    since: Instant,
    chunk: Arc<[u8]>,
    links: Vec<usize>,
    circuits: Vec<Circuit>,
    built: usize,
}

impl Exit {
    pub(super) fn new(plan: Plan) -> Exit {
        let (links, circuits) = (Vec::new(), Vec::new());
        Exit { plan, since: Instant::now(), chunk: chunk(), links, circuits, built: 0 }
    }

    fn now(&self) -> Mono {
        Mono(self.since.elapsed().as_micros() as u64)
    }

    fn open_circuits(&mut self, core: &mut Core) -> Result<(), LoadError> {
        let RelayKeys { rsa_id, ed_id, onion_key } = self.plan.keys;
        let specs = LinkSpecs { ipv4: None, ipv6: None, rsa_id, ed_id: Some(ed_id) };
        let target = HopTarget { specs, onion_key, handshake: HandshakeKind::Ntor, ask: Terms::default() };
        while self.circuits.len() < self.plan.links * self.plan.circuits {
            let n = self.circuits.len();
            let mut origin = OriginCircuit::new(OriginConfig::default());
            let made = origin.create(self.now(), &mut core.rng, FirstHop::Relay(&target));
            made.map_err(|e| LoadError::Handshake { what: "CREATE2", why: e.to_string() })?;
            let link = self.links[n % self.links.len()];
            self.circuits.push(Circuit { link, origin, transfers: HashMap::new() });
            self.go_on(core, n)?;
        }
        Ok(())
    }

    /// Opens the next stream of circuit `n`.
    fn begin(&mut self, core: &mut Core, n: usize) -> Result<(), LoadError> {
        let circuit = &mut self.circuits[n];
        let address = self.plan.server.address;
        // The flag matters for names only, but C tor has no IPv6 without it.
        let flags = if address.is_ipv6() { BeginFlags::IPV6_OK } else { BeginFlags::default() };
        let begin = Begin { host: Host::Addr(address.ip()), port: address.port(), flags };
        let key = circuit.origin.begin(&mut core.rng, 0, &begin);
        let key = key.map_err(|e| LoadError::Stream { bytes: 0, why: e.to_string() })?;
        circuit.transfers.insert(key, Transfer { began: Instant::now(), bytes: 0 });
        match self.plan.direction {
            Direction::Up => self.write(core, n, key),
            Direction::Down => drop(circuit.origin.write_stream(key, REQUEST)),
        }
        Ok(())
    }

    /// Writes as much as the stream takes.
    fn write(&mut self, core: &mut Core, n: usize, key: StreamKey) {
        let Circuit { origin, transfers, .. } = &mut self.circuits[n];
        let Some(transfer) = transfers.get_mut(&key) else { return };
        while transfer.bytes < self.plan.bytes {
            let at = (transfer.bytes % self.chunk.len() as u64) as usize;
            let len = (self.plan.bytes - transfer.bytes).min((self.chunk.len() - at) as u64) as usize;
            let taken = origin.write_stream(key, &self.chunk[at..at + len]);
            transfer.bytes += taken as u64;
            core.counts.add(Count::Bytes, taken as u64);
            if taken < len {
                return;
            }
        }
    }

    /// Takes what has come on a stream, and compares it.
    fn read(&mut self, core: &mut Core, n: usize, key: StreamKey) -> Result<(), LoadError> {
        let Circuit { origin, transfers, .. } = &mut self.circuits[n];
        let Some(transfer) = transfers.get_mut(&key) else { return Ok(()) };
        let down = self.plan.direction == Direction::Down;
        loop {
            let data = origin.readable(key);
            if data.is_empty() {
                return Ok(());
            }
            let mut len = data.len();
            if down {
                if transfer.bytes == 0 {
                    core.latencies
                        .record(Timed::FirstByte, core.now.saturating_duration_since(transfer.began));
                }
                let at = (transfer.bytes % self.chunk.len() as u64) as usize;
                len = len.min(self.chunk.len() - at);
                if data[..len] != self.chunk[at..at + len] || transfer.bytes + len as u64 > self.plan.bytes {
                    return Err(LoadError::CorruptStream { near: transfer.bytes });
                }
                transfer.bytes += len as u64;
                core.counts.add(Count::Bytes, len as u64);
            }
            origin.consume(key, len);
        }
    }

    /// The relay has ended a stream.
    fn ended(
        &mut self,
        core: &mut Core,
        n: usize,
        key: StreamKey,
        reason: EndReason,
    ) -> Result<(), LoadError> {
        let Some(transfer) = self.circuits[n].transfers.remove(&key) else { return Ok(()) };
        let bytes = transfer.bytes;
        if bytes < self.plan.bytes || reason != EndReason::Done {
            return Err(LoadError::Stream { bytes, why: reason.label().to_owned() });
        }
        let took = core.now.saturating_duration_since(transfer.began);
        if self.plan.direction == Direction::Up {
            // The only byte that comes back says that everything has arrived.
            core.latencies.record(Timed::FirstByte, took);
        }
        core.latencies.record(Timed::LastByte, took);
        core.counts.add(Count::Transfers, 1);
        self.begin(core, n)
    }

    /// Acts on what has happened on a circuit, and sends what it has to send.
    fn go_on(&mut self, core: &mut Core, n: usize) -> Result<(), LoadError> {
        while let Some(event) = self.circuits[n].origin.poll_event() {
            match event {
                Event::Extended { .. } => {
                    self.built += 1;
                    core.counts.add(Count::Circuits, 1);
                }
                Event::Readable(key) => self.read(core, n, key)?,
                Event::Writable(key) => self.write(core, n, key),
                Event::Ended { stream, end } => {
                    self.read(core, n, stream)?;
                    self.ended(core, n, stream, end.reason)?;
                }
                Event::Closed(reason) => {
                    return Err(LoadError::Stream {
                        bytes: 0,
                        why: format!("its circuit is closed, {reason}"),
                    });
                }
                _ => {}
            }
        }
        let Circuit { origin, link, .. } = &mut self.circuits[n];
        while let Some((command, body)) = origin.poll_transmit(&mut core.rng) {
            core.send(*link, client_id(n), command, &body);
        }
        Ok(())
    }
}

impl Job for Exit {
    fn start(&mut self, core: &mut Core) -> Result<(), LoadError> {
        (0..self.plan.links).try_for_each(|_| core.connect().map(drop))
    }

    fn link_up(&mut self, core: &mut Core, link: usize) -> Result<(), LoadError> {
        self.links.push(link);
        core.counts.add(Count::Links, 1);
        if self.links.len() == self.plan.links {
            core.reached = Stage::Links;
        }
        Ok(())
    }

    fn cell(
        &mut self,
        core: &mut Core,
        _: usize,
        id: CircId,
        command: Command,
        body: &mut Body,
    ) -> Result<(), LoadError> {
        let n = circuit_of(id);
        let now = self.now();
        let Some(circuit) = self.circuits.get_mut(n) else {
            return Err(LoadError::UnexpectedCell { command, when: "on a circuit that does not exist" });
        };
        circuit.origin.handle_cell(now, command, body);
        self.go_on(core, n)
    }

    fn tick(&mut self, core: &mut Core, _: Instant) -> Result<(), LoadError> {
        match core.reached {
            Stage::Links if core.goal >= Stage::Circuits => {
                self.open_circuits(core)?;
                if self.built == self.circuits.len() {
                    core.reached = Stage::Circuits;
                }
            }
            Stage::Circuits if core.goal >= Stage::Traffic => {
                core.reached = Stage::Traffic;
                for n in 0..self.circuits.len() {
                    (0..self.plan.streams).try_for_each(|_| self.begin(core, n))?;
                    self.go_on(core, n)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
