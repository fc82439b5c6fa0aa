//! Detached signatures (dir-spec 3.10): how authorities pass on who has signed the consensus that all have computed.

use crate::limits::CONSENSUS_AUTHORITIES;
use crate::netdoc::authcert::time_of;
use crate::netdoc::consensus::{ConsensusDigest, Flavor, Lifetime, PendingConsensus};
use crate::netdoc::section::{Count, Obj, Rule, Section, rule};
use crate::netdoc::text::{self, Fingerprint};
use crate::netdoc::tokenize::Item;
use crate::netdoc::vote::push_signature;
use crate::netdoc::{DocError, Fault};

const DIGEST: &str = "consensus-digest";
const MORE_DIGESTS: &str = "additional-digest";
const SIGNATURE: &str = "directory-signature";
const MORE_SIGNATURES: &str = "additional-signature";
const OBJECT: Obj = Obj::Label("SIGNATURE");

const RULES: &[Rule] = &[
    rule(DIGEST, Count::One, 1, Obj::No),
    rule("valid-after", Count::One, 2, Obj::No),
    rule("fresh-until", Count::One, 2, Obj::No),
    rule("valid-until", Count::One, 2, Obj::No),
    rule(MORE_DIGESTS, Count::Many, 3, Obj::No),
    rule(MORE_SIGNATURES, Count::Many, 4, OBJECT),
    rule(SIGNATURE, Count::Many, 2, OBJECT),
];

/// Signatures of authorities on the consensus of one time. Whether they are right is not known:
/// [`PendingConsensus::add`] sees to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachedSignatures {
    /// Digest of the consensus of flavour `ns`.
    pub ns: [u8; 20],
    /// Digest of the other flavour; without it, its signatures are worth nothing.
    pub microdesc: Option<[u8; 32]>,
    /// When the consensus holds.
    pub lifetime: Lifetime,
    /// The signatures.
    pub signatures: Vec<DetachedSignature>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachedSignature {
    /// Which flavour is signed.
    pub flavor: Flavor,
    /// Fingerprint of the signer's v3 identity key.
    pub identity: Fingerprint,
    /// Fingerprint of the key that signs.
    pub signing_key_id: Fingerprint,
    /// The signature.
    pub signature: Vec<u8>,
}

impl DetachedSignatures {
    /// All signatures that are known of a consensus in its two flavours.
    pub fn of(ns: &PendingConsensus, microdesc: &PendingConsensus) -> Option<Self> {
        let (ConsensusDigest::Sha1(ns_digest), ConsensusDigest::Sha256(microdesc_digest)) =
            (ns.digest(), microdesc.digest())
        else {
            return None;
        };
        Some(DetachedSignatures {
            ns: ns_digest,
            microdesc: Some(microdesc_digest),
            lifetime: ns.consensus().lifetime,
            signatures: microdesc.detached().chain(ns.detached()).collect(),
        })
    }

    /// Parses a document. Digests and signatures of algorithms and flavours not known here are passed over.
    pub fn parse(text: &str) -> Result<Self, DocError> {
        let s = Section::parse(text, RULES)?;
        let digest = s.opens_with(DIGEST)?.parse_arg(0, DIGEST, text::hex_array)?;
        let mut microdesc = None;
        for item in s.all(MORE_DIGESTS).filter(|i| is_microdesc(i)) {
            let digest = item.parse_arg(2, MORE_DIGESTS, text::hex_array)?;
            microdesc.get_or_insert(digest);
        }
        let lifetime = Lifetime {
            valid_after: time_of(s.need("valid-after")?)?,
            fresh_until: time_of(s.need("fresh-until")?)?,
            valid_until: time_of(s.need("valid-until")?)?,
        };
        s.need(SIGNATURE)?;
        let mut signatures: Vec<DetachedSignature> = Vec::new();
        for item in s.iter() {
            let signature = match item.keyword {
                SIGNATURE => signature(item, Flavor::Ns, 0)?,
                MORE_SIGNATURES if is_microdesc(item) => signature(item, Flavor::Microdesc, 2)?,
                _ => continue,
            };
            // The first one of a key counts.
            let same = |s: &DetachedSignature| {
                (s.flavor, s.identity, s.signing_key_id)
                    == (signature.flavor, signature.identity, signature.signing_key_id)
            };
            if signatures.iter().any(same) {
                continue;
            }
            let max = CONSENSUS_AUTHORITIES * Flavor::ALL.len();
            if signatures.len() >= max {
                return Err(item.fault(Fault::TooLarge { size: signatures.len() + 1, max }));
            }
            signatures.push(signature);
        }
        Ok(DetachedSignatures { ns: digest, microdesc, lifetime, signatures })
    }

    /// The digest of one flavour.
    pub fn digest(&self, flavor: Flavor) -> Option<ConsensusDigest> {
        match flavor {
            Flavor::Ns => Some(ConsensusDigest::Sha1(self.ns)),
            Flavor::Microdesc => self.microdesc.map(ConsensusDigest::Sha256),
        }
    }

    /// The document, in C tor's order of lines.
    pub fn encode(&self) -> String {
        let mut out = format!("{DIGEST} {}\n", text::hex_upper(&self.ns));
        self.lifetime.write(&mut out);
        if let Some(digest) = &self.microdesc {
            out.extend([MORE_DIGESTS, " microdesc sha256 ", &text::hex_upper(digest), "\n"]);
        }
        for flavor in [Flavor::Microdesc, Flavor::Ns] {
            let keyword = match flavor {
                Flavor::Microdesc => "additional-signature microdesc sha256",
                Flavor::Ns => SIGNATURE,
            };
            for s in self.signatures.iter().filter(|s| s.flavor == flavor) {
                push_signature(&mut out, keyword, &s.identity, &s.signing_key_id, &s.signature);
            }
        }
        out
    }
}

fn is_microdesc(item: &Item<'_>) -> bool {
    (item.arg(0), item.arg(1)) == (Some("microdesc"), Some("sha256"))
}

/// A signature whose identities are arguments `at` and `at + 1`.
fn signature(item: &Item<'_>, flavor: Flavor, at: usize) -> Result<DetachedSignature, DocError> {
    Ok(DetachedSignature {
        flavor,
        identity: item.parse_arg(at, "signer", Fingerprint::from_hex)?,
        signing_key_id: item.parse_arg(at + 1, "signing key", Fingerprint::from_hex)?,
        signature: item.decode_object("SIGNATURE", SIGNATURE)?,
    })
}

#[cfg(test)]
mod tests;
