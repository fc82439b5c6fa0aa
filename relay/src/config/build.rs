//! The typed configuration from the settings.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use onionring_node::keys::KeyOptions;
use onionring_proto::netdoc::text::Nickname;
use onionring_proto::policy::{ExitPolicy, ExitPolicyOptions};
use onionring_proto::torrc::authority::{self, Authority};
use onionring_proto::torrc::log::Target;
use onionring_proto::torrc::port::{self, ServerPort};
use onionring_proto::torrc::{Item, Note, Problem, Settings, family, log, value};

use super::{
    Config, Directories, DnsConfig, Environment, ExitConfig, Findings, LogConfig, MetricsConfig,
    StatisticsConfig, expand_home,
};
use crate::io::net::OutboundAddresses;

mod bandwidth;
mod dos;

/// What a relay without a nickname is called.
const UNNAMED: &str = "Unnamed";
/// The resolvers of the system.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Most shards; more than any machine has cores.
const SHARDS_MAX: u64 = 1024;
/// The shortest time between heartbeats, as in C tor.
const HEARTBEAT_MIN: Duration = Duration::from_secs(30 * 60);
/// The least bandwidth that may be published, as in C tor (half of what it requires of a relay).
const ADVERTISED_MIN: u64 = 75 * 1024 / 2;
/// The least that may be queued, and what is little, as in C tor.
const QUEUE_BYTES_MIN: u64 = 64 << 20;
const QUEUE_BYTES_LITTLE: u64 = 256 << 20;

impl Config {
    /// Builds the configuration. If there are problems in `findings` afterwards, it must not be used.
    pub fn new(settings: &Settings, environment: &Environment, findings: &mut Findings) -> Config {
        let mut build = Builder { settings, environment, findings };
        let (or_ports, dir_ports) = build.ports();
        let (ipv4, ipv6) = build.addresses("Address");
        let directories = build.directories();
        let assume_reachable = settings.flag("AssumeReachable");
        let assume_ipv6 = settings.auto_flag("AssumeReachableIPv6");
        if assume_reachable && assume_ipv6 == Some(false) {
            build.wrong("AssumeReachableIPv6", "contradicts AssumeReachable 1", "remove one of the two");
        }
        let outbound = build.outbound("OutboundBindAddress");
        let mut config = Config {
            nickname: build.nickname(),
            contact: build.contact(),
            family: family::parse(settings.lines("MyFamily"), &mut build.findings.problems),
            or_ports,
            dir_ports,
            ipv4,
            ipv6,
            keys: build.keys(&directories),
            directories,
            log: build.log(),
            user: settings.text("User").map(str::to_owned),
            keep_bind_capabilities: false,
            pid_file: build.path("PidFile"),
            shards: build.shards(),
            exit: build.exit(),
            dns: DnsConfig {
                resolv_conf: build.path("ServerDNSResolvConfFile").unwrap_or_else(|| RESOLV_CONF.into()),
                allow_broken: settings.flag("ServerDNSAllowBrokenConfig"),
                randomize_case: settings.flag("ServerDNSRandomizeCase"),
                search_domains: settings.flag("ServerDNSSearchDomains"),
                allow_any_characters: settings.flag("ServerDNSAllowNonRFC953Hostnames"),
            },
            outbound_or: or_else(build.outbound("OutboundBindAddressOR"), outbound),
            outbound_exit: or_else(build.outbound("OutboundBindAddressExit"), outbound),
            metrics: build.metrics(),
            authorities: build.authorities(),
            dir_cache: settings.flag("DirCache"),
            front_page: build.path("DirPortFrontPage"),
            publish: build.publish(),
            statistics: StatisticsConfig {
                extra_info: settings.flag("ExtraInfoStatistics"),
                overload: settings.flag("OverloadStatistics"),
            },
            assume_reachable,
            assume_reachable_ipv6: assume_ipv6.unwrap_or(assume_reachable),
            extend_to_private: settings.flag("ExtendAllowPrivateAddresses"),
            distinct_subnets: settings.flag("EnforceDistinctSubnets"),
            refuse_unknown_exits: settings.auto_flag("RefuseUnknownExits"),
            max_advertised_bandwidth: build.max_advertised_bandwidth(),
            bandwidth: build.bandwidth(),
            dos: build.dos(),
            shutdown_wait: settings.interval("ShutdownWaitLength"),
            max_mem_in_queues: build.max_mem_in_queues(),
            heartbeat: build.heartbeat(),
            testing: settings.is_testing(),
        };
        config.keep_bind_capabilities =
            settings.auto_flag("KeepBindCapabilities").unwrap_or_else(|| config.has_low_ports());
        config
    }
}

struct Builder<'a> {
    settings: &'a Settings,
    environment: &'a Environment,
    findings: &'a mut Findings,
}

impl Builder<'_> {
    /// Reports a problem with an option, at the line that sets it if there is one.
    fn wrong(&mut self, option: &str, what: &str, remedy: &str) {
        self.findings.problems.push(match self.settings.item(option) {
            Some(item) => Problem::with(item, what, remedy),
            None => Problem::general(option, what, remedy),
        });
    }

    fn warn(&mut self, option: &str, text: String) {
        self.findings.warnings.push(Note { origin: self.settings.origin(option), text });
    }

    fn ports(&mut self) -> (Vec<ServerPort>, Vec<ServerPort>) {
        let problems = &mut self.findings.problems;
        let before = problems.len();
        let mut or_ports = port::or_ports(self.settings.lines("ORPort"), problems);
        let dir_ports = port::dir_ports(self.settings.lines("DirPort"), problems);
        if self.settings.flag("AddressDisableIPv6") {
            or_ports.retain(|port| port.address.is_ipv4());
        }
        if problems.len() > before {
            // What is missing is most likely on the bad line.
            return (or_ports, dir_ports);
        }
        let v4_advertised = or_ports.iter().any(|port| port.advertise && port.address.is_ipv4());
        if or_ports.is_empty() {
            self.wrong("ORPort", "a relay needs an ORPort", "add e.g. \"ORPort 9001\"");
        } else if !v4_advertised {
            let remedy = "add an ORPort without NoAdvertise and with an IPv4 address";
            self.wrong("ORPort", "a relay must advertise an IPv4 ORPort", remedy);
        } else if !or_ports.iter().any(|port| port.listen) {
            self.wrong("ORPort", "no ORPort listens", "remove NoListen, or add a line with NoAdvertise");
        }
        let dir_advertised: Vec<_> = dir_ports.iter().filter(|port| port.advertise).collect();
        if dir_advertised.len() > 1 {
            self.wrong("DirPort", "only one DirPort can be advertised", "add NoAdvertise to the others");
        }
        if dir_advertised.iter().any(|port| port.address.is_ipv6()) {
            self.wrong("DirPort", "only an IPv4 DirPort can be advertised", "add NoAdvertise");
        }
        if !dir_ports.is_empty() && !self.settings.flag("DirCache") {
            let what = "a DirPort serves what DirCache 0 does not keep";
            self.wrong("DirPort", what, "remove it, or write \"DirCache 1\"");
        }
        if !dir_advertised.is_empty() && !dir_ports.iter().any(|port| port.listen) {
            self.wrong("DirPort", "no DirPort listens", "remove NoListen, or add a line with NoAdvertise");
        }
        (or_ports, dir_ports)
    }

    /// The addresses on the lines of an option, at most one of each family.
    fn addresses(&mut self, option: &str) -> (Option<std::net::Ipv4Addr>, Option<std::net::Ipv6Addr>) {
        let (mut v4, mut v6) = (None, None);
        for item in self.settings.lines(option) {
            let taken = match value::address(&item.value) {
                Ok(IpAddr::V4(address)) => v4.replace(address).is_some(),
                Ok(IpAddr::V6(address)) => v6.replace(address).is_some(),
                Err(error) => {
                    self.findings.problems.push(Problem::with(item, error.what, error.remedy));
                    false
                }
            };
            if taken {
                let what = "a second address of the same family";
                self.findings.problems.push(Problem::with(item, what, "remove one of them"));
            }
        }
        (v4, v6)
    }

    fn outbound(&mut self, option: &str) -> OutboundAddresses {
        let (ipv4, ipv6) = self.addresses(option);
        OutboundAddresses { ipv4, ipv6 }
    }

    fn nickname(&mut self) -> Nickname {
        let name = self.settings.text("Nickname").unwrap_or(UNNAMED);
        Nickname::new(name).unwrap_or_else(|| {
            self.wrong("Nickname", "not a nickname", "use 1 to 19 letters and digits, without accents");
            Nickname::new(UNNAMED).expect("seven letters")
        })
    }

    fn contact(&mut self) -> Option<String> {
        let contact = self.settings.text("ContactInfo").map(str::to_owned);
        match &contact {
            None => self.warn(
                "ContactInfo",
                "ContactInfo is not set: nobody can tell you if your relay has a problem".into(),
            ),
            Some(text) if text.contains(['\n', '\r']) => {
                self.wrong("ContactInfo", "a line break inside", "write it on one line");
            }
            Some(_) => {}
        }
        contact
    }

    fn path(&self, option: &str) -> Option<PathBuf> {
        self.settings.text(option).map(|path| expand_home(path, self.environment.home.as_deref()))
    }

    fn directories(&mut self) -> Directories {
        let home = self.environment.home.as_deref();
        let data = self.path("DataDirectory").unwrap_or_else(|| match home {
            Some(home) if home.parent().is_some() => home.join(".tor"),
            _ => PathBuf::from("/var/lib/tor"),
        });
        let cache = self.path("CacheDirectory").unwrap_or_else(|| data.clone());
        let keys = self.path("KeyDirectory").unwrap_or_else(|| data.join("keys"));
        for (option, path) in [("DataDirectory", &data), ("CacheDirectory", &cache), ("KeyDirectory", &keys)]
        {
            if path.is_relative() && self.settings.item(option).is_some() {
                let text = format!(
                    "{option} {} is relative to the directory the relay is started in",
                    path.display()
                );
                self.warn(option, text);
            }
        }
        let data_group_readable = self.settings.flag("DataDirectoryGroupReadable");
        let cache_group_readable = self
            .settings
            .auto_flag("CacheDirectoryGroupReadable")
            .unwrap_or(data_group_readable && cache == data);
        Directories { data, data_group_readable, cache, cache_group_readable, keys }
    }

    fn keys(&mut self, directories: &Directories) -> KeyOptions {
        let follows = directories.data_group_readable && directories.keys == directories.data;
        let signing_lifetime = self.settings.interval("SigningKeyLifetime");
        let signing_slop = self.settings.interval("TestingSigningKeySlop");
        // A key that is due as soon as it is made would be made again every minute.
        if signing_lifetime < 2 * signing_slop {
            let least = 2 * signing_slop.as_secs();
            let remedy = format!("write at least twice TestingSigningKeySlop, {least} seconds");
            self.wrong("SigningKeyLifetime", "too short", &remedy);
        }
        KeyOptions {
            group_readable: self.settings.auto_flag("KeyDirectoryGroupReadable").unwrap_or(follows),
            offline_master: self.settings.flag("OfflineMasterKey"),
            signing_lifetime,
            signing_slop,
        }
    }

    fn max_advertised_bandwidth(&mut self) -> u64 {
        let bandwidth = self.settings.memory("MaxAdvertisedBandwidth");
        if bandwidth < ADVERTISED_MIN {
            let remedy = format!("write at least {ADVERTISED_MIN} bytes, or remove it");
            self.wrong("MaxAdvertisedBandwidth", "too little for a relay", &remedy);
        }
        bandwidth
    }

    fn log(&mut self) -> LogConfig {
        let mut lines = Vec::new();
        for item in self.settings.lines("Log") {
            match log::parse(item) {
                Ok(mut line) => {
                    if let Target::File(name) = &mut line.target {
                        *name = expand_home(name, self.environment.home.as_deref()).display().to_string();
                    }
                    lines.push(line);
                }
                Err(problem) => self.findings.problems.push(problem),
            }
        }
        let granularity = value::msec_interval(self.settings.text("LogTimeGranularity").unwrap_or("1000"));
        LogConfig {
            lines,
            // Checked against its type when it was assigned; zero would divide by zero.
            granularity: granularity.unwrap_or_default().max(Duration::from_millis(1)),
            domains: self.settings.flag("LogMessageDomains"),
            truncate: self.settings.flag("TruncateLogFile"),
            syslog_tag: self.settings.text("SyslogIdentityTag").map(str::to_owned),
            safe: match self.settings.text("SafeLogging").unwrap_or("0").to_ascii_lowercase().as_str() {
                "0" => false,
                "1" | "relay" => true,
                _ => {
                    self.wrong("SafeLogging", "not a way of logging", "write 0, 1 or relay");
                    true
                }
            },
        }
    }

    fn shards(&mut self) -> Option<NonZeroUsize> {
        let shards = self.settings.integer("NumCPUs");
        if shards > SHARDS_MAX {
            self.wrong("NumCPUs", "more than a machine has", "write 0 for one shard on each core");
        }
        NonZeroUsize::new(shards.min(SHARDS_MAX) as usize)
    }

    fn exit(&mut self) -> ExitConfig {
        let config = ExitConfig {
            exit_relay: self.settings.auto_flag("ExitRelay"),
            lines: self.settings.lines("ExitPolicy").iter().map(|item| item.value.clone()).collect(),
            reduced: self.settings.flag("ReducedExitPolicy"),
            ipv6: self.settings.flag("IPv6Exit"),
            reject_private: self.settings.flag("ExitPolicyRejectPrivate"),
        };
        for item in self.settings.lines("ExitPolicy") {
            self.policy(item);
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
                self.warn("ExitPolicy", warning.to_string());
            }
        }
        config
    }

    /// Reports what is wrong with one line of a policy.
    fn policy(&mut self, item: &Item) {
        if let Err(error) = ExitPolicy::from_torrc([item.value.as_str()]) {
            let remedy = "write e.g. \"accept *:443, reject 192.0.2.0/24:*, reject [2001:db8::]/32:*\"";
            self.findings.problems.push(Problem::with(item, error.to_string(), remedy));
        }
    }

    fn metrics(&mut self) -> MetricsConfig {
        let listen = port::metrics_ports(self.settings.lines("MetricsPort"), &mut self.findings.problems);
        let lines = self.settings.lines("MetricsPortPolicy");
        for item in lines {
            self.policy(item);
        }
        // What no line accepts is refused; what `from_torrc` cannot read was reported above.
        let values = lines.iter().map(|item| item.value.as_str()).chain(["reject *:*"]);
        let policy =
            ExitPolicy::from_torrc(values).map_or_else(|_| ExitPolicy::middleman(), |(policy, _)| policy);
        if !listen.is_empty() && lines.is_empty() {
            let text =
                "nobody may connect to the MetricsPort: add e.g. \"MetricsPortPolicy accept 127.0.0.1\"";
            self.warn("MetricsPort", text.to_owned());
        }
        MetricsConfig { listen, policy }
    }

    fn authorities(&mut self) -> Vec<Authority> {
        let lines = match self.settings.lines("DirAuthority") {
            [] => self.settings.lines("AlternateDirAuthority"),
            lines => lines,
        };
        let mut authorities = Vec::new();
        for item in lines {
            match authority::parse(item) {
                Ok(authority) if authority.v3_ident.is_some() => authorities.push(authority),
                // An authority for bridges only has nothing for a relay.
                Ok(_) => {}
                Err(problem) => self.findings.problems.push(problem),
            }
        }
        authorities
    }

    fn publish(&mut self) -> bool {
        let mut publish = false;
        for word in
            self.settings.csv("PublishServerDescriptor").map(str::to_ascii_lowercase).collect::<Vec<_>>()
        {
            match word.as_str() {
                "1" | "v3" => publish = true,
                "0" => {}
                "v1" | "v2" | "hidserv" => {
                    self.warn(
                        "PublishServerDescriptor",
                        format!("{word} has no effect: there are no such authorities any more"),
                    );
                }
                _ => self.wrong(
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
        match self.settings.memory("MaxMemInQueues") {
            0 => match self.environment.memory {
                Some(memory) if memory >= 8 * GB => (memory / 5 * 2).min(8 * GB),
                Some(memory) => (memory / 4 * 3).max(GB / 4),
                None => 8 * GB,
            },
            bytes => {
                if bytes < QUEUE_BYTES_LITTLE {
                    self.warn(
                        "MaxMemInQueues",
                        "MaxMemInQueues is low: under load, circuits will be closed to save memory".into(),
                    );
                }
                bytes.max(QUEUE_BYTES_MIN)
            }
        }
    }

    fn heartbeat(&mut self) -> Option<Duration> {
        let period = self.settings.interval("HeartbeatPeriod");
        if !period.is_zero() && period < HEARTBEAT_MIN {
            self.warn("HeartbeatPeriod", "HeartbeatPeriod is raised to 30 minutes".into());
        }
        Some(period.max(HEARTBEAT_MIN)).filter(|_| !period.is_zero())
    }
}

/// The first addresses, and for what they lack the second.
fn or_else(first: OutboundAddresses, second: OutboundAddresses) -> OutboundAddresses {
    OutboundAddresses { ipv4: first.ipv4.or(second.ipv4), ipv6: first.ipv6.or(second.ipv6) }
}
