//! Keeping a directory current, whoever carries the requests: what is due, what answers are worth, what goes to the disk.
//!
//! A [`Keeper`] is told the time and handed answers. Its driver asks [`Keeper::poll`] for requests, sends them to
//! directories of its choice, and hands in what comes with [`Keeper::take`], or [`Keeper::fail`] if nothing does. When
//! [`Keeper::has_changed`] says so, there is something new in the [`Keeper::library`].
//!
//! [`Keeper::load`] and [`Keeper::take`] check signatures, compress and write to the disk: for the public network's
//! documents they take up to seconds, so they are to be called on a thread that may wait. All else is quick.

use std::collections::BTreeMap;
use std::time::Duration;

use onionring_proto::dir::backoff::Delays;
use onionring_proto::dir::fetch::{Fetch, FetchId, Fetcher, Outcome, Role};
use onionring_proto::dir::request::DirRequest;
use onionring_proto::limits::{EXTRA_INFO, ROUTER_DESCRIPTOR};
use onionring_proto::netdoc::consdiff::{self, ApplyError};
use onionring_proto::netdoc::consensus::{Flavor, Lifetime, Shortfall};
use onionring_proto::netdoc::text::{self, Fingerprint};
use onionring_proto::time::{Mono, Unix};
use tracing::{debug, info, warn};

use super::answer::Answer;
use super::archive::{Archive, Past};
use super::check::{self, Checked, ConsensusUnfit};
use super::library::Library;
use super::snapshot::Encoded;
use super::spool::Blob;
use crate::compress::Encoding;
use crate::docstore::{Cached, DocStore};
use crate::limits;
use crate::log::RateLimit;

mod disk;

/// Time between two messages about directories that do not answer, or refuse.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(600);

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// For time-outs.
    pub mono: Mono,
    /// For what documents and answers say.
    pub unix: Unix,
}

/// What is to be kept.
#[derive(Clone, Debug)]
pub struct KeeperSettings {
    /// Directory cache or not.
    pub role: Role,
    /// Whether extra-infos are fetched and served.
    pub extra_infos: bool,
    /// The v3 identities of the authorities.
    pub authorities: Vec<Fingerprint>,
    /// Retry delays: those of a testing network, or of a real one.
    pub delays: Delays,
}

/// How the keeping goes, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeeperState {
    /// Documents that are wanted and not here, consensuses aside.
    pub missing: usize,
    /// Microdescriptors that are here.
    pub microdescs: usize,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests without a usable answer, by reason: what [`Keeper::fail`] was told, `refused`, or `unfit`.
    pub failed: BTreeMap<&'static str, u64>,
    /// Bytes of documents received, decompressed.
    pub bytes: u64,
    /// Documents that were not fit to be kept.
    pub unfit: u64,
    /// Consensuses of which only the difference from the one before was sent.
    pub diffs: u64,
    /// When the consensus in force was made, by flavour (`ns`, `microdesc`).
    pub valid_after: [Option<Unix>; 2],
    /// The last consensus that was refused because it was more than a day outside its time, and when: if it is
    /// genuine, which nobody has checked, our clock is wrong. Cleared by the next one that is taken.
    pub untimely: Option<(Lifetime, Unix)>,
    /// Whether the last attempt to write to the disk failed.
    pub disk_failing: bool,
}

/// A consensus that lacks certificates to be checked.
struct Unchecked {
    flavor: Flavor,
    from: Source,
    text: String,
    shortfall: Shortfall,
}

/// Where an answer comes from.
#[derive(Clone)]
struct Source {
    fetch: FetchId,
    server: String,
}

/// The diffs that are to be made to a consensus, from each of `bases`, the newest first.
pub struct DiffsDue {
    /// Its flavour.
    pub flavor: Flavor,
    /// SHA3-256 of its signed part.
    pub target: [u8; 32],
    /// Its text.
    pub text: Blob,
    /// The consensuses before it.
    pub bases: Vec<Past>,
}

/// Keeps a directory current; see the [module](self).
pub struct Keeper {
    settings: KeeperSettings,
    store: Option<DocStore>,
    fetcher: Fetcher,
    library: Library,
    archive: Archive,
    /// One of a flavour at most.
    unchecked: Vec<Unchecked>,
    blamed: Vec<FetchId>,
    has_changed: bool,
    state: KeeperState,
}

impl Keeper {
    /// A keeper that knows nothing yet. Without a `store`, nothing survives a restart.
    pub fn new(settings: KeeperSettings, store: Option<DocStore>) -> Keeper {
        let library = match settings.role {
            Role::Cache => Library::default(),
            Role::Plain => Library::without_texts(),
        };
        Keeper {
            fetcher: Fetcher::new(settings.role, settings.authorities.clone(), settings.delays),
            settings,
            store,
            library,
            archive: Archive::default(),
            unchecked: Vec::new(),
            blamed: Vec::new(),
            has_changed: false,
            state: KeeperState::default(),
        }
    }

    /// Reads what an earlier run left on disk; what is damaged is fetched again. Slow.
    pub fn load(&mut self, now: Unix) {
        self.read_disk(now);
        self.fetcher.check_certs(self.library.certs(), None, now);
        for flavor in self.settings.role.flavors() {
            self.announce_consensus(*flavor, now);
        }
        self.count();
        self.has_changed = true;
    }

    /// The documents at hand.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// How it goes.
    pub fn state(&self) -> &KeeperState {
        &self.state
    }

    /// Whether the library has changed since this was asked last.
    pub fn has_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// The requests that were answered with a consensus that had to wait for certificates, and proved unfit when they
    /// came, since this was asked last.
    pub fn blamed(&mut self) -> Vec<FetchId> {
        std::mem::take(&mut self.blamed)
    }

    /// Whether a consensus waits for certificates.
    pub fn awaits_certs(&self) -> bool {
        !self.unchecked.is_empty()
    }

    /// The next request that is due, if any. Each must come back, with [`Keeper::take`], [`Keeper::fail`] or
    /// [`Keeper::withdraw`]. A driver that asks several servers the same may hand in all that they answer.
    pub fn poll(&mut self, now: Clocks) -> Option<Fetch> {
        self.fetcher.poll(now.mono, now.unix)
    }

    /// How long after `now` the next request may fall due on its own; `None` if only events can make one due.
    pub fn next_timeout(&self, now: Clocks) -> Option<Duration> {
        self.fetcher.next_timeout(now.mono, now.unix)
    }

    /// A request got no usable answer from the server of that name, for a `reason` that becomes a metric's label.
    pub fn fail(&mut self, fetch: &Fetch, reason: &'static str, now: Clocks) {
        *self.state.failed.entry(reason).or_default() += 1;
        self.finish(fetch, Outcome::Failed, now);
    }

    /// A request was not sent to anybody, or what came of it does not matter any more.
    pub fn withdraw(&mut self, fetch: &Fetch, now: Clocks) {
        self.finish(fetch, Outcome::Failed, now);
    }

    /// The server of that name answered. Says whether the answer was of use, so that servers whose answers are not are
    /// left alone. Slow.
    pub fn take(&mut self, fetch: &Fetch, server: &str, answer: Answer, now: Clocks) -> Outcome {
        let reason = if answer.status == 200 { "unfit" } else { "refused" };
        let from = Source { fetch: fetch.id, server: server.to_owned() };
        let outcome = self.judge(&from, &fetch.request, answer, now.unix);
        match outcome {
            Outcome::Answered => self.state.answered += 1,
            Outcome::Failed => *self.state.failed.entry(reason).or_default() += 1,
        }
        self.finish(fetch, outcome, now);
        outcome
    }

    fn finish(&mut self, fetch: &Fetch, outcome: Outcome, now: Clocks) {
        self.fetcher.finished(fetch.id, outcome, now.mono, now.unix, &mut rand::rng());
        self.count();
    }

    fn count(&mut self) {
        self.state.missing = self.fetcher.missing();
        self.state.microdescs = self.library.microdescs();
    }

    fn judge(&mut self, from: &Source, request: &DirRequest, answer: Answer, now: Unix) -> Outcome {
        let server = from.server.as_str();
        match answer.status {
            200 => {}
            // The server is well and has no such thing, or nothing newer.
            304 | 404 => return Outcome::Answered,
            status => {
                static REFUSED: RateLimit = RateLimit::every(COMPLAINT_INTERVAL);
                if let Some(suppressed) = REFUSED.check() {
                    info!(server, status, reason = answer.reason, "this directory refuses{suppressed}");
                }
                return Outcome::Failed;
            }
        }
        self.state.bytes += answer.body.len() as u64;
        let Ok(text) = String::from_utf8(answer.body) else {
            warn!(server, "what this directory sends is not text");
            return Outcome::Failed;
        };
        match request {
            DirRequest::Consensus { flavor, .. } => self.take_answer(from, *flavor, text, now),
            DirRequest::CertsById(_) | DirRequest::CertsBySigningKey(_) => {
                self.take_certs(server, &text, now)
            }
            DirRequest::Microdescs(_) => {
                let checked = check::microdescs(&text, &self.library.missing_microdescs());
                let (outcome, fit) = self.weigh(server, "microdescriptors", checked);
                self.keep(Cached::Microdescs, &fit);
                fit.iter().for_each(|(m, _)| self.fetcher.got_microdesc(&m.digest));
                self.library.add_microdescs(fit, now);
                outcome
            }
            DirRequest::Descriptors(_) | DirRequest::DescriptorsById(_) => {
                let checked = check::descriptors(&text, &self.library.missing_descriptors());
                let (outcome, fit) = self.weigh(server, "router descriptors", checked);
                self.keep(Cached::Descriptors, &fit);
                fit.iter().for_each(|(d, _)| self.fetcher.got_descriptor(&d.digest));
                self.library.add_descriptors(fit, now);
                self.want_extra_infos();
                outcome
            }
            DirRequest::ExtraInfos(_) => {
                let checked = check::extra_infos(&text, &self.library.missing_extra_infos());
                let (outcome, fit) = self.weigh(server, "extra-infos", checked);
                self.keep(Cached::ExtraInfos, &fit);
                fit.iter().for_each(|(e, _)| self.fetcher.got_extra_info(&e.digests.sha1));
                self.library.add_extra_infos(fit);
                outcome
            }
        }
    }

    /// A server of which nothing can be used is not asked again soon.
    fn weigh<D>(&mut self, server: &str, what: &str, checked: Checked<D>) -> (Outcome, Vec<(D, Blob)>) {
        self.state.unfit += checked.unfit as u64;
        if let Some(fault) = &checked.fault {
            let unfit = checked.unfit;
            info!(server, unfit, "some {what} of this directory are not fit to be kept: {fault}");
        }
        self.has_changed |= !checked.fit.is_empty();
        let useless = checked.fit.is_empty() && checked.unfit > 0;
        (if useless { Outcome::Failed } else { Outcome::Answered }, checked.fit)
    }

    /// Takes the answer to a request for a consensus: the whole, or a diff from the one at hand. After a diff that is
    /// of no use the whole is asked for, so that no server's diffs can keep the next consensus from us.
    fn take_answer(&mut self, from: &Source, flavor: Flavor, text: String, now: Unix) -> Outcome {
        if !consdiff::is_diff(&text) {
            return self.take_consensus(from, flavor, text, now);
        }
        let base = self.diff_base(flavor);
        if base.is_none() && self.library.stored(flavor).is_some() {
            // No fault of the server's.
            info!(
                "the next consensus is fetched whole: {} is not what was written there",
                disk::file_of(flavor).file_name()
            );
            self.fetcher.refuse_diffs(flavor);
            return Outcome::Answered;
        }
        let made = base.ok_or(ApplyError::OtherBase).and_then(|base| {
            let base = onionring_proto::netdoc::text_of(&base).map_err(|_| ApplyError::OtherBase)?;
            consdiff::apply(base, &text)
        });
        let outcome = match made {
            Ok(text) => {
                self.state.diffs += 1;
                self.take_consensus(from, flavor, text, now)
            }
            Err(error) => {
                warn!(
                    server = from.server,
                    ?flavor,
                    "a consensus diff of this directory is of no use: {error}"
                );
                self.state.unfit += 1;
                Outcome::Failed
            }
        };
        if outcome == Outcome::Failed {
            self.fetcher.refuse_diffs(flavor);
        }
        outcome
    }

    /// The encodings in which a consensus is kept in memory. Where nobody is served, that is the one that diffs are applied
    /// to, unless the disk has it.
    fn encodings(&self) -> &'static [Encoding] {
        match (self.settings.role, &self.store) {
            (Role::Cache, _) => &Encoding::ALL,
            (Role::Plain, None) => &[Encoding::Identity],
            (Role::Plain, Some(_)) => &[],
        }
    }

    /// The text of the consensus at hand. Whoever serves nobody has that on the disk only, where it may be gone.
    fn diff_base(&self, flavor: Flavor) -> Option<Blob> {
        let stored = self.library.stored(flavor)?;
        if let Some(text) = stored.whole.get(Encoding::Identity) {
            return Some(text.clone());
        }
        let text = self.store.as_ref()?.load(disk::file_of(flavor)).ok()?;
        (consdiff::signed_sha3(&text) == stored.signed_sha3).then(|| text.into_bytes().into())
    }

    fn take_consensus(&mut self, from: &Source, flavor: Flavor, text: String, now: Unix) -> Outcome {
        let server = from.server.as_str();
        let authorities = &self.settings.authorities;
        let held = self.library.consensus(flavor).map(|c| c.lifetime.valid_after);
        let encodings = self.encodings();
        let checked =
            check::consensus(&text, flavor, held, authorities, self.library.certs(), encodings, now);
        self.unchecked.retain(|u| u.flavor != flavor);
        match checked {
            Ok(checked) => {
                let lifetime = checked.consensus.lifetime;
                info!(
                    ?flavor,
                    relays = checked.consensus.relays.len(),
                    valid_until = text::format_time(lifetime.valid_until),
                    "there is a new consensus"
                );
                self.archive_consensus(flavor);
                self.rewrite(disk::file_of(flavor), [text.as_bytes()]);
                self.library.set_consensus(checked, now);
                self.announce_consensus(flavor, now);
                self.state.untimely = None;
                self.has_changed = true;
                Outcome::Answered
            }
            Err(ConsensusUnfit::NotNewer) => Outcome::Answered,
            Err(ConsensusUnfit::Signatures(shortfall)) if shortfall.certs_may_help() => {
                debug!(server, "certificates are missing to check a consensus");
                self.fetcher.check_certs(self.library.certs(), Some(&shortfall), now);
                self.unchecked.push(Unchecked { flavor, from: from.clone(), text, shortfall });
                Outcome::Answered
            }
            Err(error) => {
                if let ConsensusUnfit::NotLive(lifetime) = error {
                    self.state.untimely = Some((lifetime, now));
                }
                warn!(server, ?flavor, "the consensus of this directory is not fit to be used: {error}");
                self.state.unfit += 1;
                Outcome::Failed
            }
        }
    }

    /// Tells the fetcher what a consensus asks for.
    fn announce_consensus(&mut self, flavor: Flavor, now: Unix) {
        let Some(consensus) = self.library.consensus(flavor).cloned() else { return };
        let library = &self.library;
        self.fetcher.got_consensus(
            &consensus,
            |digest| library.has_microdesc(digest),
            |digest| library.has_descriptor(digest),
            now,
            &mut rand::rng(),
        );
        self.fetcher.check_certs(self.library.certs(), self.unchecked.first().map(|u| &u.shortfall), now);
        self.want_extra_infos();
        let index = usize::from(flavor == Flavor::Microdesc);
        self.state.valid_after[index] = Some(consensus.lifetime.valid_after);
    }

    fn want_extra_infos(&mut self) {
        if self.settings.extra_infos && self.settings.role == Role::Cache {
            self.fetcher.want_extra_infos(self.library.missing_extra_infos().into_keys());
        }
    }

    fn take_certs(&mut self, server: &str, text: &str, now: Unix) -> Outcome {
        let checked = check::certs(text, &self.settings.authorities, now);
        let (outcome, fit) = self.weigh(server, "certificates", checked);
        if fit.is_empty() {
            return outcome;
        }
        self.library.add_certs(fit);
        let texts: Vec<Blob> = self.library.cert_texts().cloned().collect();
        self.rewrite(Cached::Certs, texts.iter().map(|text| &text[..]));
        // The consensus that they were fetched for can be checked now.
        for unchecked in std::mem::take(&mut self.unchecked) {
            let Unchecked { flavor, from, text, .. } = unchecked;
            if self.take_consensus(&from, flavor, text, now) == Outcome::Failed {
                *self.state.failed.entry("unfit").or_default() += 1;
                self.blamed.push(from.fetch);
            }
        }
        self.fetcher.check_certs(self.library.certs(), self.unchecked.first().map(|u| &u.shortfall), now);
        outcome
    }

    /// The diffs that a directory cache should make to the consensuses in force. Each may take a second
    /// ([`Past::diff_to`]), and comes into force with [`Keeper::add_diff`].
    pub fn diffs_due(&self) -> Vec<DiffsDue> {
        let due = |flavor| {
            let stored = self.library.stored(flavor)?;
            let bases = self.archive.of(flavor).to_vec();
            let text = stored.whole.form(Encoding::Identity);
            (!bases.is_empty()).then_some(DiffsDue { flavor, target: stored.signed_sha3, text, bases })
        };
        Flavor::ALL.into_iter().filter_map(due).collect()
    }

    /// A diff was made.
    pub fn add_diff(&mut self, flavor: Flavor, base: [u8; 32], target: [u8; 32], diff: Encoded) {
        self.library.add_diff(flavor, base, target, diff);
    }
}

/// Bytes that the answer to a request may have.
pub fn bytes_max(request: &DirRequest) -> usize {
    /// An authority certificate has about 2 KiB, a microdescriptor below 1 KiB but for large families.
    const CERT: usize = 16 * 1024;
    const MICRODESC: usize = ROUTER_DESCRIPTOR;
    match request {
        DirRequest::Consensus { .. } => limits::DIR_CONSENSUS,
        DirRequest::CertsById(ids) => ids.len() * CERT,
        DirRequest::CertsBySigningKey(pairs) => pairs.len() * CERT,
        DirRequest::Microdescs(digests) => digests.len() * MICRODESC,
        DirRequest::Descriptors(digests) | DirRequest::DescriptorsById(digests) => {
            digests.len() * ROUTER_DESCRIPTOR
        }
        DirRequest::ExtraInfos(digests) => digests.len() * EXTRA_INFO,
    }
}

#[cfg(test)]
mod tests;
