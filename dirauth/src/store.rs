//! The descriptors and extra-infos that the authority keeps: the newest of each relay, which it votes on, and the ones
//! before, for those who ask by digest.
//!
//! All of them are in memory, and on the disk in C tor's files `cached-descriptors` and `cached-extrainfo` with their
//! journals. A document is in the journal before anyone is told that it is stored. A kill at any moment leaves all that
//! was stored before, and perhaps a piece of what was being written, which the next start leaves out.
//!
//! When there is no room for all, known relays come before strangers ([`Store::vouch`]), and strangers in the order in
//! which they arrived; after a start, in the order of their first descriptors. A relay that is stored is never refused an
//! update on account of relays that came after it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onionring_node::directory::snapshot::RouterDocs;
use onionring_node::docstore::{Cached, DocStore, StoreError};
use onionring_proto::netdoc::extrainfo::ExtraInfo;
use onionring_proto::netdoc::routerdesc::{RouterDesc, split_documents};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use thiserror::Error;
use tracing::{info, warn};

use crate::limits::{STORED_RELAYS, STRANGERS_PER_NETWORK};

mod ranks;
mod shelf;

use ranks::Ranks;
use shelf::{Bounds, Kept, Shelf};

/// Until when a descriptor counts as a relay's newest, as in C tor: it is forgotten for votes and for judging the next.
pub(crate) const NEWEST_AGE: Duration = Duration::from_secs(48 * 3600);
/// Until when documents are served to those who ask by digest, as in C tor.
const SERVED_AGE: Duration = Duration::from_secs(5 * 24 * 3600);

/// Why a document was not stored.
#[derive(Debug, Error)]
pub enum AddError {
    /// There are too many relays.
    #[error(
        "descriptors of {STORED_RELAYS} relays are stored, and no more relays are taken until others have gone; \
         see who uploads so many"
    )]
    TooManyRelays,
    /// There are too many of unknown relays that were uploaded from one network.
    #[error(
        "{STRANGERS_PER_NETWORK} relays that were uploaded from the network of {0} have not been found reachable yet, and \
         no more are taken from there until they are"
    )]
    TooManyStrangers(IpAddr),
    /// There are too many bytes.
    #[error("the newest documents alone fill {}: there is no room for {bytes} bytes more", file.file_name())]
    Full {
        /// What is full.
        file: Cached,
        /// Bytes of the document.
        bytes: usize,
    },
    /// The file is as long as it may be, and could not be written anew without what is forgotten.
    #[error("{} is full of what is forgotten, and cannot be written anew: see to its directory and the space on its disk", .0.file_name())]
    NotCompacted(Cached),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] StoreError),
}

/// What is found on disk at a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Documents that are kept.
    pub kept: usize,
    /// Documents that cannot be read, such as one that was being written when the program was killed.
    pub damaged: usize,
}

/// The documents of all relays.
#[derive(Debug)]
pub struct Store {
    disk: DocStore,
    newest: BTreeMap<Fingerprint, Arc<RouterDesc>>,
    /// Of those that have a newest descriptor.
    ranks: Ranks,
    descriptors: Shelf,
    extra_infos: Shelf,
    /// Whether there is something else than when that was asked last.
    changed: bool,
    relays_max: usize,
}

impl Store {
    /// Opens the store in a directory, which is made if it is missing. Checks all signatures again: 10,000 documents take
    /// some seconds.
    pub fn open(directory: &Path, now: Unix) -> Result<(Store, Found), StoreError> {
        Store::open_bounded(directory, now, Bounds::default())
    }

    fn open_bounded(directory: &Path, now: Unix, bounds: Bounds) -> Result<(Store, Found), StoreError> {
        let mut store = Store {
            disk: DocStore::open(directory)?,
            newest: BTreeMap::new(),
            ranks: Ranks::default(),
            descriptors: Shelf::new(Cached::Descriptors, bounds),
            extra_infos: Shelf::new(Cached::ExtraInfos, bounds),
            changed: false,
            relays_max: bounds.relays,
        };
        let mut found = Found::default();
        for text in split_documents(&store.disk.load(Cached::Descriptors)?) {
            match RouterDesc::parse(text) {
                Ok(descriptor) => {
                    store.descriptors.place(Kept::descriptor(&descriptor), text);
                    store.note_newest(Arc::new(descriptor));
                }
                Err(_) => found.damaged += 1,
            }
        }
        for text in split_documents(&store.disk.load(Cached::ExtraInfos)?) {
            match ExtraInfo::parse(text) {
                Ok(extra_info) => store.extra_infos.place(Kept::extra_info(&extra_info), text),
                Err(_) => found.damaged += 1,
            }
        }
        store.forget(now);
        store.rank();
        // What was cut off would spoil what is appended to it.
        for shelf in [&mut store.descriptors, &mut store.extra_infos] {
            shelf.rewrite(&store.disk)?;
        }
        found.kept = store.descriptors.len() + store.extra_infos.len();
        info!("{} documents of {} relays are stored", found.kept, store.newest.len());
        if found.damaged > 0 {
            warn!("{} stored documents cannot be read and are left out", found.damaged);
        }
        Ok((store, found))
    }

    /// The newest descriptor of each relay that has one not older than 48 hours.
    pub fn newest(&self) -> &BTreeMap<Fingerprint, Arc<RouterDesc>> {
        &self.newest
    }

    /// Stores a descriptor that was admitted and came from this address; `text` is exactly its text. It is on the disk
    /// afterwards, or not stored.
    pub fn add_descriptor(
        &mut self,
        descriptor: Arc<RouterDesc>,
        text: &str,
        from: Option<IpAddr>,
    ) -> Result<(), AddError> {
        if !self.newest.contains_key(&descriptor.identity) {
            if let Some(from) = from.filter(|from| !self.ranks.has_room_for(Some(*from))) {
                return Err(AddError::TooManyStrangers(from));
            }
            if self.newest.len() >= self.relays_max {
                // The stranger that has had the most time to be found gives way: whoever is new is looked for at once.
                let first = self.ranks.first().ok_or(AddError::TooManyRelays)?;
                self.remove(&first);
            }
        }
        let kept = Kept::descriptor(&descriptor);
        self.send_strangers_away(Cached::Descriptors, &kept, text.len());
        self.changed = true;
        let needed = needed_beside(&self.newest, kept.identity);
        self.descriptors.add(&self.disk, kept, text, needed)?;
        self.ranks.arrive(kept.identity, from);
        self.note_newest(descriptor);
        Ok(())
    }

    /// Stores an extra-info that was admitted, in the same way.
    pub fn add_extra_info(&mut self, extra_info: &ExtraInfo, text: &str) -> Result<(), AddError> {
        let kept = Kept::extra_info(extra_info);
        self.send_strangers_away(Cached::ExtraInfos, &kept, text.len());
        self.changed |= !self.extra_infos.contains(&kept.digest);
        let newest = &self.newest;
        self.extra_infos.add(&self.disk, kept, text, |kept| is_newest_extra(newest, kept))
    }

    /// These relays were found to be reachable, so that they are known from now on. Those that are not stored are passed
    /// over.
    pub fn vouch<'a>(&mut self, identities: impl IntoIterator<Item = &'a Fingerprint>) {
        for identity in identities {
            if let Some(descriptor) = self.newest.get(identity) {
                self.ranks.vouch(*identity, descriptor.ipv4);
            }
        }
    }

    /// When superseded documents alone make too little room for one more, relays go that are ranked behind its own.
    fn send_strangers_away(&mut self, file: Cached, kept: &Kept, bytes: usize) {
        loop {
            let newest = &self.newest;
            let excess = match file {
                Cached::ExtraInfos => self.extra_infos.excess(bytes, |kept| is_newest_extra(newest, kept)),
                _ => self.descriptors.excess(bytes, needed_beside(newest, kept.identity)),
            };
            let bytes_of = |store: &Store| match file {
                Cached::ExtraInfos => store.extra_infos.bytes(),
                _ => store.descriptors.bytes(),
            };
            let before = bytes_of(self);
            while before - bytes_of(self) < excess {
                let Some(last) = self.ranks.last_after(&kept.identity) else { return };
                self.remove(&last);
            }
            if excess == 0 {
                return;
            }
        }
    }

    /// Forgets all documents of the relays of which this holds, by their newest descriptors, even if those are too old for
    /// votes; says which.
    pub fn remove_if(&mut self, is_unwanted: impl Fn(&RouterDesc) -> bool) -> Vec<Fingerprint> {
        let is_unwanted = |identity: &Fingerprint| match self.newest.get(identity) {
            Some(descriptor) => is_unwanted(descriptor),
            // What is stored was read before.
            None => self
                .descriptors
                .last_of(identity)
                .and_then(|text| RouterDesc::parse(std::str::from_utf8(text).ok()?).ok())
                .is_some_and(|descriptor| is_unwanted(&descriptor)),
        };
        let unwanted: Vec<_> = self.descriptors.relays().into_iter().filter(is_unwanted).collect();
        unwanted.iter().for_each(|identity| self.remove(identity));
        unwanted
    }

    /// Forgets all documents of a relay.
    fn remove(&mut self, identity: &Fingerprint) {
        self.changed = true;
        self.newest.remove(identity);
        self.ranks.forget(identity);
        self.descriptors.remove_all_of(identity);
        self.extra_infos.remove_all_of(identity);
    }

    /// What was found on disk has arrived in the order in which it was made.
    fn rank(&mut self) {
        let first = |identity: &Fingerprint| self.descriptors.first_of(identity).map(|kept| kept.published);
        let mut relays: Vec<_> = self.newest.keys().map(|identity| (first(identity), *identity)).collect();
        relays.sort_unstable();
        relays.into_iter().for_each(|(_, identity)| self.ranks.arrive(identity, None));
    }

    fn note_newest(&mut self, descriptor: Arc<RouterDesc>) {
        let newest = self.newest.get(&descriptor.identity);
        if newest.is_none_or(|newest| newest.published <= descriptor.published) {
            self.newest.insert(descriptor.identity, descriptor);
        }
    }

    /// Forgets what is too old, and writes the files anew when most of them is forgotten. To be called every few minutes.
    pub fn expire(&mut self, now: Unix) -> Result<(), StoreError> {
        self.forget(now);
        for shelf in [&mut self.descriptors, &mut self.extra_infos] {
            shelf.compact_again(&self.disk)?;
        }
        Ok(())
    }

    fn forget(&mut self, now: Unix) {
        self.changed = true;
        self.newest.retain(|_, descriptor| now.since(descriptor.published) <= NEWEST_AGE);
        let newest = &self.newest;
        self.ranks.retain(|identity| newest.contains_key(identity));
        for shelf in [&mut self.descriptors, &mut self.extra_infos] {
            shelf.forget_before(now - SERVED_AGE);
        }
    }

    /// Whether what is served has changed since this was called last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What is served: descriptors and extra-infos. Copies no document.
    pub fn documents(&self) -> (RouterDocs, RouterDocs) {
        let current = self.newest.iter().map(|(identity, descriptor)| (*identity, descriptor.digest));
        let extra = |descriptor: &RouterDesc| descriptor.extra_info.map(|digests| digests.sha1);
        let current_extra = self
            .newest
            .iter()
            .filter_map(|(identity, descriptor)| Some((*identity, extra(descriptor)?)))
            .filter(|(_, digest)| self.extra_infos.contains(digest));
        (
            RouterDocs::new(self.descriptors.documents(), current.collect()),
            RouterDocs::new(self.extra_infos.documents(), current_extra.collect()),
        )
    }
}

/// Whether a descriptor is the newest of its relay, and stays so when a newer one of this relay is stored.
fn needed_beside(
    newest: &BTreeMap<Fingerprint, Arc<RouterDesc>>,
    updated: Fingerprint,
) -> impl Fn(&Kept) -> bool {
    move |kept| {
        let newest = newest.get(&kept.identity).filter(|_| kept.identity != updated);
        newest.is_some_and(|descriptor| descriptor.digest == kept.digest)
    }
}

fn is_newest_extra(newest: &BTreeMap<Fingerprint, Arc<RouterDesc>>, kept: &Kept) -> bool {
    let named = newest.get(&kept.identity).and_then(|descriptor| descriptor.extra_info);
    named.is_some_and(|digests| digests.sha1 == kept.digest)
}

#[cfg(test)]
mod tests;
