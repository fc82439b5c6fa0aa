use std::path::Path;

use onionring_node::config::Loaded;
use onionring_proto::torrc::log::Target;
use onionring_proto::torrc::{cmdline, options};
use proptest::prelude::*;

use super::*;

const AUTHORITY: &str = "DirAuthority a orport=1 v3ident=0000000000000000000000000000000000000001 127.0.0.1:1 \
                         0000000000000000000000000000000000000002\n";

fn load_all(defaults: Option<&str>, torrc: &str, words: &str, allow_unsupported: bool) -> Loaded<Config> {
    let words: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
    let sources = Sources {
        defaults: defaults.map(PathBuf::from),
        torrc: Torrc::Text(torrc.as_bytes().to_vec()),
        command_line: cmdline::parse(&words, &[], &mut Vec::new()).items,
        allow_unsupported,
    };
    sources.load(&Environment { home: Some("/home/op".into()), memory: Some(4 << 30) })
}

fn load(torrc: &str) -> Loaded<Config> {
    load_all(None, torrc, "", false)
}

fn config(torrc: &str) -> Config {
    let loaded = load(torrc);
    assert_eq!(loaded.findings.problems, []);
    loaded.config.unwrap()
}

/// The problems of a torrc that is fine but for `lines`.
fn problems(lines: &str) -> Vec<String> {
    let findings = load(&format!("ORPort 9001\n{lines}\n")).findings;
    findings.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_minimal_configuration_has_the_defaults_of_c_tor() {
    let config = config(&format!("{AUTHORITY}ORPort 9001"));
    assert_eq!(config.nickname.as_str(), "Unnamed");
    assert_eq!(config.authorities.len(), 1);
    assert_eq!(config.or_ports.len(), 2);
    assert_eq!(config.advertised_ipv4(), Some((None, PortNumber::Fixed(9001))));
    assert_eq!(config.directories.data, Path::new("/home/op/.tor"));
    assert_eq!(config.directories.keys, Path::new("/home/op/.tor/keys"));
    assert_eq!(config.shutdown_wait, Duration::from_secs(30));
    assert_eq!(config.max_mem_in_queues, 3 << 30);
    assert_eq!(config.heartbeat, Some(Duration::from_secs(6 * 3600)));
    assert!(config.publish && config.dir_cache && config.distinct_subnets && config.log.safe);
    assert!(!config.assume_reachable && !config.extend_to_private && !config.testing);
    assert!(!config.exit.policy(&[]).permits([1, 1, 1, 1].into(), 443));
    assert!(!config.metrics.policy.permits([127, 0, 0, 1].into(), 1));
}

#[test]
fn a_full_configuration() {
    let config = config(
        "Nickname relay\nAddress 192.0.2.1\nAddress [2001:db8::1]\nORPort 443\nORPort 0.0.0.0:9001 NoAdvertise\n\
         DirPort 80\nDataDirectory ~/data\nKeyDirectory /keys\nLog info file ~/log\nLog err stderr\nExitRelay 1\n\
         ExitPolicy reject *:25, accept *:*\nMetricsPort 9035\nMetricsPortPolicy accept 127.0.0.1\nNumCPUs 3\n\
         OutboundBindAddress 192.0.2.2\nOutboundBindAddressExit [2001:db8::2]\nPublishServerDescriptor 0\n\
         MyFamily $1A25C6358DB91342AA51720A5038B72742732498\nShutdownWaitLength 1 minute\nAssumeReachable 1\n\
         HeartbeatPeriod 0\nRefuseUnknownExits 0\nSigningKeyLifetime 10 days\nSafeLogging relay\n",
    );
    assert_eq!(config.advertised_ipv4(), Some((Some([192, 0, 2, 1].into()), PortNumber::Fixed(443))));
    assert_eq!(config.ipv6, Some("2001:db8::1".parse().unwrap()));
    assert_eq!(config.advertised_dir_port(), Some(PortNumber::Fixed(80)));
    assert!(config.has_low_ports() && config.keep_bind_capabilities);
    assert_eq!(config.directories.data, Path::new("/home/op/data"));
    assert_eq!(config.directories.keys, Path::new("/keys"));
    assert_eq!(config.log.lines[0].target, Target::File("/home/op/log".to_owned()));
    assert_eq!(config.shards, NonZeroUsize::new(3));
    let policy = config.exit.policy(&[[198, 51, 100, 7].into()]);
    assert!(policy.permits([1, 1, 1, 1].into(), 443) && !policy.permits([1, 1, 1, 1].into(), 25));
    assert!(!policy.permits([198, 51, 100, 7].into(), 443) && !policy.permits([10, 0, 0, 1].into(), 443));
    assert_eq!(config.metrics.listen, ["127.0.0.1:9035".parse().unwrap()]);
    assert!(config.metrics.policy.permits([127, 0, 0, 1].into(), 1));
    assert!(!config.metrics.policy.permits([127, 0, 0, 2].into(), 1));
    assert_eq!(config.outbound_or.ipv4, Some([192, 0, 2, 2].into()));
    assert_eq!(config.outbound_exit.ipv4, Some([192, 0, 2, 2].into()));
    assert_eq!(config.outbound_exit.ipv6, Some("2001:db8::2".parse().unwrap()));
    assert_eq!(config.outbound_or.ipv6, None);
    assert!(!config.publish && config.assume_reachable && config.assume_reachable_ipv6);
    assert_eq!((config.heartbeat, config.refuse_unknown_exits, config.log.safe), (None, Some(false), true));
    assert_eq!(config.keys.signing_lifetime, Duration::from_secs(864_000));
}

#[test]
fn an_explicit_or_port_gives_the_address() {
    let config = config(
        "ORPort 192.0.2.1:9001 NoListen\nORPort 127.0.0.1:9001 NoAdvertise\nORPort [2001:db8::1]:9002",
    );
    assert_eq!(config.advertised_ipv4(), Some((Some([192, 0, 2, 1].into()), PortNumber::Fixed(9001))));
    assert_eq!(
        config.advertised_ipv6(),
        Some((Some("2001:db8::1".parse().unwrap()), PortNumber::Fixed(9002)))
    );
    let listening: Vec<_> =
        config.or_ports.iter().filter(|p| p.listen).map(|p| p.to_bind().to_string()).collect();
    assert_eq!(listening, ["127.0.0.1:9001", "[2001:db8::1]:9002"]);
}

#[test]
fn a_testing_network_implies_what_c_tor_says() {
    let config = config("TestingTorNetwork 1\nORPort 9001\nExitRelay 1\n");
    assert!(config.testing && config.extend_to_private && !config.distinct_subnets);
    assert!(config.exit.policy(&[]).permits([127, 0, 0, 1].into(), 443));
}

#[test]
fn every_problem_names_line_option_value_and_remedy() {
    let torrc = "ORPort 70000\nNickname my-relay\nExitPolicy accept *:x\nLog loud stdout\nAddress relay.example.com\n\
                 SafeLogging maybe\nDirAuthority x\nAccountingMax 1 TB\n";
    let loaded = load(torrc);
    assert!(loaded.config.is_none());
    let text: Vec<_> = loaded.findings.problems.iter().map(ToString::to_string).collect();
    for line in 1..=8 {
        let start = format!("standard input:{line}: ");
        assert_eq!(
            text.iter().filter(|text| text.starts_with(&start)).count(),
            1,
            "line {line} of {text:#?}"
        );
    }
    assert_eq!(text.len(), 8, "{text:#?}");
    let expected = "standard input:2: Nickname \"my-relay\": not a nickname; use 1 to 19 letters and digits, without accents";
    assert!(text.contains(&expected.to_owned()), "{text:#?}");
}

#[test]
fn contradictions_are_refused() {
    for lines in [
        "ORPort 9002 NoAdvertise\n/ORPort",
        "AssumeReachable 1\nAssumeReachableIPv6 0",
        "Address 192.0.2.1\nAddress 192.0.2.2",
        "OutboundBindAddress 192.0.2.1\nOutboundBindAddress 192.0.2.2",
        "DirPort 80\nDirPort 81",
        "DirPort [::1]:80",
        "PublishServerDescriptor bridge",
        "NumCPUs 5000",
        "ContactInfo \"a\\nb\"",
        "MetricsPortPolicy permit 127.0.0.1",
    ] {
        assert_eq!(problems(lines).len(), 1, "{lines}: {:?}", problems(lines));
    }
    assert_eq!(load("ORPort 9001 NoAdvertise").findings.problems.len(), 1);
    assert_eq!(load("ORPort 9001 NoListen").findings.problems.len(), 1);
    assert_eq!(load("ORPort [::1]:9001").findings.problems.len(), 1);
    assert_eq!(load("").findings.problems.len(), 1);
}

#[test]
fn unsupported_options_are_refused_unless_they_say_the_default() {
    assert_eq!(
        problems("BridgeRelay 0\nAccountingMax 0\nSandbox 0\nDisableAllSwap 0\nConnectionPadding auto"),
        [""; 0]
    );
    let expected = "standard input:2: HiddenServiceDir \"/x\": not supported here; this program is a public relay only: \
                    remove it, and run a stock tor for this role";
    assert_eq!(problems("HiddenServiceDir /x"), [expected]);
    let loaded = load_all(None, "ORPort 9001\nAccountingMax 1 TB", "", true);
    assert!(loaded.config.is_some());
    let warnings: Vec<_> = loaded.findings.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings.contains(
            &"standard input:2: AccountingMax \"1 TB\" is not supported here and ignored".to_owned()
        )
    );
}

#[test]
fn options_without_effect_are_named_once() {
    let loaded = load(
        "ORPort 9001\nSocksPort 0\nSocksPort 9050\nCellStatistics 1\nControlPort 9051\nTunnelDirConns 1",
    );
    assert_eq!(loaded.findings.problems, []);
    let notes: Vec<_> = loaded.findings.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "standard input:6: TunnelDirConns is obsolete and skipped",
            "options without effect in this program: CellStatistics, SocksPort",
        ]
    );
    let control =
        |note: &onionring_proto::torrc::Note| note.text.starts_with("ControlPort: There is no control port");
    assert!(loaded.findings.warnings.iter().any(control));
}

#[test]
fn debians_defaults_file_is_taken_as_its_unit_gives_it() {
    let defaults = "/usr/share/tor/tor-service-defaults-torrc";
    if !Path::new(defaults).exists() {
        return eprintln!("Debian's tor package is not installed: nothing to test with");
    }
    let torrc = format!("{AUTHORITY}ORPort 9001\n");
    let loaded = load_all(Some(defaults), &torrc, "--RunAsDaemon 0", false);
    assert_eq!(loaded.findings.problems, []);
    let config = loaded.config.unwrap();
    assert_eq!(config.directories.data, Path::new("/var/lib/tor"));
    assert_eq!(config.user.as_deref(), Some("debian-tor"));
    assert_eq!(config.pid_file.as_deref(), Some(Path::new("/run/tor/tor.pid")));
    assert_eq!(config.log.lines[0].target, Target::Syslog);
    // Without the unit's own word it would go into the background.
    assert_eq!(load_all(Some(defaults), &torrc, "", false).findings.problems.len(), 1);
}

#[test]
fn a_reload_tells_what_needs_a_restart() {
    let before = load("ORPort 9001\nORPort [::1]:9001\nNickname a\nNumCPUs 1\nExitPolicy accept *:80");
    let after =
        load("ORPort 9002\nNickname b\nNumCPUs 2\nDataDirectory /x\nExitPolicy reject *:*\nDirCache 0");
    assert_eq!(after.needs_restart(&before.settings), ["DataDirectory", "DirCache", "NumCPUs", "ORPort"]);
    assert_eq!(before.needs_restart(&before.settings), [""; 0]);
    // Not only the last of several lines counts.
    let other = load("ORPort 9003\nORPort [::1]:9001\nNumCPUs 01");
    assert_eq!(other.needs_restart(&before.settings), ["ORPort"]);
}

#[test]
fn a_reload_changes_only_what_can_change() {
    let old = config("ORPort 9001\nORPort [::1]:9001\nDirPort 9030\nNumCPUs 1\nMetricsPort 9035");
    let new = config(
        "ORPort 9002\nDirCache 0\nNumCPUs 2\nDataDirectory /x\nOutboundBindAddress 192.0.2.9\n\
         TestingTorNetwork 1\nUser nobody\nPidFile /x/pid\nNickname b\nContactInfo me\nAddress 192.0.2.1\n\
         MaxMemInQueues 512 MB\nPublishServerDescriptor 0\nHeartbeatPeriod 1 hour\n\
         MetricsPortPolicy accept 127.0.0.1\nExitRelay 1\nAssumeReachableIPv6 1\nMaxAdvertisedBandwidth 1 MB\n\
         RelayBandwidthRate 2 MB",
    );
    let config = old.reloaded(new);
    assert_eq!(config.or_ports, old.or_ports);
    assert_eq!(config.dir_ports, old.dir_ports);
    assert_eq!(config.directories.data, old.directories.data);
    assert_eq!((config.shards, config.user.as_deref(), config.pid_file), (NonZeroUsize::new(1), None, None));
    assert!(config.dir_cache && !config.testing);
    assert_eq!((config.outbound_or.ipv4, config.outbound_exit.ipv4), (None, None));
    assert_eq!(config.metrics.listen, old.metrics.listen);

    assert_eq!((config.nickname.as_str(), config.contact.as_deref()), ("b", Some("me")));
    assert_eq!(config.ipv4, Some([192, 0, 2, 1].into()));
    assert_eq!((config.max_mem_in_queues, config.max_advertised_bandwidth), (512 << 20, 1 << 20));
    assert_eq!(config.heartbeat, Some(Duration::from_secs(3600)));
    assert_eq!(config.bandwidth.relayed, Some(Rate { per_second: 2 << 20, burst: 2 << 20 }));
    assert!(!config.publish && config.assume_reachable_ipv6);
    assert!(config.metrics.policy.permits([127, 0, 0, 1].into(), 1));
    assert!(config.exit.policy(&[]).permits([1, 1, 1, 1].into(), 443));
}

#[test]
fn values_that_c_tor_refuses_are_refused_with_their_line() {
    for (lines, start) in [
        ("SigningKeyLifetime 1 day", "standard input:2: SigningKeyLifetime \"1 day\": too short"),
        ("MaxAdvertisedBandwidth 38399", "standard input:2: MaxAdvertisedBandwidth \"38399\": too little"),
        ("DirCache 0\nDirPort 80", "standard input:3: DirPort \"80\": a DirPort serves what DirCache 0"),
    ] {
        let problems = problems(lines);
        assert!(problems.len() == 1 && problems[0].starts_with(start), "{problems:?}");
    }
    assert_eq!(problems("SigningKeyLifetime 2 days\nMaxAdvertisedBandwidth 38400\nDirCache 0"), [""; 0]);
}

#[test]
fn bandwidth_limits_mean_what_they_do_in_c_tor() {
    let limits = |lines: &str| config(&format!("ORPort 9001\n{lines}")).bandwidth;
    let rate = |per_second, burst| Rate { per_second, burst };
    let unset = limits("");
    assert_eq!((unset.all, unset.relayed), (rate(1 << 30, 1 << 30), None));
    assert_eq!((unset.per_link_rate, unset.per_link_burst, unset.count_private), (None, None, false));
    // Each of the two is the other's default, and both raise what bounds everything.
    assert_eq!(limits("RelayBandwidthRate 1 MB").relayed, Some(rate(1 << 20, 1 << 20)));
    assert_eq!(limits("RelayBandwidthBurst 1 MB").relayed, Some(rate(1 << 20, 1 << 20)));
    let raised = limits("BandwidthRate 1 MB\nBandwidthBurst 2 MB\nRelayBandwidthRate 3 MB");
    assert_eq!(raised.all, rate(3 << 20, 3 << 20));
    assert_eq!(limits("BandwidthRate 8 MBits").all.per_second, 1 << 20);
    assert_eq!(limits("BandwidthBurst 2 GB").all.burst, (1 << 31) - 1);
    let per_link = limits("PerConnBWRate 100 KB\nPerConnBWBurst 200 KB\nCountPrivateBandwidth 1");
    assert_eq!((per_link.per_link_rate, per_link.per_link_burst), (Some(100 << 10), Some(200 << 10)));
    assert!(per_link.count_private && limits("TestingTorNetwork 1").count_private);

    let published = |lines: &str, most| limits(lines).published(most);
    assert_eq!(published("", u64::MAX), (1 << 30, 1 << 30));
    assert_eq!(published("", 1 << 20), (1 << 20, 1 << 30));
    assert_eq!(published("BandwidthRate 2 MB", 4 << 20), (2 << 20, 1 << 30));
    assert_eq!(published("RelayBandwidthRate 1 MB\nRelayBandwidthBurst 3 MB", 4 << 20), (1 << 20, 3 << 20));
}

#[test]
fn bandwidth_limits_that_make_no_sense_are_refused() {
    for (lines, start) in [
        (
            "BandwidthRate 0",
            "standard input:2: BandwidthRate \"0\": too little for a relay; write at least 75 KB",
        ),
        ("BandwidthRate 76799", "standard input:2: BandwidthRate \"76799\": too little"),
        ("RelayBandwidthRate 10 KB", "standard input:2: RelayBandwidthRate \"10 KB\": too little"),
        ("RelayBandwidthBurst 10 KB", "standard input:2: RelayBandwidthBurst \"10 KB\": too little"),
        ("BandwidthRate 3 GB", "standard input:2: BandwidthRate \"3 GB\": more than can be counted"),
        (
            "BandwidthBurst 1 MB",
            "standard input:2: BandwidthBurst \"1 MB\": less than BandwidthRate; write at least",
        ),
        (
            "BandwidthRate 2 GB",
            "standard input:2: BandwidthRate \"2 GB\": more than BandwidthBurst, which is not set",
        ),
        (
            "RelayBandwidthRate 2 MB\nRelayBandwidthBurst 1 MB",
            "standard input:3: RelayBandwidthBurst \"1 MB\": less than RelayBandwidthRate",
        ),
        (
            "PerConnBWBurst 100 KB\nPerConnBWRate 200 KB",
            "standard input:2: PerConnBWBurst \"100 KB\": less than PerConnBWRate",
        ),
    ] {
        let problems = problems(lines);
        assert!(problems.len() == 1 && problems[0].starts_with(start), "{problems:?}");
    }
    assert_eq!(problems("BandwidthRate 75 KB\nRelayBandwidthRate 76800\nPerConnBWRate 1"), [""; 0]);
}

#[test]
fn limits_of_clients_are_left_to_the_consensus_unless_they_are_set() {
    let dos = |lines: &str| config(&format!("ORPort 9001\n{lines}")).dos;
    assert_eq!(dos(""), DosConfig::default());
    let set = dos("DoSConnectionEnabled 1\nDoSConnectionMaxConcurrentCount 7\nDoSConnectionConnectRate 5\n\
                   DoSConnectionConnectBurst 6\nDoSConnectionDefenseType 1\n\
                   DoSConnectionConnectDefenseTimePeriod 2 minutes\nDoSCircuitCreationEnabled 0\n\
                   DoSCircuitCreationMinConnections 2\nDoSStreamCreationDefenseType 3");
    let connections = FloodConfig {
        enabled: Some(true),
        rate: Some(5),
        burst: Some(6),
        defence: Some(1),
        period: Some(Duration::from_secs(120)),
    };
    assert_eq!((set.connections, set.concurrent_connections), (connections, Some(7)));
    assert_eq!((set.circuits.enabled, set.min_connections, set.circuits.rate), (Some(false), Some(2), None));
    assert_eq!((set.streams.defence, set.streams.enabled), (Some(3), None));
    let expected = "standard input:2: DoSConnectionDefenseType \"3\": not a kind of defence; write 1 to 2, or 0 to follow the \
                    consensus";
    assert_eq!(problems("DoSConnectionDefenseType 3"), [expected]);
    assert_eq!(problems("DoSStreamCreationDefenseType -1").len(), 1);
}

proptest! {
    #[test]
    fn any_values_are_judged_without_panic(lines in prop::collection::vec((0..options::all().len(), "\\PC{0,20}"), 0..6)) {
        let all = options::all();
        let text: String = lines.iter().map(|(option, value)| format!("{} {value}\n", all[*option].name)).collect();
        load(&text);
    }
}
