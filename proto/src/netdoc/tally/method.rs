//! Which consensus method is used.

use std::collections::BTreeSet;

use super::METHODS;
use super::count::more_than;
use crate::netdoc::vote::SignedVote;

/// The highest method that more than two thirds of the votes list. If that is none of ours, all we can do is to take
/// our newest: the others will not sign the result.
pub(super) fn agreed(votes: &[&SignedVote]) -> u32 {
    let each_once = |v: &&SignedVote| v.vote.methods.iter().copied().collect::<BTreeSet<u32>>();
    let mut listed: Vec<u32> = votes.iter().flat_map(each_once).collect();
    listed.sort_unstable();
    let best = more_than(votes.len() * 2 / 3, &listed).last();
    best.filter(|method| METHODS.contains(method)).unwrap_or(*METHODS.end())
}
