use std::sync::atomic::{AtomicUsize, Ordering};

use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use proptest::prelude::*;
use tokio::task::spawn_blocking;

use super::*;

#[derive(Default)]
struct Fixed {
    identities: AtomicUsize,
}

fn report() -> Report {
    let port = |option: &str, address: &str| Port { option: option.into(), address: address.into() };
    Report {
        pid: 77,
        phase: Phase::Descriptors,
        percent: 45,
        clock: Some("3 of 3 authorities are 2 hours ahead".to_owned()),
        ports: vec![port("SocksPort", "127.0.0.1:9050"), port("SocksPort", "unix:/run/a b/socks")],
        consensus: Some((Unix(1_795_801_236), Unix(1_795_812_036))),
        guards: vec![Fingerprint([7; 20])],
        circuits: 3,
        streams: 1,
    }
}

impl Status for Fixed {
    fn report(&self) -> Report {
        report()
    }

    fn circuits(&self) -> String {
        "open 3 1 a b c\n".to_owned()
    }

    fn new_identity(&self) {
        self.identities.fetch_add(1, Ordering::Relaxed);
    }
}

/// A proxy with nothing but its control socket.
fn proxy(data: &Path) -> Arc<Fixed> {
    let status = Arc::new(Fixed::default());
    let socket = Socket::bind(data).unwrap();
    tokio::spawn(socket.serve(status.clone()));
    status
}

async fn ask(data: &Path, request: Request) -> Result<String, AskError> {
    let data = data.to_owned();
    spawn_blocking(move || super::ask(&data, request)).await.unwrap()
}

/// What comes back for these bytes, without an end after them.
async fn send(data: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path(data)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // What is not read resets the connection after the answer.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_report_is_lines_that_read_back() {
    let text = report().to_string();
    assert_eq!(Report::parse(&text), report());
    assert!(text.contains("\nport SocksPort unix:/run/a b/socks\nconsensus-valid-after 2026-"), "{text}");
    let fresh = Report::default();
    assert_eq!(Report::parse(&fresh.to_string()), fresh);
    assert_eq!(report().ports_of("SocksPort").count(), 2);
    assert_eq!((report().ports_of("DNSPort").count(), report().is_ready()), (0, false));
    assert_eq!(Report::parse("pid x\nfuture 1\nphase else\nguard 1\nport x\n"), Report::default());
}

#[tokio::test]
async fn requests_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    assert!(matches!(ask(data, Request::Status).await, Err(AskError::NotRunning(_))));
    let status = proxy(data);
    assert_eq!(fs::metadata(path(data)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Report::parse(&ask(data, Request::Status).await.unwrap()), report());
    assert_eq!(ask(data, Request::Circuits).await.unwrap(), "open 3 1 a b c\n");
    assert_eq!(status.identities.load(Ordering::Relaxed), 0);
    assert!(ask(data, Request::NewIdentity).await.unwrap().contains("new circuits"));
    assert_eq!(status.identities.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn anything_else_is_refused_by_name_and_does_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let status = proxy(directory.path());
    for bytes in [&b"new-identity please\n"[..], b"\n", b"\xff\n", &[b'x'; limits::CONTROL_REQUEST + 100]] {
        let answer = send(directory.path(), bytes).await;
        assert!(answer.starts_with("error no such request; write one of: status, "), "{answer}");
    }
    assert_eq!(status.identities.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn who_asks_nothing_keeps_no_place() {
    let directory = tempfile::tempdir().unwrap();
    proxy(directory.path());
    let mut idle = Vec::new();
    for _ in 0..limits::CONTROL_CONNECTIONS {
        idle.push(UnixStream::connect(path(directory.path())).await.unwrap());
    }
    let mut one_more = UnixStream::connect(path(directory.path())).await.unwrap();
    assert_eq!(one_more.read(&mut [0; 1]).await.unwrap(), 0);
    // The clock of the test goes on when all wait: they are closed.
    for stream in &mut idle {
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    }
    assert!(send(directory.path(), b"circuits\r\n").await.starts_with("open "));
}

#[tokio::test]
async fn a_socket_that_is_left_is_replaced_and_goes_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    drop(StdListener::bind(path(directory.path())).unwrap());
    assert!(matches!(ask(directory.path(), Request::Status).await, Err(AskError::NotRunning(_))));
    drop(Socket::bind(directory.path()).unwrap());
    assert!(!path(directory.path()).exists());
}

proptest! {
    #[test]
    fn any_text_reads_as_a_report(text in "([a-z-]{0,12} ?[ -~]{0,20}\\n?){0,8}") {
        let report = Report::parse(&text);
        prop_assert_eq!(Report::parse(&report.to_string()), report);
    }
}
