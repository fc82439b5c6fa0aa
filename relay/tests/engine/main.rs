//! Whole engines at work: relays of one or more shards, clients, exits and rogues, connected in memory.
//!
//! The tests by topic drive them on purpose; `random` lets a seed decide, over many seeds.

mod allocations;
mod by_hand;
mod circuits;
mod dials;
mod floods;
mod halves;
mod hostile;
mod keys;
mod limits;
mod links;
mod net;
mod peer;
mod random;
mod rogue;
mod rules;
mod sink;
