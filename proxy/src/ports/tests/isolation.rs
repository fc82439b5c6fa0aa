use super::*;

/// The token of the next stream through the port that answers at `address`, asked for by version 5.
async fn token(bench: &mut Bench, port: usize, auth: Option<&str>, host: &str) -> Token {
    let mut sent = match auth {
        None => vec![5, 1, 0],
        Some(user) => [&[5, 1, 2, 1, user.len() as u8], user.as_bytes(), &[1, b'p']].concat(),
    };
    sent.extend([5, 1, 0, 3, host.len() as u8]);
    sent.extend(host.as_bytes());
    sent.extend([0, 80]);
    let mut app = TcpStream::connect(bench.addresses()[port]).await.unwrap();
    app.write_all(&sent).await.unwrap();
    bench.opened().await.destination.token
}

#[tokio::test]
async fn a_token_says_all_there_is_to_know() {
    let mut bench = Bench::new("SocksPort auto");
    let found = token(&mut bench, 0, Some("me"), "Example.COM").await;
    let expected = Token {
        isolate: Isolate::DEFAULT,
        session: -4,
        client: Some(ip("127.0.0.1")),
        protocol: Protocol::Socks5,
        auth: Some((b"me".as_slice().into(), b"p".as_slice().into())),
        dest_addr: "example.com".into(),
        dest_port: 80,
        keep_alive: false,
    };
    assert_eq!(found, expected);
    assert_eq!(token(&mut bench, 0, None, "example.com").await.auth, None);
}

#[tokio::test]
async fn flags_say_what_isolates() {
    for (flags, isolate) in [
        ("", Isolate::SESSION | Isolate::AUTH | Isolate::CLIENT),
        ("NoIsolateSOCKSAuth NoIsolateClientAddr", Isolate::SESSION),
        ("IsolateDestPort", Isolate::DEFAULT | Isolate::DEST_PORT),
        ("IsolateDestAddr", Isolate::DEFAULT | Isolate::DEST_ADDR),
        ("IsolateClientProtocol NoIsolateClientAddr", Isolate::SESSION | Isolate::AUTH | Isolate::PROTOCOL),
    ] {
        let mut bench = Bench::new(&format!("SocksPort auto {flags}"));
        assert_eq!(token(&mut bench, 0, None, "a.example").await.isolate, isolate, "{flags}");
    }
}

#[tokio::test]
async fn ports_are_sessions_unless_they_are_one_group() {
    let mut bench = Bench::new(
        "SocksPort auto\nSocksPort auto\nSocksPort auto SessionGroup=3\nSocksPort auto SessionGroup=3",
    );
    let mut sessions = Vec::new();
    for port in 0..4 {
        sessions.push(token(&mut bench, port, None, "a.example").await.session);
    }
    assert_eq!(sessions, [-4, -5, 3, 3]);
}

#[tokio::test]
async fn names_to_look_up_have_tokens_too() {
    let bench = Bench::new("SocksPort auto IsolateDestAddr");
    bench.ask(b"\x05\x01\x00\x05\xf0\x00\x03\x09A.example\x00\x00").await;
    let token = lock(&bench.fake.questions)[0].1.clone();
    assert_eq!(token.isolate, Isolate::DEFAULT | Isolate::DEST_ADDR);
    assert_eq!((&*token.dest_addr, token.dest_port), ("a.example", 0));
}
