//! The configuration of the proxy's program: from torrc options to typed values.
//!
//! What it has in common with other programs' is in [`onionring_node::config`]; what is a client's own, in [`client`].

use std::path::PathBuf;
use std::time::Duration;

use onionring_node::config::{Classes, Configuration, Reader};
use onionring_proto::torrc::Settings;
use onionring_proto::torrc::authority::Authority;

use crate::ports;

pub mod classes;
pub mod client;

pub use client::{CircuitOptions, DirectoryOptions, GuardOptions, PathOptions};
pub use onionring_node::config::{
    Directories, Environment, Findings, LogConfig, MetricsConfig, Sources, Torrc,
};

#[cfg(test)]
mod tests;

/// Everything that torrc says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The ports of applications, and what may be asked for there.
    pub ports: ports::Config,
    /// Which relays are on paths, and which of their addresses are dialed.
    pub paths: PathOptions,
    /// Entry guards.
    pub guards: GuardOptions,
    /// Circuits and the streams on them.
    pub circuits: CircuitOptions,
    /// How the directory is fetched.
    pub directory: DirectoryOptions,
    /// All authorities of the network.
    pub authorities: Vec<Authority>,
    /// Whether this is a testing network (`TestingTorNetwork`).
    pub testing: bool,
    /// Directories.
    pub directories: Directories,
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
    /// Time between heartbeats in the log; `None` for no heartbeat.
    pub heartbeat: Option<Duration>,
    /// Threads that carry traffic, at least one (`NumCPUs`).
    pub threads: usize,
}

impl Configuration for Config {
    const CLASSES: Classes = classes::CLASSES;

    fn new(settings: &Settings, environment: &Environment, findings: &mut Findings) -> Config {
        let read = &mut Reader { settings, environment, findings };
        let metrics = read.metrics();
        let ports = read_ports(read);
        let listen = metrics.listen.iter().copied().chain(ports.addresses());
        let low_ports = listen.map(|address| address.port()).any(|port| (1..1024).contains(&port));
        Config {
            ports,
            paths: PathOptions::new(read),
            guards: GuardOptions::new(read),
            circuits: CircuitOptions::new(read),
            directory: DirectoryOptions::new(read),
            authorities: read.authorities(),
            testing: settings.is_testing(),
            directories: read.directories(),
            log: read.log(),
            user: settings.text("User").map(str::to_owned),
            keep_bind_capabilities: settings.auto_flag("KeepBindCapabilities").unwrap_or(low_ports),
            pid_file: read.path("PidFile"),
            metrics,
            heartbeat: read.heartbeat(),
            threads: usize::try_from(settings.integer("NumCPUs")).unwrap_or_default().max(1),
        }
    }

    fn authorities(&self) -> &[Authority] {
        &self.authorities
    }
}

impl Config {
    /// `new`, with everything in it that cannot change in a running proxy as it is here; [`classes::CLASSES`] names the
    /// options.
    pub fn reloaded(&self, new: Config) -> Config {
        let old = self.clone();
        Config {
            ports: ports::Config { rules: new.ports.rules, ..old.ports },
            directory: old.directory,
            guards: GuardOptions { enabled: old.guards.enabled, ..new.guards },
            paths: PathOptions {
                use_ipv4: old.paths.use_ipv4,
                use_ipv6: old.paths.use_ipv6,
                prefer_ipv6: old.paths.prefer_ipv6,
                ..new.paths
            },
            authorities: old.authorities,
            testing: old.testing,
            directories: old.directories,
            user: old.user,
            keep_bind_capabilities: old.keep_bind_capabilities,
            pid_file: old.pid_file,
            metrics: MetricsConfig { listen: old.metrics.listen, policy: new.metrics.policy },
            threads: old.threads,
            ..new
        }
    }
}

fn read_ports(read: &mut Reader<'_>) -> ports::Config {
    let Findings { problems, warnings, .. } = &mut *read.findings;
    let config = ports::Config::read(read.settings, problems, warnings);
    if read.settings.item("TransProxyType").is_some() && read.settings.lines("TransPort").is_empty() {
        read.wrong("TransProxyType", "there is no TransPort", "add one, or remove it");
    }
    config
}
