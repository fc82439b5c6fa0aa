//! From what one and two shards cost to what more of them would do.
//!
//! A cell costs `cell` at its link and home, and `crossing + batch / cells in the batch` whenever it goes from one shard
//! to another; every turn of a shard looks at a lane to each other shard. With more shards
//!
//! - a cell crosses more often, up to twice;
//! - the cells of one turn are spread over more rings, so batches shrink;
//! - a turn looks at more lanes, `n²` rings in all, and they hold more memory when all of them are full;
//! - most other shards are beyond the cores that share a cache, where a line takes longer to come from;
//! - links and circuits of unequal weight spread less evenly: the fullest shard sets the pace. A link's TLS stays on one
//!   shard whatever the homes.
//!
//! The last two cannot be measured with two cores; they are assumptions, and named as such in what is printed.

use onionring_relay::engine::cross::Batch;
use onionring_relay::limits::{CROSSING_BATCH, CROSSING_RING};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::rig::Homes;

/// What was measured, in nanoseconds of CPU time, and what is assumed.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// A cell that crosses to no other shard, without TLS.
    pub cell: f64,
    /// TLS of a cell, in and out.
    pub tls: f64,
    /// One crossing of a cell.
    pub crossing: f64,
    /// One batch.
    pub batch: f64,
    /// One look at the lane to another shard.
    pub lane: f64,
    /// Cells that one turn takes in.
    pub turn: f64,
    /// Assumed: cores that share a cache.
    pub cores_per_cache: f64,
    /// Assumed: what a crossing beyond them costs over one among them.
    pub remote: f64,
}

/// What a relay of many shards would do.
#[derive(Clone, Copy, Debug)]
pub struct Prediction {
    /// Crossings of a cell.
    pub crossings: f64,
    /// Cells in a batch.
    pub batch: f64,
    /// Nanoseconds of a cell for all crossings.
    pub crossing: f64,
    /// Nanoseconds of a cell for looking at lanes.
    pub lanes: f64,
    /// Mean load of the shards over that of the fullest.
    pub balance: f64,
    /// Throughput over that of one shard: without TLS, as the engine benchmark measures it, if all were equally full.
    pub engine: f64,
    /// Throughput over that of one shard: with TLS, and the fullest shard setting the pace.
    pub relay: f64,
    /// Bytes in all rings when all are full.
    pub ring_bytes: f64,
}

impl Costs {
    /// Fits `crossing` and `batch` to measurements at other sizes of batches: pairs of cells in a batch and nanoseconds
    /// of a crossing.
    pub fn fit(points: &[(f64, f64)]) -> (f64, f64) {
        let n = points.len() as f64;
        let mean = |f: fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
        let (x, y) = (mean(|p| 1.0 / p.0), mean(|p| p.1));
        let covariance: f64 = points.iter().map(|p| (1.0 / p.0 - x) * (p.1 - y)).sum();
        let variance: f64 = points.iter().map(|p| (1.0 / p.0 - x).powi(2)).sum();
        // Noise may turn it around; nothing costs less than nothing.
        let batch = (covariance / variance).max(0.0);
        (batch.mul_add(-x, y).max(0.0), batch)
    }

    /// What `shards` shards would do.
    pub fn predict(&self, shards: u16, homes: Homes) -> Prediction {
        let n = f64::from(shards);
        let legs = if homes == Homes::Hash { 2.0 } else { 1.0 };
        let crossings = legs * (1.0 - 1.0 / n);
        let batch = (crossings * self.turn / (n - 1.0)).clamp(1.0, CROSSING_BATCH as f64);
        let far = ((n - self.cores_per_cache) / (n - 1.0)).max(0.0);
        let crossing = crossings * (self.crossing + self.batch / batch) * (1.0 + far * (self.remote - 1.0));
        let lanes = self.lane * (n - 1.0) / self.turn;
        let balance = self.balance(shards, homes);
        let more = crossing + lanes;
        Prediction {
            crossings,
            batch,
            crossing,
            lanes,
            balance,
            engine: n * self.cell / (self.cell + more),
            relay: n * balance * (self.cell + self.tls) / (self.cell + self.tls + more),
            ring_bytes: n * (n - 1.0) * (CROSSING_RING * Batch::BYTES) as f64,
        }
    }

    /// Mean load over the fullest shard's, for the links and circuits of a busy relay with weights of a Pareto
    /// distribution, on average over some draws.
    fn balance(&self, shards: u16, homes: Homes) -> f64 {
        const DRAWS: u64 = 20;
        const LINKS: usize = 3_000;
        const CIRCUITS: usize = 10_000;
        // Half of a cell's cost is that of its links, the other half is its circuit's.
        let (at_link, at_home) = (self.tls + self.cell / 2.0, self.cell / 2.0);
        let draw = |seed| {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let mut shard = |of: usize| rng.next_u32() as usize % of;
            let links: Vec<usize> = (0..LINKS).map(|_| shard(shards.into())).collect();
            let mut load = vec![0.0; shards.into()];
            for _ in 0..CIRCUITS {
                let weight = pareto(shard(1 << 24));
                let (from, to) =
                    (links[popular(shard(1 << 24), LINKS)], links[popular(shard(1 << 24), LINKS)]);
                let home = if homes == Homes::Hash { shard(shards.into()) } else { from };
                load[from] += weight * at_link / 2.0;
                load[to] += weight * at_link / 2.0;
                load[home] += weight * at_home;
            }
            let fullest = load.iter().copied().fold(0.0, f64::max);
            load.iter().sum::<f64>() / f64::from(shards) / fullest
        };
        (0..DRAWS).map(draw).sum::<f64>() / DRAWS as f64
    }
}

/// A weight between 1 and 1,000: many mice, few elephants.
fn pareto(random: usize) -> f64 {
    let uniform = (random as f64 + 1.0) / f64::from(1 << 24);
    (1.0 / uniform).powf(1.0 / 1.1).min(1_000.0)
}

/// One of `n` links, those first the most wanted: bandwidth of relays is spread about like that.
fn popular(random: usize, n: usize) -> usize {
    let uniform = random as f64 / f64::from(1 << 24);
    (uniform * uniform * n as f64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_finds_what_made_the_points() {
        let points: Vec<_> = [2.0, 8.0, 32.0].iter().map(|&batch| (batch, 100.0 + 240.0 / batch)).collect();
        let (crossing, batch) = Costs::fit(&points);
        assert!((crossing - 100.0).abs() < 1e-6 && (batch - 240.0).abs() < 1e-6, "{crossing} {batch}");
    }

    #[test]
    fn two_shards_come_out_as_they_went_in() {
        let costs = Costs {
            cell: 350.0,
            tls: 0.0,
            crossing: 100.0,
            batch: 0.0,
            lane: 0.0,
            turn: 512.0,
            cores_per_cache: 8.0,
            remote: 3.0,
        };
        let two = costs.predict(2, Homes::Hash);
        assert_eq!(two.crossings, 1.0);
        assert!((two.engine - 2.0 * 350.0 / 450.0).abs() < 1e-9, "{two:?}");
        assert!(costs.predict(2, Homes::Link).engine > two.engine);
        assert!(two.balance <= 1.0 && costs.predict(64, Homes::Hash).balance < two.balance);
    }
}
