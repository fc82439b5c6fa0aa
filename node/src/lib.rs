//! What every onionring program needs that touches the system.

pub mod metrics;
pub mod tls;
