//! Onionring and stock tor in every position of a path.

use onionring_loadgen::net::{Kind, Network, NetworkSpec, NodeSpec, Paths, Role};
use onionring_loadgen::traffic::{Order, parallel};
use onionring_node::tls::TlsVersions;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use super::client::open_tls;
use super::{MIB, RELAYS, assert_no_warnings, boot, relay};

/// How the onionring relays of a network are set.
#[derive(Clone, Copy, Debug)]
struct Setting {
    shards: u16,
    link: u16,
    tls: TlsVersions,
}

/// All pairs of numbers of shards, link protocols and versions of TLS.
const PAIRWISE: [Setting; 6] = [
    Setting { shards: 1, link: 3, tls: TlsVersions::Tls12 },
    Setting { shards: 2, link: 3, tls: TlsVersions::Tls13 },
    Setting { shards: 1, link: 4, tls: TlsVersions::Tls13 },
    Setting { shards: 3, link: 4, tls: TlsVersions::Tls12 },
    Setting { shards: 2, link: 5, tls: TlsVersions::Tls12 },
    Setting { shards: 1, link: 5, tls: TlsVersions::Tls13 },
];

#[test]
fn as_deployed_with_one_shard() {
    mixed_paths(spec(1, &[]), [64, 16]);
}

#[test]
fn as_deployed_with_three_shards() {
    mixed_paths(spec(3, &[]), [64, 16]);
}

#[test]
fn links_of_protocol_3() {
    PAIRWISE[..2].iter().for_each(|setting| set(*setting, [8, 2]));
}

#[test]
fn links_of_protocol_4() {
    PAIRWISE[2..4].iter().for_each(|setting| set(*setting, [8, 2]));
}

#[test]
fn links_of_protocol_5() {
    PAIRWISE[4..].iter().for_each(|setting| set(*setting, [8, 2]));
}

#[test]
#[ignore = "takes half an hour: `make soak`"]
fn every_combination() {
    for shards in [1, 2, 4] {
        for link in [3, 4, 5] {
            for tls in [TlsVersions::Tls12, TlsVersions::Tls13] {
                set(Setting { shards, link, tls }, [64, 16]);
            }
        }
    }
}

fn set(setting: Setting, sizes: [u64; 2]) {
    let (version, other) = match setting.tls {
        TlsVersions::Tls12 => ("1.2", TlsVersions::Tls13),
        _ => ("1.3", TlsVersions::Tls12),
    };
    let link = setting.link.to_string();
    let environment = [("ONIONRING_TEST_TLS", version), ("ONIONRING_TEST_LINK", &link)];
    let network = mixed_paths(spec(setting.shards, &environment), sizes);

    // The setting was in force: seen from outside, and by tor.
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let address = network.node("oGuard").or_addr().unwrap();
    open_tls(address, setting.tls, rng).unwrap();
    open_tls(address, other, rng).map(|_| ()).expect_err("the other version of TLS is not spoken");
    let negotiated = format!("Negotiated version {link} ");
    assert!(network.node("tMiddle").log().contains(&negotiated), "{setting:?}");
}

fn spec(shards: u16, environment: &[(&str, &str)]) -> NetworkSpec {
    let client = NodeSpec::new(Role::Client, Kind::TOR).named("client");
    let spec = NetworkSpec::new().add(Role::Authority, Kind::TOR, 3).node(client);
    RELAYS
        .iter()
        .fold(spec, |spec, name| {
            let node = environment.iter().fold(relay(name), |node, (name, value)| node.env(name, value));
            // For the link protocol that it negotiates.
            spec.node(if *name == "tMiddle" { node.torrc("Log info stdout") } else { node })
        })
        .shards(shards)
}

/// Boots a network, and moves `down` and `up` MiB over all eight kinds of path of three hops: so each side extends to
/// the other and is extended to by it, first, in the middle and last.
fn mixed_paths(spec: NetworkSpec, [down, up]: [u64; 2]) -> Network {
    let network = boot(spec);
    let paths = Paths::of(network.node("client")).unwrap();
    for kinds in 0..8 {
        let hop = |place: usize| network.node(RELAYS[place + 3 * (kinds >> place & 1)]);
        let path = paths.build(&[hop(0), hop(1), hop(2)]).unwrap();
        let socks = path.socks();
        let order =
            |mib: u64, seed| Order { socks: &socks, target: network.target(), bytes: mib * MIB, seed };
        let over = format!("over {:?}, {:?}, {:?}", hop(0), hop(1), hop(2));
        order(down, 1).download(&mut |_| Ok(())).expect(&over);
        order(up, 2).upload(&mut |_| Ok(())).expect(&over);

        let small = |n| Order { bytes: 20_000 + n as u64, ..order(0, n as u64) };
        let streams = if kinds == 0 { 200 } else { 20 };
        let transfers = parallel(streams, |n| small(n).download(&mut |_| Ok(())));
        assert_eq!(transfers.expect(&over).len(), streams);
        assert_eq!(socks.resolve("sink.test").unwrap(), network.server().address().ip());
    }
    drop(paths);
    assert_no_warnings(&network);
    network
}
