//! The running proxy: from a configuration to streams, and to its end.
//!
//! [`parts`] are what the proxy consists of. Around them are here the change of user, the lock, the log, signals, reloads,
//! the control socket and the metrics port, whose figures `telemetry` puts together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onionring_node::docstore::StoreError;
use onionring_node::log::{Log, LogError};
use onionring_node::metrics::http::is_allowed;
use onionring_node::metrics::{self, Exporter, MetricsError, port as metrics_port};
use onionring_node::process::{self, Notice, PidFile};
use onionring_node::signals::{Signals, Wish};
use onionring_node::tls::TlsError;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::cli::{self, PrepareError, Start};
use crate::config::Config;
use crate::control::{Socket, Status};
use crate::directory::Fatal;
use crate::limits;
use crate::memory::MemoryError;
use crate::ports::BindError;

pub mod parts;
mod sockets;
mod sources;
mod telemetry;

use parts::Parts;
use sockets::Sockets;
use telemetry::Telemetry;

/// Why the proxy does not run, or stopped running.
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
    /// A port of applications.
    #[error(transparent)]
    Ports(#[from] BindError),
    /// What is remembered over restarts.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The directory on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network must not be used any more.
    #[error(transparent)]
    Directory(#[from] Fatal),
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
            | DaemonError::Memory(_)
            | DaemonError::Store(_) => cli::BAD_STATE,
            DaemonError::Metrics(_)
            | DaemonError::Tls(_)
            | DaemonError::Bind { .. }
            | DaemonError::Ports(_)
            | DaemonError::Directory(_)
            | DaemonError::Runtime(_)
            | DaemonError::Ended(_)
            | DaemonError::Signals(_) => cli::FAILED,
        }
    }
}

/// Runs the proxy until it is told to end.
pub fn run(start: Start) -> Result<(), DaemonError> {
    process::raise_open_files();
    // For ports below 1024.
    let sockets = Sockets::bind(&start.config)?;
    cli::become_user(&start.config)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(start.config.threads);
    let runtime = builder.enable_all().build().map_err(DaemonError::Runtime)?;
    let signals = runtime.block_on(async { Signals::install() }).map_err(DaemonError::Signals)?;
    let _lock = cli::take_directories(&start.config)?;
    // Before the first message, as messages are counted.
    let exporter = metrics::install("onionring-proxy", env!("CARGO_PKG_VERSION"))?;
    let log = onionring_node::log::install(start.config.log.options(start.quiet))?;
    std::panic::set_hook(Box::new(|fault| error!("a fault of this program, please report it: {fault}")));
    info!("onionring-proxy {} starts", env!("CARGO_PKG_VERSION"));
    let _pid_file = start.config.pid_file.as_deref().map(PidFile::create).transpose();
    let _pid_file = _pid_file.map_err(PrepareError::from)?;
    let outcome =
        runtime.block_on(async { Daemon::start(start, log, exporter, sockets, signals).await?.run().await });
    // Work under way writes whole files or none.
    runtime.shutdown_timeout(limits::SHUTDOWN);
    outcome
}

/// How often it is looked what is due.
const TICK: Duration = Duration::from_secs(1);
/// How often the house is kept.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// The program.
struct Daemon {
    parts: Arc<Parts>,
    start: Start,
    log: Log,
    exporter: Exporter,
    signals: Signals,
    /// What runs for as long as the program does.
    tasks: JoinSet<&'static str>,
}

impl Daemon {
    async fn start(
        start: Start,
        log: Log,
        exporter: Exporter,
        sockets: Sockets,
        signals: Signals,
    ) -> Result<Daemon, DaemonError> {
        let mut tasks = JoinSet::new();
        let data = start.config.directories.data.clone();
        let Sockets { applications, metrics } = sockets;
        let ports = sockets::named("MetricsPort", &metrics);
        let parts = Arc::new(Parts::start(start.config.clone(), applications, ports, &mut tasks)?);
        match Socket::bind(&data) {
            Ok(socket) => drop(tasks.spawn(serve_control(socket, parts.clone()))),
            Err(error) => warn!(
                "commands such as `onionring-proxy check` will not reach this proxy: cannot listen on {}: {error}; a \
                 data directory with a shorter name may help",
                crate::control::path(&data).display()
            ),
        }
        let pages = Arc::new(Telemetry { exporter: exporter.clone(), parts: parts.clone() });
        for listener in metrics {
            let policed = parts.clone();
            let allows = move |peer| is_allowed(&policed.config().metrics.policy, peer);
            let listener = TcpListener::from_std(listener).map_err(DaemonError::Runtime)?;
            tokio::spawn(metrics_port::serve(listener, allows, pages.clone()));
        }
        Ok(Daemon { parts, start, log, exporter, signals, tasks })
    }

    /// Does what is due, every second, until a signal ends it.
    async fn run(mut self) -> Result<(), DaemonError> {
        process::notify(Notice::Ready);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut housekeeping, mut beat, mut alive) = (Instant::now(), Instant::now(), Instant::now());
        let watchdog = process::watchdog_interval();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if housekeeping.elapsed() >= HOUSEKEEPING {
                        housekeeping = Instant::now();
                        self.exporter.upkeep();
                        self.parts.keep_house().await;
                    }
                    let heartbeat = self.parts.config().heartbeat;
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
                fatal = self.parts.ended() => return Err(fatal.into()),
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
        self.parts.stop().await;
        Ok(())
    }

    /// Reads the configuration again, and puts in force what can change. An error changes nothing.
    fn reload(&mut self) {
        let mut loaded = self.start.sources.load::<Config>(&self.start.environment);
        loaded.findings.warnings.iter().for_each(|warning| warn!("{warning}"));
        loaded.findings.notes.iter().for_each(|note| info!("{note}"));
        let Some(new) = loaded.config.take().filter(|_| loaded.findings.problems.is_empty()) else {
            loaded.findings.problems.iter().for_each(|problem| error!("{problem}"));
            return error!("the configuration has errors; the one before stays in force");
        };
        let config = self.parts.config().reloaded(new);
        if let Err(failure) = self.log.reconfigure(config.log.options(self.start.quiet)) {
            return error!("the configuration cannot be put in force, the one before stays: {failure}");
        }
        self.parts.reload(config);
        info!("the configuration has been read again");
        for option in loaded.needs_restart(&self.start.loaded.settings) {
            warn!("{option} has changed; the change takes effect when the proxy is restarted");
        }
    }

    /// Says in the log how things are.
    fn report(&self) {
        let (report, tallies) = (self.parts.report(), self.parts.tallies());
        let state = match report.is_ready() {
            true => "ready".to_owned(),
            false => format!("not ready: {} ({} %)", report.phase.label(), report.percent),
        };
        let streams = &tallies.streams;
        info!(
            "Heartbeat: {state}; {} circuits and {} streams are open; since the start {} circuits were built and {} were \
             not, {} streams opened and {} refused, {} bytes read and {} written",
            report.circuits,
            report.streams,
            tallies.circuits.built.get(),
            tallies.circuits.failed.sum(),
            streams.opened.get(),
            streams.refused.sum(),
            streams.read_bytes.get(),
            streams.written_bytes.get()
        );
    }

    /// Logs everything wherever anything is logged, until the configuration is read again.
    fn log_all(&self) {
        match self.log.reconfigure(self.parts.config().log.everything(self.start.quiet)) {
            Ok(()) => info!("everything is logged until the configuration is read again (SIGHUP)"),
            Err(failure) => warn!("the log cannot be changed: {failure}"),
        }
    }
}

/// Answers commands for ever; where that fails, the proxy goes on without.
async fn serve_control(socket: Socket, parts: Arc<Parts>) -> &'static str {
    match socket.serve(parts).await {
        Ok(never) => match never {},
        Err(failure) => {
            warn!("commands such as `onionring-proxy check` do not reach this proxy any more: {failure}");
            std::future::pending().await
        }
    }
}
