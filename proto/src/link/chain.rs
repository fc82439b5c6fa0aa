//! What the certificates in a CERTS cell prove (tor-spec 4.2).

use sha2::{Digest, Sha256};

use super::cert::{CertError, CertType, Ed25519Cert, UnverifiedCert};
use super::msg::certs;
use super::{LinkError, PeerIdentity, crosscert, x509};
use crate::cell::Command;
use crate::crypto::rsa::RsaPublic;
use crate::time::Unix;

/// A verified chain: the two identities vouch for each other and for a signing key, which vouches for `leaf`.
pub(super) struct Chain<Leaf> {
    pub(super) identity: PeerIdentity,
    pub(super) rsa: RsaPublic,
    /// SHA-256 of the RSA identity key: CID or SID in AUTHENTICATE.
    pub(super) rsa_digest: [u8; 32],
    pub(super) leaf: Leaf,
}

/// The SHA-256 of the TLS certificate that a responder's chain ends in, checked against the one TLS showed.
pub(super) struct TlsLeaf;

/// The link authentication key that an initiator's chain ends in. It proves nothing before AUTHENTICATE.
pub(super) struct LinkAuthKey(pub(super) [u8; 32]);

impl Chain<TlsLeaf> {
    /// Verifies the CERTS of a responder that showed the TLS certificate with this SHA-256.
    pub(super) fn of_responder(body: &[u8], tls_digest: &[u8; 32], now: Unix) -> Result<Self, LinkError> {
        let (chain, leaf) = verify(body, certs::SIGNING_V_TLS, CertType::SIGNING_V_TLS, now)?;
        if leaf.x509_digest().map_err(in_cert(certs::SIGNING_V_TLS))? != *tls_digest {
            return Err(LinkError::TlsCertMismatch);
        }
        Ok(chain.ending_in(TlsLeaf))
    }
}

impl Chain<LinkAuthKey> {
    /// Verifies the CERTS of an initiator.
    pub(super) fn of_initiator(body: &[u8], now: Unix) -> Result<Self, LinkError> {
        let (chain, leaf) = verify(body, certs::SIGNING_V_LINK_AUTH, CertType::SIGNING_V_LINK_AUTH, now)?;
        let key = leaf.ed25519().map_err(in_cert(certs::SIGNING_V_LINK_AUTH))?;
        Ok(chain.ending_in(LinkAuthKey(key)))
    }
}

impl Chain<()> {
    fn ending_in<Leaf>(self, leaf: Leaf) -> Chain<Leaf> {
        Chain { identity: self.identity, rsa: self.rsa, rsa_digest: self.rsa_digest, leaf }
    }
}

fn in_cert(cert_type: u8) -> impl FnOnce(CertError) -> LinkError {
    move |error| LinkError::BadCert { cert_type, error }
}

fn verify(
    body: &[u8],
    leaf_entry: u8,
    leaf_type: CertType,
    now: Unix,
) -> Result<(Chain<()>, Ed25519Cert), LinkError> {
    let list = certs::parse(body).map_err(|_| LinkError::MalformedCell(Command::CERTS))?;
    let mut seen = [false; 256];
    for (cert_type, _) in &list {
        if std::mem::replace(&mut seen[usize::from(*cert_type)], true) {
            return Err(LinkError::DuplicateCert(*cert_type));
        }
    }
    let entry = |wanted| {
        let found = list.iter().find(|(cert_type, _)| *cert_type == wanted);
        found.map(|(_, bytes)| *bytes).ok_or(LinkError::MissingCert(wanted))
    };
    let signing_cert = entry(certs::IDENTITY_V_SIGNING)?;
    let leaf_cert = entry(leaf_entry)?;
    let cross_cert = entry(certs::RSA_V_ED25519)?;
    let rsa_cert = entry(certs::RSA_IDENTITY)?;

    // The cheap Ed25519 signatures first: who cannot make them does not get us to verify RSA.
    let (ed_id, signing) = UnverifiedCert::parse(signing_cert)
        .and_then(|cert| cert.verify_self_named(CertType::IDENTITY_V_SIGNING, now))
        .map_err(in_cert(certs::IDENTITY_V_SIGNING))?;
    let signing_key = signing.ed25519().map_err(in_cert(certs::IDENTITY_V_SIGNING))?;
    let leaf = UnverifiedCert::parse(leaf_cert)
        .and_then(|cert| cert.verify(leaf_type, &signing_key, now))
        .map_err(in_cert(leaf_entry))?;
    let rsa = x509::verify_identity(rsa_cert, now).map_err(LinkError::BadRsaIdentity)?;
    crosscert::verify(cross_cert, &rsa, &ed_id, now).map_err(LinkError::BadCrossCert)?;

    let identity = PeerIdentity { rsa_id: rsa.rsa_id(), ed_id };
    let rsa_digest = Sha256::digest(rsa.to_der()).into();
    Ok((Chain { identity, rsa, rsa_digest, leaf: () }, leaf))
}
