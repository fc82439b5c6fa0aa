//! One link: one task that reads and writes its connection.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use glommio::timer::Timer;
use onionring_node::tls::{TlsError, TlsStream};
use onionring_proto::policy::is_internal;
use tracing::debug;

use super::rate::OwnLimit;
use super::shard::Shard;
use super::socket::Socket;
use crate::engine::dos::Admission;
use crate::engine::ids::LinkId;
use crate::engine::link::{NewLink, Origin};
use crate::engine::rate::{Direction, Traffic};
use crate::limits;

/// What the pump tells a link's task.
#[derive(Default)]
pub(super) struct LinkSlot {
    task: RefCell<Option<Waker>>,
    writable: Cell<bool>,
    closing: Cell<bool>,
}

impl LinkSlot {
    /// The engine has something to send.
    pub(super) fn writable(&self) {
        self.writable.set(true);
        self.wake();
    }

    /// The engine is done with the link.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

/// Buffers that all links of a shard use in turn, so that a link holds no more than a piece of a record and one of a cell.
pub(super) struct Scratch {
    /// What comes in, from [`limits::READ_LEAD`] on; before it, what has been held of it until now.
    incoming: Box<[u8]>,
    /// What goes out.
    outgoing: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        let outgoing = Vec::with_capacity(limits::RECORDS_PER_WRITE * (limits::RECORD_BYTES + 64));
        Scratch { incoming: vec![0; limits::READ_LEAD + limits::READ_BYTES].into(), outgoing }
    }
}

/// A connection whose TLS handshake is complete.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) tls: TlsStream,
    /// Application data that came with the end of the handshake.
    pub(super) early: Vec<u8>,
    pub(super) peer: SocketAddr,
}

/// Runs a link until its connection is closed.
pub(super) async fn run(shard: Rc<Shard>, connection: Connection, origin: Origin, admission: Admission) {
    let Connection { socket, tls, mut early, peer } = connection;
    let id = shard.engine(|engine, now| engine.open_link(now, NewLink { peer, origin, admission }));
    let slot = Rc::new(LinkSlot::default());
    shard.links.borrow_mut().insert(id, slot.clone());
    let mut link = Link {
        shard: shard.clone(),
        id,
        slot,
        socket,
        tls,
        peer: peer.ip(),
        own_limit: None,
        held: Vec::new(),
        linger: None,
        held_up: false,
        announced: false,
    };
    link.cells(&mut early);
    match poll_fn(|cx| link.poll(cx)).await {
        Ok(()) => debug!(link = id.as_u64(), "link closed"),
        Err(failure) => debug!(link = id.as_u64(), "link ended: {failure}"),
    }
    shard.links.borrow_mut().remove(&id);
    // With a link that the engine closed this only forgets it.
    shard.engine(|engine, now| engine.link_gone(now, id));
}

/// How a connection failed, or ended without our doing.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkFailure {
    #[error("closed by the peer")]
    ClosedByPeer,
    #[error("too slow")]
    Timeout,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Connection(#[from] io::Error),
}

impl LinkFailure {
    /// Its place among [`FAILURES`](super::shard::IoCounters::FAILURES).
    pub(super) fn index(&self) -> usize {
        match self {
            LinkFailure::ClosedByPeer => 0,
            LinkFailure::Timeout => 1,
            LinkFailure::Tls(_) => 2,
            LinkFailure::Connection(_) => 3,
        }
    }
}

struct Link {
    shard: Rc<Shard>,
    id: LinkId,
    slot: Rc<LinkSlot>,
    socket: Socket,
    tls: TlsStream,
    peer: IpAddr,
    /// `PerConnBWRate`, once it is needed.
    own_limit: Option<OwnLimit>,
    /// The beginning of a cell whose end has not come yet.
    held: Vec<u8>,
    /// Set when the link is closing: how long the peer may take to read the last of it.
    linger: Option<Timer>,
    /// What is to be written now has found the socket full.
    held_up: bool,
    /// The end of the TLS session has been announced.
    announced: bool,
}

impl Link {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkFailure>> {
        self.slot.task.borrow_mut().get_or_insert_with(|| cx.waker().clone());
        if self.slot.closing.get() {
            return self.poll_close(cx);
        }
        let read = self.read(cx);
        // Also after a failure: the peer may be owed an alert.
        let written = self.write(cx);
        match read.and(written) {
            Ok(()) => Poll::Pending,
            Err(failure) => Poll::Ready(Err(failure)),
        }
    }

    /// Reads what there is, up to a bound, so that links have their turns.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), LinkFailure> {
        let shard = self.shard.clone();
        let incoming = &mut *shard.scratch.borrow_mut().incoming;
        for _ in 0..limits::READS_PER_TURN {
            if shard.poll_may_read(cx).is_pending() {
                return Ok(());
            }
            let Poll::Ready(most) = self.poll_bandwidth(Direction::Read, cx) else { return Ok(()) };
            let most = most.min(limits::READ_BYTES);
            let buf = &mut incoming[limits::READ_LEAD..][..most];
            let len = match self.socket.poll_read(cx, buf) {
                Poll::Pending => return Ok(()),
                Poll::Ready(len) => len?,
            };
            if len == 0 {
                return Err(LinkFailure::ClosedByPeer);
            }
            self.shard.heard(len);
            self.charge(Direction::Read, len);
            self.open(&mut incoming[..limits::READ_LEAD + len])?;
            if self.tls.peer_has_closed() {
                return Err(LinkFailure::ClosedByPeer);
            }
            if self.shard.yields_bandwidth(Direction::Read, Traffic::Relayed, cx) {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Opens what came, from [`limits::READ_LEAD`] on, where it lies, and hands it to the engine.
    fn open(&mut self, incoming: &mut [u8]) -> Result<(), LinkFailure> {
        let record = limits::READ_LEAD - self.tls.partial().len();
        let cell = record - self.held.len();
        incoming[record..limits::READ_LEAD].copy_from_slice(self.tls.partial());
        incoming[cell..record].copy_from_slice(&self.held);
        self.held.clear();
        let (len, opened) = self.tls.open_in_place(&mut incoming[record..]);
        self.cells(&mut incoming[cell..record + len]);
        Ok(opened?)
    }

    /// How many bytes the limits allow; pending if none, and the task is woken when they do.
    fn poll_bandwidth(&mut self, direction: Direction, cx: &mut Context<'_>) -> Poll<usize> {
        let mut most = usize::MAX;
        let Some(rate) = self.shard.throttle.per_link() else {
            self.own_limit = None;
            return self.poll_shared_bandwidth(direction, cx);
        };
        if self.shard.throttle.counts(is_internal(self.peer)) && !self.shard.is_listed(self.id) {
            let now = self.shard.now();
            let own = self.own_limit.get_or_insert_with(|| OwnLimit::new(rate));
            own.adjust(rate, now);
            let Poll::Ready(bytes) = own.poll(direction, now, cx) else { return Poll::Pending };
            most = bytes;
        } else {
            self.own_limit = None;
        }
        self.poll_shared_bandwidth(direction, cx).map(|bytes| bytes.min(most))
    }

    fn poll_shared_bandwidth(&self, direction: Direction, cx: &Context<'_>) -> Poll<usize> {
        let bytes = self.shard.poll_bandwidth(direction, Traffic::Relayed, self.peer, cx);
        bytes.map(|bytes| bytes.unwrap_or(usize::MAX))
    }

    fn charge(&mut self, direction: Direction, bytes: usize) {
        let bytes = bytes as u64;
        self.shard.charge_bandwidth(direction, Traffic::Relayed, self.peer, bytes);
        if let Some(own) = &mut self.own_limit {
            own.charge(direction, self.shard.now(), bytes);
        }
    }

    /// Hands application data to the engine, which works where it lies, and holds what is left.
    fn cells(&mut self, plaintext: &mut [u8]) {
        let unix = self.shard.unix();
        let used = self
            .shard
            .engine(|engine, now| engine.handle_link_data(now, unix, self.id, plaintext, &self.tls));
        self.held.extend_from_slice(&plaintext[used..]);
    }

    /// Writes until the socket takes no more, the engine gives no more, or others should have their turn.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), LinkFailure> {
        let shard = self.shard.clone();
        let outgoing = &mut shard.scratch.borrow_mut().outgoing;
        self.tls.lend(outgoing);
        let result = self.write_borrowed(cx);
        self.tls.reclaim(outgoing);
        result
    }

    fn write_borrowed(&mut self, cx: &mut Context<'_>) -> Result<(), LinkFailure> {
        for _ in 0..limits::WRITES_PER_TURN {
            if !self.tls.wants_transmit() && !self.fill(cx)? {
                return Ok(());
            }
            match self.tls.transmit(&mut self.socket.writer(cx)) {
                Ok(len) => {
                    self.count_write(false);
                    self.charge(Direction::Write, len);
                    if self.slot.writable.get()
                        && !self.slot.closing.get()
                        && self.shard.yields_bandwidth(Direction::Write, Traffic::Relayed, cx)
                    {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.count_write(true);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Counts a write to the socket, or the first time that one is held up because it is full.
    fn count_write(&mut self, held_up: bool) {
        if held_up && self.held_up {
            return;
        }
        self.held_up = held_up;
        self.shard.count(|counters| match held_up {
            true => counters.writes_held += 1,
            false => counters.writes += 1,
        });
    }

    /// Seals the records of one write, of what the engine chooses now. `false` if it has nothing, or may not send it yet.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkFailure> {
        if !self.slot.writable.get() {
            return Ok(false);
        }
        // What is left for a link that closes goes out at once; others pay for it.
        let mut most = if self.slot.closing.get() {
            usize::MAX
        } else {
            let Poll::Ready(most) = self.poll_bandwidth(Direction::Write, cx) else { return Ok(false) };
            most
        };
        for _ in 0..limits::RECORDS_PER_WRITE {
            if !self.slot.writable.get() || most == 0 {
                break;
            }
            let (shard, id, mut some) = (&self.shard, self.id, false);
            let len = self.tls.seal_with(|out| {
                let until = out.len() + limits::RECORD_FILL.min(most);
                some = shard.engine(|engine, now| engine.poll_transmit(now, id, out, until));
            })?;
            most = most.saturating_sub(len);
            if !some {
                self.slot.writable.set(false);
            }
        }
        Ok(self.tls.wants_transmit())
    }

    /// Sends what the engine still has for a link that it closed, and the end of the TLS session.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkFailure>> {
        let linger = self.linger.get_or_insert_with(|| Timer::new(limits::LINK_LINGER));
        if Pin::new(linger).poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.slot.writable.set(true);
        self.write(cx)?;
        let finished = self.shard.engine(|engine, _| engine.link_finished(self.id));
        if finished && !self.announced {
            self.announced = true;
            self.tls.close();
            self.write(cx)?;
        }
        if finished && !self.tls.wants_transmit() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
