//! A stream once its connection is open: bytes both ways until one side ends, or, where directions end one by one, both.
//!
//! What the client sends waits in the engine, at most a window of it, and is written from there without a copy. What the
//! destination sends is read only when the client's windows have room, so that a client that does not read stops its
//! destination and costs no memory here.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::net::TcpStream;
use glommio::timer::Timer;
use metrics::{Counter, Gauge};
use onionring_node::metrics::table;
use onionring_proto::relay_msg::{Connected, End, EndReason, Resolved};

use super::Exit;
use super::decide::end_of_socket;
use crate::engine::event::StreamRef;
use crate::engine::rate::{Direction, Traffic, packaged, payload};
use crate::io::shard::Shard;
use crate::io::socket::Socket;
use crate::limits;

/// What streams need of their shard: the engine's side of them, and its tasks.
pub trait StreamSide: Clone + 'static {
    /// Tells the client that the stream is open.
    fn connected(&self, at: StreamRef, connected: &Connected);
    /// The destination sends nothing more: whether the stream goes on in the other direction. If not, nothing happens.
    fn finish(&self, at: StreamRef) -> bool;
    /// Ends the stream; the client hears so unless it ended it itself.
    fn end(&self, at: StreamRef, end: &End);
    /// Answers a look-up.
    fn resolved(&self, at: StreamRef, resolved: &Resolved);
    /// Shows `take` the next bytes that the client sent (none: an empty slice); it returns how many it took.
    fn read(&self, at: StreamRef, take: &mut dyn FnMut(&[u8]) -> usize);
    /// How many bytes [`StreamSide::write`] will take. At 0, an event follows when there is room.
    fn writable(&self, at: StreamRef) -> usize;
    /// Sends bytes to the client, no more than [`StreamSide::writable`] said. If the circuit does not survive that, what
    /// is left of them is dropped, and an event says that it is gone.
    fn write(&self, at: StreamRef, data: &[u8]);
    /// Ready when the shard may read from the outside.
    fn poll_may_read(&self, cx: &Context<'_>) -> Poll<()>;
    /// How many bytes may be moved with a destination, as [`Shard::poll_bandwidth`] has it.
    fn poll_bandwidth(&self, direction: Direction, peer: IpAddr, cx: &Context<'_>) -> Poll<Option<usize>>;
    /// Bytes have been moved with a destination.
    fn charge_bandwidth(&self, direction: Direction, peer: IpAddr, bytes: u64);
    /// A connection to a destination has failed.
    fn no_connection(&self, error: &io::Error);
    /// A connection to a destination, as a socket of this shard.
    fn socket(&self, connection: TcpStream) -> Socket;
    /// Starts a task on this shard.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}

impl StreamSide for Rc<Shard> {
    fn connected(&self, at: StreamRef, connected: &Connected) {
        self.engine(|engine, now| engine.stream_connected(now, at, connected));
    }

    fn finish(&self, at: StreamRef) -> bool {
        self.engine(|engine, now| engine.stream_finish(now, at))
    }

    fn end(&self, at: StreamRef, end: &End) {
        self.engine(|engine, now| engine.stream_end(now, at, end));
    }

    fn resolved(&self, at: StreamRef, resolved: &Resolved) {
        self.engine(|engine, now| engine.stream_resolved(now, at, resolved));
    }

    fn read(&self, at: StreamRef, take: &mut dyn FnMut(&[u8]) -> usize) {
        self.engine(|engine, now| {
            let taken = take(engine.stream_read(at));
            if taken > 0 {
                engine.stream_consume(now, at, taken);
            }
        });
    }

    fn writable(&self, at: StreamRef) -> usize {
        self.engine(|engine, _| engine.stream_writable(at))
    }

    fn write(&self, at: StreamRef, data: &[u8]) {
        // No room was taken away since `writable`, for nothing else ran; but the circuit may be closed by its own cells.
        self.engine(|engine, now| engine.stream_write(now, at, data));
        self.heard(data.len());
    }

    fn poll_may_read(&self, cx: &Context<'_>) -> Poll<()> {
        Shard::poll_may_read(self, cx)
    }

    fn poll_bandwidth(&self, direction: Direction, peer: IpAddr, cx: &Context<'_>) -> Poll<Option<usize>> {
        Shard::poll_bandwidth(self, direction, Traffic::Exit, peer, cx)
    }

    fn no_connection(&self, error: &io::Error) {
        self.count(|counters| counters.no_connection(error.raw_os_error()));
    }

    fn charge_bandwidth(&self, direction: Direction, peer: IpAddr, bytes: u64) {
        Shard::charge_bandwidth(self, direction, Traffic::Exit, peer, bytes);
    }

    fn socket(&self, connection: TcpStream) -> Socket {
        Shard::socket(self, connection)
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        Shard::spawn(self, task);
    }
}

/// Where a stream's task and the events about it meet.
#[derive(Default)]
pub(super) struct Slot {
    waker: RefCell<Option<Waker>>,
    closed: Cell<Option<Closed>>,
    /// The client sends nothing more, and goes on receiving.
    finished: Cell<bool>,
}

/// Who closed a stream before its task was done with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// The client, with an END. What it sent before can still be delivered.
    ByClient,
    /// The circuit is gone.
    WithCircuit,
}

impl Slot {
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn finish(&self) {
        self.finished.set(true);
        self.wake();
    }

    pub(super) fn close(&self, by_client: bool) {
        self.closed.set(Some(if by_client { Closed::ByClient } else { Closed::WithCircuit }));
        self.wake();
    }

    fn listen(&self, cx: &Context<'_>) {
        self.waker.replace(Some(cx.waker().clone()));
    }

    /// `None` once the stream is closed; never anything else. Made to race with what the client would wait for.
    pub(super) async fn closed<T>(&self) -> Option<T> {
        poll_fn(|cx| {
            self.listen(cx);
            if self.closed.get().is_some() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

/// What a shard counts about its streams.
pub(super) struct StreamMetrics {
    /// By family: IPv4, IPv6.
    open: [Gauge; 2],
    read: Counter,
    written: Counter,
}

/// Counts a connection as open while it lives.
pub(super) struct OpenGuard(Gauge);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl StreamMetrics {
    pub(super) fn new(shard: usize) -> Self {
        let shard = shard.to_string();
        let open = |family| table::EXIT_CONNECTIONS.gauge(&[("shard", &shard), ("family", family)]);
        StreamMetrics {
            open: [open("ipv4"), open("ipv6")],
            read: table::EXIT_READ_BYTES.counter(&[("shard", &shard)]),
            written: table::EXIT_WRITTEN_BYTES.counter(&[("shard", &shard)]),
        }
    }

    pub(super) fn opened(&self, target: SocketAddr) -> OpenGuard {
        let gauge = self.open[usize::from(target.is_ipv6())].clone();
        gauge.increment(1.0);
        OpenGuard(gauge)
    }
}

/// How far one direction got in a turn.
enum Progress {
    /// It waits for an event.
    Waits,
    /// It did its share and could go on.
    Goes,
}

/// How a stream's end is going.
#[derive(Default)]
struct Ending {
    /// One side has ended both directions; what the client sent before goes out, until the timer is over.
    flushing: Option<Timer>,
    /// The client's direction has ended by itself: all of it is delivered, and the destination knows.
    is_delivered: bool,
    /// The destination's direction has ended by itself, and the client knows.
    is_answered: bool,
    /// While one of these two goes on alone.
    idle: Option<Idle>,
    /// Bytes so far.
    moved: u64,
}

/// Watches a direction that goes on alone.
struct Idle {
    timer: Timer,
    /// Bytes when the timer began.
    moved: u64,
}

impl<S: StreamSide> Exit<S> {
    /// Carries bytes until the stream has ended, and returns the reason for the END.
    pub(super) async fn carry(&self, at: StreamRef, slot: &Rc<Slot>, connection: TcpStream) -> EndReason {
        let mut ending = Ending::default();
        let Ok(peer) = connection.peer_addr() else { return EndReason::ConnReset };
        let mut connection = self.0.side.socket(connection);
        poll_fn(|cx| self.turn(cx, at, slot, &mut connection, peer.ip(), &mut ending)).await
    }

    fn turn(
        &self,
        cx: &mut Context<'_>,
        at: StreamRef,
        slot: &Slot,
        connection: &mut Socket,
        peer: IpAddr,
        ending: &mut Ending,
    ) -> Poll<EndReason> {
        slot.listen(cx);
        match slot.closed.get() {
            Some(Closed::WithCircuit) => return Poll::Ready(EndReason::Destroy),
            Some(Closed::ByClient) => ending.flush(self.0.flush_time),
            None => {}
        }
        let sending = match self.send(cx, at, connection, peer, ending) {
            Ok(progress) => progress,
            Err(error) => return Poll::Ready(end_of_socket(&error)),
        };
        if ending.flushing.is_none() && !ending.is_answered {
            match self.receive(cx, at, connection, peer, ending) {
                Ok(Some(Progress::Goes)) => cx.waker().wake_by_ref(),
                Ok(Some(Progress::Waits)) => {}
                Ok(None) if self.0.side.finish(at) => ending.is_answered = true,
                Ok(None) => ending.flush(self.0.flush_time),
                Err(error) => return Poll::Ready(end_of_socket(&error)),
            }
        }
        if let Progress::Goes = sending {
            cx.waker().wake_by_ref();
        }
        if slot.finished.get() && ending.is_answered {
            // Both directions have ended, and the client forgets the stream.
            ending.flush(self.0.flush_time);
        }
        if let Some(timer) = &mut ending.flushing {
            return match self.is_flushed(at) || Pin::new(timer).poll(cx).is_ready() {
                true => Poll::Ready(EndReason::Done),
                false => Poll::Pending,
            };
        }
        if slot.finished.get() && !ending.is_delivered && self.is_flushed(at) {
            if let Err(error) = connection.finish() {
                return Poll::Ready(end_of_socket(&error));
            }
            ending.is_delivered = true;
        }
        ending.poll_halves(cx, self.0.half_closed_idle)
    }

    /// Whether all that the client sent has gone to the destination.
    fn is_flushed(&self, at: StreamRef) -> bool {
        let mut is_flushed = true;
        self.0.side.read(at, &mut |data| {
            is_flushed = data.is_empty();
            0
        });
        is_flushed
    }

    /// From the client to the destination.
    fn send(
        &self,
        cx: &mut Context<'_>,
        at: StreamRef,
        connection: &mut Socket,
        peer: IpAddr,
        ending: &mut Ending,
    ) -> io::Result<Progress> {
        for _ in 0..limits::STREAM_CHUNKS_PER_TURN {
            let mut result = Poll::Pending;
            self.0.side.read(at, &mut |data| {
                if !data.is_empty()
                    && let Poll::Ready(most) = self.0.side.poll_bandwidth(Direction::Write, peer, cx)
                {
                    let most = most.unwrap_or(data.len()).min(data.len());
                    let data = data.get(..most).unwrap_or(data);
                    result = connection.poll_write(cx, &[IoSlice::new(data)]);
                }
                match &result {
                    Poll::Ready(Ok(n)) => *n,
                    _ => 0,
                }
            });
            match result {
                Poll::Ready(written) => {
                    let written = written? as u64;
                    self.0.side.charge_bandwidth(Direction::Write, peer, written);
                    self.0.stream_metrics.written.increment(written);
                    ending.moved += written;
                }
                Poll::Pending => return Ok(Progress::Waits),
            }
        }
        Ok(Progress::Goes)
    }

    /// From the destination to the client; `None` when the destination has no more.
    fn receive(
        &self,
        cx: &mut Context<'_>,
        at: StreamRef,
        connection: &mut Socket,
        peer: IpAddr,
        ending: &mut Ending,
    ) -> io::Result<Option<Progress>> {
        let scratch = &mut *self.0.scratch.borrow_mut();
        for _ in 0..limits::STREAM_CHUNKS_PER_TURN {
            let room = self.0.side.writable(at).min(scratch.len());
            if room == 0 || self.0.side.poll_may_read(cx).is_pending() {
                return Ok(Some(Progress::Waits));
            }
            let Poll::Ready(most) = self.0.side.poll_bandwidth(Direction::Read, peer, cx) else {
                return Ok(Some(Progress::Waits));
            };
            let room = room.min(most.map_or(room, payload));
            let Some(buf) = scratch.get_mut(..room) else { return Ok(Some(Progress::Waits)) };
            let Poll::Ready(read) = connection.poll_read(cx, buf) else {
                return Ok(Some(Progress::Waits));
            };
            let read = read?;
            if read == 0 {
                return Ok(None);
            }
            self.0.side.charge_bandwidth(Direction::Read, peer, packaged(read));
            self.0.stream_metrics.read.increment(read as u64);
            ending.moved += read as u64;
            self.0.side.write(at, buf.get(..read).unwrap_or_default());
        }
        Ok(Some(Progress::Goes))
    }
}

impl Ending {
    /// Both directions have ended.
    fn flush(&mut self, limit: Duration) {
        self.flushing.get_or_insert_with(|| Timer::new(limit));
    }

    /// Ready when one direction has ended by itself, and nothing moves in the other.
    fn poll_halves(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<EndReason> {
        if !self.is_delivered && !self.is_answered {
            return Poll::Pending;
        }
        let moved = self.moved;
        let idle = self.idle.get_or_insert_with(|| Idle { timer: Timer::new(limit), moved });
        idle.poll(cx, limit, moved).map(|()| EndReason::Timeout)
    }
}

impl Idle {
    fn poll(&mut self, cx: &mut Context<'_>, limit: Duration, moved: u64) -> Poll<()> {
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            if self.moved == moved {
                return Poll::Ready(());
            }
            *self = Idle { timer: Timer::new(limit), moved };
        }
        Poll::Pending
    }
}
