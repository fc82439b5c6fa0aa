//! `onionring-loadgen bench`: implementations side by side in one network.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::net::Common;
use super::ui::{self, Interrupt, byte_bar, cpu_seconds_per_gib};
use super::{CliError, authority, enter_netns, proxy};
use crate::net::{Kind, Network, NetworkSpec, NodeSpec, Paths, Role};
use crate::traffic::{Order, parallel};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// CPU seconds per GiB of two implementations as the middle relay, in turn
    Middle(Middle),
    /// CPU time and memory of two implementations as a directory authority, in turn
    Authority(authority::Arguments),
    /// CPU seconds per GiB and times to the first byte of two implementations as a client, in turn
    Proxy(proxy::Carry),
    /// Time, CPU time and memory of two implementations as a client that learns a large network
    Bootstrap(proxy::Bootstraps),
}

impl Command {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Command::Middle(middle) => middle.run(),
            Command::Authority(arguments) => arguments.run(),
            Command::Proxy(arguments) => arguments.run(),
            Command::Bootstrap(arguments) => arguments.run(),
        }
    }
}

/// One network in which everything but the middle relay is stock tor. The same bytes go over the subject and over the
/// baseline in turn (A B A B), so that what else the machine does falls on both.
#[derive(Debug, Args)]
pub(super) struct Middle {
    /// What is measured
    #[arg(long, value_name = "KIND", default_value = "onionring")]
    subject: String,
    /// What it is compared with
    #[arg(long, value_name = "KIND", default_value = "tor")]
    baseline: String,
    /// MiB per round and implementation
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    size: u64,
    /// Streams side by side, all on one circuit
    #[arg(long, value_name = "N", default_value_t = 4)]
    streams: usize,
    /// Rounds of each
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Put the network into a network namespace
    #[arg(long)]
    netns: bool,
    /// Write the results to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// One round of one implementation.
#[derive(Debug, Serialize)]
struct Round {
    kind: String,
    bytes: u64,
    seconds: f64,
    cpu_seconds: f64,
    cpu_seconds_per_gib: f64,
    rss_bytes: u64,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    benchmark: &'static str,
    rounds: Vec<Round>,
    subject_cpu_seconds_per_gib: f64,
    baseline_cpu_seconds_per_gib: f64,
    /// Subject over baseline: below 1, the subject needs less.
    ratio: f64,
}

impl Middle {
    fn run(self) -> Result<(), CliError> {
        enter_netns(self.netns)?;
        let interrupt = Interrupt::watch()?;
        let middle = |kind: &str, name| NodeSpec::new(Role::Relay, Kind::new(kind.to_owned())).named(name);
        let stock = |role, name| NodeSpec::new(role, Kind::TOR).named(name);
        let spec = NetworkSpec::new()
            .add(Role::Authority, Kind::TOR, 3)
            .node(stock(Role::Relay, "guard"))
            .node(middle(&self.subject, "subject"))
            .node(middle(&self.baseline, "baseline"))
            .node(stock(Role::Exit, "exit"))
            .node(stock(Role::Client, "client"));
        let network = ui::boot(self.common.apply(spec)?, &interrupt)?;
        let mut rounds = Vec::new();
        println!("{:<10} {:>9} {:>9} {:>12}", "MIDDLE", "MiB/s", "CPU s", "CPU s/GiB");
        for _ in 0..self.rounds {
            for middle in ["subject", "baseline"] {
                let round = self.round(&network, middle, &interrupt)?;
                println!(
                    "{:<10} {:>9.1} {:>9.2} {:>12.2}",
                    round.kind,
                    round.bytes as f64 / f64::from(1 << 20) / round.seconds,
                    round.cpu_seconds,
                    round.cpu_seconds_per_gib
                );
                rounds.push((middle, round));
            }
        }
        let mean = |middle: &str| {
            let of = rounds.iter().filter(|(name, _)| *name == middle);
            let (cpu, bytes) =
                of.fold((0.0, 0), |(cpu, bytes), (_, r)| (cpu + r.cpu_seconds, bytes + r.bytes));
            cpu_seconds_per_gib(cpu, bytes)
        };
        let (subject, baseline) = (mean("subject"), mean("baseline"));
        let report = Report {
            benchmark: "middle",
            subject_cpu_seconds_per_gib: subject,
            baseline_cpu_seconds_per_gib: baseline,
            ratio: subject / baseline,
            rounds: rounds.into_iter().map(|(_, round)| round).collect(),
        };
        println!("{} needs {subject:.2} CPU s/GiB as the middle relay,", self.subject);
        println!("{} needs {baseline:.2}: ratio {:.2}", self.baseline, report.ratio);
        if let Some(file) = &self.json {
            fs::write(file, serde_json::to_vec_pretty(&report).map_err(io::Error::from)?)?;
        }
        Ok(())
    }

    fn round(&self, network: &Network, middle: &str, interrupt: &Interrupt) -> Result<Round, CliError> {
        let node = network.node(middle);
        let paths = Paths::of(network.node("client"))?;
        let path = paths.build(&[network.node("guard"), node, network.node("exit")])?;
        let bytes = self.size << 20;
        let each = bytes / self.streams.max(1) as u64;
        let bar = byte_bar("transfer", each * self.streams as u64);
        let (before, started) = (node.usage()?, std::time::Instant::now());
        let transfers = parallel(self.streams, |n| {
            let order = Order { socks: &path.socks(), target: network.target(), bytes: each, seed: n as u64 };
            let mut seen = 0;
            order.download(&mut |received| {
                bar.inc(received - seen);
                seen = received;
                interrupt.check_io()
            })
        });
        let (after, seconds) = (node.usage()?, started.elapsed().as_secs_f64());
        bar.finish_and_clear();
        interrupt.check()?;
        let bytes = transfers?.iter().map(|t| t.bytes).sum();
        let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        Ok(Round {
            kind: node.kind().to_string(),
            bytes,
            seconds,
            cpu_seconds,
            cpu_seconds_per_gib: cpu_seconds_per_gib(cpu_seconds, bytes),
            rss_bytes: after.rss_bytes,
        })
    }
}
