//! The documents at hand: what is there, what is missing, what is served of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use onionring_proto::netdoc::authcert::{AuthCert, CertStore};
use onionring_proto::netdoc::consensus::{Consensus, Flavor};
use onionring_proto::netdoc::extrainfo::ExtraInfo;
use onionring_proto::netdoc::microdesc::{Microdesc, MicrodescDigest};
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;

use super::check::CheckedConsensus;
use super::snapshot::{DirSnapshot, Encoded, RouterDoc, RouterDocs, StoredCert, StoredConsensus};
use super::spool::Blob;

/// How long a document stays after the last consensus that named it: clients still ask by older ones.
const KEEP_UNLISTED: Duration = Duration::from_secs(48 * 3600);

/// Microdescriptors by their digests.
pub type Microdescs = BTreeMap<MicrodescDigest, Arc<Microdesc>>;

/// The documents of a directory.
#[derive(Debug, Default)]
pub struct Library {
    /// Whether microdescriptors are kept without their texts.
    drops_texts: bool,
    certs: CertStore,
    cert_texts: BTreeMap<(Fingerprint, Fingerprint), StoredCert>,
    ns: Option<HeldConsensus>,
    microdesc: Option<HeldConsensus>,
    descriptors: BTreeMap<Fingerprint, HeldDescriptor>,
    extra_infos: BTreeMap<Fingerprint, RouterDoc>,
    microdescs: BTreeMap<MicrodescDigest, HeldMicrodesc>,
}

#[derive(Debug)]
struct HeldConsensus {
    consensus: Arc<Consensus>,
    stored: Arc<StoredConsensus>,
}

#[derive(Debug)]
struct HeldDescriptor {
    doc: RouterDoc,
    identity: Fingerprint,
    extra_info: Option<Fingerprint>,
    /// When a consensus last named it.
    listed: Unix,
}

#[derive(Debug)]
struct HeldMicrodesc {
    microdesc: Arc<Microdesc>,
    /// What is served, and written to the disk.
    text: Option<Blob>,
    listed: Unix,
}

impl Library {
    /// A library of whoever serves nobody: texts of microdescriptors, which are most of what it would hold, are not kept.
    pub fn without_texts() -> Library {
        Library { drops_texts: true, ..Library::default() }
    }

    /// The certificates.
    pub fn certs(&self) -> &CertStore {
        &self.certs
    }

    /// The texts of the certificates.
    pub fn cert_texts(&self) -> impl Iterator<Item = &Blob> {
        self.cert_texts.values().map(|cert| &cert.text)
    }

    /// Adds certificates.
    pub fn add_certs(&mut self, certs: Vec<(AuthCert, Blob)>) {
        for (cert, text) in certs {
            let stored = StoredCert { text, published: cert.published };
            self.cert_texts.insert((cert.identity, cert.signing_key_id), stored);
            self.certs.insert(cert);
        }
    }

    fn held(&self, flavor: Flavor) -> &Option<HeldConsensus> {
        match flavor {
            Flavor::Ns => &self.ns,
            Flavor::Microdesc => &self.microdesc,
        }
    }

    /// The consensus of a flavour.
    pub fn consensus(&self, flavor: Flavor) -> Option<&Arc<Consensus>> {
        self.held(flavor).as_ref().map(|held| &held.consensus)
    }

    /// The consensus of a flavour, as it is served.
    pub fn stored(&self, flavor: Flavor) -> Option<&Arc<StoredConsensus>> {
        self.held(flavor).as_ref().map(|held| &held.stored)
    }

    /// Adds a diff from the consensus named `base` to the one named `target`, if that is still in force.
    pub fn add_diff(&mut self, flavor: Flavor, base: [u8; 32], target: [u8; 32], diff: Encoded) {
        let held = match flavor {
            Flavor::Ns => &mut self.ns,
            Flavor::Microdesc => &mut self.microdesc,
        };
        if let Some(held) = held.as_mut().filter(|held| held.stored.signed_sha3 == target) {
            held.stored = Arc::new(held.stored.with_diff(base, diff));
        }
    }

    /// Puts a consensus in force, and drops what has not been named for long.
    pub fn set_consensus(&mut self, checked: CheckedConsensus, now: Unix) {
        let consensus = Arc::new(checked.consensus);
        let stored = Arc::new(checked.stored);
        for relay in &consensus.relays {
            if let Some(held) = relay.descriptor().and_then(|digest| self.descriptors.get_mut(digest)) {
                held.listed = now;
            }
            if let Some(held) = relay.microdesc().and_then(|digest| self.microdescs.get_mut(digest)) {
                held.listed = now;
            }
        }
        match consensus.flavor {
            Flavor::Ns => self.ns = Some(HeldConsensus { consensus, stored }),
            Flavor::Microdesc => self.microdesc = Some(HeldConsensus { consensus, stored }),
        }
        self.expire(now);
    }

    fn expire(&mut self, now: Unix) {
        self.certs.remove_expired(now);
        let certs = &self.certs;
        self.cert_texts.retain(|(identity, signing_key), _| certs.get(identity, signing_key).is_some());
        self.descriptors.retain(|_, held| now.since(held.listed) <= KEEP_UNLISTED);
        self.microdescs.retain(|_, held| now.since(held.listed) <= KEEP_UNLISTED);
        let named: BTreeSet<Fingerprint> = self.descriptors.values().filter_map(|d| d.extra_info).collect();
        self.extra_infos.retain(|digest, _| named.contains(digest));
    }

    /// The descriptors that the consensus names and that are not here.
    pub fn missing_descriptors(&self) -> BTreeSet<Fingerprint> {
        let named = self.ns.iter().flat_map(|held| &held.consensus.relays).filter_map(|r| r.descriptor());
        named.filter(|digest| !self.descriptors.contains_key(*digest)).copied().collect()
    }

    /// Adds descriptors.
    pub fn add_descriptors(&mut self, descriptors: Vec<(RouterDesc, Blob)>, now: Unix) {
        for (d, text) in descriptors {
            let held = HeldDescriptor {
                doc: RouterDoc { text, published: d.published },
                identity: d.identity,
                extra_info: d.extra_info.map(|digests| digests.sha1),
                listed: now,
            };
            self.descriptors.insert(d.digest, held);
        }
    }

    /// The extra-infos that listed descriptors name and that are not here, with the texts of those descriptors.
    pub fn missing_extra_infos(&self) -> BTreeMap<Fingerprint, Blob> {
        let listed = self.ns.iter().flat_map(|held| &held.consensus.relays).filter_map(|r| r.descriptor());
        listed
            .filter_map(|digest| self.descriptors.get(digest))
            .filter_map(|held| Some((held.extra_info?, held.doc.text.clone())))
            .filter(|(digest, _)| !self.extra_infos.contains_key(digest))
            .collect()
    }

    /// Adds extra-infos.
    pub fn add_extra_infos(&mut self, extra_infos: Vec<(ExtraInfo, Blob)>) {
        for (extra, text) in extra_infos {
            self.extra_infos.insert(extra.digests.sha1, RouterDoc { text, published: extra.published });
        }
    }

    /// The microdescriptors that the consensus names and that are not here.
    pub fn missing_microdescs(&self) -> BTreeSet<MicrodescDigest> {
        let named =
            self.microdesc.iter().flat_map(|held| &held.consensus.relays).filter_map(|r| r.microdesc());
        named.filter(|digest| !self.microdescs.contains_key(*digest)).copied().collect()
    }

    /// Adds microdescriptors.
    pub fn add_microdescs(&mut self, microdescs: Vec<(Microdesc, Blob)>, now: Unix) {
        for (microdesc, text) in microdescs {
            let digest = microdesc.digest;
            let text = (!self.drops_texts).then_some(text);
            self.microdescs
                .insert(digest, HeldMicrodesc { microdesc: Arc::new(microdesc), text, listed: now });
        }
    }

    /// How many microdescriptors are here.
    pub fn microdescs(&self) -> usize {
        self.microdescs.len()
    }

    /// Whether the microdescriptor with this digest is here.
    pub fn has_microdesc(&self, digest: &MicrodescDigest) -> bool {
        self.microdescs.contains_key(digest)
    }

    /// Whether the descriptor with this digest is here.
    pub fn has_descriptor(&self, digest: &Fingerprint) -> bool {
        self.descriptors.contains_key(digest)
    }

    /// The consensus that names microdescriptors, and those of them that are here. Copies no document.
    pub fn network(&self) -> Option<(Arc<Consensus>, Microdescs)> {
        let consensus = self.microdesc.as_ref()?.consensus.clone();
        let here = |digest: &MicrodescDigest| Some((*digest, self.microdescs.get(digest)?.microdesc.clone()));
        let microdescs = consensus.relays.iter().filter_map(|r| r.microdesc()).filter_map(here).collect();
        Some((consensus, microdescs))
    }

    /// All texts of a kind, for the disk.
    pub fn descriptor_texts(&self) -> impl Iterator<Item = &Blob> {
        self.descriptors.values().map(|held| &held.doc.text)
    }

    /// All texts of a kind, for the disk.
    pub fn extra_info_texts(&self) -> impl Iterator<Item = &Blob> {
        self.extra_infos.values().map(|doc| &doc.text)
    }

    /// All texts of a kind, for the disk; none if the library is [without](Library::without_texts).
    pub fn microdesc_texts(&self) -> impl Iterator<Item = &Blob> {
        self.microdescs.values().filter_map(|held| held.text.as_ref())
    }

    /// What is served from now on. Copies no document.
    pub fn snapshot(&self) -> DirSnapshot {
        let mut newest: BTreeMap<Fingerprint, (Unix, Fingerprint)> = BTreeMap::new();
        for (digest, held) in &self.descriptors {
            let candidate = (held.doc.published, *digest);
            let best = newest.entry(held.identity).or_insert(candidate);
            *best = (*best).max(candidate);
        }
        let current: BTreeMap<_, _> = newest.into_iter().map(|(id, (_, digest))| (id, digest)).collect();
        let extra = |digest: &Fingerprint| self.descriptors.get(digest).and_then(|held| held.extra_info);
        let current_extra = current.iter().filter_map(|(id, digest)| Some((*id, extra(digest)?))).collect();
        let docs = self.descriptors.iter().map(|(digest, held)| (*digest, held.doc.clone())).collect();
        let microdesc = |(digest, held): (&_, &HeldMicrodesc)| Some((*digest, held.text.clone()?));
        let stored = |held: &Option<HeldConsensus>| held.as_ref().map(|held| held.stored.clone());
        DirSnapshot {
            ns: stored(&self.ns),
            microdesc: stored(&self.microdesc),
            certs: Arc::new(self.cert_texts.clone()),
            descriptors: Arc::new(RouterDocs::new(docs, current)),
            extra_infos: Arc::new(RouterDocs::new(self.extra_infos.clone(), current_extra)),
            microdescs: Arc::new(self.microdescs.iter().filter_map(microdesc).collect()),
            ..DirSnapshot::default()
        }
    }
}

#[cfg(test)]
mod tests;
