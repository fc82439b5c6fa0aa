//! Entry guards at work: who wants one asks here, and says how it went.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use onionring_proto::guard::{
    AttemptId, Course, Failing, GuardSettings, Guards as State, Level, Suspicion, Update, Verdict,
};
use onionring_proto::netdoc::consensus::RelayStatus;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::path;
use onionring_proto::time::Unix;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::memory::{Memory, lock};

pub use onionring_proto::guard::{Purpose, Step};

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
        let course = Mutex::new(Course::new(selected.relay));
        Some(Attempt { guards: self.clone(), relay: selected.relay, id: selected.attempt, course })
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
    /// What becomes of the circuit.
    course: Mutex<Course>,
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

    /// Something has happened to the circuit, by which its guard is judged.
    pub fn note(&self, step: Step) {
        let now = (self.guards.clock)();
        let suspicion =
            self.guards.state(|state| state.watch(&mut lock(&self.course), step, now, &mut rand::rng()));
        if let Some(suspicion) = suspicion {
            say(&suspicion);
            self.guards.changed.notify_waiters();
        }
    }

    /// Whether the circuit was used, and it is not known that it carries anything.
    pub fn is_in_doubt(&self) -> bool {
        lock(&self.course).is_in_doubt()
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

/// Tells people what speaks against a guard.
fn say(suspicion: &Suspicion) {
    let text = describe(suspicion);
    match suspicion.level {
        Level::Notable => info!("{text}"),
        Level::Bad | Level::Extreme | Level::Dropped => warn!("{text}"),
    }
}

fn describe(suspicion: &Suspicion) -> String {
    let Suspicion { guard, nickname, of, level, well, all, collapsed, unusable, timed_out } = suspicion;
    let name = nickname.as_deref().map(|nickname| format!(" ({nickname})")).unwrap_or_default();
    let fails = match of {
        Failing::Circuits => {
            format!("only {well} of {all} circuits through the guard {guard}{name} did not fail")
        }
        Failing::Streams => {
            format!(
                "only {well} of {all} circuits through the guard {guard}{name} carried what they were used for"
            )
        }
    };
    let means = match level {
        Level::Notable => "most likely the network is overloaded, or the line of this machine is poor",
        Level::Bad => {
            "most likely the network is overloaded; but somebody may want this proxy to use other relays"
        }
        Level::Extreme => {
            "the guard may want this proxy to use other relays, or the network or the line of this machine fails; if it \
             goes on, exclude the guard with ExcludeNodes"
        }
        Level::Dropped => "it is not used any more, as PathBiasDropGuards says",
    };
    format!(
        "{fails}: {means} ({collapsed} closed by others before they were used, {unusable} that carried nothing, {timed_out} \
         too slow)"
    )
}

const SHORTEST: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_secs(5);

impl Drop for Attempt {
    fn drop(&mut self) {
        // Unless more is known of its end.
        self.note(Step::Closed { by_others: false });
        self.guards.state(|state| state.closed(self.id));
        self.guards.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_hear_which_guard_fails_and_what_to_make_of_it() {
        let suspicion = Suspicion {
            guard: Fingerprint([0xab; 20]),
            nickname: Some("relay7".to_owned()),
            of: Failing::Circuits,
            level: Level::Notable,
            well: 100,
            all: 151,
            collapsed: 1,
            unusable: 2,
            timed_out: 3,
        };
        let text = describe(&suspicion);
        let guard = "AB".repeat(20);
        assert_eq!(
            text,
            format!(
                "only 100 of 151 circuits through the guard {guard} (relay7) did not fail: most likely the network is \
                 overloaded, or the line of this machine is poor (1 closed by others before they were used, 2 that carried \
                 nothing, 3 too slow)"
            )
        );
        let dropped = Suspicion { level: Level::Dropped, of: Failing::Streams, nickname: None, ..suspicion };
        let text = describe(&dropped);
        assert!(
            text.contains(&format!("guard {guard} carried")) && text.contains("PathBiasDropGuards"),
            "{text}"
        );
    }
}
