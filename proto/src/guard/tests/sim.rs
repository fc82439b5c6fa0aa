//! A client and a network that lives: relays fail and come back, leave the consensus and return, and the client's own
//! connection goes down. Every seed replays.

use super::*;

const RELAYS: u16 = 120;

struct World {
    client: Client,
    chance: ChaCha20Rng,
    /// By number.
    up: Vec<bool>,
    listed: Vec<bool>,
    online: bool,
    /// Circuits that wait.
    waiting: Vec<Selected>,
    /// Circuits that are used.
    used: Vec<Selected>,
    /// All guards that the client has tried.
    tried: BTreeSet<Fingerprint>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = World {
            client: Client::new(seed),
            chance: rng(seed + 1000),
            up: vec![true; usize::from(RELAYS)],
            listed: vec![true; usize::from(RELAYS)],
            online: true,
            waiting: Vec::new(),
            used: Vec::new(),
            tried: BTreeSet::new(),
        };
        world.publish();
        world
    }

    fn below(&mut self, n: u64) -> u64 {
        below(n, &mut self.chance)
    }

    fn publish(&mut self) {
        let listed = (0..RELAYS).filter(|n| self.listed[usize::from(*n)]);
        self.client.set(&Net::new(listed, self.client.now));
    }

    fn is_up(&self, relay: &Fingerprint) -> bool {
        self.online && self.up[usize::from(u16::from_be_bytes([relay.0[0], relay.0[1]]))]
    }

    fn step(&mut self) {
        let relay = self.below(u64::from(RELAYS)) as usize;
        match self.below(12) {
            0 => self.up[relay] ^= true,
            1 if self.below(4) == 0 => self.listed[relay] ^= true,
            2 if self.below(4) == 0 => self.online ^= true,
            3 => {
                self.client.wait(HOUR);
                self.publish();
            }
            4 => {
                let (guards, damage) = self.restarted();
                assert_eq!(damage, []);
                assert_eq!(persistent(&guards), persistent(&self.client.guards));
            }
            5 => {
                let old = self.used.pop();
                old.into_iter().for_each(|used| self.client.guards.closed(used.attempt));
            }
            _ => self.attempt(),
        }
        let seconds = self.below(30);
        self.client.wait(Duration::from_secs(seconds));
        self.ask_again();
        self.check();
    }

    fn restarted(&self) -> (Guards, Vec<Damage>) {
        let mut file = StateFile::default();
        self.client.guards.write(&mut file);
        Guards::read(&StateFile::read(&file.to_string()), self.client.now)
    }

    fn attempt(&mut self) {
        let purpose = if self.below(4) == 0 { Purpose::Directory } else { Purpose::Circuit };
        let avoid: Vec<Fingerprint> =
            if self.below(5) == 0 { self.client.primary()[..1].to_vec() } else { vec![] };
        let Some(selected) = self.client.select_but(purpose, &avoid) else { return };
        assert!(purpose == Purpose::Directory || !avoid.contains(&selected.relay));
        let guard = self.client.guard(selected.relay);
        assert!(guard.is_filtered() && guard.reachable() != Reachable::No);
        self.tried.insert(selected.relay);
        if !self.is_up(&selected.relay) {
            return self.client.fail(selected);
        }
        match self.client.succeed(selected) {
            Verdict::Use => self.used.push(selected),
            Verdict::Wait => self.waiting.push(selected),
            Verdict::Discard => panic!("a guard that was just selected"),
        }
    }

    fn ask_again(&mut self) {
        for selected in std::mem::take(&mut self.waiting) {
            match self.client.verdict(selected) {
                Verdict::Use => {
                    let down = self.client.guards.primary().all(|guard| guard.reachable() == Reachable::No);
                    assert!(down, "used before all primary guards were down");
                    self.used.push(selected);
                }
                Verdict::Wait => self.waiting.push(selected),
                Verdict::Discard => {}
            }
        }
        assert_eq!(self.client.guards.next_timeout(self.client.now).is_some(), !self.waiting.is_empty());
    }

    fn check(&self) {
        let all: Vec<_> = self.client.guards.sample().collect();
        let distinct: BTreeSet<_> = all.iter().map(|guard| guard.identity()).collect();
        assert_eq!(distinct.len(), all.len());
        // A fifth of all.
        assert!(all.len() <= usize::from(RELAYS / 5), "{}", all.len());
        let filtered: Vec<_> = all.iter().filter(|guard| guard.is_filtered()).collect();
        let primary: Vec<_> = self.client.guards.primary().collect();
        assert!(primary.len() <= 3 && primary.iter().all(|guard| guard.is_filtered()));
        // The first of those that were used are primary.
        let confirmed = filtered.iter().filter(|guard| guard.confirmed_on().is_some());
        assert!(confirmed.take(3).all(|guard| guard.is_primary()));
        let mut indices: Vec<_> =
            all.iter().filter_map(|guard| guard.confirmed.map(|confirmed| confirmed.index)).collect();
        indices.sort();
        assert!(indices.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

fn persistent(guards: &Guards) -> String {
    let mut file = StateFile::default();
    guards.write(&mut file);
    file.to_string()
}

#[test]
fn a_client_keeps_the_rules_whatever_the_network_does() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        // Some days of use touch no more guards than a sample has.
        assert!(world.tried.len() <= usize::from(RELAYS / 5), "seed {seed}: {}", world.tried.len());

        // When all is well again, a circuit is there within minutes, through a primary guard.
        world.online = true;
        world.up.fill(true);
        world.listed.fill(true);
        world.publish();
        let until = world.client.now + HOUR;
        loop {
            assert!(world.client.now < until, "seed {seed}: no circuit through a primary guard");
            world.client.wait(Duration::from_secs(60));
            let selected = world.client.select_but(Purpose::Circuit, &[]);
            let Some(selected) = selected else { continue };
            let verdict = world.client.succeed(selected);
            if world.client.guard(selected.relay).is_primary() {
                assert_eq!(verdict, Verdict::Use);
                break;
            }
        }
    }
}

#[test]
fn a_seed_replays() {
    let run = || {
        let mut world = World::new(5);
        (0..300).for_each(|_| world.step());
        (persistent(&world.client.guards), world.tried)
    };
    assert_eq!(run(), run());
}
