//! The keys that an authority votes with: `authority_signing_key` and `authority_certificate` in its key directory, as
//! `onionring-dirauth gencert` and C tor's `tor-gencert` write them. The identity key that vouches for them stays
//! elsewhere, offline.

use std::path::{Path, PathBuf};
use std::time::Duration;

use onionring_proto::crypto::rsa::{RsaError, RsaPrivate};
use onionring_proto::netdoc::DocError;
use onionring_proto::netdoc::authcert::AuthCert;
use onionring_proto::netdoc::text::{Fingerprint, format_time};
use onionring_proto::netdoc::vote::Certificate;
use onionring_proto::time::Unix;
use onionring_proto::torrc::authority::Authority;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::files::{self, FileError};
use crate::limits;
use crate::voting::Signer;

pub mod encrypted;

#[cfg(test)]
mod tests;

/// Name of the file with the identity key, encrypted.
pub const IDENTITY_KEY: &str = "authority_identity_key";
/// Name of the file with the signing key.
pub const SIGNING_KEY: &str = "authority_signing_key";
/// Name of the file with the certificate.
pub const CERTIFICATE: &str = "authority_certificate";

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// Why there is nothing to vote with.
#[derive(Debug, Error)]
pub enum AuthorityKeyError {
    /// A file is not there.
    #[error("{} is missing; make it with `onionring-dirauth gencert`", .0.display())]
    Missing(PathBuf),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It holds no RSA key.
    #[error("{} holds no RSA key that can be used: {source}; make a new one with `onionring-dirauth gencert`", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: RsaError,
    },
    /// It holds no certificate.
    #[error("{} holds no authority certificate that can be used: {source}; make a new one with `onionring-dirauth gencert`", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DocError,
    },
    /// They do not belong together.
    #[error(
        "the certificate {} is not for the key {}; bring back the two that belong together, or make new ones with \
         `onionring-dirauth gencert`", certificate.display(), key.display()
    )]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The signing key.
        key: PathBuf,
    },
    /// The certificate has expired.
    #[error(
        "the certificate {} has expired at {} UTC; make a new one with `onionring-dirauth gencert`",
        path.display(), format_time(*expires)
    )]
    Expired {
        /// The certificate.
        path: PathBuf,
        /// When.
        expires: Unix,
    },
    /// No configured authority has this identity.
    #[error(
        "the certificate {} is of the authority {identity}, and no DirAuthority line has that v3ident; add it to this \
         authority's own line, or put the right files there", path.display()
    )]
    Unknown {
        /// The certificate.
        path: PathBuf,
        /// The identity that it names.
        identity: Fingerprint,
    },
    /// The authority's line names another relay.
    #[error(
        "the DirAuthority line with the v3ident {identity} of our certificate has the relay fingerprint {configured}, and \
         ours is {ours}; correct the line, or bring back the relay's keys"
    )]
    OtherRelay {
        /// The v3 identity.
        identity: Fingerprint,
        /// The relay of the line.
        configured: Fingerprint,
        /// The relay that we are.
        ours: Fingerprint,
    },
}

/// What an authority votes with.
#[derive(Clone, Debug)]
pub struct AuthorityKeys {
    /// The signing key and its certificate.
    pub signer: Signer,
    /// The certificate with its text, as it is served and stands in votes.
    pub certificate: Certificate,
    /// Where it was read.
    path: PathBuf,
}

impl AuthorityKeys {
    /// Reads the two files, and checks that they belong together and are good at `now`.
    pub fn load(directory: &Path, now: Unix) -> Result<AuthorityKeys, AuthorityKeyError> {
        let (key_path, path) = (directory.join(SIGNING_KEY), directory.join(CERTIFICATE));
        let key = read_signing_key(&key_path)?;
        let text = read(&path)?;
        let text = String::from_utf8_lossy(&text);
        // Only the first counts, as in C tor.
        let first = AuthCert::parse_all(&text).next().map_or(&*text, |(first, _)| first);
        let certificate = match Certificate::parse(first) {
            Ok(certificate) => certificate,
            Err(source) => return Err(AuthorityKeyError::Certificate { path, source }),
        };
        let cert = certificate.cert().clone();
        if cert.signing_key != key.public() {
            return Err(AuthorityKeyError::Mismatch { certificate: path, key: key_path });
        }
        if cert.expires <= now {
            return Err(AuthorityKeyError::Expired { path, expires: cert.expires });
        }
        Ok(AuthorityKeys { signer: Signer { cert, key }, certificate, path })
    }

    /// Which of the configured authorities this one is: that with the identity of the certificate, which must also be
    /// the relay `relay`.
    pub fn find_us<'a>(
        &self,
        authorities: &'a [Authority],
        relay: &Fingerprint,
    ) -> Result<&'a Authority, AuthorityKeyError> {
        let identity = self.signer.cert.identity;
        let found = authorities.iter().find(|authority| authority.v3_ident == Some(identity));
        let us = found.ok_or_else(|| AuthorityKeyError::Unknown { path: self.path.clone(), identity })?;
        if us.rsa_id != *relay {
            return Err(AuthorityKeyError::OtherRelay { identity, configured: us.rsa_id, ours: *relay });
        }
        Ok(us)
    }

    /// What to tell the operator when the certificate ends soon; `None` while it does not.
    pub fn expiry(&self, now: Unix) -> Option<ExpiryWarning> {
        let left = self.signer.cert.expires.0.saturating_sub(now.0);
        let again = match left {
            0 => HOUR,
            _ if left <= DAY => HOUR,
            _ if left <= 7 * DAY => DAY,
            _ if left <= 30 * DAY => 5 * DAY,
            _ => return None,
        };
        Some(ExpiryWarning { path: self.path.clone(), left, again: Duration::from_secs(again) })
    }
}

/// The certificate ends soon, or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryWarning {
    path: PathBuf,
    /// Seconds until then; 0 if it has ended, and this authority no longer counts.
    pub left: u64,
    /// When to say it again, as C tor does: after 5 days, from a week before the end daily, on the last day hourly.
    pub again: Duration,
}

impl std::fmt::Display for ExpiryWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the authority certificate {} ", self.path.display())?;
        match self.left {
            0 => f.write_str("has expired")?,
            left if left <= DAY => write!(f, "expires in {} hours", left / HOUR)?,
            left => write!(f, "expires in {} days", left / DAY)?,
        }
        f.write_str("; make a new one with `onionring-dirauth gencert`, and send SIGHUP")
    }
}

/// Reads a signing key, which is not encrypted.
pub fn read_signing_key(path: &Path) -> Result<RsaPrivate, AuthorityKeyError> {
    let pem = read(path)?;
    // C tor may have written the NUL at the end of its string, too.
    let pem = String::from_utf8_lossy(pem.split(|&byte| byte == 0).next().unwrap_or(&[]));
    RsaPrivate::from_pem(&pem).map_err(|source| AuthorityKeyError::Key { path: path.to_owned(), source })
}

/// The content of a key file or certificate, which is short.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, AuthorityKeyError> {
    let content = files::read_up_to(path, limits::AUTHORITY_KEY_FILE)?;
    content.map(Zeroizing::new).ok_or_else(|| AuthorityKeyError::Missing(path.to_owned()))
}
