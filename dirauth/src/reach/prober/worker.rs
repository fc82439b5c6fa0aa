//! What the task does: begins tests whose turn it is, and notes how they end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::policy::Family;
use onionring_proto::time::{Mono, Unix};
use tokio::task::{Id, JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use super::super::circuit_test::{self, ExitTest, Report, Tools};
use super::super::counts::{Outcome, Test};
use super::super::exit_listener::ExitListener;
use super::super::link_test::{self, Found};
use super::super::results::{Change, FAILED_ROUNDS, Round};
use super::super::schedule::Schedule;
use super::casting::Casting;
use super::{ListenAt, Setup, Shared, Standing};
use crate::files;

/// For how long a relay that moved is taken to have been down, as in C tor: until clients know its new address.
const MOVED: Duration = Duration::from_secs(3600);
const TESTING_MOVED: Duration = Duration::from_secs(240);

/// A test that is over.
enum Done {
    Link(Found<SocketAddrV4>, Option<Found<SocketAddrV6>>),
    Circuits(Report),
}

/// A kind of test that has turns.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Link,
    Circuits,
}

/// For how long the listener counts as reachable after an exit has reached it.
const LISTENER_PROVEN: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Worker {
    setup: Setup,
    shared: Arc<Shared>,
    /// The zero of the monotonic clock.
    epoch: Instant,
    relays: BTreeMap<Fingerprint, Arc<RouterDesc>>,
    links: Schedule,
    circuits: Schedule,
    listener: Option<Arc<ExitListener>>,
    /// The last two exits that have reached the listener, the last one first, and when.
    exits: Vec<(Fingerprint, Mono)>,
    tests: JoinSet<Done>,
    under_way: HashMap<Id, (Kind, Fingerprint)>,
    look_at: Instant,
    list_at: Instant,
    save_at: Instant,
}

impl Worker {
    pub fn new(mut setup: Setup, shared: Arc<Shared>) -> Worker {
        let now = Instant::now();
        Worker {
            links: Schedule::new(setup.paces.links, setup.rng.next_u64()),
            circuits: Schedule::new(setup.paces.circuits, setup.rng.next_u64()),
            listener: None,
            exits: Vec::new(),
            epoch: now,
            relays: BTreeMap::new(),
            tests: JoinSet::new(),
            under_way: HashMap::new(),
            look_at: now,
            list_at: now,
            save_at: now + setup.paces.save,
            setup,
            shared,
        }
    }

    pub async fn run(mut self) {
        let shared = self.shared.clone();
        if !self.setup.options.test_reachability {
            return shared.stop.notified().await;
        }
        self.listen().await;
        loop {
            self.look().await;
            self.begin();
            let wake = self.wake();
            tokio::select! {
                Some(ended) = self.tests.join_next_with_id() => self.ended(ended),
                () = sleep_until(wake) => {}
                () = shared.stop.notified() => break,
            }
            if Instant::now() >= self.save_at {
                self.save_at = Instant::now() + self.setup.paces.save;
                self.save().await;
            }
        }
        self.tests.abort_all();
        self.save().await;
    }

    /// Opens the port for exits. Without it, tests go on.
    async fn listen(&mut self) {
        let Some(ListenAt { bind, public }) = self.setup.listen.filter(|_| self.setup.options.circuits)
        else {
            return;
        };
        match ExitListener::open(bind, public).await {
            Ok(listener) => {
                debug!("exits are asked to connect to {}", listener.address());
                self.listener = Some(Arc::new(listener));
            }
            Err(error) => warn!("cannot listen at {bind}, so exits are not tested: {error}"),
        }
    }

    fn mono(&self) -> Mono {
        Mono(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn now(&self) -> Unix {
        (self.setup.clock)()
    }

    /// When there is something to do, whether or not a test ends before.
    fn wake(&self) -> Instant {
        let turns = [self.links.poll_timeout(), self.circuits.poll_timeout()].into_iter().flatten();
        let turns = turns.map(|at| self.epoch + Duration::from_micros(at.0));
        turns.fold(self.look_at.min(self.save_at), Instant::min)
    }

    /// Looks for relays, if it is time.
    async fn look(&mut self) {
        if Instant::now() < self.look_at {
            return;
        }
        self.look_at = Instant::now() + self.setup.paces.look;
        let lists = Instant::now() >= self.list_at;
        let source = self.setup.relays.clone();
        let look = move || (source.take_probes(), lists.then(|| source.newest()));
        let (probes, newest) = match spawn_blocking(look).await {
            Ok(found) => found,
            Err(error) => return error!("cannot look for relays to test: {error}"),
        };
        if let Some(newest) = newest {
            self.list_at = Instant::now() + self.setup.paces.list;
            self.list(newest);
        }
        let now = self.mono();
        for (relay, descriptor) in probes.into_iter().filter(|(relay, _)| *relay != self.setup.us) {
            self.relays.insert(relay, descriptor);
            self.links.hurry(relay, now);
        }
    }

    fn list(&mut self, mut newest: BTreeMap<Fingerprint, Arc<RouterDesc>>) {
        newest.remove(&self.setup.us);
        self.relays = newest;
        let known: BTreeSet<Fingerprint> = self.relays.keys().copied().collect();
        let now = self.mono();
        self.links.set_relays(&known, now);
        self.shared.results().retain(|relay| known.contains(relay));
        let unix = self.now();
        let up: BTreeSet<Fingerprint> = {
            let results = self.shared.results();
            let is_up = |relay: &&RouterDesc| !relay.hibernating && results.is_up(&relay.identity, unix);
            self.relays.values().map(|relay| &**relay).filter(is_up).map(|relay| relay.identity).collect()
        };
        let results = self.shared.results();
        if self.setup.options.circuits {
            // Who has come up and is not proven, as it failed before or was never tested, need not wait for its turn.
            for relay in up.iter().filter(|relay| !results.is_proven(relay, unix)) {
                if !self.circuits.knows(relay) {
                    self.circuits.hurry(*relay, now);
                }
            }
            self.circuits.set_relays(&up, now);
        }
        *self.shared.standing() = Standing {
            relays: known.len(),
            up: up.len(),
            proven: up.iter().filter(|relay| results.is_proven(relay, unix)).count(),
            condemned: results.condemned().count(),
            under_way: self.under_way.len(),
        };
    }

    /// Begins the tests whose turn it is.
    fn begin(&mut self) {
        while let Some(relay) = self.links.poll(self.mono()) {
            match self.relays.get(&relay).cloned() {
                Some(descriptor) => self.begin_link(relay, descriptor),
                // Gone since; the next list takes it from the schedule.
                None => self.links.finished(relay, false, self.mono()),
            }
        }
        while let Some(relay) = self.circuits.poll(self.mono()) {
            match self.relays.get(&relay).cloned() {
                Some(descriptor) => self.begin_circuits(relay, &descriptor),
                None => self.circuits.finished(relay, false, self.mono()),
            }
        }
    }

    fn begin_link(&mut self, relay: Fingerprint, descriptor: Arc<RouterDesc>) {
        let dialer = self.shared.relay_dialer.load_full();
        let options = self.setup.options;
        let test = self.tests.spawn(async move {
            let (v4, v6) =
                link_test::run(&dialer, &descriptor, options.ipv6, options.ed25519_link_keys).await;
            Done::Link(v4, v6)
        });
        self.under_way.insert(test.id(), (Kind::Link, relay));
    }

    fn begin_circuits(&mut self, relay: Fingerprint, descriptor: &Arc<RouterDesc>) {
        let now = self.mono();
        let by_another =
            |(exit, at): &(Fingerprint, Mono)| *exit != relay && now.since(*at) < LISTENER_PROVEN;
        let counts = self.exits.iter().any(by_another);
        let exit = self.listener.clone().map(|listener| {
            let ticket = listener.ask(&mut *self.setup.rng);
            ExitTest { listener, ticket, counts }
        });
        let casting = Casting {
            relays: &self.relays,
            results: &self.shared.results(),
            testing: self.setup.options.testing,
            now: (self.setup.clock)(),
        };
        let cast = casting.cast(descriptor, &mut *self.setup.rng);
        let tools = Tools { dialer: self.setup.client_dialer.clone(), times: self.setup.paces.times, exit };
        let test = self.tests.spawn(async move { Done::Circuits(circuit_test::run(&tools, &cast).await) });
        self.under_way.insert(test.id(), (Kind::Circuits, relay));
    }

    fn ended(&mut self, ended: Result<(Id, Done), JoinError>) {
        let (id, done) = match ended {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => {
                error!("a test of a relay broke off: {error}");
                (error.id(), None)
            }
        };
        let Some((kind, relay)) = self.under_way.remove(&id) else { return };
        let repeat = match done {
            Some(Done::Link(v4, v6)) => self.link_ended(&relay, v4, v6),
            Some(Done::Circuits(report)) => self.circuits_ended(&relay, &report),
            None => true,
        };
        let now = self.mono();
        match kind {
            Kind::Link => self.links.finished(relay, repeat, now),
            Kind::Circuits => self.circuits.finished(relay, repeat, now),
        }
    }

    /// Notes how a round went; returns whether it is to be repeated.
    fn circuits_ended(&mut self, relay: &Fingerprint, report: &Report) -> bool {
        for (test, outcome) in &report.tests {
            self.shared.counts.add(*test, *outcome);
        }
        if report.found(Test::Exit, Outcome::Passed) {
            self.exits.retain(|(exit, _)| exit != relay);
            self.exits.insert(0, (*relay, self.mono()));
            self.exits.truncate(2);
        }
        let now = self.now();
        // Who is no longer there gets no record.
        let Some(descriptor) = self.relays.get(relay).cloned() else { return false };
        let change = self.shared.results().round(relay, report.round, now);
        let name = descriptor.nickname;
        match change {
            Some(Change::Condemned) => warn!(
                "the relay {name} {relay} answers links, and has failed {FAILED_ROUNDS} rounds of circuit tests in a \
                 row: it counts as not running until a round passes"
            ),
            Some(Change::Cleared) => {
                info!(
                    "the relay {name} {relay} has passed a round of circuit tests: it counts as running again"
                );
                if self.shared.results().is_up(relay, now) {
                    self.tell_stability(relay, link_test::address_v4(&descriptor), now);
                }
            }
            None => {}
        }
        report.round != Round::Passed
    }

    /// Notes what the plain test found; returns whether it is to be repeated.
    fn link_ended(
        &mut self,
        relay: &Fingerprint,
        v4: Found<SocketAddrV4>,
        v6: Option<Found<SocketAddrV6>>,
    ) -> bool {
        let reached_v4 = self.note(relay, Test::LinkV4, SocketAddr::V4(v4.address), v4.is_there);
        let reached_v6 = v6.map(|v6| self.note(relay, Test::LinkV6, SocketAddr::V6(v6.address), v6.is_there));
        let now = self.now();
        if reached_v6 == Some(true) {
            self.shared.results().link(relay, Family::V6, now);
        }
        if reached_v4 && self.shared.results().link(relay, Family::V4, now) {
            self.tell_stability(relay, v4.address, now);
        }
        if reached_v4 {
            self.hurry_circuits(relay);
        }
        !reached_v4 || reached_v6 == Some(false)
    }

    /// A relay that has been reached, and never tested by circuits, soon is.
    fn hurry_circuits(&mut self, relay: &Fingerprint) {
        let is_awake = self.relays.get(relay).is_some_and(|descriptor| !descriptor.hibernating);
        let is_new = self.shared.results().is_untested(relay) && !self.circuits.is_under_way(relay);
        if self.setup.options.circuits && is_awake && is_new {
            self.circuits.hurry(*relay, self.mono());
        }
    }

    /// Counts a test, and returns whether the relay has been reached where it is.
    fn note(&self, relay: &Fingerprint, test: Test, address: SocketAddr, is_there: bool) -> bool {
        let outcome = if is_there { Outcome::Passed } else { Outcome::Failed };
        self.shared.counts.add(test, outcome);
        // It may have moved meanwhile.
        let has_stayed = self.relays.get(relay).is_some_and(|descriptor| match address {
            SocketAddr::V4(address) => link_test::address_v4(descriptor) == address,
            SocketAddr::V6(address) => link_test::address_v6(descriptor) == Some(address),
        });
        is_there && has_stayed
    }

    fn tell_stability(&self, relay: &Fingerprint, address: SocketAddrV4, now: Unix) {
        let moved = if self.setup.options.testing { TESTING_MOVED } else { MOVED };
        // A panic elsewhere leaves the histories as consistent as every other moment does.
        let mut stability = self.setup.stability.lock().unwrap_or_else(PoisonError::into_inner);
        stability.reached(relay, Some(address), now, moved);
    }

    /// Writes the results to disk. Without that, tests go on.
    async fn save(&mut self) {
        let (path, state) = (self.setup.state.clone(), self.shared.results().write());
        match spawn_blocking(move || files::replace(&path, &state)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("the reachability of relays is not kept for now: {error}"),
            Err(error) => error!("the reachability of relays is not kept for now: {error}"),
        }
    }
}
