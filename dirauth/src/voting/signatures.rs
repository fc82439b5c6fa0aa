//! The consensus that we computed, in both flavours, and who has signed it.

use onionring_proto::crypto::rsa::RsaError;
use onionring_proto::netdoc::authcert::CertStore;
use onionring_proto::netdoc::consensus::{Added, Flavor, Lifetime, PendingConsensus, SignaturesRefused};
use onionring_proto::netdoc::detached::{DetachedSignature, DetachedSignatures};
use onionring_proto::netdoc::tally::Tally;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use rand_core::CryptoRng;

use super::{Answer, Signer};
use crate::limits::QUEUED_CONSENSUSES;

pub(super) const QUEUED: Answer = Answer::ok("Signature queued");
pub(super) const UNREADABLE: Answer = Answer::refused("Couldn't parse detached signatures.");
pub(super) const OTHER_TIMES: Answer = Answer::refused(OTHER_VALID_AFTER);
const OTHER_VALID_AFTER: &str = "Valid-After times do not match when adding detached signatures to consensus";
/// C tor says 200 and `Signatures ignored`.
pub(super) const FORGED: Answer =
    Answer::refused("Signatures that are not right, of expired certificates, or of nobody whose vote counts");

/// A consensus in both flavours, and its signatures.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    ns: PendingConsensus,
    microdesc: PendingConsensus,
}

impl Pair {
    pub fn new(tally: Tally) -> Self {
        Pair { ns: PendingConsensus::new(tally.ns), microdesc: PendingConsensus::new(tally.microdesc) }
    }

    /// Both flavours, in the order in which C tor goes through them.
    pub fn flavors(&self) -> [&PendingConsensus; 2] {
        [&self.ns, &self.microdesc]
    }

    /// Signs both.
    ///
    /// # Errors
    /// [`RsaError`] if the key does not sign.
    pub fn sign(&mut self, signer: &Signer, rng: &mut impl CryptoRng) -> Result<(), RsaError> {
        self.ns.sign(&signer.cert, &signer.key, rng)?;
        self.microdesc.sign(&signer.cert, &signer.key, rng)
    }

    /// Adds what is right and new; says how many were added, and what to answer.
    pub fn add(&mut self, doc: &DetachedSignatures, certs: &CertStore, now: Unix) -> (usize, Answer) {
        let (mut added, mut failed, mut forged, mut reason) = (0, false, false, "");
        // As with C tor, the last flavour has the word.
        for pending in [&mut self.ns, &mut self.microdesc] {
            match add(pending, doc, certs, now) {
                Ok(Added { new, unverified, strangers, .. }) => {
                    added += new;
                    forged |= unverified + strangers > 0;
                    reason = if new > 0 { "Signatures added" } else { "Signatures ignored" };
                }
                Err(why) => (failed, reason) = (true, why),
            }
        }
        let answer = match added {
            0 if failed => Answer::refused(reason),
            0 if forged => FORGED,
            _ => Answer::ok(reason),
        };
        (added, answer)
    }

    /// The flavour that names descriptors, with the signatures so far.
    pub fn text(&self) -> String {
        self.ns.text()
    }

    /// All signatures that are known, as a document.
    pub fn detached(&self) -> String {
        // Nothing is missing: the two are of the two flavours.
        DetachedSignatures::of(&self.ns, &self.microdesc).map(|doc| doc.encode()).unwrap_or_default()
    }

    /// Of these authorities, how many have signed the flavour that more signed.
    pub fn signed_by(&self, authorities: &[Fingerprint]) -> usize {
        let count = |p: &PendingConsensus| p.signers().filter(|id| authorities.contains(id)).count();
        self.flavors().map(count).into_iter().max().unwrap_or(0)
    }

    /// Whether all of these have signed both flavours.
    pub fn signed_by_all(&self, authorities: &[Fingerprint]) -> bool {
        let all = |p: &PendingConsensus| {
            authorities.iter().all(|authority| p.signers().any(|signer| signer == authority))
        };
        self.flavors().into_iter().all(all)
    }

    /// The documents that more than half of these have signed.
    pub fn complete(&self, authorities: &[Fingerprint]) -> Vec<(Flavor, String)> {
        let complete = self.flavors().into_iter().filter(|pending| pending.is_complete(authorities));
        complete.map(|pending| (pending.consensus().flavor, pending.text())).collect()
    }

    /// Whether these signatures are on another consensus for the same time.
    pub fn differs(&self, doc: &DetachedSignatures) -> bool {
        let other = |p: &&PendingConsensus| {
            let flavor = p.consensus().flavor;
            doc.signatures.iter().any(|s| s.flavor == flavor) && doc.digest(flavor) != Some(p.digest())
        };
        self.flavors().iter().any(other)
    }
}

/// Adds to one flavour; the errors are C tor's words.
fn add(
    pending: &mut PendingConsensus,
    doc: &DetachedSignatures,
    certs: &CertStore,
    now: Unix,
) -> Result<Added, &'static str> {
    let consensus = pending.consensus();
    check_times(&consensus.lifetime, &doc.lifetime)?;
    if doc.signatures.iter().all(|s| s.flavor != consensus.flavor) {
        return Err("No signatures for given consensus flavor");
    }
    match pending.add(doc, certs, now) {
        Ok(added) => Ok(added),
        Err(SignaturesRefused::Digest) => Err("Mismatched digest."),
        Err(SignaturesRefused::NoDigest) => Err("No digests for given consensus flavor"),
        Err(SignaturesRefused::Lifetime) => Err(OTHER_VALID_AFTER),
    }
}

fn check_times(ours: &Lifetime, theirs: &Lifetime) -> Result<(), &'static str> {
    if ours.valid_after != theirs.valid_after {
        Err(OTHER_VALID_AFTER)
    } else if ours.fresh_until != theirs.fresh_until {
        Err("Fresh-until times do not match when adding detached signatures to consensus")
    } else if ours.valid_until != theirs.valid_until {
        Err("Valid-until times do not match when adding detached signatures to consensus")
    } else {
        Ok(())
    }
}

/// The document with nothing but the signatures that are right by a certificate at hand; `None` if there are none on
/// the flavour `ns`, without which the rest is worth nothing.
pub(super) fn verified(
    mut doc: DetachedSignatures,
    certs: &CertStore,
    now: Unix,
) -> Option<DetachedSignatures> {
    let (ns, microdesc) = (doc.digest(Flavor::Ns), doc.digest(Flavor::Microdesc));
    let right = |s: &DetachedSignature| {
        let digest = if s.flavor == Flavor::Ns { ns } else { microdesc };
        let cert = certs.get(&s.identity, &s.signing_key_id).filter(|cert| now <= cert.expires);
        digest.zip(cert).is_some_and(|(digest, cert)| {
            cert.signing_key.verify_bare(digest.as_bytes(), &s.signature).is_ok()
        })
    };
    doc.signatures.retain(right);
    if doc.signatures.iter().all(|s| s.flavor != Flavor::Microdesc) {
        doc.microdesc = None;
    }
    doc.signatures.iter().any(|s| s.flavor == Flavor::Ns).then_some(doc)
}

/// Whether a signature is not that of the key which a certificate at hand names for it.
pub(super) fn is_forged(doc: &DetachedSignatures, certs: &CertStore) -> bool {
    doc.signatures.iter().any(|s| {
        let (digest, cert) = (doc.digest(s.flavor), certs.get(&s.identity, &s.signing_key_id));
        digest.zip(cert).is_some_and(|(digest, cert)| {
            cert.signing_key.verify_bare(digest.as_bytes(), &s.signature).is_err()
        })
    })
}

/// Signatures that came before our own consensus was there, only right ones: whoever is no voter cannot fill it.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(Vec<DetachedSignatures>);

impl Queue {
    /// Adds what [`verified`] returned; says whether anything is new.
    pub fn push(&mut self, doc: DetachedSignatures) -> bool {
        let same = |queued: &&mut DetachedSignatures| {
            (queued.ns, queued.microdesc, queued.lifetime) == (doc.ns, doc.microdesc, doc.lifetime)
        };
        if let Some(queued) = self.0.iter_mut().find(same) {
            let before = queued.signatures.len();
            for new in doc.signatures {
                let known = |s: &DetachedSignature| {
                    (s.flavor, s.identity, s.signing_key_id) == (new.flavor, new.identity, new.signing_key_id)
                };
                if !queued.signatures.iter().any(known) {
                    queued.signatures.push(new);
                }
            }
            return queued.signatures.len() > before;
        }
        let room = self.0.len() < QUEUED_CONSENSUSES;
        if room {
            self.0.push(doc);
        }
        room
    }

    /// What is queued.
    pub fn iter(&self) -> impl Iterator<Item = &DetachedSignatures> {
        self.0.iter()
    }
}
