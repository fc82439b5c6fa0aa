use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cell::BODY_LEN;
use crate::crypto::ed25519::BadSignature;
use crate::link::cert::CertError;
use crate::link::msg::{auth_challenge, certs};
use crate::link::tests::{NOW, Relay, rng};
use crate::link::x509::X509Error;

mod recorded;

const INITIATOR_AT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const RESPONDER_AT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));

/// Stands for one TLS session; both ends must hold the same one.
struct Session(u8);

impl TlsExporter for Session {
    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8; 32]) -> Result<(), ExportError> {
        *out =
            Sha256::new().chain_update([self.0]).chain_update(label).chain_update(context).finalize().into();
        Ok(())
    }
}

const SESSION: Session = Session(1);

fn params(versions: &[LinkVersion], peer_address: IpAddr, own_address: IpAddr) -> LinkParams {
    LinkParams { versions: versions.to_vec(), peer_address, own_addresses: vec![own_address] }
}

fn responder(versions: &[LinkVersion]) -> Handshake {
    Handshake::responder(Relay::two().link_identity(), params(versions, INITIATOR_AT, RESPONDER_AT))
}

fn initiator_to(expected: ExpectedPeer, relay: bool, versions: &[LinkVersion]) -> Handshake {
    let identity = relay.then(|| Relay::one().link_identity());
    let params = params(versions, RESPONDER_AT, INITIATOR_AT);
    Handshake::initiator(identity, expected, Relay::two().tls_leaf, params)
}

fn initiator(relay: bool, versions: &[LinkVersion]) -> Handshake {
    let two = Relay::two().public();
    initiator_to(ExpectedPeer { rsa_id: Some(two.rsa_id), ed_id: Some(two.ed_id) }, relay, versions)
}

fn sent(handshake: &mut Handshake) -> Vec<u8> {
    let mut out = Vec::new();
    handshake.poll_transmit(&mut out);
    out
}

/// Gives all the bytes at once and expects them to be consumed.
fn give(handshake: &mut Handshake, bytes: &[u8]) -> Result<Option<Established>, LinkError> {
    let mut buf = bytes.to_vec();
    let (consumed, established) = handshake.handle(NOW, &mut buf, &SESSION, &mut rng(5))?;
    assert_eq!(consumed, bytes.len());
    Ok(established)
}

/// One cell on the wire.
#[derive(Clone, Debug)]
struct Cell {
    command: Command,
    bytes: Vec<u8>,
}

impl Cell {
    fn new(version: LinkVersion, circ_id: CircId, command: Command, body: &[u8]) -> Cell {
        let mut bytes = Vec::new();
        if command.is_variable() {
            cell::write_variable(version.into(), circ_id, command, body, &mut bytes);
        } else {
            cell::write_zero_filled(version, circ_id, command, body, &mut bytes);
        }
        Cell { command, bytes }
    }
}

/// Divides a flight into cells. VERSIONS tells that the framing changes from the initial one to `version`.
fn cells(mut framing: Framing, version: LinkVersion, flight: &[u8]) -> Vec<Cell> {
    let mut rest = flight.to_vec();
    let mut out = Vec::new();
    while let Some((used, frame)) = cell::next_frame(framing, &mut rest).unwrap() {
        let command = frame.command();
        if command == Command::VERSIONS {
            framing = version.into();
        }
        out.push(Cell { command, bytes: rest.drain(..used).collect() });
    }
    assert!(rest.is_empty());
    out
}

fn join(cells: &[Cell]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.bytes.clone()).collect()
}

fn find(cells: &[Cell], command: Command) -> usize {
    cells.iter().position(|cell| cell.command == command).unwrap()
}

/// Both sides up to the last flight: the responder, waiting, and the cells the initiator sent (without VERSIONS).
fn before_last_flight(relay: bool, version: LinkVersion) -> (Handshake, Vec<Cell>) {
    let (mut initiator, mut responder) = (initiator(relay, &[version]), responder(&[version]));
    assert!(give(&mut responder, &sent(&mut initiator)).unwrap().is_none());
    assert!(give(&mut initiator, &sent(&mut responder)).unwrap().is_some());
    (responder, cells(version.into(), version, &sent(&mut initiator)))
}

/// The flight of the responder, and an initiator that waits for it.
fn before_first_flight(relay: bool, version: LinkVersion) -> (Handshake, Vec<Cell>) {
    let (mut initiator, mut responder) = (initiator(relay, &[version]), responder(&[version]));
    assert!(give(&mut responder, &sent(&mut initiator)).unwrap().is_none());
    (initiator, cells(Framing::Initial, version, &sent(&mut responder)))
}

fn commands(cells: &[Cell]) -> Vec<Command> {
    cells.iter().map(|cell| cell.command).collect()
}

#[test]
fn relays_authenticate_each_other_on_every_version() {
    for version in LinkVersion::ALL {
        let (mut initiator, mut responder) = (initiator(true, &LinkVersion::ALL), responder(&[version]));
        assert!(give(&mut responder, &sent(&mut initiator)).unwrap().is_none());
        let at_initiator = give(&mut initiator, &sent(&mut responder)).unwrap().unwrap();
        let at_responder = give(&mut responder, &sent(&mut initiator)).unwrap().unwrap();
        assert!(sent(&mut responder).is_empty());
        for (side, peer, address) in
            [(&at_initiator, Relay::two(), INITIATOR_AT), (&at_responder, Relay::one(), RESPONDER_AT)]
        {
            assert_eq!(side.version, version);
            assert_eq!(side.peer, Some(peer.public()));
            assert!(side.canonical);
            assert_eq!(side.peer_clock_skew, Some(0));
            assert_eq!(side.my_address_seen, Some(address));
        }
        let id = at_initiator.circ_ids.allocate(64, &mut rng(1), |_| true).unwrap();
        assert!(at_responder.circ_ids.peer_may_use(id) && !at_initiator.circ_ids.peer_may_use(id));
    }
}

#[test]
fn the_larger_modulus_has_the_upper_half_on_v3() {
    let (mut initiator, mut responder) = (initiator(true, &[LinkVersion::V3]), responder(&[LinkVersion::V3]));
    give(&mut responder, &sent(&mut initiator)).unwrap();
    let link = give(&mut initiator, &sent(&mut responder)).unwrap().unwrap();
    let one_is_larger = Relay::one().rsa.public().to_der() > Relay::two().rsa.public().to_der();
    let id = link.circ_ids.allocate(64, &mut rng(1), |_| true).unwrap();
    assert_eq!(id.0 & 0x8000 != 0, one_is_larger);
}

#[test]
fn clients_stay_anonymous_on_every_version() {
    for version in LinkVersion::ALL {
        let (mut responder, flight) = before_last_flight(false, version);
        assert_eq!(commands(&flight), [Command::NETINFO]);
        let link = give(&mut responder, &join(&flight)).unwrap().unwrap();
        assert_eq!((link.version, link.peer, link.canonical), (version, None, false));
        assert_eq!((link.peer_clock_skew, link.my_address_seen), (None, Some(RESPONDER_AT)));
    }
}

#[test]
fn a_link_is_canonical_if_the_peer_knows_the_address_it_has() {
    let elsewhere = IpAddr::from([10, 0, 0, 9]);
    let (mut initiator, mut responder) = (
        initiator(true, &LinkVersion::ALL),
        Handshake::responder(
            Relay::two().link_identity(),
            params(&LinkVersion::ALL, INITIATOR_AT, elsewhere),
        ),
    );
    give(&mut responder, &sent(&mut initiator)).unwrap();
    assert!(!give(&mut initiator, &sent(&mut responder)).unwrap().unwrap().canonical);
}

#[test]
fn clock_skew_is_signed() {
    let (mut initiator, flight) = before_first_flight(true, LinkVersion::V4);
    let mut buf = join(&flight);
    let now = Unix(NOW.0 + 100);
    let link = initiator.handle(now, &mut buf, &SESSION, &mut rng(1)).unwrap().1.unwrap();
    assert_eq!(link.peer_clock_skew, Some(-100));
}

#[test]
fn bytes_after_the_handshake_belong_to_the_link() {
    let (mut responder, flight) = before_last_flight(true, LinkVersion::V5);
    let mut buf = join(&flight);
    let end = buf.len();
    buf.extend([0x80, 0, 0, 1, 10]);
    let (consumed, link) = responder.handle(NOW, &mut buf, &SESSION, &mut rng(1)).unwrap();
    assert!(link.is_some());
    assert_eq!(consumed, end);
    let again = responder.handle(NOW, &mut buf[end..], &SESSION, &mut rng(1));
    assert_eq!(again.map(|_| ()), Err(LinkError::Over));
}

#[test]
fn a_failed_handshake_takes_no_more() {
    let (mut responder, flight) = before_last_flight(true, LinkVersion::V5);
    let create = Cell::new(LinkVersion::V5, CircId(1), Command::PADDING, &[]);
    assert_eq!(give(&mut responder, &create.bytes).err(), Some(LinkError::NonzeroCircId(Command::PADDING)));
    assert_eq!(give(&mut responder, &join(&flight)).err(), Some(LinkError::Over));
}

#[test]
fn padding_and_unknown_cells_are_in_both_transcripts() {
    for version in LinkVersion::ALL {
        let (mut initiator, mut responder) = (initiator(true, &[version]), responder(&[version]));
        // Before VERSIONS in one direction, between VERSIONS and CERTS in the other.
        responder.wire.send_variable(Command::VPADDING, &[1; 300]);
        responder.wire.send_variable(Command::AUTHORIZE, &[]);
        give(&mut responder, &sent(&mut initiator)).unwrap();
        let flight = cells(Framing::Initial, version, &sent(&mut responder));
        let (to_versions, rest) = flight.split_at(find(&flight, Command::VERSIONS) + 1);
        assert_eq!(to_versions.len(), 3);
        assert!(give(&mut initiator, &join(to_versions)).unwrap().is_none());
        for command in [Command::VPADDING, Command(200), Command::AUTHORIZE] {
            initiator.wire.send_variable(command, &[2; 40]);
        }
        assert!(give(&mut initiator, &join(rest)).unwrap().is_some());
        let link = give(&mut responder, &sent(&mut initiator)).unwrap().unwrap();
        assert_eq!(link.peer, Some(Relay::one().public()));
    }
}

#[test]
fn certs_without_authenticate_make_a_client() {
    let (mut responder, flight) = before_last_flight(true, LinkVersion::V4);
    assert_eq!(commands(&flight), [Command::CERTS, Command::AUTHENTICATE, Command::NETINFO]);
    let link = give(&mut responder, &join(&[flight[0].clone(), flight[2].clone()])).unwrap().unwrap();
    assert_eq!((link.peer, link.canonical), (None, false));
}

#[test]
fn a_relay_opens_the_link_without_proof_if_none_can_be_given() {
    let other_method = Cell::new(LinkVersion::V4, CircId::LINK, Command::AUTH_CHALLENGE, &[0; 34]);
    for challenge in [None, Some(other_method)] {
        let (mut initiator, mut flight) = before_first_flight(true, LinkVersion::V4);
        let at = find(&flight, Command::AUTH_CHALLENGE);
        flight.splice(at..=at, challenge);
        assert!(give(&mut initiator, &join(&flight)).unwrap().is_some());
        let answer = cells(LinkVersion::V4.into(), LinkVersion::V4, &sent(&mut initiator));
        assert_eq!(commands(&answer), [Command::CERTS, Command::NETINFO]);
    }
}

#[test]
fn each_cell_of_the_responder_has_its_place() {
    use LinkError::{MalformedCell, RepeatedCell, UnexpectedCell};
    for version in LinkVersion::ALL {
        let check = |change: &dyn Fn(&mut Vec<Cell>), error: LinkError| {
            for relay in [true, false] {
                let (mut initiator, mut flight) = before_first_flight(relay, version);
                change(&mut flight);
                assert_eq!(give(&mut initiator, &join(&flight)).err(), Some(error));
                assert!(sent(&mut initiator).is_empty(), "nothing is sent after {error}");
            }
        };
        let new = |command, body: &[u8]| Cell::new(version, CircId::LINK, command, body);
        // VERSIONS 0, CERTS 1, AUTH_CHALLENGE 2, NETINFO 3
        check(&|cells| drop(cells.remove(1)), UnexpectedCell(Command::AUTH_CHALLENGE));
        check(&|cells| drop(cells.drain(1..3)), UnexpectedCell(Command::NETINFO));
        check(&|cells| cells.swap(1, 2), UnexpectedCell(Command::AUTH_CHALLENGE));
        check(&|cells| cells.insert(1, new(Command::VERSIONS, &[0, 5])), RepeatedCell(Command::VERSIONS));
        check(&|cells| cells.insert(2, cells[1].clone()), RepeatedCell(Command::CERTS));
        check(&|cells| cells.insert(3, cells[1].clone()), RepeatedCell(Command::CERTS));
        check(&|cells| cells.insert(3, cells[2].clone()), RepeatedCell(Command::AUTH_CHALLENGE));
        check(
            &|cells| cells[2] = new(Command::AUTH_CHALLENGE, &[0; 33]),
            MalformedCell(Command::AUTH_CHALLENGE),
        );
        check(&|cells| cells[1] = new(Command::CERTS, &[1]), MalformedCell(Command::CERTS));
        check(
            &|cells| cells[3] = new(Command::NETINFO, &[0, 0, 0, 0, 4, 5]),
            MalformedCell(Command::NETINFO),
        );
        for at in 1..=3 {
            check(
                &|cells| cells.insert(at, new(Command::AUTHENTICATE, &[])),
                UnexpectedCell(Command::AUTHENTICATE),
            );
            for command in [Command::PADDING, Command::PADDING_NEGOTIATE, Command(99)] {
                check(&|cells| cells.insert(at, new(command, &[])), UnexpectedCell(command));
            }
        }
    }
}

#[test]
fn each_cell_of_the_initiator_has_its_place() {
    use LinkError::{MalformedCell, RepeatedCell, UnexpectedCell};
    for version in LinkVersion::ALL {
        let check = |change: &dyn Fn(&mut Vec<Cell>), error: LinkError| {
            let (mut responder, mut flight) = before_last_flight(true, version);
            change(&mut flight);
            assert_eq!(give(&mut responder, &join(&flight)).err(), Some(error));
        };
        let new = |command, body: &[u8]| Cell::new(version, CircId::LINK, command, body);
        // CERTS 0, AUTHENTICATE 1, NETINFO 2
        check(&|cells| drop(cells.remove(0)), UnexpectedCell(Command::AUTHENTICATE));
        check(&|cells| cells.swap(0, 1), UnexpectedCell(Command::AUTHENTICATE));
        check(&|cells| cells.insert(0, new(Command::VERSIONS, &[0, 5])), RepeatedCell(Command::VERSIONS));
        check(&|cells| cells.insert(1, cells[0].clone()), RepeatedCell(Command::CERTS));
        check(&|cells| cells.insert(2, cells[0].clone()), RepeatedCell(Command::CERTS));
        check(&|cells| cells.insert(2, cells[1].clone()), RepeatedCell(Command::AUTHENTICATE));
        check(&|cells| cells[0] = new(Command::CERTS, &[1, 2]), MalformedCell(Command::CERTS));
        check(
            &|cells| cells[1] = new(Command::AUTHENTICATE, &[0, 3, 1]),
            MalformedCell(Command::AUTHENTICATE),
        );
        check(&|cells| cells[1] = new(Command::AUTHENTICATE, &[0, 1, 0, 0]), LinkError::AuthenticateType);
        check(
            &|cells| cells[2] = new(Command::NETINFO, &[0, 0, 0, 0, 6, 4]),
            MalformedCell(Command::NETINFO),
        );
        for at in 0..=2 {
            let challenge = auth_challenge::encode(&mut rng(1));
            check(
                &|cells| cells.insert(at, new(Command::AUTH_CHALLENGE, &challenge)),
                UnexpectedCell(Command::AUTH_CHALLENGE),
            );
            for command in [Command::PADDING, Command::CREATE_FAST, Command(99)] {
                check(&|cells| cells.insert(at, new(command, &[])), UnexpectedCell(command));
            }
        }
    }
}

#[test]
fn no_cell_of_the_handshake_names_a_circuit() {
    for version in LinkVersion::ALL {
        for at in 0..4 {
            let (mut initiator, mut flight) = before_first_flight(true, version);
            let command = flight[at].command;
            flight[at].bytes[1] = 1;
            assert_eq!(give(&mut initiator, &join(&flight)).err(), Some(LinkError::NonzeroCircId(command)));
        }
        for at in 0..3 {
            let (mut responder, mut flight) = before_last_flight(true, version);
            let command = flight[at].command;
            flight[at].bytes[1] = 1;
            assert_eq!(give(&mut responder, &join(&flight)).err(), Some(LinkError::NonzeroCircId(command)));
        }
    }
}

#[test]
fn every_field_of_authenticate_counts() {
    let names = ["TYPE", "CID", "SID", "CID_ED", "SID_ED", "SLOG", "CLOG", "SCERT", "TLSSECRETS"];
    for at in (0..authenticate::LEN).step_by(8) {
        let (mut responder, mut flight) = before_last_flight(true, LinkVersion::V4);
        let header = 7 + 4;
        flight[1].bytes[header + at] ^= 1;
        let expected = match at {
            0..8 => LinkError::AuthenticateField(names[0]),
            8..264 => LinkError::AuthenticateField(names[1 + (at - 8) / 32]),
            _ => LinkError::AuthenticateSignature(BadSignature),
        };
        assert_eq!(give(&mut responder, &join(&flight)).err(), Some(expected), "byte {at}");
    }
}

#[test]
fn authenticate_is_bound_to_the_connection() {
    // Another TLS session, and a transcript with another cell in it.
    let (mut responder, flight) = before_last_flight(true, LinkVersion::V4);
    let relayed = responder.handle(NOW, &mut join(&flight), &Session(2), &mut rng(1));
    assert_eq!(relayed.err(), Some(LinkError::AuthenticateField("TLSSECRETS")));

    let (mut responder, mut flight) = before_last_flight(true, LinkVersion::V4);
    flight.insert(1, Cell::new(LinkVersion::V4, CircId::LINK, Command::VPADDING, &[]));
    assert_eq!(give(&mut responder, &join(&flight)).err(), Some(LinkError::AuthenticateField("CLOG")));

    let (mut initiator, mut flight) = before_first_flight(true, LinkVersion::V4);
    let (mut responder, _) = before_last_flight(true, LinkVersion::V4);
    flight.insert(2, Cell::new(LinkVersion::V4, CircId::LINK, Command::VPADDING, &[]));
    give(&mut initiator, &join(&flight)).unwrap();
    assert_eq!(
        give(&mut responder, &sent(&mut initiator)[..]).err(),
        Some(LinkError::AuthenticateField("SLOG"))
    );
}

#[test]
fn authenticate_may_have_anything_behind_it() {
    let (mut responder, mut flight) = before_last_flight(true, LinkVersion::V4);
    let body = &flight[1].bytes[7..];
    let longer = [body, &[1, 2, 3]].concat();
    flight[1] = Cell::new(LinkVersion::V4, CircId::LINK, Command::AUTHENTICATE, &longer);
    assert!(give(&mut responder, &join(&flight)).unwrap().unwrap().peer.is_some());
}

#[test]
fn another_tls_certificate_means_someone_is_in_between() {
    let params = params(&[LinkVersion::V4], RESPONDER_AT, INITIATOR_AT);
    let mut initiator = Handshake::initiator(None, ExpectedPeer::default(), b"another certificate", params);
    let (_, flight) = before_first_flight(false, LinkVersion::V4);
    assert_eq!(give(&mut initiator, &join(&flight)).err(), Some(LinkError::TlsCertMismatch));
}

#[test]
fn an_initiator_reaches_whom_it_wanted_or_nobody() {
    let (one, two) = (Relay::one().public(), Relay::two().public());
    let (_, flight) = before_first_flight(true, LinkVersion::V4);
    let reach = |rsa_id, ed_id| {
        let mut initiator = initiator_to(ExpectedPeer { rsa_id, ed_id }, true, &[LinkVersion::V4]);
        give(&mut initiator, &join(&flight)).map(|link| link.and_then(|link| link.peer))
    };
    assert_eq!(reach(None, None), Ok(Some(two)));
    assert_eq!(reach(Some(two.rsa_id), None), Ok(Some(two)));
    assert_eq!(reach(Some(two.rsa_id), Some(two.ed_id)), Ok(Some(two)));
    assert_eq!(reach(Some(one.rsa_id), Some(two.ed_id)), Err(LinkError::WrongRsaIdentity));
    assert_eq!(reach(Some(two.rsa_id), Some(one.ed_id)), Err(LinkError::WrongEdIdentity));
}

type OwnedCerts = Vec<(u8, Vec<u8>)>;

/// Gives an initiator (or a responder) the CERTS of the other side, changed.
fn with_certs(to_initiator: bool, change: impl Fn(&mut OwnedCerts)) -> Option<LinkError> {
    let version = LinkVersion::V4;
    let (mut side, mut flight) =
        if to_initiator { before_first_flight(true, version) } else { before_last_flight(true, version) };
    let at = find(&flight, Command::CERTS);
    let body = flight[at].bytes.split_off(7);
    let list = certs::parse(&body).unwrap();
    let mut list = list.into_iter().map(|(cert_type, cert)| (cert_type, cert.to_vec())).collect();
    change(&mut list);
    let list: Vec<_> = list.iter().map(|(cert_type, cert)| (*cert_type, &cert[..])).collect();
    flight[at] = Cell::new(version, CircId::LINK, Command::CERTS, &certs::encode(&list));
    give(&mut side, &join(&flight)).err()
}

#[test]
fn the_whole_chain_is_needed_and_nothing_twice() {
    for (to_initiator, leaf) in [(true, certs::SIGNING_V_TLS), (false, certs::SIGNING_V_LINK_AUTH)] {
        for needed in [certs::RSA_IDENTITY, certs::IDENTITY_V_SIGNING, leaf, certs::RSA_V_ED25519] {
            let without = |list: &mut OwnedCerts| list.retain(|(cert_type, _)| *cert_type != needed);
            assert_eq!(with_certs(to_initiator, without), Some(LinkError::MissingCert(needed)));
            let twice = |list: &mut OwnedCerts| list.push((needed, vec![1]));
            assert_eq!(with_certs(to_initiator, twice), Some(LinkError::DuplicateCert(needed)));
        }
        let unknown_twice = |list: &mut OwnedCerts| list.extend([(99, vec![]), (99, vec![])]);
        assert_eq!(with_certs(to_initiator, unknown_twice), Some(LinkError::DuplicateCert(99)));
    }
    // The order is free, and certificates nobody needs do no harm.
    assert_eq!(with_certs(true, |list| list.reverse()), None);
    assert_eq!(with_certs(true, |list| list.insert(0, (certs::RSA_TLS, vec![1]))), None);
}

#[test]
fn the_certificates_of_one_relay_do_not_vouch_for_another() {
    let one = Relay::one().link_identity();
    let others = certs::parse(one.responder_certs()).unwrap();
    for (cert_type, theirs) in &others {
        let error = with_certs(true, |list| {
            let entry = list.iter_mut().find(|(of_type, _)| of_type == cert_type).unwrap();
            entry.1 = theirs.to_vec();
        });
        let expected = match *cert_type {
            certs::RSA_IDENTITY => "bad_cross_cert",
            certs::RSA_V_ED25519 => "bad_cross_cert",
            _ => "bad_cert",
        };
        assert_eq!(error.map(|error| error.label()), Some(expected), "type {cert_type}");
    }
}

#[test]
fn expired_certificates_close_the_link() {
    let identity = Relay::two().link_identity();
    for (now, ok) in [(identity.valid_until(), true), (Unix(identity.valid_until().0 + 3600), false)] {
        let (mut initiator, flight) = before_first_flight(false, LinkVersion::V4);
        let result = initiator.handle(now, &mut join(&flight), &SESSION, &mut rng(1));
        match result {
            Ok((_, link)) => assert!(ok && link.is_some()),
            Err(error) => {
                assert!(!ok);
                let LinkError::BadCert {
                    cert_type: certs::SIGNING_V_TLS,
                    error: CertError::Expired { expires, .. },
                } = error
                else {
                    panic!("{error}")
                };
                assert_eq!(error.clock_ahead(), Some((now.0 - expires.0) as i64));
            }
        }
    }
    // By a clock that has never been set, no X.509 certificate holds yet; nothing else says when it begins.
    let (mut initiator, flight) = before_first_flight(false, LinkVersion::V4);
    let error = initiator.handle(Unix(0), &mut join(&flight), &SESSION, &mut rng(1)).unwrap_err();
    let LinkError::BadRsaIdentity(X509Error::Time { from, .. }) = error else { panic!("{error}") };
    assert_eq!(error.clock_ahead(), Some(-(from.0 as i64)));
    assert_eq!(LinkError::NoCommonVersion.clock_ahead(), None);
}

#[test]
fn only_whom_we_wanted_to_reach_can_make_us_doubt_our_clock() {
    let later = Unix(Relay::two().link_identity().valid_until().0 + 3600);
    let (_, flight) = before_first_flight(true, LinkVersion::V4);
    let meet = |mut initiator: Handshake| {
        initiator.handle(later, &mut join(&flight), &SESSION, &mut rng(1)).unwrap_err()
    };
    let other = ExpectedPeer { rsa_id: None, ed_id: Some(Relay::one().public().ed_id) };
    assert_eq!(meet(initiator_to(other, true, &[LinkVersion::V4])), LinkError::WrongEdIdentity);
    let params = params(&[LinkVersion::V4], RESPONDER_AT, INITIATOR_AT);
    let replayed = Handshake::initiator(None, ExpectedPeer::default(), b"another certificate", params);
    assert_eq!(meet(replayed), LinkError::TlsCertMismatch);
    let wanted = ExpectedPeer { rsa_id: None, ed_id: Some(Relay::two().public().ed_id) };
    let error = meet(initiator_to(wanted, true, &[LinkVersion::V4]));
    assert!(error.clock_ahead().is_some_and(|ahead| ahead > 0), "{error}");
}

#[test]
fn versions_must_overlap() {
    let mut old = responder(&[LinkVersion::V3]);
    let mut new = initiator(true, &[LinkVersion::V4, LinkVersion::V5]);
    assert_eq!(give(&mut old, &sent(&mut new)).err(), Some(LinkError::NoCommonVersion));
    assert!(sent(&mut old).is_empty());
    assert_eq!(
        give(&mut responder(&LinkVersion::ALL), &[0, 0, 7, 0, 1, 0]).err(),
        Some(LinkError::MalformedCell(Command::VERSIONS))
    );
}

#[test]
fn a_handshake_without_end_is_cut_off() {
    let mut responder = responder(&LinkVersion::ALL);
    give(&mut responder, &[0, 0, 7, 0, 2, 0, 4]).unwrap();
    let padding = Cell::new(LinkVersion::V4, CircId::LINK, Command::VPADDING, &[0; 16_000]).bytes;
    for _ in 0..limits::HANDSHAKE_BYTES / padding.len() {
        give(&mut responder, &padding).unwrap();
    }
    assert_eq!(give(&mut responder, &padding).err(), Some(LinkError::HandshakeTooLong));
    // One cell over the limit fails at its header.
    let mut other = super::tests::responder(&LinkVersion::ALL);
    give(&mut other, &[0, 0, 7, 0, 2, 0, 4]).unwrap();
    let error = give(&mut other, &[0, 0, 0, 0, 129, 0xff, 0xff]).err();
    assert_eq!(error.map(|error| error.label()), Some("cell_too_long"));
}

#[test]
fn no_prefix_of_a_flight_opens_the_link() {
    let (_, flight) = before_first_flight(true, LinkVersion::V5);
    let flight = join(&flight);
    for length in (0..flight.len()).step_by(7) {
        let mut initiator = initiator(true, &[LinkVersion::V5]);
        let mut buf = flight[..length].to_vec();
        let (consumed, link) = initiator.handle(NOW, &mut buf, &SESSION, &mut rng(1)).unwrap();
        assert!(consumed <= length && link.is_none());
    }
}

#[test]
fn metric_labels_are_distinct() {
    let errors = [
        LinkError::HandshakeTooLong,
        LinkError::UnexpectedCell(Command::CERTS),
        LinkError::RepeatedCell(Command::CERTS),
        LinkError::NonzeroCircId(Command::CERTS),
        LinkError::MalformedCell(Command::CERTS),
        LinkError::NoCommonVersion,
        LinkError::DuplicateCert(1),
        LinkError::MissingCert(1),
        LinkError::TlsCertMismatch,
        LinkError::CertTimes,
        LinkError::WrongRsaIdentity,
        LinkError::WrongEdIdentity,
        LinkError::AuthenticateType,
        LinkError::AuthenticateField("CID"),
        LinkError::AuthenticateSignature(BadSignature),
        LinkError::Exporter,
        LinkError::Over,
    ];
    let labels: std::collections::BTreeSet<_> = errors.iter().map(LinkError::label).collect();
    assert_eq!(labels.len(), errors.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_handshake_survives_any_split_of_the_stream(
        relay: bool,
        version in prop::sample::select(&LinkVersion::ALL[..]),
        cuts in vec(1usize..900, 1..12),
    ) {
        let (mut initiator, mut responder) = (initiator(relay, &[version]), responder(&[version]));
        let mut cuts = cuts.iter().cycle();
        let (mut opened, mut to_initiator, mut to_responder) = ([false; 2], Vec::new(), Vec::new());
        while opened != [true; 2] {
            let sides = [(&mut initiator, &mut to_initiator), (&mut responder, &mut to_responder)];
            for (index, (side, received)) in sides.into_iter().enumerate() {
                if opened[index] {
                    continue;
                }
                let wire: &mut Vec<u8> = received;
                let mut piece = wire[..wire.len().min(*cuts.next().unwrap())].to_vec();
                let (used, link) = side.handle(NOW, &mut piece, &SESSION, &mut rng(1)).unwrap();
                // Either something is taken, or more is needed: then look at all there is.
                let (used, link) = if used == 0 && link.is_none() {
                    side.handle(NOW, wire, &SESSION, &mut rng(1)).unwrap()
                } else {
                    (used, link)
                };
                wire.drain(..used);
                opened[index] = link.is_some();
            }
            initiator.poll_transmit(&mut to_responder);
            responder.poll_transmit(&mut to_initiator);
        }
    }

    #[test]
    fn a_changed_byte_in_certs_closes_the_link(at: prop::sample::Index, with in 1u8..) {
        let (mut initiator, mut flight) = before_first_flight(true, LinkVersion::V4);
        let certs = &mut flight[1].bytes;
        let at = 7 + at.index(certs.len() - 7);
        certs[at] ^= with;
        prop_assert!(give(&mut initiator, &join(&flight)).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        relay: bool,
        version in prop::sample::select(&LinkVersion::ALL[..]),
        command: u8,
        body in vec(any::<u8>(), 0..600),
        tail in vec(any::<u8>(), 0..600),
        kept in 0usize..4,
    ) {
        let (initiator, mut responders) = before_first_flight(relay, version);
        let (responder, mut initiators) = before_last_flight(relay, version);
        responders.truncate(kept);
        initiators.truncate(kept);
        for (mut side, cells) in [(initiator, responders), (responder, initiators)] {
            let mut bytes = join(&cells);
            let mut body = body.clone();
            if !Command(command).is_variable() {
                body.resize(BODY_LEN, 0);
            }
            bytes.extend(Cell::new(version, CircId::LINK, Command(command), &body).bytes);
            bytes.extend(&tail);
            let _ = side.handle(NOW, &mut bytes, &SESSION, &mut rng(1));
        }
    }
}
