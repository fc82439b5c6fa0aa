use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream as Socket};
use std::sync::LazyLock;

use onionring_node::compress::{Encoding, decompress};
use onionring_node::limits::DIR_REQUEST_BODY;
use onionring_proto::netdoc::routerdesc::split_documents;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::admission::AdmissionOptions;
use crate::admission::tests::{edited, options};
use crate::approval::Approvals;
use crate::uploads::Uploads;

const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

/// A DirPort on loopback, for as long as it lives.
struct Port {
    address: SocketAddr,
    runtime: Option<Runtime>,
    desk: Arc<Desk>,
    _home: tempfile::TempDir,
}

impl Port {
    fn open() -> Port {
        let home = tempfile::tempdir().unwrap();
        let options = AdmissionOptions { allow_private_addresses: true, ..options() };
        let uploads = Uploads::open(home.path(), options, Approvals::default(), now()).unwrap();
        let directory = Arc::new(Directory::new(uploads));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let desk = Arc::new(Desk::new(directory, Arc::default()));
        runtime.spawn(serve(listener, desk.clone()));
        Port { address, runtime: Some(runtime), desk, _home: home }
    }

    fn connect(&self) -> Socket {
        let socket = Socket::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// All that comes back; nothing if it is closed unanswered.
    fn send(&self, request: &[u8]) -> Vec<u8> {
        let mut socket = self.connect();
        // A refused request may be closed before it is written.
        let _ = socket.write_all(request);
        let mut answer = Vec::new();
        match socket.read_to_end(&mut answer) {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => answer,
        }
    }

    fn ask(&self, request: &str) -> String {
        String::from_utf8(self.send(request.as_bytes())).unwrap()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn shared() -> &'static Port {
    static PORT: LazyLock<Port> = LazyLock::new(Port::open);
    &PORT
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn an_upload_comes_back() {
    let port = Port::open();
    let text = edited(|new| new.published = now());
    let answer = port.ask(&post("/tor/", &text));
    assert!(answer.starts_with("HTTP/1.0 200 Stored\r\n"), "{answer}");
    // A client that says HTTP/1.1 gets the same, not in chunks.
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let answer = port.ask(&format!("GET /tor/server/all {version}\r\nHost: here\r\n\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Encoding: identity"), "{head}");
        assert!(head.contains("\r\nDate: ") && !head.to_lowercase().contains("transfer-encoding"), "{head}");
        // Private clients are not told their address.
        assert!(!head.contains("X-Your-Address-Is"), "{head}");
        assert_eq!(body, text);
    }
    let tally = port.desk.tally(Way::DirPort);
    let counted: Vec<_> = tally.requests().filter(|(_, n)| *n > 0).collect();
    assert_eq!(counted, [("200".to_owned(), 3)]);
    assert!(tally.bytes() >= 2 * text.len() as u64);
    let answer = port.ask(&post("/tor/", &text));
    assert!(answer.contains("\r\nX-Descriptor-Not-New: Yes\r\n"), "{answer}");
    for (accept, encoding) in [("deflate", Encoding::Deflate), ("x-zstd, gzip", Encoding::Zstd)] {
        let request = format!("GET /tor/server/all HTTP/1.0\r\nAccept-Encoding: {accept}\r\n\r\n");
        let answer = port.send(request.as_bytes());
        let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(decompress(encoding, &answer[at..], 1 << 20).unwrap(), text.as_bytes());
    }
}

#[test]
fn refusals_have_the_words_of_c_tor() {
    for (request, status) in [
        ("GET /tor/nothing HTTP/1.0\r\n\r\n", "404 Not found"),
        ("GET /tor/server/fp/00 HTTP/1.0\r\n\r\n", "404 Servers unavailable"),
        ("GET http://directory/tor/nothing HTTP/1.0\r\n\r\n", "404 Not found"),
        ("get /tor/server/all HTTP/1.0\r\n\r\n", "400 Bad request"),
        ("POST /tor/post/vote HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", "404 Not found"),
        ("POST /tor/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 Bad request"),
    ] {
        let answer = shared().ask(request);
        assert!(answer.starts_with(&format!("HTTP/1.0 {status}\r\n")), "{request}: {answer}");
    }
    let answer = shared().ask("GET /robots.txt HTTP/1.0\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\nUser-agent: *\r\nDisallow: /\r\n"), "{answer}");
}

#[test]
fn what_is_out_of_bounds_is_not_served() {
    for method in ["HEAD", "PUT", "DELETE"] {
        assert_eq!(shared().ask(&format!("{method} /tor/server/all HTTP/1.0\r\n\r\n")), "");
    }
    let too_long = format!("POST /tor/ HTTP/1.0\r\nContent-Length: {}\r\n\r\n", DIR_REQUEST_BODY + 1);
    assert_eq!(shared().ask(&too_long), "");
    let no_relay = format!("POST /tor/ HTTP/1.0\r\nContent-Length: {}\r\n\r\n", limits::HTTP_UPLOAD_BODY + 1);
    assert!(shared().ask(&no_relay).starts_with("HTTP/1.0 413 Too long\r\n"));
    let long = format!("GET /tor/server/fp/{} HTTP/1.0\r\n\r\n", "0".repeat(2 * DIR_REQUEST_HEAD));
    let answer = shared().ask(&long);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let many = format!("GET /tor/ HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(limits::HTTP_HEADERS + 1));
    let answer = shared().ask(&many);
    assert!(answer.contains(" 431 "), "{answer}");
    // As many names as there is room for.
    let names = vec!["A".repeat(40); 1000].join("+");
    let answer = shared().ask(&format!("GET /tor/server/d/{names} HTTP/1.0\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.0 404 Servers unavailable\r\n"), "{answer}");
}

#[test]
fn a_long_body_is_taken_whole() {
    let text = edited(|new| new.published = now());
    let filler = "filler\n".repeat(1 << 15);
    assert!(filler.len() > 4 * DIR_REQUEST_HEAD);
    let port = Port::open();
    let answer = port.ask(&post("/tor/", &format!("{filler}{text}")));
    assert!(answer.starts_with("HTTP/1.0 200 Stored\r\n"), "{answer}");
}

#[test]
fn bodies_share_the_room_of_their_lane() {
    let home = tempfile::tempdir().unwrap();
    let uploads = Uploads::open(home.path(), options(), Approvals::default(), now()).unwrap();
    let shared = Desk {
        directory: Arc::new(Directory::new(uploads)),
        guests: Arc::default(),
        circuits: Arc::new(Semaphore::new(1)),
        tallies: Default::default(),
        lanes: Lanes {
            votes: Lane::new(10, 100),
            // Nothing of an authority needs these.
            uploads: Lane::new(0, 0),
            others: Lane::new(0, 0),
            ..Lanes::new([Ipv4Addr::LOCALHOST.into()].into())
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::new(shared);
    let serving = shared.clone();
    let ask = move |body: &'static str| {
        std::thread::spawn(move || {
            let mut socket = Socket::connect(address).unwrap();
            socket.write_all(post("/tor/post/vote", body).as_bytes()).unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            answer
        })
    };
    for (body, status) in
        [("123456789", "404 Not found"), ("12345678901", "503 Directory busy"), ("1", "404 Not")]
    {
        let client = ask(body);
        runtime.block_on(async {
            let (stream, client) = listener.accept().await.unwrap();
            let guest = serving.guests.admit(client.ip(), true).unwrap();
            connection(stream, Way::DirPort, Some(client.ip()), guest, serving.clone()).await;
        });
        let answer = client.join().unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.0 {status}")), "{body}: {answer}");
        assert_eq!(shared.lanes.votes.room.available_permits(), 10);
    }
}

#[test]
fn a_body_that_ends_early_is_no_upload() {
    let mut socket = shared().connect();
    socket.write_all(b"POST /tor/ HTTP/1.0\r\nContent-Length: 100\r\n\r\nrouter ").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    assert_eq!(answer, "");
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_peer, _) = listener.accept().await.unwrap();
        let mut stream = Stalling::new(stream, Duration::from_millis(50));
        let piece = [0; 64 * 1024];
        let stalled = timeout(PATIENCE, async {
            loop {
                let write = std::future::poll_fn(|context| {
                    tokio::io::AsyncWrite::poll_write(std::pin::Pin::new(&mut stream), context, &piece)
                });
                if let Err(error) = write.await {
                    return error;
                }
            }
        });
        assert_eq!(stalled.await.unwrap().kind(), std::io::ErrorKind::TimedOut);
    });
}

#[test]
fn many_connections_at_a_time_are_served() {
    let port = Port::open();
    let text = edited(|new| new.published = now());
    port.ask(&post("/tor/", &text));
    let mut sockets: Vec<Socket> = (0..100).map(|_| port.connect()).collect();
    for socket in &mut sockets {
        socket.write_all(b"GET /tor/server/all.z HTTP/1.0\r\n").unwrap();
    }
    for socket in &mut sockets {
        socket.write_all(b"\r\n").unwrap();
    }
    for mut socket in sockets {
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let body = decompress(Encoding::Deflate, &answer[at..], 1 << 20).unwrap();
        assert_eq!(split_documents(std::str::from_utf8(&body).unwrap()).count(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_bytes_are_answered_or_closed(
        start in "(GET|POST|get|HEAD|)[ \t]{0,2}(/tor/|/|http://|)(server|keys|status-vote|%00|\\.\\.|\\+|/){0,4}( HTTP/1\\.[0129]|)",
        headers in prop::collection::vec("(Content-Length|Accept-Encoding|Transfer-Encoding|Expect|Connection|[a-z\t]{0,5}): ?(-1|99999999999999999999|chunked|100-continue|[ -~]{0,9})", 0..4),
        tail in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut request = format!("{start}\r\n{}\r\n\r\n", headers.join("\r\n")).into_bytes();
        request.extend(tail);
        let mut socket = shared().connect();
        let _ = socket.write_all(&request);
        let _ = socket.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        if socket.read_to_end(&mut answer).is_ok() && !answer.is_empty() {
            prop_assert!(answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
        }
        // And others are served after that.
        prop_assert!(shared().ask("GET /tor/robots.txt HTTP/1.0\r\n\r\n").ends_with("Disallow: /\r\n"));
    }
}
