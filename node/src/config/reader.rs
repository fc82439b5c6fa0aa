//! Reading what all programs have in common out of settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use onionring_proto::netdoc::text::Nickname;
use onionring_proto::policy::ExitPolicy;
use onionring_proto::torrc::authority::{self, Authority};
use onionring_proto::torrc::log::{self, Target};
use onionring_proto::torrc::port::{self, ServerPort};
use onionring_proto::torrc::{Item, Note, Problem, Settings, value};

use super::{Directories, Environment, Findings, LogConfig, MetricsConfig, expand_home};
use crate::keys::KeyOptions;

/// What a relay without a nickname is called.
const UNNAMED: &str = "Unnamed";
/// The shortest time between heartbeats, as in C tor.
const HEARTBEAT_MIN: Duration = Duration::from_secs(30 * 60);

/// Reads options, and reports what is wrong with them. After a problem what it returns is of no use.
pub struct Reader<'a> {
    /// The options.
    pub settings: &'a Settings,
    /// What they depend on.
    pub environment: &'a Environment,
    /// What there is to say about them.
    pub findings: &'a mut Findings,
}

impl Reader<'_> {
    /// Reports a problem with an option, at the line that sets it if there is one.
    pub fn wrong(&mut self, option: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.problems.push(match self.settings.item(option) {
            Some(item) => Problem::with(item, what, remedy),
            None => Problem::general(option, what, remedy),
        });
    }

    /// Tells the operator to look at an option.
    pub fn warn(&mut self, option: &str, text: String) {
        self.findings.warnings.push(Note { origin: self.settings.origin(option), text });
    }

    /// The ORPorts and DirPorts of a relay: an IPv4 ORPort is advertised, and one listens.
    pub fn ports(&mut self) -> (Vec<ServerPort>, Vec<ServerPort>) {
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
        if !dir_advertised.is_empty() && !dir_ports.iter().any(|port| port.listen) {
            self.wrong("DirPort", "no DirPort listens", "remove NoListen, or add a line with NoAdvertise");
        }
        (or_ports, dir_ports)
    }

    /// The addresses on the lines of an option, at most one of each family.
    pub fn addresses(&mut self, option: &str) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
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

    /// One of several words, whatever their case; without one of them, the first.
    pub fn choice<T: Copy>(&mut self, option: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.settings.text(option).unwrap_or_default();
        let chosen = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.wrong(option, "not one of its words", format!("write one of: {}", words.join(", ")));
        }
        chosen.or(choices.first()).map(|(_, choice)| *choice)
    }

    /// `Nickname`.
    pub fn nickname(&mut self) -> Nickname {
        let name = self.settings.text("Nickname").unwrap_or(UNNAMED);
        Nickname::new(name).unwrap_or_else(|| {
            self.wrong("Nickname", "not a nickname", "use 1 to 19 letters and digits, without accents");
            Nickname::new(UNNAMED).expect("seven letters")
        })
    }

    /// `ContactInfo`.
    pub fn contact(&mut self) -> Option<String> {
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

    /// A path, with `~` expanded.
    pub fn path(&self, option: &str) -> Option<PathBuf> {
        self.settings.text(option).map(|path| expand_home(path, self.environment.home.as_deref()))
    }

    /// `DataDirectory`, `CacheDirectory`, `KeyDirectory`.
    pub fn directories(&mut self) -> Directories {
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
                    "{option} {} is relative to the directory the program is started in",
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

    /// How the keys of a relay are kept.
    pub fn keys(&mut self, directories: &Directories) -> KeyOptions {
        let follows = directories.data_group_readable && directories.keys == directories.data;
        let signing_lifetime = self.settings.interval("SigningKeyLifetime");
        let signing_slop = self.settings.interval("TestingSigningKeySlop");
        // A key that is due as soon as it is made would be made again every minute.
        if signing_lifetime < 2 * signing_slop {
            let least = 2 * signing_slop.as_secs();
            let remedy = format!("write at least twice TestingSigningKeySlop, {least} seconds");
            self.wrong("SigningKeyLifetime", "too short", remedy);
        }
        KeyOptions {
            group_readable: self.settings.auto_flag("KeyDirectoryGroupReadable").unwrap_or(follows),
            offline_master: self.settings.flag("OfflineMasterKey"),
            signing_lifetime,
            signing_slop,
        }
    }

    /// What is logged.
    pub fn log(&mut self) -> LogConfig {
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

    /// Reports what is wrong with one line of a policy.
    pub fn policy(&mut self, item: &Item) {
        if let Err(error) = ExitPolicy::from_torrc([item.value.as_str()]) {
            let remedy = "write e.g. \"accept *:443, reject 192.0.2.0/24:*, reject [2001:db8::]/32:*\"";
            self.findings.problems.push(Problem::with(item, error.to_string(), remedy));
        }
    }

    /// `MetricsPort` and `MetricsPortPolicy`.
    pub fn metrics(&mut self) -> MetricsConfig {
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

    /// `DirAuthority`: the authorities of the consensus.
    pub fn authorities(&mut self) -> Vec<Authority> {
        let lines = match self.settings.lines("DirAuthority") {
            [] => self.settings.lines("AlternateDirAuthority"),
            lines => lines,
        };
        let mut authorities = Vec::new();
        for item in lines {
            match authority::parse(item) {
                Ok(authority) if authority.v3_ident.is_some() => authorities.push(authority),
                // An authority for bridges only has no part in the consensus.
                Ok(_) => {}
                Err(problem) => self.findings.problems.push(problem),
            }
        }
        authorities
    }

    /// `HeartbeatPeriod`.
    pub fn heartbeat(&mut self) -> Option<Duration> {
        let period = self.settings.interval("HeartbeatPeriod");
        if !period.is_zero() && period < HEARTBEAT_MIN {
            self.warn("HeartbeatPeriod", "HeartbeatPeriod is raised to 30 minutes".into());
        }
        Some(period.max(HEARTBEAT_MIN)).filter(|_| !period.is_zero())
    }
}
