//! Token buckets: an average rate, and a burst above it after a time of less use (the paper's 4.5, C tor's
//! `token_bucket.c`).
//!
//! A bucket is one number, the tokens taken since time 0, held against those that have come in by then. So there is no
//! refill to be timed, nothing is rounded away however often it is asked, and the number may be shared by threads.

use crate::time::Mono;

#[cfg(test)]
mod tests;

/// How fast tokens come in, and how many are kept.
///
/// A token is whatever is counted: a byte, a connection, a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second, at least 1.
    pub per_second: u64,
    /// Tokens that a full bucket holds, at least 1; what comes in beyond them is lost.
    pub burst: u64,
}

impl Rate {
    /// Tokens lost by `now` in a bucket that nobody touches.
    fn come(&self, now: Mono) -> u64 {
        let come = u128::from(self.per_second) * u128::from(now.0) / 1_000_000;
        u64::try_from(come).unwrap_or(u64::MAX / 2)
    }

    /// The tokens in a bucket from which `spent` were taken; below 0, they are owed.
    pub fn level(&self, spent: u64, now: Mono) -> i64 {
        let all = self.come(now).saturating_add(self.burst);
        let left = i128::from(all) - i128::from(self.settled(spent, now));
        i64::try_from(left).unwrap_or(i64::MIN)
    }

    /// `spent`, with what was lost because the bucket was full.
    pub fn settled(&self, spent: u64, now: Mono) -> u64 {
        spent.max(self.come(now))
    }

    /// When a bucket from which `spent` were taken holds `tokens`, or is full if it cannot hold so many.
    pub fn due(&self, spent: u64, tokens: u64) -> Mono {
        let missing = spent.saturating_add(tokens.min(self.burst)).saturating_sub(self.burst);
        let micros = (u128::from(missing) * 1_000_000).div_ceil(u128::from(self.per_second.max(1)));
        Mono(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// `spent` for a bucket that has held `level` tokens and has this rate from `now` on.
    pub fn spent_for(&self, level: i64, now: Mono) -> u64 {
        let all = self.come(now).saturating_add(self.burst);
        let burst = i64::try_from(self.burst).unwrap_or(i64::MAX);
        all.saturating_add_signed(level.min(burst).saturating_neg())
    }
}

/// A bucket of one owner.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    spent: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn full(rate: Rate) -> Bucket {
        // Whatever came in by now is settled at the first look.
        Bucket { rate, spent: 0 }
    }

    /// The tokens in it; below 0, they are owed.
    pub fn level(&self, now: Mono) -> i64 {
        self.rate.level(self.spent, now)
    }

    /// Whether nobody has taken anything for so long that it is full.
    pub fn is_full(&self, now: Mono) -> bool {
        self.spent <= self.rate.come(now)
    }

    /// Takes tokens, also those that are not there: they are owed then.
    pub fn charge(&mut self, now: Mono, tokens: u64) {
        self.spent = self.rate.settled(self.spent, now).saturating_add(tokens);
    }

    /// Takes one token if there is one.
    #[must_use]
    pub fn take_one(&mut self, now: Mono) -> bool {
        let some = self.level(now) > 0;
        if some {
            self.charge(now, 1);
        }
        some
    }

    /// When it holds `tokens`, or is full if it cannot hold so many.
    pub fn due(&self, tokens: u64) -> Mono {
        self.rate.due(self.spent, tokens)
    }

    /// Has another rate from now on. What is in the bucket stays, as far as the new burst allows.
    pub fn adjust(&mut self, rate: Rate, now: Mono) {
        if rate != self.rate {
            self.spent = rate.spent_for(self.level(now), now);
            self.rate = rate;
        }
    }
}
