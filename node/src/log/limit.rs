//! Messages that something outside can repeat: logged once in a while, and the rest counted.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one message in an interval through. A static beside the message:
///
/// ```
/// # use onionring_node::log::RateLimit;
/// # use std::time::Duration;
/// static LIMIT: RateLimit = RateLimit::every(Duration::from_secs(600));
/// if let Some(suppressed) = LIMIT.check() {
///     tracing::warn!("No local port is left for connections{suppressed}");
/// }
/// ```
pub struct RateLimit {
    interval: Duration,
    state: Mutex<State>,
}

struct State {
    last: Option<Instant>,
    suppressed: u64,
}

/// How many messages were left out since the last one; empty text if none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// Messages left out.
    pub count: u64,
    interval: Duration,
}

impl RateLimit {
    /// One message per `interval`.
    pub const fn every(interval: Duration) -> Self {
        RateLimit { interval, state: Mutex::new(State { last: None, suppressed: 0 }) }
    }

    /// Whether the message may be logged now, and what to say of those left out before.
    pub fn check(&self) -> Option<Suppressed> {
        self.check_at(Instant::now())
    }

    fn check_at(&self, now: Instant) -> Option<Suppressed> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            state.suppressed += 1;
            crate::metrics::table::LOG_EVENTS_SUPPRESSED.counter(&[]).increment(1);
            return None;
        }
        state.last = Some(now);
        Some(Suppressed { count: std::mem::take(&mut state.suppressed), interval: self.interval })
    }
}

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return Ok(());
        }
        write!(f, " [and {} more like this in {} seconds or longer]", self.count, self.interval.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_in_an_interval_and_the_rest_are_counted() {
        let limit = RateLimit::every(Duration::from_secs(600));
        let start = Instant::now();
        let at = |secs| limit.check_at(start + Duration::from_secs(secs)).map(|s| s.to_string());
        assert_eq!(at(0).as_deref(), Some(""));
        assert_eq!((at(1), at(599)), (None, None));
        assert_eq!(at(600).as_deref(), Some(" [and 2 more like this in 600 seconds or longer]"));
        assert_eq!(at(601), None);
        assert_eq!(at(1300).as_deref(), Some(" [and 1 more like this in 600 seconds or longer]"));
    }
}
