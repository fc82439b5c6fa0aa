//! The honest CREATE2 of somebody who wants a circuit meanwhile.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use onionring_proto::cell::{Body, CircId, Command};
use onionring_proto::handshake::Client;

use super::BEAT;
use crate::load::board::{Count, Stage};
use crate::load::error::LoadError;
use crate::load::lane::{Core, Job, client_id};
use crate::load::latencies::Timed;
use crate::load::onionskin::{RelayKeys, verify};
use crate::load::settings::HandshakeKind;

/// Honest CREATE2 per second: few enough to be no load.
const CREATES_PER_SECOND: u32 = 50;
/// From this age on a CREATE2 counts as refused.
const CREATE_PATIENCE: Duration = Duration::from_secs(5);

/// Honest CREATE2 at a fixed rate, on a link of their own, each verified and then destroyed.
pub(in crate::load) struct Creates {
    keys: RelayKeys,
    link: Option<usize>,
    next: Option<Instant>,
    /// Those without an answer so far, and when they were meant to be sent.
    under_way: HashMap<u32, Client>,
    order: VecDeque<(u32, Instant)>,
    made: usize,
}

impl Creates {
    pub(in crate::load) fn new(keys: RelayKeys) -> Creates {
        let (under_way, order) = (HashMap::new(), VecDeque::new());
        Creates { keys, link: None, next: None, under_way, order, made: 0 }
    }
}

impl Job for Creates {
    fn start(&mut self, core: &mut Core) -> Result<(), LoadError> {
        core.beat(BEAT)?;
        core.connect().map(drop)
    }

    fn link_up(&mut self, core: &mut Core, link: usize) -> Result<(), LoadError> {
        self.link = Some(link);
        core.reached = Stage::Traffic;
        Ok(())
    }

    fn cell(
        &mut self,
        core: &mut Core,
        link: usize,
        id: CircId,
        command: Command,
        body: &mut Body,
    ) -> Result<(), LoadError> {
        let client = self.under_way.remove(&id.0);
        match (command, client) {
            (Command::CREATED2, Some(client)) => {
                let found = self.order.iter().position(|(of, _)| *of == id.0);
                let (_, due) = found.and_then(|n| self.order.remove(n)).expect("it is under way");
                verify(Some(client), body)?;
                core.counts.add(Count::Handshakes, 1);
                core.latencies.record(Timed::Create, core.now.saturating_duration_since(due));
                core.destroy(link, id);
            }
            // Too late: it has been given up.
            (Command::CREATED2, None) => core.destroy(link, id),
            (Command::DESTROY, Some(_)) => {
                self.order.retain(|(of, _)| *of != id.0);
                core.counts.add(Count::Refused, 1);
            }
            (Command::DESTROY, None) => {}
            (other, _) => {
                return Err(LoadError::UnexpectedCell { command: other, when: "in answer to CREATE2" });
            }
        }
        Ok(())
    }

    fn tick(&mut self, core: &mut Core, now: Instant) -> Result<(), LoadError> {
        // There is nothing to prepare for junk here: it comes from another thread.
        core.reached = if self.link.is_some() { core.goal.max(Stage::Traffic) } else { Stage::Start };
        let Some(link) = self.link.filter(|_| core.goal >= Stage::Traffic) else { return Ok(()) };
        let interval = Duration::from_secs(1) / CREATES_PER_SECOND;
        let mut due = *self.next.get_or_insert(now);
        while due <= now {
            self.made += 1;
            let id = client_id(self.made);
            let (client, body) = self.keys.create2(HandshakeKind::Ntor, &mut core.rng);
            self.under_way.insert(id.0, client);
            self.order.push_back((id.0, due));
            core.send(link, id, Command::CREATE2, &body);
            due += interval;
        }
        self.next = Some(due);
        while let Some((id, due)) = self.order.front()
            && now.saturating_duration_since(*due) > CREATE_PATIENCE
        {
            if self.under_way.remove(id).is_some() {
                core.counts.add(Count::Refused, 1);
                core.destroy(link, CircId(*id));
            }
            self.order.pop_front();
        }
        Ok(())
    }
}
