//! What is fuzzed: functions of any bytes that must not panic, hang or grow, and that check what holds for every input.
//! SOCKS requests are read in `proto`, and fuzzed there.
//!
//! The fuzzer in `proxy/fuzz` drives them with coverage; the test beside this file replays the kept inputs and mutations
//! of them with every `cargo test`.

use onionring_proxy::cli::web;
use onionring_proxy::control::Report;
use onionring_proxy::limits;
use onionring_proxy::ports::foreign::{read_connect, read_question};

/// A target: its name, which is that of its corpus too, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] =
    &[("connect", connect), ("question", question), ("report", report), ("web", answer)];

/// The head of an HTTP request.
fn connect(data: &[u8]) {
    match read_connect(data) {
        Ok(Some(len)) => {
            assert!(len <= data.len().min(limits::HTTP_REQUEST));
            assert!(data[..len].ends_with(b"\n"));
            // What is behind it belongs to the stream.
            assert_eq!(read_connect(&data[..len]), Ok(Some(len)));
            assert!(matches!(read_connect(&data[..len - 1]), Ok(None)), "it was all there before its end");
        }
        Ok(None) => assert!(data.len() < limits::HTTP_REQUEST),
        Err(answer) => assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.0 ")),
    }
}

/// A question to a DNSPort.
fn question(data: &[u8]) {
    let data = &data[..data.len().min(limits::DNS_QUESTION)];
    if let Err(Some(answer)) = read_question(data) {
        // It has the number of the question, and is not one itself: nobody answers it.
        assert_eq!(answer[..2], data[..2]);
        assert_eq!(read_question(&answer), Err(None));
    }
}

/// How a proxy says it is; what comes may be of another version.
fn report(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let report = Report::parse(text).to_string();
    assert_eq!(Report::parse(&report).to_string(), report);
}

/// What a web server answers to `check --url`.
fn answer(data: &[u8]) {
    if let Ok(answer) = web::read(data) {
        assert!(answer.bytes <= data.len() as u64);
        assert!(answer.is_whole || data.len() as u64 >= limits::CHECK_ANSWER);
    }
}
