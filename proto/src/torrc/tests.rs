use std::net::IpAddr;
use std::process::Command as Process;
use std::time::Duration;

use proptest::prelude::*;

use super::cmdline::{Argument, Flag};
use super::lines::Line;
use super::log::{Severity, Target};
use super::options::Lookup;
use super::port::{ClientKind, ClientPlace, ClientPort, PortNumber};
use super::value::Kind;
use super::*;

fn items(text: &str) -> Vec<Item> {
    let mut problems = Vec::new();
    let lines = lines::parse(text.as_bytes(), &"torrc".into(), &mut problems);
    assert_eq!(problems, []);
    let item = |line| match line {
        Line::Item(item) => item,
        Line::Include { .. } => panic!("{line:?}"),
    };
    lines.into_iter().map(item).collect()
}

fn pairs(text: &str) -> Vec<(String, String)> {
    items(text).into_iter().map(|item| (item.name, item.value)).collect()
}

fn only(name: &str, value: &str) -> Item {
    let origin = Origin::File { path: "torrc".into(), line: 1 };
    Item { origin, command: Command::Set, name: name.to_owned(), value: value.to_owned() }
}

/// Merges sources that must be free of problems.
fn settings(sources: &[&str]) -> Settings {
    let mut settings = Settings::default();
    for source in sources {
        let mut problems = Vec::new();
        settings.assign(items(source), &mut problems, &mut Vec::new());
        assert_eq!(problems, []);
    }
    settings
}

fn problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = lines::parse(text.as_bytes(), &"torrc".into(), &mut problems);
    let items = lines.into_iter().filter_map(|line| match line {
        Line::Item(item) => Some(item),
        Line::Include { .. } => None,
    });
    Settings::default().assign(items.collect(), &mut problems, &mut Vec::new());
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn lines_follow_c_tor() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(pairs("# only a comment\n\n  \t\n"), []);
    assert_eq!(pairs("Nickname  relay \t# mine"), [pair("Nickname", "relay")]);
    assert_eq!(pairs("ORPort 9001\r\nDirPort 9030\r\n"), [pair("ORPort", "9001"), pair("DirPort", "9030")]);
    assert_eq!(pairs("ClientOnly"), [pair("ClientOnly", "")]);
    assert_eq!(pairs("A#comment\nB \"\" # x"), [pair("A", ""), pair("B", "")]);
    // The example of C tor's torrc_format.txt: comments inside a continuation vanish.
    assert_eq!(pairs("Key a \\\n  # gone\n b\\\nc\nNext 1"), [pair("Key", "a    bc"), pair("Next", "1")]);
    assert_eq!(pairs("Key \\\n  value"), [pair("Key", "value")]);
    assert_eq!(pairs("Key \"a\\tb\\\"\\\\\\x41\\101\\0507#\" # c"), [pair("Key", "a\tb\"\\AA(7#")]);
    assert_eq!(pairs("Key a \"b\" c"), [pair("Key", "a \"b\" c")]);
}

#[test]
fn lines_know_commands_and_where_they_are() {
    let items = items("Nickname a\\\nb\n\n+SocksPort auto\n/Log\n");
    let lines: Vec<_> = items.iter().map(|item| (item.origin.to_string(), item.command)).collect();
    let expected = [
        ("torrc:1".to_owned(), Command::Set),
        ("torrc:4".to_owned(), Command::Append),
        ("torrc:5".to_owned(), Command::Clear),
    ];
    assert_eq!(lines, expected);
    let mut problems = Vec::new();
    let include = lines::parse(b"\n%include /etc/tor/*.d # more", &"torrc".into(), &mut problems);
    let origin = Origin::File { path: "torrc".into(), line: 2 };
    assert_eq!(include, [Line::Include { origin, pattern: "/etc/tor/*.d".to_owned() }]);
}

#[test]
fn bad_lines_are_all_reported_and_the_rest_is_read() {
    let mut problems = Vec::new();
    let text = b"A \"open\nB \"\\q\"\nC \"x\" y\nD \xff\nE \"\\777\"\nF ok # \xff\nG \"\\\nH ok\n";
    let lines = lines::parse(text, &"t".into(), &mut problems);
    let named: Vec<_> = problems.iter().map(|p| p.origin.to_string()).collect();
    assert_eq!(named, ["t:1", "t:2", "t:3", "t:4", "t:5", "t:7"]);
    assert_eq!(lines.len(), 2);
    let text = problems[2].to_string();
    assert!(
        text.starts_with("t:3: C: there is something behind the closing quote; close the quotes"),
        "{text}"
    );
}

#[test]
fn units() {
    for (text, bytes) in [
        ("0", 0),
        ("10 bytes", 10),
        ("1 KB", 1024),
        ("1kbyte", 1024),
        ("2 MBytes", 2 << 20),
        ("8 MBits", 1 << 20),
        ("1.5 GB", 3 << 29),
        ("1 gbit", 1 << 27),
        ("1 TBytes", 1 << 40),
    ] {
        assert_eq!(value::memory(text), Ok(bytes), "{text}");
    }
    for (text, seconds) in [("30", 30), ("1 hour", 3600), ("2 days", 172_800), ("1 month", 2_629_728)] {
        assert_eq!(value::interval(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    assert_eq!(value::msec_interval("1 second"), Ok(Duration::from_secs(1)));
    assert_eq!(value::msec_interval("10 msec"), Ok(Duration::from_millis(10)));
    for bad in ["", "GB", "-1", "1 GX", "1..5 GB", "9999999 TB", "18446744073709551616"] {
        assert!(value::memory(bad).is_err(), "{bad}");
    }
    assert!(value::interval("69 years").is_err());
    assert!(value::interval("100000 weeks").is_err());
}

#[test]
fn sources_merge_as_in_c_tor() {
    let defaults = "SocksPort 1\nSocksPort 2\nNickname one\nLog notice stdout";
    let values = |settings: &Settings, name: &str| {
        settings.lines(name).iter().map(|item| item.value.clone()).collect::<Vec<_>>()
    };
    // A plain line replaces the list of an earlier source and extends that of its own.
    let merged = settings(&[defaults, "SocksPort 3\nsocksport 4\nNickname two"]);
    assert_eq!(values(&merged, "SocksPort"), ["3", "4"]);
    assert_eq!(merged.text("Nickname"), Some("two"));
    assert_eq!(values(&merged, "Log"), ["notice stdout"]);
    // A plus extends it, a slash clears it.
    assert_eq!(values(&settings(&[defaults, "+SocksPort 3"]), "SocksPort"), ["1", "2", "3"]);
    assert_eq!(
        values(&settings(&[defaults, "+SocksPort 3\nSocksPort 4"]), "SocksPort"),
        ["1", "2", "3", "4"]
    );
    assert_eq!(values(&settings(&[defaults, "/SocksPort"]), "SocksPort"), [""; 0]);
    assert_eq!(settings(&[defaults, "/Nickname"]).text("Nickname"), None);
    // Both names of a port are one list.
    assert_eq!(values(&settings(&["ORPort 1\n__ORPort 2"]), "ORPort"), ["1", "2"]);
}

#[test]
fn testing_networks_have_other_defaults() {
    let plain = settings(&["ORPort 1"]);
    let testing = settings(&["TestingTorNetwork 1\nExitPolicyRejectPrivate 1"]);
    assert!(!plain.flag("ExtendAllowPrivateAddresses") && testing.flag("ExtendAllowPrivateAddresses"));
    assert!(plain.flag("EnforceDistinctSubnets") && !testing.flag("EnforceDistinctSubnets"));
    assert_eq!(testing.interval("V3AuthVotingInterval"), Duration::from_secs(300));
    // What the operator says stands.
    assert!(testing.flag("ExitPolicyRejectPrivate"));
}

#[test]
fn names() {
    let exact = |name| Lookup::Exact(options::find(name).unwrap());
    let alias = |name| Lookup::Alias(options::find(name).unwrap());
    assert_eq!(options::lookup("orport", false), exact("ORPort"));
    assert_eq!(options::lookup("DirServer", false), alias("DirAuthority"));
    assert_eq!(options::lookup("Nick", false), alias("Nickname"));
    assert_eq!(options::lookup("l", true), alias("Log"));
    assert_eq!(options::lookup("HashedControlPassword", false), exact("HashedControlPassword"));
    assert_eq!(options::lookup("TunnelDirConns", false), Lookup::Obsolete("TunnelDirConns"));
    for (wrong, right) in
        [("ORPrt", "ORPort"), ("ExitPolcy", "ExitPolicy"), ("Nickame", "Nickname"), ("Lgo", "Log")]
    {
        assert_eq!(options::lookup(wrong, false), Lookup::Unknown { nearest: Some(right) }, "{wrong}");
    }
    // Nothing is like these.
    for wrong in ["", "x", "ab", "Foo", "Speed", "WorkerThreads", &"x".repeat(1_000_000)] {
        assert_eq!(options::lookup(wrong, false), Lookup::Unknown { nearest: None }, "{wrong:.20}");
    }
    assert_eq!(
        problems("WorkerThreads 4"),
        [
            "torrc:1: WorkerThreads: no such option; options have the names of C tor's (man tor); remove the line"
        ]
    );
    assert_eq!(
        problems("ORPort 1\nExitPolcy reject *:*"),
        ["torrc:2: ExitPolcy: no such option; did you mean ExitPolicy?"]
    );
}

#[test]
fn values_are_checked() {
    assert_eq!(
        problems("AssumeReachable yes"),
        ["torrc:1: AssumeReachable \"yes\": neither 0 nor 1; write 0 or 1"]
    );
    assert_eq!(problems("MaxMemInQueues lots\nShutdownWaitLength 1 fortnight").len(), 2);
    assert_eq!(problems("IPv6Exit").len(), 1);
}

#[test]
fn the_table_is_complete_and_its_defaults_are_valid() {
    for option in options::all() {
        for default in [option.default, option.testing_default] {
            let unset = default.is_empty()
                && matches!(option.kind, Kind::Text | Kind::Path | Kind::Csv | Kind::Lines);
            assert!(unset || option.kind.normalize(default).is_ok(), "{option:?}");
        }
    }
    assert!(options::all().is_sorted_by_key(|option| option.name.to_ascii_lowercase()));
    let Ok(tor) = Process::new("tor").arg("--list-torrc-options").output() else {
        return eprintln!("no tor is installed: nothing to compare with");
    };
    let listed = String::from_utf8(tor.stdout).unwrap();
    let unknown: Vec<_> = listed.lines().filter(|name| options::find(name).is_none()).collect();
    assert_eq!(unknown, [""; 0], "options of the installed tor that the table lacks");
    let theirs = |name: &str| listed.lines().any(|line| line.eq_ignore_ascii_case(name));
    let taken: Vec<_> = options::all().iter().filter(|o| o.ours && theirs(o.name)).collect();
    assert_eq!(taken, [] as [&options::OptionInfo; 0], "options of ours that the installed tor has as well");
}

#[test]
fn options_of_ours_are_dumped_only_where_they_are_set() {
    let dump = |torrc: &str| settings(&[torrc]).dump(None);
    assert!(!dump("ORPort 1").contains("AuthDirTapKey") && dump("ORPort 1").contains("AuthDirPinKeys 1"));
    assert!(dump("AuthDirTapKey optional").contains("AuthDirTapKey optional\n"));
}

#[test]
fn command_lines() {
    let flags = [
        Flag { name: "--torrc-file", short: "-f", argument: Argument::Required },
        Flag { name: "--list-fingerprint", short: "", argument: Argument::Optional },
        Flag { name: "--quiet", short: "", argument: Argument::None },
    ];
    let parse = |words: &str| {
        let words: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
        let mut problems = Vec::new();
        (cmdline::parse(&words, &flags, &mut problems), problems)
    };
    let (line, problems) =
        parse("-f torrc --ORPort 9001 nickname me --+SocksPort 1 --/Log --list-fingerprint --quiet");
    assert_eq!(problems, []);
    assert_eq!(line.flag("--torrc-file"), Some("torrc"));
    assert_eq!(line.flag("--list-fingerprint"), Some(""));
    assert!(line.has("--quiet"));
    let seen: Vec<_> = line.items.iter().map(|i| (i.command, i.name.as_str(), i.value.as_str())).collect();
    let expected = [
        (Command::Set, "ORPort", "9001"),
        (Command::Set, "nickname", "me"),
        (Command::Append, "SocksPort", "1"),
        (Command::Clear, "Log", ""),
    ];
    assert_eq!(seen, expected);
    assert_eq!(parse("--list-fingerprint ed25519").0.flag("--list-fingerprint"), Some("ed25519"));
    assert_eq!(parse("--ORPort").1.len(), 1);
}

#[test]
fn or_ports() {
    let parse = |text: &str| {
        let mut problems = Vec::new();
        let ports = port::or_ports(&items(text), &mut problems);
        let ports: Vec<_> =
            ports.iter().map(|p| (p.address.to_string(), p.port, p.listen, p.advertise)).collect();
        (ports, problems.len())
    };
    let at = |address: &str, port| (address.to_owned(), PortNumber::Fixed(port), true, true);
    assert_eq!(parse("ORPort 9001"), (vec![at("0.0.0.0", 9001), at("::", 9001)], 0));
    assert_eq!(parse("ORPort 9001 IPv4Only"), (vec![at("0.0.0.0", 9001)], 0));
    assert_eq!(parse("ORPort 0"), (vec![], 0));
    assert_eq!(
        parse("ORPort 9001\nORPort [2001:db8::1]:9001"),
        (vec![at("0.0.0.0", 9001), at("2001:db8::1", 9001)], 0)
    );
    let (ports, _) = parse("ORPort 1.2.3.4:443 NoListen\nORPort 127.0.0.1:9001 noadvertise");
    assert_eq!(ports[0], ("1.2.3.4".to_owned(), PortNumber::Fixed(443), false, true));
    assert_eq!(ports[1], ("127.0.0.1".to_owned(), PortNumber::Fixed(9001), true, false));
    assert_eq!(parse("ORPort auto IPv6Only").0[0].1, PortNumber::Auto);
    assert_eq!(parse("ORPort 127.0.0.1:auto").0.len(), 1);
    for bad in [
        "ORPort 65536",
        "ORPort relay.example.com:9001",
        "ORPort 1.2.3.4",
        "ORPort ::1:9001",
        "ORPort unix:/x",
        "ORPort 9001 NoListen NoAdvertise",
        "ORPort 9001 IPv4Only IPv6Only",
        "ORPort 1.2.3.4:1 IPv6Only",
        "ORPort 9001 Fast",
        "ORPort 0\nORPort 9001",
    ] {
        assert_eq!(parse(bad).1, 1, "{bad}");
    }
}

#[test]
fn metrics_ports() {
    let mut problems = Vec::new();
    let text = "MetricsPort 9035\nMetricsPort 10.0.0.1:9035 prometheus";
    let ports = port::metrics_ports(&items(text), &mut problems);
    assert_eq!(ports, ["127.0.0.1:9035".parse().unwrap(), "10.0.0.1:9035".parse().unwrap()]);
    port::metrics_ports(&items("MetricsPort 9035 json"), &mut problems);
    assert_eq!(problems.len(), 1);
}

/// The ports that these lines make, with what is wrong and what there is to know.
fn client_ports(kind: ClientKind, text: &str) -> (Vec<ClientPort>, Vec<Problem>, Vec<Note>) {
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    let ports = port::client_ports(kind, &items(text), false, &mut problems, &mut notes);
    (ports, problems, notes)
}

#[test]
fn client_ports_and_their_places() {
    let place = |kind: ClientKind, line: &str| {
        let (ports, problems, _) = client_ports(kind, &format!("{} {line}", kind.option()));
        assert_eq!(problems, [], "{line}");
        ports.into_iter().map(|port| port.place).collect::<Vec<_>>()
    };
    let at = |address: &str| vec![ClientPlace::Address(address.parse().unwrap())];
    let file = |path: &str| vec![ClientPlace::File(path.to_owned())];
    assert_eq!(place(ClientKind::Socks, "9150"), at("127.0.0.1:9150"));
    assert_eq!(place(ClientKind::Socks, "auto"), at("127.0.0.1:0"));
    assert_eq!(place(ClientKind::Dns, "[::1]:auto"), at("[::1]:0"));
    assert_eq!(place(ClientKind::Transparent, "10.0.0.1:9040"), at("10.0.0.1:9040"));
    assert_eq!(place(ClientKind::Socks, "0"), []);
    assert_eq!(place(ClientKind::Socks, "unix:/run/socks GroupWritable"), file("/run/socks"));
    assert_eq!(place(ClientKind::Http, "unix:\"/run/my \\\"socks\" WorldWritable"), file("/run/my \"socks"));
    let (ports, _, _) = client_ports(ClientKind::Socks, "");
    assert_eq!(ports[0].place, at("127.0.0.1:9050")[0]);
    assert_eq!(client_ports(ClientKind::Http, "").0, []);
}

#[test]
fn flags_of_client_ports() {
    let one = |flags: &str| {
        let (mut ports, problems, _) = client_ports(ClientKind::Socks, &format!("SocksPort 9050 {flags}"));
        assert_eq!(problems, [], "{flags}");
        ports.remove(0)
    };
    let plain = one("");
    assert!(plain.isolate.client_addr && plain.isolate.socks_auth);
    assert!(!plain.isolate.client_protocol && !plain.isolate.dest_port && !plain.isolate.dest_addr);
    assert!(plain.ipv4 && plain.ipv6 && plain.dns_request && plain.onion && !plain.prefer_ipv6);
    assert!(!plain.extended_errors && !plain.prefer_no_auth && plain.session_group.is_none());

    let changed = |change: fn(&mut ClientPort)| {
        let mut port = plain.clone();
        change(&mut port);
        port
    };
    type Change = fn(&mut ClientPort);
    let cases: &[(&str, Change)] = &[
        ("NoIsolateClientAddr", |p| p.isolate.client_addr = false),
        ("noisolatesocksauth", |p| (p.isolate.socks_auth, p.prefer_no_auth) = (false, true)),
        ("IsolateClientProtocol", |p| p.isolate.client_protocol = true),
        ("IsolateDestPorts", |p| p.isolate.dest_port = true),
        ("IsolateDestAddr NoIsolateDestAddr", |_| ()),
        ("ISOLATEDESTADDR", |p| p.isolate.dest_addr = true),
        ("SessionGroup=7", |p| p.session_group = Some(7)),
        ("KeepAliveIsolateSOCKSAuth", |p| p.keep_alive = true),
        ("NoIPv4Traffic", |p| p.ipv4 = false),
        ("NoIPv6Traffic", |p| p.ipv6 = false),
        ("IPv6Traffic PreferIPv6", |p| p.prefer_ipv6 = true),
        ("NoDNSRequest", |p| p.dns_request = false),
        ("NoOnionTraffic", |p| p.onion = false),
        ("OnionTrafficOnly", |p| (p.ipv4, p.ipv6, p.dns_request) = (false, false, false)),
        ("ExtendedErrors", |p| p.extended_errors = true),
        ("PreferSOCKSNoAuth", |p| p.prefer_no_auth = true),
        ("NoPreferIPv6Automap", |_| ()),
    ];
    for (flags, change) in cases {
        assert_eq!(one(flags), changed(*change), "{flags}");
    }

    let (ports, problems, _) =
        client_ports(ClientKind::Socks, "SocksPort unix:/s GroupWritable WorldWritable RelaxDirModeCheck");
    assert_eq!(problems, []);
    assert!(ports[0].group_writable && ports[0].world_writable && ports[0].relax_dir_mode_check);
    assert!(!ports[0].isolate.client_addr, "applications have no address there");
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    let lines = items("SocksPort unix:/s\nSocksPort unix:/t NoGroupWritable\nSocksPort 1");
    let ports = port::client_ports(ClientKind::Socks, &lines, true, &mut problems, &mut notes);
    assert_eq!(ports.iter().map(|port| port.group_writable).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn client_ports_that_cannot_be() {
    for (kind, text, says) in [
        (ClientKind::Socks, "SocksPort 70000", "not a port"),
        (ClientKind::Socks, "SocksPort ::1:9050", "not a port"),
        (ClientKind::Socks, "SocksPort unix:run/socks", "full path"),
        (ClientKind::Socks, "SocksPort unix:\"/run/socks", "do not end"),
        (ClientKind::Dns, "DNSPort unix:/run/dns", "not possible"),
        (ClientKind::Transparent, "TransPort unix:/run/trans", "not possible"),
        (ClientKind::Socks, "SocksPort 9050 IsolateEverything", "unknown flag"),
        (ClientKind::Socks, "SocksPort 9050 NoOnionTrafficOnly", "unknown flag"),
        (ClientKind::Socks, "SocksPort 9050 SessionGroup=-1", "no number"),
        (ClientKind::Socks, "SocksPort 9050 SessionGroup=1 SessionGroup=2", "more than one"),
        (ClientKind::Socks, "SocksPort 9050 GroupWritable", "socket file"),
        (ClientKind::Socks, "SocksPort 9050 NoIPv4Traffic NoIPv6Traffic NoOnionTraffic", "all off"),
        (ClientKind::Socks, "SocksPort 9050 NoIPv4Traffic NoIPv6Traffic", "neither"),
        (ClientKind::Socks, "SocksPort 9050 NoIsolateSOCKSAuth KeepAliveIsolateSOCKSAuth", "beside"),
        (ClientKind::Dns, "DNSPort 53 NoDNSRequest", "may not look up"),
        (ClientKind::Socks, "SocksPort 0\nSocksPort 9050", "turns it off"),
        (ClientKind::Socks, "SocksPort 0 Nonsense", "unknown flag"),
    ] {
        let (_, problems, _) = client_ports(kind, text);
        let [problem] = &problems[..] else { panic!("{text}: {problems:?}") };
        assert!(problem.to_string().contains(says), "{text}: {problem}");
    }
}

#[test]
fn client_ports_that_others_can_reach_are_noted() {
    for (text, notes, says) in [
        ("SocksPort 127.0.0.2:9050", 0, ""),
        ("SocksPort [::1]:9050", 0, ""),
        ("SocksPort 192.168.1.1:9050", 1, "local network"),
        ("SocksPort 0.0.0.0:9050", 1, "open proxy"),
        ("SocksPort 198.51.100.7:9050", 1, "open proxy"),
        ("SocksPort [::]:9050", 1, "open proxy"),
        ("SocksPort 9050 CacheDNS NoUseIPv4Cache", 1, "no effect"),
    ] {
        let (ports, problems, found) = client_ports(ClientKind::Socks, text);
        assert_eq!((ports.len(), problems.len(), found.len()), (1, 0, notes), "{text}: {found:?}");
        assert!(found.iter().all(|note| note.text.contains(says)), "{text}: {found:?}");
    }
}

#[test]
fn authorities() {
    let text = "moria orport=9201 v3ident=f533c81cef0bc0267857c99b2f471adf249fa232 ipv6=[2001:db8::1]:443 no-v2 \
                upload=http://127.0.0.1:81/ 127.0.0.2:9231 1A25 C635 8DB9 1342 AA51 720A 5038 B727 4273 2498";
    let authority = authority::parse(&only("DirAuthority", text)).unwrap();
    assert_eq!(authority.nickname.unwrap().as_str(), "moria");
    assert_eq!(authority.or_port, Some(9201));
    assert_eq!(authority.v3_ident.unwrap().0[..2], [0xf5, 0x33]);
    assert_eq!(authority.dir, "127.0.0.2:9231".parse().unwrap());
    assert_eq!(authority.ipv6, Some("[2001:db8::1]:443".parse().unwrap()));
    assert_eq!(authority.upload, ["127.0.0.1:81".parse().unwrap()]);
    assert_eq!(authority.rsa_id.0[..3], [0x1a, 0x25, 0xc6]);
    for bad in [
        "",
        "moria",
        "moria 127.0.0.1:1",
        "m orport=0 127.0.0.1:1 1A",
        "m fast 127.0.0.1:1 1A",
        "m 127.0.0.1 1A",
    ] {
        assert!(authority::parse(&only("DirAuthority", bad)).is_err(), "{bad}");
    }
}

#[test]
fn fallbacks() {
    let text = "127.0.0.2:9231 orport=9201 id=1A25C6358DB91342AA51720A5038B72742732498 IPv6=[2001:db8::1]:443 \
                weight=2.5 nickname=moria extrainfo=0";
    let fallback = fallback::parse(&only("FallbackDir", text)).unwrap();
    assert_eq!(fallback.or, "127.0.0.2:9201".parse().unwrap());
    assert_eq!(fallback.ipv6, Some("[2001:db8::1]:443".parse().unwrap()));
    assert_eq!((fallback.rsa_id.0[..3].to_vec(), fallback.weight), (vec![0x1a, 0x25, 0xc6], 2.5));
    let id = "id=1A25C6358DB91342AA51720A5038B72742732498";
    let short = fallback::parse(&only("FallbackDir", &format!("127.0.0.2 {id} orport=1"))).unwrap();
    assert_eq!((short.or, short.weight), ("127.0.0.2:1".parse().unwrap(), 1.0));
    let zero = format!("id={}", "0".repeat(40));
    for (bad, why) in [
        (String::new(), "the address is missing"),
        (format!("127.0.0.1:1 {id}"), "orport= is missing"),
        ("127.0.0.1:1 orport=2".to_owned(), "id= is missing"),
        (format!("127.0.0.1:1 orport=2 {zero}"), "id= is missing"),
        (format!("127.0.0.1:1 127.0.0.1:2 orport=2 {id}"), "more than one address"),
        (format!("host:1 orport=2 {id}"), "bad word host:1"),
        (format!("127.0.0.1:1 orport=0 {id}"), "bad word orport=0"),
        (format!("127.0.0.1:1 orport=2 {id} weight=-1"), "bad word weight=-1"),
        (format!("127.0.0.1:1 orport=2 {id} ipv6=127.0.0.1:1"), "bad word ipv6=127.0.0.1:1"),
        ("127.0.0.1:1 orport=2 id=1A".to_owned(), "bad word id=1A"),
    ] {
        let problem = fallback::parse(&only("FallbackDir", &bad)).unwrap_err();
        assert!(problem.to_string().contains(why), "{bad}: {problem}");
    }
}

#[test]
fn families() {
    let mut problems = Vec::new();
    let fp = "1a25c6358db91342aa51720a5038b72742732498";
    let lines = [only("MyFamily", &format!("${fp}, friend ,{fp}=nick,${fp}~nick"))];
    let family = family::parse(&lines, &mut problems);
    let printed: Vec<_> = family.iter().map(ToString::to_string).collect();
    assert_eq!(printed, [format!("${}", fp.to_uppercase()), "friend".to_owned()]);
    assert_eq!(problems, []);
    family::parse(&[only("MyFamily", "$12, a-b")], &mut problems);
    assert_eq!(problems.len(), 2);
}

#[test]
fn log_lines() {
    let parse = |text: &str| log::parse(&only("Log", text));
    let line = parse("notice file /var/log/tor/notices log").unwrap();
    assert_eq!(line.target, Target::File("/var/log/tor/notices log".to_owned()));
    assert!(line.accepts(Severity::Err, "net") && !line.accepts(Severity::Info, "net"));
    assert_eq!(parse("debug").unwrap().target, Target::Stdout);
    let range = parse("info-notice syslog").unwrap();
    assert!(range.accepts(Severity::Info, "OR") && !range.accepts(Severity::Warn, "OR"));
    let mixed = parse("[handshake]debug [~net,~mm]info notice stdout").unwrap();
    assert!(mixed.accepts(Severity::Debug, "HANDSHAKE") && !mixed.accepts(Severity::Debug, "OR"));
    assert!(mixed.accepts(Severity::Info, "OR") && !mixed.accepts(Severity::Info, "NET"));
    assert!(mixed.accepts(Severity::Notice, "NET"));
    assert_eq!(mixed.lowest(), Severity::Debug);
    assert_eq!(log::LogLine::down_to(Severity::Notice, Target::Stdout).lowest(), Severity::Notice);
    for bad in
        ["", "loud stdout", "notice nowhere", "notice info stdout", "[sea]info", "[net info", "notice file"]
    {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn addresses() {
    assert_eq!(value::address("[2001:db8::1]").unwrap(), "2001:db8::1".parse::<IpAddr>().unwrap());
    assert!(value::address("example.com").is_err());
    assert!(value::address_port("1.2.3.4:0").is_err());
}

#[test]
fn a_dump_reads_back_as_the_same_settings() {
    let text = "ContactInfo \"a # b \\xc3\\xa9\"\nORPort 9001\nORPort [::1]:9002 NoAdvertise\nShutdownWaitLength 1 minute\n";
    let first = settings(&[text]);
    let dump = first.dump(Some(&Settings::default()));
    assert_eq!(
        dump,
        "ContactInfo \"a # b \\xc3\\xa9\"\nORPort 9001\nORPort [::1]:9002 NoAdvertise\nShutdownWaitLength 60\n"
    );
    assert_eq!(settings(&[&dump]).dump(None), first.dump(None));
    assert!(first.dump(None).contains("\nDirCache 1\n"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut problems = Vec::new();
        for line in lines::parse(&text, &"t".into(), &mut problems) {
            if let Line::Item(item) = line {
                let _ = (log::parse(&item), authority::parse(&item));
                port::or_ports(std::slice::from_ref(&item), &mut problems);
                port::metrics_ports(std::slice::from_ref(&item), &mut problems);
                for kind in ClientKind::ALL {
                    port::client_ports(kind, std::slice::from_ref(&item), true, &mut problems, &mut Vec::new());
                }
                family::parse(&[item], &mut problems);
            }
        }
    }

    #[test]
    fn torrc_shaped_text_is_read_without_panic(text in "([+/]?(Log|ORPort|MyFamily|x)?[ \"\\\\#\n0-9:\\[\\]a-z.~,-]{0,20}\n?){0,8}") {
        let mut problems = Vec::new();
        let lines = lines::parse(text.as_bytes(), &"t".into(), &mut problems);
        let items = lines.into_iter().filter_map(|line| match line {
            Line::Item(item) => Some(item),
            Line::Include { .. } => None,
        });
        let mut settings = Settings::default();
        settings.assign(items.collect(), &mut problems, &mut Vec::new());
        log::parse(&only("Log", &text)).ok();
        authority::parse(&only("DirAuthority", &text)).ok();
        fallback::parse(&only("FallbackDir", &text)).ok();
        port::or_ports(settings.lines("ORPort"), &mut problems);
        port::client_ports(ClientKind::Socks, &[only("SocksPort", &text)], true, &mut problems, &mut Vec::new());
        family::parse(settings.lines("MyFamily"), &mut problems);
        settings.dump(None);
    }

    #[test]
    fn any_value_survives_a_dump(value in "\\PC{0,30}") {
        let mut problems = Vec::new();
        let mut before = Settings::default();
        let value = value.trim().to_owned();
        prop_assume!(!value.is_empty());
        before.assign(vec![only("ContactInfo", &value)], &mut problems, &mut Vec::new());
        let after = settings(&[&before.dump(Some(&Settings::default()))]);
        prop_assert_eq!(after.text("ContactInfo"), Some(value.as_str()));
    }

    #[test]
    fn values_of_any_kind_are_judged_without_panic(value in "\\PC{0,12}", number in "[0-9.]{0,30} ?[a-z]{0,8}") {
        use Kind::*;
        for kind in [Bool, AutoBool, Int, PosInt, Uint, Double, Interval, MsecInterval, CsvInterval, Memory, Csv] {
            for value in [&value, &number] {
                if let Ok(normal) = kind.normalize(value) {
                    prop_assert_eq!(kind.normalize(&normal), Ok(normal.clone()));
                }
            }
        }
    }
}
