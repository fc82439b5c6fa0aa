//! The pump: the task that does what the engine asks, and decides when the shard rests.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::Task;
use glommio::timer::Timer;
use onionring_proto::time::Mono;
use tracing::info;

use super::{Shard, StreamHandler};
use crate::engine::cross::Batch;
use crate::engine::event::{Event, LinkEvent};
use crate::engine::ids::{LinkId, ShardIndex};
use crate::engine::link::LinkEnd;
use crate::io::connect;
use crate::io::control::{Control, Mailbox};
use crate::io::link::LinkSlot;
use crate::io::mesh::Port;
use crate::io::pace::Rest;
use crate::io::rate::Next;
use crate::limits;

pub(super) struct Pump {
    shard: Rc<Shard>,
    port: Port<Batch>,
    mailbox: Mailbox,
    streams: Box<dyn StreamHandler>,
    accepting: Vec<Task<()>>,
    /// The engine's deadline, and the timer that waits for it.
    wake_up: Option<(Mono, Timer)>,
    /// When the shard is stopping: the time at which it ends, whatever links are left.
    stop_by: Option<Mono>,
}

impl Pump {
    pub(super) fn new(
        shard: Rc<Shard>,
        port: Port<Batch>,
        mailbox: Mailbox,
        streams: Box<dyn StreamHandler>,
        accepting: Vec<Task<()>>,
    ) -> Self {
        Pump { shard, port, mailbox, streams, accepting, wake_up: None, stop_by: None }
    }

    /// One turn: first everything that came in, then what the engine makes of it, then everything that goes out.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shard.pump.set(cx);
        self.mailbox.bell.listen(cx);
        while let Ok(message) = self.mailbox.received.try_recv() {
            self.control(message);
        }
        self.receive(cx);
        let now = self.shard.now();
        if self.shard.engine.borrow().poll_timeout().is_some_and(|at| at <= now) {
            self.shard.engine.borrow_mut().handle_timeout(now);
        }
        self.events();
        self.send();
        let engine = self.shard.engine.borrow();
        if !engine.congested() {
            self.shard.paused.take().into_values().for_each(Waker::wake);
        }
        if engine.has_background() {
            self.shard.background.wake();
        }
        let mut deadline = engine.poll_timeout();
        drop(engine);
        match self.shard.throttle.turn(now) {
            Next::Nothing => {}
            Next::Again => cx.waker().wake_by_ref(),
            Next::At(at) => deadline = deadline.into_iter().chain([at]).min(),
        }
        self.rest(deadline, cx);
        if self.stop_by.is_some_and(|end| now >= end || self.shard.links.borrow().is_empty()) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn control(&mut self, message: Control) {
        let mut engine = self.shard.engine.borrow_mut();
        match message {
            Control::Snapshot(snapshot, acceptor) => {
                self.shard.throttle.set(snapshot.rates.clone());
                engine.set_snapshot(snapshot);
                self.shard.responder.replace(acceptor);
            }
            Control::QueueBytes(bytes) => engine.set_queue_bytes(bytes),
            Control::Counters(reply) => {
                // Who asked may have gone.
                drop(
                    reply.send((
                        engine.shard(),
                        Box::new((engine.counters().clone(), self.shard.io_counters())),
                    )),
                );
            }
            Control::Drain => {
                engine.drain();
                self.accepting.clear();
            }
            Control::Stop => {
                engine.drain();
                self.accepting.clear();
                self.shard.handshakes.clear();
                let now = self.shard.now();
                for link in engine.links().collect::<Vec<_>>() {
                    engine.close_link(now, link, LinkEnd::Shutdown);
                }
                self.stop_by = Some(now + limits::LINK_LINGER);
                info!(shard = engine.shard().0, "closing all links");
            }
        }
    }

    /// Takes in what other shards sent, and the memory that they return.
    fn receive(&mut self, cx: &Context<'_>) {
        let mut engine = self.shard.engine.borrow_mut();
        let mut cells = 0;
        for other in self.port.others() {
            let mut left = limits::CROSSING_RING;
            while let Some(mut batch) = self.port.receive(other) {
                cells += batch.cells();
                self.shard.pace.busy();
                engine.handle_batch(self.shard.now(), &mut batch);
                self.port.give_back(other, batch);
                left -= 1;
                if left == 0 {
                    // A ring's worth: now others have their turn.
                    cx.waker().wake_by_ref();
                    break;
                }
            }
            while let Some(batch) = self.port.take_back(other) {
                engine.recycle_batch(batch);
            }
        }
        if cells > 0 {
            self.shard.heard(cells * limits::CELL_BYTES);
        }
    }

    fn events(&mut self) {
        loop {
            // Borrowed for this statement only: what handles the event calls the engine too.
            let Some(event) = self.shard.engine.borrow_mut().poll_event() else { return };
            match event {
                Event::Link(LinkEvent::Writable(id)) => self.with_link(id, LinkSlot::writable),
                Event::Link(LinkEvent::Close(id)) => self.with_link(id, LinkSlot::close),
                Event::Link(LinkEvent::Dial { dial, addresses, .. }) => {
                    let task = connect::dial(self.shard.clone(), dial, addresses);
                    self.shard.dials.borrow_mut().insert(dial, self.shard.spawn_background(task));
                }
                // Dropping a task cancels it.
                Event::Link(LinkEvent::GiveUp(dial)) => drop(self.shard.dials.borrow_mut().remove(&dial)),
                Event::Stream(event) => self.streams.handle(event),
            }
        }
    }

    /// A link that is gone already is none.
    fn with_link(&self, id: LinkId, tell: impl FnOnce(&LinkSlot)) {
        if let Some(slot) = self.shard.links.borrow().get(&id) {
            tell(slot);
        }
    }

    fn send(&mut self) {
        let mut engine = self.shard.engine.borrow_mut();
        for other in self.port.others() {
            let to = ShardIndex(other as u16);
            let mut sent = false;
            while let Some(batch) = engine.take_batch(to) {
                if let Err(batch) = self.port.send(other, batch) {
                    engine.put_back_batch(to, batch);
                    break;
                }
                sent = true;
            }
            if sent {
                self.port.ring(other);
            }
        }
    }

    /// Sees to it that this task is woken when it next has something to do. Naps, if nobody has anything to do now.
    fn rest(&mut self, deadline: Option<Mono>, cx: &mut Context<'_>) {
        let shard = self.shard.clone();
        let now = shard.now();
        let rest = shard.pace.rest(now, shard.ready.is_any_full());
        match (rest, shard.ready.is_on()) {
            (Rest::Sleep, true) => shard.ready.hand_back(),
            (Rest::Sleep, false) | (_, true) => {}
            (_, false) => shard.ready.take_over(),
        }
        match rest {
            Rest::Sleep => self.sleep_until(deadline, cx),
            Rest::Look => {
                shard.ready.look();
                shard.pace.looked(now);
                self.guard(cx);
                cx.waker().wake_by_ref();
            }
            Rest::Again => {
                self.guard(cx);
                cx.waker().wake_by_ref();
            }
            Rest::Ask => {
                self.guard(cx);
                shard.lull.wake();
            }
            Rest::Rings => {
                // A timer that is over when the executor, which has nothing else to do, looks: so it does not sleep, and
                // wakes this task. Over before that, this task comes first, and tries again.
                let soon = now + Duration::from_micros(3);
                self.sleep_until(Some(soon), cx);
                if self.wake_up.is_some() {
                    while shard.now() <= soon {
                        std::hint::spin_loop();
                    }
                    shard.pace.looks_at_rings(soon);
                }
            }
            Rest::Nap(due) => {
                let latest = deadline.into_iter().chain([shard.pace.looks_at_rings_by()]).min();
                let bell = &self.mailbox.bell;
                if now >= due || bell.doze(due.since(now)) {
                    if !bell.nap(|| shard.ready.nap(latest.unwrap_or(due).since(shard.now()), bell)) {
                        shard.ready.look();
                    }
                    shard.pace.napped(shard.now());
                }
                shard.count(|counters| counters.napped += shard.now().since(now));
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Has this task woken soon, whatever else happens. Sockets that naps wait for are not known to io_uring, and glommio
    /// goes to sleep over runnable tasks if its preemption timer is over before it has begun: when the thread was off its
    /// core for so long just then.
    fn guard(&mut self, cx: &mut Context<'_>) {
        let now = self.shard.now();
        let soon = now + limits::RING_INTERVAL_BUSY / 2;
        if self.wake_up.as_ref().is_none_or(|(at, _)| *at <= now || *at > now + limits::RING_INTERVAL_BUSY) {
            self.sleep_until(Some(soon), cx);
        }
    }

    /// Has this task woken at the engine's deadline, or at the end of a shutdown.
    fn sleep_until(&mut self, deadline: Option<Mono>, cx: &mut Context<'_>) {
        let Some(at) = deadline.into_iter().chain(self.stop_by).min() else {
            self.wake_up = None;
            return;
        };
        let left = at.since(self.shard.now());
        match &mut self.wake_up {
            Some((set, _)) if *set == at && !left.is_zero() => return,
            Some((set, timer)) => {
                *set = at;
                timer.reset(left);
            }
            None => self.wake_up = Some((at, Timer::new(left))),
        }
        if let Some((_, timer)) = &mut self.wake_up
            && Pin::new(timer).poll(cx).is_ready()
        {
            self.wake_up = None;
            cx.waker().wake_by_ref();
        }
    }
}
