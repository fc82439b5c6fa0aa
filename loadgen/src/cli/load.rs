//! The options that say what load there is and how it is measured.

use std::net::IpAddr;

use clap::Args;
use clap::builder::RangedI64ValueParser;

use super::CliError;
use crate::load::{
    CIRCUITS, DOWNLOADS, Direction, FLOOD_SOURCES, HandshakeKind, LINKS, NEXT_HOPS, NEXT_HOPS_DEFAULT_MAX,
    RATE, SECONDS, SIZE, STREAMS, Scenario, Settings, THREADS, WINDOW, default_window,
};

/// The load and its measurement.
#[derive(Debug, Args)]
pub(super) struct Load {
    /// What is measured
    #[arg(short, long, value_enum, default_value = "bulk")]
    pub(super) scenario: Scenario,
    /// Client links; `connect` opens so many at a time; several with commas between are measured one after the other
    /// [default: 1; connect 16; idle 1000]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = RangedI64ValueParser::<u32>::new().range(LINKS))]
    links: Vec<u32>,
    /// Circuits on each link; `handshake` has so many under way [default: 1; handshake 50; idle 10; exit 5]
    #[arg(long, value_name = "M", value_parser = RangedI64ValueParser::<u32>::new().range(CIRCUITS))]
    circuits: Option<u32>,
    /// Relays of loadgen that circuits go on to, each with a link of its own [default: as many as links, at most 50]
    #[arg(long, value_name = "N", value_parser = RangedI64ValueParser::<u32>::new().range(NEXT_HOPS))]
    next_hops: Option<u32>,
    /// Which way bulk and streams flow
    #[arg(long, value_enum, default_value = "down")]
    direction: Direction,
    /// Cells in flight on each circuit [default: 500, fewer if there are many circuits; at a given rate up to 10000]
    #[arg(long, value_name = "CELLS", value_parser = RangedI64ValueParser::<u32>::new().range(WINDOW))]
    window: Option<u32>,
    /// Offered per second, whatever becomes of it: MiB of goodput for `bulk` and `flood`, small cells for
    /// `interactive`; several with commas between are measured one after the other [default: bulk as much as --window
    /// lets through, flood half of that, interactive 100]
    #[arg(long, value_name = "RATE,...", value_delimiter = ',', value_parser = rate)]
    rate: Vec<f64>,
    /// `interactive`: have bulk beside it on the same client links
    #[arg(long)]
    beside_bulk: bool,
    /// `interactive --beside-bulk`: MiB of goodput per second of the bulk [default: as much as --window lets through]
    #[arg(long, value_name = "MIB", requires = "beside_bulk", value_parser = rate)]
    bulk_rate: Option<f64>,
    /// `handshake`: which
    #[arg(long, value_enum, default_value = "ntor")]
    handshake: HandshakeKind,
    /// `exit`: streams at a time on each circuit
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = RangedI64ValueParser::<u32>::new().range(STREAMS))]
    streams: u32,
    /// `exit`: MiB of each stream; `paper-2004`: MiB of the file [default: 1; paper-2004 60 MB]
    #[arg(long, value_name = "MIB", value_parser = size)]
    size: Option<f64>,
    /// `flood`: links that junk comes over
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = RangedI64ValueParser::<u32>::new().range(LINKS))]
    flood_links: u32,
    /// `flood`: addresses that these links come from, if the relay is on loopback
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedI64ValueParser::<u32>::new().range(FLOOD_SOURCES))]
    flood_sources: u32,
    /// `flood`: junk CREATE2 per second [default: as many as the links take]
    #[arg(long, value_name = "N", value_parser = rate)]
    flood_rate: Option<f64>,
    /// `paper-2004`: downloads by each way in a repetition; the paper has 108
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = RangedI64ValueParser::<u32>::new().range(DOWNLOADS))]
    downloads: u32,
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
    /// Count the system calls of the relay. That takes root (or CAP_PERFMON, kernel.perf_event_paranoid at most 1, and a
    /// readable tracefs at /sys/kernel/tracing), and costs CPU time at each call, the relay's and of everybody else's;
    /// where it cannot be done the figures are left out
    #[arg(long)]
    pub(super) syscalls: bool,
    /// Where the relay under test finds loadgen as the next relay [default: the address that faces it]
    #[arg(long, value_name = "IP")]
    pub(super) listen: Option<IpAddr>,
}

fn within(text: &str, range: &std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let (min, max) = (range.start(), range.end());
    if range.contains(&number) { Ok(number) } else { Err(format!("{number} is not in {min}..={max}")) }
}

fn seconds(text: &str) -> Result<f64, String> {
    within(text, &SECONDS)
}

fn rate(text: &str) -> Result<f64, String> {
    within(text, &RATE)
}

fn size(text: &str) -> Result<f64, String> {
    within(text, &SIZE)
}

/// The most circuits of a measurement: each takes a few hundred bytes of loadgen, and a few thousand of some relays.
const CIRCUITS_IN_ALL_MAX: u64 = 1_000_000;
/// Small cells per second, unless said otherwise.
const PROBE_RATE: f64 = 100.0;
/// The file of the paper, 60 MB, and a stream of `exit`, in MiB.
const PAPER_SIZE: f64 = 60e6 / 1_048_576.0;
const STREAM_SIZE: f64 = 1.0;

impl Load {
    /// What is to be measured: one point, or the points of a sweep over links and rates.
    pub(super) fn points(&self, repetitions: u32) -> Result<Vec<Settings>, CliError> {
        let default_links = match self.scenario {
            Scenario::Connect => 16,
            Scenario::Idle => 1_000,
            _ => 1,
        };
        let links = if self.links.is_empty() { vec![default_links] } else { self.links.clone() };
        let rates: Vec<Option<f64>> = match self.rate.is_empty() {
            true => vec![None],
            false => self.rate.iter().copied().map(Some).collect(),
        };
        let point = |links, rate| self.settings(links, rate, repetitions);
        links.iter().flat_map(|links| rates.iter().map(move |rate| point(*links, *rate))).collect()
    }

    fn settings(&self, links: u32, rate: Option<f64>, repetitions: u32) -> Result<Settings, CliError> {
        let what = self.scenario.word();
        let bulk = matches!(self.scenario, Scenario::Bulk | Scenario::Flood);
        if rate.is_some() && !bulk && self.scenario != Scenario::Interactive {
            let message = format!("--rate is for bulk, flood and interactive; {what} goes as fast as it can");
            return Err(CliError::Usage(message));
        }
        if self.beside_bulk && self.scenario != Scenario::Interactive {
            return Err(CliError::Usage(format!("--beside-bulk is for interactive, not for {what}")));
        }
        if self.syscalls && matches!(self.scenario, Scenario::Idle | Scenario::Paper2004) {
            return Err(CliError::Usage(format!("--syscalls is for load on one relay, not for {what}")));
        }
        let circuits = self.circuits.unwrap_or(match self.scenario {
            Scenario::Handshake => 50,
            Scenario::Idle => 10,
            Scenario::Exit => 5,
            _ => 1,
        });
        let in_all = u64::from(links) * u64::from(circuits);
        if in_all > CIRCUITS_IN_ALL_MAX {
            let product = format!("--links {links} times --circuits {circuits}");
            return Err(CliError::Usage(format!("{product} is {in_all}; the most is {CIRCUITS_IN_ALL_MAX}")));
        }
        let bulk_rate = if bulk { rate } else { self.bulk_rate };
        let paced = bulk_rate.is_some() || self.scenario == Scenario::Flood;
        let size = if self.scenario == Scenario::Paper2004 { PAPER_SIZE } else { STREAM_SIZE };
        Ok(Settings {
            scenario: self.scenario,
            links,
            circuits,
            next_hops: self.next_hops.unwrap_or(links.min(NEXT_HOPS_DEFAULT_MAX)),
            direction: self.direction,
            window: self.window.unwrap_or(default_window(in_all as u32, paced)),
            beside_bulk: self.beside_bulk,
            bulk_rate,
            rate: rate.filter(|_| !bulk).unwrap_or(PROBE_RATE),
            handshake: self.handshake,
            streams: self.streams,
            size: self.size.unwrap_or(size),
            flood_links: self.flood_links,
            flood_sources: self.flood_sources,
            flood_rate: self.flood_rate,
            downloads: self.downloads,
            seconds: self.seconds,
            warm_up: self.warm_up,
            // A relay's memory does not come down again: once per process.
            repetitions: if self.scenario == Scenario::Idle { 1 } else { repetitions },
            threads: self.threads,
            stall: self.stall,
            syscalls: self.syscalls,
        })
    }
}
