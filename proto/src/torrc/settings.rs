//! Merging of the sources of a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::options::{self, Lookup, OptionInfo};
use super::value::{self, Kind};
use super::{Command, Item, Origin, Problem};

/// Something the operator should know although the configuration is fine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where it comes from.
    pub origin: Origin,
    /// What there is to know.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Default => f.write_str(&self.text),
            _ => write!(f, "{}: {}", self.origin, self.text),
        }
    }
}

/// The merged configuration: for each option the lines that count, checked against the option's type.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Single values by name, lists by the name of their [group](group).
    values: BTreeMap<&'static str, Vec<Item>>,
    /// Lists whose lines come from an earlier source, so that the next plain line replaces them.
    inherited: BTreeSet<&'static str>,
}

/// The list that an option's lines belong to. `ORPort` and `__ORPort` are one list, and so are all options of onion
/// services, whose order matters.
fn group(option: &'static OptionInfo) -> &'static str {
    let name = option.name;
    match (option.kind, name.strip_prefix("__")) {
        (Kind::Lines, Some(port)) if port.ends_with("Port") => port,
        (Kind::Lines, _) if name.starts_with("HiddenService") => "HiddenServiceDir",
        _ => name,
    }
}

impl Settings {
    /// Adds one source on top of those before it. Items that are wrong are left out and reported.
    pub fn assign(&mut self, items: Vec<Item>, problems: &mut Vec<Problem>, notes: &mut Vec<Note>) {
        let mut seen = BTreeSet::new();
        for item in items {
            if let Some(option) = known(&item, problems, notes) {
                self.assign_one(option, item, &mut seen, problems, notes);
            }
        }
        self.inherited = self.values.keys().copied().collect();
    }

    fn assign_one(
        &mut self,
        option: &'static OptionInfo,
        mut item: Item,
        seen: &mut BTreeSet<&'static str>,
        problems: &mut Vec<Problem>,
        notes: &mut Vec<Note>,
    ) {
        item.name = option.name.to_owned();
        let group = group(option);
        let is_list = option.kind == Kind::Lines;
        if item.command == Command::Clear {
            self.values.remove(group);
            return;
        }
        if item.value.is_empty() {
            match option.kind {
                Kind::Lines => {
                    let text = format!("{} has no value and is skipped", option.name);
                    notes.push(Note { origin: item.origin, text });
                    return;
                }
                // An empty text, path or list of words says "none" where the default is something.
                Kind::Text | Kind::Path | Kind::Csv => {}
                _ => {
                    let remedy = format!("give one, or write /{} for the default", option.name);
                    problems.push(Problem::with(&item, "the value is missing", remedy));
                    return;
                }
            }
        }
        if let Err(e) = option.kind.normalize(&item.value) {
            problems.push(Problem::with(&item, e.what, e.remedy));
            return;
        }
        if !is_list && !seen.insert(option.name) {
            let text = format!("{} is given more than once; the last one counts", option.name);
            notes.push(Note { origin: item.origin.clone(), text });
        }
        let inherited = self.inherited.remove(group);
        let replaces = !is_list || (inherited && item.command == Command::Set);
        let lines = self.values.entry(group).or_default();
        if replaces {
            lines.clear();
        }
        lines.push(item);
    }

    /// The lines of a list, in order; also those of the options that share the list. Empty if it is not set.
    pub fn lines(&self, name: &str) -> &[Item] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The line that sets a single value, if one does.
    pub fn item(&self, name: &str) -> Option<&Item> {
        self.lines(name).last()
    }

    /// Where a value comes from.
    pub fn origin(&self, name: &str) -> Origin {
        self.item(name).map_or(Origin::Default, |item| item.origin.clone())
    }

    /// A text or path; `None` if it is neither set nor has a default, or is set to nothing.
    pub fn text(&self, name: &str) -> Option<&str> {
        Some(self.raw(name)).filter(|value| !value.is_empty())
    }

    /// The entries of a list separated by commas.
    pub fn csv(&self, name: &str) -> impl Iterator<Item = &str> {
        value::csv(self.raw(name))
    }

    /// A switch.
    pub fn flag(&self, name: &str) -> bool {
        value::flag(self.raw(name)).expect(CHECKED)
    }

    /// A switch that may be left to the program.
    pub fn auto_flag(&self, name: &str) -> Option<bool> {
        value::auto_flag(self.raw(name)).expect(CHECKED)
    }

    /// A whole number that is not negative.
    pub fn integer(&self, name: &str) -> u64 {
        value::integer(self.raw(name), u64::MAX).expect(CHECKED)
    }

    /// A length of time in seconds.
    pub fn interval(&self, name: &str) -> Duration {
        value::interval(self.raw(name)).expect(CHECKED)
    }

    /// An amount of data in bytes.
    pub fn memory(&self, name: &str) -> u64 {
        value::memory(self.raw(name)).expect(CHECKED)
    }

    /// Whether this is a testing network, whose defaults differ.
    pub fn is_testing(&self) -> bool {
        self.item("TestingTorNetwork").is_some_and(|item| item.value == "1")
    }

    /// Whether the option is set to something that is not its default.
    pub fn differs_from_default(&self, option: &OptionInfo) -> bool {
        match self.item(option.name) {
            Some(_) if option.kind == Kind::Lines => true,
            Some(item) => {
                option.kind.normalize(&item.value) != option.kind.normalize(self.default_of(option))
            }
            None => false,
        }
    }

    /// Every line that counts, options in the order of their names.
    pub fn all_lines(&self) -> impl Iterator<Item = &Item> {
        self.values.values().flatten()
    }

    /// A torrc that gives this configuration, in the form of C tor's `--dump-config`: values that equal those of
    /// `baseline` are left out, or none at all without a baseline.
    pub fn dump(&self, baseline: Option<&Settings>) -> String {
        let mut out = String::new();
        for option in options::all() {
            // C's own rule: what starts with two underscores is for controllers, and not written.
            if option.name.starts_with("__") {
                continue;
            }
            // Unless somebody wants it, what C tor does not know stays out of what it may have to read.
            if option.ours && self.item(option.name).is_none() {
                continue;
            }
            let mine = self.rendered(option);
            if baseline.is_some_and(|baseline| baseline.rendered(option) == mine) {
                continue;
            }
            for value in mine {
                let blank = if value.is_empty() { "" } else { " " };
                out += &format!("{}{blank}{}\n", option.name, quoted_if_needed(&value));
            }
        }
        out
    }

    fn rendered(&self, option: &'static OptionInfo) -> Vec<String> {
        if option.kind == Kind::Lines {
            let own = self.lines(group(option)).iter().filter(|item| item.name == option.name);
            return own.map(|item| item.value.clone()).collect();
        }
        let value = option.kind.normalize(self.raw(option.name)).expect(CHECKED);
        let unset = value.is_empty() && option.kind != Kind::Csv;
        if unset { Vec::new() } else { vec![value] }
    }

    fn default_of(&self, option: &OptionInfo) -> &'static str {
        if self.is_testing() { option.testing_default } else { option.default }
    }

    /// The value as written or by default.
    fn raw(&self, name: &str) -> &str {
        match self.item(name) {
            Some(item) => &item.value,
            None => options::find(name).map_or("", |option| self.default_of(option)),
        }
    }
}

/// Why a getter may expect a value of its type: `assign` refuses any other, defaults are covered by a test, and the
/// name and type in the call are the program's own.
const CHECKED: &str = "values are checked against their type when they are assigned";

/// The option an item names, or a problem.
fn known(item: &Item, problems: &mut Vec<Problem>, notes: &mut Vec<Note>) -> Option<&'static OptionInfo> {
    let note = |text| Note { origin: item.origin.clone(), text };
    match options::lookup(&item.name, item.origin == Origin::CommandLine) {
        Lookup::Exact(option) => Some(option),
        Lookup::Alias(option) => {
            notes.push(note(format!("{} is an old or short form; write {}", item.name, option.name)));
            Some(option)
        }
        Lookup::Obsolete(name) => {
            notes.push(note(format!("{name} is obsolete and skipped")));
            None
        }
        Lookup::Unknown { nearest } => {
            problems.push(Problem {
                origin: item.origin.clone(),
                option: item.name.clone(),
                value: None,
                what: "no such option".to_owned(),
                remedy: match nearest {
                    Some(nearest) => format!("did you mean {nearest}?"),
                    None => "options have the names of C tor's (man tor); remove the line".to_owned(),
                },
            });
            None
        }
    }
}

/// Puts quotes around a value that a torrc could not hold without.
fn quoted_if_needed(value: &str) -> String {
    let plain = |c: char| (c == ' ' || c.is_ascii_graphic()) && c != '#';
    // A backslash at the end would continue the line.
    if !value.starts_with('"') && !value.ends_with('\\') && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for byte in value.bytes() {
        match byte {
            b'\n' => out += "\\n",
            b'\r' => out += "\\r",
            b'\t' => out += "\\t",
            b'"' | b'\\' => {
                out.push('\\');
                out.push(byte.into());
            }
            b' '..=b'~' => out.push(byte.into()),
            _ => out += &format!("\\x{byte:02x}"),
        }
    }
    out.push('"');
    out
}
