//! What a program makes of each of C tor's options, and of ours.
//!
//! Every option is in exactly one class, with one line for the operator. The page of documentation about them is made
//! from the same table.

use onionring_proto::torrc::options::{self, OptionInfo};

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It works.
    Supported,
    /// It is accepted and does nothing, so that one file serves a stock node and this one.
    NoEffect,
    /// As `NoEffect`, but someone may be waiting for what it does in C tor: a warning.
    Missing,
    /// Any value but the default would change what the program does, and is an error.
    Unsupported,
}

/// Options that share a class and a reason.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Their class.
    pub class: Class,
    /// Why they do nothing, or what to do instead.
    pub text: &'static str,
    /// Their names.
    pub names: &'static [&'static str],
}

/// What a program makes of all options.
#[derive(Clone, Copy, Debug)]
pub struct Classes {
    /// Options that work, with what they do, in lists.
    pub supported: &'static [&'static [(&'static str, &'static str)]],
    /// All others.
    pub groups: &'static [Group],
    /// Options that count at once when the configuration is read again. Every other one that is supported counts when
    /// the program starts.
    pub reloadable: &'static [&'static str],
}

impl Classes {
    /// The class of an option, and what to say about it: what it does, why it does nothing, or what to do instead.
    pub fn classify(&self, option: &OptionInfo) -> (Class, &'static str) {
        if let Some((_, text)) =
            self.supported.iter().copied().flatten().find(|(name, _)| *name == option.name)
        {
            return (Class::Supported, text);
        }
        let group = self.groups.iter().find(|group| group.names.contains(&option.name));
        group.map_or((Class::Unsupported, "remove it"), |group| (group.class, group.text))
    }

    /// The page of documentation about all options, below `head`.
    pub fn document(&self, head: &str) -> String {
        let mut page = String::from(head);
        for (title, class) in [
            ("Supported", Class::Supported),
            ("Without effect", Class::NoEffect),
            ("Accepted with a warning", Class::Missing),
            ("Not supported", Class::Unsupported),
        ] {
            page += &format!("\n## {title}\n\n| option | default | |\n|---|---|---|\n");
            for option in options::all() {
                let (found, text) = self.classify(option);
                if found == class {
                    let default = if option.default.is_empty() { "-" } else { option.default };
                    page += &format!("| `{}` | {default} | {text} |\n", option.name);
                }
            }
        }
        page
    }

    /// What is wrong with the table: options that are in no class or in two, names that are no option's, and options
    /// that are read again and do nothing. Empty if all is well; for the tests of programs.
    pub fn faults(&self) -> Vec<String> {
        let supported = self.supported.iter().copied().flatten().map(|(name, _)| *name);
        let classified: Vec<_> =
            supported.chain(self.groups.iter().flat_map(|group| group.names).copied()).collect();
        let mut faults = Vec::new();
        for option in options::all() {
            let times = classified.iter().filter(|name| **name == option.name).count();
            if times != 1 {
                faults.push(format!("{} is in {times} classes", option.name));
            }
        }
        for name in classified.iter().chain(self.reloadable) {
            match options::find(name).filter(|option| option.name == *name) {
                None => faults.push(format!("{name} is no option")),
                Some(option)
                    if self.reloadable.contains(name) && self.classify(option).0 != Class::Supported =>
                {
                    faults.push(format!("{name} can be reloaded and is not supported"));
                }
                Some(_) => {}
            }
        }
        faults
    }
}
