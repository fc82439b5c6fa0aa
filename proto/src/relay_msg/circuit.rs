//! Bodies of the messages that concern the circuit itself: flow control, extension, truncation.

use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6};

use thiserror::Error;

use super::{MAX_DATA_LEN, take, take_array};
use crate::cell::DestroyReason;
use crate::crypto::tor1::SendmeTag;
use crate::handshake::htype;
use crate::limits::EXTENDED2_DATA;

/// Acknowledges a window's increment of DATA (tor-spec 7.3 and 7.4).
///
/// On a stream the body is always empty, and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sendme {
    /// Unauthenticated: empty body, or version 0.
    V0,
    /// Proof that the cell which completed the increment was read.
    V1 {
        /// The digest of that cell.
        tag: SendmeTag,
    },
}

/// A circuit-level SENDME that cannot be read; closes the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendmeError {
    /// Neither version 0 nor 1.
    #[error("SENDME of version {0}, known are 0 and 1")]
    Version(u8),
    /// A version 1 body that ends early.
    #[error("SENDME of {0} bytes ends before its tag does")]
    Truncated(usize),
    /// A tag of a length that belongs to other relay crypto.
    #[error("SENDME tag of {0} bytes, on this circuit it has 20")]
    TagLen(u16),
}

impl Sendme {
    /// Reads a circuit-level SENDME; bytes after the tag are ignored.
    pub fn parse(data: &[u8]) -> Result<Sendme, SendmeError> {
        let mut rest = data;
        let Some([version]) = take_array(&mut rest) else { return Ok(Sendme::V0) };
        match version {
            0 => Ok(Sendme::V0),
            1 => {
                let truncated = SendmeError::Truncated(data.len());
                let len = u16::from_be_bytes(take_array(&mut rest).ok_or(truncated)?);
                let tag = take(&mut rest, usize::from(len)).ok_or(truncated)?;
                let tag = SendmeTag(tag.try_into().map_err(|_| SendmeError::TagLen(len))?);
                Ok(Sendme::V1 { tag })
            }
            other => Err(SendmeError::Version(other)),
        }
    }

    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Sendme::V1 { tag } = self {
            out.extend_from_slice(&[1, 0, tag.0.len() as u8]);
            out.extend_from_slice(&tag.0);
        }
    }
}

/// Where and who the next relay is (tor-spec 5.1.2, link specifiers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSpecs {
    /// Its IPv4 ORPort.
    pub ipv4: Option<SocketAddrV4>,
    /// Its IPv6 ORPort.
    pub ipv6: Option<SocketAddrV6>,
    /// SHA-1 of its RSA identity key, never all zero.
    pub rsa_id: [u8; 20],
    /// Its Ed25519 identity, if the client knows it; an all-zero one counts as unknown.
    pub ed_id: Option<[u8; 32]>,
}

const SPEC_IPV4: u8 = 0;
const SPEC_IPV6: u8 = 1;
const SPEC_RSA_ID: u8 = 2;
const SPEC_ED_ID: u8 = 3;

/// Handshake types that EXTEND2 must not carry: TAP is dead, CREATE_FAST is for the first hop only.
const REFUSED_HANDSHAKES: [u16; 2] = [htype::TAP, htype::FAST];

/// Asks a relay to extend the circuit by one hop (tor-spec 5.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extend2<'a> {
    /// The relay to extend to.
    pub specs: LinkSpecs,
    /// Handshake type, to be copied into CREATE2; the extending relay need not know it.
    pub htype: u16,
    /// The client's half of the handshake, to be copied into CREATE2.
    pub hdata: &'a [u8],
}

/// Why an EXTEND2 is refused; each closes the circuit with `DestroyReason::Protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Extend2Error {
    /// Ends early.
    #[error("EXTEND2 of {0} bytes ends early")]
    Truncated(usize),
    /// A known link specifier with a wrong length.
    #[error("link specifier of type {kind} has {len} bytes")]
    SpecLen {
        /// Type of the specifier.
        kind: u8,
        /// Its claimed length.
        len: u8,
    },
    /// No RSA identity, or an all-zero one.
    #[error("EXTEND2 names no RSA identity")]
    NoRsaId,
    /// An identity given twice.
    #[error("EXTEND2 gives the identity of type {0} twice")]
    TwoIds(u8),
    /// No address with a port.
    #[error("EXTEND2 has no usable address")]
    NoAddress,
    /// Handshake type 0 or 1.
    #[error("handshake type {0} is not allowed in EXTEND2")]
    Handshake(u16),
}

impl LinkSpecs {
    fn parse(data: &mut &[u8], truncated: Extend2Error) -> Result<LinkSpecs, Extend2Error> {
        // The first address of each family counts, even if it then turns out to be unusable.
        let mut ipv4 = None;
        let mut ipv6 = None;
        let mut rsa_id = None;
        let mut ed_id = None;
        let [count] = take_array(data).ok_or(truncated)?;
        for _ in 0..count {
            let [kind, len] = take_array(data).ok_or(truncated)?;
            let spec = take(data, usize::from(len)).ok_or(truncated)?;
            let wrong_len = Extend2Error::SpecLen { kind, len };
            match kind {
                SPEC_IPV4 => {
                    let [a, b, c, d, port @ ..] = <[u8; 6]>::try_from(spec).map_err(|_| wrong_len)?;
                    let ip = Ipv4Addr::new(a, b, c, d);
                    ipv4.get_or_insert(SocketAddrV4::new(ip, u16::from_be_bytes(port)));
                }
                SPEC_IPV6 => {
                    let (ip, port) = spec.split_first_chunk::<16>().ok_or(wrong_len)?;
                    let port = <[u8; 2]>::try_from(port).map_err(|_| wrong_len)?;
                    ipv6.get_or_insert(SocketAddrV6::new((*ip).into(), u16::from_be_bytes(port), 0, 0));
                }
                SPEC_RSA_ID => set_once(&mut rsa_id, spec.try_into().map_err(|_| wrong_len)?, kind)?,
                SPEC_ED_ID => set_once(&mut ed_id, spec.try_into().map_err(|_| wrong_len)?, kind)?,
                _ => {}
            }
        }
        let ipv4 = ipv4.filter(|addr| addr.port() != 0 && !addr.ip().is_unspecified());
        let ipv6 = ipv6.filter(|addr| addr.port() != 0 && !addr.ip().is_unspecified());
        let rsa_id = rsa_id.filter(|id| *id != [0; 20]).ok_or(Extend2Error::NoRsaId)?;
        if ipv4.is_none() && ipv6.is_none() {
            return Err(Extend2Error::NoAddress);
        }
        Ok(LinkSpecs { ipv4, ipv6, rsa_id, ed_id: ed_id.filter(|id| *id != [0; 32]) })
    }

    /// Appends the specifiers in the order that deployed clients use: IPv4, RSA, Ed25519, IPv6.
    fn write(&self, out: &mut Vec<u8>) {
        let count = 1
            + u8::from(self.ipv4.is_some())
            + u8::from(self.ipv6.is_some())
            + u8::from(self.ed_id.is_some());
        out.push(count);
        if let Some(addr) = self.ipv4 {
            out.extend_from_slice(&[SPEC_IPV4, 6]);
            out.extend_from_slice(&addr.ip().octets());
            out.extend_from_slice(&addr.port().to_be_bytes());
        }
        out.extend_from_slice(&[SPEC_RSA_ID, 20]);
        out.extend_from_slice(&self.rsa_id);
        if let Some(ed_id) = self.ed_id {
            out.extend_from_slice(&[SPEC_ED_ID, 32]);
            out.extend_from_slice(&ed_id);
        }
        if let Some(addr) = self.ipv6 {
            out.extend_from_slice(&[SPEC_IPV6, 18]);
            out.extend_from_slice(&addr.ip().octets());
            out.extend_from_slice(&addr.port().to_be_bytes());
        }
    }
}

/// Keeps the identity of this type of specifier, unless there was one already.
fn set_once<const N: usize>(slot: &mut Option<[u8; N]>, id: [u8; N], kind: u8) -> Result<(), Extend2Error> {
    match slot.replace(id) {
        Some(_) => Err(Extend2Error::TwoIds(kind)),
        None => Ok(()),
    }
}

impl<'a> Extend2<'a> {
    /// Reads an EXTEND2 by the rules of deployed relays: specifiers in any order, unknown ones ignored, exactly one
    /// RSA identity, at least one address with a port.
    pub fn parse(data: &'a [u8]) -> Result<Extend2<'a>, Extend2Error> {
        let truncated = Extend2Error::Truncated(data.len());
        let mut rest = data;
        let specs = LinkSpecs::parse(&mut rest, truncated)?;
        let htype = u16::from_be_bytes(take_array(&mut rest).ok_or(truncated)?);
        if REFUSED_HANDSHAKES.contains(&htype) {
            return Err(Extend2Error::Handshake(htype));
        }
        let hlen = u16::from_be_bytes(take_array(&mut rest).ok_or(truncated)?);
        let hdata = take(&mut rest, usize::from(hlen)).ok_or(truncated)?;
        Ok(Extend2 { specs, htype, hdata })
    }

    /// Appends the body.
    ///
    /// # Panics
    /// If the handshake does not fit a message; no handshake this crate makes comes near.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.specs.write(out);
        out.extend_from_slice(&self.htype.to_be_bytes());
        write_handshake(self.hdata, out);
        assert!(out.len() - start <= MAX_DATA_LEN, "EXTEND2 with a handshake of {} bytes", self.hdata.len());
    }
}

/// The next relay's half of the handshake, as CREATED2 brought it (tor-spec 5.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended2<'a> {
    /// The handshake reply.
    pub hdata: &'a [u8],
}

/// An EXTENDED2 that ends before its handshake does; closes the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("EXTENDED2 of {0} bytes ends early")]
pub struct Extended2Error(pub usize);

impl<'a> Extended2<'a> {
    /// Reads the body; bytes after the handshake are ignored.
    pub fn parse(data: &'a [u8]) -> Result<Extended2<'a>, Extended2Error> {
        let mut rest = data;
        let hdata = take_array(&mut rest)
            .and_then(|len| take(&mut rest, usize::from(u16::from_be_bytes(len))))
            .ok_or(Extended2Error(data.len()))?;
        Ok(Extended2 { hdata })
    }

    /// Appends the body.
    ///
    /// # Panics
    /// If the handshake is longer than [`EXTENDED2_DATA`]: a relay that is handed such a CREATED2 closes the
    /// circuit instead.
    pub fn write(&self, out: &mut Vec<u8>) {
        assert!(
            self.hdata.len() <= EXTENDED2_DATA,
            "EXTENDED2 with a handshake of {} bytes",
            self.hdata.len()
        );
        write_handshake(self.hdata, out);
    }
}

/// Appends a handshake after its length; the callers bound it far below 2^16 bytes.
fn write_handshake(hdata: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(hdata.len() as u16).to_be_bytes());
    out.extend_from_slice(hdata);
}

/// A TRUNCATE or TRUNCATED with an empty body; closes the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} without a reason")]
pub struct NoReason(&'static str);

/// Asks a relay to cut the circuit behind it (tor-spec 5.4).
///
/// Not every deployed relay takes it: Arti treats it as a protocol violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// Goes into the DESTROY that the rest of the circuit gets.
    pub reason: DestroyReason,
}

impl Truncate {
    /// Reads the body; bytes after the reason are ignored.
    pub fn parse(data: &[u8]) -> Result<Truncate, NoReason> {
        let reason = data.first().copied().map(DestroyReason::from_wire).ok_or(NoReason("TRUNCATE"))?;
        Ok(Truncate { reason })
    }

    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.reason.to_wire());
    }
}

/// The circuit now ends at the sender (tor-spec 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Why.
    pub reason: DestroyReason,
}

impl Truncated {
    /// Reads the body; bytes after the reason are ignored.
    pub fn parse(data: &[u8]) -> Result<Truncated, NoReason> {
        let reason = data.first().copied().map(DestroyReason::from_wire).ok_or(NoReason("TRUNCATED"))?;
        Ok(Truncated { reason })
    }

    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.reason.to_wire());
    }
}
