//! Who takes part in the round of a relay: chance decides, among those who are no kin of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::path::{Kin, Rules};
use onionring_proto::time::Unix;
use rand_core::Rng;

use super::super::circuit_test::{Beyond, Cast, is_for_circuits};
use super::super::results::Results;
use crate::limits::CIRCUIT_HELPERS;

/// The relays, and what is known of them.
pub(super) struct Casting<'a> {
    pub relays: &'a BTreeMap<Fingerprint, Arc<RouterDesc>>,
    pub results: &'a Results,
    /// Whether relays of one network may vouch for each other, as in a testing network.
    pub testing: bool,
    pub now: Unix,
}

impl Casting<'_> {
    pub fn cast(&self, relay: &Arc<RouterDesc>, rng: &mut (impl Rng + ?Sized)) -> Cast {
        let rules = Rules {
            distinct_subnets: !self.testing,
            family_lists: true,
            family_ids: false,
            excluded: BTreeSet::new(),
            nodes: Arc::default(),
        };
        let fits = |other: &&Arc<RouterDesc>| {
            !other.hibernating
                && other.identity != relay.identity
                && self.results.is_up(&other.identity, self.now)
                && !rules.conflict(&kin(relay), &kin(other))
        };
        let is_proven = |other: &&Arc<RouterDesc>| self.results.is_proven(&other.identity, self.now);
        let (proven, unproven): (Vec<_>, Vec<_>) = self.relays.values().filter(fits).partition(is_proven);
        let (servers, others): (Vec<_>, Vec<_>) =
            proven.iter().copied().partition(|other| other.tunnelled_dir_server);
        let beyond = [(servers, true), (others, true), (unproven, false)].into_iter().flat_map(
            |(group, is_proven)| {
                pick(group, rng).into_iter().map(move |descriptor| Beyond { descriptor, is_proven })
            },
        );
        let beyond = beyond.take(CIRCUIT_HELPERS + 1).collect();
        let helpers = proven.into_iter().filter(|other| is_for_circuits(other)).collect();
        Cast { relay: relay.clone(), helpers: pick(helpers, rng), beyond }
    }
}

/// Some of the relays, [`CIRCUIT_HELPERS`] at most, in any order.
fn pick(mut from: Vec<&Arc<RouterDesc>>, rng: &mut (impl Rng + ?Sized)) -> Vec<Arc<RouterDesc>> {
    let mut picked = Vec::new();
    while picked.len() < CIRCUIT_HELPERS && !from.is_empty() {
        // Less than the length, which fits.
        let at = (rng.next_u64() % from.len() as u64) as usize;
        picked.push(from.swap_remove(at).clone());
    }
    picked
}

fn kin(relay: &RouterDesc) -> Kin<'_> {
    Kin {
        identity: &relay.identity,
        nickname: &relay.nickname,
        ipv4: relay.ipv4,
        ipv6: relay.ipv6.map(|(ip, _)| ip),
        family: &relay.family,
        family_ids: &[],
    }
}

#[cfg(test)]
mod tests;
