//! Links between two nodes (tor-spec 2 to 4, cert-spec): who the peer is, and the rules of the connection that circuits
//! share.
//!
//! A link begins with TLS, which proves nothing but a throw-away certificate. Inside, a [`Handshake`] negotiates the
//! link protocol and binds that certificate to the responder's identity, and the initiator's identity to this
//! connection if it is a relay. Once it is [`Established`], [`judge`] sorts the cells that concern the link from those
//! that concern circuits, [`CircIds`] says who may choose which circuit ID, and a [`PaddingTimer`] hides idle clients.

pub mod cert;
mod chain;
mod circ_id;
pub mod crosscert;
mod error;
mod handshake;
mod identity;
pub mod msg;
mod open;
mod padding;
pub mod x509;

pub use circ_id::{CircIdError, CircIds, Half};
pub use error::LinkError;
pub use handshake::{Established, ExpectedPeer, ExportError, Handshake, LinkParams, TlsExporter};
pub use identity::{IdentityError, LinkIdentity};
pub use open::{Verdict, judge};
pub use padding::{PaddingParams, PaddingTimer};

/// A relay as its links know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIdentity {
    /// SHA-1 of the RSA identity key.
    pub rsa_id: [u8; 20],
    /// Ed25519 identity key.
    pub ed_id: [u8; 32],
}

#[cfg(test)]
pub(crate) mod tests;
