//! Making a certificate.

use std::net::SocketAddrV4;

use rand_core::CryptoRng;
use sha1::{Digest, Sha1};

use super::{CERTIFICATION, VERSION};
use crate::crypto::rsa::{RsaError, RsaPrivate};
use crate::netdoc::text::{self, Fingerprint};
use crate::time::Unix;

/// What a certificate says besides its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertTerms {
    /// When it is made.
    pub published: Unix,
    /// When it ends.
    pub expires: Unix,
    /// Where the authority serves its directory, if the certificate is to say.
    pub dir_address: Option<SocketAddrV4>,
}

/// Makes the certificate by which `identity` vouches for `signing`; in the order and form of C tor's.
///
/// # Errors
/// [`RsaError::Operation`] if a key is damaged.
pub fn build(
    identity: &RsaPrivate,
    signing: &RsaPrivate,
    terms: &CertTerms,
    rng: &mut impl CryptoRng,
) -> Result<String, RsaError> {
    let fingerprint = Fingerprint(identity.public().rsa_id());
    let mut out = format!("{VERSION} 3\n");
    if let Some(address) = terms.dir_address {
        out += &format!("dir-address {address}\n");
    }
    out += &format!("fingerprint {fingerprint}\n");
    out += &format!("dir-key-published {}\n", text::format_time(terms.published));
    out += &format!("dir-key-expires {}\n", text::format_time(terms.expires));
    for (keyword, key) in [("dir-identity-key", identity), ("dir-signing-key", signing)] {
        out += &format!("{keyword}\n");
        text::push_object(&mut out, "RSA PUBLIC KEY", &key.public().to_der());
    }
    out += "dir-key-crosscert\n";
    text::push_object(&mut out, "ID SIGNATURE", &signing.sign_bare(&fingerprint.0, rng)?);
    out += &format!("{CERTIFICATION}\n");
    let signature = identity.sign_bare(&Sha1::digest(&out), rng)?;
    text::push_object(&mut out, "SIGNATURE", &signature);
    Ok(out)
}
