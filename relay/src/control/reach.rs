//! Whether others reach this relay: a circuit of its own, through another relay and back.
//!
//! The far end of the test is this relay's own ORPort, as its descriptor would name it. The relay in between connects
//! to it, so what is proved is what clients need: address, port, identity and onion key fit together.
//!
//! What is not proved is which address the relay in between has used: one that has a link with this relay already takes
//! that, whatever family it is of. For IPv6 it therefore counts that a relay has opened a link to us over IPv6.

use std::net::{IpAddr, SocketAddr};

use onionring_proto::handshake::Terms;
use onionring_proto::link::ExpectedPeer;
use onionring_proto::netdoc::consensus::RelayFlags;
use onionring_proto::origin::{FirstHop, HandshakeKind, HopTarget};
use onionring_proto::relay_msg::LinkSpecs;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use super::own_circuit::{Dialer, OwnCircuit, OwnCircuitError};
use crate::dir::directory::NetworkView;

/// This relay, as the test looks for it.
#[derive(Clone, Debug)]
pub struct Myself {
    /// Its ORPorts as the descriptor is to name them.
    pub or_ports: Vec<SocketAddr>,
    /// SHA-1 of its RSA identity key.
    pub rsa_id: [u8; 20],
    /// Its Ed25519 identity.
    pub ed_id: [u8; 32],
    /// Its onion key.
    pub onion_key: [u8; 32],
    /// Whether relays of its own network say nothing about whether others reach it (`EnforceDistinctSubnets`).
    pub distinct_subnets: bool,
}

impl Myself {
    /// This relay at one address only, as a hop.
    fn at(&self, address: SocketAddr) -> HopTarget {
        HopTarget {
            specs: specs(address, self.rsa_id, Some(self.ed_id)),
            onion_key: self.onion_key,
            handshake: HandshakeKind::Ntor,
            ask: Terms::default(),
        }
    }
}

/// Builds a circuit through a relay of the network back to `address`, which is one of our own. Any relay that runs will
/// do: the test is about us. `Ok(false)` if the network has none.
pub async fn test(
    dialer: &Dialer,
    network: &NetworkView,
    myself: &Myself,
    address: SocketAddr,
    mut rng: ChaCha20Rng,
) -> Result<bool, OwnCircuitError> {
    let Some((helper, helper_address)) = pick(network, myself, address.ip(), &mut rng) else {
        return Ok(false);
    };
    let expected = ExpectedPeer { rsa_id: Some(helper.specs.rsa_id), ed_id: helper.specs.ed_id };
    let mut circuit =
        OwnCircuit::connect(dialer, helper_address, expected, FirstHop::Relay(&helper), rng).await?;
    circuit.extend(&myself.at(address)).await?;
    circuit.close().await;
    Ok(true)
}

/// A random relay to test through, which has an address of the family that is to be tested.
fn pick(
    network: &NetworkView,
    myself: &Myself,
    family: IpAddr,
    rng: &mut ChaCha20Rng,
) -> Option<(HopTarget, SocketAddr)> {
    let fit: Vec<(HopTarget, SocketAddr)> = network
        .consensus
        .relays
        .iter()
        .filter(|relay| relay.identity.0 != myself.rsa_id && relay.flags.has(RelayFlags::RUNNING))
        .filter(|relay| family.is_ipv4() || relay.or_addr_v6().is_some())
        .filter(|relay| {
            let near =
                |other: SocketAddr| myself.or_ports.iter().any(|own| same_network(own.ip(), other.ip()));
            !myself.distinct_subnets || !near(relay.or_addr()) && !relay.or_addr_v6().is_some_and(near)
        })
        .filter_map(|relay| {
            let microdesc = network.microdescs.get(relay.microdesc()?)?;
            let address = relay.or_addr();
            let target = HopTarget {
                specs: specs(address, relay.identity.0, microdesc.ed_identity),
                onion_key: microdesc.ntor_onion_key,
                handshake: HandshakeKind::Ntor,
                ask: Terms::default(),
            };
            Some((target, address))
        })
        .collect();
    if fit.is_empty() {
        return None;
    }
    let index = (rng.next_u64() % fit.len() as u64) as usize;
    fit.into_iter().nth(index)
}

/// Whether two addresses are in one network as C tor divides them: by 16 bits of IPv4, 32 of IPv6.
fn same_network(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..2] == other.octets()[..2],
        (IpAddr::V6(one), IpAddr::V6(other)) => one.octets()[..4] == other.octets()[..4],
        _ => false,
    }
}

fn specs(address: SocketAddr, rsa_id: [u8; 20], ed_id: Option<[u8; 32]>) -> LinkSpecs {
    let (ipv4, ipv6) = match address {
        SocketAddr::V4(address) => (Some(address), None),
        SocketAddr::V6(address) => (None, Some(address)),
    };
    LinkSpecs { ipv4, ipv6, rsa_id, ed_id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_divided_as_c_tor_does() {
        let same = |one: &str, other: &str| same_network(one.parse().unwrap(), other.parse().unwrap());
        assert!(same("192.0.2.1", "192.0.77.9") && !same("192.0.2.1", "192.1.2.1"));
        assert!(same("2001:db8::1", "2001:db8:ffff::1") && !same("2001:db8::1", "2001:db9::1"));
        assert!(!same("32.1.13.184", "2001:db8::1"));
    }
}
