//! How links and circuits come to be.

use std::net::SocketAddr;

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command};
use onionring_proto::handshake::{Create2, Created2};
use onionring_proto::link::PeerIdentity;
use onionring_proto::relay_msg::LinkSpecs;

use super::{Circuit, Traffic, unexpected};
use crate::load::board::{Count, Stage};
use crate::load::circuit::{Check, Setup, number, reply};
use crate::load::error::LoadError;
use crate::load::lane::{Core, client_id};
use crate::load::settings::Direction;

/// Links and circuits that may be under construction at once: enough to keep a relay busy, few enough that none sheds
/// them.
const LINKS_AT_ONCE: usize = 32;
const CIRCUITS_AT_ONCE: usize = 64;

impl Traffic {
    pub(super) fn open_links(&mut self, core: &mut Core) -> Result<(), LoadError> {
        while self.links_begun < self.plan.links && self.links_begun - self.client_links.len() < LINKS_AT_ONCE
        {
            core.connect()?;
            self.links_begun += 1;
        }
        if self.client_links.len() == self.plan.links {
            core.reached = Stage::Links;
        }
        Ok(())
    }

    pub(super) fn open_circuits(&mut self, core: &mut Core) {
        let wanted = self.plan.links * (self.plan.circuits + self.plan.probe_circuits);
        while self.circuits.len() < wanted && self.circuits.len() - self.built < CIRCUITS_AT_ONCE {
            let n = self.circuits.len();
            // Link by link, so that all links have as many at any time.
            let (link, layer) = (n % self.plan.links, n / self.plan.links);
            let probe = layer >= self.plan.circuits;
            let (setup, body) = Setup::start(&mut core.rng);
            self.circuits.push(Circuit {
                client: self.client_links[link],
                hop: if probe { self.plan.hops } else { (link + layer) % self.plan.hops },
                far: None,
                probe,
                setup: Some(setup),
                in_flight: 0,
                queued: false,
                received: 1,
                check: None,
            });
            core.send(self.client_links[link], client_id(n), Command::CREATE_FAST, &body);
        }
        if self.built == wanted {
            core.reached = Stage::Circuits;
        }
    }

    /// The relay answers the client of a circuit that is being built.
    pub(super) fn build(
        &mut self,
        core: &mut Core,
        n: usize,
        setup: Setup,
        command: Command,
        body: &mut Body,
    ) -> Result<(), LoadError> {
        let circuit = &mut self.circuits[n];
        match command {
            Command::CREATED_FAST => {
                let (address, hop) = core.hop(circuit.hop)?;
                let specs = link_specs(address, hop.id);
                let (setup, body) = setup.created(body, n as u32, specs, &mut core.rng)?;
                circuit.setup = Some(setup);
                core.send(circuit.client, client_id(n), Command::RELAY_EARLY, &body);
                Ok(())
            }
            Command::RELAY => {
                let keys = setup.extended(body, n as u32)?;
                if circuit.far.is_none() {
                    return Err(unexpected(command, "for a circuit that was not extended to us"));
                }
                let up = self.plan.bulk == Some(Direction::Up);
                circuit.check = Some(Check::new(if up { &keys.kf } else { &keys.kb }));
                self.built += 1;
                core.counts.add(Count::Circuits, 1);
                Ok(())
            }
            _ => Err(unexpected(command, "while a circuit was being built")),
        }
    }

    /// A circuit is extended to one of our relays.
    pub(super) fn answer_create(
        &mut self,
        core: &mut Core,
        link: usize,
        id: CircId,
        body: &Body,
    ) -> Result<(), LoadError> {
        let asked = Create2::parse(body).ok().and_then(|create| number(create.hdata));
        let known = asked.and_then(|n| Some((n, self.circuits.get_mut(n as usize)?)));
        let (n, circuit) = known.ok_or(unexpected(Command::CREATE2, "that no client asked for"))?;
        circuit.far = Some((link, id));
        self.legs[link].insert(id.0, n);
        let mut body = [0; BODY_LEN];
        Created2 { hdata: &reply(n) }.write(&mut body);
        core.send(link, id, Command::CREATED2, &body);
        Ok(())
    }
}

fn link_specs(address: SocketAddr, id: PeerIdentity) -> LinkSpecs {
    let (ipv4, ipv6) = match address {
        SocketAddr::V4(a) => (Some(a), None),
        SocketAddr::V6(a) => (None, Some(a)),
    };
    LinkSpecs { ipv4, ipv6, rsa_id: id.rsa_id, ed_id: Some(id.ed_id) }
}
