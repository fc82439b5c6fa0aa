//! A client and a chain of relays, in memory.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::cell::{BODY_LEN, Body, Command};
use crate::crypto::tor1::{KeyMaterial, RelayLayer, SendmeTag};
use crate::flow::{CIRCUIT_WINDOW, CircuitRecv, CircuitSend, StreamRecv};
use crate::handshake::{
    self, Create2, CreateFast, Created2, CreatedFast, OnionKey, OnionKeyRing, ServerIdentity, Terms,
    respond_with,
};
use crate::origin::{
    CloseReason, Event, FirstHop, HandshakeKind, HopTarget, OriginCircuit, OriginConfig, StreamKey, Violation,
};
use crate::relay_msg::{self, Connected, Extend2, Extended2, LinkSpecs, RelayCmd, Sendme, StreamId};
use crate::time::Mono;

/// A relay of the other side: keys, and its layer once the circuit has reached it.
pub(super) struct Relay {
    pub identity: ServerIdentity,
    pub keys: OnionKeyRing,
    pub offer: Terms,
    pub hop: Option<RelayHop>,
}

pub(super) struct RelayHop {
    pub layer: RelayLayer,
    pub recv: CircuitRecv,
    pub send: CircuitSend,
}

impl Relay {
    pub fn new(n: u8, rng: &mut ChaCha8Rng) -> Relay {
        let keys = OnionKeyRing::new(OnionKey::generate(rng), None, rng);
        let identity = ServerIdentity { rsa_id: [n + 1; 20], ed_id: [n + 101; 32] };
        Relay { identity, keys, offer: Terms::default(), hop: None }
    }

    pub fn target(&self, handshake: HandshakeKind) -> HopTarget {
        let specs = LinkSpecs {
            ipv4: Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9001)),
            ipv6: None,
            rsa_id: self.identity.rsa_id,
            ed_id: Some(self.identity.ed_id),
        };
        HopTarget { specs, onion_key: *self.keys.current().public(), handshake, ask: Terms::default() }
    }

    pub fn join(&mut self, keys: &KeyMaterial) {
        self.hop = Some(RelayHop {
            layer: RelayLayer::new(keys),
            recv: CircuitRecv::default(),
            send: CircuitSend::new(CIRCUIT_WINDOW),
        });
    }
}

/// A message that a relay recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub hop: usize,
    pub command: Command,
    pub cmd: RelayCmd,
    pub stream: StreamId,
    pub data: Vec<u8>,
}

/// A client and a chain of relays, in memory.
pub(super) struct Net {
    pub client: OriginCircuit,
    pub relays: Vec<Relay>,
    pub rng: ChaCha8Rng,
    pub now: Mono,
    /// What relays heard, apart from handshakes.
    pub heard: Vec<Heard>,
    /// Commands of all cells that the client sent.
    pub sent: Vec<Command>,
    /// Whether relays acknowledge DATA as they should.
    pub acknowledge: bool,
    /// What relays keep of the streams' windows.
    pub windows: BTreeMap<StreamKey, StreamRecv>,
}

impl Net {
    pub fn new(config: OriginConfig) -> Net {
        let mut rng = ChaCha8Rng::seed_from_u64(42);
        Net {
            client: OriginCircuit::new(config),
            relays: (0..12).map(|n| Relay::new(n, &mut rng)).collect(),
            rng,
            now: Mono(1_000_000),
            heard: Vec::new(),
            sent: Vec::new(),
            acknowledge: true,
            windows: BTreeMap::new(),
        }
    }

    /// A circuit of `hops` hops: CREATE_FAST, then ntor and ntor-v3 in turn.
    pub fn built(hops: usize, config: OriginConfig) -> Net {
        let mut net = Net::new(config);
        net.client.create(net.now, &mut net.rng, FirstHop::Fast).unwrap();
        net.run();
        for n in 1..hops {
            net.extend(n, if n % 2 == 1 { HandshakeKind::Ntor } else { HandshakeKind::NtorV3 });
        }
        assert_eq!(net.client.hops(), hops);
        net.events();
        net
    }

    pub fn extend(&mut self, n: usize, handshake: HandshakeKind) {
        let target = self.relays[n].target(handshake);
        self.client.extend(self.now, &mut self.rng, &target).unwrap();
        self.run();
    }

    /// Delivers all that the client sends, and the answers, until all is quiet.
    pub fn run(&mut self) {
        while let Some((command, body)) = self.client.poll_transmit(&mut self.rng) {
            self.sent.push(command);
            self.deliver(command, body);
        }
    }

    pub fn deliver(&mut self, command: Command, mut body: Body) {
        match command {
            Command::CREATE_FAST => {
                let x = CreateFast::parse(&body).x;
                let (reply, keys) = handshake::fast::server(&mut self.rng, &x);
                self.relays[0].join(&keys);
                CreatedFast { reply }.write(&mut body);
                self.client.handle_cell(self.now, Command::CREATED_FAST, &mut body);
            }
            Command::CREATE2 => {
                let create = Create2::parse(&body).unwrap();
                let hdata = self.answer(0, create.htype, create.hdata);
                let mut body = [0; BODY_LEN];
                Created2 { hdata: &hdata }.write(&mut body);
                self.client.handle_cell(self.now, Command::CREATED2, &mut body);
            }
            Command::DESTROY => assert_eq!(body[0], 0, "clients give no reason"),
            Command::RELAY | Command::RELAY_EARLY => {
                let found = self.relays.iter_mut().enumerate().find_map(|(n, relay)| {
                    let tag = relay.hop.as_mut()?.layer.decrypt_outbound(&mut body)?;
                    Some((n, tag))
                });
                let (hop, tag) = found.expect("some relay recognises it");
                let msg = relay_msg::decode(&body).unwrap();
                let data = msg.data.to_vec();
                self.on_message(Heard { hop, command, cmd: msg.cmd, stream: msg.stream, data }, tag);
            }
            other => panic!("client sent {other}"),
        }
    }

    pub fn answer(&mut self, n: usize, htype: u16, hdata: &[u8]) -> Vec<u8> {
        let relay = &mut self.relays[n];
        let offer = relay.offer;
        let answer = respond_with(&mut self.rng, &relay.identity, &relay.keys, offer, htype, hdata);
        let (reply, keys, _) = answer.unwrap();
        relay.join(&keys);
        reply
    }

    pub fn on_message(&mut self, heard: Heard, tag: SendmeTag) {
        let key = StreamKey { hop: heard.hop, id: heard.stream };
        match heard.cmd {
            RelayCmd::EXTEND2 => {
                assert_eq!(heard.command, Command::RELAY_EARLY);
                let extend = Extend2::parse(&heard.data).unwrap();
                let next = self.relays.iter().position(|r| r.identity.rsa_id == extend.specs.rsa_id).unwrap();
                let mut reply = Vec::new();
                let hdata = self.answer(next, extend.htype, extend.hdata);
                Extended2 { hdata: &hdata }.write(&mut reply);
                self.say(heard.hop, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &reply);
                return;
            }
            RelayCmd::DATA if self.acknowledge => {
                let hop = self.relays[heard.hop].hop.as_mut().unwrap();
                let due = hop.recv.on_data(tag).unwrap();
                if let Some(tag) = due {
                    self.say_sendme(heard.hop, Sendme::V1 { tag });
                }
                let window = self.windows.entry(key).or_default();
                window.on_data().unwrap();
                for _ in 0..window.flushed(0) {
                    self.say(heard.hop, RelayCmd::SENDME, heard.stream, &[]);
                }
            }
            RelayCmd::SENDME if heard.stream == StreamId::CIRCUIT => {
                let hop = self.relays[heard.hop].hop.as_mut().unwrap();
                hop.send.on_sendme(Sendme::parse(&heard.data).unwrap(), false).unwrap();
            }
            RelayCmd::TRUNCATE => {
                self.relays[heard.hop + 1..].iter_mut().for_each(|relay| relay.hop = None);
                self.say(heard.hop, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &[3]);
            }
            _ => {}
        }
        self.heard.push(heard);
    }

    /// A relay sends a message to the client.
    pub fn say(&mut self, hop: usize, cmd: RelayCmd, stream: StreamId, data: &[u8]) {
        self.say_in(Command::RELAY, hop, cmd, stream, data);
    }

    pub fn say_in(&mut self, command: Command, n: usize, cmd: RelayCmd, stream: StreamId, data: &[u8]) {
        let mut body = [0; BODY_LEN];
        relay_msg::encode(cmd, stream, data, &mut self.rng, &mut body);
        let hop = self.relays[n].hop.as_mut().expect("a relay on the circuit");
        let tag = hop.layer.originate_inbound(&mut body);
        if cmd == RelayCmd::DATA && hop.send.can_send() {
            hop.send.sent(data.len(), tag);
        }
        for relay in self.relays[..n].iter_mut().rev() {
            relay.hop.as_mut().unwrap().layer.encrypt_inbound(&mut body);
        }
        self.client.handle_cell(self.now, command, &mut body);
    }

    pub fn say_sendme(&mut self, hop: usize, sendme: Sendme) {
        let mut data = Vec::new();
        sendme.write(&mut data);
        self.say(hop, RelayCmd::SENDME, StreamId::CIRCUIT, &data);
    }

    /// Opens a stream and has the relay answer.
    pub fn connect(&mut self, hop: usize) -> StreamKey {
        let stream = self.client.begin_dir(&mut self.rng, hop).unwrap();
        self.run();
        self.say(hop, RelayCmd::CONNECTED, stream.id, &[]);
        let connected = Connected { addr: None };
        assert_eq!(self.events(), [Event::Connected { stream, connected }]);
        stream
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    pub fn closed(&mut self) -> Option<CloseReason> {
        self.events().into_iter().find_map(|event| match event {
            Event::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    pub fn violation(&mut self) -> Option<Violation> {
        match self.closed() {
            Some(CloseReason::Violation(violation)) => Some(violation),
            _ => None,
        }
    }

    /// Lengths and sum of the DATA that a relay heard for a stream.
    pub fn heard_data(&self, key: StreamKey) -> (usize, Vec<u8>) {
        let of_stream =
            |heard: &&Heard| heard.cmd == RelayCmd::DATA && (heard.hop, heard.stream) == (key.hop, key.id);
        let cells = self.heard.iter().filter(of_stream);
        (cells.clone().count(), cells.flat_map(|heard| heard.data.clone()).collect())
    }

    pub fn heard_cmds(&self, cmd: RelayCmd) -> usize {
        self.heard.iter().filter(|heard| heard.cmd == cmd).count()
    }
}
