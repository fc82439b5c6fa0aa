//! What benchmarks share: a relay in memory and the loop that drives one of its shards, and kernels, small pieces of
//! work that are timed or whose instructions are counted.

pub mod kernels;
pub mod model;
pub mod rig;
pub mod shard;
pub mod tls;
