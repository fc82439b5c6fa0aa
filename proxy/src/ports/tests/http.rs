use proptest::prelude::*;

use super::*;
use crate::ports::http::judge;

const TORRC: &str = "SocksPort 0\nHTTPTunnelPort auto";

/// The lines of an answer's head, and what follows it.
fn parts(answer: &[u8]) -> (Vec<String>, Vec<u8>) {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an empty line");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    (head.split("\r\n").map(str::to_owned).collect(), answer[end + 4..].to_vec())
}

fn via() -> String {
    format!("Via: tor/1.0 tor-network (onionring {})", env!("CARGO_PKG_VERSION"))
}

/// The head of the answer to a CONNECT that succeeds.
fn success() -> Vec<u8> {
    format!("HTTP/1.0 200 OK\r\nTor-Capabilities: \r\n{}\r\n\r\n", via()).into_bytes()
}

async fn status(bench: &Bench, request: &str) -> String {
    let answer = bench.ask(request.as_bytes()).await;
    if answer.is_empty() {
        return String::new();
    }
    let (head, _) = parts(&answer);
    assert!(head.contains(&"Tor-Capabilities: ".to_owned()), "{head:?}");
    head[0].strip_prefix("HTTP/1.0 ").unwrap().to_owned()
}

#[tokio::test]
async fn a_tunnel() {
    let mut bench = Bench::new(TORRC);
    bench.plan(Plan::Open(4));
    let mut app = bench.app(b"CONNECT Example.com:443 HTTP/1.1\r\nHost: Example.com:443\r\n\r\nhe").await;
    app.write_all(b"y!").await.unwrap();
    let mut opened = bench.opened().await;
    assert_eq!((opened.destination.host, opened.destination.port), (name("Example.com"), 443));
    assert_eq!(opened.destination.token.protocol, Protocol::Http);
    assert_eq!(opened.destination.token.auth, None);
    assert_eq!(take(&mut opened.far, 4).await, b"hey!");
    assert_eq!(take(&mut app, success().len()).await, success());
    opened.far.write_all(b"answer").await.unwrap();
    drop(opened.far);
    let mut rest = Vec::new();
    app.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"answer");
}

#[tokio::test]
async fn addresses_and_headers_that_isolate() {
    let mut bench = Bench::new(TORRC);
    for (target, host) in [("192.0.2.1:80", "192.0.2.1"), ("[2001:db8::1]:80", "2001:db8::1")] {
        let _app = bench.app(format!("CONNECT {target} HTTP/1.0\r\n\r\n").as_bytes()).await;
        assert_eq!(bench.opened().await.destination.host, Host::Address(ip(host)));
    }
    for (headers, user, token) in [
        ("Proxy-Authorization: Basic dG9yOng=\r\n", "Basic dG9yOng=", "\0"),
        ("tor-stream-isolation: one\r\n", "", "one\0"),
        ("X-Tor-Stream-Isolation: two\r\n", "", "\0two"),
        ("X-Tor-Stream-Isolation: b\r\nTor-Stream-Isolation: a\r\nProxy-Authorization: c\r\n", "c", "a\0b"),
    ] {
        let _app = bench.app(format!("CONNECT a.example:80 HTTP/1.1\r\n{headers}\r\n").as_bytes()).await;
        let auth = bench.opened().await.destination.token.auth.unwrap();
        assert_eq!((&*auth.0, &*auth.1), (user.as_bytes(), token.as_bytes()), "{headers}");
    }
}

#[tokio::test]
async fn every_refusal_has_its_status() {
    let bench = Bench::new(TORRC);
    for (refusal, status, reason) in [
        (Refusal::NotReady, "503 Service Unavailable (not ready yet)", "onionring/not-ready"),
        (Refusal::NotAllowed, "403 Forbidden (exit policy)", "end/EXITPOLICY"),
        (Refusal::Internal, "403 Forbidden (internal address)", "onionring/internal-address"),
        (Refusal::OnionService, "501 Not implemented (onion services)", "onionring/onion-service"),
        (Refusal::NotFound, "503 Service Unavailable (resolve failed)", "end/RESOLVEFAILED"),
        (Refusal::NoRoute, "503 Service Unavailable (no route)", "end/NOROUTE"),
        (Refusal::Refused, "403 Forbidden (connection refused)", "end/CONNECTREFUSED"),
        (Refusal::Timeout, "504 Gateway Timeout", "end/TIMEOUT"),
        (Refusal::Failed, "502 Bad Gateway (the network fails)", "onionring/failed"),
    ] {
        bench.plan(Plan::Refuse(refusal));
        let (head, body) = parts(&bench.ask(b"CONNECT a.example:80 HTTP/1.0\r\n\r\n").await);
        let expected = [
            format!("HTTP/1.0 {status}"),
            "Tor-Capabilities: ".to_owned(),
            via(),
            format!("Tor-Request-Failed: {reason}"),
        ];
        assert_eq!((head, body), (expected.to_vec(), vec![]), "{refusal:?}");
        assert_eq!(bench.of(ClientKind::Http).denied(refusal.into()), 1);
    }
}

#[tokio::test]
async fn what_is_no_tunnel() {
    let mut bench = Bench::new(TORRC);
    for (target, expected) in [
        ("a.example", "400 Bad Request"),
        ("a.example:", "400 Bad Request"),
        ("a.example:0", "400 Bad Request"),
        ("a.example:+80", "400 Bad Request"),
        ("a.example:70000", "400 Bad Request"),
        ("2001:db8::1:80", "400 Bad Request"),
        ("-a.example:80", "400 Bad Request (not a host name)"),
        ("a.example.exit:80", "403 Forbidden (.exit is not supported)"),
        ("a.onion:80", "501 Not implemented (onion services)"),
        ("127.0.0.1:80", "403 Forbidden (internal address)"),
    ] {
        assert_eq!(status(&bench, &format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await, expected, "{target}");
    }
    let long = format!("CONNECT {}:80 HTTP/1.1\r\n\r\n", "a.".repeat(200));
    assert_eq!(status(&bench, &long).await, "414 Request-URI Too Long");
    let rpc = "CONNECT a.example:80 HTTP/1.1\r\nTor-RPC-Target: x\r\n\r\n";
    assert_eq!(status(&bench, rpc).await, "501 Not implemented (No RPC Support)");
    assert_eq!(status(&bench, "\x16\x03\x01 nonsense\r\n\r\n").await, "400 Bad Request");
    let endless = format!("CONNECT a.example:80 HTTP/1.1\r\nA: {}", "x".repeat(9000));
    assert_eq!(status(&bench, &endless).await, "431 Request Header Fields Too Large");
    let many = format!("CONNECT a.example:80 HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
    assert_eq!(status(&bench, &many).await, "431 Request Header Fields Too Large");
    assert!(bench.opened.try_recv().is_err(), "nothing of that reaches the network");
}

#[tokio::test]
async fn programs_that_take_it_for_a_proxy_get_a_page() {
    let bench = Bench::new(TORRC);
    for request in [
        "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost:8118\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "HEAD / HTTP/1.0\r\nHost: [::1]:8118\r\n\r\n",
    ] {
        let (head, body) = parts(&bench.ask(request.as_bytes()).await);
        assert_eq!(head[0], "HTTP/1.0 405 Method Not Allowed", "{request}");
        assert!(head.contains(&"Allow: OPTIONS, CONNECT".to_owned()) && body.ends_with(b"</html>\n"));
    }
    let (head, body) = parts(&bench.ask(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n").await);
    assert_eq!((head[0].as_str(), body), ("HTTP/1.0 200 OK", vec![]));
    // A page whose name was made to lead here must not learn what this is.
    for request in ["GET / HTTP/1.1\r\nHost: evil.example:8118\r\n\r\n", "OPTIONS * HTTP/1.1\r\n\r\n"] {
        assert_eq!(bench.ask(request.as_bytes()).await, b"", "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_come_is_given_up() {
    let bench = Bench::new(TORRC);
    let mut app = bench.app(b"CONNECT a.exa").await;
    until(|| bench.of(ClientKind::Http).open() == 1).await;
    assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(bench.of(ClientKind::Http).denied(Denied::Malformed), 1);
}

proptest! {
    #[test]
    fn any_request_is_judged_without_panic(
        start in prop_oneof![Just(""), Just("CONNECT "), Just("CONNECT a.example:80 HTTP/1.1\r\n"), Just("GET http://a/ HTTP/1.1\r\n")],
        rest in prop_oneof![
            "\\PC{0,80}".prop_map(String::into_bytes),
            "[a-zA-Z0-9:\\[\\]. /\r\n-]{0,200}(\r\n\r\n)?".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..300),
        ],
    ) {
        let read = [start.as_bytes(), &rest].concat();
        if let Ok(Some((len, _))) = judge(&read) {
            prop_assert!(len <= read.len() && read[..len].ends_with(b"\n"));
        }
    }
}
