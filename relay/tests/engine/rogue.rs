//! Peers that send what they like.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, write_fixed, write_variable};
use onionring_proto::crypto::tor1::ClientOnion;
use onionring_proto::handshake::{CreateFast, CreatedFast, fast, ntor};
use onionring_proto::origin::HandshakeKind;
use onionring_proto::relay_msg::{Extend2, Extended2, LinkSpecs, RelayCmd};
use rand_core::Rng;

use super::by_hand::{ByHand, Heard, create2};
use super::keys::RELAYS;
use super::net::{Net, address, target};

/// The number under which rogues answer dials; no honest circuit goes there.
pub const ROGUE_RELAY: usize = RELAYS - 1;

/// Cells to remember for being sent again.
const MEMORY: usize = 32;

/// A peer without manners.
pub struct Rogue {
    pub peer: usize,
    /// The relay it is connected to.
    entry: usize,
    /// Things it may still do.
    budget: usize,
    /// It builds circuits and misuses them, and does nothing that ends them at once.
    patient: bool,
    /// CREATE_FASTs that are not answered yet.
    asked: Vec<(CircId, fast::Client)>,
    circuits: Vec<ByHand>,
    /// Extensions that are not answered yet, one to a circuit.
    extends: BTreeMap<CircId, ntor::Client>,
    /// Circuit ids that were used by either side.
    ids: Vec<CircId>,
    sent: Vec<Vec<u8>>,
}

impl Rogue {
    pub fn new(peer: usize, entry: usize, budget: usize) -> Rogue {
        Rogue {
            peer,
            entry,
            budget,
            patient: budget.is_multiple_of(2),
            asked: Vec::new(),
            circuits: Vec::new(),
            extends: BTreeMap::new(),
            ids: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Perhaps does something. Returns whether it can do more.
    pub fn work(&mut self, net: &mut Net) -> bool {
        if self.budget == 0 || net.peers[self.peer].is_closed() {
            return false;
        }
        if net.peers[self.peer].link().is_none() || net.below(3) > 0 {
            return !net.peers[self.peer].is_closed();
        }
        self.budget -= 1;
        // Slow, or for some time not there at all.
        let deaf = net.peers[self.peer].deaf;
        net.peers[self.peer].deaf = net.below(if deaf { 4 } else { 16 }) == 0 && self.budget > 0;
        self.read(net);
        let before = net.peers[self.peer].out.len();
        self.misbehave(net);
        let sent = net.peers[self.peer].out.get(before..).unwrap_or_default().to_vec();
        if !sent.is_empty() && self.sent.len() < MEMORY {
            self.sent.push(sent);
        }
        true
    }

    /// Finishes what was answered, and notes ids.
    fn read(&mut self, net: &mut Net) {
        for (id, command, body) in std::mem::take(&mut net.peers[self.peer].stray) {
            if self.ids.len() < 1000 {
                self.ids.push(id);
            }
            if command == Command::CREATED_FAST
                && let Some(at) = self.asked.iter().position(|(asked, _)| *asked == id)
                && let Ok(keys) = self.asked.swap_remove(at).1.finish(&CreatedFast::parse(&body).reply)
            {
                let mut onion = ClientOnion::new();
                onion.push_hop(&keys);
                self.circuits.push(ByHand { peer: self.peer, id, onion });
            } else if let Some(circuit) = self.circuits.iter_mut().find(|circuit| circuit.id == id)
                && let Heard::Message { cmd: RelayCmd::EXTENDED2, data, .. } =
                    circuit.understand(command, body)
                && let Some(client) = self.extends.remove(&id)
                && let Ok(extended) = Extended2::parse(&data)
                && let Ok(keys) = client.finish(extended.hdata)
            {
                circuit.onion.push_hop(&keys);
            }
        }
    }

    fn id(&self, net: &mut Net) -> CircId {
        match net.below(4) {
            0 => CircId(0),
            1 => CircId(net.rng.next_u32() & 0xffff | 0x8000),
            _ if !self.ids.is_empty() => self.ids[net.below(self.ids.len())],
            _ => net.peers[self.peer].free_circ_id(&mut net.rng),
        }
    }

    fn misbehave(&mut self, net: &mut Net) {
        let peer = self.peer;
        let what = if self.patient { 3 + net.below(7) } else { net.below(16) };
        match what {
            0 if net.below(8) == 0 => {
                let bytes = noise(net, 600);
                net.peers[peer].out.extend(bytes);
            }
            1 => {
                let (id, command) = (self.id(net), Command(net.below(14) as u8));
                if command != Command::VERSIONS {
                    let body = random_body(net);
                    self.send(net, id, command, &body);
                }
            }
            2 => {
                let id = self.id(net);
                let create = create2(net, self.entry);
                self.send(net, id, Command::CREATE2, &create);
            }
            3 | 4 => {
                let id = net.peers[peer].free_circ_id(&mut net.rng);
                let (client, x) = fast::Client::start(&mut net.rng);
                let mut body = [0; BODY_LEN];
                CreateFast { x }.write(&mut body);
                self.send(net, id, Command::CREATE_FAST, &body);
                self.asked.push((id, client));
            }
            5..10 if !self.circuits.is_empty() => self.speak(net),
            10 => {
                let id = self.id(net);
                let body = random_body(net);
                self.send(net, id, Command::DESTROY, &body);
            }
            11 => {
                let version = net.peers[peer].link().expect("open").version;
                let command = Command([128, 132, 7, 200, 129, 255][net.below(6)]);
                // The one that closes the link is rare, or nothing else would be seen.
                if command != Command::CERTS || net.below(4) == 0 {
                    let body = noise(net, 3000);
                    let id = self.id(net);
                    let id = CircId(if version.circ_id_len() == 2 { id.0 & 0xffff } else { id.0 });
                    write_variable(version.into(), id, command, &body, &mut net.peers[peer].out);
                }
            }
            12 | 13 if !self.sent.is_empty() => {
                let at = net.below(self.sent.len());
                let mut again = self.sent[at].clone();
                if net.below(2) == 0 {
                    let at = net.below(again.len());
                    let bit = net.below(8);
                    again[at] ^= 1 << bit;
                }
                net.peers[peer].out.extend(again);
            }
            _ => {
                // As if it were the next hop of somebody's circuit.
                let id = self.id(net);
                let commands =
                    [Command::CREATED2, Command::RELAY, Command::RELAY_EARLY, Command::CREATED_FAST];
                let mut body = random_body(net);
                body[0] = net.below(3) as u8;
                let command = commands[net.below(4)];
                self.send(net, id, command, &body);
            }
        }
    }

    fn send(&mut self, net: &mut Net, id: CircId, command: Command, body: &Body) {
        let version = net.peers[self.peer].link().expect("open").version;
        let id = CircId(if version.circ_id_len() == 2 { id.0 & 0xffff } else { id.0 });
        if self.ids.len() < 1000 {
            self.ids.push(id);
        }
        write_fixed(version, id, command, body, &mut net.peers[self.peer].out);
    }

    /// Sends a message that the relay will recognise.
    fn speak(&mut self, net: &mut Net) {
        let at = net.below(self.circuits.len());
        let stream = net.below(4) as u16;
        let hop = net.below(self.circuits[at].onion.hops());
        let (cmd, data) = match net.below(if self.patient { 7 } else { 8 }) {
            0 => (RelayCmd::BEGIN, b"x-3-5000-700000.test:80\0".to_vec()),
            1 => (RelayCmd::BEGIN_DIR, Vec::new()),
            2 => (RelayCmd::DATA, noise(net, 498)),
            3 => (RelayCmd::SENDME, Vec::new()),
            4 => (RelayCmd::TRUNCATE, vec![0]),
            5 => return self.extend(net, at),
            6 => (RelayCmd::BEGIN, b"x-7-100-700000.test:80\0".to_vec()),
            _ => (RelayCmd(net.below(45) as u8), noise(net, 498)),
        };
        let stream = if cmd == RelayCmd::TRUNCATE { 0 } else { stream };
        if cmd == RelayCmd::TRUNCATE {
            self.circuits[at].onion.truncate_hops(hop + 1);
        }
        let command = if net.below(8) == 0 { Command::RELAY_EARLY } else { Command::RELAY };
        self.circuits[at].say_in(net, command, hop, cmd, stream, &data);
    }

    /// Extends a circuit, or says so: not everything that EXTEND2 says is right.
    fn extend(&mut self, net: &mut Net, at: usize) {
        let to = net.below(RELAYS);
        let mut specs = target(to, HandshakeKind::Ntor).specs;
        match net.below(8) {
            0 => specs.ed_id = Some([9; 32]),
            1 => specs.ed_id = None,
            2 => net.rng.fill_bytes(&mut specs.rsa_id),
            3 | 4 => {
                let SocketAddr::V4(wrong) = tarpit(net.below(9)) else { unreachable!() };
                specs.ipv4 = Some(wrong);
            }
            5 => {
                let SocketAddr::V4(wrong) = address(net.below(RELAYS)) else { unreachable!() };
                specs.ipv4 = Some(wrong);
            }
            _ => {}
        }
        let circuit = &mut self.circuits[at];
        if net.below(4) == 0 {
            let specs = LinkSpecs { ipv6: Some("[2001:db8::1]:9001".parse().unwrap()), ..specs };
            let hop = net.below(circuit.onion.hops());
            let mut data = Vec::new();
            Extend2 { specs, htype: 2, hdata: &noise(net, 90) }.write(&mut data);
            circuit.say_in(net, Command::RELAY_EARLY, hop, RelayCmd::EXTEND2, 0, &data);
        } else {
            let client = circuit.ask_extend_by(net, to, specs);
            self.extends.insert(circuit.id, client);
        }
    }
}

/// Addresses at which nobody answers, ever.
pub fn tarpit(n: usize) -> SocketAddr {
    (Ipv4Addr::new(127, 9, 9, n as u8), 9001).into()
}

/// Up to `max` random bytes.
fn noise(net: &mut Net, max: usize) -> Vec<u8> {
    let mut bytes = vec![0; net.below(max + 1)];
    net.rng.fill_bytes(&mut bytes);
    bytes
}

fn random_body(net: &mut Net) -> Body {
    let mut body = [0; BODY_LEN];
    if net.below(2) == 0 {
        net.rng.fill_bytes(&mut body);
    }
    body
}
