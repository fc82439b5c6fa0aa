//! Peers that send what they like.

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, write_fixed, write_variable};
use onionring_proto::crypto::tor1::ClientOnion;
use onionring_proto::handshake::{CreateFast, CreatedFast, fast};
use onionring_proto::origin::HandshakeKind;
use onionring_proto::relay_msg::{Extend2, RelayCmd};
use rand_core::Rng;

use super::by_hand::{ByHand, create2};
use super::keys::RELAYS;
use super::net::{Net, target};

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
    /// CREATE_FASTs that are not answered yet.
    asked: Vec<(CircId, fast::Client)>,
    circuits: Vec<ByHand>,
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
            asked: Vec::new(),
            circuits: Vec::new(),
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
        match net.below(16) {
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
        let (cmd, data) = match net.below(8) {
            0 => (RelayCmd::BEGIN, b"x-3-5000-70000.test:80\0".to_vec()),
            1 => (RelayCmd::BEGIN_DIR, Vec::new()),
            2 => (RelayCmd::DATA, noise(net, 498)),
            3 => (RelayCmd::SENDME, Vec::new()),
            4 => (RelayCmd::TRUNCATE, vec![0]),
            5 => {
                let specs = target(net.below(RELAYS), HandshakeKind::Ntor).specs;
                let mut data = Vec::new();
                Extend2 { specs, htype: 2, hdata: &noise(net, 90) }.write(&mut data);
                (RelayCmd::EXTEND2, data)
            }
            _ => (RelayCmd(net.below(45) as u8), noise(net, 498)),
        };
        let stream = if matches!(cmd, RelayCmd::EXTEND2 | RelayCmd::TRUNCATE) { 0 } else { stream };
        let command =
            if cmd == RelayCmd::EXTEND2 || net.below(8) == 0 { Command::RELAY_EARLY } else { Command::RELAY };
        self.circuits[at].say_in(net, command, 0, cmd, stream, &data);
    }
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
