//! From what the poller says to cells.

use std::mem;
use std::time::Instant;

use onionring_proto::cell::{CircId, Frame, LinkVersion, next_frame};
use rustix::event::epoll::EventFlags;

use super::{Core, Job, lose};
use crate::load::error::LoadError;

/// Readings of one link per turn, so that others have theirs.
const READS_PER_TURN: usize = 4;

/// Something has happened on a link's socket.
pub(super) fn ready(
    core: &mut Core,
    job: &mut impl Job,
    link: usize,
    flags: EventFlags,
) -> Result<(), LoadError> {
    if flags.contains(EventFlags::OUT) && core.links.get(link).is_some_and(|l| l.blocked || !l.is_open()) {
        core.touch(link);
    }
    if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
        return Ok(());
    }
    let mut plaintext = mem::take(&mut core.plaintext);
    let result = read(core, job, link, &mut plaintext);
    core.plaintext = plaintext;
    result
}

fn read(core: &mut Core, job: &mut impl Job, link: usize, plaintext: &mut Vec<u8>) -> Result<(), LoadError> {
    for _ in 0..READS_PER_TURN {
        // The job may have closed it.
        let Some(l) = core.links.get_mut(link) else { return Ok(()) };
        plaintext.clear();
        plaintext.append(&mut l.leftover);
        let was_open = l.is_open();
        let result = l.read(&mut core.ciphertext, plaintext).and_then(|more| {
            let up = l.advance(plaintext, &mut core.rng)?;
            Ok((more, up))
        });
        let (more, up) = match result {
            Ok(done) => done,
            Err(broken) => return lose(core, job, link, broken, was_open),
        };
        core.now = Instant::now();
        if !was_open {
            core.touch(link);
        }
        if up {
            job.link_up(core, link)?;
        }
        let used = if was_open || up { cells(core, job, link, plaintext)? } else { 0 };
        if let Some(l) = core.links.get_mut(link) {
            l.leftover.extend_from_slice(&plaintext[used..]);
        }
        if !more {
            return Ok(());
        }
    }
    match core.links.contains(link) {
        true => core.read_later(link),
        false => Ok(()),
    }
}

/// Hands all whole cells of circuits to the job; returns how many bytes the whole cells had.
fn cells(core: &mut Core, job: &mut impl Job, link: usize, plaintext: &mut [u8]) -> Result<usize, LoadError> {
    let mut used = 0;
    while let Some((len, frame)) = next_frame(LinkVersion::V5.into(), &mut plaintext[used..])? {
        used += len;
        if let Frame::Fixed { circ_id, command, body } = frame
            && circ_id != CircId::LINK
        {
            job.cell(core, link, circ_id, command, body)?;
        }
    }
    Ok(used)
}
