//! `MyFamily` lines: relays under the same control, by fingerprint or (discouraged) by nickname.

use std::fmt;

use super::authority::is_nickname;
use super::{Item, Problem, value};

/// A member of a relay's declared family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FamilyMember {
    /// By the digest of its RSA identity key; printed as `$` and 40 upper-case hexadecimal digits.
    Fingerprint([u8; 20]),
    /// By nickname, which anyone can take.
    Nickname(String),
}

impl fmt::Display for FamilyMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FamilyMember::Fingerprint(id) => {
                f.write_str("$")?;
                id.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
            }
            FamilyMember::Nickname(name) => f.write_str(name),
        }
    }
}

/// All members that the lines name, without repetition, sorted as descriptors have them. `$` before a fingerprint
/// may be missing, and `=nickname` or `~nickname` behind it is dropped.
pub fn parse(items: &[Item], problems: &mut Vec<Problem>) -> Vec<FamilyMember> {
    let mut members = Vec::new();
    for item in items {
        for entry in value::csv(&item.value) {
            match member(entry) {
                Some(member) => members.push(member),
                None => problems.push(Problem::with(
                    item,
                    format!("{} is neither a fingerprint nor a nickname", entry.escape_debug()),
                    "write $ and 40 hexadecimal digits for each relay, with commas between",
                )),
            }
        }
    }
    members.sort();
    members.dedup();
    members
}

fn member(entry: &str) -> Option<FamilyMember> {
    if is_nickname(entry) {
        return Some(FamilyMember::Nickname(entry.to_owned()));
    }
    let hex = entry.strip_prefix('$').unwrap_or(entry);
    let (hex, nickname) = hex.split_once(['=', '~']).unwrap_or((hex, "unnamed"));
    is_nickname(nickname).then(|| value::hex(hex).map(FamilyMember::Fingerprint))?
}
