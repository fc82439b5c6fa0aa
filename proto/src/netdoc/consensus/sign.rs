//! Signing a consensus that we computed, and collecting the signatures of the other authorities (dir-spec 3.10).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rand_core::CryptoRng;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{Flavor, Lifetime};
use crate::crypto::rsa::{RsaError, RsaPrivate};
use crate::netdoc::authcert::{AuthCert, CertStore};
use crate::netdoc::detached::{DetachedSignature, DetachedSignatures};
use crate::netdoc::text::Fingerprint;
use crate::netdoc::vote::push_signature;
use crate::time::Unix;

const SIGNATURE: &str = "directory-signature";

/// A consensus that we computed and nobody has signed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedConsensus {
    /// Its flavour.
    pub flavor: Flavor,
    /// When it holds.
    pub lifetime: Lifetime,
    /// The identities that it names as sources, former ones included: the only ones that may sign.
    pub sources: Vec<Fingerprint>,
    /// Its text up to the first signature.
    pub text: String,
}

/// What is signed: SHA-1 of the `ns` flavour, SHA-256 of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsensusDigest {
    /// Of flavour [`Flavor::Ns`].
    Sha1([u8; 20]),
    /// Of flavour [`Flavor::Microdesc`].
    Sha256([u8; 32]),
}

impl ConsensusDigest {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            ConsensusDigest::Sha1(digest) => digest,
            ConsensusDigest::Sha256(digest) => digest,
        }
    }
}

/// Why signatures are not for a consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignaturesRefused {
    /// They are for another time.
    #[error("the signatures are for a consensus of another time")]
    Lifetime,
    /// They do not speak of this flavour.
    #[error("there is no digest of this flavour among the signatures")]
    NoDigest,
    /// They are for another consensus: its makers had other votes than we.
    #[error("the signatures are for another consensus than the one computed here")]
    Digest,
}

/// What came of the signatures that were handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Added: from a source of the consensus, right, and new.
    pub new: usize,
    /// Right, and of an authority whose signature is there.
    pub known: usize,
    /// Wrong, or by nobody whose certificate is at hand.
    pub unverified: usize,
    /// By others than the sources of the consensus.
    pub strangers: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Signed {
    signing_key_id: Fingerprint,
    signature: Vec<u8>,
}

/// A consensus that we computed, with the signatures that are known by now. All of them are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingConsensus {
    consensus: UnsignedConsensus,
    digest: ConsensusDigest,
    /// By authority, in which order they are written.
    signatures: BTreeMap<Fingerprint, Signed>,
}

impl UnsignedConsensus {
    /// What its signers sign.
    pub fn digest(&self) -> ConsensusDigest {
        // The blank after the first `directory-signature` is the last byte that is signed.
        let signed = [self.text.as_bytes(), SIGNATURE.as_bytes(), b" "];
        match self.flavor {
            Flavor::Ns => ConsensusDigest::Sha1(
                signed.iter().fold(Sha1::new(), |h, part| h.chain_update(part)).finalize().into(),
            ),
            Flavor::Microdesc => ConsensusDigest::Sha256(
                signed.iter().fold(Sha256::new(), |h, part| h.chain_update(part)).finalize().into(),
            ),
        }
    }
}

impl PendingConsensus {
    /// Nobody has signed it yet.
    pub fn new(consensus: UnsignedConsensus) -> Self {
        PendingConsensus { digest: consensus.digest(), consensus, signatures: BTreeMap::new() }
    }

    /// The consensus.
    pub fn consensus(&self) -> &UnsignedConsensus {
        &self.consensus
    }

    /// What its signers sign.
    pub fn digest(&self) -> ConsensusDigest {
        self.digest
    }

    /// The authorities that have signed.
    pub fn signers(&self) -> impl Iterator<Item = &Fingerprint> {
        self.signatures.keys()
    }

    /// Whether more than half of the configured authorities, whose v3 identities are `authorities`, have signed.
    pub fn is_complete(&self, authorities: &[Fingerprint]) -> bool {
        let known = |id: &&Fingerprint| authorities.contains(id);
        self.signers().filter(known).count() > authorities.len() / 2
    }

    /// Signs it with the signing key that `cert`, one of our own, names.
    ///
    /// # Errors
    /// [`RsaError`] if the key does not sign.
    pub fn sign(
        &mut self,
        cert: &AuthCert,
        key: &RsaPrivate,
        rng: &mut impl CryptoRng,
    ) -> Result<(), RsaError> {
        let signature = key.sign_bare(self.digest.as_bytes(), rng)?;
        self.signatures.insert(cert.identity, Signed { signing_key_id: cert.signing_key_id, signature });
        Ok(())
    }

    /// Adds what is right and new in a detached-signatures document for this consensus.
    ///
    /// Unlike C tor, which keeps what it cannot check until it can, this wants the certificates at hand: each voter's
    /// came with its vote.
    ///
    /// # Errors
    /// [`SignaturesRefused`]; nothing is added then.
    pub fn add(
        &mut self,
        detached: &DetachedSignatures,
        certs: &CertStore,
        now: Unix,
    ) -> Result<Added, SignaturesRefused> {
        if detached.lifetime != self.consensus.lifetime {
            return Err(SignaturesRefused::Lifetime);
        }
        let theirs = detached.digest(self.consensus.flavor).ok_or(SignaturesRefused::NoDigest)?;
        if theirs != self.digest {
            return Err(SignaturesRefused::Digest);
        }
        let mut added = Added::default();
        for s in detached.signatures.iter().filter(|s| s.flavor == self.consensus.flavor) {
            if !self.consensus.sources.contains(&s.identity) {
                added.strangers += 1;
            } else if self.has(s) {
                added.known += 1;
            } else if !self.is_right(s, certs, now) {
                added.unverified += 1;
            } else if let Entry::Vacant(place) = self.signatures.entry(s.identity) {
                let signed = Signed { signing_key_id: s.signing_key_id, signature: s.signature.clone() };
                place.insert(signed);
                added.new += 1;
            } else {
                added.known += 1;
            }
        }
        Ok(added)
    }

    /// Whether it is the very signature that is there.
    fn has(&self, s: &DetachedSignature) -> bool {
        self.signatures
            .get(&s.identity)
            .is_some_and(|ours| ours.signing_key_id == s.signing_key_id && ours.signature == s.signature)
    }

    fn is_right(&self, s: &DetachedSignature, certs: &CertStore, now: Unix) -> bool {
        let cert = certs.get(&s.identity, &s.signing_key_id).filter(|cert| now <= cert.expires);
        cert.is_some_and(|c| c.signing_key.verify_bare(self.digest.as_bytes(), &s.signature).is_ok())
    }

    /// The signatures, to be sent to other authorities.
    pub fn detached(&self) -> impl Iterator<Item = DetachedSignature> {
        self.signatures.iter().map(|(identity, signed)| DetachedSignature {
            flavor: self.consensus.flavor,
            identity: *identity,
            signing_key_id: signed.signing_key_id,
            signature: signed.signature.clone(),
        })
    }

    /// The whole document, with the signatures there are.
    pub fn text(&self) -> String {
        let keyword = match self.consensus.flavor {
            Flavor::Ns => SIGNATURE,
            Flavor::Microdesc => "directory-signature sha256",
        };
        let mut out = self.consensus.text.clone();
        for (identity, signed) in &self.signatures {
            push_signature(&mut out, keyword, identity, &signed.signing_key_id, &signed.signature);
        }
        out
    }
}
