//! Making microdescriptors of descriptors, as all authorities must do alike.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use super::Microdesc;
use crate::netdoc::family::{Family, FamilyMember};
use crate::netdoc::routerdesc::RouterDesc;
use crate::netdoc::tally::METHOD_WITH_FAMILY_IDS;
use crate::netdoc::text::{self, Nickname};
use crate::policy;

impl Microdesc {
    /// The text of a relay's microdescriptor under a consensus method.
    ///
    /// `None` without a TAP key: deployed authorities make no microdescriptor then.
    pub fn text_of(desc: &RouterDesc, method: u32) -> Option<String> {
        let mut out = String::from("onion-key\n");
        text::push_object(&mut out, "RSA PUBLIC KEY", &desc.tap_onion_key.as_ref()?.to_der());
        // Writing to a String does not fail, here and below.
        let _ = writeln!(out, "ntor-onion-key {}", text::base64_unpadded(&desc.ntor_onion_key));
        if !desc.family.is_empty() {
            let members: Vec<String> =
                canonical(desc).members().iter().map(FamilyMember::to_string).collect();
            let _ = writeln!(out, "family {}", members.join(" "));
        }
        if method >= METHOD_WITH_FAMILY_IDS && !desc.family_keys.is_empty() {
            let id = |key: &[u8; 32]| format!("ed25519:{}", text::base64_unpadded(key));
            let mut ids: Vec<String> = desc.family_keys.iter().map(id).collect();
            ids.sort_unstable();
            ids.dedup();
            let _ = writeln!(out, "family-ids {}", ids.join(" "));
        }
        let summary = desc.policy.summary(policy::Family::V4);
        let summaries = [("p", Some(&summary)), ("p6", desc.policy_v6.as_ref())];
        for (keyword, summary) in summaries {
            if let Some(summary) = summary.filter(|s| !s.rejects_all()) {
                let _ = writeln!(out, "{keyword} {summary}");
            }
        }
        let _ = writeln!(out, "id ed25519 {}", text::base64_unpadded(&desc.ed_identity));
        Some(out)
    }

    /// The texts under all of `methods`, each with those that make it, as a vote lists them.
    pub fn texts_of(desc: &RouterDesc, methods: RangeInclusive<u32>) -> Vec<(Vec<u32>, String)> {
        let mut texts: Vec<(Vec<u32>, String)> = Vec::new();
        for method in methods {
            let Some(text) = Self::text_of(desc, method) else { continue };
            match texts.last_mut() {
                Some((methods, last)) if *last == text => methods.push(method),
                _ => texts.push((vec![method], text)),
            }
        }
        texts
    }
}

/// The family with nicknames in lower case, and the relay itself in it.
fn canonical(desc: &RouterDesc) -> Family {
    let lower = |member: &FamilyMember| match member {
        // Lower case letters are as legal as the others.
        FamilyMember::Nickname(nick) => {
            FamilyMember::Nickname(Nickname::new(&nick.as_str().to_ascii_lowercase()).unwrap_or(*nick))
        }
        identity => *identity,
    };
    desc.family.members().iter().map(lower).chain([FamilyMember::Identity(desc.identity)]).collect()
}

#[cfg(test)]
mod tests;
