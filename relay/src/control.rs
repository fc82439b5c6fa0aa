//! The control side: everything beside the shards.

pub mod own_circuit;
