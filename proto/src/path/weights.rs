//! Bandwidth weights (path-spec 2.2, dir-spec 3.8.3): how likely a relay is for a position.

use rand_core::Rng;

use crate::netdoc::consensus::{Consensus, RelayFlags, RelayStatus};
use crate::netdoc::params::{BWWEIGHTSCALE, USE_GUARD_FRACTION};

/// Where in a path a relay is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// First.
    Guard,
    /// Neither first nor last.
    Middle,
    /// Last, letting streams out.
    Exit,
    /// Last, answering directory requests.
    Directory,
}

/// The kind of a relay, as far as weights go.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Guard,
    Exit,
    GuardAndExit,
}

/// Kilobytes a second that a relay counts for if the consensus gives no weight.
const DEFAULT_BANDWIDTH: u32 = 30;

/// Factors by position and kind of relay, each from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Factors {
    /// Plain, guard, exit, both.
    by_kind: [f64; 4],
    /// The same for relays that serve directories, to be multiplied in.
    by_kind_directory: [f64; 4],
}

const EVEN: [f64; 4] = [1.0; 4];

/// The weights of a consensus.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    guard: Factors,
    middle: Factors,
    exit: Factors,
    directory: Factors,
    use_guard_fraction: bool,
}

impl Weights {
    /// Reads the `bandwidth-weights` of a consensus. For a position of which a weight is missing or negative, plain
    /// bandwidth counts.
    pub fn new(consensus: &Consensus) -> Self {
        let scale = consensus.params.get(&BWWEIGHTSCALE);
        let weight = |name: &str| match name {
            "" => Some(0.0),
            _ => consensus
                .weights
                .raw(name)
                .filter(|w| *w >= 0)
                .map(|w| f64::from(w.min(scale)) / f64::from(scale)),
        };
        let four = |names: [&str; 4]| -> Option<[f64; 4]> {
            Some([weight(names[0])?, weight(names[1])?, weight(names[2])?, weight(names[3])?])
        };
        let directory = four(["Wmb", "Wgb", "Web", "Wdb"]);
        let factors = |names, directory: Option<[f64; 4]>| match four(names).zip(directory) {
            Some((by_kind, by_kind_directory)) => Factors { by_kind, by_kind_directory },
            None => Factors { by_kind: EVEN, by_kind_directory: EVEN },
        };
        Weights {
            guard: factors(["Wgm", "Wgg", "", "Wgd"], directory),
            middle: factors(["Wmm", "Wmg", "Wme", "Wmd"], directory),
            exit: factors(["Wem", "Weg", "Wee", "Wed"], directory),
            directory: factors(["Wbm", "Wbg", "Wbe", "Wbd"], Some(EVEN)),
            use_guard_fraction: consensus.params.is_on(&USE_GUARD_FRACTION),
        }
    }

    /// The weight of a relay in a position: its bandwidth in kilobytes a second, times the factors.
    pub fn of(&self, position: Position, relay: &RelayStatus) -> f64 {
        let factors = match position {
            Position::Guard => &self.guard,
            Position::Middle => &self.middle,
            Position::Exit => &self.exit,
            Position::Directory => &self.directory,
        };
        let exit = relay.flags.has(RelayFlags::EXIT) && !relay.flags.has(RelayFlags::BAD_EXIT);
        let (kind, without_guard) = match (relay.flags.has(RelayFlags::GUARD), exit) {
            (true, true) => (Kind::GuardAndExit, Kind::Exit),
            (true, false) => (Kind::Guard, Kind::Plain),
            (false, true) => (Kind::Exit, Kind::Exit),
            (false, false) => (Kind::Plain, Kind::Plain),
        };
        let directory = relay.flags.has(RelayFlags::V2_DIR);
        let factor = |kind: Kind| {
            let n = kind as usize;
            factors.by_kind[n] * if directory { factors.by_kind_directory[n] } else { 1.0 }
        };
        let bandwidth = f64::from(relay.bandwidth.unwrap_or(DEFAULT_BANDWIDTH));
        match relay.guard_fraction.filter(|_| self.use_guard_fraction && position != Position::Guard) {
            // A young guard still has room for what relays without the flag do (proposal 236).
            Some(percent) => {
                let share = f64::from(percent.min(100)) / 100.0;
                bandwidth * (share * factor(kind) + (1.0 - share) * factor(without_guard))
            }
            None => bandwidth * factor(kind),
        }
    }
}

/// Draws one of `list` with a probability proportional to its weight; if all weights are 0, any.
pub fn draw<T: Copy>(list: &[T], weight: impl Fn(&T) -> f64, rng: &mut (impl Rng + ?Sized)) -> Option<T> {
    // 53 bits fill a double's mantissa: from 0 up to, not including, 1.
    let mut unit = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let total: f64 = list.iter().map(&weight).sum();
    if total <= 0.0 {
        return list.get((unit() * list.len() as f64) as usize).copied();
    }
    let mut left = unit() * total;
    let mut chosen = None;
    for item in list {
        let weight = weight(item);
        if weight > 0.0 {
            // Rounding may leave a rest behind the last one that counts.
            chosen = Some(*item);
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
    }
    chosen
}
