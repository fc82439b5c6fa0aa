//! The configuration of an authority's program: from torrc options to typed values.
//!
//! What it has in common with other programs' is in [`onionring_node::config`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use onionring_node::config::{Classes, Configuration, Reader, advertised, has_low_ports};
use onionring_node::keys::KeyOptions;
use onionring_proto::netdoc::text::Nickname;
use onionring_proto::torrc::Settings;
use onionring_proto::torrc::authority::Authority;
use onionring_proto::torrc::port::{PortNumber, ServerPort};

use crate::admission::AdmissionOptions;
use crate::flags::FlagOptions;
use crate::options::AuthorityOptions;
use crate::voting::DoublePolicy;

pub mod classes;

pub use onionring_node::config::{
    Directories, Environment, Findings, LogConfig, MetricsConfig, Sources, Torrc,
};

#[cfg(test)]
mod tests;

/// Everything that torrc says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Nickname.
    pub nickname: Nickname,
    /// The IPv4 address to publish: an authority's is known to everybody, so it must be given.
    pub address: Ipv4Addr,
    /// The IPv6 address to publish, if there is one.
    pub address_v6: Option<Ipv6Addr>,
    /// ORPorts: at least one is advertised for IPv4, and at least one listens.
    pub or_ports: Vec<ServerPort>,
    /// DirPorts: one is advertised, and at least one listens.
    pub dir_ports: Vec<ServerPort>,
    /// Directories.
    pub directories: Directories,
    /// How the keys of the relay that an authority is are kept.
    pub keys: KeyOptions,
    /// What is logged where.
    pub log: LogConfig,
    /// The user to run as.
    pub user: Option<String>,
    /// Whether to keep the right to open ports below 1024 after the change of user.
    pub keep_bind_capabilities: bool,
    /// Where to write the number of the process.
    pub pid_file: Option<PathBuf>,
    /// The metrics endpoint.
    pub metrics: MetricsConfig,
    /// All authorities of the network, this one among them.
    pub authorities: Vec<Authority>,
    /// The file with the page for people who look at the DirPort.
    pub front_page: Option<PathBuf>,
    /// Time between heartbeats in the log; `None` for no heartbeat.
    pub heartbeat: Option<Duration>,
    /// How authorities vote and judge relays.
    pub authority: AuthorityOptions,
    /// What becomes of an authority that votes twice.
    pub doubles: DoublePolicy,
    /// Whether every authority is asked for all votes in each period, to compare them.
    pub compare_votes: bool,
    /// Whether relays are tested through circuits, besides links.
    pub test_circuits: bool,
}

impl Configuration for Config {
    const CLASSES: Classes = classes::CLASSES;

    fn new(settings: &Settings, environment: &Environment, findings: &mut Findings) -> Config {
        let read = &mut Reader { settings, environment, findings };
        let (or_ports, dir_ports) = read.ports();
        if !dir_ports.is_empty() && advertised(&dir_ports, IpAddr::is_ipv4).is_none() {
            let remedy = "add a DirPort without NoAdvertise";
            read.wrong("DirPort", "an authority must advertise a DirPort", remedy);
        }
        let (address, address_v6) = addresses(read, &or_ports);
        let mut directories = read.directories();
        // All that an authority keeps is its own state.
        directories.cache.clone_from(&directories.data);
        directories.cache_group_readable = directories.data_group_readable;
        let metrics = read.metrics();
        let low_ports = has_low_ports(&[&or_ports, &dir_ports], &metrics);
        let doubles = [
            ("alert", DoublePolicy::Alert),
            ("exclude", DoublePolicy::Exclude),
            ("stop", DoublePolicy::Stop),
        ];
        Config {
            nickname: read.nickname(),
            address,
            address_v6,
            or_ports,
            dir_ports,
            keys: read.keys(&directories),
            directories,
            log: read.log(),
            user: settings.text("User").map(str::to_owned),
            keep_bind_capabilities: settings.auto_flag("KeepBindCapabilities").unwrap_or(low_ports),
            pid_file: read.path("PidFile"),
            metrics,
            authorities: read.authorities(),
            front_page: read.path("DirPortFrontPage"),
            heartbeat: read.heartbeat(),
            authority: AuthorityOptions::new(read),
            doubles: read.choice("AuthDirDoubleVotes", &doubles).unwrap_or_default(),
            compare_votes: settings.flag("AuthDirCompareVotes"),
            test_circuits: settings.flag("AuthDirTestCircuits"),
        }
    }

    fn authorities(&self) -> &[Authority] {
        &self.authorities
    }
}

impl Config {
    /// The ORPort to publish for IPv4.
    pub fn advertised_or_port(&self) -> Option<PortNumber> {
        advertised(&self.or_ports, IpAddr::is_ipv4).map(|port| port.port)
    }

    /// The ORPort to publish for IPv6, if there is one and an address for it.
    pub fn advertised_ipv6(&self) -> Option<(Ipv6Addr, PortNumber)> {
        Some((self.address_v6?, advertised(&self.or_ports, IpAddr::is_ipv6)?.port))
    }

    /// The DirPort to publish.
    pub fn advertised_dir_port(&self) -> Option<PortNumber> {
        advertised(&self.dir_ports, IpAddr::is_ipv4).map(|port| port.port)
    }

    /// `new`, with everything in it that cannot change in a running authority as it is here; [`classes::CLASSES`] names
    /// the options.
    pub fn reloaded(&self, new: Config) -> Config {
        let old = self.clone();
        Config {
            nickname: old.nickname,
            address: old.address,
            address_v6: old.address_v6,
            or_ports: old.or_ports,
            dir_ports: old.dir_ports,
            directories: old.directories,
            keys: old.keys,
            user: old.user,
            keep_bind_capabilities: old.keep_bind_capabilities,
            pid_file: old.pid_file,
            metrics: MetricsConfig { listen: old.metrics.listen, policy: new.metrics.policy },
            authorities: old.authorities,
            authority: AuthorityOptions {
                testing: old.authority.testing,
                timing: old.authority.timing,
                initial_timing: old.authority.initial_timing,
                start_offset: old.authority.start_offset,
                intervals_valid: old.authority.intervals_valid,
                shared_randomness: old.authority.shared_randomness,
                test_ed25519_link_keys: old.authority.test_ed25519_link_keys,
                flags: FlagOptions {
                    test_reachability: old.authority.flags.test_reachability,
                    has_ipv6: old.authority.flags.has_ipv6,
                    ..new.authority.flags
                },
                admission: AdmissionOptions { us: old.authority.admission.us, ..new.authority.admission },
                ..new.authority
            },
            test_circuits: old.test_circuits,
            ..new
        }
    }
}

/// The addresses to publish: those of `Address`, otherwise those that an advertised ORPort names.
fn addresses(read: &mut Reader<'_>, or_ports: &[ServerPort]) -> (Ipv4Addr, Option<Ipv6Addr>) {
    let (mut v4, mut v6) = read.addresses("Address");
    for of_family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let port = advertised(or_ports, of_family);
        match port.filter(|port| port.is_explicit && !port.address.is_unspecified()).map(|port| port.address)
        {
            Some(IpAddr::V4(address)) => v4 = v4.or(Some(address)),
            Some(IpAddr::V6(address)) => v6 = v6.or(Some(address)),
            None => {}
        }
    }
    let v4 = v4.unwrap_or_else(|| {
        let what = "an authority's IPv4 address is known to everybody, and so must be to itself";
        read.wrong("Address", what, "write Address and that of its DirAuthority line");
        Ipv4Addr::UNSPECIFIED
    });
    (v4, v6)
}
