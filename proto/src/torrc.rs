//! Configuration files in C tor's syntax, without the file system.
//!
//! A configuration comes from up to three sources, in this order: the file of defaults (`--defaults-torrc`), the
//! `torrc` itself, and the command line. Each is turned into [`Item`]s by [`lines`] or [`cmdline`], and
//! [`Settings`] merges them by C tor's rules. The table of everything that C tor 0.4.9 knows, and of what we add, is
//! [`options`]; what a program makes of an option (supports it, ignores it, refuses it) is that program's business.
//!
//! Reading files, `%include` with its globs and directories, is the driver's: [`lines::parse`] reports an include
//! as a directive. Every item knows where it was written, so that every complaint can say so; complaints are
//! collected as [`Problem`]s instead of stopping at the first.

use std::fmt;
use std::sync::Arc;

pub mod authority;
pub mod cmdline;
pub mod fallback;
pub mod family;
pub mod lines;
pub mod log;
pub mod options;
pub mod port;
mod settings;
mod table;
pub mod value;

pub use settings::{Note, Settings};

#[cfg(test)]
mod tests;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of a file; lines count from 1, and a continued line counts as its first.
    File {
        /// The file as the operator named it.
        path: Arc<str>,
        /// The line the keyword stands on.
        line: u32,
    },
    /// The command line.
    CommandLine,
    /// Nowhere: the value is the built-in default, or the option is missing.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::CommandLine => f.write_str("command line"),
            Origin::Default => f.write_str("configuration"),
        }
    }
}

/// What a line does to the value that an earlier source gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `Option value`: replaces a single value; of a list, replaces what an earlier *source* gave and adds to what
    /// this source gave.
    Set,
    /// `+Option value`: adds to the list whatever the source.
    Append,
    /// `/Option`: empties the list, or goes back to the default.
    Clear,
}

/// One setting as written, its name not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it was written.
    pub origin: Origin,
    /// What it does to earlier values.
    pub command: Command,
    /// The keyword as written, without `+` or `/`.
    pub name: String,
    /// The value, with quotes, escapes, continuations and comments resolved and outer blanks removed.
    pub value: String,
}

/// One thing that is wrong with a configuration, with all that an operator needs to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// The option, or empty if the trouble is not with one option.
    pub option: String,
    /// The value as written; `None` where the value is not the point.
    pub value: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.option.is_empty() {
            f.write_str(&self.option)?;
            if let Some(value) = &self.value {
                write!(f, " \"{}\"", value.escape_debug())?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl Problem {
    /// A problem with the value of `item`.
    pub fn with(item: &Item, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem {
            origin: item.origin.clone(),
            option: item.name.clone(),
            value: Some(item.value.clone()),
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// A problem that is not tied to one line, such as a missing option.
    pub fn general(option: &str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem {
            origin: Origin::Default,
            option: option.to_owned(),
            value: None,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}
