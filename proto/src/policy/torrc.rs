//! The exit policy as an operator writes it: `ExitPolicy` and the options around it.

use std::net::IpAddr;

use thiserror::Error;

use super::rule::{Host, Pattern};
use super::{Action, ExitPolicy, Family, Network, PolicyError, Ports, Rule, is_internal};

/// Ports that a default exit refuses: mail, file sharing, Windows shares (as C tor's default policy).
const DEFAULT_REJECTED: [(u16, u16); 10] = [
    (25, 25),
    (119, 119),
    (135, 139),
    (445, 445),
    (563, 563),
    (1214, 1214),
    (4661, 4666),
    (6346, 6429),
    (6699, 6699),
    (6881, 6999),
];

/// Ports that a reduced exit accepts: well-known services with little abuse (as C tor's `ReducedExitPolicy`).
#[rustfmt::skip]
const REDUCED_ACCEPTED: [(u16, u16); 71] = [
    (20, 23), (43, 43), (53, 53), (79, 81), (88, 88), (110, 110), (143, 143), (194, 194), (220, 220),
    (389, 389), (443, 443), (464, 464), (465, 465), (531, 531), (543, 544), (554, 554), (563, 563),
    (587, 587), (636, 636), (706, 706), (749, 749), (873, 873), (902, 904), (981, 981), (989, 995),
    (1194, 1194), (1220, 1220), (1293, 1293), (1500, 1500), (1533, 1533), (1677, 1677), (1723, 1723),
    (1755, 1755), (1863, 1863), (2082, 2083), (2086, 2087), (2095, 2096), (2102, 2104), (3128, 3128),
    (3389, 3389), (3690, 3690), (4321, 4321), (4643, 4643), (5050, 5050), (5190, 5190), (5222, 5223),
    (5228, 5228), (5900, 5900), (6660, 6669), (6679, 6679), (6697, 6697), (8000, 8000), (8008, 8008),
    (8074, 8074), (8080, 8080), (8082, 8082), (8087, 8088), (8232, 8233), (8332, 8333), (8443, 8443),
    (8888, 8888), (9418, 9418), (9999, 9999), (10000, 10000), (11371, 11371), (18080, 18081), (18089, 18089),
    (19294, 19294), (19638, 19638), (50002, 50002), (64738, 64738),
];

/// The torrc options that make up the policy of an exit, by their names there.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExitPolicyOptions<'a> {
    /// `ExitRelay`; `None` is `auto`: an exit if one of the other options asks for one.
    pub exit_relay: Option<bool>,
    /// The values of all `ExitPolicy` lines, each a list separated by commas.
    pub exit_policy: &'a [&'a str],
    /// `ReducedExitPolicy`: end with few accepted ports instead of few rejected ones.
    pub reduced: bool,
    /// `IPv6Exit`.
    pub ipv6_exit: bool,
    /// `ExitPolicyRejectPrivate`: reject private networks and the public ones of `own_addresses`.
    pub reject_private: bool,
    /// The relay's own addresses: those it publishes and, under `ExitPolicyRejectLocalInterfaces`, those of its
    /// interfaces, ports and outbound connections.
    pub own_addresses: &'a [IpAddr],
}

/// Something in a policy that an operator should know of.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyWarning {
    /// An entry for IPv6 alone that names IPv4; it was left out.
    #[error("policy entry '{0}' names IPv4 after accept6 or reject6 and is ignored: use accept or reject")]
    NotIpv6(String),
    /// `private` after `accept6` or `reject6`, which is read as without the 6.
    #[error("policy entry '{0}' applies to IPv4 as well: write it without the 6")]
    PrivateIsBoth(String),
    /// An entry that decides nothing, because others before it decide everything.
    #[error(
        "policy entry '{0}' and all that follow it have no effect: earlier entries decide about every address"
    )]
    Unreachable(String),
}

impl ExitPolicyOptions<'_> {
    /// The policy these options make, without redundant rules, and what to tell the operator.
    pub fn build(&self) -> Result<(ExitPolicy, Vec<PolicyWarning>), PolicyError> {
        let mut warnings = Vec::new();
        let wanted = !self.exit_policy.is_empty() || self.reduced || self.ipv6_exit;
        if !self.exit_relay.unwrap_or(wanted) || (self.exit_relay.is_none() && !wanted) {
            return Ok((ExitPolicy::middleman(), warnings));
        }

        let mut policy = ExitPolicy::default();
        if !self.ipv6_exit {
            policy.rules.push(reject(Network::ALL_V6, Ports::ALL));
        }
        if self.reject_private {
            policy.push_private(Action::Reject, Ports::ALL);
            let public = self.own_addresses.iter().filter(|ip| !is_internal(**ip) && !ip.is_multicast());
            policy.rules.extend(public.map(|&ip| reject(Network::host(ip), Ports::ALL)));
        }
        policy.push_entries(self.exit_policy.iter().copied(), &mut warnings)?;
        if self.reduced {
            policy.rules.extend(reduced_rules());
        } else {
            policy.rules.extend(default_rules());
        }
        policy.remove_redundant();
        Ok((policy, warnings))
    }
}

impl ExitPolicy {
    /// Reads a list of rules as torrc options have them (also `MetricsPortPolicy` and the like), and nothing more:
    /// what no rule matches is accepted.
    pub fn from_torrc<'a>(
        values: impl IntoIterator<Item = &'a str>,
    ) -> Result<(ExitPolicy, Vec<PolicyWarning>), PolicyError> {
        let mut policy = ExitPolicy::default();
        let mut warnings = Vec::new();
        policy.push_entries(values, &mut warnings)?;
        Ok((policy, warnings))
    }

    fn push_entries<'a>(
        &mut self,
        values: impl IntoIterator<Item = &'a str>,
        warnings: &mut Vec<PolicyWarning>,
    ) -> Result<(), PolicyError> {
        let mut unreachable = None;
        let entries = values.into_iter().flat_map(|value| value.split(',')).map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            let pattern = Pattern::parse(entry)?;
            if unreachable.is_none() && Family::BOTH.into_iter().all(|family| self.decides_all(family)) {
                unreachable = Some(PolicyWarning::Unreachable(entry.to_owned()));
            }
            let names_ipv4 = match pattern.host {
                Host::Any4 => true,
                Host::Network(network) => network.is_ipv4(),
                Host::Any | Host::Any6 | Host::Private => false,
            };
            if pattern.six && names_ipv4 {
                warnings.push(PolicyWarning::NotIpv6(entry.to_owned()));
                continue;
            }
            if pattern.six && pattern.host == Host::Private {
                warnings.push(PolicyWarning::PrivateIsBoth(entry.to_owned()));
            }
            self.push_pattern(&pattern);
        }
        warnings.extend(unreachable);
        Ok(())
    }

    fn decides_all(&self, family: Family) -> bool {
        self.rules.iter().any(|rule| {
            family.matches(rule.network) && rule.network.is_everything() && rule.ports == Ports::ALL
        })
    }

    /// Adds what an entry means here, where `*` is IPv4 and IPv6.
    fn push_pattern(&mut self, pattern: &Pattern) {
        let Pattern { action, ports, six, host } = *pattern;
        let rule = |network| Rule { action, network, ports };
        match host {
            Host::Any if six => self.rules.push(rule(Network::ALL_V6)),
            Host::Any => self.rules.extend([rule(Network::ALL_V4), rule(Network::ALL_V6)]),
            Host::Any4 => self.rules.push(rule(Network::ALL_V4)),
            Host::Any6 => self.rules.push(rule(Network::ALL_V6)),
            Host::Private => self.push_private(action, ports),
            Host::Network(network) => self.rules.push(rule(network)),
        }
    }
}

fn reject(network: Network, ports: Ports) -> Rule {
    Rule { action: Action::Reject, network, ports }
}

/// The end of a policy unless the operator chooses another.
pub(super) fn default_rules() -> impl Iterator<Item = Rule> {
    on_ports(Action::Reject, &DEFAULT_REJECTED).chain(ExitPolicy::open().rules)
}

/// The end of a policy under `ReducedExitPolicy`.
fn reduced_rules() -> impl Iterator<Item = Rule> {
    on_ports(Action::Accept, &REDUCED_ACCEPTED).chain(ExitPolicy::middleman().rules)
}

/// Rules for every address of both families.
fn on_ports(action: Action, ports: &'static [(u16, u16)]) -> impl Iterator<Item = Rule> {
    ports.iter().filter_map(|&(first, last)| Ports::new(first, last)).flat_map(move |ports| {
        [Network::ALL_V4, Network::ALL_V6].map(|network| Rule { action, network, ports })
    })
}
