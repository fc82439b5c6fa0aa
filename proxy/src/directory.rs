//! The directory of a client: the network as the authorities see it, fetched, kept, and on disk for the next start.
//!
//! [`Directory::start`] starts a task that does all of it. What it knows of the network is a [`View`], swapped whole
//! ([`Directory::view`]); how it stands, for metrics and for people, is a [`Status`] ([`Directory::status`]). When the
//! network requires what we do not know, [`Directory::ended`] says so, and the program is to end with its message.
//!
//! **Whom it asks.** Without a consensus: the fallback directories and authorities that the configuration names, on C
//! tor's schedule: fallbacks at once, an authority some seconds later, up to three at a time, and the first answer wins
//! ([`bootstrap`]). With one: the directory guards that the caller names ([`DirectorySources`]); relays that say they serve
//! the directory, while there are none; and those of the configuration again, if none of these is left.
//!
//! **What it believes.** A consensus that more than half of the authorities signed, and microdescriptors that it names.
//! Whoever sends anything else, too much, too slowly, or nothing, is left alone for a while, and another is asked.
//!
//! **When.** As C tor's clients: the next consensus at a random moment late in the life of the one before, so that
//! clients do not come all at once. One that is over by less than a day is still used, until there is a newer one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onionring_node::directory::keeper::{Keeper, KeeperSettings};
use onionring_node::docstore::{DocStore, StoreError};
use onionring_proto::dir::backoff::Delays;
use onionring_proto::dir::fetch::Role;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::path::Network;
use onionring_proto::time::Unix;
use onionring_proto::torrc::authority::Authority;
use onionring_proto::torrc::fallback::Fallback;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::links::{Links, Place};
use crate::network::Families;

pub mod bootstrap;
mod pool;
mod status;
mod task;
#[cfg(test)]
mod tests;
mod transport;

pub use bootstrap::Schedule;
pub use status::{ClockProblem, Fatal, Phase, Status, Timekeeper};

use status::Reporter;
use transport::Transport;

/// The protocols that this proxy knows as a client, as in `proto` lines (tor-spec 9): what the network may require.
pub const PROTOCOLS: &str = "Cons=1-2 Desc=1-2 DirCache=2 FlowCtrl=1 Link=4-5 Microdesc=1-2 Relay=2-4";

/// What the configuration says of the directory.
#[derive(Clone, Debug)]
pub struct DirectorySettings {
    /// The authorities (`DirAuthority`): more than half of those that have a `v3ident` must have signed a consensus.
    pub authorities: Vec<Authority>,
    /// Relays that help a new client (`FallbackDir`).
    pub fallbacks: Vec<Fallback>,
    /// Where documents are kept (`CacheDirectory`), in files that C tor reads, too.
    pub cache: PathBuf,
    /// Retry delays: those of a testing network (`TestingTorNetwork`), or of a real one.
    pub delays: Delays,
    /// When to ask whom as long as there is no consensus (`ClientBootstrapConsensus*`).
    pub schedule: Schedule,
    /// Which addresses are dialed.
    pub dial: Families,
    /// Whether fallbacks and authorities are asked even when relays could be (`FetchDirInfoEarly`).
    pub from_authorities: bool,
    /// What we know of the protocol, normally [`PROTOCOLS`].
    pub protocols: Protocols,
}

/// What is known of the network.
#[derive(Clone, Debug)]
pub struct View {
    /// The consensus, which is valid or has been over for less than a day, and the microdescriptors that are here.
    pub network: Arc<Network>,
    /// Whether the consensus is valid now. If not, it may be used all the same.
    pub is_live: bool,
    /// The share of paths, by weight, all of whose relays are known: 0 to 1.
    pub known_share: f64,
    /// Whether that is enough to choose paths.
    pub is_sufficient: bool,
}

/// Who names the relays to fetch from: the directory guards.
///
/// Every place that [`next`](DirectorySources::next) gives is asked once, and spoken of afterwards; a second time, as
/// failed, if what it answered proves to be of no use only later.
pub trait DirectorySources: Send + Sync + 'static {
    /// A relay to ask now, and its identity; `None` if there is none, for now: then any other relay may be asked.
    fn next(&self) -> Option<(Place, Fingerprint)>;

    /// It answered, whatever that is worth.
    fn succeeded(&self, id: Fingerprint);

    /// It could not be reached, or did not answer.
    fn failed(&self, id: Fingerprint);

    /// Whether any relay that serves the directory may be asked when there is none to ask now.
    fn lets_ask_any_relay(&self) -> bool;
}

/// Nobody: for a client that is told not to use guards.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSources;

impl DirectorySources for NoSources {
    fn next(&self) -> Option<(Place, Fingerprint)> {
        None
    }

    fn succeeded(&self, _: Fingerprint) {}

    fn failed(&self, _: Fingerprint) {}

    fn lets_ask_any_relay(&self) -> bool {
        true
    }
}

/// Tells civil time.
pub type Clock = Arc<dyn Fn() -> Unix + Send + Sync>;

/// The directory, kept current by a task of its own until this is dropped.
pub struct Directory {
    view: watch::Receiver<Option<Arc<View>>>,
    reporter: Reporter,
    task: JoinHandle<()>,
}

impl Directory {
    /// Starts to keep it, on the tokio runtime that this is called on. First it reads what an earlier run left in the cache;
    /// with a live consensus there, it is ready after that, without any connection. Fails if the cache cannot be opened.
    pub fn start(
        settings: DirectorySettings,
        links: Arc<Links>,
        sources: Arc<dyn DirectorySources>,
        clock: Clock,
    ) -> Result<Directory, StoreError> {
        Directory::over(links, settings, sources, clock)
    }

    fn over(
        transport: impl Transport,
        settings: DirectorySettings,
        sources: Arc<dyn DirectorySources>,
        clock: Clock,
    ) -> Result<Directory, StoreError> {
        let store = DocStore::open(&settings.cache)?;
        let keeping = KeeperSettings {
            role: Role::Plain,
            extra_infos: false,
            authorities: settings.authorities.iter().filter_map(|a| a.v3_ident).collect(),
            delays: settings.delays,
        };
        let keeper = Keeper::new(keeping, Some(store));
        let reporter = Reporter::new();
        let (sender, view) = watch::channel(None);
        let task = task::Task::new(transport, settings, keeper, sources, clock, reporter.clone(), sender);
        let task = tokio::spawn(task.run());
        Ok(Directory { view, reporter, task })
    }

    /// What is known of the network; `None` without a consensus that may be used. It changes when something new is known,
    /// and when the consensus ceases to be live.
    pub fn view(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.clone()
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.reporter.status()
    }

    /// How it stands, and every change of that.
    pub fn status_changes(&self) -> watch::Receiver<Status> {
        self.reporter.subscribe()
    }

    /// The first circuit was built: the bootstrap is done.
    pub fn note_circuit(&self) {
        self.reporter.reach(Phase::Done);
    }

    /// Waits until the network must not be used any more, and the program is to end; says why. Normally, that is never.
    pub async fn ended(&self) -> Fatal {
        let mut view = self.view.clone();
        // Ends with the task, which holds the sender.
        while view.changed().await.is_ok() {}
        self.status().fatal.unwrap_or(Fatal::Stopped)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// At least how often the clock is looked at, in case it was set.
const LOOK: Duration = Duration::from_secs(60);
