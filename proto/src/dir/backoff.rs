//! Retry delays that grow and scatter, so that a directory in trouble is not asked by everyone at once.

use std::time::Duration;

use rand_core::Rng;

use crate::time::Mono;

/// Bounds of a retry delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// Least delay after a failure.
    pub base: Duration,
    /// Greatest delay.
    pub cap: Duration,
}

impl Delays {
    /// For a network whose consensus lives an hour.
    pub const NORMAL: Delays = Delays { base: Duration::from_secs(1), cap: Duration::from_secs(600) };
    /// For a testing network, whose consensus may live seconds.
    pub const TESTING: Delays = Delays { base: Duration::from_secs(1), cap: Duration::from_secs(20) };
}

/// The retry state of one source or one document: after each failure it waits a random time between the base and
/// three times the last wait ("decorrelated jitter", as C tor does).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    last: Duration,
    until: Mono,
    failures: u32,
}

impl Backoff {
    /// Whether it may be tried now.
    pub fn is_ready(&self, now: Mono) -> bool {
        self.until <= now
    }

    /// When it may be tried.
    pub fn ready_at(&self) -> Mono {
        self.until
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Takes note of a failure.
    pub fn failed(&mut self, delays: &Delays, now: Mono, rng: &mut (impl Rng + ?Sized)) {
        let top = (self.last * 3).max(delays.base * 2).min(delays.cap);
        self.last = uniform(delays.base.min(top), top, rng);
        self.until = now + self.last;
        self.failures = self.failures.saturating_add(1);
    }

    /// Takes note of a success: the next failure starts over.
    pub fn succeeded(&mut self) {
        *self = Backoff::default();
    }
}

/// A random time from `low` to `high`, both included, to the microsecond.
pub(crate) fn uniform(low: Duration, high: Duration, rng: &mut (impl Rng + ?Sized)) -> Duration {
    let span = u64::try_from(high.saturating_sub(low).as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    low + Duration::from_micros(below(span, rng))
}

/// A random number below `n`, or 0 if `n` is 0. The bias of 2^-64 per value does not matter for timing or choice.
pub(crate) fn below(n: u64, rng: &mut (impl Rng + ?Sized)) -> u64 {
    let wide = u128::from(rng.next_u64()) * u128::from(n);
    (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_over() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let delays = Delays { base: Duration::from_secs(1), cap: Duration::from_secs(60) };
        let mut backoff = Backoff::default();
        let mut longest = Duration::ZERO;
        let now = Mono(5_000_000);
        assert!(backoff.is_ready(now));
        for n in 1..200 {
            let before = backoff.last;
            backoff.failed(&delays, now, &mut rng);
            let wait = backoff.ready_at().since(now);
            assert!(wait >= delays.base && wait <= delays.cap && wait <= (before * 3).max(delays.base * 2));
            assert_eq!((backoff.failures(), backoff.is_ready(now)), (n, false));
            assert!(backoff.is_ready(now + wait));
            longest = longest.max(wait);
        }
        assert!(longest > delays.cap / 2);
        backoff.succeeded();
        assert!(backoff.is_ready(Mono(0)));
    }

    proptest! {
        #[test]
        fn uniform_stays_in_its_range(seed: u8, low in 0u64..1000, more in 0u64..1000) {
            let mut rng = ChaCha20Rng::from_seed([seed; 32]);
            let (low, high) = (Duration::from_millis(low), Duration::from_millis(low + more));
            let got = uniform(low, high, &mut rng);
            prop_assert!(low <= got && got <= high);
            prop_assert_eq!(below(0, &mut rng), 0);
        }
    }
}
