//! The two clocks of the protocol, always handed in by the driver.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the driver's monotonic clock, in microseconds since an arbitrary origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// A point in civil time, in seconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unix(pub u64);

impl Mono {
    /// Time since `earlier`, zero if `earlier` lies ahead.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Unix {
    /// Seconds since `earlier`, zero if `earlier` lies ahead.
    pub fn since(self, earlier: Unix) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Unix {
    type Output = Unix;
    fn add(self, d: Duration) -> Unix {
        Unix(self.0.saturating_add(d.as_secs()))
    }
}

impl Sub<Duration> for Unix {
    type Output = Unix;
    fn sub(self, d: Duration) -> Unix {
        Unix(self.0.saturating_sub(d.as_secs()))
    }
}
