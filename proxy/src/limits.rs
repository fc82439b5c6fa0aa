//! Every bound of this crate, in one place, with what happens at it.

use std::time::Duration;

/// How long the connection to a relay may take; then it counts as not reached.
pub const DIAL_TIME: Duration = Duration::from_secs(15);

/// How long the TLS handshake with a relay may take, and the link handshake after it.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(15);

/// How long a link without circuits stays open.
pub const LINK_IDLE: Duration = Duration::from_secs(180);
