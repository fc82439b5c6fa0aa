//! `onionring-loadgen relay`: one relay, driven to its limit.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::CliError;
use super::ui::Interrupt;
use crate::load::{
    self, CIRCUITS, Direction, HandshakeKind, LINKS, NEXT_HOPS, NEXT_HOPS_DEFAULT_MAX, Progress, RATE,
    REPETITIONS, Report, SECONDS, Scenario, Settings, Standalone, StandaloneSpec, Subject, THREADS, WINDOW,
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
    pub(super) fn spec(&self, kind: &str) -> Result<StandaloneSpec, CliError> {
        let (name, program) = match kind.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => (name, PathBuf::from(path)),
            _ => (kind, NetworkSpec::new().program_of(&Kind::new(kind.to_owned()), Role::Relay)?),
        };
        let (kind, torrc) = (name.to_owned(), self.torrc.clone());
        Ok(StandaloneSpec { kind, program, cpus: self.shards, torrc })
    }
}

/// The load and its measurement.
#[derive(Debug, Args)]
pub(super) struct Load {
    /// What is measured
    #[arg(short, long, value_enum, default_value = "bulk")]
    pub(super) scenario: Scenario,
    /// Client links; `connect` opens so many at a time [default: 1; connect 16; idle 1000]
    #[arg(long, value_name = "N", value_parser = RangedI64ValueParser::<u32>::new().range(LINKS))]
    links: Option<u32>,
    /// Circuits on each link; `handshake` has so many under way [default: 1; handshake 50; idle 10]
    #[arg(long, value_name = "M", value_parser = RangedI64ValueParser::<u32>::new().range(CIRCUITS))]
    circuits: Option<u32>,
    /// Relays of loadgen that circuits go on to, each with a link of its own [default: as many as links, at most 50]
    #[arg(long, value_name = "N", value_parser = RangedI64ValueParser::<u32>::new().range(NEXT_HOPS))]
    next_hops: Option<u32>,
    /// Which way bulk flows
    #[arg(long, value_enum, default_value = "down")]
    direction: Direction,
    /// Cells in flight on each circuit [default: 500, fewer if there are many circuits]
    #[arg(long, value_name = "CELLS", value_parser = RangedI64ValueParser::<u32>::new().range(WINDOW))]
    window: Option<u32>,
    /// `interactive`: have bulk beside it on the same client links
    #[arg(long)]
    beside_bulk: bool,
    /// `interactive`: small cells per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = RangedI64ValueParser::<u32>::new().range(RATE))]
    rate: u32,
    /// `handshake`: which
    #[arg(long, value_enum, default_value = "ntor")]
    handshake: HandshakeKind,
    /// Seconds of a repetition
    #[arg(short = 'z', long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds of load before the first repetition
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,
    /// Threads of loadgen, each with its share of the links
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedI64ValueParser::<u32>::new().range(THREADS))]
    threads: u32,
    /// Seconds without progress after which the relay counts as stalled
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    stall: f64,
    /// Where the relay under test finds loadgen as the next relay [default: the address that faces it]
    #[arg(long, value_name = "IP")]
    pub(super) listen: Option<IpAddr>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let (min, max) = (SECONDS.start(), SECONDS.end());
    if SECONDS.contains(&seconds) { Ok(seconds) } else { Err(format!("{seconds} is not in {min}..={max}")) }
}

/// The most circuits of a measurement: each takes a few hundred bytes of loadgen, and a few thousand of some relays.
const CIRCUITS_IN_ALL_MAX: u64 = 1_000_000;

impl Load {
    pub(super) fn settings(&self, repetitions: u32) -> Result<Settings, CliError> {
        let (links, circuits) = match self.scenario {
            Scenario::Bulk | Scenario::Interactive => (1, 1),
            Scenario::Handshake => (1, 50),
            Scenario::Connect => (16, 1),
            Scenario::Idle => (1_000, 10),
        };
        let (links, circuits) = (self.links.unwrap_or(links), self.circuits.unwrap_or(circuits));
        let in_all = u64::from(links) * u64::from(circuits);
        if in_all > CIRCUITS_IN_ALL_MAX {
            let product = format!("--links {links} times --circuits {circuits}");
            return Err(CliError::Usage(format!("{product} is {in_all}; the most is {CIRCUITS_IN_ALL_MAX}")));
        }
        if self.beside_bulk && self.scenario != Scenario::Interactive {
            let what = self.scenario.word();
            return Err(CliError::Usage(format!("--beside-bulk is for interactive, not for {what}")));
        }
        Ok(Settings {
            scenario: self.scenario,
            links,
            circuits,
            next_hops: self.next_hops.unwrap_or(links.min(NEXT_HOPS_DEFAULT_MAX)),
            direction: self.direction,
            window: self.window.unwrap_or(load::default_window(in_all as u32)),
            beside_bulk: self.beside_bulk,
            rate: self.rate,
            handshake: self.handshake,
            seconds: self.seconds,
            warm_up: self.warm_up,
            // A relay's memory does not come down again: once per process.
            repetitions: if self.scenario == Scenario::Idle { 1 } else { repetitions },
            threads: self.threads,
            stall: self.stall,
        })
    }
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), CliError> {
        let interrupt = Interrupt::watch()?;
        let settings = self.load.settings(self.repetitions)?;
        if settings.scenario == Scenario::Idle && self.kind.is_none() && self.pid.is_none() {
            return Err(CliError::Usage(
                "idle measures memory: give --pid, or have it started with --kind".into(),
            ));
        }
        let subject = match (&self.kind, self.address) {
            (Some(kind), _) => Subject::started(Standalone::start(&self.start.spec(kind)?)?)?,
            (None, Some(address)) => {
                let fingerprint = self.fingerprint.as_ref().map(|f| f.0);
                Subject::at(address, self.descriptor.as_deref(), fingerprint, self.pid)?
            }
            (None, None) => unreachable!("clap asks for one of them"),
        };
        let report = measure(&subject, &settings, self.load.listen, &interrupt);
        let mut out = io::stdout().lock();
        match self.output {
            Output::Text => out.write_all(report.to_text().as_bytes())?,
            Output::Csv => write!(out, "{}{}", Report::CSV_HEAD, report.csv_lines())?,
            Output::Prometheus => out.write_all(load::exposition(&[&report]).as_bytes())?,
            Output::Json => {
                writeln!(out, "{}", serde_json::to_string_pretty(&report).map_err(io::Error::from)?)?;
            }
        }
        out.flush()?;
        interrupt.check()?;
        match report.failure {
            None => Ok(()),
            Some(failure) => Err(CliError::Incomplete(failure.message)),
        }
    }
}

/// Measures with progress on the terminal.
fn measure(subject: &Subject, settings: &Settings, listen: Option<IpAddr>, interrupt: &Interrupt) -> Report {
    let spinner = Spinner::new();
    let kind = &subject.info().kind;
    load::measure(subject, settings, listen, &mut |progress| spinner.show(kind, progress, interrupt))
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
