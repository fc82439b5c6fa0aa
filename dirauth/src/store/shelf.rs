//! Documents of one kind, in memory and in their file.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use onionring_node::directory::snapshot::RouterDoc;
use onionring_node::docstore::{Cached, DocStore, StoreError};
use onionring_proto::netdoc::extrainfo::ExtraInfo;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use tracing::warn;

use super::AddError;
use crate::limits::{STORED_BYTES, STORED_PER_RELAY, STORED_RELAYS};

/// Bytes of forgotten documents that a file may have besides half of what it is for.
const SLACK: u64 = 1 << 20;

/// By how much a file that could not be written anew grows until that is tried again, unless time has passed.
const PATIENCE: u64 = 32 << 20;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of a file and its journal: what it may have to be read at the next start.
    pub on_disk: u64,
    /// Bytes of all documents.
    pub bytes: usize,
    /// Documents of one relay.
    pub per_relay: usize,
    /// Relays of which there are descriptors.
    pub relays: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        // That of extra-infos is the same.
        let on_disk = Cached::Descriptors.bytes_max();
        Bounds { on_disk, bytes: STORED_BYTES, per_relay: STORED_PER_RELAY, relays: STORED_RELAYS }
    }
}

/// The names of a document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// Whose it is.
    pub identity: Fingerprint,
    /// SHA-1 of its signed part.
    pub digest: Fingerprint,
    /// When it was made.
    pub published: Unix,
}

impl Kept {
    pub fn descriptor(descriptor: &RouterDesc) -> Kept {
        Kept { identity: descriptor.identity, digest: descriptor.digest, published: descriptor.published }
    }

    pub fn extra_info(extra_info: &ExtraInfo) -> Kept {
        let digest = extra_info.digests.sha1;
        Kept { identity: extra_info.identity, digest, published: extra_info.published }
    }
}

/// All documents of a kind.
#[derive(Debug)]
pub(super) struct Shelf {
    file: Cached,
    bounds: Bounds,
    by_digest: BTreeMap<Fingerprint, RouterDoc>,
    by_relay: BTreeSet<(Fingerprint, Unix, Fingerprint)>,
    by_age: BTreeSet<(Unix, Fingerprint, Fingerprint)>,
    bytes: usize,
    /// Bytes of the file and its journal, forgotten documents included.
    on_disk: u64,
    /// How many it had when it could not be written anew.
    failed_at: Option<u64>,
}

impl Shelf {
    pub fn new(file: Cached, bounds: Bounds) -> Shelf {
        Shelf {
            file,
            bounds,
            by_digest: BTreeMap::new(),
            by_relay: BTreeSet::new(),
            by_age: BTreeSet::new(),
            bytes: 0,
            on_disk: 0,
            failed_at: None,
        }
    }

    pub fn len(&self) -> usize {
        self.by_digest.len()
    }

    /// Bytes of all documents.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn contains(&self, digest: &Fingerprint) -> bool {
        self.by_digest.contains_key(digest)
    }

    pub fn documents(&self) -> BTreeMap<Fingerprint, RouterDoc> {
        self.by_digest.clone()
    }

    /// Writes a document to the journal, and takes it in place of the oldest, if need be. Those that `is_needed` stay.
    pub fn add(
        &mut self,
        disk: &DocStore,
        kept: Kept,
        text: &str,
        is_needed: impl Fn(&Kept) -> bool,
    ) -> Result<(), AddError> {
        if self.contains(&kept.digest) {
            return Ok(());
        }
        let text = &*with_end(text);
        let (gone, missing) = self.room(text.len(), is_needed);
        if missing > 0 {
            return Err(AddError::Full { file: self.file, bytes: text.len() });
        }
        if self.on_disk + text.len() as u64 > self.bounds.on_disk {
            return Err(AddError::NotCompacted(self.file));
        }
        disk.append(self.file, [text.as_bytes()])?;
        gone.into_iter().for_each(|kept| self.remove(kept));
        self.on_disk += text.len() as u64;
        self.place(kept, text);
        if let Err(error) = self.compact(disk) {
            // The document is in the journal, which is longer than it need be for a while.
            warn!("{} cannot be written anew: {error}", self.file.file_name());
        }
        Ok(())
    }

    /// Bytes that are missing for a document of this length though all go that are not `is_needed`.
    pub fn excess(&self, bytes: usize, is_needed: impl Fn(&Kept) -> bool) -> usize {
        self.room(bytes, is_needed).1
    }

    /// The oldest documents that have to go for one of this length, of those that are not `is_needed`, and the bytes that
    /// are missing then.
    fn room(&self, bytes: usize, is_needed: impl Fn(&Kept) -> bool) -> (Vec<Kept>, usize) {
        let mut excess = (self.bytes + bytes).saturating_sub(self.bounds.bytes);
        let mut gone = Vec::new();
        for &(published, identity, digest) in &self.by_age {
            if excess == 0 {
                break;
            }
            let kept = Kept { identity, digest, published };
            if !is_needed(&kept) {
                excess = excess.saturating_sub(self.by_digest.get(&digest).map_or(0, |doc| doc.text.len()));
                gone.push(kept);
            }
        }
        (gone, excess)
    }

    /// Takes a document that is on the disk.
    pub fn place(&mut self, kept: Kept, text: &str) {
        let Kept { identity, digest, published } = kept;
        if self.contains(&digest) {
            return;
        }
        let text = &*with_end(text);
        self.by_digest.insert(digest, RouterDoc { text: text.as_bytes().into(), published });
        self.by_relay.insert((identity, published, digest));
        self.by_age.insert((published, identity, digest));
        self.bytes += text.len();
        if self.all_of(&identity).count() > self.bounds.per_relay
            && let Some(oldest) = self.first_of(&identity)
        {
            self.remove(oldest);
        }
    }

    /// The documents of a relay, oldest first.
    fn all_of(&self, identity: &Fingerprint) -> impl Iterator<Item = Kept> + use<'_> {
        const FIRST: (Unix, Fingerprint) = (Unix(0), Fingerprint([0; 20]));
        const LAST: (Unix, Fingerprint) = (Unix(u64::MAX), Fingerprint([0xff; 20]));
        let theirs = (*identity, FIRST.0, FIRST.1)..=(*identity, LAST.0, LAST.1);
        self.by_relay.range(theirs).map(|&(identity, published, digest)| Kept { identity, digest, published })
    }

    /// The oldest document of a relay.
    pub fn first_of(&self, identity: &Fingerprint) -> Option<Kept> {
        self.all_of(identity).next()
    }

    /// The newest document of a relay.
    pub fn last_of(&self, identity: &Fingerprint) -> Option<&[u8]> {
        let last = self.all_of(identity).last()?;
        self.by_digest.get(&last.digest).map(|doc| &doc.text[..])
    }

    /// The relays of which there are documents.
    pub fn relays(&self) -> BTreeSet<Fingerprint> {
        self.by_relay.iter().map(|(identity, ..)| *identity).collect()
    }

    /// Forgets the documents of a relay.
    pub fn remove_all_of(&mut self, identity: &Fingerprint) {
        let theirs: Vec<Kept> = self.all_of(identity).collect();
        theirs.into_iter().for_each(|kept| self.remove(kept));
    }

    fn remove(&mut self, kept: Kept) {
        let Kept { identity, digest, published } = kept;
        if let Some(doc) = self.by_digest.remove(&digest) {
            self.bytes -= doc.text.len();
        }
        self.by_relay.remove(&(identity, published, digest));
        self.by_age.remove(&(published, identity, digest));
    }

    /// Forgets what was made before then.
    pub fn forget_before(&mut self, then: Unix) {
        while let Some(&(published, identity, digest)) = self.by_age.first()
            && published < then
        {
            self.remove(Kept { identity, digest, published });
        }
    }

    /// Bytes of the file when it could not be written anew.
    #[cfg(test)]
    pub fn failed_at(&self) -> Option<u64> {
        self.failed_at
    }

    /// Writes the file anew if it has too much that is forgotten, even if that has failed before.
    pub fn compact_again(&mut self, disk: &DocStore) -> Result<(), StoreError> {
        self.failed_at = None;
        self.compact(disk)
    }

    /// Writes the file anew if it has too much that is forgotten, and not soon after that has failed: it takes its time,
    /// and whoever uploads waits.
    fn compact(&mut self, disk: &DocStore) -> Result<(), StoreError> {
        let bytes = self.bytes as u64;
        let is_due = self.on_disk > bytes + bytes / 2 + SLACK;
        let may_try = self.failed_at.is_none_or(|failed_at| self.on_disk >= failed_at + PATIENCE);
        if is_due && may_try { self.rewrite(disk) } else { Ok(()) }
    }

    /// Writes the file anew, oldest documents first.
    pub fn rewrite(&mut self, disk: &DocStore) -> Result<(), StoreError> {
        let docs = self.by_age.iter().filter_map(|(_, _, digest)| self.by_digest.get(digest));
        self.failed_at = Some(self.on_disk);
        disk.replace(self.file, docs.map(|doc| &doc.text[..]))?;
        self.failed_at = None;
        self.on_disk = self.bytes as u64;
        Ok(())
    }
}

/// A document is read without the end of its last line, too, if it was uploaded so or cut off there; without it, it would
/// run into the next one.
fn with_end(text: &str) -> Cow<'_, str> {
    if text.ends_with('\n') { text.into() } else { format!("{text}\n").into() }
}
