//! Which name server to ask next: those that work before those that do not.

use crate::limits;
use onionring_proto::time::Mono;
use std::net::SocketAddr;

/// The configured name servers and their health.
pub struct Servers {
    servers: Vec<Server>,
    rotate: bool,
    next: usize,
}

struct Server {
    address: SocketAddr,
    failures_in_a_row: u32,
    rests_until: Mono,
}

impl Servers {
    /// All servers start healthy. With `rotate`, each question begins at the server after the last one's first.
    pub fn new(addresses: &[SocketAddr], rotate: bool) -> Self {
        let servers = addresses
            .iter()
            .map(|&address| Server { address, failures_in_a_row: 0, rests_until: Mono(0) })
            .collect();
        Servers { servers, rotate, next: 0 }
    }

    /// The servers for one question, best first: the healthy ones in their order, then the failing ones, the one whose
    /// rest ends first before the others. So when all fail, each question still goes somewhere.
    pub fn order(&mut self, now: Mono) -> Vec<SocketAddr> {
        let n = self.servers.len();
        let first = if self.rotate && n > 0 { self.next % n } else { 0 };
        self.next = self.next.wrapping_add(1);
        let mut order: Vec<&Server> = self.servers.iter().cycle().skip(first).take(n).collect();
        // Stable: servers that do not rest keep their order.
        order.sort_by_key(|s| if s.rests_until > now { s.rests_until } else { Mono(0) });
        order.into_iter().map(|s| s.address).collect()
    }

    /// `address` answered.
    pub fn succeeded(&mut self, address: SocketAddr) {
        if let Some(server) = self.find(address) {
            server.failures_in_a_row = 0;
            server.rests_until = Mono(0);
        }
    }

    /// `address` did not answer, or not usefully. Returns true when it is passed over from now on and was not before.
    pub fn failed(&mut self, address: SocketAddr, now: Mono) -> bool {
        let Some(server) = self.find(address) else { return false };
        server.failures_in_a_row = server.failures_in_a_row.saturating_add(1);
        let Some(excess) = server.failures_in_a_row.checked_sub(limits::DNS_SERVER_FAILURES) else {
            return false;
        };
        let (first, longest) = limits::DNS_SERVER_REST;
        server.rests_until = now + first.saturating_mul(1 << excess.min(16)).min(longest);
        excess == 0
    }

    /// Servers that are passed over at `now`.
    pub fn resting(&self, now: Mono) -> usize {
        self.servers.iter().filter(|s| s.rests_until > now).count()
    }

    /// Number of servers.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Whether there is no server at all.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    fn find(&mut self, address: SocketAddr) -> Option<&mut Server> {
        self.servers.iter_mut().find(|s| s.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn addresses() -> Vec<SocketAddr> {
        ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"].map(|s| s.parse().unwrap()).to_vec()
    }

    fn at(secs: u64) -> Mono {
        Mono(0) + Duration::from_secs(secs)
    }

    #[test]
    fn rotation_spreads_questions_only_when_asked() {
        let a = addresses();
        let mut fixed = Servers::new(&a, false);
        assert_eq!((fixed.order(at(0))[0], fixed.order(at(0))[0]), (a[0], a[0]));
        let mut rotating = Servers::new(&a, true);
        let firsts: Vec<_> = (0..4).map(|_| rotating.order(at(0))[0]).collect();
        assert_eq!(firsts, [a[0], a[1], a[2], a[0]]);
        assert_eq!(rotating.order(at(0)), [a[1], a[2], a[0]]);
    }

    #[test]
    fn failing_servers_go_last_and_come_back() {
        let a = addresses();
        let mut servers = Servers::new(&a, false);
        let newly_dead: Vec<_> = (0..4).map(|_| servers.failed(a[0], at(1))).collect();
        assert_eq!(newly_dead, [false, false, true, false]);
        assert_eq!(servers.order(at(2)), [a[1], a[2], a[0]]);
        assert_eq!(servers.resting(at(2)), 1);
        // Two failures beyond the first rest of 10 s: 20 s.
        assert_eq!(servers.order(at(20)), [a[1], a[2], a[0]]);
        assert_eq!(servers.order(at(21)), [a[0], a[1], a[2]]);
        servers.succeeded(a[0]);
        assert!(!servers.failed(a[0], at(22)), "one failure after a success does not make a server rest");
    }

    #[test]
    fn rests_are_bounded_and_never_lose_all_servers() {
        let a = addresses();
        let mut servers = Servers::new(&a, false);
        for &address in &a {
            for _ in 0..1000 {
                servers.failed(address, at(0));
            }
        }
        assert_eq!(servers.order(at(1)).len(), 3);
        assert_eq!(servers.resting(Mono(0) + limits::DNS_SERVER_REST.1), 0);
    }
}
