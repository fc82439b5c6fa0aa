//! When what is done: consensuses begin at multiples of the interval since midnight UTC, and everything before that is
//! counted back from there (dir-spec 3.1.1 and 3.2).

use std::time::Duration;

use onionring_proto::netdoc::consensus::Lifetime;
use onionring_proto::time::Unix;

use crate::options::Timing;

const DAY: u64 = 24 * 60 * 60;

/// What slots are computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How often authorities vote as long as there is no consensus, which would say.
    pub initial: Timing,
    /// Added to the time at which each consensus begins.
    pub start_offset: Duration,
}

/// The times of one consensus. They never decrease from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Make the vote and post it.
    pub voting_starts: Unix,
    /// Ask for votes; from the next second on, posted ones are refused.
    pub fetch_votes: Unix,
    /// Compute the consensus, sign it, and post the signature.
    pub voting_ends: Unix,
    /// Ask for signatures.
    pub fetch_signatures: Unix,
    /// Publish the consensus, which begins now.
    pub valid_after: Unix,
}

impl Schedule {
    /// The next period whose consensus begins after `now`, even if voting for it is under way.
    ///
    /// `latest` is the newest consensus there is, and its voting delays in seconds. As long as it is valid, authorities
    /// vote as it says and not as each is configured. Nothing else is remembered from one period to the next, so that
    /// after a jump of the clock or a long sleep the same call finds the period that the others are in.
    pub fn next(&self, now: Unix, latest: Option<(Lifetime, (u32, u32))>) -> Period {
        let timing = match latest.filter(|(lifetime, _)| lifetime.is_valid(now)) {
            Some((lifetime, (vote, dist))) => Timing {
                interval: lifetime.fresh_until.since(lifetime.valid_after),
                vote_delay: Duration::from_secs(vote.into()),
                dist_delay: Duration::from_secs(dist.into()),
            },
            None => self.initial,
        };
        Period::after(now, timing, self.start_offset)
    }
}

impl Period {
    /// The period whose consensus is the first to begin after `now`.
    pub fn after(now: Unix, timing: Timing, start_offset: Duration) -> Period {
        let interval = timing.interval.as_secs().max(1);
        let (mut vote, mut dist) = (timing.vote_delay.as_secs(), timing.dist_delay.as_secs());
        if vote.saturating_add(dist) > interval / 2 {
            (vote, dist) = (interval / 4, interval / 4);
        }
        let start = start_after(now.0, interval, start_offset.as_secs());
        let before = |seconds: u64| Unix(start.saturating_sub(seconds));
        Period {
            voting_starts: before(dist + vote),
            fetch_votes: before(dist + vote / 2),
            voting_ends: before(dist),
            fetch_signatures: before(dist / 2),
            valid_after: Unix(start),
        }
    }
}

/// The first slot after `now`. Midnight always begins one. If the last slot of the day would be shorter than half an
/// interval, the one before it is put where it ends at midnight, as C tor does.
fn start_after(now: u64, interval: u64, offset: u64) -> u64 {
    let midnight = now - now % DAY;
    let tomorrow = midnight.saturating_add(DAY);
    let mut next = midnight.saturating_add((now % DAY / interval + 1).saturating_mul(interval)).min(tomorrow);
    if next.saturating_add(interval / 2) > tomorrow {
        next = tomorrow;
    }
    next = next.saturating_add(offset);
    // Midnight, or the offset, may be further away than an interval.
    match next.checked_sub(interval) {
        Some(earlier) if earlier > now => earlier,
        _ => next,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timing(interval: u64, vote: u64, dist: u64) -> Timing {
        let [interval, vote_delay, dist_delay] = [interval, vote, dist].map(Duration::from_secs);
        Timing { interval, vote_delay, dist_delay }
    }

    /// A midnight.
    const MIDNIGHT: u64 = 20_780 * DAY;

    fn at(seconds: u64) -> Unix {
        Unix(MIDNIGHT + seconds)
    }

    fn valid_after(now: u64, interval: u64, offset: u64) -> u64 {
        let period = Period::after(at(now), timing(interval, 2, 2), Duration::from_secs(offset));
        period.valid_after.0 - MIDNIGHT
    }

    #[test]
    fn public_network_votes_in_the_last_ten_minutes_of_the_hour() {
        let period = Period::after(at(3600), timing(3600, 300, 300), Duration::ZERO);
        let expected = Period {
            voting_starts: at(7200 - 600),
            fetch_votes: at(7200 - 450),
            voting_ends: at(7200 - 300),
            fetch_signatures: at(7200 - 150),
            valid_after: at(7200),
        };
        assert_eq!(period, expected);
        assert_eq!(Period::after(at(7199), timing(3600, 300, 300), Duration::ZERO), expected);
    }

    #[test]
    fn delays_that_do_not_fit_are_a_quarter_each() {
        let fits = Period::after(at(0), timing(20, 5, 5), Duration::ZERO);
        assert_eq!((fits.voting_starts, fits.voting_ends), (at(10), at(15)));
        let longer = Period::after(at(0), timing(20, 8, 3), Duration::ZERO);
        assert_eq!(longer, fits);
    }

    #[test]
    fn a_short_rest_of_the_day_is_no_slot() {
        // From 80000 on, 6400 seconds would be left.
        assert_eq!(valid_after(0, 40_000, 0), 40_000);
        assert_eq!(valid_after(40_000, 40_000, 0), 46_400);
        assert_eq!(valid_after(46_400, 40_000, 0), DAY);
        assert_eq!(valid_after(DAY, 40_000, 0), DAY + 40_000);
        // From 50000 on, 36400 are left, which is enough.
        assert_eq!(valid_after(0, 50_000, 0), 50_000);
        assert_eq!(valid_after(50_000, 50_000, 0), DAY);
    }

    #[test]
    fn offset_moves_slots() {
        assert_eq!(valid_after(0, 20, 5), 5);
        assert_eq!(valid_after(4, 20, 5), 5);
        assert_eq!(valid_after(5, 20, 5), 25);
    }

    #[test]
    fn a_valid_consensus_says_how_to_vote() {
        let schedule = Schedule { initial: timing(5, 2, 2), start_offset: Duration::ZERO };
        let lifetime = Lifetime { valid_after: at(0), fresh_until: at(20), valid_until: at(60) };
        let next = |now| schedule.next(at(now), Some((lifetime, (4, 3)))).valid_after;
        assert_eq!(next(1), at(20));
        assert_eq!(schedule.next(at(1), Some((lifetime, (4, 3)))).voting_starts, at(13));
        assert_eq!(next(60), at(80));
        assert_eq!(next(61), at(65), "after its end, the initial interval counts");
        assert_eq!(schedule.next(at(1), None).valid_after, at(5));
    }

    proptest! {
        #[test]
        fn instants_are_ordered_and_ahead(
            now in 0..u64::MAX, interval in 0..100_000u64, vote in 0..u64::from(u32::MAX),
            dist in 0..u64::from(u32::MAX), offset in 0..100_000u64,
        ) {
            let p = Period::after(Unix(now), timing(interval, vote, dist), Duration::from_secs(offset));
            prop_assert!(p.valid_after > Unix(now) || p.valid_after == Unix(u64::MAX));
            let instants = [p.voting_starts, p.fetch_votes, p.voting_ends, p.fetch_signatures, p.valid_after];
            prop_assert!(instants.is_sorted());
        }

        #[test]
        fn all_who_look_within_one_slot_find_the_same(
            start in 0..DAY,
            interval in prop_oneof![5..7200u64, prop::sample::select(vec![10, 20, 300, 1800, 3600])],
            offset in 0..5u64,
            later in any::<prop::sample::Index>(),
        ) {
            // If intervals do not fill the day and slots are moved, C tor, and so we, find one more before midnight when
            // looking between a slot and where it is moved to.
            let offset = if DAY.is_multiple_of(interval) { offset } else { 0 };
            let find = |now| Period::after(Unix(now), timing(interval, 2, 2), Duration::from_secs(offset));
            let first = find(MIDNIGHT + start);
            let ahead = first.valid_after.0 - (MIDNIGHT + start);
            prop_assert!(ahead <= interval + interval / 2 + offset);
            let now = MIDNIGHT + start + later.index(ahead as usize) as u64;
            prop_assert_eq!(find(now), first);
            prop_assert!(find(first.valid_after.0).valid_after > first.valid_after);
        }
    }
}
