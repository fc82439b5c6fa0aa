//! What every directory serves, and how (dir-spec 6): requests as they come in ([`http`]), the documents of one moment
//! ([`snapshot`]), the answer to a request from them ([`serve`]), and answers on their way out, piece by piece
//! ([`spool`]). What comes from others is judged ([`check`]) before it is kept ([`library`]), with the consensuses before
//! it, from which there are diffs ([`archive`]); how others are asked, and their answers read, says [`answer`]. A
//! [`keeper`] puts that together: it says what to fetch, takes what comes, and keeps it on disk.
//!
//! Pure but for the keeper's disk: neither sockets nor a clock, so that any runtime and any transport (a DirPort, a
//! BEGIN_DIR stream) may use it. With the feature `tokio`, [`exchange`] asks over any of its connections.

pub mod answer;
pub mod archive;
pub mod check;
#[cfg(feature = "tokio")]
pub mod exchange;
pub mod http;
pub mod keeper;
pub mod library;
pub mod serve;
pub mod snapshot;
pub mod spool;
#[cfg(any(test, feature = "testdata"))]
pub mod testdata;
