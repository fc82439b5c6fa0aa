use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use glommio::{LocalExecutorBuilder, Placement};
use onionring_node::compress::compress;

use onionring_node::compress::{DecodeError, Encoding};
use onionring_node::directory::http;

use super::*;
use crate::dir::testdata;

/// A server that reads one request, answers with these bytes, and closes. The thread gives the request.
fn server(answer: impl AsRef<[u8]> + Send + 'static) -> (DirServer, thread::JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = at(listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_request(&mut stream);
        // A client that has seen enough closes; that is its right.
        let _ = stream.write_all(answer.as_ref());
        request
    });
    (server, thread)
}

fn read_request(stream: &mut std::net::TcpStream) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "cut off");
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap()
}

fn at(dir: SocketAddr) -> DirServer {
    DirServer { name: "test".into(), rsa_id: Fingerprint([0; 20]), v3_ident: None, dir, or: None }
}

fn run<R: Send + 'static, F: Future<Output = R> + 'static>(work: impl FnOnce() -> F + Send + 'static) -> R {
    LocalExecutorBuilder::new(Placement::Unbound).io_memory(0).spawn(work).unwrap().join().unwrap()
}

fn fetch(server: DirServer, bytes_max: usize) -> Result<Answer, FetchError> {
    run(move || async move { get(&DirPorts::default(), &server, "/tor/x", None, bytes_max).await })
}

/// What comes of an answer of a server's.
fn fetched(answer: impl AsRef<[u8]> + Send + 'static, bytes_max: usize) -> Result<Answer, FetchError> {
    let (server, thread) = server(answer);
    let result = fetch(server, bytes_max);
    thread.join().unwrap();
    result
}

fn with_body(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.0 200 OK\r\n{headers}\r\n").as_bytes(), body].concat()
}

#[test]
fn requests_are_what_servers_expect() {
    let (asked, thread) = server("HTTP/1.0 304 Not modified\r\nDate: Sun, 22 Nov 2026 11:00:00 GMT\r\n\r\n");
    let host = asked.dir;
    let since = testdata::NOW;
    let answer = run(move || async move {
        let at_hand = AtHand { valid_after: since, diff_from: Some([0xab; 32]) };
        get(&DirPorts::default(), &asked, "/tor/keys/all", Some(at_hand), 10).await.unwrap()
    });
    assert_eq!((answer.status, &*answer.reason), (304, "Not modified"));
    assert_eq!(answer.date.map(http::format_date).as_deref(), Some("Sun, 22 Nov 2026 11:00:00 GMT"));
    let later = http::format_date(since + Duration::from_secs(1));
    assert_eq!(
        thread.join().unwrap(),
        format!(
            "GET /tor/keys/all HTTP/1.0\r\nHost: {host}\r\n\
             Accept-Encoding: identity, deflate, gzip, x-zstd, x-tor-lzma\r\nIf-Modified-Since: {later}\r\n\
             X-Or-Diff-From-Consensus: {}\r\n\r\n",
            "AB".repeat(32)
        )
    );
}

#[test]
fn every_encoding_is_read() {
    let plain = testdata::DESCRIPTORS.as_bytes();
    for encoding in Encoding::ALL {
        let body = compress(encoding, plain).unwrap();
        let headers = format!("content-encoding: {encoding}\r\nX-Your-Address-Is: 198.51.100.7\r\n");
        let answer = fetched(with_body(&headers, &body), plain.len()).unwrap();
        assert_eq!(answer.body, plain, "{encoding}");
        assert_eq!(answer.your_address, Some(Ipv4Addr::new(198, 51, 100, 7).into()));
    }
}

#[test]
fn posts_carry_their_body() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let asked = at(listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = read_request(&mut stream);
        let mut body = [0; 5];
        stream.read_exact(&mut body).unwrap();
        let not_new = "HTTP/1.0 200 OK\r\nX-Descriptor-Not-New: Yes\r\n\r\n";
        stream.write_all(not_new.as_bytes()).unwrap();
        (head, body)
    });
    let answer = run(move || async move {
        post(&DirPorts::default(), &asked, "/tor/", "config change", "hello").await.unwrap()
    });
    assert!(answer.status == 200 && answer.not_new);
    let (head, body) = thread.join().unwrap();
    assert!(head.starts_with("POST /tor/ HTTP/1.0\r\n"));
    assert!(head.contains("\r\nX-Desc-Gen-Reason: config change\r\nContent-Length: 5\r\n"));
    assert_eq!(&body, b"hello");
}

#[test]
fn connections_come_from_the_configured_address() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let asked = at(listener.local_addr().unwrap());
    let thread = thread::spawn(move || listener.accept().unwrap().1.ip());
    let source = Ipv4Addr::new(127, 0, 0, 77);
    let transport = DirPorts { from: OutboundAddresses { ipv4: Some(source), ipv6: None } };
    let _ = run(move || async move { get(&transport, &asked, "/", None, 1).await });
    assert_eq!(thread.join().unwrap(), source);
}

#[test]
fn hostile_answers_are_refused() {
    let junk = vec![b'x'; 2 * DIR_ANSWER_HEAD];
    assert!(matches!(fetched(junk, 100), Err(FetchError::Answer(AnswerError::NotHttp))));
    let endless = [b"HTTP/1.0 200 OK\r\nX: ", &vec![b'x'; 2 * DIR_ANSWER_HEAD][..]].concat();
    assert!(matches!(fetched(endless, 100), Err(FetchError::Answer(AnswerError::NotHttp))));
    assert!(matches!(
        fetched("", 100),
        Err(FetchError::Answer(AnswerError::NotHttp) | FetchError::Broken(_))
    ));
    assert!(matches!(fetched("HTTP/1.0 200 OK\r\n", 100), Err(FetchError::Answer(AnswerError::NotHttp))));
    let headers: String = (0..1000).map(|n| format!("X-{n}: y\r\n")).collect();
    assert!(matches!(fetched(with_body(&headers, b""), 100), Err(FetchError::Answer(AnswerError::NotHttp))));
    let unknown = with_body("Content-Encoding: br\r\n", b"x");
    assert!(
        matches!(fetched(unknown, 100), Err(FetchError::Answer(AnswerError::Encoding(token))) if token == "br")
    );
    let long = with_body("", &[b'x'; 101]);
    assert!(matches!(
        fetched(long, 100),
        Err(FetchError::Answer(AnswerError::Decode(DecodeError::TooLarge { max: 100 })))
    ));
    let short = with_body("Content-Length: 10\r\n", b"123456789");
    assert!(matches!(
        fetched(short, 100),
        Err(FetchError::Answer(AnswerError::CutOff { got: 9, announced: 10 }))
    ));
    // What follows the announced length is not read.
    assert_eq!(fetched(with_body("Content-Length: 3\r\n", b"123456789"), 100).unwrap().body, b"123");
}

#[test]
fn hostile_compression_is_refused() {
    let bomb = vec![b'x'; 20 << 20];
    for encoding in [Encoding::Deflate, Encoding::Gzip, Encoding::Zstd, Encoding::Lzma] {
        let packed = compress(encoding, &bomb).unwrap();
        let headers = format!("Content-Encoding: {encoding}\r\n");
        let result = fetched(with_body(&headers, &packed), 1 << 30);
        assert!(
            matches!(result, Err(FetchError::Answer(AnswerError::Decode(DecodeError::Bomb { .. })))),
            "{encoding}: {result:?}"
        );
        let result = fetched(with_body(&headers, &packed), 1000);
        assert!(
            matches!(result, Err(FetchError::Answer(AnswerError::Decode(DecodeError::TooLarge { .. })))),
            "{encoding}"
        );
        let result = fetched(with_body(&headers, &packed[..packed.len() / 2]), 1 << 30);
        assert!(matches!(result, Err(FetchError::Answer(AnswerError::Decode(_)))), "{encoding}");
        let result = fetched(with_body(&headers, b"not compressed at all"), 1 << 30);
        assert!(matches!(result, Err(FetchError::Answer(AnswerError::Decode(_)))), "{encoding}");
    }
}

#[test]
fn reasons_are_fit_for_a_log() {
    let answer = fetched(format!("HTTP/1.0 400 {}\r\n\r\n", "bad ".repeat(1000)), 100).unwrap();
    assert_eq!((answer.status, answer.reason.len()), (400, 200));
}

#[test]
fn a_server_that_is_not_there() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let gone = at(listener.local_addr().unwrap());
    drop(listener);
    assert!(matches!(fetch(gone, 100), Err(FetchError::Connect(_))));
}
