use onionring_node::keys::{KeyOptions, KeyStore};
use onionring_node::tls::TlsVersions;
use rand_core::SeedableRng as _;

use super::*;
use crate::control::overload::{NtorLimits, Totals};
use onionring_proto::netdoc::params::ConsensusParams;

#[test]
fn the_advertised_protocols_are_well_formed() {
    assert_eq!(protocols().to_string(), PROTOCOLS);
    assert_eq!(advertised(true, false), protocols());
    assert_eq!(protocols().missing_from(&advertised(false, false)).to_string(), "DirCache=2");
    assert_eq!(advertised(true, true).missing_from(&protocols()).to_string(), "X-HalfClose=1");
}

fn publicity() -> Publicity {
    Publicity {
        nickname: Nickname::new("relay").unwrap(),
        contact: None,
        ipv4: Some(([192, 0, 2, 1].into(), 9001)),
        ipv6: None,
        dir_port: 0,
        rate: (1 << 20, 1 << 30),
        family: Vec::new(),
        policy: ExitPolicy::middleman(),
        dir_cache: true,
        half_close: false,
        publish: true,
        statistics: StatisticsConfig { extra_info: true, overload: true },
        limit: Rate { per_second: 1 << 20, burst: 1 << 30 },
    }
}

fn describer(directory: &tempfile::TempDir) -> Describer {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let store = KeyStore::open(&directory.path().join("keys"), KeyOptions::default()).unwrap();
    let identity = Identity::load(store, TlsVersions::Both, Unix(1_790_000_000), &mut rng).unwrap();
    Describer {
        publicity: Rc::new(RefCell::new(publicity())),
        identity: Rc::new(RefCell::new(identity)),
        standing: Rc::default(),
        bandwidth: Rc::new(RefCell::new(History::new(Unix(1_790_000_000)))),
        overload: Rc::default(),
        started: Unix(1_790_000_000),
        rng,
    }
}

#[test]
fn an_overload_and_past_days_are_told_as_the_options_say() {
    let directory = tempfile::tempdir().unwrap();
    let mut describer = describer(&directory);
    describer.standing.borrow_mut().reachable = true;
    let now = Unix(1_790_100_000);
    let overload = describer.overload.clone();
    describer.bandwidth.borrow_mut().observe(now, Duration::ZERO, [0; 2]);
    let mut signed = |extra_info, overload| {
        describer.publicity.borrow_mut().statistics = StatisticsConfig { extra_info, overload };
        let contents = describer.contents(now).unwrap();
        let SignedDocs { descriptor, extra_info } = describer.sign(&contents).unwrap();
        extra_info.parsed.check_with(&descriptor.parsed).unwrap();
        [descriptor.text, extra_info.text]
    };
    let totals = Totals { circuits_shed: 1, bandwidth: [1, 0], files_exhausted: 1, ..Totals::default() };
    let general = "overload-general 1 2026-09-22 18:00:00\n";
    let history = "write-history 2026-09-22 14:13:20 (86400 s) 0\n\
                   read-history 2026-09-22 14:13:20 (86400 s) 0\n";
    let special = "overload-ratelimits 1 2026-09-22 18:00:00 1048576 1073741824 1 0\n\
                   overload-fd-exhausted 1 2026-09-22 18:00:00\n";
    let [descriptor, extra_info] = signed(true, true);
    assert!(extra_info.contains(history), "{extra_info}");
    assert!(!descriptor.contains("overload-") && !extra_info.contains("overload-"));

    let limits = NtorLimits::new(&ConsensusParams::default());
    overload.borrow_mut().observe(now, totals, limits);
    let [descriptor, extra_info] = signed(true, true);
    assert!(descriptor.contains(general), "{descriptor}");
    assert!(extra_info.contains(&[history, special].concat()), "{extra_info}");
    let [descriptor, extra_info] = signed(true, false);
    assert!(extra_info.contains(history), "{extra_info}");
    assert!(!descriptor.contains("overload-") && !extra_info.contains("overload-"));
    let [descriptor, extra_info] = signed(false, true);
    assert!(descriptor.contains(general) && !extra_info.contains("-history"), "{extra_info}");
    assert!(!extra_info.contains("overload-"), "{extra_info}");
}

#[test]
fn only_addresses_that_were_found_reachable_are_published() {
    let directory = tempfile::tempdir().unwrap();
    let mut describer = describer(&directory);
    let now = Unix(1_790_000_100);
    assert!(describer.contents(now).is_none(), "nobody has tested it");
    describer.standing.borrow_mut().reachable = true;
    describer.standing.borrow_mut().observed = 5 << 20;
    let contents = describer.contents(now).unwrap().descriptor;
    assert!(contents.caches_extra_info && contents.tunnelled_dir_server);
    let bandwidth = contents.bandwidth;
    assert_eq!((bandwidth.rate, bandwidth.burst, bandwidth.observed), (1 << 20, 1 << 30, 5 << 20));

    let replace = |describer: &Describer, new: Publicity| {
        let moved = describer.standing.borrow_mut().follow(&describer.publicity.borrow(), &new);
        *describer.publicity.borrow_mut() = new;
        moved
    };
    // What is not an address needs no test.
    assert!(!replace(&describer, Publicity { contact: Some("me".to_owned()), ..publicity() }));
    assert_eq!(describer.contents(now).unwrap().descriptor.contact.as_deref(), Some("me"));
    assert!(replace(&describer, Publicity { ipv4: Some(([192, 0, 2, 2].into(), 9001)), ..publicity() }));
    assert!(describer.contents(now).is_none());
    describer.standing.borrow_mut().reachable = true;
    assert_eq!(describer.contents(now).unwrap().descriptor.ipv4, Ipv4Addr::new(192, 0, 2, 2));
    let ipv6 = Some(("2001:db8::1".parse().unwrap(), 9001));
    let with_ipv6 = Publicity { ipv6, ..publicity() };
    assert!(replace(&describer, with_ipv6.clone()));
    describer.standing.borrow_mut().reachable = true;
    // An IPv6 address that nobody reaches does not keep the relay from being published.
    assert_eq!(describer.contents(now).unwrap().descriptor.ipv6, None);
    describer.standing.borrow_mut().reachable_ipv6 = true;
    assert_eq!(describer.contents(now).unwrap().descriptor.ipv6, ipv6);
    assert!(!replace(&describer, with_ipv6));
    assert!(describer.standing.borrow().reachable_ipv6);

    describer.standing.borrow_mut().reachable = true;
    replace(&describer, Publicity { publish: false, ..publicity() });
    describer.standing.borrow_mut().reachable = true;
    assert!(describer.contents(now).is_none(), "PublishServerDescriptor 0");
    replace(&describer, Publicity { ipv4: None, ..publicity() });
    describer.standing.borrow_mut().reachable = true;
    assert!(describer.contents(now).is_none(), "there is no address yet");
}
