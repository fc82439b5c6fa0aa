//! Which flags this authority votes for each relay (dir-spec 3.4.2).
//!
//! [`assess`] is called once for each vote. It looks who is running, and tells [`Stability`] who is not; takes the standing
//! of those of whom there are too many at one address; computes the thresholds over all that count; and gives each relay
//! its flags. The rules are C tor's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use onionring_proto::netdoc::params::ConsensusParams;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::policy::Family;
use onionring_proto::time::Unix;

use crate::approval::Standing;
use crate::bandwidth_file::Measurements;
use crate::relay_set::RelaySet;
use crate::stability::Stability;

mod running;
mod sybil;
mod thresholds;

pub use thresholds::Thresholds;

/// Descriptors that are older are not voted on, and from this age on they are stale.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const STALE_AGE: Duration = Duration::from_secs(18 * 60 * 60);
/// Bytes a second that a relay is believed to carry without having been measured.
const BELIEVED_MAX: u32 = 10_000_000;

/// A flag, in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// Is a directory authority.
    Authority,
    /// Is not to be used as an exit.
    BadExit,
    /// Lets out to the web.
    Exit,
    /// Has the bandwidth for general circuits.
    Fast,
    /// Fit to be the first relay of many paths.
    Guard,
    /// Keeps descriptors of onion services.
    HsDir,
    /// Is not to be used as anything but a middle relay.
    MiddleOnly,
    /// Can be reached.
    Running,
    /// Fit for circuits of long life.
    Stable,
    /// Should have published a new descriptor.
    StaleDesc,
    /// One of too many at one address.
    Sybil,
    /// Serves its directory over its ORPort.
    V2Dir,
    /// Has a place in the network.
    Valid,
}

impl Flag {
    /// All flags.
    pub const ALL: [Flag; 13] = [
        Flag::Authority,
        Flag::BadExit,
        Flag::Exit,
        Flag::Fast,
        Flag::Guard,
        Flag::HsDir,
        Flag::MiddleOnly,
        Flag::Running,
        Flag::Stable,
        Flag::StaleDesc,
        Flag::Sybil,
        Flag::V2Dir,
        Flag::Valid,
    ];

    /// Its name in votes.
    pub fn name(self) -> &'static str {
        match self {
            Flag::Authority => "Authority",
            Flag::BadExit => "BadExit",
            Flag::Exit => "Exit",
            Flag::Fast => "Fast",
            Flag::Guard => "Guard",
            Flag::HsDir => "HSDir",
            Flag::MiddleOnly => "MiddleOnly",
            Flag::Running => "Running",
            Flag::Stable => "Stable",
            Flag::StaleDesc => "StaleDesc",
            Flag::Sybil => "Sybil",
            Flag::V2Dir => "V2Dir",
            Flag::Valid => "Valid",
        }
    }
}

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// Whether the flag is in it.
    pub fn contains(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u16) != 0
    }

    /// Puts the flag in or takes it out.
    pub fn set(&mut self, flag: Flag, is_in: bool) {
        let bit = 1 << flag as u16;
        self.0 = if is_in { self.0 | bit } else { self.0 & !bit };
    }

    /// The flags in it, in the order of their names.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.into_iter().filter(move |flag| self.contains(*flag))
    }

    fn clear(&mut self, flags: &[Flag]) {
        flags.iter().for_each(|flag| self.set(*flag, false));
    }
}

impl fmt::Display for Flags {
    /// As in votes: the names, separated by blanks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, flag) in self.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { " " }, flag.name())?;
        }
        Ok(())
    }
}

/// A flag that a testing network gives by a set of relays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestingFlag {
    /// `TestingDirAuthVote...`: who has it, whatever else holds.
    pub relays: RelaySet,
    /// `TestingDirAuthVote...IsStrict`: and nobody else.
    pub strict: bool,
}

/// The settings that are changed in a testing network only (`TestingTorNetwork`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestingOptions {
    /// `TestingDirAuthVoteExit` and its `IsStrict`.
    pub exit: TestingFlag,
    /// `TestingDirAuthVoteGuard` and its `IsStrict`.
    pub guard: TestingFlag,
    /// `TestingDirAuthVoteHSDir` and its `IsStrict`.
    pub hs_dir: TestingFlag,
    /// `TestingMinExitFlagThreshold`, bytes a second: relays with less do not count for thresholds.
    pub min_counted: u64,
    /// `TestingMinFastFlagThreshold`, bytes a second.
    pub min_fast: u64,
}

/// The settings of flags, by their names in the torrc.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagOptions {
    /// `AuthDirListBadExits`.
    pub list_bad_exits: bool,
    /// `AuthDirListMiddleOnly`.
    pub list_middle_only: bool,
    /// `AuthDirMaxServersPerAddr`; 0 for any number.
    pub max_servers_per_address: usize,
    /// `AuthDirTestReachability`.
    pub test_reachability: bool,
    /// `AuthDirHasIPv6Connectivity`.
    pub has_ipv6: bool,
    /// `AuthDirFastGuarantee`, bytes a second; 0 for none.
    pub fast_guarantee: u64,
    /// `AuthDirGuardBWGuarantee`, bytes a second; 0 for none.
    pub guard_bandwidth_guarantee: u64,
    /// `AuthDirVoteGuardBwThresholdFraction`.
    pub guard_bandwidth_fraction: f64,
    /// `AuthDirVoteGuardGuaranteeTimeKnown`.
    pub guard_time_known_guarantee: Duration,
    /// `AuthDirVoteGuardGuaranteeWFU`.
    pub guard_wfu_guarantee: f64,
    /// `AuthDirVoteStableGuaranteeMinUptime`.
    pub stable_uptime_guarantee: Duration,
    /// `AuthDirVoteStableGuaranteeMTBF`.
    pub stable_mtbf_guarantee: Duration,
    /// `AuthDirVoteGuard`.
    pub vote_guard: RelaySet,
    /// `MinMeasuredBWsForAuthToIgnoreAdvertised`.
    pub min_measured: usize,
    /// `MinUptimeHidServDirectoryV2`.
    pub hs_dir_uptime: Duration,
    /// `TestingAuthDirTimeToLearnReachability`.
    pub time_to_learn_reachability: Duration,
    /// `DirAllowPrivateAddresses`: exits to internal networks count.
    pub allow_private_addresses: bool,
    /// `TestingTorNetwork` and what depends on it.
    pub testing: Option<TestingOptions>,
}

impl Default for FlagOptions {
    /// The defaults of C tor.
    fn default() -> FlagOptions {
        let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
        FlagOptions {
            list_bad_exits: false,
            list_middle_only: false,
            max_servers_per_address: 2,
            test_reachability: true,
            has_ipv6: false,
            fast_guarantee: 100 << 10,
            guard_bandwidth_guarantee: 2 << 20,
            guard_bandwidth_fraction: 0.75,
            guard_time_known_guarantee: days(8),
            guard_wfu_guarantee: 0.98,
            stable_uptime_guarantee: days(30),
            stable_mtbf_guarantee: days(5),
            vote_guard: RelaySet::default(),
            min_measured: 500,
            hs_dir_uptime: days(4),
            time_to_learn_reachability: Duration::from_secs(30 * 60),
            allow_private_addresses: false,
            testing: None,
        }
    }
}

/// A relay to be assessed.
#[derive(Clone, Copy, Debug)]
pub struct Relay<'a> {
    /// Its newest descriptor.
    pub descriptor: &'a RouterDesc,
    /// What the administrator decided about it.
    pub standing: Standing,
    /// Whether it is a directory authority.
    pub is_authority: bool,
    /// When its IPv4 address was last found reachable.
    pub reached: Option<Unix>,
    /// When its IPv6 address was.
    pub reached_v6: Option<Unix>,
}

/// What relays are assessed by.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The settings.
    pub options: &'a FlagOptions,
    /// The parameters of the latest consensus.
    pub params: &'a ConsensusParams,
    /// The bandwidths measured.
    pub measurements: &'a Measurements,
    /// This authority.
    pub us: Fingerprint,
    /// Whether this authority takes no circuits for now.
    pub hibernating: bool,
    /// When it was started.
    pub started: Unix,
    /// Now.
    pub now: Unix,
}

/// How one relay is voted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assessed {
    /// Its place in the list handed in.
    pub relay: usize,
    /// Its flags.
    pub flags: Flags,
    /// Whether its IPv6 address is voted.
    pub with_ipv6: bool,
}

/// How all relays are voted.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// The thresholds.
    pub thresholds: Thresholds,
    /// The flags that this authority has an opinion about.
    pub known_flags: Flags,
    /// The relays that are voted on, by identity.
    pub relays: Vec<Assessed>,
}

/// Assesses all relays for a vote.
pub fn assess(relays: &[Relay<'_>], terms: &Terms<'_>, stability: &mut Stability) -> Assessment {
    let judges_reachability = terms.judges_reachability();
    let mut running = BTreeSet::new();
    for relay in relays {
        if relay.is_running(terms) {
            running.insert(relay.descriptor.identity);
        } else if judges_reachability {
            stability.unreachable(&relay.descriptor.identity, relay.down_since(terms.now), terms.now);
        }
    }

    let mut view =
        View { terms, relays: let_in(relays), running, sybils: BTreeSet::new(), advertised_count: true };
    view.sybils = sybil::find(&view);
    for relay in &view.sybils {
        stability.disgrace(relay, terms.now);
    }
    let measured = view.relays.keys().filter(|relay| terms.measurements.get(relay).is_some()).count();
    view.advertised_count = measured <= terms.options.min_measured;
    let thresholds = Thresholds::of(&view, stability);
    let assessed = |(_, (n, relay)): (_, &(usize, &Relay<'_>))| Assessed {
        relay: *n,
        flags: view.flags(relay, &thresholds, stability),
        with_ipv6: relay.is_ipv6_voted(terms),
    };
    // One whose subprotocols cannot be read counts for the thresholds, and is not voted on.
    let is_voted = |relay: &Relay<'_>| {
        terms.now.since(relay.descriptor.published) <= AGE_MAX && relay.descriptor.protocols().is_ok()
    };
    let entries = view.relays.iter().filter(|(_, (_, relay))| is_voted(relay)).map(assessed).collect();
    Assessment { thresholds, known_flags: known_flags(terms), relays: entries }
}

/// The relays that the administrator lets in, and of several with one Ed25519 identity the one with the newest descriptor.
fn let_in<'a, 'b>(relays: &'b [Relay<'a>]) -> BTreeMap<Fingerprint, (usize, &'b Relay<'a>)> {
    let newness =
        |relay: &Relay<'_>| (relay.descriptor.published, std::cmp::Reverse(relay.descriptor.digest));
    let mut newest: BTreeMap<[u8; 32], (usize, &Relay<'_>)> = BTreeMap::new();
    for (n, relay) in relays.iter().enumerate().filter(|(_, relay)| relay.standing.listed) {
        let entry = newest.entry(relay.descriptor.ed_identity).or_insert((n, relay));
        if newness(entry.1) < newness(relay) {
            *entry = (n, relay);
        }
    }
    newest.into_values().map(|(n, relay)| (relay.descriptor.identity, (n, relay))).collect()
}

fn known_flags(terms: &Terms<'_>) -> Flags {
    let mut flags = Flags::default();
    Flag::ALL.into_iter().for_each(|flag| flags.set(flag, true));
    flags.set(Flag::BadExit, terms.options.list_bad_exits);
    flags.set(Flag::MiddleOnly, terms.options.list_middle_only);
    flags.set(Flag::Running, terms.judges_reachability());
    flags
}

/// What is known of all relays while they are assessed.
struct View<'a> {
    terms: &'a Terms<'a>,
    relays: BTreeMap<Fingerprint, (usize, &'a Relay<'a>)>,
    running: BTreeSet<Fingerprint>,
    sybils: BTreeSet<Fingerprint>,
    /// Whether a bandwidth that was not measured counts, because few were.
    advertised_count: bool,
}

impl View<'_> {
    fn iter(&self) -> impl Iterator<Item = &Relay<'_>> {
        self.relays.values().map(|(_, relay)| *relay)
    }

    /// Kilobytes a second that count for flags.
    fn bandwidth(&self, relay: &Relay<'_>) -> u32 {
        let advertised = if self.advertised_count { claimed_kilobytes(relay.descriptor) } else { 0 };
        self.terms.measurements.get(&relay.descriptor.identity).unwrap_or(advertised)
    }

    /// Whether it is up, has a place in the network, and serves circuits.
    fn is_active(&self, relay: &Relay<'_>) -> bool {
        let descriptor = relay.descriptor;
        self.terms.now.since(descriptor.published) <= AGE_MAX
            && self.running.contains(&descriptor.identity)
            && !relay.standing.marks.invalid
            && !descriptor.hibernating
    }

    /// The policy of an exit, whatever is thought of it.
    fn is_exit(&self, relay: &Relay<'_>) -> bool {
        let policy = &relay.descriptor.policy;
        !policy.rejects_all(Family::V4) && policy.is_web_exit(self.terms.options.allow_private_addresses)
    }

    fn flags(&self, relay: &Relay<'_>, thresholds: &Thresholds, stability: &Stability) -> Flags {
        let (options, now) = (self.terms.options, self.terms.now);
        let descriptor = relay.descriptor;
        let marks = relay.standing.marks;
        let stable = thresholds.is_stable(descriptor, stability, self.terms);
        let fast = self.bandwidth(relay) >= thresholds.fast;
        let mut flags = Flags::default();
        flags.set(Flag::Authority, relay.is_authority);
        flags.set(Flag::Exit, self.is_exit(relay));
        flags.set(Flag::Stable, stable);
        flags.set(Flag::Fast, fast);
        flags.set(Flag::V2Dir, serves_directory(descriptor));
        flags.set(Flag::Running, self.running.contains(&descriptor.identity));
        flags.set(Flag::Valid, !marks.invalid);
        flags.set(Flag::StaleDesc, now.since(descriptor.published) > STALE_AGE);
        let serves = stable && fast && serves_directory(descriptor);
        flags.set(Flag::HsDir, serves && self.is_hs_dir(relay, stability));
        let bandwidth = self.bandwidth(relay);
        flags.set(Flag::Guard, serves && thresholds.is_guard(descriptor, bandwidth, stability, self.terms));

        flags.set(Flag::BadExit, options.list_bad_exits && marks.bad_exit);
        if options.list_middle_only && marks.middle_only {
            flags.set(Flag::MiddleOnly, true);
            flags.set(Flag::BadExit, options.list_bad_exits);
            flags.clear(&[Flag::Exit, Flag::Guard, Flag::HsDir, Flag::V2Dir]);
        }
        for (is_stripped, flag) in [
            (marks.strip_guard, Flag::Guard),
            (marks.strip_hs_dir, Flag::HsDir),
            (marks.strip_v2_dir, Flag::V2Dir),
        ] {
            flags.set(flag, flags.contains(flag) && !is_stripped);
        }

        if let Some(testing) = &options.testing {
            for (rule, flag) in
                [(&testing.exit, Flag::Exit), (&testing.guard, Flag::Guard), (&testing.hs_dir, Flag::HsDir)]
            {
                let has_it = rule.relays.contains(descriptor) || (flags.contains(flag) && !rule.strict);
                flags.set(flag, has_it);
            }
        } else if options.vote_guard.contains(descriptor) {
            flags.set(Flag::Guard, true);
        }

        if self.sybils.contains(&descriptor.identity) {
            flags.clear(&[
                Flag::Authority,
                Flag::Exit,
                Flag::Stable,
                Flag::Fast,
                Flag::Running,
                Flag::Valid,
                Flag::HsDir,
                Flag::V2Dir,
                Flag::Guard,
            ]);
            flags.set(Flag::Sybil, true);
        }
        flags.set(Flag::Running, flags.contains(Flag::Running) && self.terms.judges_reachability());
        flags
    }

    /// Whether it offers to be an HSDir and has been up for long. What it says of its uptime is believed as long as we
    /// could not have seen it ourselves.
    fn is_hs_dir(&self, relay: &Relay<'_>, stability: &Stability) -> bool {
        let (terms, descriptor) = (self.terms, relay.descriptor);
        let needed = terms.options.hs_dir_uptime;
        let mut uptime = real_uptime(descriptor, terms.now);
        if terms.now.since(terms.started) > needed.mul_f64(1.1) {
            uptime = uptime.min(stability.uptime(&descriptor.identity, terms.now));
        }
        descriptor.hidden_service_dir && uptime >= needed && self.is_active(relay)
    }
}

/// Bytes a second that a relay says it carries.
/// Kilobytes a second that a vote says a relay claims.
pub(crate) fn claimed_kilobytes(descriptor: &RouterDesc) -> u32 {
    advertised(descriptor).min(BELIEVED_MAX) / 1000
}

fn advertised(descriptor: &RouterDesc) -> u32 {
    descriptor.bandwidth.observed.min(descriptor.bandwidth.rate)
}

/// Whether a relay answers directory requests on its ORPort; one with a DirPort does.
fn serves_directory(descriptor: &RouterDesc) -> bool {
    descriptor.tunnelled_dir_server || descriptor.dir_port != 0
}

/// How long a relay is up now, by what it said when it published.
fn real_uptime(descriptor: &RouterDesc, now: Unix) -> Duration {
    Duration::from_secs(descriptor.uptime.unwrap_or(0)).saturating_add(now.since(descriptor.published))
}

#[cfg(test)]
mod tests;
