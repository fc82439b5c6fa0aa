//! Links and circuits to the ORPort of the installed `tor`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64Unpadded, Encoding as _};
use onionring_node::link::{
    CircuitError, Dialer, DirRequest, LinkAcceptor, LinkFailure, Service, Side, StreamError, Times,
};
use onionring_node::tls::{Acceptor, Connector, TlsVersions};
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::handshake::{HandshakeError, OnionKey, OnionKeyRing, ServerIdentity, Terms};
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::link::x509::{self, TlsLeaf};
use onionring_proto::link::{ExpectedPeer, LinkIdentity, PeerIdentity};
use onionring_proto::origin::{CloseReason, FirstHop, HandshakeKind, HopTarget, OriginConfig};
use onionring_proto::relay_msg::{Begin, BeginFlags, EndReason, Host, LinkSpecs};
use onionring_proto::time::Unix;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

mod tor;

use tor::Tor;

/// Long enough for a busy machine; nothing waits for it to pass.
const LIMIT: Duration = Duration::from_secs(60);

fn dialer(versions: TlsVersions) -> Dialer {
    Dialer {
        connector: Connector::new(versions).unwrap(),
        identity: None,
        own_addresses: Vec::new(),
        service: None,
        times: Times { dial: LIMIT, tls: LIMIT, handshake: LIMIT },
    }
}

fn config() -> OriginConfig {
    OriginConfig { hop_timeout: LIMIT, ..OriginConfig::default() }
}

/// Who the relay says in its files that it is.
fn expected(peer: PeerIdentity) -> ExpectedPeer {
    ExpectedPeer { rsa_id: Some(peer.rsa_id), ed_id: Some(peer.ed_id) }
}

async fn identity(tor: &Tor) -> PeerIdentity {
    // It opens its port before it writes them, and answers after that.
    dialer(TlsVersions::Both).connect(tor.or_port, ExpectedPeer::default()).await.unwrap();
    let read = |name: &str| std::fs::read_to_string(tor.directory.path().join(name)).unwrap();
    let last = |line: String| line.split_whitespace().last().unwrap().to_owned();
    let mut identity = PeerIdentity { rsa_id: [0; 20], ed_id: [0; 32] };
    let fingerprint = last(read("fingerprint"));
    for (byte, digits) in identity.rsa_id.iter_mut().zip(fingerprint.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    Base64Unpadded::decode(last(read("fingerprint-ed25519")), &mut identity.ed_id).unwrap();
    identity
}

/// Asks the directory of the only hop for the relay's own descriptor.
async fn own_descriptor(circuit: &onionring_node::link::Circuit) -> String {
    let mut stream = circuit.begin_dir(0, LIMIT).await.unwrap();
    stream.write_all(b"GET /tor/server/authority HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn stock_tor_serves_its_descriptor_over_every_first_hop() {
    let tor = Tor::start();
    let peer = identity(&tor).await;
    let expected = expected(peer);
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let link = dialer(versions).connect(tor.or_port, expected).await.unwrap();
        assert_eq!(link.peer(), Some(peer));

        let circuit = link.create(FirstHop::Fast, config()).await.unwrap();
        let mut answer = own_descriptor(&circuit).await;
        // It takes a moment to make one.
        while answer.starts_with("HTTP/1.0 404 ") {
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer = own_descriptor(&circuit).await;
        }
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        let onion_key = answer.lines().find_map(|line| line.strip_prefix("ntor-onion-key ")).unwrap();
        let mut target = HopTarget {
            specs: LinkSpecs { ipv4: None, ipv6: None, rsa_id: peer.rsa_id, ed_id: Some(peer.ed_id) },
            onion_key: [0; 32],
            handshake: HandshakeKind::Ntor,
            ask: Terms::default(),
        };
        Base64Unpadded::decode(onion_key.trim_end_matches('='), &mut target.onion_key).unwrap();

        // On the same link, at the same time; each with its own streams.
        let ntor = link.create(FirstHop::Relay(&target), config()).await.unwrap();
        target.handshake = HandshakeKind::NtorV3;
        let ntor_v3 = link.create(FirstHop::Relay(&target), config()).await.unwrap();
        assert_eq!(link.circuits(), 3);
        let answers = tokio::join!(
            own_descriptor(&ntor),
            own_descriptor(&ntor),
            own_descriptor(&ntor_v3),
            own_descriptor(&circuit),
        );
        for answer in [answers.0, answers.1, answers.2, answers.3] {
            assert!(answer.contains(onion_key), "{answer}");
        }
        assert_eq!(ntor.streams(), 0);

        // A key that it does not have: it answers with one that nobody has, and the link lives on.
        target.handshake = HandshakeKind::Ntor;
        target.onion_key[0] ^= 1;
        let refused = link.create(FirstHop::Relay(&target), config()).await.err().unwrap();
        assert!(
            matches!(
                refused,
                CircuitError::Closed(CloseReason::Handshake {
                    hop: 0,
                    error: HandshakeError::Authentication
                })
            ),
            "{refused}"
        );
        assert!(own_descriptor(&ntor_v3).await.contains(onion_key));
    }
}

#[tokio::test]
async fn stock_tor_is_no_exit_and_names_its_reasons() {
    let tor = Tor::start();
    let link = dialer(TlsVersions::Both).connect(tor.or_port, ExpectedPeer::default()).await.unwrap();
    let circuit = link.create(FirstHop::Fast, config()).await.unwrap();
    let begin = Begin { host: Host::Addr([127, 0, 0, 1].into()), port: 1, flags: BeginFlags::default() };
    let refused = circuit.begin(0, &begin, LIMIT).await.err().unwrap();
    // It takes a client that speaks to an exit directly for a protocol violation.
    assert!(matches!(refused, StreamError::Ended(EndReason::TorProtocol)), "{refused}");
    assert_eq!(circuit.streams(), 0);

    // To itself as the next hop it does not extend.
    let peer = identity(&tor).await;
    let std::net::SocketAddr::V4(address) = tor.or_port else { panic!("the torrc says IPv4") };
    let target = HopTarget {
        specs: LinkSpecs { ipv4: Some(address), ipv6: None, rsa_id: peer.rsa_id, ed_id: Some(peer.ed_id) },
        onion_key: [9; 32],
        handshake: HandshakeKind::Ntor,
        ask: Terms::default(),
    };
    let refused = circuit.extend(&target).await.err().unwrap();
    assert!(matches!(refused, CircuitError::Closed(CloseReason::Destroyed(_))), "{refused}");
    assert!(circuit.begin_dir(0, LIMIT).await.is_err());
}

/// Makes a relay's keys, and the acceptor of its ORPort.
fn authority(requests: mpsc::Sender<DirRequest>) -> (LinkAcceptor, [u8; 20]) {
    let rng = &mut rand::rng();
    let now = Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let leaf = TlsLeaf::generate(now, rng).unwrap();
    let rsa = RsaPrivate::generate(x509::IDENTITY_BITS, rng).unwrap();
    let (ed, signing) = (Ed25519Pair::generate(rng), Ed25519Pair::generate(rng));
    let certified = Certified::Ed25519(signing.public());
    let expires = now + Duration::from_secs(30 * 86_400);
    let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, expires, &ed);
    let identity = LinkIdentity::new(&rsa, &signing_cert, &signing, &leaf.certificate, now, rng).unwrap();
    let rsa_id = rsa.public().rsa_id();
    let onion_keys = OnionKeyRing::new(OnionKey::generate(rng), None, rng);
    let server = ServerIdentity { rsa_id, ed_id: ed.public() };
    let side = Side {
        acceptor: Acceptor::new(&leaf, TlsVersions::Both).unwrap(),
        identity: Arc::new(identity),
        own_addresses: vec![[127, 0, 0, 1].into()],
        service: Some(Arc::new(Service::new(server, onion_keys, requests))),
    };
    (LinkAcceptor::new(side, 8, Times { dial: LIMIT, tls: LIMIT, handshake: LIMIT }), rsa_id)
}

#[tokio::test]
async fn stock_tor_asks_us_for_a_consensus() {
    let (sender, mut requests) = mpsc::channel(8);
    let (acceptor, rsa_id) = authority(sender);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hex: String = rsa_id.iter().map(|byte| format!("{byte:02X}")).collect();
    let _client = Tor::client(listener.local_addr().unwrap(), &hex);

    // Every link is kept until the end: the client opens more than one.
    let accepting = async {
        let mut links = Vec::new();
        loop {
            links.push(acceptor.accept(listener.accept().await.unwrap().0).await.unwrap());
        }
    };
    let asked = async {
        let mut request = requests.recv().await.unwrap();
        assert_eq!(request.peer, None);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(request.stream.read_u8().await.unwrap());
        }
        request.stream.write_all(b"HTTP/1.0 404 Not found\r\n\r\n").await.unwrap();
        request.stream.shutdown().await.unwrap();
        // It has understood that, and asks again in its time.
        requests.recv().await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let head = tokio::select! {
        head = timeout(LIMIT, asked) => head.expect("the client asks"),
        () = accepting => unreachable!("it accepts for ever"),
    };
    assert!(head.starts_with("GET /tor/"), "{head}");
}

#[tokio::test]
async fn the_probe_tells_the_relay_from_others() {
    let tor = Tor::start();
    let peer = identity(&tor).await;
    let dialer = dialer(TlsVersions::Both);
    let established = dialer.probe(tor.or_port, expected(peer)).await.unwrap();
    assert_eq!(established.peer, Some(peer));

    for wrong in [PeerIdentity { rsa_id: [1; 20], ..peer }, PeerIdentity { ed_id: [1; 32], ..peer }] {
        let error = dialer.probe(tor.or_port, expected(wrong)).await.err().unwrap();
        assert!(matches!(error.failure, LinkFailure::WrongIdentity(_)), "{error}");
        assert!(error.to_string().contains(&tor.or_port.to_string()), "{error}");
    }
}
