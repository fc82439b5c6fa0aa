//! Circuits: built in the background, handed out to streams, and let go of.
//!
//! [`Circuits`] keeps the [`table`] of them. Whoever wants one looks there; what is not there is planned ([`plan`]) and built
//! (`build`) by a task of its own, and everybody who waits looks again whenever something has changed. So a stream uses the
//! first circuit that will do, whichever it has waited for. [`Circuits::keep`] runs beside: it has circuits ready for the ports
//! that streams went to lately ([`predict`]), and lets go of those that are worn.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onionring_node::link::Circuit;
use onionring_proto::handshake::Terms;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::origin::HopTarget;
use onionring_proto::path;
use onionring_proto::time::Mono;
use rand::RngExt as _;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use crate::guards::{Guards, Step};
use crate::limits;
use crate::links::{Links, Place};
use crate::memory::{Memory, lock};
use crate::network::{Families, Host, Refusal};
use crate::tallies::{CircuitTally, Tallies};

mod build;
pub mod exits;
pub mod plan;
pub mod predict;
mod probe;
pub mod table;

use build::{BuildError, Built};
use exits::{Exits, Lesson};
use plan::{Plan, PlanError, Wanted};
use predict::Predicted;
use table::{Found, Number, Table, Target, Wish};

/// How circuits are made and kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How they are kept and shared.
    pub rules: table::Rules,
    /// What a person says of relays (`EntryNodes` and the like).
    pub nodes: Arc<path::NodeRules>,
    /// Whether relays of one network exclude each other (`EnforceDistinctSubnets`).
    pub distinct_subnets: bool,
    /// Ports to which streams last long (`LongLivedPorts`).
    pub long_lived_ports: BTreeSet<u16>,
    /// How often it is considered to build one ahead, while there is one to spare (`NewCircuitPeriod`).
    pub new_circuit_period: Duration,
    /// Circuits that may be under construction (`MaxClientCircuitsPending`).
    pub pending_max: usize,
    /// How long a circuit waits for its first stream (`CircuitsAvailableTimeout`).
    pub spare_time: Duration,
    /// Whether circuits are built ahead at all.
    pub ahead: bool,
    /// Hops of a circuit (`CircuitLength`).
    pub length: usize,
    /// What exits are asked for that offer it (`HalfClosedStreams`).
    pub ask: Terms,
    /// Whether they all begin at few relays, the guards (`UseEntryGuards`).
    pub use_guards: bool,
    /// Which addresses of guards are dialed.
    pub dial: Families,
}

/// What is known of the network: nothing until the directory is there.
pub type Map = Arc<dyn Fn() -> Option<Arc<path::Network>> + Send + Sync>;

/// A circuit for a stream.
pub struct Carrier {
    /// Its number.
    pub number: Number,
    circuit: Arc<Built>,
    /// The hop at which the stream is to leave.
    pub hop: usize,
    /// The relay there.
    pub exit: Fingerprint,
}

impl Carrier {
    /// The circuit.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit.circuit
    }

    /// Something has happened to the circuit, by which its guard is judged.
    pub fn note(&self, step: Step) {
        self.circuit.note(step);
    }
}

/// What there is of a circuit, for people.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Its number.
    pub number: Number,
    /// The nicknames and identities on its path.
    pub path: Vec<(String, Fingerprint)>,
    /// Whether it is built.
    pub is_open: bool,
    /// Whether it waits for its first stream.
    pub is_spare: bool,
    /// Streams on it.
    pub streams: usize,
}

/// All circuits.
pub struct Circuits {
    settings: Mutex<Settings>,
    table: Mutex<Table<Arc<Built>>>,
    predicted: Mutex<Predicted>,
    exits: Mutex<Exits>,
    pause: Mutex<Pause>,
    /// Places for circuits that took too long to be used, and are built on to learn how long they take.
    late: Semaphore,
    map: Map,
    memory: Arc<Memory>,
    guards: Arc<Guards>,
    links: Arc<Links>,
    /// The zero of the monotonic clock.
    epoch: Instant,
    /// Something has changed for those who wait.
    changed: Notify,
    tallies: Arc<Tallies>,
}

/// Keeps failures from following each other at the speed of the machine.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Circuits {
    /// No circuits yet.
    pub fn new(
        settings: Settings,
        map: Map,
        memory: Arc<Memory>,
        guards: Arc<Guards>,
        links: Arc<Links>,
        tallies: Arc<Tallies>,
    ) -> Arc<Circuits> {
        Arc::new(Circuits {
            table: Mutex::new(Table::new(settings.rules)),
            settings: Mutex::new(settings),
            predicted: Mutex::new(Predicted::new(Instant::now())),
            exits: Mutex::default(),
            pause: Mutex::default(),
            late: Semaphore::new(limits::LATE_CIRCUITS),
            map,
            memory,
            guards,
            links,
            epoch: Instant::now(),
            changed: Notify::new(),
            tallies,
        })
    }

    /// A circuit for `target`: one that is there, or a new one, within the time there is.
    pub async fn get(
        self: &Arc<Self>,
        target: &Target,
        token: &crate::isolation::Token,
        avoid: &[Fingerprint],
        deadline: Instant,
    ) -> Result<Carrier, Refusal> {
        let stable = self.is_long_lived(target);
        if let Target::Stream { port, .. } = target {
            lock(&self.predicted).wanted(*port, Instant::now());
        }
        let wish = Wish { target, stable, token, avoid };
        loop {
            // Made before the look, so that no change is missed between the two.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let patience = match self.look_past_unfit(&wish) {
                Ok(carrier) => return Ok(carrier),
                Err(Wait::Until(at)) => at.min(deadline),
                Err(Wait::Change) => deadline,
                Err(Wait::Never(refusal)) => return Err(refusal),
            };
            if timeout_at(patience, changed).await.is_err() && Instant::now() >= deadline {
                return Err(if (self.map)().is_none() { Refusal::NotReady } else { Refusal::Timeout });
            }
        }
    }

    /// Looks for a circuit to an exit that has not refused the like before. Those that had no room will do if there is no
    /// other.
    fn look_past_unfit(self: &Arc<Self>, wish: &Wish<'_>) -> Result<Carrier, Wait> {
        let exits::Unfit { forbid, full } = lock(&self.exits).unfit(wish.target, Instant::now());
        let avoid = [wish.avoid, &forbid, &full].concat();
        match self.look(&Wish { avoid: &avoid, ..*wish }) {
            Err(Wait::Never(_)) if !full.is_empty() => {
                self.look(&Wish { avoid: &[wish.avoid, &forbid].concat(), ..*wish })
            }
            found => found,
        }
    }

    /// Looks for a circuit, and has one built if there is none.
    fn look(self: &Arc<Self>, wish: &Wish<'_>) -> Result<Carrier, Wait> {
        if let Some(found) = self.find(wish) {
            return found;
        }
        self.may_build()?;
        match self.launch(wish.target, wish.stable, wish.avoid) {
            // It is the wisher's now.
            Ok(_) => self.find(wish).unwrap_or(Err(Wait::Change)),
            Err(PlanError::NoExit) => Err(Wait::Never(Refusal::NotAllowed)),
            Err(error) => {
                self.tallies.circuits.failed.add(CircuitTally::NO_PATH);
                debug!("no circuit can be built now: {error}");
                // That is this wish's matter alone: others may have paths.
                Err(Wait::Until(Instant::now() + limits::PLAN_PAUSE))
            }
        }
    }

    fn find(&self, wish: &Wish<'_>) -> Option<Result<Carrier, Wait>> {
        let mut table = lock(&self.table);
        loop {
            match table.find(wish, Instant::now()) {
                Found::Nothing => return None,
                Found::Building(_) => return Some(Err(Wait::Change)),
                Found::Open(number, hop) => {
                    let carrier = table.get(number).and_then(|record| {
                        let circuit = record.circuit()?.clone();
                        let exit = record.hops.get(hop)?.identity;
                        Some(Carrier { number, circuit, hop, exit })
                    });
                    match carrier {
                        Some(carrier) if carrier.circuit().failure().is_none() => return Some(Ok(carrier)),
                        _ => drop(table.remove(number)),
                    }
                }
            }
        }
    }

    /// Whether another circuit may be begun now.
    fn may_build(&self) -> Result<(), Wait> {
        if (self.map)().is_none() || lock(&self.table).building() >= lock(&self.settings).pending_max {
            return Err(Wait::Change);
        }
        match lock(&self.pause).until.filter(|until| *until > Instant::now()) {
            Some(until) => Err(Wait::Until(until)),
            None => Ok(()),
        }
    }

    /// Plans a circuit, and has it built.
    fn launch(
        self: &Arc<Self>,
        target: &Target,
        stable: bool,
        avoid: &[Fingerprint],
    ) -> Result<Number, PlanError> {
        let Some(network) = (self.map)() else { return Err(PlanError::NoGuard) };
        let settings = lock(&self.settings).clone();
        let rules = path::Rules {
            nodes: settings.nodes.clone(),
            ..path::Rules::new(&network.consensus().params, settings.distinct_subnets)
        };
        // While little is known of how long circuits take, more are built to learn it.
        let spare_time = lock(&self.memory.times).idle_timeout().unwrap_or(settings.spare_time);
        let spare_until = Instant::now() + spare_time.mul_f64(rand::rng().random_range(1.0..2.0));
        let wanted = Wanted { target, stable, avoid, length: settings.length, ask: settings.ask };
        if let Some((worn, hops)) = self.worn(stable)
            && let Some((exit, hops)) = plan::choose_new_exit(&network, &rules, &hops, &wanted)
            && let Some(circuit) = self.take(worn)
        {
            let stable = stable || hops.iter().all(|hop| hop.stable);
            let number = lock(&self.table).begin(hops, stable, spare_until);
            tokio::spawn(self.clone().recut(number, circuit, exit));
            return Ok(number);
        }
        let guards = settings.use_guards.then_some(&self.guards);
        let plan = plan::choose_plan(&network, &rules, guards, &wanted)?;
        let number = lock(&self.table).begin(plan.hops.clone(), plan.stable, spare_until);
        tokio::spawn(self.clone().build(number, plan, network));
        Ok(number)
    }

    /// A worn circuit to cut, if that is wanted.
    fn worn(&self, stable: bool) -> Option<(Number, Arc<[table::Hop]>)> {
        let is_fit = |built: &Arc<Built>| built.circuit.failure().is_none() && built.circuit.streams() == 0;
        lock(&self.table).worn(Instant::now(), stable, is_fit)
    }

    /// Takes a circuit out of the table, which is free again when this returns.
    fn take(&self, number: Number) -> Option<Arc<Built>> {
        lock(&self.table).take(number)
    }

    /// Builds a circuit, and says so to all who wait.
    async fn build(self: Arc<Self>, number: Number, plan: Plan, network: Arc<path::Network>) {
        let _unwind = Unwind { circuits: &self, number };
        let built = build::build(&self, number, plan, &network).await;
        self.finish(number, built.map(Arc::new));
    }

    /// Puts another exit in place of a circuit's own, and says so to all who wait.
    async fn recut(self: Arc<Self>, number: Number, circuit: Arc<Built>, exit: HopTarget) {
        let _unwind = Unwind { circuits: &self, number };
        let recut = build::recut(&self, &circuit.circuit, &exit).await;
        match &recut {
            Ok(()) => self.tallies.circuits.truncated.add(1),
            // That it was not cut does not speak against its guard.
            Err(_) => probe::clear_doubt(&circuit),
        }
        self.finish(number, recut.map(|()| circuit));
    }

    fn finish(&self, number: Number, outcome: Result<Arc<Built>, BuildError>) {
        match outcome {
            Ok(circuit) => {
                self.tallies.circuits.built.add(1);
                *lock(&self.pause) = Pause::default();
                // It comes back if nobody wants it any more.
                let unwanted = lock(&self.table).built(number, circuit);
                drop(unwanted);
                self.changed.notify_waiters();
            }
            Err(error) => {
                self.tallies.circuits.failed.add(error.tally());
                debug!("circuit {number} was not built: {error}");
                // Of one that took too long it was said at once, and a better guard is no misfortune.
                if !matches!(error, BuildError::Slow(_) | BuildError::BetterGuard) {
                    self.failed();
                }
                self.forget(number);
            }
        }
    }

    fn forget(&self, number: Number) {
        let gone = lock(&self.table).remove(number);
        drop(gone);
        self.changed.notify_waiters();
    }

    /// Something failed: until when nothing more is begun.
    fn failed(&self) -> Instant {
        let mut pause = lock(&self.pause);
        // Those that fail together, as with their link, count once.
        if let Some(until) = pause.until.filter(|until| *until > Instant::now()) {
            return until;
        }
        let (least, most) = limits::BUILD_PAUSE;
        let wait = least.saturating_mul(1 << pause.failures.min(16)).min(most);
        pause.failures = pause.failures.saturating_add(1);
        *pause.until.insert(Instant::now() + wait)
    }

    /// Whether there is a circuit that is built.
    fn has_open(&self) -> bool {
        lock(&self.table).iter().any(|(_, record)| record.circuit().is_some())
    }

    /// The circuit is built, and may not be used yet.
    fn wait_for_guards(&self, number: Number) {
        lock(&self.table).wait(number);
    }

    /// Streams are put on this circuit no more.
    pub fn retire(&self, number: Number) {
        lock(&self.table).retire(number);
    }

    /// No circuit that is there takes streams any more.
    pub fn new_identity(&self) {
        lock(&self.table).retire_all();
        lock(&self.exits).forget_destinations();
        self.changed.notify_waiters();
    }

    /// Something has come from the network.
    pub fn network_seen(&self) {
        self.guards.network_seen();
    }

    /// An exit has refused a stream, and so the next ones of the kind.
    pub fn learn(&self, exit: Fingerprint, lesson: Lesson) {
        let microdesc = (self.map)().and_then(|network| microdesc_of(&network, &exit));
        lock(&self.exits).learn(exit, microdesc, lesson, Instant::now());
    }

    /// What was not there may be there now: the directory has changed.
    pub fn map_changed(&self) {
        if let Some(network) = (self.map)() {
            lock(&self.exits).set_network(|exit| microdesc_of(&network, exit), Instant::now());
        }
        self.changed.notify_waiters();
    }

    /// Changes what can change in a running proxy.
    pub fn set_settings(&self, settings: Settings) {
        lock(&self.table).rules = settings.rules;
        *lock(&self.settings) = settings;
    }

    /// Where a link to a guard is to lead.
    fn place(&self, guard: &HopTarget) -> Option<Place> {
        Place::of(guard, lock(&self.settings).dial)
    }

    fn mono(&self) -> Mono {
        Mono(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Waits until a circuit has been built.
    pub async fn first_built(&self) {
        loop {
            // Made before the look, so that no change is missed between the two.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.tallies.circuits.built.get() > 0 {
                return;
            }
            changed.await;
        }
    }

    /// All circuits, for people.
    pub fn sights(&self) -> Vec<Sight> {
        let table = lock(&self.table);
        let sight = |(number, record): (Number, &table::Record<Arc<Built>>)| Sight {
            number,
            path: record.hops.iter().map(|hop| (hop.nickname.to_string(), hop.identity)).collect(),
            is_open: record.circuit().is_some(),
            is_spare: record.is_spare(),
            streams: record.circuit().map_or(0, |built| built.circuit.streams()),
        };
        table.iter().map(sight).collect()
    }

    /// Keeps circuits ready and lets go of worn ones, for ever.
    pub async fn keep(self: Arc<Self>) {
        let mut considered: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let gone =
                lock(&self.table).expire(now, |c| c.circuit.failure().is_some(), |c| c.circuit.streams() > 0);
            gone.iter().filter_map(|record| record.circuit()).for_each(probe::clear_doubt);
            drop(gone);
            self.links.sweep();
            let period = lock(&self.settings).new_circuit_period;
            let is_due = considered.is_none_or(|at| now.duration_since(at) >= period);
            if is_due && (self.map)().is_some() {
                considered = Some(now);
            }
            self.build_ahead(is_due);
            self.build_to_learn();
            sleep(limits::CIRCUIT_LOOK).await;
        }
    }

    /// Has circuits built for the ports that will be wanted: as many as there should be if it is due, one for each port
    /// that has none otherwise.
    fn build_ahead(self: &Arc<Self>, is_due: bool) {
        if !lock(&self.settings).ahead {
            return;
        }
        let enough = if is_due { limits::SPARE_PER_PORT } else { 1 };
        let ports = lock(&self.predicted).ports(Instant::now());
        for port in ports {
            // Any name at all.
            let host = Host::Name(Box::from(""));
            let target = Target::Stream { host, port, families: Families::default() };
            let stable = self.is_long_lived(&target);
            let exits::Unfit { forbid, full } = lock(&self.exits).unfit(&target, Instant::now());
            let avoid = [forbid, full].concat();
            loop {
                let (spare, all) = {
                    let table = lock(&self.table);
                    let all = table.iter().filter(|(_, record)| record.is_spare()).count();
                    (table.spare(&target, stable, &avoid), all)
                };
                if spare >= enough || all >= limits::SPARE_CIRCUITS || self.may_build().is_err() {
                    break;
                }
                match self.launch(&target, stable, &avoid) {
                    Ok(_) => {}
                    Err(error) => {
                        debug!("no circuit can be built ahead: {error}");
                        if error == PlanError::NoExit && avoid.is_empty() {
                            lock(&self.predicted).forget(port);
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Builds a circuit only to learn how long that takes, if too little is known of that.
    fn build_to_learn(self: &Arc<Self>) {
        let unused = lock(&self.table).iter().filter(|(_, record)| record.is_spare()).count();
        let is_wanted = lock(&self.memory.times).wants_test_circuit(unused, self.mono());
        if is_wanted && lock(&self.settings).ahead && self.may_build().is_ok() {
            // Why there is none is said where somebody wants one.
            let _ = self.launch(&Target::LookUp, false, &[]);
        }
    }

    fn is_long_lived(&self, target: &Target) -> bool {
        match target {
            Target::Stream { port, .. } => lock(&self.settings).long_lived_ports.contains(port),
            Target::LookUp => false,
        }
    }
}

/// The digest of a relay's microdescriptor.
fn microdesc_of(network: &path::Network, relay: &Fingerprint) -> Option<[u8; 32]> {
    network.relay(relay)?.status.microdesc().copied()
}

/// Should building a circuit panic, nobody waits for it for ever.
struct Unwind<'a> {
    circuits: &'a Circuits,
    number: Number,
}

impl Drop for Unwind<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.circuits.forget(self.number);
        }
    }
}

/// What somebody who finds no circuit does.
enum Wait {
    /// Look again when something has changed,
    Change,
    /// or at this moment.
    Until(Instant),
    /// Nothing that is waited for would help.
    Never(Refusal),
}

#[cfg(test)]
mod tests;
