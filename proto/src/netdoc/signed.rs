//! What router descriptors and extra-infos have in common: a relay's two signatures (dir-spec 2.1.1, 2.1.2).
//!
//! Both documents name the relay's Ed25519 signing key in their second item, and end in a signature with that key
//! followed by one with the RSA identity key.

use rand_core::CryptoRng;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::crypto::ed25519::{self, Ed25519Pair};
use crate::crypto::rsa::{RsaError, RsaPrivate};
use crate::link::cert::{CertType, UnverifiedCert};
use crate::netdoc::section::Section;
use crate::netdoc::text::{self, Fingerprint};
use crate::netdoc::{DocError, Fault};
use crate::time::Unix;

const ED_PREFIX: &[u8] = b"Tor router descriptor signature v1";
pub(super) const ED_CERT: &str = "ED25519 CERT";
pub(super) const IDENTITY: &str = "identity-ed25519";
pub(super) const ED_SIGNATURE: &str = "router-sig-ed25519";
pub(super) const RSA_SIGNATURE: &str = "router-signature";

/// A time at which no certificate has expired: whether a document is current is not a matter of its form.
pub(super) const EVER: Unix = Unix(0);

/// The signature part of a document whose Ed25519 chain holds.
pub(super) struct SignedBy {
    /// The Ed25519 identity.
    pub ed_identity: [u8; 32],
    /// The bytes of the certificate from it to the signing key.
    pub signing_cert: Box<[u8]>,
    /// When that certificate ends.
    pub expires: Unix,
    /// SHA-1 over what the RSA identity key signs: the document's name.
    pub digest: Fingerprint,
    /// That signature, which the caller has to check.
    pub rsa_signature: Vec<u8>,
    /// Its line.
    pub rsa_line: usize,
}

/// Checks the place and form of the signature items of `text`, which `s` was read from and which starts with
/// `keyword`, and verifies the Ed25519 chain.
pub(super) fn check(text: &str, keyword: &'static str, s: &Section<'_>) -> Result<SignedBy, DocError> {
    let first = s.opens_with(keyword)?;
    let identity = s.follows(IDENTITY)?;
    let ed = s.next_to_last(ED_SIGNATURE)?;
    let rsa = s.ends_with(RSA_SIGNATURE)?;
    // The keywords delimit what is signed, so they must stand there literally.
    let lines = [(first, keyword, " "), (ed, ED_SIGNATURE, " "), (rsa, RSA_SIGNATURE, "\n")];
    for (item, keyword, end) in lines {
        let after = text[item.start..].strip_prefix(keyword);
        if !after.is_some_and(|rest| rest.starts_with(end)) {
            return Err(item.fault(Fault::Misplaced(keyword)));
        }
    }
    let bad_cert = |why: &dyn std::fmt::Display| {
        identity.fault(Fault::BadCertificate { what: IDENTITY, why: why.to_string() })
    };
    let signing_cert = identity.decode_object(ED_CERT, IDENTITY)?;
    let cert = UnverifiedCert::parse(&signing_cert).map_err(|e| bad_cert(&e))?;
    let (ed_identity, cert) =
        cert.verify_self_named(CertType::IDENTITY_V_SIGNING, EVER).map_err(|e| bad_cert(&e))?;
    let signing_key = cert.ed25519().map_err(|e| bad_cert(&e))?;
    let expires = cert.expires;

    let ed_signed = &text[first.start..ed.start + ED_SIGNATURE.len() + 1];
    let signature = ed.parse_arg(0, ED_SIGNATURE, text::base64_array)?;
    ed25519::verify(&signing_key, &ed_message(ed_signed), &signature)
        .map_err(|_| ed.fault(Fault::BadSignature(ED_SIGNATURE)))?;
    Ok(SignedBy {
        ed_identity,
        expires,
        digest: Fingerprint(Sha1::digest(&text[first.start..rsa.line_end]).into()),
        rsa_signature: rsa.decode_object("SIGNATURE", RSA_SIGNATURE)?,
        rsa_line: rsa.line,
        signing_cert: signing_cert.into(),
    })
}

fn ed_message(signed: &str) -> [u8; 32] {
    Sha256::new().chain_update(ED_PREFIX).chain_update(signed).finalize().into()
}

/// The keys with which a relay signs its documents.
#[derive(Clone, Copy)]
pub struct DocumentKeys<'a> {
    /// RSA identity.
    pub identity: &'a RsaPrivate,
    /// Ed25519 identity, public half: the secret half may be kept offline.
    pub ed_identity: [u8; 32],
    /// Ed25519 signing key.
    pub signing: &'a Ed25519Pair,
    /// The certificate by which the Ed25519 identity vouches for it (type 04).
    pub signing_cert: &'a [u8],
}

/// Appends the two signatures to `doc`, which starts at its keyword and lacks only these.
pub(super) fn sign(
    doc: &mut String,
    keys: &DocumentKeys<'_>,
    rng: &mut impl CryptoRng,
) -> Result<(), RsaError> {
    doc.push_str("router-sig-ed25519 ");
    let signature = keys.signing.sign(&ed_message(doc));
    doc.push_str(&text::base64_unpadded(&signature));
    doc.push_str("\nrouter-signature\n");
    let signature = keys.identity.sign_bare(&Sha1::digest(doc.as_bytes()), rng)?;
    text::push_object(doc, "SIGNATURE", &signature);
    Ok(())
}

/// Why a document of ours could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A free text holds a character that would start another line.
    #[error("{what} {value:?} must be a single line without control characters")]
    NotOneLine {
        /// Which text.
        what: &'static str,
        /// The text.
        value: String,
    },
    /// The RSA key does not sign.
    #[error(transparent)]
    Rsa(#[from] RsaError),
    /// The finished document would be refused by those who read it.
    #[error("the document would be refused: {0}")]
    Refused(#[from] DocError),
}

/// Checks that `value` stays on its line.
pub(super) fn one_line(what: &'static str, value: &str) -> Result<(), BuildError> {
    if value.chars().any(char::is_control) {
        return Err(BuildError::NotOneLine { what, value: value.into() });
    }
    Ok(())
}

/// Cuts a mixed list of descriptors and extra-infos, as authorities and caches exchange them, into documents: each
/// from its first line to the END line of its `router-signature`. Text between documents is left out.
pub fn split_documents(text: &str) -> impl Iterator<Item = &str> {
    let mut pos = 0;
    std::iter::from_fn(move || {
        let mut start = None;
        let mut signed = false;
        let mut at = pos;
        for line in text[pos..].split_inclusive('\n') {
            let begins = line.starts_with("router ") || line.starts_with("extra-info ");
            if begins && start.is_some() {
                break;
            }
            if begins {
                start = Some(at);
            }
            signed |= start.is_some() && line.trim_end() == RSA_SIGNATURE;
            at += line.len();
            if signed && line.trim_end() == "-----END SIGNATURE-----" {
                break;
            }
        }
        pos = at;
        start.map(|start| &text[start..at])
    })
}
