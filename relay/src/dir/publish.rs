//! Publishing this relay's descriptor and extra-info: to every authority, and then looking whether they are there.
//!
//! An authority answers `200` also to what it does not understand (dir-spec 4.1 says nothing of it; C tor 0.4.9 does
//! so), so an upload counts only once the authority gives the descriptor back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use glommio::channels::local_channel::{self, LocalSender};
use glommio::timer::timeout;
use onionring_node::log::RateLimit;
use onionring_proto::dir::publish::{Contents, Listing, Publisher, Reason, Step, Task};
use onionring_proto::dir::request::DirRequest;
use onionring_proto::limits::ROUTER_DESCRIPTOR;
use onionring_proto::netdoc;
use onionring_proto::netdoc::extrainfo::SignedExtraInfo;
use onionring_proto::netdoc::routerdesc::{BuildError, RouterDesc, SignedDescriptor, split_documents};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use tracing::{debug, error, info, warn};

use super::client::{self, Answer, DirServer, FetchError, Transport};
use super::clock::Clock;
use super::directory::Directory;
use super::snapshot::{OwnDocs, RouterDoc};
use super::spool::Blob;

/// A descriptor of ours and the extra-info that goes with it, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDocs {
    /// The descriptor; it names the extra-info.
    pub descriptor: SignedDescriptor,
    /// The extra-info, made at the same second.
    pub extra_info: SignedExtraInfo,
}

/// Who knows what this relay has to say of itself, and has the keys to sign it.
pub trait Describe {
    /// What a descriptor made now would say; `None` as long as none is to be published.
    fn contents(&mut self, now: Unix) -> Option<Contents>;

    /// Makes the documents that say `contents`, at the time written there.
    fn sign(&mut self, contents: &Contents) -> Result<SignedDocs, BuildError>;
}

/// How publishing goes, for metrics and the heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishState {
    /// The descriptor in force.
    pub current: Option<CurrentDescriptor>,
    /// The authorities, in the order of the configuration.
    pub authorities: Vec<AuthorityState>,
    /// Uploads that were taken, by all authorities together.
    pub uploads: u64,
    /// Uploads that came to nothing, by [`UploadState::label`].
    pub failures: BTreeMap<&'static str, u64>,
}

/// A descriptor of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentDescriptor {
    /// Its digest.
    pub digest: Fingerprint,
    /// When it was made.
    pub published: Unix,
    /// Why.
    pub reason: Reason,
}

/// An authority and our descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityState {
    /// The authority's name.
    pub name: String,
    /// How far it is.
    pub upload: UploadState,
}

/// How far the upload to one authority is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UploadState {
    /// It does not have the descriptor yet.
    #[default]
    Pending,
    /// It took the descriptor; whether it kept it is not known yet.
    Taken {
        /// It says that it has one that is as good.
        not_new: bool,
    },
    /// It gives the descriptor to those who ask.
    Confirmed,
    /// It took the descriptor and does not have it.
    Lost,
    /// It refuses the descriptor, in its own words.
    Refused {
        /// The status.
        status: u16,
        /// The words.
        reason: String,
    },
    /// It did not answer.
    Unreachable,
}

impl UploadState {
    /// A word for it, as a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            UploadState::Pending => "pending",
            UploadState::Taken { .. } => "taken",
            UploadState::Confirmed => "confirmed",
            UploadState::Lost => "lost",
            UploadState::Refused { .. } => "refused",
            UploadState::Unreachable => "unreachable",
        }
    }
}

/// How often it is looked whether another descriptor is due.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait after a descriptor could not be made.
const SIGN_RETRY: Duration = Duration::from_secs(60);

/// Publishes this relay's documents. Lives on the control executor.
pub struct DirPublisher<T, D> {
    transport: Rc<T>,
    servers: Rc<[DirServer]>,
    directory: Arc<Directory>,
    describe: D,
    clock: Clock,
    publisher: Publisher,
    current: Option<Rc<Current>>,
    not_before: Unix,
    state: Rc<RefCell<PublishState>>,
    /// What is said of failures, for each authority: retries would repeat it every few minutes.
    complaints: Vec<RateLimit>,
}

/// Time between two warnings about one authority.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(3600);

/// What is to be uploaded.
struct Current {
    descriptor: RouterDesc,
    reason: Reason,
    /// Both documents, as they are posted.
    text: String,
}

struct Finished {
    /// What it was about: by now there may be another descriptor.
    current: Rc<Current>,
    task: Task,
    result: Result<Answer, FetchError>,
}

impl<T: Transport + 'static, D: Describe> DirPublisher<T, D> {
    /// Publishes to `servers`; `testing` is for networks with `TestingTorNetwork`.
    pub fn new(
        transport: T,
        servers: Vec<DirServer>,
        testing: bool,
        directory: Arc<Directory>,
        describe: D,
        clock: Clock,
    ) -> Self {
        let authority =
            |server: &DirServer| AuthorityState { name: server.name.clone(), upload: UploadState::default() };
        let state =
            PublishState { authorities: servers.iter().map(authority).collect(), ..PublishState::default() };
        DirPublisher {
            transport: Rc::new(transport),
            publisher: Publisher::new(servers.len(), testing),
            complaints: servers.iter().map(|_| RateLimit::every(COMPLAINT_INTERVAL)).collect(),
            servers: servers.into(),
            directory,
            describe,
            clock,
            current: None,
            not_before: Unix(0),
            state: Rc::new(RefCell::new(state)),
        }
    }

    /// How publishing goes; shows the current state for as long as it is held.
    pub fn state(&self) -> Rc<RefCell<PublishState>> {
        self.state.clone()
    }

    /// Publishes for ever; drop it to stop.
    pub async fn run(mut self) {
        let (sender, receiver) = local_channel::new_unbounded();
        let sender = Rc::new(sender);
        loop {
            self.renew();
            self.start(&sender);
            if let Ok(Some(finished)) = timeout(LOOK, async { Ok(receiver.recv().await) }).await {
                self.finish(finished);
            }
        }
    }

    /// Makes another descriptor if one is due.
    fn renew(&mut self) {
        let now = self.clock.now().unix;
        if now < self.not_before {
            return;
        }
        let Some(mut contents) = self.describe.contents(now) else { return };
        let network = self.directory.network();
        let listing = match &self.current {
            Some(current) => {
                Listing::of(&current.descriptor.identity, network.as_ref().map(|n| &*n.consensus), now)
            }
            None => Listing::Unknown,
        };
        let Some(reason) = self.publisher.due(&contents, listing, now) else { return };
        contents.descriptor.published = self.publisher.publication_time(now);
        let signed = match self.describe.sign(&contents) {
            Ok(signed) => signed,
            Err(fault) => {
                error!("this relay's descriptor cannot be made and is not published: {fault}");
                self.not_before = now + SIGN_RETRY;
                return;
            }
        };
        info!(%reason, "publishing a new descriptor to {} directory authorities", self.servers.len());
        self.put_in_force(&signed, reason);
        self.publisher.published(contents, reason);
    }

    fn put_in_force(&mut self, signed: &SignedDocs, reason: Reason) {
        let SignedDocs { descriptor, extra_info } = signed;
        let (identity, digest) = (descriptor.parsed.identity, descriptor.parsed.digest);
        let published = descriptor.parsed.published;
        let doc = |text: &str| RouterDoc { text: Blob::from(text.as_bytes()), published };
        self.directory.set_own(OwnDocs {
            identity,
            descriptor: doc(&descriptor.text),
            extra_info: doc(&extra_info.text),
        });
        self.current = Some(Rc::new(Current {
            descriptor: descriptor.parsed.clone(),
            reason,
            text: format!("{}\n{}\n", descriptor.text, extra_info.text),
        }));
        let mut state = self.state.borrow_mut();
        state.current = Some(CurrentDescriptor { digest, published, reason });
        state.authorities.iter_mut().for_each(|a| a.upload = UploadState::Pending);
    }

    /// Starts what is to be done for the authorities.
    fn start(&mut self, results: &Rc<LocalSender<Finished>>) {
        let Some(current) = &self.current else { return };
        while let Some(task) = self.publisher.poll(self.clock.now().mono) {
            let (transport, results) = (self.transport.clone(), results.clone());
            let (servers, current) = (self.servers.clone(), current.clone());
            glommio::spawn_local(async move {
                let Some(server) = servers.get(task.authority) else { return };
                debug!(server = server.name, step = ?task.step, "publishing");
                let result = match task.step {
                    Step::Post => {
                        let why = current.reason.to_string();
                        client::post(&*transport, server, "/tor/", &why, &current.text).await
                    }
                    Step::Confirm => {
                        let path = DirRequest::DescriptorsById(vec![current.descriptor.identity]).path();
                        client::get(&*transport, server, &path, None, ROUTER_DESCRIPTOR).await
                    }
                };
                // Without a receiver the publisher is gone, and nobody wants to know.
                let _ = results.try_send(Finished { current, task, result });
            })
            .detach();
        }
    }

    fn finish(&mut self, finished: Finished) {
        let Finished { current, task, result } = finished;
        if !self.current.as_ref().is_some_and(|c| Rc::ptr_eq(c, &current)) {
            return;
        }
        let Task { authority, step, .. } = task;
        let Some(server) = self.servers.get(authority) else { return };
        let name = &server.name;
        let not_new = self
            .state
            .borrow()
            .authorities
            .get(authority)
            .is_some_and(|a| a.upload == UploadState::Taken { not_new: true });
        let upload = match (step, result) {
            (_, Err(error)) => {
                if let Some(suppressed) = self.complaints[authority].check() {
                    warn!(
                        authority = name,
                        "cannot reach this directory authority to publish the descriptor, trying again: \
                         {error}{suppressed}"
                    );
                }
                UploadState::Unreachable
            }
            (Step::Post, Ok(answer)) if answer.status == 200 => {
                debug!(authority = name, not_new = answer.not_new, "this authority took the descriptor");
                UploadState::Taken { not_new: answer.not_new }
            }
            (Step::Post, Ok(Answer { status, reason, .. })) => {
                if let Some(suppressed) = self.complaints[authority].check() {
                    let what = "this directory authority refuses the descriptor";
                    warn!(authority = name, status, "{what}: {reason}{suppressed}");
                }
                UploadState::Refused { status, reason }
            }
            (Step::Confirm, Ok(answer)) if has_ours(&answer, &current.descriptor, not_new) => {
                UploadState::Confirmed
            }
            (Step::Confirm, Ok(_)) => {
                if let Some(suppressed) = self.complaints[authority].check() {
                    warn!(
                        authority = name,
                        "this directory authority took the descriptor and does not have it, publishing again; the \
                         reason is in its log only. If this goes on: is the clock of this machine right? Has the relay \
                         lost one of its two identity keys?{suppressed}"
                    );
                }
                UploadState::Lost
            }
        };
        let ok = matches!(upload, UploadState::Taken { .. } | UploadState::Confirmed);
        self.publisher.finished(task, ok, self.clock.now().mono, &mut rand::rng());
        let mut state = self.state.borrow_mut();
        match upload {
            UploadState::Taken { .. } => state.uploads += 1,
            UploadState::Confirmed => {}
            _ => *state.failures.entry(upload.label()).or_default() += 1,
        }
        let is_confirmed = upload == UploadState::Confirmed;
        if let Some(authority) = state.authorities.get_mut(authority) {
            authority.upload = upload;
        }
        if is_confirmed {
            let (confirmed, all) = (self.publisher.confirmed(), self.servers.len());
            info!("{confirmed} of {all} directory authorities have the descriptor (now also {name})");
        }
    }
}

/// Whether an authority has the descriptor `ours`, or one that we made later, or, if it called ours `not_new`, an older
/// one by which others reach us as well.
fn has_ours(answer: &Answer, ours: &RouterDesc, not_new: bool) -> bool {
    let Ok(text) = netdoc::text_of(&answer.body) else { return false };
    let way = |d: &RouterDesc| (d.ed_identity, d.ntor_onion_key, d.ipv4, d.or_port, d.ipv6);
    let mut descriptors = split_documents(text).filter_map(|text| RouterDesc::parse(text).ok());
    answer.status == 200
        && descriptors.any(|d| {
            let as_good = d.published > ours.published || not_new && way(&d) == way(ours);
            d.identity == ours.identity && (d.digest == ours.digest || as_good)
        })
}

#[cfg(test)]
mod tests;
