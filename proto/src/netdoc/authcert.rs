//! Authority certificates (dir-spec 3.1): an authority's long-lived identity key vouches for a signing key.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use sha1::{Digest, Sha1};

use crate::crypto::rsa::RsaPublic;
use crate::netdoc::section::{Count, Obj, Rule, Section, exact, rule};
use crate::netdoc::text::{self, Fingerprint};
use crate::netdoc::tokenize::Item;
use crate::netdoc::{DocError, Fault};
use crate::time::Unix;

mod build;

pub use build::{CertTerms, build};

const VERSION: &str = "dir-key-certificate-version";
const CERTIFICATION: &str = "dir-key-certification";

const RULES: &[Rule] = &[
    rule(VERSION, Count::One, 1, Obj::No),
    rule("dir-address", Count::Optional, 1, Obj::No),
    rule("fingerprint", Count::One, 1, Obj::No),
    exact("dir-identity-key", Count::One, 0, Obj::Label("RSA PUBLIC KEY")),
    rule("dir-key-published", Count::One, 2, Obj::No),
    rule("dir-key-expires", Count::One, 2, Obj::No),
    exact("dir-signing-key", Count::One, 0, Obj::Label("RSA PUBLIC KEY")),
    exact("dir-key-crosscert", Count::One, 0, Obj::Any),
    exact(CERTIFICATION, Count::One, 0, Obj::Label("SIGNATURE")),
];

/// A certificate whose two signatures are right. Whether it is current depends on the time: [`AuthCert::expires`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthCert {
    /// Fingerprint of the identity key: the `v3ident` of a `DirAuthority` line.
    pub identity: Fingerprint,
    /// The identity key.
    pub identity_key: RsaPublic,
    /// Fingerprint of the signing key.
    pub signing_key_id: Fingerprint,
    /// The key that signs votes and consensuses.
    pub signing_key: RsaPublic,
    /// When it was made.
    pub published: Unix,
    /// When it ends.
    pub expires: Unix,
    /// Where the authority serves its directory, if the certificate says.
    pub dir_address: Option<SocketAddrV4>,
}

impl AuthCert {
    /// Parses and verifies one certificate; `text` is exactly its text.
    pub fn parse(text: &str) -> Result<Self, DocError> {
        let s = Section::parse(text, RULES)?;
        let first = s.opens_with(VERSION)?;
        if first.arg(0) != Some("3") {
            return Err(first.fault(Fault::value("certificate version", first.rest)));
        }
        let certification = s.ends_with(CERTIFICATION)?;
        let (identity_key, id_line) = key(s.need("dir-identity-key")?, "dir-identity-key")?;
        let (signing_key, _) = key(s.need("dir-signing-key")?, "dir-signing-key")?;
        let identity = s.need("fingerprint")?.parse_arg(0, "fingerprint", Fingerprint::from_hex)?;
        if identity.0 != identity_key.rsa_id() {
            return Err(Fault::Mismatch("the fingerprint is not that of dir-identity-key").at(id_line));
        }
        let crosscert = s.need("dir-key-crosscert")?;
        let label = match crosscert.object {
            Some(object) if object.label == "SIGNATURE" => "SIGNATURE",
            _ => "ID SIGNATURE",
        };
        let crosscert_signature = crosscert.decode_object(label, "dir-key-crosscert")?;
        signing_key
            .verify_bare(&identity.0, &crosscert_signature)
            .map_err(|_| crosscert.fault(Fault::BadSignature("dir-key-crosscert")))?;
        let digest = Sha1::digest(&text.as_bytes()[first.start..certification.line_end]);
        let signature = certification.decode_object("SIGNATURE", CERTIFICATION)?;
        identity_key
            .verify_bare(&digest, &signature)
            .map_err(|_| certification.fault(Fault::BadSignature(CERTIFICATION)))?;
        let dir_address = s
            .get("dir-address")
            .map(|item| item.parse_arg(0, "dir-address", |a| a.parse().ok()))
            .transpose()?;
        Ok(AuthCert {
            identity,
            signing_key_id: Fingerprint(signing_key.rsa_id()),
            identity_key,
            signing_key,
            published: time_of(s.need("dir-key-published")?)?,
            expires: time_of(s.need("dir-key-expires")?)?,
            dir_address,
        })
    }

    /// Parses a file of certificates; a bad one does not spoil the others. Each comes with its own text.
    pub fn parse_all(text: &str) -> impl Iterator<Item = (&str, Result<AuthCert, DocError>)> {
        text::split_at_lines(text, VERSION).map(|one| (one, AuthCert::parse(one)))
    }
}

fn key(item: &Item<'_>, what: &'static str) -> Result<(RsaPublic, usize), DocError> {
    let der = item.decode_object("RSA PUBLIC KEY", what)?;
    let key = RsaPublic::from_der(&der).map_err(|e| item.fault(Fault::value(what, &e.to_string())))?;
    Ok((key, item.line))
}

pub(super) fn time_of(item: &Item<'_>) -> Result<Unix, DocError> {
    let mut args = item.args();
    let (date, clock) = (args.next().unwrap_or(""), args.next().unwrap_or(""));
    text::time(date, clock).ok_or_else(|| item.fault(Fault::value("time", item.rest)))
}

/// The certificates at hand, by authority and signing key.
#[derive(Clone, Debug, Default)]
pub struct CertStore {
    certs: BTreeMap<(Fingerprint, Fingerprint), AuthCert>,
}

impl CertStore {
    /// Adds a certificate; of two for the same keys the one that expires later stays.
    pub fn insert(&mut self, cert: AuthCert) {
        let key = (cert.identity, cert.signing_key_id);
        if self.certs.get(&key).is_none_or(|old| old.expires < cert.expires) {
            self.certs.insert(key, cert);
        }
    }

    /// The certificate for this authority and signing key.
    pub fn get(&self, identity: &Fingerprint, signing_key_id: &Fingerprint) -> Option<&AuthCert> {
        self.certs.get(&(*identity, *signing_key_id))
    }

    /// The certificates of one authority.
    pub fn of(&self, identity: &Fingerprint) -> impl Iterator<Item = &AuthCert> {
        let range = (*identity, Fingerprint([0; 20]))..=(*identity, Fingerprint([0xff; 20]));
        self.certs.range(range).map(|(_, cert)| cert)
    }

    /// Drops what has expired.
    pub fn remove_expired(&mut self, now: Unix) {
        self.certs.retain(|_, cert| now <= cert.expires);
    }

    /// Every certificate.
    pub fn iter(&self) -> impl Iterator<Item = &AuthCert> {
        self.certs.values()
    }
}

#[cfg(test)]
mod tests;
