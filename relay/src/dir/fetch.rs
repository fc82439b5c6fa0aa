//! Keeping the directory current: asks authorities for what a [`Keeper`] says is due, and puts in force what it makes of
//! the answers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glommio::channels::local_channel::{self, LocalSender};
use glommio::timer::timeout;
use onionring_node::directory::keeper::{Keeper, KeeperSettings, KeeperState, bytes_max};
use onionring_node::docstore::DocStore;
use onionring_node::log::RateLimit;
use onionring_proto::dir::backoff::Delays;
use onionring_proto::dir::fetch::{Fetch, Outcome, Role};
use onionring_proto::dir::sources::Sources;
use onionring_proto::netdoc;
use onionring_proto::netdoc::consensus::Flavor;
use tracing::{debug, info};

use super::client::{self, Answer, DirServer, FetchError, Transport};
use super::clock::Clock;
use super::directory::{Directory, NetworkView};
use crate::limits;

mod diffs;

use diffs::{Made, Making};

/// What to fetch, and from whom.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// Directory cache or not (`DirCache`).
    pub role: Role,
    /// Whether to fetch and serve extra-infos (`DownloadExtraInfo`).
    pub extra_infos: bool,
    /// Retry delays: those of a testing network, or of a real one.
    pub delays: Delays,
    /// The authorities.
    pub servers: Vec<DirServer>,
}

/// How the fetching goes, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchState {
    /// What the keeper counts; its labels of failures are those of [`FetchError`].
    pub kept: KeeperState,
    /// This relay's address as each server last saw it.
    pub seen: BTreeMap<usize, IpAddr>,
}

impl FetchState {
    /// This relay's IPv4 address as most servers see it: more than half of those that said one, and two at least, since
    /// any of them, and whoever is on the way to it, may lie.
    pub fn seen_ipv4(&self) -> Option<Ipv4Addr> {
        let mut told: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
        for address in self.seen.values() {
            if let IpAddr::V4(address) = address {
                *told.entry(*address).or_default() += 1;
            }
        }
        let all: usize = told.values().sum();
        told.into_iter().find(|(_, n)| *n >= 2 && 2 * n > all).map(|(address, _)| address)
    }
}

/// Time between two messages about servers that do not answer, or refuse.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(600);

/// At least how often the loop looks at the clock, in case it was set.
const LOOK: Duration = Duration::from_secs(60);

/// Keeps a [`Directory`] current. Lives on the control executor.
pub struct DirClient<T> {
    transport: Rc<T>,
    settings: FetchSettings,
    directory: Arc<Directory>,
    clock: Clock,
    /// The servers, by index into the settings.
    sources: Sources<usize>,
    /// Used by one at a time: this, or the thread for long work while this waits for it.
    keeper: Arc<Mutex<Keeper>>,
    making: Making,
    state: Rc<RefCell<FetchState>>,
}

/// What requests and other work under way tell the client.
enum Event {
    Fetched(Fetched),
    Made(Made),
}

struct Fetched {
    fetch: Fetch,
    server: usize,
    result: Result<Answer, FetchError>,
}

impl<T: Transport + 'static> DirClient<T> {
    /// A client that knows nothing yet. Without a `store`, nothing survives a restart.
    pub fn new(
        transport: T,
        settings: FetchSettings,
        store: Option<DocStore>,
        directory: Arc<Directory>,
        clock: Clock,
    ) -> Self {
        let keeping = KeeperSettings {
            role: settings.role,
            extra_infos: settings.extra_infos,
            authorities: settings.servers.iter().filter_map(|s| s.v3_ident).collect(),
            delays: settings.delays,
        };
        DirClient {
            transport: Rc::new(transport),
            clock,
            sources: Sources::new(0..settings.servers.len(), settings.delays),
            settings,
            directory,
            keeper: Arc::new(Mutex::new(Keeper::new(keeping, store))),
            making: Making::default(),
            state: Rc::default(),
        }
    }

    /// How the fetching goes; shows the current state for as long as it is held.
    pub fn state(&self) -> Rc<RefCell<FetchState>> {
        self.state.clone()
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        lock(&self.keeper)
    }

    /// Has the keeper do what takes long, on another thread.
    async fn slowly<R: Send + 'static>(&self, work: impl FnOnce(&mut Keeper) -> R + Send + 'static) -> R {
        let keeper = self.keeper.clone();
        blocking(move || work(&mut lock(&keeper))).await
    }

    /// Fetches for ever; drop it to stop. `changed` is called whenever the directory has changed, for the first time
    /// when what is on disk has been read.
    pub async fn run(mut self, mut changed: impl FnMut()) {
        let now = self.clock.now().unix;
        self.slowly(move |keeper| keeper.load(now)).await;
        let (sender, receiver) = local_channel::new_unbounded();
        let sender = Rc::new(sender);
        let mut under_way = 0;
        loop {
            // Answers come in bunches; one change for all that are here will do.
            if sender.len() == 0 && self.keeper().has_changed() {
                self.put_in_force();
                self.make_diffs(&sender);
                changed();
            }
            while under_way < limits::DIR_FETCHES && self.start_one(&sender) {
                under_way += 1;
            }
            let patience = self.patience();
            match timeout(patience, async { Ok(receiver.recv().await) }).await {
                Ok(Some(Event::Fetched(fetched))) => {
                    under_way -= 1;
                    self.finish(fetched).await;
                }
                Ok(Some(Event::Made(made))) => self.take_made(made),
                _ => {}
            }
        }
    }

    /// Starts the next request, if one is due and a server can be asked.
    fn start_one(&mut self, events: &Rc<LocalSender<Event>>) -> bool {
        let now = self.clock.now();
        if self.keeper().next_timeout(now).is_none_or(|wait| !wait.is_zero()) {
            return false;
        }
        let Some(server) = self.sources.pick(now.mono, &mut rand::rng()) else { return false };
        let Some(fetch) = self.keeper().poll(now) else {
            self.sources.succeeded(&server);
            return false;
        };
        let (transport, events) = (self.transport.clone(), events.clone());
        let asked = self.settings.servers[server].clone();
        glommio::spawn_local(async move {
            let (path, at_hand) = (fetch.request.path(), fetch.request.at_hand());
            debug!(server = asked.name, path, "fetching");
            let result = client::get(&*transport, &asked, &path, at_hand, bytes_max(&fetch.request)).await;
            // Without a receiver the client is gone, and nobody wants to know.
            let _ = events.try_send(Event::Fetched(Fetched { fetch, server, result }));
        })
        .detach();
        true
    }

    /// For how long nothing will be due.
    fn patience(&self) -> Duration {
        let now = self.clock.now();
        let due = self.keeper().next_timeout(now).unwrap_or(LOOK);
        // What is due and was not started waits for a server, or for an answer.
        let server = self.sources.next_ready(now.mono).map_or(LOOK, |at| at.since(now.mono));
        let wait = if due.is_zero() { server } else { due };
        wait.clamp(Duration::from_millis(10), LOOK)
    }

    async fn finish(&mut self, fetched: Fetched) {
        let Fetched { fetch, server, result } = fetched;
        let name = self.settings.servers[server].name.clone();
        let now = self.clock.now();
        let outcome = match result {
            Ok(answer) => {
                if let Some(address) = answer.your_address {
                    self.state.borrow_mut().seen.insert(server, address);
                }
                self.slowly(move |keeper| keeper.take(&fetch, &name, answer, now)).await
            }
            Err(error) => {
                static FAILED: RateLimit = RateLimit::every(COMPLAINT_INTERVAL);
                if let Some(suppressed) = FAILED.check() {
                    info!(
                        server = name,
                        "no answer from this directory authority, asking others: {error}{suppressed}"
                    );
                }
                self.keeper().fail(&fetch, error.label(), now);
                Outcome::Failed
            }
        };
        match outcome {
            Outcome::Answered => self.sources.succeeded(&server),
            Outcome::Failed => self.sources.failed(&server, self.clock.now().mono, &mut rand::rng()),
        }
        let kept = self.keeper().state().clone();
        self.state.borrow_mut().kept = kept;
    }

    /// Hands the documents to everyone.
    fn put_in_force(&self) {
        let keeper = self.keeper();
        self.state.borrow_mut().kept = keeper.state().clone();
        self.directory.set_documents(keeper.library().snapshot());
        if let Some((consensus, microdescs)) = keeper.library().network() {
            self.directory.set_network(NetworkView::new(consensus, microdescs));
        }
    }
}

/// A panic elsewhere leaves the keeper as consistent as every other moment does.
fn lock(keeper: &Mutex<Keeper>) -> MutexGuard<'_, Keeper> {
    keeper.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what takes long on another thread.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    glommio::executor().spawn_blocking(work).await
}

#[cfg(test)]
mod tests;
