//! `MyFamily` lines: relays under the same control, by fingerprint or (discouraged) by nickname.

use super::{Item, Problem, value};
use crate::netdoc::family::FamilyMember;

/// All members that the lines name, without repetition, sorted. `$` before a fingerprint may be missing.
pub fn parse(items: &[Item], problems: &mut Vec<Problem>) -> Vec<FamilyMember> {
    let mut members = Vec::new();
    for item in items {
        for entry in value::csv(&item.value) {
            let member = FamilyMember::parse_bare(entry);
            match member {
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
