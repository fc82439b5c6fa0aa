//! Options on the command line, as C tor takes them.
//!
//! `--Option value`, with one, two or no dashes; `--+Option value` adds to a list; `--/Option` clears and takes no
//! value. Beside them stand the program's own flags (`-f`, `--verify-config`), which are matched first and exactly.

use super::{Command, Item, Origin, Problem};

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    None,
    /// A value.
    Required,
    /// A value, unless the next word starts with a dash.
    Optional,
}

/// A flag of the program that is no torrc option.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name with the dashes.
    pub name: &'static str,
    /// Another spelling, or empty.
    pub short: &'static str,
    /// What follows.
    pub argument: Argument,
}

/// A command line, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The flags in order, each with its argument (empty if there is none).
    pub flags: Vec<(&'static str, String)>,
    /// The torrc options in order.
    pub items: Vec<Item>,
}

/// Takes the words behind the program's name apart. What is wrong is left out and reported.
pub fn parse(words: &[String], flags: &[Flag], problems: &mut Vec<Problem>) -> CommandLine {
    let mut line = CommandLine::default();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let flag = flags.iter().find(|f| f.name == word || (!f.short.is_empty() && f.short == word));
        let stripped = word.strip_prefix('-').unwrap_or(word);
        let stripped = stripped.strip_prefix('-').unwrap_or(stripped);
        let (command, name) = match stripped.as_bytes().first() {
            Some(b'+') => (Command::Append, &stripped[1..]),
            Some(b'/') => (Command::Clear, &stripped[1..]),
            _ => (Command::Set, stripped),
        };
        let argument = match flag {
            Some(flag) => flag.argument,
            None if command == Command::Clear => Argument::None,
            None => Argument::Required,
        };
        let value = match argument {
            Argument::None => Some(String::new()),
            Argument::Required => words.next().cloned(),
            Argument::Optional => {
                Some(words.next_if(|next| !next.starts_with('-')).cloned().unwrap_or_default())
            }
        };
        let Some(value) = value else {
            problems.push(Problem {
                origin: Origin::CommandLine,
                option: word.clone(),
                value: None,
                what: "the value is missing".to_owned(),
                remedy: "put it behind the option, or see --help".to_owned(),
            });
            continue;
        };
        match flag {
            Some(flag) => line.flags.push((flag.name, value)),
            None => line.items.push(Item {
                origin: Origin::CommandLine,
                command,
                name: name.to_owned(),
                value: value.trim().to_owned(),
            }),
        }
    }
    line
}

impl CommandLine {
    /// Whether a flag is given.
    pub fn has(&self, name: &str) -> bool {
        self.flag(name).is_some()
    }

    /// The argument of the last flag of this name.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }
}
