//! The control side: everything beside the shards, on an executor of the main thread.
//!
//! Tasks share a [`Control`] and never wait for each other: one fetches the directory, one publishes the descriptor, one
//! tests whether others reach us, one reads the shards' counters, one waits for signals. What they decide reaches the
//! shards as a whole new [`Snapshot`].
//!
//! What follows from the configuration and the relay's address is in [`settings`], and put in force by
//! [`Control::put_in_force`] whenever either changes.

pub mod bandwidth;
pub mod describe;
pub mod network;
pub mod overload;
pub mod own_circuit;
pub mod reach;
mod report;
mod self_test;
pub mod settings;
pub mod signals;

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use crossbeam::channel;
use glommio::timer::sleep;
use onionring_node::log::RateLimit;
use onionring_node::metrics::{Exporter, table};
use onionring_node::process::{self, Notice};
use onionring_proto::cell::LinkVersion;
use onionring_proto::netdoc::params::{ConsensusParams, PUBLISH_DUMMY_TAP_KEY};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::policy::ExitPolicy;
use onionring_proto::time::Unix;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tracing::{info, warn};

use crate::config::Config;
use crate::dir::directory::Directory;
use crate::engine::dos::Clients;
use crate::engine::rate::Rates;
use crate::engine::snapshot::{KnownRelays, Snapshot};
use crate::exit::ExitSettings;
use crate::exit::dns::resolv_conf::ResolvConfError;
use crate::io::Shards;
use crate::limits;
use crate::load::Load;
use bandwidth::History;
use describe::{Publicity, Standing};
use network::CircuitOptions;
use onionring_node::identity::Identity;
use overload::Overload;
use own_circuit::Dialer;
use settings::Bound;

/// What the control side works with; settled at start, except for what a reload changes.
pub struct Control {
    /// The shards.
    pub shards: Shards,
    /// Keys and what follows from them.
    pub identity: Rc<RefCell<Identity>>,
    /// What the descriptor says.
    pub publicity: Rc<RefCell<Publicity>>,
    /// Reachability, bandwidth, and what the consensus wants of the descriptor.
    pub standing: Rc<RefCell<Standing>>,
    /// What is known of the network.
    pub directory: Arc<Directory>,
    /// What shards obey about exiting.
    pub exit: Arc<ArcSwap<ExitSettings>>,
    /// The configuration in force.
    pub config: RefCell<Rc<Config>>,
    /// Where the relay listens.
    pub bound: Bound,
    /// This relay's IPv4 address, as most directory authorities see it.
    pub seen: Cell<Option<Ipv4Addr>>,
    /// Who may ask for metrics.
    pub metrics_policy: Arc<ArcSwap<ExitPolicy>>,
    /// Link protocols that are offered.
    pub link_versions: Vec<LinkVersion>,
    /// How circuits of our own are begun.
    pub dialer: Dialer,
    /// What was read and written in the last days.
    pub bandwidth: Rc<RefCell<History>>,
    /// When the relay was overloaded last.
    pub overload: Rc<RefCell<Overload>>,
    /// Bandwidth limits, with what is left of them.
    pub rates: RefCell<Arc<Rates>>,
    /// Clients that are counted against floods.
    pub clients: Arc<Clients>,
    /// When the relay started.
    pub started: Unix,
    /// Set when the relay must end with an error; the main task looks.
    pub fatal: RefCell<Option<String>>,
    /// Circuits on all shards at the last look.
    pub open_circuits: Cell<usize>,
    /// Links that relays have opened to us over IPv6, at the last look.
    pub links_from_relays_ipv6: Cell<u64>,
    /// How much the relay does, and what keeps it from doing more.
    pub load: RefCell<Load>,
    /// It is shutting down.
    pub draining: Cell<bool>,
    /// When all shards last answered.
    pub answered: Cell<Instant>,
    /// The metrics.
    pub exporter: Exporter,
    /// Randomness.
    pub rng: RefCell<ChaCha20Rng>,
}

/// How often is looked whether something has failed.
const LOOK: Duration = Duration::from_secs(1);
/// How often keys are looked at.
const ROTATION_INTERVAL: Duration = Duration::from_secs(60);
/// Time between two warnings that they cannot be renewed.
const KEY_WARN_INTERVAL: Duration = Duration::from_secs(3600);
/// How often the relay's address is looked at, as long as it is not known and afterwards.
const ADDRESS_INTERVAL: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(60)];

/// A configuration with what follows from it, ready to be put in force.
pub struct Prepared {
    config: Config,
    publicity: Publicity,
    exit: ExitSettings,
}

impl Control {
    /// Civil time.
    pub fn now() -> Unix {
        Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// A source of randomness for a task of its own.
    pub fn fork_rng(&self) -> ChaCha20Rng {
        ChaCha20Rng::from_rng(&mut *self.rng.borrow_mut())
    }

    /// The network's parameters, or their defaults before there is a consensus.
    fn params(&self) -> ConsensusParams {
        self.directory.network().map(|network| network.consensus.params.clone()).unwrap_or_default()
    }

    /// Puts keys, parameters and knowledge of the network in force on all shards.
    pub fn publish_snapshot(&self) {
        let identity = self.identity.borrow();
        let publicity = self.publicity.borrow();
        let config = self.config.borrow();
        let network = self.directory.network();
        let circuits = CircuitOptions {
            extend_to_private: config.extend_to_private,
            ipv6: publicity.ipv6.is_some(),
            refuse_unknown_exits: config.refuse_unknown_exits,
            half_close: publicity.half_close,
        };
        let limits = network::rate_limits(&self.params(), &config.bandwidth);
        let mut rates = self.rates.borrow_mut();
        if *rates.limits() != limits {
            *rates = Arc::new(rates.adjusted(limits, self.shards.now()));
        }
        let snapshot = Snapshot {
            rates: rates.clone(),
            dos: network::dos_limits(&self.params(), &config.dos),
            clients: self.clients.clone(),
            identity: identity.server(),
            onion_keys: identity.onion_keys.clone(),
            link_identity: identity.link.clone(),
            link_versions: self.link_versions.clone(),
            own_addresses: publicity.addresses().iter().map(|address| address.ip()).collect(),
            relays: network
                .map_or_else(|| Arc::new(KnownRelays::default()), |network| network.relays.clone()),
            params: network::circuit_params(&self.params(), circuits),
        };
        self.shards.set_snapshot(&Arc::new(snapshot), &identity.acceptor);
    }

    /// What follows from a configuration at the address that the relay has now.
    pub fn prepare(&self, config: Config) -> Result<Prepared, ResolvConfError> {
        let address = settings::ipv4(&config, self.seen.get());
        let publicity = settings::publicity(&config, &self.bound, address);
        let exit = self.with_network(settings::exit_settings(&config, &publicity)?);
        Ok(Prepared { config, publicity, exit })
    }

    /// Puts a configuration in force. A new address is not published before it has been tested.
    pub fn put_in_force(&self, new: Prepared) {
        let Prepared { config, publicity, exit } = new;
        if self.standing.borrow_mut().follow(&self.publicity.borrow(), &publicity) {
            info!("the relay's public addresses are now {:?}", publicity.addresses());
        }
        table::MEMORY_LIMIT_BYTES.gauge(&[]).set(config.max_mem_in_queues as f64);
        self.shards.set_queue_bytes(usize::try_from(config.max_mem_in_queues).unwrap_or(usize::MAX));
        self.metrics_policy.store(Arc::new(config.metrics.policy.clone()));
        self.directory.set_front_page(settings::front_page(&config));
        self.exit.store(Arc::new(exit));
        *self.publicity.borrow_mut() = publicity;
        *self.config.borrow_mut() = Rc::new(config);
        self.publish_snapshot();
    }

    /// Follows the relay's IPv4 address where the configuration does not give it, for ever.
    pub async fn watch_address(self: Rc<Self>) {
        loop {
            let config = self.config.borrow().clone();
            let (address, published) = {
                let ipv4 = self.publicity.borrow().ipv4;
                (settings::ipv4(&config, self.seen.get()), ipv4.map(|(address, _)| address))
            };
            // An address that cannot be seen for a moment has not changed.
            if address.is_some() && address != published {
                match self.prepare(Config::clone(&config)) {
                    Ok(prepared) => self.put_in_force(prepared),
                    Err(failure) => warn!("the relay's new address cannot be put in force: {failure}"),
                }
            }
            sleep(ADDRESS_INTERVAL[usize::from(address.is_some())]).await;
        }
    }

    /// Exit settings with what the network says about exits.
    fn with_network(&self, mut exit: ExitSettings) -> ExitSettings {
        if let Some(network) = self.directory.network() {
            exit.rules.network = network::closed_to_exits(&network);
        }
        network::set_dns_options(&mut exit.dns, &self.params());
        exit
    }

    /// The directory has changed.
    pub fn directory_changed(&self) {
        let Some(network) = self.directory.network() else { return };
        let missing = network::missing_protocols(&network.consensus);
        if !missing.is_empty() {
            let text =
                format!("the consensus requires protocols of relays that this program lacks: {missing}");
            if self.config.borrow().testing {
                if !self.standing.borrow().warned_of_protocols {
                    warn!("{text}; in a testing network it runs all the same");
                    self.standing.borrow_mut().warned_of_protocols = true;
                }
            } else {
                *self.fatal.borrow_mut() = Some(format!("{text}; use a version of onionring that has them"));
            }
        }
        let params = self.params();
        {
            let mut standing = self.standing.borrow_mut();
            standing.tap_key = params.is_on(&PUBLISH_DUMMY_TAP_KEY);
            standing.onion_life = network::onion_key_life(&params);
        }
        self.exit.store(Arc::new(self.with_network(ExitSettings::clone(&self.exit.load()))));
        self.show_standing(&network.consensus);
        self.publish_snapshot();
    }

    /// Our place in the consensus, as metrics.
    fn show_standing(&self, consensus: &onionring_proto::netdoc::consensus::Consensus) {
        table::CONSENSUS_VALID_AFTER.gauge(&[]).set(consensus.lifetime.valid_after.0 as f64);
        table::CONSENSUS_VALID_UNTIL.gauge(&[]).set(consensus.lifetime.valid_until.0 as f64);
        let me = Fingerprint(self.identity.borrow().server().rsa_id);
        let flags = consensus.relays.iter().find(|relay| relay.identity == me).map(|relay| relay.flags);
        for (flag, name) in onionring_proto::netdoc::consensus::RelayFlags::NAMES {
            let has = flags.is_some_and(|flags| flags.has(*flag));
            table::RELAY_FLAG.gauge(&[("flag", name)]).set(f64::from(u8::from(has)));
        }
    }

    /// Makes keys anew when they are due, for ever.
    pub async fn keep_keys(self: Rc<Self>) {
        static FAILED: RateLimit = RateLimit::every(KEY_WARN_INTERVAL);
        loop {
            let life = self.standing.borrow().onion_life;
            let rotation = self.identity.borrow_mut().rotate(life, Self::now(), &mut *self.rng.borrow_mut());
            if rotation.changed {
                self.publish_snapshot();
            }
            if let Some(failure) = rotation.failure
                && let Some(suppressed) = FAILED.check()
            {
                warn!("keys could not be renewed, the present ones stay in use: {failure}{suppressed}");
            }
            let expiry = self.identity.borrow().keys.signing_expires;
            table::KEY_EXPIRY.gauge(&[("key", "signing")]).set(expiry.0 as f64);
            sleep(ROTATION_INTERVAL).await;
        }
    }

    /// Accepts nothing more, and lets circuits end by themselves for up to `patience`.
    pub async fn drain(&self, patience: Duration) {
        self.shards.drain();
        self.draining.set(true);
        let begun = Instant::now();
        let mut progress = Duration::ZERO;
        while begun.elapsed() < patience {
            let left = self.open_circuits.get();
            if left == 0 {
                return;
            }
            if begun.elapsed() >= progress {
                let seconds = patience.saturating_sub(begun.elapsed()).as_secs();
                let text =
                    format!("shutting down: {left} circuits are still open, at most {seconds} s to go");
                info!("{text}");
                process::notify(Notice::Status(&text));
                progress += limits::DRAIN_PROGRESS;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until all shards have ended after [`Shards::stop`]. One that hangs is left behind: it ends with the process.
    pub async fn until_stopped(&self) {
        let begun = Instant::now();
        let mut ended = 0;
        let shards = self.shards.handles().len();
        while ended < shards {
            if begun.elapsed() > limits::STOP_TIME {
                return warn!(
                    "{} of {shards} shards do not end; the relay ends without them",
                    shards - ended
                );
            }
            match self.shards.ended().try_recv() {
                Ok(_) => ended += 1,
                Err(channel::TryRecvError::Disconnected) => return,
                Err(channel::TryRecvError::Empty) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Says why, once going on is impossible: a shard has ended without being told to, or the consensus forbids it.
    pub async fn failed(&self) -> String {
        loop {
            if let Ok(shard) = self.shards.ended().try_recv() {
                return format!(
                    "shard {} ended unexpectedly; please report this with the lines above",
                    shard.0
                );
            }
            if let Some(reason) = self.fatal.borrow_mut().take() {
                return reason;
            }
            sleep(LOOK).await;
        }
    }
}
