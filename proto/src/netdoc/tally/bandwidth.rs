//! A relay's bandwidth: what was measured, or what it claims.

use super::collate::Opinions;
use super::count::low_median;
use crate::netdoc::vote::{SignedVote, VotedParams};

/// So many measurements, and so many authorities that measure, make a difference.
const ENOUGH: usize = 3;
/// Greatest claim that counts where bandwidths are measured, unless a parameter says otherwise.
const DEFAULT_UNMEASURED_CAP: u32 = 20;

/// What a consensus says of a bandwidth, in kilobytes (1000) a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    pub bandwidth: u32,
    /// Whether it is the relay's own claim.
    pub unmeasured: bool,
}

/// The greatest claim that counts, if enough authorities measure to make claims suspicious.
pub(super) fn unmeasured_cap(votes: &[&SignedVote], params: &VotedParams) -> Option<u32> {
    let measuring = votes.iter().filter(|v| v.vote.measures()).count();
    // A negative parameter wraps around to no limit, as in C tor.
    let cap = params.get("maxunmeasuredbw").map_or(DEFAULT_UNMEASURED_CAP, |n| n as u32);
    (measuring >= ENOUGH).then_some(cap.max(1))
}

/// The median of the measurements if there are enough, else that of the claims.
pub(super) fn agreed(opinions: &Opinions<'_>, unmeasured_cap: Option<u32>) -> Option<Weight> {
    let weights = || opinions.votes.iter().map(|(_, relay)| relay.weight);
    if weights().filter_map(|w| w.measured).count() >= ENOUGH {
        let bandwidth = low_median(weights().filter_map(|w| w.measured))?;
        return Some(Weight { bandwidth, unmeasured: false });
    }
    let claimed = low_median(weights().filter_map(|w| w.bandwidth))?;
    Some(Weight { bandwidth: claimed.min(unmeasured_cap.unwrap_or(u32::MAX)), unmeasured: true })
}

/// For how much of the time a guard has been one, in percent, if enough authorities say.
pub(super) fn guard_fraction(opinions: &Opinions<'_>) -> Option<u8> {
    let fractions = || opinions.votes.iter().filter_map(|(_, relay)| relay.weight.guard_fraction);
    if fractions().count() >= ENOUGH { low_median(fractions()) } else { None }
}
