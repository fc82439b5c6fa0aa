//! Choosing the path of a circuit: its exit first, then a guard that goes with it, then the relays between.

use std::sync::Arc;

use onionring_proto::handshake::Terms;
use onionring_proto::netdoc::consensus::RelayFlags;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::origin::HopTarget;
use onionring_proto::path::{
    First, Kin, Last, Need, Network, PathError, PathSpec, Position, RelayRef, Rules, choose, choose_path,
};
use thiserror::Error;

use super::table::{Hop, Target};
use crate::guards::{Attempt, Guards, Purpose};

/// A path that is to be built.
pub struct Plan {
    /// The relays, first hop first.
    pub targets: Vec<HopTarget>,
    /// What the circuit must know of them.
    pub hops: Arc<[Hop]>,
    /// The use that is made of the guard, if it is one of few.
    pub guard: Option<Attempt>,
    /// Whether all of them are Stable.
    pub stable: bool,
}

/// Why there is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// No exit lets such a stream out.
    #[error("no exit lets it out that has not failed already")]
    NoExit,
    /// No guard can be used now.
    #[error("no guard can be used now")]
    NoGuard,
    /// No relay is left for another position.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// What a path is to be like.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// What its exit must serve.
    pub target: &'a Target,
    /// Whether its relays must be Stable.
    pub stable: bool,
    /// Exits that will not do.
    pub avoid: &'a [Fingerprint],
    /// Its hops.
    pub length: usize,
    /// What to ask its exit for, if that offers it.
    pub ask: Terms,
}

/// Chooses a path; without `guards`, it begins at any relay that is fit to be one.
pub fn choose_plan(
    network: &Network,
    rules: &Rules,
    guards: Option<&Arc<Guards>>,
    wanted: &Wanted<'_>,
) -> Result<Plan, PlanError> {
    let rng = &mut rand::rng();
    let exit = choose_exit(network, rules, wanted, &[]).ok_or(PlanError::NoExit)?;
    let goes_not_with_exit = |guard: &Fingerprint| {
        network.relay(guard).is_none_or(|guard| rules.conflict(&guard.kin(), &exit.kin()))
    };
    let guard = match guards {
        Some(guards) => Some(guards.select(Purpose::Circuit, &goes_not_with_exit).ok_or(PlanError::NoGuard)?),
        None => None,
    };
    let spec = PathSpec {
        len: wanted.length,
        first: guard.as_ref().map_or(First::AnyGuard, |guard| First::Given(guard.relay())),
        last: Last::Given(exit.kin()),
        stable: wanted.stable,
    };
    let mut path = choose_path(network, rules, &spec, rng)?;
    let targets = path.iter().map(RelayRef::hop_target).chain([last_hop(&exit, wanted)]).collect();
    path.push(exit);
    Ok(Plan {
        targets,
        hops: path.iter().map(|relay| Hop::new(relay, &rules.nodes)).collect(),
        guard,
        // What was asked for counts: there may be no better relays.
        stable: wanted.stable || path.iter().all(|relay| relay.status.flags.has(RelayFlags::STABLE)),
    })
}

/// Chooses another exit for a circuit whose last hop is cut off.
pub fn choose_new_exit(
    network: &Network,
    rules: &Rules,
    hops: &[Hop],
    wanted: &Wanted<'_>,
) -> Option<(HopTarget, Arc<[Hop]>)> {
    let (last, kept) = hops.split_last()?;
    let avoid: Vec<Fingerprint> = wanted.avoid.iter().copied().chain([last.identity]).collect();
    let wanted = &Wanted { avoid: &avoid, ..*wanted };
    // Those that are no longer listed cannot be told apart from their families.
    let relays: Vec<RelayRef<'_>> =
        kept.iter().map(|hop| network.relay(&hop.identity)).collect::<Option<_>>()?;
    let others: Vec<_> = relays.iter().map(RelayRef::kin).collect();
    let exit = choose_exit(network, rules, wanted, &others)?;
    Some((last_hop(&exit, wanted), kept.iter().cloned().chain([Hop::new(&exit, &rules.nodes)]).collect()))
}

/// How to extend a circuit to its exit: the one hop that is asked for anything.
fn last_hop(exit: &RelayRef<'_>, wanted: &Wanted<'_>) -> HopTarget {
    HopTarget { ask: wanted.ask.and(exit.offers()), ..exit.hop_target() }
}

/// Chooses an exit that goes with `others`.
fn choose_exit<'a>(
    network: &'a Network,
    rules: &Rules,
    wanted: &Wanted<'_>,
    others: &[Kin<'_>],
) -> Option<RelayRef<'a>> {
    let flags = if wanted.stable { RelayFlags::STABLE } else { RelayFlags::default() };
    let need = Need { position: Position::Exit, flags, preferred: RelayFlags::FAST };
    let serves = |relay: &RelayRef<'a>| {
        wanted.target.is_permitted(&relay.microdesc.policy, &relay.microdesc.policy_v6)
            && !wanted.avoid.contains(&relay.status.identity)
    };
    choose(network, rules, &need, others, serves, &mut rand::rng())
}
