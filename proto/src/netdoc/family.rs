//! Families: relays that one operator runs, never used together in a path (dir-spec 2.1.1, path-spec 2.2).

use crate::netdoc::text::{Fingerprint, Nickname};

/// One entry of a `family` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FamilyMember {
    /// `$` and a fingerprint, perhaps followed by `=nick` or `~nick`, which is not looked at.
    Identity(Fingerprint),
    /// A bare nickname.
    Nickname(Nickname),
}

impl FamilyMember {
    /// Reads one entry; `None` for other forms, also for a fingerprint without its `$`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('$') {
            None => Nickname::new(text).map(FamilyMember::Nickname),
            Some(id) => Self::identity(id),
        }
    }

    /// The same where a fingerprint may lack its `$`, as in microdescriptors. It is too long for a nickname.
    pub fn parse_bare(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| Self::identity(text))
    }

    /// A fingerprint, perhaps with a nickname behind it.
    fn identity(text: &str) -> Option<Self> {
        let (hex, nick) = text.split_at_checked(40)?;
        let nick_ok =
            nick.is_empty() || nick.strip_prefix(['=', '~']).is_some_and(|n| Nickname::new(n).is_some());
        nick_ok.then(|| Fingerprint::from_hex(hex).map(FamilyMember::Identity)).flatten()
    }
}

impl std::fmt::Display for FamilyMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FamilyMember::Identity(id) => write!(f, "${id}"),
            FamilyMember::Nickname(nick) => write!(f, "{nick}"),
        }
    }
}

/// The entries of a `family` line, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family(Box<[FamilyMember]>);

impl Family {
    /// Whether the list names this relay; nicknames compare without case.
    pub fn names(&self, identity: &Fingerprint, nickname: &Nickname) -> bool {
        self.0.binary_search(&FamilyMember::Identity(*identity)).is_ok()
            || self.0.iter().any(|m| match m {
                FamilyMember::Nickname(n) => n.as_str().eq_ignore_ascii_case(nickname.as_str()),
                FamilyMember::Identity(_) => false,
            })
    }

    /// The entries.
    pub fn members(&self) -> &[FamilyMember] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<FamilyMember> for Family {
    fn from_iter<T: IntoIterator<Item = FamilyMember>>(iter: T) -> Self {
        let mut members: Vec<_> = iter.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        Family(members.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms_that_authorities_take() {
        let hex = "0123456789abcdef0123456789ABCDEF01234567";
        let id = FamilyMember::Identity(Fingerprint::from_hex(hex).unwrap());
        for ok in [format!("${hex}"), format!("${hex}=nick"), format!("${hex}~nick")] {
            assert_eq!(FamilyMember::parse(&ok), Some(id));
        }
        for bad in [
            hex.into(),
            format!("${}", &hex[1..]),
            format!("${hex}!x"),
            format!("${hex}="),
            "a-b".into(),
            "$".into(),
        ] {
            assert_eq!(FamilyMember::parse(&bad), None, "{bad}");
        }
        assert_eq!(id.to_string(), format!("${}", hex.to_uppercase()));
        for bare in [hex.into(), format!("{hex}=nick"), format!("${hex}~nick")] {
            assert_eq!(FamilyMember::parse_bare(&bare), Some(id), "{bare}");
        }
        assert_eq!(FamilyMember::parse_bare("nick"), FamilyMember::parse("nick"));
        for bad in [&hex[1..], "$$", "a-b", ""] {
            assert_eq!(FamilyMember::parse_bare(bad), None, "{bad}");
        }
    }

    #[test]
    fn nicknames_match_without_case() {
        let family: Family = ["Foo", "bar"].into_iter().filter_map(FamilyMember::parse).collect();
        let id = Fingerprint([1; 20]);
        assert!(family.names(&id, &Nickname::new("fOO").unwrap()));
        assert!(!family.names(&id, &Nickname::new("baz").unwrap()));
    }
}
