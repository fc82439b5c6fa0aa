//! A network in which a seed decides everything: who is there, what circuits they make, what breaks, who misbehaves
//! and in which order all of it happens.
//!
//! Whatever happens, every byte arrives in order or not at all, everything comes to an end, nothing panics and
//! nothing is left over. What was not touched by a fault is complete, whatever misbehaving peers do beside it.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use onionring_proto::cell::{CircId, LinkVersion};
use onionring_proto::handshake::Terms;
use onionring_proto::origin::{HandshakeKind, OriginConfig};
use onionring_proto::relay_msg::EndReason;
use onionring_proto::time::Mono;
use onionring_relay::engine::queue::CellPool;
use onionring_relay::limits::{
    CROSSING_BACKLOG, CROSSING_RING, DIALS_PER_SHARD, PENDING_CREATES, WAITERS_PER_DIAL,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::net::{End, Net, NetConfig, target};
use super::rogue::{ROGUE_RELAY, Rogue, tarpit};
use super::sink::{Exchange, Order, WRONG_BYTES};

/// Seeds in every test run.
const SEEDS: u64 = 300;
/// Seeds in the soak test.
const SEEDS_SOAK: u64 = 10_000;
/// Replays one seed: `ENGINE_SEED=17 cargo test -p onionring-relay --test engine random`.
const REPLAY: &str = "ENGINE_SEED";

/// Rounds after a fault in which word of it may still be under way.
const AFTERMATH_ROUNDS: usize = 300;
/// Longer than any timeout of a circuit.
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
fn whatever_the_seed() {
    run_seeds(SEEDS);
}

#[test]
#[ignore = "takes minutes; part of `make soak`"]
fn whatever_the_seed_soak() {
    run_seeds(SEEDS_SOAK);
}

fn run_seeds(seeds: u64) {
    if let Ok(seed) = env::var(REPLAY) {
        run(seed.parse().expect("a number"));
        return;
    }
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    run(seed);
                }
            });
        }
    });
}

/// Names the seed if the test panics.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("seed {} failed; replay it with {REPLAY}={}", self.0, self.0);
        }
    }
}

/// Returns what happened, in short.
fn run(seed: u64) -> u64 {
    let _announce = Announce(seed);
    let mut world = World::new(seed);
    world.run();
    world.check();
    world.net.assert_nothing_left();
    world.net.trace()
}

#[test]
fn one_seed_is_one_course_of_things() {
    for seed in 0..6 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(0), run(1));
}

/// A circuit that will be made.
struct Plan {
    client: usize,
    path: Vec<usize>,
    exchanges: Vec<Exchange>,
}

/// A circuit that was made.
struct Made {
    client: usize,
    id: CircId,
    path: Vec<usize>,
    /// A fault may have touched it: it need not be complete.
    disturbed: bool,
}

struct World {
    net: Net,
    /// Faults happen in this one.
    faulty: bool,
    /// Memory is so scarce that circuits may be closed for it.
    scarce: bool,
    queue_bytes: usize,
    clients: Vec<usize>,
    plans: Vec<Plan>,
    made: Vec<Made>,
    rogues: Vec<Rogue>,
    round: usize,
    /// Until which round each relay's circuits suffer from a fault.
    aftermath: Vec<usize>,
    faults_left: usize,
    started: Mono,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut below = |n: usize| rng.next_u32() as usize % n;
        let relays = 3 + below(3);
        let shards: Vec<u16> = (0..relays).map(|_| 1 + below(4) as u16).collect();
        let mut config = NetConfig::new(&shards);
        // All have version 4 in common, or they speak nothing but version 3.
        let versions =
            [&LinkVersion::ALL[..], &LinkVersion::ALL[..2], &LinkVersion::ALL[1..2], &LinkVersion::ALL[1..]];
        config.versions = match below(5) {
            0 => vec![vec![LinkVersion::V3]],
            _ => (0..relays).map(|_| versions[below(4)].to_vec()).collect(),
        };
        config.ring = [1, 2, CROSSING_RING][below(3)];
        let scarce = below(6) == 0;
        if scarce {
            config.queue_bytes = CellPool::BYTES_PER_CELL * (5 + below(200));
        }
        config.params.refuse_unknown_exits = below(2) == 0;
        config.params.offer = Terms { half_close: below(2) == 0 };
        let queue_bytes = config.queue_bytes;
        let mut net = Net::new(seed, config);
        net.tarpits.extend((0..9).map(tarpit));
        net.spoil = below(2) == 0;
        net.ask = Terms { half_close: below(2) == 0 };
        let (mut plans, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..1 + below(4) {
            let entry = below(relays);
            let client = net.connect(entry, None);
            clients.push(client);
            for _ in 0..1 + below(4) {
                let path = draw_path(&mut below, entry, relays);
                let exchanges = (0..below(4)).map(|_| draw_exchange(&mut below, path.len())).collect();
                plans.push(Plan { client, path, exchanges });
            }
        }
        let mut rogues = Vec::new();
        for _ in 0..below(3) {
            let identity = (below(2) == 0).then_some(ROGUE_RELAY - 1);
            let budget = 20 + below(200);
            let entry = below(relays);
            rogues.push(Rogue::new(net.connect(entry, identity), entry, budget));
        }
        // Link handshakes that mostly come to nothing.
        for _ in 0..below(4) {
            let identity = (below(2) == 0).then_some(ROGUE_RELAY - 1);
            let peer = net.connect(below(relays), identity);
            net.peers[peer].spoil = true;
        }
        if below(2) == 0 {
            net.rogues.insert(ROGUE_RELAY, Vec::new());
        }
        let faulty = below(2) == 0;
        let faults_left = if faulty { 1 + below(6) } else { 0 };
        let (aftermath, started) = (vec![0; relays], net.now);
        World {
            net,
            faulty,
            scarce,
            queue_bytes,
            clients,
            plans,
            made: Vec::new(),
            rogues,
            round: 0,
            aftermath,
            faults_left,
            started,
        }
    }

    fn run(&mut self) {
        loop {
            self.round += 1;
            assert!(self.round < 200_000, "no end in sight");
            let mut busy = self.net.round();
            if !self.plans.is_empty() && (self.net.below(15) == 0 || !busy) {
                self.start_next();
                busy = true;
            }
            if self.faults_left > 0 && self.net.below(80) == 0 {
                self.faults_left -= 1;
                self.fault();
                busy = true;
            }
            busy |= self.mischief();
            if self.net.below(30) == 0 {
                let client = self.clients[self.net.below(self.clients.len())];
                self.net.peers[client].deaf ^= true;
                busy = true;
            } else if !busy {
                // Slow clients, not dead ones.
                for &client in &self.clients {
                    busy |= std::mem::take(&mut self.net.peers[client].deaf);
                }
            }
            if self.round.is_multiple_of(16) {
                self.check_memory();
            }
            if busy {
                continue;
            }
            (0..self.net.relays.len()).for_each(|relay| self.net.restart(relay));
            if self.made.iter().all(|made| self.net.peers[made.client].circuits[&made.id].is_done()) {
                break;
            }
            // Only time can bring the rest to an end.
            let next = self.net.next_timeout().expect("circuits that wait for nothing");
            self.net.now = self.net.now.max(next);
            assert!(self.net.now.since(self.started) < PATIENCE, "circuits that wait for too long");
        }
    }

    fn start_next(&mut self) {
        let Some(Plan { client, .. }) = self.plans.last() else { return };
        if self.net.peers[*client].link().is_none() && !self.net.peers[*client].is_closed() {
            return;
        }
        let Some(Plan { client, path, exchanges }) = self.plans.pop() else { return };
        if self.net.peers[client].is_closed() {
            assert!(self.faulty, "only a fault takes a client's link");
            return;
        }
        let id = self.net.start_with(client, &path, &exchanges, OriginConfig::default());
        let disturbed = self.scarce
            || path.iter().any(|&hop| !self.net.relays[hop].up || self.aftermath[hop] > self.round);
        self.made.push(Made { client, id, path, disturbed });
    }

    /// Everything that runs over relays that `touched` says, now and until word of it has gone round, may suffer.
    fn disturb(&mut self, touched: impl Fn(&Made) -> bool, relays: &[usize]) {
        self.made.iter_mut().filter(|made| touched(made)).for_each(|made| made.disturbed = true);
        relays.iter().for_each(|&relay| self.aftermath[relay] = self.round + AFTERMATH_ROUNDS);
    }

    fn fault(&mut self) {
        let relay = self.net.below(self.net.relays.len());
        match self.net.below(7) {
            0 | 1 => self.cut_a_wire(),
            2 => {
                self.disturb(|made| made.path.contains(&relay), &[relay]);
                match self.net.relays[relay].up {
                    true => self.net.kill(relay),
                    false => self.net.restart(relay),
                }
            }
            3 => {
                let hit: Vec<_> = self.clients_of(relay);
                self.disturb(|made| made.path.contains(&relay) || hit.contains(&made.client), &[relay]);
                self.net.close_links(relay);
            }
            4 if !self.made.is_empty() => {
                let at = self.net.below(self.made.len());
                self.made[at].disturbed = true;
                let (client, id) = (self.made[at].client, self.made[at].id);
                let circuit = self.net.circuit(client, id);
                circuit.origin.close();
                circuit.closed.get_or_insert(onionring_proto::origin::CloseReason::Timeout { hop: 0 });
            }
            5 if !self.made.is_empty() => self.truncate_and_extend(),
            _ if !self.made.is_empty() => {
                let at = self.net.below(self.made.len());
                let client = self.made[at].client;
                self.disturb(|made| made.client == client, &[]);
                self.net.hang_up(client);
            }
            _ => {}
        }
    }

    fn clients_of(&self, relay: usize) -> Vec<usize> {
        let ends = self.net.wires().into_iter().filter_map(|(_, ends)| match ends {
            [End::Peer(peer), End::Relay { relay: of, .. }] if of == relay => Some(peer),
            _ => None,
        });
        ends.collect()
    }

    fn cut_a_wire(&mut self) {
        let wires = self.net.wires();
        if wires.is_empty() {
            return;
        }
        let (wire, ends) = wires[self.net.below(wires.len())];
        match ends {
            [End::Relay { relay: a, .. }, End::Relay { relay: b, .. }] => {
                self.disturb(|made| made.path.contains(&a) && made.path.contains(&b), &[a, b]);
            }
            [End::Peer(peer), _] | [_, End::Peer(peer)] => self.disturb(|made| made.client == peer, &[]),
            _ => {}
        }
        self.net.cut(wire);
    }

    fn truncate_and_extend(&mut self) {
        let at = self.net.below(self.made.len());
        let Made { client, id, ref path, .. } = self.made[at];
        let path = path.clone();
        let hops = self.net.circuit(client, id).origin.hops();
        if hops == 0 {
            return;
        }
        let cut = self.net.below(hops);
        let mut rng = ChaCha20Rng::seed_from_u64(self.net.rng.next_u64());
        let now = self.net.now;
        let circuit = self.net.circuit(client, id);
        if circuit.origin.truncate(cut).is_err() {
            return;
        }
        // What was still to be done with it is not done any more.
        circuit.todo.clear();
        circuit.plans.clear();
        self.made[at].disturbed = true;
        let mut rounds = 0;
        while self.net.circuit(client, id).events.is_empty() && rounds < 1000 {
            self.net.round();
            rounds += 1;
        }
        let circuit = self.net.circuit(client, id);
        circuit.events.clear();
        // Where to now does not matter, but that the relay at the cut goes along: to whom it went before, or not.
        let used: Vec<usize> = path[..=cut].iter().rev().take(2).copied().collect();
        if let Some(next) = (0..3).find(|next| !used.contains(next)) {
            let _ = circuit.origin.extend(now, &mut rng, &target(next, HandshakeKind::NtorV3));
            self.made[at].path.truncate(cut + 1);
            self.made[at].path.push(next);
        }
    }

    /// Rogues do something. Returns whether any of them can still do more.
    fn mischief(&mut self) -> bool {
        let mut rogues = std::mem::take(&mut self.rogues);
        let mut more = false;
        for rogue in &mut rogues {
            more |= rogue.work(&mut self.net);
        }
        // Those that were dialed since.
        let known: Vec<usize> = rogues.iter().map(|rogue| rogue.peer).collect();
        let dialed = self.net.rogues.get(&ROGUE_RELAY).cloned().unwrap_or_default();
        rogues.extend(
            dialed.into_iter().filter(|peer| !known.contains(peer)).map(|peer| Rogue::new(peer, 0, 60)),
        );
        self.rogues = rogues;
        more
    }

    fn check_memory(&mut self) {
        for relay in 0..self.net.relays.len() {
            for engine in &mut self.net.relays[relay].engines {
                let counters = engine.counters();
                let waiting = counters.queued_cells * CellPool::BYTES_PER_CELL + counters.inbox_bytes;
                assert!(waiting <= self.queue_bytes + CellPool::BYTES_PER_CELL, "{waiting} bytes wait");
                assert!(counters.pending_creates <= PENDING_CREATES, "handshakes pile up");
                assert!(counters.dials_pending <= DIALS_PER_SHARD, "dials pile up");
                assert!(counters.seekers <= WAITERS_PER_DIAL * counters.dials_pending, "seekers pile up");
                assert!(counters.batches_waiting <= CROSSING_BACKLOG, "batches pile up");
                assert!(counters.timers <= 3 * counters.links + counters.circuits, "timers pile up");
                assert!(counters.legs <= 2 * counters.circuits, "legs without circuits");
            }
        }
    }

    fn check(&mut self) {
        for made in &self.made {
            let circuit = &self.net.peers[made.client].circuits[&made.id];
            for running in circuit.exchanges.values() {
                let end = running.end.map(|end| end.reason);
                assert_ne!(end, Some(WRONG_BYTES));
                assert!(end != Some(EndReason::Done) || running.complete(), "ended as if it were complete");
            }
            if !made.disturbed {
                assert_eq!(circuit.closed, None, "nothing happened to this circuit over {:?}", made.path);
                assert!(circuit.exchanges.values().all(|running| running.complete()), "over {:?}", made.path);
            }
        }
    }
}

/// One to four hops, none of which is told to go back to where the circuit comes from.
fn draw_path(below: &mut impl FnMut(usize) -> usize, entry: usize, relays: usize) -> Vec<usize> {
    let mut path = vec![entry];
    for _ in 0..below(4) {
        let next = below(relays);
        if path.iter().rev().take(2).all(|&hop| hop != next) {
            path.push(next);
        }
    }
    path
}

fn draw_exchange(below: &mut impl FnMut(usize) -> usize, hops: usize) -> Exchange {
    if hops == 1 || below(4) == 0 {
        return Exchange::directory(below(hops));
    }
    // Mostly little; sometimes more than the windows hold.
    let mut size = || match below(12) {
        0 => 300_000 + below(300_000),
        1..4 => below(60_000),
        _ => below(3000),
    };
    let (up, down) = (size(), size());
    let hop = (below(3) == 0).then(|| 1 + below(hops - 1));
    let order = [Order::Together, Order::ClientFirst, Order::ServiceFirst][below(3)];
    Exchange { hop, order, ..Exchange::new(below(256) as u8, up, down) }
}
