//! The time, for those parts of the directory side that are not handed it.

use std::time::{Instant, SystemTime};

pub use onionring_node::directory::keeper::Clocks;
use onionring_proto::time::{Mono, Unix};

/// The clocks of this machine; the monotonic one counts from when this was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// In tests: what civil time it was at `origin`.
    #[cfg(test)]
    pretended: Option<Unix>,
}

impl Default for Clock {
    fn default() -> Self {
        Clock {
            origin: Instant::now(),
            #[cfg(test)]
            pretended: None,
        }
    }
}

impl Clock {
    /// A clock that pretends it is `now`.
    #[cfg(test)]
    pub fn starting_at(now: Unix) -> Self {
        Clock { pretended: Some(now), ..Clock::default() }
    }

    /// Reads both.
    pub fn now(&self) -> Clocks {
        Clocks { mono: Mono(0) + self.origin.elapsed(), unix: self.unix() }
    }

    fn unix(&self) -> Unix {
        #[cfg(test)]
        if let Some(pretended) = self.pretended {
            return pretended + self.origin.elapsed();
        }
        Unix(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs())
    }
}
