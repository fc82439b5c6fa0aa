//! Choosing relays for circuits (path-spec): by bandwidth, by what a position needs, and never two that one operator
//! or one network could hold together.
//!
//! A [`Network`] is a consensus with the microdescriptors it names. [`choose`] picks one relay for a position;
//! [`choose_path`] picks a whole path, last hop first. [`NodeRules`] are what a person says of the relays on it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use rand_core::Rng;
use thiserror::Error;

use crate::handshake::Terms;
use crate::netdoc::consensus::{Consensus, RelayFlags, RelayStatus};
use crate::netdoc::family::Family;
use crate::netdoc::microdesc::Microdesc;
use crate::netdoc::params::{ConsensusParams, MIN_PATHS_FOR_CIRCS_PCT, USE_FAMILY_IDS, USE_FAMILY_LISTS};
use crate::netdoc::protover::HALF_CLOSE;
use crate::netdoc::text::{Fingerprint, Nickname};
use crate::origin::{HandshakeKind, HopTarget};
use crate::relay_msg::LinkSpecs;

mod nodes;
mod weights;

pub use nodes::{NodeRules, NodeSet, NodeSetError};
pub use weights::{Position, Weights, draw};

/// Hops of an ordinary path.
pub const DEFAULT_LEN: usize = 3;

/// A consensus and the microdescriptors at hand.
#[derive(Clone, Debug)]
pub struct Network {
    consensus: Arc<Consensus>,
    /// As long as the consensus's list of relays, and in its order.
    microdescs: Vec<Option<Arc<Microdesc>>>,
    weights: Weights,
}

/// A relay of a [`Network`] that can be used: its microdescriptor is there.
#[derive(Clone, Copy, Debug)]
pub struct RelayRef<'a> {
    /// Its entry in the consensus.
    pub status: &'a RelayStatus,
    /// Its microdescriptor.
    pub microdesc: &'a Microdesc,
}

impl Network {
    /// Puts together a consensus (of the flavour `microdesc`) and the microdescriptors that `lookup` finds.
    pub fn new(consensus: Arc<Consensus>, lookup: impl Fn(&[u8; 32]) -> Option<Arc<Microdesc>>) -> Self {
        let microdescs = consensus.relays.iter().map(|r| r.microdesc().and_then(&lookup)).collect();
        let weights = Weights::new(&consensus);
        Network { consensus, microdescs, weights }
    }

    /// The consensus.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// Every relay whose microdescriptor is there.
    pub fn relays(&self) -> impl Iterator<Item = RelayRef<'_>> {
        let both = self.consensus.relays.iter().zip(&self.microdescs);
        both.filter_map(|(status, md)| md.as_deref().map(|microdesc| RelayRef { status, microdesc }))
    }

    /// The relay with this RSA identity, if its microdescriptor is there.
    pub fn relay(&self, identity: &Fingerprint) -> Option<RelayRef<'_>> {
        let n = self.consensus.relays.binary_search_by(|r| r.identity.cmp(identity)).ok()?;
        let microdesc = self.microdescs.get(n)?.as_deref()?;
        Some(RelayRef { status: self.consensus.relays.get(n)?, microdesc })
    }

    /// Weights of relays by position.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The share of paths, by weight, all of whose relays have their microdescriptor here: 0 to 1.
    pub fn known_paths(&self) -> f64 {
        let guard = self.known_share(Position::Guard, |r| r.flags.has(RelayFlags::GUARD));
        let middle = self.known_share(Position::Middle, |_| true);
        let exit = self.known_share(Position::Exit, |r| {
            r.flags.has(RelayFlags::EXIT) && !r.flags.has(RelayFlags::BAD_EXIT)
        });
        // Without any exit, paths within the network are all there is.
        guard.unwrap_or(0.0) * middle.unwrap_or(0.0) * exit.or(middle).unwrap_or(0.0)
    }

    /// Whether enough is known to choose paths without a directory being able to steer the choice.
    pub fn is_sufficient(&self) -> bool {
        let percent = self.consensus.params.get(&MIN_PATHS_FOR_CIRCS_PCT);
        self.known_paths() * 100.0 >= f64::from(percent)
    }

    /// Of the relays for which `fits`, the share by weight that is known; `None` if there is no such relay.
    fn known_share(&self, position: Position, fits: impl Fn(&RelayStatus) -> bool) -> Option<f64> {
        let fits = |r: &RelayStatus| r.flags.has(RelayFlags::RUNNING | RelayFlags::VALID) && fits(r);
        let both = || self.consensus.relays.iter().zip(&self.microdescs).filter(|(r, _)| fits(r));
        let count = both().count();
        let known = || both().filter(|(_, md)| md.is_some());
        let sum = |r: &RelayStatus| self.weights.of(position, r);
        let total: f64 = both().map(|(r, _)| sum(r)).sum();
        match count {
            0 => None,
            // All weights may be 0 in a small or new network: then heads count.
            _ if total <= 0.0 => Some(known().count() as f64 / count as f64),
            _ => Some(known().map(|(r, _)| sum(r)).sum::<f64>() / total),
        }
    }
}

/// What decides whether two relays may be on one path; also filled in for ourselves, who may not be listed.
#[derive(Clone, Copy, Debug)]
pub struct Kin<'a> {
    /// RSA identity.
    pub identity: &'a Fingerprint,
    /// Nickname.
    pub nickname: &'a Nickname,
    /// IPv4 address.
    pub ipv4: Ipv4Addr,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The relays it calls its family.
    pub family: &'a Family,
    /// The families it has proved to belong to.
    pub family_ids: &'a [Box<str>],
}

impl<'a> RelayRef<'a> {
    /// Its relations.
    pub fn kin(&self) -> Kin<'a> {
        Kin {
            identity: &self.status.identity,
            nickname: &self.status.nickname,
            ipv4: self.status.ipv4,
            ipv6: self.status.ipv6.map(|(ip, _)| ip),
            family: &self.microdesc.family,
            family_ids: &self.microdesc.family_ids,
        }
    }

    /// Whether streams to names and this port are likely to be let out, over IPv4 or, if so said, IPv6. What is known of
    /// the policy is its summary, which tells nothing of single networks.
    pub fn permits(&self, port: u16, v6: bool) -> bool {
        match v6 {
            true => self.microdesc.policy_v6.permits(port),
            false => self.microdesc.policy.permits(port),
        }
    }

    /// The same for this address. An IPv4 address written as an IPv6 one is judged as IPv4. Summaries leave out internal
    /// networks, so whether to try one is for others to say.
    pub fn permits_address(&self, address: IpAddr, port: u16) -> bool {
        self.permits(port, address.to_canonical().is_ipv6())
    }

    /// Whether it lets any stream out.
    pub fn is_exit(&self) -> bool {
        !self.microdesc.policy.rejects_all() || !self.microdesc.policy_v6.rejects_all()
    }

    /// Whether it says that it knows ntor-v3.
    fn knows_ntor_v3(&self) -> bool {
        self.microdesc.ed_identity.is_some() && self.status.protocols.supports("Relay", 4)
    }

    /// What it says that it grants who asks for it.
    pub fn offers(&self) -> Terms {
        let (name, version) = HALF_CLOSE;
        Terms { half_close: self.knows_ntor_v3() && self.status.protocols.supports(name, version) }
    }

    /// What a circuit needs to be extended to it: with ntor-v3 if the relay says that it knows it, with ntor otherwise.
    /// Asks it for no terms.
    pub fn hop_target(&self) -> HopTarget {
        let v3 = self.knows_ntor_v3();
        HopTarget {
            specs: LinkSpecs {
                ipv4: Some(SocketAddrV4::new(self.status.ipv4, self.status.or_port)),
                ipv6: self.status.ipv6.map(|(ip, port)| SocketAddrV6::new(ip, port, 0, 0)),
                rsa_id: self.status.identity.0,
                ed_id: self.microdesc.ed_identity,
            },
            onion_key: self.microdesc.ntor_onion_key,
            handshake: if v3 { HandshakeKind::NtorV3 } else { HandshakeKind::Ntor },
            ask: Terms::default(),
        }
    }
}

/// The rules for a path.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whether relays of one IPv4 /16 or IPv6 /32 exclude each other (`EnforceDistinctSubnets`; off in testing
    /// networks, where all relays share one machine).
    pub distinct_subnets: bool,
    /// Whether mutual `family` lists make a family.
    pub family_lists: bool,
    /// Whether shared family keys make a family.
    pub family_ids: bool,
    /// Relays that are not to be used.
    pub excluded: BTreeSet<Fingerprint>,
    /// What a person says of relays.
    pub nodes: Arc<NodeRules>,
}

impl Rules {
    /// The rules of a network with these parameters.
    pub fn new(params: &ConsensusParams, distinct_subnets: bool) -> Self {
        Rules {
            distinct_subnets,
            family_lists: params.is_on(&USE_FAMILY_LISTS),
            family_ids: params.is_on(&USE_FAMILY_IDS),
            excluded: BTreeSet::new(),
            nodes: Arc::default(),
        }
    }

    /// Whether the two must not be on one path.
    pub fn conflict(&self, a: &Kin<'_>, b: &Kin<'_>) -> bool {
        let same_subnet = || {
            let v4 = |ip: Ipv4Addr| u32::from(ip) >> 16;
            let v6 = |ip: Ipv6Addr| u128::from(ip) >> 96;
            v4(a.ipv4) == v4(b.ipv4) || a.ipv6.zip(b.ipv6).is_some_and(|(a, b)| v6(a) == v6(b))
        };
        let listed = || a.family.names(b.identity, b.nickname) && b.family.names(a.identity, a.nickname);
        let proved = || a.family_ids.iter().any(|id| b.family_ids.contains(id));
        a.identity == b.identity
            || self.distinct_subnets && same_subnet()
            || self.family_lists && listed()
            || self.family_ids && proved()
            || self.nodes.are_family(a, b)
    }
}

/// What a relay must be to be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// For which position; decides the weights, and whether MiddleOnly and BadExit relays are left out.
    pub position: Position,
    /// Flags it must have; Running and Valid always are needed.
    pub flags: RelayFlags,
    /// Flags it should have: if no relay has them, others will do.
    pub preferred: RelayFlags,
}

impl Need {
    /// Whether the relay will do, flags that are only preferred aside.
    fn fits(&self, relay: &RelayStatus) -> bool {
        let flags = relay.flags;
        flags.has(self.flags | RelayFlags::RUNNING | RelayFlags::VALID)
            && (self.position == Position::Middle || !flags.has(RelayFlags::MIDDLE_ONLY))
            && (self.position != Position::Exit || !flags.has(RelayFlags::BAD_EXIT))
            // Without ntor and EXTEND2 nothing can be built through it (tor-spec 9.3).
            && relay.protocols.supports("Relay", 2)
    }
}

/// Chooses a relay that fits `need` and `wanted` and goes with all of `others`, with a probability proportional to its
/// weight in the position; `None` if there is no such relay.
///
/// What a person says of relays counts: what they exclude, and for exits, which they want. One that they exclude may still
/// be asked for the directory when there is no other and they are not strict (`StrictNodes`).
pub fn choose<'a>(
    network: &'a Network,
    rules: &Rules,
    need: &Need,
    others: &[Kin<'_>],
    wanted: impl Fn(&RelayRef<'a>) -> bool,
    rng: &mut (impl Rng + ?Sized),
) -> Option<RelayRef<'a>> {
    let fits = |r: &RelayRef<'a>| {
        need.fits(r.status)
            && !rules.excluded.contains(&r.status.identity)
            && wanted(r)
            && !others.iter().any(|other| rules.conflict(&r.kin(), other))
    };
    let allowed = |r: &RelayRef<'a>| match need.position {
        Position::Exit => rules.nodes.allow_exit(r.status),
        Position::Guard | Position::Middle | Position::Directory => !rules.nodes.exclude.contains(r),
    };
    let mut all: Vec<RelayRef<'a>> = network.relays().filter(|r| allowed(r) && fits(r)).collect();
    if all.is_empty() && need.position == Position::Directory && !rules.nodes.strict {
        all = network.relays().filter(fits).collect();
    }
    if all.iter().any(|r| r.status.flags.has(need.preferred)) {
        all.retain(|r| r.status.flags.has(need.preferred));
    }
    draw(&all, |r| network.weights.of(need.position, r.status), rng)
}

/// The first hop of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Any relay with the flag Guard: for circuits that carry no user's traffic.
    AnyGuard,
    /// This one: a guard that was chosen before.
    Given(Fingerprint),
}

/// The last hop of a path.
#[derive(Clone, Copy, Debug)]
pub enum Last<'a> {
    /// Any relay.
    Any,
    /// A directory cache.
    Directory,
    /// An exit that lets streams out to this port, over IPv4 or, if so said, IPv6.
    Exit {
        /// The port.
        port: u16,
        /// Whether over IPv6.
        v6: bool,
    },
    /// An exit that lets streams out to this address and port.
    ExitTo {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// An exit, for what leaves no stream: names and addresses that it is to look up.
    AnyExit,
    /// This relay, which need not be in the network (ourselves, for a self-test). It is not part of the path that
    /// comes back: that is one hop shorter.
    Given(Kin<'a>),
}

/// A path to choose.
#[derive(Clone, Copy, Debug)]
pub struct PathSpec<'a> {
    /// Hops, the last included.
    pub len: usize,
    /// The first hop.
    pub first: First,
    /// The last hop.
    pub last: Last<'a>,
    /// Whether the circuit will live long, so that its relays should be Stable.
    pub stable: bool,
}

/// Why no path was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// A path needs at least one hop that is chosen.
    #[error("a path of {0} hops leaves nothing to choose")]
    TooShort(usize),
    /// No relay fits here and goes with the others.
    #[error(
        "no relay is left for the {0:?} position: wait for more of the directory, or relax the path rules"
    )]
    NoRelay(Position),
    /// The guard that was given is not in the network, or does not go with the last hop.
    #[error("the guard {0} cannot be used on this path")]
    Guard(Fingerprint),
}

/// Chooses a path; the relays come in the order in which the circuit passes them.
///
/// The last hop is chosen first, then the first, then those between (path-spec 2.2).
pub fn choose_path<'a>(
    network: &'a Network,
    rules: &Rules,
    spec: &PathSpec<'_>,
    rng: &mut (impl Rng + ?Sized),
) -> Result<Vec<RelayRef<'a>>, PathError> {
    let preferred = if spec.stable { RelayFlags::FAST | RelayFlags::STABLE } else { RelayFlags::FAST };
    let need = |position, flags| Need { position, flags, preferred };
    let none = RelayFlags::default();

    let last = match spec.last {
        Last::Given(_) => None,
        Last::Any => Some(
            choose(network, rules, &need(Position::Middle, none), &[], |_| true, rng)
                .ok_or(PathError::NoRelay(Position::Middle))?,
        ),
        Last::Directory => {
            let need = need(Position::Directory, RelayFlags::V2_DIR);
            Some(
                choose(network, rules, &need, &[], |_| true, rng)
                    .ok_or(PathError::NoRelay(Position::Directory))?,
            )
        }
        Last::Exit { .. } | Last::ExitTo { .. } | Last::AnyExit => {
            let need = need(Position::Exit, none);
            let permits = |r: &RelayRef<'_>| match spec.last {
                Last::Exit { port, v6 } => r.permits(port, v6),
                Last::ExitTo { address, port } => r.permits_address(address, port),
                _ => r.is_exit(),
            };
            Some(choose(network, rules, &need, &[], permits, rng).ok_or(PathError::NoRelay(Position::Exit))?)
        }
    };
    let given = match &spec.last {
        Last::Given(kin) => Some(*kin),
        _ => None,
    };
    let mut taken: Vec<Kin<'_>> = last.iter().map(RelayRef::kin).chain(given).collect();
    // Hops to choose before the last.
    let before =
        spec.len.checked_sub(1).filter(|n| *n > 0 || last.is_some()).ok_or(PathError::TooShort(spec.len))?;
    let mut path = Vec::with_capacity(spec.len);
    if before > 0 {
        let first = match spec.first {
            First::Given(identity) => network
                .relay(&identity)
                .filter(|r| !taken.iter().any(|t| rules.conflict(&r.kin(), t)))
                .ok_or(PathError::Guard(identity))?,
            First::AnyGuard => {
                let need = need(Position::Guard, RelayFlags::GUARD);
                choose(network, rules, &need, &taken, |r| rules.nodes.allow_entry(r.status), rng)
                    .ok_or(PathError::NoRelay(Position::Guard))?
            }
        };
        taken.push(first.kin());
        path.push(first);
    }
    for _ in 1..before {
        let need = need(Position::Middle, none);
        let middle = choose(network, rules, &need, &taken, |r| rules.nodes.allow_middle(r.status), rng)
            .ok_or(PathError::NoRelay(Position::Middle))?;
        taken.push(middle.kin());
        path.push(middle);
    }
    path.extend(last);
    Ok(path)
}

#[cfg(test)]
mod tests;
