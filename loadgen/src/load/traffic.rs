//! The job behind bulk, interactive and idle: links, circuits through the relay, and cells over them.

mod build;
mod pace;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, DestroyReason};

use self::pace::Pace;
use super::board::{Count, Stage};
use super::circuit::{Check, Setup, pattern};
use super::error::LoadError;
use super::lane::{Core, Job, circuit_of, client_id};
use super::settings::Direction;

/// Bytes of a cell on links of ours.
const CELL_LEN: usize = 5 + BODY_LEN;
/// Cells sealed at once: four full TLS records.
const BATCH: usize = 124;
/// Cells that one circuit sends before others of its link have their turn.
const QUANTUM: u32 = 8;
/// One cell in so many is compared byte by byte.
const SAMPLE: u64 = 64;
/// Probes of one circuit that may be under way.
const PROBES_MAX: usize = 1_000;
/// The shortest time between two looks at what is due.
const BEAT_MIN: Duration = Duration::from_micros(250);

/// What one lane does.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) links: usize,
    /// Bulk circuits on each link.
    pub(super) circuits: usize,
    /// Circuits for probes on each link.
    pub(super) probe_circuits: usize,
    /// Probes per second over all of them.
    pub(super) probe_rate: f64,
    /// Relays of ours that bulk circuits are extended to; probes have one more for themselves, so that on their way
    /// back they share nothing with bulk but the relay under test and its link to the client.
    pub(super) hops: usize,
    /// Whether bulk flows, and which way.
    pub(super) bulk: Option<Direction>,
    /// Cells of bulk per second over all circuits; `None` sends as many as the window allows.
    pub(super) bulk_rate: Option<f64>,
    /// Cells in flight per bulk circuit.
    pub(super) window: u32,
}

struct Circuit {
    client: usize,
    hop: usize,
    /// Our leg of it at the hop, once it is there.
    far: Option<(usize, CircId)>,
    probe: bool,
    setup: Option<Setup>,
    in_flight: u32,
    /// Whether it is among those that may send.
    queued: bool,
    /// Cells received in the direction of the bulk; the extension was the first of either direction.
    received: u64,
    check: Option<Check>,
}

/// Circuit IDs are as good as random already.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u32(&mut self, id: u32) {
        // The table takes its bucket from the low bits and its tag from the high ones.
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// See the [module](self).
pub(super) struct Traffic {
    plan: Plan,
    pattern: Body,
    /// Cells ready to be sent but for their circuit IDs.
    batch: Vec<u8>,
    client_links: Vec<usize>,
    links_begun: usize,
    circuits: Vec<Circuit>,
    built: usize,
    /// By link, whichever end it is: circuits that have room in their window.
    ready: Vec<VecDeque<u32>>,
    /// By link: the circuits of hop links, by the IDs that the relay chose.
    legs: Vec<HashMap<u32, u32, BuildHasherDefault<IdHasher>>>,
    probes: Option<Pace>,
    /// Bulk that comes at a given rate.
    paced: Option<Pace>,
}

impl Traffic {
    pub(super) fn new(plan: Plan) -> Traffic {
        let pattern = pattern();
        let mut cell = vec![0; 4];
        cell.push(Command::RELAY.0);
        cell.extend_from_slice(&pattern);
        Traffic {
            pattern,
            batch: cell.repeat(BATCH),
            client_links: Vec::new(),
            links_begun: 0,
            circuits: Vec::new(),
            built: 0,
            ready: Vec::new(),
            legs: Vec::new(),
            probes: (plan.probe_rate > 0.0).then(|| Pace::new(pace::PROBES, plan.probe_rate, PROBES_MAX)),
            paced: plan.bulk_rate.map(|rate| Pace::new(pace::BULK, rate, plan.window as usize)),
            plan,
        }
    }

    fn start_traffic(&mut self, core: &mut Core, now: Instant) -> Result<(), LoadError> {
        core.reached = Stage::Traffic;
        for n in 0..self.circuits.len() {
            match (self.circuits[n].probe, &mut self.paced) {
                (true, _) => self.probes.iter_mut().for_each(|probes| probes.add(n)),
                (false, Some(paced)) => paced.add(n),
                (false, None) if self.plan.bulk.is_some() => self.mark_ready(core, n),
                (false, None) => {}
            }
        }
        let mut paces: Vec<&mut Pace> = self.probes.iter_mut().chain(&mut self.paced).collect();
        paces.iter_mut().for_each(|pace| pace.start(now));
        match paces.iter().map(|pace| pace.interval).min() {
            Some(interval) => core.beat(interval.max(BEAT_MIN)),
            None => Ok(()),
        }
    }

    /// Sends what is due.
    fn send_due(&mut self, core: &mut Core, now: Instant) {
        while let Some(n) = self.probes.as_mut().and_then(|probes| probes.due(core, now)) {
            core.send(self.circuits[n].client, client_id(n), Command::RELAY, &self.pattern);
        }
        while let Some(n) = self.paced.as_mut().and_then(|paced| paced.due(core, now)) {
            let (link, id) = self.sender(n);
            core.send(link, id, Command::RELAY, &self.pattern);
        }
    }

    /// The link on which bulk of a circuit is sent, and the circuit's ID there.
    fn sender(&self, n: usize) -> (usize, CircId) {
        match (self.plan.bulk, self.circuits[n].far) {
            (Some(Direction::Down), Some(far)) => far,
            _ => (self.circuits[n].client, client_id(n)),
        }
    }

    /// The circuit may send bulk.
    fn mark_ready(&mut self, core: &mut Core, n: usize) {
        let (sender, _) = self.sender(n);
        self.circuits[n].queued = true;
        self.ready[sender].push_back(n as u32);
        core.touch(sender);
    }

    /// A bulk cell has come out of the relay.
    #[inline]
    fn delivered(&mut self, core: &mut Core, n: usize, body: &mut Body) -> Result<(), LoadError> {
        let circuit = &mut self.circuits[n];
        let index = circuit.received;
        circuit.received += 1;
        match &mut self.paced {
            Some(paced) => paced.arrived(core, n)?,
            None if circuit.in_flight == 0 => {
                return Err(unexpected(Command::RELAY, "that nobody had sent"));
            }
            None => circuit.in_flight -= 1,
        }
        core.counts.add(Count::Cells, 1);
        if index.is_multiple_of(SAMPLE)
            && let Some(check) = &mut circuit.check
        {
            check.check(index, body, &self.pattern)?;
            core.counts.add(Count::Verified, 1);
        }
        if self.paced.is_none() && !circuit.queued {
            self.mark_ready(core, n);
        }
        Ok(())
    }

    /// A probe is back.
    fn returned(&mut self, core: &mut Core, n: usize) -> Result<(), LoadError> {
        let probes =
            self.probes.as_mut().ok_or_else(|| unexpected(Command::RELAY, "that nobody had sent"))?;
        core.counts.add(Count::Echoes, 1);
        probes.arrived(core, n)
    }

    fn client_cell(
        &mut self,
        core: &mut Core,
        link: usize,
        id: CircId,
        command: Command,
        body: &mut Body,
    ) -> Result<(), LoadError> {
        let n = circuit_of(id);
        if self.circuits.get(n).is_none_or(|circuit| circuit.client != link) {
            return Err(unexpected(command, "on a circuit that does not exist"));
        }
        let circuit = &mut self.circuits[n];
        if command == Command::DESTROY {
            return Err(destroyed(body, circuit.setup.is_some()));
        }
        match circuit.setup.take() {
            Some(setup) => self.build(core, n, setup, command, body),
            None if command != Command::RELAY => Err(unexpected(command, "out of order")),
            None if circuit.probe => self.returned(core, n),
            None => self.delivered(core, n, body),
        }
    }

    fn hop_cell(
        &mut self,
        core: &mut Core,
        link: usize,
        id: CircId,
        command: Command,
        body: &mut Body,
    ) -> Result<(), LoadError> {
        match command {
            Command::RELAY => {
                let n = *self.legs[link].get(&id.0).ok_or(unexpected(command, "on an unknown circuit"))?;
                if !self.circuits[n as usize].probe {
                    return self.delivered(core, n as usize, body);
                }
                core.send(link, id, Command::RELAY, &self.pattern);
                Ok(())
            }
            Command::CREATE2 => self.answer_create(core, link, id, body),
            Command::DESTROY => Err(destroyed(body, false)),
            _ => Err(unexpected(command, "to the next relay")),
        }
    }
}

impl Job for Traffic {
    fn link_up(&mut self, core: &mut Core, link: usize) -> Result<(), LoadError> {
        if self.ready.len() <= link {
            self.ready.resize_with(link + 1, VecDeque::new);
            self.legs.resize_with(link + 1, HashMap::default);
        }
        if core.links[link].hop.is_none() {
            self.client_links.push(link);
            core.counts.add(Count::Links, 1);
        }
        Ok(())
    }

    #[inline]
    fn cell(
        &mut self,
        core: &mut Core,
        link: usize,
        id: CircId,
        command: Command,
        body: &mut Body,
    ) -> Result<(), LoadError> {
        match core.links[link].hop {
            None => self.client_cell(core, link, id, command, body),
            Some(_) => self.hop_cell(core, link, id, command, body),
        }
    }

    fn fill(&mut self, core: &mut Core, link: usize) -> Result<(), LoadError> {
        loop {
            let mut cells = 0;
            while cells < BATCH
                && let Some(n) = self.ready[link].pop_front()
            {
                let (_, id) = self.sender(n as usize);
                let circuit = &mut self.circuits[n as usize];
                let room = self.plan.window - circuit.in_flight;
                let take = room.min(QUANTUM).min((BATCH - cells) as u32);
                for cell in self.batch[cells * CELL_LEN..].chunks_exact_mut(CELL_LEN).take(take as usize) {
                    cell[..4].copy_from_slice(&id.0.to_be_bytes());
                }
                cells += take as usize;
                circuit.in_flight += take;
                circuit.queued = room > take;
                if circuit.queued {
                    self.ready[link].push_back(n);
                }
            }
            if cells == 0 || !core.put(link, &self.batch[..cells * CELL_LEN])? {
                return Ok(());
            }
        }
    }

    fn tick(&mut self, core: &mut Core, now: Instant) -> Result<(), LoadError> {
        match core.reached {
            Stage::Start if core.goal >= Stage::Links => self.open_links(core)?,
            Stage::Links if core.goal >= Stage::Circuits => self.open_circuits(core),
            Stage::Circuits if core.goal >= Stage::Traffic => self.start_traffic(core, now)?,
            Stage::Traffic | Stage::Flood => {
                // A flood comes from another thread.
                core.reached = core.goal.max(Stage::Traffic);
                self.send_due(core, now);
            }
            _ => {}
        }
        Ok(())
    }
}

fn unexpected(command: Command, when: &'static str) -> LoadError {
    LoadError::UnexpectedCell { command, when }
}

fn destroyed(body: &Body, building: bool) -> LoadError {
    let when = if building { "while it was being built" } else { "in the middle" };
    LoadError::Destroyed { when, reason: DestroyReason::from_wire(body[0]) }
}
