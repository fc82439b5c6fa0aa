use super::*;

/// A request of version 5 without authentication, all at once.
fn v5(command: u8, host: &str, port: u16) -> Vec<u8> {
    let mut sent = vec![5, 1, 0, 5, command, 0];
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            sent.push(1);
            sent.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            sent.push(4);
            sent.extend(ip.octets());
        }
        Err(_) => {
            sent.extend([3, host.len() as u8]);
            sent.extend(host.as_bytes());
        }
    }
    sent.extend(port.to_be_bytes());
    sent
}

fn v4a(command: u8, host: &str, port: u16) -> Vec<u8> {
    let mut sent = vec![4, command];
    sent.extend(port.to_be_bytes());
    sent.extend([0, 0, 0, 1]);
    sent.extend(b"user\0");
    sent.extend(host.as_bytes());
    sent.push(0);
    sent
}

const DONE: &[u8] = &[5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

fn refused(status: u8) -> Vec<u8> {
    vec![5, 0, 5, status, 0, 1, 0, 0, 0, 0, 0, 0]
}

#[tokio::test]
async fn a_stream_by_version_5() {
    let mut bench = Bench::new("SocksPort auto");
    let mut app = bench.app(&v5(1, "Example.com", 443)).await;
    assert_eq!(take(&mut app, DONE.len()).await, DONE);
    let mut opened = bench.opened().await;
    assert_eq!(opened.destination.host, name("Example.com"));
    assert_eq!(opened.destination.port, 443);
    assert_eq!(opened.destination.families, Families { v4: true, v6: true, prefer_v6: false });
    assert_eq!(&*opened.destination.token.dest_addr, "example.com");

    app.write_all(b"question").await.unwrap();
    assert_eq!(take(&mut opened.far, 8).await, b"question");
    opened.far.write_all(b"answer").await.unwrap();
    assert_eq!(take(&mut app, 6).await, b"answer");
    drop(opened.far);
    assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
    drop(app);
    let counters = bench.of(ClientKind::Socks);
    until(|| counters.open() == 0).await;
    assert_eq!((counters.accepted(), counters.bytes_sent(), counters.bytes_received()), (1, 8, 6));
}

#[tokio::test]
async fn a_stream_by_versions_4_and_4a() {
    let mut bench = Bench::new("SocksPort auto");
    let mut app = bench.app(&v4a(1, "example.com", 80)).await;
    assert_eq!(take(&mut app, 8).await, [0, 90, 0, 0, 0, 0, 0, 0]);
    let destination = bench.opened().await.destination;
    assert_eq!((&destination.host, destination.port), (&name("example.com"), 80));
    assert!(!destination.families.v6, "an application of version 4 does not know IPv6");
    assert_eq!(destination.token.auth, Some((b"user".as_slice().into(), [].into())));
    assert_eq!(destination.token.protocol, Protocol::Socks4);

    let mut app = bench.app(b"\x04\x01\x00\x50\xc0\x00\x02\x07\x00").await;
    assert_eq!(take(&mut app, 8).await, [0, 90, 0, 0, 0, 0, 0, 0]);
    let destination = bench.opened().await.destination;
    assert_eq!((destination.host, destination.token.auth), (Host::Address(ip("192.0.2.7")), None));

    bench.plan(Plan::Refuse(Refusal::Timeout));
    assert_eq!(bench.ask(&v4a(1, "example.com", 80)).await, [0, 91, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.ask(&v4a(1, "[2001:db8::1]", 80)).await, [0, 91, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.of(ClientKind::Socks).denied(Denied::Family), 1);
}

#[tokio::test]
async fn what_follows_the_request_goes_along_with_it() {
    let mut bench = Bench::new("SocksPort auto");
    bench.plan(Plan::Open(20));
    let mut app = bench.app(&[&v5(1, "example.com", 80)[..], b"0123456789"].concat()).await;
    assert_eq!(take(&mut app, 2).await, [5, 0]);
    // No reply yet: the network still waits for the rest.
    app.write_all(b"abcdefghij").await.unwrap();
    let mut opened = bench.opened().await;
    assert_eq!(take(&mut opened.far, 20).await, b"0123456789abcdefghij");
    assert_eq!(take(&mut app, 10).await, &DONE[2..]);
    app.write_all(b"more").await.unwrap();
    assert_eq!(take(&mut opened.far, 4).await, b"more");
    until(|| bench.of(ClientKind::Socks).bytes_sent() == 24).await;
}

#[tokio::test]
async fn an_application_that_ends_early_gets_its_answer() {
    let mut bench = Bench::new("SocksPort auto");
    bench.plan(Plan::Open(usize::MAX));
    let mut app = bench.app(&[&v5(1, "example.com", 80)[..], b"question"].concat()).await;
    app.shutdown().await.unwrap();
    let mut opened = bench.opened().await;
    assert_eq!(take(&mut opened.far, 8).await, b"question");
    opened.far.write_all(b"answer").await.unwrap();
    drop(opened);
    let mut all = Vec::new();
    app.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [DONE, b"answer"].concat());
}

#[tokio::test]
async fn every_refusal_has_its_status() {
    let bench = Bench::new("SocksPort auto ExtendedErrors");
    for (refusal, status) in [
        (Refusal::NotReady, 1),
        (Refusal::NotAllowed, 2),
        (Refusal::Internal, 1),
        (Refusal::OnionService, 2),
        (Refusal::NotFound, 4),
        (Refusal::NoRoute, 4),
        (Refusal::Refused, 5),
        (Refusal::Timeout, 6),
        (Refusal::Failed, 1),
    ] {
        bench.plan(Plan::Refuse(refusal));
        assert_eq!(bench.ask(&v5(1, "example.com", 80)).await, refused(status), "{refusal:?}");
        assert_eq!(bench.of(ClientKind::Socks).denied(refusal.into()), 1, "{refusal:?}");
    }
}

#[tokio::test]
async fn what_is_refused_here() {
    let mut bench = Bench::new("SocksPort auto\nRejectPlaintextPorts 23");
    for (host, port, status, reason) in [
        ("example.com", 23, 2, Denied::Plaintext),
        ("www.example.com.exit", 80, 1, Denied::DotExit),
        ("EXAMPLE.EXIT.", 80, 1, Denied::DotExit),
        (
            "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion",
            80,
            2,
            Refusal::OnionService.into(),
        ),
        ("a.b.Onion", 80, 2, Refusal::OnionService.into()),
        ("127.0.0.1", 80, 1, Refusal::Internal.into()),
        ("localhost", 80, 1, Refusal::Internal.into()),
        ("printer.local", 80, 1, Refusal::Internal.into()),
        ("::1", 80, 1, Refusal::Internal.into()),
        ("10.1.2.3", 80, 1, Refusal::Internal.into()),
    ] {
        let before = bench.of(ClientKind::Socks).denied(reason);
        assert_eq!(bench.ask(&v5(1, host, port)).await, refused(status), "{host}:{port}");
        assert_eq!(bench.of(ClientKind::Socks).denied(reason), before + 1, "{host}:{port}");
    }
    for host in ["exa mple.com", "-example.com", "a..b", "[::1", "\u{e4}.example"] {
        assert_eq!(bench.ask(&v5(1, host, 80)).await, refused(1), "{host}");
    }
    assert_eq!(bench.ask(&v5(2, "example.com", 80)).await, refused(7));
    assert_eq!(bench.ask(&v5(1, "example.com", 0)).await, refused(1));
    assert!(bench.opened.try_recv().is_err(), "nothing of that reaches the network");
}

#[tokio::test]
async fn names_that_are_addresses_are_addresses() {
    let mut bench = Bench::new("SocksPort auto\nSafeSocks 1");
    for (sent, host) in [("192.0.2.1", "192.0.2.1"), ("[2001:db8::1]", "2001:db8::1")] {
        let mut request = vec![5, 1, 0, 5, 1, 0, 3, sent.len() as u8];
        request.extend(sent.as_bytes());
        request.extend([0, 80]);
        let mut app = bench.app(&request).await;
        assert_eq!(take(&mut app, DONE.len()).await, DONE);
        assert_eq!(bench.opened().await.destination.host, Host::Address(ip(host)));
    }
}

#[tokio::test]
async fn safe_socks_takes_names_only() {
    let mut bench = Bench::new("SocksPort auto\nSafeSocks 1\nTestSocks 1");
    assert_eq!(bench.ask(&v5(1, "192.0.2.1", 80)).await, refused(2));
    assert_eq!(bench.ask(&v5(1, "2001:db8::1", 80)).await, refused(2));
    assert_eq!(bench.ask(&v5(0xf0, "192.0.2.1", 80)).await, refused(2));
    assert_eq!(bench.ask(b"\x04\x01\x00\x50\xc0\x00\x02\x07\x00").await, [0, 91, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.of(ClientKind::Socks).denied(Denied::Unsafe), 4);
    let mut app = bench.app(&v5(1, "example.com", 80)).await;
    assert_eq!(take(&mut app, DONE.len()).await, DONE);
    bench.answer(Ok(vec![ResolvedValue::Name("example.com".into())]));
    let found = bench.ask(&v5(0xf1, "192.0.2.1", 0)).await;
    assert_eq!(found[..6], [5, 0, 5, 0, 0, 3], "asking for the name of an address leaks nothing");
    assert!(bench.opened.try_recv().is_ok() && bench.opened.try_recv().is_err());
}

#[tokio::test]
async fn names_are_looked_up() {
    let bench = Bench::new("SocksPort auto");
    bench.answer(Ok(vec![addr("2001:db8::1"), addr("192.0.2.1"), addr("192.0.2.2")]));
    assert_eq!(bench.ask(&v5(0xf0, "example.com", 0)).await, [5, 0, 5, 0, 0, 1, 192, 0, 2, 1, 0, 0]);
    assert_eq!(bench.ask(&v4a(0xf0, "example.com", 0)).await, [0, 90, 0, 0, 192, 0, 2, 1]);
    bench.answer(Ok(vec![addr("2001:db8::1")]));
    let found = bench.ask(&v5(0xf0, "example.com", 0)).await;
    assert_eq!((found.len(), &found[..8]), (24, &[5, 0, 5, 0, 0, 4, 0x20, 1][..]));
    assert_eq!(bench.ask(&v4a(0xf0, "example.com", 0)).await, [0, 91, 0, 0, 0, 0, 0, 0]);
    bench.answer(Ok(vec![ResolvedValue::PermanentError]));
    assert_eq!(bench.ask(&v5(0xf0, "example.com", 0)).await, refused(4));
    assert_eq!(bench.questions(), vec![Question::Addresses("example.com".into()); 5]);

    assert_eq!(bench.ask(&v5(0xf0, "192.0.2.9", 0)).await, [5, 0, 5, 0, 0, 1, 192, 0, 2, 9, 0, 0]);
    assert_eq!(bench.ask(&v5(0xf0, "www.onion", 0)).await, refused(2));
    assert_eq!(bench.questions().len(), 5, "an address needs no looking up");
}

#[tokio::test]
async fn addresses_are_looked_up() {
    let bench = Bench::new("SocksPort auto");
    bench.answer(Ok(vec![ResolvedValue::Name("a.example".into())]));
    let found = bench.ask(&v5(0xf1, "192.0.2.1", 0)).await;
    assert_eq!(found, b"\x05\x00\x05\x00\x00\x03\x09a.example\x00\x00");
    assert_eq!(bench.questions(), [Question::Name(ip("192.0.2.1"))]);
    assert_eq!(bench.ask(&v5(0xf1, "127.0.0.1", 0)).await, refused(4));
    assert_eq!(bench.ask(&v5(0xf1, "example.com", 0)).await, refused(8));
    assert_eq!(bench.questions().len(), 1);
    bench.answer(Err(Refusal::NotReady));
    assert_eq!(bench.ask(&v5(0xf1, "192.0.2.1", 0)).await, refused(1));
}

#[tokio::test]
async fn flags_say_which_addresses_and_names() {
    let preferred = |flags: &str, families: Families| {
        let torrc = format!("SocksPort auto {flags}");
        async move {
            let mut bench = Bench::new(&torrc);
            let mut app = bench.app(&v5(1, "example.com", 80)).await;
            assert_eq!(take(&mut app, DONE.len()).await, DONE);
            assert_eq!(bench.opened().await.destination.families, families, "{torrc}");
        }
    };
    preferred("PreferIPv6", Families { v4: true, v6: true, prefer_v6: true }).await;
    preferred("NoIPv4Traffic", Families { v4: false, v6: true, prefer_v6: false }).await;
    preferred("NoIPv6Traffic", Families { v4: true, v6: false, prefer_v6: false }).await;

    for (flags, host, status, reason) in [
        ("NoIPv4Traffic", "192.0.2.1", 2, Denied::Family),
        ("NoIPv6Traffic", "2001:db8::1", 2, Denied::Family),
        ("NoDNSRequest", "example.com", 2, Denied::Lookup),
        ("OnionTrafficOnly", "example.com", 2, Denied::Lookup),
        ("OnionTrafficOnly", "192.0.2.1", 2, Denied::Family),
        ("NoOnionTraffic", "www.onion", 2, Denied::Family),
    ] {
        let bench = Bench::new(&format!("SocksPort auto {flags}"));
        for command in [1, 0xf0] {
            assert_eq!(bench.ask(&v5(command, host, 80)).await, refused(status), "{flags} {host}");
        }
        assert_eq!(bench.of(ClientKind::Socks).denied(reason), 2, "{flags} {host}");
    }
    let bench = Bench::new("SocksPort auto PreferIPv6");
    bench.answer(Ok(vec![addr("192.0.2.1"), addr("2001:db8::1")]));
    assert_eq!(bench.ask(&v5(0xf0, "example.com", 0)).await[5], 4);
}

#[tokio::test]
async fn garbage_is_answered_as_it_deserves() {
    let bench = Bench::new("SocksPort auto");
    let page = bench.ask(b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert!(page.starts_with(b"HTTP/1.0 501 ") && page.ends_with(b"</html>\n"));
    assert_eq!(bench.ask(b"\x16\x03\x01\x02\x00\x01\x00").await, b"");
    assert_eq!(bench.ask(b"\x05\x01\x01").await, [5, 0xff]);
    let endless = [&b"\x04\x01\x00\x50\xc0\x00\x02\x07"[..], &[b'x'; 4000]].concat();
    assert_eq!(bench.ask(&endless).await, b"");
    assert_eq!(bench.of(ClientKind::Socks).denied(Denied::Malformed), 4);
}

#[tokio::test(start_paused = true)]
async fn slow_applications_and_slow_networks_are_given_up() {
    let bench = Bench::new("SocksPort auto\nSocksTimeout 30 seconds");
    let mut app = bench.app(b"\x05\x01").await;
    until(|| bench.of(ClientKind::Socks).open() == 1).await;
    assert_eq!(app.read(&mut [0]).await.unwrap(), 0, "the request does not come");
    assert_eq!(bench.of(ClientKind::Socks).denied(Denied::Malformed), 1);

    bench.plan(Plan::Hang);
    assert_eq!(bench.ask(&v5(1, "example.com", 80)).await, refused(6));
    assert_eq!(bench.ask(&v5(0xf0, "example.com", 80)).await, refused(6));
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let mut bench = Bench::new("SocksPort auto");
    let mut app = TcpStream::connect(bench.address()).await.unwrap();
    app.set_nodelay(true).unwrap();
    let request = [&b"\x05\x02\x00\x02"[..], b"\x01\x01u\x01p", &v5(1, "example.com", 80)[3..]].concat();
    for byte in &request {
        app.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let expected = [&[5, 2, 1, 0][..], &DONE[2..]].concat();
    assert_eq!(take(&mut app, expected.len()).await, expected);
    let token = bench.opened().await.destination.token;
    assert_eq!(token.auth, Some((b"u".as_slice().into(), b"p".as_slice().into())));
}

#[tokio::test]
async fn no_more_applications_than_there_is_room_for() {
    let mut config = config("SocksPort auto");
    config.rules.applications = 2;
    let bench = Bench::with(config);
    let first = bench.app(b"").await;
    let _second = bench.app(b"").await;
    let counters = bench.of(ClientKind::Socks);
    until(|| counters.open() == 2).await;
    let mut third = TcpStream::connect(bench.address()).await.unwrap();
    assert_eq!(third.read(&mut [0]).await.unwrap(), 0);
    assert_eq!((counters.accepted(), counters.turned_away()), (2, 1));
    drop(first);
    until(|| counters.open() == 1).await;
    bench.plan(Plan::Refuse(Refusal::Refused));
    assert_eq!(bench.ask(&v5(1, "example.com", 80)).await, refused(5));
}

#[tokio::test]
async fn the_policy_says_who_may_ask() {
    let bench = Bench::new("SocksPort auto\nSocksPolicy reject 127.0.0.0/8, accept *");
    let mut app = TcpStream::connect(bench.address()).await.unwrap();
    // The proxy closes without reading, which may be a reset.
    assert!(matches!(app.read(&mut [0]).await, Ok(0) | Err(_)));
    assert_eq!(bench.of(ClientKind::Socks).turned_away(), 1);
}
