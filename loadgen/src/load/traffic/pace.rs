//! Cells at a fixed rate, and how long each takes: probes to the next relay and back, or bulk through the relay.
//!
//! The rate is an open loop: what is slow does not slow down what follows, and a latency counts from the time at which
//! the cell was meant to be sent, so that a stall is seen in all the cells that it held up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use onionring_proto::cell::Command;

use super::unexpected;
use crate::load::board::Count;
use crate::load::error::LoadError;
use crate::load::lane::{Core, LATE};
use crate::load::latencies::Timed;

/// How the cells of a pace are counted.
pub(super) struct Names {
    timed: Timed,
    missed: Count,
    late: Count,
}

pub(super) const PROBES: Names = Names { timed: Timed::Probe, missed: Count::Missed, late: Count::Late };
pub(super) const BULK: Names = Names { timed: Timed::Bulk, missed: Count::BulkMissed, late: Count::BulkLate };

/// The cells of one kind that a lane sends at a fixed rate, over its circuits in turn.
pub(super) struct Pace {
    names: Names,
    pub(super) interval: Duration,
    /// Cells of one circuit that may be under way; more are missed.
    most: usize,
    /// The circuits, which have numbers in a row, and by circuit the times at which cells under way were to be sent.
    first: usize,
    under_way: Vec<VecDeque<Instant>>,
    next: Option<Instant>,
    turn: usize,
}

impl Pace {
    pub(super) fn new(names: Names, per_second: f64, most: usize) -> Pace {
        let interval = Duration::from_secs_f64(1.0 / per_second);
        Pace { names, interval, most, first: 0, under_way: Vec::new(), next: None, turn: 0 }
    }

    /// One more circuit. Those of a pace come in a row.
    pub(super) fn add(&mut self, circuit: usize) {
        if self.under_way.is_empty() {
            self.first = circuit;
        }
        self.under_way.push(VecDeque::new());
    }

    /// Begins, unless there is no circuit to send over.
    pub(super) fn start(&mut self, now: Instant) {
        self.next = (!self.under_way.is_empty()).then(|| now + self.interval);
    }

    /// The circuit over which a cell is to be sent now, if one is due.
    pub(super) fn due(&mut self, core: &mut Core, now: Instant) -> Option<usize> {
        while let Some(due) = self.next
            && due <= now
        {
            self.next = Some(due + self.interval);
            let turn = self.turn % self.under_way.len();
            self.turn += 1;
            if self.under_way[turn].len() >= self.most {
                core.counts.add(self.names.missed, 1);
                continue;
            }
            if now - due > LATE {
                core.counts.add(self.names.late, 1);
            }
            self.under_way[turn].push_back(due);
            return Some(self.first + turn);
        }
        None
    }

    /// A cell of circuit `n` has arrived.
    pub(super) fn arrived(&mut self, core: &mut Core, n: usize) -> Result<(), LoadError> {
        let turn = n.checked_sub(self.first);
        let due = turn.and_then(|turn| self.under_way.get_mut(turn)?.pop_front());
        let due = due.ok_or_else(|| unexpected(Command::RELAY, "that nobody had sent"))?;
        core.latencies.record(self.names.timed, core.now.saturating_duration_since(due));
        Ok(())
    }
}
