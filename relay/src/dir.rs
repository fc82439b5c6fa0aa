//! The relay's directory side: fetching the network's documents, giving them out, and publishing its own.
//!
//! The control side asks authorities ([`client`]) for what is due ([`fetch`]), checks it ([`check`]), keeps it
//! ([`library`]), and puts it in force for everyone ([`directory`]), with the diffs from what was in force before
//! ([`archive`]); [`publish`] uploads what the relay says of itself.
//! Shards answer requests on BEGIN_DIR streams ([`stream`]); the same answers go out on the DirPort ([`port`]). What the
//! answers are is the same at every directory, and stands in [`onionring_node::directory`].

pub use onionring_node::directory::{http, serve, snapshot, spool};

#[cfg(test)]
mod answers;
pub mod archive;
pub mod check;
pub mod client;
pub mod clock;
pub mod directory;
pub mod fetch;
pub mod library;
#[cfg(test)]
mod live;
pub mod port;
pub mod publish;
pub mod stream;
#[cfg(test)]
pub(crate) mod testdata;
#[cfg(test)]
mod testrelay;
