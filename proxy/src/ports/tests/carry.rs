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

/// Ports before a network in which streams end by halves, and an application with an open one.
async fn open_halves() -> (Bench, TcpStream, DuplexStream) {
    let mut bench = Bench::new("SocksPort auto");
    bench.fake.halves.store(true, Relaxed);
    let (app, far) = open(&mut bench).await;
    (bench, app, far)
}

#[tokio::test]
async fn by_halves_the_answer_comes_after_the_end_of_the_question() {
    let (bench, mut app, mut far) = open_halves().await;
    app.write_all(b"question").await.unwrap();
    app.shutdown().await.unwrap();
    let mut question = Vec::new();
    far.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    let answer = vec![7; 1 << 20];
    let mut heard = Vec::new();
    let (sent, _) = tokio::join!(
        async {
            far.write_all(&answer).await?;
            far.shutdown().await
        },
        app.read_to_end(&mut heard),
    );
    sent.unwrap();
    assert!(heard == answer);
    until(|| bench.of(ClientKind::Socks).open() == 0).await;
}

#[tokio::test]
async fn by_halves_an_application_goes_on_after_the_end_of_the_answer() {
    let (bench, mut app, mut far) = open_halves().await;
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = Vec::new();
    app.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    for _ in 0..3 {
        app.write_all(&[1; 100_000]).await.unwrap();
        assert_eq!(take(&mut far, 100_000).await, [1; 100_000]);
    }
    app.shutdown().await.unwrap();
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    until(|| bench.of(ClientKind::Socks).open() == 0).await;
}

#[tokio::test]
async fn a_half_on_which_nothing_moves_is_given_up() {
    for app_first in [true, false] {
        let (bench, mut app, mut far) = open_halves().await;
        match app_first {
            true => app.shutdown().await.unwrap(),
            false => far.shutdown().await.unwrap(),
        }
        match app_first {
            true => assert_eq!(far.read(&mut [0]).await.unwrap(), 0),
            false => assert_eq!(app.read(&mut [0]).await.unwrap(), 0),
        }
        tokio::time::pause();
        tokio::time::sleep(limits::HALF_ALONE_IDLE - Duration::from_secs(1)).await;
        assert_eq!(bench.of(ClientKind::Socks).open(), 1, "it may take long");
        tokio::time::sleep(Duration::from_secs(2)).await;
        tokio::time::resume();
        until(|| bench.of(ClientKind::Socks).open() == 0).await;
    }
}

#[tokio::test]
async fn a_broken_application_ends_both_halves() {
    for app_first in [true, false] {
        let (bench, mut app, mut far) = open_halves().await;
        match app_first {
            true => app.shutdown().await.unwrap(),
            false => far.shutdown().await.unwrap(),
        }
        app.set_zero_linger().unwrap();
        drop(app);
        // An application that has ended what it sends is only missed when it is to hear something.
        if app_first {
            far.write_all(b"x").await.unwrap();
        }
        until(|| bench.of(ClientKind::Socks).open() == 0).await;
    }
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
