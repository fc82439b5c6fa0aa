//! Diffs of consensuses, received and made.
//!
//! Those to a new consensus are made one after the other on the thread for long work, the newest base first, while the
//! whole consensus is served already; each is put in force when it is there. A newer consensus ends that.

use glommio::Task;
use onionring_proto::netdoc::consdiff::{self, ApplyError};

use super::*;
use crate::dir::archive::{Archive, Past};
use crate::dir::snapshot::Encoded;

/// The folder of earlier consensuses.
const SHELF: &str = "past-consensuses";

/// A diff that was made.
pub(super) struct Made {
    flavor: Flavor,
    base: [u8; 32],
    target: [u8; 32],
    diff: Encoded,
}

/// What it takes to make diffs.
#[derive(Default)]
pub(super) struct Diffs {
    archive: Archive,
    /// By flavour: to which consensus diffs are being made, or have been. Dropping the task stops it.
    making: BTreeMap<Flavor, ([u8; 32], Task<()>)>,
}

impl<T: Transport + 'static> DirClient<T> {
    /// Reads the consensuses before those in force from the disk. Only directory caches have a use for them.
    pub(super) async fn load_archive(&mut self) {
        let Some(shelf) = self.shelf() else { return };
        match blocking(move || Archive::load(&shelf)).await {
            Ok(archive) => self.diffs.archive = archive,
            Err(error) => warn!("there are no diffs from consensuses of an earlier run: {error}"),
        }
    }

    fn shelf(&self) -> Option<Shelf> {
        let store = self.store.as_ref().filter(|_| self.settings.role == Role::Cache)?;
        Some(store.shelf(SHELF))
    }

    /// Keeps the consensus that is being replaced.
    pub(super) async fn archive_consensus(&mut self, flavor: Flavor) {
        let Some(stored) = self.library.stored(flavor).filter(|_| self.settings.role == Role::Cache) else {
            return;
        };
        let past = Past::new(flavor, stored);
        let gone = self.diffs.archive.add(past.clone());
        if let Some(shelf) = self.shelf() {
            let result = blocking(move || {
                past.store(&shelf)?;
                gone.iter().try_for_each(|gone| gone.remove(&shelf))
            });
            self.note_disk(result.await);
        }
    }

    /// Begins to make the diffs to what is newly in force.
    pub(super) fn make_diffs(&mut self, events: &Rc<LocalSender<Event>>) {
        for flavor in Flavor::ALL {
            let Some(stored) = self.library.stored(flavor) else { continue };
            let target = stored.signed_sha3;
            let bases = self.diffs.archive.of(flavor).to_vec();
            if bases.is_empty() || self.diffs.making.get(&flavor).is_some_and(|(to, _)| *to == target) {
                continue;
            }
            let task = make_all(bases, target, stored.whole.form(Encoding::Identity), events.clone());
            self.diffs.making.insert(flavor, (target, glommio::spawn_local(task)));
        }
    }

    /// Puts a diff in force.
    pub(super) fn take_made(&mut self, made: Made) {
        self.library.add_diff(made.flavor, made.base, made.target, made.diff);
        if let Some(stored) = self.library.stored(made.flavor) {
            self.directory.set_consensus(made.flavor, stored.clone());
        }
    }

    /// The consensus that a diff from the one at hand makes.
    pub(super) async fn apply_diff(&self, flavor: Flavor, diff: String) -> Result<String, ApplyError> {
        let base = self.library.stored(flavor).map(|stored| stored.whole.form(Encoding::Identity));
        blocking(move || {
            let base = base.ok_or(ApplyError::OtherBase)?;
            consdiff::apply(netdoc::text_of(&base).map_err(|_| ApplyError::OtherBase)?, &diff)
        })
        .await
    }
}

async fn make_all(bases: Vec<Past>, target: [u8; 32], text: Blob, events: Rc<LocalSender<Event>>) {
    let mut room = limits::DIR_DIFF_BYTES;
    for past in bases {
        let (flavor, base, valid_after) = (past.flavor, past.signed_sha3, past.valid_after);
        let text = text.clone();
        let from = netdoc::text::format_time(valid_after);
        match blocking(move || past.diff_to(&text)).await {
            Ok(diff) => {
                let Some(left) = room.checked_sub(diff.size()) else {
                    debug!(?flavor, from, "the diffs are too long to make more");
                    return;
                };
                room = left;
                // Without a receiver the client is gone, and nobody wants to know.
                let _ = events.try_send(Event::Made(Made { flavor, base, target, diff }));
            }
            Err(error) => debug!(?flavor, from, "there is no diff from this consensus: {error}"),
        }
    }
}
