//! The network's parameters.

use std::collections::BTreeMap;

use super::count::low_median;
use crate::netdoc::vote::{SignedVote, VotedParams};

/// So many votes on a parameter are enough, however many authorities there are.
const ENOUGH: usize = 3;

/// Each parameter that enough authorities vote on, with the median of their values.
pub(super) fn agreed(votes: &[&SignedVote], authorities: usize) -> VotedParams {
    let mut values: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (name, value) in votes.iter().flat_map(|v| v.vote.params.iter()) {
        values.entry(name).or_default().push(value);
    }
    let enough = |count| count > authorities / 2 || count >= ENOUGH;
    let agreed = values.into_iter().filter(|(_, values)| enough(values.len()));
    agreed.filter_map(|(name, values)| Some((name, low_median(values)?))).collect()
}
