//! How the directory stands, for people: how far the bootstrap is, what the clocks of others say of ours, and whether
//! this version may go on.

use std::fmt;
use std::time::Duration;

use onionring_node::directory::keeper::KeeperState;
use onionring_proto::netdoc::consensus::{Lifetime, REASONABLY_LIVE};
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::time::Unix;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

/// From how much on the clock of another tells that ours is wrong (C tor's `NETINFO_NOTICE_SKEW`).
const SKEW_NOTICED: u64 = 3600;

/// How early a consensus may be before it tells the same (C tor's `EARLY_CONSENSUS_NOTICE_SKEW`).
const EARLY_NOTICED: Duration = Duration::from_secs(60);

/// How far the bootstrap is; phases and percentages are C tor's. It never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing is known, nobody was asked.
    #[default]
    Starting,
    /// Directories are being connected to.
    Connecting,
    /// A directory was reached and asked for the consensus.
    LoadingStatus,
    /// There is a consensus, which waits for the authorities' certificates to be checked.
    LoadingKeys,
    /// There is a consensus. The number, 0 to 24, is how many percent were gained by the microdescriptors that are here.
    LoadingDescriptors(u8),
    /// Enough of the network is known to choose paths.
    EnoughKnown,
    /// The first circuit was built.
    Done,
}

impl Phase {
    /// Of the whole bootstrap, from 0 to 100.
    pub fn percent(self) -> u8 {
        match self {
            Phase::Starting => 0,
            Phase::Connecting => 5,
            Phase::LoadingStatus => 30,
            Phase::LoadingKeys => 40,
            Phase::LoadingDescriptors(gained) => 50 + gained.min(24),
            Phase::EnoughKnown => 75,
            Phase::Done => 100,
        }
    }

    /// While descriptors are loaded and a share of paths is known of which `needed` would be enough.
    pub(super) fn descriptors(known: f64, needed: f64) -> Phase {
        let gained = if needed > 0.0 { known / needed * 25.0 } else { 0.0 };
        Phase::LoadingDescriptors(gained.clamp(0.0, 24.0) as u8)
    }

    fn is_of_one_kind(self, other: Phase) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Starting => "starting",
            Phase::Connecting => "connecting to a directory",
            Phase::LoadingStatus => "loading the list of relays",
            Phase::LoadingKeys => "loading the authorities' certificates, to check the list of relays",
            Phase::LoadingDescriptors(_) => "loading descriptions of relays",
            Phase::EnoughKnown => "enough relays are known to build circuits",
            Phase::Done => "done",
        })
    }
}

/// Who says that our clock is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timekeeper {
    /// A directory that the configuration names, by its name.
    Directory(String),
    /// The certificates of such a directory, which do not hold by our clock.
    Certificates(String),
    /// A consensus.
    Consensus,
}

/// What speaks against this machine's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockProblem {
    /// Who says so.
    pub source: Timekeeper,
    /// Seconds by which our clock is ahead of theirs, negative if it is behind; of a consensus and of certificates, at least
    /// so many.
    pub ahead: i64,
}

impl fmt::Display for ClockProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = duration_in_words(self.ahead.unsigned_abs());
        let way = if self.ahead > 0 { "ahead" } else { "behind" };
        match &self.source {
            Timekeeper::Directory(name) => write!(
                f,
                "this machine's clock seems to be {amount} {way}: {name} has another time. Set the clock, and check the \
                 time zone; without the right time the network cannot be used"
            ),
            Timekeeper::Certificates(name) => write!(
                f,
                "this machine's clock seems to be {amount} {way}, or more: what {name} proves its identity with is of \
                 another time. Set the clock, and check the time zone; without the right time the network cannot be used"
            ),
            Timekeeper::Consensus => write!(
                f,
                "this machine's clock seems to be {amount} {way}, or more: the list of relays that directories give out is \
                 of another time. Set the clock, and check the time zone; without the right time the network cannot be used"
            ),
        }
    }
}

/// `2 days 3 hours`, `5 minutes`: the two greatest units.
fn duration_in_words(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let mut left = seconds;
    let mut words = Vec::new();
    for (size, unit) in UNITS {
        let n = left / size;
        left %= size;
        if n > 0 {
            words.push(format!("{n} {unit}{}", if n == 1 { "" } else { "s" }));
        }
    }
    words.truncate(2);
    if words.is_empty() { "0 seconds".to_owned() } else { words.join(" ") }
}

/// What the clock of a directory that the configuration names says of ours, when it is `ahead` of it by so many seconds.
pub(super) fn judge_peer(name: &str, ahead: i64) -> Option<ClockProblem> {
    let source = Timekeeper::Directory(name.to_owned());
    (ahead.unsigned_abs() > SKEW_NOTICED).then_some(ClockProblem { source, ahead: ahead.saturating_neg() })
}

/// What a consensus says of our clock, if we take it that there is none newer.
fn judge_lifetime(lifetime: &Lifetime, now: Unix) -> Option<ClockProblem> {
    let early = lifetime.valid_after.since(now);
    let late = now.since(lifetime.valid_until);
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let ahead = match () {
        () if early > EARLY_NOTICED => -seconds(early),
        () if late > REASONABLY_LIVE => seconds(late),
        () => return None,
    };
    Some(ClockProblem { source: Timekeeper::Consensus, ahead })
}

/// Why the network must not be used with this version; the program is to end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fatal {
    /// The consensus requires of clients what we do not know.
    #[error(
        "the network requires of clients what this version does not know ({0}): install a newer version of onionring-proxy"
    )]
    MissingProtocols(Protocols),
    /// The task that keeps the directory has ended, which only a mistake of ours makes it do.
    #[error("the directory is not kept any more: this is a mistake in onionring-proxy; please report it")]
    Stopped,
}

/// How the directory stands.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// How far the bootstrap is.
    pub phase: Phase,
    /// What speaks against this machine's clock, as far as anything does.
    pub clock: Option<ClockProblem>,
    /// When the consensus holds, if there is one.
    pub lifetime: Option<Lifetime>,
    /// The share of paths all of whose relays are known, 0 to 1.
    pub known_share: f64,
    /// Requests, failures by reason, bytes, missing documents: for metrics.
    pub kept: KeeperState,
    /// Why the program must end, if it must.
    pub fatal: Option<Fatal>,
}

/// Keeps the status, and says in the log what changes.
#[derive(Clone)]
pub(super) struct Reporter(watch::Sender<Status>);

impl Reporter {
    pub fn new() -> Reporter {
        Reporter(watch::Sender::new(Status::default()))
    }

    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    pub fn status(&self) -> Status {
        self.0.borrow().clone()
    }

    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_modify(change);
    }

    /// The bootstrap has come this far, unless it was further already.
    pub fn reach(&self, phase: Phase) {
        self.0.send_if_modified(|status| {
            let is_further = status.phase < phase;
            if is_further && !status.phase.is_of_one_kind(phase) {
                info!("bootstrap {}%: {phase}", phase.percent());
            }
            if is_further {
                status.phase = phase;
            }
            is_further
        });
    }

    /// What somebody's clock says of ours: something, or nothing any more.
    pub fn clock(&self, problem: Option<ClockProblem>) {
        self.0.send_if_modified(|status| {
            // Directories differ by seconds. What is nearly the same is not said again.
            let is_news = match (&status.clock, &problem) {
                (Some(old), Some(new)) => old.ahead.abs_diff(new.ahead) > SKEW_NOTICED,
                (old, new) => old.is_some() != new.is_some(),
            };
            if is_news {
                match &problem {
                    Some(problem) => warn!("{problem}"),
                    None => info!("this machine's clock seems right now"),
                }
                status.clock = problem;
            }
            is_news
        });
    }

    /// What a consensus says of our clock, if we take it that there is none newer. That it is of our time lifts what
    /// directories said only if it is fresh: it may be used for hours more, by a clock that is wrong by as much.
    pub fn consensus_clock(&self, lifetime: &Lifetime, now: Unix) {
        let problem = judge_lifetime(lifetime, now);
        let is_of_a_consensus = |old: &ClockProblem| old.source == Timekeeper::Consensus;
        let decides = problem.is_some() || lifetime.is_fresh(now);
        if decides || self.status().clock.as_ref().is_some_and(is_of_a_consensus) {
            self.clock(problem);
        }
    }

    /// The clock of a directory that the configuration names is `ahead` of ours by so many seconds. That it is not lifts
    /// what another such directory said.
    pub fn peer_clock(&self, name: &str, ahead: i64) {
        let problem = judge_peer(name, ahead);
        let is_of_a_peer = |old: &ClockProblem| old.source != Timekeeper::Consensus;
        if problem.is_some() || self.status().clock.as_ref().is_some_and(is_of_a_peer) {
            self.clock(problem);
        }
    }

    /// A directory that the configuration names cannot prove who it is by our clock, which is `ahead` of the time in which
    /// its certificates hold by so many seconds.
    pub fn peer_certificates(&self, name: &str, ahead: i64) {
        if ahead.unsigned_abs() > SKEW_NOTICED {
            self.clock(Some(ClockProblem { source: Timekeeper::Certificates(name.to_owned()), ahead }));
        }
    }

    pub fn fail(&self, fatal: Fatal) {
        self.update(|status| status.fatal = Some(fatal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrap_never_goes_back() {
        let reporter = Reporter::new();
        let phases = [
            (Phase::Starting, 0),
            (Phase::Connecting, 5),
            (Phase::LoadingStatus, 30),
            (Phase::LoadingKeys, 40),
            (Phase::descriptors(0.0, 0.6), 50),
            (Phase::descriptors(0.3, 0.6), 62),
            (Phase::descriptors(0.9, 0.6), 74),
            (Phase::EnoughKnown, 75),
            (Phase::Done, 100),
        ];
        for (phase, percent) in phases {
            reporter.reach(phase);
            reporter.reach(Phase::Connecting);
            assert_eq!(reporter.status().phase.percent(), percent.max(5), "{phase}");
            assert_eq!(phase.percent(), percent);
        }
    }

    #[test]
    fn people_are_told_by_how_much_and_which_way() {
        let ahead = judge_peer("moria1", -(2 * 86_400 + 3 * 3600 + 59)).unwrap();
        assert!(ahead.to_string().starts_with(
            "this machine's clock seems to be 2 days 3 hours ahead: moria1 has another time. Set the clock"
        ));
        let behind = judge_peer("moria1", 3660).unwrap();
        assert!(behind.to_string().contains(" 1 hour 1 minute behind: "), "{behind}");
        assert_eq!(judge_peer("moria1", 3600), None);
        assert_eq!(judge_peer("moria1", i64::MIN).unwrap().ahead, i64::MAX);
        assert_eq!(duration_in_words(0), "0 seconds");
    }

    #[test]
    fn what_a_directory_said_stands_until_another_or_a_fresh_consensus_says_otherwise() {
        let (reporter, hour, at) = (Reporter::new(), 3600, Unix(1_000_000));
        let ahead = || reporter.status().clock.map(|problem| problem.ahead);
        let lifetime = |hours: u64| Lifetime {
            valid_after: Unix(at.0 - hours * hour),
            fresh_until: Unix(at.0 - hours * hour + hour),
            valid_until: Unix(at.0 - hours * hour + 3 * hour),
        };
        reporter.peer_clock("moria1", -10_800);
        // A clock that is three hours ahead sees the newest consensus so; it may still be used.
        for hours in [2, 3, 12] {
            reporter.consensus_clock(&lifetime(hours), at);
            assert_eq!(ahead(), Some(10_800), "{hours}");
        }
        reporter.consensus_clock(&lifetime(0), at);
        assert_eq!(ahead(), None);
        reporter.peer_certificates("moria1", 60);
        assert_eq!(ahead(), None, "as much as clocks differ anyway");
        reporter.peer_certificates("moria1", 86_400);
        reporter.consensus_clock(&lifetime(2), at);
        assert_eq!(ahead(), Some(86_400));
        reporter.peer_clock("moria1", 5);
        assert_eq!(ahead(), None);
        // What a consensus said another one lifts that may be used.
        reporter.consensus_clock(&lifetime(100), at);
        assert!(ahead().is_some());
        reporter.consensus_clock(&lifetime(2), at);
        assert_eq!(ahead(), None);
    }

    #[test]
    fn a_consensus_of_another_time_tells_the_same() {
        let hour = 3600;
        let lifetime = Lifetime {
            valid_after: Unix(1_000_000),
            fresh_until: Unix(1_000_000 + hour),
            valid_until: Unix(1_000_000 + 3 * hour),
        };
        let ahead = |now| judge_lifetime(&lifetime, Unix(now)).map(|problem| problem.ahead);
        assert_eq!(ahead(1_000_000 - 61), Some(-61));
        assert_eq!(ahead(1_000_000 - 60), None);
        assert_eq!(ahead(1_000_000 + 27 * hour), None);
        assert_eq!(ahead(1_000_000 + 27 * hour + 1), Some(86_401));
    }
}
