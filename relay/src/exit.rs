//! The exit side: names, policy, connections to destinations and the streams they carry.

pub mod connect;
pub mod decide;
pub mod dns;
