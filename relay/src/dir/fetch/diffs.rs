//! Making diffs of consensuses.
//!
//! Those to a new consensus are made one after the other on the thread for long work, the newest base first, while the
//! whole consensus is served already; each is put in force when it is there. A newer consensus ends that.

use glommio::Task;
use onionring_node::directory::keeper::DiffsDue;

use super::*;
use crate::dir::snapshot::Encoded;

/// A diff that was made.
pub(super) struct Made {
    flavor: Flavor,
    base: [u8; 32],
    target: [u8; 32],
    diff: Encoded,
}

/// By flavour: to which consensus diffs are being made, or have been. Dropping the task stops it.
pub(super) type Making = BTreeMap<Flavor, ([u8; 32], Task<()>)>;

impl<T: Transport + 'static> DirClient<T> {
    /// Begins to make the diffs to what is newly in force.
    pub(super) fn make_diffs(&mut self, events: &Rc<LocalSender<Event>>) {
        let due = self.keeper().diffs_due();
        for due in due {
            let (flavor, target) = (due.flavor, due.target);
            if self.making.get(&flavor).is_some_and(|(to, _)| *to == target) {
                continue;
            }
            self.making.insert(flavor, (target, glommio::spawn_local(make_all(due, events.clone()))));
        }
    }

    /// Puts a diff in force.
    pub(super) fn take_made(&mut self, made: Made) {
        let mut keeper = self.keeper();
        keeper.add_diff(made.flavor, made.base, made.target, made.diff);
        if let Some(stored) = keeper.library().stored(made.flavor) {
            self.directory.set_consensus(made.flavor, stored.clone());
        }
    }
}

async fn make_all(due: DiffsDue, events: Rc<LocalSender<Event>>) {
    let mut room = limits::DIR_DIFF_BYTES;
    for past in due.bases {
        let (flavor, base, valid_after) = (past.flavor, past.signed_sha3, past.valid_after);
        let text = due.text.clone();
        let from = netdoc::text::format_time(valid_after);
        match blocking(move || past.diff_to(&text)).await {
            Ok(diff) => {
                let Some(left) = room.checked_sub(diff.size()) else {
                    debug!(?flavor, from, "the diffs are too long to make more");
                    return;
                };
                room = left;
                // Without a receiver the client is gone, and nobody wants to know.
                let _ = events.try_send(Event::Made(Made { flavor, base, target: due.target, diff }));
            }
            Err(error) => debug!(?flavor, from, "there is no diff from this consensus: {error}"),
        }
    }
}
