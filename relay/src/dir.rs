//! The relay's directory side: giving out the network's documents.
//!
//! Documents are checked ([`check`]), kept ([`library`]), and put in force for everyone ([`directory`]).
//! Shards answer requests ([`http`], [`serve`]) from a [`snapshot`] on BEGIN_DIR streams ([`stream`]); the same answers
//! go out on the DirPort ([`port`]). An answer is a list of shared documents that is sent piece by piece ([`spool`]).

pub mod check;
pub mod clock;
pub mod directory;
pub mod http;
pub mod library;
pub mod port;
pub mod serve;
pub mod snapshot;
pub mod spool;
pub mod stream;
#[cfg(test)]
mod testdata;
