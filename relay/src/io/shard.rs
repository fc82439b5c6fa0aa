//! One shard on its thread: what its tasks share, and the tasks that every shard has.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glommio::net::TcpStream;
use glommio::{Latency, Shares, Task, TaskQueueHandle, executor, spawn_local_into};
use nix::time::{ClockId, clock_gettime};
use onionring_node::tls::{Acceptor, Connector};
use onionring_proto::link::LinkIdentity;
use onionring_proto::policy::is_internal;
use onionring_proto::time::{Mono, Unix};
use rand_chacha::ChaCha20Rng;

use super::ShardClock;
use super::connect::{self, Handshakes};
use super::control::Mailbox;
use super::link::{LinkFailure, LinkSlot, Scratch};
use super::mesh::Port;
use super::net::{self, Exhausted, OutboundAddresses};
use super::pace::Pace;
use super::rate::{Reached, Throttle};
use super::ready::{Ready, Sources};
use super::socket::Socket;
use crate::engine::Engine;
use crate::engine::cross::Batch;
use crate::engine::durations::Durations;
use crate::engine::event::{DialId, StreamEvent};
use crate::engine::ids::LinkId;
use crate::engine::rate::{Direction, Traffic};
use crate::limits;
use pump::Pump;

mod pump;

/// Serves the streams of circuits that end on a shard: the exit and the directory.
pub trait StreamHandler {
    /// Does what the engine asks, or starts a task that will; not called while the engine is borrowed. Everything
    /// after that goes through [`Shard::engine`].
    fn handle(&mut self, event: StreamEvent);
}

/// One shard, shared by the tasks on its thread.
pub struct Shard {
    engine: RefCell<Engine>,
    clock: ShardClock,
    pub(super) links: RefCell<HashMap<LinkId, Rc<LinkSlot>>>,
    pub(super) scratch: RefCell<Scratch>,
    pub(super) handshakes: Handshakes,
    /// Connections being opened.
    pub(super) dials: RefCell<BTreeMap<DialId, Task<()>>>,
    pub(super) connector: Connector,
    pub(super) outbound: OutboundAddresses,
    pub(super) rng: RefCell<ChaCha20Rng>,
    responder: RefCell<Acceptor>,
    background_queue: TaskQueueHandle,
    pace: Pace,
    ready: Rc<Ready>,
    pub(super) throttle: Throttle,
    pump: Wake,
    background: Wake,
    lull: Wake,
    /// Readers that wait for another shard to catch up, by task.
    paused: RefCell<BTreeMap<*const (), Waker>>,
    counters: RefCell<IoCounters>,
}

/// What a shard counts of connections and of its own time; the rest is in the engine's [`Counters`](crate::engine::counters::Counters).
#[derive(Clone, Copy, Debug, Default)]
pub struct IoCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Those that were closed at once, because their address has or opens too many.
    pub refused: u64,
    /// Failures to accept one.
    pub accept_errors: u64,
    /// Connections, of any kind, for which there was no file descriptor or no memory.
    pub files_exhausted: u64,
    /// Connections to elsewhere for which there was no local port.
    pub ports_exhausted: u64,
    /// TLS handshakes of both directions that succeeded.
    pub tls_done: u64,
    /// TLS handshakes of both directions that failed, by reason ([`FAILURES`](Self::FAILURES)).
    pub tls_failed: [u64; 4],
    /// TLS handshakes given up because too many were under way.
    pub tls_shed: u64,
    /// How long those that succeeded took.
    pub tls_time: Durations,
    /// How long the public-key work of circuit handshakes took, each together with the answer.
    pub create_work: Durations,
    /// Writes of TLS records to links' sockets.
    pub writes: u64,
    /// How many of them had to wait for room in the socket.
    pub writes_held: u64,
    /// Time the thread worked on tasks.
    pub busy: Duration,
    /// CPU time of the thread.
    pub cpu: Duration,
    /// Time in naps, which is neither.
    napped: Duration,
    /// How late a timer fired, looked at once a second.
    pub lag: Durations,
    /// How often bandwidth ran out, reading and writing.
    pub rate_reached: [Reached; 2],
}

impl IoCounters {
    /// Why TLS handshakes fail: the peer closed the connection, it took too long, it broke TLS, or the connection broke.
    pub const FAILURES: [&str; 4] = ["closed", "timeout", "tls", "connection"];

    /// Counts what was missing for a connection, by the number of its error.
    pub fn no_connection(&mut self, errno: Option<i32>) {
        match Exhausted::of(errno) {
            Some(Exhausted::Files) => self.files_exhausted += 1,
            Some(Exhausted::Ports) => self.ports_exhausted += 1,
            None => {}
        }
    }

    /// Counts the outcome of a TLS handshake that began at this time.
    pub(super) fn tls_handshake<T>(&mut self, begun: Instant, result: &Result<T, LinkFailure>) {
        match result {
            Ok(_) => {
                self.tls_done += 1;
                self.tls_time.record(begun.elapsed());
            }
            Err(failure) => self.tls_failed[failure.index()] += 1,
        }
    }
}

/// The waker of one task of this thread, once it has been polled.
#[derive(Default)]
struct Wake(RefCell<Option<Waker>>);

impl Wake {
    fn set(&self, cx: &Context<'_>) {
        self.0.borrow_mut().get_or_insert_with(|| cx.waker().clone());
    }

    fn wake(&self) {
        if let Some(waker) = &*self.0.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl Shard {
    /// To be called on the shard's executor.
    pub(super) fn new(
        engine: Engine,
        clock: ShardClock,
        sources: Sources,
        acceptor: Acceptor,
        connector: Connector,
        outbound: OutboundAddresses,
        rng: ChaCha20Rng,
    ) -> Rc<Shard> {
        let shares = Shares::Static(limits::BACKGROUND_SHARES);
        let background_queue = executor().create_task_queue(shares, Latency::NotImportant, "background");
        let throttle = Throttle::new(engine.snapshot().rates.clone());
        Rc::new(Shard {
            engine: RefCell::new(engine),
            clock,
            throttle,
            links: RefCell::default(),
            scratch: RefCell::default(),
            handshakes: Handshakes::default(),
            dials: RefCell::default(),
            connector,
            outbound,
            rng: RefCell::new(rng),
            responder: RefCell::new(acceptor),
            background_queue,
            pace: Pace::default(),
            ready: Ready::new(sources),
            pump: Wake::default(),
            background: Wake::default(),
            lull: Wake::default(),
            paused: RefCell::default(),
            counters: RefCell::default(),
        })
    }

    /// The time now, on the clock that the engine knows.
    pub fn now(&self) -> Mono {
        self.clock.now()
    }

    /// The civil time now.
    pub fn unix(&self) -> Unix {
        Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// Calls the engine, and has done afterwards whatever it asks for. Not to be nested.
    pub fn engine<R>(&self, call: impl FnOnce(&mut Engine, Mono) -> R) -> R {
        self.pump.wake();
        self.pace.busy();
        call(&mut self.engine.borrow_mut(), self.now())
    }

    /// Ready when bytes that lead to cells may be read from the outside: pending while another shard is so far behind
    /// that nothing more should come in.
    pub fn poll_may_read(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.engine.borrow().congested() {
            return Poll::Ready(());
        }
        self.paused.borrow_mut().entry(cx.waker().data()).or_insert_with(|| cx.waker().clone());
        Poll::Pending
    }

    /// How many bytes may be moved in a direction with a peer at this address (`None`: there is no limit); pending if
    /// none, and the task is woken when there are some.
    pub fn poll_bandwidth(
        &self,
        direction: Direction,
        traffic: Traffic,
        peer: IpAddr,
        cx: &Context<'_>,
    ) -> Poll<Option<usize>> {
        if !self.throttle.counts(is_internal(peer)) {
            return Poll::Ready(None);
        }
        let bytes = self.throttle.poll(direction, traffic, self.now(), cx);
        if bytes.is_pending() {
            // For the timer.
            self.pump.wake();
        }
        bytes.map(Some)
    }

    /// After a turn of the task with such traffic: whether it has to let others go first, who wait for bandwidth.
    pub fn yields_bandwidth(&self, direction: Direction, traffic: Traffic, cx: &Context<'_>) -> bool {
        let yields = self.throttle.after_turn(direction, traffic, self.now(), cx);
        if yields {
            self.pump.wake();
        }
        yields
    }

    /// Whether the peer of a link has proved to be a relay of the consensus.
    pub(super) fn is_listed(&self, link: LinkId) -> bool {
        self.engine.borrow().leads_to_listed_relay(link)
    }

    /// Bytes have been moved.
    pub fn charge_bandwidth(&self, direction: Direction, traffic: Traffic, peer: IpAddr, bytes: u64) {
        if self.throttle.counts(is_internal(peer)) {
            self.throttle.charge(direction, traffic, bytes);
        }
    }

    /// Bytes of cells came in, or such as have become cells.
    pub fn heard(&self, bytes: usize) {
        self.pace.heard(self.now(), bytes);
    }

    /// A connection as a socket of this shard.
    pub fn socket(&self, connection: TcpStream) -> Socket {
        Socket::new(connection, Some(&self.ready))
    }

    /// Starts a task that gets little time while there are cells to move: for public-key work.
    pub fn spawn_background(&self, task: impl Future<Output = ()> + 'static) -> Task<()> {
        // The queue exists as long as the shard.
        spawn_local_into(task, self.background_queue).expect("the shard's background queue")
    }

    /// Starts a task with the weight of links.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        // The default queue: a plain spawn would stay in the queue of the task that spawns.
        spawn_local_into(task, TaskQueueHandle::default()).expect("the executor's default queue").detach();
    }

    /// Counts something that happened to connections.
    pub fn count(&self, count: impl FnOnce(&mut IoCounters)) {
        count(&mut self.counters.borrow_mut());
    }

    /// The TLS side for accepted connections, with the identity that belongs to its certificate.
    pub(super) fn responder(&self) -> (Acceptor, Arc<LinkIdentity>) {
        (self.responder.borrow().clone(), self.engine.borrow().snapshot().link_identity.clone())
    }

    /// Measures how late this thread's timers fire, for ever.
    pub async fn pulse(self: Rc<Self>) {
        loop {
            let begun = Instant::now();
            glommio::timer::sleep(limits::PULSE).await;
            let late = begun.elapsed().saturating_sub(limits::PULSE);
            self.count(|counters| counters.lag.record(late));
        }
    }

    /// The counters, with the thread's time up to now.
    fn io_counters(&self) -> IoCounters {
        let mut counters = self.counters.borrow_mut();
        // What the executor tells is what was added since it was asked last.
        let worked = executor().executor_stats().total_runtime();
        let napped = std::mem::take(&mut counters.napped);
        counters.busy += worked.saturating_sub(napped);
        // Every kernel that has io_uring has this clock.
        counters.rate_reached = self.throttle.reached(self.now());
        counters.cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(counters.cpu, Duration::from);
        *counters
    }

    /// Runs the shard until it has been stopped.
    pub(super) async fn run(
        self: Rc<Self>,
        port: Port<Batch>,
        mailbox: Mailbox,
        listeners: Vec<std::net::TcpListener>,
        streams: Box<dyn StreamHandler>,
    ) {
        let accepting = listeners
            .into_iter()
            .map(|listener| {
                glommio::spawn_local(connect::accept(self.clone(), net::adopt_listener(listener)))
            })
            .collect();
        let _background = self.spawn_background(background(self.clone()));
        let _lull = self.spawn_background(lull(self.clone()));
        let mut pump = Pump::new(self, port, mailbox, streams, accepting);
        poll_fn(|cx| pump.turn(cx)).await;
    }
}

/// Does the engine's public-key work, a turn's worth at a time.
async fn background(shard: Rc<Shard>) {
    loop {
        if (0..limits::HANDSHAKES_PER_TURN).all(|_| piece_of_work(&shard)) {
            executor().yield_task_queue_now().await;
        } else {
            poll_fn(|cx| {
                shard.background.set(cx);
                match shard.engine.borrow().has_background() {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
    }
}

/// Returns whether there is more.
fn piece_of_work(shard: &Rc<Shard>) -> bool {
    let begun = Instant::now();
    let (some, more) = shard.engine(|engine, now| (engine.has_background(), engine.run_background(now, 1)));
    if some {
        shard.count(|counters| counters.create_work.record(begun.elapsed()));
    }
    more
}

/// Tells the pump, when it has asked, that the tasks before this one in the background queue had their turn.
async fn lull(shard: Rc<Shard>) {
    poll_fn(|cx| {
        shard.lull.set(cx);
        if shard.pace.lull() {
            shard.pump.wake();
        }
        Poll::Pending
    })
    .await
}
