//! Listening sockets, opened before the user is changed.

use std::net::TcpListener;

use onionring_node::listen;

use super::DaemonError;
use crate::config::Config;
use crate::control::Port;

/// The sockets, by what they are for.
pub struct Sockets {
    /// MetricsPorts.
    pub metrics: Vec<TcpListener>,
}

impl Sockets {
    /// Binds all that the configuration names.
    pub fn bind(config: &Config) -> Result<Sockets, DaemonError> {
        let metrics = config.metrics.listen.iter().map(|&address| {
            listen::tcp(address).map_err(|source| DaemonError::Bind {
                address,
                option: "MetricsPort",
                source,
            })
        });
        Ok(Sockets { metrics: metrics.collect::<Result<_, _>>()? })
    }
}

/// What is told of sockets that listen.
pub fn named(option: &str, listeners: &[TcpListener]) -> Vec<Port> {
    let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok());
    addresses.map(|address| Port { option: option.to_owned(), address: address.to_string() }).collect()
}
