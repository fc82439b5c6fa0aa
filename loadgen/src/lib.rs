//! Private networks of any mix of implementations, and load through them.
//!
//! [`net`] boots a complete network on loopback: directory authorities, relays, exits and clients, each a process of
//! its own with an address of its own, together with the resolver and the server that tests talk to. [`traffic`]
//! moves bytes through it and checks every one of them. [`load`] drives a single relay to its limit, [`authority`] a single
//! authority, with the [`synthetic`] network that it takes. The program
//! `onionring-loadgen` is a thin layer over all three.
//!
//! ```no_run
//! use onionring_loadgen::net::{Kind, NetworkSpec, Role};
//!
//! let net = NetworkSpec::new()
//!     .add(Role::Authority, Kind::TOR, 3)
//!     .add(Role::Relay, Kind::ONIONRING, 2)
//!     .add(Role::Exit, Kind::ONIONRING, 1)
//!     .add(Role::Client, Kind::TOR, 1)
//!     .boot()?;
//! let transfer = net.download("client1", 1 << 20)?;
//! println!("{} bytes in {:?}", transfer.bytes, transfer.elapsed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod authority;
pub mod cli;
pub mod load;
pub mod net;
pub mod synthetic;
pub mod traffic;
