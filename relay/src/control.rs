//! The control side: everything beside the shards, on an executor of the main thread.
//!
//! Tasks share a [`Control`] and never wait for each other: one fetches the directory, one publishes the descriptor, one
//! tests whether others reach us, one reads the shards' counters, one waits for signals. What they decide reaches the
//! shards as a whole new [`Snapshot`].

pub mod describe;
pub mod identity;
pub mod network;
pub mod own_circuit;
pub mod reach;
pub mod signals;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use crossbeam::channel;
use glommio::timer::sleep;
use onionring_node::log::RateLimit;
use onionring_node::metrics::page::Page;
use onionring_node::metrics::{Exporter, table};
use onionring_proto::cell::LinkVersion;
use onionring_proto::netdoc::params::{ConsensusParams, PUBLISH_DUMMY_TAP_KEY};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tracing::{info, warn};

use crate::dir::directory::Directory;
use crate::dir::fetch::FetchState;
use crate::dir::publish::PublishState;
use crate::engine::snapshot::{KnownRelays, Snapshot};
use crate::exit::ExitSettings;
use crate::io::Shards;
use crate::io::control::Control as ShardMessage;
use crate::{heartbeat, limits, telemetry};
use describe::{Publicity, Standing};
use identity::Identity;
use network::CircuitOptions;
use own_circuit::Dialer;
use reach::Myself;

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
    /// What the operator says about circuits.
    pub circuits: Cell<CircuitOptions>,
    /// Link protocols that are offered.
    pub link_versions: Vec<LinkVersion>,
    /// How circuits of our own are begun.
    pub dialer: Dialer,
    /// Whether to run in spite of protocols that the consensus requires and we lack: in testing networks only.
    pub tolerate_missing_protocols: bool,
    /// Whether reachability is taken for granted (`AssumeReachable`).
    pub assume_reachable: Cell<bool>,
    /// The same for IPv6 alone (`AssumeReachableIPv6`).
    pub assume_reachable_ipv6: Cell<bool>,
    /// When the relay started.
    pub started: Unix,
    /// Set when the relay must end with an error; the main task looks.
    pub fatal: RefCell<Option<String>>,
    /// Circuits on all shards at the last look.
    pub open_circuits: Cell<usize>,
    /// The metrics.
    pub exporter: Exporter,
    /// Randomness.
    pub rng: RefCell<ChaCha20Rng>,
}

/// How often counters are read.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The time over which the observed bandwidth is taken, as in C tor.
const OBSERVED_OVER: usize = 10;
/// How often keys are looked at.
const ROTATION_INTERVAL: Duration = Duration::from_secs(60);
/// Time between two warnings that they cannot be renewed.
const KEY_WARN_INTERVAL: Duration = Duration::from_secs(3600);
/// Time between attempts to find out whether others reach us, doubling up to the second.
const REACH_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

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
        let network = self.directory.network();
        let mut own_addresses = vec![publicity.ipv4.0.into()];
        own_addresses.extend(publicity.ipv6.map(|(ip, _)| std::net::IpAddr::V6(ip)));
        let snapshot = Snapshot {
            identity: identity.server(),
            onion_keys: identity.onion_keys.clone(),
            link_identity: identity.link.clone(),
            link_versions: self.link_versions.clone(),
            own_addresses,
            relays: network
                .map_or_else(|| Arc::new(KnownRelays::default()), |network| network.relays.clone()),
            params: network::circuit_params(&self.params(), self.circuits.get()),
        };
        self.shards.set_snapshot(&Arc::new(snapshot), &identity.acceptor);
    }

    /// The directory has changed.
    pub fn directory_changed(&self) {
        let Some(network) = self.directory.network() else { return };
        let missing = network::missing_protocols(&network.consensus);
        if !missing.is_empty() {
            let text =
                format!("the consensus requires protocols of relays that this program lacks: {missing}");
            if self.tolerate_missing_protocols {
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
        let mut exit = ExitSettings::clone(&self.exit.load());
        exit.rules.network = network::closed_to_exits(&network);
        self.exit.store(Arc::new(exit));
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

    /// Finds out whether others reach us, until they do; addresses that a reload changes are tested anew by calling
    /// this again.
    pub async fn test_reachability(self: Rc<Self>) {
        let mut wait = REACH_RETRY.0;
        let mut failures = 0u32;
        while !self.standing.borrow().reachable {
            if self.assume_reachable.get() {
                return self.reachable();
            }
            match self.reach_once().await {
                Ok(true) => return self.reachable(),
                // Nobody to test through yet.
                Ok(false) => {}
                Err(failure) => {
                    failures += 1;
                    if failures == 5 {
                        warn!(
                            "others cannot reach the ORPort: {failure}. Look at Address, ORPort, port forwarding and \
                             firewall. The descriptor is published once the port is reachable"
                        );
                    } else {
                        info!("the test of the ORPort failed, another follows: {failure}");
                    }
                    wait = (wait * 2).min(REACH_RETRY.1);
                }
            }
            sleep(wait).await;
        }
    }

    async fn reach_once(&self) -> Result<bool, own_circuit::OwnCircuitError> {
        let Some(network) = self.directory.network() else { return Ok(false) };
        let myself = self.myself();
        for &address in &myself.or_ports {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            let reached = reach::test(&self.dialer, &network, &myself, address, self.fork_rng()).await;
            let ok = matches!(reached, Ok(true));
            table::REACHABLE.gauge(&[("family", family)]).set(f64::from(u8::from(ok)));
            if !reached? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn myself(&self) -> Myself {
        let identity = self.identity.borrow();
        let publicity = self.publicity.borrow();
        let mut or_ports = vec![publicity.ipv4.into()];
        if !self.assume_reachable_ipv6.get() {
            or_ports.extend(publicity.ipv6.map(std::net::SocketAddr::from));
        }
        Myself {
            or_ports,
            rsa_id: identity.server().rsa_id,
            ed_id: identity.server().ed_id,
            onion_key: *identity.keys.onion.public(),
        }
    }

    fn reachable(&self) {
        if !self.assume_reachable.get() {
            info!("others reach the ORPort; the descriptor is published now");
        }
        self.standing.borrow_mut().reachable = true;
    }

    /// Reads the shards' counters into metrics, for ever.
    pub async fn report(self: Rc<Self>) {
        let shards = self.shards.handles().len();
        let mut relayed: VecDeque<u64> = VecDeque::new();
        loop {
            let (sender, answers) = channel::unbounded();
            for handle in self.shards.handles() {
                handle.send(ShardMessage::Counters(sender.clone()));
            }
            drop(sender);
            sleep(REPORT_INTERVAL).await;
            let (mut heard, mut circuits, mut bytes) = (0, 0, [0; 2]);
            while let Ok((shard, counters)) = answers.try_recv() {
                let (counters, io) = &*counters;
                telemetry::publish(shard, counters, io);
                circuits += counters.circuits;
                bytes[0] += counters.link_bytes_in;
                bytes[1] += counters.link_bytes_out;
                heard += 1;
            }
            self.exporter.upkeep();
            // With a shard too busy to answer within the interval, the sums would be wrong.
            if heard == shards {
                self.open_circuits.set(circuits);
                self.observe(&mut relayed, bytes[0].min(bytes[1]));
            }
        }
    }

    /// Keeps the best rate that was seen over ten seconds, for the descriptor.
    fn observe(&self, relayed: &mut VecDeque<u64>, total: u64) {
        relayed.push_back(total);
        if relayed.len() > OBSERVED_OVER
            && let Some(first) = relayed.pop_front()
        {
            let mut standing = self.standing.borrow_mut();
            standing.observed = standing.observed.max((total - first) / OBSERVED_OVER as u64);
        }
    }

    /// Writes the heartbeat to the log, for ever.
    pub async fn beat(self: Rc<Self>, every: Duration) {
        let mut last = heartbeat::Totals::default();
        loop {
            sleep(every).await;
            last = self.log_heartbeat(&last);
        }
    }

    /// One heartbeat: how things are, and what moved since `last`.
    pub fn log_heartbeat(&self, last: &heartbeat::Totals) -> heartbeat::Totals {
        let page = self.exporter.render();
        let totals = heartbeat::Totals::read(&Page::parse(&page), Self::now().since(self.started));
        for line in heartbeat::lines(&totals, last) {
            info!("{line}");
        }
        totals
    }

    /// How the directory side goes, as metrics, for ever.
    pub async fn report_directory(
        self: Rc<Self>,
        fetched: Rc<RefCell<FetchState>>,
        published: Option<Rc<RefCell<PublishState>>>,
    ) {
        loop {
            {
                let state = fetched.borrow();
                table::DIRECTORY_FETCHES.counter(&[("outcome", "answered")]).absolute(state.answered);
                table::DIRECTORY_FETCHES.counter(&[("outcome", "failed")]).absolute(state.failed);
            }
            let documents = self.directory.documents();
            let held = [
                ("certificate", documents.certs.len()),
                ("descriptor", documents.descriptors.len()),
                ("extra_info", documents.extra_infos.len()),
                ("microdescriptor", documents.microdescs.len()),
            ];
            for (kind, count) in held {
                table::DIRECTORY_DOCUMENTS.gauge(&[("kind", kind)]).set(count as f64);
            }
            if let Some(published) = &published {
                let state = published.borrow();
                table::DESCRIPTOR_UPLOADS.counter(&[("outcome", "taken")]).absolute(state.uploads);
                table::DESCRIPTOR_UPLOADS.counter(&[("outcome", "failed")]).absolute(state.failures);
                if let Some(current) = &state.current {
                    table::DESCRIPTOR_PUBLISHED.gauge(&[]).set(current.published.0 as f64);
                }
            }
            sleep(REPORT_INTERVAL).await;
        }
    }

    /// Accepts nothing more, and lets circuits end by themselves for up to `patience`.
    pub async fn drain(&self, patience: Duration) {
        self.shards.drain();
        let begun = Instant::now();
        let mut progress = Duration::ZERO;
        while begun.elapsed() < patience {
            let left = self.open_circuits.get();
            if left == 0 {
                return;
            }
            if begun.elapsed() >= progress {
                let seconds = patience.saturating_sub(begun.elapsed()).as_secs();
                info!("shutting down: {left} circuits are still open, at most {seconds} s to go");
                progress += limits::DRAIN_PROGRESS;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until all shards have ended after [`Shards::stop`].
    pub async fn until_stopped(&self) {
        let mut ended = 0;
        while ended < self.shards.handles().len() {
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
            sleep(REPORT_INTERVAL).await;
        }
    }
}
