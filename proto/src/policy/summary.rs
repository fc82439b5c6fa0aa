//! Policies boiled down to ports: `p` and `p6` of microdescriptors, `ipv6-policy` of router descriptors.

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

use super::{Action, ExitPolicy, Network, Ports, Rule};
use crate::limits::POLICY_SUMMARY_LEN;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// Whether the network is one of this family.
    pub fn matches(self, network: Network) -> bool {
        network.is_ipv4() == (self == Family::V4)
    }

    /// A port with more rejected addresses than this is summarised as rejected: two /8 of IPv4, one /16 of IPv6 (which
    /// is counted in /64s).
    fn reject_cutoff(self) -> u64 {
        match self {
            Family::V4 => 1 << 25,
            Family::V6 => 1 << 48,
        }
    }

    /// How much a rejected network counts towards the cutoff.
    fn weight(self, network: Network) -> u64 {
        let bits: u32 = match self {
            Family::V4 => 32,
            Family::V6 => 64,
        };
        match bits.checked_sub(network.prefix_len().into()) {
            // A piece of a /64.
            None => 0,
            // All of IPv6 does not fit, but is beyond the cutoff anyway.
            Some(host_bits) => 1u64.checked_shl(host_bits).unwrap_or(u64::MAX),
        }
    }
}

/// Which ports most of the Internet can be reached on: `accept` or `reject` and a list of ports (dir-spec 3.4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSummary {
    action: Action,
    ranges: Vec<Ports>,
}

/// A summary that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortSummaryError {
    /// Neither `accept` nor `reject` with a list.
    #[error("policy summary does not begin with accept or reject and a list of ports")]
    Keyword,
    /// An entry that is no port and no range.
    #[error("policy summary has an invalid entry '{0}'")]
    Entry(String),
    /// No entry that is understood.
    #[error("policy summary lists no port")]
    Empty,
    /// More than can be meant.
    #[error("policy summary has {0} entries, at most {POLICY_SUMMARY_LEN} are read")]
    TooLong(usize),
}

impl PortSummary {
    /// The summary that rejects everything, which stands for a line left out.
    pub fn reject_all() -> PortSummary {
        PortSummary { action: Action::Reject, ranges: vec![Ports::ALL] }
    }

    /// Reads `accept 80,443` and the like. Entries that do not begin with a digit are passed over, for the future's
    /// sake, as deployed clients do.
    pub fn parse(text: &str) -> Result<PortSummary, PortSummaryError> {
        let (action, list) = match text.split_once(' ') {
            Some(("accept", list)) => (Action::Accept, list),
            Some(("reject", list)) => (Action::Reject, list),
            _ => return Err(PortSummaryError::Keyword),
        };
        let mut ranges = Vec::new();
        for entry in list.split(',').filter(|entry| entry.starts_with(|c: char| c.is_ascii_digit())) {
            ranges.push(Ports::parse(entry).ok_or_else(|| PortSummaryError::Entry(entry.to_owned()))?);
        }
        match ranges.len() {
            0 => Err(PortSummaryError::Empty),
            1..=POLICY_SUMMARY_LEN => Ok(PortSummary { action, ranges }),
            len => Err(PortSummaryError::TooLong(len)),
        }
    }

    /// Whether streams to this port are likely to be accepted.
    pub fn permits(&self, port: u16) -> bool {
        let listed = self.ranges.iter().any(|range| range.contains(port));
        listed == (self.action == Action::Accept)
    }

    /// Whether no port is accepted; such a summary is left out of documents.
    pub fn rejects_all(&self) -> bool {
        self.action == Action::Reject && self.ranges == [Ports::ALL]
    }
}

impl fmt::Display for PortSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, joined(&self.ranges))
    }
}

fn joined(ranges: &[Ports]) -> String {
    ranges.iter().map(Ports::to_string).collect::<Vec<_>>().join(",")
}

impl ExitPolicy {
    /// The summary for one family. Every authority must come to the same one, so this is C tor's algorithm: a port
    /// counts as accepted if a rule accepts it for all addresses, and the rules before that reject no more than a
    /// small part of them, private networks aside; the shorter of the two forms is written, cut to 1000 bytes.
    pub fn summary(&self, family: Family) -> PortSummary {
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| family.matches(rule.network)).collect();
        let mut accepted = Vec::new();
        let mut rejected = Vec::new();
        for ports in segments(&rules) {
            let list = if accepts_most(&rules, ports, family) { &mut accepted } else { &mut rejected };
            push_merged(list, ports);
        }
        if accepted.is_empty() {
            return PortSummary::reject_all();
        }
        if rejected.is_empty() {
            return PortSummary { action: Action::Accept, ranges: accepted };
        }

        let (accepted_len, rejected_len) = (joined(&accepted).len(), joined(&rejected).len());
        let room = POLICY_SUMMARY_LEN - "accept ".len();
        if accepted_len > room && rejected_len > room {
            while joined(&accepted).len() > room {
                accepted.pop();
            }
            PortSummary { action: Action::Accept, ranges: accepted }
        } else if rejected_len < accepted_len {
            PortSummary { action: Action::Reject, ranges: rejected }
        } else {
            PortSummary { action: Action::Accept, ranges: accepted }
        }
    }
}

/// All ports, cut where some rule begins or ends, so that each piece is wholly inside or outside of every rule.
fn segments(rules: &[&Rule]) -> Vec<Ports> {
    let mut starts = BTreeSet::from([1]);
    for rule in rules {
        starts.insert(rule.ports.first());
        starts.extend(rule.ports.last().checked_add(1));
    }
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([u16::MAX]);
    starts.iter().zip(ends).filter_map(|(&first, last)| Ports::new(first, last)).collect()
}

fn accepts_most(rules: &[&Rule], ports: Ports, family: Family) -> bool {
    let mut rejected = 0u64;
    for rule in rules.iter().filter(|rule| rule.ports.contains(ports.first())) {
        match rule.action {
            Action::Accept if rule.network.is_everything() && rejected <= family.reject_cutoff() => {
                return true;
            }
            Action::Accept => {}
            Action::Reject if Network::PRIVATE.contains(&rule.network) => {}
            Action::Reject => rejected = rejected.saturating_add(family.weight(rule.network)),
        }
    }
    false
}

/// Adds a range to a rising list, joining it to the last one where they touch.
fn push_merged(list: &mut Vec<Ports>, ports: Ports) {
    if let Some(last) = list.last_mut()
        && let Some(joint) =
            Ports::new(last.first(), ports.last()).filter(|_| last.last() + 1 == ports.first())
    {
        *last = joint;
    } else {
        list.push(ports);
    }
}
