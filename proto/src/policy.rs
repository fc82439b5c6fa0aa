//! Exit policies: which destinations a relay connects to (dir-spec 2.1.1, `accept` and `reject`; paper 6.2).
//!
//! A policy is a list of rules; the first that matches decides. It has three written forms: the operator's torrc
//! ([`ExitPolicyOptions`]), the router descriptor, which holds only the IPv4 rules
//! ([`ExitPolicy::from_descriptor`], [`ExitPolicy::descriptor_lines`]), and the list of ports that clients choose
//! exits by ([`PortSummary`]).

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

mod rule;
mod summary;
mod torrc;

pub use rule::{Action, Network, NetworkError, Ports, Rule, is_internal};
pub use summary::{Family, PortSummary, PortSummaryError};
pub use torrc::{ExitPolicyOptions, PolicyWarning};

use rule::{Host, Pattern};

/// A rule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Does not begin with one of the keywords.
    #[error("policy entry '{0}' does not begin with accept, reject, accept6 or reject6")]
    Keyword(String),
    /// Not one word after the keyword.
    #[error("policy entry '{0}' needs one pattern like 192.0.2.0/24:80-90 after its keyword, without spaces")]
    Pattern(String),
    /// The address part cannot be read.
    #[error(
        "policy entry '{0}' has no valid address: write *, *4, *6, private, an IPv4 address or an IPv6 one in brackets"
    )]
    Address(String),
    /// The mask cannot be read, or does not fit the address.
    #[error(
        "policy entry '{0}' has no valid mask: write /0 to /32 or /255.255.0.0 for IPv4, /0 to /128 for IPv6"
    )]
    Mask(String),
    /// The ports cannot be read.
    #[error("policy entry '{0}' has no valid ports: write *, a port or a range, in 1 to 65535")]
    Ports(String),
    /// A form that a router descriptor must not have.
    #[error("policy entry '{0}' is not allowed in a router descriptor")]
    NotInDescriptor(String),
}

/// Rules of which the first that matches decides; what none matches is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitPolicy {
    rules: Vec<Rule>,
}

impl ExitPolicy {
    /// A policy of these rules.
    pub fn from_rules(rules: Vec<Rule>) -> ExitPolicy {
        ExitPolicy { rules }
    }

    /// An open exit: connects anywhere (paper 6.2).
    pub fn open() -> ExitPolicy {
        Self::all(Action::Accept)
    }

    /// A middleman: connects only to other relays (paper 6.2).
    pub fn middleman() -> ExitPolicy {
        Self::all(Action::Reject)
    }

    /// A private exit: connects only to these networks (paper 6.2).
    pub fn private_exit(networks: &[Network]) -> ExitPolicy {
        let accept = |&network| Rule { action: Action::Accept, network, ports: Ports::ALL };
        let mut policy = ExitPolicy { rules: networks.iter().map(accept).collect() };
        policy.rules.extend(Self::middleman().rules);
        policy.remove_redundant();
        policy
    }

    /// A restricted exit: connects anywhere but to private networks and to ports that attract abuse, first of all mail
    /// (paper 6.2). This is the default policy of an exit.
    pub fn restricted() -> ExitPolicy {
        let mut policy = ExitPolicy::default();
        policy.push_private(Action::Reject, Ports::ALL);
        policy.rules.extend(torrc::default_rules());
        policy.remove_redundant();
        policy
    }

    fn all(action: Action) -> ExitPolicy {
        let rule = |network| Rule { action, network, ports: Ports::ALL };
        ExitPolicy { rules: vec![rule(Network::ALL_V4), rule(Network::ALL_V6)] }
    }

    fn push_private(&mut self, action: Action, ports: Ports) {
        self.rules.extend(Network::PRIVATE.map(|network| Rule { action, network, ports }));
    }

    /// Reads the `accept` and `reject` lines of a router descriptor, in their order; `*` is IPv4 there, and IPv6 has
    /// its own line (`ipv6-policy`, a [`PortSummary`]).
    pub fn from_descriptor<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<ExitPolicy, PolicyError> {
        let mut policy = ExitPolicy::default();
        for line in lines {
            let pattern = Pattern::parse(line)?;
            let not_allowed = || PolicyError::NotInDescriptor(line.to_owned());
            let Pattern { action, ports, .. } = pattern;
            match pattern.host {
                _ if pattern.six => return Err(not_allowed()),
                Host::Any => policy.rules.push(Rule { action, network: Network::ALL_V4, ports }),
                Host::Network(network) if network.is_ipv4() => {
                    policy.rules.push(Rule { action, network, ports })
                }
                Host::Private => policy.push_private(action, ports),
                Host::Any4 | Host::Any6 | Host::Network(_) => return Err(not_allowed()),
            }
        }
        Ok(policy)
    }

    /// The lines of a router descriptor, without line ends: the IPv4 rules, or `reject *:*` if there is none.
    pub fn descriptor_lines(&self) -> Vec<String> {
        let lines: Vec<String> =
            self.rules.iter().filter(|r| r.network.is_ipv4()).map(Rule::descriptor_line).collect();
        if lines.is_empty() { vec!["reject *:*".to_owned()] } else { lines }
    }

    /// The rules, the first one that matches deciding.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a stream may go to this address and port. An IPv4 address written as an IPv6 one is judged as IPv4.
    pub fn permits(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        self.rules
            .iter()
            .find(|rule| rule.ports.contains(port) && rule.network.contains(ip))
            .is_none_or(|rule| rule.action == Action::Accept)
    }

    /// Whether some address of this family may be accepted on this port: what can be said while the destination is
    /// still a name. False is a reason to refuse before looking the name up.
    pub fn might_permit(&self, family: Family, port: u16) -> bool {
        let rules =
            self.rules.iter().filter(|rule| family.matches(rule.network) && rule.ports.contains(port));
        first_general(rules) == Action::Accept
    }

    /// Whether every address of this family is rejected on every port.
    pub fn rejects_all(&self, family: Family) -> bool {
        let on_all_ports = |rule: &&Rule| rule.action == Action::Accept || rule.ports == Ports::ALL;
        let rules = self.rules.iter().filter(|rule| family.matches(rule.network)).filter(on_all_ports);
        first_general(rules) == Action::Reject
    }

    /// Whether this is the policy of an exit that serves the web: on each of ports 80 and 443 some rule accepts a whole
    /// /8 of IPv4, no address of which an earlier rule rejects. What authorities vote `Exit` by (dir-spec 3.4.2).
    ///
    /// `count_private` also counts internal networks, as testing networks do.
    pub fn is_web_exit(&self, count_private: bool) -> bool {
        [80, 443].into_iter().all(|port| self.accepts_a_slash_8(port, count_private))
    }

    fn accepts_a_slash_8(&self, port: u16, count_private: bool) -> bool {
        let mut spoilt = [false; 256];
        for rule in self.rules.iter().filter(|rule| rule.ports.contains(port)) {
            let Some(touched) = rule.network.slash_8s() else { continue };
            for first_octet in touched {
                let internal = is_internal([first_octet, 0, 0, 0].into());
                let at = usize::from(first_octet);
                match rule.action {
                    _ if spoilt[at] || (internal && !count_private) => {}
                    Action::Accept if rule.network.prefix_len() <= 8 => return true,
                    Action::Accept => {}
                    Action::Reject => spoilt[at] = true,
                }
            }
        }
        false
    }

    /// Removes rules that never decide anything, as deployed relays do before they publish a policy: all after a
    /// catch-all, those an earlier rule covers, and those a later rule of the same action covers with no rule of the
    /// other action between them that overlaps.
    fn remove_redundant(&mut self) {
        for family in Family::BOTH {
            let mut closed = false;
            self.rules.retain(|rule| {
                let keep = !(closed && family.matches(rule.network));
                closed |=
                    family.matches(rule.network) && rule.network.is_everything() && rule.ports == Ports::ALL;
                keep
            });
        }

        let mut kept: Vec<Rule> = Vec::with_capacity(self.rules.len());
        for rule in self.rules.drain(..) {
            if !kept.iter().any(|earlier| earlier.covers(&rule)) {
                kept.push(rule);
            }
        }

        let mut at = 0;
        while at < kept.len() {
            let rule = kept[at];
            let decider = kept[at + 1..].iter().find(|later| {
                if later.action == rule.action { later.covers(&rule) } else { later.overlaps(&rule) }
            });
            if decider.is_some_and(|later| later.action == rule.action) {
                kept.remove(at);
            } else {
                at += 1;
            }
        }
        self.rules = kept;
    }
}

/// The action of the first rule that accepts anything or rejects everything; accept if there is none.
fn first_general<'a>(mut rules: impl Iterator<Item = &'a Rule>) -> Action {
    rules
        .find(|rule| rule.action == Action::Accept || rule.network.is_everything())
        .map_or(Action::Accept, |rule| rule.action)
}

impl fmt::Display for ExitPolicy {
    /// The rules as a torrc would have them, separated by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, rule) in self.rules.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{rule}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
