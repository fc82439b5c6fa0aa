//! Extending a circuit: the rules of EXTEND2, the search for a link, and the way of CREATE2 and CREATED2.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use onionring_proto::cell::{BODY_LEN, Body, Command, DestroyReason};
use onionring_proto::handshake::{Create2, Created2};
use onionring_proto::limits::CIRC_ID_TRIES;
use onionring_proto::relay_msg::{Extend2, Extended2, RelayCmd, StreamId};
use onionring_proto::time::Mono;
use rand_core::Rng;

use super::Engine;
use super::circuit::Next;
use super::cross::{FindLink, Message, Seeker};
use super::ids::{CircuitId, Leg, LinkId};
use super::link::LinkFacts;
use super::timer::Timer;
use crate::limits;

/// A client's half of a handshake on its way to the next relay.
pub(super) struct Onionskin {
    create: Box<Body>,
    attempt: u32,
    /// RSA identity of that relay.
    rsa_id: [u8; 20],
}

impl Engine {
    /// The client asks for another hop (tor-spec 5.1.2 and 5.3.1).
    pub(super) fn extend(&mut self, now: Mono, id: CircuitId, extend: &Extend2<'_>) {
        let Some(circuit) = self.circuits.get_mut(id) else { return };
        if !matches!(circuit.next, Next::None) {
            return self.close_circuit(now, id, "second_extend", DestroyReason::Protocol);
        }
        let specs = &extend.specs;
        let known = self.snapshot.relays.get(&specs.rsa_id);
        let ed_id = specs.ed_id.or_else(|| known.and_then(|relay| relay.ed_id));
        if circuit
            .prev_facts
            .peer
            .as_ref()
            .is_some_and(|peer| peer.rsa_id == specs.rsa_id || ed_id.is_some_and(|ed_id| ed_id == peer.ed_id))
        {
            return self.close_circuit(now, id, "extend_to_previous_hop", DestroyReason::Protocol);
        }
        if specs.rsa_id == self.snapshot.identity.rsa_id {
            return self.close_circuit(now, id, "extend_to_self", DestroyReason::ConnectFailed);
        }
        let mut addresses: Vec<SocketAddr> = Vec::new();
        addresses.extend(specs.ipv4.map(SocketAddr::V4));
        addresses.extend(specs.ipv6.map(SocketAddr::V6));
        for &address in known.map(|relay| relay.addresses.as_slice()).unwrap_or_default() {
            if !addresses.iter().any(|have| have.is_ipv4() == address.is_ipv4()) {
                addresses.push(address);
            }
        }
        addresses.retain(|address| self.may_dial(address));
        if addresses.is_empty() {
            return self.close_circuit(now, id, "extend_to_forbidden_address", DestroyReason::Protocol);
        }
        let listed = known.is_some_and(|relay| {
            ed_id == relay.ed_id && addresses.iter().all(|address| relay.addresses.contains(address))
        });
        // With both families to choose from, either will do; drawing spreads the load as deployed relays do.
        if self.rng.next_u32() & 1 == 1 {
            addresses.reverse();
        }
        let mut create = Box::new([0; BODY_LEN]);
        // A handshake that fits EXTEND2 fits CREATE2.
        Create2 { htype: extend.htype, hdata: extend.hdata }.write(&mut create);
        let Some(circuit) = self.circuits.get_mut(id) else { return };
        circuit.extends += 1;
        let seeker = Seeker { home: self.me, circuit: id, attempt: circuit.extends };
        circuit.next = Next::Searching(Onionskin { create, attempt: seeker.attempt, rsa_id: specs.rsa_id });
        circuit.relay.set_joined(true);
        let source = circuit.prev.link;
        self.timers.set(&mut circuit.extend_timer, now + limits::EXTEND_TIMEOUT, Timer::Extend(id));
        let ask = FindLink { seeker, rsa_id: specs.rsa_id, ed_id, addresses, listed, source };
        let registrar = self.homes.registrar(&specs.rsa_id);
        self.tell(now, registrar, Message::FindLink(ask));
    }

    fn may_dial(&self, address: &SocketAddr) -> bool {
        let params = &self.snapshot.params;
        (address.is_ipv4() || params.extend_to_ipv6) && (params.extend_to_private || is_public(address.ip()))
    }

    /// The registrar names the link for a circuit that is being extended.
    pub(super) fn extend_on(&mut self, now: Mono, seeker: Seeker, link: LinkId, facts: Arc<LinkFacts>) {
        let id = seeker.circuit;
        let Some(onionskin) = self.searching(seeker) else { return };
        let create = onionskin.create.clone();
        // Of the ids that are ours to choose, those that lead back to this shard. No other shard can choose them, so
        // being unused here is being unused.
        let (homes, circuits, me) = (&self.homes, &self.circuits, self.me);
        let tries = CIRC_ID_TRIES * u32::from(homes.shards());
        let drawn = facts.circ_ids.allocate(tries, &mut self.rng, |circ| {
            let leg = Leg { link, circ };
            homes.home(leg) == me && circuits.is_free(leg)
        });
        let Ok(circ) = drawn else {
            return self.close_circuit(now, id, "circuit_ids_exhausted", DestroyReason::ResourceLimit);
        };
        let leg = Leg { link, circ };
        self.circuits.join(id, leg);
        self.tell(now, link.shard(), Message::Joined(leg));
        self.send_cell(now, leg, Command::CREATE2, &create);
    }

    /// The registrar found no link.
    pub(super) fn extend_failed(&mut self, now: Mono, seeker: Seeker, reason: DestroyReason) {
        if self.searching(seeker).is_some() {
            // Nobody has to be told that the search is over.
            if let Some(circuit) = self.circuits.get_mut(seeker.circuit) {
                circuit.next = Next::None;
            }
            self.close_circuit(now, seeker.circuit, "extend_failed", reason);
        }
    }

    /// What waits for the answer to a search, unless the attempt is over.
    fn searching(&self, seeker: Seeker) -> Option<&Onionskin> {
        match &self.circuits.get(seeker.circuit)?.next {
            Next::Searching(onionskin) if onionskin.attempt == seeker.attempt => Some(onionskin),
            _ => None,
        }
    }

    /// Tells the registrar that a circuit looks for a link no more.
    pub(super) fn stop_seeking(&mut self, now: Mono, circuit: CircuitId, next: &Next) {
        let Next::Searching(Onionskin { attempt, rsa_id, .. }) = next else { return };
        let seeker = Seeker { home: self.me, circuit, attempt: *attempt };
        self.tell(now, self.homes.registrar(rsa_id), Message::StopSeeking(seeker, *rsa_id));
    }

    /// CREATED2 from the next relay: wrapped and passed to the client unseen.
    pub(super) fn extended(&mut self, now: Mono, id: CircuitId, body: &Body) {
        let Some(circuit) = self.circuits.get_mut(id) else { return };
        let hdata = match Created2::parse(body) {
            Ok(created) if created.fits_extended2() => created.hdata,
            _ => return self.close_circuit(now, id, "created_malformed", DestroyReason::Protocol),
        };
        if let Next::Creating(leg) = circuit.next {
            circuit.next = Next::Open(leg);
            self.timers.cancel(&mut circuit.extend_timer);
            if self.snapshot.params.pad_before_usage {
                self.circuit_goes_on(now, id);
            }
        }
        let mut data = Vec::with_capacity(hdata.len() + 2);
        Extended2 { hdata }.write(&mut data);
        self.originate(now, id, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &data);
    }

    /// The link towards the client carries a circuit that goes on beyond this relay, or is used there.
    pub(super) fn circuit_goes_on(&mut self, now: Mono, id: CircuitId) {
        let Some(circuit) = self.circuits.get_mut(id) else { return };
        circuit.goes_on = true;
        let prev = circuit.prev.link;
        self.tell(now, prev.shard(), Message::Extended(prev));
    }

    pub(super) fn extend_timeout(&mut self, now: Mono, id: CircuitId) {
        if let Some(circuit) = self.circuits.get_mut(id)
            && matches!(circuit.next, Next::Searching(_) | Next::Creating(_))
        {
            self.close_circuit(now, id, "extend_timeout", DestroyReason::Timeout);
        }
    }

    /// TRUNCATE: what lies behind this hop is cut off, the circuit may be extended anew (tor-spec 5.4).
    pub(super) fn truncate(&mut self, now: Mono, id: CircuitId, reason: DestroyReason) {
        let Some(circuit) = self.circuits.get_mut(id) else { return };
        circuit.relay.set_joined(false);
        self.timers.cancel(&mut circuit.extend_timer);
        let next = self.circuits.part(id);
        self.stop_seeking(now, id, &next);
        if let Some(leg) = next.leg() {
            self.drop_next_leg(now, leg, Some(reason));
        }
        let body = [DestroyReason::Requested.to_wire()];
        self.originate(now, id, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &body);
    }
}

/// Whether an address can be a relay's on the public network.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || a == 0
                || (a == 100 && (64..128).contains(&b)))
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                // Site-local, which nothing uses any more.
                || ip.segments()[0] & 0xffc0 == 0xfec0
                || ip.to_ipv4_mapped().is_some())
        }
    }
}
