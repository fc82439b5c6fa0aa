use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::cell::DestroyReason;
use crate::crypto::tor1::SendmeTag;
use crate::limits::EXTENDED2_DATA;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn header_lies_where_the_specification_puts_it() {
    let mut body = [0xAA; BODY_LEN];
    encode(RelayCmd::DATA, StreamId(0x1234), b"abc", &mut rng(), &mut body);
    assert_eq!(body[..14], hex::decode("0200001234000000000003616263").unwrap()[..]);
    assert_eq!(body[14..18], [0; 4]);
    assert_ne!(body[18..], [0; BODY_LEN - 18], "padding is random");
    assert_ne!(body[18..], [0xAA; BODY_LEN - 18], "padding is random");
}

#[test]
fn short_padding_is_all_zero() {
    for room in 0..=PADDING_GAP {
        let mut body = [0xAA; BODY_LEN];
        encode(RelayCmd::DATA, StreamId(1), &vec![1; MAX_DATA_LEN - room], &mut rng(), &mut body);
        assert_eq!(body[BODY_LEN - room..], vec![0; room]);
    }
}

#[test]
fn length_beyond_the_cell_is_refused() {
    let mut body = [0; BODY_LEN];
    body[9..11].copy_from_slice(&498u16.to_be_bytes());
    assert_eq!(decode(&body).unwrap().data.len(), 498);
    body[9..11].copy_from_slice(&499u16.to_be_bytes());
    assert_eq!(decode(&body), Err(LengthError(499)));
}

#[test]
fn begin_forms() {
    let parsed = |text: &'static [u8]| Begin::parse(text);
    let begin = |host, port, flags| Ok(Begin { host, port, flags: BeginFlags(flags) });
    assert_eq!(parsed(b"Example.com:80\0"), begin(Host::Name("Example.com"), 80, 0));
    assert_eq!(parsed(b"Example.com:80\0\0\0\0\x05"), begin(Host::Name("Example.com"), 80, 5));
    assert_eq!(parsed(b"a:80\0\0\0\0\x05more"), begin(Host::Name("a"), 80, 5));
    for partial in 1..=3 {
        let text = [&b"a.b:443\0"[..], &[0xFF; 3][..partial]].concat();
        assert_eq!(
            Begin::parse(&text),
            begin(Host::Name("a.b"), 443, 0),
            "{partial} flag bytes count as none"
        );
    }
    assert_eq!(parsed(b"192.0.2.7:65535\0"), begin(Host::Addr(Ipv4Addr::new(192, 0, 2, 7).into()), 65535, 0));
    let v6: IpAddr = "2001:db8::7".parse().unwrap();
    assert_eq!(parsed(b"[2001:db8::7]:22\0\0\0\0\x01"), begin(Host::Addr(v6), 22, 1));
}

#[test]
fn begin_errors_give_the_end_reason_of_deployed_exits() {
    for (text, error, reason) in [
        (&b"a:80"[..], BeginError::NoNul, EndReason::TorProtocol),
        (b"", BeginError::NoNul, EndReason::TorProtocol),
        (b"\0", BeginError::Port, EndReason::TorProtocol),
        (b"a\0", BeginError::Port, EndReason::TorProtocol),
        (b"a:\0", BeginError::Port, EndReason::TorProtocol),
        (b"a:0\0", BeginError::Port, EndReason::TorProtocol),
        (b"a:+80\0", BeginError::Port, EndReason::TorProtocol),
        (b"a:65536\0", BeginError::Port, EndReason::TorProtocol),
        (b"a:80x\0", BeginError::Port, EndReason::TorProtocol),
        (b"[1.2.3.4]:80\0", BeginError::Address, EndReason::TorProtocol),
        (b"[::1:80\0", BeginError::Address, EndReason::TorProtocol),
        (b":80\0", BeginError::Name, EndReason::ResolveFailed),
        (b"-a:80\0", BeginError::Name, EndReason::ResolveFailed),
        (b"a b:80\0", BeginError::Name, EndReason::ResolveFailed),
        (b"a..b:80\0", BeginError::Name, EndReason::ResolveFailed),
        (b"::1:80\0", BeginError::Name, EndReason::ResolveFailed),
        (b"\xff:80\0", BeginError::Name, EndReason::ResolveFailed),
    ] {
        assert_eq!(Begin::parse(text), Err(error), "{}", text.escape_ascii());
        assert_eq!(error.end_reason(), reason);
    }
}

#[test]
fn hostnames() {
    for good in ["a", "a.", "xn--bcher-kva.example", "_srv.a".trim_start_matches('_'), "3com.com", "a_b-c.d"]
    {
        assert!(is_valid_hostname(good), "{good}");
    }
    let long = "a".repeat(256);
    for bad in ["", ".", "..", "a..", ".a", "-a.b", "a._b", "a/b", "a:b", "ü.de", long.as_str()] {
        assert!(!is_valid_hostname(bad), "{bad}");
    }
}

#[test]
fn end_without_reason_is_read_as_misc_but_never_written() {
    assert_eq!(End::parse(&[]), EndReason::Misc.into());
    for byte in 0..=255u8 {
        let out = written(|out| End::from(EndReason::from_wire(byte)).write(out));
        assert_eq!(out, [byte]);
    }
}

#[test]
fn end_by_exit_policy_may_carry_an_address() {
    let v4: IpAddr = "192.0.2.1".parse().unwrap();
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    assert_eq!(End::parse(&[4, 192, 0, 2, 1]).addr, Some((v4, 0)));
    assert_eq!(End::parse(&[4, 192, 0, 2, 1, 0, 0, 1, 0]).addr, Some((v4, 256)));
    assert_eq!(End::parse(&[4, 192, 0, 2]).addr, None);
    assert_eq!(End::parse(&[6, 192, 0, 2, 1]).addr, None, "only exit policy carries one");
    for ip in [v4, v6] {
        let end = End { reason: EndReason::ExitPolicy, addr: Some((ip, 60)) };
        assert_eq!(End::parse(&written(|out| end.write(out))), end);
    }
}

#[test]
fn connected_forms() {
    assert_eq!(Connected::parse(&[]), Ok(Connected { addr: None }));
    let v4 = Connected { addr: Some(([192, 0, 2, 1].into(), 3600)) };
    assert_eq!(written(|out| v4.write(out)), hex::decode("c000020100000e10").unwrap());
    assert_eq!(Connected::parse(&hex::decode("c0000201").unwrap()).unwrap().addr.unwrap().1, 0);
    let v6 = Connected { addr: Some(("2001:db8::1".parse().unwrap(), 60)) };
    let bytes = hex::decode("000000000620010db80000000000000000000000010000003c").unwrap();
    assert_eq!(written(|out| v6.write(out)), bytes);
    assert_eq!(Connected::parse(&bytes), Ok(v6));
    assert_eq!(Connected::parse(&bytes[..24]), Err(ConnectedError(24)));
    assert_eq!(Connected::parse(&[1, 2]), Err(ConnectedError(2)));
    let mut unknown_type = bytes;
    unknown_type[4] = 7;
    assert!(Connected::parse(&unknown_type).is_err());
}

#[test]
fn resolve_forms() {
    let v4: IpAddr = "1.2.3.4".parse().unwrap();
    let v6: IpAddr = "2001:db8::567:89ab".parse().unwrap();
    let v6_name: &[u8] = b"b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa\0";
    assert_eq!(Resolve::parse(b"a.example\0junk"), Ok(Resolve::Name("a.example")));
    assert_eq!(Resolve::parse(b"a.example"), Ok(Resolve::Name("a.example")));
    assert_eq!(Resolve::parse(b"1.2.3.4\0"), Ok(Resolve::Literal(v4)));
    assert_eq!(Resolve::parse(b"::1\0"), Ok(Resolve::Literal(Ipv6Addr::LOCALHOST.into())));
    assert_eq!(Resolve::parse(b"4.3.2.1.in-addr.ARPA\0"), Ok(Resolve::Reverse(v4)));
    assert_eq!(Resolve::parse(v6_name), Ok(Resolve::Reverse(v6)));
    assert_eq!(written(|out| Resolve::Reverse(v6).write(out)), v6_name);
    for bad in
        [&b""[..], b"\0", b"3.2.1.in-addr.arpa\0", b"1.2.ip6.arpa\0", b"g.ip6.arpa\0", b"a b\0", b"\xff\0"]
    {
        assert_eq!(Resolve::parse(bad), Err(ResolveError), "{}", bad.escape_ascii());
    }
}

#[test]
fn resolved_writes_what_fits_and_reads_it_back() {
    let addr = |n: u8| (ResolvedValue::Addr([10, 0, 0, n].into()), 60);
    let resolved = Resolved { answers: (0..100).map(addr).collect() };
    let out = written(|out| resolved.write(out));
    assert!(out.len() <= MAX_DATA_LEN);
    assert_eq!(Resolved::parse(&out).unwrap().answers, (0..49).map(addr).collect::<Vec<_>>());

    let error = Resolved { answers: vec![(ResolvedValue::TransientError, 60)] };
    let out = written(|out| error.write(out));
    assert_eq!(out[..2], [0xF0, 24]);
    assert_eq!(Resolved::parse(&out), Ok(error));

    assert_eq!(
        Resolved::parse(&[99, 1, 0, 0, 0, 0, 0]),
        Ok(Resolved::default()),
        "unknown types are skipped"
    );
    assert_eq!(Resolved::parse(&[4, 4, 1, 2, 3, 4, 0, 0, 0]), Err(ResolvedError::Truncated(9)));
    assert_eq!(Resolved::parse(&[4, 3, 1, 2, 3, 0, 0, 0, 0]), Err(ResolvedError::Value { kind: 4, len: 3 }));
}

#[test]
fn sendme_versions() {
    let tag = SendmeTag([7; 20]);
    assert_eq!(Sendme::parse(&[]), Ok(Sendme::V0));
    assert_eq!(Sendme::parse(&[0, 1, 2]), Ok(Sendme::V0));
    let v1 = written(|out| Sendme::V1 { tag }.write(out));
    assert_eq!(v1[..4], [1, 0, 20, 7]);
    assert_eq!(Sendme::parse(&v1), Ok(Sendme::V1 { tag }));
    assert_eq!(
        Sendme::parse(&[&v1[..], &[9; 5]].concat()),
        Ok(Sendme::V1 { tag }),
        "what follows is ignored"
    );
    assert_eq!(Sendme::parse(&v1[..22]), Err(SendmeError::Truncated(22)));
    assert_eq!(Sendme::parse(&[&[1, 0, 16][..], &[0; 16]].concat()), Err(SendmeError::TagLen(16)));
    assert_eq!(Sendme::parse(&[2, 0, 20]), Err(SendmeError::Version(2)));
    assert_eq!(written(|out| Sendme::V0.write(out)), []);
}

#[test]
fn truncate_needs_a_reason() {
    let truncate = Truncate { reason: DestroyReason::Requested };
    assert_eq!(written(|out| truncate.write(out)), [3]);
    assert_eq!(Truncate::parse(&[3, 9]), Ok(truncate));
    assert!(Truncate::parse(&[]).is_err());
    assert_eq!(Truncated::parse(&[11]), Ok(Truncated { reason: DestroyReason::Destroyed }));
    assert!(Truncated::parse(&[]).is_err());
}

/// An EXTEND2 with these link specifiers and a one-byte ntor handshake.
fn extend2(specs: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = vec![specs.len() as u8];
    for (kind, spec) in specs {
        out.extend([*kind, spec.len() as u8]);
        out.extend_from_slice(spec);
    }
    out.extend([0, 2, 0, 1, 0xEE]);
    out
}

const V4: (u8, &[u8]) = (0, &[127, 0, 0, 5, 0x23, 0x28]);
const V6: (u8, &[u8]) = (1, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9]);
const RSA: (u8, &[u8]) = (2, &[3; 20]);
const ED: (u8, &[u8]) = (3, &[4; 32]);

#[test]
fn extend2_takes_specifiers_in_any_order() {
    let expected = Extend2 {
        specs: LinkSpecs {
            ipv4: Some(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 5), 9000)),
            ipv6: Some(SocketAddrV6::new("2001:db8::1".parse().unwrap(), 9, 0, 0)),
            rsa_id: [3; 20],
            ed_id: Some([4; 32]),
        },
        htype: 2,
        hdata: &[0xEE],
    };
    assert_eq!(Extend2::parse(&extend2(&[V6, ED, RSA, V4])).as_ref(), Ok(&expected));
    assert_eq!(Extend2::parse(&extend2(&[V6, (77, &[1]), ED, (200, &[]), RSA, V4])).as_ref(), Ok(&expected));
    assert_eq!(written(|out| expected.write(out)), extend2(&[V4, RSA, ED, V6]), "written in the usual order");
}

#[test]
fn extend2_rules() {
    let other_v4: (u8, &[u8]) = (0, &[10, 0, 0, 1, 0, 1]);
    let first = extend2(&[V4, other_v4, RSA]);
    assert_eq!(Extend2::parse(&first).unwrap().specs.ipv4.unwrap().port(), 9000, "the first address counts");
    let zero_ed = extend2(&[V4, RSA, (3, &[0; 32])]);
    assert_eq!(Extend2::parse(&zero_ed).unwrap().specs.ed_id, None, "an all-zero Ed25519 identity is none");

    for (specs, error) in [
        (&[V4][..], Extend2Error::NoRsaId),
        (&[V4, (2, &[0; 20])], Extend2Error::NoRsaId),
        (&[V4, RSA, RSA], Extend2Error::TwoIds(2)),
        (&[V4, RSA, ED, ED], Extend2Error::TwoIds(3)),
        (&[RSA, ED], Extend2Error::NoAddress),
        (&[RSA, (0, &[127, 0, 0, 1, 0, 0])], Extend2Error::NoAddress),
        (&[RSA, (0, &[127, 0, 0, 1, 0])], Extend2Error::SpecLen { kind: 0, len: 5 }),
        (&[RSA, V4, (1, &[0; 17])], Extend2Error::SpecLen { kind: 1, len: 17 }),
        (&[V4, (2, &[1; 21])], Extend2Error::SpecLen { kind: 2, len: 21 }),
        (&[V4, RSA, (3, &[1; 31])], Extend2Error::SpecLen { kind: 3, len: 31 }),
    ] {
        assert_eq!(Extend2::parse(&extend2(specs)), Err(error));
    }
    for htype in [0, 1] {
        let mut message = extend2(&[V4, RSA]);
        let at = message.len() - 4;
        message[at] = htype;
        assert_eq!(Extend2::parse(&message), Err(Extend2Error::Handshake(htype.into())));
    }
    let whole = extend2(&[V4, RSA, ED]);
    for cut in 0..whole.len() {
        assert_eq!(Extend2::parse(&whole[..cut]), Err(Extend2Error::Truncated(cut)));
    }
}

#[test]
fn extended2_lengths() {
    let full = [5; EXTENDED2_DATA];
    let out = written(|out| Extended2 { hdata: &full }.write(out));
    assert_eq!(out.len(), MAX_DATA_LEN);
    assert_eq!(Extended2::parse(&out), Ok(Extended2 { hdata: &full }));
    assert_eq!(Extended2::parse(&out[..497]), Err(Extended2Error(497)));
    assert_eq!(Extended2::parse(&[0]), Err(Extended2Error(1)));
    assert_eq!(Extended2::parse(&[0, 0, 1]), Ok(Extended2 { hdata: &[] }));
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9][a-zA-Z0-9_-]{0,20}(\\.[a-zA-Z0-9][a-z0-9-]{0,9}){0,3}",
        any::<Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<Ipv6Addr>().prop_map(|ip| format!("[{ip}]")),
    ]
}

proptest! {
    #[test]
    fn cells_round_trip(cmd: u8, stream: u16, data in prop::collection::vec(any::<u8>(), 0..=MAX_DATA_LEN)) {
        let mut body = [0xAA; BODY_LEN];
        encode(RelayCmd(cmd), StreamId(stream), &data, &mut rng(), &mut body);
        prop_assert_eq!(decode(&body), Ok(RelayMsg { cmd: RelayCmd(cmd), stream: StreamId(stream), data: &data }));
    }

    #[test]
    fn begin_round_trips(host in any_host(), port in 1u16.., flags: u32) {
        let mut text = format!("{host}:{port}\0").into_bytes();
        if flags != 0 {
            text.extend(flags.to_be_bytes());
        }
        let begin = Begin::parse(&text).unwrap();
        prop_assert_eq!((begin.port, begin.flags), (port, BeginFlags(flags)));
        let again = written(|out| begin.write(out));
        prop_assert_eq!(Begin::parse(&again), Ok(begin));
    }

    #[test]
    fn resolved_round_trips(
        answers in prop::collection::vec(
            (prop_oneof![
                any::<IpAddr>().prop_map(ResolvedValue::Addr),
                "[a-z.]{0,40}".prop_map(ResolvedValue::Name),
                Just(ResolvedValue::TransientError),
                Just(ResolvedValue::PermanentError),
            ], any::<u32>()),
            0..8,
        )
    ) {
        let resolved = Resolved { answers };
        prop_assert_eq!(Resolved::parse(&written(|out| resolved.write(out))), Ok(resolved));
    }

    #[test]
    fn reverse_lookups_round_trip(ip: IpAddr) {
        let resolve = Resolve::Reverse(ip);
        let again = written(|out| resolve.write(out));
        prop_assert_eq!(Resolve::parse(&again), Ok(resolve));
    }

    /// Whatever a peer sends, parsing ends with a value or an error, and a value survives being written again.
    #[test]
    fn arbitrary_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..=MAX_DATA_LEN)) {
        if let Ok(begin) = Begin::parse(&data) {
            let again = written(|out| begin.write(out));
            prop_assert_eq!(Begin::parse(&again), Ok(begin));
        }
        if let Ok(extend) = Extend2::parse(&data) {
            let again = written(|out| extend.write(out));
            prop_assert_eq!(Extend2::parse(&again), Ok(extend.clone()));
        }
        if let Ok(connected) = Connected::parse(&data) {
            // An IPv6 form may hold any address, so only the IPv4 form's unspecified address cannot come back.
            prop_assert_eq!(Connected::parse(&written(|out| connected.write(out))), Ok(connected));
        }
        if let Ok(sendme) = Sendme::parse(&data) {
            prop_assert_eq!(Sendme::parse(&written(|out| sendme.write(out))), Ok(sendme));
        }
        let end = End::parse(&data);
        prop_assert_eq!(End::parse(&written(|out| end.write(out))), end);
        let _ = (Resolve::parse(&data), Resolved::parse(&data), Extended2::parse(&data));
        let _ = (Truncate::parse(&data), Truncated::parse(&data));
    }

    #[test]
    fn arbitrary_extend2_never_panics(mut data in prop::collection::vec(0u8..=32, 0..=200), count in 0u8..6) {
        if let Some(first) = data.first_mut() {
            *first = count;
        }
        let _ = Extend2::parse(&data);
    }

    #[test]
    fn arbitrary_cells_never_panic(body in prop::collection::vec(any::<u8>(), BODY_LEN)) {
        let body: Body = body.try_into().unwrap();
        if let Ok(msg) = decode(&body) {
            prop_assert!(msg.data.len() <= MAX_DATA_LEN);
        }
    }
}
