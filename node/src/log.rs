//! Logs as C tor writes them: the `Log` lines of torrc say which severities and domains go where.
//!
//! Code logs with `tracing`. Its five levels are C tor's five severities: `error!` is err, `warn!` is warn, `info!` is
//! **notice** (what an operator reads), `debug!` is info and `trace!` is debug. An event's `target`, if it is one of C
//! tor's domains (`target: "net"`), is its domain; any other is general. One event is one line, in UTC:
//!
//! ```text
//! Nov 22 10:53:51.000 [notice] Opened OR listener on 127.0.0.1:9001 shard=0
//! ```
//!
//! Addresses of peers and clients and names that clients asked for go through [`safe()`] and are told at debug only.
//! Nothing is logged per cell, and what a peer can repeat goes through a [`RateLimit`].

mod format;
mod limit;
mod safe;
mod sink;

#[cfg(test)]
mod tests;

pub use limit::{RateLimit, Suppressed};
pub use safe::{Safe, safe};

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use onionring_proto::torrc::log::{LogLine, Severity};
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use sink::Sink;

/// How messages are logged.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The `Log` lines.
    pub lines: Vec<LogLine>,
    /// `LogTimeGranularity`.
    pub granularity: Duration,
    /// `LogMessageDomains`: write the domain before the message.
    pub domains: bool,
    /// `TruncateLogFile`: empty files instead of appending to them.
    pub truncate: bool,
    /// How the program names itself to the system log, `SyslogIdentityTag` included.
    pub syslog_identity: String,
    /// `SafeLogging`: replace what could identify somebody.
    pub safe: bool,
}

impl LogOptions {
    /// C tor's defaults with these lines.
    pub fn new(lines: Vec<LogLine>) -> Self {
        LogOptions {
            lines,
            granularity: Duration::from_secs(1),
            domains: false,
            truncate: false,
            syslog_identity: "onionring".to_owned(),
            safe: true,
        }
    }
}

/// Why messages cannot be logged as configured.
#[derive(Debug, Error)]
pub enum LogError {
    /// A file cannot be opened.
    #[error(
        "cannot write the log file {}: {source}; make its directory writable for this user, or change the Log line", path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The system log cannot be reached.
    #[error("cannot reach the system log at /dev/log: {0}; start it, or log to a file")]
    Syslog(std::io::Error),
    /// [`install`] was called twice.
    #[error("logging is already set up")]
    AlreadyInstalled,
}

/// The program's log, to change its configuration and to reopen its files.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    /// The last level that any line logs, as a number of [`Severity::ALL`], for a quick no.
    lowest: AtomicU8,
    output: RwLock<Output>,
}

struct Output {
    options: LogOptions,
    sinks: Vec<Sink>,
}

/// Starts to log; to be called once.
pub fn install(options: LogOptions) -> Result<Log, LogError> {
    let log = Log::open(options)?;
    let subscriber = tracing_subscriber::registry().with(Logger(Arc::clone(&log.0)));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadyInstalled)?;
    Ok(log)
}

impl Log {
    fn open(options: LogOptions) -> Result<Self, LogError> {
        let output = Output::open(options)?;
        let lowest = AtomicU8::new(output.lowest());
        Ok(Log(Arc::new(Shared { lowest, output: RwLock::new(output) })))
    }

    /// Logs as `options` say from now on. Files are opened anew, so this is also what follows a rotation of logs
    /// (SIGHUP). On an error everything stays as it was.
    pub fn reconfigure(&self, options: LogOptions) -> Result<(), LogError> {
        let output = Output::open(options)?;
        self.0.lowest.store(output.lowest(), Ordering::Relaxed);
        *self.0.output.write().unwrap_or_else(PoisonError::into_inner) = output;
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }
}

impl Output {
    fn open(options: LogOptions) -> Result<Self, LogError> {
        let sinks = options.lines.iter().map(|line| Sink::open(line, &options)).collect::<Result<_, _>>()?;
        safe::set(options.safe);
        Ok(Output { options, sinks })
    }

    fn lowest(&self) -> u8 {
        self.options.lines.iter().map(|line| line.lowest() as u8).max().unwrap_or(0)
    }
}

/// The layer under `tracing`.
struct Logger(Arc<Shared>);

impl Shared {
    fn might_log(&self, level: &Level) -> bool {
        severity(level) as u8 <= self.lowest.load(Ordering::Relaxed)
    }
}

impl<S: Subscriber> Layer<S> for Logger {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // Libraries have their own idea of what is worth reading; of theirs, only what is wrong.
        let ours = !metadata.target().contains("::") || metadata.target().starts_with("onionring");
        self.0.might_log(metadata.level()) && (ours || *metadata.level() <= Level::WARN)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let lowest = Severity::ALL[usize::from(self.0.lowest.load(Ordering::Relaxed))];
        Some(LevelFilter::from_level(match lowest {
            Severity::Err => Level::ERROR,
            Severity::Warn => Level::WARN,
            Severity::Notice => Level::INFO,
            Severity::Info => Level::DEBUG,
            Severity::Debug => Level::TRACE,
        }))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let severity = severity(event.metadata().level());
        let domain = domain(event.metadata().target());
        if severity <= Severity::Notice {
            crate::metrics::table::LOG_EVENTS.counter(&[("severity", format::name(severity))]).increment(1);
        }
        let output = self.0.output.read().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = output.sinks.iter().filter(|sink| sink.wants(severity, domain)).peekable();
        if wanted.peek().is_none() {
            return;
        }
        let message = format::message(event, output.options.domains.then_some(domain));
        let line = format::line(SystemTime::now(), output.options.granularity, severity, &message);
        wanted.for_each(|sink| sink.write(severity, &message, &line));
    }
}

fn severity(level: &Level) -> Severity {
    match *level {
        Level::ERROR => Severity::Err,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Notice,
        Level::DEBUG => Severity::Info,
        Level::TRACE => Severity::Debug,
    }
}

/// The domain of an event: its target, unless that is the module it was left to be.
fn domain(target: &str) -> &str {
    if target.contains("::") || target.starts_with("onionring") { "general" } else { target }
}
