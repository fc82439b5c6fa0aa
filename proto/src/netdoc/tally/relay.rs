//! What the consensus says of one relay.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::net::Ipv6Addr;

use super::METHOD_WITHOUT_PUBLISHED;
use super::bandwidth::{self, Weight};
use super::collate::Opinions;
use super::count::{most_frequent, most_frequent_by};
use super::flags::{FlagCount, NO_ED_CONSENSUS};
use super::naming::{NAMED, Names};
use super::weights::Totals;
use crate::netdoc::consensus::Flavor;
use crate::netdoc::text::{self, Nickname};
use crate::netdoc::version;
use crate::netdoc::vote::VotedRelay;

/// Stands for the time of publication where that is not given.
const NO_TIME: &str = "2038-01-01 00:00:00";

/// What decides on all relays alike.
pub(super) struct Rules<'a> {
    pub method: u32,
    pub flags: &'a FlagCount<'a>,
    pub names: &'a Names,
    /// See [`bandwidth::unmeasured_cap`].
    pub unmeasured_cap: Option<u32>,
}

/// A relay that the consensus lists.
pub(super) struct Listing<'a> {
    /// A vote for what is listed: addresses, ports, descriptor.
    chosen: &'a VotedRelay,
    nickname: Nickname,
    ipv6: Option<(Ipv6Addr, u16)>,
    microdesc: Option<[u8; 32]>,
    flags: Vec<&'a str>,
    version: Option<&'a str>,
    protocols: &'a str,
    weight: Option<Weight>,
    guard_fraction: Option<u8>,
    policy: Option<&'a str>,
}

impl<'r> Rules<'r> {
    /// The relay's entry; `None` if the authorities do not agree that it is running and valid.
    pub(super) fn listing<'a>(&'a self, opinions: &Opinions<'a>) -> Option<Listing<'a>> {
        let relays = || opinions.votes.iter().map(|(_, relay)| *relay);
        let chosen = most_popular(relays())?;
        let same = || relays().filter(|relay| order(relay) == order(chosen));
        let nickname = self.nickname(opinions, chosen);
        let flags = self.flags(opinions, nickname);
        if !flags.contains(&"Running") || !flags.contains(&"Valid") {
            return None;
        }
        let is_guard = flags.contains(&"Guard");
        Some(Listing {
            chosen,
            nickname,
            // Of addresses with an equal number of votes the greatest counts, of ports the least.
            ipv6: most_frequent(same().filter_map(ipv6).map(|(ip, port)| (ip, Reverse(port))))
                .map(|(ip, Reverse(port))| (ip, port)),
            microdesc: most_frequent(same().filter_map(|relay| relay.microdesc(self.method)).copied())
                .filter(|digest| *digest != [0; 32]),
            flags,
            version: most_frequent_by(relays().filter_map(version_of), |a, b| {
                version::compare(a, b).then_with(|| a.cmp(b))
            }),
            protocols: most_frequent(relays().map(|relay| &*relay.protocols))?,
            weight: bandwidth::agreed(opinions, self.unmeasured_cap),
            guard_fraction: is_guard.then(|| bandwidth::guard_fraction(opinions)).flatten(),
            policy: policy(opinions, chosen),
        })
    }

    /// The chosen entry's, unless authorities that give the flag `Named` agree on another.
    fn nickname(&self, opinions: &Opinions<'_>, chosen: &VotedRelay) -> Nickname {
        let mut named = opinions.votes.iter().filter(|(voter, relay)| self.flags.gives(*voter, relay, NAMED));
        match named.next() {
            Some((_, first)) if named.all(|(_, other)| other.nickname == first.nickname) => first.nickname,
            _ => chosen.nickname,
        }
    }

    fn flags(&self, opinions: &Opinions<'_>, nickname: Nickname) -> Vec<&'r str> {
        let mut flags = self.flags.agreed(opinions);
        let named = self.names.flag(nickname, opinions.identity);
        flags.extend(self.flags.names().iter().filter(|name| named == Some(**name)));
        if !opinions.ed_agreed {
            flags.push(NO_ED_CONSENSUS);
        }
        if flags.contains(&"MiddleOnly") {
            flags.retain(|flag| !["Exit", "Guard", "HSDir", "V2Dir"].contains(flag));
            if self.flags.names().contains(&"BadExit") && !flags.contains(&"BadExit") {
                flags.push("BadExit");
            }
        }
        flags.sort_unstable();
        flags
    }
}

/// What makes two entries the same, in the order in which equally popular ones are chosen.
fn order(relay: &VotedRelay) -> impl Ord + use<> {
    let VotedRelay { descriptor, published, nickname, ipv4, or_port, dir_port, .. } = *relay;
    (descriptor, Reverse(published), Reverse(nickname), ipv4, Reverse(or_port), Reverse(dir_port))
}

/// An entry of those that are the same most often; of several the one published last, then the first in order.
fn most_popular<'a>(relays: impl Iterator<Item = &'a VotedRelay>) -> Option<&'a VotedRelay> {
    let mut relays: Vec<&VotedRelay> = relays.collect();
    relays.sort_by_key(|relay| order(relay));
    let groups = relays.chunk_by(|a, b| order(a) == order(b)).rev();
    // Of equal maxima `max_by_key` gives the last; they come in reverse.
    let most = groups.max_by_key(|same| (same.len(), same.first().map(|relay| relay.published)))?;
    most.first().copied()
}

fn ipv6(relay: &VotedRelay) -> Option<(Ipv6Addr, u16)> {
    relay.ipv6.filter(|(ip, port)| !ip.is_unspecified() && *port != 0)
}

fn version_of(relay: &VotedRelay) -> Option<&str> {
    relay.version.as_deref().filter(|version| !version.is_empty())
}

/// The policy that goes with the chosen descriptor, or else any.
fn policy<'a>(opinions: &Opinions<'a>, chosen: &VotedRelay) -> Option<&'a str> {
    let votes = || opinions.votes.iter().map(|(_, relay)| *relay);
    let same = votes().filter(|relay| relay.descriptor == chosen.descriptor);
    most_frequent(same.filter_map(|relay| relay.policy.as_deref()))
        .or_else(|| most_frequent(votes().filter_map(|relay| relay.policy.as_deref())))
}

impl Listing<'_> {
    /// Adds the relay's bandwidth to the totals.
    pub(super) fn count(&self, totals: &mut Totals) {
        let Some(weight) = self.weight else { return };
        let has = |flag| self.flags.contains(&flag);
        let is_exit = has("Exit") && !has("BadExit");
        totals.add(weight.bandwidth, is_exit, has("Guard"), self.guard_fraction);
    }

    /// Writes the entry. Without a microdescriptor there is none in that flavour.
    pub(super) fn write(&self, flavor: Flavor, method: u32, out: &mut String) {
        let microdesc = match flavor {
            Flavor::Ns => None,
            Flavor::Microdesc if self.microdesc.is_none() => return,
            Flavor::Microdesc => self.microdesc,
        };
        let VotedRelay { identity, descriptor, published, ipv4, or_port, dir_port, .. } = self.chosen;
        // Writing to a String does not fail, here and below.
        let _ = write!(out, "r {} {} ", self.nickname, text::base64_unpadded(&identity.0));
        if flavor == Flavor::Ns {
            let _ = write!(out, "{} ", text::base64_unpadded(&descriptor.0));
        }
        let published = match flavor {
            Flavor::Microdesc if method >= METHOD_WITHOUT_PUBLISHED => NO_TIME.to_owned(),
            _ => text::format_time(*published),
        };
        let _ = writeln!(out, "{published} {ipv4} {or_port} {dir_port}");
        if let Some((ip, port)) = self.ipv6 {
            let _ = writeln!(out, "a {}", text::format_ipv6(ip, port));
        }
        if let Some(digest) = microdesc {
            let _ = writeln!(out, "m {}", text::base64_unpadded(&digest));
        }
        let _ = writeln!(out, "s {}", self.flags.join(" "));
        if let Some(version) = self.version {
            let _ = writeln!(out, "v {version}");
        }
        let _ = writeln!(out, "pr {}", self.protocols);
        self.write_weight(out);
        if let Some(policy) = self.policy.filter(|_| flavor == Flavor::Ns) {
            let _ = writeln!(out, "p {policy}");
        }
    }

    fn write_weight(&self, out: &mut String) {
        let Some(Weight { bandwidth, unmeasured }) = self.weight else { return };
        let _ = write!(out, "w Bandwidth={bandwidth}{}", if unmeasured { " Unmeasured=1" } else { "" });
        if let Some(percent) = self.guard_fraction {
            let _ = write!(out, " GuardFraction={percent}");
        }
        out.push('\n');
    }
}
