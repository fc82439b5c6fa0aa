//! Bandwidth limits of the whole relay, over all shards.
//!
//! Each limit is one [`Pool`], a token bucket in a single atomic number. A shard does not go there for every record: it
//! takes a chunk at a time into a [`Share`] of its own, which is plain arithmetic to spend. Chunks are
//! so small that what all shards hold of them is no more than a [`limits::RATE_ROUND`] of the rate. When the pool is
//! nearly empty, each shard gets one chunk in a round, and more only while there is enough left for the others: so
//! shards that want much leave something for those that come later, and lose nothing to those that want nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use onionring_proto::cell::LinkVersion;
use onionring_proto::rate::Rate;
use onionring_proto::relay_msg::MAX_DATA_LEN;
use onionring_proto::time::Mono;

use crate::limits;

#[cfg(test)]
mod tests;

/// The limits that operator and consensus set, in bytes a second for each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Everything together (`BandwidthRate`, `BandwidthBurst`).
    pub all: Rate,
    /// [`Traffic::Relayed`] alone (`RelayBandwidthRate`, `RelayBandwidthBurst`); `None` if `all` bounds it anyway.
    pub relayed: Option<Rate>,
    /// Each link with a peer that is no relay of the consensus (`PerConnBWRate`, `PerConnBWBurst`).
    pub per_link: Option<Rate>,
    /// Whether connections with private addresses count too (`CountPrivateBandwidth`).
    pub count_private: bool,
}

impl RateLimits {
    /// C tor's default of `BandwidthRate` and `BandwidthBurst`, 1 GB.
    pub const DEFAULT: Rate = Rate { per_second: 1 << 30, burst: 1 << 30 };
}

impl Default for RateLimits {
    fn default() -> Self {
        RateLimits { all: Self::DEFAULT, relayed: None, per_link: None, count_private: false }
    }
}

/// The two directions, which are limited separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What comes in.
    Read = 0,
    /// What goes out.
    Write = 1,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub const BOTH: [Direction; 2] = [Direction::Read, Direction::Write];
}

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Those of links, their TLS handshakes, and the DirPort: they count for `RelayBandwidthRate` and `BandwidthRate`.
    Relayed,
    /// Those of a connection to a stream's destination: they count for `BandwidthRate`.
    Exit,
}

/// The limits in force, with what is left of them; shared by all shards.
#[derive(Debug)]
pub struct Rates {
    limits: RateLimits,
    /// Read and write.
    pub(crate) all: [Pool; 2],
    pub(crate) relayed: Option<[Pool; 2]>,
}

impl Rates {
    /// Full buckets for `shards` shards.
    pub fn new(limits: RateLimits, shards: u16) -> Rates {
        let pools = |rate| Direction::BOTH.map(|_| Pool::full(rate, shards));
        Rates { limits, all: pools(limits.all), relayed: limits.relayed.map(pools) }
    }

    /// What is to be kept.
    pub fn limits(&self) -> &RateLimits {
        &self.limits
    }

    /// Other limits from `now` on; what is in the buckets stays, as far as the new bursts allow.
    pub fn adjusted(&self, limits: RateLimits, now: Mono) -> Rates {
        let follow = |pools: &[Pool; 2], rate| pools.each_ref().map(|pool| pool.adjusted(rate, now));
        // A limit that is new begins with what there was without it.
        let relayed = limits.relayed.map(|rate| follow(self.relayed.as_ref().unwrap_or(&self.all), rate));
        Rates { limits, all: follow(&self.all, limits.all), relayed }
    }
}

/// A token bucket from which several shards take.
#[derive(Debug)]
pub struct Pool {
    rate: Rate,
    shards: u16,
    spent: AtomicU64,
}

impl Pool {
    /// A full bucket for `shards` shards.
    pub fn full(rate: Rate, shards: u16) -> Pool {
        Pool { rate, shards, spent: AtomicU64::new(0) }
    }

    fn adjusted(&self, rate: Rate, now: Mono) -> Pool {
        let level = self.rate.level(self.spent.load(Ordering::Relaxed), now);
        Pool { rate, shards: self.shards, spent: AtomicU64::new(rate.spent_for(level, now)) }
    }

    /// What a shard takes at once: its part of what comes in during a round.
    fn chunk(&self) -> u64 {
        let round = u128::from(self.rate.per_second) * limits::RATE_ROUND.as_micros() / 1_000_000;
        let part = u64::try_from(round).unwrap_or(u64::MAX) / u64::from(self.shards);
        part.clamp(1, self.rate.burst)
    }

    /// Takes all of `want`, if `keep` is left then, or nothing.
    fn take(&self, now: Mono, want: u64, keep: u64) -> bool {
        // The number stands for itself only, so no other memory need be in order with it.
        let take = |spent| {
            let enough = i128::from(self.rate.level(spent, now)) >= i128::from(want) + i128::from(keep);
            enough.then(|| self.rate.settled(spent, now).saturating_add(want))
        };
        self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// What one shard has of a [`Pool`].
#[derive(Debug, Default)]
pub struct Share {
    /// Below 0, the shard owes it: a record is not cut short for the last byte.
    left: i64,
    /// The round in which it last took a chunk, counted from 1.
    round: u64,
}

impl Share {
    /// How many bytes may be moved now; takes more from the pool if need be. 0 means to wait until [`Share::due`].
    pub fn available(&mut self, pool: &Pool, now: Mono) -> u64 {
        if self.left <= 0 {
            let round = 1 + now.0 / limits::RATE_ROUND.as_micros() as u64;
            let others = if round == self.round { u64::from(pool.shards) - 1 } else { 0 };
            let want = self.want(pool);
            if pool.take(now, want, others * pool.chunk()) {
                self.left += want as i64;
                self.round = round;
            }
        }
        // The last bytes do for a cell, and what is missing is owed.
        if self.left <= 0 { 0 } else { (self.left as u64).max(limits::RATE_LEAST) }
    }

    /// A chunk, and what is owed; of that, as much as the pool can hold.
    fn want(&self, pool: &Pool) -> u64 {
        let owed = if self.left < 0 { self.left.unsigned_abs() } else { 0 };
        (pool.chunk() + owed).min(pool.rate.burst)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.left <= 0
    }

    /// `bytes` have been moved.
    pub fn charge(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub_unsigned(bytes);
    }

    /// When to ask again: the pool has enough, and another round has begun.
    pub fn due(&self, pool: &Pool) -> Mono {
        let next_round = Mono(self.round * limits::RATE_ROUND.as_micros() as u64);
        next_round.max(pool.rate.due(pool.spent.load(Ordering::Relaxed), self.want(pool)))
    }
}

/// What one shard has of the limits in one direction.
#[derive(Debug, Default)]
pub struct Part {
    all: Share,
    relayed: Share,
}

impl Part {
    /// How many bytes of such traffic may be moved now; 0 means to wait until [`Part::due`].
    pub fn available(&mut self, rates: &Rates, direction: Direction, traffic: Traffic, now: Mono) -> u64 {
        let bytes = self.all.available(&rates.all[direction as usize], now);
        match (traffic, &rates.relayed) {
            (Traffic::Relayed, Some(relayed)) => {
                bytes.min(self.relayed.available(&relayed[direction as usize], now))
            }
            _ => bytes,
        }
    }

    /// Whether nothing was left of the limit of all traffic.
    pub fn all_is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Bytes have been moved.
    pub fn charge(&mut self, rates: &Rates, traffic: Traffic, bytes: u64) {
        self.all.charge(bytes);
        if traffic == Traffic::Relayed && rates.relayed.is_some() {
            self.relayed.charge(bytes);
        }
    }

    /// When to ask again for such traffic.
    pub fn due(&self, rates: &Rates, direction: Direction, traffic: Traffic, now: Mono) -> Mono {
        let later = |share: &Share, pool| if share.is_empty() { share.due(pool) } else { now };
        let all = later(&self.all, &rates.all[direction as usize]);
        let due = match (traffic, &rates.relayed) {
            (Traffic::Relayed, Some(relayed)) => all.max(later(&self.relayed, &relayed[direction as usize])),
            _ => all,
        };
        // Never now: who asks would ask without end.
        due.max(now + limits::RATE_ROUND / 10)
    }
}

/// What reading `len` bytes of a stream costs: as much as the cells they will fill, however full those are (the
/// paper's 4.5).
pub fn packaged(len: usize) -> u64 {
    (len.div_ceil(MAX_DATA_LEN) * LinkVersion::V5.cell_len()) as u64
}

/// How many bytes of a stream may be read for so much: whole cells, for a cell with less in it costs the same, and uses
/// up as much of the client's window. That may be a part of a cell too much, which [`packaged`] then charges.
pub fn payload(bandwidth: usize) -> usize {
    bandwidth.div_ceil(LinkVersion::V5.cell_len()) * MAX_DATA_LEN
}
