//! `onionring-loadgen bench authority`: directory authorities in turn, each alone with a network on paper.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use onionring_proto::time::Unix;
use serde::Serialize;

use super::CliError;
use super::ui::Interrupt;
use crate::authority::{Measured, Settings, Step, measure};
use crate::net::{Kind, NetworkSpec, Role};
use crate::synthetic::{Directory, Size};

/// What a vote and its consensus may take, and all of it at any time.
const CPU_SECONDS_MAX: f64 = 10.0;
const RSS_BYTES_MAX: u64 = 1 << 30;
const MIB: f64 = 1024.0 * 1024.0;

/// A directory authority takes the descriptors of a network that exists on paper only, votes on it twice with others that
/// do, too, and serves what comes of it. Each implementation does so alone, on the same documents.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What is measured
    #[arg(long, value_name = "KIND", default_value = "onionring")]
    subject: String,
    /// What it is compared with; an empty word leaves it out
    #[arg(long, value_name = "KIND", default_value = "tor")]
    against: String,
    /// Relays
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    relays: usize,
    /// Authorities, the measured one included
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u8).range(3..=100))]
    authorities: u8,
    /// Requests of clients
    #[arg(long, value_name = "N", default_value_t = 1000)]
    clients: usize,
    /// Requests at a time
    #[arg(long, value_name = "N", default_value_t = 100)]
    concurrency: usize,
    /// Seconds from one consensus to the next: enough for the uploads and a vote, and a divisor of 1800
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    interval: u64,
    /// Where the random numbers begin
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// More lines for the authorities' torrc
    #[arg(long, value_name = "LINE")]
    torrc: Vec<String>,
    /// Write the results to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report<'a> {
    benchmark: &'static str,
    relays: usize,
    authorities: u8,
    clients: usize,
    results: &'a [Measured],
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), CliError> {
        if self.interval < 60 || !1800_u64.is_multiple_of(self.interval) {
            let what = format!("--interval {}: write a divisor of 1800 from 60 on", self.interval);
            return Err(CliError::Usage(what));
        }
        let interrupt = Interrupt::watch()?;
        let kinds: Vec<&str> =
            [self.subject.as_str(), &self.against].into_iter().filter(|kind| !kind.is_empty()).collect();
        let programs = NetworkSpec::new();
        let program = |kind: &str| programs.program_of(&Kind::new(kind.to_owned()), Role::Authority);
        let now = Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs());
        let size = Size { relays: self.relays, authorities: self.authorities.into() };
        eprintln!("making {} relays and {} authorities on paper", size.relays, size.authorities);
        let directory =
            Directory::generate(size, self.seed, now).map_err(crate::authority::AuthorityError::from)?;
        let mut results = Vec::new();
        for kind in kinds {
            let settings = Settings {
                kind: kind.to_owned(),
                program: program(kind)?,
                interval: Duration::from_secs(self.interval),
                clients: self.clients,
                concurrency: self.concurrency,
                torrc: self.torrc.clone(),
            };
            let measured =
                measure(&settings, &directory, &|| interrupt.asked(), &|what| eprintln!("{kind}: {what}"));
            results.push(measured?);
        }
        self.print(&results);
        if let Some(file) = &self.json {
            let Arguments { relays, authorities, clients, .. } = self;
            let report = Report { benchmark: "authority", relays, authorities, clients, results: &results };
            fs::write(file, serde_json::to_vec_pretty(&report).map_err(io::Error::from)?)?;
        }
        match results.iter().find(|result| !result.agrees) {
            None => Ok(()),
            Some(result) => {
                let what = format!("{} computed another consensus than the library", result.kind);
                Err(CliError::Incomplete(what))
            }
        }
    }

    fn print(&self, results: &[Measured]) {
        print!("{:<28}", format!("{} RELAYS, {} AUTHORITIES", self.relays, self.authorities));
        for result in results {
            print!(" {:>28}", result.kind);
        }
        println!("{}", if results.len() > 1 { "   ratio" } else { "" });
        print!("{:<28}", "");
        results.iter().for_each(|_| print!(" {:>9} {:>9} {:>8}", "CPU s", "wall s", "max MiB"));
        println!("{}", if results.len() > 1 { "     CPU" } else { "" });
        for step in Step::ALL {
            print!("{:<28}", step.name());
            let figures: Vec<_> = results.iter().filter_map(|result| result.figure(step)).collect();
            for figure in &figures {
                let mib = figure.rss_max_bytes as f64 / MIB;
                print!(" {:>9.2} {:>9.2} {:>8.0}", figure.cpu_seconds, figure.wall_seconds, mib);
            }
            if let [ours, theirs, ..] = figures[..] {
                print!(" {:>7.2}", ours.cpu_seconds / theirs.cpu_seconds.max(f64::MIN_POSITIVE));
            }
            println!();
        }
        for result in results {
            let bytes = result.bytes;
            println!(
                "{}: vote {} bytes, consensus {} and {} bytes, as the library computes it: {}; clients got {} MiB",
                result.kind,
                bytes.vote,
                bytes.ns,
                bytes.microdesc,
                if result.agrees { "yes" } else { "NO" },
                result.served_bytes >> 20,
            );
        }
        if let [ours, others @ ..] = results {
            targets(ours, others.first());
        }
    }
}

/// Says which of the targets are met.
fn targets(ours: &Measured, theirs: Option<&Measured>) {
    let met = |what: String, met: bool| println!("{:<7} {what}", if met { "met:" } else { "MISSED:" });
    let (cpu, rss) = (ours.vote_and_consensus(), ours.rss_max_bytes());
    let what = format!("vote and consensus within {CPU_SECONDS_MAX} CPU s: {cpu:.2}");
    met(what, cpu <= CPU_SECONDS_MAX);
    let mib = |bytes: u64| bytes as f64 / MIB;
    met(format!("memory below {:.0} MiB: {:.0}", mib(RSS_BYTES_MAX), mib(rss)), rss < RSS_BYTES_MAX);
    let Some(theirs) = theirs else { return };
    for step in Step::ALL {
        if let Some((our, their)) = ours.figure(step).zip(theirs.figure(step)) {
            let what = format!(
                "{}, no more CPU than {}: {:.2} s beside {:.2} s",
                step.name(),
                theirs.kind,
                our.cpu_seconds,
                their.cpu_seconds
            );
            met(what, our.cpu_seconds <= their.cpu_seconds);
        }
    }
    let what = format!(
        "memory, no more than {}: {:.0} MiB beside {:.0} MiB",
        theirs.kind,
        mib(rss),
        mib(theirs.rss_max_bytes())
    );
    met(what, rss <= theirs.rss_max_bytes());
}
