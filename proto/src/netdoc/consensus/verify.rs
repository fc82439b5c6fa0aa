//! Whether enough authorities signed a consensus (dir-spec 3.4, 5.4).

use std::collections::BTreeSet;

use super::Consensus;
use crate::netdoc::authcert::CertStore;
use crate::netdoc::consensus::Flavor;
use crate::netdoc::text::Fingerprint;
use crate::time::Unix;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureAlg {
    Sha1,
    Sha256,
}

#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub alg: SignatureAlg,
    pub identity: Fingerprint,
    pub signing_key_id: Fingerprint,
    pub signature: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct SignedDigests {
    pub sha1: [u8; 20],
    pub sha256: [u8; 32],
}

/// A consensus that was parsed; whose signatures it has is not known yet.
#[derive(Clone, Debug)]
pub struct UnverifiedConsensus {
    consensus: Consensus,
    digests: SignedDigests,
    signatures: Vec<Signature>,
}

/// What the signatures of a consensus lack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the consensus has {} good signatures of the {needed} it needs ({} certificates are missing, {} signatures are wrong)",
    good.len(), missing_certs.len(), bad.len()
)]
pub struct Shortfall {
    /// Signatures it needs.
    pub needed: usize,
    /// Authorities whose signature is right.
    pub good: BTreeSet<Fingerprint>,
    /// Certificates without which signatures cannot be checked: authority and signing key. Fetch these and retry.
    pub missing_certs: BTreeSet<(Fingerprint, Fingerprint)>,
    /// Authorities whose signature is wrong.
    pub bad: BTreeSet<Fingerprint>,
}

impl Shortfall {
    /// Whether the missing certificates could make up for what is missing.
    pub fn certs_may_help(&self) -> bool {
        self.good.len() + self.missing_certs.len() >= self.needed
    }
}

impl UnverifiedConsensus {
    pub(super) fn new(consensus: Consensus, digests: SignedDigests, signatures: Vec<Signature>) -> Self {
        UnverifiedConsensus { consensus, digests, signatures }
    }

    /// What it says, to be believed only as far as a stranger.
    pub fn peek(&self) -> &Consensus {
        &self.consensus
    }

    /// Checks the signatures of the configured authorities, whose v3 identities are `authorities`: more than half
    /// of them must have signed with a key for which `certs` holds a certificate that is not expired `now`.
    ///
    /// Others' signatures do not count. On failure nothing is lost: get the certificates and call again.
    pub fn check(&self, authorities: &[Fingerprint], certs: &CertStore, now: Unix) -> Result<(), Shortfall> {
        let authorities: BTreeSet<_> = authorities.iter().collect();
        let mut shortfall = Shortfall {
            needed: authorities.len() / 2 + 1,
            good: BTreeSet::new(),
            missing_certs: BTreeSet::new(),
            bad: BTreeSet::new(),
        };
        for s in self.signatures.iter().filter(|s| authorities.contains(&s.identity)) {
            let digest: &[u8] = match (self.consensus.flavor, s.alg) {
                (_, SignatureAlg::Sha256) => &self.digests.sha256,
                (Flavor::Ns, SignatureAlg::Sha1) => &self.digests.sha1,
                // Nobody signs the newer flavour with the older digest.
                (Flavor::Microdesc, SignatureAlg::Sha1) => continue,
            };
            match certs.get(&s.identity, &s.signing_key_id).filter(|c| now <= c.expires) {
                None => _ = shortfall.missing_certs.insert((s.identity, s.signing_key_id)),
                Some(cert) if cert.signing_key.verify_bare(digest, &s.signature).is_ok() => {
                    shortfall.good.insert(s.identity);
                }
                Some(_) => _ = shortfall.bad.insert(s.identity),
            }
        }
        if shortfall.good.len() >= shortfall.needed { Ok(()) } else { Err(shortfall) }
    }

    /// [`UnverifiedConsensus::check`], and the consensus if it passes.
    pub fn verify(
        self,
        authorities: &[Fingerprint],
        certs: &CertStore,
        now: Unix,
    ) -> Result<Consensus, Shortfall> {
        self.check(authorities, certs, now).map(|()| self.consensus)
    }
}
