//! What a directory has to give out: immutable, shared by everyone who serves it, swapped whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::compress::{self, Accepted, EncodeError, Encoding};
use onionring_proto::netdoc::consensus::{Consensus, Flavor, Lifetime};
use onionring_proto::netdoc::microdesc::MicrodescDigest;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;

use super::spool::Blob;

/// The documents of a directory at one moment.
#[derive(Clone, Debug, Default)]
pub struct DirSnapshot {
    /// The consensus that names router descriptors.
    pub ns: Option<Arc<StoredConsensus>>,
    /// The consensus that names microdescriptors.
    pub microdesc: Option<Arc<StoredConsensus>>,
    /// Authority certificates, by identity and signing key.
    pub certs: Arc<BTreeMap<(Fingerprint, Fingerprint), StoredCert>>,
    /// Router descriptors.
    pub descriptors: Arc<RouterDocs>,
    /// Extra-infos.
    pub extra_infos: Arc<RouterDocs>,
    /// Microdescriptors.
    pub microdescs: Arc<BTreeMap<MicrodescDigest, Blob>>,
    /// The descriptor and the extra-info of this relay.
    pub own: Option<OwnDocs>,
    /// The v3 identity of this authority, at one.
    pub authority: Option<Fingerprint>,
    /// What `/tor/` shows to people (`DirPortFrontPage`).
    pub front_page: Option<Blob>,
}

impl DirSnapshot {
    /// The consensus of a flavour.
    pub fn consensus(&self, flavor: Flavor) -> Option<&Arc<StoredConsensus>> {
        match flavor {
            Flavor::Ns => self.ns.as_ref(),
            Flavor::Microdesc => self.microdesc.as_ref(),
        }
    }

    /// Bytes of all documents. Takes a look at every one of them.
    pub fn bytes(&self) -> usize {
        let consensuses = [&self.ns, &self.microdesc].into_iter().flatten().map(|consensus| consensus.size());
        let certs = self.certs.values().map(|cert| cert.text.len());
        let microdescs = self.microdescs.values().map(|text| text.len());
        let routers = self.descriptors.by_digest.values().chain(self.extra_infos.by_digest.values());
        consensuses.chain(certs).chain(microdescs).chain(routers.map(|doc| doc.text.len())).sum()
    }

    /// The place of a consensus of a flavour.
    pub fn consensus_mut(&mut self, flavor: Flavor) -> &mut Option<Arc<StoredConsensus>> {
        match flavor {
            Flavor::Ns => &mut self.ns,
            Flavor::Microdesc => &mut self.microdesc,
        }
    }
}

/// A document in the encodings in which it is served, compressed once for all clients.
#[derive(Clone, Debug)]
pub struct Encoded(BTreeMap<Encoding, Blob>);

impl Encoded {
    /// Compresses `text`, with all the effort there is.
    pub fn new(text: &str, encodings: &[Encoding]) -> Result<Self, EncodeError> {
        let encode = |&encoding| Ok((encoding, compress::compress(encoding, text.as_bytes())?.into()));
        Ok(Encoded(encodings.iter().map(encode).collect::<Result<_, EncodeError>>()?))
    }

    /// The form that suits a client best.
    pub fn choose(&self, accepted: Accepted) -> Option<(Encoding, &Blob)> {
        let encoding = accepted.choose(&Encoding::STORED);
        self.0.get(&encoding).map(|blob| (encoding, blob))
    }

    /// One of the forms, if it is among those kept.
    pub fn get(&self, encoding: Encoding) -> Option<&Blob> {
        self.0.get(&encoding)
    }

    /// One of the forms; empty if it is not among those kept.
    pub fn form(&self, encoding: Encoding) -> Blob {
        self.0.get(&encoding).cloned().unwrap_or_default()
    }

    /// Bytes of all forms.
    pub fn size(&self) -> usize {
        self.0.values().map(|blob| blob.len()).sum()
    }
}

/// A consensus, and the diffs that lead to it.
#[derive(Clone, Debug)]
pub struct StoredConsensus {
    /// When it holds.
    pub lifetime: Lifetime,
    /// SHA3-256 of its signed part.
    pub signed_sha3: [u8; 32],
    /// The authorities that signed it.
    pub signers: Vec<Fingerprint>,
    /// Its text.
    pub whole: Encoded,
    /// The diffs from earlier ones, by the SHA3-256 of their signed parts.
    diffs: BTreeMap<[u8; 32], Encoded>,
}

impl StoredConsensus {
    /// Stores `text`, of which `consensus` was read. Takes a second or two for the public network's.
    pub fn new(text: &str, consensus: &Consensus, encodings: &[Encoding]) -> Result<Self, EncodeError> {
        Ok(StoredConsensus {
            lifetime: consensus.lifetime,
            signed_sha3: consensus.signed_sha3,
            signers: signers(text),
            whole: Encoded::new(text, encodings)?,
            diffs: BTreeMap::new(),
        })
    }

    /// The same with one more diff, from the consensus named `base`. Copies no document.
    #[must_use]
    pub fn with_diff(&self, base: [u8; 32], diff: Encoded) -> Self {
        let mut with = self.clone();
        with.diffs.insert(base, diff);
        with
    }

    /// Bytes of all forms, and of all forms of diffs.
    fn size(&self) -> usize {
        self.whole.size() + self.diffs.values().map(Encoded::size).sum::<usize>()
    }

    /// A diff from the first of `bases` from which there is one.
    pub fn diff_from(&self, bases: &[[u8; 32]]) -> Option<&Encoded> {
        bases.iter().find_map(|base| self.diffs.get(base))
    }
}

/// The identities on the signature lines of a consensus: the last two arguments are the signer's keys.
fn signers(text: &str) -> Vec<Fingerprint> {
    let arguments = text.lines().filter_map(|line| line.strip_prefix("directory-signature "));
    let mut signers: Vec<_> =
        arguments.filter_map(|a| a.split(' ').rev().nth(1).and_then(Fingerprint::from_hex)).collect();
    signers.sort_unstable();
    signers.dedup();
    signers
}

/// An authority certificate.
#[derive(Clone, Debug)]
pub struct StoredCert {
    /// Its text.
    pub text: Blob,
    /// When it was made.
    pub published: Unix,
}

/// A descriptor or an extra-info.
#[derive(Clone, Debug)]
pub struct RouterDoc {
    /// Its text.
    pub text: Blob,
    /// When it was made.
    pub published: Unix,
}

/// Descriptors or extra-infos, found by either of their names.
#[derive(Clone, Debug, Default)]
pub struct RouterDocs {
    by_digest: BTreeMap<Fingerprint, RouterDoc>,
    current: BTreeMap<Fingerprint, Fingerprint>,
    all: Arc<[Blob]>,
    /// When the oldest current one was made.
    oldest: Unix,
}

impl RouterDocs {
    /// Puts together `by_digest`, and of each relay the one that is `current`, by the relay's identity.
    pub fn new(
        by_digest: BTreeMap<Fingerprint, RouterDoc>,
        current: BTreeMap<Fingerprint, Fingerprint>,
    ) -> Self {
        let docs = || current.values().filter_map(|digest| by_digest.get(digest));
        let all = docs().map(|doc| doc.text.clone()).collect();
        let oldest = docs().map(|doc| doc.published).min().unwrap_or_default();
        RouterDocs { by_digest, current, all, oldest }
    }

    /// The one with this digest.
    pub fn by_digest(&self, digest: &Fingerprint) -> Option<&RouterDoc> {
        self.by_digest.get(digest)
    }

    /// The current one of this relay.
    pub fn current(&self, identity: &Fingerprint) -> Option<&RouterDoc> {
        self.current.get(identity).and_then(|digest| self.by_digest.get(digest))
    }

    /// The current ones of all relays.
    pub fn all(&self) -> &Arc<[Blob]> {
        &self.all
    }

    /// The current ones of all relays that were made then or later.
    pub fn all_since(&self, then: Unix) -> Arc<[Blob]> {
        if self.oldest >= then {
            return self.all.clone();
        }
        let docs = self.current.values().filter_map(|digest| self.by_digest.get(digest));
        docs.filter(|doc| doc.published >= then).map(|doc| doc.text.clone()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_digest.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_digest.is_empty()
    }
}

/// What this relay says of itself.
#[derive(Clone, Debug)]
pub struct OwnDocs {
    /// SHA-1 of its RSA identity key.
    pub identity: Fingerprint,
    /// Its descriptor.
    pub descriptor: RouterDoc,
    /// Its extra-info.
    pub extra_info: RouterDoc,
}
