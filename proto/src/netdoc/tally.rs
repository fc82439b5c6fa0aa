//! Computing a consensus from votes (dir-spec 3.8).
//!
//! Authorities do not negotiate: each computes the consensus from the votes that it has and signs it. That only works
//! if all come to the same bytes, so every rule here is one that the deployed authorities follow, down to which of two
//! equally popular opinions wins. The rules that changed over time go by the number of the consensus method.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::netdoc::consensus::{Flavor, UnsignedConsensus};
use crate::netdoc::text::Fingerprint;
use crate::netdoc::vote::SignedVote;

mod bandwidth;
mod collate;
mod count;
mod flags;
mod header;
mod method;
mod naming;
mod packages;
mod params;
mod relay;
mod shared_random;
mod weights;

use collate::collate;
use flags::FlagCount;
use naming::Names;
use weights::Totals;

/// The consensus methods that we can compute, all that C tor 0.4.9 can.
pub const METHODS: RangeInclusive<u32> = 32..=35;
/// From this method on, the `microdesc` flavour has a fixed time for when descriptors were published.
const METHOD_WITHOUT_PUBLISHED: u32 = 33;
/// From this method on, there are no `package` lines.
const METHOD_WITHOUT_PACKAGES: u32 = 34;
/// From this method on, microdescriptors list families by key.
pub(super) const METHOD_WITH_FAMILY_IDS: u32 = 35;

/// What the votes do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Number of configured authorities, whether they vote or not: most majorities are counted among these.
    pub authorities: usize,
    /// Our part in the shared random protocol; without one we give no values.
    pub shared_random: Option<SharedRandomTerms>,
}

/// What the shared random protocol adds to [`Terms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedRandomTerms {
    /// Whether this is the first consensus after a run of the protocol, so that the current value is a new one and
    /// more authorities have to agree on it.
    pub fresh: bool,
}

/// Why no consensus can be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TallyError {
    /// There are not enough votes.
    #[error("{votes} votes are not enough, a consensus of {authorities} authorities takes {}", authorities / 2 + 1)]
    TooFewVotes {
        /// Votes at hand.
        votes: usize,
        /// Authorities configured.
        authorities: usize,
    },
    /// There are more votes than authorities.
    #[error("{votes} votes of {authorities} authorities: pass only those of configured authorities")]
    TooManyVotes {
        /// Votes at hand.
        votes: usize,
        /// Authorities configured.
        authorities: usize,
    },
    /// An authority has two votes.
    #[error("authority {0} has more than one vote: pass the latest only")]
    TwoVotes(Fingerprint),
    /// Nobody says which relays are running, so the consensus would list none.
    #[error("no authority votes on the flag Running")]
    NobodyKnowsRunning,
}

/// A consensus in its two flavours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The method by which it was computed.
    pub method: u32,
    /// Flavour [`Flavor::Ns`].
    pub ns: UnsignedConsensus,
    /// Flavour [`Flavor::Microdesc`].
    pub microdesc: UnsignedConsensus,
}

impl Tally {
    /// Computes the consensus of `votes`, in whatever order they come. They must be those of configured authorities
    /// for one and the same time.
    ///
    /// # Errors
    /// [`TallyError`].
    pub fn of<'a>(
        votes: impl IntoIterator<Item = &'a SignedVote>,
        terms: &Terms,
    ) -> Result<Self, TallyError> {
        let mut votes: Vec<&SignedVote> = votes.into_iter().collect();
        votes.sort_by_key(|v| v.vote.authority.identity);
        check(&votes, terms)?;

        let method = method::agreed(&votes);
        let params = params::agreed(&votes, terms.authorities);
        let flags = FlagCount::new(&votes);
        let names = Names::new(&votes);
        let header = header::Header { votes: &votes, method, params: &params, flags: &flags, terms };
        let mut docs = Flavor::ALL.map(|flavor| header.write(flavor));

        let rules = relay::Rules {
            method,
            flags: &flags,
            names: &names,
            unmeasured_cap: bandwidth::unmeasured_cap(&votes, &params),
        };
        let mut totals = Totals::default();
        for opinions in collate(&votes, terms.authorities) {
            let Some(listing) = rules.listing(&opinions) else { continue };
            listing.count(&mut totals);
            for (flavor, doc) in Flavor::ALL.into_iter().zip(&mut docs) {
                listing.write(flavor, method, doc);
            }
        }

        let footer = weights::footer(&totals, &params);
        let [ns, microdesc] = docs;
        let finish = |flavor, text: String| UnsignedConsensus {
            flavor,
            lifetime: header.lifetime(),
            sources: header.sources().map(|source| source.identity).collect(),
            text: text + footer.as_str(),
        };
        Ok(Tally { method, ns: finish(Flavor::Ns, ns), microdesc: finish(Flavor::Microdesc, microdesc) })
    }
}

fn check(votes: &[&SignedVote], terms: &Terms) -> Result<(), TallyError> {
    let authorities = terms.authorities;
    if votes.len() <= authorities / 2 {
        return Err(TallyError::TooFewVotes { votes: votes.len(), authorities });
    }
    if votes.len() > authorities {
        return Err(TallyError::TooManyVotes { votes: votes.len(), authorities });
    }
    let mut voters = BTreeSet::new();
    if let Some(twice) = votes.iter().find(|v| !voters.insert(v.vote.authority.identity)) {
        return Err(TallyError::TwoVotes(twice.vote.authority.identity));
    }
    if !votes.iter().any(|v| v.vote.flag_bit("Running").is_some()) {
        return Err(TallyError::NobodyKnowsRunning);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
