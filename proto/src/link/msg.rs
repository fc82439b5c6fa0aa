//! Bodies of the cells of the link handshake, and of PADDING_NEGOTIATE (tor-spec 4, padding-spec 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand_core::CryptoRng;

use crate::cell::{Body, LinkVersion};
use crate::limits;
use crate::time::Unix;

/// A body that does not have the form its command asks for; the caller knows the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Takes integers and arrays off the front of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(array)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(*self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(*self.array()?))
    }
}

/// VERSIONS (tor-spec 4.1): `version u16 *`.
pub mod versions {
    use super::*;

    /// The body that offers these versions.
    pub fn encode(offered: &[LinkVersion]) -> Vec<u8> {
        offered.iter().flat_map(|version| version.number().to_be_bytes()).collect()
    }

    /// The highest version that is both in the body and in `ours`, `None` if there is none in common.
    pub fn negotiate(body: &[u8], ours: &[LinkVersion]) -> Result<Option<LinkVersion>, Malformed> {
        let (pairs, []) = body.as_chunks::<2>() else { return Err(Malformed) };
        Ok(pairs
            .iter()
            .filter_map(|pair| LinkVersion::from_number(u16::from_be_bytes(*pair)))
            .filter(|version| ours.contains(version))
            .max())
    }
}

/// CERTS (tor-spec 4.2): `count u8 | { type u8, length u16, certificate } *`.
pub mod certs {
    use super::*;

    /// Certificate of the TLS key by the RSA identity; superseded by [`SIGNING_V_TLS`].
    pub const RSA_TLS: u8 = 1;
    /// X.509 certificate of the RSA identity by itself.
    pub const RSA_IDENTITY: u8 = 2;
    /// X.509 certificate of an RSA authentication key; superseded by [`SIGNING_V_LINK_AUTH`].
    pub const RSA_AUTH: u8 = 3;
    /// Ed25519 certificate of the signing key by the identity key.
    pub const IDENTITY_V_SIGNING: u8 = 4;
    /// Ed25519 certificate of the TLS certificate by the signing key.
    pub const SIGNING_V_TLS: u8 = 5;
    /// Ed25519 certificate of the link authentication key by the signing key.
    pub const SIGNING_V_LINK_AUTH: u8 = 6;
    /// Certificate of the Ed25519 identity by the RSA identity.
    pub const RSA_V_ED25519: u8 = 7;

    /// The certificates of a CERTS body, in the order they came.
    pub type List<'a> = Vec<(u8, &'a [u8])>;

    /// Reads the list; bytes after it are ignored.
    pub fn parse(body: &[u8]) -> Result<List<'_>, Malformed> {
        let mut reader = Reader(body);
        let count = reader.u8()?;
        (0..count)
            .map(|_| {
                let (cert_type, length) = (reader.u8()?, reader.u16()?);
                Ok((cert_type, reader.bytes(length.into())?))
            })
            .collect()
    }

    /// Writes the list.
    ///
    /// # Panics
    /// If there are more than 255 certificates, or one is longer than 65535 bytes: only our own are ever written.
    pub fn encode(list: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = vec![u8::try_from(list.len()).expect("we have few certificates")];
        for (cert_type, cert) in list {
            out.push(*cert_type);
            out.extend(u16::try_from(cert.len()).expect("our certificates are short").to_be_bytes());
            out.extend_from_slice(cert);
        }
        out
    }
}

/// AUTH_CHALLENGE (tor-spec 4.3): `challenge 32 | count u16 | method u16 *`.
pub mod auth_challenge {
    use super::*;

    /// The one authentication method in use: Ed25519, with SHA-256 and an RFC 5705 exporter.
    pub const METHOD_ED25519_SHA256_RFC5705: u16 = 3;

    /// A challenge that offers the one method. Nothing looks at the random bytes but the transcript hashes, which they
    /// make unpredictable.
    pub fn encode(rng: &mut impl CryptoRng) -> Vec<u8> {
        let mut out = vec![0; 32];
        rng.fill_bytes(&mut out);
        out.extend(1u16.to_be_bytes());
        out.extend(METHOD_ED25519_SHA256_RFC5705.to_be_bytes());
        out
    }

    /// Whether the body offers the one method; bytes after the list are ignored.
    pub fn offers_our_method(body: &[u8]) -> Result<bool, Malformed> {
        let mut reader = Reader(body);
        reader.array::<32>()?;
        let count = reader.u16()?;
        let methods = reader.bytes(2 * usize::from(count))?;
        Ok(methods.chunks(2).any(|method| method == METHOD_ED25519_SHA256_RFC5705.to_be_bytes()))
    }
}

/// AUTHENTICATE (tor-spec 4.4): `type u16 | length u16 | authentication`. For the one type in use, 3:
///
/// ```text
///   0  TYPE 8         "AUTH0003"
///   8  CID 32         SHA-256 of the initiator's RSA identity key
///  40  SID 32         the same of the responder
///  72  CID_ED 32      the initiator's Ed25519 identity
/// 104  SID_ED 32      the responder's
/// 136  SLOG 32        SHA-256 of all the responder sent, up to and including AUTH_CHALLENGE
/// 168  CLOG 32        SHA-256 of all the initiator sent before AUTHENTICATE
/// 200  SCERT 32       SHA-256 of the responder's TLS certificate
/// 232  TLSSECRETS 32  from the TLS exporter
/// 264  RAND 24
/// 288  SIG 64         over everything before, by the initiator's link authentication key
/// ```
pub mod authenticate {
    use super::*;

    /// Bytes that both sides compute and that must agree.
    pub const AGREED_LEN: usize = 264;
    /// Bytes that are signed.
    pub const SIGNED_LEN: usize = 288;
    /// Bytes of the whole authentication.
    pub const LEN: usize = 352;

    /// The label of the TLS exporter. Its context is CID: the text of tor-spec says otherwise, but every
    /// implementation uses the digest of the initiator's RSA identity key.
    pub const EXPORTER_LABEL: &[u8] = b"EXPORTER FOR TOR TLS CLIENT BINDING AUTH0003";

    /// What both sides know, in the order of the cell.
    pub struct Agreed {
        /// SHA-256 of the initiator's RSA identity key in PKCS#1 DER.
        pub cid: [u8; 32],
        /// The same of the responder.
        pub sid: [u8; 32],
        /// The initiator's Ed25519 identity.
        pub cid_ed: [u8; 32],
        /// The responder's.
        pub sid_ed: [u8; 32],
        /// Transcript of the responder.
        pub slog: [u8; 32],
        /// Transcript of the initiator.
        pub clog: [u8; 32],
        /// SHA-256 of the responder's TLS certificate.
        pub scert: [u8; 32],
        /// Output of the TLS exporter.
        pub tls_secrets: [u8; 32],
    }

    impl Agreed {
        /// The bytes that both sides must agree on.
        pub fn to_bytes(&self) -> [u8; AGREED_LEN] {
            let mut out = [0; AGREED_LEN];
            let mut rest = &mut out[..];
            for (_, field) in self.fields() {
                let (place, after) = rest.split_at_mut(field.len());
                place.copy_from_slice(field);
                rest = after;
            }
            out
        }

        /// The name of the first field that is different in `other`, for the log.
        pub fn first_difference(&self, other: &[u8; AGREED_LEN]) -> &'static str {
            let mut rest = &other[..];
            for (name, field) in self.fields() {
                let (theirs, after) = rest.split_at(field.len());
                if field != theirs {
                    return name;
                }
                rest = after;
            }
            "none"
        }

        fn fields(&self) -> [(&'static str, &[u8]); 9] {
            [
                ("TYPE", b"AUTH0003"),
                ("CID", &self.cid),
                ("SID", &self.sid),
                ("CID_ED", &self.cid_ed),
                ("SID_ED", &self.sid_ed),
                ("SLOG", &self.slog),
                ("CLOG", &self.clog),
                ("SCERT", &self.scert),
                ("TLSSECRETS", &self.tls_secrets),
            ]
        }
    }

    /// Writes a body: the agreed bytes, 24 random ones, and what `sign` makes of them.
    pub fn encode(
        agreed: &Agreed,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
        rng: &mut impl CryptoRng,
    ) -> Vec<u8> {
        let mut auth = agreed.to_bytes().to_vec();
        auth.resize(SIGNED_LEN, 0);
        rng.fill_bytes(&mut auth[AGREED_LEN..]);
        auth.extend(sign(&auth));
        let mut out = auth_challenge::METHOD_ED25519_SHA256_RFC5705.to_be_bytes().to_vec();
        out.extend((LEN as u16).to_be_bytes());
        out.extend(auth);
        out
    }

    /// A parsed body.
    pub struct Authenticate<'a> {
        /// The bytes to compare with [`Agreed::to_bytes`].
        pub agreed: &'a [u8; AGREED_LEN],
        /// The signed bytes.
        pub signed: &'a [u8; SIGNED_LEN],
        /// The signature.
        pub signature: &'a [u8; 64],
    }

    /// Reads a body of type 3, whose length must be exact; bytes after it are ignored. `None` means another type.
    pub fn parse(body: &[u8]) -> Result<Option<Authenticate<'_>>, Malformed> {
        let mut reader = Reader(body);
        let (method, length) = (reader.u16()?, reader.u16()?);
        if method != auth_challenge::METHOD_ED25519_SHA256_RFC5705 {
            return Ok(None);
        }
        if usize::from(length) != LEN {
            return Err(Malformed);
        }
        let (signed, signature) = (reader.array::<SIGNED_LEN>()?, reader.array()?);
        let agreed = signed.first_chunk().ok_or(Malformed)?;
        Ok(Some(Authenticate { agreed, signed, signature }))
    }
}

/// NETINFO (tor-spec 4.5): `time u32 | other address | count u8 | own address *`, where an address is
/// `type u8, length u8, value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netinfo {
    /// The sender's clock; `None` (0 on the wire) from clients, who keep it to themselves.
    pub time: Option<Unix>,
    /// Where the sender sees us; `None` if it is of a type we do not know.
    pub other: Option<IpAddr>,
    /// The sender's own addresses; none from clients.
    pub own: Vec<IpAddr>,
}

const ADDRESS_IPV4: u8 = 4;
const ADDRESS_IPV6: u8 = 6;

impl Netinfo {
    /// Reads a body. Addresses of unknown types are passed over, a known type with a wrong length is an error.
    pub fn parse(body: &Body) -> Result<Netinfo, Malformed> {
        let mut reader = Reader(body);
        let time = reader.u32()?;
        let other = read_address(&mut reader)?;
        let count = reader.u8()?;
        let mut own = Vec::new();
        for _ in 0..count {
            own.extend(read_address(&mut reader)?);
        }
        Ok(Netinfo { time: (time != 0).then_some(Unix(time.into())), other, own })
    }

    /// The beginning of the body, to be filled up with zeros. Of the own addresses at most
    /// [`limits::NETINFO_ADDRESSES`] are written.
    pub fn encode(&self) -> Vec<u8> {
        let time = self.time.map_or(0, |time| u32::try_from(time.0).unwrap_or(u32::MAX));
        let mut out = time.to_be_bytes().to_vec();
        // A place for an address cannot be left out: the unspecified one says nothing.
        write_address(self.other.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), &mut out);
        let own = &self.own[..self.own.len().min(limits::NETINFO_ADDRESSES)];
        out.push(own.len() as u8);
        own.iter().for_each(|address| write_address(*address, &mut out));
        out
    }
}

fn read_address(reader: &mut Reader<'_>) -> Result<Option<IpAddr>, Malformed> {
    let (kind, length) = (reader.u8()?, reader.u8()?);
    let value = reader.bytes(length.into())?;
    match kind {
        ADDRESS_IPV4 => Ok(Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).map_err(|_| Malformed)?).into())),
        ADDRESS_IPV6 => Ok(Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).map_err(|_| Malformed)?).into())),
        _ => Ok(None),
    }
}

fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            out.extend([ADDRESS_IPV4, 4]);
            out.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            out.extend([ADDRESS_IPV6, 16]);
            out.extend(v6.octets());
        }
    }
}

/// PADDING_NEGOTIATE (padding-spec 2.2): `version u8 = 0 | command u8 | low u16 | high u16`, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaddingNegotiate {
    /// Do not pad this link.
    Stop,
    /// Pad it, after a silence between these bounds.
    Start {
        /// The least silence before a padding cell, in milliseconds.
        low_ms: u16,
        /// The upper bound, in milliseconds.
        high_ms: u16,
    },
}

impl PaddingNegotiate {
    const STOP: u8 = 1;
    const START: u8 = 2;

    /// Reads a body of version 0.
    pub fn parse(body: &Body) -> Result<PaddingNegotiate, Malformed> {
        let mut reader = Reader(body);
        let (version, command) = (reader.u8()?, reader.u8()?);
        match (version, command) {
            (0, Self::STOP) => Ok(PaddingNegotiate::Stop),
            (0, Self::START) => Ok(PaddingNegotiate::Start { low_ms: reader.u16()?, high_ms: reader.u16()? }),
            _ => Err(Malformed),
        }
    }

    /// The beginning of the body, to be filled up with zeros.
    pub fn encode(&self) -> [u8; 6] {
        match *self {
            PaddingNegotiate::Stop => [0, Self::STOP, 0, 0, 0, 0],
            PaddingNegotiate::Start { low_ms, high_ms } => {
                let ([l0, l1], [h0, h1]) = (low_ms.to_be_bytes(), high_ms.to_be_bytes());
                [0, Self::START, l0, l1, h0, h1]
            }
        }
    }
}

#[cfg(test)]
mod tests;
