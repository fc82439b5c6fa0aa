use std::collections::BTreeMap;

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::netdoc::consensus::UnverifiedConsensus;
use crate::netdoc::family::FamilyMember;
use crate::netdoc::testdata;
use crate::policy::PortSummary;

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn real() -> (Consensus, Vec<Arc<Microdesc>>) {
    let consensus = UnverifiedConsensus::parse(testdata::CONSENSUS_MICRODESC).unwrap().peek().clone();
    let mds = Microdesc::parse_all(testdata::MICRODESCS).map(|(_, m)| Arc::new(m.unwrap())).collect();
    (consensus, mds)
}

fn network(consensus: Consensus, mds: Vec<Arc<Microdesc>>) -> Network {
    let index: BTreeMap<_, _> = mds.into_iter().map(|m| (m.digest, m)).collect();
    Network::new(Arc::new(consensus), |d| index.get(d).cloned())
}

/// A network of relays without relations: number n is at 10.n.0.1 and has the flags and weight given.
fn synthetic(relays: &[(RelayFlags, u32)]) -> Network {
    let (mut consensus, mds) = real();
    let template = consensus.relays[0].clone();
    let mut all = Vec::new();
    consensus.relays = relays
        .iter()
        .enumerate()
        .map(|(n, (flags, bandwidth))| {
            let digest = [n as u8; 32];
            let md = Microdesc {
                digest,
                family: Family::default(),
                family_ids: Box::new([]),
                policy: PortSummary::parse("accept 1-65535").unwrap(),
                ..(*mds[0]).clone()
            };
            all.push(Arc::new(md));
            RelayStatus {
                identity: Fingerprint([n as u8; 20]),
                listed: crate::netdoc::consensus::Listed::Microdesc(digest),
                ipv4: Ipv4Addr::new(10, n as u8, 0, 1),
                flags: *flags | RelayFlags::RUNNING | RelayFlags::VALID,
                bandwidth: Some(*bandwidth),
                ..template.clone()
            }
        })
        .collect();
    network(consensus, all)
}

const PLAIN: RelayFlags = RelayFlags::FAST;

fn rules() -> Rules {
    Rules::new(&ConsensusParams::default(), true)
}

fn nick(r: &RelayRef<'_>) -> String {
    r.status.nickname.to_string()
}

#[test]
fn paths_through_a_real_network() {
    let (consensus, mds) = real();
    let net = network(consensus, mds);
    assert!(net.is_sufficient());
    assert_eq!(net.known_paths(), 1.0);
    let rules = Rules { distinct_subnets: false, ..rules() };
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let last = Last::Exit { port: 80, v6: false };
        let spec = PathSpec { len: 3, first: First::AnyGuard, last, stable: false };
        let path = choose_path(&net, &rules, &spec, &mut rng(seed)).unwrap();
        let nicks: Vec<_> = path.iter().map(nick).collect();
        assert_eq!(nicks.len(), 3);
        assert!(nicks[2] == "r0" || nicks[2] == "r3", "{nicks:?}");
        // r1 and r2 have one family key; their `family` lists are not mutual.
        assert!(!(nicks.contains(&"r1".into()) && nicks.contains(&"r2".into())), "{nicks:?}");
        assert_eq!(nicks.iter().collect::<BTreeSet<_>>().len(), 3);
        seen.insert(nicks);
    }
    // r2 and r3 have no weight, so these are all that can come.
    assert_eq!(seen.len(), 10, "{seen:?}");
    let spec =
        PathSpec { len: 3, first: First::AnyGuard, last: Last::Exit { port: 25, v6: false }, stable: false };
    assert_eq!(
        choose_path(&net, &rules, &spec, &mut rng(1)).unwrap_err(),
        PathError::NoRelay(Position::Exit)
    );
    let spec = PathSpec { last: Last::Exit { port: 443, v6: true }, ..spec };
    assert_eq!(nick(&choose_path(&net, &rules, &spec, &mut rng(1)).unwrap()[2]), "r0");
    // Authorities share 127.71.0.0/16: at most one of them per path, if subnets count.
    let distinct = Rules { distinct_subnets: true, ..rules };
    for seed in 0..50 {
        let spec = PathSpec { len: 2, first: First::AnyGuard, last: Last::Directory, stable: false };
        let result = choose_path(&net, &distinct, &spec, &mut rng(seed));
        if let Ok(path) = result {
            assert_ne!(path[0].status.ipv4.octets()[1], path[1].status.ipv4.octets()[1]);
        }
    }
}

#[test]
fn hop_targets_ask_for_what_the_relay_knows() {
    let (mut consensus, mds) = real();
    consensus.relays[0].ipv6 = Some((Ipv6Addr::LOCALHOST, 7));
    consensus.relays[1].protocols = Arc::new(crate::netdoc::protover::Protocols::parse("Relay=2-3").unwrap());
    let net = network(consensus, mds);
    let targets: Vec<_> = net.relays().map(|r| r.hop_target()).collect();
    assert_eq!(targets[0].specs.ipv4, Some("127.71.0.1:5000".parse().unwrap()));
    assert_eq!(targets[0].specs.ipv6, Some("[::1]:7".parse().unwrap()));
    assert!(targets[0].specs.ed_id.is_some());
    assert!(matches!(targets[0].handshake, HandshakeKind::NtorV3));
    assert!(matches!(targets[1].handshake, HandshakeKind::Ntor));
    assert_ne!(targets[0].onion_key, targets[1].onion_key);
}

#[test]
fn only_relays_that_say_so_are_taken_to_offer_anything() {
    let (mut consensus, mds) = real();
    for (relay, list) in consensus.relays.iter_mut().zip([
        "Relay=2-4 X-HalfClose=1",
        // Without ntor-v3 it cannot be asked for; another version is another thing.
        "Relay=2-3 X-HalfClose=1",
        "Relay=2-4 X-HalfClose=2",
        "Relay=2-4",
    ]) {
        relay.protocols = Arc::new(crate::netdoc::protover::Protocols::parse(list).unwrap());
    }
    let net = network(consensus, mds);
    let offers: Vec<_> = net.relays().map(|r| r.offers().half_close).collect();
    assert_eq!(offers[..4], [true, false, false, false]);
    assert!(
        net.relays().all(|r| r.hop_target().ask == Terms::default()),
        "nobody is asked unless it is said so"
    );
}

#[test]
fn a_self_test_avoids_ourselves_and_our_family() {
    let (consensus, mds) = real();
    let net = network(consensus, mds);
    let rules = Rules { distinct_subnets: false, ..rules() };
    let r1 = net.relays().find(|r| nick(r) == "r1").unwrap();
    for seed in 0..50 {
        let spec = PathSpec { len: 3, first: First::AnyGuard, last: Last::Given(r1.kin()), stable: false };
        let path = choose_path(&net, &rules, &spec, &mut rng(seed)).unwrap();
        assert_eq!(path.len(), 2);
        assert!(path.iter().all(|r| nick(r) != "r1" && nick(r) != "r2"));
    }
    let one = PathSpec { len: 1, first: First::AnyGuard, last: Last::Given(r1.kin()), stable: false };
    assert_eq!(choose_path(&net, &rules, &one, &mut rng(0)).unwrap_err(), PathError::TooShort(1));
}

#[test]
fn a_given_guard_is_used_or_refused() {
    let net = synthetic(&[(PLAIN, 1), (PLAIN, 1), (PLAIN, 1)]);
    let guard = |id| PathSpec { len: 3, first: First::Given(id), last: Last::Any, stable: false };
    let me = Fingerprint([1; 20]);
    let mut refused = 0;
    for seed in 0..30 {
        match choose_path(&net, &rules(), &guard(me), &mut rng(seed)) {
            Ok(path) => assert_eq!(path[0].status.identity, me),
            // It was drawn as the last hop.
            Err(e) => {
                assert_eq!(e, PathError::Guard(me));
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && refused < 30);
    let unknown = Fingerprint([9; 20]);
    assert_eq!(
        choose_path(&net, &rules(), &guard(unknown), &mut rng(0)).unwrap_err(),
        PathError::Guard(unknown)
    );
}

#[test]
fn flags_decide_who_is_fit_for_what() {
    let flags = [
        RelayFlags::MIDDLE_ONLY,
        RelayFlags::EXIT | RelayFlags::BAD_EXIT,
        RelayFlags::EXIT,
        RelayFlags::GUARD,
        RelayFlags::V2_DIR,
    ];
    let net = synthetic(&flags.map(|f| (f, 100)));
    let who = |position, flags| {
        let need = Need { position, flags, preferred: RelayFlags::default() };
        let draws = (0..200).filter_map(|seed| choose(&net, &rules(), &need, &[], |_| true, &mut rng(seed)));
        draws.map(|r| r.status.identity.0[0]).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    // In this consensus's weights exits are not spent in the middle (Wme=0) nor guards (Wmg=0).
    assert_eq!(who(Position::Middle, RelayFlags::default()), [0, 1, 4]);
    assert_eq!(who(Position::Exit, RelayFlags::default()), [2, 3, 4]);
    assert_eq!(who(Position::Exit, RelayFlags::EXIT), [2]);
    assert_eq!(who(Position::Guard, RelayFlags::GUARD), [3]);
    assert_eq!(who(Position::Directory, RelayFlags::V2_DIR), [4]);
}

#[test]
fn preferred_flags_give_way_and_others_do_not() {
    let net = synthetic(&[(RelayFlags::FAST, 1), (RelayFlags::default(), 1_000_000)]);
    let need = Need { position: Position::Middle, flags: RelayFlags::default(), preferred: RelayFlags::FAST };
    let pick = |need: &Need| {
        choose(&net, &rules(), need, &[], |_| true, &mut rng(1)).map(|r| r.status.identity.0[0])
    };
    assert_eq!(pick(&need), Some(0));
    assert_eq!(pick(&Need { preferred: RelayFlags::STABLE, ..need }), Some(1));
    assert_eq!(pick(&Need { flags: RelayFlags::STABLE, ..need }), None);
}

#[test]
fn relays_that_are_excluded_down_or_without_ntor_are_left_out() {
    let net = synthetic(&[(PLAIN, 1), (PLAIN, 1)]);
    let need = Need { position: Position::Middle, flags: RelayFlags::default(), preferred: PLAIN };
    let mut only = rules();
    only.excluded.insert(Fingerprint([0; 20]));
    for seed in 0..20 {
        assert_eq!(
            choose(&net, &only, &need, &[], |_| true, &mut rng(seed)).unwrap().status.identity.0[0],
            1
        );
    }
    let (mut consensus, mds) = real();
    for r in &mut consensus.relays {
        r.protocols = Arc::new(crate::netdoc::protover::Protocols::parse("Relay=1").unwrap());
    }
    let old = network(consensus, mds);
    assert!(choose(&old, &rules(), &need, &[], |_| true, &mut rng(0)).is_none());
    let (consensus, _) = real();
    let unknown = network(consensus, vec![]);
    assert!(choose(&unknown, &rules(), &need, &[], |_| true, &mut rng(0)).is_none());
    assert!(!unknown.is_sufficient());
}

#[test]
fn draws_follow_the_weights() {
    let net = synthetic(&[(PLAIN, 100), (PLAIN, 300), (PLAIN, 0)]);
    let need = Need { position: Position::Middle, flags: RelayFlags::default(), preferred: PLAIN };
    let mut counts = [0u32; 3];
    let mut rng = rng(1);
    for _ in 0..4000 {
        let r = choose(&net, &rules(), &need, &[], |_| true, &mut rng).unwrap();
        counts[usize::from(r.status.identity.0[0])] += 1;
    }
    assert!((900..1100).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    // If nobody has a weight, everybody has the same.
    let net = synthetic(&[(PLAIN, 0), (PLAIN, 0)]);
    let got: BTreeSet<_> = (0..50)
        .map(|_| choose(&net, &rules(), &need, &[], |_| true, &mut rng).unwrap().status.identity)
        .collect();
    assert_eq!(got.len(), 2);
}

#[test]
fn weights_are_those_of_path_spec() {
    let (mut consensus, _) = real();
    let names = [
        ("Wgg", 6000),
        ("Wgm", 7000),
        ("Wgd", 1000),
        ("Wmg", 4000),
        ("Wmm", 10_000),
        ("Wme", 100),
        ("Wmd", 200),
        ("Weg", 300),
        ("Wem", 10_000),
        ("Wee", 9900),
        ("Wed", 8800),
        ("Wmb", 10_000),
        ("Wgb", 5000),
        ("Web", 10_000),
        ("Wdb", 10_000),
        ("Wbm", 1),
        ("Wbg", 2),
        ("Wbe", 3),
        ("Wbd", 4),
    ];
    consensus.weights = names.into_iter().collect();
    let mut relay = consensus.relays[0].clone();
    relay.bandwidth = Some(1000);
    let mut of = |consensus: &Consensus, flags, fraction| {
        relay.flags = flags;
        relay.guard_fraction = fraction;
        let w = Weights::new(consensus);
        [Position::Guard, Position::Middle, Position::Exit, Position::Directory]
            .map(|p| w.of(p, &relay).round() as i64)
    };
    let (g, e, d) = (RelayFlags::GUARD, RelayFlags::EXIT, RelayFlags::V2_DIR);
    assert_eq!(of(&consensus, RelayFlags::default(), None), [700, 1000, 1000, 0]);
    assert_eq!(of(&consensus, g, None), [600, 400, 30, 0]);
    assert_eq!(of(&consensus, g | d, None), [300, 200, 15, 0]);
    assert_eq!(of(&consensus, e, None), [0, 10, 990, 0]);
    assert_eq!(of(&consensus, e | RelayFlags::BAD_EXIT, None), [700, 1000, 1000, 0]);
    assert_eq!(of(&consensus, g | e, None), [100, 20, 880, 0]);
    // The fraction counts only if the network says so, and not for the guard position.
    assert_eq!(of(&consensus, g, Some(25)), [600, 400, 30, 0]);
    consensus.params = [("UseGuardFraction", 1)].into_iter().collect();
    assert_eq!(of(&consensus, g, Some(25)), [600, 850, 758, 0]);
    consensus.weights = [("Wgg", -1)].into_iter().collect();
    assert_eq!(of(&consensus, g, None), [1000; 4]);
    // Weights are in units of the scale, and never more than it.
    consensus.params = [("bwweightscale", 100)].into_iter().collect();
    consensus.weights = names.map(|(n, w)| (n, w / 100)).into_iter().collect();
    assert_eq!(of(&consensus, g | e, None), [100, 20, 880, 0]);
}

#[test]
fn families_and_networks_exclude_each_other() {
    let (a, b) = (Fingerprint([1; 20]), Fingerprint([2; 20]));
    let (nick_a, nick_b) = (Nickname::new("a").unwrap(), Nickname::new("b").unwrap());
    let names = |id| [FamilyMember::Identity(id)].into_iter().collect::<Family>();
    let (names_a, names_b, nobody) = (names(a), names(b), Family::default());
    let ids: [Box<str>; 1] = ["ed25519:x".into()];
    let kin_a = Kin {
        identity: &a,
        nickname: &nick_a,
        ipv4: [10, 1, 0, 1].into(),
        ipv6: None,
        family: &nobody,
        family_ids: &[],
    };
    let kin_b = Kin { identity: &b, nickname: &nick_b, ipv4: [10, 2, 0, 1].into(), ..kin_a };
    let rules = rules();
    assert!(!rules.conflict(&kin_a, &kin_b));
    assert!(
        rules.conflict(&kin_a, &Kin { ipv4: [9, 9, 9, 9].into(), ..kin_a }),
        "never the same relay twice"
    );
    // Lists must be mutual.
    let (lists_b, lists_a) = (Kin { family: &names_b, ..kin_a }, Kin { family: &names_a, ..kin_b });
    assert!(!rules.conflict(&lists_b, &kin_b) && !rules.conflict(&kin_a, &lists_a));
    assert!(rules.conflict(&lists_b, &lists_a));
    assert!(!Rules { family_lists: false, ..rules.clone() }.conflict(&lists_b, &lists_a));
    let (key_a, key_b) = (Kin { family_ids: &ids, ..kin_a }, Kin { family_ids: &ids, ..kin_b });
    assert!(rules.conflict(&key_a, &key_b) && !rules.conflict(&key_a, &kin_b));
    assert!(!Rules { family_ids: false, ..rules.clone() }.conflict(&key_a, &key_b));
    let near = Kin { ipv4: [10, 1, 200, 1].into(), ..kin_b };
    assert!(rules.conflict(&kin_a, &near));
    assert!(!Rules { distinct_subnets: false, ..rules.clone() }.conflict(&kin_a, &near));
    let v6 = |text: &str, kin| Kin { ipv6: Some(text.parse().unwrap()), ..kin };
    assert!(rules.conflict(&v6("2001:db8:1::1", kin_a), &v6("2001:db8:2::1", kin_b)));
    assert!(!rules.conflict(&v6("2001:db8:1::1", kin_a), &v6("2001:db9:2::1", kin_b)));
}

#[test]
fn known_paths_multiply_over_the_positions() {
    let flags = [RelayFlags::GUARD, RelayFlags::EXIT, RelayFlags::default(), RelayFlags::default()];
    let full = synthetic(&flags.map(|f| (f, 100)));
    assert_eq!(full.known_paths(), 1.0);
    let without = |n: u8| {
        let index: BTreeMap<_, _> =
            full.relays().map(|r| (r.microdesc.digest, Arc::new(r.microdesc.clone()))).collect();
        Network::new(full.consensus.clone(), |d| index.get(d).filter(|_| d[0] != n).cloned())
    };
    assert_eq!(without(0).known_paths(), 0.0);
    assert_eq!(without(1).known_paths(), 0.0);
    assert!((without(2).known_paths() - 0.5).abs() < 1e-9);
    // A network without exits is judged by what can be built within it.
    assert_eq!(synthetic(&[(RelayFlags::GUARD, 1), (RelayFlags::GUARD, 1)]).known_paths(), 1.0);
}

/// Identities of those who can be chosen for a path's last hop.
fn lasts(net: &Network, rules: &Rules, last: Last<'_>) -> Vec<u8> {
    let spec = PathSpec { len: 1, first: First::AnyGuard, last, stable: false };
    let paths = (0..100).filter_map(|seed| choose_path(net, rules, &spec, &mut rng(seed)).ok());
    paths.map(|path| path[0].status.identity.0[0]).collect::<BTreeSet<_>>().into_iter().collect()
}

fn set(value: &str) -> NodeSet {
    NodeSet::parse(value).unwrap()
}

fn with(nodes: NodeRules) -> Rules {
    Rules { nodes: Arc::new(nodes), ..rules() }
}

#[test]
fn relays_are_named_by_identity_nickname_and_network() {
    let (mut consensus, mds) = real();
    consensus.relays[1].ipv6 = Some(("2001:db8::7".parse().unwrap(), 9001));
    let id = |n: usize| consensus.relays[n].identity.to_string();
    let cases = [
        (format!("${}", id(0)), vec![0]),
        (id(0).to_lowercase(), vec![0]),
        (format!("${}~whatever, {}=other", id(0), id(2)), vec![0, 2]),
        (consensus.relays[3].nickname.as_str().to_uppercase(), vec![3]),
        (format!("{}/32", consensus.relays[2].ipv4), vec![2]),
        (consensus.relays[2].ipv4.to_string(), vec![2]),
        (format!("{}:{}", consensus.relays[2].ipv4, consensus.relays[2].or_port), vec![2]),
        (format!("{}:1", consensus.relays[2].ipv4), vec![]),
        ("[2001:db8::]/32".to_owned(), vec![1]),
        ("[2001:db8::]/32:9002".to_owned(), vec![]),
        ("0.0.0.0/0".to_owned(), (0..consensus.relays.len()).collect()),
        (" , ,".to_owned(), vec![]),
        ("192.0.2.0/24,nobody".to_owned(), vec![]),
    ];
    let net = network(consensus.clone(), mds);
    for (value, expected) in cases {
        let named: Vec<_> =
            net.relays().filter(|r| set(&value).contains(r)).map(|r| r.status.identity).collect();
        let expected: Vec<_> = expected.into_iter().map(|n: usize| consensus.relays[n].identity).collect();
        assert_eq!(named, expected, "{value}");
    }
    assert!(set(",").is_empty() && !set("a").is_empty());
    let mut both = set("a");
    both.extend(set("b"));
    assert_eq!(both, set("a,b"));
}

#[test]
fn entries_that_name_nothing_are_refused_by_name() {
    for (value, start) in [
        ("a,{de}", "'{de}' is a country"),
        ("{??}", "'{??}' is a country"),
        ("a b", "'a b' names no relay"),
        ("$ABC", "'$ABC' names no relay"),
        ("192.0.2.0/33", "'192.0.2.0/33' names no relay"),
        ("much-too-long-for-a-nickname", "'much-too-long"),
    ] {
        let error = NodeSet::parse(value).unwrap_err().to_string();
        assert!(error.starts_with(start), "{error}");
    }
    assert!(NodeSet::parse(&"{".repeat(1000)).unwrap_err().to_string().len() < 200);
}

#[test]
fn exits_are_those_that_are_wanted_and_not_excluded() {
    let net = synthetic(&[(RelayFlags::EXIT, 10), (RelayFlags::EXIT, 10), (RelayFlags::EXIT, 10)]);
    let exit = Last::AnyExit;
    assert_eq!(lasts(&net, &rules(), exit), [0, 1, 2]);
    let wanted = NodeRules { exit: set("10.0.0.1,10.1.0.1"), ..NodeRules::default() };
    assert_eq!(lasts(&net, &with(wanted.clone()), exit), [0, 1]);
    let less = NodeRules { exclude_exit: set("10.1.0.0/16"), ..wanted.clone() };
    assert_eq!(lasts(&net, &with(less), exit), [0]);
    // StrictNodes has no say in what carries streams.
    let none = NodeRules { exclude: set("10.0.0.0/8"), ..wanted };
    assert_eq!(lasts(&net, &with(none), exit), [0; 0]);
    let elsewhere = NodeRules { exclude_exit: set("10.0.0.0/8"), ..NodeRules::default() };
    assert_eq!(lasts(&net, &with(elsewhere), Last::Any).len(), 3);
}

#[test]
fn exits_are_chosen_by_where_a_stream_goes() {
    let template = synthetic(&[(RelayFlags::EXIT, 10); 4]);
    let [web, six, none] =
        ["accept 80,443", "accept 443", "reject 1-65535"].map(|p| PortSummary::parse(p).unwrap());
    let policies = [(&web, &none), (&none, &six), (&none, &none), (&web, &six)];
    let mds = template.relays().zip(policies).map(|(r, (v4, v6))| {
        Arc::new(Microdesc { policy: v4.clone(), policy_v6: v6.clone(), ..r.microdesc.clone() })
    });
    let net = network(template.consensus().clone(), mds.collect());
    let to = |address: &str, port| Last::ExitTo { address: address.parse().unwrap(), port };
    for (last, expected) in [
        (to("192.0.2.1", 80), &[0, 3][..]),
        (to("::ffff:192.0.2.1", 80), &[0, 3]),
        (to("2001:db8::1", 443), &[1, 3]),
        (to("2001:db8::1", 80), &[]),
        (Last::Exit { port: 443, v6: false }, &[0, 3]),
        (Last::Exit { port: 443, v6: true }, &[1, 3]),
        (Last::AnyExit, &[0, 1, 3]),
    ] {
        assert_eq!(lasts(&net, &rules(), last), expected, "{last:?}");
    }
}

#[test]
fn first_and_middle_hops_are_those_that_are_wanted() {
    let guard = (RelayFlags::GUARD, 10);
    let net = synthetic(&[guard, guard, guard, (PLAIN, 10), (PLAIN, 10), (RelayFlags::EXIT, 10)]);
    let nodes =
        NodeRules { entry: set("10.0.0.1,10.1.0.1"), middle: set("10.3.0.1"), ..NodeRules::default() };
    let excluding = NodeRules { exclude: set("10.1.0.0/16"), ..nodes.clone() };
    let spec = PathSpec { len: 3, first: First::AnyGuard, last: Last::AnyExit, stable: false };
    // The last hop of a path within the network is nobody's exit and nobody's middle.
    let paths = |nodes: &NodeRules| {
        let rules = with(nodes.clone());
        let path = |seed| {
            let path = choose_path(&net, &rules, &spec, &mut rng(seed)).ok()?;
            Some([path[0].status.identity.0[0], path[1].status.identity.0[0]])
        };
        (0..100).filter_map(path).collect::<BTreeSet<_>>()
    };
    assert_eq!(paths(&nodes), BTreeSet::from([[0, 3], [1, 3]]));
    assert_eq!(paths(&excluding), BTreeSet::from([[0, 3]]));
    let nowhere = NodeRules { middle: set("nobody"), ..NodeRules::default() };
    let error = choose_path(&net, &with(nowhere), &spec, &mut rng(0)).unwrap_err();
    assert_eq!(error, PathError::NoRelay(Position::Middle));
}

#[test]
fn excluded_relays_are_asked_for_the_directory_only_when_no_other_is_left() {
    let cache = (RelayFlags::V2_DIR, 10);
    let net = synthetic(&[cache, cache]);
    let one = NodeRules { exclude: set("10.0.0.1"), ..NodeRules::default() };
    assert_eq!(lasts(&net, &with(one), Last::Directory), [1]);
    let all = NodeRules { exclude: set("10.0.0.0/8"), ..NodeRules::default() };
    assert_eq!(lasts(&net, &with(all.clone()), Last::Directory), [0, 1]);
    let strict = NodeRules { strict: true, ..all };
    assert_eq!(lasts(&net, &with(strict), Last::Directory), [0; 0]);
}

#[test]
fn a_person_may_call_relays_a_family() {
    let net = synthetic(&[(PLAIN, 1), (PLAIN, 1), (PLAIN, 1)]);
    let relays: Vec<_> = net.relays().collect();
    // Ports do not count: the two still are on one machine.
    let families = vec![set("10.0.0.1:1,10.1.0.1"), set("10.2.0.1")];
    let rules = with(NodeRules { families, ..NodeRules::default() });
    let conflict = |a: usize, b: usize| rules.conflict(&relays[a].kin(), &relays[b].kin());
    assert!(conflict(0, 1) && !conflict(0, 2) && !conflict(1, 2));
}

proptest! {
    #[test]
    fn lists_of_relays_are_read_without_panic(value in "([$~={}\\[\\]:/.,a-fA-F0-9* ]{0,8}){0,12}") {
        if let Ok(set) = NodeSet::parse(&value) {
            let net = synthetic(&[(PLAIN, 1)]);
            let relay = net.relays().next().unwrap();
            prop_assert_eq!(set.contains(&relay), set.lists(relay.status));
            prop_assert!(!set.contains(&relay) || set.contains_kin(&relay.kin()));
        }
    }

    #[test]
    fn paths_keep_the_rules(seed: u8, n in 1usize..12, len in 1usize..6, kinds in proptest::collection::vec(0u8..4, 12)) {
        let flags = |k: u8| match k {
            0 => RelayFlags::GUARD | RelayFlags::V2_DIR,
            1 => RelayFlags::EXIT,
            2 => RelayFlags::GUARD | RelayFlags::EXIT,
            _ => RelayFlags::STABLE,
        };
        let relays: Vec<_> = kinds[..n].iter().map(|k| (flags(*k), u32::from(*k))).collect();
        let net = synthetic(&relays);
        let rules = rules();
        let spec = PathSpec { len, first: First::AnyGuard, last: Last::Any, stable: seed % 2 == 0 };
        if let Ok(path) = choose_path(&net, &rules, &spec, &mut rng(seed)) {
            prop_assert_eq!(path.len(), len);
            prop_assert!(len == 1 || path[0].status.flags.has(RelayFlags::GUARD));
            for (i, a) in path.iter().enumerate() {
                prop_assert!(path[..i].iter().all(|b| !rules.conflict(&a.kin(), &b.kin())));
            }
        } else {
            prop_assert!(len > 1 || n == 0);
        }
    }
}
