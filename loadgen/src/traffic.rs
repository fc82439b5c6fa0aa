//! Bytes through a network, every one of them checked.
//!
//! [`Server`] serves reproducible data over HTTP/1.1 and swallows uploads; [`Socks`] reaches it through a client's
//! SOCKS port; [`download`] and [`upload`] put the two together and compare SHA-256 digests.

mod pattern;
mod server;
mod socks;
mod transfer;

pub use self::pattern::{Digest, Pattern};
pub use self::server::{Served, Server};
pub use self::socks::{Socks, SocksError, SocksStatus};
pub use self::transfer::{Order, TrafficError, Transfer, download, download_directly, parallel, upload};
