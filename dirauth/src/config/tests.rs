use onionring_node::config::Loaded;
use onionring_proto::torrc::{cmdline, options};
use proptest::prelude::*;

use super::*;
use crate::admission::TapKey;

const LEAST: &str = "AuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\nContactInfo me\nORPort 9001\nDirPort 9030\n\
                     Address 192.0.2.1\n";

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

fn problems(torrc: &str) -> Vec<String> {
    load(torrc, "", false).findings.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_minimal_configuration() {
    let config = config("");
    assert_eq!((config.address, config.address_v6), ([192, 0, 2, 1].into(), None));
    assert_eq!(config.advertised_or_port(), Some(PortNumber::Fixed(9001)));
    assert_eq!(config.advertised_dir_port(), Some(PortNumber::Fixed(9030)));
    assert_eq!(config.directories.data, PathBuf::from("/home/op/.tor"));
    assert_eq!(config.directories.keys, PathBuf::from("/home/op/.tor/keys"));
    assert_eq!(config.doubles, DoublePolicy::Alert);
    assert!(config.compare_votes && config.test_circuits && !config.authority.approved_only);
    assert_eq!(config.authority.admission.tap_key, TapKey::Required);
    assert!(config.log.lines.is_empty() && config.metrics.listen.is_empty() && config.user.is_none());
}

#[test]
fn options_that_are_ours() {
    let config = config(
        "AuthDirDoubleVotes stop\nAuthDirCompareVotes 0\nAuthDirListApprovedOnly 1\nAuthDirTapKey Optional\n\
         AuthDirTestCircuits 0\nV3BandwidthsFile ~/bw\n",
    );
    assert_eq!(config.doubles, DoublePolicy::Stop);
    assert!(!config.compare_votes && !config.test_circuits && config.authority.approved_only);
    assert_eq!(config.authority.admission.tap_key, TapKey::Optional);
    assert_eq!(config.authority.bandwidths_file, Some(PathBuf::from("/home/op/bw")));
    for (line, words) in [
        ("AuthDirDoubleVotes maybe", "alert, exclude, stop"),
        ("AuthDirTapKey 1", "required, optional, refused"),
    ] {
        let [problem] = problems(&format!("{LEAST}{line}")).try_into().unwrap();
        assert!(problem.starts_with("standard input:7: ") && problem.contains(words), "{problem}");
    }
}

#[test]
fn an_authority_needs_its_roles_its_ports_and_its_address() {
    assert_eq!(
        problems("TestingTorNetwork 1\nAuthoritativeDirectory 1\nORPort 1\nAddress 127.0.0.1\n"),
        [
            "configuration: V3AuthoritativeDirectory: this program is nothing but an authority; \
             write V3AuthoritativeDirectory 1",
            "configuration: DirPort: an authority needs one; write DirPort and a port"
        ]
    );
    for (lines, option) in [
        ("ORPort 1\nDirPort 2\n", "Address"),
        ("Address 127.0.0.1\nDirPort 2\n", "ORPort"),
        ("Address 127.0.0.1\nORPort 1\nDirPort 2 NoAdvertise\n", "DirPort"),
    ] {
        let roles = "TestingTorNetwork 1\nAuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\n";
        let found = problems(&format!("{roles}{lines}"));
        assert!(found.len() == 1 && found[0].contains(&format!(": {option}")), "{found:?}");
    }
}

#[test]
fn a_port_with_an_address_gives_the_address() {
    let torrc = LEAST.replace("Address 192.0.2.1\n", "").replace("ORPort 9001", "ORPort 127.0.0.1:9001");
    let config = load(&format!("{torrc}ORPort [2001:db8::1]:9002\n"), "", false).config.unwrap();
    assert_eq!(config.address, Ipv4Addr::LOCALHOST);
    let v6 = Some(("2001:db8::1".parse().unwrap(), PortNumber::Fixed(9002)));
    assert_eq!(config.advertised_ipv6(), v6);
}

#[test]
fn what_is_not_supported_is_refused_or_named() {
    let torrc = format!("{LEAST}AuthDirBadExitCCs {{de}}\nBridgeAuthoritativeDir 0\nV3AuthUseLegacyKey 1\n");
    let found = problems(&torrc);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|problem| problem.contains("AuthDirBadExitCCs")), "{found:?}");
    let loaded = load(&torrc, "--BandwidthRate 1MB --ControlPort 9051", true);
    assert!(loaded.config.is_some());
    let warnings: Vec<_> = loaded.findings.warnings.iter().map(ToString::to_string).collect();
    for start in [
        "standard input:7: AuthDirBadExitCCs",
        "standard input:9: V3Auth",
        "BandwidthRate: B",
        "ControlPort: T",
    ] {
        assert!(warnings.iter().any(|warning| warning.starts_with(start)), "{start} in {warnings:?}");
    }
}

#[test]
fn a_reload_changes_only_what_can_change() {
    let old = config("MetricsPort 9035");
    let new = "ORPort 9002\nDirPort 9031\nDataDirectory /x\nNickname b\nAuthDirReject 192.0.2.0/24\n\
               AuthDirDoubleVotes stop\nV3AuthVotingInterval 2 hours\nAuthDirTestReachability 0\nMetricsPortPolicy accept 127.0.0.1\n";
    let loaded = load(&LEAST.replace("ORPort 9001\nDirPort 9030\n", new), "", false);
    let before = load(LEAST, "", false).settings;
    let restart =
        ["AuthDirTestReachability", "DataDirectory", "DirPort", "Nickname", "ORPort", "V3AuthVotingInterval"];
    assert_eq!(loaded.needs_restart(&before), restart);
    let config = old.reloaded(loaded.config.unwrap());
    assert_eq!((&config.or_ports, &config.dir_ports), (&old.or_ports, &old.dir_ports));
    assert_eq!(config.directories.data, old.directories.data);
    assert_eq!(config.metrics.listen, old.metrics.listen);
    assert!(config.metrics.policy.permits([127, 0, 0, 1].into(), 1));
    assert_eq!((config.nickname, config.doubles), (old.nickname, DoublePolicy::Stop));
    // What the tests of relays do not do, votes must not go by.
    assert!(config.authority.flags.test_reachability);
    assert_eq!(config.authority.timing, old.authority.timing);
    assert_ne!(config.authority.addresses, old.authority.addresses);
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
