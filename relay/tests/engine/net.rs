//! A network of relays in one thread: engines, the rings between their shards, the connections between relays, and
//! peers, in virtual time. Whose turn it is, and how much of what waits arrives, is drawn from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use onionring_proto::cell::{CircId, LinkVersion};
use onionring_proto::handshake::Terms;
use onionring_proto::link::{ExpectedPeer, ExportError, Handshake, LinkParams, TlsExporter};
use onionring_proto::origin::{FirstHop, HandshakeKind, HopTarget, OriginConfig};
use onionring_proto::relay_msg::LinkSpecs;
use onionring_proto::time::{Mono, Unix};
use onionring_relay::engine::Engine;
pub use onionring_relay::engine::counters::Counters;
use onionring_relay::engine::cross::Batch;
use onionring_relay::engine::dos::{Admission, Clients, DosLimits};
use onionring_relay::engine::event::{DialId, Event, LinkEvent, StreamEvent, StreamRef};
use onionring_relay::engine::ids::{HomeRule, LinkId, ShardIndex};
use onionring_relay::engine::link::{LinkEnd, NewLink, Origin};
use onionring_relay::engine::rate::{RateLimits, Rates};
use onionring_relay::engine::snapshot::{CircuitParams, KnownRelay, KnownRelays, Snapshot};
use onionring_relay::limits::CROSSING_RING;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::keys::{EPOCH, keys};
use super::peer::{Circuit, Peer};
use super::sink::{Exchange, Sink};

/// Bytes under way in one direction of a connection before its writer has to wait.
const WIRE_CAPACITY: usize = 32 * 1024;

/// The port of every relay.
const OR_PORT: u16 = 9001;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireId(u64);

/// Stands in for the TLS session of a connection: both ends export the same bytes, every connection others.
pub struct FakeTls(pub WireId);

impl TlsExporter for FakeTls {
    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8; 32]) -> Result<(), ExportError> {
        out.fill(0);
        let input = self.0.0.to_be_bytes();
        for (i, b) in input.iter().chain(label).chain(context).enumerate() {
            out[i % 32] = out[i % 32].rotate_left(3) ^ b;
        }
        Ok(())
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Relay {
        relay: usize,
        shard: usize,
        link: LinkId,
    },
    Peer(usize),
    /// Closed.
    Gone,
}

/// What one end of a connection has sent.
#[derive(Default)]
struct Flow {
    under_way: VecDeque<u8>,
    /// Arrived, and not a whole cell yet.
    arrived: Vec<u8>,
    /// Nothing more will be sent.
    over: bool,
}

struct Wire {
    ends: [End; 2],
    /// What each end has sent.
    flows: [Flow; 2],
}

/// One relay: its shards and what drives them.
pub struct Relay {
    pub engines: Vec<Engine>,
    /// Batches under way, by sending shard and receiving shard.
    rings: Vec<Vec<VecDeque<Batch>>>,
    links: BTreeMap<LinkId, (WireId, usize)>,
    /// Links that said they have something to send.
    writable: BTreeSet<LinkId>,
    closing: BTreeSet<LinkId>,
    dials: Vec<Dial>,
    pub sinks: BTreeMap<(usize, StreamRef), Sink>,
    pub up: bool,
    /// While set, its dials get no answer.
    pub dials_hang: bool,
}

struct Dial {
    shard: usize,
    dial: DialId,
    addresses: Vec<SocketAddr>,
}

/// What makes a network.
pub struct NetConfig {
    /// Shards of each relay.
    pub shards: Vec<u16>,
    /// Link protocols that each relay offers; the last entry holds for all further relays.
    pub versions: Vec<Vec<LinkVersion>>,
    /// Memory of each shard for what waits.
    pub queue_bytes: usize,
    /// Batches that may be under way from one shard to another.
    pub ring: usize,
    pub params: CircuitParams,
    pub dos: DosLimits,
}

impl NetConfig {
    pub fn new(shards: &[u16]) -> NetConfig {
        NetConfig {
            shards: shards.to_vec(),
            versions: vec![LinkVersion::ALL.to_vec()],
            queue_bytes: 64 << 20,
            ring: CROSSING_RING,
            params: CircuitParams { extend_to_private: true, ..CircuitParams::default() },
            dos: DosLimits::default(),
        }
    }
}

pub struct Net {
    pub now: Mono,
    pub rng: ChaCha20Rng,
    pub relays: Vec<Relay>,
    pub peers: Vec<Peer>,
    /// The peers that answer dials, by number of the relay they pretend to be.
    pub rogues: BTreeMap<usize, Vec<usize>>,
    /// While set, streams that are opened are neither answered nor read.
    pub sinks_stuck: bool,
    /// Shards, by relay and number, that have no turn.
    pub stalled: BTreeSet<(usize, usize)>,
    /// Whether those who answer dials as rogues may spoil their handshake.
    pub spoil: bool,
    /// What rogues who answer dials do to their part of the link handshake.
    pub tamper: Option<fn(&mut Vec<u8>)>,
    /// The TLS certificate that all who are dialed show, instead of their own.
    pub tls_leaf: Option<Vec<u8>>,
    /// What clients ask their last hops for.
    pub ask: Terms,
    /// What has happened so far, in short.
    pub trace: DefaultHasher,
    /// Addresses at which a dial waits for an answer that does not come.
    pub tarpits: BTreeSet<SocketAddr>,
    config: NetConfig,
    clients: Vec<Arc<Clients>>,
    known: Arc<KnownRelays>,
    wires: BTreeMap<WireId, Wire>,
    next_wire: u64,
}

/// The address of relay number `index`; relays and rogues share the numbers.
pub fn address(index: usize) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 1, index as u8), OR_PORT).into()
}

/// How to extend a circuit to relay number `index`.
pub fn target(index: usize, handshake: HandshakeKind) -> HopTarget {
    let keys = keys(index);
    let SocketAddr::V4(ipv4) = address(index) else { unreachable!() };
    let ed_id = Some(keys.server.ed_id);
    let specs = LinkSpecs { ipv4: Some(ipv4), ipv6: None, rsa_id: keys.server.rsa_id, ed_id };
    HopTarget { specs, onion_key: *keys.onion_key().public(), handshake, ask: Terms::default() }
}

impl Net {
    pub fn new(seed: u64, config: NetConfig) -> Net {
        let known = (0..config.shards.len())
            .map(|i| {
                let relay = KnownRelay { ed_id: Some(keys(i).server.ed_id), addresses: vec![address(i)] };
                (keys(i).server.rsa_id, relay)
            })
            .collect();
        let mut net = Net {
            now: Mono(1_000_000),
            rng: ChaCha20Rng::seed_from_u64(seed),
            relays: Vec::new(),
            peers: Vec::new(),
            rogues: BTreeMap::new(),
            sinks_stuck: false,
            stalled: BTreeSet::new(),
            spoil: false,
            tamper: None,
            tls_leaf: None,
            ask: Terms::default(),
            trace: DefaultHasher::new(),
            tarpits: BTreeSet::new(),
            clients: config.shards.iter().map(|_| Arc::new(Clients::new([1; 16]))).collect(),
            known: Arc::new(known),
            wires: BTreeMap::new(),
            next_wire: 0,
            config,
        };
        for index in 0..net.config.shards.len() {
            let relay = net.boot(index);
            net.relays.push(relay);
        }
        net
    }

    fn boot(&mut self, index: usize) -> Relay {
        let shards = self.config.shards[index];
        let mut key = [0; 16];
        self.rng.fill_bytes(&mut key);
        let homes = HomeRule::new(key, shards);
        let snapshot = Arc::new(self.snapshot(index));
        let engines = (0..shards)
            .map(|shard| {
                let rng = ChaCha20Rng::seed_from_u64(self.rng.next_u64());
                let queue_bytes = self.config.queue_bytes;
                Engine::new(ShardIndex(shard), homes.clone(), snapshot.clone(), queue_bytes, rng)
            })
            .collect();
        let row = || (0..shards).map(|_| VecDeque::new()).collect();
        Relay {
            engines,
            rings: (0..shards).map(|_| row()).collect(),
            links: BTreeMap::new(),
            writable: BTreeSet::new(),
            closing: BTreeSet::new(),
            dials: Vec::new(),
            sinks: BTreeMap::new(),
            up: true,
            dials_hang: false,
        }
    }

    fn versions(&self, index: usize) -> Vec<LinkVersion> {
        let all = &self.config.versions;
        all.get(index).or(all.last()).expect("at least one entry").clone()
    }

    /// What relay number `index` knows and may do.
    pub fn snapshot(&self, index: usize) -> Snapshot {
        Snapshot {
            identity: keys(index).server,
            onion_keys: keys(index).onion_keys(),
            link_identity: keys(index).link.clone(),
            link_versions: self.versions(index),
            own_addresses: vec![address(index).ip()],
            relays: self.known.clone(),
            rates: Arc::new(Rates::new(RateLimits::default(), 1)),
            dos: self.config.dos,
            clients: self.clients[index].clone(),
            params: self.config.params.clone(),
        }
    }

    /// Changes what a relay knows and may do.
    pub fn set_snapshot(&mut self, index: usize, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        self.relays[index].engines.iter_mut().for_each(|engine| engine.set_snapshot(snapshot.clone()));
    }

    // Connections and relays that come and go.

    fn unix(&self) -> Unix {
        EPOCH + self.now.since(Mono(0))
    }

    fn add_wire(&mut self, ends: [End; 2]) -> WireId {
        let id = WireId(self.next_wire);
        self.next_wire += 1;
        self.wires.insert(id, Wire { ends, flows: Default::default() });
        id
    }

    /// The kernel of relay number `index` accepts a connection, on any of its listeners.
    fn accept(&mut self, index: usize, from: SocketAddr, wire: WireId) -> End {
        let shard = self.below(self.relays[index].engines.len());
        let engine = &mut self.relays[index].engines[shard];
        let Ok(admission) = engine.admit(self.now, from.ip()) else { return End::Gone };
        let origin = Origin::Accepted(keys(index).link.clone());
        let link = engine.open_link(self.now, NewLink { peer: from, origin, admission });
        self.relays[index].links.insert(link, (wire, 1));
        End::Relay { relay: index, shard, link }
    }

    /// Connects a client, or a relay that is played by hand and proves to be number `identity`.
    pub fn connect(&mut self, index: usize, identity: Option<usize>) -> usize {
        let from = identity.map_or((Ipv4Addr::new(10, 0, 0, 1), 40_000).into(), address);
        let params = LinkParams {
            versions: LinkVersion::ALL.to_vec(),
            peer_address: address(index).ip(),
            own_addresses: vec![from.ip()],
        };
        let server = keys(index).server;
        let expected = ExpectedPeer { rsa_id: Some(server.rsa_id), ed_id: Some(server.ed_id) };
        let me = identity.map(|identity| keys(identity).link.clone());
        let handshake = Handshake::initiator(me, expected, &keys(index).tls_leaf, params);
        let peer = self.peers.len();
        let wire = self.add_wire([End::Peer(peer), End::Gone]);
        let end = self.accept(index, from, wire);
        self.wires.get_mut(&wire).expect("just added").ends[1] = end;
        self.peers.push(Peer::new(handshake, (wire, 0)));
        peer
    }

    /// A client with an open link to relay number `index`.
    pub fn client(&mut self, index: usize) -> usize {
        let peer = self.connect(index, None);
        self.settle();
        assert!(self.peers[peer].link().is_some(), "the link opens");
        peer
    }

    fn dial(&mut self, index: usize, dial: Dial) {
        let Dial { shard, dial, addresses } = dial;
        for to in addresses {
            let Some(peer) = (0..super::keys::RELAYS).find(|&peer| address(peer) == to) else { continue };
            let up = self.relays.get(peer).is_some_and(|relay| relay.up);
            if !up && !self.rogues.contains_key(&peer) {
                continue;
            }
            let leaf = self.tls_leaf.as_ref().unwrap_or(&keys(peer).tls_leaf);
            let origin = Origin::Dialed(dial, leaf.clone());
            let link = self.relays[index].engines[shard]
                .open_link(self.now, NewLink { peer: to, origin, admission: Admission::uncounted() });
            let wire = self.add_wire([End::Relay { relay: index, shard, link }, End::Gone]);
            self.relays[index].links.insert(link, (wire, 0));
            let end = if up {
                self.accept(peer, address(index), wire)
            } else {
                let params = LinkParams {
                    versions: LinkVersion::ALL.to_vec(),
                    peer_address: address(index).ip(),
                    own_addresses: vec![to.ip()],
                };
                let handshake = Handshake::responder(keys(peer).link.clone(), params);
                let number = self.peers.len();
                let spoil = self.spoil && self.below(2) == 0;
                self.peers.push(Peer::new(handshake, (wire, 1)));
                self.peers[number].spoil = spoil;
                self.peers[number].tamper = self.tamper;
                self.rogues.get_mut(&peer).expect("just seen").push(number);
                End::Peer(number)
            };
            self.wires.get_mut(&wire).expect("just added").ends[1] = end;
            return self.serve(index, shard);
        }
        self.relays[index].engines[shard].dial_failed(self.now, dial);
        self.serve(index, shard);
    }

    /// Fails the dials of a relay that got no answer.
    pub fn fail_dials(&mut self, index: usize) {
        self.relays[index].dials_hang = false;
        for Dial { shard, dial, .. } in std::mem::take(&mut self.relays[index].dials) {
            self.relays[index].engines[shard].dial_failed(self.now, dial);
            self.serve(index, shard);
        }
    }

    /// The connections that stand, and what is at their ends.
    pub fn wires(&self) -> Vec<(WireId, [End; 2])> {
        self.wires.iter().map(|(&id, wire)| (id, wire.ends)).collect()
    }

    /// Connections between two relays.
    pub fn wires_between(&self, a: usize, b: usize) -> Vec<WireId> {
        let is = |end: End, index| matches!(end, End::Relay { relay, .. } if relay == index);
        let between = |[x, y]: [End; 2]| (is(x, a) && is(y, b)) || (is(x, b) && is(y, a));
        self.wires().into_iter().filter(|(_, ends)| between(*ends)).map(|(id, _)| id).collect()
    }

    /// The connection breaks: what is under way is lost, and both ends hear of it.
    pub fn cut(&mut self, wire: WireId) {
        let Some(wire) = self.wires.remove(&wire) else { return };
        for end in wire.ends {
            match end {
                End::Relay { relay, shard, link } => {
                    self.forget_link(relay, link);
                    self.relays[relay].engines[shard].link_gone(self.now, link);
                    self.serve(relay, shard);
                }
                End::Peer(peer) => self.peers[peer].close(),
                End::Gone => {}
            }
        }
    }

    fn forget_link(&mut self, relay: usize, link: LinkId) {
        let relay = &mut self.relays[relay];
        relay.links.remove(&link);
        relay.writable.remove(&link);
        relay.closing.remove(&link);
    }

    /// A peer closes its connection; what it sent before still arrives.
    pub fn hang_up(&mut self, peer: usize) {
        if let Some((wire, side)) = self.peers[peer].wire {
            self.close_end(wire, side);
        }
        self.peers[peer].close();
    }

    fn close_end(&mut self, id: WireId, side: usize) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.flows[side].over = true;
        wire.ends[side] = End::Gone;
        // What comes the other way finds nobody.
        wire.flows[1 - side].under_way.clear();
        wire.flows[1 - side].arrived.clear();
        if wire.ends == [End::Gone; 2] {
            self.wires.remove(&id);
        }
    }

    /// The relay crashes.
    pub fn kill(&mut self, index: usize) {
        let wires: Vec<_> = self.relays[index].links.values().map(|(wire, _)| *wire).collect();
        wires.into_iter().for_each(|wire| self.cut(wire));
        self.relays[index] = self.boot(index);
        self.relays[index].up = false;
    }

    /// It is back, with the same keys.
    pub fn restart(&mut self, index: usize) {
        self.relays[index].up = true;
    }

    // The course of things.

    /// A random number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.rng.next_u32() as usize % n
    }

    /// Does what a shard asks for, and passes its batches on.
    fn serve(&mut self, index: usize, shard: usize) {
        let relay = &mut self.relays[index];
        let engine = &mut relay.engines[shard];
        for to in 0..relay.rings.len() {
            let (ring, to) = (&mut relay.rings[shard][to], ShardIndex(to as u16));
            while let Some(batch) = engine.take_batch(to) {
                if ring.len() >= self.config.ring {
                    engine.put_back_batch(to, batch);
                    break;
                }
                ring.push_back(batch);
            }
        }
        while let Some(event) = engine.poll_event() {
            match event {
                Event::Link(LinkEvent::Dial { dial, addresses, .. }) => {
                    relay.dials.push(Dial { shard, dial, addresses });
                }
                Event::Link(LinkEvent::GiveUp(gone)) => relay.dials.retain(|dial| dial.dial != gone),
                Event::Link(LinkEvent::Writable(link)) => {
                    relay.writable.insert(link);
                }
                Event::Link(LinkEvent::Close(link)) => {
                    if relay.links.contains_key(&link) {
                        relay.closing.insert(link);
                    }
                }
                Event::Stream(StreamEvent::Begin { at, host, .. }) => {
                    relay.sinks.insert((shard, at), Sink::new(at, &host, self.sinks_stuck));
                }
                Event::Stream(StreamEvent::BeginDir { at }) => {
                    relay.sinks.insert((shard, at), Sink::directory(at, self.sinks_stuck));
                }
                Event::Stream(StreamEvent::Resolve { .. }) if self.sinks_stuck => {}
                Event::Stream(StreamEvent::Resolve { at, .. }) => {
                    let failed = (onionring_proto::relay_msg::ResolvedValue::TransientError, 60);
                    let answer = onionring_proto::relay_msg::Resolved { answers: vec![failed] };
                    engine.stream_resolved(self.now, at, &answer);
                }
                Event::Stream(StreamEvent::Closed { at, reason }) => match reason {
                    None => {
                        relay.sinks.remove(&(shard, at));
                    }
                    Some(_) => {
                        if let Some(sink) = relay.sinks.get_mut(&(shard, at)) {
                            sink.ended = true;
                        }
                    }
                },
                Event::Stream(StreamEvent::Finished(at)) => {
                    relay.sinks.entry((shard, at)).and_modify(|sink| sink.finished = true);
                }
                Event::Stream(StreamEvent::Readable(at)) => {
                    relay.sinks.entry((shard, at)).and_modify(|sink| sink.readable = true);
                }
                Event::Stream(StreamEvent::Writable(at)) => {
                    relay.sinks.entry((shard, at)).and_modify(|sink| sink.writable = true);
                }
            }
        }
    }

    /// Everyone gets one turn, in random order, and some miss it. `false` if there was certainly nothing to do.
    pub fn round(&mut self) -> bool {
        self.turns(true) || self.turns(false)
    }

    fn turns(&mut self, some_miss_theirs: bool) -> bool {
        self.now = self.now + Duration::from_micros(u64::from(self.rng.next_u32() % 2000));
        let mut turns = Vec::new();
        for (index, relay) in self.relays.iter().enumerate().filter(|(_, relay)| relay.up) {
            turns.push(Turn::Relay(index));
            turns.extend((0..relay.engines.len()).map(|shard| Turn::Shard(index, shard)));
            turns.extend(relay.links.keys().map(|&link| Turn::Transmit(index, link)));
        }
        turns.extend(self.wires.keys().flat_map(|&wire| [Turn::Deliver(wire, 0), Turn::Deliver(wire, 1)]));
        turns.extend((0..self.peers.len()).map(Turn::Peer));
        for i in (1..turns.len()).rev() {
            let j = self.below(i + 1);
            turns.swap(i, j);
        }
        let mut busy = false;
        for turn in turns {
            if some_miss_theirs && self.below(4) == 0 {
                continue;
            }
            busy |= match turn {
                Turn::Relay(index) => self.relay_turn(index),
                Turn::Shard(index, shard) => self.shard_turn(index, shard),
                Turn::Transmit(index, link) => self.transmit(index, link),
                Turn::Deliver(wire, side) => self.deliver(wire, side),
                Turn::Peer(peer) => self.peer_turn(peer),
            };
        }
        busy
    }

    fn relay_turn(&mut self, index: usize) -> bool {
        if self.relays[index].dials_hang {
            return false;
        }
        let dials = self.relays[index].dials.iter().enumerate();
        let answered = dials.filter(|(_, dial)| !self.tarpits.contains(&dial.addresses[0]));
        let answered: Vec<usize> = answered.map(|(at, _)| at).collect();
        if answered.is_empty() {
            return false;
        }
        let dial = answered[self.below(answered.len())];
        let dial = self.relays[index].dials.swap_remove(dial);
        self.dial(index, dial);
        true
    }

    /// Timers, then a batch, public-key work and streams.
    fn shard_turn(&mut self, index: usize, shard: usize) -> bool {
        if self.stalled.contains(&(index, shard)) {
            return false;
        }
        let now = self.now;
        let from = self.below(self.relays[index].rings.len());
        let relay = &mut self.relays[index];
        let engine = &mut relay.engines[shard];
        let mut busy = engine.poll_timeout().is_some_and(|at| at <= now);
        engine.handle_timeout(now);
        if let Some(mut batch) = relay.rings[from][shard].pop_front() {
            engine.handle_batch(now, &mut batch);
            relay.engines[from].recycle_batch(batch);
            busy = true;
        }
        let engine = &mut relay.engines[shard];
        let Counters { pending_creates: pending, batches_waiting, .. } = *engine.counters();
        busy |= batches_waiting > 0;
        engine.run_background(now, 1 + (self.rng.next_u32() % 3) as usize);
        busy |= pending > 0;
        let rng = &mut self.rng;
        relay.sinks.retain(|(at, _), sink| {
            if *at != shard {
                return true;
            }
            let (over, worked) = sink.work(engine, now, rng);
            busy |= worked;
            !over
        });
        busy |= relay.rings.iter().any(|row| !row[shard].is_empty());
        (self.now.0, index, shard, busy).hash(&mut self.trace);
        self.serve(index, shard);
        busy
    }

    fn transmit(&mut self, index: usize, link: LinkId) -> bool {
        let Some(&(wire, side)) = self.relays[index].links.get(&link) else { return false };
        let until = 1 + self.below(4096);
        let relay = &mut self.relays[index];
        let shard = usize::from(link.shard().0);
        let mut busy = false;
        if relay.writable.contains(&link) {
            let Some(flow) = self.wires.get_mut(&wire).map(|wire| &mut wire.flows[side]) else {
                return false;
            };
            if flow.under_way.len() >= WIRE_CAPACITY {
                // If the reader is stuck, so is this.
                return false;
            }
            let mut out = Vec::new();
            if !relay.engines[shard].poll_transmit(self.now, link, &mut out, until) {
                relay.writable.remove(&link);
            }
            flow.under_way.extend(out);
            busy = true;
        }
        if relay.closing.contains(&link) && relay.engines[shard].link_finished(link) {
            relay.engines[shard].forget_link(link);
            self.forget_link(index, link);
            self.close_end(wire, side);
            busy = true;
        }
        busy
    }

    fn deliver(&mut self, id: WireId, side: usize) -> bool {
        let draw = self.rng.next_u32() as usize;
        let Some(wire) = self.wires.get_mut(&id) else { return false };
        let (to, flow) = (wire.ends[1 - side], &mut wire.flows[side]);
        let waits = match to {
            End::Relay { relay, shard, .. } => self.relays[relay].engines[shard].congested(),
            End::Peer(peer) => self.peers[peer].deaf,
            End::Gone => false,
        };
        if waits {
            return false;
        }
        if flow.under_way.is_empty() {
            if flow.over && to != End::Gone {
                self.cut(id);
                return true;
            }
            return false;
        }
        // Often all, otherwise any part.
        let all = flow.under_way.len();
        let n = if draw.is_multiple_of(2) { all } else { 1 + draw / 2 % all };
        (id, side, n, flow.under_way[n - 1]).hash(&mut self.trace);
        flow.arrived.extend(flow.under_way.drain(..n));
        let mut arrived = std::mem::take(&mut flow.arrived);
        let tls = FakeTls(id);
        match to {
            End::Relay { relay, shard, link } => {
                let unix = self.unix();
                let engine = &mut self.relays[relay].engines[shard];
                let used = engine.handle_link_data(self.now, unix, link, &mut arrived, &tls);
                arrived.drain(..used);
                self.serve(relay, shard);
            }
            End::Peer(peer) => {
                let used = self.peers[peer].receive(self.now, &mut arrived, &tls, &mut self.rng);
                arrived.drain(..used);
                if self.peers[peer].is_closed() {
                    self.cut(id);
                    return true;
                }
            }
            End::Gone => arrived.clear(),
        }
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.flows[side].arrived = arrived;
        }
        true
    }

    fn peer_turn(&mut self, peer: usize) -> bool {
        let now = self.now;
        let peer = &mut self.peers[peer];
        peer.work(now, &mut self.rng);
        let Some((wire, side)) = peer.wire else { return false };
        let Some(wire) = self.wires.get_mut(&wire) else { return false };
        let flow = &mut wire.flows[side];
        if peer.out.is_empty() || flow.under_way.len() >= WIRE_CAPACITY {
            return false;
        }
        if peer.spoil && !peer.spoke {
            spoil(&mut peer.out, &mut self.rng);
        }
        if let Some(tamper) = peer.tamper.filter(|_| !peer.spoke) {
            tamper(&mut peer.out);
        }
        peer.spoke = peer.link().is_some();
        flow.under_way.extend(peer.out.drain(..));
        true
    }

    /// What has happened so far, as a number.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Rounds until nothing is left to do, but for what time brings.
    pub fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if !self.round() {
                return;
            }
        }
        panic!("the network does not come to rest");
    }

    /// When the next deadline of anyone is.
    pub fn next_timeout(&self) -> Option<Mono> {
        let relays = self.relays.iter().filter(|relay| relay.up);
        let engines = relays.flat_map(|relay| &relay.engines).filter_map(Engine::poll_timeout);
        let circuits = self.peers.iter().flat_map(|peer| peer.circuits.values());
        engines.chain(circuits.filter_map(|circuit| circuit.origin.poll_timeout())).min()
    }

    /// Lets time pass, with everything that is due in it.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while let Some(next) = self.next_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.settle();
        }
        self.now = self.now.max(end);
    }

    // Ways around the turns.

    /// The link of relay 0 to a peer, and the shard that has it.
    pub fn link_of(&self, peer: usize) -> (LinkId, usize) {
        let (wire, side) = self.peers[peer].wire.expect("a connection");
        let End::Relay { shard, link, .. } = self.wires[&wire].ends[1 - side] else { panic!("no relay") };
        (link, shard)
    }

    /// Gives relay 0 bytes from a peer at once, without anyone else's turn. Returns how many it took.
    pub fn inject(&mut self, peer: usize, bytes: &mut [u8]) -> usize {
        let (link, shard) = self.link_of(peer);
        let (wire, _) = self.peers[peer].wire.expect("a connection");
        let unix = self.unix();
        self.relays[0].engines[shard].handle_link_data(self.now, unix, link, bytes, &FakeTls(wire))
    }

    // Circuits and what came of them.

    /// A circuit of `client`'s through relays, the first of which its link leads to, with exchanges on it.
    pub fn start(&mut self, client: usize, path: &[usize], plans: &[Exchange]) -> CircId {
        self.start_with(client, path, plans, OriginConfig::default())
    }

    pub fn start_with(
        &mut self,
        client: usize,
        path: &[usize],
        plans: &[Exchange],
        config: OriginConfig,
    ) -> CircId {
        let mut targets = Vec::new();
        for &hop in path {
            let kind = if self.below(2) == 0 { HandshakeKind::Ntor } else { HandshakeKind::NtorV3 };
            targets.push(target(hop, kind));
        }
        if self.ask.half_close
            && let [_, .., last] = &mut targets[..]
        {
            (last.handshake, last.ask) = (HandshakeKind::NtorV3, self.ask);
        }
        let rest = targets.split_off(1);
        let fast = self.below(3) == 0;
        let first = if fast { FirstHop::Fast } else { FirstHop::Relay(&targets[0]) };
        self.peers[client].start_circuit(self.now, &mut self.rng, first, rest, plans.to_vec(), config)
    }

    /// A circuit that stands, with all its exchanges done.
    pub fn build(&mut self, client: usize, path: &[usize], plans: &[Exchange]) -> CircId {
        let id = self.start(client, path, plans);
        self.settle();
        let circuit = self.circuit(client, id);
        assert_eq!(circuit.closed, None);
        assert_eq!(circuit.origin.hops(), path.len());
        assert!(circuit.exchanges.values().all(|running| running.complete()), "incomplete");
        id
    }

    pub fn circuit(&mut self, client: usize, id: CircId) -> &mut Circuit {
        self.peers[client].circuits.get_mut(&id).expect("a circuit of this client")
    }

    /// Runs an exchange on a circuit that stands.
    pub fn exchange(&mut self, client: usize, id: CircId, plan: Exchange) {
        let mut rng = ChaCha20Rng::seed_from_u64(self.rng.next_u64());
        let circuit = self.circuit(client, id);
        circuit.plans.push(plan);
        circuit.begin_plans(&mut rng);
        self.settle();
        let circuit = self.circuit(client, id);
        assert_eq!(circuit.closed, None);
        assert!(circuit.exchanges.values().all(|running| running.complete()), "incomplete");
    }

    /// Sums something up over the shards of a relay.
    pub fn count(&mut self, relay: usize, what: impl Fn(&Counters) -> usize) -> usize {
        self.relays[relay].engines.iter_mut().map(|engine| what(engine.counters())).sum()
    }

    /// Asserts that nothing is left of all that was, once every client is gone and the links between relays have idled
    /// out.
    pub fn assert_nothing_left(&mut self) {
        for peer in 0..self.peers.len() {
            self.peers[peer].deaf = false;
            self.peers[peer].out.clear();
            self.hang_up(peer);
        }
        self.tarpits.clear();
        for relay in 0..self.relays.len() {
            self.relays[relay].dials_hang = false;
            self.relays[relay].sinks.values_mut().for_each(|sink| sink.stuck = false);
        }
        self.settle();
        for relay in 0..self.relays.len() {
            assert_eq!(self.count(relay, |c| c.circuits), 0, "circuits of relay {relay}");
        }
        self.advance(Duration::from_secs(3 * 3600));
        for relay in 0..self.relays.len() {
            let left = [
                ("links", self.count(relay, |c| c.links)),
                ("peers", self.count(relay, |c| c.peers)),
                ("streams", self.count(relay, |c| c.streams)),
                ("queued cells", self.count(relay, |c| c.queued_cells)),
                ("pending creates", self.count(relay, |c| c.pending_creates)),
                ("inbox bytes", self.count(relay, |c| c.inbox_bytes)),
                ("dials", self.count(relay, |c| c.dials_pending)),
                ("seekers", self.count(relay, |c| c.seekers)),
                ("timers", self.count(relay, |c| c.timers)),
                ("batches", self.count(relay, |c| c.batches_waiting)),
                ("ids leaving", self.count(relay, |c| c.ids_leaving)),
                ("legs", self.count(relay, |c| c.legs)),
                ("sinks", self.relays[relay].sinks.len()),
            ];
            assert!(left.iter().all(|(_, n)| *n == 0), "left at relay {relay}: {left:?}");
        }
        assert!(self.wires.is_empty());
    }

    /// Closes a link of a relay from the inside, as on shutdown.
    pub fn close_links(&mut self, index: usize) {
        for shard in 0..self.relays[index].engines.len() {
            let engine = &mut self.relays[index].engines[shard];
            for link in engine.links().collect::<Vec<_>>() {
                engine.close_link(self.now, link, LinkEnd::Shutdown);
            }
            self.serve(index, shard);
        }
    }
}

/// Changes what is to be sent: a bit, the end, or something more.
fn spoil(bytes: &mut Vec<u8>, rng: &mut ChaCha20Rng) {
    let draw = rng.next_u32() as usize;
    let at = draw / 8 % bytes.len().max(1);
    match draw % 8 {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_within(at..),
        2 => bytes.extend([at as u8; 40]),
        3..6 if !bytes.is_empty() => bytes[at] ^= 1 << (draw % 7),
        _ => {}
    }
}

enum Turn {
    Relay(usize),
    Shard(usize, usize),
    Transmit(usize, LinkId),
    Deliver(WireId, usize),
    Peer(usize),
}
