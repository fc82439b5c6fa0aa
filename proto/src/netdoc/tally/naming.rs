//! Nicknames that belong to one relay: the flags `Named` and `Unnamed`.
//!
//! No deployed authority votes on them any more, but those that compute consensuses heed whoever does.

use std::collections::BTreeMap;

use crate::netdoc::text::{Fingerprint, Nickname};
use crate::netdoc::vote::SignedVote;

pub(super) const NAMED: &str = "Named";
pub(super) const UNNAMED: &str = "Unnamed";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Relay(Fingerprint),
    /// Authorities disagree.
    Disputed,
    /// It is none of those seen.
    Unknown,
}

/// Whose nicknames are, by nickname in lower case.
#[derive(Default)]
pub(super) struct Names(BTreeMap<String, Owner>);

impl Names {
    pub(super) fn new(votes: &[&SignedVote]) -> Self {
        let mut names = Names::default();
        for (nickname, identity) in flagged(votes, NAMED) {
            let owner = names.0.entry(key(nickname)).or_insert(Owner::Relay(identity));
            if *owner != Owner::Relay(identity) {
                *owner = Owner::Disputed;
            }
        }
        for (nickname, identity) in flagged(votes, UNNAMED) {
            let owner = names.0.entry(key(nickname)).or_insert(Owner::Unknown);
            if *owner == Owner::Relay(identity) {
                *owner = Owner::Disputed;
            }
        }
        names
    }

    /// The flag that a relay of this nickname has.
    pub(super) fn flag(&self, nickname: Nickname, identity: Fingerprint) -> Option<&'static str> {
        let owner = self.0.get(&key(nickname))?;
        Some(if *owner == Owner::Relay(identity) { NAMED } else { UNNAMED })
    }
}

fn key(nickname: Nickname) -> String {
    nickname.as_str().to_ascii_lowercase()
}

/// The relays to which votes give a flag, vote by vote.
fn flagged<'a>(votes: &[&'a SignedVote], flag: &'a str) -> impl Iterator<Item = (Nickname, Fingerprint)> {
    votes.iter().filter_map(move |v| Some((&v.vote, v.vote.flag_bit(flag)?))).flat_map(|(vote, bit)| {
        vote.relays.iter().filter(move |r| r.flags & bit != 0).map(|r| (r.nickname, r.identity))
    })
}
