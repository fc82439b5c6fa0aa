//! Cells: the unit that links exchange (tor-spec 3).
//!
//! ```text
//! fixed     circ_id 2|4   command 1   body 509
//! variable  circ_id 2|4   command 1   length 2   body
//! ```
//!
//! The width of the circuit ID is 2 before the link protocol is negotiated and in link protocol 3, and 4 from link
//! protocol 4 on. Cells are framed where they lie in the receive buffer; nothing is copied.

use std::fmt;

use thiserror::Error;

use crate::limits;

/// Bytes of the body of a fixed-size cell.
pub const BODY_LEN: usize = 509;

/// The body of a fixed-size cell.
pub type Body = [u8; BODY_LEN];

/// The command of a cell: what it is, and by its value whether its length is fixed (tor-spec 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Command(pub u8);

/// Names each command once, for the constant and for display.
macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        impl Command {
            $($(#[$doc])* pub const $name: Command = Command($value);)*

            /// The command's name in the specification, `None` if it has none.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    /// Padding, ignored once the handshake is over.
    PADDING = 0,
    /// Create a circuit with the TAP handshake; no longer answered by deployed relays.
    CREATE = 1,
    /// Answer to CREATE.
    CREATED = 2,
    /// End-to-end data along a circuit.
    RELAY = 3,
    /// Stop using a circuit; the first byte of the body is a [`DestroyReason`].
    DESTROY = 4,
    /// Create the first hop of a circuit without public-key work.
    CREATE_FAST = 5,
    /// Answer to CREATE_FAST.
    CREATED_FAST = 6,
    /// The link protocols the sender speaks; the first cell on a link, always with a 2-byte circuit ID.
    VERSIONS = 7,
    /// Time and addresses; ends the link handshake.
    NETINFO = 8,
    /// End-to-end data outbound, of which a circuit may carry only a few: the only carrier of EXTEND2.
    RELAY_EARLY = 9,
    /// Create a circuit with a typed handshake.
    CREATE2 = 10,
    /// Answer to CREATE2.
    CREATED2 = 11,
    /// Ask the relay to pad the link, or not to (link protocol 5).
    PADDING_NEGOTIATE = 12,
    /// Padding of any length, ignored at any time.
    VPADDING = 128,
    /// Certificates of the sender.
    CERTS = 129,
    /// Challenge for, and list of, authentication methods.
    AUTH_CHALLENGE = 130,
    /// Proof of the initiator's identity.
    AUTHENTICATE = 131,
    /// Reserved, ignored.
    AUTHORIZE = 132,
}

impl Command {
    /// Whether cells of this command carry their own length: VERSIONS and every command from 128 on.
    pub const fn is_variable(self) -> bool {
        self.0 >= 128 || self.0 == Self::VERSIONS.0
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command {}", self.0),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identifier of a circuit on one link; 0 means the link itself.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircId(pub u32);

impl CircId {
    /// The circuit ID of cells that concern the link and not a circuit.
    pub const LINK: CircId = CircId(0);
}

impl fmt::Display for CircId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for CircId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A link protocol version that both sides can speak (tor-spec 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkVersion {
    /// 2-byte circuit IDs, 512-byte cells.
    V3,
    /// 4-byte circuit IDs, 514-byte cells.
    V4,
    /// Like [`LinkVersion::V4`], with PADDING_NEGOTIATE.
    V5,
}

impl LinkVersion {
    /// Every version this crate speaks, lowest first.
    pub const ALL: [LinkVersion; 3] = [LinkVersion::V3, LinkVersion::V4, LinkVersion::V5];

    /// The version with this number, `None` if this crate does not speak it.
    pub const fn from_number(number: u16) -> Option<LinkVersion> {
        match number {
            3 => Some(LinkVersion::V3),
            4 => Some(LinkVersion::V4),
            5 => Some(LinkVersion::V5),
            _ => None,
        }
    }

    /// The number of this version in a VERSIONS cell.
    pub const fn number(self) -> u16 {
        match self {
            LinkVersion::V3 => 3,
            LinkVersion::V4 => 4,
            LinkVersion::V5 => 5,
        }
    }

    /// Bytes of a circuit ID.
    pub const fn circ_id_len(self) -> usize {
        match self {
            LinkVersion::V3 => 2,
            LinkVersion::V4 | LinkVersion::V5 => 4,
        }
    }

    /// Bytes of a fixed-size cell on the wire, header included: 512 or 514.
    pub const fn cell_len(self) -> usize {
        self.circ_id_len() + 1 + BODY_LEN
    }
}

impl fmt::Display for LinkVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// How the bytes of a link divide into cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Before the peer's VERSIONS: 2-byte circuit IDs, and only VERSIONS, VPADDING and AUTHORIZE may come.
    Initial,
    /// From the peer's VERSIONS on.
    Negotiated(LinkVersion),
}

impl Framing {
    const fn circ_id_len(self) -> usize {
        match self {
            Framing::Initial => 2,
            Framing::Negotiated(version) => version.circ_id_len(),
        }
    }
}

impl From<LinkVersion> for Framing {
    fn from(version: LinkVersion) -> Framing {
        Framing::Negotiated(version)
    }
}

/// One cell, borrowed from the receive buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A fixed-size cell.
    Fixed {
        /// The circuit it belongs to.
        circ_id: CircId,
        /// What it is.
        command: Command,
        /// Its whole body; relay cells are decrypted right here.
        body: &'a mut Body,
    },
    /// A variable-length cell.
    Variable {
        /// The circuit it belongs to; 0 in every command that exists.
        circ_id: CircId,
        /// What it is.
        command: Command,
        /// Its body, at most [`limits::VARIABLE_CELL_BODY`] bytes.
        body: &'a mut [u8],
    },
}

impl Frame<'_> {
    /// The circuit the cell belongs to.
    pub fn circ_id(&self) -> CircId {
        match self {
            Frame::Fixed { circ_id, .. } | Frame::Variable { circ_id, .. } => *circ_id,
        }
    }

    /// What the cell is.
    pub fn command(&self) -> Command {
        match self {
            Frame::Fixed { command, .. } | Frame::Variable { command, .. } => *command,
        }
    }

    /// The body of the cell, whichever kind it is of.
    pub fn body(&self) -> &[u8] {
        match self {
            Frame::Fixed { body, .. } => &body[..],
            Frame::Variable { body, .. } => body,
        }
    }
}

/// Why bytes from the peer are not taken for a cell. After `BeforeVersions` the framing is lost, and with it the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length field of a variable cell exceeds [`limits::VARIABLE_CELL_BODY`].
    #[error("{command} cell of {length} bytes, at most {} are accepted", limits::VARIABLE_CELL_BODY)]
    TooLong {
        /// The command of the cell.
        command: Command,
        /// The length it announced.
        length: usize,
    },
    /// A command that cannot come before the link protocol is negotiated.
    #[error("{0} cell before VERSIONS")]
    BeforeVersions(Command),
}

/// Takes the first cell off `buf`: the number of bytes it covers and the cell, or `None` while it is incomplete.
///
/// Errors are reported as soon as the header shows them, so a receive buffer never needs to hold more than
/// [`limits::VARIABLE_CELL_BODY`] + 7 bytes for one cell.
#[inline]
pub fn next_frame(framing: Framing, buf: &mut [u8]) -> Result<Option<(usize, Frame<'_>)>, FrameError> {
    let (circ_id, rest) = match framing.circ_id_len() {
        2 => match buf.split_first_chunk_mut::<2>() {
            Some((id, rest)) => (u32::from(u16::from_be_bytes(*id)), rest),
            None => return Ok(None),
        },
        _ => match buf.split_first_chunk_mut::<4>() {
            Some((id, rest)) => (u32::from_be_bytes(*id), rest),
            None => return Ok(None),
        },
    };
    let circ_id = CircId(circ_id);
    let Some((&mut command, rest)) = rest.split_first_mut() else { return Ok(None) };
    let command = Command(command);
    let header = framing.circ_id_len() + 1;

    if framing == Framing::Initial
        && !matches!(command, Command::VERSIONS | Command::VPADDING | Command::AUTHORIZE)
    {
        return Err(FrameError::BeforeVersions(command));
    }
    if !command.is_variable() {
        return Ok(rest
            .first_chunk_mut::<BODY_LEN>()
            .map(|body| (header + BODY_LEN, Frame::Fixed { circ_id, command, body })));
    }
    let Some((length, rest)) = rest.split_first_chunk_mut::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > limits::VARIABLE_CELL_BODY {
        return Err(FrameError::TooLong { command, length });
    }
    Ok(rest.get_mut(..length).map(|body| (header + 2 + length, Frame::Variable { circ_id, command, body })))
}

/// Appends a fixed-size cell to `out`.
#[inline]
pub fn write_fixed(version: LinkVersion, circ_id: CircId, command: Command, body: &Body, out: &mut Vec<u8>) {
    debug_assert!(!command.is_variable(), "{command} is not a fixed-size cell");
    write_header(version.into(), circ_id, command, out);
    out.extend_from_slice(body);
}

/// Appends a fixed-size cell to `out` whose body is `start` followed by zeros, as all fixed cells but the relay
/// cells are filled.
///
/// # Panics
/// If `start` is longer than a body.
pub fn write_zero_filled(
    version: LinkVersion,
    circ_id: CircId,
    command: Command,
    start: &[u8],
    out: &mut Vec<u8>,
) {
    let mut body = [0; BODY_LEN];
    body[..start.len()].copy_from_slice(start);
    write_fixed(version, circ_id, command, &body, out);
}

/// Appends a DESTROY cell to `out` (tor-spec 5.4).
pub fn write_destroy(version: LinkVersion, circ_id: CircId, reason: DestroyReason, out: &mut Vec<u8>) {
    write_zero_filled(version, circ_id, Command::DESTROY, &[reason.to_wire()], out);
}

/// Appends a variable-length cell to `out`. VERSIONS goes with [`Framing::Initial`], everything else with the
/// negotiated version.
///
/// # Panics
/// If `body` is longer than its 2-byte length field can say.
pub fn write_variable(framing: Framing, circ_id: CircId, command: Command, body: &[u8], out: &mut Vec<u8>) {
    debug_assert!(command.is_variable(), "{command} is not a variable-length cell");
    // Only the link handshake writes such cells: bodies of its own making; the longest, CERTS, is a handful of certificates.
    let length = u16::try_from(body.len()).expect("a variable cell of ours is shorter than 64 KiB");
    write_header(framing, circ_id, command, out);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
}

fn write_header(framing: Framing, circ_id: CircId, command: Command, out: &mut Vec<u8>) {
    let id = circ_id.0.to_be_bytes();
    let unused = id.len() - framing.circ_id_len();
    debug_assert!(id[..unused] == [0; 4][..unused], "circuit ID {circ_id} does not fit the link protocol");
    out.extend_from_slice(&id[unused..]);
    out.push(command.0);
}

/// Why a circuit is torn down, in DESTROY, TRUNCATE and TRUNCATED (tor-spec 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DestroyReason {
    /// No reason given; what clients send.
    None,
    /// The peer violated the protocol.
    Protocol,
    /// Internal error.
    Internal,
    /// A TRUNCATE asked for it.
    Requested,
    /// Not operating, to save bandwidth.
    Hibernating,
    /// Out of memory, sockets or circuit IDs.
    ResourceLimit,
    /// The next relay could not be reached.
    ConnectFailed,
    /// The next relay was reached, but it is not the one that was asked for.
    OrIdentity,
    /// The link that carried the circuit was closed.
    ChannelClosed,
    /// The circuit has expired.
    Finished,
    /// The circuit took too long to build.
    Timeout,
    /// The circuit was destroyed from the other side.
    Destroyed,
    /// No such onion service.
    NoSuchService,
    /// A reason this crate does not know, tolerated.
    Unknown(u8),
}

impl DestroyReason {
    /// The reason for a byte from the wire.
    pub const fn from_wire(byte: u8) -> DestroyReason {
        match byte {
            0 => DestroyReason::None,
            1 => DestroyReason::Protocol,
            2 => DestroyReason::Internal,
            3 => DestroyReason::Requested,
            4 => DestroyReason::Hibernating,
            5 => DestroyReason::ResourceLimit,
            6 => DestroyReason::ConnectFailed,
            7 => DestroyReason::OrIdentity,
            8 => DestroyReason::ChannelClosed,
            9 => DestroyReason::Finished,
            10 => DestroyReason::Timeout,
            11 => DestroyReason::Destroyed,
            12 => DestroyReason::NoSuchService,
            other => DestroyReason::Unknown(other),
        }
    }

    /// The byte for the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            DestroyReason::None => 0,
            DestroyReason::Protocol => 1,
            DestroyReason::Internal => 2,
            DestroyReason::Requested => 3,
            DestroyReason::Hibernating => 4,
            DestroyReason::ResourceLimit => 5,
            DestroyReason::ConnectFailed => 6,
            DestroyReason::OrIdentity => 7,
            DestroyReason::ChannelClosed => 8,
            DestroyReason::Finished => 9,
            DestroyReason::Timeout => 10,
            DestroyReason::Destroyed => 11,
            DestroyReason::NoSuchService => 12,
            DestroyReason::Unknown(byte) => byte,
        }
    }

    /// A short stable name for metrics; every unknown reason is `unknown`.
    pub const fn label(self) -> &'static str {
        match self {
            DestroyReason::None => "none",
            DestroyReason::Protocol => "protocol",
            DestroyReason::Internal => "internal",
            DestroyReason::Requested => "requested",
            DestroyReason::Hibernating => "hibernating",
            DestroyReason::ResourceLimit => "resource_limit",
            DestroyReason::ConnectFailed => "connect_failed",
            DestroyReason::OrIdentity => "or_identity",
            DestroyReason::ChannelClosed => "channel_closed",
            DestroyReason::Finished => "finished",
            DestroyReason::Timeout => "timeout",
            DestroyReason::Destroyed => "destroyed",
            DestroyReason::NoSuchService => "no_such_service",
            DestroyReason::Unknown(_) => "unknown",
        }
    }
}

#[cfg(test)]
mod tests;
