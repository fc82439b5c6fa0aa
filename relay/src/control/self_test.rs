//! Finding out whether others reach this relay, before it is published and again whenever its addresses change.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::timer::sleep;
use onionring_node::metrics::table;
use tracing::{info, warn};

use super::Control;
use super::own_circuit::OwnCircuitError;
use super::reach::{self, Myself};

/// Time between attempts, doubling up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How often is looked whether there is something to test.
const LOOK: Duration = Duration::from_secs(1);

/// What came of one test.
enum Found {
    /// Others reach the address.
    Reachable,
    /// There is nobody to test through yet.
    Nobody,
    /// A relay has come, but not by this address: it had a link with us already.
    OtherWay,
}

impl Control {
    /// Tests the address of one family whenever it has not been found reachable, for ever.
    pub async fn test_reachability(self: Rc<Self>, ipv6: bool) {
        loop {
            match self.untested(ipv6) {
                Some(address) => self.test(address).await,
                None => sleep(LOOK).await,
            }
        }
    }

    /// The address of a family, if it is to be published and has not been found reachable.
    fn untested(&self, ipv6: bool) -> Option<SocketAddr> {
        let standing = self.standing.borrow();
        let addresses = self.publicity.borrow().addresses();
        addresses.into_iter().find(|address| address.is_ipv6() == ipv6 && !standing.reaches(*address))
    }

    fn is_assumed(&self, address: SocketAddr) -> bool {
        let config = self.config.borrow();
        config.assume_reachable || address.is_ipv6() && config.assume_reachable_ipv6
    }

    /// Tests an address until others reach it or it changes.
    async fn test(&self, address: SocketAddr) {
        let family = if address.is_ipv6() { "ipv6" } else { "ipv4" };
        let gauge = table::REACHABLE.gauge(&[("family", family)]);
        let links_before = self.links_from_relays_ipv6.get();
        let is_due = || self.untested(address.is_ipv6()) == Some(address);
        let mut wait = RETRY.0;
        let mut failures = 0u32;
        while is_due() {
            let found = match self.is_assumed(address) {
                true => Ok(Found::Reachable),
                false => self.try_address(address, links_before).await,
            };
            if !is_due() {
                return;
            }
            gauge.set(f64::from(u8::from(matches!(found, Ok(Found::Reachable)))));
            match found {
                Ok(Found::Reachable) => return self.reachable(address),
                Ok(Found::Nobody) => {}
                Ok(Found::OtherWay) => wait = (wait * 2).min(RETRY.1),
                Err(failure) => {
                    failures += 1;
                    if failures == 5 {
                        warn!(
                            "others cannot reach the ORPort at {address}: {failure}. Look at Address, ORPort, port \
                             forwarding and firewall. It is published once it is reachable"
                        );
                    } else {
                        info!("the test of the ORPort at {address} failed, another follows: {failure}");
                    }
                    wait = (wait * 2).min(RETRY.1);
                }
            }
            let begun = Instant::now();
            while begun.elapsed() < wait && is_due() && !self.is_assumed(address) {
                sleep(LOOK).await;
            }
        }
    }

    async fn try_address(&self, address: SocketAddr, links_before: u64) -> Result<Found, OwnCircuitError> {
        let Some(network) = self.directory.network() else { return Ok(Found::Nobody) };
        let myself = self.myself();
        if !reach::test(&self.dialer, &network, &myself, address, self.fork_rng()).await? {
            return Ok(Found::Nobody);
        }
        if address.is_ipv4() {
            return Ok(Found::Reachable);
        }
        // Shards are asked for their counters every second.
        sleep(2 * LOOK).await;
        let came = self.links_from_relays_ipv6.get() > links_before;
        Ok(if came { Found::Reachable } else { Found::OtherWay })
    }

    fn myself(&self) -> Myself {
        let identity = self.identity.borrow();
        Myself {
            or_ports: self.publicity.borrow().addresses(),
            rsa_id: identity.server().rsa_id,
            ed_id: identity.server().ed_id,
            onion_key: *identity.keys.onion.public(),
            distinct_subnets: self.config.borrow().distinct_subnets,
        }
    }

    fn reachable(&self, address: SocketAddr) {
        if !self.is_assumed(address) {
            info!("others reach the ORPort at {address}");
        }
        let mut standing = self.standing.borrow_mut();
        match address.is_ipv6() {
            true => standing.reachable_ipv6 = true,
            false => standing.reachable = true,
        }
    }
}
