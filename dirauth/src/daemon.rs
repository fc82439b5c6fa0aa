//! The running authority: from a configuration to voting, and to its end.
//!
//! One task, the clerk (`Daemon::run`), looks every second what is due. Voting is `session`'s; what it wants of the other
//! authorities are `errands`. Consensuses go through the `press` into what is served, on the DirPort and on the `orport`.
//! `vote` makes our vote, `descriptor` what we say of ourselves as a relay. All of them share the `Authority`. What they
//! count, `telemetry` shows on the metrics port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use onionring_node::cli::make_keys;
use onionring_node::docstore::StoreError;
use onionring_node::identity::{Identity, IdentityFailure};
use onionring_node::keys::{KeyError, KeyStore};
use onionring_node::log::{Log, LogError};
use onionring_node::metrics::http::is_allowed;
use onionring_node::metrics::{self, Exporter, MetricsError, port as metrics_port};
use onionring_node::process::{self, Notice, PidFile};
use onionring_node::signals::{Signals, Wish};
use onionring_node::tls::{TlsError, TlsVersions};
use onionring_proto::netdoc::tally::Terms;
use onionring_proto::netdoc::text::Fingerprint;
use rand::SeedableRng as _;
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::approval::{Approvals, ApprovedRouters};
use crate::cli::{self, PrepareError, Start};
use crate::config::Config;
use crate::directory::Directory;
use crate::files::{self, FileError};
use crate::http::{self, Desk};
use crate::keys::{AuthorityKeyError, AuthorityKeys};
use crate::limits;
use crate::opinion::Us;
use crate::peers::Peer;
use crate::reach::{self, ListenAt, Paces, Prober};
use crate::stability::StabilityError;
use crate::uploads::{APPROVED, OpenError, Uploads};
use crate::voting::{Rules, Schedule};

mod authority;
mod descriptor;
mod errands;
mod orport;
mod press;
mod session;
mod sockets;
mod tallies;
mod telemetry;
mod upkeep;
mod vote;

use authority::{Authority, Bandwidths, lock};
use descriptor::Place;
use orport::Links;
use press::Press;
use session::{Session, Settings, clock};
use sockets::{Sockets, port};
use tallies::Tallies;
use telemetry::Telemetry;

/// Why the authority does not run, or stopped running.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// User, directories, pid file.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Keys of the relay that an authority is.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// What is proved with them.
    #[error(transparent)]
    Identity(#[from] IdentityFailure),
    /// Keys of the authority.
    #[error(transparent)]
    AuthorityKeys(#[from] AuthorityKeyError),
    /// Documents on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// State on disk.
    #[error(transparent)]
    State(#[from] FileError),
    /// The relays' past.
    #[error(transparent)]
    Stability(#[from] StabilityError),
    /// Uploads on disk.
    #[error(transparent)]
    Uploads(#[from] OpenError),
    /// TLS.
    #[error("TLS cannot be configured: {0}")]
    Tls(#[from] TlsError),
    /// A listening address.
    #[error("cannot listen on {address} for {option}: {source}; is another program using the port?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The option.
        option: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The runtime.
    #[error("the program's threads do not start: {0}")]
    Runtime(std::io::Error),
    /// Something that must not end has ended.
    #[error("{0} has ended, which must not be; the log says more, please report it")]
    Ended(&'static str),
    /// Signals.
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
}

impl DaemonError {
    /// The exit code, as the help of the command line has it.
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Prepare(_)
            | DaemonError::Log(_)
            | DaemonError::Keys(_)
            | DaemonError::Identity(_)
            | DaemonError::AuthorityKeys(_)
            | DaemonError::Store(_)
            | DaemonError::State(_)
            | DaemonError::Stability(_)
            | DaemonError::Uploads(_) => cli::BAD_STATE,
            DaemonError::Metrics(_)
            | DaemonError::Tls(_)
            | DaemonError::Bind { .. }
            | DaemonError::Runtime(_)
            | DaemonError::Ended(_)
            | DaemonError::Signals(_) => cli::FAILED,
        }
    }
}

/// Runs the authority until it is told to end.
pub fn run(start: Start) -> Result<(), DaemonError> {
    process::raise_open_files();
    let sockets = Sockets::bind(&start.config)?;
    cli::become_user(&start.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(DaemonError::Runtime)?;
    // Before the lock, whose owner is told of decisions by a signal.
    let signals = runtime.block_on(async { Signals::install() }).map_err(DaemonError::Signals)?;
    let _lock = cli::take_directories(&start.config)?;
    // Before the first message, as messages are counted.
    let exporter = metrics::install("onionring-dirauth", env!("CARGO_PKG_VERSION"))?;
    let log = onionring_node::log::install(start.config.log.options(start.quiet))?;
    std::panic::set_hook(Box::new(|fault| error!("a fault of this program, please report it: {fault}")));
    info!("onionring-dirauth {} starts", env!("CARGO_PKG_VERSION"));
    let _pid_file = start.config.pid_file.as_deref().map(PidFile::create).transpose();
    let _pid_file = _pid_file.map_err(PrepareError::from)?;
    let outcome =
        runtime.block_on(async { Daemon::start(start, log, exporter, sockets, signals).await?.run().await });
    // Work under way writes whole files or none.
    runtime.shutdown_timeout(limits::SHUTDOWN);
    outcome
}

/// The program.
struct Daemon {
    authority: Arc<Authority>,
    identity: Arc<Mutex<Identity>>,
    links: Arc<Links>,
    prober: Arc<Prober>,
    start: Start,
    log: Log,
    data: PathBuf,
    signals: Signals,
    /// What runs beside the clerk for as long as the program does.
    tasks: JoinSet<&'static str>,
}

impl Daemon {
    /// Reads all state, and starts all that runs beside the clerk.
    async fn start(
        start: Start,
        log: Log,
        exporter: Exporter,
        sockets: Sockets,
        signals: Signals,
    ) -> Result<Daemon, DaemonError> {
        let now = clock();
        let mut config = start.config.clone();
        let (data, key_directory) = (config.directories.data.clone(), config.directories.keys.clone());

        let store = KeyStore::open(&key_directory, config.keys)?.guarded_by(&data);
        make_keys(&config.nickname, &config.directories, &store)?;
        let identity = Identity::load(store, TlsVersions::Both, now, &mut UnwrapErr(SysRng))?;
        let relay = Fingerprint(identity.server().rsa_id);
        config.authority.admission.us = Some(relay);
        let keys = AuthorityKeys::load(&key_directory, now)?;
        let line = keys.find_us(&config.authorities, &relay)?;
        let us = Us {
            nickname: line.nickname.unwrap_or(config.nickname).to_string().into(),
            relay,
            address: config.address,
            or_port: port(config.advertised_or_port().map(|number| number.to_bind()), &sockets.or, false),
            dir_port: port(config.advertised_dir_port().map(|number| number.to_bind()), &sockets.dir, false),
            certificate: keys.certificate.clone(),
        };
        let v3_ident = keys.signer.cert.identity;
        info!("this authority is {v3_ident}, and as a relay {relay}");

        let approvals = approvals(&config, &data)?;
        let uploads = Uploads::open(&data, config.authority.admission.clone(), approvals.clone(), now)?;
        let directory = Arc::new_cyclic(|_| Directory::new(uploads));
        let (front_page, authority_id) = (upkeep::front_page(&config), Some(v3_ident));
        directory.change(|documents| {
            documents.served.front_page.clone_from(&front_page);
            documents.served.authority = authority_id;
        });
        let peers: Vec<Peer> = config.authorities.iter().filter_map(Peer::new).collect();
        let v3_idents: Vec<Fingerprint> = peers.iter().map(|peer| peer.v3_ident).collect();
        let press = Press::open(&data, v3_idents.clone(), directory.clone(), now)?;
        press.add_certs(keys.certificate.text(), now);

        let tallies = Arc::new(Tallies::default());
        let (errands, to_do) = mpsc::unbounded_channel();
        let settings = settings(&config, &keys, v3_idents);
        let session = Session::open(
            &data,
            settings,
            press.consensus().as_deref(),
            directory.clone(),
            tallies.clone(),
            errands,
            now,
        )?;
        let session = Arc::new(session);
        directory.set_voting(session.clone());

        let stability = Arc::new(Mutex::new(upkeep::read_stability(&data, now)?));
        let (requests, circuits) = mpsc::channel(limits::CIRCUIT_REQUESTS);
        let own_addresses = own_addresses(&config);
        let links = Arc::new(Links::new(&identity, own_addresses.clone(), requests, process::open_files())?);
        let prober = Arc::new(Prober::start(reach::Setup {
            us: relay,
            options: reach::Options {
                test_reachability: config.authority.flags.test_reachability,
                ipv6: config.authority.flags.has_ipv6,
                ed25519_link_keys: config.authority.test_ed25519_link_keys,
                circuits: config.test_circuits,
                testing: config.authority.testing,
            },
            paces: Paces::new(config.authority.testing),
            relays: directory.clone(),
            relay_dialer: links.relay_dialer(&identity),
            client_dialer: links.client_dialer(),
            listen: Some(ListenAt { bind: (Ipv4Addr::UNSPECIFIED, 0).into(), public: config.address }),
            stability: stability.clone(),
            state: data.join("relay-reachability"),
            clock: Arc::new(clock),
            rng: Box::new(
                rand_chacha::ChaCha20Rng::try_from_rng(&mut SysRng)
                    .map_err(std::io::Error::other)
                    .map_err(DaemonError::Runtime)?,
            ),
        })?);
        let found = prober.clone();
        let place = Place {
            nickname: config.nickname,
            ipv4: (us.address, us.or_port, us.dir_port),
            ipv6: config
                .advertised_ipv6()
                .map(|(address, number)| (address, port(Some(number.to_bind()), &sockets.or, true))),
        };
        let authority = Arc::new(Authority {
            us: ArcSwap::from_pointee(us),
            keys: ArcSwap::from_pointee(keys),
            approvals: ArcSwap::from_pointee(approvals),
            peers: peers.into_iter().filter(|peer| peer.v3_ident != v3_ident).collect(),
            directory: directory.clone(),
            press,
            session,
            stability,
            bandwidths: Mutex::new(Bandwidths::default()),
            reached: Arc::new(move |relay| found.reached(relay)),
            refused: Mutex::default(),
            behind: tokio::sync::Notify::new(),
            warned_of_expiry: Mutex::default(),
            tallies,
            started: now,
            config: ArcSwap::from_pointee(config),
        });

        let identity = Arc::new(Mutex::new(identity));
        let peer_addresses = authority.peers.iter().map(|peer| peer.dir.ip()).collect();
        let desk = Arc::new(Desk::new(directory, peer_addresses));
        let mut tasks = JoinSet::new();
        for listener in sockets.dir {
            let listener = adopt(listener)?;
            let serving = http::serve(listener, desk.clone());
            tasks.spawn(async move { match serving.await {} });
        }
        for listener in sockets.or {
            tasks.spawn(ends("the ORPort", links.clone().listen(adopt(listener)?)));
        }
        tasks.spawn(ends("the directory on circuits", orport::answer(circuits, desk.clone())));
        tasks.spawn(ends("the exchange with other authorities", errands::run(authority.clone(), to_do)));
        tasks.spawn(ends("fetching consensuses", errands::keep_up(authority.clone())));
        let publishing = descriptor::publish(authority.clone(), identity.clone(), place);
        tasks.spawn(ends("publishing our descriptor", publishing));
        let pages = Arc::new(Telemetry {
            exporter,
            authority: authority.clone(),
            identity: identity.clone(),
            links: links.clone(),
            prober: prober.clone(),
            desk,
        });
        for listener in sockets.metrics {
            let policed = authority.clone();
            let allows = move |peer| is_allowed(&policed.config.load().metrics.policy, peer);
            tokio::spawn(metrics_port::serve(adopt(listener)?, allows, pages.clone()));
        }
        Ok(Daemon { authority, identity, links, prober, start, log, data, signals, tasks })
    }

    /// The clerk: what is due, every second, until a signal ends it.
    async fn run(mut self) -> Result<(), DaemonError> {
        process::notify(Notice::Ready);
        let mut housekeeping = Instant::now();
        let (mut beat, mut alive) = (Instant::now(), Instant::now());
        let watchdog = process::watchdog_interval();
        loop {
            tokio::select! {
                () = sleep(until_next_second()) => {
                    let session = self.authority.session.clone();
                    // Computing a consensus takes its time; what panics in there was logged.
                    let _ = spawn_blocking(move || session.tick(clock())).await;
                    if housekeeping <= Instant::now() {
                        housekeeping = Instant::now() + upkeep::EVERY;
                        self.keep_house().await;
                    }
                    let heartbeat = self.authority.config.load().heartbeat;
                    if heartbeat.is_some_and(|every| beat.elapsed() >= every) {
                        beat = Instant::now();
                        self.report();
                    }
                    if watchdog.is_some_and(|every| alive.elapsed() >= every) {
                        alive = Instant::now();
                        process::notify(Notice::Alive);
                    }
                }
                Some(ended) = self.tasks.join_next() => {
                    return Err(DaemonError::Ended(ended.unwrap_or("a part of the program")));
                }
                wish = self.signals.next() => match wish {
                    Wish::End => break,
                    Wish::Reload => {
                        process::notify(Notice::Reloading);
                        self.reload();
                        process::notify(Notice::Ready);
                    }
                    Wish::Report => self.report(),
                    Wish::LogAll => self.log_all(),
                },
            }
        }
        process::notify(Notice::Stopping);
        info!("ending");
        self.prober.stop().await;
        let authority = self.authority.clone();
        let data = self.data.clone();
        let _ = spawn_blocking(move || upkeep::write_stability(&authority, &data, clock())).await;
        Ok(())
    }

    async fn keep_house(&self) {
        let (authority, data) = (self.authority.clone(), self.data.clone());
        let _ = spawn_blocking(move || upkeep::keep(&authority, &data, clock())).await;
        let mut identity = lock(&self.identity);
        if descriptor::rotate(&mut identity, clock()) {
            self.links.renew(&identity);
            self.prober.set_relay_dialer(self.links.relay_dialer(&identity));
        }
    }

    /// Reads the configuration, the keys and the decisions about relays again, and puts in force what can change. An error
    /// changes nothing.
    fn reload(&mut self) {
        let mut loaded = self.start.sources.load::<Config>(&self.start.environment);
        loaded.findings.warnings.iter().for_each(|warning| warn!("{warning}"));
        loaded.findings.notes.iter().for_each(|note| info!("{note}"));
        let Some(new) = loaded.config.take().filter(|_| loaded.findings.problems.is_empty()) else {
            loaded.findings.problems.iter().for_each(|problem| error!("{problem}"));
            return error!("the configuration has errors; the one before stays in force");
        };
        let config = self.authority.config.load().reloaded(new);
        if let Err(failure) = self.put_in_force(&config) {
            return error!("the configuration cannot be put in force, the one before stays: {failure}");
        }
        info!("the configuration has been read again");
        for option in loaded.needs_restart(&self.start.loaded.settings) {
            warn!("{option} has changed; the change takes effect when the authority is restarted");
        }
        self.start.config = config;
    }

    fn put_in_force(&self, config: &Config) -> Result<(), DaemonError> {
        let keys = AuthorityKeys::load(&config.directories.keys, clock())?;
        let relay = self.authority.us.load().relay;
        keys.find_us(&config.authorities, &relay)?;
        let certificate = keys.certificate.clone();
        let approvals = approvals(config, &self.data)?;
        self.log.reconfigure(config.log.options(self.start.quiet))?;

        self.authority.us.store(Arc::new(Us { certificate, ..Us::clone(&self.authority.us.load()) }));
        self.authority.approvals.store(Arc::new(approvals.clone()));
        {
            let mut uploads = self.authority.directory.uploads();
            uploads.set_options(config.authority.admission.clone());
            uploads.set_approvals(approvals);
        }
        self.authority.press.add_certs(keys.certificate.text(), clock());
        let v3_idents = config.authorities.iter().filter_map(|authority| authority.v3_ident).collect();
        self.authority.session.set_settings(settings(config, &keys, v3_idents));
        self.authority.keys.store(Arc::new(keys));
        let front_page = upkeep::front_page(config);
        self.authority.directory.change(|documents| documents.served.front_page.clone_from(&front_page));
        self.authority.config.store(Arc::new(config.clone()));
        Ok(())
    }

    fn report(&self) {
        upkeep::report(&self.authority, &self.prober.standing());
    }

    /// Logs everything wherever anything is logged, until the configuration is read again.
    fn log_all(&self) {
        match self.log.reconfigure(self.authority.config.load().log.everything(self.start.quiet)) {
            Ok(()) => info!("everything is logged until the configuration is read again (SIGHUP)"),
            Err(failure) => warn!("the log cannot be changed: {failure}"),
        }
    }
}

fn settings(config: &Config, keys: &AuthorityKeys, authorities: Vec<Fingerprint>) -> Settings {
    Settings {
        rules: Rules {
            us: keys.signer.cert.identity,
            terms: Terms { authorities: authorities.len(), shared_random: None },
            authorities,
            doubles: config.doubles,
            compare: config.compare_votes,
            testing: config.authority.testing,
        },
        shared_randomness: config.authority.shared_randomness,
        schedule: Schedule {
            initial: config.authority.initial_timing,
            start_offset: config.authority.start_offset,
        },
        signer: keys.signer.clone(),
    }
}

/// What the administrator decided: in the torrc, and in the file beside the state.
fn approvals(config: &Config, data: &std::path::Path) -> Result<Approvals, FileError> {
    let path = data.join(APPROVED);
    let file = files::read(&path)?.unwrap_or_default();
    let (routers, damaged) = ApprovedRouters::read(&String::from_utf8_lossy(&file));
    for line in damaged {
        warn!("line {} of {} is left out, it names no relay: {}", line.line, path.display(), line.text);
    }
    let (addresses, strict) = (config.authority.addresses.clone(), config.authority.approved_only);
    Ok(Approvals { routers, addresses, strict })
}

fn own_addresses(config: &Config) -> Vec<IpAddr> {
    let v6 = config.address_v6.map(IpAddr::from);
    std::iter::once(config.address.into()).chain(v6).collect()
}

/// A task that must not end, with its name.
async fn ends(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

fn adopt(listener: std::net::TcpListener) -> Result<TcpListener, DaemonError> {
    TcpListener::from_std(listener).map_err(DaemonError::Runtime)
}

/// Until shortly after the next full second, which is when all that is due begins.
fn until_next_second() -> Duration {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Duration::from_millis(1005).saturating_sub(Duration::from_nanos(since.subsec_nanos().into()))
}
