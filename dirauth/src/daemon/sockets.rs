//! Listening sockets.

use std::net::TcpListener;

use onionring_node::listen;

use super::DaemonError;
use crate::config::Config;

/// The sockets, by what they are for.
pub struct Sockets {
    /// ORPorts.
    pub or: Vec<TcpListener>,
    /// DirPorts.
    pub dir: Vec<TcpListener>,
    /// MetricsPorts.
    pub metrics: Vec<TcpListener>,
}

impl Sockets {
    /// Binds all that the configuration names. Before the user is changed, for ports below 1024.
    pub fn bind(config: &Config) -> Result<Sockets, DaemonError> {
        let bind = |option, address| {
            listen::tcp(address).map_err(|source| DaemonError::Bind { address, option, source })
        };
        let or = config.or_ports.iter().filter(|port| port.listen).map(|port| bind("ORPort", port.to_bind()));
        let dir = config.dir_ports.iter().filter(|port| port.listen);
        let dir = dir.map(|port| bind("DirPort", port.to_bind()));
        let metrics = config.metrics.listen.iter().map(|address| bind("MetricsPort", *address));
        Ok(Sockets {
            or: or.collect::<Result<_, _>>()?,
            dir: dir.collect::<Result<_, _>>()?,
            metrics: metrics.collect::<Result<_, _>>()?,
        })
    }
}

/// The port that others use: the configured one, or the one that the system has chosen for this family.
pub fn port(configured: Option<u16>, sockets: &[TcpListener], is_ipv6: bool) -> u16 {
    let chosen = || {
        let mut addresses = sockets.iter().filter_map(|socket| socket.local_addr().ok());
        addresses.find(|address| address.is_ipv6() == is_ipv6).map_or(0, |address| address.port())
    };
    configured.filter(|port| *port != 0).unwrap_or_else(chosen)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_port_that_the_system_chose_is_found_by_its_family() {
        let v4 = listen::tcp((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let number = v4.local_addr().unwrap().port();
        let sockets = [v4, listen::tcp((Ipv6Addr::UNSPECIFIED, number).into()).unwrap()];
        assert_eq!((port(None, &sockets, false), port(Some(0), &sockets, true)), (number, number));
        assert_eq!((port(Some(7), &sockets, true), port(None, &[], true)), (7, 0));
    }
}
