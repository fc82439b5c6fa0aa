//! Who is known and who is a stranger: whose documents stay when there is no room for all.
//!
//! Anyone can make up identities, and upload a descriptor of each. A relay is a stranger until somebody has found it
//! where it says that it is ([`Ranks::vouch`]). Known relays come before strangers, and strangers in the order in which
//! they arrived: so whoever comes last makes no room at the cost of others, and gives way to all of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::policy::is_internal;

use crate::limits::{KNOWN_PER_ADDRESS, STRANGERS_PER_NETWORK};

/// A relay that nobody has found yet.
#[derive(Debug)]
struct Stranger {
    arrival: u64,
    network: Option<IpAddr>,
}

/// The order of all relays that are stored.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    arrivals: u64,
    strangers: BTreeMap<Fingerprint, Stranger>,
    by_arrival: BTreeMap<u64, Fingerprint>,
    by_network: BTreeMap<IpAddr, usize>,
    /// With the address at which each was found.
    known: BTreeMap<Fingerprint, Ipv4Addr>,
    by_address: BTreeMap<Ipv4Addr, usize>,
}

impl Ranks {
    /// Whether one more stranger may be uploaded from this address.
    pub fn has_room_for(&self, from: Option<IpAddr>) -> bool {
        let theirs = network(from).and_then(|network| self.by_network.get(&network));
        theirs.is_none_or(|theirs| *theirs < STRANGERS_PER_NETWORK)
    }

    /// A relay was uploaded from this address; it stays where it is if it was there before.
    pub fn arrive(&mut self, identity: Fingerprint, from: Option<IpAddr>) {
        if self.known.contains_key(&identity) || self.strangers.contains_key(&identity) {
            return;
        }
        let network = network(from);
        if let Some(network) = network {
            *self.by_network.entry(network).or_default() += 1;
        }
        self.by_arrival.insert(self.arrivals, identity);
        self.strangers.insert(identity, Stranger { arrival: self.arrivals, network });
        self.arrivals += 1;
    }

    /// A relay was found at this address. Of an address on the Internet, only so many become known: one machine may answer
    /// for any number of identities.
    pub fn vouch(&mut self, identity: Fingerprint, ipv4: Ipv4Addr) {
        if !self.strangers.contains_key(&identity) {
            return;
        }
        let there = self.by_address.entry(ipv4).or_default();
        if *there >= KNOWN_PER_ADDRESS && !is_internal(ipv4.into()) {
            return;
        }
        *there += 1;
        self.forget(&identity);
        self.known.insert(identity, ipv4);
    }

    /// The stranger that came first.
    pub fn first(&self) -> Option<Fingerprint> {
        self.by_arrival.first_key_value().map(|(_, first)| *first)
    }

    /// The stranger that came last, if that was after this relay.
    pub fn last_after(&self, identity: &Fingerprint) -> Option<Fingerprint> {
        let (&arrival, &last) = self.by_arrival.last_key_value()?;
        let is_before = match self.strangers.get(identity) {
            Some(stranger) => stranger.arrival < arrival,
            None => self.known.contains_key(identity),
        };
        is_before.then_some(last)
    }

    /// A relay is not stored any more.
    pub fn forget(&mut self, identity: &Fingerprint) {
        if let Some(stranger) = self.strangers.remove(identity) {
            self.by_arrival.remove(&stranger.arrival);
            if let Some(network) = stranger.network {
                leave(&mut self.by_network, &network);
            }
        }
        if let Some(address) = self.known.remove(identity) {
            leave(&mut self.by_address, &address);
        }
    }

    /// Forgets all relays but those that stay.
    pub fn retain(&mut self, stays: impl Fn(&Fingerprint) -> bool) {
        let all = self.strangers.keys().chain(self.known.keys());
        let gone: Vec<Fingerprint> = all.filter(|identity| !stays(identity)).copied().collect();
        gone.iter().for_each(|identity| self.forget(identity));
    }
}

fn leave<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The network as which an uploader counts: a /24, or of IPv6 a /48. Private ones, where all of a test network may be,
/// are not counted.
fn network(from: Option<IpAddr>) -> Option<IpAddr> {
    match from.filter(|from| !is_internal(*from))? {
        IpAddr::V4(ip) => Some(Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << 8)).into()),
        IpAddr::V6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 80)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> Fingerprint {
        Fingerprint([n; 20])
    }

    fn with(strangers: &[u8]) -> Ranks {
        let mut ranks = Ranks::default();
        strangers.iter().for_each(|n| ranks.arrive(id(*n), None));
        ranks
    }

    #[test]
    fn who_came_last_gives_way() {
        let mut ranks = with(&[1, 2, 3]);
        ranks.arrive(id(1), None);
        assert_eq!(ranks.last_after(&id(1)), Some(id(3)));
        assert_eq!((ranks.last_after(&id(3)), ranks.last_after(&id(9))), (None, None));
        ranks.vouch(id(3), Ipv4Addr::LOCALHOST);
        ranks.vouch(id(9), Ipv4Addr::LOCALHOST);
        assert_eq!((ranks.last_after(&id(3)), ranks.last_after(&id(9))), (Some(id(2)), None));
        ranks.retain(|identity| *identity == id(3));
        assert_eq!((ranks.last_after(&id(3)), ranks.strangers.len(), ranks.known.len()), (None, 0, 1));
        ranks.forget(&id(3));
        assert!(ranks.known.is_empty() && ranks.by_address.is_empty());
    }

    #[test]
    fn a_network_brings_only_so_many_strangers() {
        let mut ranks = Ranks::default();
        let from = |n: u8| Some(IpAddr::from([198, 51, 100, n]));
        for n in 0..STRANGERS_PER_NETWORK as u8 {
            assert!(ranks.has_room_for(from(n)));
            ranks.arrive(id(n), from(n));
        }
        assert!(!ranks.has_room_for(from(0)));
        assert!(ranks.has_room_for(Some(IpAddr::from([198, 51, 101, 1]))) && ranks.has_room_for(None));
        ranks.vouch(id(0), Ipv4Addr::new(198, 51, 100, 0));
        assert!(ranks.has_room_for(from(0)), "those that are found make room for more");
        ranks.retain(|_| false);
        assert!(ranks.by_network.is_empty());
    }

    #[test]
    fn an_address_makes_only_so_many_known() {
        let count = KNOWN_PER_ADDRESS as u8 + 1;
        let mut ranks = with(&(0..count).collect::<Vec<_>>());
        (0..count).for_each(|n| ranks.vouch(id(n), Ipv4Addr::new(198, 51, 100, 1)));
        assert_eq!((ranks.known.len(), ranks.strangers.len()), (KNOWN_PER_ADDRESS, 1));
        let mut near = with(&(0..count).collect::<Vec<_>>());
        (0..count).for_each(|n| near.vouch(id(n), Ipv4Addr::LOCALHOST));
        assert_eq!(near.known.len(), usize::from(count));
    }
}
