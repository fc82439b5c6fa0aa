//! An onion proxy: it takes the streams of applications, and carries them through the network.
//!
//! [`network`] is the seam between the two halves. On the one side are the ports, which speak with applications and know
//! nothing of circuits ([`ports`]); on the other whoever opens streams for them. [`isolation`] says which streams may share a
//! circuit. [`links`] are the connections to relays on which circuits begin.
#![forbid(unsafe_code)]

pub mod circuits;
pub mod guards;
//! nothing of circuits; on the other whoever opens streams for them. [`isolation`] says which streams may share a
//! circuit. [`links`] are the connections to relays on which circuits begin. [`directory`] is what the proxy knows of the
//! network.
#![forbid(unsafe_code)]

pub mod directory;
}

//! nothing of circuits; on the other whoever opens streams for them. [`isolation`] says which streams may share a
//! circuit. [`links`] are the connections to relays on which circuits begin. The program is [`cli`], [`config`] and
//! [`daemon`], where all parts are put together ([`daemon::parts`]); [`control`] is how commands reach it while it runs,
//! [`tallies`] what it counts.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod isolation;
pub mod limits;
pub mod links;
pub mod memory;
pub mod network;
pub mod streams;
pub mod ports;
pub mod tallies;
