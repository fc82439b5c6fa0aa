//! Relay messages: what travels end to end, inside the onion layers (tor-spec 6.1).
//!
//! This is the v0 layout, used by every hop whose relay crypto is tor1:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | command |
//! | 1 | 2 | recognized, 0 in clear text |
//! | 3 | 2 | stream ID, 0 for the circuit itself |
//! | 5 | 4 | digest, filled in by the relay crypto |
//! | 9 | 2 | length of the data, at most 498 |
//! | 11 | length | data |
//! | 11 + length | rest | 4 zero bytes, then random bytes |
//!
//! [`decode`] and [`encode`] are the cell level; the other types are
//! the bodies, each with `parse` (borrowing from the cell) and `write` (appending to a buffer).

use std::fmt;

use rand_core::CryptoRng;
use thiserror::Error;

use crate::cell::{BODY_LEN, Body};

mod circuit;
mod stream;

pub use circuit::{
    Extend2, Extend2Error, Extended2, Extended2Error, LinkSpecs, NoReason, Sendme, SendmeError, Truncate,
    Truncated,
};
pub use stream::{
    Begin, BeginError, BeginFlags, Connected, ConnectedError, End, EndReason, Host, Resolve, ResolveError,
    Resolved, ResolvedError, ResolvedValue, is_valid_hostname,
};

/// Bytes before the data of a relay message.
pub const HEADER_LEN: usize = 11;

/// The most data one relay message carries.
pub const MAX_DATA_LEN: usize = BODY_LEN - HEADER_LEN;

/// Zero bytes between the data and the random padding, where there is room (tor-spec 6.1).
const PADDING_GAP: usize = 4;

/// Commands of relay messages (tor-spec 6.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayCmd(pub u8);

/// Names each command once, for the constant and for display.
macro_rules! relay_commands {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        impl RelayCmd {
            $($(#[$doc])* pub const $name: RelayCmd = RelayCmd($value);)*

            /// The command's name in the specification, `None` if it is unknown here.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

relay_commands! {
    /// Open a stream to an address; body [`Begin`].
    BEGIN = 1,
    /// Bytes of a stream.
    DATA = 2,
    /// Close a stream; body [`End`].
    END = 3,
    /// The stream is open; body [`Connected`].
    CONNECTED = 4,
    /// Flow control: more data may be sent; body [`Sendme`].
    SENDME = 5,
    /// Dead: extend with TAP.
    EXTEND = 6,
    /// Dead: answer to EXTEND.
    EXTENDED = 7,
    /// Cut the circuit behind this hop; body [`Truncate`].
    TRUNCATE = 8,
    /// The circuit now ends at this hop; body [`Truncated`].
    TRUNCATED = 9,
    /// Long-range padding, ignored.
    DROP = 10,
    /// Look a name up; body [`Resolve`].
    RESOLVE = 11,
    /// What a name resolved to; body [`Resolved`].
    RESOLVED = 12,
    /// Open a stream to the relay's own directory cache; empty body.
    BEGIN_DIR = 13,
    /// Extend the circuit by a hop; body [`Extend2`].
    EXTEND2 = 14,
    /// The circuit was extended; body [`Extended2`].
    EXTENDED2 = 15,
}

impl RelayCmd {
    /// Whether messages of this command belong to a stream, so that one with stream ID 0 is meaningless and dropped.
    /// SENDME belongs to either and is not among them.
    pub const fn needs_stream(self) -> bool {
        matches!(
            self,
            Self::BEGIN
                | Self::DATA
                | Self::END
                | Self::CONNECTED
                | Self::RESOLVE
                | Self::RESOLVED
                | Self::BEGIN_DIR
        )
    }
}

impl fmt::Display for RelayCmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "relay command {}", self.0),
        }
    }
}

impl fmt::Debug for RelayCmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identifier of a stream on one circuit and hop, chosen by the client; 0 means the circuit itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u16);

impl StreamId {
    /// The circuit itself, in messages that belong to no stream.
    pub const CIRCUIT: StreamId = StreamId(0);
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A relay message as it lies in a decrypted cell body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayMsg<'a> {
    /// What it is; may be a command that this crate has no name for, which is to be dropped (protocol behaviour of
    /// deployed relays).
    pub cmd: RelayCmd,
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Its data, at most [`MAX_DATA_LEN`] bytes.
    pub data: &'a [u8],
}

/// A recognised relay cell that is no relay message; closes the circuit with `DestroyReason::Protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("relay message claims {0} bytes of data, a cell carries at most {MAX_DATA_LEN}")]
pub struct LengthError(pub u16);

/// Reads the message in a cell body that the relay crypto has recognised.
pub fn decode(body: &Body) -> Result<RelayMsg<'_>, LengthError> {
    let len = u16::from_be_bytes([body[9], body[10]]);
    let data = body[HEADER_LEN..].get(..usize::from(len)).ok_or(LengthError(len))?;
    Ok(RelayMsg { cmd: RelayCmd(body[0]), stream: StreamId(u16::from_be_bytes([body[3], body[4]])), data })
}

/// Writes a message into a cell body, with random padding, ready for the relay crypto to fill in the digest.
///
/// # Panics
/// If `data` is longer than [`MAX_DATA_LEN`]: the caller cuts it.
pub fn encode<R: CryptoRng + ?Sized>(
    cmd: RelayCmd,
    stream: StreamId,
    data: &[u8],
    rng: &mut R,
    body: &mut Body,
) {
    data_room(body)[..data.len()].copy_from_slice(data);
    encode_in_place(cmd, stream, data.len(), rng, body);
}

/// The part of a cell body where data goes, to be filled before [`encode_in_place`]; [`MAX_DATA_LEN`] bytes.
pub fn data_room(body: &mut Body) -> &mut [u8] {
    &mut body[HEADER_LEN..]
}

/// Completes a message whose `len` bytes of data already lie in [`data_room`], so that bytes read from a socket need
/// no copy.
///
/// # Panics
/// If `len` is more than [`MAX_DATA_LEN`].
pub fn encode_in_place<R: CryptoRng + ?Sized>(
    cmd: RelayCmd,
    stream: StreamId,
    len: usize,
    rng: &mut R,
    body: &mut Body,
) {
    assert!(len <= MAX_DATA_LEN, "relay message of {len} bytes");
    body[0] = cmd.0;
    body[1..3].fill(0);
    body[3..5].copy_from_slice(&stream.0.to_be_bytes());
    body[5..9].fill(0);
    // The assertion above keeps `len` far below 2^16.
    body[9..11].copy_from_slice(&(len as u16).to_be_bytes());
    let padding = &mut body[HEADER_LEN + len..];
    let (gap, random) = padding.split_at_mut(padding.len().min(PADDING_GAP));
    gap.fill(0);
    rng.fill_bytes(random);
}

/// Splits off the first `n` bytes.
fn take<'a>(data: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = data.split_at_checked(n)?;
    *data = tail;
    Some(head)
}

/// Splits off the first `N` bytes as an array.
fn take_array<const N: usize>(data: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = data.split_first_chunk()?;
    *data = tail;
    Some(*head)
}

#[cfg(test)]
mod tests;
