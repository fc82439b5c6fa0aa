//! Uploads of relays, from their bytes to what is stored and answered: judged ([`crate::admission`]), their keys pinned
//! ([`crate::keypin`]), put on the list of those who wait ([`crate::approval`]), and stored ([`crate::store`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onionring_node::docstore::StoreError;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use thiserror::Error;
use tracing::{debug, error, info, warn};

use crate::admission::{Admission, AdmissionOptions, Answer, Document, Judged, Verdict};
use crate::approval::{Approvals, Pending};
use crate::files::{self, FileError, Journal};
use crate::keypin::KeyPins;
use crate::store::{AddError, Store};

/// The files, under C tor's names where it has them.
const PINS: &str = "key-pinning-journal";
/// The file with the relays that wait for approval.
pub const PENDING: &str = "pending-relays";
/// The file with what the administrator decided about relays.
pub const APPROVED: &str = "approved-routers";

/// Why the state on disk cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The pinned keys or the list of those who wait.
    #[error(transparent)]
    File(#[from] FileError),
    /// The documents.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of the documents that were received, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Stored, of relays that may be listed.
    pub stored: u64,
    /// Stored, of relays that wait for approval; extra-infos count by their descriptor.
    pub pending: u64,
    /// Well and known before.
    pub not_new: u64,
    /// Well, and for want of room or a working disk not stored.
    pub unsaved: u64,
    /// Refused, by the label of why.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Received {
    fn count(&mut self, verdict: &Verdict) {
        let counter = match verdict {
            Verdict::Stored { listed: true, .. } => &mut self.stored,
            Verdict::Stored { listed: false, .. } => &mut self.pending,
            Verdict::NotNew(_) => &mut self.not_new,
            Verdict::Refused(refusal) => self.refused.entry(refusal.label()).or_default(),
        };
        *counter += 1;
    }
}

/// All that an upload meets.
#[derive(Debug)]
pub struct Uploads {
    options: AdmissionOptions,
    approvals: Approvals,
    pins: KeyPins,
    journal: Journal,
    pending: Pending,
    pending_file: PathBuf,
    store: Store,
    /// Relays that are to be probed; all of them had a newest descriptor.
    probes: BTreeSet<Fingerprint>,
    received: Received,
}

impl Uploads {
    /// Opens the state in a directory, which is made if it is missing.
    pub fn open(
        directory: &Path,
        options: AdmissionOptions,
        approvals: Approvals,
        now: Unix,
    ) -> Result<Uploads, OpenError> {
        let (store, _) = Store::open(directory, now)?;
        let (pins_file, pending_file) = (directory.join(PINS), directory.join(PENDING));
        let (pins, found) = KeyPins::read(&files::read(&pins_file)?.unwrap_or_default());
        info!("{} pairs of identities are pinned", pins.len());
        if found.damaged > 0 {
            warn!("{} lines of {} are damaged and left out", found.damaged, pins_file.display());
        }
        let pending = files::read(&pending_file)?.unwrap_or_default();
        let mut uploads = Uploads {
            options,
            approvals,
            pins,
            journal: Journal::open(&pins_file, now)?,
            pending: Pending::read(&String::from_utf8_lossy(&pending)),
            pending_file,
            store,
            probes: BTreeSet::new(),
            received: Received::default(),
        };
        // Decisions may have been made while this did not run.
        uploads.settle();
        Ok(uploads)
    }

    /// Judges the body of an upload from this address and stores what is good: what the relay is told. All that the answer
    /// promises is on the disk afterwards.
    pub fn receive(&mut self, body: &[u8], from: Option<IpAddr>, now: Unix) -> Answer {
        let upload = Admission {
            options: &self.options,
            approvals: &self.approvals,
            pins: &mut self.pins,
            stored: self.store.newest(),
            now,
        }
        .judge(body);
        let answer = upload.answer();
        let mut failed = false;
        for pin in &upload.pinned {
            if let Err(error) = self.journal.append(pin) {
                error!("the keys of the relay {} are pinned only until a restart: {error}", pin.rsa);
                failed = true;
            }
        }
        for judged in &upload.judged {
            log(judged);
            match self.keep(judged, from, now) {
                Ok(()) => self.received.count(&judged.verdict),
                Err(error) => {
                    error!("an upload is not stored: {error}");
                    self.received.unsaved += 1;
                    failed = true;
                }
            }
        }
        if failed && answer.status == 200 {
            let reason =
                "This authority cannot store documents at the moment. Please try again later.".into();
            return Answer { status: 503, reason, not_new: false };
        }
        answer
    }

    /// Keeps what was judged good.
    fn keep(&mut self, judged: &Judged<'_>, from: Option<IpAddr>, now: Unix) -> Result<(), AddError> {
        let Verdict::Stored { listed, probe: is_due } = judged.verdict else { return Ok(()) };
        match &judged.document {
            Some(Document::Descriptor(descriptor)) => {
                self.store.add_descriptor(descriptor.clone(), judged.text, from)?;
                if !listed {
                    self.pending.note(descriptor, now);
                    self.write_pending();
                }
                if is_due {
                    self.probes.insert(descriptor.identity);
                }
            }
            Some(Document::ExtraInfo(extra_info)) => self.store.add_extra_info(extra_info, judged.text)?,
            None => {}
        }
        Ok(())
    }

    /// Judges uploads by other options from now on.
    pub fn set_options(&mut self, options: AdmissionOptions) {
        self.options = options;
    }

    /// Follows other decisions of the administrator from now on. What is stored of relays that are rejected is dropped.
    pub fn set_approvals(&mut self, approvals: Approvals) {
        self.approvals = approvals;
        self.settle();
    }

    /// Drops the documents of relays that are rejected, and those who wait no longer from the list.
    fn settle(&mut self) {
        let approvals = &self.approvals;
        let is_rejected = |descriptor: &RouterDesc| {
            let RouterDesc { identity, ed_identity, ipv4, .. } = descriptor;
            approvals.standing(identity, ed_identity, *ipv4).marks.reject
        };
        for identity in self.store.remove_if(is_rejected) {
            info!("the relay {identity} is rejected, and what is stored of it is dropped");
        }
        self.pending.settle(&self.approvals);
        self.write_pending();
    }

    /// The list is for the administrator to look at: without it on disk, nothing else fails.
    fn write_pending(&self) {
        if let Err(error) = files::replace(&self.pending_file, &self.pending.write()) {
            warn!("the list of relays that wait for approval is not up to date: {error}");
        }
    }

    /// Forgets documents that are too old. To be called every few minutes.
    pub fn expire(&mut self, now: Unix) {
        if let Err(error) = self.store.expire(now) {
            warn!("what is forgotten stays on disk for now: {error}");
        }
        let newest = self.store.newest();
        self.probes.retain(|identity| newest.contains_key(identity));
    }

    /// These relays were found to be reachable: from now on strangers take no room from them. To be told of every round of
    /// probes, and after a start of all relays that the history knows to have been up, as nothing on disk says it.
    pub fn vouch<'a>(&mut self, identities: impl IntoIterator<Item = &'a Fingerprint>) {
        self.store.vouch(identities);
    }

    /// The documents.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the documents have changed since this was called last.
    pub fn take_changed(&mut self) -> bool {
        self.store.take_changed()
    }

    /// The relays that are to be probed at once, because they are new, have moved or come back; each is given once, with
    /// its newest descriptor. They are not remembered over a restart: after a start all that are stored are to be probed.
    pub fn take_probes(&mut self) -> BTreeMap<Fingerprint, Arc<RouterDesc>> {
        let newest = self.store.newest();
        let with_newest = |identity| Some((identity, newest.get(&identity)?.clone()));
        std::mem::take(&mut self.probes).into_iter().filter_map(with_newest).collect()
    }

    /// What became of the documents that were received since the start.
    pub fn received(&self) -> &Received {
        &self.received
    }

    /// The relays that wait for approval.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }
}

fn log(judged: &Judged<'_>) {
    let (what, relay) = match &judged.document {
        Some(Document::Descriptor(descriptor)) => ("descriptor", descriptor.identity.to_string()),
        Some(Document::ExtraInfo(extra_info)) => ("extra-info", extra_info.identity.to_string()),
        None => ("upload", "nobody known".to_owned()),
    };
    match &judged.verdict {
        Verdict::Refused(refusal) => info!("the {what} of {relay} is refused: {refusal}"),
        Verdict::NotNew(why) => debug!("the {what} of {relay} is not stored: {why}"),
        Verdict::Stored { listed: false, .. } => info!("the relay {relay} waits for approval"),
        Verdict::Stored { listed: true, .. } => debug!("the {what} of {relay} is stored"),
    }
}

#[cfg(test)]
mod tests;
