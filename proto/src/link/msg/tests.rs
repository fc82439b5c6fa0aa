use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cell::BODY_LEN;

fn body(start: &[u8]) -> Body {
    let mut body = [0; BODY_LEN];
    body[..start.len()].copy_from_slice(start);
    body
}

fn netinfo(start: &[u8]) -> Result<Netinfo, Malformed> {
    Netinfo::parse(&body(start))
}

#[test]
fn the_highest_common_version_is_chosen() {
    let ours = LinkVersion::ALL;
    assert_eq!(versions::encode(&ours), [0, 3, 0, 4, 0, 5]);
    assert_eq!(versions::negotiate(&[0, 5, 0, 3, 0, 4, 0, 6, 0xff, 0xff], &ours), Ok(Some(LinkVersion::V5)));
    assert_eq!(versions::negotiate(&[0, 5, 0, 3], &ours[..2]), Ok(Some(LinkVersion::V3)));
    assert_eq!(versions::negotiate(&[0, 5], &ours[..2]), Ok(None));
    assert_eq!(versions::negotiate(&[], &ours), Ok(None));
    assert_eq!(versions::negotiate(&[0, 5, 0], &ours), Err(Malformed));
}

#[test]
fn certificate_lists_may_have_anything_behind_them() {
    let list = [(2, &b"two"[..]), (7, b""), (2, b"again")];
    let mut encoded = certs::encode(&list);
    assert_eq!(certs::parse(&encoded), Ok(list.to_vec()));
    encoded.push(0);
    assert_eq!(certs::parse(&encoded), Ok(list.to_vec()));
    encoded.pop();
    for length in 0..encoded.len() {
        assert_eq!(certs::parse(&encoded[..length]), Err(Malformed), "{length} bytes");
    }
}

#[test]
fn challenges() {
    let offers = |count: u16, methods: &[u8]| {
        let mut body = vec![1; 32];
        body.extend(count.to_be_bytes());
        body.extend(methods);
        auth_challenge::offers_our_method(&body)
    };
    assert_eq!(offers(1, &[0, 3]), Ok(true));
    assert_eq!(offers(2, &[0, 1, 0, 3, 9]), Ok(true));
    assert_eq!(offers(1, &[0, 1, 0, 3]), Ok(false));
    assert_eq!(offers(0, &[]), Ok(false));
    // Not at an odd place.
    assert_eq!(offers(2, &[1, 0, 3, 1]), Ok(false));
    assert_eq!(offers(2, &[0, 3, 0]), Err(Malformed));
    assert_eq!(auth_challenge::offers_our_method(&[0; 33]), Err(Malformed));
    let ours = auth_challenge::encode(&mut crate::link::tests::rng(1));
    assert_eq!((ours.len(), auth_challenge::offers_our_method(&ours)), (36, Ok(true)));
}

#[test]
fn authenticate_has_an_exact_length_and_a_free_tail() {
    let agreed = authenticate::Agreed {
        cid: [1; 32],
        sid: [2; 32],
        cid_ed: [3; 32],
        sid_ed: [4; 32],
        slog: [5; 32],
        clog: [6; 32],
        scert: [7; 32],
        tls_secrets: [8; 32],
    };
    let mut body = authenticate::encode(&agreed, |_| [9; 64], &mut crate::link::tests::rng(1));
    assert_eq!(body.len(), 4 + authenticate::LEN);
    body.push(0);
    let parsed = authenticate::parse(&body).unwrap().unwrap();
    assert_eq!(parsed.agreed, &agreed.to_bytes());
    assert_eq!(&parsed.agreed[..8], b"AUTH0003");
    assert_eq!(
        parsed.agreed[8..].chunks(32).map(|field| field[0]).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
    assert_eq!(parsed.signature, &[9; 64]);
    let mut other = *parsed.agreed;
    other[8 + 5 * 32] = 0;
    assert_eq!(agreed.first_difference(&other), "CLOG");

    for (at, with, expected) in [(1, 1, Ok(false)), (3, 0x61, Err(Malformed)), (2, 2, Err(Malformed))] {
        let mut changed = body.clone();
        changed[at] = with;
        assert_eq!(authenticate::parse(&changed).map(|auth| auth.is_some()), expected);
    }
    assert!(authenticate::parse(&body[..4 + authenticate::LEN - 1]).is_err());
}

#[test]
fn netinfo_of_a_client_says_little() {
    let client = Netinfo { time: None, other: Some([127, 0, 0, 1].into()), own: vec![] };
    assert_eq!(client.encode(), [0, 0, 0, 0, 4, 4, 127, 0, 0, 1, 0]);
    assert_eq!(netinfo(&client.encode()), Ok(client));
}

#[test]
fn netinfo_address_forms() {
    // A type that is not known is passed over, wherever it stands and however long it is.
    let odd = netinfo(&[0, 0, 0, 9, 0, 3, 1, 2, 3, 2, 5, 0, 4, 4, 10, 0, 0, 1]).unwrap();
    assert_eq!(odd, Netinfo { time: Some(Unix(9)), other: None, own: vec![[10, 0, 0, 1].into()] });
    // A known one with a wrong length is an error, as is a count that goes beyond the cell.
    let prefix = [0, 0, 0, 9];
    for wrong in
        [&[4, 5, 1, 2, 3, 4, 5, 0][..], &[6, 4, 1, 2, 3, 4, 0], &[4, 0, 0], &[4, 4, 1, 2, 3, 4, 1, 4, 16]]
    {
        assert_eq!(netinfo(&[&prefix[..], wrong].concat()), Err(Malformed), "{wrong:?}");
    }
    let mut overrun = vec![0, 0, 0, 9, 4, 4, 1, 2, 3, 4, 2];
    overrun.extend([0, 255].iter().chain(&[0; 255]).chain(&[0, 240]));
    assert_eq!(netinfo(&overrun), Err(Malformed));
}

#[test]
fn we_never_announce_more_addresses_than_fit() {
    let own = vec![IpAddr::from([1; 16]); 300];
    let encoded = Netinfo { time: None, other: None, own }.encode();
    assert_eq!(netinfo(&encoded).unwrap().own.len(), limits::NETINFO_ADDRESSES);
    assert!(encoded.len() <= BODY_LEN);
}

proptest! {
    #[test]
    fn arbitrary_bodies_never_panic(bytes in vec(any::<u8>(), 0..700), fixed in vec(any::<u8>(), BODY_LEN)) {
        let _ = versions::negotiate(&bytes, &LinkVersion::ALL);
        let _ = certs::parse(&bytes);
        let _ = auth_challenge::offers_our_method(&bytes);
        let _ = authenticate::parse(&bytes);
        let _ = Netinfo::parse(fixed[..].try_into().unwrap());
        let _ = PaddingNegotiate::parse(fixed[..].try_into().unwrap());
    }

    #[test]
    fn netinfo_round_trips(
        time in prop::option::of(1u32..),
        other: IpAddr,
        own in vec(any::<IpAddr>(), 0..=limits::NETINFO_ADDRESSES),
    ) {
        let message = Netinfo { time: time.map(|time| Unix(time.into())), other: Some(other), own };
        prop_assert_eq!(netinfo(&message.encode()), Ok(message));
    }

    #[test]
    fn padding_negotiate_round_trips(low_ms: u16, high_ms: u16, stop: bool) {
        let message = if stop { PaddingNegotiate::Stop } else { PaddingNegotiate::Start { low_ms, high_ms } };
        prop_assert_eq!(PaddingNegotiate::parse(&body(&message.encode())), Ok(message));
    }
}
