//! What every onionring program needs that touches the system.

pub mod atomic_file;
pub mod cli;
pub mod compress;
pub mod config;
pub mod directory;
pub mod docstore;
pub mod identity;
pub mod keys;
pub mod limits;
#[cfg(feature = "tokio")]
pub mod link;
#[cfg(feature = "tokio")]
pub mod listen;
pub mod lock;
pub mod log;
pub mod metrics;
pub mod private_dir;
pub mod process;
#[cfg(feature = "tokio")]
pub mod signals;
pub mod terminal;
pub mod tls;
pub mod torrc;
pub mod user;
