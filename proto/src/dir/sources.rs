//! Where to ask: a set of directories, each with its own retry delay.

use rand_core::Rng;

use super::backoff::{Backoff, Delays, below};
use crate::time::Mono;

/// Requests under way at one directory, at most; further ones wait or go elsewhere.
pub const REQUESTS_PER_SOURCE: usize = 2;

/// The directories to choose from; `K` names one.
#[derive(Clone, Debug)]
pub struct Sources<K> {
    list: Vec<Source<K>>,
    delays: Delays,
}

#[derive(Clone, Debug)]
struct Source<K> {
    key: K,
    backoff: Backoff,
    under_way: usize,
}

impl<K: Clone + PartialEq> Sources<K> {
    /// These directories, none of them tried yet.
    pub fn new(keys: impl IntoIterator<Item = K>, delays: Delays) -> Self {
        let mut sources = Sources { list: Vec::new(), delays };
        sources.replace(keys);
        sources
    }

    /// Changes the set; those that stay keep their state.
    pub fn replace(&mut self, keys: impl IntoIterator<Item = K>) {
        let mut old = std::mem::take(&mut self.list);
        for key in keys {
            let known = old.iter().position(|s| s.key == key).map(|n| old.swap_remove(n));
            self.list.push(known.unwrap_or(Source { key, backoff: Backoff::default(), under_way: 0 }));
        }
    }

    /// A random one among those that may be asked now and have the fewest requests under way; it counts as asked
    /// until [`Sources::succeeded`] or [`Sources::failed`] says how it went.
    pub fn pick(&mut self, now: Mono, rng: &mut (impl Rng + ?Sized)) -> Option<K> {
        let ready = |s: &Source<K>| s.backoff.is_ready(now) && s.under_way < REQUESTS_PER_SOURCE;
        let least = self.list.iter().filter(|s| ready(s)).map(|s| s.under_way).min()?;
        let mut choice: Vec<&mut Source<K>> =
            self.list.iter_mut().filter(|s| ready(s) && s.under_way == least).collect();
        let n = below(choice.len() as u64, rng) as usize;
        let source = choice.get_mut(n)?;
        source.under_way += 1;
        Some(source.key.clone())
    }

    /// A request to it was answered, whatever the answer.
    pub fn succeeded(&mut self, key: &K) {
        if let Some(source) = self.list.iter_mut().find(|s| s.key == *key) {
            source.under_way = source.under_way.saturating_sub(1);
            source.backoff.succeeded();
        }
    }

    /// A request to it failed: no connection, no answer, or one that is no use to anyone.
    pub fn failed(&mut self, key: &K, now: Mono, rng: &mut (impl Rng + ?Sized)) {
        let delays = self.delays;
        if let Some(source) = self.list.iter_mut().find(|s| s.key == *key) {
            source.under_way = source.under_way.saturating_sub(1);
            source.backoff.failed(&delays, now, rng);
        }
    }

    /// When the next one that is waiting out a failure may be asked again.
    pub fn next_ready(&self, now: Mono) -> Option<Mono> {
        self.list.iter().map(|s| s.backoff.ready_at()).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn spreads_requests_and_leaves_failed_sources_alone() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let mut sources = Sources::new(["a", "b", "c"], Delays::NORMAL);
        let now = Mono(0);
        let mut first: Vec<_> = (0..3).map(|_| sources.pick(now, &mut rng).unwrap()).collect();
        first.sort_unstable();
        assert_eq!(first, ["a", "b", "c"]);
        (0..3).for_each(|_| _ = sources.pick(now, &mut rng).unwrap());
        assert_eq!(sources.pick(now, &mut rng), None, "all are busy");
        sources.failed(&"a", now, &mut rng);
        assert_eq!(sources.pick(now, &mut rng), None, "it waits");
        let later = sources.next_ready(now).unwrap();
        assert_eq!(sources.pick(later, &mut rng), Some("a"));
        sources.succeeded(&"b");
        assert_eq!(sources.pick(now, &mut rng), Some("b"));
    }

    #[test]
    fn a_change_of_the_set_keeps_the_state_of_those_that_stay() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let mut sources = Sources::new([1, 2], Delays::NORMAL);
        sources.failed(&1, Mono(0), &mut rng);
        sources.replace([1, 3]);
        for _ in 0..2 {
            assert_eq!(sources.pick(Mono(0), &mut rng), Some(3));
        }
        assert_eq!(sources.pick(Mono(0), &mut rng), None);
        sources.replace([]);
        assert_eq!((sources.pick(Mono(u64::MAX), &mut rng), sources.next_ready(Mono(0))), (None, None));
    }
}
