//! Small cells at a fixed rate, and how long each takes to the next relay and back.
//!
//! The rate is an open loop: what is slow does not slow down what follows, and a latency counts from the time at which
//! the cell was meant to be sent, so that a stall is seen in all the cells that it held up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use onionring_proto::cell::{Body, Command};

use super::{Circuit, client_id};
use crate::load::board::Count;
use crate::load::error::LoadError;
use crate::load::lane::Core;

/// Probes of one circuit that may be under way; more are missed.
const UNDER_WAY_MAX: usize = 1_000;
/// From this on a probe counts as sent late by loadgen itself.
const LATE: Duration = Duration::from_millis(1);

/// The probes of a lane.
pub(super) struct Probes {
    interval: Duration,
    /// Their circuits, and by circuit the times at which probes under way were to be sent.
    circuits: Vec<usize>,
    under_way: Vec<VecDeque<Instant>>,
    next: Option<Instant>,
    turn: usize,
}

impl Probes {
    pub(super) fn new(per_second: f64) -> Probes {
        let interval =
            if per_second > 0.0 { Duration::from_secs_f64(1.0 / per_second) } else { Duration::MAX };
        Probes { interval, circuits: Vec::new(), under_way: Vec::new(), next: None, turn: 0 }
    }

    /// One more circuit to send probes over. Those of a lane come last among its circuits, in a row.
    pub(super) fn add(&mut self, circuit: usize) {
        self.circuits.push(circuit);
        self.under_way.push(VecDeque::new());
    }

    pub(super) fn start(&mut self, core: &mut Core, now: Instant) -> Result<(), LoadError> {
        if self.circuits.is_empty() {
            return Ok(());
        }
        self.next = Some(now + self.interval);
        core.beat(self.interval)
    }

    /// Sends what is due.
    pub(super) fn tick(&mut self, core: &mut Core, now: Instant, circuits: &[Circuit], body: &Body) {
        while let Some(due) = self.next
            && due <= now
        {
            self.next = Some(due + self.interval);
            let turn = self.turn % self.circuits.len();
            self.turn += 1;
            if self.under_way[turn].len() >= UNDER_WAY_MAX {
                core.counts.add(Count::Missed, 1);
                continue;
            }
            if now - due > LATE {
                core.counts.add(Count::Late, 1);
            }
            self.under_way[turn].push_back(due);
            let n = self.circuits[turn];
            core.send(circuits[n].client, client_id(n), Command::RELAY, body);
        }
    }

    /// A probe has come back on circuit `n`.
    pub(super) fn returned(&mut self, core: &mut Core, n: usize) -> Result<(), LoadError> {
        let turn = self.circuits.first().and_then(|first| n.checked_sub(*first));
        let sent = turn.and_then(|turn| self.under_way.get_mut(turn)?.pop_front());
        let sent =
            sent.ok_or(LoadError::UnexpectedCell { command: Command::RELAY, when: "that nobody sent" })?;
        core.counts.add(Count::Echoes, 1);
        core.latencies.saturating_record(sent.elapsed().as_nanos() as u64);
        Ok(())
    }
}
