//! What a keeper has on disk.

use onionring_proto::netdoc::microdesc::Microdesc;

use super::*;
use crate::docstore::{Shelf, StoreError};

/// The folder of earlier consensuses.
const SHELF: &str = "past-consensuses";

/// Bytes that a journal may have in any case.
const JOURNAL_SLACK: u64 = 1 << 20;

/// The file of a consensus.
pub(super) fn file_of(flavor: Flavor) -> Cached {
    match flavor {
        Flavor::Ns => Cached::Consensus,
        Flavor::Microdesc => Cached::MicrodescConsensus,
    }
}

impl Keeper {
    /// Reads the store, in the order in which one file vouches for the next.
    pub(super) fn read_disk(&mut self, now: Unix) {
        let Some(store) = self.store.clone() else { return };
        let read = |file: Cached| {
            store.load(file).unwrap_or_else(|error| {
                warn!("cached directory documents are fetched again: {error}");
                String::new()
            })
        };
        let report = |file: Cached, unfit: usize| {
            if unfit > 0 {
                debug!(file = file.file_name(), unfit, "some cached documents are of no more use");
            }
        };
        let encodings = self.encodings();
        let KeeperSettings { role, extra_infos, authorities, .. } = &self.settings;
        let library = &mut self.library;
        let certs = check::certs(&read(Cached::Certs), authorities, now);
        report(Cached::Certs, certs.unfit);
        library.add_certs(certs.fit);
        for flavor in role.flavors() {
            let file = file_of(*flavor);
            let text = read(file);
            if text.is_empty() {
                continue;
            }
            match check::consensus(&text, *flavor, None, authorities, library.certs(), encodings, now) {
                Ok(checked) => library.set_consensus(checked, now),
                Err(ConsensusUnfit::NotLive(_)) => {
                    info!("the cached consensus in {} is not of this time", file.file_name());
                }
                Err(error) => {
                    warn!("the cached consensus in {} is not fit to be used: {error}", file.file_name());
                }
            }
        }
        let microdescs = check::microdescs(&read(Cached::Microdescs), &library.missing_microdescs());
        report(Cached::Microdescs, microdescs.unfit);
        library.add_microdescs(microdescs.fit, now);
        if role.flavors().contains(&Flavor::Ns) {
            let descriptors = check::descriptors(&read(Cached::Descriptors), &library.missing_descriptors());
            report(Cached::Descriptors, descriptors.unfit);
            library.add_descriptors(descriptors.fit, now);
        }
        if *extra_infos {
            let extra = check::extra_infos(&read(Cached::ExtraInfos), &library.missing_extra_infos());
            report(Cached::ExtraInfos, extra.unfit);
            library.add_extra_infos(extra.fit);
        }
        self.load_archive();
    }

    /// Reads the consensuses before those in force from the disk. Only directory caches have a use for them.
    fn load_archive(&mut self) {
        let Some(shelf) = self.shelf() else { return };
        match Archive::load(&shelf) {
            Ok(archive) => self.archive = archive,
            Err(error) => warn!("there are no diffs from consensuses of an earlier run: {error}"),
        }
    }

    fn shelf(&self) -> Option<Shelf> {
        let store = self.store.as_ref().filter(|_| self.settings.role == Role::Cache)?;
        Some(store.shelf(SHELF))
    }

    /// Keeps the consensus that is being replaced.
    pub(super) fn archive_consensus(&mut self, flavor: Flavor) {
        let Some(stored) = self.library.stored(flavor).filter(|_| self.settings.role == Role::Cache) else {
            return;
        };
        let past = Past::new(flavor, stored);
        let gone = self.archive.add(past.clone());
        if let Some(shelf) = self.shelf() {
            let stored = past.store(&shelf);
            self.note_disk(stored.and_then(|()| gone.iter().try_for_each(|gone| gone.remove(&shelf))));
        }
    }

    /// Appends documents to a file, or rewrites it once its journal has become long.
    pub(super) fn keep<D>(&mut self, file: Cached, documents: &[(D, Blob)]) {
        let Some(store) = self.store.as_ref().filter(|_| !documents.is_empty()) else { return };
        let (main, journal) = store.sizes(file);
        if journal <= main / 2 + JOURNAL_SLACK {
            let appended = store.append(file, documents.iter().map(|(_, text)| &text[..]));
            return self.note_disk(appended);
        }
        let mut all: Vec<Blob> = match file {
            Cached::Descriptors => self.library.descriptor_texts().cloned().collect(),
            Cached::ExtraInfos => self.library.extra_info_texts().cloned().collect(),
            _ if self.settings.role == Role::Plain => self.microdescs_on_disk(store),
            _ => self.library.microdesc_texts().cloned().collect(),
        };
        all.extend(documents.iter().map(|(_, text)| text.clone()));
        self.rewrite(file, all.iter().map(|text| &text[..]));
    }

    /// Those on the disk that are still of use, where texts are not in memory. What cannot be read will be fetched again.
    fn microdescs_on_disk(&self, store: &DocStore) -> Vec<Blob> {
        let text = store.load(Cached::Microdescs).unwrap_or_default();
        let is_held = |text: &&str| self.library.has_microdesc(&Microdesc::digest_of(text));
        Microdesc::split(&text).filter(is_held).map(|text| Blob::from(text.as_bytes())).collect()
    }

    /// Replaces a file.
    pub(super) fn rewrite<'a>(&mut self, file: Cached, texts: impl IntoIterator<Item = &'a [u8]>) {
        let Some(store) = &self.store else { return };
        let replaced = store.replace(file, texts);
        self.note_disk(replaced);
    }

    /// Says once that the disk fails, and once that it works again.
    fn note_disk(&mut self, result: Result<(), StoreError>) {
        match result {
            Ok(()) if self.state.disk_failing => {
                info!("directory documents are written to the disk again");
                self.state.disk_failing = false;
            }
            Ok(()) => {}
            Err(error) if !self.state.disk_failing => {
                warn!("directory documents are kept in memory only: {error}");
                self.state.disk_failing = true;
            }
            Err(_) => {}
        }
    }
}
