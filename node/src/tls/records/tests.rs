//! Our records against rustls' on the other side, and against what no honest peer sends.

use std::sync::{Arc, OnceLock};

use onionring_proto::link::x509::TlsLeaf;
use onionring_proto::time::Unix;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{Connection, ServerConfig, ServerConnection, SupportedCipherSuite};

use super::*;
use crate::tls::{Acceptor, Connector, Session, TlsError, TlsStream, TlsVersions, crypto_provider};

const SUITES: [SupportedCipherSuite; 3] =
    [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];

fn leaf() -> &'static TlsLeaf {
    static LEAF: OnceLock<TlsLeaf> = OnceLock::new();
    LEAF.get_or_init(|| TlsLeaf::generate(Unix(1_800_000_000), &mut StdRng::seed_from_u64(4)).unwrap())
}

fn connect() -> TlsStream {
    Connector::new(TlsVersions::Tls13).unwrap().connect(&mut StdRng::seed_from_u64(5)).unwrap()
}

/// A responder that rustls keeps, of one suite.
fn rustls_responder(suite: SupportedCipherSuite) -> TlsStream {
    let provider = CryptoProvider { cipher_suites: vec![suite], ..crypto_provider() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf().certificate.clone().into()],
            PrivatePkcs8KeyDer::from(leaf().key.as_slice()).clone_key().into(),
        )
        .unwrap();
    // Tickets, which ours do not send and must bear.
    config.send_tls13_tickets = 2;
    TlsStream::new(ServerConnection::new(Arc::new(config)).unwrap().into(), None)
}

use rustls::crypto::CryptoProvider;

fn wire(from: &mut TlsStream) -> Vec<u8> {
    let mut wire = Vec::new();
    while from.wants_transmit() {
        from.transmit(&mut wire).unwrap();
    }
    wire
}

fn flow(from: &mut TlsStream, to: &mut TlsStream) -> Result<Vec<u8>, TlsError> {
    let mut plaintext = Vec::new();
    to.open(&wire(from), &mut plaintext)?;
    Ok(plaintext)
}

fn shake(mut initiator: TlsStream, mut responder: TlsStream) -> (TlsStream, TlsStream) {
    while initiator.is_handshaking() || responder.is_handshaking() {
        flow(&mut initiator, &mut responder).unwrap();
        flow(&mut responder, &mut initiator).unwrap();
    }
    (initiator, responder)
}

/// Ours as the initiator, rustls as the responder.
fn with_rustls(suite: SupportedCipherSuite) -> (TlsStream, TlsStream) {
    let (ours, theirs) = shake(connect(), rustls_responder(suite));
    assert!(matches!(ours.session, Session::Records(_)));
    (ours, theirs)
}

/// Ours on both sides, for all that rustls would not send.
fn ours() -> (TlsStream, TlsStream) {
    let acceptor = Acceptor::new(leaf(), TlsVersions::Tls13).unwrap();
    shake(connect(), acceptor.accept().unwrap())
}

fn records(side: &mut TlsStream) -> (&mut Records, &mut Vec<u8>) {
    match &mut side.session {
        Session::Records(records) => (records, &mut side.outgoing),
        _ => panic!("not ours"),
    }
}

fn rustls_of(side: &mut TlsStream) -> &mut Connection {
    match &mut side.session {
        Session::Rustls(conn, _) => conn,
        _ => panic!("not rustls'"),
    }
}

/// A record of any kind from one side of ours, to the other; returns what the other makes of it.
fn send(kind: ContentType, content: &[u8]) -> (Result<(), TlsError>, TlsStream, TlsStream) {
    let (mut from, mut to) = ours();
    let (records, out) = records(&mut from);
    records.record(out, kind, |out| out.extend_from_slice(content));
    let result = flow(&mut from, &mut to).map(drop);
    (result, from, to)
}

#[test]
fn every_suite_carries_data_both_ways_to_rustls() {
    for suite in SUITES {
        let (mut ours, mut theirs) = with_rustls(suite);
        let sent: Vec<u8> = (0..70_000u32).map(|i| (i % 251) as u8).collect();
        for _ in 0..3 {
            ours.seal(&sent).unwrap();
            assert_eq!(flow(&mut ours, &mut theirs).unwrap(), sent);
            theirs.seal(&sent).unwrap();
            assert_eq!(flow(&mut theirs, &mut ours).unwrap(), sent);
        }
        let mut keys = [[0; 32]; 2];
        for (key, side) in keys.iter_mut().zip([&ours, &theirs]) {
            side.export_keying_material(b"EXPORTER", b"context", key).unwrap();
        }
        assert_eq!(keys[0], keys[1]);
    }
}

#[test]
fn more_than_a_record_holds_goes_into_several() {
    let (mut ours, mut theirs) = with_rustls(SUITES[0]);
    let sent = vec![9; 3 * MAX_PLAINTEXT + 1];
    assert_eq!(ours.seal_with(|out| out.extend_from_slice(&sent)).unwrap(), sent.len());
    assert_eq!(flow(&mut ours, &mut theirs).unwrap(), sent);
    assert_eq!(ours.seal_with(|_| ()).unwrap(), 0);
    assert!(!ours.wants_transmit(), "an empty record");
}

#[test]
fn a_buffer_is_lent_until_all_is_sent() {
    let (mut ours, mut theirs) = with_rustls(SUITES[0]);
    let mut buffer = Vec::with_capacity(100_000);
    ours.lend(&mut buffer);
    ours.seal(b"first").unwrap();
    ours.reclaim(&mut buffer);
    assert!(buffer.capacity() >= 100_000 && buffer.is_empty());
    assert!(ours.outgoing.capacity() < 100, "it keeps what is to be sent, and no more");
    // The socket takes a part.
    struct Narrow(Vec<u8>);
    impl std::io::Write for Narrow {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            let some = &buf[..buf.len().min(7)];
            self.0.extend_from_slice(some);
            Ok(some.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut wire = Narrow(Vec::new());
    while ours.wants_transmit() {
        ours.transmit(&mut wire).unwrap();
    }
    let mut plaintext = Vec::new();
    theirs.open(&wire.0, &mut plaintext).unwrap();
    assert_eq!(plaintext, b"first");
    ours.lend(&mut buffer);
    ours.reclaim(&mut buffer);
    assert!(buffer.capacity() >= 100_000);
    assert_eq!(ours.outgoing.capacity(), 0);
}

#[test]
fn keys_are_updated_on_either_sides_wish() {
    for suite in SUITES {
        let (mut ours, mut theirs) = with_rustls(suite);
        for round in 0..3 {
            // Theirs, which asks for ours too.
            rustls_of(&mut theirs).refresh_traffic_keys().unwrap();
            theirs.seal(b"new").unwrap();
            assert_eq!(flow(&mut theirs, &mut ours).unwrap(), b"new", "round {round}");
            ours.seal(b"answer").unwrap();
            assert_eq!(flow(&mut ours, &mut theirs).unwrap(), b"answer");
            // Ours, when the key has served long enough.
            let (records, _) = records(&mut ours);
            assert_eq!(records.sealing.sequence, 1, "a key of its own");
            records.suite.limit = 1;
            ours.seal(b"newer").unwrap();
            assert_eq!(flow(&mut ours, &mut theirs).unwrap(), b"newer");
            self::records(&mut ours).0.suite.limit = u64::MAX;
        }
    }
}

#[test]
fn records_without_data_are_refused_if_there_is_no_end_of_them() {
    for (kind, content) in [
        (ContentType::Handshake, &[24, 0, 0, 1, 0][..]),
        (ContentType::Alert, &[1, 90]),
        // No data at all: its type, as the last byte that is not zero.
        (ContentType::Unknown(0), &[23]),
    ] {
        let (mut from, mut to) = ours();
        let send = |from: &mut TlsStream, to: &mut TlsStream, times: u8| {
            for _ in 0..times {
                let (records, out) = records(from);
                if kind == ContentType::Handshake {
                    records.update(out);
                } else {
                    records.record(out, kind, |out| out.extend_from_slice(content));
                }
            }
            flow(from, to)
        };
        send(&mut from, &mut to, MAX_FRUITLESS).unwrap();
        from.seal(b"data between them").unwrap();
        flow(&mut from, &mut to).unwrap();
        let result = send(&mut from, &mut to, MAX_FRUITLESS + 1);
        assert!(
            matches!(result, Err(TlsError::Peer(rustls::Error::PeerMisbehaved(_)))),
            "{kind:?}: {result:?}"
        );
    }
}

#[test]
fn nothing_follows_a_fatal_alert() {
    let (mut from, mut to) = ours();
    assert!(to.open(b"GET / HTTP/1.0\r\n\r\n", &mut Vec::new()).is_err());
    let alert = wire(&mut to);
    assert!(!alert.is_empty());
    to.seal(b"more").unwrap();
    to.close();
    assert!(!to.wants_transmit());
    assert!(matches!(
        from.open(&alert, &mut Vec::new()),
        Err(TlsError::Peer(rustls::Error::AlertReceived(_)))
    ));
}

/// A server that has something to say at once says it before our end of the handshake is on its way.
#[test]
fn what_comes_before_our_finished_is_sent_is_read() {
    let (mut initiator, mut responder) = (connect(), rustls_responder(SUITES[0]));
    flow(&mut initiator, &mut responder).unwrap();
    responder.seal(b"early").unwrap();
    rustls_of(&mut responder).refresh_traffic_keys().ok();
    let mut plaintext = Vec::new();
    initiator.open(&wire(&mut responder), &mut plaintext).unwrap();
    flow(&mut initiator, &mut responder).unwrap();
    plaintext.extend(flow(&mut responder, &mut initiator).unwrap());
    assert_eq!(plaintext, b"early");
    assert!(matches!(initiator.session, Session::Records(_)));
    initiator.seal(b"answer").unwrap();
    assert_eq!(flow(&mut initiator, &mut responder).unwrap(), b"answer");
}

#[test]
fn a_close_is_said_and_heard() {
    let (mut ours, mut theirs) = with_rustls(SUITES[0]);
    ours.close();
    assert_eq!(flow(&mut ours, &mut theirs).unwrap(), b"");
    assert!(theirs.peer_has_closed());
    let (mut ours, mut theirs) = with_rustls(SUITES[0]);
    theirs.close();
    flow(&mut theirs, &mut ours).unwrap();
    assert!(ours.peer_has_closed());
}

#[test]
fn rustls_understands_our_alert_when_it_sends_what_is_wrong() {
    let (mut ours, mut theirs) = with_rustls(SUITES[0]);
    theirs.seal(b"spoiled").unwrap();
    let mut spoiled = wire(&mut theirs);
    *spoiled.last_mut().unwrap() ^= 1;
    let result = ours.open(&spoiled, &mut Vec::new());
    assert!(matches!(result, Err(TlsError::Peer(rustls::Error::DecryptError))), "{result:?}");
    let heard = flow(&mut ours, &mut theirs);
    let expected = rustls::Error::AlertReceived(AlertDescription::BadRecordMac);
    assert!(matches!(&heard, Err(TlsError::Peer(error)) if *error == expected), "{heard:?}");
}

#[test]
fn what_must_not_come_after_the_handshake_is_an_error() {
    let ticket = [4, 0, 0, 1, 0];
    for (kind, content) in [
        (ContentType::ChangeCipherSpec, &[1][..]),
        (ContentType::Heartbeat, &[1]),
        // A session ticket, for a server.
        (ContentType::Handshake, &ticket),
        // A ClientHello.
        (ContentType::Handshake, &[1, 0, 0, 0]),
        // KeyUpdates: of no such kind, too long, with more behind it.
        (ContentType::Handshake, &[24, 0, 0, 1, 2]),
        (ContentType::Handshake, &[24, 0, 0, 2, 0, 0]),
        (ContentType::Handshake, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]),
        // Longer than any message may be.
        (ContentType::Handshake, &[24, 1, 0, 0]),
        (ContentType::Alert, &[2]),
        (ContentType::Alert, &[2, 40]),
    ] {
        let (result, _, to) = send(kind, content);
        assert!(matches!(result, Err(TlsError::Peer(_))), "{kind:?} {content:?}: {result:?}");
        assert_eq!(to.wants_transmit(), (kind, content) != (ContentType::Alert, &[2, 40]), "an alert");
    }
    for content in [&[1, 0][..], &[1, 90]] {
        send(ContentType::Alert, content).0.unwrap();
    }
}

#[test]
fn messages_of_the_handshake_may_come_in_pieces_but_with_nothing_between() {
    let (mut from, mut to) = ours();
    for piece in [&[24, 0][..], &[0, 1]] {
        let (records, out) = records(&mut from);
        records.record(out, ContentType::Handshake, |out| out.extend_from_slice(piece));
    }
    flow(&mut from, &mut to).unwrap();
    assert_eq!(records(&mut to).0.message, [24, 0, 0, 1]);
    from.seal(b"data").unwrap();
    assert!(matches!(flow(&mut from, &mut to), Err(TlsError::Peer(_))));
}

#[test]
fn headers_are_judged_before_their_records_are_there() {
    for header in [
        // Longer than a record may be.
        [23, 3, 3, 0x41, 0x01],
        // Not encrypted.
        [21, 3, 3, 0, 2],
        [22, 3, 3, 0, 4],
        [20, 3, 3, 0, 1],
        *b"GET /",
    ] {
        let (_, mut to) = ours();
        assert!(matches!(to.open(&header, &mut Vec::new()), Err(TlsError::Peer(_))), "{header:?}");
        assert!(to.wants_transmit(), "an alert");
    }
    // Too short for a tag, and nothing but padding.
    let (_, mut to) = ours();
    assert!(matches!(to.open(&[23, 3, 3, 0, 3, 1, 2, 3], &mut Vec::new()), Err(TlsError::Peer(_))));
    let (mut from, mut to) = ours();
    let (records, out) = records(&mut from);
    records.record(out, ContentType::Unknown(0), |out| out.extend_from_slice(&[0; 10]));
    assert!(matches!(flow(&mut from, &mut to), Err(TlsError::Peer(_))));
}

#[test]
fn padding_is_taken_off() {
    let (mut from, mut to) = ours();
    let (records, out) = records(&mut from);
    // As the content of the record: data, its type, and padding, the last byte of which `record` adds.
    records.record(out, ContentType::Unknown(0), |out| out.extend_from_slice(b"padded\x17\0\0\0\0"));
    assert_eq!(flow(&mut from, &mut to).unwrap(), b"padded");
}

#[test]
fn secrets_that_do_not_fit_the_keys_are_refused() {
    use crate::tls::secrets::Capture;
    use rustls::KeyLog as _;
    let extracted = || ExtractedSecrets {
        tx: (0, ConnectionTrafficSecrets::Aes128Gcm { key: [7; 32].into(), iv: [7; 12].into() }),
        rx: (0, ConnectionTrafficSecrets::Aes128Gcm { key: [7; 32].into(), iv: [7; 12].into() }),
    };
    let capture = Capture::default();
    for label in ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0", "EXPORTER_SECRET"] {
        capture.log(label, &[], &[1; 32]);
    }
    let secrets = capture.take();
    let suite = CipherSuite::TLS13_AES_128_GCM_SHA256;
    assert!(Records::new(Side::Client, suite, secrets, &extracted()).is_none());
    assert!(Records::new(Side::Client, suite, Secrets::default(), &extracted()).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the network cuts it, and whether it is opened in place or not, the same comes out.
    #[test]
    fn cuts_do_not_matter(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 1..20),
        cuts in prop::collection::vec(1usize..3000, 1..60),
        in_place: bool,
    ) {
        let (mut ours, mut theirs) = ours();
        for part in &parts {
            theirs.seal(part).unwrap();
        }
        let wire = wire(&mut theirs);
        let (mut rest, mut plaintext, mut cuts) = (&wire[..], Vec::new(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            rest = tail;
            if in_place {
                let mut buf = [ours.partial(), piece].concat();
                let (len, result) = ours.open_in_place(&mut buf);
                result.unwrap();
                plaintext.extend_from_slice(&buf[..len]);
            } else {
                ours.open(piece, &mut plaintext).unwrap();
            }
        }
        prop_assert_eq!(plaintext, parts.concat());
        prop_assert!(ours.partial().is_empty());
    }

    /// Bytes from somebody without the keys do no harm, whatever they are and after whatever came before.
    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 5..300), header: bool) {
        let (mut from, mut to) = ours();
        from.seal(b"before").unwrap();
        let mut wire = wire(&mut from);
        if header {
            let len = (noise.len() as u16).to_be_bytes();
            wire.extend_from_slice(&[23, 3, 3, len[0], len[1]]);
        }
        wire.extend_from_slice(&noise);
        let mut plaintext = Vec::new();
        let result = to.open(&wire, &mut plaintext);
        prop_assert_eq!(plaintext, b"before");
        prop_assert!(result.is_err() || !to.partial().is_empty());
    }

    /// Whatever a peer with the keys sends, it is bounded what we keep of it.
    #[test]
    fn strange_records_are_borne(
        strange in prop::collection::vec((0u8..30, prop::collection::vec(any::<u8>(), 0..40)), 1..8),
    ) {
        let (mut from, mut to) = ours();
        for (kind, content) in strange {
            let (records, out) = records(&mut from);
            records.record(out, ContentType::from(kind), |out| out.extend_from_slice(&content));
        }
        let wire = wire(&mut from);
        let _ = to.open(&wire, &mut Vec::new());
        if let Session::Records(records) = &to.session {
            prop_assert!(records.message.len() <= MESSAGE_HEADER_LEN + MAX_MESSAGE);
        }
    }
}
