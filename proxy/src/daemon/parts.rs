//! What the proxy consists of, put together: started, told of changes, asked how it is, stopped.
//!
//! The order is that in which the parts need each other: links, memory, guards, the directory, circuits, streams, ports.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arc_swap::{ArcSwap, Guard};
use onionring_proto::build_times::BuildTimeSettings;
use onionring_proto::dir::backoff::Delays;
use onionring_proto::guard::GuardSettings;
use onionring_proto::handshake::Terms;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::time::Unix;
use onionring_proto::torrc::port::ClientKind;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{info, warn};

use super::DaemonError;
use super::sources::GuardSources;
use crate::circuits::{self, Circuits, Map, table};
use crate::config::Config;
use crate::control::{Phase, Port, Report, Status};
use crate::directory::{self, Directory, DirectorySettings, DirectorySources, Fatal, NoSources, View};
use crate::guards::{Clock, Guards};
use crate::limits;
use crate::links::Links;
use crate::memory::{Memory, lock};
use crate::network::Families;
use crate::ports::{Bound, Counters, Serving};
use crate::streams::{self, Streams};
use crate::tallies::Tallies;

/// The parts of a running proxy.
pub struct Parts {
    config: Arc<ArcSwap<Config>>,
    tallies: Arc<Tallies>,
    links: Arc<Links>,
    memory: Arc<Memory>,
    guards: Arc<Guards>,
    directory: Arc<Directory>,
    circuits: Arc<Circuits>,
    streams: Arc<Streams>,
    serving: Serving,
    applications: Arc<Counters>,
    ports: Vec<Port>,
}

type Views = watch::Receiver<Option<Arc<View>>>;

impl Parts {
    /// Starts all of them. What runs for as long as the program does goes into `tasks`, each task with a name that it
    /// returns if it ends, which it must not. `ports` are the sockets that listen already besides those of applications.
    pub fn start(
        config: Config,
        applications: Bound,
        mut ports: Vec<Port>,
        tasks: &mut JoinSet<&'static str>,
    ) -> Result<Parts, DaemonError> {
        let clock: Clock = Arc::new(now);
        let tallies = Arc::new(Tallies::default());
        let links = Arc::new(Links::new()?);
        let memory = Arc::new(Memory::open(&config.directories.data, now())?);
        let guards = Guards::new(memory.clone(), clock.clone());
        // Whoever names sources must see the directory that asks for them.
        let (sources, views) = sources(&config, &guards);
        let directory = Directory::start(directory_settings(&config), links.clone(), sources, clock)?;
        let directory = Arc::new(directory);
        views.follow(directory.view());
        let config = Arc::new(ArcSwap::from_pointee(config));
        let map = map(directory.view(), config.clone(), guards.clone());
        let circuits = Circuits::new(
            circuit_settings(&config.load()),
            map,
            memory.clone(),
            guards.clone(),
            links.clone(),
            tallies.clone(),
        );
        let streams = Streams::new(circuits.clone(), stream_settings(&config.load()), tallies.clone());
        let streams = Arc::new(streams);
        ports.extend(
            applications
                .places()
                .map(|(kind, place)| Port { option: kind.option().to_owned(), address: place.to_string() }),
        );
        let counters = Arc::new(Counters::default());
        let serving = applications.serve(streams.clone(), counters.clone()).map_err(DaemonError::Runtime)?;
        let parts = Parts {
            config,
            tallies,
            links,
            memory,
            guards,
            directory,
            circuits,
            streams,
            serving,
            applications: counters,
            ports,
        };
        tasks.spawn(follow(parts.follower(), parts.directory.view()));
        tasks.spawn(keep(parts.circuits.clone()));
        let (circuits, directory) = (parts.circuits.clone(), parts.directory.clone());
        tokio::spawn(async move {
            circuits.first_built().await;
            directory.note_circuit();
        });
        Ok(parts)
    }

    /// The configuration in force. Options that can change while the proxy runs are to be read here when they count, and
    /// not kept.
    pub fn config(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }

    /// What is counted.
    pub fn tallies(&self) -> &Tallies {
        let (streams, directory) = (&self.tallies.streams, &self.tallies.directory);
        let of = |count: fn(&crate::ports::PortCounters) -> u64| {
            ClientKind::ALL.into_iter().map(|kind| count(self.applications.of(kind))).sum()
        };
        streams.read_bytes.set(of(|counters| counters.bytes_received()));
        streams.written_bytes.set(of(|counters| counters.bytes_sent()));
        let kept = self.directory.status().kept;
        directory.fetched.set(kept.answered);
        directory.failed.set(kept.failed);
        directory.read_bytes.set(kept.bytes);
        &self.tallies
    }

    /// The guards.
    pub fn guards(&self) -> &Guards {
        &self.guards
    }

    /// Links to relays that are open or being opened.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Puts a configuration in force, in which nothing differs that cannot change.
    pub fn reload(&self, config: Config) {
        self.circuits.set_settings(circuit_settings(&config));
        self.streams.set_settings(stream_settings(&config));
        self.serving.set_rules(config.ports.rules.clone());
        let is_elsewhere = {
            let old = self.config.load();
            let of = |config: &Config| {
                let (paths, circuits) = (&config.paths, &config.circuits);
                let ours = (circuits.length, circuits.leaky_pipe, circuits.half_closed_streams);
                (paths.nodes.clone(), paths.distinct_subnets, ours)
            };
            of(&old) != of(&config)
        };
        self.config.store(Arc::new(config));
        let view = self.directory.view().borrow().clone();
        if let Some(view) = view {
            self.follower().take(&view);
        }
        if is_elsewhere {
            // Circuits that are there may have relays that are not wanted any more.
            self.circuits.new_identity();
        }
    }

    /// Does what is due every half minute.
    pub async fn keep_house(&self) {
        self.links.sweep();
        self.save().await;
    }

    /// Writes what a restart must know. Tasks end with the runtime.
    pub async fn stop(&self) {
        self.save().await;
    }

    async fn save(&self) {
        let memory = self.memory.clone();
        let saved = spawn_blocking(move || memory.save()).await;
        if let Ok(Err(error)) = saved {
            warn!("guards and times are remembered until the proxy ends only: {error}");
        }
    }

    /// Waits until the network must not be used any more; normally, that is never.
    pub async fn ended(&self) -> Fatal {
        self.directory.ended().await
    }

    fn follower(&self) -> Follower {
        Follower {
            config: self.config.clone(),
            memory: self.memory.clone(),
            guards: self.guards.clone(),
            circuits: self.circuits.clone(),
        }
    }
}

impl Status for Parts {
    fn report(&self) -> Report {
        let status = self.directory.status();
        let sights = self.circuits.sights();
        Report {
            pid: std::process::id(),
            phase: phase(status.phase),
            percent: status.phase.percent(),
            clock: status.clock.map(|problem| problem.to_string()),
            ports: self.ports.clone(),
            consensus: status.lifetime.map(|lifetime| (lifetime.valid_after, lifetime.valid_until)),
            guards: self.guards.state(|state| state.primary().map(|guard| guard.identity()).collect()),
            circuits: sights.iter().filter(|sight| sight.is_open).count(),
            streams: sights.iter().map(|sight| sight.streams).sum(),
        }
    }

    fn circuits(&self) -> String {
        let mut text = String::new();
        for sight in self.circuits.sights() {
            let state = match (sight.is_open, sight.is_spare) {
                (false, _) => "building",
                (true, true) => "spare",
                (true, false) => "used",
            };
            let path: Vec<&str> = sight.path.iter().map(|(nickname, _)| &**nickname).collect();
            // Writing to text does not fail.
            let _ = writeln!(text, "{} {state} {} {}", sight.number, sight.streams, path.join(","));
        }
        text
    }

    fn new_identity(&self) {
        info!("new streams take new circuits from now on");
        self.circuits.new_identity();
    }
}

fn phase(phase: directory::Phase) -> Phase {
    match phase {
        directory::Phase::Starting | directory::Phase::Connecting | directory::Phase::LoadingStatus => {
            Phase::Consensus
        }
        directory::Phase::LoadingKeys => Phase::Certificates,
        directory::Phase::LoadingDescriptors(_) => Phase::Descriptors,
        directory::Phase::EnoughKnown => Phase::Circuits,
        directory::Phase::Done => Phase::Done,
    }
}

/// Tells the other parts of changes of the directory and the configuration.
struct Follower {
    config: Arc<ArcSwap<Config>>,
    memory: Arc<Memory>,
    guards: Arc<Guards>,
    circuits: Arc<Circuits>,
}

impl Follower {
    fn take(&self, view: &View) {
        let config = self.config.load();
        let nodes = config.paths.nodes.clone();
        let settings = guard_settings(&config);
        let dial = dial(&config);
        let update = self.guards.set_network(&view.network, &settings, &|relay| {
            nodes.allow_entry(relay) && (dial.v4 || dial.v6 && relay.ipv6.is_some())
        });
        if update.is_extreme {
            warn!(
                "EntryNodes and ExcludeNodes leave so few guards that your traffic stands out; allow more relays"
            );
        }
        if update.switched {
            self.circuits.new_identity();
        }
        let times = BuildTimeSettings {
            timeout: config.circuits.build_timeout,
            learn: config.circuits.learn_build_timeout,
        };
        lock(&self.memory.times).set_params(&view.network.consensus().params, &times);
        self.circuits.map_changed();
    }
}

async fn follow(follower: Follower, mut views: Views) -> &'static str {
    loop {
        let view = views.borrow_and_update().clone();
        if let Some(view) = view {
            follower.take(&view);
        }
        if views.changed().await.is_err() {
            // The directory has ended, and says why.
            return std::future::pending().await;
        }
    }
}

async fn keep(circuits: Arc<Circuits>) -> &'static str {
    circuits.keep().await;
    "the upkeep of circuits"
}

/// What circuits are built by, while enough is known.
fn map(views: Views, config: Arc<ArcSwap<Config>>, guards: Arc<Guards>) -> Map {
    Arc::new(move || {
        let view = views.borrow().clone()?;
        let config = config.load();
        let is_enough = match config.paths.paths_needed {
            Some(needed) => view.known_share >= needed,
            None => view.is_sufficient,
        };
        let are_guards_known =
            !config.guards.enabled || guards.state(|state| state.undescribed().next().is_none());
        (is_enough && are_guards_known).then(|| view.network.clone())
    })
}

/// Who names relays to fetch the directory from, and how it hears of the directory.
fn sources(config: &Config, guards: &Arc<Guards>) -> (Arc<dyn DirectorySources>, Arc<GuardSources>) {
    let sources = Arc::new(GuardSources::new(guards.clone(), dial(config)));
    match config.guards.enabled {
        true => (sources.clone(), sources),
        false => (Arc::new(NoSources), sources),
    }
}

fn directory_settings(config: &Config) -> DirectorySettings {
    DirectorySettings {
        authorities: config.authorities.clone(),
        fallbacks: config.directory.fallbacks.clone(),
        cache: config.directories.cache.clone(),
        delays: if config.testing { Delays::TESTING } else { Delays::NORMAL },
        schedule: config.directory.schedule,
        dial: dial(config),
        from_authorities: config.directory.from_authorities,
        protocols: Protocols::parse(directory::PROTOCOLS).unwrap_or_default(),
    }
}

fn circuit_settings(config: &Config) -> circuits::Settings {
    let options = &config.circuits;
    circuits::Settings {
        rules: table::Rules {
            max_dirtiness: options.dirtiness,
            leaky_pipe: options.leaky_pipe,
            worn_time: if options.truncate { limits::WORN_TIME } else { std::time::Duration::ZERO },
        },
        nodes: config.paths.nodes.clone(),
        distinct_subnets: config.paths.distinct_subnets,
        long_lived_ports: options.long_lived_ports.iter().copied().collect(),
        new_circuit_period: options.new_circuit_period,
        pending_max: options.pending,
        spare_time: options.available.unwrap_or(limits::SPARE_TIME),
        ahead: options.predicted,
        length: options.length,
        ask: Terms { half_close: options.half_closed_streams },
        use_guards: config.guards.enabled,
        dial: dial(config),
    }
}

fn dial(config: &Config) -> Families {
    let paths = &config.paths;
    Families { v4: paths.use_ipv4, v6: paths.use_ipv6, prefer_v6: paths.prefer_ipv6 }
}

fn stream_settings(config: &Config) -> streams::Settings {
    let rules = &config.ports.rules;
    streams::Settings {
        patience: rules.timeout,
        stream_timeout: config.circuits.stream_timeout,
        reject_internal_answers: rules.dns_reject_internal,
    }
}

fn guard_settings(config: &Config) -> GuardSettings {
    let options = &config.guards;
    let number = |number: Option<usize>| number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    GuardSettings {
        num_entry_guards: number(options.used),
        num_directory_guards: number(options.used_for_directory),
        num_primary_guards: number(options.primary),
        guard_lifetime: options.lifetime.unwrap_or_default(),
        bias: options.bias,
    }
}

fn now() -> Unix {
    Unix(UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()))
}
