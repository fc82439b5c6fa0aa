//! What options are called, and their types and defaults: C tor's, and the few that are ours.

use std::sync::LazyLock;

use super::table::{ALIASES, COMMAND_LINE_ALIASES, OBSOLETE, OPTIONS, OURS, TESTING_DEFAULTS};
use super::value::Kind;

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionInfo {
    /// The name in its canonical case.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// The default, empty where there is none.
    pub default: &'static str,
    /// The default in a testing network.
    pub testing_default: &'static str,
    /// C tor has it not.
    pub ours: bool,
}

/// Every option, sorted by name without regard to case.
pub fn all() -> &'static [OptionInfo] {
    static ALL: LazyLock<Vec<OptionInfo>> = LazyLock::new(|| {
        let theirs = OPTIONS.iter().map(|option| (option, false));
        let mut all: Vec<_> = theirs
            .chain(OURS.iter().map(|option| (option, true)))
            .map(|(&(name, kind, default), ours)| {
                let testing = TESTING_DEFAULTS.iter().find(|(testing, _)| *testing == name);
                let testing_default = testing.map_or(default, |t| t.1);
                OptionInfo { name, kind, default, testing_default, ours }
            })
            .collect();
        all.sort_by_key(|option| option.name.to_ascii_lowercase());
        all
    });
    &ALL
}

/// The option of exactly this name, whatever the case.
pub fn find(name: &str) -> Option<&'static OptionInfo> {
    all().iter().find(|option| option.name.eq_ignore_ascii_case(name))
}

/// What a keyword turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// An option, by its name.
    Exact(&'static OptionInfo),
    /// An option, by an old or shortened name that C tor still takes.
    Alias(&'static OptionInfo),
    /// Something that C tor had once and now ignores.
    Obsolete(&'static str),
    /// Nothing; `nearest` is the option that was probably meant.
    Unknown {
        /// The most similar name, if one is similar.
        nearest: Option<&'static str>,
    },
}

/// Looks a keyword up as C tor does: aliases, then names without regard to case, then the first name (in the order
/// of the table) that starts with the keyword.
pub fn lookup(keyword: &str, on_command_line: bool) -> Lookup {
    let alias = |list: &[(&str, &'static str)]| {
        list.iter().find(|(old, _)| old.eq_ignore_ascii_case(keyword)).map(|(_, new)| *new)
    };
    let expanded =
        alias(ALIASES).or_else(|| if on_command_line { alias(COMMAND_LINE_ALIASES) } else { None });
    let name = expanded.unwrap_or(keyword);
    if let Some(option) = find(name) {
        return if expanded.is_some() { Lookup::Alias(option) } else { Lookup::Exact(option) };
    }
    if let Some(obsolete) = OBSOLETE.iter().find(|old| old.eq_ignore_ascii_case(name)) {
        return Lookup::Obsolete(obsolete);
    }
    // Of C tor's alone, so that a short form means the same everywhere.
    let shortened = |option: &&OptionInfo| {
        !option.ours && option.name.get(..name.len()).is_some_and(|s| s.eq_ignore_ascii_case(name))
    };
    match all().iter().find(shortened) {
        Some(option) if !name.is_empty() => Lookup::Alias(option),
        _ => Lookup::Unknown { nearest: nearest(name) },
    }
}

/// The option whose name is most similar to `keyword`, if no more than a third of it is wrong.
fn nearest(keyword: &str) -> Option<&'static str> {
    // A keyword can be as long as its file; no option's name is longer than this, and the distance is quadratic.
    let keyword: String = keyword.chars().take(64).collect::<String>().to_ascii_lowercase();
    let distance = |name: &str| strsim::osa_distance(&keyword, &name.to_ascii_lowercase());
    let distances = all().iter().map(|option| (distance(option.name), option.name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= keyword.chars().count() / 3).then_some(name)
}
