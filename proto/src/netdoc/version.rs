//! Versions of Tor in their order, in which authorities list and compare them (version-spec).

use std::cmp::Ordering;

/// Bytes of a status tag that count, as in C tor.
const TAG: usize = 31;

/// Compares two versions as authorities do: by number; texts that are no version come last, ordered as texts.
///
/// Different texts of one version are `Equal`. Where C tor sorts such, the order is that of its C library.
pub fn compare(a: &str, b: &str) -> Ordering {
    match (Version::parse(a), Version::parse(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// A version, its parts in the order in which they count.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Version<'a> {
    numbers: [u32; 3],
    status: Status,
    patch_level: u32,
    /// `alpha`, `alpha-dev`; empty for a release.
    tag: &'a [u8],
    /// From the time of Subversion.
    revision: u32,
    commit_len: usize,
    commit: String,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Pre,
    Candidate,
    Release,
}

impl<'a> Version<'a> {
    /// Reads `[Tor ]0.4.9.11[-alpha-dev][ (git-0123abcd)]` and the older forms `0.1.2`, `0.0.9pre1`, `0.0.9rc2`.
    fn parse(text: &'a str) -> Option<Self> {
        let prefix = text.get(..4).filter(|p| p.eq_ignore_ascii_case("Tor "));
        let text = &text[prefix.map_or(0, str::len)..];
        let mut version = Version {
            numbers: [0; 3],
            status: Status::Release,
            patch_level: 0,
            tag: b"",
            revision: 0,
            commit_len: 0,
            commit: String::new(),
        };
        let rest;
        (version.numbers[0], rest) = number(text)?;
        let rest = rest.strip_prefix('.')?;
        let (minor, mut rest) = number(rest)?;
        version.numbers[1] = minor;
        if rest.starts_with('.') {
            (version.numbers[2], rest) = number(&rest[1..])?;
            let patched;
            (version.status, patched) = match rest {
                _ if rest.is_empty() || rest.starts_with('-') => (Status::Release, None),
                _ if rest.starts_with("pre") => (Status::Pre, rest.get(3..)),
                _ if rest.starts_with("rc") => (Status::Candidate, rest.get(2..)),
                _ => (Status::Release, Some(rest.strip_prefix('.')?)),
            };
            if let Some(patched) = patched {
                (version.patch_level, rest) = number(patched)?;
            }
        } else if !rest.is_empty() && !rest.starts_with('-') {
            return None;
        }
        version.read_tag(rest)?;
        Some(version)
    }

    /// What follows the numbers.
    fn read_tag(&mut self, rest: &'a str) -> Option<()> {
        let rest = rest.strip_prefix(['-', '.']).unwrap_or(rest);
        let end = rest.find([' ', '\t', '\r', '\n', '#']).unwrap_or(rest.len());
        let (tag, rest) = rest.split_at(end);
        self.tag = &tag.as_bytes()[..tag.len().min(TAG)];
        let rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if let Some(revision) = rest.strip_prefix("(r") {
            self.revision = number(revision).map_or(0, |(revision, _)| revision);
        } else if let Some(commit) = rest.strip_prefix("(git-") {
            let (commit, _) = commit.split_once(')')?;
            let is_hex = commit.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_hex || commit.is_empty() || commit.len() % 2 == 1 || commit.len() > 40 {
                return None;
            }
            self.commit = commit.to_ascii_lowercase();
            self.commit_len = commit.len();
        }
        Some(())
    }
}

/// A number up to 2^31-1, and what follows it.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let value = digits.parse().ok().filter(|n| *n <= i32::MAX as u32)?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_of_versions() {
        let ascending = [
            "0.0.9pre1",
            "0.0.9rc2",
            "0.0.9",
            "0.0.9.1",
            "0.1.0-alpha",
            "0.2",
            "0.2.0",
            "0.4.8.9",
            "0.4.8.10",
            "0.4.9.1",
            "0.4.9.1-alpha",
            "0.4.9.1-alpha-dev",
            "0.4.9.1-alpha-dev (git-0a)",
            "0.4.9.1-alpha-dev (git-0b)",
            "0.4.9.1-alpha-dev (git-0000)",
            "0.4.9.1-alpha-dev (r12)",
            "1.0.0.0",
            // No versions.
            "",
            "0.4.9.",
            "0.4.9.1 (git-abc)",
            "0.4.9x",
            "4294967296.0",
            "next year's",
        ];
        for (n, a) in ascending.iter().enumerate() {
            for (m, b) in ascending.iter().enumerate() {
                // A version of two numbers is one whose third is 0.
                let want = if [*a, *b] == ["0.2", "0.2.0"] || [*a, *b] == ["0.2.0", "0.2"] {
                    Ordering::Equal
                } else {
                    n.cmp(&m)
                };
                assert_eq!(compare(a, b), want, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn texts_of_one_version() {
        assert_eq!(compare("Tor 0.4.9.11", "0.4.9.11"), Ordering::Equal);
        assert_eq!(compare("tor 0.4.9.11 with more", "0.4.9.11"), Ordering::Equal);
        assert_eq!(compare("0.4.9.11 (git-ABCD)", "0.4.9.11 (git-abcd)"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn is_a_total_order(texts in proptest::collection::vec("(Tor )?[0-9]{1,3}[.]?[0-9.a-z()# -]{0,20}", 3)) {
            let [a, b, c] = [&texts[0], &texts[1], &texts[2]];
            prop_assert_eq!(compare(a, b), compare(b, a).reverse());
            if compare(a, b).is_le() && compare(b, c).is_le() {
                prop_assert!(compare(a, c).is_le());
            }
        }

        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = compare(&text, "0.4.9.11");
        }
    }
}
