//! Stock relays are reached, and found to do what they should.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onionring_dirauth::http;
use onionring_dirauth::reach::{ListenAt, Options, Outcome, Paces, Prober, Setup, Test};
use onionring_node::link::{Dialer, Times};
use onionring_node::tls::{Connector, TlsVersions};
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::link::LinkIdentity;
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::link::x509::{IDENTITY_BITS, TlsLeaf};
use onionring_proto::netdoc::text::Fingerprint;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::net::TcpListener;

use crate::authority::now;
use crate::dir_port::open;
use crate::relay::Relay;

const PATIENCE: Duration = Duration::from_secs(180);

fn link_identity() -> LinkIdentity {
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let leaf = TlsLeaf::generate(now(), rng).unwrap();
    let rsa = RsaPrivate::generate(IDENTITY_BITS, rng).unwrap();
    let (ed, signing) = (Ed25519Pair::generate(rng), Ed25519Pair::generate(rng));
    let (certified, expires) = (Certified::Ed25519(signing.public()), now() + Duration::from_secs(86_400));
    let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, expires, &ed);
    LinkIdentity::new(&rsa, &signing_cert, &signing, &leaf.certificate, now(), rng).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_relays_pass_all_tests() {
    let homes = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap();
    let directory = Arc::new(open(homes[0].path()));
    tokio::spawn(http::serve(listener, Arc::new(http::Desk::new(directory.clone(), Arc::default()))));
    // Without a consensus they know of no other relays, and let out what comes from them all the same.
    let exit = "Nickname exit\nExitRelay 1\nExitPolicyRejectPrivate 0\nExitPolicy accept *:*\nRefuseUnknownExits 0\n";
    let relays = [
        Relay::start(homes[1].path(), port, "Nickname one\nExitRelay 0\n"),
        Relay::start(homes[2].path(), port, "Nickname two\nExitRelay 0\n"),
        Relay::start(homes[3].path(), port, exit),
    ];

    let connector = Connector::new(TlsVersions::Both).unwrap();
    let second = Duration::from_secs(1);
    let times = Times { dial: 10 * second, tls: 10 * second, handshake: 10 * second };
    let client = Dialer { connector, identity: None, own_addresses: Vec::new(), service: None, times };
    let prober = Prober::start(Setup {
        us: Fingerprint([1; 20]),
        options: Options {
            test_reachability: true,
            ipv6: false,
            ed25519_link_keys: true,
            circuits: true,
            testing: true,
        },
        paces: Paces::new(true),
        relays: directory.clone(),
        relay_dialer: Dialer { identity: Some(Arc::new(link_identity())), ..client.clone() },
        client_dialer: client,
        listen: Some(ListenAt { bind: (Ipv4Addr::LOCALHOST, 0).into(), public: Ipv4Addr::LOCALHOST }),
        stability: Arc::default(),
        state: homes[0].path().join("relay-reachability"),
        clock: Arc::new(now),
        rng: Box::new(ChaCha20Rng::seed_from_u64(2)),
    })
    .unwrap();

    let passed = |test| prober.counts().get(test, Outcome::Passed);
    let all = [
        Test::LinkV4,
        Test::Round,
        Test::Handshake,
        Test::Extend,
        Test::Carry,
        Test::Directory,
        Test::Exit,
        Test::ExitRefusal,
    ];
    let begun = Instant::now();
    while prober.standing().proven < 3 || all.iter().any(|test| passed(*test) == 0) {
        let counts: Vec<_> = Test::ALL
            .iter()
            .map(|test| (test.label(), Outcome::ALL.map(|outcome| prober.counts().get(*test, outcome))))
            .collect();
        if begun.elapsed() > PATIENCE {
            let said = relays.each_ref().map(Relay::said).join("\n\n");
            panic!("{:?} {counts:?}\n{said}", prober.standing());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for test in Test::ALL {
        assert_eq!(prober.counts().get(test, Outcome::Failed), 0, "{test:?}");
    }
    let names = directory.uploads().store().newest().keys().copied().collect::<Vec<_>>();
    assert!(names.iter().all(|relay| prober.reached(relay).v4.is_some()));
    prober.stop().await;
}
