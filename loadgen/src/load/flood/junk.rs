//! Junk CREATE2 as fast as links take them, or at a given rate.

use std::net::IpAddr;
use std::time::Instant;

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command};
use onionring_proto::handshake::{Create2, htype, ntor};
use rand::Rng as _;

use super::BEAT;
use crate::load::board::{Count, Stage};
use crate::load::error::LoadError;
use crate::load::lane::{Core, Job, client_id};
use crate::load::onionskin::RelayKeys;

/// Junk sealed at once.
const BATCH: usize = 31;
/// Batches for one link before others, and what comes in, have their turn.
const BATCHES_PER_TURN: usize = 8;
/// The client's public key lies at the end of HDATA.
const X_LEN: usize = 32;
/// A cell without its body.
const HEAD_LEN: usize = 5;
const CELL_LEN: usize = HEAD_LEN + BODY_LEN;
/// HTYPE and HLEN.
const CREATE2_HEAD_LEN: usize = 4;

/// Junk: CREATE2 for this relay and its onion key, but with random numbers for the client's key. The relay has all the
/// work of a handshake with it before it can know. What is answered is destroyed at once.
pub(in crate::load) struct Junk {
    links: usize,
    sources: Vec<IpAddr>,
    per_second: Option<f64>,
    batch: Vec<u8>,
    open: Vec<usize>,
    opened: usize,
    lost: usize,
    began: Option<Instant>,
    sent_since: u64,
    made: usize,
}

impl Junk {
    /// Links come from `sources` in turn, or from anywhere if there are none.
    pub(in crate::load) fn new(
        keys: RelayKeys,
        links: usize,
        sources: Vec<IpAddr>,
        per_second: Option<f64>,
    ) -> Junk {
        let hdata = [&keys.rsa_id[..], &keys.onion_key, &[0; X_LEN]].concat();
        let mut body = [0; BODY_LEN];
        Create2 { htype: htype::NTOR, hdata: &hdata }.write(&mut body);
        let mut cell = vec![0; HEAD_LEN];
        cell[HEAD_LEN - 1] = Command::CREATE2.0;
        cell.extend_from_slice(&body);
        let (open, batch) = (Vec::new(), cell.repeat(BATCH));
        Junk {
            links,
            sources,
            per_second,
            batch,
            open,
            opened: 0,
            lost: 0,
            began: None,
            sent_since: 0,
            made: 0,
        }
    }

    fn connect(&mut self, core: &mut Core) -> Result<(), LoadError> {
        let source = (!self.sources.is_empty()).then(|| self.sources[self.opened % self.sources.len()]);
        self.opened += 1;
        core.connect_from(source).map(drop)
    }

    /// How many are due on a link now.
    fn due(&self) -> usize {
        let Some(began) = self.began else { return 0 };
        let Some(per_second) = self.per_second else { return BATCH };
        let meant = (began.elapsed().as_secs_f64() * per_second) as u64;
        (meant.saturating_sub(self.sent_since) as usize).min(BATCH)
    }
}

impl Job for Junk {
    fn start(&mut self, core: &mut Core) -> Result<(), LoadError> {
        core.beat(BEAT)?;
        (0..self.links).try_for_each(|_| self.connect(core))
    }

    fn link_up(&mut self, core: &mut Core, link: usize) -> Result<(), LoadError> {
        self.open.push(link);
        if self.open.len() == self.links {
            core.reached = core.reached.max(Stage::Traffic);
        }
        core.touch(link);
        Ok(())
    }

    /// A relay may well close a link that floods it.
    fn link_lost(&mut self, core: &mut Core, link: usize, error: LoadError) -> Result<(), LoadError> {
        if core.reached < Stage::Traffic {
            return Err(error);
        }
        self.open.retain(|open| *open != link);
        self.lost += 1;
        core.counts.add(Count::JunkLinksLost, 1);
        Ok(())
    }

    fn cell(
        &mut self,
        core: &mut Core,
        link: usize,
        id: CircId,
        command: Command,
        _: &mut Body,
    ) -> Result<(), LoadError> {
        match command {
            Command::CREATED2 => {
                core.counts.add(Count::JunkAnswered, 1);
                core.destroy(link, id);
            }
            Command::DESTROY => core.counts.add(Count::JunkRefused, 1),
            other => return Err(LoadError::UnexpectedCell { command: other, when: "in answer to CREATE2" }),
        }
        Ok(())
    }

    fn fill(&mut self, core: &mut Core, link: usize) -> Result<(), LoadError> {
        for _ in 0..BATCHES_PER_TURN {
            let due = self.due();
            if due == 0 {
                return Ok(());
            }
            for cell in self.batch.chunks_exact_mut(CELL_LEN).take(due) {
                self.made += 1;
                cell[..HEAD_LEN - 1].copy_from_slice(&client_id(self.made).0.to_be_bytes());
                let x = HEAD_LEN + CREATE2_HEAD_LEN + ntor::CLIENT_LEN - X_LEN;
                core.rng.fill_bytes(&mut cell[x..x + X_LEN]);
            }
            self.sent_since += due as u64;
            core.counts.add(Count::Junk, due as u64);
            if !core.put(link, &self.batch[..due * CELL_LEN])? {
                return Ok(());
            }
        }
        core.touch(link);
        Ok(())
    }

    fn tick(&mut self, core: &mut Core, now: Instant) -> Result<(), LoadError> {
        let flood = core.goal == Stage::Flood;
        if flood && self.began.is_none() {
            core.reached = Stage::Flood;
            (self.began, self.sent_since) = (Some(now), 0);
        } else if !flood && self.began.is_some() {
            core.reached = Stage::Traffic;
            self.began = None;
        }
        for _ in 0..std::mem::take(&mut self.lost) {
            self.connect(core)?;
        }
        if self.began.is_some() {
            for link in &self.open {
                if !core.links[*link].blocked {
                    core.touch(*link);
                }
            }
        }
        Ok(())
    }
}
