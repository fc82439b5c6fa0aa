//! What to fetch from directories and what to publish, and when (dir-spec 5, protocol of C tor 0.4.9).
//!
//! Nothing here sends anything: [`fetch::Fetcher`] hands out requests as they fall due and is told how they went,
//! [`publish::Publisher`] says when a new descriptor is due and which authority it still has to go to. Both are
//! driven by the monotonic clock for retries, and by civil time for what documents say.

pub mod backoff;
pub mod fetch;
pub mod publish;
pub mod request;
pub mod sources;
