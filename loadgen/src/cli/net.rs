//! `onionring-loadgen net`.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, thread};

use clap::{Args, Subcommand, ValueEnum};
use rustix::process::{Pid, Signal, kill_process};

use super::ui::{self, Interrupt};
use super::{CliError, enter_netns};
use crate::net::process::{self, describe};
use crate::net::{Groups, Network, NetworkInfo, NetworkSpec, Role, list};

/// How often the foreground looks at signals and nodes.
const POLL: Duration = Duration::from_millis(100);
/// How long `net down` waits for a network to be gone.
const DOWN_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Boot a network; it stays up until Ctrl-C or `net down`
    Up(Box<Up>),
    /// Show the networks that are up
    Status(Status),
    /// End networks
    Down(Down),
}

impl Command {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Command::Up(up) => up.run(),
            Command::Status(status) => status.run(),
            Command::Down(down) => down.run(),
        }
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Text,
    Json,
}

/// GROUPS are `kind:count` with commas between; a kind is `onionring` (the programs of this build), `tor` (the
/// installed one) or what --kind defines.
#[derive(Debug, Args)]
pub(super) struct Up {
    /// Directory authorities; fewer than three cannot vote on bandwidths, and clients then choose relays unevenly
    #[arg(long, value_name = "GROUPS", default_value = "tor:3")]
    authorities: Groups,
    /// Relays that refuse exit streams
    #[arg(long, value_name = "GROUPS", default_value = "onionring:2")]
    relays: Groups,
    /// Relays that exit to anywhere
    #[arg(long, value_name = "GROUPS", default_value = "onionring:1")]
    exits: Groups,
    /// Clients, each with a SOCKS port
    #[arg(long, value_name = "GROUPS", default_value = "tor:1")]
    client: Groups,
    #[command(flatten)]
    common: Common,
    /// Name for `net status` and `net down` [default: after its addresses]
    #[arg(long)]
    name: Option<String>,
    /// Leave keys and logs behind when the network ends
    #[arg(long)]
    keep: bool,
    /// Put the network into a network namespace, on 198.18.0.0/15, for peers that refuse loopback addresses
    #[arg(long)]
    netns: bool,
    /// Write the network's JSON to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How the network is printed once it is up
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// What `net up`, `demo` and `bench` share.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Define a kind, or another program for `tor` or `onionring`; may be repeated. ONIONRING_DIRAUTH, ONIONRING_RELAY
    /// and ONIONRING_PROXY in the environment name other programs for `onionring`, one role each
    #[arg(long = "kind", value_name = "NAME=PATH")]
    kinds: Vec<String>,
    /// Shards (NumCPUs) of each onionring relay [default: its own]
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// A torrc line for every node, in place of the network's own; may be repeated
    #[arg(long, value_name = "LINE")]
    torrc: Vec<String>,
    /// Seconds between consensuses, at least 10
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    voting_interval: u32,
    /// Seconds that booting may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

impl Common {
    pub(super) fn apply(&self, spec: NetworkSpec) -> Result<NetworkSpec, CliError> {
        let mut spec = self.kinds.iter().try_fold(spec, |spec, kind| spec.program_from(kind))?;
        spec = self.torrc.iter().fold(spec, |spec, line| spec.torrc(line));
        if let Some(count) = self.shards {
            spec = spec.shards(count);
        }
        Ok(spec.voting_interval(self.voting_interval).boot_timeout(Duration::from_secs(self.timeout)))
    }
}

impl Up {
    fn run(self) -> Result<(), CliError> {
        enter_netns(self.netns)?;
        let interrupt = Interrupt::watch()?;
        let spec = NetworkSpec::new()
            .add_groups(Role::Authority, &self.authorities)
            .add_groups(Role::Relay, &self.relays)
            .add_groups(Role::Exit, &self.exits)
            .add_groups(Role::Client, &self.client)
            .keep(self.keep);
        let spec = self.name.iter().fold(self.common.apply(spec)?, |spec, name| spec.named(name));
        let network = ui::boot(spec, &interrupt)?;
        let info = network.info();
        if let Some(file) = &self.json {
            fs::write(file, to_json(&info)?)?;
        }
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{}", to_json(&info)?)?,
            Output::Text => print(&mut out, &info)?,
        }
        drop(out);
        stay(&network, &interrupt)?;
        if self.keep {
            eprintln!("kept {}", info.directory.display());
        }
        Ok(())
    }
}

/// Waits for the user's sign, and reports nodes that end by themselves.
fn stay(network: &Network, interrupt: &Interrupt) -> Result<(), CliError> {
    let mut ended = BTreeSet::new();
    while !interrupt.asked() {
        for node in network.nodes() {
            if let (Some(status), true) = (node.exited()?, !ended.contains(node.nickname())) {
                ended.insert(node.nickname());
                let (name, status) = (node.nickname(), describe(status));
                eprintln!("{name} ended with {status}; its log ends with:\n{}", node.log_tail());
            }
        }
        thread::sleep(POLL);
    }
    Ok(())
}

fn to_json(info: &NetworkInfo) -> Result<String, CliError> {
    Ok(serde_json::to_string_pretty(info).map_err(io::Error::from)?)
}

/// The network as a table, one node a line.
fn print(out: &mut impl Write, info: &NetworkInfo) -> io::Result<()> {
    writeln!(
        out,
        "network {}: up after {:.1} s, owned by process {}",
        info.name, info.boot_seconds, info.owner_pid
    )?;
    writeln!(out, "  files    {}", info.directory.display())?;
    writeln!(out, "  server   http://{} (sink.test at the exits)", info.server)?;
    if info.netns {
        writeln!(out, "  enter    nsenter --net --target {}", info.owner_pid)?;
    }
    writeln!(out, "  {:<13} {:<10} {:>8}  {:<22} FINGERPRINT, METRICS", "NODE", "KIND", "PID", "ADDRESS")?;
    for node in &info.nodes {
        let pid = node.pid.map_or_else(|| "ended".to_owned(), |pid| pid.to_string());
        let address = node.or.or(node.socks).map_or_else(String::new, |a| a.to_string());
        let metrics = node.metrics.as_deref().unwrap_or_default();
        let (nickname, kind) = (&node.nickname, node.kind.to_string());
        writeln!(out, "  {nickname:<13} {kind:<10} {pid:>8}  {address:<22} {} {metrics}", node.fingerprint)?;
    }
    for client in info.nodes.iter().filter_map(|node| node.socks) {
        let url = format!("http://sink.test:{}/1048576", info.server.port());
        writeln!(out, "  try: curl -x socks5h://{client} {url} | sha256sum")?;
    }
    out.flush()
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Only this network
    name: Option<String>,
    /// How networks are printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

impl Status {
    fn run(self) -> Result<(), CliError> {
        let networks = find(self.name.as_deref())?;
        let mut out = io::stdout().lock();
        if self.output == Output::Json {
            let infos: Vec<NetworkInfo> = networks.into_iter().filter_map(|(_, info)| info).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&infos).map_err(io::Error::from)?)?;
            return Ok(());
        }
        for (name, info) in networks {
            match info {
                Some(mut info) => {
                    info.nodes
                        .iter_mut()
                        .for_each(|node| node.pid = node.pid.filter(|pid| process::lives(*pid)));
                    print(&mut out, &info)?;
                }
                None => writeln!(out, "network {name}: booting")?,
            }
        }
        Ok(())
    }
}

/// The networks that are up, or the one called `name`.
fn find(name: Option<&str>) -> Result<Vec<(String, Option<NetworkInfo>)>, CliError> {
    let mut networks = list()?;
    if let Some(wanted) = name {
        networks.retain(|(name, _)| name == wanted);
        if networks.is_empty() {
            return Err(CliError::NoNetwork(format!("no network is called {wanted}; see `net status`")));
        }
    }
    if networks.is_empty() {
        return Err(CliError::NoNetwork("no network is up".to_owned()));
    }
    Ok(networks)
}

#[derive(Debug, Args)]
pub(super) struct Down {
    /// Which network, if there are several
    name: Option<String>,
    /// All of this user's networks, tests' own included
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl Down {
    fn run(self) -> Result<(), CliError> {
        let networks = find(self.name.as_deref())?;
        let names: Vec<&str> = networks.iter().map(|(name, _)| name.as_str()).collect();
        if networks.len() > 1 && !self.all {
            let message = format!("several networks are up: {}; name one, or say --all", names.join(", "));
            return Err(CliError::NoNetwork(message));
        }
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        for (name, info) in networks {
            let owner = info.and_then(|info| Pid::from_raw(info.owner_pid.cast_signed()));
            let owner = owner.ok_or_else(|| CliError::NoNetwork(format!("{name} is still booting")))?;
            // An owner that has just ended is what is wanted.
            match kill_process(owner, Signal::TERM) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(e) => return Err(CliError::Io(e.into())),
            }
        }
        let deadline = Instant::now() + DOWN_PATIENCE;
        loop {
            let left: Vec<String> =
                list()?.into_iter().map(|(name, _)| name).filter(|n| names.contains(n)).collect();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let message = format!("{} did not end within {DOWN_PATIENCE:?}", left.join(", "));
                return Err(CliError::Io(io::Error::new(io::ErrorKind::TimedOut, message)));
            }
            thread::sleep(POLL);
        }
    }
}
