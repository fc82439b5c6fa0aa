//! A lane: one thread with its own links to the relay under test and its own relays behind it.
//!
//! Lanes share nothing, so they need no lock and no message: what a client link of a lane sends comes out at a hop of
//! the same lane, and the other way round. A lane is a thread with epoll and plain sockets: reads of 64 KiB, records as
//! large as TLS has them, no system call and no allocation per cell. A whole relay engine as the next hop would cost a
//! layer of AES-CTR, a digest and a queue per cell and measure nothing more, since the relay under test cannot see
//! what is behind it.

mod cells;
mod core;

use std::mem;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use onionring_proto::cell::{Body, CircId, Command};
use onionring_proto::link::{ExpectedPeer, LinkError};
use rustix::event::epoll::{self, Event};
use rustix::time::{ClockId, clock_gettime};

pub(super) use self::core::Core;
use self::core::{LISTENERS, METRONOME, timespec};
use super::board::{Board, Count};
use super::error::{LoadError, own};
use super::latencies::Latencies;
use super::link::Broken;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// The longest a lane sleeps, so that it hears of the end.
const TURN_MAX: Duration = Duration::from_millis(20);
/// From this on something counts as sent late by loadgen itself.
pub(super) const LATE: Duration = Duration::from_millis(1);
const CLIENT_BIT: u32 = 1 << 31;

/// The relay under test, as links see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    pub(super) address: SocketAddr,
    pub(super) expected: ExpectedPeer,
}

/// What a lane does. All calls come from the lane's thread.
pub(super) trait Job {
    /// The lane begins; its hops listen.
    fn start(&mut self, _: &mut Core) -> Result<(), LoadError> {
        Ok(())
    }
    /// A link is open.
    fn link_up(&mut self, core: &mut Core, link: usize) -> Result<(), LoadError>;
    /// A link is lost, and gone already.
    fn link_lost(&mut self, _: &mut Core, _: usize, error: LoadError) -> Result<(), LoadError> {
        Err(error)
    }
    /// A cell of a circuit has come, and may be changed where it lies.
    fn cell(
        &mut self,
        core: &mut Core,
        link: usize,
        circ: CircId,
        command: Command,
        body: &mut Body,
    ) -> Result<(), LoadError>;
    /// The link takes more: see [`Core::put`].
    fn fill(&mut self, _: &mut Core, _: usize) -> Result<(), LoadError> {
        Ok(())
    }
    /// Once a turn.
    fn tick(&mut self, _: &mut Core, _: Instant) -> Result<(), LoadError> {
        Ok(())
    }
}

/// The ID of a client's circuit number `n`: whoever opens a link sets the highest bit.
pub(super) fn client_id(n: usize) -> CircId {
    CircId(CLIENT_BIT | n as u32 & !CLIENT_BIT)
}

/// The number in such an ID.
pub(super) fn circuit_of(id: CircId) -> usize {
    (id.0 & !CLIENT_BIT) as usize
}

/// Runs a job until it has finished or the board says stop.
pub(super) fn run(
    core: &mut Core,
    job: &mut impl Job,
    board: &Board,
    latencies: &Sender<Latencies>,
) -> Result<(), LoadError> {
    // The first may already be over when this thread gets to run.
    let mut epoch = 0;
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    let mut turn: Vec<usize> = Vec::new();
    core.goal = board.goal();
    job.start(core)?;
    while !board.stopped() && !core.finished {
        // Links that the last turn left dirty are served before sleeping.
        let sleep = if core.dirty.is_empty() { TURN_MAX } else { Duration::ZERO };
        events.clear();
        match epoll::wait(&core.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timespec(sleep))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(own("polling")(e)),
        }
        for event in &events {
            match event.data.u64() {
                METRONOME => core.beaten(),
                token if token >= LISTENERS => core.accept((token - LISTENERS) as usize)?,
                token => cells::ready(core, job, token as usize, event.flags)?,
            }
        }
        core.goal = board.goal();
        job.tick(core, Instant::now())?;
        mem::swap(&mut turn, &mut core.dirty);
        for link in turn.drain(..) {
            flush(core, job, link)?;
        }
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        core.counts.set(Count::CpuNs, cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64);
        board.publish(&core.counts);
        board.set_reached(core.reached);
        let now = board.epoch();
        if epoch != now {
            epoch = now;
            // Who asked may have given up.
            let _ = latencies.send(mem::replace(&mut core.latencies, Latencies::new()));
        }
    }
    Ok(())
}

/// Sends what a link has queued, and has it filled when it takes more.
fn flush(core: &mut Core, job: &mut impl Job, link: usize) -> Result<(), LoadError> {
    let Some(l) = core.links.get_mut(link) else { return Ok(()) };
    l.dirty = false;
    let was_open = l.is_open();
    match l.flush() {
        Ok(true) if was_open => job.fill(core, link),
        Ok(_) => Ok(()),
        Err(broken) => lose(core, job, link, broken, was_open),
    }
}

/// A link is broken.
fn lose(
    core: &mut Core,
    job: &mut impl Job,
    link: usize,
    broken: Broken,
    was_open: bool,
) -> Result<(), LoadError> {
    let mut l = core.links.remove(link);
    // An alert may still be of use to the other side.
    let _ = l.flush();
    let error = explain(broken, core.aim.address, l.hop, was_open);
    job.link_lost(core, link, error)
}

/// What a broken link means.
fn explain(broken: Broken, address: SocketAddr, hop: Option<usize>, was_open: bool) -> LoadError {
    let which = match hop {
        Some(_) => "its link to the next relay, which is loadgen",
        None => "a client link",
    };
    let how = match broken {
        Broken::Handshake(found @ (LinkError::WrongRsaIdentity | LinkError::WrongEdIdentity)) => {
            return LoadError::WrongIdentity { address, found };
        }
        Broken::Socket(source) if !was_open && hop.is_none() => {
            return LoadError::Unreachable { address, source };
        }
        Broken::Socket(e) => e.to_string(),
        Broken::Closed => "end of stream".to_owned(),
        Broken::Tls(what) => format!("TLS: {what}"),
        Broken::Handshake(e) => format!("link handshake: {e}"),
    };
    match (was_open, hop) {
        (false, None) => LoadError::NoRelay { address, what: how },
        _ => LoadError::LinkLost { which, how },
    }
}
