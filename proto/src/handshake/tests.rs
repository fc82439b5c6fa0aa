use std::convert::Infallible;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_core::{TryCryptoRng, TryRng};

use super::*;
use crate::cell::{BODY_LEN, Body};
use crate::crypto::rsa::{RsaError, RsaPrivate};

/// Gives the bytes it was made with, then panics: for test vectors.
pub(super) struct Canned<'a>(pub &'a [u8]);

impl TryRng for Canned<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let (head, tail) = self.0.split_at(out.len());
        out.copy_from_slice(head);
        self.0 = tail;
        Ok(())
    }
}

impl TryCryptoRng for Canned<'_> {}

pub(super) fn unhex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

const IDENTITY: ServerIdentity = ServerIdentity { rsa_id: [12; 20], ed_id: [13; 32] };

fn ring() -> OnionKeyRing {
    let previous = OnionKey::from_secret(&[2; 32]);
    OnionKeyRing::new(OnionKey::from_secret(&[1; 32]), Some(previous), &mut rng())
}

fn assert_same(a: &KeyMaterial, b: &KeyMaterial) {
    assert_eq!((a.df, a.db, a.kf, a.kb, a.kh), (b.df, b.db, b.kf, b.kb, b.kh));
}

/// A client for `kind`, with its message.
fn start(kind: u16, onion_key: &[u8; 32], identity: &ServerIdentity) -> (Client, Vec<u8>) {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    match kind {
        htype::NTOR => {
            let (client, message) = ntor::Client::start(&mut rng, &identity.rsa_id, onion_key);
            (Client::Ntor(client), message)
        }
        _ => {
            let (client, message) = ntor_v3::Client::start(&mut rng, &identity.ed_id, onion_key);
            (Client::NtorV3(client), message)
        }
    }
}

/// Points of order 1, 2, 4 and 8, in all their encodings below 2^255 (RFC 7748 leaves them to the caller).
fn low_order_points() -> Vec<[u8; 32]> {
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ]
    .map(unhex)
    .to_vec()
}

/// Vector of C tor's `ntor_ref.py`, as Arti's `ntor.rs` has it.
#[test]
fn ntor_vector() {
    let b = OnionKey::from_secret(&unhex("4820544f4c4420594f5520444f474954204b454550532048415050454e494e47"));
    let x: [u8; 32] = unhex("706f6461792069207075742e2e2e2e2e2e2e2e4a454c4c59206f6e2074686973");
    let y: [u8; 32] = unhex("70686520737175697272656c2e2e2e2e2e2e2e2e686173206869732067616d65");
    let rsa_id = *b"iToldYouAboutStairs.";
    let (client, message) = ntor::Client::start(&mut Canned(&x), &rsa_id, b.public());
    assert_eq!(
        hex::encode(&message),
        "69546f6c64596f7541626f75745374616972732eccbc8541904d18af08753eae967874749e6149f873de937f57f8fd903a21c471\
         e65dfdbef8b2635837fe2cebc086a8096eae3213e6830dc407516083d412b078"
    );
    let ring = OnionKeyRing::new(b, None, &mut rng());
    let (reply, keys) = ntor::server(&mut Canned(&y), &rsa_id, &ring, &message).unwrap();
    assert_eq!(
        hex::encode(&reply),
        "390480a14362761d6aec1fea840f6e9e928fb2adb7b25c670be1045e35133a37\
         1cbdf68b89923e1f85e8e18ee6e805ea333fe4849c790ffd2670bd80fec95cc8"
    );
    assert_same(&keys, &client.finish(&reply).unwrap());
    assert_eq!(
        hex::encode([&keys.df[..], &keys.db, &keys.kf, &keys.kb].concat()),
        "0c62dee7f48893370d0ef896758d35729867beef1a5121df80e00f79ed349af39b51cae125719182f19d932a667dae1afbf2e336\
         e6910e7822223e763afad0a13342157969dc6b79"
    );
}

/// Vectors of C tor, from Arti's `fast.rs`: X, the reply, and the keys (Df, Db, Kf, Kb).
#[test]
fn fast_vectors() {
    let cases: [(&str, &str, &str); 2] = [
        (
            "080e247df7c252fcd2dc10f459703480c223e3a6",
            "ba95c0d092335428bf80093bbed0b7a26c49e1e8696fbf9c8d6be26504219c000d26afe370fcef04",
            "afa89b4fc8cf882335a582c52478b5fcb1e08daf707e2c2d23b8c27d30bd461f3df98a3af82221cb\
             658ad0aa8680b99067e4f7dbc546970ea9a56b26433c71da867bdd09c14a1308",
        ),
        (
            "5f786c724c2f5978474a04fa63772057ad896a03",
            "6210b037001405742fe78b6f5b34e6db3c9f2f7e24239498613e0ed872e110a00774a3fcb37a7507",
            "d41b65d83fb4b34a322b658be4d706edcd8b62813757e719118c394e1f22e1c8ea8959bab30e856a\
             914c3054946f547397094de031f5bca384c65c8880bf7aab9ce7bee33971f9de",
        ),
    ];
    for (x, expected_reply, expected_keys) in cases {
        let x: [u8; 20] = unhex(x);
        let expected_reply: [u8; 40] = unhex(expected_reply);
        let (reply, keys) = fast::server(&mut Canned(&expected_reply[..20]), &x);
        assert_eq!(reply, expected_reply);
        assert_eq!(hex::encode([&keys.df[..], &keys.db, &keys.kf, &keys.kb].concat()), expected_keys);
        assert_same(&keys, &fast::Client::start(&mut Canned(&x)).0.finish(&reply).unwrap());
    }
}

#[test]
fn both_sides_agree_with_the_current_and_the_previous_key() {
    let ring = ring();
    for kind in [htype::NTOR, htype::NTOR_V3] {
        for key in [ring.current(), ring.previous().unwrap()] {
            let (client, message) = start(kind, key.public(), &IDENTITY);
            let (reply, keys) = respond(&mut rng(), &IDENTITY, &ring, kind, &message).unwrap();
            assert_same(&keys, &client.finish(&reply).unwrap());
        }
    }
    let (client, x) = fast::Client::start(&mut rng());
    let (reply, keys) = fast::server(&mut ChaCha8Rng::seed_from_u64(9), &x);
    assert_same(&keys, &Client::Fast(client).finish(&reply).unwrap());
}

#[test]
fn a_repeated_message_gets_fresh_keys() {
    let ring = ring();
    let mut rng = rng();
    for kind in [htype::NTOR, htype::NTOR_V3] {
        let (_, message) = start(kind, ring.current().public(), &IDENTITY);
        let (first, first_keys) = respond(&mut rng, &IDENTITY, &ring, kind, &message).unwrap();
        let (second, second_keys) = respond(&mut rng, &IDENTITY, &ring, kind, &message).unwrap();
        assert_ne!(first, second);
        assert_ne!(first_keys.kf, second_keys.kf);
    }
}

#[test]
fn refuses_types_that_are_not_offered() {
    for kind in [htype::TAP, htype::FAST, 4, 0xffff] {
        let answer = respond(&mut rng(), &IDENTITY, &ring(), kind, &[0; 84]);
        assert_eq!(answer.err(), Some(HandshakeError::UnknownType(kind)));
    }
}

#[test]
fn refuses_another_identity() {
    let ring = ring();
    let other = ServerIdentity { rsa_id: [1; 20], ed_id: [2; 32] };
    for kind in [htype::NTOR, htype::NTOR_V3] {
        let (_, message) = start(kind, ring.current().public(), &other);
        let answer = respond(&mut rng(), &IDENTITY, &ring, kind, &message);
        assert_eq!(answer.err(), Some(HandshakeError::WrongIdentity));
    }
}

#[test]
fn an_unknown_onion_key_is_answered_in_vain_by_ntor_and_refused_by_ntor_v3() {
    let unknown = OnionKey::from_secret(&[3; 32]);
    let (client, message) = start(htype::NTOR, unknown.public(), &IDENTITY);
    let (reply, _) = respond(&mut rng(), &IDENTITY, &ring(), htype::NTOR, &message).unwrap();
    assert_eq!(reply.len(), ntor::SERVER_LEN);
    assert_eq!(client.finish(&reply).err(), Some(HandshakeError::Authentication));

    let (_, message) = start(htype::NTOR_V3, unknown.public(), &IDENTITY);
    let answer = respond(&mut rng(), &IDENTITY, &ring(), htype::NTOR_V3, &message);
    assert_eq!(answer.err(), Some(HandshakeError::UnknownOnionKey));
}

#[test]
fn without_a_previous_key_only_the_current_one_is_known() {
    let old = OnionKey::from_secret(&[2; 32]);
    let ring = OnionKeyRing::new(OnionKey::from_secret(&[1; 32]), None, &mut rng());
    assert!(bool::from(ring.find(ring.current().public()).1));
    assert!(!bool::from(ring.find(old.public()).1));
    assert!(!bool::from(ring.find(&[0; 32]).1));
    let (stand_in, _) = ring.find(old.public());
    assert_ne!(stand_in.public(), ring.current().public());
}

#[test]
fn messages_of_every_other_length_are_refused() {
    let ring = ring();
    for kind in [htype::NTOR, htype::NTOR_V3] {
        let (_, message) = start(kind, ring.current().public(), &IDENTITY);
        for len in (0..=message.len() + 300).filter(|len| *len != message.len()) {
            let mut other = message.clone();
            other.resize(len, 0);
            let error = respond(&mut rng(), &IDENTITY, &ring, kind, &other).err();
            if kind == htype::NTOR || len < 128 {
                assert_eq!(error, Some(HandshakeError::Length(len)), "type {kind}");
            } else {
                assert_eq!(error, Some(HandshakeError::Authentication), "{len} bytes");
            }
        }
    }
}

#[test]
fn replies_of_every_other_length_or_content_are_refused() {
    let ring = ring();
    for kind in [htype::FAST, htype::NTOR, htype::NTOR_V3] {
        let new = || {
            if kind == htype::FAST {
                let (client, x) = fast::Client::start(&mut rng());
                (Client::Fast(client), fast::server(&mut ChaCha8Rng::seed_from_u64(9), &x).0.to_vec())
            } else {
                let (client, message) = start(kind, ring.current().public(), &IDENTITY);
                (client, respond(&mut rng(), &IDENTITY, &ring, kind, &message).unwrap().0)
            }
        };
        let len = new().1.len();
        for cut in (0..=len + 300).filter(|cut| *cut != len) {
            let (client, mut reply) = new();
            reply.resize(cut, 0);
            let error = client.finish(&reply).err();
            let expected = match kind {
                htype::NTOR_V3 if cut >= 64 => HandshakeError::Authentication,
                _ => HandshakeError::Length(cut),
            };
            assert_eq!(error, Some(expected), "type {kind}");
        }
        for at in 0..len {
            let (client, mut reply) = new();
            reply[at] ^= 1;
            assert_eq!(
                client.finish(&reply).err(),
                Some(HandshakeError::Authentication),
                "type {kind} byte {at}"
            );
        }
    }
}

#[test]
fn any_changed_byte_of_an_ntor_v3_message_is_noticed() {
    let ring = ring();
    let (_, message) = start(htype::NTOR_V3, ring.current().public(), &IDENTITY);
    for at in 0..message.len() {
        let mut bent = message.clone();
        bent[at] ^= 1;
        let expected = match at {
            0..32 => HandshakeError::WrongIdentity,
            32..64 => HandshakeError::UnknownOnionKey,
            _ => HandshakeError::Authentication,
        };
        assert_eq!(respond(&mut rng(), &IDENTITY, &ring, htype::NTOR_V3, &bent).err(), Some(expected));
    }
}

#[test]
fn points_of_low_order_are_refused_on_both_sides() {
    let ring = ring();
    for point in low_order_points() {
        for kind in [htype::NTOR, htype::NTOR_V3] {
            let x = if kind == htype::NTOR { 52..84 } else { 64..96 };
            let (_, mut message) = start(kind, ring.current().public(), &IDENTITY);
            message[x].copy_from_slice(&point);
            let answer = respond(&mut rng(), &IDENTITY, &ring, kind, &message);
            assert_eq!(answer.err(), Some(HandshakeError::BadPublicKey));

            let (client, message) = start(kind, ring.current().public(), &IDENTITY);
            let (mut reply, _) = respond(&mut rng(), &IDENTITY, &ring, kind, &message).unwrap();
            reply[..32].copy_from_slice(&point);
            assert_eq!(client.finish(&reply).err(), Some(HandshakeError::BadPublicKey));

            // An onion key of low order, from a descriptor that nobody should have accepted.
            let (client, _) = start(kind, &point, &IDENTITY);
            assert_eq!(client.finish(&[9; 64]).err(), Some(HandshakeError::BadPublicKey));
        }
    }
}

/// What the relay says to each list of extensions.
#[test]
fn extensions_that_the_relay_answers_and_refuses() {
    let answer = |list: &[u8]| {
        let granted = Extensions::parse(list).and_then(|list| answer_extensions(Terms::default(), &list));
        granted.map(|(terms, answer)| {
            assert_eq!(terms, Terms::default());
            answer
        })
    };
    assert_eq!(answer(&[0]), Ok(vec![0]));
    assert_eq!(answer(&[1, 1, 0]), Ok(vec![0]), "congestion control is not offered");
    assert_eq!(answer(&[2, 77, 2, 1, 2, 250, 0]), Ok(vec![0]), "unknown types are ignored");
    assert_eq!(answer(&[1, 3, 0]), Ok(vec![0]), "a demand for nothing");
    let cgo = HandshakeError::Subprotocol { protocol: 2, version: 6 };
    assert_eq!(answer(&[2, 1, 0, 3, 2, 2, 6]), Err(cgo));
    assert_eq!(answer(&[1, 3, 3, 2, 6, 2]), Err(cgo));
    assert_eq!(answer(&[1, 3, 1, 2]), Err(HandshakeError::MalformedExtensions));
    assert_eq!(answer(&[]), Err(HandshakeError::MalformedExtensions));
    assert_eq!(answer(&[1]), Err(HandshakeError::MalformedExtensions));
}

#[test]
fn terms_are_agreed_on_if_one_asks_and_the_other_grants() {
    let ring = ring();
    let (on, off) = (Terms { half_close: true }, Terms::default());
    for (ask, offer, agreed) in [(on, on, on), (on, off, off), (off, on, off), (off, off, off)] {
        let key = ring.current().public();
        let (client, message) = ntor_v3::Client::start_asking(&mut rng(), &IDENTITY.ed_id, key, ask);
        let (reply, keys, granted) =
            respond_with(&mut rng(), &IDENTITY, &ring, offer, htype::NTOR_V3, &message).unwrap();
        let (client_keys, found) = Client::NtorV3(client).agree(&reply).unwrap();
        assert_same(&keys, &client_keys);
        assert_eq!((granted, found), (agreed, agreed), "asked {ask:?}, offered {offer:?}");
    }
}

/// What stands beside it: the client's other wishes, types of others, a body, and the same again.
#[test]
fn a_request_for_half_closed_streams_is_found_anywhere_in_the_list() {
    let on = Terms { half_close: true };
    let answer = |list: &[u8]| Extensions::parse(list).and_then(|list| answer_extensions(on, &list));
    for list in
        [&[1, 0xe0, 0][..], &[2, 1, 0, 0xe0, 0], &[3, 9, 1, 9, 0xe0, 2, 1, 2, 0xe0, 0], &[2, 3, 0, 0xe0, 0]]
    {
        assert_eq!(answer(list), Ok((on, vec![1, 0xe0, 0])), "{list:?}");
    }
    assert_eq!(answer(&[1, 1, 0]), Ok((Terms::default(), vec![0])));
    assert_eq!(answer(&[1, 0xe0]), Err(HandshakeError::MalformedExtensions));
    let cgo = HandshakeError::Subprotocol { protocol: 2, version: 6 };
    assert_eq!(answer(&[2, 3, 2, 2, 6, 0xe0, 0]), Err(cgo), "what is demanded comes first");
}

#[test]
fn a_relay_that_grants_what_was_not_asked_is_refused() {
    let ring = ring();
    let cases = [
        (vec![1, 2, 1, 31], Err(HandshakeError::UnrequestedExtension(2))),
        (vec![1, 0xe0, 0], Err(HandshakeError::UnrequestedExtension(0xe0))),
        (vec![], Err(HandshakeError::MalformedExtensions)),
        (vec![1, 77, 0, 5], Ok(())),
    ];
    for (list, expected) in cases {
        let (client, message) = start(htype::NTOR_V3, ring.current().public(), &IDENTITY);
        let (reply, _) = ntor_v3::server(&mut rng(), &IDENTITY.ed_id, &ring, &message, |_| Ok(list)).unwrap();
        assert_eq!(client.finish(&reply).map(drop), expected);
    }
}

fn tap_key() -> RsaPrivate {
    RsaPrivate::from_pem(include_str!("../crypto/rsa/test_key.pem")).unwrap()
}

#[test]
fn tap_both_sides_agree() {
    let key = tap_key();
    let (client, message) = tap::Client::start(&mut rng(), &key.public()).unwrap();
    assert_eq!(message.len(), tap::CLIENT_LEN);
    let (reply, keys) = tap::server(&mut ChaCha8Rng::seed_from_u64(9), &key, &message).unwrap();
    assert_eq!(reply.len(), tap::SERVER_LEN);
    assert_same(&keys, &client.finish(&reply).unwrap());
}

#[test]
fn tap_refuses_what_is_damaged() {
    let key = tap_key();
    let (_, message) = tap::Client::start(&mut rng(), &key.public()).unwrap();
    for len in (0..300).filter(|len| *len != tap::CLIENT_LEN) {
        let mut other = message.clone();
        other.resize(len, 0);
        assert_eq!(tap::server(&mut rng(), &key, &other).err(), Some(HandshakeError::Length(len)));
    }
    let mut bent = message.clone();
    bent[50] ^= 1;
    assert_eq!(tap::server(&mut rng(), &key, &bent).err(), Some(HandshakeError::Authentication));
    // The end of g^x is not authenticated; the client finds out by KH.
    let (client, mut bent) = tap::Client::start(&mut rng(), &key.public()).unwrap();
    bent[185] ^= 1;
    let (reply, _) = tap::server(&mut rng(), &key, &bent).unwrap();
    assert_eq!(client.finish(&reply).err(), Some(HandshakeError::Authentication));

    for len in (0..300).filter(|len| *len != tap::SERVER_LEN) {
        let (client, _) = tap::Client::start(&mut rng(), &key.public()).unwrap();
        assert_eq!(client.finish(&vec![2; len]).err(), Some(HandshakeError::Length(len)));
    }
    // 0, 1, p - 1, p and more.
    let p = "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd\
             ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed\
             ee386bfb5a899fa5ae9f24117c4b1fe649286651ece65381ffffffffffffffff";
    let p: [u8; 128] = unhex(p);
    let mut one = [0; 128];
    one[127] = 1;
    let mut minus_one = p;
    minus_one[127] = 0xfe;
    for public in [[0; 128], one, minus_one, p, [0xff; 128]] {
        let (client, _) = tap::Client::start(&mut rng(), &key.public()).unwrap();
        let reply = [&public[..], &[0; 20]].concat();
        assert_eq!(client.finish(&reply).err(), Some(HandshakeError::BadPublicKey));
    }
    let long = RsaPrivate::generate(2048, &mut rng()).unwrap();
    assert_eq!(tap::Client::start(&mut rng(), &long.public()).err(), Some(RsaError::ModulusSize(2048)));
    assert_eq!(tap::server(&mut rng(), &long, &message).err(), Some(HandshakeError::Authentication));
}

#[test]
fn bodies_of_create_cells() {
    let mut body = [0xaa; BODY_LEN];
    let hdata = [7; 84];
    Create2 { htype: htype::NTOR, hdata: &hdata }.write(&mut body);
    assert_eq!(body[..5], [0, 2, 0, 84, 7]);
    assert!(body[88..].iter().all(|byte| *byte == 0));
    assert_eq!(Create2::parse(&body), Ok(Create2 { htype: htype::NTOR, hdata: &hdata }));

    Created2 { hdata: &hdata }.write(&mut body);
    assert_eq!(body[..3], [0, 84, 7]);
    assert_eq!(Created2::parse(&body), Ok(Created2 { hdata: &hdata }));

    CreateFast { x: [1; 20] }.write(&mut body);
    assert_eq!(CreateFast::parse(&body), CreateFast { x: [1; 20] });
    CreatedFast { reply: [2; 40] }.write(&mut body);
    assert_eq!(CreatedFast::parse(&body), CreatedFast { reply: [2; 40] });
}

#[test]
fn every_length_field_of_create_cells() {
    let mut body = [0; BODY_LEN];
    for len in 0..=u16::MAX {
        body[2..4].copy_from_slice(&len.to_be_bytes());
        let len = usize::from(len);
        let expected = if len <= 505 { Ok(len) } else { Err(HandshakeError::Overlong { len, max: 505 }) };
        assert_eq!(Create2::parse(&body).map(|create| create.hdata.len()), expected);
    }
    for len in 0..=u16::MAX {
        body[..2].copy_from_slice(&len.to_be_bytes());
        let len = usize::from(len);
        let expected = if len <= 507 { Ok(len) } else { Err(HandshakeError::Overlong { len, max: 507 }) };
        let parsed = Created2::parse(&body);
        assert_eq!(parsed.map(|created| created.hdata.len()), expected);
        assert_eq!(parsed.is_ok_and(|created| created.fits_extended2()), len <= 496);
    }
}

#[test]
fn labels_are_distinct() {
    let errors = [
        HandshakeError::Overlong { len: 1, max: 0 },
        HandshakeError::UnknownType(9),
        HandshakeError::Length(1),
        HandshakeError::WrongIdentity,
        HandshakeError::UnknownOnionKey,
        HandshakeError::BadPublicKey,
        HandshakeError::Authentication,
        HandshakeError::MalformedExtensions,
        HandshakeError::Subprotocol { protocol: 2, version: 6 },
        HandshakeError::UnrequestedExtension(2),
    ];
    let labels: std::collections::BTreeSet<_> = errors.iter().map(HandshakeError::label).collect();
    assert_eq!(labels.len(), errors.len());
}

proptest! {
    #[test]
    fn any_bytes_as_cells_messages_and_replies(
        bytes in proptest::collection::vec(any::<u8>(), BODY_LEN),
        len in 0..BODY_LEN,
        kind in 0u16..5,
    ) {
        let body: &Body = bytes[..].try_into().unwrap();
        let _ = Create2::parse(body);
        let _ = Created2::parse(body);
        let ring = ring();
        prop_assert!(respond(&mut rng(), &IDENTITY, &ring, kind, &bytes[..len]).is_err());
        prop_assert!(start(kind, ring.current().public(), &IDENTITY).0.finish(&bytes[..len]).is_err());
    }

    #[test]
    fn create_bodies_round_trip(
        kind in any::<u16>(),
        hdata in proptest::collection::vec(any::<u8>(), 0..=505),
    ) {
        let mut body = [0xff; BODY_LEN];
        let create = Create2 { htype: kind, hdata: &hdata };
        create.write(&mut body);
        prop_assert_eq!(Create2::parse(&body), Ok(create));
        let created = Created2 { hdata: &hdata };
        created.write(&mut body);
        prop_assert_eq!(Created2::parse(&body), Ok(created));
    }
}
