//! The jobs that cost the relay public-key work: circuit handshakes, and new links.

use std::collections::HashMap;
use std::time::Instant;

use onionring_proto::cell::{Body, CircId, Command};
use onionring_proto::handshake::Client;

use super::board::{Count, Stage};
use super::error::LoadError;
use super::lane::{Core, Job, client_id};
use super::onionskin::{RelayKeys, verify};
use super::settings::HandshakeKind;

/// One handshake in so many is made with fresh keys and its answer verified; the others repeat messages made before,
/// since a relay cannot tell and loadgen would otherwise do as much work as the relay.
const SAMPLE: u64 = 64;
/// Messages made before.
const MADE: usize = 64;

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

    fn next(&mut self, core: &mut Core, link: usize) {
        self.begun += 1;
        // No ID comes again before all others have been used.
        let id = client_id(self.begun as usize);
        if self.begun.is_multiple_of(SAMPLE) {
            let (client, body) = self.keys.create2(self.kind, &mut core.rng);
            self.sampled.insert(id.0, client);
            core.send(link, id, Command::CREATE2, &body);
        } else {
            core.send(link, id, Command::CREATE2, &self.made[self.begun as usize % MADE]);
        }
    }
}

impl Job for Handshakes {
    fn start(&mut self, core: &mut Core) -> Result<(), LoadError> {
        self.made = (0..MADE).map(|_| self.keys.create2(self.kind, &mut core.rng).1).collect();
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
                verify(self.sampled.remove(&id.0), body)?;
                core.counts.add(Count::Handshakes, 1);
                core.destroy(link, id);
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

    fn tick(&mut self, core: &mut Core, _: Instant) -> Result<(), LoadError> {
        if core.goal == Stage::Traffic && core.reached == Stage::Circuits {
            core.reached = Stage::Traffic;
            (0..self.at_once).try_for_each(|_| core.connect().map(drop))?;
        }
        Ok(())
    }
}
