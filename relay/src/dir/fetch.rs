//! Keeping the directory current: asks authorities for what [`Fetcher`] says is due, checks what comes, keeps it on
//! disk, and puts it in force.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use glommio::channels::local_channel::{self, LocalSender};
use glommio::timer::timeout;
use onionring_node::compress::Encoding;
use onionring_node::docstore::{Cached, DocStore, Shelf, StoreError};
use onionring_node::log::RateLimit;
use onionring_proto::dir::backoff::Delays;
use onionring_proto::dir::fetch::{Fetch, FetchId, Fetcher, Outcome, Role};
use onionring_proto::dir::request::DirRequest;
use onionring_proto::dir::sources::Sources;
use onionring_proto::limits::{EXTRA_INFO, ROUTER_DESCRIPTOR};
use onionring_proto::netdoc::consensus::{Flavor, Shortfall};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::netdoc::{self, consdiff};
use onionring_proto::time::Unix;
use tracing::{debug, info, warn};

use super::check::{self, Checked, ConsensusUnfit};
use super::client::{self, Answer, DirServer, FetchError, Transport};
use super::clock::Clock;
use super::directory::{Directory, NetworkView};
use super::library::Library;
use super::spool::Blob;
use crate::limits;

mod diffs;

use diffs::{Diffs, Made};

/// What to fetch, and from whom.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// Directory cache or not (`DirCache`).
    pub role: Role,
    /// Whether to fetch and serve extra-infos (`DownloadExtraInfo`).
    pub extra_infos: bool,
    /// Retry delays: those of a testing network, or of a real one.
    pub delays: Delays,
    /// The authorities.
    pub servers: Vec<DirServer>,
}

/// How the fetching goes, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchState {
    /// Documents that are wanted and not here, consensuses aside.
    pub missing: usize,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests without a usable answer, by reason: a [`FetchError`]'s label, `refused`, or `unfit`.
    pub failed: BTreeMap<&'static str, u64>,
    /// Bytes of documents received, decompressed.
    pub bytes: u64,
    /// Documents that were not fit to be kept.
    pub unfit: u64,
    /// Consensuses of which only the difference from the one before was sent.
    pub diffs: u64,
    /// When the consensus in force was made, by flavour (`ns`, `microdesc`).
    pub valid_after: [Option<Unix>; 2],
    /// Whether the last attempt to write to the disk failed.
    pub disk_failing: bool,
    /// This relay's address as each server last saw it.
    pub seen: BTreeMap<usize, IpAddr>,
}

impl FetchState {
    /// This relay's IPv4 address as most servers see it: more than half of those that said one, and two at least, since
    /// any of them, and whoever is on the way to it, may lie.
    pub fn seen_ipv4(&self) -> Option<Ipv4Addr> {
        let mut told: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
        for address in self.seen.values() {
            if let IpAddr::V4(address) = address {
                *told.entry(*address).or_default() += 1;
            }
        }
        let all: usize = told.values().sum();
        told.into_iter().find(|(_, n)| *n >= 2 && 2 * n > all).map(|(address, _)| address)
    }
}

/// Time between two messages about servers that do not answer, or refuse.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(600);

/// At least how often the loop looks at the clock, in case it was set.
const LOOK: Duration = Duration::from_secs(60);

/// A consensus that lacks certificates to be checked.
struct Unchecked {
    flavor: Flavor,
    text: String,
    shortfall: Shortfall,
}

/// Keeps a [`Directory`] current. Lives on the control executor.
pub struct DirClient<T> {
    transport: Rc<T>,
    settings: FetchSettings,
    store: Option<DocStore>,
    directory: Arc<Directory>,
    clock: Clock,
    fetcher: Fetcher,
    /// The servers, by index into the settings.
    sources: Sources<usize>,
    library: Library,
    unchecked: Vec<Unchecked>,
    diffs: Diffs,
    dirty: bool,
    state: Rc<RefCell<FetchState>>,
}

/// What requests and other work under way tell the client.
enum Event {
    Fetched(Fetched),
    Made(Made),
}

struct Fetched {
    id: FetchId,
    server: usize,
    request: DirRequest,
    result: Result<Answer, FetchError>,
}

impl<T: Transport + 'static> DirClient<T> {
    /// A client that knows nothing yet. Without a `store`, nothing survives a restart.
    pub fn new(
        transport: T,
        settings: FetchSettings,
        store: Option<DocStore>,
        directory: Arc<Directory>,
        clock: Clock,
    ) -> Self {
        let authorities: Vec<Fingerprint> = settings.servers.iter().filter_map(|s| s.v3_ident).collect();
        DirClient {
            transport: Rc::new(transport),
            clock,
            fetcher: Fetcher::new(settings.role, authorities, settings.delays),
            sources: Sources::new(0..settings.servers.len(), settings.delays),
            settings,
            store,
            directory,
            library: Library::default(),
            unchecked: Vec::new(),
            diffs: Diffs::default(),
            dirty: false,
            state: Rc::default(),
        }
    }

    /// How the fetching goes; shows the current state for as long as it is held.
    pub fn state(&self) -> Rc<RefCell<FetchState>> {
        self.state.clone()
    }

    fn authorities(&self) -> Vec<Fingerprint> {
        self.settings.servers.iter().filter_map(|s| s.v3_ident).collect()
    }

    /// Fetches for ever; drop it to stop. `changed` is called whenever the directory has changed, for the first time
    /// when what is on disk has been read.
    pub async fn run(mut self, mut changed: impl FnMut()) {
        self.load().await;
        self.put_in_force();
        changed();
        let (sender, receiver) = local_channel::new_unbounded();
        let sender = Rc::new(sender);
        let mut under_way = 0;
        self.make_diffs(&sender);
        loop {
            while under_way < limits::DIR_FETCHES && self.start_one(&sender) {
                under_way += 1;
            }
            let patience = self.patience();
            match timeout(patience, async { Ok(receiver.recv().await) }).await {
                Ok(Some(Event::Fetched(fetched))) => {
                    under_way -= 1;
                    self.finish(fetched).await;
                }
                Ok(Some(Event::Made(made))) => self.take_made(made),
                _ => {}
            }
            // Answers come in bunches; one change for all that are here will do.
            if self.dirty && sender.len() == 0 {
                self.put_in_force();
                self.make_diffs(&sender);
                changed();
            }
        }
    }

    /// Starts the next request, if one is due and a server can be asked.
    fn start_one(&mut self, events: &Rc<LocalSender<Event>>) -> bool {
        let now = self.clock.now();
        if self.fetcher.next_timeout(now.mono, now.unix).is_none_or(|wait| !wait.is_zero()) {
            return false;
        }
        let Some(server) = self.sources.pick(now.mono, &mut rand::rng()) else { return false };
        let Some(Fetch { id, request }) = self.fetcher.poll(now.mono, now.unix) else {
            self.sources.succeeded(&server);
            return false;
        };
        let (transport, events) = (self.transport.clone(), events.clone());
        let asked = self.settings.servers[server].clone();
        glommio::spawn_local(async move {
            let (path, at_hand) = (request.path(), request.at_hand());
            debug!(server = asked.name, path, "fetching");
            let result = client::get(&*transport, &asked, &path, at_hand, bytes_max(&request)).await;
            // Without a receiver the client is gone, and nobody wants to know.
            let _ = events.try_send(Event::Fetched(Fetched { id, server, request, result }));
        })
        .detach();
        true
    }

    /// For how long nothing will be due.
    fn patience(&self) -> Duration {
        let now = self.clock.now();
        let due = self.fetcher.next_timeout(now.mono, now.unix).unwrap_or(LOOK);
        // What is due and was not started waits for a server, or for an answer.
        let server = self.sources.next_ready(now.mono).map_or(LOOK, |at| at.since(now.mono));
        let wait = if due.is_zero() { server } else { due };
        wait.clamp(Duration::from_millis(10), LOOK)
    }

    async fn finish(&mut self, fetched: Fetched) {
        let Fetched { id, server, request, result } = fetched;
        let reason = match &result {
            Err(error) => error.label(),
            Ok(answer) if answer.status != 200 => "refused",
            Ok(_) => "unfit",
        };
        let outcome = match result {
            Ok(answer) => {
                if let Some(address) = answer.your_address {
                    self.state.borrow_mut().seen.insert(server, address);
                }
                self.judge(server, &request, answer).await
            }
            Err(error) => {
                static FAILED: RateLimit = RateLimit::every(COMPLAINT_INTERVAL);
                let name = &self.settings.servers[server].name;
                if let Some(suppressed) = FAILED.check() {
                    info!(
                        server = name,
                        "no answer from this directory authority, asking others: {error}{suppressed}"
                    );
                }
                Outcome::Failed
            }
        };
        let now = self.clock.now();
        let rng = &mut rand::rng();
        let mut state = self.state.borrow_mut();
        match outcome {
            Outcome::Answered => {
                state.answered += 1;
                self.sources.succeeded(&server);
            }
            Outcome::Failed => {
                *state.failed.entry(reason).or_default() += 1;
                self.sources.failed(&server, now.mono, rng);
            }
        }
        self.fetcher.finished(id, outcome, now.mono, now.unix, rng);
        state.missing = self.fetcher.missing();
    }

    async fn judge(&mut self, server: usize, request: &DirRequest, answer: Answer) -> Outcome {
        let name = self.settings.servers[server].name.clone();
        match answer.status {
            200 => {}
            // The server is well and has no such thing, or nothing newer.
            304 | 404 => return Outcome::Answered,
            status => {
                static REFUSED: RateLimit = RateLimit::every(COMPLAINT_INTERVAL);
                if let Some(suppressed) = REFUSED.check() {
                    let reason = answer.reason;
                    info!(server = name, status, reason, "this directory authority refuses{suppressed}");
                }
                return Outcome::Failed;
            }
        }
        self.state.borrow_mut().bytes += answer.body.len() as u64;
        let Ok(text) = String::from_utf8(answer.body) else {
            warn!(server = name, "what this directory authority sends is not text");
            return Outcome::Failed;
        };
        match request {
            DirRequest::Consensus { flavor, .. } => self.take_answer(&name, *flavor, text).await,
            DirRequest::CertsById(_) | DirRequest::CertsBySigningKey(_) => self.take_certs(&name, text).await,
            DirRequest::Microdescs(_) => {
                let (wanted, now) = (self.library.missing_microdescs(), self.clock.now().unix);
                let checked = blocking(move || check::microdescs(&text, &wanted)).await;
                let (outcome, fit) = self.weigh(&name, "microdescriptors", checked);
                self.keep(Cached::Microdescs, texts(&fit)).await;
                fit.iter().for_each(|(m, _)| self.fetcher.got_microdesc(&m.digest));
                self.library.add_microdescs(fit, now);
                outcome
            }
            DirRequest::Descriptors(_) | DirRequest::DescriptorsById(_) => {
                let (wanted, now) = (self.library.missing_descriptors(), self.clock.now().unix);
                let checked = blocking(move || check::descriptors(&text, &wanted)).await;
                let (outcome, fit) = self.weigh(&name, "router descriptors", checked);
                self.keep(Cached::Descriptors, texts(&fit)).await;
                fit.iter().for_each(|(d, _)| self.fetcher.got_descriptor(&d.digest));
                self.library.add_descriptors(fit, now);
                self.want_extra_infos();
                outcome
            }
            DirRequest::ExtraInfos(_) => {
                let wanted = self.library.missing_extra_infos();
                let checked = blocking(move || check::extra_infos(&text, &wanted)).await;
                let (outcome, fit) = self.weigh(&name, "extra-infos", checked);
                self.keep(Cached::ExtraInfos, texts(&fit)).await;
                fit.iter().for_each(|(e, _)| self.fetcher.got_extra_info(&e.digests.sha1));
                self.library.add_extra_infos(fit);
                outcome
            }
        }
    }

    /// A server of which nothing can be used is not asked again soon.
    fn weigh<D>(&mut self, server: &str, what: &str, checked: Checked<D>) -> (Outcome, Vec<(D, Blob)>) {
        self.state.borrow_mut().unfit += checked.unfit as u64;
        if let Some(fault) = &checked.fault {
            let unfit = checked.unfit;
            info!(server, unfit, "some {what} of this directory authority are not fit to be kept: {fault}");
        }
        self.dirty |= !checked.fit.is_empty();
        let useless = checked.fit.is_empty() && checked.unfit > 0;
        (if useless { Outcome::Failed } else { Outcome::Answered }, checked.fit)
    }

    /// Takes the answer to a request for a consensus: the whole, or a diff from the one at hand. After a diff that is
    /// of no use the whole is asked for, so that no server's diffs can keep the next consensus from us.
    async fn take_answer(&mut self, server: &str, flavor: Flavor, text: String) -> Outcome {
        if !consdiff::is_diff(&text) {
            return self.take_consensus(server, flavor, text).await;
        }
        let outcome = match self.apply_diff(flavor, text).await {
            Ok(text) => {
                self.state.borrow_mut().diffs += 1;
                self.take_consensus(server, flavor, text).await
            }
            Err(error) => {
                warn!(server, ?flavor, "a consensus diff of this directory authority is of no use: {error}");
                self.state.borrow_mut().unfit += 1;
                Outcome::Failed
            }
        };
        if outcome == Outcome::Failed {
            self.fetcher.refuse_diffs(flavor);
        }
        outcome
    }

    async fn take_consensus(&mut self, server: &str, flavor: Flavor, text: String) -> Outcome {
        let now = self.clock.now().unix;
        let (authorities, certs) = (self.authorities(), self.library.certs().clone());
        let held = self.library.consensus(flavor).map(|c| c.lifetime.valid_after);
        let encodings = encodings(self.settings.role);
        let (checked, text) = blocking(move || {
            let checked = check::consensus(&text, flavor, held, &authorities, &certs, encodings, now);
            (checked, text)
        })
        .await;
        self.unchecked.retain(|u| u.flavor != flavor);
        match checked {
            Ok(checked) => {
                let lifetime = checked.consensus.lifetime;
                info!(
                    ?flavor,
                    relays = checked.consensus.relays.len(),
                    valid_until = netdoc::text::format_time(lifetime.valid_until),
                    "there is a new consensus"
                );
                self.archive_consensus(flavor).await;
                self.keep_consensus(flavor, checked.text.clone()).await;
                self.library.set_consensus(checked, now);
                self.announce_consensus(flavor);
                self.dirty = true;
                Outcome::Answered
            }
            Err(ConsensusUnfit::NotNewer) => Outcome::Answered,
            Err(ConsensusUnfit::Signatures(shortfall)) if shortfall.certs_may_help() => {
                debug!(server, "certificates are missing to check a consensus");
                self.fetcher.check_certs(self.library.certs(), Some(&shortfall), now);
                self.unchecked.push(Unchecked { flavor, text, shortfall });
                Outcome::Answered
            }
            Err(error) => {
                warn!(
                    server,
                    ?flavor,
                    "the consensus of this directory authority is not fit to be used: {error}"
                );
                self.state.borrow_mut().unfit += 1;
                Outcome::Failed
            }
        }
    }

    /// Tells the fetcher what a consensus asks for.
    fn announce_consensus(&mut self, flavor: Flavor) {
        let now = self.clock.now().unix;
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
        self.state.borrow_mut().valid_after[index] = Some(consensus.lifetime.valid_after);
    }

    fn want_extra_infos(&mut self) {
        if self.settings.extra_infos && self.settings.role == Role::Cache {
            self.fetcher.want_extra_infos(self.library.missing_extra_infos().into_keys());
        }
    }

    async fn take_certs(&mut self, server: &str, text: String) -> Outcome {
        let now = self.clock.now().unix;
        let authorities = self.authorities();
        let checked = blocking(move || check::certs(&text, &authorities, now)).await;
        let (outcome, fit) = self.weigh(server, "certificates", checked);
        if fit.is_empty() {
            return outcome;
        }
        self.library.add_certs(fit);
        let texts: Vec<Blob> = self.library.cert_texts().cloned().collect();
        self.rewrite(Cached::Certs, texts).await;
        // The consensus that they were fetched for can be checked now.
        for unchecked in std::mem::take(&mut self.unchecked) {
            self.take_consensus(server, unchecked.flavor, unchecked.text).await;
        }
        self.fetcher.check_certs(self.library.certs(), self.unchecked.first().map(|u| &u.shortfall), now);
        outcome
    }

    /// Hands the documents to everyone.
    fn put_in_force(&mut self) {
        self.dirty = false;
        self.directory.set_documents(self.library.snapshot());
        if let Some((consensus, microdescs)) = self.library.network() {
            self.directory.set_network(NetworkView::new(consensus, microdescs));
        }
    }

    /// Reads what an earlier run left on disk; what is damaged is fetched again.
    async fn load(&mut self) {
        let Some(store) = self.store.clone() else { return };
        let now = self.clock.now().unix;
        let authorities = self.authorities();
        let flavors = self.settings.role.flavors();
        let (role, extra_infos) = (self.settings.role, self.settings.extra_infos);
        self.library = blocking(move || load(&store, &authorities, role, extra_infos, now)).await;
        self.load_archive().await;
        self.fetcher.check_certs(self.library.certs(), None, now);
        flavors.iter().for_each(|flavor| self.announce_consensus(*flavor));
    }

    async fn keep_consensus(&mut self, flavor: Flavor, text: Blob) {
        self.rewrite(file_of(flavor), vec![text]).await;
    }

    /// Appends documents to a file, or rewrites it once its journal has become long.
    async fn keep(&mut self, file: Cached, texts: Vec<Blob>) {
        let Some(store) = self.store.clone().filter(|_| !texts.is_empty()) else { return };
        let (main, journal) = store.sizes(file);
        if journal > main / 2 + JOURNAL_SLACK {
            let all: Vec<Blob> = match file {
                Cached::Descriptors => self.library.descriptor_texts().cloned().collect(),
                Cached::ExtraInfos => self.library.extra_info_texts().cloned().collect(),
                _ => self.library.microdesc_texts().cloned().collect(),
            };
            return self.rewrite(file, [all, texts].concat()).await;
        }
        let result = blocking(move || store.append(file, texts.iter().map(|t| &t[..]))).await;
        self.note_disk(result);
    }

    async fn rewrite(&mut self, file: Cached, texts: Vec<Blob>) {
        let Some(store) = self.store.clone() else { return };
        let result = blocking(move || store.replace(file, texts.iter().map(|t| &t[..]))).await;
        self.note_disk(result);
    }

    /// A disk that does not take documents is no reason to stop, and to be complained about once.
    fn note_disk(&mut self, result: Result<(), StoreError>) {
        let failing = &mut self.state.borrow_mut().disk_failing;
        match result {
            Ok(()) => *failing = false,
            Err(error) if !*failing => {
                warn!("directory documents are kept in memory only: {error}");
                *failing = true;
            }
            Err(_) => {}
        }
    }
}

/// Bytes that a journal may have in any case.
const JOURNAL_SLACK: u64 = 1 << 20;

fn file_of(flavor: Flavor) -> Cached {
    match flavor {
        Flavor::Ns => Cached::Consensus,
        Flavor::Microdesc => Cached::MicrodescConsensus,
    }
}

/// The encodings in which a consensus is kept: where nobody is served, the one that diffs are applied to.
fn encodings(role: Role) -> &'static [Encoding] {
    match role {
        Role::Cache => &Encoding::ALL,
        Role::Plain => &[Encoding::Identity],
    }
}

/// Bytes that the answer to a request may have.
fn bytes_max(request: &DirRequest) -> usize {
    /// An authority certificate has about 2 KiB, a microdescriptor below 1 KiB but for large families.
    const CERT: usize = 16 * 1024;
    const MICRODESC: usize = ROUTER_DESCRIPTOR;
    match request {
        DirRequest::Consensus { .. } => onionring_node::limits::DIR_CONSENSUS,
        DirRequest::CertsById(ids) => ids.len() * CERT,
        DirRequest::CertsBySigningKey(pairs) => pairs.len() * CERT,
        DirRequest::Microdescs(digests) => digests.len() * MICRODESC,
        DirRequest::Descriptors(digests) | DirRequest::DescriptorsById(digests) => {
            digests.len() * ROUTER_DESCRIPTOR
        }
        DirRequest::ExtraInfos(digests) => digests.len() * EXTRA_INFO,
    }
}

fn texts<D>(documents: &[(D, Blob)]) -> Vec<Blob> {
    documents.iter().map(|(_, text)| text.clone()).collect()
}

/// Runs what takes long on another thread.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    glommio::executor().spawn_blocking(work).await
}

/// Reads a store, in the order in which one file vouches for the next.
fn load(store: &DocStore, authorities: &[Fingerprint], role: Role, extra_infos: bool, now: Unix) -> Library {
    let flavors = role.flavors();
    let mut library = Library::default();
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
    let certs = check::certs(&read(Cached::Certs), authorities, now);
    report(Cached::Certs, certs.unfit);
    library.add_certs(certs.fit);
    for flavor in flavors {
        let file = file_of(*flavor);
        let text = read(file);
        if text.is_empty() {
            continue;
        }
        match check::consensus(&text, *flavor, None, authorities, library.certs(), encodings(role), now) {
            Ok(checked) => library.set_consensus(checked, now),
            Err(ConsensusUnfit::NotLive) => info!("the cached consensus in {} is too old", file.file_name()),
            Err(error) => {
                warn!("the cached consensus in {} is not fit to be used: {error}", file.file_name())
            }
        }
    }
    let microdescs = check::microdescs(&read(Cached::Microdescs), &library.missing_microdescs());
    report(Cached::Microdescs, microdescs.unfit);
    library.add_microdescs(microdescs.fit, now);
    if flavors.contains(&Flavor::Ns) {
        let descriptors = check::descriptors(&read(Cached::Descriptors), &library.missing_descriptors());
        report(Cached::Descriptors, descriptors.unfit);
        library.add_descriptors(descriptors.fit, now);
    }
    if extra_infos {
        let extra = check::extra_infos(&read(Cached::ExtraInfos), &library.missing_extra_infos());
        report(Cached::ExtraInfos, extra.unfit);
        library.add_extra_infos(extra.fit);
    }
    library
}

#[cfg(test)]
mod tests;
