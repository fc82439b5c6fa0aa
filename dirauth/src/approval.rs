//! What the administrator decided about relays, by identity and by address.
//!
//! The file `approved-routers` has a decision on each line: a keyword, and a fingerprint or an Ed25519 identity in
//! base64. It is C tor's, and what this program changes in it leaves all other lines as they are:
//!
//! ```text
//! caerSidi  F14E1C6BDB0B80B069B456EA1D0E7C2D5A1B3C4D     # the relay, called caerSidi, is approved
//! !reject   0123456789ABCDEF0123456789ABCDEF01234567     # its descriptors are refused
//! !badexit  PyJGocniXTEUg+TbwRWa9BE+j06iwpbdKBAA99qXHRw  # it is voted BadExit; likewise !invalid, !middleonly,
//!                                                        # and !stripguard, !striphsdir, !stripv2dir
//! ```
//!
//! An approval says nothing in an open network. In a strict one, which C tor does not have, only relays that are approved
//! are listed, as in the design of 2004; others wait for the administrator ([`Pending`]).

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::BitOrAssign;
use std::str::FromStr;

use onionring_proto::netdoc::text::{self, Fingerprint, Nickname};
use onionring_proto::policy::{Action, ExitPolicy, PolicyError};
use thiserror::Error;

mod pending;

pub use pending::{Pending, PendingRelay};

/// A relay's name in a decision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelayId {
    /// SHA-1 of its RSA identity key.
    Rsa(Fingerprint),
    /// Its Ed25519 identity.
    Ed25519([u8; 32]),
}

impl FromStr for RelayId {
    type Err = NoRelayId;

    /// Reads 40 hex digits or 43 characters of base64; spaces do not matter.
    fn from_str(text: &str) -> Result<RelayId, NoRelayId> {
        let text: String = text.chars().filter(|c| *c != ' ').collect();
        match text.len() {
            40 => Fingerprint::from_hex(&text).map(RelayId::Rsa),
            43 => text::base64_array(&text).map(RelayId::Ed25519),
            _ => None,
        }
        .ok_or_else(|| NoRelayId(text.chars().take(64).collect()))
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RelayId::Rsa(fingerprint) => write!(f, "{fingerprint}"),
            RelayId::Ed25519(key) => f.write_str(&text::base64_unpadded(key)),
        }
    }
}

impl fmt::Debug for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that names no relay.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' names no relay: give its fingerprint of 40 hex digits, or its Ed25519 identity of 43 characters"
)]
pub struct NoRelayId(String);

/// What may be decided about a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is approved.
    Approve,
    /// Its descriptors are refused.
    Reject,
    /// It is not voted Valid.
    Invalid,
    /// It is voted BadExit.
    BadExit,
    /// It is voted MiddleOnly.
    MiddleOnly,
    /// It is not voted Guard.
    StripGuard,
    /// It is not voted HSDir.
    StripHsDir,
    /// It is not voted V2Dir.
    StripV2Dir,
}

impl Decision {
    const KEYWORDS: [(&str, Decision); 7] = [
        ("!reject", Decision::Reject),
        ("!invalid", Decision::Invalid),
        ("!badexit", Decision::BadExit),
        ("!middleonly", Decision::MiddleOnly),
        ("!stripguard", Decision::StripGuard),
        ("!striphsdir", Decision::StripHsDir),
        ("!stripv2dir", Decision::StripV2Dir),
    ];

    /// What a keyword of the file says: anything without a `!` is a nickname, and approves.
    fn of_keyword(keyword: &str) -> Option<Decision> {
        if !keyword.starts_with('!') {
            return Some(Decision::Approve);
        }
        Self::KEYWORDS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(keyword))
            .map(|(_, decision)| *decision)
    }
}

/// All that was decided about one relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// It is approved.
    pub approved: bool,
    /// Its descriptors are refused.
    pub reject: bool,
    /// It is not voted Valid.
    pub invalid: bool,
    /// It is voted BadExit.
    pub bad_exit: bool,
    /// It is voted MiddleOnly.
    pub middle_only: bool,
    /// It is not voted Guard.
    pub strip_guard: bool,
    /// It is not voted HSDir.
    pub strip_hs_dir: bool,
    /// It is not voted V2Dir.
    pub strip_v2_dir: bool,
}

impl BitOrAssign<Decision> for Marks {
    fn bitor_assign(&mut self, decision: Decision) {
        *match decision {
            Decision::Approve => &mut self.approved,
            Decision::Reject => &mut self.reject,
            Decision::Invalid => &mut self.invalid,
            Decision::BadExit => &mut self.bad_exit,
            Decision::MiddleOnly => &mut self.middle_only,
            Decision::StripGuard => &mut self.strip_guard,
            Decision::StripHsDir => &mut self.strip_hs_dir,
            Decision::StripV2Dir => &mut self.strip_v2_dir,
        } = true;
    }
}

/// A line of the file, as it stands there, and what it decides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    text: String,
    entry: Option<(RelayId, Decision)>,
}

/// A line of the file that cannot be read, and is skipped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "approved-routers, line {line}: '{text}' is neither '<nickname> <identity>' nor '!<decision> <identity>'; it is skipped"
)]
pub struct DamagedLine {
    /// Its number, from 1.
    pub line: usize,
    /// Its beginning.
    pub text: String,
}

/// The decisions about identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApprovedRouters {
    lines: Vec<Line>,
    marks: BTreeMap<RelayId, Marks>,
}

impl ApprovedRouters {
    /// Reads the file.
    pub fn read(file: &str) -> (ApprovedRouters, Vec<DamagedLine>) {
        let mut damaged = Vec::new();
        let mut lines = Vec::new();
        for (n, text) in file.split_terminator('\n').enumerate() {
            let entry = match parse(text) {
                Ok(entry) => entry,
                Err(()) => {
                    damaged.push(DamagedLine { line: n + 1, text: text.chars().take(64).collect() });
                    None
                }
            };
            lines.push(Line { text: text.to_owned(), entry });
        }
        let mut routers = ApprovedRouters { lines, marks: BTreeMap::new() };
        routers.index();
        (routers, damaged)
    }

    /// The file. Of lines that nothing was decided about since, it has every byte.
    pub fn write(&self) -> String {
        self.lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect()
    }

    /// What is decided about the relay with these identities, by either of them.
    pub fn marks(&self, rsa: &Fingerprint, ed25519: &[u8; 32]) -> Marks {
        let mut marks = Marks::default();
        for id in [RelayId::Rsa(*rsa), RelayId::Ed25519(*ed25519)] {
            for (decision, is_set) in self.marks.get(&id).into_iter().flat_map(|marks| marks.decisions()) {
                if is_set {
                    marks |= decision;
                }
            }
        }
        marks
    }

    /// Approves a relay under the first of its identities, and takes back that it was rejected under any.
    pub fn approve(&mut self, ids: &[RelayId], nickname: Option<&Nickname>) {
        self.remove(ids, &[Decision::Reject, Decision::Approve]);
        let nickname = nickname.map_or("Unnamed", Nickname::as_str);
        self.push(ids.first(), nickname, Decision::Approve);
    }

    /// Rejects a relay under the first of its identities, and takes back that it was approved under any.
    pub fn reject(&mut self, ids: &[RelayId]) {
        self.remove(ids, &[Decision::Reject, Decision::Approve]);
        self.push(ids.first(), "!reject", Decision::Reject);
    }

    /// All decisions, in the order of the file, with the keyword or nickname.
    pub fn list(&self) -> impl Iterator<Item = (&str, RelayId, Decision)> {
        self.lines.iter().filter_map(|line| {
            let (id, decision) = line.entry?;
            Some((line.text.split_ascii_whitespace().next().unwrap_or(""), id, decision))
        })
    }

    fn remove(&mut self, ids: &[RelayId], decisions: &[Decision]) {
        self.lines.retain(|line| {
            !line.entry.is_some_and(|(id, decision)| ids.contains(&id) && decisions.contains(&decision))
        });
        self.index();
    }

    fn push(&mut self, id: Option<&RelayId>, keyword: &str, decision: Decision) {
        let Some(&id) = id else { return };
        self.lines.push(Line { text: format!("{keyword} {id}"), entry: Some((id, decision)) });
        self.index();
    }

    fn index(&mut self) {
        self.marks.clear();
        for (id, decision) in self.lines.iter().filter_map(|line| line.entry) {
            *self.marks.entry(id).or_default() |= decision;
        }
    }
}

impl Marks {
    fn decisions(&self) -> [(Decision, bool); 8] {
        [
            (Decision::Approve, self.approved),
            (Decision::Reject, self.reject),
            (Decision::Invalid, self.invalid),
            (Decision::BadExit, self.bad_exit),
            (Decision::MiddleOnly, self.middle_only),
            (Decision::StripGuard, self.strip_guard),
            (Decision::StripHsDir, self.strip_hs_dir),
            (Decision::StripV2Dir, self.strip_v2_dir),
        ]
    }
}

/// What a line decides; nothing for an empty one or a comment.
fn parse(line: &str) -> Result<Option<(RelayId, Decision)>, ()> {
    let line = line.split('#').next().unwrap_or("").trim();
    if line.is_empty() {
        return Ok(None);
    }
    let (keyword, id) = line.split_once([' ', '\t']).ok_or(())?;
    let decision = Decision::of_keyword(keyword).ok_or(())?;
    Ok(Some((id.replace('\t', " ").parse().map_err(|_| ())?, decision)))
}

/// The decisions about addresses, `AuthDirReject` and the like: each a policy whose rejected addresses it names. Ports do
/// not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicies {
    /// `AuthDirReject`.
    pub reject: ExitPolicy,
    /// `AuthDirInvalid`.
    pub invalid: ExitPolicy,
    /// `AuthDirBadExit`.
    pub bad_exit: ExitPolicy,
    /// `AuthDirMiddleOnly`.
    pub middle_only: ExitPolicy,
}

impl AddressPolicies {
    /// Reads the values of one of the options. An entry without `accept` or `reject` rejects.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<ExitPolicy, PolicyError> {
        let entries: Vec<String> = values
            .into_iter()
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| match entry.split_ascii_whitespace().nth(1) {
                Some(_) => entry.to_owned(),
                None => format!("reject {entry}"),
            })
            .collect();
        ExitPolicy::from_torrc(entries.iter().map(String::as_str)).map(|(policy, _)| policy)
    }

    fn mark(&self, marks: &mut Marks, ip: Ipv4Addr) {
        let names = |policy: &ExitPolicy| {
            let first = policy.rules().iter().find(|rule| rule.network.contains(ip.into()));
            first.is_some_and(|rule| rule.action == Action::Reject)
        };
        for (policy, decision) in [
            (&self.reject, Decision::Reject),
            (&self.invalid, Decision::Invalid),
            (&self.bad_exit, Decision::BadExit),
            (&self.middle_only, Decision::MiddleOnly),
        ] {
            if names(policy) {
                *marks |= decision;
            }
        }
    }
}

/// All that the administrator decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvals {
    /// By identity.
    pub routers: ApprovedRouters,
    /// By address.
    pub addresses: AddressPolicies,
    /// Whether only approved relays are listed.
    pub strict: bool,
}

/// What follows for one relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What was decided, by identity and by address.
    pub marks: Marks,
    /// Whether the identity is rejected, and not only the address.
    pub identity_rejected: bool,
    /// Whether it may be listed in votes.
    pub listed: bool,
}

impl Approvals {
    /// What was decided about the relay with these identities and this address.
    pub fn standing(&self, rsa: &Fingerprint, ed25519: &[u8; 32], ip: Ipv4Addr) -> Standing {
        let mut marks = self.routers.marks(rsa, ed25519);
        let identity_rejected = marks.reject;
        self.addresses.mark(&mut marks, ip);
        Standing { marks, identity_rejected, listed: !marks.reject && (marks.approved || !self.strict) }
    }
}

#[cfg(test)]
mod tests;
