use std::path::{Path, PathBuf};

use onionring_proto::torrc::cmdline;

use super::*;
use crate::config::{Environment, Sources, Torrc};

fn config(torrc: &str) -> Config {
    let sources = Sources {
        defaults: None,
        torrc: Torrc::Text(torrc.as_bytes().to_vec()),
        command_line: cmdline::parse(&[], &[], &mut Vec::new()).items,
        allow_unsupported: false,
    };
    let loaded = sources.load(&Environment { home: Some(PathBuf::from("/home/op")), memory: None });
    assert_eq!(loaded.findings.problems, []);
    loaded.config.unwrap()
}

#[test]
fn what_is_published_is_what_is_served() {
    let bound = Bound {
        or: vec!["0.0.0.0:4001".parse().unwrap(), "[2001:db8::1]:6001".parse().unwrap()],
        dir: vec!["0.0.0.0:4030".parse().unwrap()],
    };
    let old = config("ORPort auto IPv4Only\nORPort [2001:db8::1]:auto\nDirPort auto");
    let address = Some([192, 0, 2, 1].into());
    let ports = |publicity: Publicity| {
        (publicity.ipv4.map(|(_, port)| port), publicity.ipv6.map(|(_, port)| port), publicity.dir_port)
    };
    assert_eq!(ports(publicity(&old, &bound, address)), (Some(4001), Some(6001), 4030));
    // None of this is served before a restart.
    let new = config("ORPort 5001\nORPort [2001:db8::1]:auto\nDirPort 5030\nDirCache 1\nAddress 192.0.2.7");
    assert_eq!(ports(publicity(&old.reloaded(new), &bound, address)), (Some(4001), Some(6001), 4030));
    let without = config("ORPort 9001 IPv4Only");
    let new = config("ORPort 9001\nORPort [2001:db8::1]:auto\nDirPort 9030\nAddress [2001:db8::1]");
    let publicity = publicity(&without.reloaded(new), &Bound::default(), address);
    assert_eq!(ports(publicity), (Some(9001), None, 0));
}

#[test]
fn only_an_exit_with_the_option_lets_streams_end_by_halves() {
    let granted = |lines: &str| {
        publicity(&config(&format!("ORPort 9001\n{lines}")), &Bound::default(), Some([192, 0, 2, 1].into()))
            .half_close
    };
    assert!(granted("ExitRelay 1\nHalfClosedStreams 1"));
    assert!(!granted("ExitRelay 1") && !granted("HalfClosedStreams 1"));
    assert!(!granted("ExitRelay 1\nExitPolicy reject *:*\nHalfClosedStreams 1"));
}

#[test]
fn an_address_that_is_not_configured_is_found_or_asked_for() {
    let authority = "DirAuthority a orport=1 v3ident=0000000000000000000000000000000000000001 127.0.0.1:1 \
                     0000000000000000000000000000000000000002\n";
    let seen = Some([192, 0, 2, 9].into());
    let public = Some([1, 2, 3, 4].into());
    let configured = config(&format!("{authority}ORPort 9001\nAddress 203.0.113.7"));
    assert_eq!(ipv4(&configured, public), Some([203, 0, 113, 7].into()));
    // The way to this authority is the loopback interface, which is no public address.
    let unknown = config(&format!("{authority}ORPort 9001"));
    assert_eq!(ipv4(&unknown, None), None);
    assert_eq!(ipv4(&unknown, public), public);
    assert_eq!(ipv4(&unknown, Some([10, 0, 0, 1].into())), None);
    let testing = config(&format!("{authority}ORPort 9001\nTestingTorNetwork 1"));
    assert_eq!(ipv4(&testing, seen), Some(Ipv4Addr::LOCALHOST));
}

fn exits(torrc: &str, file: &Path) -> Result<ExitSettings, ResolvConfError> {
    let config = config(&format!("ORPort 9001\nServerDNSResolvConfFile {}\n{torrc}", file.display()));
    exit_settings(&config, &publicity(&config, &Bound::default(), Some([192, 0, 2, 1].into())))
}

#[test]
fn broken_resolvers_stop_an_exit_only_if_the_operator_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (missing, bad) = (directory.path().join("missing"), directory.path().join("bad"));
    std::fs::write(&bad, "nameserver what\nnameserver 192.0.2.53\n").unwrap();
    let servers = |settings: ExitSettings| settings.resolv_conf.servers;
    let local: SocketAddr = "127.0.0.1:53".parse().unwrap();
    assert_eq!(servers(exits("ExitRelay 1", &missing).unwrap()), [local]);
    assert_eq!(servers(exits("ExitRelay 1", &bad).unwrap()), ["192.0.2.53:53".parse().unwrap()]);
    for file in [&missing, &bad] {
        assert!(exits("ExitRelay 1\nServerDNSAllowBrokenConfig 0", file).is_err());
        // Who is no exit has no use for them.
        assert!(exits("ServerDNSAllowBrokenConfig 0", file).is_ok());
    }
}

#[test]
fn the_front_page_is_read_if_it_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("page.html");
    let page = || front_page(&config(&format!("ORPort 9001\nDirPortFrontPage {}", path.display())));
    assert!(page().is_none());
    std::fs::write(&path, "<p>an exit").unwrap();
    assert_eq!(&page().unwrap()[..], b"<p>an exit");
    std::fs::write(&path, vec![b'x'; limits::DIR_FRONT_PAGE as usize + 1]).unwrap();
    assert!(page().is_none());
    assert!(front_page(&config("ORPort 9001")).is_none());
}
