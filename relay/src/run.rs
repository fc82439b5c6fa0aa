//! From a configuration to a running relay, and to its end.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use glommio::{GlommioError, LocalExecutorBuilder, Placement};
use onionring_node::docstore::{DocStore, StoreError};
use onionring_node::keys::{KeyError, KeyStore, write_fingerprints};
use onionring_node::log::{Log, LogError, LogOptions};
use onionring_node::metrics::{self, MetricsError, table};
use onionring_node::tls::{Connector, TlsError, TlsVersions};
use onionring_proto::cell::LinkVersion;
use onionring_proto::dir::backoff::Delays;
use onionring_proto::dir::fetch::Role;
use onionring_proto::torrc::port::PortNumber;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use thiserror::Error;
use tracing::{error, info, warn};

use crate::cli::{self, PrepareError, Start};
use crate::config::{Config, LogConfig};
use crate::control::Control;
use crate::control::describe::{Describer, Publicity, Standing};
use crate::control::identity::{Identity, IdentityFailure};
use crate::control::network::CircuitOptions;
use crate::control::own_circuit::Dialer;
use crate::control::signals::{Signal, SignalQueue};
use crate::dir::client::{DirPorts, DirServer};
use crate::dir::clock::Clock;
use crate::dir::directory::Directory;
use crate::dir::fetch::{DirClient, FetchSettings};
use crate::dir::port;
use crate::dir::publish::DirPublisher;
use crate::engine::snapshot::{CircuitParams, KnownRelays, Snapshot};
use crate::exit::decide::ExitRules;
use crate::exit::dns::resolv_conf::{ResolvConf, ResolvConfError};
use crate::exit::{ExitSettings, dns};
use crate::io::check::SystemLacks;
use crate::io::net::BindError;
use crate::io::{self, Setup, StartError};
use crate::process::{self, Notice, PidFile};
use crate::startup::System;
use crate::streams::{Served, Streams};
use crate::{metrics_port, telemetry};

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
    /// No address to publish.
    #[error(
        "the relay's public IPv4 address is not known and cannot be guessed (the address towards the network would be \
         {0}); add a line such as `Address 203.0.113.7`"
    )]
    NoAddress(String),
    /// Something that made going on impossible.
    #[error("{0}")]
    Fatal(String),
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
            let named = list.split(',').filter_map(|number| LinkVersion::from_number(number.parse().ok()?));
            hidden.link_versions = named.collect();
        }
        hidden
    }
}

impl Default for Hidden {
    fn default() -> Self {
        Hidden { tls: TlsVersions::Both, link_versions: LinkVersion::ALL.to_vec(), pin: true }
    }
}

/// Listening sockets, by what they are for.
struct Listeners {
    or: Vec<Vec<std::net::TcpListener>>,
    or_addresses: Vec<SocketAddr>,
    dir: Vec<std::net::TcpListener>,
    metrics: Vec<std::net::TcpListener>,
}

/// Runs the relay until it is told to end.
pub fn run(start: Start, hidden: Hidden) -> Result<(), RunError> {
    let config = start.config.clone();
    let shards = config.shards.map_or_else(cores, |shards| shards.get().min(usize::from(u16::MAX))) as u16;
    io::check::prepare(usize::from(shards))?;
    let listeners = listen(&config, usize::from(shards))?;
    cli::become_user(&config)?;
    let _lock = cli::take_directories(&config)?;
    let log = onionring_node::log::install(log_options(&config.log))?;
    info!("onionring-relay {} starts with {shards} shards", env!("CARGO_PKG_VERSION"));
    for address in &listeners.or_addresses {
        info!("the ORPort listens on {address}");
    }
    for advice in System::read(config.user.is_none()).advice() {
        warn!("{advice}");
    }
    let exporter = metrics::install("onionring-relay", env!("CARGO_PKG_VERSION"))?;
    table::MEMORY_LIMIT_BYTES.gauge(&[]).set(config.max_mem_in_queues as f64);

    let mut rng =
        ChaCha20Rng::try_from_rng(&mut rand::rngs::SysRng).map_err(|e| RunError::Random(e.to_string()))?;
    let now = Control::now();
    let store = KeyStore::open(&config.directories.keys, config.keys)?.guarded_by(&config.directories.data);
    let identity = Identity::load(store, hidden.tls, now, &mut rng)?;
    write_fingerprints(&config.directories.data, config.nickname.as_str(), &identity.keys)?;
    let publicity = publicity(&config, &listeners.or_addresses)?;
    let _pid_file =
        config.pid_file.as_deref().map(PidFile::create).transpose().map_err(PrepareError::from)?;

    let exit = Arc::new(ArcSwap::from_pointee(exit_settings(&config, &publicity)?));
    let directory = Arc::new(Directory::new(None));
    let served = Served { exit: exit.clone(), directory: config.dir_cache.then(|| directory.clone()) };
    let dialer = Dialer { connector: Connector::new(hidden.tls)?, outbound: config.outbound_or };
    let circuits = circuit_options(&config, &publicity);
    let snapshot = Arc::new(Snapshot {
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
    let signals = SignalQueue::install().map_err(RunError::Signals)?;
    let shards = io::start(setup, move |shard| {
        let index = shard.engine(|engine, _| engine.shard());
        shard.spawn(telemetry::pulse(index));
        Box::new(Streams::new(shard, usize::from(index.0), &served))
    })?;
    let control = Control {
        shards,
        identity: Rc::new(RefCell::new(identity)),
        publicity: Rc::new(RefCell::new(publicity)),
        standing: Rc::new(RefCell::new(Standing { tap_key: true, ..Standing::default() })),
        directory,
        exit,
        circuits: Cell::new(circuits),
        link_versions: hidden.link_versions,
        dialer,
        tolerate_missing_protocols: config.testing,
        assume_reachable: Cell::new(config.assume_reachable),
        assume_reachable_ipv6: Cell::new(config.assume_reachable_ipv6),
        started: now,
        fatal: RefCell::default(),
        open_circuits: Cell::new(0),
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
        glommio::spawn_local(control.clone().test_reachability()),
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
    let mut published = None;
    if config.publish {
        let describer = Describer {
            publicity: control.publicity.clone(),
            identity: control.identity.clone(),
            standing: control.standing.clone(),
            started: control.started,
            rng: control.fork_rng(),
        };
        let publisher = DirPublisher::new(
            transport,
            servers,
            config.testing,
            control.directory.clone(),
            describer,
            clock,
        );
        published = Some(publisher.state());
        tasks.push(glommio::spawn_local(publisher.run()));
    }
    tasks.push(glommio::spawn_local(control.clone().report_directory(fetched, published)));
    for listener in dir_ports {
        let listener = io::net::adopt_listener(listener);
        tasks.push(glommio::spawn_local(port::serve(listener, control.directory.clone(), clock)));
    }
    let metrics_policy = Arc::new(ArcSwap::from_pointee(config.metrics.policy.clone()));
    let pages = Rc::new(control.exporter.clone());
    for listener in metrics_ports {
        let listener = io::net::adopt_listener(listener);
        tasks.push(glommio::spawn_local(metrics_port::serve(
            listener,
            metrics_policy.clone(),
            pages.clone(),
        )));
    }
    if let Some(every) = config.heartbeat {
        tasks.push(glommio::spawn_local(control.clone().beat(every)));
    }
    if let Some(every) = process::watchdog_interval() {
        tasks.push(glommio::spawn_local(async move {
            loop {
                process::notify(Notice::Alive);
                glommio::timer::sleep(every).await;
            }
        }));
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
                reload(&control, &mut start, &log);
                metrics_policy.store(Arc::new(start.config.metrics.policy.clone()));
                process::notify(Notice::Ready);
            }
            Err(failure) => break Err(RunError::Fatal(failure)),
        }
    };
    process::notify(Notice::Stopping);
    if let Err(failure) = &outcome {
        error!("{failure}");
        control.shards.stop();
    } else {
        let drain = control.drain(start.config.shutdown_wait);
        futures_lite::future::or(drain, async {
            while signals.next().await != Signal::Shutdown {}
            info!("told to end again: not waiting for circuits any longer");
        })
        .await;
        control.shards.stop();
    }
    control.until_stopped().await;
    info!("onionring-relay ends");
    outcome
}

/// Reads the configuration again, and puts in force what can change while the relay runs. A configuration with an error
/// changes nothing.
fn reload(control: &Rc<Control>, start: &mut Start, log: &Log) {
    let mut loaded = start.sources.load(&start.environment);
    loaded.findings.warnings.iter().for_each(|warning| warn!("{warning}"));
    loaded.findings.notes.iter().for_each(|note| info!("{note}"));
    let Some(new) = loaded.config.take() else {
        for problem in &loaded.findings.problems {
            error!("{problem}");
        }
        return error!("the configuration has errors; the one before stays in force");
    };
    let applied = (|| {
        let addresses = vec![control.publicity.borrow().ipv4.into()];
        let mut publicity = publicity(&new, &addresses)?;
        publicity.ipv4.1 = control.publicity.borrow().ipv4.1;
        let mut exit = exit_settings(&new, &publicity)?;
        exit.rules.network = control.exit.load().rules.network.clone();
        log.reconfigure(log_options(&new.log))?;
        control.circuits.set(circuit_options(&new, &publicity));
        control.exit.store(Arc::new(exit));
        *control.publicity.borrow_mut() = publicity;
        control.assume_reachable.set(new.assume_reachable);
        control.publish_snapshot();
        Ok::<_, RunError>(())
    })();
    match applied {
        Ok(()) => {
            info!("the configuration has been read again");
            for option in loaded.needs_restart(&start.loaded.settings) {
                warn!("{option} has changed; the change takes effect when the relay is restarted");
            }
            start.config = new;
        }
        Err(failure) => error!("the configuration cannot be put in force, the one before stays: {failure}"),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn listen(config: &Config, shards: usize) -> Result<Listeners, RunError> {
    let mut listeners =
        Listeners { or: Vec::new(), or_addresses: Vec::new(), dir: Vec::new(), metrics: Vec::new() };
    for port in config.or_ports.iter().filter(|port| port.listen) {
        let (address, sockets) = io::net::listen(port.to_bind(), shards)?;
        listeners.or.push(sockets);
        listeners.or_addresses.push(address);
    }
    for port in config.dir_ports.iter().filter(|port| port.listen) {
        listeners.dir.extend(io::net::listen(port.to_bind(), 1)?.1);
    }
    for address in &config.metrics.listen {
        listeners.metrics.extend(io::net::listen(*address, 1)?.1);
    }
    Ok(listeners)
}

fn log_options(config: &LogConfig) -> LogOptions {
    LogOptions {
        lines: config.lines.clone(),
        granularity: config.granularity,
        domains: config.domains,
        truncate: config.truncate,
        syslog_identity: match &config.syslog_tag {
            Some(tag) => format!("onionring-{tag}"),
            None => "onionring".to_owned(),
        },
        safe: config.safe,
    }
}

/// What the descriptor will say. `listening` are the ORPorts as bound, for those whose port the system chose.
fn publicity(config: &Config, listening: &[SocketAddr]) -> Result<Publicity, RunError> {
    let bound = |port: PortNumber, v4: bool| match port.to_bind() {
        0 => listening.iter().find(|address| address.is_ipv4() == v4).map_or(0, SocketAddr::port),
        port => port,
    };
    let (ipv4, port) = config
        .advertised_ipv4()
        .ok_or_else(|| RunError::NoAddress("without an IPv4 ORPort there is none".to_owned()))?;
    let address = match ipv4 {
        Some(address) => address,
        None => guess_ipv4(config)?,
    };
    let ipv6 = config.advertised_ipv6().and_then(|(address, port)| Some((address?, bound(port, false))));
    let own: Vec<IpAddr> =
        std::iter::once(IpAddr::V4(address)).chain(ipv6.map(|(ip, _): (Ipv6Addr, u16)| ip.into())).collect();
    Ok(Publicity {
        nickname: config.nickname,
        contact: config.contact.clone(),
        ipv4: (address, bound(port, true)),
        ipv6,
        dir_port: config.advertised_dir_port().map_or(0, PortNumber::to_bind),
        rate: (config.max_advertised_bandwidth, config.max_advertised_bandwidth),
        family: config.family.clone(),
        policy: config.exit.policy(&own),
        dir_cache: config.dir_cache,
    })
}

/// The address from which this machine would speak to an authority. Nothing is sent to find out.
fn guess_ipv4(config: &Config) -> Result<Ipv4Addr, RunError> {
    let unknown = || RunError::NoAddress("unknown".to_owned());
    let authority = config.authorities.first().ok_or_else(unknown)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|_| unknown())?;
    socket.connect(SocketAddr::from(authority.dir)).map_err(|_| unknown())?;
    match socket.local_addr() {
        Ok(SocketAddr::V4(local))
            if config.testing || !onionring_proto::policy::is_internal((*local.ip()).into()) =>
        {
            Ok(*local.ip())
        }
        Ok(local) => Err(RunError::NoAddress(local.ip().to_string())),
        Err(_) => Err(unknown()),
    }
}

fn exit_settings(config: &Config, publicity: &Publicity) -> Result<ExitSettings, RunError> {
    let rules = ExitRules { policy: publicity.policy.clone(), network: Default::default() };
    let resolv_conf = match ResolvConf::read(&config.dns.resolv_conf) {
        Ok(conf) => conf,
        // Who is no exit looks nothing up; this is what the system would ask.
        Err(_) if !rules.is_exit() => ResolvConf {
            servers: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))],
            search: Vec::new(),
            ndots: 1,
            rotate: false,
        },
        Err(error) => return Err(error.into()),
    };
    Ok(ExitSettings {
        rules,
        resolv_conf,
        dns: dns::Options {
            randomize_case: config.dns.randomize_case,
            search_domains: config.dns.search_domains,
            allow_any_characters: config.dns.allow_any_characters,
            source: config.outbound_exit,
            ..dns::Options::default()
        },
        outbound: config.outbound_exit,
    })
}

fn circuit_options(config: &Config, publicity: &Publicity) -> CircuitOptions {
    CircuitOptions {
        extend_to_private: config.extend_to_private,
        ipv6: publicity.ipv6.is_some(),
        refuse_unknown_exits: config.refuse_unknown_exits,
    }
}
