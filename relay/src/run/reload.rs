//! SIGHUP and SIGUSR2: what changes while the relay runs.

use onionring_node::keys::write_fingerprints;
use onionring_node::log::Log;
use tracing::{error, info, warn};

use super::RunError;
use crate::cli::Start;
use crate::control::Control;

/// Reads the configuration again, and puts in force what can change while the relay runs; names what cannot. A
/// configuration with an error changes nothing.
pub(super) fn reload(control: &Control, start: &mut Start, log: &Log) {
    let mut loaded = start.sources.load(&start.environment);
    loaded.findings.warnings.iter().for_each(|warning| warn!("{warning}"));
    loaded.findings.notes.iter().for_each(|note| info!("{note}"));
    let Some(new) = loaded.config.take() else {
        for problem in &loaded.findings.problems {
            error!("{problem}");
        }
        return error!("the configuration has errors; the one before stays in force");
    };
    let config = start.config.reloaded(new);
    let applied = (|| {
        let prepared = control.prepare(config.clone())?;
        log.reconfigure(config.log.options(start.quiet))?;
        control.put_in_force(prepared);
        Ok::<_, RunError>(())
    })();
    if let Err(failure) = applied {
        return error!("the configuration cannot be put in force, the one before stays: {failure}");
    }
    info!("the configuration has been read again");
    for option in loaded.needs_restart(&start.loaded.settings) {
        warn!("{option} has changed; the change takes effect when the relay is restarted");
    }
    let keys = &control.identity.borrow().keys;
    if let Err(failure) = write_fingerprints(&config.directories.data, config.nickname.as_str(), keys) {
        warn!("the fingerprint files still have the old nickname: {failure}");
    }
    start.config = config;
}

/// Logs everything wherever anything is logged, until the configuration is read again.
pub(super) fn log_all(start: &Start, log: &Log) {
    match log.reconfigure(start.config.log.everything(start.quiet)) {
        Ok(()) => info!("everything is logged until the configuration is read again (SIGHUP)"),
        Err(failure) => warn!("the log cannot be changed: {failure}"),
    }
}
