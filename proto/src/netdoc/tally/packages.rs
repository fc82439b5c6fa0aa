//! Recommended packages, which methods before 34 list.

use std::collections::BTreeMap;

use super::count::most_frequent;
use crate::netdoc::vote::SignedVote;

/// The lines, sorted: for each package and version that at least three authorities name, what more than half of these
/// say of it.
pub(super) fn agreed<'a>(votes: &[&'a SignedVote]) -> Vec<&'a str> {
    let mut opinions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for vote in votes {
        // Of several lines for one version in a vote the last one counts.
        let lines = vote.vote.packages.iter().filter_map(|line| Some((key(line)?, &**line)));
        for (key, line) in lines.collect::<BTreeMap<_, _>>() {
            opinions.entry(key).or_default().push(line);
        }
    }
    let mut agreed: Vec<&str> = Vec::new();
    for lines in opinions.values().filter(|lines| lines.len() >= 3) {
        let best = most_frequent(lines.iter().copied());
        agreed.extend(best.filter(|best| lines.iter().filter(|l| *l == best).count() > lines.len() / 2));
    }
    agreed.sort_unstable();
    agreed
}

/// Name and version of a line `NAME VERSION URL DIGEST=VALUE...`; `None` for other forms.
fn key(line: &str) -> Option<&str> {
    let mut words = line.split(' ');
    let (name, version, url) = (words.next()?, words.next()?, words.next()?);
    let digest = |word: &str| {
        word.split_once('=')
            .is_some_and(|(alg, value)| !alg.is_empty() && !value.is_empty() && !value.contains('='))
    };
    let mut digests = words.peekable();
    digests.peek()?;
    let complete = ![name, version, url].contains(&"") && digests.all(digest);
    if complete { line.get(..name.len() + 1 + version.len()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_lines() {
        assert_eq!(key("tor 0.1 http://x sha1=a"), Some("tor 0.1"));
        assert_eq!(key("tor 0.1 http://x sha1=a sha256=b"), Some("tor 0.1"));
        for bad in [
            "",
            "tor 0.1 http://x",
            "tor 0.1 http://x ",
            "tor 0.1 http://x sha1",
            "tor 0.1 http://x =a",
            "tor 0.1 http://x sha1=",
            "tor 0.1 http://x sha1=a=b",
            "tor 0.1 http://x sha1=a ",
            "tor  http://x sha1=a",
            " 0.1 http://x sha1=a",
        ] {
            assert_eq!(key(bad), None, "{bad:?}");
        }
    }
}
