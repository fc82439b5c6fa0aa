use std::sync::Arc;

use onionring_node::config::{Environment, Findings};
use onionring_proto::torrc::Settings;
use onionring_proto::torrc::lines::{self, Line};
use proptest::prelude::*;

use super::*;

const LEAST: &str =
    "AuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\nContactInfo me\nORPort 1\nDirPort 2\n";
const TESTING: &str = "TestingTorNetwork 1\n";

fn read(torrc: &str) -> (AuthorityOptions, Vec<String>, Vec<String>) {
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    let path: Arc<str> = "torrc".into();
    let items = lines::parse(torrc.as_bytes(), &path, &mut problems)
        .into_iter()
        .filter_map(|line| match line {
            Line::Item(item) => Some(item),
            Line::Include { .. } => None,
        })
        .collect();
    let mut settings = Settings::default();
    settings.assign(items, &mut problems, &mut notes);
    let (environment, mut findings) =
        (Environment::default(), Findings { problems, notes, ..Findings::default() });
    let read = &mut Reader { settings: &settings, environment: &environment, findings: &mut findings };
    let options = AuthorityOptions::new(read);
    (
        options,
        findings.problems.iter().map(ToString::to_string).collect(),
        findings.notes.iter().map(ToString::to_string).collect(),
    )
}

/// The options of a torrc that is fine but for `lines`.
pub fn options(lines: &str) -> AuthorityOptions {
    let (options, problems, _) = read(&format!("{LEAST}{lines}"));
    assert_eq!(problems, [] as [&str; 0]);
    options
}

fn problems(lines: &str) -> Vec<String> {
    read(&format!("{LEAST}{lines}")).1
}

fn seconds(interval: u64, vote_delay: u64, dist_delay: u64) -> Timing {
    let [interval, vote_delay, dist_delay] = [interval, vote_delay, dist_delay].map(Duration::from_secs);
    Timing { interval, vote_delay, dist_delay }
}

#[test]
fn the_defaults_are_those_of_c_tor() {
    let options = options("");
    assert_eq!(options.timing, seconds(3600, 300, 300));
    assert_eq!(options.initial_timing, seconds(1800, 300, 300));
    assert_eq!((options.intervals_valid, options.start_offset), (3, Duration::ZERO));
    assert_eq!(options.flags, FlagOptions::default());
    assert_eq!(options.addresses, AddressPolicies::default());
    assert_eq!(options.admission.minimal_version.to_string(), "0.4.8.0-alpha-dev");
    assert_eq!((options.admission.pin_keys, options.admission.allow_private_addresses), (true, false));
    assert_eq!((options.admission.us, options.admission.tap_key), (None, TapKey::Required));
    assert!(options.shared_randomness && options.test_ed25519_link_keys);
    assert_eq!(
        (options.client_versions, options.server_versions, options.bandwidths_file),
        (None, None, None)
    );
    assert!(options.params.is_empty() && !options.testing);
    assert_eq!(options.contact.as_deref(), Some("me"));
}

#[test]
fn a_testing_network_has_others() {
    let options = options(TESTING);
    assert_eq!(options.timing, seconds(300, 20, 20));
    assert_eq!(options.initial_timing, seconds(150, 20, 20));
    assert_eq!(options.flags.max_servers_per_address, 0);
    assert_eq!(options.flags.hs_dir_uptime, Duration::ZERO);
    assert_eq!(options.flags.time_to_learn_reachability, Duration::ZERO);
    assert!(options.flags.allow_private_addresses && options.admission.allow_private_addresses);
    assert_eq!(options.flags.testing, Some(TestingOptions::default()));
    let (_, problems, _) = read(&format!("{TESTING}{}", LEAST.replace("ContactInfo me\n", "")));
    assert_eq!(problems, [] as [&str; 0]);
}

#[test]
fn all_options_are_read() {
    let options = options(
        "TestingTorNetwork 1\nV3AuthVotingInterval 20 seconds\nV3AuthVoteDelay 4\nV3AuthDistDelay 5\n\
         V3AuthNIntervalsValid 4\nTestingV3AuthInitialVotingInterval 10\nTestingV3AuthInitialVoteDelay 2\n\
         TestingV3AuthInitialDistDelay 3\nTestingV3AuthVotingStartOffset 6\nAuthDirListBadExits 1\n\
         AuthDirListMiddleOnly 1\nAuthDirMaxServersPerAddr 7\nAuthDirTestReachability 0\nAuthDirHasIPv6Connectivity 1\n\
         AuthDirFastGuarantee 8 KB\nAuthDirGuardBWGuarantee 9 KB\nAuthDirVoteGuardBwThresholdFraction 0.5\n\
         AuthDirVoteGuardGuaranteeTimeKnown 10\nAuthDirVoteGuardGuaranteeWFU 0.25\n\
         AuthDirVoteStableGuaranteeMinUptime 11\nAuthDirVoteStableGuaranteeMTBF 12\nAuthDirVoteGuard a\n\
         MinMeasuredBWsForAuthToIgnoreAdvertised 13\nMinUptimeHidServDirectoryV2 14\n\
         TestingAuthDirTimeToLearnReachability 15\nDirAllowPrivateAddresses 0\nTestingDirAuthVoteExit *\n\
         TestingDirAuthVoteExitIsStrict 1\nTestingDirAuthVoteGuard g\nTestingDirAuthVoteHSDir h\n\
         TestingDirAuthVoteHSDirIsStrict 1\nTestingMinExitFlagThreshold 16 KB\nTestingMinFastFlagThreshold 17 KB\n\
         AuthDirPinKeys 0\nAuthDirSharedRandomness 0\nAuthDirTestEd25519LinkKeys 0\n\
         V3BandwidthsFile /bw\nAuthDirReject 192.0.2.1\nAuthDirReject 192.0.2.2\n\
         AuthDirInvalid 192.0.2.3\nAuthDirBadExit 192.0.2.4\nAuthDirMiddleOnly 192.0.2.5\n\
         MinimalAcceptedServerVersion 0.4.9.1\n",
    );
    assert_eq!((options.timing, options.initial_timing), (seconds(20, 4, 5), seconds(10, 2, 3)));
    assert_eq!((options.intervals_valid, options.start_offset), (4, Duration::from_secs(6)));
    let set = |text| RelaySet::parse(text).unwrap();
    let flags = FlagOptions {
        list_bad_exits: true,
        list_middle_only: true,
        max_servers_per_address: 7,
        test_reachability: false,
        has_ipv6: true,
        fast_guarantee: 8 << 10,
        guard_bandwidth_guarantee: 9 << 10,
        guard_bandwidth_fraction: 0.5,
        guard_time_known_guarantee: Duration::from_secs(10),
        guard_wfu_guarantee: 0.25,
        stable_uptime_guarantee: Duration::from_secs(11),
        stable_mtbf_guarantee: Duration::from_secs(12),
        vote_guard: set("a"),
        min_measured: 13,
        hs_dir_uptime: Duration::from_secs(14),
        time_to_learn_reachability: Duration::from_secs(15),
        allow_private_addresses: false,
        testing: Some(TestingOptions {
            exit: TestingFlag { relays: set("*"), strict: true },
            guard: TestingFlag { relays: set("g"), strict: false },
            hs_dir: TestingFlag { relays: set("h"), strict: true },
            min_counted: 16 << 10,
            min_fast: 17 << 10,
        }),
    };
    assert_eq!(options.flags, flags);
    assert!(!options.admission.pin_keys && !options.admission.allow_private_addresses);
    assert_eq!(options.admission.minimal_version.to_string(), "0.4.9.1");
    assert!(!options.shared_randomness && !options.test_ed25519_link_keys);
    assert_eq!(options.bandwidths_file, Some(PathBuf::from("/bw")));
    let parsed = |values: &[&str]| AddressPolicies::parse(values.iter().copied()).unwrap();
    let addresses = AddressPolicies {
        reject: parsed(&["192.0.2.1", "192.0.2.2"]),
        invalid: parsed(&["192.0.2.3"]),
        bad_exit: parsed(&["192.0.2.4"]),
        middle_only: parsed(&["192.0.2.5"]),
    };
    assert_eq!(options.addresses, addresses);
}

#[test]
fn parameters_are_voted_with_what_limits_relays() {
    let voted =
        options("ConsensusParams b=2 a=-1\nConsensusParams c=2147483647\nAuthDirMaxServersPerAddr 3\n")
            .params;
    let line: Vec<String> = voted.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(line.join(" "), "AuthDirMaxServersPerAddr=3 a=-1 b=2 c=2147483647");
    for wrong in ["a", "a=", "=1", "a=2147483648", "a=b", "a=1 a=2"] {
        assert_eq!(problems(&format!("ConsensusParams {wrong}")).len(), 1, "{wrong}");
    }
}

#[test]
fn recommended_versions_are_in_order() {
    let on = "VersioningAuthoritativeDirectory 1\n";
    let versions = options(&format!(
        "{on}RecommendedVersions 0.4.9.11, 0.4.8.1-alpha,0.4.9.2\nRecommendedVersions 0.4.9.11\n\
         RecommendedClientVersions 0.4.10.1 0.4.9.9\n"
    ));
    assert_eq!(versions.server_versions.unwrap(), ["0.4.8.1-alpha", "0.4.9.2", "0.4.9.11"]);
    assert_eq!(versions.client_versions.unwrap(), ["0.4.9.9", "0.4.10.1"]);
    assert_eq!(options("RecommendedVersions 0.4.9.11").client_versions, None);

    assert_eq!(problems(on).len(), 2);
    assert!(problems(&format!("{on}RecommendedVersions x"))[0].contains("'x' is no version of Tor"));
    let refused = problems(&format!("{on}RecommendedVersions 0.4.9.11,0.4.7.1"));
    assert!(refused[0].contains("0.4.7.1 is recommended and would be refused"), "{refused:?}");
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (lines, expected) in [
        ("V3AuthVoteDelay 25 minutes", "voting takes 1800 of 3600 seconds"),
        ("V3AuthVoteDelay 1 second", "V3AuthVoteDelay \"1 second\": is too short"),
        ("V3AuthDistDelay 1 second", "V3AuthDistDelay \"1 second\": is too short"),
        (
            "V3AuthVotingInterval 299 seconds\nV3AuthVoteDelay 5\nV3AuthDistDelay 5",
            "between 300 seconds and a day",
        ),
        ("V3AuthVotingInterval 25 hours", "between 300 seconds and a day"),
        ("V3AuthNIntervalsValid 1", "torrc:6: V3AuthNIntervalsValid \"1\": one failed vote"),
        (
            "TestingTorNetwork 1\nV3AuthVotingInterval 9\nV3AuthVoteDelay 2\nV3AuthDistDelay 2",
            "between 10 seconds",
        ),
        ("TestingTorNetwork 1\nTestingV3AuthInitialVotingInterval 70", "does not divide half an hour"),
        ("TestingTorNetwork 1\nTestingV3AuthInitialVotingInterval 30", "takes longer than that"),
        ("TestingTorNetwork 1\nTestingV3AuthInitialVoteDelay 1", "is too short"),
        ("TestingTorNetwork 1\nTestingV3AuthInitialDistDelay 1", "is too short"),
        ("TestingTorNetwork 1\nTestingV3AuthVotingStartOffset 151", "is longer than an interval"),
        ("TestingV3AuthInitialVotingInterval 900", "counts in testing networks only"),
        ("TestingDirAuthVoteExit *", "counts in testing networks only"),
        ("MinimalAcceptedServerVersion soon", "'soon' is no version of Tor"),
        ("AuthDirReject 192.0.2.0/40", "has no valid mask"),
        ("AuthDirVoteGuardBwThresholdFraction 1.5", "is no share of something"),
        ("AuthDirVoteGuardGuaranteeWFU -0.1", "is no share of something"),
        ("MinMeasuredBWsForAuthToIgnoreAdvertised -1", "is no number of relays"),
        ("AuthDirVoteGuard {us}", "'{us}' is a country"),
    ] {
        let problems = problems(lines);
        assert_eq!(problems.len(), 1, "{lines}: {problems:?}");
        assert!(problems[0].contains(expected), "{lines}: {problems:?}");
    }
    assert_eq!(read("").1.len(), 4);
    let (_, problems, notes) = read(&format!("{LEAST}V3AuthVotingInterval 7 hours"));
    assert_eq!(problems, [] as [&str; 0]);
    assert!(notes[0].contains("does not divide a day"), "{notes:?}");
}

proptest! {
    #[test]
    fn any_values_are_read_or_named(
        lines in prop::collection::vec((prop::sample::select(table::all()), "[0-9a-z,.=*/ -]{0,12}"), 0..20)
    ) {
        let torrc: String = lines.iter().map(|(option, value)| format!("{} {value}\n", option.name)).collect();
        read(&format!("{LEAST}{torrc}"));
    }
}
