//! Configurations: what all programs make of a torrc in the same way.
//!
//! [`Sources`] are where one comes from (files and command line, kept for a reload), a program's [`Configuration`] is
//! what it says. Nothing here acts; what a configuration needs to know of the system comes in as [`Environment`].

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use onionring_proto::policy::ExitPolicy;
use onionring_proto::torrc::Settings;
use onionring_proto::torrc::authority::Authority;
use onionring_proto::torrc::log::{LogLine, Severity, Target};
use onionring_proto::torrc::port::ServerPort;

use crate::cli::Quiet;
use crate::log::LogOptions;

pub mod classes;
mod reader;
mod reload;
pub mod shared;
mod sources;

pub use classes::{Class, Classes, Group};
pub use reader::Reader;
pub use sources::{Findings, Loaded, Sources, Torrc};

#[cfg(test)]
mod tests;

/// The typed configuration of a program.
pub trait Configuration: Sized {
    /// What the program makes of each option.
    const CLASSES: Classes;

    /// Builds the configuration. If there are problems in `findings` afterwards, it must not be used.
    fn new(settings: &Settings, environment: &Environment, findings: &mut Findings) -> Self;

    /// The authorities of the consensus; may be empty only where no network is needed.
    fn authorities(&self) -> &[Authority];
}

/// What the configuration needs to know of the system.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The home directory of the user the program runs as, for `~`.
    pub home: Option<PathBuf>,
    /// Memory of the machine in bytes.
    pub memory: Option<u64>,
}

/// Where things are kept.
#[derive(Clone, Debug)]
pub struct Directories {
    /// `DataDirectory`.
    pub data: PathBuf,
    /// Whether the group may read it.
    pub data_group_readable: bool,
    /// `CacheDirectory`.
    pub cache: PathBuf,
    /// Whether the group may read it.
    pub cache_group_readable: bool,
    /// `KeyDirectory`; whether the group may read it is in the options of keys.
    pub keys: PathBuf,
}

/// What is logged.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The `Log` lines, with `~` expanded in the names of files; with none, the command line says what is printed.
    pub lines: Vec<LogLine>,
    /// `LogTimeGranularity`.
    pub granularity: Duration,
    /// `LogMessageDomains`.
    pub domains: bool,
    /// `TruncateLogFile`.
    pub truncate: bool,
    /// `SyslogIdentityTag`.
    pub syslog_tag: Option<String>,
    /// `SafeLogging`.
    pub safe: bool,
}

impl LogConfig {
    /// How to log. Without a `Log` line it goes to standard output, as much as the command line says.
    pub fn options(&self, quiet: Quiet) -> LogOptions {
        let mut lines = self.lines.clone();
        if lines.is_empty() {
            let severity = match quiet {
                Quiet::No => Severity::Notice,
                Quiet::Hush => Severity::Warn,
                Quiet::Quiet => Severity::Err,
            };
            lines.push(LogLine::down_to(severity, Target::Stdout));
        }
        LogOptions {
            lines,
            granularity: self.granularity,
            domains: self.domains,
            truncate: self.truncate,
            syslog_identity: match &self.syslog_tag {
                Some(tag) => format!("onionring-{tag}"),
                None => "onionring".to_owned(),
            },
            safe: self.safe,
        }
    }

    /// The same with everything logged wherever anything is (SIGUSR2).
    pub fn everything(&self, quiet: Quiet) -> LogOptions {
        let mut options = self.options(quiet);
        for line in &mut options.lines {
            *line = LogLine::down_to(Severity::Debug, line.target.clone());
        }
        options
    }
}

/// The metrics endpoint.
#[derive(Clone, Debug)]
pub struct MetricsConfig {
    /// Where it listens; nowhere by default. Port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Who may connect; nobody by default. Ports in it mean nothing.
    pub policy: ExitPolicy,
}

/// The first advertised port of a family, one with an address of its own before others, as C tor chooses.
pub fn advertised(ports: &[ServerPort], of_family: impl Fn(&IpAddr) -> bool) -> Option<&ServerPort> {
    let mut candidates = ports.iter().filter(|port| port.advertise && of_family(&port.address));
    candidates.clone().find(|port| port.is_explicit).or_else(|| candidates.next())
}

/// Whether one of the ports that are listened on is below 1024, for which a program needs a right.
pub fn has_low_ports(ports: &[&[ServerPort]], metrics: &MetricsConfig) -> bool {
    let server = ports.iter().copied().flatten().filter(|port| port.listen);
    let metrics = metrics.listen.iter().map(SocketAddr::port);
    server.map(|port| port.port.to_bind()).chain(metrics).any(|port| (1..1024).contains(&port))
}

/// A path of the configuration with `~` for the home directory.
fn expand_home(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix('~').map(|rest| rest.strip_prefix('/')), home) {
        (Some(Some(rest)), Some(home)) => home.join(rest),
        (Some(None), Some(home)) if path == "~" => home.to_owned(),
        _ => PathBuf::from(path),
    }
}
