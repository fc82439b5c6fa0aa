//! What exits have refused, so that streams of the same kind do not go there again for a while.
//!
//! The directory tells of exit policies only in summaries, and nothing of how much room there is: that is learned when an
//! exit ends a stream with EXITPOLICY, HIBERNATING or RESOURCELIMIT (tor-spec 6.3). It is kept in memory alone, for all
//! streams together, until the relay has another microdescriptor or some time has passed; destinations also only until a
//! new identity is wanted.
//!
//! Pure logic: time comes in as an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use onionring_proto::netdoc::text::Fingerprint;
use tokio::time::Instant;

use super::table::Target;
use crate::limits;
use crate::network::Host;

/// What an exit said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// It has no room now, or is about to sleep.
    Full,
    /// Its policy lets nothing out to this port, whatever the directory says.
    NoPort(u16),
    /// It looks nothing up.
    NoLookUps,
    /// Its policy does not let streams out to there.
    Forbids(Host, u16),
}

/// A lesson, and when it was learned.
#[derive(Debug)]
struct Learned {
    lesson: Lesson,
    at: Instant,
}

/// What is known of one exit.
#[derive(Debug, Default)]
struct Exit {
    /// The digest of its microdescriptor, with which the policy may change.
    microdesc: Option<[u8; 32]>,
    /// The oldest first.
    learned: Vec<Learned>,
}

/// What is known of all exits, at most [`limits::REFUSING_EXITS`] of them.
#[derive(Debug, Default)]
pub struct Exits {
    known: BTreeMap<Fingerprint, Exit>,
}

/// Exits that a target is better not taken to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unfit {
    /// They will refuse it.
    pub forbid: Vec<Fingerprint>,
    /// They have no room; but if there are no others, they may have some by now.
    pub full: Vec<Fingerprint>,
}

impl Lesson {
    fn holds_for(&self) -> Duration {
        match self {
            Lesson::Full => limits::EXIT_FULL_TIME,
            Lesson::NoPort(_) | Lesson::NoLookUps | Lesson::Forbids(..) => limits::EXIT_POLICY_TIME,
        }
    }

    fn forbids(&self, target: &Target) -> bool {
        match (self, target) {
            (Lesson::Full, _) => false,
            (Lesson::NoPort(port), Target::Stream { port: other, .. }) => port == other,
            (Lesson::NoLookUps, Target::LookUp) => true,
            (Lesson::Forbids(host, port), Target::Stream { host: other, port: other_port, .. }) => {
                port == other_port && is_same(host, other)
            }
            (Lesson::NoPort(_) | Lesson::Forbids(..), Target::LookUp) => false,
            (Lesson::NoLookUps, Target::Stream { .. }) => false,
        }
    }
}

impl Exits {
    /// An exit with this microdescriptor has said so.
    pub fn learn(&mut self, exit: Fingerprint, microdesc: Option<[u8; 32]>, lesson: Lesson, now: Instant) {
        let known = self.known.entry(exit).or_default();
        known.microdesc = microdesc;
        known.learned.retain(|old| old.lesson != lesson && !is_over(old, now));
        if known.learned.len() >= limits::REFUSALS_PER_EXIT {
            known.learned.remove(0);
        }
        known.learned.push(Learned { lesson, at: now });
        if self.known.len() > limits::REFUSING_EXITS {
            let quietest = self.known.iter().min_by_key(|(_, exit)| exit.learned.last().map(|last| last.at));
            let quietest = quietest.map(|(identity, _)| *identity);
            quietest.and_then(|identity| self.known.remove(&identity));
        }
    }

    /// Which exits are not for this target now.
    pub fn unfit(&self, target: &Target, now: Instant) -> Unfit {
        let those = |says: &dyn Fn(&Lesson) -> bool| {
            let says = |exit: &Exit| exit.learned.iter().any(|one| !is_over(one, now) && says(&one.lesson));
            self.known.iter().filter(|(_, exit)| says(exit)).map(|(identity, _)| *identity).collect()
        };
        Unfit { forbid: those(&|lesson| lesson.forbids(target)), full: those(&|l| *l == Lesson::Full) }
    }

    /// Forgets which destinations were refused: they are the past of somebody who wants to have none.
    pub fn forget_destinations(&mut self) {
        self.known.retain(|_, exit| {
            exit.learned.retain(|one| !matches!(one.lesson, Lesson::Forbids(..)));
            !exit.learned.is_empty()
        });
    }

    /// The directory has changed: forgets relays whose microdescriptor is not the one of then, and what is too old.
    pub fn set_network(&mut self, microdesc: impl Fn(&Fingerprint) -> Option<[u8; 32]>, now: Instant) {
        self.known.retain(|identity, exit| {
            exit.learned.retain(|one| !is_over(one, now));
            !exit.learned.is_empty() && microdesc(identity) == exit.microdesc
        });
    }
}

fn is_over(learned: &Learned, now: Instant) -> bool {
    now.duration_since(learned.at) >= learned.lesson.holds_for()
}

/// Names are the same in any case of letters.
fn is_same(a: &Host, b: &Host) -> bool {
    match (a, b) {
        (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests;
