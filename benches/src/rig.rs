//! A relay in memory: the engines that ship, links with peers that are played here, and circuits through it.
//!
//! Links have no TLS, circuits come about by the real handshakes: CREATE_FAST from a client, then EXTEND2 to a relay that
//! is connected already, which answers CREATE2 with noise, for the relay in the middle cannot tell. From then on cells
//! of noise will do in both directions, for the same reason.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, Frame, LinkVersion, next_frame, write_fixed};
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::crypto::tor1::ClientOnion;
use onionring_proto::handshake::{
    CreateFast, Created2, CreatedFast, OnionKey, OnionKeyRing, ServerIdentity, fast, htype, ntor,
};
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::link::x509::IDENTITY_BITS;
use onionring_proto::link::{
    CircIds, ExpectedPeer, ExportError, Handshake, LinkIdentity, LinkParams, TlsExporter,
};
use onionring_proto::relay_msg::{self, Extend2, LinkSpecs, RelayCmd, StreamId};
use onionring_proto::time::{Mono, Unix};
use onionring_relay::engine::Engine;
use onionring_relay::engine::dos::{Admission, Clients, DosLimits};
use onionring_relay::engine::event::{Event, LinkEvent};
use onionring_relay::engine::ids::{HomeRule, Leg, LinkId, ShardIndex};
use onionring_relay::engine::link::{NewLink, Origin};
use onionring_relay::engine::rate::{RateLimits, Rates};
use onionring_relay::engine::snapshot::{CircuitParams, KnownRelays, Snapshot};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// The civil time of everything.
pub const UNIX: Unix = Unix(1_800_000_000);

/// The time at which a rig is built; the engines' clocks go on from here.
pub const START: Mono = Mono(1_000_000);

/// Bytes of a cell on all links of a rig.
pub const CELL_LEN: usize = LinkVersion::V5.cell_len();

/// Tries for a circuit id that has to lead to a certain shard; there may be many shards.
const ID_TRIES: u32 = 100_000;

/// Where circuits live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Homes {
    /// Where the hash of link and circuit id says, as relays have it.
    Hash,
    /// On the shard of the client's link. The rule is the same; clients choose ids that it maps there.
    Link,
}

/// What a rig has.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Shards of the relay.
    pub shards: u16,
    /// Links with clients on each shard; there are as many with relays.
    pub links: usize,
    /// Circuits of each client.
    pub circuits: usize,
}

impl Size {
    /// Links with relays.
    pub fn relays(&self) -> usize {
        usize::from(self.shards) * self.links
    }
}

/// The relay, and what comes in.
pub struct Rig {
    /// Its shards.
    pub engines: Vec<Engine>,
    /// The links, and the circuits whose cells come in on each.
    pub feeds: Vec<Feed>,
}

/// One link of the relay, as a source of cells.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The link.
    pub link: LinkId,
    /// The circuit ids that cells on it have.
    pub circuits: Vec<CircId>,
}

impl Feed {
    /// `cells` cells of noise for these circuits in turn, framed.
    pub fn cells(&self, cells: usize, rng: &mut ChaCha20Rng) -> Vec<u8> {
        let mut out = Vec::with_capacity(cells * CELL_LEN);
        let mut body: Body = [0; BODY_LEN];
        for circ in self.circuits.iter().cycle().take(cells) {
            rng.fill_bytes(&mut body);
            write_fixed(LinkVersion::V5, *circ, Command::RELAY, &body, &mut out);
        }
        out
    }
}

/// Stands in for a TLS session: both ends export the same bytes.
pub struct NoTls;

impl TlsExporter for NoTls {
    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8; 32]) -> Result<(), ExportError> {
        out.fill(0);
        for (i, b) in label.iter().chain(context).enumerate() {
            out[i % 32] = out[i % 32].rotate_left(3) ^ b;
        }
        Ok(())
    }
}

/// Who a relay is.
pub struct Identity {
    /// What it proves in circuit handshakes.
    pub server: ServerIdentity,
    /// What it proves on links.
    pub link: Arc<LinkIdentity>,
    /// Stands for its TLS certificate.
    pub leaf: Vec<u8>,
}

impl Identity {
    /// A new one.
    pub fn generate(rng: &mut ChaCha20Rng) -> Identity {
        let rsa = RsaPrivate::generate(IDENTITY_BITS, rng).expect("RSA key");
        let (identity, signing) = (Ed25519Pair::generate(rng), Ed25519Pair::generate(rng));
        let certified = Certified::Ed25519(signing.public());
        let expires = Unix(UNIX.0 + 30 * 86_400);
        let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, expires, &identity);
        let server = ServerIdentity { rsa_id: rsa.public().rsa_id(), ed_id: identity.public() };
        let leaf = b"a TLS certificate".to_vec();
        let link = LinkIdentity::new(&rsa, &signing_cert, &signing, &leaf, UNIX, rng).expect("link identity");
        Identity { server, link: Arc::new(link), leaf }
    }
}

/// A peer with an open link.
struct Peer {
    link: LinkId,
    ids: CircIds,
    used: Vec<CircId>,
}

struct Builder {
    rng: ChaCha20Rng,
    rule: HomeRule,
    identity: Identity,
    engines: Vec<Engine>,
}

impl Rig {
    /// Builds it. `relays` are who it extends to, at least as many as it has links with relays; their keys take long.
    pub fn new(size: Size, homes: Homes, relays: &[Identity]) -> Rig {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let rule = HomeRule::new([9; 16], size.shards);
        let identity = Identity::generate(&mut rng);
        let params = CircuitParams {
            extend_to_private: true,
            circuits_per_client: usize::MAX,
            circuits_per_link: usize::MAX,
            ..CircuitParams::default()
        };
        let snapshot = Arc::new(Snapshot {
            identity: identity.server,
            onion_keys: OnionKeyRing::new(OnionKey::generate(&mut rng), None, &mut rng),
            link_identity: identity.link.clone(),
            link_versions: vec![LinkVersion::V5],
            own_addresses: vec![Ipv4Addr::LOCALHOST.into()],
            relays: Arc::new(KnownRelays::default()),
            params,
            rates: Arc::new(Rates::new(RateLimits::default(), size.shards)),
            dos: DosLimits::default(),
            clients: Arc::new(Clients::new([1; 16])),
        });
        let engine = |shard| {
            let rng = ChaCha20Rng::seed_from_u64(u64::from(shard));
            Engine::new(ShardIndex(shard), rule.clone(), snapshot.clone(), 64 << 20, rng)
        };
        let engines = (0..size.shards).map(engine).collect();
        let mut builder = Builder { rng, rule, identity, engines };
        let feeds = builder.populate(size, homes, relays);
        Rig { engines: builder.engines, feeds }
    }
}

impl Builder {
    /// Links on all shards, and circuits that go from any of them to any other.
    fn populate(&mut self, size: Size, homes: Homes, identities: &[Identity]) -> Vec<Feed> {
        let shards = usize::from(size.shards);
        let mut clients = Vec::new();
        let mut relays = Vec::new();
        for (number, identity) in identities[..size.relays()].iter().enumerate() {
            clients.push(self.connect(number % shards, 2 * number, None));
            relays.push((self.connect(number % shards, 2 * number + 1, Some(identity)), identity));
        }
        for client in &mut clients {
            for _ in 0..size.circuits {
                let to = self.rng.next_u32() as usize % relays.len();
                let (relay, identity) = &mut relays[to];
                self.circuit(homes, client, relay, identity);
            }
        }
        let peers = clients.into_iter().chain(relays.into_iter().map(|(peer, _)| peer));
        peers
            .filter(|peer| !peer.used.is_empty())
            .map(|Peer { link, used, .. }| Feed { link, circuits: used })
            .collect()
    }

    /// Opens a link from a peer, a client without `identity`, and shakes hands.
    fn connect(&mut self, shard: usize, number: usize, identity: Option<&Identity>) -> Peer {
        let address = address(number);
        let origin = Origin::Accepted(self.identity.link.clone());
        let link = self.engines[shard]
            .open_link(START, NewLink { peer: address.into(), origin, admission: Admission::uncounted() });
        let params = LinkParams {
            versions: vec![LinkVersion::V5],
            peer_address: Ipv4Addr::LOCALHOST.into(),
            own_addresses: vec![IpAddr::V4(*address.ip())],
        };
        let me = identity.map(|identity| identity.link.clone());
        let mut handshake = Handshake::initiator(me, ExpectedPeer::default(), &self.identity.leaf, params);
        let mut back = Vec::new();
        loop {
            let mut there = Vec::new();
            handshake.poll_transmit(&mut there);
            let used = self.engines[shard].handle_link_data(START, UNIX, link, &mut there, &NoTls);
            assert_eq!(used, there.len(), "whole cells");
            self.engines[shard].poll_transmit(START, link, &mut back, usize::MAX);
            let (used, open) =
                handshake.handle(UNIX, &mut back, &NoTls, &mut self.rng).expect("a link handshake");
            back.drain(..used);
            if let Some(open) = open {
                let mut last = Vec::new();
                handshake.poll_transmit(&mut last);
                self.engines[shard].handle_link_data(START, UNIX, link, &mut last, &NoTls);
                self.settle();
                return Peer { link, ids: open.circ_ids, used: Vec::new() };
            }
        }
    }

    /// A circuit from this client to this relay.
    fn circuit(&mut self, homes: Homes, client: &mut Peer, relay: &mut Peer, identity: &Identity) {
        let (link, rule) = (client.link, &self.rule);
        let fits = |circ| {
            !client.used.contains(&circ)
                && (homes == Homes::Hash || rule.home(Leg { link, circ }) == link.shard())
        };
        let circ = client.ids.allocate(ID_TRIES, &mut self.rng, fits).expect("a circuit id");
        let (handshake, x) = fast::Client::start(&mut self.rng);
        let mut body = [0; BODY_LEN];
        CreateFast { x }.write(&mut body);
        self.send(link, circ, Command::CREATE_FAST, &body);
        let (_, created) = self.receive(link, Command::CREATED_FAST);
        let keys = handshake.finish(&CreatedFast::parse(&created).reply).expect("CREATED_FAST");
        let mut onion = ClientOnion::new();
        onion.push_hop(&keys);

        let rsa_id = identity.server.rsa_id;
        let key = OnionKey::generate(&mut self.rng);
        let (_, hdata) = ntor::Client::start(&mut self.rng, &rsa_id, key.public());
        let specs = LinkSpecs {
            ipv4: Some(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 9001)),
            ipv6: None,
            rsa_id,
            ed_id: Some(identity.server.ed_id),
        };
        let mut extend = Vec::new();
        Extend2 { specs, htype: htype::NTOR, hdata: &hdata }.write(&mut extend);
        relay_msg::encode(RelayCmd::EXTEND2, StreamId::CIRCUIT, &extend, &mut self.rng, &mut body);
        onion.encrypt_outbound(0, &mut body);
        self.send(link, circ, Command::RELAY_EARLY, &body);
        let (onward, _) = self.receive(relay.link, Command::CREATE2);
        let mut reply = [0; BODY_LEN];
        Created2 { hdata: &[0x5a; ntor::SERVER_LEN] }.write(&mut reply);
        self.send(relay.link, onward, Command::CREATED2, &reply);
        self.receive(link, Command::RELAY);
        client.used.push(circ);
        relay.used.push(onward);
    }

    fn send(&mut self, link: LinkId, circ: CircId, command: Command, body: &Body) {
        let mut cell = Vec::new();
        write_fixed(LinkVersion::V5, circ, command, body, &mut cell);
        let engine = &mut self.engines[usize::from(link.shard().0)];
        assert_eq!(engine.handle_link_data(START, UNIX, link, &mut cell, &NoTls), CELL_LEN);
        self.settle();
    }

    /// Takes the one cell that the relay has for a peer.
    fn receive(&mut self, link: LinkId, expected: Command) -> (CircId, Body) {
        let mut out = Vec::new();
        self.engines[usize::from(link.shard().0)].poll_transmit(START, link, &mut out, usize::MAX);
        match next_frame(LinkVersion::V5.into(), &mut out) {
            Ok(Some((CELL_LEN, Frame::Fixed { circ_id, command, body }))) if command == expected => {
                (circ_id, *body)
            }
            other => panic!("{expected:?} expected, not {other:?}"),
        }
    }

    /// Moves batches and does public-key work until nothing is left.
    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for from in 0..self.engines.len() {
                busy |= self.engines[from].run_background(START, usize::MAX);
                for to in (0..self.engines.len()).filter(|&to| to != from) {
                    while let Some(mut batch) = self.engines[from].take_batch(ShardIndex(to as u16)) {
                        self.engines[to].handle_batch(START, &mut batch);
                        self.engines[from].recycle_batch(batch);
                        busy = true;
                    }
                }
                while let Some(event) = self.engines[from].poll_event() {
                    assert!(matches!(event, Event::Link(LinkEvent::Writable(_))), "{event:?}");
                }
            }
        }
    }
}

/// The address of a peer.
fn address(number: usize) -> SocketAddrV4 {
    let [.., b, c, d] = (number as u32 + 1).to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(10, b, c, d), 9001)
}
