use super::*;
use crate::limits;

const DONE: usize = 12;

/// An application with an open stream.
async fn open(bench: &mut Bench) -> (TcpStream, DuplexStream) {
    let mut app = bench.app(b"\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x00\x50").await;
    assert_eq!(take(&mut app, DONE).await[3], 0);
    (app, bench.opened().await.far)
}

#[tokio::test]
async fn much_goes_both_ways_at_once() {
    let mut bench = Bench::new("SocksPort auto");
    let (app, far) = open(&mut bench).await;
    let bytes: Vec<u8> = (0..3_000_000).map(|n: usize| (n % 251) as u8).collect();
    let (mut app_reads, mut app_writes) = app.into_split();
    let (mut far_reads, mut far_writes) = tokio::io::split(far);
    let (up, down, _, _) = tokio::join!(
        take(&mut far_reads, bytes.len()),
        take(&mut app_reads, bytes.len()),
        async { app_writes.write_all(&bytes).await.unwrap() },
        async { far_writes.write_all(&bytes).await.unwrap() },
    );
    assert!(up == bytes && down == bytes);
    let counters = bench.of(ClientKind::Socks);
    until(|| counters.bytes_sent() == 3_000_000 && counters.bytes_received() == 3_000_000).await;
}

#[tokio::test]
async fn an_application_that_has_sent_all_still_gets_the_answer() {
    let mut bench = Bench::new("SocksPort auto");
    let (mut app, mut far) = open(&mut bench).await;
    app.write_all(b"question").await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(take(&mut far, 8).await, b"question");
    // The end of the question has arrived before the answer goes out, and is not passed on.
    tokio::task::yield_now().await;
    far.write_all(b"ans").await.unwrap();
    assert_eq!(take(&mut app, 3).await, b"ans");
    far.write_all(b"wer").await.unwrap();
    far.shutdown().await.unwrap();
    let mut rest = Vec::new();
    app.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"wer");
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "now the stream is over");
}

#[tokio::test]
async fn the_end_of_what_is_sent_is_not_passed_on() {
    let mut bench = Bench::new("SocksPort auto");
    let (mut app, mut far) = open(&mut bench).await;
    app.shutdown().await.unwrap();
    tokio::time::pause();
    let before = limits::HALF_CLOSED_IDLE - Duration::from_secs(1);
    let early = tokio::time::timeout(before, far.read(&mut [0])).await;
    assert!(early.is_err(), "the stream stays open for an answer");
    // Part of an answer starts the clock again.
    far.write_all(b"x").await.unwrap();
    tokio::time::resume();
    assert_eq!(take(&mut app, 1).await, b"x");
    tokio::time::pause();
    let early = tokio::time::timeout(before, far.read(&mut [0])).await;
    assert!(early.is_err(), "there was something to hear");
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "not for ever");
    tokio::time::resume();
    assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_end_of_the_stream_comes_after_all_that_it_brought() {
    let mut bench = Bench::new("SocksPort auto");
    let (mut app, mut far) = open(&mut bench).await;
    // Unread bytes of the application must not cost it the answer.
    app.write_all(b"nobody reads this").await.unwrap();
    let answer = vec![7; 60_000];
    far.write_all(&answer).await.unwrap();
    drop(far);
    let mut all = Vec::new();
    app.read_to_end(&mut all).await.unwrap();
    assert!(all == answer);
    until(|| bench.of(ClientKind::Socks).open() == 0 || app.try_write(b"x").is_err()).await;
}

#[tokio::test]
async fn a_broken_application_ends_the_stream() {
    let mut bench = Bench::new("SocksPort auto");
    let (app, mut far) = open(&mut bench).await;
    app.set_zero_linger().unwrap();
    drop(app);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    until(|| bench.of(ClientKind::Socks).open() == 0).await;
}

#[tokio::test]
async fn closing_the_ports_closes_the_streams() {
    let mut bench = Bench::new("SocksPort auto");
    let (mut app, mut far) = open(&mut bench).await;
    drop(bench);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
}
