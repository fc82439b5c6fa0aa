//! What follows from the configuration, and from the address the relay has: for the descriptor and for exit streams.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use onionring_proto::policy::{Family, is_internal};
use onionring_proto::torrc::port::PortNumber;
use tracing::warn;

use super::describe::Publicity;
use crate::config::Config;
use crate::dir::spool::Blob;
use crate::exit::decide::ExitRules;
use crate::exit::dns::resolv_conf::{ResolvConf, ResolvConfError};
use crate::exit::{ExitSettings, dns};
use crate::limits;

/// Where the relay listens, for ports that the system chose.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// ORPorts.
    pub or: Vec<SocketAddr>,
    /// DirPorts.
    pub dir: Vec<SocketAddr>,
}

/// The number to publish for a port: its own, or that of the listener for which the system chose one.
fn number(port: PortNumber, v4: bool, bound: &[SocketAddr]) -> Option<u16> {
    match port.to_bind() {
        0 => bound.iter().find(|address| address.is_ipv4() == v4).map(SocketAddr::port),
        port => Some(port),
    }
}

/// What the descriptor will say, at this IPv4 address.
pub fn publicity(config: &Config, bound: &Bound, address: Option<Ipv4Addr>) -> Publicity {
    let ipv4 =
        config.advertised_ipv4().and_then(|(_, port)| Some((address?, number(port, true, &bound.or)?)));
    let ipv6 = config.advertised_ipv6();
    let ipv6 = ipv6.and_then(|(address, port)| Some((address?, number(port, false, &bound.or)?)));
    let dir_port = config.advertised_dir_port().and_then(|port| number(port, true, &bound.dir));
    let own: Vec<IpAddr> =
        address.map(IpAddr::from).into_iter().chain(ipv6.map(|(ip, _)| ip.into())).collect();
    let policy = config.exit.policy(&own);
    let is_exit = !Family::BOTH.into_iter().all(|family| policy.rejects_all(family));
    Publicity {
        nickname: config.nickname,
        contact: config.contact.clone(),
        ipv4,
        ipv6,
        dir_port: dir_port.unwrap_or(0),
        rate: config.bandwidth.published(config.max_advertised_bandwidth),
        family: config.family.clone(),
        policy,
        dir_cache: config.dir_cache,
        half_close: config.half_closed_streams && is_exit,
        publish: config.publish,
        statistics: config.statistics,
        limit: config.bandwidth.all,
    }
}

/// The IPv4 address to publish: as configured, or that of this machine towards the network if it is public, or the one
/// that most directory authorities have `seen`.
pub fn ipv4(config: &Config, seen: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let (configured, _) = config.advertised_ipv4()?;
    let usable = |address: &Ipv4Addr| config.testing || !is_internal((*address).into());
    configured.or_else(|| local_ipv4(config).filter(usable).or_else(|| seen.filter(usable)))
}

/// The address from which this machine would speak to an authority. Nothing is sent to find out.
fn local_ipv4(config: &Config) -> Option<Ipv4Addr> {
    let authority = config.authorities.first()?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(SocketAddr::from(authority.dir)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(local) => Some(*local.ip()),
        SocketAddr::V6(_) => None,
    }
}

/// How exit streams are judged, their names looked up and their connections made, as far as the configuration says.
pub fn exit_settings(config: &Config, publicity: &Publicity) -> Result<ExitSettings, ResolvConfError> {
    let rules = ExitRules { policy: publicity.policy.clone(), network: Default::default() };
    let dns = &config.dns;
    let resolv_conf = match ResolvConf::read(&dns.resolv_conf) {
        // Who is no exit looks nothing up.
        result if !rules.is_exit() => result.map_or_else(|_| ResolvConf::local(), |(conf, _)| conf),
        Ok((conf, bad)) => {
            for error in bad {
                if !dns.allow_broken {
                    return Err(error);
                }
                warn!("{error}; the line is skipped");
            }
            conf
        }
        Err(error) if dns.allow_broken => {
            warn!("{error}; the resolver at 127.0.0.1 is asked instead");
            ResolvConf::local()
        }
        Err(error) => return Err(error),
    };
    Ok(ExitSettings {
        rules,
        resolv_conf,
        dns: dns::Options {
            randomize_case: dns.randomize_case,
            search_domains: dns.search_domains,
            allow_any_characters: dns.allow_any_characters,
            source: config.outbound_exit,
            ..dns::Options::default()
        },
        outbound: config.outbound_exit,
    })
}

/// The page for people who look at the DirPort; one that cannot be read is none.
pub fn front_page(config: &Config) -> Option<Blob> {
    let path = config.front_page.as_ref()?;
    let read = || {
        let mut page = Vec::new();
        File::open(path)?.take(limits::DIR_FRONT_PAGE + 1).read_to_end(&mut page)?;
        if page.len() as u64 > limits::DIR_FRONT_PAGE {
            return Err(io::Error::other(format!("it is longer than {} bytes", limits::DIR_FRONT_PAGE)));
        }
        Ok(Blob::from(page))
    };
    read().map_err(|error| warn!("DirPortFrontPage {}: {error}; there is no front page", path.display())).ok()
}

#[cfg(test)]
mod tests;
