//! One measurement: lanes are started, taken to their traffic, and read at the edges of every repetition.

mod figures;
mod work;

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::figures::{Edge, repetition};
use super::board::{Board, Count, Counts, Stage};
use super::error::{LoadError, own};
use super::latencies::Latencies;
use super::report::{Failure, Repetition, Report};
use super::settings::{Scenario, Settings, default_window};
use super::subject::Subject;
use super::syscalls::{NOT_COUNTED, Syscalls};

/// How often lanes are looked after.
const POLL: Duration = Duration::from_millis(20);
/// How often the relay's process is looked for, and progress told.
const LOOK: Duration = Duration::from_millis(200);
/// How long a lane may take to hand in its latencies.
const HAND_IN: Duration = Duration::from_secs(5);
/// How long memory is left to settle before it is read.
const SETTLE_SECONDS: f64 = 1.0;
/// The longest that a capacity is measured for.
const CAPACITY_SECONDS: f64 = 3.0;
/// When a link breaks, how often the relay's process is looked for: its end may be seen a little later.
const DEATH_LOOKS: u32 = 25;

/// What is counted although nothing moves: time that lanes spend, what they could not send, what the relay refused, and
/// junk, which sockets take for a while.
const NO_PROGRESS: [Count; 8] = [
    Count::CpuNs,
    Count::Missed,
    Count::Late,
    Count::BulkMissed,
    Count::BulkLate,
    Count::Refused,
    Count::Junk,
    Count::JunkLinksLost,
];

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Links are being opened, circuits being built: how many are there.
    Preparing {
        /// Open links.
        links: u64,
        /// Finished circuits.
        circuits: u64,
    },
    /// A network boots: how many relays are in its consensus.
    Booting(usize),
    /// The load runs; it is not measured yet.
    WarmUp,
    /// Measuring.
    Measuring {
        /// Which repetition, from 1.
        repetition: u32,
        /// What has been done per second since it began: cells, handshakes, links or probes.
        per_second: f64,
    },
}

/// Is called several times a second, and may break the measurement off.
type Tell<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// Measures `subject`. Whatever goes wrong is in the report, with the repetitions that were made until then. `listen`
/// is where the relay under test finds us, by default the address that faces it.
pub fn measure(
    subject: &Subject,
    settings: &Settings,
    listen: Option<IpAddr>,
    tell: &mut Tell<'_>,
) -> Report {
    let mut report = Report::new(settings.clone(), subject.info().clone());
    let mut syscalls = None;
    if let Some(gauge) = subject.gauge.as_ref().filter(|_| settings.syscalls) {
        match Syscalls::of(gauge.pid()) {
            Ok(counted) => syscalls = Some(counted),
            Err(e) => report.notes.push(format!("{NOT_COUNTED}: {e}")),
        }
    }
    let outcome = Fleet::start(subject, settings, listen, tell).and_then(|mut fleet| {
        fleet.syscalls = syscalls;
        match settings.scenario {
            Scenario::Idle => fleet.idle(&mut report.repetitions),
            Scenario::Flood => fleet.flood(&mut report.repetitions),
            _ => fleet.traffic(&mut report.repetitions),
        }
    });
    let failure = outcome.err().map(|error| match error {
        LoadError::Interrupted => error,
        // What broke the lanes may be that the relay has died, which is the better thing to say.
        error => died(subject).unwrap_or(error),
    });
    report.finish(failure.as_ref().map(Failure::from))
}

/// MiB of goodput per second that `subject` carries in a closed loop.
pub(super) fn capacity(
    subject: &Subject,
    settings: &Settings,
    listen: Option<IpAddr>,
    tell: &mut Tell<'_>,
) -> Result<f64, LoadError> {
    let settings = Settings {
        scenario: Scenario::Bulk,
        bulk_rate: None,
        window: settings.window.min(default_window(settings.links * settings.circuits, false)),
        seconds: settings.seconds.min(CAPACITY_SECONDS),
        repetitions: 1,
        ..settings.clone()
    };
    let mut done = Vec::new();
    let carried =
        Fleet::start(subject, &settings, listen, tell).and_then(|mut fleet| fleet.traffic(&mut done));
    carried.map_err(|e| if matches!(e, LoadError::Interrupted) { e } else { died(subject).unwrap_or(e) })?;
    let goodput = done.first().and_then(|repetition| repetition.measures.get("goodput_bytes_per_second"));
    Ok(goodput.copied().unwrap_or_default() / 1_048_576.0)
}

/// Whether the process of the relay has ended, perhaps this very moment.
fn died(subject: &Subject) -> Option<LoadError> {
    (0..DEATH_LOOKS).find_map(|_| {
        thread::sleep(POLL);
        subject.check().err()
    })
}

/// The lanes of a measurement. Dropping it ends them.
struct Fleet<'a, 'b> {
    subject: &'a Subject,
    settings: &'a Settings,
    tell: &'a mut Tell<'b>,
    boards: Vec<Arc<Board>>,
    lanes: Vec<JoinHandle<Result<(), LoadError>>>,
    latencies: mpsc::Receiver<Latencies>,
    /// Those of the relay, if they are to be counted.
    syscalls: Option<Syscalls>,
    /// When something last moved, and what was counted then.
    moved: (Instant, Counts),
    looked: Instant,
}

impl<'a, 'b> Fleet<'a, 'b> {
    fn start(
        subject: &'a Subject,
        settings: &'a Settings,
        listen: Option<IpAddr>,
        tell: &'a mut Tell<'b>,
    ) -> Result<Fleet<'a, 'b>, LoadError> {
        let (sender, latencies) = mpsc::channel();
        let moved = (Instant::now(), Counts::default());
        let (boards, lanes) = (Vec::new(), Vec::new());
        let (looked, syscalls) = (Instant::now(), None);
        let mut fleet = Fleet { subject, settings, tell, boards, lanes, latencies, syscalls, moved, looked };
        for (work, number) in work::split(subject, settings, listen)?.into_iter().zip(0..) {
            let (board, sender) = (Arc::new(Board::default()), sender.clone());
            fleet.boards.push(board.clone());
            let thread = thread::Builder::new().name(format!("lane {number}"));
            let lane = thread.spawn(move || work.run(&board, &sender)).map_err(own("starting a thread"))?;
            fleet.lanes.push(lane);
        }
        Ok(fleet)
    }

    /// Load, measured in repetitions.
    fn traffic(&mut self, done: &mut Vec<Repetition>) -> Result<(), LoadError> {
        for stage in [Stage::Links, Stage::Circuits, Stage::Traffic] {
            self.reach(stage)?;
        }
        self.hold(self.settings.warm_up, |_, _| Progress::WarmUp)?;
        let main = match self.settings.scenario {
            Scenario::Bulk | Scenario::Idle | Scenario::Flood | Scenario::Paper2004 => Count::Cells,
            Scenario::Exit => Count::Transfers,
            Scenario::Interactive => Count::Echoes,
            Scenario::Handshake => Count::Handshakes,
            Scenario::Connect => Count::Connects,
        };
        let mut before = self.edge()?;
        for n in 1..=self.settings.repetitions {
            self.hold(self.settings.seconds, |since, counts: Counts| {
                let per_second = counts.since(&before.counts).get(main) as f64 / since.as_secs_f64();
                Progress::Measuring { repetition: n, per_second }
            })?;
            let after = self.edge()?;
            done.push(repetition(self.settings.scenario, &before, &after));
            before = after;
        }
        Ok(())
    }

    /// Bulk at a fixed rate, without and with a flood beside it.
    fn flood(&mut self, done: &mut Vec<Repetition>) -> Result<(), LoadError> {
        for stage in [Stage::Links, Stage::Circuits, Stage::Traffic] {
            self.reach(stage)?;
        }
        let seconds = self.settings.seconds;
        for n in 1..=self.settings.repetitions {
            self.hold(self.settings.warm_up, |_, _| Progress::WarmUp)?;
            let quiet = self.measure_once(n, seconds)?;
            self.reach(Stage::Flood)?;
            // Queues fill first.
            self.hold(self.settings.warm_up, |_, _| Progress::WarmUp)?;
            let flooded = self.measure_once(n, seconds);
            self.boards.iter().for_each(|board| board.set_goal(Stage::Traffic));
            let mut flooded = flooded?;
            figures::lost_to_flood(&mut flooded, &quiet);
            done.push(flooded);
        }
        Ok(())
    }

    fn measure_once(&mut self, n: u32, seconds: f64) -> Result<Repetition, LoadError> {
        let before = self.edge()?;
        self.hold(seconds, |since, counts: Counts| {
            let per_second = counts.since(&before.counts).get(Count::Cells) as f64 / since.as_secs_f64();
            Progress::Measuring { repetition: n, per_second }
        })?;
        let after = self.edge()?;
        Ok(repetition(self.settings.scenario, &before, &after))
    }

    /// Links and circuits that do nothing, and the memory they take.
    fn idle(&mut self, done: &mut Vec<Repetition>) -> Result<(), LoadError> {
        let before = self.edge()?;
        self.reach(Stage::Links)?;
        self.hold(SETTLE_SECONDS, |_, _| Progress::WarmUp)?;
        let links = self.edge()?;
        self.reach(Stage::Circuits)?;
        self.hold(SETTLE_SECONDS, |_, _| Progress::WarmUp)?;
        let circuits = self.edge()?;
        done.push(figures::idle(&before, &links, &circuits));
        Ok(())
    }

    /// Reads everything, and begins a new epoch.
    fn edge(&mut self) -> Result<Edge, LoadError> {
        self.boards.iter().for_each(|board| board.next_epoch());
        let per_lane = self.boards.iter().map(|board| board.counts()).collect();
        let mut edge = Edge::of(self.subject, self.syscalls.as_mut(), per_lane)?;
        for _ in 0..self.boards.len() {
            match self.latencies.recv_timeout(HAND_IN) {
                Ok(latencies) => edge.add(&latencies),
                Err(_) => return Err(self.failed().unwrap_or(own("reading latencies")("a lane is stuck"))),
            }
        }
        Ok(edge)
    }

    /// Waits until all lanes have come so far.
    fn reach(&mut self, stage: Stage) -> Result<(), LoadError> {
        self.boards.iter().for_each(|board| board.set_goal(stage));
        while self.boards.iter().any(|board| board.reached() < stage) {
            self.look_after(|counts| Progress::Preparing {
                links: counts.get(Count::Links),
                circuits: counts.get(Count::Circuits),
            })?;
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Lets the load run for some time.
    fn hold(
        &mut self,
        seconds: f64,
        mut progress: impl FnMut(Duration, Counts) -> Progress,
    ) -> Result<(), LoadError> {
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(seconds);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(POLL));
            self.look_after(|counts| progress(start.elapsed(), counts))?;
        }
    }

    /// Fails if a lane has failed, the relay has ended, nothing moves, or the caller wants to stop.
    fn look_after(&mut self, progress: impl FnOnce(Counts) -> Progress) -> Result<(), LoadError> {
        if let Some(error) = self.failed() {
            return Err(error);
        }
        let per_lane: Vec<Counts> = self.boards.iter().map(|board| board.counts()).collect();
        let shown = Counts::sum(&per_lane);
        let mut counts = shown;
        for no_progress in NO_PROGRESS {
            counts.set(no_progress, 0);
        }
        let rests = self.settings.scenario == Scenario::Idle
            && self.boards.iter().all(|board| board.reached() == board.goal());
        if counts != self.moved.1 || rests {
            self.moved = (Instant::now(), counts);
        }
        let after = Duration::from_secs_f64(self.settings.stall);
        if self.moved.0.elapsed() >= after {
            let doing = match self.boards.iter().map(|board| board.reached()).min() {
                Some(Stage::Traffic | Stage::Flood) => format!("carrying {}", self.settings.scenario.word()),
                Some(Stage::Links) => {
                    format!("building circuits ({} are there)", counts.get(Count::Circuits))
                }
                _ => format!("opening links ({} are open)", counts.get(Count::Links)),
            };
            return Err(LoadError::Stalled { after, doing });
        }
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.subject.check()?;
            if (self.tell)(progress(shown)).is_break() {
                return Err(LoadError::Interrupted);
            }
        }
        Ok(())
    }

    /// The error of a lane that has ended.
    fn failed(&mut self) -> Option<LoadError> {
        let ended = self.lanes.iter().position(JoinHandle::is_finished)?;
        match self.lanes.swap_remove(ended).join() {
            Ok(Err(e)) => Some(e),
            Ok(Ok(())) => Some(own("running a lane")("it ended by itself")),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Fleet<'_, '_> {
    fn drop(&mut self) {
        self.boards.iter().for_each(|board| board.stop());
        for lane in self.lanes.drain(..) {
            // It has been asked to end; an error now is one of ending.
            let _ = lane.join();
        }
    }
}
