//! What must survive a restart within a period, so that an authority does not vote or sign twice and differently.
//!
//! ```text
//! voting 1
//! valid-after TIME
//! settled no|(yes SHARED [AUTHORITY ...])
//! vote own|posted|fetched FROM TIME LENGTH
//! <LENGTH bytes>
//! signatures LENGTH
//! <LENGTH bytes>
//! ```
//!
//! `FROM` is an address, the identity of an authority, or `-`. The vote of an authority that counts comes before its
//! others. `settled` says that the consensus was computed: no vote counts then that is not there. `SHARED` is `none` for
//! who takes no part in shared randomness, `fresh` if its value was a new one, and otherwise `known`; the `AUTHORITY`s
//! did not count.

use std::fmt;
use std::sync::Arc;

use onionring_proto::netdoc::detached::DetachedSignatures;
use onionring_proto::netdoc::tally::SharedRandomTerms;
use onionring_proto::netdoc::text::{self, Fingerprint, format_time};
use onionring_proto::netdoc::vote::SignedVote;
use onionring_proto::time::Unix;
use thiserror::Error;

use super::double::Seen;
use super::round::Settled;
use super::{Period, Round, Rules, Whence};
use crate::limits::{OTHER_VOTES, QUEUED_CONSENSUSES};

const VERSION: &str = "voting 1";

/// Why a state of voting is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// It is of another version, or of something else.
    #[error("the state of voting is not of this version: the period begins anew")]
    Version,
    /// It is of another period.
    #[error("the state of voting is that of another period: nothing of it is needed")]
    OtherPeriod,
    /// It is damaged.
    #[error("the state of voting is damaged at byte {0}: the period begins anew, perhaps with a second vote")]
    Damaged(usize),
}

impl Round {
    /// The state, for [`Round::from_snapshot`].
    pub fn snapshot(&self) -> String {
        self.snapshot_parts().concat()
    }

    /// The same in parts that follow each other. Votes, which are nearly all of it, are not copied.
    pub fn snapshot_parts(&self) -> Vec<Arc<str>> {
        let settled = self.settled.as_ref().map_or_else(|| "no".to_owned(), Settled::to_string);
        let valid_after = format_time(self.period.valid_after);
        let mut parts = vec![format!("{VERSION}\nvalid-after {valid_after}\nsettled {settled}\n").into()];
        for seen in self.ballots.iter().flat_map(|(_, ballot)| ballot.all()) {
            let Seen { text, whence, at, .. } = seen;
            parts.push(format!("vote {whence} {} {}\n", format_time(*at), text.len()).into());
            parts.extend([text.clone(), "\n".into()]);
        }
        let queued = self.queue.iter().map(DetachedSignatures::encode);
        let signatures = queued.chain(self.signatures());
        parts.extend(signatures.map(|text| format!("signatures {}\n{text}\n", text.len()).into()));
        parts
    }

    /// The round of `period` as [`Round::snapshot`] left it.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn from_snapshot(rules: Rules, period: Period, snapshot: &str) -> Result<Round, SnapshotError> {
        let mut reader = Reader { text: snapshot, at: 0 };
        if reader.line() != Some(VERSION) {
            return Err(SnapshotError::Version);
        }
        if reader.value("valid-after").and_then(time) != Some(period.valid_after) {
            return Err(SnapshotError::OtherPeriod);
        }
        let settled = match reader.value("settled") {
            Some("no") => None,
            settled => match settled.and_then(Settled::parse) {
                Some(settled) if settled.excluded.len() <= rules.authorities.len() => Some(settled),
                _ => return Err(SnapshotError::Damaged(reader.at)),
            },
        };
        let max = rules.authorities.len() * (OTHER_VOTES + 1) + QUEUED_CONSENSUSES + 1;
        let mut round = Round::new(rules, period);
        let mut entries = 0;
        while reader.at < snapshot.len() {
            entries += 1;
            let start = reader.at;
            let entry = reader.entry().filter(|_| entries <= max);
            entry.and_then(|entry| entry.restore(&mut round)).ok_or(SnapshotError::Damaged(start))?;
        }
        round.settled = settled;
        Ok(round)
    }
}

/// What stands after `settled`.
impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = match self.shared_random {
            None => "none",
            Some(SharedRandomTerms { fresh: true }) => "fresh",
            Some(SharedRandomTerms { fresh: false }) => "known",
        };
        write!(f, "yes {shared}")?;
        self.excluded.iter().try_for_each(|authority| write!(f, " {authority}"))
    }
}

impl Settled {
    fn parse(text: &str) -> Option<Settled> {
        let mut words = text.strip_prefix("yes ")?.split(' ');
        let shared_random = match words.next()? {
            "none" => None,
            "fresh" => Some(SharedRandomTerms { fresh: true }),
            "known" => Some(SharedRandomTerms { fresh: false }),
            _ => return None,
        };
        Some(Settled { excluded: words.map(Fingerprint::from_hex).collect::<Option<_>>()?, shared_random })
    }
}

enum Entry<'a> {
    Vote { whence: Whence, at: Unix, text: &'a str },
    Signatures(&'a str),
}

impl Entry<'_> {
    /// Votes of who is no longer an authority, and signatures that are not right, are left out.
    fn restore(self, round: &mut Round) -> Option<()> {
        match self {
            Entry::Vote { whence, at, text } => {
                SignedVote::parse(text).ok()?;
                if let Ok((seen, vote)) = round.parse(at, text, whence) {
                    round.restore(seen, vote);
                }
            }
            Entry::Signatures(text) => {
                let doc = DetachedSignatures::parse(text).ok();
                // A document without signatures is of a consensus that nobody has signed, and does not parse.
                if let Some(doc) = doc {
                    round.restore_signatures(doc);
                }
            }
        }
        Some(())
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> Option<&'a str> {
        let (line, _) = self.text.get(self.at..)?.split_once('\n')?;
        self.at += line.len() + 1;
        Some(line)
    }

    fn value(&mut self, keyword: &str) -> Option<&'a str> {
        self.line()?.strip_prefix(keyword)?.strip_prefix(' ')
    }

    fn entry(&mut self) -> Option<Entry<'a>> {
        let fields: Vec<&str> = self.line()?.split(' ').collect();
        match fields[..] {
            ["vote", kind, from, date, clock, length] => {
                let whence = match kind {
                    "own" => Whence::Own,
                    "posted" => Whence::Posted(from.parse().ok()?),
                    "fetched" => Whence::Fetched(Fingerprint::from_hex(from)?),
                    _ => return None,
                };
                let at = text::time(date, clock)?;
                Some(Entry::Vote { whence, at, text: self.body(length)? })
            }
            ["signatures", length] => Some(Entry::Signatures(self.body(length)?)),
            _ => None,
        }
    }

    /// So many bytes, and a line break.
    fn body(&mut self, length: &str) -> Option<&'a str> {
        let end = self.at.checked_add(length.parse().ok()?)?;
        let body = self.text.get(self.at..end)?;
        self.text.get(end..)?.strip_prefix('\n')?;
        self.at = end + 1;
        Some(body)
    }
}

fn time(text: &str) -> Option<Unix> {
    let (date, clock) = text.split_once(' ')?;
    text::time(date, clock)
}
