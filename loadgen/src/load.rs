//! One relay of any implementation, driven as a black box.
//!
//! Loadgen is the clients before the relay and also the next relay behind it, so the relay under test is really in the
//! middle: client link - relay under test - link to loadgen. Only its address is needed; who it is, it says itself.
//!
//! ```text
//! client links -> CREATE_FAST, RELAY_EARLY(EXTEND2) -> relay under test -> CREATE2 -> hops
//!    (lane)    <=============== bulk cells, probes ===============>              (same lane)
//! ```
//!
//! A measurement is a set of lanes: threads that share nothing. [`measure`] starts them, takes them through links,
//! circuits and warm-up, and then reads, at the edges of every repetition, what they counted and what the process of
//! the relay used. The middle relay only adds or takes off a layer, so bulk is one and the same cell body over and
//! over, and loadgen does no onion crypto but for the cells that it samples and verifies.
//!
//! Three scenarios differ. For `exit` the circuits end at the relay under test, and loadgen is the server behind it. For
//! `flood` two more lanes send junk and honest CREATE2 beside the bulk. `paper-2004` measures a whole private network.
//!
//! Goodput counts the 498 bytes of data that a relay cell carries at most; CPU seconds per GiB are per GiB of goodput.

mod ask;
mod board;
mod circuit;
mod compare;
mod error;
mod exit;
mod exposition;
mod flood;
mod gauge;
mod hop;
mod lane;
mod latencies;
mod link;
mod onionskin;
mod paper;
mod public_key;
mod report;
mod run;
mod server;
mod settings;
mod standalone;
mod subject;
mod sweep;
mod syscalls;
mod target;
mod traffic;

pub use compare::{Comparison, Peer, compare};
pub use error::LoadError;
pub use exposition::exposition;
pub use paper::Paper;
pub use report::{Failure, MEASURES, Measure, Repetition, Report, Spread, headline, plain};
pub use run::{Progress, measure};
pub use settings::*;
pub use standalone::{Standalone, StandaloneSpec};
pub use subject::{Subject, SubjectInfo};
pub use sweep::{Point, Sweep};
pub use target::Target;
