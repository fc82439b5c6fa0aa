//! Consensuses and what goes with them: certificates, microdescriptors, and the diffs from what was in force before. What
//! is kept here is served, and lies on the disk.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onionring_node::compress::Encoding;
use onionring_node::directory::archive::{Archive, Past};
use onionring_node::directory::check::{self, ConsensusUnfit};
use onionring_node::directory::library::Library;
use onionring_node::directory::spool::Blob;
use onionring_node::docstore::{Cached, DocStore, Shelf, StoreError};
use onionring_node::limits::DIR_CONSENSUS;
use onionring_proto::netdoc::authcert::AuthCert;
use onionring_proto::netdoc::consensus::{Consensus, Flavor};
use onionring_proto::netdoc::microdesc::Microdesc;
use onionring_proto::netdoc::params::ConsensusParams;
use onionring_proto::netdoc::text::{Fingerprint, format_time};
use onionring_proto::time::Unix;
use tracing::{debug, info, warn};

use crate::directory::Directory;
use crate::limits::DIFF_BYTES;

/// The folder of earlier consensuses.
const SHELF: &str = "past-consensuses";

/// All that is printed. Its calls block.
pub struct Press {
    directory: Arc<Directory>,
    authorities: Vec<Fingerprint>,
    store: DocStore,
    shelf: Shelf,
    stock: Mutex<Stock>,
    /// Held while a file is written.
    disk: Mutex<()>,
}

#[derive(Default)]
struct Stock {
    library: Library,
    archive: Archive,
}

impl Press {
    /// Opens what lies in `data`, and serves it. `authorities` are the v3 identities of all that count.
    pub fn open(
        data: &Path,
        authorities: Vec<Fingerprint>,
        directory: Arc<Directory>,
        now: Unix,
    ) -> Result<Press, StoreError> {
        let store = DocStore::open(data)?;
        let shelf = store.shelf(SHELF);
        let press =
            Press { directory, authorities, store, shelf, stock: Mutex::default(), disk: Mutex::default() };
        press.load(now);
        Ok(press)
    }

    fn load(&self, now: Unix) {
        let mut stock = self.lock();
        let load = |file| {
            self.store.load(file).unwrap_or_else(|error| {
                warn!("{error}");
                String::new()
            })
        };
        stock.library.add_certs(check::certs(&load(Cached::Certs), &self.authorities, now).fit);
        for flavor in Flavor::ALL {
            let text = load(file_of(flavor));
            if text.is_empty() {
                continue;
            }
            let certs = stock.library.certs();
            match check::consensus(&text, flavor, None, &self.authorities, certs, &Encoding::ALL, now) {
                Ok(checked) => stock.library.set_consensus(checked, now),
                Err(error) => info!("the consensus of an earlier run is of no more use: {error}"),
            }
        }
        let wanted = stock.library.missing_microdescs();
        stock.library.add_microdescs(check::microdescs(&load(Cached::Microdescs), &wanted).fit, now);
        match Archive::load(&self.shelf) {
            Ok(archive) => stock.archive = archive,
            Err(error) => warn!("there are no diffs from consensuses of an earlier run: {error}"),
        }
        self.serve(&stock);
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The consensus of the flavour that names router descriptors.
    pub fn consensus(&self) -> Option<Arc<Consensus>> {
        self.lock().library.consensus(Flavor::Ns).cloned()
    }

    /// The parameters in force.
    pub fn params(&self) -> ConsensusParams {
        self.consensus().map_or_else(ConsensusParams::default, |consensus| consensus.params.clone())
    }

    /// Puts a consensus in force that enough authorities signed, and makes diffs to it. Takes some seconds for the public
    /// network's.
    pub fn take_consensus(
        &self,
        text: &str,
        flavor: Flavor,
        now: Unix,
    ) -> Result<Arc<Consensus>, ConsensusUnfit> {
        let (held, certs) = {
            let library = &self.lock().library;
            (library.consensus(flavor).map(|held| held.lifetime.valid_after), library.certs().clone())
        };
        let checked = check::consensus(text, flavor, held, &self.authorities, &certs, &Encoding::ALL, now)?;
        {
            let mut stock = self.lock();
            // Another may have come meanwhile.
            let held = stock.library.consensus(flavor).map(|held| held.lifetime.valid_after);
            if held.is_some_and(|held| checked.consensus.lifetime.valid_after <= held) {
                return Err(ConsensusUnfit::NotNewer);
            }
            if let Some(before) = stock.library.stored(flavor).map(|stored| Past::new(flavor, stored)) {
                self.archive(&mut stock.archive, before);
            }
            stock.library.set_consensus(checked, now);
            self.serve(&stock);
        }
        let text =
            |library: &Library| library.stored(flavor).map(|stored| stored.whole.form(Encoding::Identity));
        self.write(file_of(flavor), |library| text(library).into_iter().collect());
        self.make_diffs(flavor);
        // It was set, and nobody takes it away.
        self.lock().library.consensus(flavor).cloned().ok_or(ConsensusUnfit::NotNewer)
    }

    /// Adds certificates of authorities; says whether any was new.
    pub fn add_certs(&self, text: &str, now: Unix) -> bool {
        let mut stock = self.lock();
        let mut fit = check::certs(text, &self.authorities, now).fit;
        let known =
            |cert: &AuthCert| stock.library.certs().get(&cert.identity, &cert.signing_key_id).is_some();
        fit.retain(|(cert, _)| !known(cert));
        if fit.is_empty() {
            return false;
        }
        stock.library.add_certs(fit);
        self.serve(&stock);
        drop(stock);
        self.write(Cached::Certs, |library| library.cert_texts().cloned().collect());
        true
    }

    /// Adds microdescriptors that a vote of ours names.
    pub fn add_microdescs(&self, microdescs: Vec<(Microdesc, Blob)>, now: Unix) {
        let mut stock = self.lock();
        stock.library.add_microdescs(microdescs, now);
        self.serve(&stock);
        drop(stock);
        self.write(Cached::Microdescs, |library| library.microdesc_texts().cloned().collect());
    }

    fn serve(&self, stock: &Stock) {
        let snapshot = stock.library.snapshot();
        self.directory.change(|documents| {
            let served = &mut documents.served;
            (served.ns, served.microdesc) = (snapshot.ns.clone(), snapshot.microdesc.clone());
            (served.certs, served.microdescs) = (snapshot.certs.clone(), snapshot.microdescs.clone());
        });
    }

    fn archive(&self, archive: &mut Archive, before: Past) {
        let gone = archive.add(before.clone());
        let stored = before.store(&self.shelf);
        let stored = stored.and_then(|()| gone.iter().try_for_each(|gone| gone.remove(&self.shelf)));
        if let Err(error) = stored {
            warn!("an earlier consensus is kept in memory only: {error}");
        }
    }

    /// Each is served as soon as it is there, the newest base first.
    fn make_diffs(&self, flavor: Flavor) {
        let (bases, target) = {
            let stock = self.lock();
            let Some(stored) = stock.library.stored(flavor) else { return };
            (stock.archive.of(flavor).to_vec(), stored.clone())
        };
        let text = target.whole.form(Encoding::Identity);
        let mut room = DIFF_BYTES;
        for past in bases {
            match past.diff_to(&text) {
                Ok(diff) => {
                    let Some(left) = room.checked_sub(diff.size()) else { return };
                    room = left;
                    let mut stock = self.lock();
                    stock.library.add_diff(flavor, past.signed_sha3, target.signed_sha3, diff);
                    self.serve(&stock);
                }
                Err(error) => debug!("no diff from {}: {error}", format_time(past.valid_after)),
            }
        }
    }

    /// Writes what the library has now, one file after the other: whoever comes later writes the newer.
    fn write(&self, file: Cached, texts: impl Fn(&Library) -> Vec<Blob>) {
        let _alone = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = texts(&self.lock().library);
        if let Err(error) = self.store.replace(file, texts.iter().map(|text| &text[..])) {
            warn!("documents are kept in memory only: {error}");
        }
    }
}

fn file_of(flavor: Flavor) -> Cached {
    match flavor {
        Flavor::Ns => Cached::Consensus,
        Flavor::Microdesc => Cached::MicrodescConsensus,
    }
}

/// Bytes that a consensus of others may have.
pub const CONSENSUS_MAX: usize = DIR_CONSENSUS;
