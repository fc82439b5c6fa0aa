//! `onionring-loadgen bench proxy` and `bench bootstrap`: clients in turn.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use onionring_proto::time::Unix;
use serde::Serialize;

use super::net::Common;
use super::ui::{self, Interrupt, byte_bar, cpu_seconds_per_gib};
use super::{CliError, enter_netns};
use crate::authority::{self, AuthorityError, Bootstrap, Client, Settings, bootstrap};
use crate::net::{Kind, Network, NetworkSpec, NodeSpec, Role};
use crate::synthetic::{Directory, Size};
use crate::traffic::{Order, parallel};

const MIB: f64 = 1_048_576.0;
/// The clients, and what stands for them in results.
const CLIENTS: [&str; 2] = ["subject", "baseline"];
/// The relays of all paths: so that both clients use the same.
const PATH: [&str; 3] = ["guard", "middle", "exit"];
/// Bytes of the requests whose first byte counts.
const SMALL: u64 = 1000;

/// One network of onionring relays, two clients that use the same path. The same bytes go through each in turn (A B A B), so
/// that what else the machine does falls on both.
#[derive(Debug, Args)]
pub(super) struct Carry {
    /// What is measured
    #[arg(long, value_name = "KIND", default_value = "onionring")]
    subject: String,
    /// What it is compared with
    #[arg(long, value_name = "KIND", default_value = "tor")]
    baseline: String,
    /// MiB per round, client and direction
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    size: u64,
    /// Streams side by side
    #[arg(long, value_name = "N", default_value_t = 4)]
    streams: usize,
    /// Small requests per round and client, one after the other, each on a stream of its own
    #[arg(long, value_name = "N", default_value_t = 50)]
    requests: usize,
    /// Rounds of each
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Write the results to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// One round of one client.
#[derive(Debug, Serialize)]
struct Round {
    client: &'static str,
    kind: String,
    down: Direction,
    up: Direction,
    /// Of the small requests, in milliseconds.
    first_byte_ms_median: f64,
    rss_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Direction {
    bytes: u64,
    seconds: f64,
    cpu_seconds: f64,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    benchmark: &'static str,
    rounds: Vec<Round>,
    /// Subject over baseline, of all rounds: below 1, the subject needs less.
    ratio_down: f64,
    ratio_up: f64,
    ratio_first_byte: f64,
}

impl Carry {
    pub(super) fn run(self) -> Result<(), CliError> {
        let interrupt = Interrupt::watch()?;
        let [guard, middle, exit] = PATH;
        let client = |kind: &str, name| {
            NodeSpec::new(Role::Client, Kind::new(kind.to_owned())).named(name).pinned(guard, middle, exit)
        };
        let relay = |role, name| NodeSpec::new(role, Kind::ONIONRING).named(name);
        let spec = NetworkSpec::new()
            .add(Role::Authority, Kind::ONIONRING, 3)
            .node(relay(Role::Relay, guard))
            .node(relay(Role::Relay, middle))
            .node(relay(Role::Exit, exit))
            .node(client(&self.subject, CLIENTS[0]))
            .node(client(&self.baseline, CLIENTS[1]));
        let network = ui::boot(self.common.apply(spec)?, &interrupt)?;
        println!(
            "{:<10} {:>10} {:>10} {:>10} {:>10} {:>12}",
            "CLIENT", "down MiB/s", "CPU s/GiB", "up MiB/s", "CPU s/GiB", "1st byte ms"
        );
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            for client in CLIENTS {
                let round = self.round(&network, client, &interrupt)?;
                let rate = |way: &Direction| way.bytes as f64 / MIB / way.seconds;
                let cpu = |way: &Direction| cpu_seconds_per_gib(way.cpu_seconds, way.bytes);
                println!(
                    "{:<10} {:>10.1} {:>10.2} {:>10.1} {:>10.2} {:>12.2}",
                    round.kind,
                    rate(&round.down),
                    cpu(&round.down),
                    rate(&round.up),
                    cpu(&round.up),
                    round.first_byte_ms_median
                );
                rounds.push(round);
            }
        }
        let sum = |client: &str, of: fn(&Round) -> f64| -> f64 {
            rounds.iter().filter(|round| round.client == client).map(of).sum()
        };
        let ratio = |of| sum(CLIENTS[0], of) / sum(CLIENTS[1], of);
        let report = Report {
            benchmark: "proxy",
            ratio_down: ratio(|round| round.down.cpu_seconds),
            ratio_up: ratio(|round| round.up.cpu_seconds),
            ratio_first_byte: ratio(|round| round.first_byte_ms_median),
            rounds,
        };
        println!(
            "{} over {}: CPU time down {:.2}, up {:.2}; time to the first byte {:.2}",
            self.subject, self.baseline, report.ratio_down, report.ratio_up, report.ratio_first_byte
        );
        write(self.json.as_ref(), &report)
    }

    fn round(
        &self,
        network: &Network,
        client: &'static str,
        interrupt: &Interrupt,
    ) -> Result<Round, CliError> {
        let node = network.node(client);
        let socks = node.socks()?;
        let down = self.transfer(network, client, interrupt, false)?;
        let up = self.transfer(network, client, interrupt, true)?;
        let mut times = Vec::new();
        for n in 0..self.requests.max(1) {
            interrupt.check()?;
            let order = Order { socks: &socks, target: network.target(), bytes: SMALL, seed: n as u64 };
            times.push(order.download(&mut |_| Ok(()))?.time_to_first_byte);
        }
        times.sort_unstable();
        Ok(Round {
            client,
            kind: node.kind().to_string(),
            down,
            up,
            first_byte_ms_median: times[times.len() / 2].as_secs_f64() * 1e3,
            rss_bytes: node.usage()?.rss_bytes,
        })
    }

    fn transfer(
        &self,
        network: &Network,
        client: &str,
        interrupt: &Interrupt,
        is_up: bool,
    ) -> Result<Direction, CliError> {
        let node = network.node(client);
        let socks = node.socks()?;
        let each = (self.size << 20) / self.streams.max(1) as u64;
        let bar = byte_bar("transfer", each * self.streams as u64);
        let (before, started) = (node.usage()?, Instant::now());
        let transfers = parallel(self.streams, |n| {
            let order = Order { socks: &socks, target: network.target(), bytes: each, seed: n as u64 };
            let mut seen = 0;
            let mut moved = |moved| {
                bar.inc(moved - seen);
                seen = moved;
                interrupt.check_io()
            };
            if is_up { order.upload(&mut moved) } else { order.download(&mut moved) }
        });
        let (after, seconds) = (node.usage()?, started.elapsed().as_secs_f64());
        bar.finish_and_clear();
        interrupt.check()?;
        let bytes = transfers?.iter().map(|transfer| transfer.bytes).sum();
        Ok(Direction { bytes, seconds, cpu_seconds: after.cpu_seconds - before.cpu_seconds })
    }
}

/// An authority publishes a network that exists on paper only. Clients learn it by turns, each time from nothing and then
/// from what they have kept. Runs in a network namespace: the relays on paper have public addresses, which nobody must
/// connect to.
#[derive(Debug, Args)]
pub(super) struct Bootstraps {
    /// What is measured
    #[arg(long, value_name = "KIND", default_value = "onionring")]
    subject: String,
    /// What it is compared with
    #[arg(long, value_name = "KIND", default_value = "tor")]
    baseline: String,
    /// Relays
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    relays: usize,
    /// Bootstraps of each client
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Seconds from one consensus to the next: enough for the uploads and a vote, and a divisor of 1800
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    interval: u64,
    /// Write the results to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Bootstraps {
    pub(super) fn run(self) -> Result<(), CliError> {
        if self.interval < 60 || !1800_u64.is_multiple_of(self.interval) {
            let what = format!("--interval {}: write a divisor of 1800 from 60 on", self.interval);
            return Err(CliError::Usage(what));
        }
        enter_netns(true)?;
        let interrupt = Interrupt::watch()?;
        let programs = NetworkSpec::new();
        let client = |kind: &String| {
            let program = programs.program_of(&Kind::new(kind.clone()), Role::Client)?;
            Ok::<_, CliError>(Client { kind: kind.clone(), program })
        };
        let clients = [client(&self.subject)?, client(&self.baseline)?];
        let settings = Settings {
            kind: Kind::ONIONRING.to_string(),
            program: programs.program_of(&Kind::ONIONRING, Role::Authority)?,
            interval: Duration::from_secs(self.interval),
            clients: 0,
            concurrency: 1,
            torrc: Vec::new(),
        };
        let now = Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs());
        let size = Size { relays: self.relays, authorities: 3 };
        eprintln!("making {} relays on paper", size.relays);
        let directory = Directory::generate(size, 1, now).map_err(AuthorityError::from)?;
        let results =
            bootstrap(&settings, &directory, &clients, self.rounds.max(1), &|| interrupt.asked(), &|what| {
                eprintln!("{what}");
            })
            .map_err(|error| match error {
                authority::AuthorityError::Interrupted => CliError::Interrupted,
                error => error.into(),
            })?;
        println!(
            "{:<28} {:>9} {:>9} {:>9}",
            format!("{} RELAYS", self.relays),
            "seconds",
            "CPU s",
            "max MiB"
        );
        for from_cache in [false, true] {
            let of = |kind: &str| -> Vec<&Bootstrap> {
                results.iter().filter(|r| r.kind == kind && r.from_cache == from_cache).collect()
            };
            let way = if from_cache { "from its cache" } else { "from nothing" };
            for client in &clients {
                let of = of(&client.kind);
                let mean = |figure: fn(&Bootstrap) -> f64| {
                    of.iter().map(|r| figure(r)).sum::<f64>() / of.len() as f64
                };
                println!(
                    "{:<28} {:>9.2} {:>9.2} {:>9.0}",
                    format!("{} {way}", client.kind),
                    mean(|r| r.seconds),
                    mean(|r| r.cpu_seconds),
                    mean(|r| r.rss_max_bytes as f64 / MIB)
                );
            }
        }
        write(self.json.as_ref(), &results)
    }
}

fn write(file: Option<&PathBuf>, report: &impl Serialize) -> Result<(), CliError> {
    if let Some(file) = file {
        fs::write(file, serde_json::to_vec_pretty(report).map_err(io::Error::from)?)?;
    }
    Ok(())
}
