//! The task of a link: cells from the socket to circuits, and from circuits to the socket.

use std::future::pending;
use std::sync::Arc;

use onionring_proto::cell::{Frame, next_frame};
use onionring_proto::link::{Verdict, judge};
use tokio::io::Interest;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::Connection;
use super::error::{LinkFailure, Step};
use super::shared::{Delivery, Shared};
use crate::limits;

/// Reads before what follows from them is written.
const READS_PER_TURN: usize = 4;

/// Writes before the socket is looked at for what has come.
const WRITES_PER_TURN: usize = 4;

/// Carries cells until the link is no longer needed or fails.
pub(super) async fn run(mut connection: Connection, shared: Arc<Shared>) {
    // Also if the runtime drops this task: then nobody must wait for it.
    let ending = Ending(shared);
    let shared = &ending.0;
    match carry(&mut connection, shared).await {
        Ok(()) => {
            // The connection ends either way.
            let _ = timeout(limits::LINK_CLOSE, send_rest(&mut connection, shared)).await;
            shared.end(LinkFailure::Closed);
            connection.close(limits::LINK_CLOSE).await;
        }
        Err(failure) => shared.end(failure),
    }
}

struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(LinkFailure::Closed);
    }
}

/// Returns when nobody needs the link.
async fn carry(connection: &mut Connection, shared: &Arc<Shared>) -> Result<(), LinkFailure> {
    // What came in one piece with the end of the handshake.
    deliver(connection, shared)?;
    let mut stall = Stall::default();
    while !shared.is_abandoned() {
        let everything_out = send(connection, shared)?;
        stall.note(everything_out, connection.taken);
        let interest = match everything_out {
            true => Interest::READABLE,
            false if shared.is_backlogged() => Interest::WRITABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        tokio::select! {
            ready = connection.socket.ready(interest) => {
                // Not while too much waits to be sent, whatever is there to be read.
                if ready?.is_readable() && interest.is_readable() {
                    receive(connection, shared)?;
                }
            }
            () = shared.work.notified() => {}
            () = stall.over() => return Err(LinkFailure::Stalled(limits::LINK_STALL)),
        }
    }
    Ok(())
}

/// Reads while there is something, for a few turns, so that all answers to it leave at once: a SENDME alone in a write costs
/// as much as a read of what it acknowledges.
fn receive(connection: &mut Connection, shared: &Arc<Shared>) -> Result<(), LinkFailure> {
    for _ in 0..READS_PER_TURN {
        let read = connection.try_read(Step::Open);
        // What came before the end counts.
        deliver(connection, shared)?;
        if !read? {
            break;
        }
    }
    Ok(())
}

/// Watches whether the peer takes what there is to send.
#[derive(Default)]
struct Stall {
    /// Bytes that it had taken when it took something last, and when its time is over.
    since: Option<(u64, Instant)>,
}

impl Stall {
    fn note(&mut self, everything_out: bool, taken: u64) {
        match self.since {
            _ if everything_out => self.since = None,
            Some((before, _)) if before == taken => {}
            _ => self.since = Some((taken, Instant::now() + limits::LINK_STALL)),
        }
    }

    async fn over(&self) {
        match self.since {
            Some((_, end)) => sleep_until(end).await,
            None => pending().await,
        }
    }
}

/// Makes cells while the socket takes them, and returns whether it took all.
fn send(connection: &mut Connection, shared: &Shared) -> Result<bool, LinkFailure> {
    for _ in 0..WRITES_PER_TURN {
        if !connection.try_write()? {
            return Ok(false);
        }
        for _ in 0..limits::LINK_BATCHES {
            if connection.tls.seal_with(|out| shared.gather(out))? == 0 {
                return connection.try_write();
            }
        }
    }
    // There may be more: come back, but look at the socket in between.
    shared.work.notify_one();
    connection.try_write()
}

/// Sends what is left, such as DESTROYs.
async fn send_rest(connection: &mut Connection, shared: &Shared) -> Result<(), LinkFailure> {
    loop {
        connection.flush().await?;
        if connection.tls.seal_with(|out| shared.gather(out))? == 0 {
            return Ok(());
        }
    }
}

/// Hands the whole cells among what was read to their circuits. Padding, and requests for it, are dropped: padding is
/// for links between clients and guards, and one side without it harms nobody but itself.
fn deliver(connection: &mut Connection, shared: &Arc<Shared>) -> Result<(), LinkFailure> {
    let version = shared.established.version;
    let mut delivery = Delivery::new(shared);
    let mut used = 0;
    while let Some((len, frame)) = next_frame(version.into(), &mut connection.held[used..])? {
        used += len;
        if judge(version, &frame)? == Verdict::Circuit
            && let Frame::Fixed { circ_id, command, body } = frame
        {
            delivery.deliver(circ_id, command, body);
        }
    }
    connection.held.drain(..used);
    Ok(())
}
