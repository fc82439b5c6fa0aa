//! The relay's directory side: fetching the network's documents, giving them out, and publishing its own.
//!
//! The control side asks authorities ([`client`]) for what is due ([`fetch`]), and puts it in force for everyone
//! ([`directory`]); [`publish`] uploads what the relay says of itself.
//! Shards answer requests on BEGIN_DIR streams ([`stream`]); the same answers go out on the DirPort ([`port`]). How
//! documents are judged and kept, and what the answers are, is the same at every directory, and stands in
//! [`onionring_node::directory`].

#[cfg(test)]
pub(crate) use onionring_node::directory::testdata;
pub use onionring_node::directory::{archive, check, http, library, serve, snapshot, spool};

#[cfg(test)]
mod answers;
pub mod client;
pub mod clock;
pub mod directory;
pub mod fetch;
#[cfg(test)]
mod live;
pub mod port;
pub mod publish;
pub mod stream;
#[cfg(test)]
mod testrelay;
