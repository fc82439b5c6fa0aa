//! What is done now and then: expiry, the relays' past, warnings, the heartbeat.

use std::path::Path;
use std::time::Duration;

use onionring_node::directory::spool::Blob;
use onionring_proto::netdoc::text::{Fingerprint, format_time};
use onionring_proto::time::Unix;
use tracing::{error, info, warn};

use super::DaemonError;
use super::authority::{Authority, lock};
use crate::config::Config;
use crate::files;
use crate::limits;
use crate::reach::Standing;
use crate::stability::Stability;

/// How often the house is kept.
pub const EVERY: Duration = Duration::from_secs(300);

/// The file of the relays' past, C tor's.
const STABILITY: &str = "router-stability";

/// Does what is due every few minutes. Blocks.
pub fn keep(authority: &Authority, data: &Path, now: Unix) {
    authority.directory.expire(now);
    let listed: Vec<Fingerprint> = {
        let uploads = authority.directory.uploads();
        uploads.store().newest().keys().copied().collect()
    };
    let reached: Vec<Fingerprint> = {
        let mut stability = authority.stability();
        // They come sorted.
        stability.unlisted_are_down(|relay| listed.binary_search(relay).is_ok(), now);
        stability.discount(now);
        stability.forget_faded();
        listed.into_iter().filter(|relay| stability.is_up(relay)).collect()
    };
    // From now on, relays that nobody has reached take no room from these.
    authority.directory.uploads().vouch(&reached);
    write_stability(authority, data, now);
    warn_of_expiry(authority, now);
}

/// Without a certificate in force nobody counts our vote.
fn warn_of_expiry(authority: &Authority, now: Unix) {
    let Some(warning) = authority.keys.load().expiry(now) else { return };
    let mut warned = lock(&authority.warned_of_expiry);
    if warned.is_none_or(|at| now.since(at) >= warning.again) {
        *warned = Some(now);
        warn!("{warning}");
    }
}

/// Writes the relays' past.
pub fn write_stability(authority: &Authority, data: &Path, now: Unix) {
    let state = authority.stability().write(now);
    if let Err(error) = files::replace(&data.join(STABILITY), &state) {
        error!("a restart would forget how stable relays are: {error}");
        authority.tallies.unsaved();
    }
}

/// Reads the relays' past. A file that is none is left where it is, and stops the start: it would be overwritten.
pub fn read_stability(data: &Path, now: Unix) -> Result<Stability, DaemonError> {
    let path = data.join(STABILITY);
    let Some(state) = files::read(&path)? else { return Ok(Stability::default()) };
    let (stability, found) = Stability::read(&String::from_utf8_lossy(&state), now)?;
    info!("the past of {} relays is known", stability.len());
    if found.damaged > 0 || found.truncated {
        warn!("{} is damaged; what could be read of it counts", path.display());
    }
    Ok(stability)
}

/// The page for people who look at the DirPort.
pub fn front_page(config: &Config) -> Option<Blob> {
    let path = config.front_page.as_deref()?;
    let page = std::fs::metadata(path).and_then(|metadata| match metadata.len() {
        0..=limits::FRONT_PAGE => std::fs::read(path),
        _ => Err(std::io::Error::other(format!("it has more than {} bytes", limits::FRONT_PAGE))),
    });
    match page {
        Ok(page) => Some(page.into()),
        Err(error) => {
            warn!("there is no page at the DirPort: {}: {error}", path.display());
            None
        }
    }
}

/// Says in the log how things are.
pub fn report(authority: &Authority, standing: &Standing) {
    let figures = authority.tallies.figures();
    let (stored, waiting) = {
        let uploads = authority.directory.uploads();
        (uploads.store().newest().len(), uploads.pending().list().len())
    };
    let consensus = match authority.press.consensus() {
        Some(consensus) => {
            let begin = format_time(consensus.lifetime.valid_after);
            format!("the consensus of {begin} has {} relays", consensus.relays.len())
        }
        None => "there is no consensus".to_owned(),
    };
    info!(
        "Heartbeat: {consensus}; {stored} relays have published, {waiting} wait for approval; links reach {} of {}, \
         {} are known to carry circuits, {} do not; {} consensuses published since the start",
        standing.up, standing.relays, standing.proven, standing.condemned, figures.consensuses
    );
}
