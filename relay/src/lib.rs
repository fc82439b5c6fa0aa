//! A thread-per-core onion-routing relay.

pub mod cli;
pub mod config;
pub mod control;
pub mod dir;
pub mod engine;
pub mod exit;
pub mod heartbeat;
pub mod io;
pub mod limits;
pub mod load;
pub mod metrics_port;
pub mod run;
pub mod startup;
pub mod status_page;
pub mod streams;
pub mod telemetry;
