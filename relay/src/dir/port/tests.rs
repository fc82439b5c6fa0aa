use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use glommio::LocalExecutorBuilder;
use onionring_node::compress::{Encoding, decompress};
use onionring_proto::netdoc::{consdiff, text};
use onionring_proto::rate::Rate;
use onionring_proto::time::Mono;

use super::*;
use crate::dir::testdata::{self, NOW};
use crate::engine::rate::{RateLimits, Rates};
use crate::io::net;

/// Serves the test documents while `client` runs on a thread of its own.
fn with_port(client: impl FnOnce(SocketAddr) + Send + 'static) {
    with_limited_port(|| (Arc::new(Rates::new(RateLimits::default(), 1)), Mono(0)), client);
}

fn with_limited_port(
    rates: impl Fn() -> (Arc<Rates>, Mono) + 'static,
    client: impl FnOnce(SocketAddr) + Send + 'static,
) {
    LocalExecutorBuilder::default().io_memory(0).make().unwrap().run(async {
        let directory = Arc::new(Directory::new(None));
        directory.set_documents(testdata::library_with_diffs().snapshot());
        let (address, mut listeners) = net::listen((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
        let listener = net::adopt_listener(listeners.remove(0));
        let bandwidth = Rc::new(Bandwidth::new(rates));
        let server =
            glommio::spawn_local(serve(listener, directory, Clock::starting_at(NOW), bandwidth)).detach();
        let client = thread::spawn(move || client(address));
        while !client.is_finished() {
            glommio::timer::sleep(Duration::from_millis(5)).await;
        }
        server.cancel();
        client.join().unwrap();
    });
}

fn ask(port: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(port).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn body(answer: &[u8]) -> &[u8] {
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    &answer[at + 4..]
}

#[test]
fn documents_go_out_over_tcp() {
    with_port(|port| {
        let answer = ask(port, b"GET /tor/status-vote/current/consensus HTTP/1.0\r\n\r\n");
        assert_eq!(body(&answer), testdata::CONSENSUS_NS.as_bytes());
        let answer = ask(port, b"GET /tor/server/all.z HTTP/1.0\r\n\r\n");
        let plain = decompress(Encoding::Deflate, body(&answer), 1 << 20).unwrap();
        assert_eq!(plain.len(), testdata::DESCRIPTORS.len());
        let base = testdata::earlier(testdata::CONSENSUS_NS);
        let url = format!(
            "/tor/status-vote/current/consensus/diff/{}.z",
            text::hex_upper(&consdiff::signed_sha3(&base))
        );
        let answer = ask(port, format!("GET {url} HTTP/1.0\r\n\r\n").as_bytes());
        let diff = decompress(Encoding::Deflate, body(&answer), 1 << 20).unwrap();
        let applied = consdiff::apply(&base, std::str::from_utf8(&diff).unwrap());
        assert_eq!(applied.as_deref(), Ok(testdata::CONSENSUS_NS));
        // An announced body is read past, and does not cost the answer.
        let post =
            [b"POST /tor/ HTTP/1.0\r\nContent-Length: 1000000\r\n\r\n", &[b'x'; 1_000_000][..]].concat();
        assert!(ask(port, &post).starts_with(b"HTTP/1.0 400 Nonauthoritative"));
        assert_eq!(ask(port, b"HEAD / HTTP/1.0\r\n\r\n"), b"");
    });
}

#[test]
fn connections_are_bounded() {
    with_port(|port| {
        let open: Vec<_> =
            (0..limits::DIR_PORT_CONNECTIONS).map(|_| std::net::TcpStream::connect(port).unwrap()).collect();
        let mut refused = std::net::TcpStream::connect(port).unwrap();
        assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0, "one too many");
        drop(open);
        // Those gone make room; the server may take a moment to notice.
        let request = b"GET /tor/robots.txt HTTP/1.0\r\n\r\n";
        while !std::panic::catch_unwind(|| ask(port, request)).is_ok_and(|a| a.starts_with(b"HTTP/1.0 200")) {
            thread::yield_now();
        }
    });
}

/// A relay of which the DirPort is the only traffic: what it sends and reads takes as long as the limits say.
#[test]
fn answers_and_requests_keep_to_the_bandwidth() {
    let rate = Rate { per_second: 50_000, burst: 1000 };
    for limits in [
        RateLimits { all: rate, ..RateLimits::default() },
        RateLimits { relayed: Some(rate), ..RateLimits::default() },
    ] {
        let rates = Arc::new(Rates::new(RateLimits { count_private: true, ..limits }, 2));
        let begun = Instant::now();
        let now = move || (rates.clone(), Mono(begun.elapsed().as_micros() as u64));
        with_limited_port(now, move |port| {
            let took_long = |begun: Instant, bytes: usize| {
                // The last piece is owed.
                let least = bytes as f64 - limits::DIR_PIECE as f64 - rate.burst as f64;
                let took = begun.elapsed().as_secs_f64();
                assert!(took >= least / rate.per_second as f64, "{bytes} bytes in {took} s");
            };
            let begun = Instant::now();
            let request = "GET /tor/server/all HTTP/1.0\r\n\r\n";
            let answers: Vec<_> =
                (0..4).map(|_| thread::spawn(move || ask(port, request.as_bytes()))).collect();
            let lens = answers.into_iter().map(|answer| answer.join().unwrap().len());
            took_long(begun, lens.sum());
            let begun = Instant::now();
            let long = format!("GET /tor/robots.txt HTTP/1.0\r\nX-Long: {}\r\n\r\n", "x".repeat(45_000));
            assert!(ask(port, long.as_bytes()).starts_with(b"HTTP/1.0 200"));
            took_long(begun, long.len());
        });
    }
}

#[test]
fn private_addresses_are_not_limited_unless_asked_for() {
    let nothing = Rate { per_second: 1, burst: 1 };
    let limits = RateLimits { all: nothing, ..RateLimits::default() };
    let rates = Arc::new(Rates::new(limits, 1));
    with_limited_port(
        move || (rates.clone(), Mono(0)),
        |port| {
            let answer = ask(port, b"GET /tor/status-vote/current/consensus HTTP/1.0\r\n\r\n");
            assert_eq!(body(&answer), testdata::CONSENSUS_NS.as_bytes());
        },
    );
}
