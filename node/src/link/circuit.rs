//! A circuit that we build: its handle, and the state machine of `proto::origin` behind it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use onionring_proto::cell::{Body, CircId, Command, DestroyReason};
use onionring_proto::origin::{
    Event, FirstHop, HopTarget, OriginCircuit, OriginConfig, OriginError, StreamKey,
};
use onionring_proto::relay_msg::{Begin, Connected, EndReason, Resolve, Resolved};
use onionring_proto::time::Mono;
use rand::rngs::ThreadRng;
use tokio::io::ReadBuf;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::error::{CircuitError, LinkFailure, StreamError};
use super::shared::{LinkCircuit, LinkLease, Turn};
use super::slots::{Over, Slot, Slots, StreamNo};
use super::stream::{Stream, StreamHost};

/// Why clients end streams, whatever they really have: the relay need not know (as deployed clients do).
const CLIENT_END: EndReason = EndReason::Misc;

/// A circuit of ours; see the [module](super). It is closed when this and its streams are dropped.
///
/// A future of [`extend`](Self::extend) or [`truncate`](Self::truncate) that is dropped half-way leaves the circuit
/// busy until the relay answers: close such a circuit.
pub struct Circuit {
    lease: Arc<CircuitLease>,
    hop_timeout: Duration,
}

impl Circuit {
    pub(super) async fn create(
        link: Arc<LinkLease>,
        first: FirstHop<'_>,
        config: OriginConfig,
    ) -> Result<Circuit, CircuitError> {
        let origin =
            Origin { circuit: OriginCircuit::new(config), slots: Slots::default(), cut: None, end: None };
        let shared = Arc::new(OriginShared { origin: Mutex::new(origin), changed: Notify::new() });
        let id = link.0.add(shared.clone())?;
        let lease = Arc::new(CircuitLease { link, id, shared });
        let circuit = Circuit { lease, hop_timeout: config.hop_timeout };
        circuit.lease.act(|origin, now, rng| origin.circuit.create(now, rng, first))?;
        circuit.built(1).await?;
        Ok(circuit)
    }

    /// Adds a hop, within the `hop_timeout` of the configuration. Closes the circuit if that fails.
    pub async fn extend(&self, target: &HopTarget) -> Result<(), CircuitError> {
        let hops = self.lease.act(|origin, now, rng| {
            origin.circuit.extend(now, rng, target)?;
            Ok::<_, OriginError>(origin.circuit.hops())
        })?;
        self.built(hops + 1).await
    }

    /// Has hop number `hop`, counted from 0, cut the circuit behind it; returns the reason it gives. Closes the circuit
    /// if it does not answer within `limit`.
    pub async fn truncate(&self, hop: usize, limit: Duration) -> Result<DestroyReason, CircuitError> {
        self.lease.act(|origin, _, _| {
            origin.cut = None;
            origin.circuit.truncate(hop)
        })?;
        let cut = self.lease.shared.until(|origin| origin.cut.take().map(Ok).or_else(|| origin.failed()));
        match timeout(limit, cut).await {
            Ok(result) => result,
            Err(_) => {
                self.close();
                Err(CircuitError::Timeout(limit))
            }
        }
    }

    /// Opens a stream from hop number `hop` to an address; the answer must come within `limit`.
    pub async fn begin(&self, hop: usize, begin: &Begin<'_>, limit: Duration) -> Result<Stream, StreamError> {
        self.open(limit, |circuit, rng| circuit.begin(rng, hop, begin)).await
    }

    /// Asks hop number `hop` for a stream to an address, without waiting for the answer: what is written to the stream
    /// goes along with the request.
    pub fn ask(&self, hop: usize, begin: &Begin<'_>) -> Result<Asked, StreamError> {
        let (no, stream) = self.start_stream(|circuit, rng| circuit.begin(rng, hop, begin))?;
        Ok(Asked { stream, answer: Answer { lease: self.lease.clone(), no } })
    }

    /// Opens a stream to the directory of hop number `hop`; the answer must come within `limit`.
    pub async fn begin_dir(&self, hop: usize, limit: Duration) -> Result<Stream, StreamError> {
        self.open(limit, |circuit, rng| circuit.begin_dir(rng, hop)).await
    }

    /// Has hop number `hop` look something up; the answer must come within `limit`.
    pub async fn resolve(
        &self,
        hop: usize,
        resolve: &Resolve<'_>,
        limit: Duration,
    ) -> Result<Resolved, StreamError> {
        let (no, _stream) = self.start_stream(|circuit, rng| circuit.resolve(rng, hop, resolve))?;
        self.lease.answer(no, limit, |slot| slot.resolved.take()).await
    }

    /// Number of hops.
    pub fn hops(&self) -> usize {
        self.lease.shared.lock().circuit.hops()
    }

    /// Number of live streams.
    pub fn streams(&self) -> usize {
        self.lease.shared.lock().circuit.streams()
    }

    /// Why the circuit is gone, `None` while it lives.
    pub fn failure(&self) -> Option<CircuitError> {
        self.lease.shared.lock().end.clone()
    }

    /// Waits until the circuit is gone; returns why it is.
    pub async fn closed(&self) -> CircuitError {
        self.lease.shared.until(|origin| origin.end.clone()).await
    }

    /// Closes the circuit, whoever still uses it.
    pub fn close(&self) {
        self.lease.close();
    }

    /// Waits until the circuit has `hops` hops.
    async fn built(&self, hops: usize) -> Result<(), CircuitError> {
        let built = self
            .lease
            .shared
            .until(|origin| origin.failed().or_else(|| (origin.circuit.hops() >= hops).then_some(Ok(()))));
        if let Ok(result) = timeout(self.hop_timeout, built).await {
            return result;
        }
        let timed_out = self.lease.act(|origin, now, _| {
            origin.circuit.handle_timeout(now);
            origin.pump();
            origin.end.clone()
        });
        // Unless the two clocks disagree by a moment, the circuit has noticed by itself.
        self.close();
        Err(timed_out.unwrap_or(CircuitError::Timeout(self.hop_timeout)))
    }

    async fn open(
        &self,
        limit: Duration,
        begin: impl FnOnce(&mut OriginCircuit, &mut ThreadRng) -> Result<StreamKey, OriginError>,
    ) -> Result<Stream, StreamError> {
        let (no, mut stream) = self.start_stream(begin)?;
        let connected = self.lease.answer(no, limit, |slot| slot.connected.take()).await?;
        stream.set_connected(connected);
        Ok(stream)
    }

    /// Sends the request. The stream that is returned ends it when dropped.
    fn start_stream(
        &self,
        begin: impl FnOnce(&mut OriginCircuit, &mut ThreadRng) -> Result<StreamKey, OriginError>,
    ) -> Result<(StreamNo, Stream), StreamError> {
        let no = self.lease.act(|origin, _, rng| {
            let key = begin(&mut origin.circuit, rng)?;
            Ok::<_, OriginError>(origin.slots.open(key))
        });
        // If the circuit is gone, the reason says more than that it is.
        let no = no.map_err(|error| match (error, self.failure()) {
            (OriginError::Closed, Some(end)) => end.into(),
            (error, _) => StreamError::from(error),
        })?;
        Ok((no, Stream::new(self.lease.clone(), no, Connected::default())))
    }
}

/// A stream that has been asked for; dropping it ends it.
pub struct Asked {
    /// The stream, which takes data already.
    pub stream: Stream,
    /// What the relay will say.
    pub answer: Answer,
}

/// The answer to come for a stream.
pub struct Answer {
    lease: Arc<CircuitLease>,
    no: StreamNo,
}

impl Answer {
    /// Waits for it, at most so long: where the stream leads, if the relay says so.
    pub async fn wait(&self, limit: Duration) -> Result<Connected, StreamError> {
        self.lease.answer(self.no, limit, |slot| slot.connected.take()).await
    }
}

impl From<Over> for StreamError {
    fn from(over: Over) -> StreamError {
        match over {
            Over::Ended(reason) => StreamError::Ended(reason),
            Over::Forbidden(address) => StreamError::Forbidden(address),
            Over::Shut => StreamError::Shut,
        }
    }
}

/// Keeps the circuit, and with it the link, open.
struct CircuitLease {
    link: Arc<LinkLease>,
    id: CircId,
    shared: Arc<OriginShared>,
}

impl CircuitLease {
    /// Changes the circuit, and lets the link send what follows from it.
    fn act<T>(&self, change: impl FnOnce(&mut Origin, Mono, &mut ThreadRng) -> T) -> T {
        let result = self.shared.act(|origin| change(origin, self.link.0.now(), &mut rand::rng()));
        self.link.0.mark_ready(self.id);
        result
    }

    fn close(&self) {
        self.act(|origin, _, _| origin.close(CircuitError::Dropped));
    }

    /// Waits for the answer to what opened a stream.
    async fn answer<T>(
        &self,
        no: StreamNo,
        limit: Duration,
        mut found: impl FnMut(&mut Slot) -> Option<T>,
    ) -> Result<T, StreamError> {
        let answered = self.shared.until(|origin| {
            let slot = origin.slots.get_mut(no)?;
            if let Some(answer) = found(slot) {
                return Some(Ok(answer));
            }
            let over = slot.over.map(|over| Err(over.into()));
            over.or_else(|| origin.end.clone().map(|end| Err(end.into())))
        });
        timeout(limit, answered).await.unwrap_or(Err(StreamError::Timeout(limit)))
    }
}

impl Drop for CircuitLease {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the handles share with the link's task.
struct OriginShared {
    origin: Mutex<Origin>,
    /// Tells those who wait for the circuit, or for a stream to be opened.
    changed: Notify,
}

struct Origin {
    circuit: OriginCircuit,
    slots: Slots,
    /// TRUNCATED has come.
    cut: Option<DestroyReason>,
    /// The circuit is gone. What had come before may still be read.
    end: Option<CircuitError>,
}

impl OriginShared {
    /// A panic elsewhere leaves the state as consistent as every other moment does.
    fn lock(&self) -> MutexGuard<'_, Origin> {
        self.origin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the circuit, and tells whom it concerns.
    fn act<T>(&self, change: impl FnOnce(&mut Origin) -> T) -> T {
        let mut origin = self.lock();
        let had_ended = origin.end.is_some();
        let result = change(&mut origin);
        let has_news = origin.pump() || origin.end.is_some() != had_ended;
        drop(origin);
        if has_news {
            self.changed.notify_waiters();
        }
        result
    }

    /// Waits until `check` finds what it looks for; it looks again after every event.
    async fn until<T>(&self, mut check: impl FnMut(&mut Origin) -> Option<T>) -> T {
        loop {
            // Made before the look, so that no news is missed between the two.
            let changed = self.changed.notified();
            if let Some(found) = check(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }
}

impl Origin {
    fn failed<T>(&self) -> Option<Result<T, CircuitError>> {
        self.end.clone().map(Err)
    }

    fn close(&mut self, why: CircuitError) {
        if self.end.is_none() {
            self.circuit.close();
            self.end = Some(why);
            self.slots.wake_all();
        }
    }

    /// Acts on events; returns whether there were any that concern others than the readers and writers of streams.
    fn pump(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.circuit.poll_event() {
            any |= !matches!(event, Event::Readable(_) | Event::Writable(_) | Event::Finished(_));
            match event {
                Event::Extended { .. } => {}
                Event::Truncated { reason, .. } => self.cut = Some(reason),
                Event::Connected { stream, connected } => {
                    self.with(stream, |slot| slot.connected = Some(connected));
                }
                Event::Resolved { stream, resolved } => {
                    self.with(stream, |slot| slot.resolved = Some(resolved));
                    self.slots.ended(stream, EndReason::Done.into());
                }
                Event::Readable(stream) => self.with(stream, Slot::wake_reader),
                Event::Writable(stream) => self.with(stream, Slot::wake_writer),
                Event::Finished(stream) => self.with(stream, Slot::end_reading),
                Event::Ended { stream, end } => self.slots.ended(stream, end),
                Event::Closed(reason) => {
                    self.end.get_or_insert(reason.into());
                    self.slots.wake_all();
                }
            }
        }
        any
    }

    fn with(&mut self, stream: StreamKey, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.by_key(stream) {
            change(slot);
        }
    }

    /// Notes whose data is all sent, and wakes those who wait for that.
    fn note_flushed(&mut self) {
        let live = self.slots.iter_mut().filter(|slot| slot.over.is_none() && slot.has_unsent);
        let circuit = &self.circuit;
        for slot in live.filter(|slot| circuit.unsent(slot.key) == 0 && !circuit.is_finishing(slot.key)) {
            // What the relay did not want any more was thrown away.
            slot.has_unsent = circuit.end(slot.key).is_some();
            slot.wake_writer();
        }
    }
}

impl LinkCircuit for OriginShared {
    fn handle_cell(&self, now: Mono, command: Command, body: &mut Body) {
        self.act(|origin| origin.circuit.handle_cell(now, command, body));
    }

    fn transmit(&self, most: usize, send: &mut dyn FnMut(Command, &Body)) -> Turn {
        self.act(|origin| {
            let mut turn = Turn::More;
            for _ in 0..most {
                let Some((command, body)) = origin.circuit.poll_transmit(&mut rand::rng()) else {
                    turn = if origin.circuit.is_closed() { Turn::Over } else { Turn::Idle };
                    break;
                };
                send(command, &body);
            }
            origin.note_flushed();
            turn
        })
    }

    fn link_lost(&self, why: &Arc<LinkFailure>) {
        self.act(|origin| origin.close(CircuitError::Link(why.clone())));
    }
}

impl StreamHost for CircuitLease {
    fn poll_read(&self, no: StreamNo, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let (has_work, result) = self.shared.act(|origin| {
            let Some(slot) = origin.slots.get_mut(no) else { return (false, fail(StreamError::Shut)) };
            match slot.over {
                Some(Over::Ended(EndReason::Done)) => return (false, Poll::Ready(Ok(()))),
                Some(over) => return (false, fail(over.into())),
                None => {}
            }
            let len = origin.circuit.read_stream(slot.key, buf.initialize_unfilled());
            if len > 0 {
                buf.advance(len);
                return (origin.circuit.wants_to_transmit(), Poll::Ready(Ok(())));
            }
            if slot.is_read {
                return (false, Poll::Ready(Ok(())));
            }
            if let Some(end) = &origin.end {
                return (false, fail(end.clone().into()));
            }
            slot.await_reading(cx);
            (false, Poll::Pending)
        });
        if has_work {
            // The relay may send more now, and is to hear of it.
            self.link.0.mark_ready(self.id);
        }
        result
    }

    fn poll_write(&self, no: StreamNo, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let result = self.shared.act(|origin| {
            let Some(slot) = origin.slots.get_mut(no) else { return fail(StreamError::Shut) };
            if let Some(over) = slot.over {
                return fail(over.into());
            }
            if slot.is_written {
                return fail(StreamError::Shut);
            }
            if let Some(end) = &origin.end {
                return fail(end.clone().into());
            }
            match origin.circuit.write_stream(slot.key, data) {
                0 => match origin.circuit.end(slot.key) {
                    Some(end) => fail(StreamError::Ended(end.reason)),
                    None => {
                        slot.await_writing(cx);
                        Poll::Pending
                    }
                },
                len => {
                    slot.has_unsent = true;
                    Poll::Ready(Ok(len))
                }
            }
        });
        if result.is_ready() {
            self.link.0.mark_ready(self.id);
        }
        result
    }

    fn poll_flush(&self, no: StreamNo, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.act(|origin| {
            let Some(slot) = origin.slots.get_mut(no) else { return fail(StreamError::Shut) };
            match slot.over {
                Some(Over::Shut) => return Poll::Ready(Ok(())),
                // It had all that was written.
                Some(Over::Ended(EndReason::Done)) if !slot.has_unsent => return Poll::Ready(Ok(())),
                Some(over) => return fail(over.into()),
                None => {}
            }
            if let Some(end) = &origin.end {
                return fail(end.clone().into());
            }
            if !slot.has_unsent {
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = origin.circuit.end(slot.key) {
                return fail(StreamError::Ended(end.reason));
            }
            slot.await_writing(cx);
            Poll::Pending
        })
    }

    fn end(&self, no: StreamNo) {
        self.act(|origin, _, _| {
            if let Some(key) = origin.slots.shut(no) {
                origin.circuit.close_stream(key, CLIENT_END);
            }
        });
    }

    fn has_halves(&self, no: StreamNo) -> bool {
        let Origin { circuit, slots, .. } = &mut *self.shared.lock();
        slots.get_mut(no).is_some_and(|slot| slot.over.is_none() && circuit.has_halves(slot.key))
    }

    fn finish(&self, no: StreamNo) {
        self.act(|origin, _, _| {
            if let Some(slot) = origin.slots.get_mut(no).filter(|slot| !slot.is_written) {
                slot.is_written = true;
                // The END, for which who flushes has to wait.
                slot.has_unsent = true;
                origin.circuit.finish_stream(slot.key);
            }
        });
    }

    fn drop_stream(&self, no: StreamNo) {
        self.act(|origin, _, _| {
            if let Some(key) = origin.slots.remove(no) {
                origin.circuit.close_stream(key, CLIENT_END);
            }
        });
    }
}

fn fail<T>(error: StreamError) -> Poll<io::Result<T>> {
    Poll::Ready(Err(error.into()))
}
