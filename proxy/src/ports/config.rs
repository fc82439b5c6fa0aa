//! The options of the ports.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use onionring_proto::policy::ExitPolicy;
use onionring_proto::torrc::port::{ClientKind, ClientPlace, ClientPort, client_ports};
use onionring_proto::torrc::{Note, Problem, Settings};

use super::Rules;
use crate::limits;

/// How the system redirects connections to `TransPort` (`TransProxyType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransProxyType {
    /// By changing their destination (iptables' REDIRECT, nftables' redirect).
    Default,
    /// By handing them over as they are (TPROXY).
    Tproxy,
}

/// What is opened, and what holds there.
#[derive(Clone, Debug)]
pub struct Config {
    /// The ports.
    pub ports: Vec<ClientPort>,
    /// What holds for all of them.
    pub rules: Rules,
    /// How connections come to `TransPort`.
    pub transparent: TransProxyType,
    /// User and group that socket files are handed over to, if the program switches to others (`User`).
    pub user: Option<(u32, u32)>,
}

impl Config {
    /// The addresses of all ports that are no files.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.ports.iter().filter_map(|port| match &port.place {
            ClientPlace::Address(address) => Some(*address),
            ClientPlace::File(_) => None,
        })
    }

    /// Reads the options. What is wrong is reported and left out; `user` is the caller's to set.
    pub fn read(settings: &Settings, problems: &mut Vec<Problem>, notes: &mut Vec<Note>) -> Config {
        let group_writable = settings.flag("UnixSocksGroupWritable");
        let ports = ClientKind::ALL
            .into_iter()
            .flat_map(|kind| {
                let lines = settings.lines(kind.option());
                client_ports(kind, lines, group_writable, problems, notes)
            })
            .collect();
        let mut ports_of = |option: &str| {
            let parsed = settings.csv(option).map(|text| text.parse::<u16>().map_err(|_| text));
            let (good, bad): (Vec<_>, Vec<_>) = parsed.partition(Result::is_ok);
            for text in bad.into_iter().filter_map(Result::err) {
                let item = settings.item(option);
                let (what, remedy) = (format!("{text} is not a port"), "list numbers from 1 to 65535");
                problems.push(item.map_or_else(
                    || Problem::general(option, what.clone(), remedy),
                    |item| Problem::with(item, what.clone(), remedy),
                ));
            }
            good.into_iter().flatten().collect::<BTreeSet<u16>>()
        };
        let (warn_ports, reject_ports) = (ports_of("WarnPlaintextPorts"), ports_of("RejectPlaintextPorts"));
        let rules = Rules {
            policy: policy(settings, problems),
            safe_socks: settings.flag("SafeSocks"),
            test_socks: settings.flag("TestSocks"),
            applications: limits::APPLICATIONS,
            timeout: settings.interval("SocksTimeout"),
            warn_ports,
            reject_ports,
            reject_internal: settings.flag("ClientRejectInternalAddresses"),
            dns_reject_internal: settings.flag("ClientDNSRejectInternalAddresses"),
        };
        let transparent = transparent(settings, problems);
        Config { ports, rules, transparent, user: None }
    }
}

fn policy(settings: &Settings, problems: &mut Vec<Problem>) -> ExitPolicy {
    let lines = settings.lines("SocksPolicy");
    match ExitPolicy::from_torrc(lines.iter().map(|item| item.value.as_str())) {
        Ok((policy, _)) => policy,
        Err(error) => {
            let wrong = lines.iter().find(|item| ExitPolicy::from_torrc([item.value.as_str()]).is_err());
            if let Some(item) = wrong {
                problems.push(Problem::with(
                    item,
                    error.to_string(),
                    "write entries such as accept 127.0.0.0/8",
                ));
            }
            // Nobody, rather than those whom the operator wanted to keep out.
            ExitPolicy::middleman()
        }
    }
}

fn transparent(settings: &Settings, problems: &mut Vec<Problem>) -> TransProxyType {
    match settings.text("TransProxyType") {
        None => TransProxyType::Default,
        Some(kind) if kind.eq_ignore_ascii_case("default") => TransProxyType::Default,
        Some(kind) if kind.eq_ignore_ascii_case("TPROXY") => TransProxyType::Tproxy,
        Some(_) => {
            if let Some(item) = settings.item("TransProxyType") {
                problems.push(Problem::with(item, "not known on Linux", "write default or TPROXY"));
            }
            TransProxyType::Default
        }
    }
}
