//! The file `state` of a data directory, in C tor's form: what a program remembers over restarts, one `Keyword value` a
//! line. A keyword may come on several lines, each of which is a value of its list.
//!
//! Whoever remembers something takes the lines of its keyword out of a [`StateFile`] and puts new ones in their place.
//! All other lines are kept as they are, so that C tor and this program can take turns on one data directory.

use std::fmt;

use thiserror::Error;

/// Something in the file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line} of the state file ({keyword}): {what}: {value:?}; {}", .outcome.text())]
pub struct Damage {
    /// Number of the line, from 1.
    pub line: usize,
    /// Its keyword.
    pub keyword: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// The part that is wrong.
    pub value: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The part that is wrong does not count, and is put right when the file is written again.
    Mended,
    /// The line is left out when the file is written again.
    LineLost,
    /// All that belongs to it is forgotten, and learned anew.
    Forgotten,
}

impl Outcome {
    fn text(self) -> &'static str {
        match self {
            Outcome::Mended => "that part does not count",
            Outcome::LineLost => "the line is left out",
            Outcome::Forgotten => "all of it is forgotten and learned anew",
        }
    }
}

/// The lines of the file. Its size is bounded by whoever reads it from the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateFile {
    lines: Vec<String>,
}

impl StateFile {
    /// Takes the text of a file apart; any text is a state file.
    pub fn read(text: &str) -> Self {
        StateFile { lines: text.lines().map(str::to_owned).collect() }
    }

    /// The values of a keyword, of whatever case, in the order of the file, each with the number of its line (from 1).
    pub fn values<'a>(&'a self, keyword: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        let all = self.lines.iter().enumerate().map(|(n, line)| (n + 1, split(line)));
        all.filter(move |(_, (found, _))| found.eq_ignore_ascii_case(keyword))
            .map(|(n, (_, value))| (n, value))
    }

    /// Puts these values in the place of all that the keyword had: where its first line was, or at the end. Without
    /// values, the keyword is gone.
    pub fn replace(&mut self, keyword: &str, values: impl IntoIterator<Item = String>) {
        let is_old = |line: &String| split(line).0.eq_ignore_ascii_case(keyword);
        let at = self.lines.iter().position(is_old).unwrap_or(self.lines.len());
        self.lines.retain(|line| !is_old(line));
        let new = values.into_iter().map(|value| {
            // Ours to keep: values are made of numbers, of names that were checked, and of words that were read from such a
            // file, where a line's end or a comment never comes into a word.
            assert!(!value.contains(['\n', '\r', '#']), "a value of the state file takes one line");
            format!("{keyword} {value}")
        });
        self.lines.splice(at..at, new);
    }
}

impl fmt::Display for StateFile {
    /// The text of the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Keyword and value of a line; both are empty if it holds nothing but a comment.
fn split(line: &str) -> (&str, &str) {
    let line = line.split('#').next().unwrap_or_default().trim_ascii();
    let (keyword, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    (keyword, value.trim_ascii())
}

/// Writes `YYYY-MM-DDTHH:MM:SS` (UTC), as times stand inside values.
pub(crate) fn format_time(at: crate::time::Unix) -> String {
    crate::netdoc::text::format_time(at).replace(' ', "T")
}

/// Reads what [`format_time`] writes.
pub(crate) fn parse_time(text: &str) -> Option<crate::time::Unix> {
    let (date, clock) = text.split_once('T')?;
    crate::netdoc::text::time(date, clock)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "# Tor state file last generated on 2026-11-28 00:00:00 local time\n\
        # Other times below are in UTC\n\n\
        CircuitBuildTimeBin 75 2\nDormant 0\nCircuitBuildTimeBin 95 1\nTorVersion Tor 0.4.9.11\n";

    #[test]
    fn lines_of_others_stay_where_they_are() {
        let mut state = StateFile::read(FILE);
        assert_eq!(state.to_string(), FILE);
        let bins: Vec<_> = state.values("circuitbuildtimebin").collect();
        assert_eq!(bins, [(4, "75 2"), (6, "95 1")]);
        assert_eq!(state.values("CircuitBuild").count(), 0);
        state.replace("CircuitBuildTimeBin", ["15 1".to_owned(), "25 7".to_owned()]);
        state.replace("Guard", ["in=default".to_owned()]);
        let expected = FILE
            .replace("CircuitBuildTimeBin 75 2\n", "CircuitBuildTimeBin 15 1\nCircuitBuildTimeBin 25 7\n")
            .replace("CircuitBuildTimeBin 95 1\n", "");
        assert_eq!(state.to_string(), expected + "Guard in=default\n");
        state.replace("CircuitBuildTimeBin", []);
        assert_eq!(state.values("CircuitBuildTimeBin").count(), 0);
    }

    #[test]
    fn comments_are_no_values() {
        let state = StateFile::read("Guard in=default # mine\n#Guard x\nGuard\n\tGuard\ty\r\n");
        let guards: Vec<_> = state.values("Guard").collect();
        assert_eq!(guards, [(1, "in=default"), (3, ""), (4, "y")]);
    }

    proptest! {
        #[test]
        fn any_text_is_kept(text in "(?s)([ -~\n\t#]|Guard ){0,200}") {
            let mut state = StateFile::read(&text);
            prop_assert_eq!(&StateFile::read(&state.to_string()), &state);
            let others = |state: &StateFile| {
                let mut lines = state.lines.clone();
                lines.retain(|line| !split(line).0.eq_ignore_ascii_case("Guard"));
                lines
            };
            let before = others(&state);
            let values: Vec<String> = state.values("Guard").map(|(_, value)| value.to_owned()).collect();
            state.replace("Guard", values.clone());
            prop_assert_eq!(others(&state), before);
            let after: Vec<&str> = state.values("Guard").map(|(_, value)| value).collect();
            prop_assert_eq!(after, values);
        }
    }
}
