//! Answers remembered for their time to live, in bounded memory.

use super::message::{Answer, Kind};
use super::{Data, DnsError};
use hickory_proto::rr::LowerName;
use onionring_proto::time::Mono;
use std::collections::{BTreeSet, HashMap};

/// A question without its letter case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The name in lower case.
    pub name: LowerName,
    /// What is asked.
    pub kind: Kind,
}

/// A map from questions to answers that forgets them when they expire, and the one that expires first when it is full.
pub struct Cache {
    entries: HashMap<Key, (Mono, Result<Data, DnsError>)>,
    by_expiry: BTreeSet<(Mono, Key)>,
    capacity: usize,
}

impl Cache {
    /// An empty cache for `capacity` answers.
    pub fn new(capacity: usize) -> Self {
        Cache { entries: HashMap::new(), by_expiry: BTreeSet::new(), capacity }
    }

    /// The answer to `key`, if one is known and has not expired at `now`.
    pub fn get(&self, key: &Key, now: Mono) -> Option<&Result<Data, DnsError>> {
        self.entries.get(key).filter(|(expires, _)| *expires > now).map(|(_, result)| result)
    }

    /// Remembers `answer`; one with a time to live of zero is not kept.
    pub fn insert(&mut self, key: Key, answer: &Answer, now: Mono) {
        self.remove(&key);
        if answer.ttl.is_zero() {
            return;
        }
        self.expire(now);
        while self.entries.len() >= self.capacity {
            let Some((_, first)) = self.by_expiry.pop_first() else { return };
            self.entries.remove(&first);
        }
        let expires = now + answer.ttl;
        self.by_expiry.insert((expires, key.clone()));
        self.entries.insert(key, (expires, answer.result.clone()));
    }

    /// Forgets everything: the servers have changed.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.by_expiry.clear();
    }

    /// Number of answers held, expired ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn remove(&mut self, key: &Key) {
        if let Some((expires, _)) = self.entries.remove(key) {
            self.by_expiry.remove(&(expires, key.clone()));
        }
    }

    fn expire(&mut self, now: Mono) {
        while let Some(first) = self.by_expiry.first().filter(|(expires, _)| *expires <= now).cloned() {
            self.by_expiry.remove(&first);
            self.entries.remove(&first.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::Name;
    use std::time::Duration;

    fn key(name: &str) -> Key {
        Key { name: LowerName::new(&Name::from_ascii(name).unwrap()), kind: Kind::A }
    }

    fn answer(secs: u64) -> Answer {
        Answer { result: Err(DnsError::NoSuchName), ttl: Duration::from_secs(secs) }
    }

    fn at(secs: u64) -> Mono {
        Mono(0) + Duration::from_secs(secs)
    }

    #[test]
    fn answers_last_for_their_ttl_whatever_the_case_of_the_name() {
        let mut cache = Cache::new(10);
        cache.insert(key("Example.COM."), &answer(60), at(0));
        assert!(cache.get(&key("eXample.com."), at(59)).is_some());
        assert!(cache.get(&key("example.com."), at(60)).is_none());
        assert!(cache.get(&Key { kind: Kind::Aaaa, ..key("example.com.") }, at(1)).is_none());
        cache.insert(key("zero.example."), &answer(0), at(0));
        assert!(cache.get(&key("zero.example."), at(0)).is_none());
    }

    #[test]
    fn memory_is_bounded_and_the_first_to_expire_makes_room() {
        let mut cache = Cache::new(3);
        for (name, ttl) in [("a.", 50), ("b.", 10), ("c.", 30), ("d.", 40)] {
            cache.insert(key(name), &answer(ttl), at(0));
        }
        assert_eq!(cache.len(), 3);
        assert!(cache.get(&key("b."), at(1)).is_none());
        assert!(cache.get(&key("a."), at(1)).is_some());
        // Asked again: replaced, not doubled.
        cache.insert(key("a."), &answer(5), at(1));
        assert_eq!((cache.len(), cache.by_expiry.len()), (3, 3));
        // Expired ones make room before living ones do.
        cache.insert(key("e."), &answer(5), at(7));
        assert!(cache.get(&key("c."), at(8)).is_some() && cache.get(&key("d."), at(8)).is_some());
        cache.clear();
        assert!(cache.is_empty());
    }
}
