//! Listening sockets, opened before the user is changed.

use std::net::TcpListener;

use onionring_node::listen;
use onionring_node::user::User;

use super::DaemonError;
use crate::cli::PrepareError;
use crate::config::Config;
use crate::control::Port;
use crate::ports::{self, Bound};

/// The sockets, by what they are for.
pub struct Sockets {
    /// Ports of applications.
    pub applications: Bound,
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
        let mut ports = config.ports.clone();
        let user = config.user.as_deref().map(User::find).transpose().map_err(PrepareError::from)?;
        ports.user = user.map(|user| user.ids());
        Ok(Sockets { applications: ports::bind(&ports)?, metrics: metrics.collect::<Result<_, _>>()? })
    }
}

/// What is told of sockets that listen.
pub fn named(option: &str, listeners: &[TcpListener]) -> Vec<Port> {
    let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok());
    addresses.map(|address| Port { option: option.to_owned(), address: address.to_string() }).collect()
}
