//! One guard: what is remembered of it, in the form of C tor's `Guard` lines, and what is known of it now.

use std::time::Duration;

use rand_core::Rng;

use super::bias::{COUNTS, Record};
use super::terms::retry_delay;
use crate::dir::backoff::below;
use crate::netdoc::text::{Fingerprint, Nickname};
use crate::state_file::{format_time, parse_time};
use crate::time::Unix;

/// Who sampled the guards that we sample, as `sampled_by` tells.
const SAMPLED_BY: &str = concat!("onionring-", env!("CARGO_PKG_VERSION"));

/// Whether a guard can be reached (guard-spec 4, `is_reachable`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachable {
    /// The last attempt succeeded.
    Yes,
    /// The last attempt failed, not long ago.
    No,
    /// It was not tried yet, or failed so long ago that it is time to try again.
    Maybe,
}

/// That a guard was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Confirmed {
    /// When first, up to a tenth of a guard's lifetime too early.
    pub on: Unix,
    /// Its place among those that were used, in the order of first use.
    pub index: u32,
}

/// A guard of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub(super) identity: Fingerprint,
    pub(super) nickname: Option<Nickname>,
    pub(super) sampled_on: Unix,
    pub(super) sampled_by: Option<String>,
    pub(super) listed: bool,
    pub(super) unlisted_since: Option<Unix>,
    pub(super) confirmed: Option<Confirmed>,
    /// What became of circuits through it.
    pub(super) bias: Record,
    /// What else its line says, as it stands there.
    pub(super) extra: Vec<String>,

    // What is not remembered.
    pub(super) reachable: Reachable,
    pub(super) failing_since: Option<Unix>,
    pub(super) last_tried: Option<Unix>,
    /// Whether it is listed, what the configuration allows, and makes not too many circuits fail.
    pub(super) filtered: bool,
    /// Whether its microdescriptor is at hand.
    pub(super) described: bool,
    pub(super) primary: bool,
}

impl Guard {
    /// Its RSA identity.
    pub fn identity(&self) -> Fingerprint {
        self.identity
    }

    /// Its nickname when it was sampled.
    pub fn nickname(&self) -> Option<&str> {
        self.nickname.as_ref().map(Nickname::as_str)
    }

    /// When it was sampled; up to a tenth of a guard's lifetime too early.
    pub fn sampled_on(&self) -> Unix {
        self.sampled_on
    }

    /// When it was first used; up to a tenth of a guard's lifetime too early. `None` if it never was.
    pub fn confirmed_on(&self) -> Option<Unix> {
        self.confirmed.map(|confirmed| confirmed.on)
    }

    /// Since when it is not in the consensus, or not fit to be a guard; `None` if it is.
    pub fn unlisted_since(&self) -> Option<Unix> {
        self.unlisted_since
    }

    /// Whether it can be reached.
    pub fn reachable(&self) -> Reachable {
        self.reachable
    }

    /// Since when all attempts failed.
    pub fn failing_since(&self) -> Option<Unix> {
        self.failing_since
    }

    /// Whether it is one of the primary guards, which are used when nothing is wrong.
    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// Whether it is listed, allowed by the configuration, and not dropped because circuits fail.
    pub fn is_filtered(&self) -> bool {
        self.filtered
    }

    /// Whether it may be tried now.
    pub(super) fn is_usable(&self) -> bool {
        self.filtered && self.reachable != Reachable::No
    }

    /// A guard that is sampled now.
    pub(super) fn sampled(
        identity: Fingerprint,
        nickname: Nickname,
        lifetime: Duration,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) -> Self {
        Guard {
            nickname: Some(nickname),
            sampled_on: backdate(now, lifetime / 10, rng),
            sampled_by: Some(SAMPLED_BY.to_owned()),
            listed: true,
            ..Guard::blank(identity)
        }
    }

    fn blank(identity: Fingerprint) -> Self {
        Guard {
            identity,
            nickname: None,
            sampled_on: Unix(0),
            sampled_by: None,
            listed: false,
            unlisted_since: None,
            confirmed: None,
            bias: Record::default(),
            extra: Vec::new(),
            reachable: Reachable::Maybe,
            failing_since: None,
            last_tried: None,
            filtered: false,
            described: false,
            primary: false,
        }
    }

    /// Lets it be tried again if it has failed long enough ago.
    pub(super) fn consider_retry(&mut self, now: Unix) {
        if self.reachable != Reachable::No {
            return;
        }
        let failing = self.failing_since.map_or(Duration::ZERO, |since| now.since(since));
        let is_due = |last: Unix| now >= last + retry_delay(failing, self.primary);
        if self.last_tried.is_none_or(is_due) {
            self.reachable = Reachable::Maybe;
        }
    }

    /// Lets it be tried again at once.
    pub(super) fn may_be_back(&mut self) {
        if self.reachable == Reachable::No {
            self.reachable = Reachable::Maybe;
        }
    }

    /// The value of its line, in selection `name` and `index`th there.
    pub(super) fn encode(&self, name: &str, index: usize) -> String {
        let mut words = vec![format!("in={name}"), format!("rsa_id={}", self.identity)];
        words.extend(self.nickname.map(|nickname| format!("nickname={nickname}")));
        words.push(format!("sampled_on={}", format_time(self.sampled_on)));
        words.push(format!("sampled_idx={index}"));
        words.extend(self.sampled_by.as_ref().map(|by| format!("sampled_by={by}")));
        words.extend(self.unlisted_since.map(|since| format!("unlisted_since={}", format_time(since))));
        words.push(format!("listed={}", u8::from(self.listed)));
        if let Some(Confirmed { on, index }) = self.confirmed {
            words.extend([format!("confirmed_on={}", format_time(on)), format!("confirmed_idx={index}")]);
        }
        words.extend(self.bias.words());
        words.extend(self.extra.iter().cloned());
        words.join(" ")
    }
}

/// A `Guard` line as it was read.
pub(super) struct Line<'a> {
    /// The selection it belongs to.
    pub selection: &'a str,
    /// The guard.
    pub guard: Guard,
    /// Its place in the sample; `None` if the line does not say it.
    pub index: Option<u32>,
    /// What was wrong, so that it was put right.
    pub faults: Vec<(&'static str, &'a str)>,
}

/// Reads the value of a `Guard` line. What is wrong but can be done without is put right, as C tor does; the error is what
/// makes the line worthless.
pub(super) fn parse<'a>(value: &'a str, now: Unix) -> Result<Line<'a>, (&'static str, &'a str)> {
    const KNOWN: [&str; 10] = [
        "in",
        "rsa_id",
        "nickname",
        "sampled_on",
        "sampled_idx",
        "sampled_by",
        "unlisted_since",
        "listed",
        "confirmed_on",
        "confirmed_idx",
    ];
    let mut known = [None; KNOWN.len()];
    let (mut extra, mut faults, mut bias) = (Vec::new(), Vec::new(), Record::default());
    let mut counted = [false; COUNTS];
    for word in value.split_ascii_whitespace() {
        if let Some((place, count)) = Record::read(word) {
            match count {
                _ if std::mem::replace(&mut counted[place], true) => {
                    faults.push(("it says something twice", word))
                }
                Some(count) => bias.set(place, count),
                None => faults.push(("a count is not a number", word)),
            }
            continue;
        }
        let known_key = word.split_once('=').and_then(|(key, value)| {
            let n = KNOWN.iter().position(|name| *name == key)?;
            Some((&mut known[n], value))
        });
        match known_key {
            Some((slot @ None, value)) => *slot = Some(value),
            Some(_) => faults.push(("it says something twice", word)),
            None => extra.push(word.to_owned()),
        }
    }
    let [selection, rsa_id, nickname, sampled_on, sampled_idx, sampled_by, ..] = known;
    let [.., unlisted_since, listed, confirmed_on, confirmed_idx] = known;
    let selection = selection.ok_or(("no selection is named", value))?;
    let rsa_id = rsa_id.ok_or(("the identity is missing", value))?;
    let identity = Fingerprint::from_hex(rsa_id).ok_or(("the identity is not 40 hex digits", rsa_id))?;

    let mut time = |text: Option<&'a str>| {
        let time = parse_time(text?).filter(|time| *time > Unix(0));
        faults
            .extend(text.filter(|_| time.is_none()).map(|text| ("a time is not YYYY-MM-DDTHH:MM:SS", text)));
        time
    };
    let sampled_on = time(sampled_on).unwrap_or(now);
    let (unlisted_since, confirmed_on) = (time(unlisted_since), time(confirmed_on));
    let mut number = |text: Option<&'a str>| {
        let number = text?.parse::<u32>().ok().filter(|number| i32::try_from(*number).is_ok());
        faults.extend(text.filter(|_| number.is_none()).map(|text| ("an index is not a number", text)));
        number
    };
    let (sampled_idx, confirmed_idx) = (number(sampled_idx), number(confirmed_idx));
    let guard = Guard {
        nickname: nickname.and_then(Nickname::new),
        sampled_on,
        sampled_by: sampled_by.map(str::to_owned),
        listed: listed.is_some_and(|listed| listed != "0"),
        unlisted_since,
        confirmed: confirmed_idx.map(|index| Confirmed { on: confirmed_on.unwrap_or(sampled_on), index }),
        bias,
        extra,
        ..Guard::blank(identity)
    };
    // Before samples had an order, that of first use was all there was.
    Ok(Line { selection, guard, index: sampled_idx.or(confirmed_idx), faults })
}

/// A random time up to `most` before `now`, so that the file does not tell when something happened.
pub(super) fn backdate(now: Unix, most: Duration, rng: &mut (impl Rng + ?Sized)) -> Unix {
    let earliest = Unix(now.0.saturating_sub(most.as_secs()).max(1));
    earliest + Duration::from_secs(below(now.since(earliest).as_secs(), rng))
}
