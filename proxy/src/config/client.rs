//! Options of clients: what applications may ask for, paths, guards, circuits, and the directory.

use std::sync::Arc;
use std::time::Duration;

use onionring_node::config::Reader;
use onionring_proto::guard::BiasSettings;
use onionring_proto::path::{NodeRules, NodeSet};
use onionring_proto::torrc::fallback::{self, Fallback};
use onionring_proto::torrc::value::Kind;
use onionring_proto::torrc::{Item, Problem, Settings, options, value};

use crate::directory::Schedule;

/// Time between looks at whether new circuits are needed, where torrc says nothing: the paper's (section 4.2). C tor's is
/// 30 seconds.
const NEW_CIRCUIT_PERIOD: Duration = Duration::from_secs(60);
/// As in C tor: below, circuits would be retired faster than they are built.
const DIRTINESS_MIN: Duration = Duration::from_secs(10);
const DIRTINESS_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const STREAM_TIMEOUT_MIN: Duration = Duration::from_secs(10);
const BUILD_TIMEOUT_ADVISED: Duration = Duration::from_secs(10);
const AVAILABLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const PENDING_MAX: u64 = 1024;
const GUARD_LIFETIME_MIN: Duration = Duration::from_secs(24 * 60 * 60);
/// With fewer relays, one of them knows who speaks with whom; more can be extended to by no client (tor-spec 5.6).
const LENGTHS: std::ops::RangeInclusive<usize> = 3..=8;
/// The least and the most that `PathsNeededToBuildCircuits` can ask for.
const PATHS_NEEDED: (f64, f64) = (0.25, 0.95);

/// Which relays are on paths, and how they are reached.
#[derive(Clone, Debug)]
pub struct PathOptions {
    /// What the person says of relays (`EntryNodes` and the like).
    pub nodes: Arc<NodeRules>,
    /// Whether relays of one network exclude each other (`EnforceDistinctSubnets`).
    pub distinct_subnets: bool,
    /// The share of paths that must be known before circuits are built; `None` for what the consensus says
    /// (`PathsNeededToBuildCircuits`).
    pub paths_needed: Option<f64>,
    /// Whether relays are dialed over IPv4 (`ClientUseIPv4`). One of the two is on.
    pub use_ipv4: bool,
    /// Whether relays are dialed over IPv6 (`ClientUseIPv6`).
    pub use_ipv6: bool,
    /// Whether IPv6 is preferred for that where there are both (`ClientPreferIPv6ORPort`).
    pub prefer_ipv6: bool,
}

impl PathOptions {
    pub(super) fn new(read: &mut Reader<'_>) -> PathOptions {
        let settings = read.settings;
        let nodes = NodeRules {
            entry: nodes(read, "EntryNodes"),
            exit: nodes(read, "ExitNodes"),
            middle: nodes(read, "MiddleNodes"),
            exclude: nodes(read, "ExcludeNodes"),
            exclude_exit: nodes(read, "ExcludeExitNodes"),
            families: settings.lines("NodeFamily").iter().map(|item| node_set(read, item)).collect(),
            strict: settings.flag("StrictNodes"),
        };
        if !nodes.entry.is_empty() && !settings.flag("UseEntryGuards") {
            let what = "entry nodes are chosen among as guards are";
            read.wrong("EntryNodes", what, "write UseEntryGuards 1, or remove it");
        }
        let (use_ipv4, use_ipv6) = (settings.flag("ClientUseIPv4"), settings.flag("ClientUseIPv6"));
        if !use_ipv4 && !use_ipv6 {
            read.wrong(
                "ClientUseIPv4",
                "no relay can be reached without IPv4 and IPv6",
                "write 1 for one of the two",
            );
        }
        PathOptions {
            nodes: Arc::new(nodes),
            distinct_subnets: settings.flag("EnforceDistinctSubnets"),
            paths_needed: paths_needed(read),
            use_ipv4,
            use_ipv6,
            prefer_ipv6: !use_ipv4 || settings.auto_flag("ClientPreferIPv6ORPort").unwrap_or(false),
        }
    }
}

/// Entry guards; `None` is what the consensus says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuardOptions {
    /// Whether there are any (`UseEntryGuards`).
    pub enabled: bool,
    /// Guards in use at the same time for circuits (`NumEntryGuards`).
    pub used: Option<usize>,
    /// The same for directory requests (`NumDirectoryGuards`).
    pub used_for_directory: Option<usize>,
    /// Guards that are tried before all others (`NumPrimaryGuards`).
    pub primary: Option<usize>,
    /// How long a guard is kept (`GuardLifetime`).
    pub lifetime: Option<Duration>,
    /// When guards make too many circuits fail (`PathBias*`).
    pub bias: BiasSettings,
}

impl GuardOptions {
    pub(super) fn new(read: &mut Reader<'_>) -> GuardOptions {
        let settings = read.settings;
        let number = |name| usize::try_from(settings.integer(name)).ok().filter(|number| *number > 0);
        GuardOptions {
            enabled: settings.flag("UseEntryGuards"),
            used: number("NumEntryGuards"),
            used_for_directory: number("NumDirectoryGuards"),
            primary: number("NumPrimaryGuards"),
            lifetime: Some(settings.interval("GuardLifetime")).filter(|time| *time >= GUARD_LIFETIME_MIN),
            bias: bias(read),
        }
    }
}

/// What of `PathBias*` is not left to the consensus. As in C tor, thresholds that are too low are.
fn bias(read: &mut Reader<'_>) -> BiasSettings {
    let settings = read.settings;
    let number = |name: &str, least: u32| {
        let number = settings.text(name)?.parse::<i64>().ok()?;
        u32::try_from(number).ok().filter(|number| *number >= least)
    };
    let mut rate = |name: &str| {
        let rate = settings.text(name)?.parse::<f64>().ok().filter(|rate| *rate >= 0.0)?;
        if rate > 1.0 {
            read.wrong(name, "more than 1", "write a share from 0 to 1, or -1 for what the consensus says");
        }
        Some(rate)
    };
    BiasSettings {
        circuits: number("PathBiasCircThreshold", 5),
        notable: rate("PathBiasNoticeRate"),
        bad: rate("PathBiasWarnRate"),
        extreme: rate("PathBiasExtremeRate"),
        drop: settings.auto_flag("PathBiasDropGuards"),
        scale_circuits: number("PathBiasScaleThreshold", 10),
        uses: number("PathBiasUseThreshold", 3),
        notable_use: rate("PathBiasNoticeUseRate"),
        extreme_use: rate("PathBiasExtremeUseRate"),
        scale_uses: number("PathBiasScaleUseThreshold", 10),
    }
}

/// Circuits and the streams on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitOptions {
    /// How often it is considered whether circuits are needed before anybody asks for one (`NewCircuitPeriod`).
    pub new_circuit_period: Duration,
    /// How long after its first stream a circuit takes new ones (`MaxCircuitDirtiness`).
    pub dirtiness: Duration,
    /// How long a circuit may take to be built, at first or, without learning, always; `None` for what the consensus says
    /// (`CircuitBuildTimeout`).
    pub build_timeout: Option<Duration>,
    /// Whether that time is learned (`LearnCircuitBuildTimeout`).
    pub learn_build_timeout: bool,
    /// How long a stream waits for its exit before another circuit is tried; `None` for the usual times
    /// (`CircuitStreamTimeout`).
    pub stream_timeout: Option<Duration>,
    /// How long a circuit that nobody uses is kept, up to twice that; `None` for half an hour
    /// (`CircuitsAvailableTimeout`).
    pub available: Option<Duration>,
    /// Circuits that are being built for streams at the same time (`MaxClientCircuitsPending`).
    pub pending: usize,
    /// Ports of long sessions, whose circuits are of stable relays (`LongLivedPorts`).
    pub long_lived_ports: Vec<u16>,
    /// Whether circuits are built before anybody asks for one (not `__DisablePredictedCircuits`).
    pub predicted: bool,
    /// Relays on a path (`CircuitLength`).
    pub length: usize,
    /// Whether streams may leave at any hop whose policy allows (`LeakyPipe`).
    pub leaky_pipe: bool,
    /// Whether exits that offer it are asked for streams whose directions end one by one (`HalfClosedStreams`).
    pub half_closed_streams: bool,
    /// Whether an old circuit is cut and extended to another exit, rather than built anew (`TruncateCircuits`).
    pub truncate: bool,
}

impl CircuitOptions {
    pub(super) fn new(read: &mut Reader<'_>) -> CircuitOptions {
        let settings = read.settings;
        let time = |name| Some(settings.interval(name)).filter(|time| !time.is_zero());
        let new_circuit_period = match settings.item("NewCircuitPeriod") {
            Some(_) => settings.interval("NewCircuitPeriod").max(Duration::from_secs(1)),
            None => NEW_CIRCUIT_PERIOD,
        };
        let mut dirtiness = settings.interval("MaxCircuitDirtiness");
        if dirtiness < DIRTINESS_MIN {
            read.warn("MaxCircuitDirtiness", "MaxCircuitDirtiness is raised to 10 seconds".into());
        } else if dirtiness > DIRTINESS_MAX {
            read.warn("MaxCircuitDirtiness", "MaxCircuitDirtiness is lowered to 30 days".into());
        }
        dirtiness = dirtiness.clamp(DIRTINESS_MIN, DIRTINESS_MAX);
        let stream_timeout = time("CircuitStreamTimeout");
        if stream_timeout.is_some_and(|time| time < STREAM_TIMEOUT_MIN) {
            read.warn("CircuitStreamTimeout", "CircuitStreamTimeout is raised to 10 seconds".into());
        }
        let build_timeout = time("CircuitBuildTimeout");
        let learn_build_timeout = settings.flag("LearnCircuitBuildTimeout");
        if !learn_build_timeout && build_timeout.is_some_and(|time| time < BUILD_TIMEOUT_ADVISED) {
            let text = "CircuitBuildTimeout is below 10 seconds and not learned: many circuits will fail on slow relays";
            read.warn("CircuitBuildTimeout", text.into());
        }
        let available = time("CircuitsAvailableTimeout");
        if available.is_some_and(|time| time > AVAILABLE_MAX) {
            read.wrong("CircuitsAvailableTimeout", "more than a day", "write 24 hours or less");
        }
        let pending = settings.integer("MaxClientCircuitsPending");
        if !(1..=PENDING_MAX).contains(&pending) {
            let remedy = format!("write a number from 1 to {PENDING_MAX}");
            read.wrong("MaxClientCircuitsPending", "out of its range", remedy);
        }
        CircuitOptions {
            new_circuit_period,
            dirtiness,
            build_timeout,
            learn_build_timeout,
            stream_timeout: stream_timeout.map(|time| time.max(STREAM_TIMEOUT_MIN)),
            available,
            pending: usize::try_from(pending).unwrap_or(usize::MAX),
            long_lived_ports: ports(read, "LongLivedPorts"),
            predicted: !settings.flag("__DisablePredictedCircuits"),
            length: length(read),
            leaky_pipe: settings.flag("LeakyPipe"),
            half_closed_streams: settings.flag("HalfClosedStreams"),
            truncate: settings.flag("TruncateCircuits"),
        }
    }
}

fn length(read: &mut Reader<'_>) -> usize {
    let length = usize::try_from(read.settings.integer("CircuitLength")).unwrap_or_default();
    if !LENGTHS.contains(&length) {
        let (least, most) = LENGTHS.into_inner();
        read.wrong("CircuitLength", "out of its range", format!("write a number from {least} to {most}"));
        return least;
    }
    length
}

/// How the directory is fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectoryOptions {
    /// Relays to ask for the first consensus (`FallbackDir`).
    pub fallbacks: Vec<Fallback>,
    /// When to ask whom for it (`ClientBootstrapConsensus*`).
    pub schedule: Schedule,
    /// Whether fallbacks and authorities are asked even when relays could be (`FetchDirInfoEarly`).
    pub from_authorities: bool,
}

impl DirectoryOptions {
    pub(super) fn new(read: &mut Reader<'_>) -> DirectoryOptions {
        let settings = read.settings;
        let tries = settings.integer("ClientBootstrapConsensusMaxInProgressTries").max(1);
        let mut fallbacks = Vec::new();
        for item in settings.lines("FallbackDir") {
            match fallback::parse(item) {
                Ok(fallback) => fallbacks.push(fallback),
                Err(problem) => read.findings.problems.push(problem),
            }
        }
        let of = |name: &str| delay(settings, &format!("ClientBootstrapConsensus{name}DownloadInitialDelay"));
        DirectoryOptions {
            fallbacks,
            schedule: Schedule {
                fallback_delay: of("Fallback"),
                authority_delay: of("Authority"),
                authority_only_delay: of("AuthorityOnly"),
                tries: usize::try_from(tries).unwrap_or(usize::MAX),
            },
            from_authorities: settings.flag("FetchDirInfoEarly"),
        }
    }
}

/// The first of a list of times, the one that counts.
fn delay(settings: &Settings, name: &str) -> Duration {
    // Checked against its type when it was assigned.
    let seconds = Kind::CsvInterval.normalize(settings.text(name).unwrap_or("0"));
    Duration::from_secs(seconds.ok().and_then(|seconds| seconds.parse().ok()).unwrap_or_default())
}

/// Ports separated by commas.
fn ports(read: &mut Reader<'_>, name: &str) -> Vec<u16> {
    let settings = read.settings;
    let mut ports = Vec::new();
    for entry in settings.csv(name) {
        match value::integer(entry, u64::from(u16::MAX)).ok().and_then(|port| u16::try_from(port).ok()) {
            Some(port) if port != 0 => ports.push(port),
            _ => {
                let what = format!("'{}' is no port", entry.escape_debug());
                read.wrong(name, what, "write numbers from 1 to 65535, with commas between");
            }
        }
    }
    ports
}

/// The relays that all lines of an option name together.
fn nodes(read: &mut Reader<'_>, name: &str) -> NodeSet {
    let mut all = NodeSet::default();
    for item in read.settings.lines(name) {
        all.extend(node_set(read, item));
    }
    all
}

fn node_set(read: &mut Reader<'_>, item: &Item) -> NodeSet {
    NodeSet::parse(&item.value).unwrap_or_else(|error| {
        read.findings.problems.push(Problem::with(item, error.to_string(), error.remedy()));
        NodeSet::default()
    })
}

fn paths_needed(read: &mut Reader<'_>) -> Option<f64> {
    const NAME: &str = "PathsNeededToBuildCircuits";
    let default = options::find(NAME).map_or("", |option| option.default);
    let share: f64 = read.settings.text(NAME).unwrap_or(default).parse().unwrap_or(-1.0);
    if share < 0.0 {
        return None;
    }
    let (min, max) = PATHS_NEEDED;
    if share < min {
        read.warn(NAME, format!("{NAME} is raised to {min}"));
    } else if share > max {
        read.warn(NAME, format!("{NAME} is lowered to {max}"));
    }
    Some(share.clamp(min, max))
}
