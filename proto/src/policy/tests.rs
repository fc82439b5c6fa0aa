use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn torrc(values: &[&str]) -> ExitPolicy {
    ExitPolicy::from_torrc(values.iter().copied()).unwrap().0
}

/// The policy of an IPv6 exit that leaves private networks alone, as in C tor's testing networks.
fn exit(values: &[&str]) -> ExitPolicy {
    let options = ExitPolicyOptions { exit_policy: values, ipv6_exit: true, ..Default::default() };
    options.build().unwrap().0
}

fn summary(policy: &ExitPolicy, family: Family) -> String {
    policy.summary(family).to_string()
}

const DEFAULT_SUMMARY: &str = "reject 25,119,135-139,445,563,1214,4661-4666,6346-6429,6699,6881-6999";

#[test]
fn the_four_kinds_of_exit() {
    let open = ExitPolicy::open();
    assert!(open.permits(ip("127.0.0.1"), 25) && open.permits(ip("2001:db8::1"), 25));
    assert!(!open.rejects_all(Family::V4) && !open.rejects_all(Family::V6));
    assert_eq!(summary(&open, Family::V4), "accept 1-65535");

    let middleman = ExitPolicy::middleman();
    assert!(!middleman.permits(ip("192.0.2.1"), 80) && !middleman.permits(ip("2001:db8::1"), 80));
    assert!(middleman.rejects_all(Family::V4) && middleman.rejects_all(Family::V6));
    assert_eq!(middleman.descriptor_lines(), ["reject *:*"]);
    assert_eq!(summary(&middleman, Family::V4), "reject 1-65535");

    let private = ExitPolicy::private_exit(&[Network::new(ip("10.1.0.0"), 16).unwrap()]);
    assert!(private.permits(ip("10.1.2.3"), 25));
    assert!(!private.permits(ip("10.2.0.0"), 80) && !private.permits(ip("2001:db8::1"), 80));
    assert_eq!(private.descriptor_lines(), ["accept 10.1.0.0/16:*", "reject *:*"]);

    let restricted = ExitPolicy::restricted();
    assert!(restricted.permits(ip("192.0.2.1"), 80) && restricted.permits(ip("2001:db8::1"), 443));
    assert!(!restricted.permits(ip("192.0.2.1"), 25), "mail is refused");
    assert!(!restricted.permits(ip("127.0.0.1"), 80) && !restricted.permits(ip("fc00::1"), 80));
    assert!(!restricted.permits(ip("::ffff:127.0.0.1"), 80), "IPv4 in IPv6 clothes");
    assert_eq!(summary(&restricted, Family::V4), DEFAULT_SUMMARY);
    assert_eq!(summary(&restricted, Family::V6), DEFAULT_SUMMARY);
}

#[test]
fn exit_relay_auto_needs_another_option() {
    let build = |options: ExitPolicyOptions<'_>| options.build().unwrap().0;
    let lines = ["accept *:80"];
    let none = ExitPolicyOptions::default();
    assert_eq!(build(none), ExitPolicy::middleman());
    assert!(!build(ExitPolicyOptions { exit_relay: Some(true), ..none }).rejects_all(Family::V4));
    assert!(!build(ExitPolicyOptions { exit_policy: &lines, ..none }).rejects_all(Family::V4));
    assert!(!build(ExitPolicyOptions { reduced: true, ..none }).rejects_all(Family::V4));
    assert!(!build(ExitPolicyOptions { ipv6_exit: true, ..none }).rejects_all(Family::V6));
    assert!(build(ExitPolicyOptions { exit_relay: Some(true), ..none }).rejects_all(Family::V6));
    let no = ExitPolicyOptions { exit_relay: Some(false), exit_policy: &lines, reduced: true, ..none };
    assert_eq!(build(no), ExitPolicy::middleman());
}

/// What a stock C tor 0.4.9.11 publishes for these torrc lines.
#[test]
fn published_policies_equal_those_of_c_tor() {
    let mixed = exit(&[
        "reject 18.0.0.0/8:80,reject 20.0.0.0/7:443,reject 22.0.0.0/7:443,accept *:80-443",
        "accept6 [2001:db8::]/32:*,reject *4:22,accept *6:22,reject *:*",
    ]);
    assert_eq!(
        mixed.descriptor_lines(),
        [
            "reject 18.0.0.0/8:80",
            "reject 20.0.0.0/7:443",
            "reject 22.0.0.0/7:443",
            "accept *:80-443",
            "reject *:*"
        ]
    );
    assert_eq!(summary(&mixed, Family::V6), "accept 22,80-443");

    let masks = ExitPolicyOptions {
        exit_policy: &[
            "accept 1.2.3.4/255.255.0.0:80,accept 9.9.9.9,reject 9.9.9.0/24,accept private:25,reject *:1-65535",
        ],
        ..Default::default()
    };
    assert_eq!(
        masks.build().unwrap().0.descriptor_lines(),
        [
            "accept 1.2.3.4/16:80",
            "accept 9.9.9.9:*",
            "accept 0.0.0.0/8:25",
            "accept 169.254.0.0/16:25",
            "accept 127.0.0.0/8:25",
            "accept 192.168.0.0/16:25",
            "accept 10.0.0.0/8:25",
            "accept 172.16.0.0/12:25",
            "reject *:*"
        ]
    );

    let redundant = exit(&[
        "accept 1.2.3.0/24:80,accept 1.2.0.0/16:80,reject 1.2.3.4:80,accept 5.0.0.0/8:*,reject 5.5.5.5:*,\
         reject 6.6.6.6:22,accept 7.0.0.0/8:22,reject 6.0.0.0/8:*,reject *:*,accept *:99",
    ]);
    assert_eq!(
        redundant.descriptor_lines(),
        ["accept 1.2.0.0/16:80", "accept 5.0.0.0/8:*", "accept 7.0.0.0/8:22", "reject *:*"]
    );
    assert!(redundant.rejects_all(Family::V6) && redundant.summary(Family::V6).rejects_all());

    let covered = ExitPolicyOptions {
        exit_policy: &["accept *:80"],
        ipv6_exit: true,
        reject_private: true,
        ..Default::default()
    };
    let covered = covered.build().unwrap().0;
    assert_eq!(
        covered.descriptor_lines(),
        [
            "reject 0.0.0.0/8:*",
            "reject 169.254.0.0/16:*",
            "reject 127.0.0.0/8:*",
            "reject 192.168.0.0/16:*",
            "reject 10.0.0.0/8:*",
            "reject 172.16.0.0/12:*",
            "reject *:25",
            "reject *:119",
            "reject *:135-139",
            "reject *:445",
            "reject *:563",
            "reject *:1214",
            "reject *:4661-4666",
            "reject *:6346-6429",
            "reject *:6699",
            "reject *:6881-6999",
            "accept *:*"
        ]
    );
    assert_eq!(summary(&covered, Family::V6), DEFAULT_SUMMARY);
}

/// What a stock C tor 0.4.9.11 publishes as ipv6-policy.
#[test]
fn summaries_count_rejected_addresses_as_c_tor_does() {
    let policy = exit(&[
        "reject6 [2001::]/16:80,reject6 [2001::]/15:81,reject6 [2002::]/16:82,reject6 [2003::]/17:82,\
         reject6 [2003:8000::]/17:82,reject6 [2000::]/17:83,reject6 [2004::]/100:84,accept6 *:80-90,\
         accept [2001:db8::1]:99,reject *:*",
    ]);
    assert_eq!(summary(&policy, Family::V6), "accept 80,83-90");

    let ports = |last| (1001..=last).step_by(2).map(|p| p.to_string()).collect::<Vec<_>>();
    let entries: String = ports(1599).iter().map(|port| format!("accept *:{port},")).collect();
    let long = exit(&[&entries, "reject *:*"]);
    assert_eq!(summary(&long, Family::V6), format!("accept {}", ports(1395).join(",")));
    assert!(summary(&long, Family::V4).len() <= 1000);
}

#[test]
fn ipv4_summary_cutoff_is_two_slash_8s() {
    let v4 = |rules: &str| summary(&torrc(&[rules]), Family::V4);
    assert_eq!(v4("reject 18.0.0.0/7:80,accept *:80,reject *:*"), "accept 80");
    assert_eq!(v4("reject 18.0.0.0/7:80,reject 20.0.0.1:80,accept *:80,reject *:*"), "reject 1-65535");
    assert_eq!(v4("reject 10.0.0.0/8:80,reject 18.0.0.0/7:80,accept *:80,reject *:*"), "accept 80");
    assert_eq!(v4("accept 18.0.0.0/7:80,reject *:*"), "reject 1-65535", "only whole accepts count");
    assert_eq!(v4("accept *:1-65534,reject *:*"), "reject 65535", "the shorter form");
    assert_eq!(v4(""), "reject 1-65535", "nothing is accepted for all addresses by a rule");
}

#[test]
fn reduced_policy() {
    let options = ExitPolicyOptions { reduced: true, ipv6_exit: true, ..Default::default() };
    let policy = options.build().unwrap().0;
    for port in [22, 80, 443, 6667, 18081, 64738] {
        assert!(policy.permits(ip("192.0.2.1"), port) && policy.permits(ip("2001:db8::1"), port), "{port}");
    }
    for port in [24, 25, 1024, 6881, 65535] {
        assert!(!policy.permits(ip("192.0.2.1"), port), "{port}");
    }
    assert!(policy.is_web_exit(false));
}

#[test]
fn own_public_addresses_are_rejected_with_the_private_ones() {
    let own = [ip("203.0.113.9"), ip("10.0.0.9"), ip("2001:db8::9")];
    let options = ExitPolicyOptions {
        exit_relay: Some(true),
        ipv6_exit: true,
        reject_private: true,
        own_addresses: &own,
        ..Default::default()
    };
    let policy = options.build().unwrap().0;
    assert!(own.iter().all(|&own| !policy.permits(own, 80)));
    assert!(policy.permits(ip("203.0.113.10"), 80));
    let lines = policy.descriptor_lines();
    assert!(lines.contains(&"reject 203.0.113.9:*".to_owned()));
    assert!(!lines.iter().any(|line| line.contains("10.0.0.9") || line.contains("2001")));
    let lenient = ExitPolicyOptions { reject_private: false, ..options }.build().unwrap().0;
    assert!(lenient.permits(own[0], 80) && lenient.permits(ip("127.0.0.1"), 80));
}

#[test]
fn torrc_errors_name_the_entry() {
    for (entry, error) in [
        ("allow *:80", PolicyError::Keyword as fn(String) -> PolicyError),
        ("Accept *:80", PolicyError::Keyword),
        ("accept", PolicyError::Pattern),
        ("accept *: 80", PolicyError::Pattern),
        ("accept 1.2.3:80", PolicyError::Address),
        ("accept ::1:80", PolicyError::Address),
        ("accept [1.2.3.4]:80", PolicyError::Address),
        ("accept example.com:80", PolicyError::Address),
        ("accept 1.2.3.4/33:80", PolicyError::Mask),
        ("accept 1.2.3.4/255.0.255.0:80", PolicyError::Mask),
        ("accept [::1]/129", PolicyError::Mask),
        ("accept [::1]/255.0.0.0", PolicyError::Mask),
        ("accept */8", PolicyError::Mask),
        ("accept 1.2.3.4/", PolicyError::Mask),
        ("accept *:0", PolicyError::Ports),
        ("accept *:90-80", PolicyError::Ports),
        ("accept *:65536", PolicyError::Ports),
        ("accept *:+80", PolicyError::Ports),
        ("accept *:80-", PolicyError::Ports),
    ] {
        let found = ExitPolicy::from_torrc(["reject *:25", entry]);
        assert_eq!(found, Err(error(entry.to_owned())), "{entry}");
    }
}

#[test]
fn torrc_warnings() {
    let warnings = |value| ExitPolicy::from_torrc([value]).unwrap().1;
    assert_eq!(warnings("reject *:25, ,accept *:*,"), []);
    let entry = |entry: &str| entry.to_owned();
    assert_eq!(
        warnings("accept6 1.2.3.4:80,accept6 *4:80"),
        [PolicyWarning::NotIpv6(entry("accept6 1.2.3.4:80")), PolicyWarning::NotIpv6(entry("accept6 *4:80"))]
    );
    assert_eq!(warnings("reject6 private:*"), [PolicyWarning::PrivateIsBoth(entry("reject6 private:*"))]);
    assert_eq!(
        warnings("reject *:25,accept *:*,reject *:80,reject *:81"),
        [PolicyWarning::Unreachable(entry("reject *:80"))]
    );
    assert_eq!(warnings("accept *4:*,reject *6:*"), []);
}

#[test]
fn stars_and_families() {
    assert_eq!(torrc(&["accept *:80"]).rules().len(), 2);
    for (entry, v4, v6) in [
        ("reject *4:*", false, true),
        ("reject *6:*", true, false),
        ("reject6 *:*", true, false),
        ("reject *:*", false, false),
    ] {
        let policy = torrc(&[entry]);
        assert_eq!((policy.permits(ip("1.2.3.4"), 1), policy.permits(ip("::1:2"), 1)), (v4, v6), "{entry}");
    }
}

#[test]
fn a_name_may_be_permitted_until_everything_is_rejected() {
    let policy = torrc(&["accept 18.0.0.0/8:25,reject *:25,reject 18.0.0.0/8:80,reject *6:80-90"]);
    assert!(policy.might_permit(Family::V4, 25), "18/8 is accepted");
    assert!(!policy.might_permit(Family::V6, 25));
    assert!(policy.might_permit(Family::V4, 80), "most are accepted");
    assert!(!policy.might_permit(Family::V6, 85) && policy.might_permit(Family::V6, 91));
}

#[test]
fn descriptor_rules() {
    let parse = |lines: &[&'static str]| ExitPolicy::from_descriptor(lines.iter().copied());
    let policy = parse(&["reject 192.0.2.0/24:80-90", "reject 198.51.100.7:*", "accept *:*"]).unwrap();
    assert_eq!(
        policy.descriptor_lines(),
        ["reject 192.0.2.0/24:80-90", "reject 198.51.100.7:*", "accept *:*"]
    );
    assert_eq!(policy.rules().len(), 3, "a star is IPv4 alone");
    assert!(parse(&["reject private:*", "accept 1.2.3.4/255.255.0.0:80"]).is_ok());
    for bad in [
        "accept6 *:80",
        "reject6 [::1]:80",
        "accept [2001:db8::1]:80",
        "accept *4:80",
        "accept *6:80",
        "reject *:0",
    ] {
        assert!(parse(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn web_exit_needs_a_slash_8_on_both_ports() {
    let web = |rules: &str| ExitPolicy::from_descriptor(rules.split(',')).unwrap().is_web_exit(false);
    assert!(web("accept *:80,accept *:443,reject *:*"));
    assert!(web("accept 18.0.0.0/8:80,accept 20.0.0.0/8:443,reject *:*"));
    assert!(!web("accept *:80,reject *:*"));
    assert!(!web("accept 18.0.0.0/9:*,accept 18.128.0.0/9:*,reject *:*"), "two halves do not add up");
    assert!(!web("reject 18.1.2.3:443,accept 18.0.0.0/8:*,reject *:*"), "one rejected address spoils it");
    assert!(!web("accept 10.0.0.0/8:*,reject *:*"), "internal networks do not count");
    let internal = ExitPolicy::from_descriptor(["accept 127.0.0.0/8:*", "reject *:*"]).unwrap();
    assert!(internal.is_web_exit(true) && !internal.is_web_exit(false));
}

#[test]
fn internal_addresses() {
    for internal in [
        "0.1.2.3",
        "10.0.0.1",
        "127.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.0.1",
        "172.31.0.1",
        "192.168.1.1",
        "::",
        "::1",
        "fc00::1",
        "fdff::1",
        "fe80::1",
        "fec0::1",
        "::ffff:10.0.0.1",
    ] {
        assert!(is_internal(ip(internal)), "{internal}");
    }
    for public in [
        "100.128.0.1",
        "172.32.0.1",
        "192.0.2.1",
        "8.8.8.8",
        "2001:db8::1",
        "::2",
        "fe00::1",
        "::ffff:8.8.8.8",
    ] {
        assert!(!is_internal(ip(public)), "{public}");
    }
}

#[test]
fn port_summaries() {
    let web = PortSummary::parse("accept 80,443,8000-9000").unwrap();
    assert!(web.permits(80) && web.permits(8500) && !web.permits(81));
    assert!(!PortSummary::parse("reject 25").unwrap().permits(25));
    assert!(PortSummary::parse("reject 25").unwrap().permits(80));
    assert!(PortSummary::parse("reject 1-65535").unwrap().rejects_all());
    assert_eq!(PortSummary::parse("accept x1,80").unwrap().to_string(), "accept 80", "the future's entries");
    for bad in
        ["", "accept", "accept ", "permit 80", "accept 0", "accept 80-70", "accept 80x", "accept 65536"]
    {
        assert!(PortSummary::parse(bad).is_err(), "{bad}");
    }
    let long = format!("accept {}", ["80"; 1001].join(","));
    assert_eq!(PortSummary::parse(&long), Err(PortSummaryError::TooLong(1001)));
}

fn any_network() -> impl Strategy<Value = Network> {
    prop_oneof![
        (any::<[u8; 4]>(), 0u8..=32).prop_map(|(ip, len)| Network::new(ip.into(), len).unwrap()),
        (any::<[u8; 16]>(), 0u8..=128).prop_map(|(ip, len)| Network::new(ip.into(), len).unwrap()),
        (0usize..12).prop_map(|n| Network::PRIVATE[n]),
        Just(Network::ALL_V4),
        Just(Network::ALL_V6),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let ports = (1u16.., 1u16..).prop_map(|(a, b)| Ports::new(a.min(b), a.max(b)).unwrap());
    let ports = prop_oneof![ports, Just(Ports::ALL), (1u16..20).prop_map(|p| Ports::new(p, p + 3).unwrap())];
    let action = prop_oneof![Just(Action::Accept), Just(Action::Reject)];
    (action, any_network(), ports).prop_map(|(action, network, ports)| Rule { action, network, ports })
}

proptest! {
    #[test]
    fn policies_are_read_back_as_written(rules in prop::collection::vec(any_rule(), 0..20)) {
        let policy = ExitPolicy::from_rules(rules);
        let again = torrc(&[&policy.to_string()]);
        for (a, b) in policy.rules().iter().zip(again.rules()) {
            prop_assert!(a.covers(b) && b.covers(a) && a.action == b.action);
        }
        prop_assert_eq!(policy.rules().len(), again.rules().len());
        let lines = policy.descriptor_lines();
        prop_assert_eq!(
            ExitPolicy::from_descriptor(lines.iter().map(String::as_str)).unwrap().descriptor_lines(),
            lines
        );
    }

    /// Leaving redundant rules out changes no decision, and no summary's parse.
    #[test]
    fn removing_redundant_rules_changes_nothing(
        rules in prop::collection::vec(any_rule(), 0..30),
        probes in prop::collection::vec((any::<u8>(), any_network(), 1u16..30), 50),
    ) {
        let policy = ExitPolicy::from_rules(rules.clone());
        let mut reduced = policy.clone();
        reduced.remove_redundant();
        prop_assert!(reduced.rules().len() <= policy.rules().len());
        let near = |pick: u8, other: Network| {
            let network = rules.get(usize::from(pick)).map_or(other, |rule| rule.network);
            network.to_string().split(['/', '[', ']']).find_map(|part| part.parse::<IpAddr>().ok())
        };
        for (pick, network, port) in probes {
            if let Some(ip) = near(pick % 40, network) {
                prop_assert_eq!(policy.permits(ip, port), reduced.permits(ip, port), "{} {}", ip, port);
            }
        }
        for family in Family::BOTH {
            if policy.rejects_all(family) {
                prop_assert!(reduced.rejects_all(family) && !policy.might_permit(family, 80));
            }
        }
    }

    #[test]
    fn summaries_are_bounded_and_readable(rules in prop::collection::vec(any_rule(), 0..200)) {
        let policy = ExitPolicy::from_rules(rules);
        for family in Family::BOTH {
            let text = summary(&policy, family);
            prop_assert!(text.len() <= 1000);
            prop_assert_eq!(PortSummary::parse(&text).unwrap(), policy.summary(family));
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(accept|reject|accept6|)[ ]?[*0-9a-f:./\\[\\]-]{0,30}|\\PC{0,60}") {
        let _ = ExitPolicy::from_torrc([text.as_str()]);
        let _ = ExitPolicy::from_descriptor([text.as_str()]);
        let _ = PortSummary::parse(&text);
    }
}
