//! Which entries of different votes are about the same relay.
//!
//! A relay has two identities, and votes may pair them differently.

use std::collections::BTreeMap;

use super::count::more_than;
use crate::netdoc::text::Fingerprint;
use crate::netdoc::vote::{EdListing, SignedVote, VotedRelay};

/// What the votes say of one relay.
pub(super) struct Opinions<'a> {
    /// Its RSA identity.
    pub identity: Fingerprint,
    /// Whether more than half of the authorities agree on its Ed25519 identity too.
    pub ed_agreed: bool,
    /// Entries with the number of their vote, ascending; more than half of the authorities have one.
    pub votes: Vec<(usize, &'a VotedRelay)>,
}

/// The relays that more than half of the authorities list, ascending by RSA identity.
///
/// If more than half agree on a pair of identities, entries with another Ed25519 identity are left out; entries that
/// name none stay in.
pub(super) fn collate<'a>(votes: &[&'a SignedVote], authorities: usize) -> Vec<Opinions<'a>> {
    let mut by_identity: BTreeMap<Fingerprint, Vec<(usize, &VotedRelay)>> = BTreeMap::new();
    for (n, vote) in votes.iter().enumerate() {
        for relay in &vote.vote.relays {
            by_identity.entry(relay.identity).or_default().push((n, relay));
        }
    }
    let mut relays = Vec::with_capacity(by_identity.len());
    for (identity, mut votes) in by_identity {
        if votes.len() <= authorities / 2 {
            continue;
        }
        let agreed = agreed_ed_identity(&votes, authorities);
        if let Some(agreed) = agreed {
            votes.retain(|(_, relay)| [agreed, EdListing::Unlisted].contains(&relay.ed_identity));
        }
        relays.push(Opinions { identity, ed_agreed: agreed.is_some(), votes });
    }
    relays
}

/// What more than half of the authorities say the Ed25519 identity is; that it has none is a statement too.
fn agreed_ed_identity(votes: &[(usize, &VotedRelay)], authorities: usize) -> Option<EdListing> {
    let mut listed: Vec<EdListing> = votes.iter().map(|(_, relay)| relay.ed_identity).collect();
    listed.retain(|listing| *listing != EdListing::Unlisted);
    listed.sort_unstable();
    more_than(authorities / 2, &listed).next()
}
