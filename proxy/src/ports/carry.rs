//! Moves the bytes of an open stream between application and network.
//!
//! An application that has sent all it wants may still wait for the answer, while ending a stream in the network ends
//! both of its directions. So the end of what the application sends is not passed on: the stream stays open for the
//! answer, until the other side ends it or nothing has come for [`limits::HALF_CLOSED_IDLE`].
//!
//! Where directions end one by one ([`Tunnel::has_halves`]), each end is passed on at once, and the other direction goes
//! on, until it ends too or nothing has moved for [`limits::HALF_ALONE_IDLE`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, sleep, timeout};

use super::app::App;
use super::counters::PortCounters;
use crate::limits;
use crate::network::Tunnel;

/// Carries until the stream is over, and ends both sides of it. `is_over` if the application has already ended what it
/// sends.
pub async fn carry(mut app: App, mut tunnel: impl Tunnel, is_over: bool, counters: &PortCounters) {
    let by_halves = tunnel.has_halves();
    let patience = if by_halves { limits::HALF_ALONE_IDLE } else { limits::HALF_CLOSED_IDLE };
    let mut up = Pipe::new(is_over, by_halves);
    let mut down = Pipe::new(false, by_halves);
    // The clock of silence: it runs once one direction has ended, and starts again with all that moves in the other.
    let mut silence = Box::pin(sleep(patience));
    let mut heard = None;
    let end = poll_fn(|cx| {
        let request = up.poll(cx, &mut app, &mut tunnel, |n| counters.sent(n));
        if request == Poll::Ready(End::Reading) {
            // The application is gone, and with it who would take the answer.
            return request;
        }
        match down.poll(cx, &mut tunnel, &mut app, |n| counters.received(n)) {
            // What the application sends is still wanted.
            Poll::Ready(End::Over) if by_halves && request.is_pending() => {}
            Poll::Ready(how) => return Poll::Ready(how),
            // Also if the stream takes nothing more: then its other side has ended it, and what it said before is to come.
            Poll::Pending => {
                ready!(request);
            }
        }
        let moved = up.moved + down.moved;
        if heard != Some(moved) {
            heard = Some(moved);
            silence.as_mut().reset(Instant::now() + patience);
        }
        silence.as_mut().poll(cx).map(|()| End::Silence)
    })
    .await;
    if end == End::Over {
        // Ends the stream in the network, where its other side has ended it: what it does not take now it never will.
        let _ = timeout(limits::GOODBYE_TIME, tunnel.shutdown()).await;
        drop(tunnel);
        app.dismiss(&[]).await;
    }
    // Otherwise nobody is left for whom it would be worth waiting: what is dropped ends at once.
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The reader has ended, and all of it is written.
    Over,
    /// The reader is broken.
    Reading,
    /// The writer is broken.
    Writing,
    /// Nothing came for too long.
    Silence,
}

/// One direction.
struct Pipe {
    buffer: Box<[u8]>,
    /// What of the buffer is to be written: `start <= end <= buffer.len()`.
    start: usize,
    end: usize,
    /// The reader has ended.
    is_over: bool,
    /// Whether the writer is told so.
    passes_end: bool,
    /// How it ended.
    result: Option<End>,
    /// The writer has bytes that it may hold back.
    needs_flush: bool,
    /// Bytes so far.
    moved: u64,
}

impl Pipe {
    fn new(is_over: bool, passes_end: bool) -> Pipe {
        Pipe {
            buffer: vec![0; limits::CARRY_BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            is_over,
            passes_end,
            result: None,
            needs_flush: false,
            moved: 0,
        }
    }

    /// Moves what can be moved now; says how it has ended, as often as it is asked.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        count: impl Fn(u64),
    ) -> Poll<End> {
        if let Some(result) = self.result {
            return Poll::Ready(result);
        }
        let result = ready!(self.advance(cx, reader, writer, count));
        self.result = Some(result);
        Poll::Ready(result)
    }

    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        count: impl Fn(u64),
    ) -> Poll<End> {
        for _ in 0..limits::CARRY_ROUNDS {
            let mut blocked = false;
            // Only into an empty buffer: a part that is being written stays where it is.
            if self.start == self.end && !self.is_over {
                match self.fill(cx, reader) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Reading),
                    Poll::Pending => blocked = true,
                }
            }
            while self.start < self.end {
                let part = &self.buffer[self.start..self.end];
                match ready!(Pin::new(&mut *writer).poll_write(cx, part)) {
                    Ok(n) if n > 0 => {
                        self.start += n;
                        self.moved += n as u64;
                        self.needs_flush = true;
                        count(n as u64);
                    }
                    Ok(_) | Err(_) => return Poll::Ready(End::Writing),
                }
            }
            if self.is_over || blocked {
                if self.needs_flush {
                    if ready!(Pin::new(&mut *writer).poll_flush(cx)).is_err() {
                        return Poll::Ready(End::Writing);
                    }
                    self.needs_flush = false;
                }
                if !self.is_over {
                    return Poll::Pending;
                }
                if self.passes_end && ready!(Pin::new(&mut *writer).poll_shutdown(cx)).is_err() {
                    return Poll::Ready(End::Writing);
                }
                return Poll::Ready(End::Over);
            }
        }
        // Others want to get on too.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn fill(&mut self, cx: &mut Context<'_>, reader: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<()>> {
        if self.end == self.buffer.len() && self.buffer.len() < limits::CARRY_BULK_BUFFER {
            self.buffer = vec![0; limits::CARRY_BULK_BUFFER].into_boxed_slice();
        }
        let mut buf = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(reader).poll_read(cx, &mut buf))?;
        (self.start, self.end) = (0, buf.filled().len());
        self.is_over = self.end == 0;
        Poll::Ready(Ok(()))
    }
}
