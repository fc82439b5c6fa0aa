//! The shards on glommio: threads, sockets, rings and timers around [`crate::engine`].

pub mod bell;
pub mod check;
pub mod mesh;
pub mod net;
