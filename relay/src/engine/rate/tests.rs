use std::time::Duration;

use super::*;

const MB: u64 = 1 << 20;

/// Shards that want so many bytes in every millisecond, or none at all; takes turns, as threads would by chance.
struct Sim {
    pool: Pool,
    shares: Vec<Share>,
    moved: Vec<u64>,
    now: Mono,
}

impl Sim {
    fn new(rate: Rate, shards: u16) -> Sim {
        let shares = (0..shards).map(|_| Share::default()).collect();
        Sim { pool: Pool::full(rate, shards), shares, moved: vec![0; shards.into()], now: Mono(12_345_678) }
    }

    /// `demand` gives the bytes that a shard wants in a millisecond.
    fn run(&mut self, seconds: u64, demand: impl Fn(usize, Mono) -> u64) -> u64 {
        let before: u64 = self.moved.iter().sum();
        let mut backlog = vec![0; self.shares.len()];
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            let first = (self.now.0 / 1000) as usize % self.shares.len();
            for turn in 0..self.shares.len() {
                let shard = (first + turn) % self.shares.len();
                backlog[shard] += demand(shard, self.now);
                // In records.
                loop {
                    let record = self.shares[shard].available(&self.pool, self.now).min(16 * 1024);
                    let record = record.min(backlog[shard]);
                    if record == 0 {
                        break;
                    }
                    self.shares[shard].charge(record);
                    backlog[shard] -= record;
                    self.moved[shard] += record;
                }
            }
            self.now = self.now + Duration::from_millis(1);
        }
        self.moved.iter().sum::<u64>() - before
    }
}

fn within_a_percent(moved: u64, expected: u64, rate: u64, shards: u16) {
    let what = format!("{moved} bytes instead of {expected} at {rate} on {shards} shards");
    assert!(moved.abs_diff(expected) * 100 <= expected, "{what}");
}

#[test]
fn the_rate_holds_at_any_number_of_shards_and_however_uneven_the_demand_is() {
    for rate in [75 * 1024, MB, 20 * MB, 1 << 30] {
        for shards in [1u16, 2, 4, 16] {
            let demands: [&dyn Fn(usize, Mono) -> u64; 4] = [
                // All of it on one shard; ten times as much from each as from the one before; in turns; alike.
                &|shard, _| if shard == 0 { rate / 100 } else { 0 },
                &|shard, _| rate / 100 / 10u64.pow(shard.min(3) as u32) + 1,
                &|shard, now| {
                    if now.0 / 100_000 % u64::from(shards) == shard as u64 { rate / 100 } else { 0 }
                },
                &|_, _| rate / 200,
            ];
            for demand in demands {
                let mut sim = Sim::new(Rate { per_second: rate, burst: rate }, shards);
                // First the burst and the rate, then the rate alone.
                within_a_percent(sim.run(10, demand), 11 * rate, rate, shards);
                within_a_percent(sim.run(10, demand), 10 * rate, rate, shards);
            }
        }
    }
}

#[test]
fn a_time_of_idleness_is_made_up_for_as_far_as_the_burst_allows() {
    for shards in [1, 2, 4, 16] {
        let mut sim = Sim::new(Rate { per_second: MB, burst: 4 * MB }, shards);
        let all = |_: usize, _: Mono| MB / 10;
        within_a_percent(sim.run(10, all), 14 * MB, MB, shards);
        assert_eq!(sim.run(2, |_, _| 0), 0);
        within_a_percent(sim.run(10, all), 12 * MB, MB, shards);
        assert_eq!(sim.run(100, |_, _| 0), 0);
        within_a_percent(sim.run(10, all), 14 * MB, MB, shards);
    }
}

#[test]
fn shards_that_want_more_than_their_part_get_like_parts() {
    let mut sim = Sim::new(Rate { per_second: 10 * MB, burst: 10 * MB }, 4);
    sim.run(20, |shard, _| if shard == 3 { 1000 } else { MB });
    // The small one gets what it wants, the others a third of the rest each.
    assert!(sim.moved[3] >= 20 * 1000 * 1000 - 16 * 1024, "{:?}", sim.moved);
    let third = sim.moved[..3].iter().sum::<u64>() / 3;
    assert!(sim.moved[..3].iter().all(|moved| moved.abs_diff(third) * 4 < third), "{:?}", sim.moved);
}

#[test]
fn whoever_waits_gets_something_when_it_is_due() {
    let pool = Pool::full(Rate { per_second: MB, burst: MB }, 4);
    let mut share = Share::default();
    let mut now = Mono(1_000_000);
    for _ in 0..100 {
        while share.available(&pool, now) > 0 {
            share.charge(600);
        }
        let due = share.due(&pool);
        assert!(due > now && due.since(now) <= Duration::from_millis(20), "{:?}", due.since(now));
        now = due;
        assert!(share.available(&pool, now) > 0);
    }
}

#[test]
fn what_is_owed_is_paid_even_if_it_is_more_than_a_full_bucket() {
    let pool = Pool::full(Rate { per_second: 100_000, burst: 100_000 }, 2);
    let mut share = Share::default();
    assert!(share.available(&pool, Mono(0)) > 0);
    share.charge(300_000);
    let mut now = Mono(0);
    while share.available(&pool, now) == 0 {
        now = share.due(&pool).max(Mono(now.0 + 1));
    }
    assert!((1_900_000..2_200_000).contains(&now.0), "{now:?}");
}

#[test]
fn new_limits_keep_what_is_there() {
    let limits = |rate| RateLimits { all: Rate { per_second: rate, burst: rate }, ..RateLimits::default() };
    let rates = Rates::new(limits(MB), 1);
    let now = Mono(5_000_000);
    assert!(rates.all[0].take(now, MB, 0));
    let slower = rates.adjusted(limits(100_000), now);
    assert!(!slower.all[0].take(now, 1, 0));
    assert!(slower.all[1].take(now, 100_000, 0) && !slower.all[1].take(now, 1, 0));
    let relayed = RateLimits { relayed: Some(Rate { per_second: 100_000, burst: 100_000 }), ..limits(MB) };
    let both = rates.adjusted(relayed, now);
    let [read, write] = both.relayed.as_ref().unwrap();
    assert!(!read.take(now, 1, 0) && write.take(now, 100_000, 0));
}

#[test]
fn a_cell_that_is_not_full_counts_as_one() {
    assert_eq!([0, 1, 498, 499, 996].map(packaged), [0, 514, 514, 1028, 1028]);
    assert_eq!([0, 1, 514, 515, 1028].map(payload), [0, 498, 498, 996, 996]);
}
