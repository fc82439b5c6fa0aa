//! All that our side of a link needs to say who we are.

use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use std::time::Duration;
use thiserror::Error;

use super::PeerIdentity;
use super::cert::{self, CertError, CertType, Certified, UnverifiedCert};
use super::crosscert;
use super::msg::certs;
use super::x509::{self, X509Error};
use crate::crypto::ed25519::Ed25519Pair;
use crate::crypto::rsa::{RsaError, RsaPrivate, RsaPublic};
use crate::time::Unix;

/// Life of the certificates of the TLS certificate and of the link authentication key.
const LINK_CERT_LIFETIME: Duration = Duration::from_secs(2 * 86_400);
/// Life of the RSA certificate of the Ed25519 identity.
const CROSS_CERT_LIFETIME: Duration = Duration::from_secs(180 * 86_400);

/// Why our own keys and certificates do not make an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The RSA identity key has a length that no peer accepts.
    #[error("RSA identity key of {0} bits, relays must have one of {bits}", bits = x509::IDENTITY_BITS)]
    RsaLength(usize),
    /// The certificate of the signing key is bad or has expired.
    #[error("certificate of the Ed25519 signing key: {0}; make a new signing key and certificate")]
    SigningCert(CertError),
    /// The certificate belongs to another signing key.
    #[error(
        "the Ed25519 signing certificate is for another key than the signing key; they must be replaced together"
    )]
    SigningKey,
    /// The RSA key could not sign.
    #[error(transparent)]
    Rsa(#[from] RsaError),
    /// The RSA identity certificate could not be made.
    #[error(transparent)]
    X509(#[from] X509Error),
}

/// A relay's identity on links, made anew at each rotation of the signing key, of the TLS certificate or of the link
/// certificates, and shared by all links that begin until the next.
///
/// It belongs to one TLS certificate: a responder must hand the handshake the identity that was made for the certificate
/// its TLS session showed.
pub struct LinkIdentity {
    public: PeerIdentity,
    rsa: RsaPublic,
    rsa_digest: [u8; 32],
    tls_digest: [u8; 32],
    link_auth: Ed25519Pair,
    responder_certs: Vec<u8>,
    initiator_certs: Vec<u8>,
    valid_until: Unix,
}

impl LinkIdentity {
    /// Makes the certificates and a new link authentication key.
    ///
    /// `signing_cert` is the certificate (type 4, see [`cert::build`]) by which the Ed25519 identity vouches for
    /// `signing`; the identity's secret is not needed. `tls_leaf` is the DER of the certificate our TLS side shows.
    pub fn new(
        rsa: &RsaPrivate,
        signing_cert: &[u8],
        signing: &Ed25519Pair,
        tls_leaf: &[u8],
        now: Unix,
        rng: &mut impl CryptoRng,
    ) -> Result<LinkIdentity, IdentityError> {
        let rsa_public = rsa.public();
        if rsa_public.bits() != x509::IDENTITY_BITS {
            return Err(IdentityError::RsaLength(rsa_public.bits()));
        }
        let (ed_id, verified) = UnverifiedCert::parse(signing_cert)
            .and_then(|cert| cert.verify_self_named(CertType::IDENTITY_V_SIGNING, now))
            .map_err(IdentityError::SigningCert)?;
        if verified.ed25519() != Ok(signing.public()) {
            return Err(IdentityError::SigningKey);
        }

        let link_auth = Ed25519Pair::generate(rng);
        let tls_digest = Sha256::digest(tls_leaf).into();
        let expires = now + LINK_CERT_LIFETIME;
        let certify = |cert_type, what| cert::build(cert_type, what, expires, signing);
        let tls_cert = certify(CertType::SIGNING_V_TLS, Certified::X509Digest(tls_digest));
        let auth_cert = certify(CertType::SIGNING_V_LINK_AUTH, Certified::Ed25519(link_auth.public()));
        let rsa_cert = x509::build_identity(rsa, now, rng)?;
        let cross_cert = crosscert::build(rsa, &ed_id, now + CROSS_CERT_LIFETIME, rng)?;

        // The two sides differ in the last certificate only.
        let with = |last_type, last: &[u8]| {
            certs::encode(&[
                (certs::RSA_IDENTITY, &rsa_cert),
                (certs::RSA_V_ED25519, &cross_cert),
                (certs::IDENTITY_V_SIGNING, signing_cert),
                (last_type, last),
            ])
        };
        Ok(LinkIdentity {
            public: PeerIdentity { rsa_id: rsa_public.rsa_id(), ed_id },
            rsa_digest: Sha256::digest(rsa_public.to_der()).into(),
            rsa: rsa_public,
            tls_digest,
            link_auth,
            responder_certs: with(certs::SIGNING_V_TLS, &tls_cert),
            initiator_certs: with(certs::SIGNING_V_LINK_AUTH, &auth_cert),
            valid_until: expires.min(verified.expires),
        })
    }

    /// Who we are to others.
    pub fn public(&self) -> PeerIdentity {
        self.public
    }

    /// The time from which peers refuse these certificates; make a new identity well before.
    pub fn valid_until(&self) -> Unix {
        self.valid_until
    }

    pub(super) fn rsa(&self) -> &RsaPublic {
        &self.rsa
    }

    /// SHA-256 of the RSA identity key: CID or SID in AUTHENTICATE.
    pub(super) fn rsa_digest(&self) -> [u8; 32] {
        self.rsa_digest
    }

    pub(super) fn tls_digest(&self) -> [u8; 32] {
        self.tls_digest
    }

    pub(super) fn sign_authenticate(&self, bytes: &[u8]) -> [u8; 64] {
        self.link_auth.sign(bytes)
    }

    /// Body of the CERTS cell we send as responder.
    pub(super) fn responder_certs(&self) -> &[u8] {
        &self.responder_certs
    }

    /// Body of the CERTS cell we send as initiator.
    pub(super) fn initiator_certs(&self) -> &[u8] {
        &self.initiator_certs
    }
}
