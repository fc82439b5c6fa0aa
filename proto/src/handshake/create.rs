//! Bodies of the cells that carry a handshake over one link (tor-spec 5.1).

use super::HandshakeError;
use super::fast;
use crate::cell::{BODY_LEN, Body};
use crate::limits::{CREATE2_DATA, CREATED2_DATA, EXTENDED2_DATA};

/// Body of CREATE2: `HTYPE u16 | HLEN u16 | HDATA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create2<'a> {
    /// Type of the handshake, see [`htype`](super::htype).
    pub htype: u16,
    /// The client's message, at most [`CREATE2_DATA`] bytes.
    pub hdata: &'a [u8],
}

impl<'a> Create2<'a> {
    /// Reads the body; bytes after HDATA are padding.
    ///
    /// # Errors
    /// [`HandshakeError::Overlong`].
    pub fn parse(body: &'a Body) -> Result<Self, HandshakeError> {
        let [t0, t1, l0, l1, rest @ ..] = body;
        Ok(Self { htype: u16::from_be_bytes([*t0, *t1]), hdata: data(rest, [*l0, *l1])? })
    }

    /// Writes the body, padded with zeros.
    ///
    /// # Panics
    /// If `hdata` is longer than [`CREATE2_DATA`]. What came in EXTEND2 never is.
    pub fn write(&self, body: &mut Body) {
        body[..2].copy_from_slice(&self.htype.to_be_bytes());
        write_data(self.hdata, &mut body[2..]);
    }
}

/// Body of CREATED2: `HLEN u16 | HDATA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created2<'a> {
    /// The relay's reply, at most [`CREATED2_DATA`] bytes.
    pub hdata: &'a [u8],
}

impl<'a> Created2<'a> {
    /// Reads the body; bytes after HDATA are padding.
    ///
    /// # Errors
    /// [`HandshakeError::Overlong`].
    pub fn parse(body: &'a Body) -> Result<Self, HandshakeError> {
        let [l0, l1, rest @ ..] = body;
        Ok(Self { hdata: data(rest, [*l0, *l1])? })
    }

    /// Whether a relay can pass the reply on in EXTENDED2. If not, it closes the circuit in both directions.
    pub fn fits_extended2(&self) -> bool {
        self.hdata.len() <= EXTENDED2_DATA
    }

    /// Writes the body, padded with zeros.
    ///
    /// # Panics
    /// If `hdata` is longer than [`CREATED2_DATA`]; no reply of this crate is.
    pub fn write(&self, body: &mut Body) {
        write_data(self.hdata, body);
    }
}

/// Body of CREATE_FAST: `X`, 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateFast {
    /// The client's half of the secret.
    pub x: [u8; fast::SHARE_LEN],
}

impl CreateFast {
    /// Reads the body, which cannot fail: every byte after X is padding.
    pub fn parse(body: &Body) -> Self {
        Self { x: head(body) }
    }

    /// Writes the body, padded with zeros.
    pub fn write(&self, body: &mut Body) {
        write_padded(&self.x, body);
    }
}

/// Body of CREATED_FAST: `Y | KH`, 20 bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreatedFast {
    /// The relay's half of the secret, and the proof that it has both.
    pub reply: [u8; fast::REPLY_LEN],
}

impl CreatedFast {
    /// Reads the body, which cannot fail: every byte after KH is padding.
    pub fn parse(body: &Body) -> Self {
        Self { reply: head(body) }
    }

    /// Writes the body, padded with zeros.
    pub fn write(&self, body: &mut Body) {
        write_padded(&self.reply, body);
    }
}

/// The first `len` bytes of `rest`.
fn data(rest: &[u8], len: [u8; 2]) -> Result<&[u8], HandshakeError> {
    let len = u16::from_be_bytes(len).into();
    rest.get(..len).ok_or(HandshakeError::Overlong { len, max: rest.len() })
}

fn write_data(hdata: &[u8], out: &mut [u8]) {
    let (len, rest) = out.split_at_mut(2);
    assert!(hdata.len() <= rest.len(), "{} bytes of handshake data do not fit the cell", hdata.len());
    len.copy_from_slice(&(hdata.len() as u16).to_be_bytes());
    write_padded(hdata, rest);
}

fn write_padded(data: &[u8], out: &mut [u8]) {
    let (head, padding) = out.split_at_mut(data.len());
    head.copy_from_slice(data);
    padding.fill(0);
}

/// The first bytes of a cell. `N` is far below the length of a body.
fn head<const N: usize>(body: &Body) -> [u8; N] {
    const { assert!(N <= BODY_LEN) }
    let mut out = [0; N];
    out.copy_from_slice(&body[..N]);
    out
}

const _: () = assert!(CREATE2_DATA == BODY_LEN - 4 && CREATED2_DATA == BODY_LEN - 2);
