//! When to ask whom for the first consensus (C tor's `ClientBootstrapConsensus*`): fallbacks first, and authorities, which
//! are few, only when that takes long.

use std::time::Duration;

use onionring_proto::dir::backoff::{Backoff, Delays};
use onionring_proto::time::Mono;
use rand::Rng;

/// The schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long until the first fallback is asked (`ClientBootstrapConsensusFallbackDownloadInitialDelay`).
    pub fallback_delay: Duration,
    /// How long until the first authority is asked (`ClientBootstrapConsensusAuthorityDownloadInitialDelay`),
    pub authority_delay: Duration,
    /// and if there are no fallbacks (`ClientBootstrapConsensusAuthorityOnlyDownloadInitialDelay`).
    pub authority_only_delay: Duration,
    /// How many are asked at once (`ClientBootstrapConsensusMaxInProgressTries`).
    pub tries: usize,
}

impl Schedule {
    /// C tor's defaults.
    pub const NORMAL: Schedule = Schedule {
        fallback_delay: Duration::ZERO,
        authority_delay: Duration::from_secs(6),
        authority_only_delay: Duration::ZERO,
        tries: 3,
    };

    /// Those of a testing network (`TestingTorNetwork 1`).
    pub const TESTING: Schedule = Schedule { authority_delay: Duration::ZERO, ..Schedule::NORMAL };
}

/// Whom to ask next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Fallbacks,
    Authorities,
}

/// A bootstrap that has begun. Attempts in a group follow each other at random times that grow, whatever became of the
/// ones before.
pub(super) struct Bootstrap {
    groups: [(Group, Attempts); 2],
}

struct Attempts {
    delays: Delays,
    /// As long as none was made.
    first: Option<Mono>,
    backoff: Backoff,
}

impl Attempts {
    fn due(&self) -> Mono {
        self.first.unwrap_or(self.backoff.ready_at())
    }
}

impl Bootstrap {
    /// Begins now.
    pub fn new(schedule: &Schedule, has_fallbacks: bool, delays: Delays, now: Mono) -> Bootstrap {
        let authority = if has_fallbacks { schedule.authority_delay } else { schedule.authority_only_delay };
        let attempts = |wait: Duration| {
            let base = wait.max(delays.base);
            let delays = Delays { base, cap: delays.cap.max(base) };
            Attempts { delays, first: Some(now + wait), backoff: Backoff::default() }
        };
        Bootstrap {
            groups: [
                (Group::Fallbacks, attempts(schedule.fallback_delay)),
                (Group::Authorities, attempts(authority)),
            ],
        }
    }

    /// The groups of which one may be asked now.
    pub fn due(&self, now: Mono) -> impl Iterator<Item = Group> {
        self.groups.iter().filter(move |(_, attempts)| attempts.due() <= now).map(|(group, _)| *group)
    }

    /// One of a group is being asked.
    pub fn asked(&mut self, group: Group, now: Mono, rng: &mut impl Rng) {
        for (_, attempts) in self.groups.iter_mut().filter(|(of, _)| *of == group) {
            attempts.first = None;
            attempts.backoff.failed(&attempts.delays, now, rng);
        }
    }

    /// How long until a group that may not be asked now may be.
    pub fn next_due(&self, now: Mono) -> Option<Duration> {
        let waits = self.groups.iter().map(|(_, attempts)| attempts.due().since(now));
        waits.filter(|wait| !wait.is_zero()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallbacks_come_first_and_attempts_follow_ever_slower() {
        let rng = &mut rand::rng();
        let start = Mono(0);
        let mut bootstrap = Bootstrap::new(&Schedule::NORMAL, true, Delays::NORMAL, start);
        assert_eq!(bootstrap.due(start).collect::<Vec<_>>(), [Group::Fallbacks]);
        assert_eq!(bootstrap.next_due(start), Some(Duration::from_secs(6)));
        bootstrap.asked(Group::Fallbacks, start, rng);
        assert_eq!(bootstrap.due(start).count(), 0);
        let next = bootstrap.next_due(start).unwrap();
        assert!(next >= Duration::from_secs(1) && next <= Duration::from_secs(2), "{next:?}");
        let later = start + Duration::from_secs(6);
        assert_eq!(bootstrap.due(later).collect::<Vec<_>>(), [Group::Fallbacks, Group::Authorities]);
        bootstrap.asked(Group::Authorities, later, rng);
        bootstrap.asked(Group::Fallbacks, later, rng);
        assert!(bootstrap.due(later).next().is_none());
    }

    #[test]
    fn without_fallbacks_authorities_are_asked_at_once() {
        let bootstrap = Bootstrap::new(&Schedule::NORMAL, false, Delays::NORMAL, Mono(0));
        assert!(bootstrap.due(Mono(0)).any(|group| group == Group::Authorities));
    }
}
