//! The running program among authorities that are not to be trusted: it is one of three, and the tests play the other two.
//!
//! - [`stage`]: the program, its directory and its log, and periods from their begin to their consensus;
//! - [`played`]: an authority that a test plays: its keys, its votes, its DirPort;
//! - [`relay`]: a relay's keys, and what it signs with them;
//! - [`sweep`]: documents with every line missing, doubled, too long, or garbage;
//! - [`http`]: how they talk;
//! - `period`, `doubles`, `forged`, `votes`, `uploads`, `kills`: the tests.

mod doubles;
mod forged;
mod http;
mod kills;
mod period;
mod played;
mod relay;
mod stage;
mod sweep;
mod uploads;
mod votes;

use std::time::{Duration, Instant, SystemTime};

use onionring_proto::time::Unix;

/// How long what must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

/// Looks again and again, until there is something.
fn wait<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
