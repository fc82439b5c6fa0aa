//! What lies behind the exits: a service that takes and gives bytes which both ends can compute.

use onionring_proto::relay_msg::{Connected, End, EndReason};
use onionring_proto::time::Mono;
use onionring_relay::engine::Engine;
use onionring_relay::engine::event::{Host, StreamRef};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

/// How the service ends a stream with other bytes than its name says; rogues send such.
pub const WRONG_BYTES: EndReason = EndReason::Internal;

/// The service's port.
pub const PORT: u16 = 80;

/// What one stream is to carry. Its host name says it all, so the service needs no other knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Makes the bytes of this exchange different from others'.
    pub seed: u8,
    /// Bytes from the client.
    pub up: usize,
    /// Bytes to the client.
    pub down: usize,
    /// The hop that serves it; the last one if `None`.
    pub hop: Option<usize>,
    /// Ask for the directory instead, which gives [`Exchange::DIRECTORY_LEN`] bytes.
    pub directory: bool,
    /// Who ends its half first.
    pub order: Order,
}

/// In which order the two sides of an exchange say what they have to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Both at once, and the service ends the stream.
    Together,
    /// The service answers when the client has ended its half.
    ClientFirst,
    /// The client begins when the service has ended its half.
    ServiceFirst,
}

fn byte(seed: u8, at: usize) -> u8 {
    (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8).wrapping_add((at >> 16) as u8) ^ seed
}

fn fill(seed: u8, from: usize, total: usize, buf: &mut [u8]) -> usize {
    let n = buf.len().min(total - from);
    buf[..n].iter_mut().enumerate().for_each(|(i, b)| *b = byte(seed, from + i));
    n
}

fn is_right(seed: u8, from: usize, total: usize, bytes: &[u8]) -> bool {
    from + bytes.len() <= total && bytes.iter().enumerate().all(|(i, &b)| b == byte(seed, from + i))
}

impl Exchange {
    pub const DIRECTORY_LEN: usize = 3000;

    pub fn new(seed: u8, up: usize, down: usize) -> Exchange {
        Exchange { seed, up, down, hop: None, directory: false, order: Order::Together }
    }

    pub fn directory(hop: usize) -> Exchange {
        Exchange { hop: Some(hop), directory: true, ..Exchange::new(0, 0, Self::DIRECTORY_LEN) }
    }

    pub fn host_name(&self) -> String {
        let order = match self.order {
            Order::Together => 'x',
            Order::ClientFirst => 'c',
            Order::ServiceFirst => 's',
        };
        format!("{order}-{}-{}-{}.test", self.seed, self.up, self.down)
    }

    fn from_host(host: &Host) -> Option<Exchange> {
        let Host::Name(name) = host else { return None };
        let (order, numbers) = name.strip_suffix(".test")?.split_once('-')?;
        let order = match order {
            "x" => Order::Together,
            "c" => Order::ClientFirst,
            "s" => Order::ServiceFirst,
            _ => return None,
        };
        let mut numbers = numbers.split('-');
        let mut number = || numbers.next()?.parse().ok();
        let (seed, up, down) = (number()?, number()?, number()?);
        Some(Exchange { order, ..Exchange::new(u8::try_from(seed).ok()?, up, down) })
    }

    pub fn check_down(&self, from: usize, bytes: &[u8]) {
        assert!(is_right(self.seed, from, self.down, bytes), "wrong bytes at {from} of {}", self.down);
    }

    pub fn fill_up(&self, from: usize, buf: &mut [u8]) -> usize {
        fill(!self.seed, from, self.up, buf)
    }
}

/// The service's end of one stream.
pub struct Sink {
    at: StreamRef,
    /// `None`: nobody knows this host.
    plan: Option<Exchange>,
    answered: bool,
    received: usize,
    sent: usize,
    /// The client ended the stream.
    pub ended: bool,
    /// The client ended its half.
    pub finished: bool,
    /// The service has ended its own.
    answered_all: bool,
    /// There may be bytes to take, as events say.
    pub readable: bool,
    /// There may be room to send, as events say.
    pub writable: bool,
    /// While set, nothing is read or written.
    pub stuck: bool,
}

impl Sink {
    pub fn new(at: StreamRef, host: &Host, stuck: bool) -> Sink {
        Self::with(at, Exchange::from_host(host), stuck)
    }

    pub fn directory(at: StreamRef, stuck: bool) -> Sink {
        Self::with(at, Some(Exchange::directory(0)), stuck)
    }

    fn with(at: StreamRef, plan: Option<Exchange>, stuck: bool) -> Sink {
        let (readable, writable) = (false, true);
        Sink {
            at,
            plan,
            answered: false,
            received: 0,
            sent: 0,
            ended: false,
            finished: false,
            answered_all: false,
            readable,
            writable,
            stuck,
        }
    }

    /// Gives the stream a turn, in which it does what events have called for. Returns whether it is over, and whether
    /// anything happened.
    pub fn work(&mut self, engine: &mut Engine, now: Mono, rng: &mut ChaCha20Rng) -> (bool, bool) {
        if self.stuck {
            return (false, false);
        }
        let Some(plan) = self.plan else {
            engine.stream_end(now, self.at, &End::from(EndReason::ConnectRefused));
            return (true, true);
        };
        let mut busy = false;
        if !self.answered {
            self.answered = true;
            busy = true;
            engine.stream_connected(now, self.at, &Connected { addr: None });
        }
        while self.readable {
            let bytes = engine.stream_read(self.at);
            if bytes.is_empty() {
                self.readable = false;
                break;
            }
            let n = bytes.len().min(1 + rng.next_u32() as usize % 4000);
            if !is_right(!plan.seed, self.received, plan.up, &bytes[..n]) {
                engine.stream_end(now, self.at, &End::from(WRONG_BYTES));
                return (true, true);
            }
            self.received += n;
            engine.stream_consume(now, self.at, n);
            busy = true;
        }
        let may_answer = plan.order != Order::ClientFirst || (self.finished && self.received == plan.up);
        while may_answer && self.writable && !self.ended && self.sent < plan.down && !engine.congested() {
            let room = engine.stream_writable(self.at);
            self.writable = room > 0;
            let mut buf = vec![0; room.min(1 + rng.next_u32() as usize % 6000)];
            let n = fill(plan.seed, self.sent, plan.down, &mut buf);
            if n == 0 {
                break;
            }
            busy = true;
            if engine.stream_write(now, self.at, &buf[..n]) < n {
                // Only with the circuit, of whose end an event tells.
                assert_eq!(engine.stream_writable(self.at), 0, "as much as was offered");
                return (false, true);
            }
            self.sent += n;
        }
        if plan.order != Order::Together && may_answer && self.sent == plan.down && !self.answered_all {
            self.answered_all = engine.stream_finish(now, self.at);
            busy |= self.answered_all;
        }
        let by_halves = plan.order == Order::Together || (self.finished && self.answered_all);
        let over = self.ended || (self.received == plan.up && self.sent == plan.down && by_halves);
        if over {
            engine.stream_end(now, self.at, &End::from(EndReason::Done));
        }
        (over, busy || over)
    }
}
