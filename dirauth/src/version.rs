//! Versions of Tor, as platform lines and lists of recommended versions have them (version-spec).
//!
//! `MAJOR.MINOR[.MICRO[.PATCHLEVEL][-TAG]]`, once also with `pre` or `rc` before the patch level, and perhaps followed by
//! `(git-HEX)`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Greatest number in a version, and longest tag.
const NUMBER_MAX: u32 = i32::MAX as u32;
const TAG_MAX: usize = 31;
/// Longest version in a platform line, its `(git-...)` included.
const PLATFORM_VERSION_MAX: usize = 126;

/// A version of Tor. Later ones are greater.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TorVersion {
    numbers: [u32; 3],
    stage: Stage,
    patch_level: u32,
    tag: Box<str>,
    revision: u32,
    /// Length before content, as versions are compared.
    git: (usize, Box<[u8]>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Pre,
    Candidate,
    #[default]
    Release,
}

/// The words of a platform line that votes repeat: `Tor` and its version. `None` if it is other software.
pub(crate) fn words(platform: &str) -> Option<&str> {
    // As everywhere in this format, a # ends a word.
    let end_of_word = |from: usize| {
        let rest = platform.get(from..)?;
        Some(from + rest.find([' ', '\t', '\r', '\n', '#']).unwrap_or(rest.len()))
    };
    platform.strip_prefix("Tor ")?;
    let end = end_of_word(4)?;
    let has_revision = platform.get(end..).is_some_and(|rest| rest.starts_with(" (r"));
    let end = if has_revision { end_of_word(end + 1)? } else { end };
    platform.get(..end)
}

/// Text that is no version of Tor.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no version of Tor: write one like 0.4.9.11 or 0.4.8.0-alpha-dev")]
pub struct NotAVersion(String);

impl TorVersion {
    /// The version that a platform line names; `None` if it is of other software, or of nobody.
    pub fn of_platform(platform: &str) -> Result<Option<TorVersion>, NotAVersion> {
        let Some(rest) = platform.strip_prefix("Tor ") else { return Ok(None) };
        let rest = rest.trim_start_matches(BLANKS);
        let mut end = rest.find(BLANKS).unwrap_or(rest.len());
        let after = rest[end..].trim_start_matches(BLANKS);
        if after.starts_with("(r") || after.starts_with("(git-") {
            end = rest.len() - after.len() + after.find(BLANKS).unwrap_or(after.len());
        }
        let version = &rest[..end];
        if version.is_empty() || version.len() > PLATFORM_VERSION_MAX {
            return Err(not_a_version(version));
        }
        version.parse().map(Some)
    }

    fn parse(text: &str) -> Option<TorVersion> {
        let (major, rest) = number(text)?;
        let (minor, mut rest) = number(rest.strip_prefix('.')?)?;
        let (mut micro, mut stage, mut patch_level) = (0, Stage::Release, 0);
        let ends = |rest: &str| rest.is_empty() || rest.starts_with('-');
        if !ends(rest) {
            (micro, rest) = number(rest.strip_prefix('.')?)?;
        }
        if !ends(rest) {
            let begin = |(word, stage): &(&str, Stage)| Some((*stage, rest.strip_prefix(word)?));
            let level;
            (stage, level) = STAGES.iter().find_map(begin)?;
            (patch_level, rest) = number(level)?;
        }

        let rest = rest.strip_prefix(['-', '.']).unwrap_or(rest);
        let (tag, build) = rest.split_at(rest.find(BLANKS).unwrap_or(rest.len()));
        let tag = tag.chars().take(TAG_MAX).collect();
        let build = build.trim_start_matches(BLANKS);
        let (mut revision, mut git) = (0, Vec::new());
        if let Some(digits) = build.strip_prefix("(r") {
            revision = number(digits).map_or(0, |(revision, _)| revision);
        } else if let Some(hex) = build.strip_prefix("(git-") {
            git = git_tag(hex.split_once(')')?.0)?;
        }
        Some(TorVersion {
            numbers: [major, minor, micro],
            stage,
            patch_level,
            tag,
            revision,
            git: (git.len(), git.into()),
        })
    }
}

impl fmt::Display for TorVersion {
    /// All four numbers, whether or not they were written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, micro] = self.numbers;
        let stage = STAGES.iter().find(|(_, stage)| *stage == self.stage).map_or(".", |(word, _)| word);
        write!(f, "{major}.{minor}.{micro}{stage}{}", self.patch_level)?;
        if !self.tag.is_empty() {
            write!(f, "-{}", self.tag)?;
        }
        if self.revision != 0 {
            write!(f, " (r{})", self.revision)?;
        }
        if !self.git.1.is_empty() {
            let hex: String = self.git.1.iter().map(|byte| format!("{byte:02x}")).collect();
            write!(f, " (git-{hex})")?;
        }
        Ok(())
    }
}

impl FromStr for TorVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<TorVersion, NotAVersion> {
        TorVersion::parse(text).ok_or_else(|| not_a_version(text))
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];
const STAGES: [(&str, Stage); 3] = [(".", Stage::Release), ("pre", Stage::Pre), ("rc", Stage::Candidate)];

/// The number that `text` begins with, and what follows.
fn number(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    digits.parse().ok().filter(|number| *number <= NUMBER_MAX).map(|number| (number, rest))
}

/// Bytes of a commit's name, up to 20.
fn git_tag(hex: &str) -> Option<Vec<u8>> {
    let is_tag = (2..=40).contains(&hex.len()) && hex.len().is_multiple_of(2) && hex.is_ascii();
    is_tag.then(|| {
        let pairs = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
        // `from_str_radix` takes a sign.
        pairs.collect::<Result<Vec<u8>, _>>().ok().filter(|_| !hex.contains('+'))
    })?
}

fn not_a_version(text: &str) -> NotAVersion {
    NotAVersion(text.chars().take(64).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> TorVersion {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn versions_in_their_order() {
        // Each is older than the next. Shorter names of commits come before longer ones, and all before revisions.
        let versions = [
            "0.0.8pre1",
            "0.0.8rc2",
            "0.0.8",
            "0.0.9.3",
            "0.4-dev",
            "0.4.8.0-alpha-dev",
            "0.4.8.1-alpha",
            "0.4.8.1-alpha-dev",
            "0.4.8.10",
            "0.4.9.11",
            "0.4.9.11-dev",
            "0.4.9.11-dev (git-ff)",
            "0.4.9.11-dev (git-0000)",
            "0.4.9.11-dev (r7)",
            "2147483647.0.0.0",
        ];
        for pair in versions.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("0.4"), version("0.4.0"));
    }

    #[test]
    fn what_is_no_version() {
        for text in [
            "",
            "0",
            "0.",
            "0.4.",
            "x.4",
            "0.4.8x",
            "0.4.8.",
            "0.4.8.x",
            "0.4.8pre",
            "-1.2.3",
            "0.4.8.2147483648",
            "0.4.8.1 (git-",
            "0.4.8.1 (git-abc)",
            "0.4.8.1 (git-)",
            "0.4.8.1 (git-+f)",
            "0.4.8.1 (git-é0)",
            "0.4.8.1 (git-00112233445566778899aabbccddeeff0011223344)",
        ] {
            assert!(text.parse::<TorVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn platforms_name_versions() {
        let of = |platform: &str| TorVersion::of_platform(platform);
        assert_eq!(of("Tor 0.4.9.11 on Linux").unwrap(), Some(version("0.4.9.11")));
        assert_eq!(
            of("Tor 0.4.9.11-dev (git-00ff) on Linux").unwrap(),
            Some(version("0.4.9.11-dev (git-00ff)"))
        );
        assert_eq!(of("Tor \t0.4.9.11").unwrap(), Some(version("0.4.9.11")));
        for other in ["onionring 0.1 on Linux", "tor 0.4.9.11", "Tor", "Torch 1", ""] {
            assert_eq!(of(other).unwrap(), None, "{other}");
        }
        let long = format!("Tor 0.4.9.11-{} on Linux", "x".repeat(200));
        for malformed in ["Tor ", "Tor on Linux", "Tor 0.4.9.11 (git-abc) on Linux", &long] {
            assert!(of(malformed).is_err(), "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_version_or_not(text in "(Tor |[0-9]{1,11}|\\.|-|rc|pre|alpha|\\(git-|\\(r|\\)| |\\PC){0,12}") {
            let _ = TorVersion::of_platform(&text);
            if let Ok(version) = text.parse::<TorVersion>() {
                prop_assert_eq!(version.to_string().parse(), Ok(version));
            }
        }

        #[test]
        fn numbers_order_versions(a: [u8; 4], b: [u8; 4]) {
            let version = |n: [u8; 4]| version(&format!("{}.{}.{}.{}", n[0], n[1], n[2], n[3]));
            prop_assert_eq!(version(a).cmp(&version(b)), a.cmp(&b));
        }
    }
}
