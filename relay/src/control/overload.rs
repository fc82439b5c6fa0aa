//! When the relay was overloaded last, for directory authorities (proposal 328, dir-spec 2.1; rules of C tor 0.4.9).
//!
//! Fed once a second with what all shards have counted. Nothing is kept over a restart, and an event alone makes no new
//! descriptor: it is told in the next one.

use std::time::Duration;

use onionring_proto::netdoc::params::{self, ConsensusParams};
use onionring_proto::netdoc::text::format_time;
use onionring_proto::rate::Rate;
use onionring_proto::time::Unix;
use tracing::info;

use crate::engine::counters::Counters;
use crate::io::shard::IoCounters;

/// How long a general overload and the want of file descriptors are told.
const TOLD: Duration = Duration::from_secs(72 * 3600);
/// How long it is told that the bandwidth was used up.
const BANDWIDTH_TOLD: Duration = Duration::from_secs(24 * 3600);
/// How long after an event the relay counts as overloaded: no scrape of its metrics is to miss it.
const LASTS: Duration = Duration::from_secs(60);
/// Times at which the bandwidth is used up are counted at most once in this time.
const BANDWIDTH_COUNTED: Duration = Duration::from_secs(60);
/// Of fewer ntor handshakes no share is taken.
const NTOR_LEAST: u64 = 1000;
/// The whole, in the unit of the share that the consensus allows to be dropped: thousandths of a percent.
const NTOR_WHOLE: u64 = 100_000;

/// The kinds of overload that directory authorities know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory or local ports ran out, or too many circuit handshakes were dropped.
    General = 0,
    /// `BandwidthRate` was used up.
    RateLimits = 1,
    /// File descriptors ran out.
    FilesExhausted = 2,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Kind; 3] = [Kind::General, Kind::RateLimits, Kind::FilesExhausted];

    /// In metrics, after the line that tells it.
    pub fn label(self) -> &'static str {
        match self {
            Kind::General => "general",
            Kind::RateLimits => "ratelimits",
            Kind::FilesExhausted => "fd_exhausted",
        }
    }

    /// How long it is told.
    fn told_for(self) -> Duration {
        match self {
            Kind::RateLimits => BANDWIDTH_TOLD,
            Kind::General | Kind::FilesExhausted => TOLD,
        }
    }
}

/// Totals since the start of the relay, of all shards together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Circuits closed because the memory for queues ran out.
    pub circuits_shed: u64,
    /// Connections for which there was no local port.
    pub ports_exhausted: u64,
    /// Connections for which there was no file descriptor.
    pub files_exhausted: u64,
    /// Times that `BandwidthRate` was found used up, reading and writing.
    pub bandwidth: [u64; 2],
    /// ntor handshakes that relays asked for, and those of them that were dropped for want of room.
    pub ntor: [u64; 2],
}

impl Totals {
    /// Adds what a shard has counted.
    pub fn add(&mut self, engine: &Counters, io: &IoCounters) {
        self.circuits_shed += engine.circuits_shed;
        self.ports_exhausted += io.ports_exhausted;
        self.files_exhausted += io.files_exhausted;
        for (sum, reached) in self.bandwidth.iter_mut().zip(io.rate_reached) {
            *sum += reached.all_used_up;
        }
        self.ntor[0] += engine.relay_ntor;
        self.ntor[1] += engine.relay_ntor_shed;
    }
}

/// When dropped ntor handshakes are an overload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NtorLimits {
    /// The time over which they are counted, or longer if there are few.
    pub period: Duration,
    /// From which share of all on, in thousandths of a percent.
    pub share: u64,
}

impl NtorLimits {
    /// What the consensus says.
    pub fn new(network: &ConsensusParams) -> NtorLimits {
        let number = |param| network.get(param).unsigned_abs().into();
        NtorLimits {
            period: Duration::from_secs(number(&params::OVERLOAD_ONIONSKIN_NTOR_PERIOD_SECS)),
            share: number(&params::OVERLOAD_ONIONSKIN_NTOR_SCALE_PERCENT),
        }
    }
}

/// How often the bandwidth was used up in one direction.
#[derive(Clone, Copy, Debug, Default)]
struct UsedUp {
    count: u64,
    last: Option<Unix>,
}

impl UsedUp {
    fn note(&mut self, now: Unix) {
        if self.last.is_none_or(|last| now.since(last) >= BANDWIDTH_COUNTED) {
            self.count += 1;
            self.last = Some(now);
        }
    }
}

/// When the relay was overloaded last.
#[derive(Clone, Debug, Default)]
pub struct Overload {
    /// The totals at the last look.
    seen: Totals,
    /// When ntor handshakes began to be counted, and their totals then.
    ntor: Option<(Unix, [u64; 2])>,
    /// The last events, by [`Kind`].
    last: [Option<Unix>; Kind::ALL.len()],
    used_up: [UsedUp; 2],
}

impl Overload {
    /// Takes the totals of this moment.
    pub fn observe(&mut self, now: Unix, totals: Totals, limits: NtorLimits) {
        let seen = std::mem::replace(&mut self.seen, totals);
        let ntor_dropped = self.too_many_ntor_dropped(now, totals.ntor, limits);
        if totals.circuits_shed > seen.circuits_shed
            || totals.ports_exhausted > seen.ports_exhausted
            || ntor_dropped
        {
            self.note(Kind::General, now);
        }
        for (direction, used_up) in self.used_up.iter_mut().enumerate() {
            if totals.bandwidth[direction] > seen.bandwidth[direction] {
                used_up.note(now);
                self.last[Kind::RateLimits as usize] = Some(now);
            }
        }
        if totals.files_exhausted > seen.files_exhausted {
            self.note(Kind::FilesExhausted, now);
        }
    }

    fn note(&mut self, kind: Kind, now: Unix) {
        self.last[kind as usize] = Some(now);
    }

    /// At the end of a period: whether too many were dropped in it. Another begins then, with the first look too.
    fn too_many_ntor_dropped(&mut self, now: Unix, totals: [u64; 2], limits: NtorLimits) -> bool {
        let (since, before) = *self.ntor.get_or_insert((now, totals));
        let asked = totals[0].saturating_sub(before[0]);
        let dropped = totals[1].saturating_sub(before[1]);
        if now.since(since) < limits.period || asked < NTOR_LEAST {
            return false;
        }
        self.ntor = Some((now, totals));
        let too_many = dropped.saturating_mul(NTOR_WHOLE) >= asked.saturating_mul(limits.share);
        if too_many {
            info!("overloaded: {dropped} of {asked} circuit handshakes of other relays were dropped");
        }
        too_many
    }

    /// Whether the relay is overloaded, or was a moment ago.
    pub fn lasts(&self, kind: Kind, now: Unix) -> bool {
        self.last[kind as usize].is_some_and(|at| now.since(at) < LASTS)
    }

    /// The hour of the last overload, as long as authorities are told of it: nobody is to see more of the relay's day.
    pub fn told(&self, kind: Kind, now: Unix) -> Option<Unix> {
        let hour = self.last[kind as usize].map(|at| Unix(at.0 - at.0 % 3600))?;
        (now.since(hour) < kind.told_for()).then_some(hour)
    }

    /// The lines of the extra-info, in C tor's order; `limit` is `BandwidthRate` and `BandwidthBurst`.
    pub fn lines(&self, now: Unix, limit: Rate) -> Vec<String> {
        let Rate { per_second, burst } = limit;
        let [read, written] = self.used_up.map(|direction| direction.count);
        let bandwidth = self.told(Kind::RateLimits, now).map(|hour| {
            format!("overload-ratelimits 1 {} {per_second} {burst} {read} {written}", format_time(hour))
        });
        let files = self
            .told(Kind::FilesExhausted, now)
            .map(|hour| format!("overload-fd-exhausted 1 {}", format_time(hour)));
        bandwidth.into_iter().chain(files).collect()
    }
}

#[cfg(test)]
mod tests;
