//! Which circuits will be wanted: those for ports that streams went to lately (path-spec 2.1.1).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

/// How long a port counts as wanted after a stream went there.
const RELEVANCE: Duration = Duration::from_secs(3600);

/// The port that counts as wanted from the start.
const FIRST: u16 = 443;

/// Ports that were wanted lately.
#[derive(Debug)]
pub struct Predicted {
    ports: BTreeMap<u16, Instant>,
}

impl Predicted {
    /// What is expected before anybody has wanted anything.
    pub fn new(now: Instant) -> Predicted {
        Predicted { ports: BTreeMap::from([(FIRST, now)]) }
    }

    /// A stream goes to this port.
    pub fn wanted(&mut self, port: u16, now: Instant) {
        self.ports.insert(port, now);
        if self.ports.len() > limits::PREDICTED_PORTS {
            let oldest = self.ports.iter().min_by_key(|(_, at)| **at).map(|(port, _)| *port);
            oldest.and_then(|port| self.ports.remove(&port));
        }
    }

    /// No exit lets streams out to this port.
    pub fn forget(&mut self, port: u16) {
        self.ports.remove(&port);
    }

    /// The ports to have circuits ready for.
    pub fn ports(&mut self, now: Instant) -> Vec<u16> {
        self.ports.retain(|_, at| now.duration_since(*at) < RELEVANCE);
        self.ports.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_wanted_for_an_hour() {
        let now = Instant::now();
        let mut predicted = Predicted::new(now);
        predicted.wanted(22, now + RELEVANCE / 2);
        assert_eq!(predicted.ports(now), [22, 443]);
        assert_eq!(predicted.ports(now + RELEVANCE), [22]);
        assert!(predicted.ports(now + 2 * RELEVANCE).is_empty());
    }

    #[test]
    fn the_oldest_of_too_many_is_forgotten() {
        let now = Instant::now();
        let mut predicted = Predicted::new(now);
        for n in 0..limits::PREDICTED_PORTS as u16 {
            predicted.wanted(1000 + n, now + Duration::from_secs(1));
        }
        let ports = predicted.ports(now);
        assert_eq!(ports.len(), limits::PREDICTED_PORTS);
        assert!(!ports.contains(&FIRST));
    }
}
