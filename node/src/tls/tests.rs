use std::sync::OnceLock;

use onionring_proto::time::Unix;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;

/// The certificate that all tests use: its key takes a while to make.
fn leaf() -> &'static TlsLeaf {
    static LEAF: OnceLock<TlsLeaf> = OnceLock::new();
    LEAF.get_or_init(|| TlsLeaf::generate(Unix(1_800_000_000), &mut StdRng::seed_from_u64(0)).unwrap())
}

fn acceptor(versions: TlsVersions) -> Acceptor {
    Acceptor::new(leaf(), versions).unwrap()
}

fn connect(versions: TlsVersions) -> TlsStream {
    Connector::new(versions).unwrap().connect(&mut StdRng::seed_from_u64(1)).unwrap()
}

/// Leaves the session to rustls, also after its handshake.
fn by_rustls(mut side: TlsStream) -> TlsStream {
    if let Session::Rustls(_, capture) = &mut side.session {
        *capture = None;
    }
    side
}

fn conn(side: &TlsStream) -> &Connection {
    match &side.session {
        Session::Rustls(conn, _) => conn,
        Session::Records(_) | Session::Dead => panic!("rustls has left"),
    }
}

/// Moves ciphertext from one side to the other until there is none left; returns what came out.
fn flow(from: &mut TlsStream, to: &mut TlsStream) -> Result<Vec<u8>, TlsError> {
    let (mut wire, mut plaintext) = (Vec::new(), Vec::new());
    while from.wants_transmit() {
        from.transmit(&mut wire).unwrap();
    }
    to.open(&wire, &mut plaintext)?;
    Ok(plaintext)
}

/// Completes a handshake; returns how many flights the initiator sent.
fn shake(initiator: &mut TlsStream, responder: &mut TlsStream) -> Result<usize, TlsError> {
    let mut flights = 0;
    while initiator.is_handshaking() || responder.is_handshaking() {
        flights += usize::from(initiator.wants_transmit());
        assert_eq!(flow(initiator, responder)?, b"");
        assert_eq!(flow(responder, initiator)?, b"");
        assert!(flights < 4, "the handshake goes round in circles");
    }
    Ok(flights)
}

fn pair(versions: TlsVersions) -> (TlsStream, TlsStream) {
    pair_of(connect(TlsVersions::Both), acceptor(versions).accept().unwrap())
}

fn pair_of(mut initiator: TlsStream, mut responder: TlsStream) -> (TlsStream, TlsStream) {
    assert_eq!(shake(&mut initiator, &mut responder).unwrap(), 2);
    (initiator, responder)
}

/// Two sides that rustls keeps.
fn pair_by_rustls(versions: TlsVersions) -> (TlsStream, TlsStream) {
    pair_of(by_rustls(connect(TlsVersions::Both)), by_rustls(acceptor(versions).accept().unwrap()))
}

#[test]
fn data_flows_both_ways_in_both_versions() {
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13, TlsVersions::Both] {
        let (mut initiator, mut responder) = pair(versions);
        for side in [&initiator, &responder] {
            let is_tls12 = matches!(side.session, Session::Rustls(_, _));
            assert_eq!(is_tls12, versions == TlsVersions::Tls12);
        }
        assert_eq!(initiator.peer_certificate(), Some(leaf().certificate.as_slice()));
        assert_eq!(responder.peer_certificate(), None);

        // More than four full records, and a short one.
        let sent: Vec<u8> = (0..70_000u32).map(|i| (i % 251) as u8).collect();
        initiator.seal(&sent).unwrap();
        assert_eq!(flow(&mut initiator, &mut responder).unwrap(), sent);
        responder.seal(b"short").unwrap();
        assert_eq!(flow(&mut responder, &mut initiator).unwrap(), b"short");
    }
}

#[test]
fn ciphertext_may_come_byte_by_byte() {
    let (mut initiator, mut responder) = pair(TlsVersions::Both);
    initiator.seal(&[7; 20_000]).unwrap();
    let (mut wire, mut plaintext) = (Vec::new(), Vec::new());
    while initiator.wants_transmit() {
        initiator.transmit(&mut wire).unwrap();
    }
    for byte in wire {
        responder.open(&[byte], &mut plaintext).unwrap();
    }
    assert_eq!(plaintext, [7; 20_000]);
}

#[test]
fn both_sides_export_the_same_keying_material() {
    let by_hand_and_by_rustls =
        pair_of(connect(TlsVersions::Both), by_rustls(acceptor(TlsVersions::Tls13).accept().unwrap()));
    for (initiator, responder) in [pair(TlsVersions::Tls12), pair(TlsVersions::Tls13), by_hand_and_by_rustls]
    {
        let export = |side: &TlsStream, context: &[u8]| {
            let mut out = [0; 32];
            side.export_keying_material(b"EXPORTER FOR TOR TLS CLIENT BINDING AUTH0003", context, &mut out)
                .unwrap();
            out
        };
        assert_eq!(export(&initiator, &[1; 32]), export(&responder, &[1; 32]));
        assert_ne!(export(&initiator, &[1; 32]), export(&initiator, &[2; 32]));
    }
    let early = connect(TlsVersions::Both);
    assert!(matches!(early.export_keying_material(b"EXPORTER", b"", &mut [0; 32]), Err(TlsError::Export(_))));
}

#[test]
fn our_own_programs_agree_on_post_quantum_key_exchange_without_a_retry() {
    let (initiator, responder) = pair_by_rustls(TlsVersions::Tls13);
    for side in [&initiator, &responder] {
        let group = conn(side).negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
        assert_eq!(conn(side).handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

/// C tor's initiators bring a key share for P-256 alone, arti's for X25519 alone.
#[test]
fn a_key_share_for_either_classical_group_needs_no_retry() {
    for (first, second) in [
        (ring::kx_group::SECP256R1, ring::kx_group::X25519),
        (ring::kx_group::X25519, ring::kx_group::SECP256R1),
    ] {
        let provider = CryptoProvider { kx_groups: vec![first, second], ..crypto_provider() };
        let verifier = AnyChain(provider.signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let connector = Connector { config: Arc::new(config) };
        let mut initiator = by_rustls(connector.connect(&mut StdRng::seed_from_u64(2)).unwrap());
        let mut responder = by_rustls(acceptor(TlsVersions::Both).accept().unwrap());
        shake(&mut initiator, &mut responder).unwrap();
        assert_eq!(conn(&responder).negotiated_key_exchange_group().unwrap().name(), first.name());
        assert_eq!(conn(&responder).handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn sessions_are_never_resumed() {
    let (connector, acceptor) = (Connector::new(TlsVersions::Both).unwrap(), acceptor(TlsVersions::Both));
    for _ in 0..2 {
        let mut initiator = by_rustls(connector.connect(&mut StdRng::seed_from_u64(3)).unwrap());
        let mut responder = acceptor.accept().unwrap();
        shake(&mut initiator, &mut responder).unwrap();
        assert_eq!(conn(&initiator).handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert!(!responder.wants_transmit(), "a session ticket");
    }
}

#[test]
fn versions_without_overlap_fail_on_both_sides() {
    let mut initiator = connect(TlsVersions::Tls12);
    let mut responder = acceptor(TlsVersions::Tls13).accept().unwrap();
    assert!(matches!(flow(&mut initiator, &mut responder), Err(TlsError::Peer(_))));
    assert!(responder.wants_transmit(), "an alert");
    assert!(matches!(flow(&mut responder, &mut initiator), Err(TlsError::Peer(_))));
}

#[test]
fn a_certificate_with_another_key_is_refused() {
    // The signature in the handshake is over a key that the leaf does not hold.
    let other = rustls::crypto::ring::sign::any_supported_type(
        &PrivatePkcs8KeyDer::from(leaf().key.as_slice()).clone_key().into(),
    );
    let mut leaf = leaf().certificate.clone();
    let modulus = leaf.windows(4).position(|w| w == [0x02, 0x82, 0x01, 0x01]).unwrap();
    leaf[modulus + 100] ^= 1;
    let certified = rustls::sign::CertifiedKey::new(vec![leaf.into()], other.unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(crypto_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let mut responder = TlsStream::new(ServerConnection::new(Arc::new(config)).unwrap().into(), None);
    let mut initiator = connect(TlsVersions::Both);
    assert!(matches!(shake(&mut initiator, &mut responder), Err(TlsError::Peer(_))));
}

#[test]
fn a_changed_byte_is_found_and_what_came_before_it_stands() {
    let (mut initiator, mut responder) = pair(TlsVersions::Both);
    let (mut wire, mut plaintext) = (Vec::new(), Vec::new());
    for part in [b"first", b"other"] {
        initiator.seal(part).unwrap();
        initiator.transmit(&mut wire).unwrap();
    }
    *wire.last_mut().unwrap() ^= 1;
    assert!(matches!(responder.open(&wire, &mut plaintext), Err(TlsError::Peer(_))));
    assert_eq!(plaintext, b"first");
}

#[test]
fn arbitrary_bytes_are_an_error() {
    let mut responder = acceptor(TlsVersions::Both).accept().unwrap();
    let result = responder.open(b"GET / HTTP/1.0\r\n\r\n", &mut Vec::new());
    assert!(matches!(result, Err(TlsError::Peer(_))));
    for broken in [
        TlsLeaf { certificate: b"junk".to_vec(), key: leaf().key.clone() },
        TlsLeaf { certificate: leaf().certificate.clone(), key: b"junk".to_vec().into() },
    ] {
        assert!(matches!(Acceptor::new(&broken, TlsVersions::Both), Err(TlsError::OwnCertificate(_))));
    }
}

#[test]
fn a_close_is_seen_and_what_follows_is_ignored() {
    let (mut initiator, mut responder) = pair(TlsVersions::Both);
    initiator.seal(b"bye").unwrap();
    initiator.close();
    assert_eq!(flow(&mut initiator, &mut responder).unwrap(), b"bye");
    assert!(responder.peer_has_closed());
    responder.open(&[0; 100], &mut Vec::new()).unwrap();
}
