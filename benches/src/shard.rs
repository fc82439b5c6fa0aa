//! Drives one shard on its thread, as `relay::io` does, with memory in place of sockets and TLS.
//!
//! Rings, bells and executors are the relay's own, so that a cell for a shard that sleeps costs a real wake-up.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use glommio::{LocalExecutorBuilder, Placement};
use nix::time::{ClockId, clock_gettime};
use onionring_proto::time::Mono;
use onionring_relay::engine::Engine;
use onionring_relay::engine::cross::Batch;
use onionring_relay::engine::event::{Event, LinkEvent};
use onionring_relay::engine::ids::{LinkId, ShardIndex};
use onionring_relay::io::bell::Bell;
use onionring_relay::io::mesh::{Port, mesh};
use onionring_relay::limits;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::rig::{CELL_LEN, NoTls, Rig, START, UNIX};

/// How cells come in.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Cells that one read brings at most.
    pub burst: usize,
    /// Cells per second on each shard, or as many as it takes.
    pub rate: Option<f64>,
    /// Cells under way through the relay at most, for each shard, as the windows of circuits bound them.
    pub window: i64,
    /// Time from the first cells to the first that count.
    pub warm_up: Duration,
    /// Time that counts.
    pub time: Duration,
}

/// Time between two looks at the links when there is a rate, as `relay::io::pace` has it under a light load.
const TICK: Duration = limits::LOOK_GAP;

/// What one shard did, or all of them together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Cells sent on links.
    pub cells: u64,
    /// Cells that came from other shards; a cell can cross twice.
    pub crossings: u64,
    /// Batches that they came in.
    pub batches: u64,
    /// Turns.
    pub turns: u64,
    /// Naps.
    pub naps: u64,
    /// CPU time, without looking in vain.
    pub cpu: Duration,
    /// Time on the clock.
    pub time: Duration,
}

impl Done {
    fn since(self, start: Done) -> Done {
        Done {
            cells: self.cells - start.cells,
            crossings: self.crossings - start.crossings,
            batches: self.batches - start.batches,
            turns: self.turns - start.turns,
            naps: self.naps - start.naps,
            cpu: self.cpu - start.cpu,
            time: self.time - start.time,
        }
    }

    fn and(self, other: Done) -> Done {
        Done {
            cells: self.cells + other.cells,
            crossings: self.crossings + other.crossings,
            batches: self.batches + other.batches,
            turns: self.turns + other.turns,
            naps: self.naps + other.naps,
            cpu: self.cpu + other.cpu,
            time: self.time.max(other.time),
        }
    }

    /// Cells per second on the clock.
    pub fn rate(&self) -> f64 {
        self.cells as f64 / self.time.as_secs_f64()
    }

    /// CPU time of a cell in nanoseconds.
    pub fn cost(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.cells as f64
    }

    /// Times that a cell crosses to another shard.
    pub fn crossings_per_cell(&self) -> f64 {
        self.crossings as f64 / self.cells as f64
    }

    /// Cells in a batch.
    pub fn batch(&self) -> f64 {
        self.crossings as f64 / self.batches.max(1) as f64
    }
}

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

/// Runs all shards of a rig under a load, each on a thread.
///
/// # Panics
/// If the relay closed a circuit or ignored a cell: then it did something else than relaying.
pub fn run(rig: Rig, load: Load) -> Done {
    let shards = rig.engines.len();
    let phase = Arc::new(AtomicU8::new(WARM_UP));
    let bells: Vec<_> = (0..shards).map(|_| Arc::new(Bell::default())).collect();
    let under_way: Arc<[_]> = (0..shards).map(|_| CachePadded::default()).collect();
    let ports = mesh(&bells, limits::CROSSING_RING);
    let own_core = shards > 1 && thread::available_parallelism().is_ok_and(|cores| cores.get() == shards);
    let threads: Vec<_> = rig
        .engines
        .into_iter()
        .zip(ports)
        .map(|(engine, port)| {
            let index = port.me();
            let here = rig.feeds.iter().filter(|feed| usize::from(feed.link.shard().0) == index);
            let mut rng = ChaCha20Rng::seed_from_u64(index as u64);
            let sources = here
                .map(|feed| Source {
                    link: feed.link,
                    cells: feed.cells(feed.circuits.len().max(load.burst), &mut rng),
                    at: 0,
                })
                .collect();
            let (bell, phase, under_way) = (bells[index].clone(), phase.clone(), under_way.clone());
            let placement = if own_core { Placement::Fixed(index) } else { Placement::Unbound };
            LocalExecutorBuilder::new(placement)
                .io_memory(0)
                .ring_depth(limits::RING_DEPTH)
                .preempt_timer(limits::RING_INTERVAL_BUSY)
                .spawn(move || {
                    let mut shard = Shard::new(engine, port, bell, under_way, sources, load);
                    let mut start = None;
                    poll_fn(move |cx| {
                        let before = shard.idle_since.map(|_| cpu_time());
                        let busy = shard.turn(cx);
                        match phase.load(Ordering::Relaxed) {
                            WARM_UP => {}
                            MEASURE => start = start.or_else(|| Some(shard.done())),
                            _ => return Poll::Ready(shard.finish(start.unwrap_or_default())),
                        }
                        shard.rest(busy, before);
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    })
                })
                .expect("an executor")
        })
        .collect();
    for (next, after) in [(MEASURE, load.warm_up), (STOP, load.time)] {
        thread::sleep(after);
        phase.store(next, Ordering::Relaxed);
    }
    threads.into_iter().map(|thread| thread.join().expect("a shard")).fold(Done::default(), Done::and)
}

/// A link on which cells come in, over and over the same.
struct Source {
    link: LinkId,
    cells: Vec<u8>,
    at: usize,
}

impl Source {
    /// Puts the next `cells` cells into `buf`, as TLS would, where the engine then works on them.
    fn read(&mut self, mut cells: usize, buf: &mut Vec<u8>) {
        buf.clear();
        while cells > 0 {
            let left = &self.cells[self.at..];
            let part = &left[..left.len().min(cells * CELL_LEN)];
            buf.extend_from_slice(part);
            cells -= part.len() / CELL_LEN;
            self.at = (self.at + part.len()) % self.cells.len();
        }
    }
}

/// Cells that each shard read, less those it wrote.
type UnderWay = Arc<[CachePadded<AtomicI64>]>;

struct Shard {
    engine: Engine,
    port: Port<Batch>,
    bell: Arc<Bell>,
    under_way: UnderWay,
    load: Load,
    sources: Vec<Source>,
    origin: Instant,
    /// Cells that have come in, and when the links are looked at next, if there is a rate.
    taken: f64,
    tick: Duration,
    writable: Vec<LinkId>,
    plaintext: Vec<u8>,
    done: Done,
    /// CPU time of turns without anything to do, and since when there has been nothing.
    idle: Duration,
    idle_since: Option<Duration>,
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the thread's clock").into()
}

impl Shard {
    fn new(
        engine: Engine,
        port: Port<Batch>,
        bell: Arc<Bell>,
        under_way: UnderWay,
        sources: Vec<Source>,
        load: Load,
    ) -> Shard {
        Shard {
            engine,
            port,
            bell,
            under_way,
            load,
            sources,
            origin: Instant::now(),
            taken: 0.0,
            tick: Duration::ZERO,
            writable: Vec::new(),
            plaintext: Vec::with_capacity(limits::READ_BYTES + limits::RECORD_BYTES),
            done: Done::default(),
            idle: Duration::ZERO,
            idle_since: None,
        }
    }

    fn now(&self) -> Mono {
        START + self.origin.elapsed()
    }

    /// Does what there is to do now. `false` if there was nothing.
    fn turn(&mut self, cx: &Context<'_>) -> bool {
        self.done.turns += 1;
        self.bell.listen(cx);
        let received = self.receive();
        let read = self.read();
        if self.engine.poll_timeout().is_some_and(|at| at <= self.now()) {
            self.engine.handle_timeout(self.now());
        }
        self.send();
        self.write();
        self.send();
        received || read
    }

    /// Takes in what other shards sent, and the memory that they return.
    fn receive(&mut self) -> bool {
        let before = self.done.batches;
        for other in self.port.others() {
            for _ in 0..limits::CROSSING_RING {
                let Some(mut batch) = self.port.receive(other) else { break };
                self.done.batches += 1;
                self.done.crossings += batch.len() as u64;
                self.engine.handle_batch(self.now(), &mut batch);
                self.port.give_back(other, batch);
            }
            while let Some(batch) = self.port.take_back(other) {
                self.engine.recycle_batch(batch);
            }
        }
        self.done.batches > before
    }

    /// Reads once from every link that has something.
    fn read(&mut self) -> bool {
        let mut due = match self.load.rate {
            None => usize::MAX,
            Some(rate) => {
                let elapsed = self.origin.elapsed();
                if elapsed < self.tick {
                    return false;
                }
                self.tick = elapsed + TICK;
                (elapsed.as_secs_f64() * rate - self.taken) as usize
            }
        };
        let mut read = false;
        for _ in 0..self.sources.len() {
            let cells = due.min(self.load.burst);
            if cells == 0 || self.engine.congested() || self.is_full() {
                break;
            }
            self.count(cells as i64);
            due -= cells;
            self.taken += cells as f64;
            let now = self.now();
            self.sources[0].read(cells, &mut self.plaintext);
            let link = self.sources[0].link;
            let used = self.engine.handle_link_data(now, UNIX, link, &mut self.plaintext, &NoTls);
            assert_eq!(used, self.plaintext.len(), "whole cells");
            self.sources.rotate_left(1);
            read = true;
        }
        read
    }

    fn is_full(&self) -> bool {
        let cells: i64 = self.under_way.iter().map(|cells| cells.load(Ordering::Relaxed)).sum();
        cells >= self.load.window * self.under_way.len() as i64
    }

    fn count(&self, cells: i64) {
        self.under_way[self.port.me()].fetch_add(cells, Ordering::Relaxed);
    }

    /// Takes records of cells from every link that has some, until none has.
    fn write(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            let Event::Link(LinkEvent::Writable(link)) = event else { panic!("{event:?}") };
            self.writable.push(link);
        }
        let before = self.done.cells;
        for link in self.writable.drain(..) {
            loop {
                self.plaintext.clear();
                let now = START + self.origin.elapsed();
                if !self.engine.poll_transmit(now, link, &mut self.plaintext, limits::RECORD_FILL) {
                    break;
                }
                self.done.cells += (self.plaintext.len() / CELL_LEN) as u64;
            }
        }
        self.count(before as i64 - self.done.cells as i64);
    }

    fn send(&mut self) {
        for other in self.port.others() {
            let to = ShardIndex(other as u16);
            let mut sent = false;
            while let Some(batch) = self.engine.take_batch(to) {
                if let Err(batch) = self.port.send(other, batch) {
                    self.engine.put_back_batch(to, batch);
                    break;
                }
                sent = true;
            }
            if sent {
                self.port.ring(other);
            }
        }
    }

    /// What follows a turn; `before` is when it began, if the one before it was idle.
    ///
    /// Naps until cells come in. If there are always some, and another shard has to make room first, looks again at once,
    /// which does not count: a nap would hand the core to whoever else is on the machine, who leaves cold caches behind.
    fn rest(&mut self, busy: bool, before: Option<Duration>) {
        match (self.load.rate, busy) {
            (Some(_), true) => {}
            (Some(_), false) => {
                self.done.naps += 1;
                self.bell.doze(self.tick.saturating_sub(self.origin.elapsed()));
            }
            (None, true) => {
                if let (Some(since), Some(before)) = (self.idle_since.take(), before) {
                    self.idle += before - since;
                }
            }
            (None, false) => {
                self.idle_since.get_or_insert_with(cpu_time);
            }
        }
    }

    fn done(&self) -> Done {
        let cpu = self.idle_since.unwrap_or_else(cpu_time) - self.idle;
        Done { cpu, time: self.origin.elapsed(), ..self.done }
    }

    fn finish(&mut self, start: Done) -> Done {
        let done = self.done().since(start);
        let counters = self.engine.counters();
        assert!(counters.circuits_closed.is_empty(), "{:?}", counters.circuits_closed);
        assert!(counters.cells_ignored.is_empty(), "{:?}", counters.cells_ignored);
        done
    }
}
