//! `onionring-loadgen relay`: one relay, driven to its limit.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde::Serialize;

use super::CliError;
use super::load::Load;
use super::ui::Interrupt;
use crate::load::{
    Point, Progress, REPETITIONS, Report, Scenario, StandaloneSpec, Subject, Sweep, Target, exposition,
};
use crate::net::{Kind, NetworkSpec, Role};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// A table
    Text,
    /// As docs/loadgen.schema.json describes
    Json,
    /// One line for each figure
    Csv,
    /// Metrics, for the textfile collector of Prometheus' node exporter
    Prometheus,
}

/// Loadgen is the clients and the next relay, the relay under test is in the middle. It must take circuits from
/// anybody and extend them to loadgen's address: on loopback with `ExtendAllowPrivateAddresses 1`. With --kind loadgen
/// starts the relay itself, without a network.
///
/// A table, JSON or CSV goes to standard output, progress to a terminal. If the relay cannot be reached, stalls, dies
/// or answers nonsense, what was measured until then is printed and marked, and the exit status is 1.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// ORPort of the relay under test
    #[arg(long, value_name = "IP:PORT", required_unless_present = "kind", conflicts_with = "kind")]
    address: Option<SocketAddr>,
    /// The relay's descriptor, to hold it against [default: asked of the relay]
    #[arg(long, value_name = "FILE", conflicts_with = "kind")]
    descriptor: Option<PathBuf>,
    /// RSA identity fingerprint that the relay must have
    #[arg(long, value_name = "HEX", value_parser = fingerprint, conflicts_with_all = ["kind", "descriptor"])]
    fingerprint: Option<Fingerprint>,
    /// The relay's process, if it is on this machine: its CPU time and memory are measured
    #[arg(long, value_name = "PID", conflicts_with = "kind")]
    pid: Option<u32>,
    /// Start this: `onionring` (of this build), `tor` (the installed one), or NAME=PATH
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    load: Load,
    /// Repetitions
    #[arg(short = 'n', long, value_name = "N", default_value_t = 3, value_parser = RangedI64ValueParser::<u32>::new().range(REPETITIONS))]
    repetitions: u32,
    /// How results are printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Debug)]
struct Fingerprint([u8; 20]);

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    let text: String = text.trim_start_matches('$').split_whitespace().collect();
    let parsed = onionring_proto::netdoc::text::Fingerprint::from_hex(&text);
    parsed.map(|f| Fingerprint(f.0)).ok_or_else(|| "a fingerprint has 40 hex digits".to_owned())
}

/// How relays are started.
#[derive(Debug, Args)]
pub(super) struct Start {
    /// NumCPUs of relays that are started [default: their own]
    #[arg(long, value_name = "N", value_parser = RangedI64ValueParser::<u32>::new().range(1..=128))]
    shards: Option<u32>,
    /// One more torrc line for relays that are started; may be repeated
    #[arg(long, value_name = "LINE")]
    torrc: Vec<String>,
}

impl Start {
    /// How a relay of this kind is started.
    pub(super) fn spec(&self, kind: &str, scenario: Scenario) -> Result<StandaloneSpec, CliError> {
        let (name, program) = match kind.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => (name, PathBuf::from(path)),
            _ => (kind, NetworkSpec::new().program_of(&Kind::new(kind.to_owned()), Role::Relay)?),
        };
        let (kind, torrc) = (name.to_owned(), self.torrc.clone());
        let exit = scenario == Scenario::Exit;
        Ok(StandaloneSpec { kind, program, cpus: self.shards, exit, torrc })
    }
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), CliError> {
        let interrupt = Interrupt::watch()?;
        let points = self.load.points(self.repetitions)?;
        self.output.check(points.len())?;
        let scenario = self.load.scenario;
        if scenario == Scenario::Idle && self.kind.is_none() && self.pid.is_none() {
            let message = "idle measures memory: give --pid, or have it started with --kind";
            return Err(CliError::Usage(message.into()));
        }
        if scenario == Scenario::Paper2004 && self.kind.is_none() {
            let message =
                "paper-2004 boots a network of four relays: say with --kind of what, in place of --address";
            return Err(CliError::Usage(message.into()));
        }
        if self.load.syscalls && self.kind.is_none() && self.pid.is_none() {
            let message = "--syscalls counts those of a process: give --pid, or have it started with --kind";
            return Err(CliError::Usage(message.into()));
        }
        let spinner = Spinner::new();
        let start = || match (&self.kind, self.address) {
            (Some(kind), _) => {
                let spec = self.start.spec(kind, scenario)?;
                let tell = &mut |progress| spinner.show(kind, progress, &interrupt);
                Ok(Target::start(&spec, scenario, tell)?)
            }
            (None, Some(address)) => {
                let fingerprint = self.fingerprint.as_ref().map(|f| f.0);
                let subject = Subject::at(address, self.descriptor.as_deref(), fingerprint, self.pid)?;
                Ok::<_, CliError>(Target::Relay(Box::new(subject)))
            }
            (None, None) => unreachable!("clap asks for one of them"),
        };
        let mut target = start()?;
        let mut reports = Vec::new();
        for settings in &points {
            // Memory is read of a new process.
            if scenario == Scenario::Idle && !reports.is_empty() && self.kind.is_some() {
                target = start()?;
            }
            let kind = &target.info().kind;
            let tell = &mut |progress| spinner.show(kind, progress, &interrupt);
            let report = target.measure(settings, self.load.listen, tell);
            let failed = report.failure.is_some();
            reports.push(report);
            if failed {
                break;
            }
        }
        drop(spinner);
        self.output.print(reports, points.len() > 1, Report::to_text, &interrupt)
    }
}

impl Output {
    /// Metrics of several points would have the same names.
    pub(super) fn check(self, points: usize) -> Result<(), CliError> {
        match self {
            Output::Prometheus if points > 1 => {
                let message = "--output prometheus is for one of --links and one of --rate; use csv or json for a sweep";
                Err(CliError::Usage(message.into()))
            }
            _ => Ok(()),
        }
    }

    /// Prints a result, or as many as a sweep has points.
    pub(super) fn print<T: Point + Serialize>(
        self,
        points: Vec<T>,
        sweep: bool,
        to_text: fn(&T) -> String,
        interrupt: &Interrupt,
    ) -> Result<(), CliError> {
        let sweep_of = Sweep { points };
        let single = sweep_of.points.first().filter(|_| !sweep);
        let mut out = io::stdout().lock();
        match (self, single) {
            (Output::Text, Some(result)) => out.write_all(to_text(result).as_bytes())?,
            (Output::Text, None) => out.write_all(sweep_of.to_text().as_bytes())?,
            (Output::Csv, _) => out.write_all(sweep_of.to_csv().as_bytes())?,
            (Output::Prometheus, _) => {
                let reports: Vec<&Report> = sweep_of.points.iter().flat_map(Point::reports).collect();
                out.write_all(exposition(&reports).as_bytes())?;
            }
            (Output::Json, single) => {
                let json = match single {
                    Some(result) => serde_json::to_string_pretty(result),
                    None => serde_json::to_string_pretty(&sweep_of),
                };
                writeln!(out, "{}", json.map_err(io::Error::from)?)?;
            }
        }
        out.flush()?;
        interrupt.check()?;
        match sweep_of.failure() {
            None => Ok(()),
            Some(failure) => Err(CliError::Incomplete(failure.message.clone())),
        }
    }
}

/// How far a measurement is, on a terminal only. It is gone when this is dropped.
pub(super) struct Spinner(ProgressBar);

impl Spinner {
    pub(super) fn new() -> Spinner {
        let spinner = ProgressBar::new_spinner();
        spinner.enable_steady_tick(Duration::from_millis(100));
        Spinner(spinner)
    }

    pub(super) fn show(&self, kind: &str, progress: Progress, interrupt: &Interrupt) -> ControlFlow<()> {
        self.0.set_message(match progress {
            Progress::Preparing { links, circuits } => format!("{kind}: {links} links, {circuits} circuits"),
            Progress::Booting(listed) => format!("{kind}: booting, {listed} relays in the consensus"),
            Progress::WarmUp => format!("{kind}: warming up"),
            Progress::Measuring { repetition, per_second } => {
                format!("{kind}: repetition {repetition}, {per_second:.0}/s")
            }
        });
        if interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
