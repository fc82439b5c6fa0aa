//! Where a configuration comes from, and what is said about it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use onionring_proto::torrc::options::OptionInfo;
use onionring_proto::torrc::{Item, Note, Origin, Problem, Settings, options};

use super::classes::{Class, Classes};
use super::{Configuration, Environment};
use crate::torrc;

/// The main configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Torrc {
    /// This file.
    File(PathBuf),
    /// This file if it is there, otherwise none.
    Optional(PathBuf),
    /// Text that was read from standard input, which cannot be read again.
    Text(Vec<u8>),
}

impl Torrc {
    /// Takes standard input as the file.
    pub fn from_stdin() -> std::io::Result<Torrc> {
        let mut text = Vec::new();
        std::io::stdin().take(crate::limits::TORRC_BYTES).read_to_end(&mut text)?;
        Ok(Torrc::Text(text))
    }
}

/// Where the configuration comes from. Kept while the program runs, to load it again.
#[derive(Clone, Debug)]
pub struct Sources {
    /// A file of defaults, which may be missing.
    pub defaults: Option<PathBuf>,
    /// The file.
    pub torrc: Torrc,
    /// Options on the command line, which count most.
    pub command_line: Vec<Item>,
    /// Take options that are not supported as if they were not there.
    pub allow_unsupported: bool,
}

/// What there is to say about a configuration.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What makes it unusable.
    pub problems: Vec<Problem>,
    /// What the operator should look at.
    pub warnings: Vec<Note>,
    /// What the operator should know.
    pub notes: Vec<Note>,
}

/// A configuration that was read, with what it is made of.
#[derive(Debug)]
pub struct Loaded<C> {
    /// The typed configuration; `None` if there are problems.
    pub config: Option<C>,
    /// The options as given.
    pub settings: Settings,
    /// The options as the file of defaults gives them.
    pub baseline: Settings,
    /// What there is to say.
    pub findings: Findings,
}

impl Sources {
    /// Reads and checks everything, and reports all that is wrong at once.
    pub fn load<C: Configuration>(&self, environment: &Environment) -> Loaded<C> {
        let mut findings = Findings::default();
        let (settings, baseline) = self.settings(&mut findings);
        judge(&C::CLASSES, &settings, self.allow_unsupported, &mut findings);
        let config = C::new(&settings, environment, &mut findings);
        let config = Some(config).filter(|_| findings.problems.is_empty());
        Loaded { config, settings, baseline, findings }
    }

    /// The options as given, and as the file of defaults gives them.
    pub fn settings(&self, findings: &mut Findings) -> (Settings, Settings) {
        let Findings { problems, notes, .. } = findings;
        let mut settings = Settings::default();
        let existing = |path: &PathBuf| path.exists();
        if let Some(path) = self.defaults.as_ref().filter(|path| existing(path)) {
            let items = torrc::read(path, problems);
            settings.assign(items, problems, notes);
        }
        let baseline = settings.clone();
        let items = match &self.torrc {
            Torrc::Optional(path) if !existing(path) => Vec::new(),
            Torrc::File(path) | Torrc::Optional(path) => torrc::read(path, problems),
            Torrc::Text(text) => torrc::read_text(text, "standard input", problems),
        };
        settings.assign(items, problems, notes);
        settings.assign(self.command_line.clone(), problems, notes);
        (settings, baseline)
    }
}

/// Reports the options that do nothing, and refuses those that are not supported.
fn judge(classes: &Classes, settings: &Settings, allow_unsupported: bool, findings: &mut Findings) {
    let mut without_effect = Vec::new();
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for option in options::all() {
        let lines = own_lines(settings, option);
        if lines.is_empty() {
            continue;
        }
        let (class, text) = classes.classify(option);
        match class {
            Class::Supported => {}
            Class::NoEffect => without_effect.push(option.name),
            Class::Missing => missing.entry(text).or_default().push(option.name),
            Class::Unsupported if !settings.differs_from_default(option) => {}
            Class::Unsupported => {
                for line in lines {
                    let problem = Problem::with(line, "not supported here", text);
                    if allow_unsupported {
                        let text =
                            format!("{} \"{}\" is not supported here and ignored", line.name, line.value);
                        findings.warnings.push(Note { origin: problem.origin, text });
                    } else {
                        findings.problems.push(problem);
                    }
                }
            }
        }
    }
    for (text, names) in missing {
        let text = format!("{}: {text}", names.join(", "));
        findings.warnings.push(Note { origin: Origin::Default, text });
    }
    if !without_effect.is_empty() {
        let text = format!("options without effect in this program: {}", without_effect.join(", "));
        findings.notes.push(Note { origin: Origin::Default, text });
    }
}

/// The lines that bear the name of this option, where several options share a list.
pub(super) fn own_lines<'a>(settings: &'a Settings, option: &OptionInfo) -> Vec<&'a Item> {
    settings.all_lines().filter(|item| item.name == option.name).collect()
}
