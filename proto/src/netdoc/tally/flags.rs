//! Counting flags.

use std::collections::BTreeSet;

use super::collate::Opinions;
use super::naming::{NAMED, UNNAMED};
use crate::netdoc::vote::{SignedVote, VotedRelay};

/// Given to relays on whose Ed25519 identity there is no agreement; nobody votes for it.
pub(super) const NO_ED_CONSENSUS: &str = "NoEdConsensus";

/// All flags that anybody votes on.
pub(super) struct FlagCount<'a> {
    /// Their names, sorted.
    names: Vec<&'a str>,
    /// How many votes are on each.
    voters: Vec<usize>,
    /// For each vote, which of the names its bits stand for: positions in `names` and `voters`.
    meanings: Vec<Vec<usize>>,
}

impl<'a> FlagCount<'a> {
    pub(super) fn new(votes: &[&'a SignedVote]) -> Self {
        let known = votes.iter().flat_map(|v| v.vote.known_flags.iter().map(|flag| &**flag));
        let names: BTreeSet<&str> = known.chain([NO_ED_CONSENSUS]).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let mut voters = vec![0; names.len()];
        let meanings = votes.iter().map(|v| {
            // Every known flag is among the names.
            v.vote.known_flags.iter().filter_map(|flag| names.binary_search(&&**flag).ok()).collect()
        });
        let meanings: Vec<Vec<usize>> = meanings.collect();
        meanings.iter().flatten().for_each(|n| voters[*n] += 1);
        FlagCount { names, voters, meanings }
    }

    /// The names, sorted.
    pub(super) fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// Whether a vote's entry has a flag.
    pub(super) fn gives(&self, voter: usize, relay: &VotedRelay, flag: &str) -> bool {
        let meanings = self.meanings.get(voter).map_or(&[][..], Vec::as_slice);
        let bit = meanings.iter().take(64).position(|n| self.names[*n] == flag);
        bit.is_some_and(|bit| relay.flags >> bit & 1 == 1)
    }

    /// The flags that more than half of those who vote on them give a relay, sorted; those with a meaning of their own
    /// are left to the caller.
    pub(super) fn agreed(&self, opinions: &Opinions<'_>) -> Vec<&'a str> {
        let mut counts = vec![0; self.names.len()];
        for (voter, relay) in &opinions.votes {
            let meanings = self.meanings.get(*voter).map_or(&[][..], Vec::as_slice);
            // A vote has at most 64 flags, see `limits::VOTE_KNOWN_FLAGS`.
            for (bit, n) in meanings.iter().enumerate().take(64) {
                counts[*n] += usize::from(relay.flags >> bit & 1 == 1);
            }
        }
        let counted = self.names.iter().zip(counts.iter().zip(&self.voters));
        let agreed = counted.filter(|(_, (count, voters))| **count > **voters / 2);
        agreed
            .map(|(name, _)| *name)
            .filter(|name| ![NAMED, UNNAMED, NO_ED_CONSENSUS].contains(name))
            .collect()
    }
}
