//! All that precedes the relays.

use std::fmt::Write as _;

use super::count::{low_median, more_than};
use super::flags::FlagCount;
use super::{METHOD_WITHOUT_PACKAGES, Terms, packages, shared_random};
use crate::netdoc::consensus::{Flavor, Lifetime};
use crate::netdoc::protover::Protocols;
use crate::netdoc::text::Fingerprint;
use crate::netdoc::version;
use crate::netdoc::vote::{SignedVote, Vote, VotedParams, write_values};

/// What the header is made of.
pub(super) struct Header<'a> {
    pub votes: &'a [&'a SignedVote],
    pub method: u32,
    pub params: &'a VotedParams,
    pub flags: &'a FlagCount<'a>,
    pub terms: &'a Terms,
}

/// A line `dir-source`: an authority, or its former self.
pub(super) struct Source<'a> {
    pub identity: Fingerprint,
    is_legacy: bool,
    vote: &'a SignedVote,
}

impl<'a> Header<'a> {
    pub(super) fn write(&self, flavor: Flavor) -> String {
        let mut out = String::from(match flavor {
            Flavor::Ns => "network-status-version 3\n",
            Flavor::Microdesc => "network-status-version 3 microdesc\n",
        });
        // Writing to a String does not fail, here and below.
        let _ = writeln!(out, "vote-status consensus\nconsensus-method {}", self.method);
        self.lifetime().write(&mut out);
        let (vote, dist) = (self.median(|v| v.voting_delay.0), self.median(|v| v.voting_delay.1));
        let _ = writeln!(out, "voting-delay {} {}", vote.unwrap_or(0), dist.unwrap_or(0));
        let _ = writeln!(out, "client-versions {}", self.versions(|v| v.client_versions.as_deref()));
        let _ = writeln!(out, "server-versions {}", self.versions(|v| v.server_versions.as_deref()));
        if self.method < METHOD_WITHOUT_PACKAGES {
            packages::agreed(self.votes).iter().for_each(|line| _ = writeln!(out, "package {line}"));
        }
        let _ = writeln!(out, "known-flags {}", self.flags.names().join(" "));
        self.write_protocols(&mut out);
        if !self.params.is_empty() {
            let _ = writeln!(out, "params {}", self.params);
        }
        let (previous, current) = shared_random::agreed(self.votes, self.params, self.terms);
        write_values(&mut out, previous, current);
        self.sources().for_each(|source| source.write(&mut out));
        out
    }

    /// When the consensus holds. Medians of values that are in order in each vote are in order too.
    pub(super) fn lifetime(&self) -> Lifetime {
        let median =
            |time: fn(&Lifetime) -> crate::time::Unix| self.median(|v| time(&v.lifetime)).unwrap_or_default();
        Lifetime {
            valid_after: median(|l| l.valid_after),
            fresh_until: median(|l| l.fresh_until),
            valid_until: median(|l| l.valid_until),
        }
    }

    fn median<T: Ord + Copy>(&self, value: impl Fn(&Vote) -> T) -> Option<T> {
        low_median(self.votes.iter().map(|v| value(&v.vote)))
    }

    /// The versions that more than half of those recommend who recommend any, in order.
    fn versions(&self, list: fn(&Vote) -> Option<&[Box<str>]>) -> String {
        let mut voters = 0;
        let mut all: Vec<&str> = Vec::new();
        for list in self.votes.iter().filter_map(|v| list(&v.vote)) {
            voters += 1;
            let mut list: Vec<&str> = list.iter().map(|version| &**version).collect();
            list.sort_unstable_by(|a, b| version::compare(a, b).then_with(|| a.cmp(b)));
            // Two texts of one version in one vote count as one.
            list.dedup_by(|b, a| version::compare(a, b).is_eq());
            all.extend(list);
        }
        all.sort_unstable_by(|a, b| version::compare(a, b).then_with(|| a.cmp(b)));
        more_than(voters / 2, &all).collect::<Vec<_>>().join(",")
    }

    /// Protocol versions: recommended ones need half of the configured authorities, required ones two thirds.
    fn write_protocols(&self, out: &mut String) {
        type List = fn(&Vote) -> Option<&Protocols>;
        let half = self.terms.authorities.div_ceil(2);
        let two_thirds = (self.terms.authorities * 2).div_ceil(3);
        let lists: [(&str, List, usize); 4] = [
            ("recommended-client-protocols", |v| v.recommended_client_protocols.as_ref(), half),
            ("recommended-relay-protocols", |v| v.recommended_relay_protocols.as_ref(), half),
            ("required-client-protocols", |v| v.required_client_protocols.as_ref(), two_thirds),
            ("required-relay-protocols", |v| v.required_relay_protocols.as_ref(), two_thirds),
        ];
        for (keyword, list, threshold) in lists {
            let agreed = Protocols::agreed(self.votes.iter().filter_map(|v| list(&v.vote)), threshold);
            let _ = writeln!(out, "{keyword} {agreed}");
        }
    }

    /// The authorities that voted, by identity; one with a former identity is there twice.
    pub(super) fn sources(&self) -> impl Iterator<Item = Source<'a>> {
        let mut sources: Vec<Source<'a>> = Vec::new();
        for vote in self.votes {
            let Vote { authority, legacy_identity, .. } = &vote.vote;
            sources.push(Source { identity: authority.identity, is_legacy: false, vote });
            sources.extend(legacy_identity.map(|identity| Source { identity, is_legacy: true, vote }));
        }
        sources.sort_by_key(|source| source.identity);
        sources.into_iter()
    }
}

impl Source<'_> {
    fn write(&self, out: &mut String) {
        let a = &self.vote.vote.authority;
        let _ = writeln!(
            out,
            "dir-source {}{} {} {} {} {} {}",
            a.nickname,
            if self.is_legacy { "-legacy" } else { "" },
            self.identity,
            a.hostname,
            a.address,
            a.dir_port,
            a.or_port
        );
        if !self.is_legacy {
            let _ = writeln!(out, "contact {}\nvote-digest {}", a.contact, self.vote.digest);
        }
    }
}
