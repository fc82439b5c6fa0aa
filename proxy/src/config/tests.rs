use onionring_node::config::Loaded;
use onionring_proto::torrc::{cmdline, options};
use proptest::prelude::*;

use onionring_proto::guard::BiasSettings;
use onionring_proto::path::NodeSet;
use onionring_proto::torrc::port::{ClientKind, ClientPlace, ClientPort};

use super::*;
use crate::directory::Schedule;
use crate::ports::TransProxyType;

const LEAST: &str = "DirAuthority a orport=1 v3ident=0000000000000000000000000000000000000001 127.0.0.1:1 \
                     0000000000000000000000000000000000000002\n";

fn load(torrc: &str, words: &str, allow_unsupported: bool) -> Loaded<Config> {
    let words: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
    let sources = Sources {
        defaults: None,
        torrc: Torrc::Text(torrc.as_bytes().to_vec()),
        command_line: cmdline::parse(&words, &[], &mut Vec::new()).items,
        allow_unsupported,
    };
    sources.load(&Environment { home: Some("/home/op".into()), memory: None })
}

/// The configuration of a torrc that is fine but for `lines`.
fn config(lines: &str) -> Config {
    let loaded = load(&format!("{LEAST}{lines}"), "", false);
    assert_eq!(loaded.findings.problems, []);
    loaded.config.unwrap()
}

fn problems(lines: &str) -> Vec<String> {
    load(&format!("{LEAST}{lines}"), "", false).findings.problems.iter().map(ToString::to_string).collect()
}

/// The ports of applications, with where they are.
fn ports(config: &Config) -> Vec<(ClientKind, String)> {
    let place = |port: &ClientPort| match &port.place {
        ClientPlace::Address(address) => address.to_string(),
        ClientPlace::File(path) => path.clone(),
    };
    config.ports.ports.iter().map(|port| (port.kind, place(port))).collect()
}

#[test]
fn without_a_line_everything_is_as_in_c_tor_but_for_the_period() {
    let config = config("");
    assert_eq!(ports(&config), [(ClientKind::Socks, "127.0.0.1:9050".to_owned())]);
    assert_eq!(config.circuits.new_circuit_period, Duration::from_secs(60));
    assert_eq!(config.circuits.dirtiness, Duration::from_secs(600));
    assert_eq!((config.circuits.build_timeout, config.circuits.learn_build_timeout), (None, true));
    assert_eq!((config.circuits.pending, config.circuits.predicted), (32, true));
    assert!(
        config.circuits.long_lived_ports.contains(&22) && !config.circuits.long_lived_ports.contains(&443)
    );
    let ours = (config.circuits.leaky_pipe, config.circuits.truncate, config.circuits.length);
    assert_eq!(ours, (false, false, 3));
    assert!(!config.circuits.half_closed_streams);
    let rules = &config.ports.rules;
    assert_eq!(rules.warn_ports, [23, 109, 110, 143].into());
    assert!(rules.reject_internal && rules.dns_reject_internal && !rules.safe_socks);
    assert!(rules.policy.permits([192, 0, 2, 1].into(), 1));
    assert_eq!(rules.timeout, Duration::from_secs(120));
    let bias = BiasSettings { drop: Some(false), ..BiasSettings::default() };
    let guards = GuardOptions {
        enabled: true,
        used: None,
        used_for_directory: None,
        primary: None,
        lifetime: None,
        bias,
    };
    assert_eq!(config.guards, guards);
    assert!(config.paths.distinct_subnets && config.paths.use_ipv4 && config.paths.use_ipv6);
    assert!(!config.paths.prefer_ipv6 && config.paths.paths_needed.is_none());
    assert_eq!(config.directory.schedule, Schedule::NORMAL);
    assert_eq!((config.authorities.len(), config.testing), (1, false));
    assert_eq!(config.directories.cache, PathBuf::from("/home/op/.tor"));
}

#[test]
fn what_lines_say_counts() {
    let config = config(
        "SocksPort 9150 IsolateDestAddr\nSocksPort unix:/run/socks\nHTTPTunnelPort auto\nDNSPort 5353\nTransPort 9040\n\
         TransProxyType tproxy\nNewCircuitPeriod 15\nMaxCircuitDirtiness 3\nCircuitStreamTimeout 2\n\
         CircuitBuildTimeout 20\nPathsNeededToBuildCircuits 0.99\nGuardLifetime 2 days\nNumEntryGuards 2\n\
         ExitNodes $0000000000000000000000000000000000000001~a\nExitNodes b,192.0.2.0/24\nExcludeNodes c\n\
         NodeFamily a,b\nNodeFamily c,d\nStrictNodes 1\nClientUseIPv4 0\nSocksPolicy reject 192.0.2.1\n\
         RejectPlaintextPorts 23,110\nFallbackDir 192.0.2.7:80 orport=9001 id=0000000000000000000000000000000000000007\nLeakyPipe 1\nTruncateCircuits 1\nCircuitLength 4\nHalfClosedStreams 1\nNumCPUs 2\n",
    );
    let found = ports(&config);
    let found: Vec<_> = found.iter().map(|(kind, place)| (*kind, &**place)).collect();
    let expected = [
        (ClientKind::Socks, "127.0.0.1:9150"),
        (ClientKind::Socks, "/run/socks"),
        (ClientKind::Http, "127.0.0.1:0"),
        (ClientKind::Dns, "127.0.0.1:5353"),
        (ClientKind::Transparent, "127.0.0.1:9040"),
    ];
    assert_eq!(found, expected);
    assert!(config.ports.ports[0].isolate.dest_addr && !config.ports.ports[1].isolate.dest_addr);
    assert_eq!(config.ports.transparent, TransProxyType::Tproxy);
    let ten = Duration::from_secs(10);
    assert_eq!((config.circuits.dirtiness, config.circuits.stream_timeout), (ten, Some(ten)));
    assert_eq!(config.circuits.new_circuit_period, Duration::from_secs(15));
    assert_eq!(config.circuits.build_timeout, Some(Duration::from_secs(20)));
    assert!(config.circuits.leaky_pipe && config.circuits.truncate && config.circuits.length == 4);
    assert!(config.circuits.half_closed_streams);
    assert_eq!((config.paths.paths_needed, config.paths.prefer_ipv6), (Some(0.95), true));
    let nodes = &config.paths.nodes;
    let exits = NodeSet::parse("0000000000000000000000000000000000000001,b,192.0.2.0/24").unwrap();
    assert_eq!((&nodes.exit, nodes.families.len(), nodes.strict), (&exits, 2, true));
    assert!(!nodes.exclude.is_empty() && nodes.entry.is_empty() && nodes.middle.is_empty());
    assert_eq!(config.guards.used, Some(2));
    assert_eq!(config.guards.lifetime, Some(Duration::from_secs(2 * 86_400)));
    assert!(!config.ports.rules.policy.permits([192, 0, 2, 1].into(), 1));
    assert_eq!((&config.ports.rules.reject_ports, config.threads), (&[23, 110].into(), 2));
    assert_eq!(config.directory.fallbacks[0].or, "192.0.2.7:9001".parse().unwrap());
}

#[test]
fn what_cannot_be_meant_is_an_error_with_its_line() {
    for (lines, start) in [
        ("ExitNodes {de}", "ExitNodes \"{de}\": '{de}' is a country"),
        ("ExcludeNodes a b", "ExcludeNodes \"a b\": 'a b' names no relay"),
        ("NodeFamily a,{us}", "NodeFamily \"a,{us}\": '{us}' is a country"),
        ("EntryNodes a\nUseEntryGuards 0", "EntryNodes \"a\": entry nodes"),
        ("ClientUseIPv4 0\nClientUseIPv6 0", "ClientUseIPv4 \"0\": no relay can be reached"),
        ("RejectPlaintextPorts 65536", "RejectPlaintextPorts \"65536\": 65536 is not a port"),
        ("FallbackDir x", "FallbackDir \"x\": "),
        ("CircuitLength 2", "CircuitLength \"2\": out of its range"),
        ("PathBiasWarnRate 1.1", "PathBiasWarnRate \"1.1\": more than 1"),
        ("LongLivedPorts ssh", "LongLivedPorts \"ssh\": 'ssh' is no port"),
        ("TransProxyType tproxy", "TransProxyType \"tproxy\": there is no TransPort"),
        ("TransPort 1\nTransProxyType ipfw", "TransProxyType \"ipfw\": not known on Linux"),
        ("CircuitsAvailableTimeout 25 hours", "CircuitsAvailableTimeout \"25 hours\": more than a day"),
        ("MaxClientCircuitsPending 0", "MaxClientCircuitsPending \"0\": out of its range"),
        ("SocksPolicy accept x", "SocksPolicy \"accept x\": "),
    ] {
        let found = problems(lines);
        assert!(found.len() == 1 && found[0].contains(start), "{lines}: {found:?}");
        assert!(found[0].starts_with("standard input:"), "{found:?}");
    }
}

#[test]
fn what_is_not_supported_is_refused_or_named() {
    let lines = "ControlPort 9051\nBridge 192.0.2.1:443\nHiddenServiceDir /x\nSocks5Proxy 127.0.0.1:1\nORPort 9001\n\
                 AutomapHostsOnResolve 1\nMapAddress a b\nNATDPort 1\n";
    let found = problems(lines);
    assert_eq!(found.len(), 8, "{found:?}");
    for remedy in ["onionring-proxy check", "stock client", "dialed directly", "onionring-relay", "TransPort"]
    {
        assert!(found.iter().any(|problem| problem.contains(remedy)), "{remedy} in {found:?}");
    }
    let loaded = load(&format!("{LEAST}{lines}"), "--BandwidthRate 1MB --ContactInfo me", true);
    assert!(loaded.config.is_some());
    let warnings: Vec<_> = loaded.findings.warnings.iter().map(ToString::to_string).collect();
    for start in ["standard input:2: ControlPort", "BandwidthRate: B"] {
        assert!(warnings.iter().any(|warning| warning.starts_with(start)), "{start} in {warnings:?}");
    }
    assert!(loaded.findings.notes.iter().any(|note| note.text.contains("ContactInfo")));
}

#[test]
fn a_testing_network_takes_internal_addresses() {
    let config = config("TestingTorNetwork 1\n");
    let rules = &config.ports.rules;
    assert!(!rules.reject_internal && !rules.dns_reject_internal && config.testing);
    assert!(!config.paths.distinct_subnets && config.directory.schedule == Schedule::TESTING);
}

#[test]
fn a_reload_changes_only_what_can_change() {
    let old = config("MetricsPort 9035");
    let lines = "SocksPort 1\nDataDirectory /x\nExitNodes a\nMaxCircuitDirtiness 60\nMetricsPortPolicy accept 127.0.0.1\n\
                 SafeSocks 1\nFallbackDir 192.0.2.7:80 orport=9001 id=0000000000000000000000000000000000000007\n";
    let loaded = load(&format!("{LEAST}{lines}"), "", false);
    let before = load(LEAST, "", false).settings;
    assert_eq!(loaded.needs_restart(&before), ["DataDirectory", "FallbackDir", "SocksPort"]);
    let config = old.reloaded(loaded.config.unwrap());
    assert_eq!(config.ports.ports, old.ports.ports);
    assert_eq!((&config.directory, &config.directories.data), (&old.directory, &old.directories.data));
    assert_eq!(config.metrics.listen, old.metrics.listen);
    assert!(config.metrics.policy.permits([127, 0, 0, 1].into(), 1));
    assert!(config.ports.rules.safe_socks && !config.paths.nodes.exit.is_empty());
    assert_eq!(config.circuits.dirtiness, Duration::from_secs(60));
}

#[test]
fn guards_are_judged_by_what_the_torrc_says_and_otherwise_by_the_consensus() {
    let config = config(
        "PathBiasCircThreshold 5\nPathBiasNoticeRate 0.5\nPathBiasWarnRate 0\nPathBiasExtremeRate -0.5\n\
         PathBiasDropGuards auto\nPathBiasScaleThreshold 9\nPathBiasUseThreshold 3\nPathBiasNoticeUseRate 1\n\
         PathBiasExtremeUseRate 0.25\nPathBiasScaleUseThreshold 10\n",
    );
    let expected = BiasSettings {
        circuits: Some(5),
        notable: Some(0.5),
        bad: Some(0.0),
        extreme: None,
        drop: None,
        scale_circuits: None,
        uses: Some(3),
        notable_use: Some(1.0),
        extreme_use: Some(0.25),
        scale_uses: Some(10),
    };
    assert_eq!(config.guards.bias, expected);
}

proptest! {
    #[test]
    fn any_values_are_judged_without_panic(
        lines in prop::collection::vec((0..options::all().len(), "\\PC{0,20}"), 0..6),
    ) {
        let all = options::all();
        let text: String = lines.iter().map(|(option, value)| format!("{} {value}\n", all[*option].name)).collect();
        load(&text, "", false);
    }
}
