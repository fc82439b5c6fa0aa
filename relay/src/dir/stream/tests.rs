use std::collections::VecDeque;
use std::time::Duration;

use onionring_proto::netdoc::{consdiff, text};
use onionring_proto::time::Unix;
use proptest::prelude::*;

use super::*;
use crate::dir::testdata::{self, NOW};

/// An engine as the state machine sees it, with streams named by numbers.
#[derive(Default)]
struct Engine {
    streams: BTreeMap<u32, Fake>,
}

#[derive(Default)]
struct Fake {
    inbox: VecDeque<u8>,
    /// How many bytes the windows allow.
    window: usize,
    connected: bool,
    sent: Vec<u8>,
    ended: Option<EndReason>,
}

impl StreamIo<u32> for Engine {
    fn connected(&mut self, at: u32) {
        self.streams.get_mut(&at).unwrap().connected = true;
    }

    fn read(&self, at: u32) -> &[u8] {
        self.streams.get(&at).map(|s| s.inbox.as_slices().0).unwrap_or_default()
    }

    fn consume(&mut self, at: u32, n: usize) {
        self.streams.get_mut(&at).unwrap().inbox.drain(..n);
    }

    fn writable(&mut self, at: u32) -> usize {
        self.streams[&at].window
    }

    fn write(&mut self, at: u32, bytes: &[u8]) {
        let stream = self.streams.get_mut(&at).unwrap();
        assert!(stream.connected && stream.ended.is_none());
        stream.window = stream.window.checked_sub(bytes.len()).unwrap();
        stream.sent.extend_from_slice(bytes);
    }

    fn end(&mut self, at: u32, reason: EndReason) {
        let stream = self.streams.entry(at).or_default();
        assert_eq!(stream.ended, None);
        stream.ended = Some(reason);
    }
}

/// A shard's directory streams over that engine.
struct Shard {
    engine: Engine,
    dir: DirSnapshot,
    streams: DirStreams<u32>,
    now: Clocks,
}

impl Shard {
    fn new() -> Self {
        let now = Clocks { mono: Mono(0), unix: NOW };
        let dir = testdata::library_with_diffs().snapshot();
        Shard { engine: Engine::default(), dir, streams: DirStreams::default(), now }
    }

    fn begin(&mut self, at: u32, window: usize, request: &str) {
        let inbox = request.bytes().collect();
        self.engine.streams.insert(at, Fake { inbox, window, ..Fake::default() });
        self.streams.begin(&mut self.engine, self.now, Some(&self.dir), at, None);
    }

    fn receive(&mut self, at: u32, bytes: &[u8]) {
        self.engine.streams.get_mut(&at).unwrap().inbox.extend(bytes);
        self.streams.readable(&mut self.engine, self.now, &self.dir, at);
    }

    fn allow(&mut self, at: u32, window: usize) {
        self.engine.streams.get_mut(&at).unwrap().window += window;
        self.streams.writable(&mut self.engine, self.now, at);
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.unix = Unix(self.now.unix.0 + time.as_secs());
        self.streams.handle_timeout(&mut self.engine, self.now.mono);
    }

    fn ended(&self, at: u32) -> Option<EndReason> {
        self.engine.streams[&at].ended
    }

    fn sent(&self, at: u32) -> String {
        String::from_utf8_lossy(&self.engine.streams[&at].sent).into_owned()
    }
}

const CONSENSUS: &str = "GET /tor/status-vote/current/consensus HTTP/1.0\r\n\r\n";
const PLENTY: usize = 1 << 30;

#[test]
fn a_request_that_came_with_begin_is_answered_at_once() {
    let mut shard = Shard::new();
    shard.begin(1, PLENTY, CONSENSUS);
    assert_eq!(shard.ended(1), Some(EndReason::Done));
    assert!(shard.sent(1).ends_with(testdata::CONSENSUS_NS));
    assert_eq!((shard.streams.len(), shard.streams.counters().answers[&200]), (0, 1));
    assert_eq!(shard.streams.counters().bytes, shard.sent(1).len() as u64);
}

#[test]
fn diffs_go_out_like_all_else() {
    let mut shard = Shard::new();
    let base = testdata::earlier(testdata::CONSENSUS_MICRODESC);
    let name = text::hex_upper(&consdiff::signed_sha3(&base));
    // As Arti asks.
    let request = format!(
        "GET /tor/status-vote/current/consensus-microdesc HTTP/1.0\r\n\
         x-or-diff-from-consensus: {}, {name}\r\n\r\n",
        "0".repeat(64)
    );
    shard.begin(1, PLENTY, &request);
    let answer = shard.sent(1);
    let (_, diff) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(consdiff::apply(&base, diff).as_deref(), Ok(testdata::CONSENSUS_MICRODESC));
}

#[test]
fn answers_wait_for_the_windows() {
    let mut shard = Shard::new();
    shard.begin(1, 0, "");
    CONSENSUS.as_bytes().chunks(7).for_each(|piece| shard.receive(1, piece));
    assert_eq!(shard.sent(1), "");
    shard.allow(1, 498);
    assert_eq!((shard.sent(1).len(), shard.ended(1)), (498, None));
    // What else a client sends is read past.
    shard.receive(1, b"GET / HTTP/1.0\r\n\r\n");
    assert!(shard.engine.read(1).is_empty());
    shard.allow(1, PLENTY);
    assert!(shard.sent(1).ends_with(testdata::CONSENSUS_NS));
    assert_eq!(shard.ended(1), Some(EndReason::Done));
}

#[test]
fn refusals() {
    let mut shard = Shard::new();
    shard.begin(1, PLENTY, "get / HTTP/1.0\r\n\r\n");
    assert!(shard.sent(1).starts_with("HTTP/1.0 400 Bad request\r\n"));
    shard.begin(2, PLENTY, "PUT / HTTP/1.0\r\n\r\n");
    assert_eq!((shard.sent(2), shard.ended(2)), (String::new(), Some(EndReason::Done)));
    shard.engine.streams.insert(3, Fake::default());
    shard.streams.begin(&mut shard.engine, shard.now, None, 3, None);
    assert_eq!(shard.ended(3), Some(EndReason::NotDirectory));
    assert!(shard.streams.is_empty());
}

#[test]
fn streams_are_bounded() {
    let mut shard = Shard::new();
    let last = limits::DIR_STREAMS as u32;
    (0..=last).for_each(|at| shard.begin(at, 0, ""));
    assert_eq!(shard.ended(last), Some(EndReason::ResourceLimit));
    assert_eq!((shard.streams.len(), shard.streams.counters().refused), (limits::DIR_STREAMS, 1));
    // One less is room for one more.
    shard.streams.closed(&mut shard.engine, 0);
    shard.begin(last + 1, PLENTY, CONSENSUS);
    assert_eq!(shard.ended(last + 1), Some(EndReason::Done));
}

#[test]
fn incomplete_requests_are_bounded_together() {
    let mut shard = Shard::new();
    let half = format!("GET /tor/{}", "x".repeat(onionring_node::limits::DIR_REQUEST_HEAD / 2));
    let fit = (limits::DIR_REQUEST_BYTES / half.len()) as u32;
    (0..=fit).for_each(|at| shard.begin(at, PLENTY, &half));
    assert!((0..fit).all(|at| shard.ended(at).is_none()));
    assert_eq!(shard.ended(fit), Some(EndReason::ResourceLimit));
    // Complete and ended ones count no more.
    shard.receive(0, b" HTTP/1.0\r\n\r\n");
    shard.streams.closed(&mut shard.engine, 1);
    shard.begin(fit + 1, PLENTY, &half);
    shard.begin(fit + 2, PLENTY, &half);
    assert_eq!((shard.ended(fit + 1), shard.ended(fit + 2)), (None, None));
    (2..=fit + 2).for_each(|at| shard.streams.closed(&mut shard.engine, at));
    assert_eq!(shard.streams.gathered, 0);
}

#[test]
fn encoders_are_bounded() {
    let mut shard = Shard::new();
    let request = "GET /tor/server/all.z HTTP/1.0\r\n\r\n";
    let last = limits::DIR_ENCODERS as u32;
    (0..=last).for_each(|at| shard.begin(at, 498, request));
    assert!(shard.sent(0).contains("Content-Encoding: deflate\r\n"));
    assert!(shard.sent(last).contains("Content-Encoding: identity\r\n"));
    (0..=last).for_each(|at| shard.allow(at, PLENTY));
    assert_eq!((shard.streams.encoders, shard.streams.len()), (0, 0));
}

#[test]
fn stalled_streams_are_ended() {
    let mut shard = Shard::new();
    shard.begin(1, 0, "GET /");
    shard.begin(2, 0, CONSENSUS);
    shard.begin(3, 0, CONSENSUS);
    assert_eq!(shard.streams.poll_timeout(), Some(Mono(0) + limits::DIR_SWEEP));
    shard.pass(limits::DIR_REQUEST_TIMEOUT);
    assert_eq!((shard.ended(1), shard.ended(2)), (Some(EndReason::Timeout), None));
    shard.allow(3, 10);
    shard.pass(limits::DIR_STALL_TIMEOUT - limits::DIR_REQUEST_TIMEOUT);
    assert_eq!((shard.ended(2), shard.ended(3)), (Some(EndReason::Timeout), None));
    shard.pass(limits::DIR_STALL_TIMEOUT);
    assert_eq!(shard.ended(3), Some(EndReason::Timeout));
    assert_eq!((shard.streams.counters().timed_out, shard.streams.poll_timeout()), (3, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// However windows and pieces fall, every client gets its whole answer, and nothing stays behind.
    #[test]
    fn interleavings(order in prop::collection::vec((0u32..4, 0usize..3, 1usize..2000), 0..200)) {
        let mut shard = Shard::new();
        let mut rest: Vec<&[u8]> = vec![CONSENSUS.as_bytes(); 4];
        (0..4).for_each(|at| shard.begin(at, 0, ""));
        for (at, what, n) in order {
            if shard.ended(at).is_some() {
                continue;
            }
            match what {
                0 => {
                    let (now, later) = rest[at as usize].split_at(n.min(rest[at as usize].len()));
                    rest[at as usize] = later;
                    shard.receive(at, now);
                }
                1 => shard.allow(at, n),
                _ => shard.pass(Duration::from_millis(n as u64)),
            }
        }
        for at in 0..4 {
            if shard.ended(at).is_none() {
                shard.receive(at, rest[at as usize]);
                shard.allow(at, PLENTY);
            }
            prop_assert!(shard.sent(at).ends_with(testdata::CONSENSUS_NS));
            prop_assert_eq!(shard.ended(at), Some(EndReason::Done));
        }
        prop_assert_eq!((shard.streams.len(), shard.streams.gathered), (0, 0));
    }
}
