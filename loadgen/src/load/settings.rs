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
    /// Small cells per second of `interactive`.
    pub rate: u32,
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
}

/// Links that may be open at once: each takes a file of ours, and up to two of the relay's.
pub const LINKS: RangeInclusive<i64> = 1..=10_000;
/// Circuits per link.
pub const CIRCUITS: RangeInclusive<i64> = 1..=100_000;
/// Relays of ours: each takes a key that takes some hundredths of a second to find.
pub const NEXT_HOPS: RangeInclusive<i64> = 1..=1_000;
/// Cells in flight per circuit. C tor's clients have up to 1,000.
pub const WINDOW: RangeInclusive<i64> = 1..=10_000;
/// Small cells per second.
pub const RATE: RangeInclusive<i64> = 1..=1_000_000;
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

/// The window that suits so many circuits: bulk that a relay must hold in full on every circuit would measure its
/// memory.
pub fn default_window(circuits: u32) -> u32 {
    (IN_FLIGHT / circuits.max(1)).clamp(*WINDOW_DEFAULT.start(), *WINDOW_DEFAULT.end())
}

impl Settings {
    /// In words, for the head of a table.
    pub fn describe(&self) -> String {
        let Settings { links, circuits, next_hops, window, rate, .. } = self;
        let way = match self.direction {
            Direction::Down => "down",
            Direction::Up => "up",
        };
        let bulk = || {
            format!(
                "links {links}, circuits on each {circuits}, next relays {next_hops}, {way}, window {window} cells"
            )
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
        };
        let Settings { repetitions, seconds, .. } = self;
        let time = match self.scenario {
            Scenario::Idle => String::new(),
            _ => format!("; {repetitions} x {seconds} s"),
        };
        format!("{}: {what}{time}", self.scenario.word())
    }
}
