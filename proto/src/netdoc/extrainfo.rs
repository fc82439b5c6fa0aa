//! Extra-info documents (dir-spec 2.1.2): a relay's statistics, beside its descriptor.

use std::fmt::Write as _;

use rand_core::CryptoRng;
use sha2::{Digest, Sha256};

use crate::limits::EXTRA_INFO;
use crate::netdoc::authcert::time_of;
use crate::netdoc::routerdesc::{BuildError, DocumentKeys, ExtraInfoDigests, RouterDesc};
use crate::netdoc::section::{Count, Obj, Rule, Section, exact, rule};
use crate::netdoc::signed::{self, ED_CERT};
use crate::netdoc::text::{self, Fingerprint, Nickname};
use crate::netdoc::{DocError, Fault};
use crate::time::Unix;

const EXTRA: &str = "extra-info";

const RULES: &[Rule] = &[
    rule(EXTRA, Count::One, 2, Obj::No),
    exact(signed::IDENTITY, Count::One, 0, Obj::Label(ED_CERT)),
    rule("published", Count::One, 2, Obj::No),
    rule(signed::ED_SIGNATURE, Count::One, 1, Obj::No),
    exact(signed::RSA_SIGNATURE, Count::One, 0, Obj::Label("SIGNATURE")),
];

/// An extra-info whose Ed25519 signature holds. The RSA signature needs the key in the descriptor that it goes with:
/// [`ExtraInfo::check_with`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraInfo {
    /// SHA-1 of the signed part, and SHA-256 of all of it.
    pub digests: ExtraInfoDigests,
    /// Nickname.
    pub nickname: Nickname,
    /// SHA-1 of the RSA identity key.
    pub identity: Fingerprint,
    /// Ed25519 identity.
    pub ed_identity: [u8; 32],
    /// The certificate from it to the signing key.
    pub signing_cert: Box<[u8]>,
    /// When it was made.
    pub published: Unix,
    rsa_signature: Box<[u8]>,
}

/// Why an extra-info does not go with a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtraInfoMismatch {
    /// They are of different relays, or signed under different certificates.
    #[error("the extra-info and the descriptor are not by the same keys")]
    Keys,
    /// They were not made at the same time.
    #[error("the extra-info and the descriptor have different publication times")]
    Published,
    /// The descriptor names another extra-info.
    #[error("the descriptor does not name this extra-info")]
    Digest,
    /// The RSA signature is wrong.
    #[error("the extra-info's router-signature is wrong")]
    Signature,
}

impl ExtraInfo {
    /// Parses one extra-info; `text` is exactly its text (see [`crate::netdoc::routerdesc::split_documents`]).
    pub fn parse(text: &str) -> Result<Self, DocError> {
        if text.len() > EXTRA_INFO {
            return Err(Fault::TooLarge { size: text.len(), max: EXTRA_INFO }.at(1));
        }
        let s = Section::parse(text, RULES)?;
        let signed = signed::check(text, EXTRA, &s)?;
        let first = s.need(EXTRA)?;
        Ok(ExtraInfo {
            digests: ExtraInfoDigests { sha1: signed.digest, sha256: Some(Sha256::digest(text).into()) },
            nickname: first.parse_arg(0, "nickname", Nickname::new)?,
            identity: first.parse_arg(1, "fingerprint", Fingerprint::from_hex)?,
            ed_identity: signed.ed_identity,
            signing_cert: signed.signing_cert,
            published: time_of(s.need("published")?)?,
            rsa_signature: signed.rsa_signature.into(),
        })
    }

    /// Checks that it goes with `descriptor`, as authorities and caches do before they keep it.
    pub fn check_with(&self, descriptor: &RouterDesc) -> Result<(), ExtraInfoMismatch> {
        let ours = (&self.identity, &self.ed_identity, &self.signing_cert, &self.nickname);
        let theirs =
            (&descriptor.identity, &descriptor.ed_identity, &descriptor.signing_cert, &descriptor.nickname);
        if ours != theirs {
            return Err(ExtraInfoMismatch::Keys);
        }
        if self.published != descriptor.published {
            return Err(ExtraInfoMismatch::Published);
        }
        let named = descriptor.extra_info.ok_or(ExtraInfoMismatch::Digest)?;
        if named.sha1 != self.digests.sha1 || named.sha256.is_some_and(|d| Some(d) != self.digests.sha256) {
            return Err(ExtraInfoMismatch::Digest);
        }
        descriptor
            .identity_key
            .verify_bare(&self.digests.sha1.0, &self.rsa_signature)
            .map_err(|_| ExtraInfoMismatch::Signature)
    }
}

/// What our extra-info is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewExtraInfo {
    /// Nickname.
    pub nickname: Nickname,
    /// When it was made: the same second as the descriptor.
    pub published: Unix,
    /// Lines of statistics, without their newlines.
    pub statistics: Vec<String>,
}

/// An extra-info of ours, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedExtraInfo {
    /// Its text.
    pub text: String,
    /// What others will read in it; its digests go into the descriptor.
    pub parsed: ExtraInfo,
}

impl NewExtraInfo {
    /// Writes and signs the extra-info, and reads it back.
    ///
    /// # Errors
    /// [`BuildError`]: a statistic of several lines, a key that does not sign, or contents that would be refused.
    pub fn sign(
        &self,
        keys: &DocumentKeys<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<SignedExtraInfo, BuildError> {
        let mut doc = String::with_capacity(1024);
        let identity = Fingerprint(keys.identity.public().rsa_id());
        // Writing to a String does not fail.
        let _ = writeln!(doc, "extra-info {} {identity}", self.nickname);
        doc.push_str("identity-ed25519\n");
        text::push_object(&mut doc, ED_CERT, keys.signing_cert);
        let _ = writeln!(doc, "published {}", text::format_time(self.published));
        for line in &self.statistics {
            signed::one_line("statistics", line)?;
            let _ = writeln!(doc, "{line}");
        }
        signed::sign(&mut doc, keys, rng)?;
        let parsed = ExtraInfo::parse(&doc)?;
        Ok(SignedExtraInfo { text: doc, parsed })
    }
}

#[cfg(test)]
mod tests;
