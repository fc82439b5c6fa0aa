//! Lists of relays as torrc options have them, and what a person says of paths with them: `EntryNodes`, `ExitNodes`,
//! `MiddleNodes`, `ExcludeNodes`, `ExcludeExitNodes`, `NodeFamily`, `StrictNodes`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use thiserror::Error;

use super::{Kin, RelayRef};
use crate::netdoc::consensus::RelayStatus;
use crate::netdoc::family::FamilyMember;
use crate::netdoc::text::{Fingerprint, Nickname};
use crate::policy::{ExitPolicy, Network, Ports};

/// Characters of a bad entry that an error repeats.
const SHOWN: usize = 64;

/// An entry that names no relays.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeSetError {
    /// It is a country.
    #[error("'{0}' is a country, and this program knows of no countries")]
    Country(String),
    /// It is nothing known.
    #[error("'{0}' names no relay")]
    Entry(String),
}

impl NodeSetError {
    /// What to write instead.
    pub fn remedy(&self) -> &'static str {
        match self {
            NodeSetError::Country(_) => "name fingerprints or networks instead",
            NodeSetError::Entry(_) => {
                "write a fingerprint of 40 hex digits, a nickname, or a network like 192.0.2.0/24 or [2001:db8::]/32"
            }
        }
    }
}

/// A set of relays, named by their identities, nicknames and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSet {
    identities: BTreeSet<Fingerprint>,
    /// In lower case.
    nicknames: BTreeSet<String>,
    networks: Vec<(Network, Ports)>,
}

impl NodeSet {
    /// Reads entries separated by commas: `$` and a fingerprint, perhaps with `=name` or `~name` behind it that does not
    /// count, the same without the `$`, a nickname, or a network, perhaps with ports. No entry is an empty set.
    pub fn parse(value: &str) -> Result<NodeSet, NodeSetError> {
        let mut set = NodeSet::default();
        for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match FamilyMember::parse_bare(entry) {
                Some(FamilyMember::Identity(identity)) => drop(set.identities.insert(identity)),
                Some(FamilyMember::Nickname(name)) => drop(set.nicknames.insert(lower(&name))),
                None => set.networks.extend(networks(entry)?),
            }
        }
        Ok(set)
    }

    /// Adds all that is in `other`.
    pub fn extend(&mut self, other: NodeSet) {
        self.identities.extend(other.identities);
        self.nicknames.extend(other.nicknames);
        self.networks.extend(other.networks);
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.nicknames.is_empty() && self.networks.is_empty()
    }

    /// Whether the relay is in it.
    pub fn contains(&self, relay: &RelayRef<'_>) -> bool {
        self.lists(relay.status)
    }

    /// Whether the relay is in it, by what the consensus says of it: ports of a network are those of ORPorts.
    pub fn lists(&self, relay: &RelayStatus) -> bool {
        let v4 = (relay.ipv4.into(), relay.or_port);
        let v6 = relay.ipv6.map(|(ip, port)| (ip.into(), port));
        let at = |(ip, port): (IpAddr, u16)| {
            self.networks.iter().any(|(network, ports)| network.contains(ip) && ports.contains(port))
        };
        self.names(&relay.identity, &relay.nickname) || at(v4) || v6.is_some_and(at)
    }

    /// The same for a relay whose ports are not known: they do not count.
    pub(super) fn contains_kin(&self, kin: &Kin<'_>) -> bool {
        let at = |ip: IpAddr| self.networks.iter().any(|(network, _)| network.contains(ip));
        self.names(kin.identity, kin.nickname)
            || at(kin.ipv4.into())
            || kin.ipv6.is_some_and(|ip| at(ip.into()))
    }

    fn names(&self, identity: &Fingerprint, nickname: &Nickname) -> bool {
        self.identities.contains(identity)
            || !self.nicknames.is_empty() && self.nicknames.contains(&lower(nickname))
    }
}

fn lower(nickname: &Nickname) -> String {
    nickname.as_str().to_ascii_lowercase()
}

/// The networks that an entry stands for, read as one of a policy.
fn networks(entry: &str) -> Result<Vec<(Network, Ports)>, NodeSetError> {
    let shown = || entry.chars().take(SHOWN).collect();
    if entry.starts_with('{') {
        return Err(NodeSetError::Country(shown()));
    }
    match ExitPolicy::from_torrc([format!("reject {entry}").as_str()]) {
        Ok((policy, _)) => Ok(policy.rules().iter().map(|rule| (rule.network, rule.ports)).collect()),
        Err(_) => Err(NodeSetError::Entry(shown())),
    }
}

/// What a person says of the relays on their paths. Empty sets say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRules {
    /// First hops are only these (`EntryNodes`).
    pub entry: NodeSet,
    /// Last hops that let streams out are only these (`ExitNodes`).
    pub exit: NodeSet,
    /// Hops between first and last are only these (`MiddleNodes`).
    pub middle: NodeSet,
    /// These are not on a path (`ExcludeNodes`), and that counts more than the lists above.
    pub exclude: NodeSet,
    /// These let no streams out (`ExcludeExitNodes`).
    pub exclude_exit: NodeSet,
    /// Relays of one of these are not together on a path (`NodeFamily`).
    pub families: Vec<NodeSet>,
    /// Relays that are excluded are not even asked for the directory when no other is left (`StrictNodes`).
    pub strict: bool,
}

impl NodeRules {
    /// Whether the relay may be a first hop.
    pub fn allow_entry(&self, relay: &RelayStatus) -> bool {
        allow(&self.entry, relay) && !self.exclude.lists(relay)
    }

    /// Whether it may be between first and last.
    pub fn allow_middle(&self, relay: &RelayStatus) -> bool {
        allow(&self.middle, relay) && !self.exclude.lists(relay)
    }

    /// Whether it may let streams out.
    pub fn allow_exit(&self, relay: &RelayStatus) -> bool {
        allow(&self.exit, relay) && !self.exclude_exit.lists(relay) && !self.exclude.lists(relay)
    }

    /// Whether a person calls the two a family.
    pub(super) fn are_family(&self, a: &Kin<'_>, b: &Kin<'_>) -> bool {
        self.families.iter().any(|family| family.contains_kin(a) && family.contains_kin(b))
    }
}

fn allow(only: &NodeSet, relay: &RelayStatus) -> bool {
    only.is_empty() || only.lists(relay)
}
