//! The relay's configuration: from torrc options to typed values.
//!
//! What it has in common with other programs' is in [`onionring_node::config`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use onionring_node::config::{advertised, has_low_ports};
use onionring_node::keys::KeyOptions;
use onionring_proto::netdoc::family::FamilyMember;
use onionring_proto::netdoc::text::Nickname;
use onionring_proto::policy::{ExitPolicy, ExitPolicyOptions};
use onionring_proto::rate::Rate;
use onionring_proto::torrc::authority::Authority;
use onionring_proto::torrc::port::{PortNumber, ServerPort};

use crate::io::net::OutboundAddresses;

mod build;
pub mod classes;
mod reload;

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
    /// Contact information.
    pub contact: Option<String>,
    /// Other relays of the operator.
    pub family: Vec<FamilyMember>,
    /// ORPorts: listeners and what is advertised. At least one is advertised for IPv4, and at least one listens.
    pub or_ports: Vec<ServerPort>,
    /// DirPorts.
    pub dir_ports: Vec<ServerPort>,
    /// The IPv4 address to publish, if `Address` gives one.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address to publish, if `Address` gives one.
    pub ipv6: Option<Ipv6Addr>,
    /// Directories.
    pub directories: Directories,
    /// How keys are kept.
    pub keys: KeyOptions,
    /// What is logged where.
    pub log: LogConfig,
    /// The user to run as.
    pub user: Option<String>,
    /// Whether to keep the right to open ports below 1024 after the change of user.
    pub keep_bind_capabilities: bool,
    /// Where to write the number of the process.
    pub pid_file: Option<PathBuf>,
    /// Number of shards; `None` means one for each core.
    pub shards: Option<NonZeroUsize>,
    /// Which exit streams are allowed.
    pub exit: ExitConfig,
    /// How names are looked up.
    pub dns: DnsConfig,
    /// Where links to other relays come from.
    pub outbound_or: OutboundAddresses,
    /// Where exit streams and name lookups come from.
    pub outbound_exit: OutboundAddresses,
    /// The metrics endpoint.
    pub metrics: MetricsConfig,
    /// The authorities of the consensus; may be empty only where no network is needed.
    pub authorities: Vec<Authority>,
    /// Whether to serve directory documents.
    pub dir_cache: bool,
    /// The file with the page for people who look at the DirPort.
    pub front_page: Option<PathBuf>,
    /// Whether to publish the descriptor.
    pub publish: bool,
    /// What is published of how things go.
    pub statistics: StatisticsConfig,
    /// Publish without testing the IPv4 ORPort.
    pub assume_reachable: bool,
    /// Publish without testing the IPv6 ORPort.
    pub assume_reachable_ipv6: bool,
    /// Extend circuits to private addresses.
    pub extend_to_private: bool,
    /// Keep relays of one network out of our own circuits.
    pub distinct_subnets: bool,
    /// Let streams end by halves for clients that ask for it, if this is an exit.
    pub half_closed_streams: bool,
    /// Refuse exit streams of clients that come directly; `None` follows the consensus.
    pub refuse_unknown_exits: Option<bool>,
    /// The most bandwidth to publish, in bytes a second.
    pub max_advertised_bandwidth: u64,
    /// Bandwidth limits.
    pub bandwidth: BandwidthConfig,
    /// Limits of single clients.
    pub dos: DosConfig,
    /// How long to go on serving after SIGINT.
    pub shutdown_wait: Duration,
    /// Bytes that may be queued.
    pub max_mem_in_queues: u64,
    /// Time between heartbeats in the log; `None` for no heartbeat.
    pub heartbeat: Option<Duration>,
    /// Whether this is a private network for tests.
    pub testing: bool,
}

/// Which exit streams are allowed.
#[derive(Clone, Debug, Default)]
pub struct ExitConfig {
    exit_relay: Option<bool>,
    lines: Vec<String>,
    reduced: bool,
    ipv6: bool,
    reject_private: bool,
}

impl ExitConfig {
    /// The policy, which also keeps streams away from the relay's own addresses.
    pub fn policy(&self, own_addresses: &[IpAddr]) -> ExitPolicy {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        let options = ExitPolicyOptions {
            exit_relay: self.exit_relay,
            exit_policy: &lines,
            reduced: self.reduced,
            ipv6_exit: self.ipv6,
            reject_private: self.reject_private,
            own_addresses,
        };
        // The lines were parsed once when the configuration was checked.
        options.build().map_or_else(|_| ExitPolicy::middleman(), |(policy, _)| policy)
    }
}

/// What is published of how things go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatisticsConfig {
    /// `ExtraInfoStatistics`: anything in the extra-info.
    pub extra_info: bool,
    /// `OverloadStatistics`: when the relay was overloaded.
    pub overload: bool,
}

/// How names are looked up for exit streams.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// The file that names the resolvers.
    pub resolv_conf: PathBuf,
    /// `ServerDNSAllowBrokenConfig`: go on with the resolver of this host if that file is of no use.
    pub allow_broken: bool,
    /// `ServerDNSRandomizeCase`.
    pub randomize_case: bool,
    /// `ServerDNSSearchDomains`.
    pub search_domains: bool,
    /// `ServerDNSAllowNonRFC953Hostnames`.
    pub allow_any_characters: bool,
}

/// Bandwidth limits in bytes and bytes a second, for each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandwidthConfig {
    /// `BandwidthRate` and `BandwidthBurst`.
    pub all: Rate,
    /// `RelayBandwidthRate` and `RelayBandwidthBurst`, if they are set.
    pub relayed: Option<Rate>,
    /// `PerConnBWRate`; `None` follows the consensus.
    pub per_link_rate: Option<u64>,
    /// `PerConnBWBurst`; `None` follows the consensus.
    pub per_link_burst: Option<u64>,
    /// `CountPrivateBandwidth`: connections with private addresses are limited too.
    pub count_private: bool,
}

impl BandwidthConfig {
    /// Rate and burst to publish, as C tor's `get_effective_bwrate` and `get_effective_bwburst` have them, with no more
    /// than `advertised`.
    pub fn published(&self, advertised: u64) -> (u64, u64) {
        let relayed = self.relayed.unwrap_or(self.all);
        (self.all.per_second.min(relayed.per_second).min(advertised), self.all.burst.min(relayed.burst))
    }
}

/// Limits of single clients; what is `None` follows the consensus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DosConfig {
    /// `DoSConnection*`.
    pub connections: FloodConfig,
    /// `DoSConnectionMaxConcurrentCount`.
    pub concurrent_connections: Option<u32>,
    /// `DoSCircuitCreation*`.
    pub circuits: FloodConfig,
    /// `DoSCircuitCreationMinConnections`.
    pub min_connections: Option<u32>,
    /// `DoSStreamCreation*`.
    pub streams: FloodConfig,
}

/// One of those limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloodConfig {
    /// `...Enabled`.
    pub enabled: Option<bool>,
    /// `...Rate`, a second.
    pub rate: Option<u32>,
    /// `...Burst`.
    pub burst: Option<u32>,
    /// `...DefenseType`, as C tor numbers them.
    pub defence: Option<u32>,
    /// `...DefenseTimePeriod`; streams have none.
    pub period: Option<Duration>,
}

impl Config {
    /// The address (if configured) and ORPort to publish for IPv4.
    pub fn advertised_ipv4(&self) -> Option<(Option<Ipv4Addr>, PortNumber)> {
        let port = advertised(&self.or_ports, IpAddr::is_ipv4)?;
        let of_port = match port.address {
            IpAddr::V4(address) if port.is_explicit && !address.is_unspecified() => Some(address),
            _ => None,
        };
        Some((self.ipv4.or(of_port), port.port))
    }

    /// The address (if configured) and ORPort to publish for IPv6.
    pub fn advertised_ipv6(&self) -> Option<(Option<Ipv6Addr>, PortNumber)> {
        let port = advertised(&self.or_ports, IpAddr::is_ipv6)?;
        let of_port = match port.address {
            IpAddr::V6(address) if port.is_explicit && !address.is_unspecified() => Some(address),
            _ => None,
        };
        Some((self.ipv6.or(of_port), port.port))
    }

    /// The DirPort to publish.
    pub fn advertised_dir_port(&self) -> Option<PortNumber> {
        advertised(&self.dir_ports, IpAddr::is_ipv4).map(|port| port.port)
    }

    /// Whether a listener needs the right to open ports below 1024.
    pub fn has_low_ports(&self) -> bool {
        has_low_ports(&[&self.or_ports, &self.dir_ports], &self.metrics)
    }
}
