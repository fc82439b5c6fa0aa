//! What of a configuration that is read again (SIGHUP) waits for a restart.

use onionring_proto::torrc::Settings;
use onionring_proto::torrc::options::{self, OptionInfo};
use onionring_proto::torrc::value::Kind;

use super::classes::Class;
use super::sources::own_lines;
use super::{Configuration, Loaded};

impl<C: Configuration> Loaded<C> {
    /// The options that differ from `before`, in any of their lines, and only count after a restart.
    pub fn needs_restart(&self, before: &Settings) -> Vec<&'static str> {
        let waits = |option: &&OptionInfo| {
            C::CLASSES.classify(option).0 == Class::Supported && !C::CLASSES.reloadable.contains(&option.name)
        };
        let changed = options::all().iter().filter(waits);
        changed
            .filter(|option| values(&self.settings, option) != values(before, option))
            .map(|option| option.name)
            .collect()
    }
}

/// What an option says, the same for different spellings of a value.
fn values(settings: &Settings, option: &'static OptionInfo) -> Vec<String> {
    if option.kind == Kind::Lines {
        return own_lines(settings, option).iter().map(|item| item.value.clone()).collect();
    }
    let text = settings.text(option.name).unwrap_or_default();
    vec![option.kind.normalize(text).unwrap_or_else(|_| text.to_owned())]
}
