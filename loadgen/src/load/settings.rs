//! What is measured, and how: the settings of a measurement with their bounds.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Which way bulk flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the next relay to the client: the relay under test adds a layer
    Down,
    /// From the client to the next relay: it takes one off
    Up,
}

/// Which circuit handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum HandshakeKind {
    /// With the RSA identity
    Ntor,
    /// With the Ed25519 identity
    NtorV3,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Cells at full speed through the relay, from links of ours to links of ours
    Bulk,
    /// Small cells at a fixed rate to the next relay and back: latency, alone or beside bulk
    Interactive,
    /// CREATE2 handshakes
    Handshake,
    /// TLS connections with the link handshake
    Connect,
    /// Memory of idle links and idle circuits
    Idle,
    /// Streams through the relay as an exit, to servers of ours
    Exit,
    /// Junk CREATE2 beside bulk at a fixed rate: what of the bulk is lost
    Flood,
    /// The 60 MB file and the 55 KB pages of the 2004 paper, over four relays and directly
    #[value(name = "paper-2004")]
    #[serde(rename = "paper-2004")]
    Paper2004,
}

impl Scenario {
    /// Its name on the command line and in results.
    pub fn word(self) -> &'static str {
        match self {
            Scenario::Bulk => "bulk",
            Scenario::Interactive => "interactive",
            Scenario::Handshake => "handshake",
            Scenario::Connect => "connect",
            Scenario::Idle => "idle",
            Scenario::Exit => "exit",
            Scenario::Flood => "flood",
            Scenario::Paper2004 => "paper-2004",
        }
    }
}

/// The settings of a measurement. Every count is for the whole measurement, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What is measured.
    pub scenario: Scenario,
    /// Client links; `connect` opens so many at a time.
    pub links: u32,
    /// Circuits on each link; `handshake` has so many handshakes under way on each.
    pub circuits: u32,
    /// Relays of ours behind the relay under test.
    pub next_hops: u32,
    /// Which way bulk flows.
    pub direction: Direction,
    /// Cells in flight on each bulk circuit.
    pub window: u32,
    /// Whether `interactive` has bulk beside it, on the same client links.
    pub beside_bulk: bool,
    /// MiB of goodput per second of bulk, whatever becomes of it; `None` for as much as the window lets through (of
    /// `flood`: for half of what it lets through, which is measured first).
    pub bulk_rate: Option<f64>,
    /// Small cells per second of `interactive`.
    pub rate: f64,
    /// Streams at a time on each circuit of `exit`.
    pub streams: u32,
    /// MiB that each stream of `exit` carries.
    pub size: f64,
    /// Links that `flood` sends junk over.
    pub flood_links: u32,
    /// Addresses that these links come from.
    pub flood_sources: u32,
    /// Junk CREATE2 per second; `None` for as many as the links take.
    pub flood_rate: Option<f64>,
    /// Downloads of `paper-2004`, of the file and of the page, by each way in one repetition.
    pub downloads: u32,
    /// Which circuit handshake.
    pub handshake: HandshakeKind,
    /// Seconds of one repetition.
    pub seconds: f64,
    /// Seconds of load before the first repetition.
    pub warm_up: f64,
    /// How often is measured.
    pub repetitions: u32,
    /// Threads of loadgen, each with its share of the links.
    pub threads: u32,
    /// Seconds without progress after which the relay counts as stalled.
    pub stall: f64,
    /// Whether the relay's system calls are counted.
    pub syscalls: bool,
}

/// Links that may be open at once: each takes a file of ours, and up to two of the relay's.
pub const LINKS: RangeInclusive<i64> = 1..=10_000;
/// Circuits per link.
pub const CIRCUITS: RangeInclusive<i64> = 1..=100_000;
/// Relays of ours: each takes a key that takes some hundredths of a second to find.
pub const NEXT_HOPS: RangeInclusive<i64> = 1..=1_000;
/// Cells in flight per circuit. C tor's clients have up to 1,000.
pub const WINDOW: RangeInclusive<i64> = 1..=10_000;
/// Small cells, junk CREATE2 or MiB of bulk per second.
pub const RATE: RangeInclusive<f64> = 0.01..=1_000_000.0;
/// Streams at a time on each circuit.
pub const STREAMS: RangeInclusive<i64> = 1..=1_000;
/// MiB of a stream.
pub const SIZE: RangeInclusive<f64> = 0.001..=1_000_000.0;
/// Addresses of a flood: what a block of loopback addresses has to spare.
pub const FLOOD_SOURCES: RangeInclusive<i64> = 1..=100;
/// Downloads of `paper-2004`; the paper has 108.
pub const DOWNLOADS: RangeInclusive<i64> = 1..=1_000;
/// Seconds of anything.
pub const SECONDS: RangeInclusive<f64> = 0.1..=86_400.0;
/// Repetitions.
pub const REPETITIONS: RangeInclusive<i64> = 1..=1_000;
/// Threads.
pub const THREADS: RangeInclusive<i64> = 1..=256;

/// The default of [`Settings::next_hops`] is a relay for each link, but no more than this.
pub const NEXT_HOPS_DEFAULT_MAX: u32 = 50;
/// The default of [`Settings::window`] keeps about so many cells in flight in all, which is 32 MiB, ...
const IN_FLIGHT: u32 = 1 << 16;
/// ... but no fewer and no more than these on each circuit.
const WINDOW_DEFAULT: RangeInclusive<u32> = 16..=500;

/// At a given rate. Relays close circuits with many more cells than the 1,000 that a client may have under way.
const PACED_WINDOW: u32 = 2_000;

/// The window that suits so many circuits: bulk that a relay must hold in full on every circuit would measure its
/// memory. At a given rate there are only as many cells under way as the relay is slow, so there may be more.
pub fn default_window(circuits: u32, paced: bool) -> u32 {
    let most = if paced { PACED_WINDOW } else { *WINDOW_DEFAULT.end() };
    (IN_FLIGHT / circuits.max(1)).clamp(*WINDOW_DEFAULT.start(), most)
}

impl Settings {
    /// One link and one circuit, and the command line's defaults for the rest.
    pub fn new(scenario: Scenario) -> Settings {
        Settings {
            scenario,
            links: 1,
            circuits: 1,
            next_hops: 1,
            direction: Direction::Down,
            window: default_window(1, false),
            beside_bulk: false,
            bulk_rate: None,
            rate: 100.0,
            handshake: HandshakeKind::Ntor,
            streams: 10,
            size: 1.0,
            flood_links: 4,
            flood_sources: 1,
            flood_rate: None,
            downloads: 2,
            seconds: 5.0,
            warm_up: 1.0,
            repetitions: 3,
            threads: 1,
            stall: 10.0,
            syscalls: false,
        }
    }

    /// The rate at which load is offered, in the unit of the scenario; `None` for a closed loop.
    pub fn offered(&self) -> Option<f64> {
        match self.scenario {
            Scenario::Bulk | Scenario::Flood => self.bulk_rate,
            Scenario::Interactive => Some(self.rate),
            _ => None,
        }
    }

    /// In words, for the head of a table.
    pub fn describe(&self) -> String {
        let Settings { links, circuits, next_hops, window, rate, .. } = self;
        let way = match self.direction {
            Direction::Down => "down",
            Direction::Up => "up",
        };
        let bulk = || {
            let pace = match self.bulk_rate {
                Some(rate) => format!("{rate:.4} MiB/s, missed beyond {window} cells under way"),
                None => format!("window {window} cells"),
            };
            format!("links {links}, circuits on each {circuits}, next relays {next_hops}, {way}, {pace}")
        };
        let what = match self.scenario {
            Scenario::Bulk => bulk(),
            Scenario::Interactive if self.beside_bulk => format!("{rate} cells/s beside bulk: {}", bulk()),
            Scenario::Interactive => format!("{rate} cells/s, links {links}"),
            Scenario::Handshake => {
                let kind = if self.handshake == HandshakeKind::Ntor { "ntor" } else { "ntor-v3" };
                format!("{kind}, links {links}, under way on each {circuits}")
            }
            Scenario::Connect => format!("{links} at a time"),
            Scenario::Idle => format!("links {links}, circuits on each {circuits}, next relays {next_hops}"),
            Scenario::Exit => {
                let Settings { streams, size, .. } = self;
                format!(
                    "links {links}, circuits on each {circuits}, streams on each {streams}, {way}, {size} MiB each"
                )
            }
            Scenario::Flood => {
                let Settings { flood_links, flood_sources, .. } = self;
                let pace =
                    self.flood_rate.map_or("as fast as they take it".into(), |rate| format!("{rate}/s"));
                format!(
                    "CREATE2 {pace} over {flood_links} links from {flood_sources} addresses beside bulk: {}",
                    bulk()
                )
            }
            Scenario::Paper2004 => format!("{} downloads by each way", self.downloads),
        };
        let Settings { repetitions, seconds, .. } = self;
        let time = match self.scenario {
            Scenario::Idle => String::new(),
            Scenario::Paper2004 => format!("; {repetitions} repetitions"),
            Scenario::Flood => format!("; {repetitions} x {seconds} s without it and {seconds} s with it"),
            _ => format!("; {repetitions} x {seconds} s"),
        };
        format!("{}: {what}{time}", self.scenario.word())
    }
}
