//! Circuit handshakes: how a client and one hop agree on keys (tor-spec 5.1).
//!
//! A relay calls [`respond`] with what a CREATE2 cell carries, or [`fast::server`] for CREATE_FAST. A client keeps the
//! state that `start` of the handshake's own module gives beside the message to send, and calls [`Client::finish`]
//! with the reply. TAP, the handshake of the design paper, is here as a library only: no deployed peer speaks it any
//! more, and [`respond`] refuses it.

pub mod create;
pub mod extension;
pub mod fast;
pub mod keys;
pub mod ntor;
pub mod ntor_v3;
pub mod tap;
mod terms;

use rand_core::CryptoRng;

pub use create::{Create2, CreateFast, Created2, CreatedFast};
pub use extension::Extensions;
pub use keys::{OnionKey, OnionKeyRing};
pub use terms::Terms;

use crate::crypto::tor1::KeyMaterial;

#[cfg(test)]
mod tests;

/// Handshake types on the wire, HTYPE of CREATE2 and EXTEND2 (tor-spec 5.1).
pub mod htype {
    /// RSA-encrypted Diffie-Hellman; refused.
    pub const TAP: u16 = 0;
    /// Reserved: CREATE_FAST has a cell of its own.
    pub const FAST: u16 = 1;
    /// Curve25519 with the relay's RSA identity.
    pub const NTOR: u16 = 2;
    /// Curve25519 with the relay's Ed25519 identity and encrypted extensions.
    pub const NTOR_V3: u16 = 3;
}

/// The identities a relay answers to in handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerIdentity {
    /// SHA-1 of the RSA identity key's DER; ntor names the relay by it.
    pub rsa_id: [u8; 20],
    /// The Ed25519 master key; ntor-v3 names the relay by it.
    pub ed_id: [u8; 32],
}

/// Why a handshake failed. On the wire all of them are DESTROY with reason PROTOCOL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The length field of a create or created cell goes beyond the cell.
    #[error("handshake data of {len} bytes, where the cell has room for {max}")]
    Overlong {
        /// The length field.
        len: usize,
        /// The most it may be.
        max: usize,
    },
    /// A type of handshake that is not offered.
    #[error("handshake type {0} is not offered (ntor is 2, ntor-v3 is 3)")]
    UnknownType(u16),
    /// A handshake message of a length it cannot have.
    #[error("{0} bytes are not a message of this handshake")]
    Length(usize),
    /// The message is meant for a relay of another identity.
    #[error("the handshake names another relay")]
    WrongIdentity,
    /// The client used an onion key that is neither current nor the previous one.
    #[error("the handshake names an onion key this relay does not have")]
    UnknownOnionKey,
    /// A public value that makes the shared secret predictable.
    #[error("the handshake has a public key that leaves no secret")]
    BadPublicKey,
    /// The other side does not hold the keys it should, or the message was changed on its way.
    #[error("the handshake does not authenticate")]
    Authentication,
    /// The list of extensions cannot be read.
    #[error("the handshake's list of extensions is malformed")]
    MalformedExtensions,
    /// The client demands a protocol version that this relay does not offer to negotiate.
    #[error("the client demands version {version} of protocol number {protocol}, which cannot be negotiated")]
    Subprotocol {
        /// Number of the protocol (tor-spec, "Subprotocol versioning").
        protocol: u8,
        /// Version of it.
        version: u8,
    },
    /// The relay answered to something that was not asked.
    #[error("the relay answers with extension {0}, which was not asked for")]
    UnrequestedExtension(u8),
}

impl HandshakeError {
    /// The reason as a metrics label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Overlong { .. } => "overlong",
            Self::UnknownType(_) => "unknown_type",
            Self::Length(_) => "length",
            Self::WrongIdentity => "wrong_identity",
            Self::UnknownOnionKey => "unknown_onion_key",
            Self::BadPublicKey => "bad_public_key",
            Self::Authentication => "authentication",
            Self::MalformedExtensions => "malformed_extensions",
            Self::Subprotocol { .. } => "subprotocol",
            Self::UnrequestedExtension(_) => "unrequested_extension",
        }
    }
}

/// Answers the handshake of a CREATE2 cell: the data for CREATED2, and the keys of the new circuit. Grants no [`Terms`].
///
/// # Errors
/// Any [`HandshakeError`]; the circuit is refused.
pub fn respond(
    rng: &mut impl CryptoRng,
    identity: &ServerIdentity,
    keys: &OnionKeyRing,
    htype: u16,
    hdata: &[u8],
) -> Result<(Vec<u8>, KeyMaterial), HandshakeError> {
    let (reply, keys, _) = respond_with(rng, identity, keys, Terms::default(), htype, hdata)?;
    Ok((reply, keys))
}

/// The same for a relay that offers terms; the last value is what it has granted of them.
///
/// # Errors
/// Any [`HandshakeError`]; the circuit is refused.
pub fn respond_with(
    rng: &mut impl CryptoRng,
    identity: &ServerIdentity,
    keys: &OnionKeyRing,
    offer: Terms,
    htype: u16,
    hdata: &[u8],
) -> Result<(Vec<u8>, KeyMaterial, Terms), HandshakeError> {
    let mut granted = Terms::default();
    let (reply, keys) = match htype {
        htype::NTOR => ntor::server(rng, &identity.rsa_id, keys, hdata)?,
        htype::NTOR_V3 => ntor_v3::server(rng, &identity.ed_id, keys, hdata, |request| {
            let answer;
            (granted, answer) = answer_extensions(offer, request)?;
            Ok(answer)
        })?,
        _ => return Err(HandshakeError::UnknownType(htype)),
    };
    Ok((reply, keys, granted))
}

/// What this relay says to a client's ntor-v3 extensions: nothing to CC_REQUEST, so that congestion control stays
/// off for this hop, and no to every demand for a protocol, since none is negotiable here.
fn answer_extensions(offer: Terms, request: &Extensions<'_>) -> Result<(Terms, Vec<u8>), HandshakeError> {
    match request.get(extension::SUBPROTO_REQUEST) {
        None | Some([]) => Ok(offer.grant(request)),
        Some([protocol, version, ..]) => {
            Err(HandshakeError::Subprotocol { protocol: *protocol, version: *version })
        }
        Some([_]) => Err(HandshakeError::MalformedExtensions),
    }
}

/// The client's side of a handshake under way.
pub enum Client {
    /// CREATE_FAST.
    Fast(fast::Client),
    /// ntor.
    Ntor(ntor::Client),
    /// ntor-v3, which asks for its [`Terms`].
    NtorV3(ntor_v3::Client),
}

impl Client {
    /// Takes the relay's reply, HDATA of CREATED2 or EXTENDED2 or the first 40 bytes of CREATED_FAST.
    ///
    /// # Errors
    /// Any [`HandshakeError`]; the circuit must be given up.
    pub fn finish(self, reply: &[u8]) -> Result<KeyMaterial, HandshakeError> {
        Ok(self.agree(reply)?.0)
    }

    /// The same for a client that has asked for terms, with what the relay has granted of them.
    ///
    /// # Errors
    /// Any [`HandshakeError`]; the circuit must be given up.
    pub fn agree(self, reply: &[u8]) -> Result<(KeyMaterial, Terms), HandshakeError> {
        match self {
            Self::Fast(client) => Ok((client.finish(reply)?, Terms::default())),
            Self::Ntor(client) => Ok((client.finish(reply)?, Terms::default())),
            Self::NtorV3(client) => {
                let asked = client.asked();
                let (keys, message) = client.finish(reply)?;
                Ok((keys, asked.granted(&Extensions::parse(&message)?)?))
            }
        }
    }
}
