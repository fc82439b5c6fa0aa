//! Who is connected: how many in all, and how many from one address or network. Of IPv6, whoever has one address has
//! millions of networks more: all of it together leaves room for IPv4.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onionring_proto::policy::is_internal;

use crate::limits::{
    HTTP_CONNECTIONS, HTTP_CONNECTIONS_IPV6, HTTP_CONNECTIONS_OF_AUTHORITIES, HTTP_CONNECTIONS_PER_ADDRESS,
    HTTP_CONNECTIONS_PER_NETWORK,
};

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// By what they count as.
    shares: BTreeMap<Share, usize>,
}

/// What connections have a bound of their own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Share {
    Address(Ipv4Addr),
    /// The upper half of an address: whoever has one has at least that.
    Slash64(u64),
    /// The upper 48 bits.
    Slash48(u64),
    /// All of IPv6.
    Ipv6,
}

impl Share {
    /// What a client counts as. One at a private address counts for the total alone.
    fn of(client: IpAddr) -> Vec<Share> {
        match client {
            _ if is_internal(client) => Vec::new(),
            IpAddr::V4(ip) => vec![Share::Address(ip)],
            IpAddr::V6(ip) => {
                let half = (ip.to_bits() >> 64) as u64;
                vec![Share::Slash64(half), Share::Slash48(half >> 16), Share::Ipv6]
            }
        }
    }

    fn bound(self) -> usize {
        match self {
            Share::Address(_) | Share::Slash64(_) => HTTP_CONNECTIONS_PER_ADDRESS,
            Share::Slash48(_) => HTTP_CONNECTIONS_PER_NETWORK,
            Share::Ipv6 => HTTP_CONNECTIONS_IPV6,
        }
    }
}

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Guests(Mutex<Open>);

/// A connection that counts for as long as it lives.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Arc<Guests>,
    shares: Vec<Share>,
    number: usize,
}

impl Guests {
    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it holds this.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection, unless there are too many. Those of authorities have some places that nobody else takes.
    pub fn admit(self: &Arc<Self>, client: IpAddr, is_authority: bool) -> Option<Guest> {
        let mut open = self.open();
        let reserved = if is_authority { 0 } else { HTTP_CONNECTIONS_OF_AUTHORITIES };
        let shares = if is_authority { Vec::new() } else { Share::of(client) };
        let is_full = |share: &Share| open.shares.get(share).is_some_and(|theirs| *theirs >= share.bound());
        if open.total >= HTTP_CONNECTIONS - reserved || shares.iter().any(is_full) {
            return None;
        }
        for share in &shares {
            *open.shares.entry(*share).or_default() += 1;
        }
        open.total += 1;
        Some(Guest { guests: self.clone(), shares, number: open.total })
    }
}

impl Guest {
    /// How many there were when it came, itself included.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self.guests.open();
        open.total -= 1;
        for share in &self.shares {
            if let Some(theirs) = open.shares.get_mut(share) {
                *theirs -= 1;
                if *theirs == 0 {
                    open.shares.remove(share);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that get in, of one client each.
    fn admitted(guests: &Arc<Guests>, clients: impl Iterator<Item = IpAddr>) -> Vec<Guest> {
        clients.filter_map(|client| guests.admit(client, false)).collect()
    }

    fn v6(network: u64, host: u64) -> IpAddr {
        std::net::Ipv6Addr::from_bits(u128::from(0x2001_0db8 << 32 | network) << 64 | u128::from(host)).into()
    }

    #[test]
    fn one_address_takes_its_share_and_leaves_the_rest() {
        let guests = Arc::new(Guests::default());
        let mut inside = admitted(&guests, (0..100).map(|host| v6(1, host)));
        assert_eq!(inside.len(), HTTP_CONNECTIONS_PER_ADDRESS);
        assert!(guests.admit(v6(2, 1), false).is_some());
        inside.pop();
        inside.push(guests.admit(v6(1, 7), false).unwrap());
        assert_eq!(guests.open().total, HTTP_CONNECTIONS_PER_ADDRESS);
        drop(inside);
        let open = guests.open();
        assert_eq!((open.total, open.shares.len()), (0, 0));
    }

    #[test]
    fn one_network_and_all_of_ipv6_take_their_shares() {
        let guests = Arc::new(Guests::default());
        // Every /64 of a /48.
        let near = admitted(&guests, (0..1000).map(|network| v6(network, 1)));
        assert_eq!(near.len(), HTTP_CONNECTIONS_PER_NETWORK);
        // Every /48 of a /32.
        let far = admitted(&guests, (1..2000).map(|network| v6(network << 16, 1)));
        assert_eq!(near.len() + far.len(), HTTP_CONNECTIONS_IPV6);
        assert!(guests.admit(IpAddr::from([198, 51, 100, 1]), false).is_some());
    }

    #[test]
    fn a_network_on_one_machine_has_the_bound_of_all() {
        let guests = Arc::new(Guests::default());
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let all = HTTP_CONNECTIONS - HTTP_CONNECTIONS_OF_AUTHORITIES;
        let inside = admitted(&guests, std::iter::repeat_n(loopback, 2 * HTTP_CONNECTIONS));
        assert_eq!((inside.len(), inside.last().map(Guest::number)), (all, Some(all)));
        let outside = IpAddr::from([198, 51, 100, 1]);
        assert!(guests.admit(outside, false).is_none());
        let authorities: Vec<Guest> = std::iter::from_fn(|| guests.admit(outside, true)).collect();
        assert_eq!(authorities.len(), HTTP_CONNECTIONS_OF_AUTHORITIES);
    }
}
