//! Who is connected: how many in all, and how many from one address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onionring_proto::policy::is_internal;

use crate::limits::{HTTP_CONNECTIONS, HTTP_CONNECTIONS_PER_ADDRESS};

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Guests(Mutex<Open>);

/// A connection that counts for as long as it lives.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Arc<Guests>,
    address: Option<IpAddr>,
    number: usize,
}

impl Guests {
    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it holds this.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection, unless there are too many.
    pub fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Guest> {
        let mut open = self.open();
        if open.total >= HTTP_CONNECTIONS {
            return None;
        }
        let address = (!is_internal(client)).then(|| counted(client));
        if let Some(address) = address {
            let theirs = open.by_address.entry(address).or_default();
            if *theirs >= HTTP_CONNECTIONS_PER_ADDRESS {
                return None;
            }
            *theirs += 1;
        }
        open.total += 1;
        Some(Guest { guests: self.clone(), address, number: open.total })
    }
}

/// The address as which a client counts: one of IPv6 has at least a /64 to itself.
fn counted(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
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
        if let Some(address) = self.address
            && let Some(theirs) = open.by_address.get_mut(&address)
        {
            *theirs -= 1;
            if *theirs == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_its_share_and_leaves_the_rest() {
        let guests = Arc::new(Guests::default());
        let near = |n: u64| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, (n >> 16) as u16, n as u16]);
        let mut inside: Vec<Guest> =
            (0..HTTP_CONNECTIONS_PER_ADDRESS as u64).map(|n| guests.admit(near(n)).unwrap()).collect();
        assert!(guests.admit(near(1 << 20)).is_none());
        assert!(guests.admit("2001:db8:0:2::1".parse().unwrap()).is_some());
        inside.pop();
        inside.push(guests.admit(near(7)).unwrap());
        assert_eq!(guests.open().total, HTTP_CONNECTIONS_PER_ADDRESS);
        drop(inside);
        let open = guests.open();
        assert_eq!((open.total, open.by_address.len()), (0, 0));
    }

    #[test]
    fn a_network_on_one_machine_has_the_bound_of_all() {
        let guests = Arc::new(Guests::default());
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let inside: Vec<Guest> = (0..HTTP_CONNECTIONS).map(|_| guests.admit(loopback).unwrap()).collect();
        assert_eq!(inside.last().map(Guest::number), Some(HTTP_CONNECTIONS));
        assert!(guests.admit(loopback).is_none());
        assert!(guests.admit("198.51.100.1".parse().unwrap()).is_none());
    }
}
