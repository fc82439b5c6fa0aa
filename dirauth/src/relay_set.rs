//! Sets of relays as torrc options name them: fingerprints, nicknames and addresses, separated by commas.

use std::collections::BTreeSet;

use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::text::{Fingerprint, Nickname};
use onionring_proto::policy::ExitPolicy;
use thiserror::Error;

/// An entry that names no relays.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RelaySetError {
    /// It is a country.
    #[error(
        "'{0}' is a country, and this program knows of no countries: name fingerprints or addresses instead"
    )]
    Country(String),
    /// It is nothing known.
    #[error(
        "'{0}' names no relay: write a fingerprint of 40 hex digits, a nickname, or an address like 192.0.2.0/24"
    )]
    Entry(String),
}

/// A set of relays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelaySet {
    identities: BTreeSet<Fingerprint>,
    /// In lower case.
    nicknames: BTreeSet<String>,
    /// Rejects the addresses of the set.
    addresses: ExitPolicy,
}

impl RelaySet {
    /// Reads the value of an option.
    pub fn parse(value: &str) -> Result<RelaySet, RelaySetError> {
        let mut set = RelaySet::default();
        let mut addresses = Vec::new();
        for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if let Some(identity) = Fingerprint::from_hex(entry.strip_prefix('$').unwrap_or(entry)) {
                set.identities.insert(identity);
            } else if Nickname::new(entry).is_some() {
                set.nicknames.insert(entry.to_ascii_lowercase());
            } else if entry.starts_with('{') {
                return Err(RelaySetError::Country(entry.chars().take(64).collect()));
            } else {
                addresses.push((entry, format!("reject {entry}")));
            }
        }
        for (entry, rule) in addresses {
            let (policy, _) = ExitPolicy::from_torrc([rule.as_str()])
                .map_err(|_| RelaySetError::Entry(entry.chars().take(64).collect()))?;
            set.addresses = ExitPolicy::from_rules([set.addresses.rules(), policy.rules()].concat());
        }
        Ok(set)
    }

    /// Whether the relay is in it, by its identity, its nickname, or its IPv4 address and port.
    pub fn contains(&self, relay: &RouterDesc) -> bool {
        self.identities.contains(&relay.identity)
            || self.nicknames.contains(&relay.nickname.as_str().to_ascii_lowercase())
            || !self.addresses.permits(relay.ipv4.into(), relay.or_port)
    }
}

#[cfg(test)]
mod tests {
    use onionring_proto::netdoc::routerdesc::split_documents;
    use proptest::prelude::*;

    use super::*;

    fn members(value: &str) -> Vec<String> {
        let set = RelaySet::parse(value).unwrap();
        split_documents(include_str!("testdata/descriptors.txt"))
            .map(|text| RouterDesc::parse(text).unwrap())
            .filter(|relay| set.contains(relay))
            .map(|relay| relay.nickname.to_string())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    #[test]
    fn relays_by_all_their_names() {
        assert_eq!(members("A0, R1,nobody"), ["a0", "r1"]);
        assert_eq!(members("$9bf7abdf96aa78d690999b53f436e177235db37e"), ["r0"]);
        assert_eq!(members("5940BEE84CA0CB8ADE642EDF07C1BF04F0D390B3"), ["r2"]);
        assert_eq!(members("127.0.0.0/8:37000-37001,a2"), ["a0", "a1", "a2"]);
        assert_eq!(members("*").len(), 6);
        assert_eq!(members("192.0.2.0/24,[::1]").len(), 0);
        assert_eq!(members("").len(), 0);
    }

    #[test]
    fn entries_that_name_no_relays() {
        assert_eq!(RelaySet::parse("a0,{us}"), Err(RelaySetError::Country("{us}".into())));
        for entry in ["no-name", "$1234", "192.0.2.0/33", "a b"] {
            assert_eq!(RelaySet::parse(entry), Err(RelaySetError::Entry(entry.into())));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_set_or_not(text in "(\\$?[0-9a-f]{40}|[a-z]{1,20}|,|[0-9]{1,3}\\.|/|:|\\*|\\{|\\[|\\]|\\PC){0,20}") {
            let _ = RelaySet::parse(&text);
        }
    }
}
