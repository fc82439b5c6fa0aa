//! The jobs that cost the relay public-key work: circuit handshakes, and new links.

use std::collections::HashMap;
use std::time::Instant;

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, DestroyReason};
use onionring_proto::handshake::{Client, Create2, Created2, htype, ntor, ntor_v3};

use super::board::{Count, Stage};
use super::error::LoadError;
use super::lane::{Core, Job};
use super::settings::HandshakeKind;

/// One handshake in so many is made with fresh keys and its answer verified; the others repeat messages made before,
/// since a relay cannot tell and loadgen would otherwise do as much work as the relay.
const SAMPLE: u64 = 64;
/// Messages made before.
const MADE: usize = 64;

/// What circuit handshakes are made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct RelayKeys {
    pub(super) rsa_id: [u8; 20],
    pub(super) ed_id: [u8; 32],
    pub(super) onion_key: [u8; 32],
}

/// CREATE2 in a closed loop: each answer is followed by DESTROY and the next.
pub(super) struct Handshakes {
    keys: RelayKeys,
    kind: HandshakeKind,
    links: usize,
    /// Handshakes under way per link.
    at_once: usize,
    open: Vec<usize>,
    made: Vec<Body>,
    sampled: HashMap<u32, Client>,
    begun: u64,
}

impl Handshakes {
    pub(super) fn new(keys: RelayKeys, kind: HandshakeKind, links: usize, at_once: usize) -> Handshakes {
        let (open, made, sampled) = (Vec::new(), Vec::new(), HashMap::new());
        Handshakes { keys, kind, links, at_once, open, made, sampled, begun: 0 }
    }

    fn message(&self, core: &mut Core) -> (Client, Body) {
        let RelayKeys { rsa_id, ed_id, onion_key } = &self.keys;
        let (client, htype, hdata) = match self.kind {
            HandshakeKind::Ntor => {
                let (client, hdata) = ntor::Client::start(&mut core.rng, rsa_id, onion_key);
                (Client::Ntor(client), htype::NTOR, hdata)
            }
            HandshakeKind::NtorV3 => {
                let (client, hdata) = ntor_v3::Client::start(&mut core.rng, ed_id, onion_key);
                (Client::NtorV3(client), htype::NTOR_V3, hdata)
            }
        };
        let mut body = [0; BODY_LEN];
        Create2 { htype, hdata: &hdata }.write(&mut body);
        (client, body)
    }

    fn next(&mut self, core: &mut Core, link: usize) {
        self.begun += 1;
        // No ID comes again before all others have been used.
        let id = CircId(1 << 31 | (self.begun as u32 & 0x7fff_ffff));
        if self.begun.is_multiple_of(SAMPLE) {
            let (client, body) = self.message(core);
            self.sampled.insert(id.0, client);
            core.send(link, id, Command::CREATE2, &body);
        } else {
            core.send(link, id, Command::CREATE2, &self.made[self.begun as usize % MADE]);
        }
    }

    fn verify(&mut self, id: CircId, body: &Body) -> Result<(), LoadError> {
        let wrong = |why: String| LoadError::Handshake { what: "CREATE2", why };
        let created = Created2::parse(body).map_err(|e| wrong(e.to_string()))?;
        if created.hdata.len() < ntor::SERVER_LEN {
            return Err(wrong(format!("an answer of {} bytes", created.hdata.len())));
        }
        if let Some(client) = self.sampled.remove(&id.0) {
            client.finish(created.hdata).map_err(|e| wrong(e.to_string()))?;
        }
        Ok(())
    }
}

impl Job for Handshakes {
    fn start(&mut self, core: &mut Core) -> Result<(), LoadError> {
        self.made = (0..MADE).map(|_| self.message(core).1).collect();
        (0..self.links).try_for_each(|_| core.connect().map(drop))
    }

    fn link_up(&mut self, core: &mut Core, link: usize) -> Result<(), LoadError> {
        self.open.push(link);
        core.counts.add(Count::Links, 1);
        if self.open.len() == self.links {
            core.reached = Stage::Circuits;
        }
        Ok(())
    }

    fn cell(
        &mut self,
        core: &mut Core,
        link: usize,
        id: CircId,
        command: Command,
        body: &mut Body,
    ) -> Result<(), LoadError> {
        match command {
            Command::CREATED2 => {
                self.verify(id, body)?;
                core.counts.add(Count::Handshakes, 1);
                let mut destroy = [0; BODY_LEN];
                destroy[0] = DestroyReason::None.to_wire();
                core.send(link, id, Command::DESTROY, &destroy);
            }
            Command::DESTROY => {
                self.sampled.remove(&id.0);
                core.counts.add(Count::Refused, 1);
            }
            other => return Err(LoadError::UnexpectedCell { command: other, when: "in answer to CREATE2" }),
        }
        self.next(core, link);
        Ok(())
    }

    fn fill(&mut self, _: &mut Core, _: usize) -> Result<(), LoadError> {
        Ok(())
    }

    fn tick(&mut self, core: &mut Core, _: Instant) -> Result<(), LoadError> {
        if core.goal == Stage::Traffic && core.reached == Stage::Circuits {
            core.reached = Stage::Traffic;
            for n in 0..self.links * self.at_once {
                self.next(core, self.open[n % self.links]);
            }
        }
        Ok(())
    }
}

/// New links in a closed loop: TLS, the link handshake, and the end.
pub(super) struct Connects {
    at_once: usize,
}

impl Connects {
    pub(super) fn new(at_once: usize) -> Connects {
        Connects { at_once }
    }
}

impl Job for Connects {
    fn start(&mut self, core: &mut Core) -> Result<(), LoadError> {
        core.reached = Stage::Circuits;
        Ok(())
    }

    fn link_up(&mut self, core: &mut Core, link: usize) -> Result<(), LoadError> {
        core.counts.add(Count::Connects, 1);
        // Our NETINFO goes out before the end.
        core.close(link);
        core.connect().map(drop)
    }

    fn cell(&mut self, _: &mut Core, _: usize, _: CircId, _: Command, _: &mut Body) -> Result<(), LoadError> {
        Ok(())
    }

    fn fill(&mut self, _: &mut Core, _: usize) -> Result<(), LoadError> {
        Ok(())
    }

    fn tick(&mut self, core: &mut Core, _: Instant) -> Result<(), LoadError> {
        if core.goal == Stage::Traffic && core.reached == Stage::Circuits {
            core.reached = Stage::Traffic;
            (0..self.at_once).try_for_each(|_| core.connect().map(drop))?;
        }
        Ok(())
    }
}
