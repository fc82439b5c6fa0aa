//! The file `relay-reachability`, so that a restart forgets nothing.
//!
//! ```text
//! format 1
//! R FINGERPRINT [v4=SECONDS] [v6=SECONDS] [passed=SECONDS] [failed=ROUNDS]
//! ```
//!
//! Times are seconds since 1970. Fields that are not known are for later versions, and passed over.

use std::fmt::Write as _;

use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use thiserror::Error;

use super::{FAILED_ROUNDS, Record, Results};

/// Why a file of results is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// It does not begin with a known format.
    #[error(
        "relay-reachability begins with {0:?} instead of 'format 1': it is damaged or of another version; relays are \
         tested anew"
    )]
    Format(String),
}

/// What was found in a file of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateFindings {
    /// Lines that are damaged, of a relay that is there twice, or of one relay too many; they are left out.
    pub damaged: usize,
}

const FORMAT: &str = "format 1";

impl Results {
    /// Reads the state that `now` finds. Times that lie ahead of it count as now: the clock was set back.
    pub fn read(state: &str, now: Unix) -> Result<(Results, StateFindings), StateError> {
        let mut lines = state.lines();
        let first = lines.next().unwrap_or_default();
        if first != FORMAT {
            return Err(StateError::Format(first.chars().take(64).collect()));
        }
        let mut results = Results::default();
        let mut found = StateFindings::default();
        for line in lines.filter(|line| !line.is_empty()) {
            let is_new = |relay: &Fingerprint| !results.relays.contains_key(relay);
            match read_line(line, now).filter(|(relay, _)| is_new(relay)) {
                Some((relay, read)) => match results.record(&relay) {
                    Some(record) => *record = read,
                    None => found.damaged += 1,
                },
                None => found.damaged += 1,
            }
        }
        Ok((results, found))
    }

    /// The state as a file.
    pub fn write(&self) -> String {
        let mut out = String::with_capacity(128 * (self.relays.len() + 1));
        out.push_str(FORMAT);
        out.push('\n');
        for (relay, record) in &self.relays {
            // Writing to a String does not fail.
            let _ = write!(out, "R {relay}");
            let times = [("v4", record.links.v4), ("v6", record.links.v6), ("passed", record.passed)];
            for (name, at) in times {
                if let Some(at) = at {
                    let _ = write!(out, " {name}={}", at.0);
                }
            }
            if record.failed > 0 {
                let _ = write!(out, " failed={}", record.failed);
            }
            out.push('\n');
        }
        out
    }
}

fn read_line(line: &str, now: Unix) -> Option<(Fingerprint, Record)> {
    let mut words = line.strip_prefix("R ")?.split(' ');
    let relay = Fingerprint::from_hex(words.next()?)?;
    let mut record = Record::default();
    for word in words {
        let (name, value) = word.split_once('=')?;
        let time = || Some(Some(Unix(value.parse().ok()?).min(now)));
        match name {
            "v4" => record.links.v4 = time()?,
            "v6" => record.links.v6 = time()?,
            "passed" => record.passed = time()?,
            "failed" => record.failed = value.parse::<u8>().ok().filter(|failed| *failed <= FAILED_ROUNDS)?,
            _ => {}
        }
    }
    Some((relay, record))
}
