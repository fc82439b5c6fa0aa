//! All that a hostile relay does.

mod circuit;
mod link;
mod stream;

use onionring_node::link::played::{Door, Next, Occasion, Served};
use onionring_proto::cell::BODY_LEN;
use onionring_proto::cell::Body;
use onionring_proto::relay_msg::{HEADER_LEN, RelayCmd, StreamId};
use rand::RngExt as _;

use crate::network::Role;

pub use circuit::CIRCUIT;
pub use link::LINK;
pub use stream::STREAM;

/// One way to behave.
pub struct Manner {
    pub name: &'static str,
    pub act: Act,
    /// Where a relay may be that behaves so.
    pub roles: &'static [Role],
    /// Whether a client that meets it as its guard finds another one. It need not if the guard answers a request for a
    /// circuit and then does what may be the next relay's fault, or destroys it at once, because others may overload it: as
    /// deployed clients, which rather stay with one guard than be driven to another.
    pub recovers: bool,
    /// Whether it is met by a proxy of its own, because it makes others wait, or because the relay is avoided afterwards.
    pub alone: bool,
    pub asks: Asks,
}

/// What applications ask for meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Stream,
    Name,
}

/// What the relay does.
pub enum Act {
    /// It receives those who connect so.
    Door(fn() -> Door),
    /// It proves to be another relay.
    OtherIdentity,
    /// It says something else in the link handshake.
    Hello(fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>),
    /// It acts when something happens; `None` if that is nothing to it.
    On(On),
}

pub type On = fn(&Occasion<'_>, &mut Served) -> Option<Next>;

const ALL: &[Role] = &[Role::Guard, Role::Middle, Role::Exit];
const MIDWAY: &[Role] = &[Role::Guard, Role::Middle];
const EXIT: &[Role] = &[Role::Exit];

impl Manner {
    const fn new(name: &'static str, roles: &'static [Role], act: Act) -> Manner {
        Manner { name, act, roles, recovers: true, alone: false, asks: Asks::Stream }
    }

    /// A client that has it as its guard stays there.
    const fn stays(self) -> Manner {
        Manner { recovers: false, ..self }
    }

    const fn alone(self) -> Manner {
        Manner { alone: true, ..self }
    }

    /// It matters to those who look up names.
    const fn of_names(self) -> Manner {
        Manner { asks: Asks::Name, ..self }
    }
}

const fn on(name: &'static str, roles: &'static [Role], does: On) -> Manner {
    Manner::new(name, roles, Act::On(does))
}

/// Noise.
fn noise<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill(&mut bytes[..]);
    bytes
}

/// The plaintext of a message whose header says whatever it is told.
fn message(cmd: u8, recognised: u16, stream: StreamId, len: u16) -> Body {
    let mut body = [0; BODY_LEN];
    body[0] = cmd;
    body[1..3].copy_from_slice(&recognised.to_be_bytes());
    body[3..5].copy_from_slice(&stream.0.to_be_bytes());
    body[9..HEADER_LEN].copy_from_slice(&len.to_be_bytes());
    body
}

/// Whether it is this message.
fn is(occasion: &Occasion<'_>, cmd: RelayCmd) -> bool {
    matches!(occasion, Occasion::Message { msg, .. } if msg.cmd == cmd)
}
