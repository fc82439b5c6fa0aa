//! Circuits whose every cell a test decides on.

use std::collections::BTreeMap;

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command};
use onionring_proto::crypto::tor1::ClientOnion;
use onionring_proto::handshake::{
    Client, Create2, CreateFast, CreatedFast, Terms, fast, htype, ntor, ntor_v3,
};
use onionring_proto::relay_msg::{self, Extend2, Extended2, LinkSpecs, RelayCmd, StreamId};

use super::keys::keys;
use super::net::{Net, target};
use onionring_proto::origin::{HandshakeKind, HopTarget};

/// A circuit of a peer, known by its layers.
pub struct ByHand {
    pub peer: usize,
    pub id: CircId,
    pub onion: ClientOnion,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A cell that is no relay cell; the first byte of its body tells reasons apart.
    Cell(Command, u8),
    /// A message from a hop.
    Message { hop: usize, cmd: RelayCmd, stream: StreamId, data: Vec<u8> },
    /// A relay cell that no hop recognises.
    Noise,
}

/// A body that begins with these bytes.
pub fn body(start: &[u8]) -> Body {
    let mut body = [0; BODY_LEN];
    body[..start.len()].copy_from_slice(start);
    body
}

impl ByHand {
    /// Creates a circuit with CREATE_FAST.
    pub fn create(net: &mut Net, peer: usize) -> ByHand {
        let id = net.peers[peer].free_circ_id(&mut net.rng);
        Self::create_as(net, peer, id).expect("the relay answers")
    }

    /// The same with a given id; `None` if the relay does not answer with CREATED_FAST.
    pub fn create_as(net: &mut Net, peer: usize, id: CircId) -> Option<ByHand> {
        let (client, x) = fast::Client::start(&mut net.rng);
        let mut create = [0; BODY_LEN];
        CreateFast { x }.write(&mut create);
        net.peers[peer].send(id, Command::CREATE_FAST, &create);
        net.settle();
        let strays = &mut net.peers[peer].stray;
        let at =
            strays.iter().position(|(circ, command, _)| *circ == id && *command == Command::CREATED_FAST)?;
        let (_, _, created) = strays.remove(at);
        let mut onion = ClientOnion::new();
        onion.push_hop(&client.finish(&CreatedFast::parse(&created).reply).unwrap());
        Some(ByHand { peer, id, onion })
    }

    /// Creates many circuits at once.
    pub fn create_many(net: &mut Net, peer: usize, n: usize) -> Vec<ByHand> {
        let mut asked = BTreeMap::new();
        while asked.len() < n {
            let id = net.peers[peer].free_circ_id(&mut net.rng);
            if asked.contains_key(&id) {
                continue;
            }
            let (client, x) = fast::Client::start(&mut net.rng);
            let mut create = [0; BODY_LEN];
            CreateFast { x }.write(&mut create);
            net.peers[peer].send(id, Command::CREATE_FAST, &create);
            asked.insert(id, client);
        }
        net.settle();
        let mut circuits = Vec::new();
        // An id that is in use already gets no answer.
        for (id, command, body) in std::mem::take(&mut net.peers[peer].stray) {
            match asked.remove(&id) {
                Some(client) if command == Command::CREATED_FAST => {
                    let mut onion = ClientOnion::new();
                    onion.push_hop(&client.finish(&CreatedFast::parse(&body).reply).unwrap());
                    circuits.push(ByHand { peer, id, onion });
                }
                _ => net.peers[peer].stray.push((id, command, body)),
            }
        }
        circuits
    }

    /// A cell body with a message for a hop, encrypted.
    pub fn seal(&mut self, net: &mut Net, hop: usize, cmd: RelayCmd, stream: u16, data: &[u8]) -> Body {
        let mut body = [0; BODY_LEN];
        relay_msg::encode(cmd, StreamId(stream), data, &mut net.rng, &mut body);
        self.onion.encrypt_outbound(hop, &mut body);
        body
    }

    /// Sends a message to a hop in a RELAY cell.
    pub fn say(&mut self, net: &mut Net, hop: usize, cmd: RelayCmd, stream: u16, data: &[u8]) {
        self.say_in(net, Command::RELAY, hop, cmd, stream, data);
    }

    pub fn say_in(
        &mut self,
        net: &mut Net,
        command: Command,
        hop: usize,
        cmd: RelayCmd,
        stream: u16,
        data: &[u8],
    ) {
        let body = self.seal(net, hop, cmd, stream, data);
        net.peers[self.peer].send(self.id, command, &body);
    }

    /// Sends EXTEND2 to the last hop, towards relay number `to`.
    pub fn ask_extend(&mut self, net: &mut Net, to: usize) -> ntor::Client {
        self.ask_extend_by(net, to, target(to, HandshakeKind::Ntor).specs)
    }

    /// The same with specifiers that say what they like, and a handshake for relay number `to`.
    pub fn ask_extend_by(&mut self, net: &mut Net, to: usize, specs: LinkSpecs) -> ntor::Client {
        let onion_key = *keys(to).onion_key().public();
        let (client, hdata) = ntor::Client::start(&mut net.rng, &keys(to).server.rsa_id, &onion_key);
        let extend = Extend2 { specs, htype: htype::NTOR, hdata: &hdata };
        let mut data = Vec::new();
        extend.write(&mut data);
        let hop = self.onion.hops() - 1;
        self.say_in(net, Command::RELAY_EARLY, hop, RelayCmd::EXTEND2, 0, &data);
        client
    }

    /// Extends the circuit to relay number `to`.
    pub fn extend(&mut self, net: &mut Net, to: usize) {
        let client = self.ask_extend(net, to);
        net.settle();
        self.finish_extend(net, client);
    }

    /// Extends the circuit to relay number `to` with ntor-v3, and returns what it grants of `ask`.
    pub fn extend_asking(&mut self, net: &mut Net, to: usize, ask: Terms) -> Terms {
        let HopTarget { specs, onion_key, .. } = target(to, HandshakeKind::NtorV3);
        let ed_id = keys(to).server.ed_id;
        let (client, hdata) = ntor_v3::Client::start_asking(&mut net.rng, &ed_id, &onion_key, ask);
        let mut data = Vec::new();
        Extend2 { specs, htype: htype::NTOR_V3, hdata: &hdata }.write(&mut data);
        let hop = self.onion.hops() - 1;
        self.say_in(net, Command::RELAY_EARLY, hop, RelayCmd::EXTEND2, 0, &data);
        let heard = self.heard(net);
        let [Heard::Message { cmd: RelayCmd::EXTENDED2, data, .. }] = &heard[..] else { panic!("{heard:?}") };
        let extended = Extended2::parse(data).unwrap();
        let (keys, granted) = Client::NtorV3(client).agree(extended.hdata).unwrap();
        self.onion.push_hop(&keys);
        granted
    }

    pub fn finish_extend(&mut self, net: &mut Net, client: ntor::Client) {
        let heard = self.heard(net);
        let [Heard::Message { cmd: RelayCmd::EXTENDED2, data, .. }] = &heard[..] else { panic!("{heard:?}") };
        self.onion.push_hop(&client.finish(Extended2::parse(data).unwrap().hdata).unwrap());
    }

    /// What has come back on this circuit since the last call, once the network has come to rest.
    pub fn heard(&mut self, net: &mut Net) -> Vec<Heard> {
        net.settle();
        let mine = |(id, _, _): &mut (CircId, Command, Body)| *id == self.id;
        let cells: Vec<_> = net.peers[self.peer].stray.extract_if(.., mine).collect();
        cells.into_iter().map(|(_, command, body)| self.understand(command, body)).collect()
    }

    /// Takes the layers off a cell that came back on this circuit.
    pub fn understand(&mut self, command: Command, mut body: Body) -> Heard {
        if command != Command::RELAY {
            return Heard::Cell(command, body[0]);
        }
        match self.onion.decrypt_inbound(&mut body) {
            Some((hop, _)) => {
                let msg = relay_msg::decode(&body).unwrap();
                Heard::Message { hop, cmd: msg.cmd, stream: msg.stream, data: msg.data.to_vec() }
            }
            None => Heard::Noise,
        }
    }

    /// Asserts that the relay destroyed the circuit with this reason, and says nothing else.
    pub fn assert_destroyed(&mut self, net: &mut Net, reason: u8) {
        assert_eq!(self.heard(net), [Heard::Cell(Command::DESTROY, reason)]);
    }

    /// Asserts that the circuit is alive and has said nothing.
    pub fn assert_silent(&mut self, net: &mut Net) {
        assert_eq!(self.heard(net), []);
        let hop = self.onion.hops() - 1;
        self.say(net, hop, RelayCmd::RESOLVE, 7777, b"1.2.3.4\0");
        self.say(net, hop, RelayCmd::BEGIN_DIR, 7776, b"");
        let heard = self.heard(net);
        assert!(matches!(heard.first(), Some(Heard::Message { .. })), "{heard:?}");
    }
}

/// A network of relays with one shard each, and the first relay's client.
pub fn small(seed: u64, relays: usize) -> (Net, usize) {
    let mut net = Net::new(seed, super::net::NetConfig::new(&vec![1; relays]));
    let client = net.client(0);
    (net, client)
}

/// Extends a one-hop circuit of relay 0 to a relay that is played by hand: its peer number, with CREATE2 in `stray`.
pub fn rogue_hop(net: &mut Net, circuit: &mut ByHand, number: usize) -> usize {
    net.rogues.entry(number).or_default();
    circuit.ask_extend(net, number);
    net.settle();
    let rogue = *net.rogues[&number].last().expect("relay 0 has dialed");
    assert_eq!(net.peers[rogue].stray.last().unwrap().1, Command::CREATE2);
    rogue
}

/// CREATE2 as it goes over a link.
pub fn create2(net: &mut Net, relay: usize) -> Body {
    let onion_key = *keys(relay).onion_key().public();
    let (_, hdata) = ntor::Client::start(&mut net.rng, &keys(relay).server.rsa_id, &onion_key);
    let mut body = [0; BODY_LEN];
    Create2 { htype: htype::NTOR, hdata: &hdata }.write(&mut body);
    body
}
