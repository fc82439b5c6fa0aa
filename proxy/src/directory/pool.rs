//! Directories that the configuration names, each with a weight and a retry delay of its own.

use std::time::Duration;

use onionring_proto::dir::backoff::{Backoff, Delays};
use onionring_proto::path::draw;
use onionring_proto::time::Mono;
use rand::Rng;

use super::transport::Route;

/// A directory that the configuration names.
#[derive(Clone, Debug)]
pub struct Known {
    /// What to call it in logs.
    pub name: String,
    /// How to reach it.
    pub route: Route,
    /// How often it is chosen, compared with others.
    pub weight: f64,
}

/// Some of them, from which one is drawn by weight.
pub struct Pool {
    members: Vec<Member>,
    delays: Delays,
}

struct Member {
    known: Known,
    backoff: Backoff,
    busy: bool,
}

impl Pool {
    /// These, none of them tried yet.
    pub fn new(known: impl IntoIterator<Item = Known>, delays: Delays) -> Pool {
        let member = |known| Member { known, backoff: Backoff::default(), busy: false };
        Pool { members: known.into_iter().map(member).collect(), delays }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The member with this number.
    pub fn get(&self, n: usize) -> Option<&Known> {
        self.members.get(n).map(|member| &member.known)
    }

    /// Draws one that may be asked now; it counts as asked until [`Pool::done`] says how that went.
    pub fn pick(&mut self, now: Mono, rng: &mut impl Rng) -> Option<usize> {
        let ready = |member: &Member| !member.busy && member.backoff.is_ready(now);
        let ready: Vec<usize> = (0..self.members.len()).filter(|&n| ready(&self.members[n])).collect();
        let n = draw(&ready, |&n| self.members[n].known.weight, rng)?;
        self.members[n].busy = true;
        Some(n)
    }

    /// Takes member `n`, if it may be asked now.
    pub fn pick_this(&mut self, n: usize, now: Mono) -> Option<&Known> {
        let member = self.members.get_mut(n).filter(|member| !member.busy && member.backoff.is_ready(now))?;
        member.busy = true;
        Some(&member.known)
    }

    /// What was asked of member `n` is over: it answered, or not.
    pub fn done(&mut self, n: usize, answered: bool, now: Mono, rng: &mut impl Rng) {
        let delays = self.delays;
        let Some(member) = self.members.get_mut(n) else { return };
        member.busy = false;
        if answered {
            member.backoff.succeeded();
        } else {
            member.backoff.failed(&delays, now, rng);
        }
    }

    /// What was asked of member `n` does not matter any more.
    pub fn let_go(&mut self, n: usize) {
        if let Some(member) = self.members.get_mut(n) {
            member.busy = false;
        }
    }

    /// How long until one may be asked that may not be now; `None` if that is not a matter of time.
    pub fn next_ready(&self, now: Mono) -> Option<Duration> {
        let waits = self.members.iter().filter(|m| !m.busy).map(|m| m.backoff.ready_at().since(now));
        waits.min()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn pool(weights: &[f64]) -> Pool {
        let known = weights.iter().enumerate().map(|(n, &weight)| Known {
            name: n.to_string(),
            route: Route::DirPort(([127, 0, 0, 1], 1).into()),
            weight,
        });
        Pool::new(known, Delays::NORMAL)
    }

    #[test]
    fn weights_decide_and_failures_wait() {
        let mut rng = StdRng::seed_from_u64(1);
        let now = Mono(0);
        let mut pool = pool(&[1.0, 9.0, 0.0]);
        let mut drawn = [0; 3];
        for _ in 0..1000 {
            let n = pool.pick(now, &mut rng).unwrap();
            drawn[n] += 1;
            pool.done(n, true, now, &mut rng);
        }
        assert!((50..200).contains(&drawn[0]) && drawn[2] == 0, "{drawn:?}");
        let mut all: Vec<_> = (0..3).map(|_| pool.pick(now, &mut rng).unwrap()).collect();
        all.sort_unstable();
        assert_eq!((all, pool.pick(now, &mut rng)), (vec![0, 1, 2], None));
        pool.done(1, false, now, &mut rng);
        assert_eq!(pool.pick(now, &mut rng), None);
        let wait = pool.next_ready(now).unwrap();
        assert!(wait > Duration::ZERO);
        assert_eq!(pool.pick(now + wait, &mut rng), Some(1));
        pool.let_go(0);
        assert_eq!(pool.pick(now, &mut rng), Some(0));
        assert!(pool.pick_this(0, now).is_none());
        pool.let_go(0);
        assert!(pool.pick_this(0, now).is_some() && pool.pick_this(0, now).is_none());
    }

    #[test]
    fn there_may_be_none() {
        let mut pool = pool(&[]);
        assert!(pool.is_empty() && pool.pick(Mono(0), &mut rand::rng()).is_none());
        assert_eq!(pool.next_ready(Mono(0)), None);
    }
}
