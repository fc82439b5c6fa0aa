//! The directory in a network of stock tor: fetched through one-hop circuits, kept, and there again after a restart.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onionring_loadgen::net::{Kind, Network, NetworkSpec, Role};
use onionring_proto::dir::backoff::Delays;
use onionring_proto::netdoc::authcert::AuthCert;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use onionring_proto::torrc::Origin;
use onionring_proto::torrc::authority::Authority;
use onionring_proto::torrc::fallback::Fallback;
use onionring_proxy::directory::{
    Directory, DirectorySettings, NoSources, PROTOCOLS, Phase, Schedule, Status, View,
};
use onionring_proxy::links::Links;
use onionring_proxy::network::Families;
use tokio::time::timeout;

/// Long enough for a busy machine; nothing waits for it to pass.
const LIMIT: Duration = Duration::from_secs(120);

fn authorities(net: &Network) -> Vec<Authority> {
    let certs = String::from_utf8(net.document("/tor/keys/all").unwrap()).unwrap();
    let certs: Vec<AuthCert> = AuthCert::parse_all(&certs).map(|(_, cert)| cert.unwrap()).collect();
    let nodes = net.nodes().iter().filter(|node| node.role() == Role::Authority);
    let authority = |node: &onionring_loadgen::net::Node| {
        let Some(SocketAddr::V4(dir)) = node.dir_addr() else { panic!("an IPv4 network") };
        let cert = certs.iter().find(|cert| cert.dir_address == Some(dir)).unwrap();
        Authority {
            origin: Origin::Default,
            nickname: None,
            v3_ident: Some(cert.identity),
            or_port: node.or_addr().map(|address| address.port()),
            dir,
            ipv6: None,
            rsa_id: Fingerprint::from_hex(node.fingerprint()).unwrap(),
            is_bridge_authority: false,
            weight: 1.0,
            upload: Vec::new(),
            download: Vec::new(),
            vote: Vec::new(),
        }
    };
    nodes.map(authority).collect()
}

fn start(cache: &Path, authorities: Vec<Authority>, fallbacks: Vec<Fallback>) -> Directory {
    let settings = DirectorySettings {
        authorities,
        fallbacks,
        cache: cache.to_owned(),
        delays: Delays::TESTING,
        schedule: Schedule::TESTING,
        dial: Families::default(),
        from_authorities: false,
        protocols: Protocols::parse(PROTOCOLS).unwrap(),
    };
    let clock = || Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let links = Arc::new(Links::new().unwrap());
    Directory::start(settings, links, Arc::new(NoSources), Arc::new(clock)).unwrap()
}

async fn until(directory: &Directory, enough: impl Fn(&Status, Option<&View>) -> bool) {
    let look = async {
        while !enough(&directory.status(), directory.view().borrow().as_deref()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(LIMIT, look).await.is_err() {
        panic!("not in time: {:?}", directory.status());
    }
}

#[tokio::test]
async fn a_client_bootstraps_renews_and_starts_again() {
    let spec = NetworkSpec::stock().add(Role::Relay, Kind::TOR, 1).add(Role::Exit, Kind::TOR, 1);
    let net = spec.voting_interval(20).boot().unwrap_or_else(|error| panic!("{error}"));
    let authorities = authorities(&net);
    let relay = net.nodes().iter().find(|node| node.role() == Role::Relay).unwrap();
    let fallback = Fallback {
        origin: Origin::Default,
        or: relay.or_addr().unwrap(),
        ipv6: None,
        rsa_id: Fingerprint::from_hex(relay.fingerprint()).unwrap(),
        weight: 1.0,
    };
    let disk = tempfile::tempdir().unwrap();
    let directory = start(disk.path(), authorities.clone(), vec![fallback]);
    until(&directory, |_, view| view.is_some_and(|view| view.is_sufficient)).await;
    let status = directory.status();
    assert_eq!((status.phase, status.clock, status.fatal), (Phase::EnoughKnown, None, None));
    assert_eq!(status.kept.unfit, 0);
    let first = status.lifetime.unwrap().valid_after;
    // The next comes by itself, sooner or later as a difference from the one before.
    until(&directory, |status, _| status.lifetime.is_some_and(|lifetime| lifetime.valid_after > first)).await;
    until(&directory, |status, _| status.kept.diffs > 0).await;
    assert_eq!(directory.status().kept.unfit, 0);
    drop(directory);

    // Nobody is there any more.
    drop(net);
    let nowhere = SocketAddrV4::new([127, 0, 0, 1].into(), 1);
    let gone = authorities.into_iter().map(|a| Authority { or_port: None, dir: nowhere, ..a }).collect();
    let directory = start(disk.path(), gone, Vec::new());
    until(&directory, |_, view| view.is_some_and(|view| view.is_sufficient)).await;
    assert_eq!(directory.status().kept.answered, 0);
}
