//! The task that keeps the directory: it asks for what the keeper says is due, and shows what comes of it.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onionring_node::directory::answer::Answer;
use onionring_node::directory::keeper::{Clocks, Keeper};
use onionring_node::log::RateLimit;
use onionring_proto::dir::backoff::Delays;
use onionring_proto::dir::fetch::{Fetch, FetchId, Outcome};
use onionring_proto::dir::request::DirRequest;
use onionring_proto::netdoc::consensus::{Consensus, Flavor, RelayFlags};
use onionring_proto::netdoc::params::MIN_PATHS_FOR_CIRCS_PCT;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::path::{Network, Position, draw};
use onionring_proto::time::Mono;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::bootstrap::{Bootstrap, Group, Schedule};
use super::pool::{Known, Pool};
use super::status::{Fatal, Phase, Reporter};
use super::transport::{AskError, Route, Transport, ask};
use super::{Clock, DirectorySettings, DirectorySources, LOOK, View};
use crate::limits;
use crate::links::Place;
use crate::network::Families;

/// Time between two messages about directories that give no answer.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(600);

/// How long the certificates for a consensus that is here may take, until another directory is asked for a consensus.
const CERTS_TIME: Duration = Duration::from_secs(20);

/// Answers of directory guards in a row of no use, after which somebody else is asked once.
const GUARD_FAILURES: u32 = 3;

/// How long directory guards are left alone after one has failed, whatever they say themselves.
const GUARDS_REST: Duration = Duration::from_secs(1);

/// Directories that sent a consensus whose signatures could not be checked yet.
const SUSPECTS: usize = 8;

pub(super) struct Task<T> {
    transport: Arc<T>,
    /// Used by one at a time: this task, or the blocking thread that it waits for.
    keeper: Arc<Mutex<Keeper>>,
    sources: Arc<dyn DirectorySources>,
    from_authorities: bool,
    dial: Families,
    clock: Clock,
    /// The zero of the monotonic clock.
    origin: Instant,
    reporter: Reporter,
    view: watch::Sender<Option<Arc<View>>>,
    protocols: Protocols,
    schedule: Schedule,
    delays: Delays,
    fallbacks: Pool,
    authorities: Pool,
    failed_relays: VecDeque<(Fingerprint, Mono)>,
    guards_rest_until: Mono,
    /// Answers of guards in a row that were of no use.
    guard_failures: u32,
    /// What is due and waits for somebody to ask.
    waiting: Vec<Fetch>,
    /// As long as the network is not known.
    race: Option<Race>,
    attempts: JoinSet<Finished>,
    suspects: VecDeque<(FetchId, Asked)>,
    has_warned: bool,
}

/// Several directories are asked for the first consensus; the first answer wins.
struct Race {
    bootstrap: Bootstrap,
    /// What to ask them, while that is due.
    fetch: Option<Fetch>,
    racers: Vec<(AbortHandle, Asked)>,
    /// Since when a consensus has waited for certificates.
    awaiting_certs: Option<Mono>,
}

/// Who was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Fallback(usize),
    Authority(usize),
    Guard(Fingerprint),
    Relay(Fingerprint),
}

struct Finished {
    fetch: Fetch,
    asked: Asked,
    name: String,
    result: Result<Answer, AskError>,
}

impl<T: Transport> Task<T> {
    pub fn new(
        transport: T,
        settings: DirectorySettings,
        keeper: Keeper,
        sources: Arc<dyn DirectorySources>,
        clock: Clock,
        reporter: Reporter,
        view: watch::Sender<Option<Arc<View>>>,
    ) -> Task<T> {
        let tunnel = |address, id: Fingerprint| Route::Tunnel(Place { address, rsa_id: id.0, ed_id: None });
        let dial = settings.dial;
        let fallbacks = settings.fallbacks.iter().filter_map(|fallback| {
            let (v4, v6) = match fallback.or {
                SocketAddr::V4(_) => (Some(fallback.or), fallback.ipv6.map(SocketAddr::V6)),
                SocketAddr::V6(_) => (None, Some(fallback.or)),
            };
            Some(Known {
                name: "a fallback directory".to_owned(),
                route: tunnel(dial.choose(v4, v6)?, fallback.rsa_id),
                weight: fallback.weight,
            })
        });
        let voters = settings.authorities.iter().filter(|authority| authority.v3_ident.is_some());
        let authorities = voters.filter_map(|authority| {
            let v4 = authority.or_port.map(|port| SocketAddr::from((*authority.dir.ip(), port)));
            let route = match dial.choose(v4, authority.ipv6.map(SocketAddr::V6)) {
                Some(address) => tunnel(address, authority.rsa_id),
                None if dial.v4 && authority.or_port.is_none() => Route::DirPort(authority.dir.into()),
                None => return None,
            };
            let name = authority.nickname.map_or_else(|| "an authority".to_owned(), |name| name.to_string());
            Some(Known { name, route, weight: authority.weight })
        });
        Task {
            transport: Arc::new(transport),
            keeper: Arc::new(Mutex::new(keeper)),
            sources,
            clock,
            origin: Instant::now(),
            reporter,
            view,
            protocols: settings.protocols,
            schedule: settings.schedule,
            from_authorities: settings.from_authorities,
            dial,
            delays: settings.delays,
            fallbacks: Pool::new(fallbacks, settings.delays),
            authorities: Pool::new(authorities, settings.delays),
            failed_relays: VecDeque::new(),
            guards_rest_until: Mono(0),
            guard_failures: 0,
            waiting: Vec::new(),
            race: None,
            attempts: JoinSet::new(),
            suspects: VecDeque::new(),
            has_warned: false,
        }
    }

    pub async fn run(mut self) {
        let now = self.now().unix;
        self.slowly(move |keeper| keeper.load(now)).await;
        loop {
            if let Err(fatal) = self.show() {
                self.reporter.fail(fatal);
                self.view.send_replace(None);
                return;
            }
            self.start_due();
            let patience = self.patience();
            tokio::select! {
                Some(ended) = self.attempts.join_next_with_id() => self.ended(ended).await,
                () = sleep(patience) => {}
            }
        }
    }

    fn now(&self) -> Clocks {
        Clocks { mono: Mono(0) + self.origin.elapsed(), unix: (self.clock)() }
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        lock(&self.keeper)
    }

    /// Has the keeper do what takes long, on another thread.
    async fn slowly<R: Send + 'static>(&self, work: impl FnOnce(&mut Keeper) -> R + Send + 'static) -> R {
        let keeper = self.keeper.clone();
        let result = tokio::task::spawn_blocking(move || work(&mut lock(&keeper))).await;
        result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Shows everyone what is known now, if that has changed, and how far we are.
    fn show(&mut self) -> Result<(), Fatal> {
        let now = self.now();
        let mut keeper = lock(&self.keeper);
        let has_changed = keeper.has_changed();
        let usable = keeper.library().consensus(Flavor::Microdesc).cloned();
        let usable = usable.filter(|consensus| consensus.lifetime.is_reasonably_live(now.unix));
        let (kept, awaits_certs) = (keeper.state().clone(), keeper.awaits_certs());
        let untimely = kept.untimely.filter(|_| usable.is_none());
        self.reporter.update(|status| {
            status.kept = kept;
            status.lifetime = usable.as_ref().map(|consensus| consensus.lifetime);
        });
        if let Some((lifetime, then)) = untimely {
            self.reporter.consensus_clock(&lifetime, then);
        } else if let Some(consensus) = &usable {
            // Again and again: somebody may have set the clock.
            self.reporter.consensus_clock(&consensus.lifetime, now.unix);
        }
        if awaits_certs && untimely.is_none() {
            self.reporter.reach(Phase::LoadingKeys);
        }
        let is_live = usable.as_ref().map(|consensus| consensus.lifetime.is_valid(now.unix));
        let was_live = self.view.borrow().as_ref().map(|view| view.is_live);
        if !has_changed && is_live == was_live {
            return Ok(());
        }
        let (Some(consensus), Some((_, microdescs))) = (usable, keeper.library().network()) else {
            drop(keeper);
            if self.view.send_replace(None).is_some() {
                warn!("the list of relays is over by more than a day: the network is not known any more");
            }
            return Ok(());
        };
        drop(keeper);
        self.judge_protocols(&consensus)?;
        let needed = f64::from(consensus.params.get(&MIN_PATHS_FOR_CIRCS_PCT)) / 100.0;
        let network = Network::new(consensus, |digest| microdescs.get(digest).cloned());
        let (known_share, is_sufficient) = (network.known_paths(), network.is_sufficient());
        self.reporter.update(|status| status.known_share = known_share);
        self.reporter.reach(match is_sufficient {
            true => Phase::EnoughKnown,
            false => Phase::descriptors(known_share, needed),
        });
        let is_live = is_live == Some(true);
        let view = View { network: Arc::new(network), is_live, known_share, is_sufficient };
        self.view.send_replace(Some(Arc::new(view)));
        self.end_race();
        self.race = None;
        Ok(())
    }

    /// Whether we know what the network requires of clients, as its authorities say.
    fn judge_protocols(&mut self, consensus: &Consensus) -> Result<(), Fatal> {
        let missing = consensus.required_client_protocols.missing_from(&self.protocols);
        if !missing.is_empty() {
            return Err(Fatal::MissingProtocols(missing));
        }
        let missing = consensus.recommended_client_protocols.missing_from(&self.protocols);
        if !missing.is_empty() && !self.has_warned {
            self.has_warned = true;
            warn!(
                "the network recommends that clients know what this version does not ({missing}): it will require it some \
                 day; install a newer version when there is one"
            );
        }
        Ok(())
    }

    fn start_due(&mut self) {
        let now = self.now();
        while self.waiting.len() + self.attempts.len() < limits::DIR_FETCHES {
            let Some(fetch) = self.keeper().poll(now) else { break };
            self.waiting.push(fetch);
        }
        let knows_network = self.view.borrow().is_some();
        if !knows_network && self.race.is_none() {
            let has_fallbacks = !self.fallbacks.is_empty();
            let bootstrap = Bootstrap::new(&self.schedule, has_fallbacks, self.delays, now.mono);
            self.race = Some(Race { bootstrap, fetch: None, racers: Vec::new(), awaiting_certs: None });
        }
        let awaits_certs = self.keeper().awaits_certs();
        for fetch in std::mem::take(&mut self.waiting) {
            match (&mut self.race, &fetch.request) {
                (Some(race), DirRequest::Consensus { .. }) => race.fetch = Some(fetch),
                // Nobody is asked for more than one thing before somebody has answered.
                (Some(_), _) if !awaits_certs => self.waiting.push(fetch),
                _ => match self.pick(knows_network, now.mono) {
                    Some((asked, known)) => drop(self.start(fetch, asked, known)),
                    None => self.waiting.push(fetch),
                },
            }
        }
        self.go_on_racing(now.mono);
    }

    /// Asks one more of each group that is due, up to as many at a time as there may be.
    fn go_on_racing(&mut self, now: Mono) {
        let awaits_certs = self.keeper().awaits_certs();
        let Some(race) = &mut self.race else { return };
        race.awaiting_certs = awaits_certs.then(|| race.awaiting_certs.unwrap_or(now));
        if race.awaiting_certs.is_some_and(|since| now.since(since) < CERTS_TIME) {
            return;
        }
        let Some(fetch) = race.fetch.clone() else { return };
        let room = self.schedule.tries.saturating_sub(race.racers.len());
        let due: Vec<Group> = race.bootstrap.due(now).take(room).collect();
        for group in due {
            let Some((asked, known)) = self.pick_of(group, now) else { continue };
            let handle = self.start(fetch.clone(), asked, known);
            let Some(race) = &mut self.race else { return };
            race.bootstrap.asked(group, now, &mut rand::rng());
            race.racers.push((handle, asked));
            self.reporter.reach(Phase::Connecting);
        }
    }

    /// Stops asking for a consensus: there is one.
    fn end_race(&mut self) {
        let Some(race) = &mut self.race else { return };
        let fetch = race.fetch.take();
        for (handle, asked) in std::mem::take(&mut race.racers) {
            handle.abort();
            match asked {
                Asked::Fallback(n) => self.fallbacks.let_go(n),
                Asked::Authority(n) => self.authorities.let_go(n),
                Asked::Guard(_) | Asked::Relay(_) => {}
            }
        }
        if let Some(fetch) = fetch {
            let now = self.now();
            self.keeper().withdraw(&fetch, now);
        }
    }

    fn pick_of(&mut self, group: Group, now: Mono) -> Option<(Asked, Known)> {
        let rng = &mut rand::rng();
        match group {
            Group::Fallbacks => {
                let n = self.fallbacks.pick(now, rng)?;
                Some((Asked::Fallback(n), self.fallbacks.get(n)?.clone()))
            }
            Group::Authorities => {
                let n = self.authorities.pick(now, rng)?;
                Some((Asked::Authority(n), self.authorities.get(n)?.clone()))
            }
        }
    }

    /// Whom to ask for what is not the first consensus.
    fn pick(&mut self, knows_network: bool, now: Mono) -> Option<(Asked, Known)> {
        if knows_network && !self.from_authorities {
            if now < self.guards_rest_until {
                return None;
            }
            if self.guard_failures >= GUARD_FAILURES {
                self.guard_failures = 0;
            } else if let Some((place, id)) = self.sources.next() {
                let name = "a directory guard".to_owned();
                return Some((Asked::Guard(id), Known { name, route: Route::Tunnel(place), weight: 1.0 }));
            }
            // Who keeps to few relays does not show itself to all others because these fail.
            if self.sources.lets_ask_any_relay()
                && let Some(found) = self.relay(now)
            {
                return Some(found);
            }
        }
        self.pick_sender(now)
            .or_else(|| self.pick_of(Group::Fallbacks, now))
            .or_else(|| self.pick_of(Group::Authorities, now))
    }

    /// Who sent the consensus that waits for certificates.
    fn pick_sender(&mut self, now: Mono) -> Option<(Asked, Known)> {
        let (_, asked) = *self.suspects.front()?;
        let (pool, n) = match asked {
            Asked::Fallback(n) => (&mut self.fallbacks, n),
            Asked::Authority(n) => (&mut self.authorities, n),
            Asked::Guard(_) | Asked::Relay(_) => return None,
        };
        Some((asked, pool.pick_this(n, now)?.clone()))
    }

    /// Any relay that serves the directory and has not failed lately.
    fn relay(&mut self, now: Mono) -> Option<(Asked, Known)> {
        self.failed_relays.retain(|(_, until)| *until > now);
        let view = self.view.borrow().clone()?;
        let consensus = view.network.consensus();
        let serves = RelayFlags::RUNNING | RelayFlags::VALID | RelayFlags::V2_DIR;
        let has_failed = |id: &Fingerprint| self.failed_relays.iter().any(|(failed, _)| failed == id);
        let relays = consensus.relays.iter().filter(|r| r.flags.has(serves) && !has_failed(&r.identity));
        let relays: Vec<_> = relays.collect();
        let weights = view.network.weights();
        let relay = draw(&relays, |relay| weights.of(Position::Directory, relay), &mut rand::rng())?;
        let v4 = SocketAddr::V4(SocketAddrV4::new(relay.ipv4, relay.or_port));
        let v6 = relay.ipv6.map(|(ip, port)| SocketAddr::V6(SocketAddrV6::new(ip, port, 0, 0)));
        let address = self.dial.choose(Some(v4), v6)?;
        let place = Place { address, rsa_id: relay.identity.0, ed_id: None };
        let known = Known { name: "a relay".to_owned(), route: Route::Tunnel(place), weight: 1.0 };
        Some((Asked::Relay(relay.identity), known))
    }

    fn start(&mut self, fetch: Fetch, asked: Asked, known: Known) -> AbortHandle {
        let (transport, reporter) = (self.transport.clone(), self.reporter.clone());
        debug!(path = fetch.request.path(), "asking {}", known.name);
        self.attempts.spawn(async move {
            let Known { name, route, .. } = known;
            let is_configured = matches!(asked, Asked::Fallback(_) | Asked::Authority(_));
            let opened = |clock_ahead: Option<i64>| {
                reporter.reach(Phase::LoadingStatus);
                if let Some(ahead) = clock_ahead.filter(|_| is_configured) {
                    reporter.peer_clock(&name, ahead);
                }
            };
            let result = ask(&*transport, &route, &fetch.request, opened).await;
            if let Err(AskError::Open(error)) = &result
                && let Some(ahead) = error.clock_ahead().filter(|_| is_configured)
            {
                reporter.peer_certificates(&name, ahead);
            }
            Finished { fetch, asked, name, result }
        })
    }

    async fn ended(&mut self, ended: Result<(Id, Finished), JoinError>) {
        match ended {
            Ok((id, finished)) => self.finish(id, finished).await,
            // It was in a race that is over.
            Err(error) if error.is_cancelled() => {}
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    async fn finish(&mut self, id: Id, finished: Finished) {
        let Finished { fetch, asked, name, result } = finished;
        let now = self.now();
        let is_racer = self.race.as_mut().is_some_and(|race| {
            let before = race.racers.len();
            race.racers.retain(|(handle, _)| handle.id() != id);
            race.racers.len() < before
        });
        let fetch_id = fetch.id;
        let asks_consensus = matches!(fetch.request, DirRequest::Consensus { .. });
        let was_reached = result.is_ok();
        let outcome = match result {
            // Who has no consensus is of no use to who needs one.
            Ok(answer) if is_racer && answer.status != 200 => {
                self.keeper().fail(&fetch, "refused", now);
                Outcome::Failed
            }
            Ok(answer) => self.slowly(move |keeper| keeper.take(&fetch, &name, answer, now)).await,
            Err(error) => {
                static FAILED: RateLimit = RateLimit::every(COMPLAINT_INTERVAL);
                match FAILED.check() {
                    Some(suppressed) => {
                        info!("no answer from {name}, asking others ({}){suppressed}", error.label())
                    }
                    None => debug!("no answer from {name}: {error}"),
                }
                self.keeper().fail(&fetch, error.label(), now);
                Outcome::Failed
            }
        };
        self.note(asked, outcome, was_reached);
        let (blamed, awaits_certs) = {
            let mut keeper = self.keeper();
            (keeper.blamed(), keeper.awaits_certs())
        };
        if outcome == Outcome::Answered && asks_consensus && awaits_certs {
            self.suspects.truncate(SUSPECTS - 1);
            self.suspects.push_front((fetch_id, asked));
        }
        for (_, asked) in self.suspects.clone().iter().filter(|(id, _)| blamed.contains(id)) {
            match asked {
                // It was spoken of when it answered.
                Asked::Guard(_) => self.rest_guards(),
                asked => self.note(*asked, Outcome::Failed, true),
            }
        }
        if is_racer && outcome == Outcome::Answered {
            self.end_race();
        } else if let Some(race) = &mut self.race
            && race.fetch.as_ref().is_some_and(|fetch| fetch.id == fetch_id)
        {
            // The keeper makes a new request of it.
            race.fetch = None;
        }
    }

    /// Takes note of how it went with a directory.
    fn note(&mut self, asked: Asked, outcome: Outcome, was_reached: bool) {
        let (now, rng) = (self.now().mono, &mut rand::rng());
        let is_well = outcome == Outcome::Answered;
        match asked {
            Asked::Fallback(n) => self.fallbacks.done(n, is_well, now, rng),
            Asked::Authority(n) => self.authorities.done(n, is_well, now, rng),
            Asked::Guard(id) => {
                // A guard that answers is one, whatever its answers are worth: circuits need no more of it.
                match was_reached {
                    true => self.sources.succeeded(id),
                    false => self.sources.failed(id),
                }
                match is_well {
                    true => self.guard_failures = 0,
                    false => self.rest_guards(),
                }
            }
            Asked::Relay(_) if is_well => {}
            Asked::Relay(id) => {
                self.failed_relays.truncate(limits::DIR_FAILED_RELAYS - 1);
                self.failed_relays.push_front((id, now + limits::DIR_FAILED_TIME));
            }
        }
    }

    /// A guard was of no use: the next request to one waits, and after some of them others are asked.
    fn rest_guards(&mut self) {
        self.guards_rest_until = self.now().mono + GUARDS_REST;
        self.guard_failures += 1;
    }

    /// For how long nothing will be due, unless an answer comes.
    fn patience(&self) -> Duration {
        let now = self.now();
        let due = self.keeper().next_timeout(now).filter(|wait| !wait.is_zero());
        // What waits for somebody to ask.
        let waits = self.race.as_ref().is_some_and(|race| race.fetch.is_some()) || !self.waiting.is_empty();
        let pools = [self.fallbacks.next_ready(now.mono), self.authorities.next_ready(now.mono)];
        let race = self.race.as_ref().and_then(|race| race.bootstrap.next_due(now.mono));
        let someone = pools.into_iter().chain([race]).flatten().filter(|wait| !wait.is_zero()).min();
        let someone = someone.filter(|_| waits);
        let guards = Some(GUARDS_REST).filter(|_| waits && self.race.is_none());
        let wait = [due, someone, guards].into_iter().flatten().min().unwrap_or(LOOK);
        wait.clamp(Duration::from_millis(10), LOOK)
    }
}

/// A panic elsewhere leaves the keeper as consistent as every other moment does.
fn lock(keeper: &Mutex<Keeper>) -> MutexGuard<'_, Keeper> {
    keeper.lock().unwrap_or_else(PoisonError::into_inner)
}
