//! Who is running: whom this authority has reached lately.

use std::time::Duration;

use onionring_proto::time::Unix;

use super::{Relay, Terms};

/// How long a relay counts as running after it was reached.
const REACHED_FOR: Duration = Duration::from_secs(45 * 60);
/// How often each relay is probed: one that is down has been since the probe after the last that reached it.
const PROBE_INTERVAL: Duration = Duration::from_secs(1280);
/// A hibernating relay that is reached this long after it said so has probably woken up.
const HIBERNATION_SKEW: Duration = Duration::from_secs(60 * 60);

impl Terms<'_> {
    /// Whether we have run for long enough to know who is down.
    pub(super) fn judges_reachability(&self) -> bool {
        self.now > self.started + self.options.time_to_learn_reachability
    }
}

impl Relay<'_> {
    pub(super) fn is_running(&self, terms: &Terms<'_>) -> bool {
        let descriptor = self.descriptor;
        let is_fresh = |reached: Option<Unix>| reached.is_some_and(|at| terms.now < at + REACHED_FOR);
        if descriptor.identity == terms.us {
            !terms.hibernating
        } else if descriptor.hibernating
            && self.reached.is_none_or(|at| at < descriptor.published + HIBERNATION_SKEW)
        {
            false
        } else if !terms.options.test_reachability {
            true
        } else {
            let needs_ipv6 = terms.options.has_ipv6 && descriptor.ipv6.is_some();
            is_fresh(self.reached) && (!needs_ipv6 || is_fresh(self.reached_v6))
        }
    }

    /// Since when it is down, if it is.
    pub(super) fn down_since(&self, now: Unix) -> Unix {
        self.reached.map_or(now, |at| now.min(at + PROBE_INTERVAL))
    }

    /// Whether its IPv6 address is voted: if it has one and we have reached it there.
    pub(super) fn is_ipv6_voted(&self, terms: &Terms<'_>) -> bool {
        let reached = self.reached_v6.is_some_and(|at| terms.now.since(at) <= REACHED_FOR);
        terms.options.has_ipv6
            && self.descriptor.ipv6.is_some()
            && (reached || self.descriptor.identity == terms.us)
    }
}
