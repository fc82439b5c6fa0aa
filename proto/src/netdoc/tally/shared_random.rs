//! Which shared random values the consensus gives (srv-spec).

use super::Terms;
use crate::netdoc::consensus::SharedRandom;
use crate::netdoc::vote::{SharedRandomVote, SignedVote, VotedParams};

/// The previous and the current value, each as far as enough authorities vote for it.
pub(super) fn agreed(
    votes: &[&SignedVote],
    params: &VotedParams,
    terms: &Terms,
) -> (Option<SharedRandom>, Option<SharedRandom>) {
    let Some(shared_random) = terms.shared_random else { return (None, None) };
    let mut needed = terms.authorities / 2 + 1;
    if shared_random.fresh {
        let agreements = params.get("AuthDirNumSRVAgreements");
        let agreements = agreements.map_or(terms.authorities * 2 / 3, |n| usize::try_from(n).unwrap_or(0));
        needed = needed.max(agreements);
    }
    let most = |value: fn(&SharedRandomVote) -> Option<SharedRandom>| {
        most_frequent(votes.iter().filter_map(|v| v.vote.shared_random.as_ref()).filter_map(value), needed)
    };
    (most(|vote| vote.previous), most(|vote| vote.current))
}

/// The most frequent value, of several the greatest, if at least `needed` give it.
///
/// How many reveals went into it does not distinguish values: it is what the first of those votes says, which are in the
/// order of the authorities' identities.
fn most_frequent(values: impl Iterator<Item = SharedRandom>, needed: usize) -> Option<SharedRandom> {
    let mut values: Vec<SharedRandom> = values.collect();
    values.sort_by_key(|v| v.value);
    let groups = values.chunk_by(|a, b| a.value == b.value);
    let most = groups.max_by_key(|same| same.len()).filter(|same| same.len() >= needed)?;
    most.first().copied()
}
