//! The DirPort's part of the bandwidth limits: it takes from them as one more shard would.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use onionring_proto::policy::is_internal;
use onionring_proto::time::Mono;

#[cfg(test)]
use crate::engine::rate::RateLimits;
use crate::engine::rate::{Direction, Part, Rates, Traffic};

/// The limits of all connections of the DirPort together.
pub struct Bandwidth {
    rates: Box<dyn Fn() -> (Arc<Rates>, Mono)>,
    parts: RefCell<[Part; 2]>,
}

impl Bandwidth {
    /// `rates` gives the limits in force, and the time on the clock that they know.
    pub fn new(rates: impl Fn() -> (Arc<Rates>, Mono) + 'static) -> Bandwidth {
        Bandwidth { rates: Box::new(rates), parts: RefCell::default() }
    }

    /// No limits.
    #[cfg(test)]
    pub fn unlimited() -> Bandwidth {
        let rates = Arc::new(Rates::new(RateLimits::default(), 1));
        Bandwidth::new(move || (rates.clone(), Mono(0)))
    }

    /// Waits until bytes may be moved with a client at this address. Those that are moved then and were not there are
    /// owed.
    pub(super) async fn wait(&self, direction: Direction, client: Option<IpAddr>) {
        loop {
            let (rates, now) = (self.rates)();
            if !counts(&rates, client) {
                return;
            }
            let due = {
                let part = &mut self.parts.borrow_mut()[direction as usize];
                if part.available(&rates, direction, Traffic::Relayed, now) > 0 {
                    return;
                }
                part.due(&rates, direction, Traffic::Relayed, now)
            };
            glommio::timer::sleep(due.since(now)).await;
        }
    }

    /// Bytes have been moved.
    pub(super) fn charge(&self, direction: Direction, client: Option<IpAddr>, bytes: usize) {
        let (rates, _) = (self.rates)();
        if counts(&rates, client) {
            self.parts.borrow_mut()[direction as usize].charge(&rates, Traffic::Relayed, bytes as u64);
        }
    }
}

/// Whether what is moved with a client at this address is limited.
fn counts(rates: &Rates, client: Option<IpAddr>) -> bool {
    rates.limits().count_private || !client.is_some_and(is_internal)
}
