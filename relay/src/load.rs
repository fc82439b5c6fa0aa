//! What the relay does, and what keeps it from doing more: from totals that only grow to rates and causes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::counters::Counters;
use crate::engine::ids::ShardIndex;
use crate::io::shard::IoCounters;

/// How far back rates and causes look.
const WINDOW: Duration = Duration::from_secs(10);

/// Of the time of a shard's thread: below this share of work it limits nothing, above the other nothing else does. The
/// work comes in bursts, so a thread that has work to do for most of the time makes some of it wait.
const PROCESSOR: [f64; 2] = [0.6, 0.95];

/// What can keep a relay from relaying more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The thread of a shard is busy.
    Processor,
    /// The sockets of links are full: the network, or the peers, take no more.
    Network,
    /// The configured bandwidth is used up.
    RateLimit,
    /// Clients have not acknowledged what streams sent them.
    CircuitWindows,
    /// Nothing: the relay does all that it is asked to do.
    LowDemand,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 5] =
        [Cause::Processor, Cause::Network, Cause::RateLimit, Cause::CircuitWindows, Cause::LowDemand];

    /// A short stable name for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Cause::Processor => "processor",
            Cause::Network => "network",
            Cause::RateLimit => "rate_limit",
            Cause::CircuitWindows => "circuit_windows",
            Cause::LowDemand => "low_demand",
        }
    }

    /// A sentence for the operator, to be continued after "limited by".
    pub const fn words(self) -> &'static str {
        match self {
            Cause::Processor => "its processor: more or faster cores, and NumCPUs, would carry more",
            Cause::Network => {
                "the network: sockets are full, so the line or the relays at its other end take no more"
            }
            Cause::RateLimit => "its own limit of bandwidth: BandwidthRate may be raised",
            Cause::CircuitWindows => "the windows of circuits: clients are slow to take what they asked for",
            Cause::LowDemand => "low demand: there is room for more traffic",
        }
    }
}

/// Totals since the start of the relay, of all shards together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// When they were read: time since the start.
    pub at: Duration,
    /// Bytes of cells read from links.
    pub read_bytes: u64,
    /// Bytes of cells written to links.
    pub written_bytes: u64,
    /// Relay cells passed on, both ways.
    pub relayed_cells: u64,
    /// Circuit handshakes answered.
    pub handshakes: u64,
    /// Time each shard's thread was busy, by shard.
    pub busy: Vec<Duration>,
    /// Writes to links' sockets, and how many had to wait for room.
    pub writes: [u64; 2],
    /// Times that bytes of streams could be sent to clients, and had to wait for windows.
    pub windows: [u64; 2],
    /// Bytes of streams sent to clients.
    pub stream_bytes: u64,
    /// Time for which the configured bandwidth was used up.
    pub rate_limited: Duration,
}

impl Totals {
    /// Adds what a shard has counted.
    pub fn add(&mut self, shard: ShardIndex, engine: &Counters, io: &IoCounters) {
        self.read_bytes += engine.link_bytes_in;
        self.written_bytes += engine.link_bytes_out;
        self.relayed_cells += engine.relayed.iter().sum::<u64>();
        self.handshakes += engine.handshakes_done.values().sum::<u64>();
        let shard = usize::from(shard.0);
        if self.busy.len() <= shard {
            self.busy.resize(shard + 1, Duration::ZERO);
        }
        self.busy[shard] = io.busy;
        self.writes[0] += io.writes;
        self.writes[1] += io.writes_held;
        self.windows[0] += engine.windows[0];
        self.windows[1] += engine.windows[1];
        self.stream_bytes += engine.stream_bytes[1];
        // The limit is one for all shards: it is used up as long as it is for the one that wants most.
        let limited = io.rate_reached.iter().map(|reached| reached.time).max().unwrap_or_default();
        self.rate_limited = self.rate_limited.max(limited);
    }
}

/// What the relay does in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Bytes of cells read from links.
    pub read_bytes: f64,
    /// Bytes of cells written to links.
    pub written_bytes: f64,
    /// Relay cells passed on.
    pub relayed_cells: f64,
    /// Circuit handshakes answered.
    pub handshakes: f64,
}

/// How much each cause limits the relay: in the order of [`Cause::ALL`], from 0 to 1, adding up to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits(pub [f64; Cause::ALL.len()]);

impl Default for Limits {
    fn default() -> Self {
        Limits([0.0, 0.0, 0.0, 0.0, 1.0])
    }
}

impl Limits {
    /// What limits the relay most.
    pub fn main(&self) -> Cause {
        let most = Cause::ALL.into_iter().zip(self.0).max_by(|(_, a), (_, b)| a.total_cmp(b));
        most.map_or(Cause::LowDemand, |(cause, _)| cause)
    }

    /// What limited the relay between two moments.
    ///
    /// Each cause has a pressure from 0 to 1. The strongest says how much of the time the relay was limited at all; the
    /// causes share that in proportion to their pressures, and the rest is low demand.
    pub fn between(before: &Totals, now: &Totals) -> Limits {
        let time = now.at.saturating_sub(before.at).as_secs_f64();
        if time <= 0.0 {
            return Limits::default();
        }
        let busy = now.busy.iter().enumerate().map(|(shard, busy)| {
            busy.saturating_sub(before.busy.get(shard).copied().unwrap_or_default()).as_secs_f64() / time
        });
        let busiest = busy.fold(0.0, f64::max);
        let streams = ratio(
            now.stream_bytes.saturating_sub(before.stream_bytes),
            now.written_bytes.saturating_sub(before.written_bytes),
        );
        let pressures = [
            ((busiest - PROCESSOR[0]) / (PROCESSOR[1] - PROCESSOR[0])).clamp(0.0, 1.0),
            waits(before.writes, now.writes),
            (now.rate_limited.saturating_sub(before.rate_limited).as_secs_f64() / time).clamp(0.0, 1.0),
            // Windows say nothing of the circuits that only pass through.
            waits(before.windows, now.windows) * streams,
        ];
        let (strongest, sum) = (pressures.into_iter().fold(0.0, f64::max), pressures.iter().sum::<f64>());
        let scale = if sum > 0.0 { strongest / sum } else { 0.0 };
        let [processor, network, rate_limit, windows] = pressures.map(|pressure| pressure * scale);
        Limits([processor, network, rate_limit, windows, 1.0 - strongest])
    }
}

/// The share of goes that had to wait.
fn waits(before: [u64; 2], now: [u64; 2]) -> f64 {
    ratio(now[1].saturating_sub(before[1]), now[0].saturating_sub(before[0]))
}

/// At most 1; of nothing it is nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if part == 0 { 0.0 } else { (part as f64 / whole.max(1) as f64).min(1.0) }
}

/// The last ten seconds, and how long each cause has limited the relay so far.
#[derive(Debug, Default)]
pub struct Load {
    past: VecDeque<Totals>,
    seconds: [f64; Cause::ALL.len()],
}

impl Load {
    /// Takes in the totals of a later moment.
    pub fn observe(&mut self, now: Totals) {
        if let Some(last) = self.past.back() {
            let time = now.at.saturating_sub(last.at).as_secs_f64();
            let Limits(limits) = Limits::between(last, &now);
            for (seconds, share) in self.seconds.iter_mut().zip(limits) {
                *seconds += share * time;
            }
        }
        // The first one is the latest that is at least a window old.
        while self.past.get(1).is_some_and(|totals| totals.at + WINDOW <= now.at) {
            self.past.pop_front();
        }
        self.past.push_back(now);
    }

    fn span(&self) -> Option<(&Totals, &Totals)> {
        self.past.front().zip(self.past.back()).filter(|(first, last)| first.at < last.at)
    }

    /// What limits the relay now.
    pub fn limits(&self) -> Limits {
        self.span().map(|(first, last)| Limits::between(first, last)).unwrap_or_default()
    }

    /// For how many seconds each cause has limited the relay, in the order of [`Cause::ALL`].
    pub fn seconds(&self) -> [f64; Cause::ALL.len()] {
        self.seconds
    }

    /// What the relay does now.
    pub fn rates(&self) -> Rates {
        let Some((first, last)) = self.span() else { return Rates::default() };
        let time = last.at.saturating_sub(first.at).as_secs_f64();
        let rate = |total: fn(&Totals) -> u64| total(last).saturating_sub(total(first)) as f64 / time;
        Rates {
            read_bytes: rate(|t| t.read_bytes),
            written_bytes: rate(|t| t.written_bytes),
            relayed_cells: rate(|t| t.relayed_cells),
            handshakes: rate(|t| t.handshakes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// What limits a relay whose first second went so.
    fn limits(now: Totals) -> Limits {
        Limits::between(&Totals::default(), &Totals { at: secs(1.0), ..now })
    }

    fn share(limits: &Limits, cause: Cause) -> f64 {
        limits.0[Cause::ALL.iter().position(|c| *c == cause).unwrap()]
    }

    #[test]
    fn an_idle_relay_lacks_demand() {
        assert_eq!(limits(Totals::default()), Limits::default());
        assert_eq!(Limits::default().main(), Cause::LowDemand);
        let light = limits(Totals {
            busy: vec![secs(0.4)],
            writes: [1000, 10],
            windows: [10, 10],
            stream_bytes: 1,
            written_bytes: 1_000_000,
            ..Totals::default()
        });
        assert_eq!(light.main(), Cause::LowDemand);
        assert!(share(&light, Cause::LowDemand) > 0.98, "{light:?}");
    }

    #[test]
    fn each_cause_is_told_from_the_others() {
        let busy = |seconds| Totals { busy: vec![secs(0.1), secs(seconds)], ..Totals::default() };
        assert_eq!(share(&limits(busy(0.6)), Cause::Processor), 0.0);
        assert_eq!(share(&limits(busy(0.99)), Cause::Processor), 1.0);
        assert_eq!(limits(busy(0.9)).main(), Cause::Processor);

        let full = limits(Totals { writes: [1000, 900], ..Totals::default() });
        assert_eq!(share(&full, Cause::Network), 0.9);
        assert_eq!(full.main(), Cause::Network);

        let throttled = limits(Totals { rate_limited: secs(0.7), ..Totals::default() });
        assert_eq!(throttled.main(), Cause::RateLimit);

        let exit = Totals { windows: [10, 9], written_bytes: 100, stream_bytes: 95, ..Totals::default() };
        assert_eq!(limits(exit.clone()).main(), Cause::CircuitWindows);
        // Of little weight where nearly all traffic only passes through.
        assert_eq!(limits(Totals { written_bytes: 10_000, ..exit }).main(), Cause::LowDemand);
    }

    #[test]
    fn shares_are_of_one_whole() {
        let all = limits(Totals {
            busy: vec![secs(5.0)],
            writes: [3, 1000],
            windows: [0, 7],
            stream_bytes: 9,
            written_bytes: 9,
            rate_limited: secs(0.5),
            ..Totals::default()
        });
        assert!((all.0.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{all:?}");
        assert_eq!(share(&all, Cause::LowDemand), 0.0);
        assert_eq!(share(&all, Cause::Processor), share(&all, Cause::Network));
        assert!(all.0.iter().all(|share| (0.0..=1.0).contains(share)));
        // Without time between them, or with a counter that went back, nothing is said.
        assert_eq!(Limits::between(&Totals::default(), &Totals::default()), Limits::default());
        let later = Totals { at: secs(2.0), ..Totals::default() };
        assert_eq!(
            Limits::between(&Totals { writes: [9, 9], ..Totals::default() }, &later),
            Limits::default()
        );
    }

    #[test]
    fn rates_look_back_for_a_window_and_seconds_for_ever() {
        let mut load = Load::default();
        assert_eq!((load.rates(), load.limits()), (Rates::default(), Limits::default()));
        for second in 0..100_u64 {
            let busy = second.min(50) as f64;
            load.observe(Totals {
                at: Duration::from_secs(second),
                written_bytes: 1000 * second.min(50),
                busy: vec![secs(busy)],
                ..Totals::default()
            });
            if second == 50 {
                assert_eq!(load.rates().written_bytes, 1000.0);
                assert_eq!(load.limits().main(), Cause::Processor);
            }
        }
        assert_eq!(load.rates().written_bytes, 0.0);
        assert_eq!(load.limits(), Limits::default());
        assert_eq!(load.seconds(), [50.0, 0.0, 0.0, 0.0, 49.0]);
        assert!(load.past.len() <= 12);
    }
}
