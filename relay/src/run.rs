//! From a configuration to a running relay, and to its end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use glommio::{GlommioError, LocalExecutorBuilder, Placement};
use onionring_node::docstore::{DocStore, StoreError};
use onionring_node::keys::{KeyError, KeyStore, write_fingerprints};
use onionring_node::log::{Log, LogError};
use onionring_node::metrics::{self, MetricsError, table};
use onionring_node::process::{self, Notice, PidFile};
use onionring_node::tls::{Connector, TlsError, TlsVersions};
use onionring_proto::cell::LinkVersion;
use onionring_proto::dir::backoff::Delays;
use onionring_proto::dir::fetch::Role;
use onionring_proto::netdoc::params::ConsensusParams;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use thiserror::Error;
use tracing::{error, info, warn};

use crate::cli::{self, PrepareError, Start};
use crate::config::Config;
use crate::control::Control;
use crate::control::bandwidth::History;
use crate::control::describe::{Describer, Standing};
use crate::control::network;
use crate::control::own_circuit::Dialer;
use crate::control::settings::{self, Bound};
use crate::control::signals::{Signal, SignalQueue};
use crate::dir::client::{DirPorts, DirServer};
use crate::dir::clock::Clock;
use crate::dir::directory::Directory;
use crate::dir::fetch::{DirClient, FetchSettings};
use crate::dir::port;
use crate::dir::publish::DirPublisher;
use crate::engine::dos::Clients;
use crate::engine::rate::Rates;
use crate::engine::snapshot::{CircuitParams, KnownRelays, Snapshot};
use crate::exit::dns::resolv_conf::ResolvConfError;
use crate::io::check::SystemLacks;
use crate::io::net::BindError;
use crate::io::{self, Setup, StartError};
use crate::metrics_port;
use crate::startup::System;
use crate::streams::{Served, Streams};
use onionring_node::identity::{Identity, IdentityFailure};

mod reload;
#[cfg(test)]
mod tests;

/// Why the relay does not run, or stopped running.
#[derive(Debug, Error)]
pub enum RunError {
    /// The system lacks something.
    #[error(transparent)]
    System(#[from] SystemLacks),
    /// A listening address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// User, directories, pid file.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Keys.
    #[error(transparent)]
    Identity(#[from] IdentityFailure),
    /// Key files.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// TLS.
    #[error("TLS cannot be configured: {0}")]
    Tls(#[from] TlsError),
    /// The name servers.
    #[error(transparent)]
    ResolvConf(#[from] ResolvConfError),
    /// The document cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The shards.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The control side's executor.
    #[error("the control executor does not start: {0}")]
    Executor(#[from] GlommioError<()>),
    /// Signals.
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// Something that made going on impossible.
    #[error("{0}")]
    Fatal(String),
}

impl RunError {
    /// The exit code, as the help of the command line has it.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Prepare(_)
            | RunError::Log(_)
            | RunError::Identity(_)
            | RunError::Keys(_)
            | RunError::Store(_) => cli::BAD_STATE,
            RunError::System(_)
            | RunError::Bind(_)
            | RunError::Metrics(_)
            | RunError::Tls(_)
            | RunError::ResolvConf(_)
            | RunError::Start(_)
            | RunError::Executor(_)
            | RunError::Signals(_)
            | RunError::Random(_)
            | RunError::Fatal(_) => cli::FAILED,
        }
    }
}

/// Settings that no torrc has, for tests and measurements.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// Versions of TLS.
    pub tls: TlsVersions,
    /// Link protocols to offer.
    pub link_versions: Vec<LinkVersion>,
    /// Whether shards stay on a core each.
    pub pin: bool,
}

impl Hidden {
    /// What the environment of a test says: `ONIONRING_TEST_TLS` (1.2 or 1.3), `ONIONRING_TEST_LINK` (link protocols,
    /// as `4,5`).
    pub fn from_environment() -> Self {
        let mut hidden = Hidden::default();
        match std::env::var("ONIONRING_TEST_TLS").as_deref() {
            Ok("1.2") => hidden.tls = TlsVersions::Tls12,
            Ok("1.3") => hidden.tls = TlsVersions::Tls13,
            _ => {}
        }
        if let Ok(list) = std::env::var("ONIONRING_TEST_LINK") {
            hidden.link_versions = link_versions(&list).unwrap_or(hidden.link_versions);
        }
        hidden
    }
}

/// The link protocols that a list names; `None` if it names none, with which no link could be opened.
fn link_versions(list: &str) -> Option<Vec<LinkVersion>> {
    let named = list.split(',').filter_map(|number| LinkVersion::from_number(number.trim().parse().ok()?));
    Some(named.collect::<Vec<_>>()).filter(|named| !named.is_empty())
}

impl Default for Hidden {
    fn default() -> Self {
        Hidden { tls: TlsVersions::Both, link_versions: LinkVersion::ALL.to_vec(), pin: true }
    }
}

/// Listening sockets, by what they are for.
struct Listeners {
    or: Vec<Vec<std::net::TcpListener>>,
    bound: Bound,
    dir: Vec<std::net::TcpListener>,
    metrics: Vec<std::net::TcpListener>,
}

/// Runs the relay until it is told to end.
pub fn run(start: Start, hidden: Hidden) -> Result<(), RunError> {
    let config = start.config.clone();
    let shards = config.shards.map_or_else(cores, |shards| shards.get().min(usize::from(u16::MAX))) as u16;
    let little_memlock = io::check::raise_limits(usize::from(shards))?;
    let listeners = listen(&config, usize::from(shards))?;
    cli::become_user(&config)?;
    // As the user who will use it: root may where others may not.
    io::check::io_uring()?;
    let _lock = cli::take_directories(&config)?;
    // Before anything that takes time: what comes meanwhile is done afterwards.
    let signals = SignalQueue::install().map_err(RunError::Signals)?;
    let log = onionring_node::log::install(config.log.options(start.quiet))?;
    info!("onionring-relay {} starts with {shards} shards", env!("CARGO_PKG_VERSION"));
    for address in &listeners.bound.or {
        info!("the ORPort listens on {address}");
    }
    for advice in System::read(config.user.is_none()).advice() {
        warn!("{advice}");
    }
    if let Some(little) = little_memlock {
        warn!("{little}");
    }
    let exporter = metrics::install("onionring-relay", env!("CARGO_PKG_VERSION"))?;
    table::MEMORY_LIMIT_BYTES.gauge(&[]).set(config.max_mem_in_queues as f64);

    let mut rng =
        ChaCha20Rng::try_from_rng(&mut rand::rngs::SysRng).map_err(|e| RunError::Random(e.to_string()))?;
    let now = Control::now();
    let store = KeyStore::open(&config.directories.keys, config.keys)?.guarded_by(&config.directories.data);
    let identity = Identity::load(store, hidden.tls, now, &mut rng)?;
    write_fingerprints(&config.directories.data, config.nickname.as_str(), &identity.keys)?;
    let bound = listeners.bound;
    let address = settings::ipv4(&config, None);
    if address.is_none() {
        warn!(
            "the relay's public IPv4 address is not known yet, and nothing is published until directory authorities have \
             told it; if that takes long, add a line such as `Address 203.0.113.7`"
        );
    }
    let publicity = settings::publicity(&config, &bound, address);
    let _pid_file =
        config.pid_file.as_deref().map(PidFile::create).transpose().map_err(PrepareError::from)?;

    let exit = Arc::new(ArcSwap::from_pointee(settings::exit_settings(&config, &publicity)?));
    let directory = Arc::new(Directory::new(settings::front_page(&config)));
    let served = Served { exit: exit.clone(), directory: config.dir_cache.then(|| directory.clone()) };
    let dialer = Dialer { connector: Connector::new(hidden.tls)?, outbound: config.outbound_or };
    let limits = network::rate_limits(&ConsensusParams::default(), &config.bandwidth);
    // The DirPort takes its part as one more shard would.
    let has_dir_port = config.dir_ports.iter().any(|port| port.listen);
    let rates = Arc::new(Rates::new(limits, shards + u16::from(has_dir_port)));
    let mut key = [0; 16];
    rng.fill_bytes(&mut key);
    let clients = Arc::new(Clients::new(key));
    let snapshot = Arc::new(Snapshot {
        rates: rates.clone(),
        dos: network::dos_limits(&ConsensusParams::default(), &config.dos),
        clients: clients.clone(),
        identity: identity.server(),
        onion_keys: identity.onion_keys.clone(),
        link_identity: identity.link.clone(),
        link_versions: hidden.link_versions.clone(),
        own_addresses: Vec::new(),
        relays: Arc::new(KnownRelays::default()),
        params: CircuitParams::default(),
    });
    let setup = Setup {
        shards,
        pin: hidden.pin,
        listeners: listeners.or,
        outbound: config.outbound_or,
        queue_bytes: usize::try_from(config.max_mem_in_queues).unwrap_or(usize::MAX),
        snapshot,
        acceptor: identity.acceptor.clone(),
        connector: dialer.connector.clone(),
    };
    let shards = io::start(setup, move |shard| {
        let index = shard.engine(|engine, _| engine.shard());
        shard.spawn(shard.clone().pulse());
        Box::new(Streams::new(shard, usize::from(index.0), &served))
    })?;
    let bandwidth = History::load(&config.directories.data, now).unwrap_or_else(|failure| {
        warn!("{failure}");
        History::new(now)
    });
    let observed = bandwidth.observed();
    let control = Control {
        shards,
        bandwidth: Rc::new(RefCell::new(bandwidth)),
        overload: Rc::default(),
        identity: Rc::new(RefCell::new(identity)),
        publicity: Rc::new(RefCell::new(publicity)),
        standing: Rc::new(RefCell::new(Standing { tap_key: true, observed, ..Standing::default() })),
        directory,
        exit,
        metrics_policy: Arc::new(ArcSwap::from_pointee(config.metrics.policy.clone())),
        config: RefCell::new(Rc::new(config)),
        bound,
        seen: Cell::default(),
        link_versions: hidden.link_versions,
        dialer,
        rates: RefCell::new(rates),
        clients,
        started: now,
        fatal: RefCell::default(),
        open_circuits: Cell::new(0),
        links_from_relays_ipv6: Cell::new(0),
        load: RefCell::default(),
        draining: Cell::new(false),
        answered: Cell::new(Instant::now()),
        exporter,
        rng: RefCell::new(rng),
    };
    let executor = LocalExecutorBuilder::new(Placement::Unbound).name("control").io_memory(0).make()?;
    executor.run(serve(control, start, log, signals, listeners.dir, listeners.metrics))
}

/// The control side, from the first snapshot to the end of the last shard.
async fn serve(
    control: Control,
    mut start: Start,
    log: Log,
    signals: SignalQueue,
    dir_ports: Vec<std::net::TcpListener>,
    metrics_ports: Vec<std::net::TcpListener>,
) -> Result<(), RunError> {
    let control = Rc::new(control);
    let config = start.config.clone();
    control.publish_snapshot();
    let servers: Vec<DirServer> = config.authorities.iter().map(DirServer::from).collect();
    let transport = DirPorts { from: config.outbound_or };

    // Dropped at the end, which ends them.
    let mut tasks = vec![
        glommio::spawn_local(control.clone().keep_keys()),
        glommio::spawn_local(control.clone().report()),
        glommio::spawn_local(control.clone().test_reachability(false)),
        glommio::spawn_local(control.clone().test_reachability(true)),
        glommio::spawn_local(control.clone().watch_address()),
        glommio::spawn_local(control.clone().beat()),
    ];
    let settings = FetchSettings {
        role: if config.dir_cache { Role::Cache } else { Role::Plain },
        extra_infos: config.dir_cache,
        delays: if config.testing { Delays::TESTING } else { Delays::NORMAL },
        servers: servers.clone(),
    };
    let store = DocStore::open(&config.directories.cache)?;
    let clock = Clock::default();
    let client = DirClient::new(transport, settings, Some(store), control.directory.clone(), clock);
    let fetched = client.state();
    let changed = control.clone();
    tasks.push(glommio::spawn_local(client.run(move || changed.directory_changed())));
    let describer = Describer {
        publicity: control.publicity.clone(),
        identity: control.identity.clone(),
        standing: control.standing.clone(),
        bandwidth: control.bandwidth.clone(),
        overload: control.overload.clone(),
        started: control.started,
        rng: control.fork_rng(),
    };
    let publisher =
        DirPublisher::new(transport, servers, config.testing, control.directory.clone(), describer, clock);
    let published = publisher.state();
    tasks.push(glommio::spawn_local(publisher.run()));
    tasks.push(glommio::spawn_local(control.clone().report_directory(fetched, published)));
    let limited = control.clone();
    let bandwidth =
        Rc::new(port::Bandwidth::new(move || (limited.rates.borrow().clone(), limited.shards.now())));
    for listener in dir_ports {
        let listener = io::net::adopt_listener(listener);
        let directory = control.directory.clone();
        tasks.push(glommio::spawn_local(port::serve(listener, directory, clock, bandwidth.clone())));
    }
    for listener in metrics_ports {
        let listener = io::net::adopt_listener(listener);
        tasks.push(glommio::spawn_local(metrics_port::serve(
            listener,
            control.metrics_policy.clone(),
            control.clone(),
        )));
    }
    if let Some(every) = process::watchdog_interval() {
        tasks.push(glommio::spawn_local(control.clone().keep_watchdog(every)));
    }
    process::notify(Notice::Ready);

    let outcome = loop {
        match futures_lite::future::or(async { Ok(signals.next().await) }, async {
            Err(control.failed().await)
        })
        .await
        {
            Ok(Signal::Shutdown) => break Ok(()),
            Ok(Signal::Report) => {
                control.log_heartbeat(&crate::heartbeat::Totals::default());
            }
            Ok(Signal::Reload) => {
                process::notify(Notice::Reloading);
                reload::reload(&control, &mut start, &log);
                process::notify(Notice::Ready);
            }
            Ok(Signal::LogAll) => reload::log_all(&start, &log),
            Err(failure) => break Err(RunError::Fatal(failure)),
        }
    };
    process::notify(Notice::Stopping);
    let told_again = async || while signals.next().await != Signal::Shutdown {};
    if let Err(failure) = &outcome {
        error!("{failure}");
    } else {
        let drain = control.drain(control.config.borrow().shutdown_wait);
        futures_lite::future::or(drain, async {
            told_again().await;
            info!("told to end again: not waiting for circuits any longer");
        })
        .await;
    }
    control.shards.stop();
    // Links are given a moment to close in order, unless somebody is in a hurry.
    futures_lite::future::or(control.until_stopped(), told_again()).await;
    control.save_bandwidth();
    info!("onionring-relay ends");
    outcome
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn listen(config: &Config, shards: usize) -> Result<Listeners, RunError> {
    let mut listeners =
        Listeners { or: Vec::new(), bound: Bound::default(), dir: Vec::new(), metrics: Vec::new() };
    for port in config.or_ports.iter().filter(|port| port.listen) {
        let (address, sockets) = io::net::listen(port.to_bind(), shards)?;
        listeners.or.push(sockets);
        listeners.bound.or.push(address);
    }
    for port in config.dir_ports.iter().filter(|port| port.listen) {
        let (address, sockets) = io::net::listen(port.to_bind(), 1)?;
        listeners.dir.extend(sockets);
        listeners.bound.dir.push(address);
    }
    for address in &config.metrics.listen {
        listeners.metrics.extend(io::net::listen(*address, 1)?.1);
    }
    Ok(listeners)
}
