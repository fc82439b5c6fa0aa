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

impl Control {
    /// Tests whenever there is an address that has not been found reachable, for ever.
    pub async fn test_reachability(self: Rc<Self>) {
        loop {
            if self.standing.borrow().reachable || self.addresses().is_empty() {
                sleep(LOOK).await;
            } else {
                self.test_addresses().await;
            }
        }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.publicity.borrow().addresses()
    }

    /// Tests the addresses there are, until others reach them or they change.
    async fn test_addresses(&self) {
        let addresses = self.addresses();
        let mut wait = RETRY.0;
        let mut failures = 0u32;
        loop {
            let result =
                if self.config.borrow().assume_reachable { Ok(true) } else { self.reach_once().await };
            if self.addresses() != addresses {
                return;
            }
            match result {
                Ok(true) => return self.reachable(),
                // Nobody to test through yet.
                Ok(false) => {}
                Err(failure) => {
                    failures += 1;
                    if failures == 5 {
                        warn!(
                            "others cannot reach the ORPort: {failure}. Look at Address, ORPort, port forwarding and \
                             firewall. The descriptor is published once the port is reachable"
                        );
                    } else {
                        info!("the test of the ORPort failed, another follows: {failure}");
                    }
                    wait = (wait * 2).min(RETRY.1);
                }
            }
            let begun = Instant::now();
            while begun.elapsed() < wait {
                sleep(LOOK).await;
                if self.addresses() != addresses || self.config.borrow().assume_reachable {
                    break;
                }
            }
        }
    }

    async fn reach_once(&self) -> Result<bool, OwnCircuitError> {
        let Some(network) = self.directory.network() else { return Ok(false) };
        let myself = self.myself();
        for &address in &myself.or_ports {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            let reached = reach::test(&self.dialer, &network, &myself, address, self.fork_rng()).await;
            let ok = matches!(reached, Ok(true));
            table::REACHABLE.gauge(&[("family", family)]).set(f64::from(u8::from(ok)));
            if !reached? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// This relay at the addresses that are to be tested.
    fn myself(&self) -> Myself {
        let identity = self.identity.borrow();
        let config = self.config.borrow();
        let mut or_ports = self.addresses();
        or_ports.retain(|address| address.is_ipv4() || !config.assume_reachable_ipv6);
        Myself {
            or_ports,
            rsa_id: identity.server().rsa_id,
            ed_id: identity.server().ed_id,
            onion_key: *identity.keys.onion.public(),
            distinct_subnets: config.distinct_subnets,
        }
    }

    fn reachable(&self) {
        let config = self.config.borrow();
        let next = if config.publish { "; the descriptor is published now" } else { "" };
        if !config.assume_reachable {
            info!("others reach the ORPort{next}");
        }
        self.standing.borrow_mut().reachable = true;
    }
}
