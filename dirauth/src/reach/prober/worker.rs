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
use tracing::{debug, error, warn};

use super::super::counts::{Outcome, Test};
use super::super::link_test::{self, Found};
use super::super::schedule::Schedule;
use super::{Setup, Shared};
use crate::files;

/// For how long a relay that moved is taken to have been down, as in C tor: until clients know its new address.
const MOVED: Duration = Duration::from_secs(3600);
const TESTING_MOVED: Duration = Duration::from_secs(240);

/// A test that is over.
enum Done {
    Link(Found<SocketAddrV4>, Option<Found<SocketAddrV6>>),
}

/// A kind of test that has turns.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Link,
}

pub(super) struct Worker {
    setup: Setup,
    shared: Arc<Shared>,
    /// The zero of the monotonic clock.
    epoch: Instant,
    relays: BTreeMap<Fingerprint, Arc<RouterDesc>>,
    links: Schedule,
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

    fn mono(&self) -> Mono {
        Mono(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn now(&self) -> Unix {
        (self.setup.clock)()
    }

    /// When there is something to do, whether or not a test ends before.
    fn wake(&self) -> Instant {
        let turn = self.links.poll_timeout().map(|at| self.epoch + Duration::from_micros(at.0));
        turn.into_iter().fold(self.look_at.min(self.save_at), Instant::min)
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
            None => true,
        };
        let now = self.mono();
        match kind {
            Kind::Link => self.links.finished(relay, repeat, now),
        }
    }

    /// Notes what the plain test found; returns whether it is to be repeated.
    fn link_ended(
        &mut self,
        relay: &Fingerprint,
        v4: Found<SocketAddrV4>,
        v6: Option<Found<SocketAddrV6>>,
    ) -> bool {
        let reached_v4 = self.note(relay, Test::LinkV4, SocketAddr::V4(v4.address), &v4.result);
        let reached_v6 =
            v6.as_ref().map(|v6| self.note(relay, Test::LinkV6, SocketAddr::V6(v6.address), &v6.result));
        let now = self.now();
        if reached_v6 == Some(true) {
            self.shared.results().link(relay, Family::V6, now);
        }
        if reached_v4 && self.shared.results().link(relay, Family::V4, now) {
            self.tell_stability(relay, v4.address, now);
        }
        !reached_v4 || reached_v6 == Some(false)
    }

    /// Counts a test, and returns whether the relay has been reached where it is.
    fn note(
        &self,
        relay: &Fingerprint,
        test: Test,
        address: SocketAddr,
        result: &Result<(), onionring_node::link::ConnectError>,
    ) -> bool {
        let outcome = if result.is_ok() { Outcome::Passed } else { Outcome::Failed };
        self.shared.counts.add(test, outcome);
        if let Err(error) = result {
            debug!("the relay {relay} is not reached: {error}");
        }
        // It may have moved meanwhile.
        let is_there = self.relays.get(relay).is_some_and(|descriptor| match address {
            SocketAddr::V4(address) => link_test::address_v4(descriptor) == address,
            SocketAddr::V6(address) => link_test::address_v6(descriptor) == Some(address),
        });
        result.is_ok() && is_there
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
