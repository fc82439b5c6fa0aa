//! The options of the torrc that make an authority what it is, by C tor's names and with its defaults, and those of ours
//! that say how it judges relays.
//!
//! What is common to all programs (ports, keys, logs, the list of authorities) is not read here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use onionring_node::config::Reader;
use onionring_proto::policy::ExitPolicy;
use onionring_proto::torrc::options as table;
use onionring_proto::torrc::{Note, Problem};

use crate::admission::{AdmissionOptions, TapKey};
use crate::approval::AddressPolicies;
use crate::flags::{FlagOptions, TestingFlag, TestingOptions};
use crate::relay_set::RelaySet;
use crate::version::TorVersion;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Least delays and intervals, as in C tor: in a testing network, and in another.
const DELAY_MIN: Duration = Duration::from_secs(2);
const INTERVAL_MIN: Duration = Duration::from_secs(300);
const TESTING_INTERVAL_MIN: Duration = Duration::from_secs(10);
const INITIAL_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// Intervals of the first consensus fit into this, so that authorities that start at other times meet.
const INITIAL_PERIOD: Duration = Duration::from_secs(30 * 60);

/// How often authorities vote, and the time they take for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From one consensus to the next.
    pub interval: Duration,
    /// For exchanging votes.
    pub vote_delay: Duration,
    /// For exchanging signatures.
    pub dist_delay: Duration,
}

/// The options of an authority.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorityOptions {
    /// `TestingTorNetwork`.
    pub testing: bool,
    /// `ContactInfo`; `None` only in a testing network.
    pub contact: Option<String>,
    /// `V3AuthVotingInterval`, `V3AuthVoteDelay`, `V3AuthDistDelay`.
    pub timing: Timing,
    /// `TestingV3AuthInitialVotingInterval`, `...VoteDelay`, `...DistDelay`: until there is a consensus.
    pub initial_timing: Timing,
    /// `TestingV3AuthVotingStartOffset`: added to the times at which consensuses begin.
    pub start_offset: Duration,
    /// `V3AuthNIntervalsValid`: for how many intervals a consensus is valid.
    pub intervals_valid: u32,
    /// What uploads are judged by.
    pub admission: AdmissionOptions,
    /// `AuthDirReject`, `AuthDirInvalid`, `AuthDirBadExit`, `AuthDirMiddleOnly`.
    pub addresses: AddressPolicies,
    /// `AuthDirListApprovedOnly`: only relays that are approved are listed.
    pub approved_only: bool,
    /// What flags are given by.
    pub flags: FlagOptions,
    /// `ConsensusParams`, as voted.
    pub params: BTreeMap<String, i32>,
    /// `RecommendedClientVersions`, in their order; `None` if this authority has no opinion.
    pub client_versions: Option<Vec<String>>,
    /// `RecommendedServerVersions`, likewise.
    pub server_versions: Option<Vec<String>>,
    /// `V3BandwidthsFile`.
    pub bandwidths_file: Option<PathBuf>,
    /// `AuthDirSharedRandomness`.
    pub shared_randomness: bool,
    /// `AuthDirTestEd25519LinkKeys`: probes also look for the Ed25519 identity.
    pub test_ed25519_link_keys: bool,
}

impl AuthorityOptions {
    /// Reads the options. If there are problems afterwards, the result must not be used.
    pub fn new(read: &mut Reader<'_>) -> AuthorityOptions {
        let settings = read.settings;
        let mut build = Builder { read };
        build.check_role();
        build.check_testing();
        let timing = |names: [&str; 3]| {
            let [interval, vote_delay, dist_delay] = names.map(|name| settings.interval(name));
            Timing { interval, vote_delay, dist_delay }
        };
        let options = AuthorityOptions {
            testing: settings.is_testing(),
            contact: settings.text("ContactInfo").map(str::to_owned),
            timing: timing(TIMING),
            initial_timing: timing(INITIAL_TIMING),
            start_offset: settings.interval("TestingV3AuthVotingStartOffset"),
            intervals_valid: u32::try_from(settings.integer("V3AuthNIntervalsValid")).unwrap_or(u32::MAX),
            admission: build.admission(),
            addresses: build.addresses(),
            approved_only: settings.flag("AuthDirListApprovedOnly"),
            flags: build.flags(),
            params: build.params(),
            client_versions: build.versions("RecommendedClientVersions"),
            server_versions: build.versions("RecommendedServerVersions"),
            bandwidths_file: build.read.path("V3BandwidthsFile"),
            shared_randomness: settings.flag("AuthDirSharedRandomness"),
            test_ed25519_link_keys: settings.flag("AuthDirTestEd25519LinkKeys"),
        };
        build.check_timing(&options);
        build.check_initial_timing(&options);
        build.check_versions(&options);
        options
    }
}

const TIMING: [&str; 3] = ["V3AuthVotingInterval", "V3AuthVoteDelay", "V3AuthDistDelay"];
const INITIAL_TIMING: [&str; 3] =
    ["TestingV3AuthInitialVotingInterval", "TestingV3AuthInitialVoteDelay", "TestingV3AuthInitialDistDelay"];

/// Options that mean nothing outside of a testing network.
const TESTING_ONLY: [&str; 13] = [
    "TestingV3AuthInitialVotingInterval",
    "TestingV3AuthInitialVoteDelay",
    "TestingV3AuthInitialDistDelay",
    "TestingV3AuthVotingStartOffset",
    "TestingAuthDirTimeToLearnReachability",
    "TestingDirAuthVoteExit",
    "TestingDirAuthVoteExitIsStrict",
    "TestingDirAuthVoteGuard",
    "TestingDirAuthVoteGuardIsStrict",
    "TestingDirAuthVoteHSDir",
    "TestingDirAuthVoteHSDirIsStrict",
    "TestingMinExitFlagThreshold",
    "TestingMinFastFlagThreshold",
];

struct Builder<'a, 'b> {
    read: &'a mut Reader<'b>,
}

impl Builder<'_, '_> {
    fn differs(&self, name: &str) -> bool {
        table::find(name).is_some_and(|option| self.read.settings.differs_from_default(option))
    }

    fn check_role(&mut self) {
        for name in ["AuthoritativeDirectory", "V3AuthoritativeDirectory"] {
            if !self.read.settings.flag(name) {
                self.read.wrong(name, "this program is nothing but an authority", format!("write {name} 1"));
            }
        }
        if self.read.settings.text("ContactInfo").is_none() && !self.read.settings.is_testing() {
            self.read.wrong(
                "ContactInfo",
                "relays' operators need to reach you",
                "write ContactInfo and an address",
            );
        }
        if self.read.settings.lines("DirPort").is_empty() {
            self.read.wrong("DirPort", "an authority needs one", "write DirPort and a port");
        }
    }

    fn check_testing(&mut self) {
        if self.read.settings.is_testing() {
            return;
        }
        for name in TESTING_ONLY.into_iter().filter(|name| self.differs(name)).collect::<Vec<_>>() {
            let remedy = "remove it, or write TestingTorNetwork 1 if this is one";
            self.read.wrong(name, "counts in testing networks only", remedy);
        }
    }

    fn admission(&mut self) -> AdmissionOptions {
        const MINIMAL: &str = "MinimalAcceptedServerVersion";
        let text = self.read.settings.text(MINIMAL).unwrap_or("0.0");
        let minimal_version = text.parse().unwrap_or_else(|error: crate::version::NotAVersion| {
            self.read.wrong(MINIMAL, error.to_string(), "or leave it out");
            TorVersion::default()
        });
        AdmissionOptions {
            tap_key: self.tap_key(),
            minimal_version,
            allow_private_addresses: self.read.settings.flag("DirAllowPrivateAddresses"),
            pin_keys: self.read.settings.flag("AuthDirPinKeys"),
            us: None,
        }
    }

    fn tap_key(&mut self) -> TapKey {
        let words =
            [("required", TapKey::Required), ("optional", TapKey::Optional), ("refused", TapKey::Refused)];
        self.read.choice("AuthDirTapKey", &words).unwrap_or_default()
    }

    fn addresses(&mut self) -> AddressPolicies {
        AddressPolicies {
            reject: self.policy("AuthDirReject"),
            invalid: self.policy("AuthDirInvalid"),
            bad_exit: self.policy("AuthDirBadExit"),
            middle_only: self.policy("AuthDirMiddleOnly"),
        }
    }

    fn policy(&mut self, name: &str) -> ExitPolicy {
        let mut rules = Vec::new();
        for item in self.read.settings.lines(name) {
            match AddressPolicies::parse([item.value.as_str()]) {
                Ok(policy) => rules.extend_from_slice(policy.rules()),
                Err(error) => {
                    self.read.findings.problems.push(Problem::with(
                        item,
                        error.to_string(),
                        "write networks like 192.0.2.0/24",
                    ));
                }
            }
        }
        ExitPolicy::from_rules(rules)
    }

    fn flags(&mut self) -> FlagOptions {
        let settings = self.read.settings;
        let count = |name| usize::try_from(settings.integer(name)).unwrap_or(usize::MAX);
        FlagOptions {
            list_bad_exits: settings.flag("AuthDirListBadExits"),
            list_middle_only: settings.flag("AuthDirListMiddleOnly"),
            max_servers_per_address: count("AuthDirMaxServersPerAddr"),
            test_reachability: settings.flag("AuthDirTestReachability"),
            has_ipv6: settings.flag("AuthDirHasIPv6Connectivity"),
            fast_guarantee: settings.memory("AuthDirFastGuarantee"),
            guard_bandwidth_guarantee: settings.memory("AuthDirGuardBWGuarantee"),
            guard_bandwidth_fraction: self.fraction("AuthDirVoteGuardBwThresholdFraction"),
            guard_time_known_guarantee: settings.interval("AuthDirVoteGuardGuaranteeTimeKnown"),
            guard_wfu_guarantee: self.fraction("AuthDirVoteGuardGuaranteeWFU"),
            stable_uptime_guarantee: settings.interval("AuthDirVoteStableGuaranteeMinUptime"),
            stable_mtbf_guarantee: settings.interval("AuthDirVoteStableGuaranteeMTBF"),
            vote_guard: self.relays("AuthDirVoteGuard"),
            min_measured: self.min_measured(),
            hs_dir_uptime: settings.interval("MinUptimeHidServDirectoryV2"),
            time_to_learn_reachability: settings.interval("TestingAuthDirTimeToLearnReachability"),
            allow_private_addresses: settings.flag("DirAllowPrivateAddresses"),
            testing: settings.is_testing().then(|| TestingOptions {
                exit: self.testing_flag("TestingDirAuthVoteExit", "TestingDirAuthVoteExitIsStrict"),
                guard: self.testing_flag("TestingDirAuthVoteGuard", "TestingDirAuthVoteGuardIsStrict"),
                hs_dir: self.testing_flag("TestingDirAuthVoteHSDir", "TestingDirAuthVoteHSDirIsStrict"),
                min_counted: settings.memory("TestingMinExitFlagThreshold"),
                min_fast: settings.memory("TestingMinFastFlagThreshold"),
            }),
        }
    }

    fn testing_flag(&mut self, relays: &str, strict: &str) -> TestingFlag {
        TestingFlag { relays: self.relays(relays), strict: self.read.settings.flag(strict) }
    }

    fn relays(&mut self, name: &str) -> RelaySet {
        RelaySet::parse(self.read.settings.text(name).unwrap_or("")).unwrap_or_else(|error| {
            self.read.wrong(name, error.to_string(), "or leave it out");
            RelaySet::default()
        })
    }

    /// A number between 0 and 1.
    fn fraction(&mut self, name: &str) -> f64 {
        let value = self.read.settings.text(name).and_then(|value| value.parse::<f64>().ok());
        value.filter(|value| (0.0..=1.0).contains(value)).unwrap_or_else(|| {
            self.read.wrong(name, "is no share of something", "give a number from 0 to 1");
            0.0
        })
    }

    fn min_measured(&mut self) -> usize {
        const NAME: &str = "MinMeasuredBWsForAuthToIgnoreAdvertised";
        let value = self.read.settings.text(NAME).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| {
            self.read.wrong(NAME, "is no number of relays", "give a whole number from 0 on");
            0
        })
    }

    fn params(&mut self) -> BTreeMap<String, i32> {
        const NAME: &str = "ConsensusParams";
        let mut params = BTreeMap::new();
        for item in self.read.settings.lines(NAME) {
            for entry in item.value.split_ascii_whitespace() {
                let param = entry.split_once('=').and_then(|(name, value)| Some((name, value.parse().ok()?)));
                let Some((name, value)) = param.filter(|(name, _)| !name.is_empty()) else {
                    let what = format!("'{entry}' is no parameter");
                    self.read.findings.problems.push(Problem::with(
                        item,
                        what,
                        "write name=number, the number within 32 bits",
                    ));
                    continue;
                };
                if params.insert(name.to_owned(), value).is_some() {
                    self.read.findings.problems.push(Problem::with(
                        item,
                        format!("{name} is there twice"),
                        "remove one",
                    ));
                }
            }
        }
        if !params.is_empty() {
            // So that everybody can see which relays this authority lists.
            let max = self.read.settings.integer("AuthDirMaxServersPerAddr");
            params.insert("AuthDirMaxServersPerAddr".to_owned(), i32::try_from(max).unwrap_or(i32::MAX));
        }
        params
    }

    /// The versions that an option recommends, in their order; without it, those of `RecommendedVersions`.
    fn versions(&mut self, name: &str) -> Option<Vec<String>> {
        if !self.read.settings.flag("VersioningAuthoritativeDirectory") {
            return None;
        }
        let own = self.read.settings.lines(name);
        let items = if own.is_empty() { self.read.settings.lines("RecommendedVersions") } else { own };
        if items.is_empty() {
            let remedy =
                format!("write {name} or RecommendedVersions, or leave out VersioningAuthoritativeDirectory");
            self.read.wrong("VersioningAuthoritativeDirectory", format!("{name} is missing"), remedy);
        }
        let mut versions = BTreeMap::new();
        for item in items {
            for text in item.value.split([',', ' ', '\t']).filter(|text| !text.is_empty()) {
                match text.parse::<TorVersion>() {
                    Ok(version) => drop(versions.insert(version, text.to_owned())),
                    Err(error) => self.read.findings.problems.push(Problem::with(
                        item,
                        error.to_string(),
                        "separate them by commas",
                    )),
                }
            }
        }
        Some(versions.into_values().collect())
    }

    fn check_timing(&mut self, options: &AuthorityOptions) {
        let Timing { interval, vote_delay, dist_delay } = options.timing;
        let [interval_name, vote_name, dist_name] = TIMING;
        if vote_delay + dist_delay >= interval / 2 {
            let what = format!(
                "voting takes {} of {} seconds",
                (vote_delay + dist_delay).as_secs(),
                interval.as_secs()
            );
            let remedy =
                format!("make {vote_name} and {dist_name} together less than half of {interval_name}");
            self.read.wrong(interval_name, what, remedy);
        }
        for (name, delay) in [(vote_name, vote_delay), (dist_name, dist_delay)] {
            if delay < DELAY_MIN {
                self.read.wrong(name, "is too short for others to answer", "make it 2 seconds or more");
            }
        }
        let min = if options.testing { TESTING_INTERVAL_MIN } else { INTERVAL_MIN };
        if interval < min || interval > DAY {
            let remedy = format!("choose between {} seconds and a day", min.as_secs());
            self.read.wrong(interval_name, "authorities cannot keep to that", remedy);
        } else if !DAY.as_secs().is_multiple_of(interval.as_secs()) {
            let text =
                format!("{interval_name} does not divide a day: the last interval of each day is shorter");
            self.read.findings.notes.push(Note { origin: self.read.settings.origin(interval_name), text });
        }
        if options.intervals_valid < 2 {
            let what = "one failed vote would end the network";
            self.read.wrong("V3AuthNIntervalsValid", what, "make it 2 or more");
        }
    }

    fn check_initial_timing(&mut self, options: &AuthorityOptions) {
        let Timing { interval, vote_delay, dist_delay } = options.initial_timing;
        let [interval_name, vote_name, dist_name] = INITIAL_TIMING;
        if interval < INITIAL_INTERVAL_MIN || !INITIAL_PERIOD.as_secs().is_multiple_of(interval.as_secs()) {
            self.read.wrong(
                interval_name,
                "does not divide half an hour",
                "choose 5 seconds or more that do",
            );
        }
        for (name, delay) in [(vote_name, vote_delay), (dist_name, dist_delay)] {
            if delay < DELAY_MIN {
                self.read.wrong(name, "is too short for others to answer", "make it 2 seconds or more");
            }
        }
        if vote_delay + dist_delay >= interval {
            let remedy = format!("make {vote_name} and {dist_name} together less than {interval_name}");
            self.read.wrong(interval_name, "voting takes longer than that", remedy);
        }
        if options.start_offset > interval.min(options.timing.interval) {
            let remedy = format!("make it less than {interval_name}");
            self.read.wrong("TestingV3AuthVotingStartOffset", "is longer than an interval", remedy);
        }
    }

    /// An authority must not refuse the relays that it recommends.
    fn check_versions(&mut self, options: &AuthorityOptions) {
        let minimal = &options.admission.minimal_version;
        let refused = options
            .server_versions
            .iter()
            .flatten()
            .find(|version| version.parse::<TorVersion>().is_ok_and(|version| version < *minimal));
        if let Some(version) = refused.cloned() {
            let what = format!("{version} is recommended and would be refused");
            self.read.wrong(
                "MinimalAcceptedServerVersion",
                what,
                "lower it, or no longer recommend that version",
            );
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
