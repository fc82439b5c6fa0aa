//! The configuration of an authority's program: from torrc options to typed values.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use onionring_node::keys::KeyOptions;
use onionring_proto::netdoc::text::Nickname;
use onionring_proto::policy::ExitPolicy;
use onionring_proto::torrc::authority::Authority;
use onionring_proto::torrc::log::LogLine;
use onionring_proto::torrc::port::ServerPort;

use crate::options::AuthorityOptions;
use crate::voting::DoublePolicy;

/// Everything that torrc says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Nickname.
    pub nickname: Nickname,
    /// The IPv4 address to publish: an authority's is known to everybody, so it must be given.
    pub address: Ipv4Addr,
    /// The IPv6 address to publish, if there is one.
    pub address_v6: Option<Ipv6Addr>,
    /// ORPorts: at least one listens.
    pub or_ports: Vec<ServerPort>,
    /// DirPorts: at least one listens.
    pub dir_ports: Vec<ServerPort>,
    /// Directories.
    pub directories: Directories,
    /// How the keys of the relay that an authority is are kept.
    pub keys: KeyOptions,
    /// What is logged where.
    pub log: LogConfig,
    /// The user to run as.
    pub user: Option<String>,
    /// Whether to keep the right to open ports below 1024 after the change of user.
    pub keep_bind_capabilities: bool,
    /// Where to write the number of the process.
    pub pid_file: Option<PathBuf>,
    /// The metrics endpoint.
    pub metrics: MetricsConfig,
    /// All authorities of the network, this one among them.
    pub authorities: Vec<Authority>,
    /// The file with the page for people who look at the DirPort.
    pub front_page: Option<PathBuf>,
    /// Time between heartbeats in the log; `None` for no heartbeat.
    pub heartbeat: Option<Duration>,
    /// How authorities vote and judge relays.
    pub authority: AuthorityOptions,
    /// What becomes of an authority that votes twice.
    pub doubles: DoublePolicy,
    /// Whether every authority is asked for all votes in each period, to compare them.
    pub compare_votes: bool,
    /// Whether relays are tested through circuits, besides links.
    pub test_circuits: bool,
}

/// Where things are kept.
#[derive(Clone, Debug)]
pub struct Directories {
    /// `DataDirectory`.
    pub data: PathBuf,
    /// Whether the group may read it.
    pub data_group_readable: bool,
    /// `KeyDirectory`; whether the group may read it is in [`Config::keys`].
    pub keys: PathBuf,
}

/// What is logged.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The `Log` lines; with none, the command line says what is printed.
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

/// The metrics endpoint.
#[derive(Clone, Debug)]
pub struct MetricsConfig {
    /// Where it listens; nowhere by default. Port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Who may connect; nobody by default.
    pub policy: ExitPolicy,
}
