//! The typed configuration from the settings.

use std::num::NonZeroUsize;

use onionring_node::config::{Classes, Configuration, Reader};
use onionring_proto::policy::ExitPolicyOptions;
use onionring_proto::torrc::authority::Authority;
use onionring_proto::torrc::port::ServerPort;
use onionring_proto::torrc::{Settings, family};

use super::{Config, DnsConfig, Environment, ExitConfig, Findings, StatisticsConfig, classes};
use crate::io::net::OutboundAddresses;

mod bandwidth;
mod dos;

/// The resolvers of the system.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Most shards; more than any machine has cores.
const SHARDS_MAX: u64 = 1024;
/// The least bandwidth that may be published, as in C tor (half of what it requires of a relay).
const ADVERTISED_MIN: u64 = 75 * 1024 / 2;
/// The least that may be queued, and what is little, as in C tor.
const QUEUE_BYTES_MIN: u64 = 64 << 20;
const QUEUE_BYTES_LITTLE: u64 = 256 << 20;

impl Configuration for Config {
    const CLASSES: Classes = classes::CLASSES;

    fn new(settings: &Settings, environment: &Environment, findings: &mut Findings) -> Config {
        let mut build = Builder { read: Reader { settings, environment, findings } };
        let (or_ports, dir_ports) = build.ports();
        let (ipv4, ipv6) = build.read.addresses("Address");
        let directories = build.read.directories();
        let assume_reachable = settings.flag("AssumeReachable");
        let assume_ipv6 = settings.auto_flag("AssumeReachableIPv6");
        if assume_reachable && assume_ipv6 == Some(false) {
            build.read.wrong("AssumeReachableIPv6", "contradicts AssumeReachable 1", "remove one of the two");
        }
        let outbound = build.outbound("OutboundBindAddress");
        let mut config = Config {
            nickname: build.read.nickname(),
            contact: build.read.contact(),
            family: family::parse(settings.lines("MyFamily"), &mut build.read.findings.problems),
            or_ports,
            dir_ports,
            ipv4,
            ipv6,
            keys: build.read.keys(&directories),
            directories,
            log: build.read.log(),
            user: settings.text("User").map(str::to_owned),
            keep_bind_capabilities: false,
            pid_file: build.read.path("PidFile"),
            shards: build.shards(),
            exit: build.exit(),
            dns: DnsConfig {
                resolv_conf: build.read.path("ServerDNSResolvConfFile").unwrap_or_else(|| RESOLV_CONF.into()),
                allow_broken: settings.flag("ServerDNSAllowBrokenConfig"),
                randomize_case: settings.flag("ServerDNSRandomizeCase"),
                search_domains: settings.flag("ServerDNSSearchDomains"),
                allow_any_characters: settings.flag("ServerDNSAllowNonRFC953Hostnames"),
            },
            outbound_or: or_else(build.outbound("OutboundBindAddressOR"), outbound),
            outbound_exit: or_else(build.outbound("OutboundBindAddressExit"), outbound),
            metrics: build.read.metrics(),
            authorities: build.read.authorities(),
            dir_cache: settings.flag("DirCache"),
            front_page: build.read.path("DirPortFrontPage"),
            publish: build.publish(),
            statistics: StatisticsConfig {
                extra_info: settings.flag("ExtraInfoStatistics"),
                overload: settings.flag("OverloadStatistics"),
            },
            assume_reachable,
            assume_reachable_ipv6: assume_ipv6.unwrap_or(assume_reachable),
            extend_to_private: settings.flag("ExtendAllowPrivateAddresses"),
            distinct_subnets: settings.flag("EnforceDistinctSubnets"),
            half_closed_streams: settings.flag("HalfClosedStreams"),
            refuse_unknown_exits: settings.auto_flag("RefuseUnknownExits"),
            max_advertised_bandwidth: build.max_advertised_bandwidth(),
            bandwidth: build.bandwidth(),
            dos: build.dos(),
            shutdown_wait: settings.interval("ShutdownWaitLength"),
            max_mem_in_queues: build.max_mem_in_queues(),
            heartbeat: build.read.heartbeat(),
            testing: settings.is_testing(),
        };
        config.keep_bind_capabilities =
            settings.auto_flag("KeepBindCapabilities").unwrap_or_else(|| config.has_low_ports());
        config
    }

    fn authorities(&self) -> &[Authority] {
        &self.authorities
    }
}

struct Builder<'a> {
    read: Reader<'a>,
}

impl Builder<'_> {
    fn ports(&mut self) -> (Vec<ServerPort>, Vec<ServerPort>) {
        let (or_ports, dir_ports) = self.read.ports();
        if !dir_ports.is_empty() && !self.read.settings.flag("DirCache") {
            let what = "a DirPort serves what DirCache 0 does not keep";
            self.read.wrong("DirPort", what, "remove it, or write \"DirCache 1\"");
        }
        (or_ports, dir_ports)
    }

    fn outbound(&mut self, option: &str) -> OutboundAddresses {
        let (ipv4, ipv6) = self.read.addresses(option);
        OutboundAddresses { ipv4, ipv6 }
    }

    fn max_advertised_bandwidth(&mut self) -> u64 {
        let bandwidth = self.read.settings.memory("MaxAdvertisedBandwidth");
        if bandwidth < ADVERTISED_MIN {
            let remedy = format!("write at least {ADVERTISED_MIN} bytes, or remove it");
            self.read.wrong("MaxAdvertisedBandwidth", "too little for a relay", remedy);
        }
        bandwidth
    }

    fn shards(&mut self) -> Option<NonZeroUsize> {
        let shards = self.read.settings.integer("NumCPUs");
        if shards > SHARDS_MAX {
            self.read.wrong("NumCPUs", "more than a machine has", "write 0 for one shard on each core");
        }
        NonZeroUsize::new(shards.min(SHARDS_MAX) as usize)
    }

    fn exit(&mut self) -> ExitConfig {
        let config = ExitConfig {
            exit_relay: self.read.settings.auto_flag("ExitRelay"),
            lines: self.read.settings.lines("ExitPolicy").iter().map(|item| item.value.clone()).collect(),
            reduced: self.read.settings.flag("ReducedExitPolicy"),
            ipv6: self.read.settings.flag("IPv6Exit"),
            reject_private: self.read.settings.flag("ExitPolicyRejectPrivate"),
        };
        for item in self.read.settings.lines("ExitPolicy") {
            self.read.policy(item);
        }
        let lines: Vec<&str> = config.lines.iter().map(String::as_str).collect();
        let options = ExitPolicyOptions {
            exit_relay: config.exit_relay,
            exit_policy: &lines,
            reduced: config.reduced,
            ipv6_exit: config.ipv6,
            reject_private: config.reject_private,
            own_addresses: &[],
        };
        if let Ok((_, warnings)) = options.build() {
            for warning in warnings {
                self.read.warn("ExitPolicy", warning.to_string());
            }
        }
        config
    }

    fn publish(&mut self) -> bool {
        let mut publish = false;
        for word in
            self.read.settings.csv("PublishServerDescriptor").map(str::to_ascii_lowercase).collect::<Vec<_>>()
        {
            match word.as_str() {
                "1" | "v3" => publish = true,
                "0" => {}
                "v1" | "v2" | "hidserv" => {
                    self.read.warn(
                        "PublishServerDescriptor",
                        format!("{word} has no effect: there are no such authorities any more"),
                    );
                }
                _ => self.read.wrong(
                    "PublishServerDescriptor",
                    "not a kind of authority to publish to",
                    "write 1 or 0",
                ),
            }
        }
        publish
    }

    fn max_mem_in_queues(&mut self) -> u64 {
        const GB: u64 = 1 << 30;
        match self.read.settings.memory("MaxMemInQueues") {
            0 => match self.read.environment.memory {
                Some(memory) if memory >= 8 * GB => (memory / 5 * 2).min(8 * GB),
                Some(memory) => (memory / 4 * 3).max(GB / 4),
                None => 8 * GB,
            },
            bytes => {
                if bytes < QUEUE_BYTES_LITTLE {
                    self.read.warn(
                        "MaxMemInQueues",
                        "MaxMemInQueues is low: under load, circuits will be closed to save memory".into(),
                    );
                }
                bytes.max(QUEUE_BYTES_MIN)
            }
        }
    }
}

/// The first addresses, and for what they lack the second.
fn or_else(first: OutboundAddresses, second: OutboundAddresses) -> OutboundAddresses {
    OutboundAddresses { ipv4: first.ipv4.or(second.ipv4), ipv6: first.ipv6.or(second.ipv6) }
}
