//! The task that tests relays, and its handle.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use onionring_node::link::Dialer;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use rand_core::CryptoRng;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{info, warn};

use super::circuit_test::TestTimes;
use super::counts::Counts;
use super::results::{Reached, Results};
use super::schedule::Pace;
use crate::directory::Directory;
use crate::files::{self, FileError};
use crate::limits;
use crate::stability::Stability;

mod casting;
mod worker;

use worker::Worker;

/// Where the relays are known from. Calls may block.
pub trait Relays: Send + Sync {
    /// The newest descriptor of each relay.
    fn newest(&self) -> BTreeMap<Fingerprint, Arc<RouterDesc>>;
    /// Those that are to be tested at once, because they are new, have moved or come back; each is given once.
    fn take_probes(&self) -> BTreeMap<Fingerprint, Arc<RouterDesc>>;
}

impl Relays for Directory {
    fn newest(&self) -> BTreeMap<Fingerprint, Arc<RouterDesc>> {
        self.uploads().store().newest().clone()
    }

    fn take_probes(&self) -> BTreeMap<Fingerprint, Arc<RouterDesc>> {
        self.uploads().take_probes()
    }
}

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `AuthDirTestReachability`: without it nothing is.
    pub test_reachability: bool,
    /// `AuthDirHasIPv6Connectivity`: IPv6 addresses are tested, too.
    pub ipv6: bool,
    /// `AuthDirTestEd25519LinkKeys`: relays must prove their Ed25519 identity, too, if they can.
    pub ed25519_link_keys: bool,
    /// Whether relays are tested through circuits, too.
    pub circuits: bool,
    /// `TestingTorNetwork`.
    pub testing: bool,
}

/// Where the listener is to which exits are asked to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAt {
    /// What it binds to; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// The address by which the world reaches it, at the same port.
    pub public: Ipv4Addr,
}

/// How often something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paces {
    /// Links are tested.
    pub links: Pace,
    /// Circuits are.
    pub circuits: Pace,
    /// The longest that steps of circuit tests take.
    pub times: TestTimes,
    /// Is looked for relays that are to be tested at once.
    pub look: Duration,
    /// Is looked which relays there are.
    pub list: Duration,
    /// Results are written to disk.
    pub save: Duration,
}

impl Paces {
    /// Those of the public network, or of a testing network, where all goes faster.
    pub fn new(testing: bool) -> Paces {
        let seconds = Duration::from_secs;
        let links = Pace {
            cycle: if testing { limits::TESTING_LINK_CYCLE } else { limits::LINK_CYCLE },
            repeat: if testing { limits::TESTING_LINK_REPEAT } else { limits::LINK_CYCLE },
            gap: limits::LINK_TEST_GAP,
            at_once: limits::LINK_TESTS,
        };
        let circuits = Pace {
            cycle: if testing { limits::TESTING_CIRCUIT_CYCLE } else { limits::CIRCUIT_CYCLE },
            repeat: if testing { limits::TESTING_CIRCUIT_REPEAT } else { limits::CIRCUIT_REPEAT },
            gap: limits::CIRCUIT_ROUND_GAP,
            at_once: limits::CIRCUIT_ROUNDS,
        };
        let times = TestTimes { hop: limits::CIRCUIT_STEP_TIME, stream: limits::CIRCUIT_STEP_TIME };
        match testing {
            false => {
                Paces { links, circuits, times, look: seconds(1), list: seconds(10), save: seconds(300) }
            }
            true => {
                Paces { links, circuits, times, look: seconds(1) / 4, list: seconds(2), save: seconds(30) }
            }
        }
    }
}

/// What a prober is made of.
pub struct Setup {
    /// This authority, which does not test itself.
    pub us: Fingerprint,
    /// What is tested.
    pub options: Options,
    /// How often.
    pub paces: Paces,
    /// The relays.
    pub relays: Arc<dyn Relays>,
    /// Links of the plain test are opened with this: it says which relay we are, as stock authorities do.
    pub relay_dialer: Dialer,
    /// Links of circuit tests are opened with this, which says nothing of us, as clients do.
    pub client_dialer: Dialer,
    /// Where exits are asked to connect to; without it they are not tested.
    pub listen: Option<ListenAt>,
    /// Hears which relays are up.
    pub stability: Arc<Mutex<Stability>>,
    /// The file of the results, `relay-reachability` in the `DataDirectory`.
    pub state: PathBuf,
    /// The time.
    pub clock: Clock,
    /// Chance.
    pub rng: Box<dyn CryptoRng + Send>,
}

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Unix + Send + Sync>;

/// How many relays stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Relays that are tested.
    pub relays: usize,
    /// Those that links reach.
    pub up: usize,
    /// Those that are known to do their work.
    pub proven: usize,
    /// Those that count as not reached, whatever links say, because they carry no circuits.
    pub condemned: usize,
    /// Tests under way.
    pub under_way: usize,
}

/// What the task shares with its handles.
struct Shared {
    results: Mutex<Results>,
    counts: Counts,
    relay_dialer: ArcSwap<Dialer>,
    standing: Mutex<Standing>,
    stop: Notify,
}

impl Shared {
    /// A panic elsewhere leaves the results as consistent as every other moment does.
    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle of the task that tests relays. Tests end when it is dropped; better [stop](Self::stop) it, which keeps the
/// results.
pub struct Prober {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
    abort: AbortHandle,
}

impl Prober {
    /// Reads the results of before, and starts testing. To be called on a runtime.
    pub fn start(setup: Setup) -> Result<Prober, FileError> {
        let mut results = read(&setup)?;
        if !setup.options.circuits {
            results.forget_rounds();
        }
        let shared = Arc::new(Shared {
            results: Mutex::new(results),
            counts: Counts::default(),
            relay_dialer: ArcSwap::from_pointee(setup.relay_dialer.clone()),
            standing: Mutex::default(),
            stop: Notify::new(),
        });
        let task = tokio::spawn(Worker::new(setup, shared.clone()).run());
        Ok(Prober { shared, abort: task.abort_handle(), task: Mutex::new(Some(task)) })
    }

    /// When a relay was last reached, for a vote.
    pub fn reached(&self, relay: &Fingerprint) -> Reached {
        self.shared.results().reached(relay)
    }

    /// The tests that were made.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// How many relays stand how, as of the last look at all of them.
    pub fn standing(&self) -> Standing {
        *self.shared.standing()
    }

    /// Says from now on on links who we are with another certificate.
    pub fn set_relay_dialer(&self, dialer: Dialer) {
        self.shared.relay_dialer.store(Arc::new(dialer));
    }

    /// Ends all tests, and writes the results to disk. Nothing happens the second time.
    pub async fn stop(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(task) = task else { return };
        self.shared.stop.notify_one();
        if let Err(error) = task.await {
            warn!("the tests of relays have ended before: {error}");
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

fn read(setup: &Setup) -> Result<Results, FileError> {
    let Some(state) = files::read(&setup.state)? else { return Ok(Results::default()) };
    match Results::read(&String::from_utf8_lossy(&state), (setup.clock)()) {
        Ok((results, found)) => {
            info!("the reachability of {} relays is known", results.len());
            if found.damaged > 0 {
                warn!("{} lines of {} are damaged and left out", found.damaged, setup.state.display());
            }
            Ok(results)
        }
        Err(error) => {
            warn!("{error}");
            Ok(Results::default())
        }
    }
}

#[cfg(test)]
mod tests;
