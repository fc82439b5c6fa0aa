//! Entry guards at work: who wants one asks here, and says how it went.

use std::sync::Arc;
use std::time::Duration;

use onionring_proto::guard::{AttemptId, GuardSettings, Guards as State, Update, Verdict};
use onionring_proto::netdoc::consensus::RelayStatus;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::path;
use onionring_proto::time::Unix;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::memory::{Memory, lock};

pub use onionring_proto::guard::Purpose;

/// Tells civil time.
pub type Clock = Arc<dyn Fn() -> Unix + Send + Sync>;

/// The guards of the program.
pub struct Guards {
    memory: Arc<Memory>,
    clock: Clock,
    /// An attempt has ended, for those that wait.
    changed: Notify,
}

impl Guards {
    /// Those that are remembered.
    pub fn new(memory: Arc<Memory>, clock: Clock) -> Arc<Guards> {
        Arc::new(Guards { memory, clock, changed: Notify::new() })
    }

    /// The directory or the configuration has changed.
    pub fn set_network(
        &self,
        network: &path::Network,
        settings: &GuardSettings,
        filter: &dyn Fn(&RelayStatus) -> bool,
    ) -> Update {
        let now = (self.clock)();
        let update = self.state(|state| state.set_network(network, settings, filter, now, &mut rand::rng()));
        self.changed.notify_waiters();
        update
    }

    /// A guard to try, for which `avoid` does not hold.
    pub fn select(
        self: &Arc<Self>,
        purpose: Purpose,
        avoid: &dyn Fn(&Fingerprint) -> bool,
    ) -> Option<Attempt> {
        let now = (self.clock)();
        let selected = self.state(|state| state.select(purpose, avoid, now, &mut rand::rng()))?;
        Some(Attempt { guards: self.clone(), relay: selected.relay, id: selected.attempt })
    }

    /// Something has come from the network.
    pub fn network_seen(&self) {
        let now = (self.clock)();
        self.state(|state| state.network_seen(now));
    }

    /// Looks at the guards or changes them.
    pub fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut lock(&self.memory.guards))
    }
}

/// The use of a guard, for as long as the circuit or request lasts.
pub struct Attempt {
    guards: Arc<Guards>,
    relay: Fingerprint,
    id: AttemptId,
}

impl Attempt {
    /// The guard.
    pub fn relay(&self) -> Fingerprint {
        self.relay
    }

    /// The guard could not be reached, or did not do its part.
    pub fn failed(&self) {
        let now = (self.guards.clock)();
        self.guards.state(|state| state.failed(self.id, now));
        self.guards.changed.notify_waiters();
    }

    /// The directory has answered.
    pub fn answered(&self) {
        let now = (self.guards.clock)();
        self.guards.state(|state| state.succeeded(self.id, now, &mut rand::rng()));
        self.guards.changed.notify_waiters();
    }

    /// The circuit is built. Waits until it is known whether it may be used: it may not if a better guard works after all.
    pub async fn succeeded(&self) -> bool {
        let now = (self.guards.clock)();
        let mut verdict = self.guards.state(|state| state.succeeded(self.id, now, &mut rand::rng()));
        self.guards.changed.notify_waiters();
        loop {
            match verdict {
                Verdict::Use => return true,
                Verdict::Discard => return false,
                Verdict::Wait => {}
            }
            // Made before the look, so that no change is missed between the two.
            let changed = self.guards.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = (self.guards.clock)();
            let next;
            (verdict, next) =
                self.guards.state(|state| (state.verdict(self.id, now), state.next_timeout(now)));
            if verdict == Verdict::Wait {
                // Clocks of civil time may be set.
                let patience = next.map_or(LOOK, |at| at.since(now)).clamp(SHORTEST, LOOK);
                let _ = timeout(patience, changed).await;
            }
        }
    }
}

const SHORTEST: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_secs(5);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.guards.state(|state| state.closed(self.id));
        self.guards.changed.notify_waiters();
    }
}
