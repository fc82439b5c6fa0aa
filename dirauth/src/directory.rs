//! The directory of an authority: a request and its body go in, the answer comes out. The same on the DirPort and on
//! BEGIN_DIR streams.
//!
//! What a cache serves, the authority serves in the same way ([`onionring_node::directory`]); besides, it serves what
//! belongs to the vote under way, and takes uploads.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use onionring_node::compress::Encoding;
use onionring_node::directory::http::{Method, Request};
use onionring_node::directory::serve::{self, Asker, NOT_FOUND, Refused, short};
use onionring_node::directory::snapshot::DirSnapshot;
use onionring_node::directory::spool::{Blob, Response};
use onionring_proto::netdoc::routerdesc::split_documents;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use tracing::debug;

use crate::admission::Answer;
use crate::limits::DOCUMENTS_PER_UPLOAD;
use crate::uploads::Uploads;

/// How long votes and what comes of them may be kept, as in C tor.
const VOTING: Duration = Duration::from_secs(60);
const BANDWIDTH: Duration = Duration::from_secs(30 * 60);

/// The address as which uploads through circuits count, which may be anybody's: all together as those of one network. Of
/// a range in which nobody is (RFC 6666).
const CIRCUITS: IpAddr = IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1));

/// A vote.
#[derive(Clone, Debug)]
pub struct StoredVote {
    /// The v3 identity of its authority.
    pub identity: Fingerprint,
    /// SHA-1 of its signed part.
    pub digest: Fingerprint,
    /// Its text.
    pub text: Blob,
}

/// What belongs to the vote under way.
#[derive(Clone, Debug, Default)]
pub struct Next {
    /// The votes so far.
    pub votes: Vec<StoredVote>,
    /// The consensus as this authority computed it, unsigned by most (of the flavour that names router descriptors).
    pub consensus: Option<Blob>,
    /// The detached signatures so far.
    pub signatures: Option<Blob>,
    /// The bandwidth file on which this authority's vote is based.
    pub bandwidth: Option<Blob>,
}

/// The documents of an authority at one moment.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// What caches serve, too. Its descriptors and extra-infos are those of the uploads, whoever set them.
    pub served: DirSnapshot,
    /// Of the vote under way.
    pub next: Next,
    /// The votes that led to the consensus in force.
    pub votes: Vec<StoredVote>,
}

/// What becomes of what other authorities send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The HTTP status.
    pub status: u16,
    /// What the status line says besides: printable ASCII.
    pub reason: String,
}

/// Takes what other authorities send. Calls may block.
pub trait Voting: Send + Sync {
    /// A vote.
    fn take_vote(&self, vote: &[u8], from: Option<IpAddr>, now: Unix) -> Outcome;
    /// Detached signatures.
    fn take_signatures(&self, signatures: &[u8], from: Option<IpAddr>, now: Unix) -> Outcome;
}

/// All that is asked for, by everyone at the same time.
pub struct Directory {
    documents: ArcSwap<Documents>,
    uploads: Mutex<Uploads>,
    /// Whether uploads have changed since they went into the documents. That takes a look at all of them, so it waits until
    /// somebody asks: many relays upload one after the other.
    stale: AtomicBool,
    voting: OnceLock<Arc<dyn Voting>>,
}

/// The uploads, while nobody else has them. What was stored or forgotten meanwhile is served when this is dropped.
pub struct Held<'a> {
    directory: &'a Directory,
    uploads: MutexGuard<'a, Uploads>,
}

impl Deref for Held<'_> {
    type Target = Uploads;

    fn deref(&self) -> &Uploads {
        &self.uploads
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Uploads {
        &mut self.uploads
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.uploads.take_changed() {
            self.directory.stale.store(true, Ordering::Release);
        }
    }
}

impl Directory {
    /// A directory of what was uploaded. Until it knows who takes votes, those of others are answered with 404.
    pub fn new(uploads: Uploads) -> Directory {
        let (documents, voting) = (ArcSwap::default(), OnceLock::new());
        let directory =
            Directory { documents, uploads: Mutex::new(uploads), stale: AtomicBool::new(true), voting };
        directory.documents();
        directory
    }

    /// Hands votes and signatures of others to `voting` from now on; the first time counts.
    pub fn set_voting(&self, voting: Arc<dyn Voting>) {
        let _ = self.voting.set(voting);
    }

    /// The uploads. While they are held, none is taken; what is there is served all the same.
    pub fn uploads(&self) -> Held<'_> {
        // A panic while they were changed leaves them usable: a document is there or not.
        let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        Held { directory: self, uploads }
    }

    /// Serves what is uploaded. Whoever calls this holds the uploads, so that nothing older takes the place of newer.
    fn serve_uploads(&self, uploads: &Uploads) {
        let (descriptors, extra_infos) = uploads.store().documents();
        let (descriptors, extra_infos) = (Arc::new(descriptors), Arc::new(extra_infos));
        self.documents.rcu(|old| {
            let (descriptors, extra_infos) = (descriptors.clone(), extra_infos.clone());
            let served = DirSnapshot { descriptors, extra_infos, ..old.served.clone() };
            Documents { served, ..Documents::clone(old) }
        });
    }

    /// Serves these documents from now on, with the descriptors and extra-infos that were uploaded.
    pub fn set_documents(&self, documents: Documents) {
        self.documents.rcu(|old| {
            let (descriptors, extra_infos) = (old.served.descriptors.clone(), old.served.extra_infos.clone());
            let served = DirSnapshot { descriptors, extra_infos, ..documents.served.clone() };
            Documents { served, ..documents.clone() }
        });
    }

    /// Changes what is served, but for the descriptors and extra-infos. `change` may be called more than once.
    pub fn change(&self, change: impl Fn(&mut Documents)) {
        self.documents.rcu(|old| {
            let mut documents = Documents::clone(old);
            change(&mut documents);
            let (descriptors, extra_infos) = (old.served.descriptors.clone(), old.served.extra_infos.clone());
            documents.served = DirSnapshot { descriptors, extra_infos, ..documents.served };
            documents
        });
    }

    /// Forgets documents that are too old. To be called every few minutes.
    pub fn expire(&self, now: Unix) {
        self.uploads().expire(now);
    }

    /// The documents to serve, everything included that was stored before: whoever was told that its upload is stored finds
    /// it. So after an upload the first who asks puts together what is served, and waits for the upload under way if
    /// there is one; all others wait for nobody.
    pub fn documents(&self) -> Arc<Documents> {
        if self.stale.load(Ordering::Acquire) {
            let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            // Others have waited for the same; until it is served, whoever comes waits, too.
            if self.stale.load(Ordering::Acquire) {
                self.serve_uploads(&uploads);
                self.stale.store(false, Ordering::Release);
            }
        }
        self.documents.load_full()
    }

    /// Answers a request; `body` is what came with it. What is posted blocks while an upload is judged and written.
    pub fn answer(&self, request: &Request, body: &[u8], asker: Asker) -> Response {
        let answer = match request.method {
            Method::Get => get(&self.documents(), request, asker),
            Method::Post => self.post(&request.path, body, asker),
        };
        answer.unwrap_or_else(|(status, reason)| short(status, reason, asker.now))
    }

    fn post(&self, path: &str, body: &[u8], asker: Asker) -> Result<Response, Refused> {
        let Asker { address, now, .. } = asker;
        let outcome = match path {
            "/tor/" => return Ok(self.upload(body, asker)),
            "/tor/post/vote" => self.voting.get().ok_or(NOT_FOUND)?.take_vote(body, address, now),
            "/tor/post/consensus-signature" => {
                self.voting.get().ok_or(NOT_FOUND)?.take_signatures(body, address, now)
            }
            _ => return Err(NOT_FOUND),
        };
        Ok(short(outcome.status, outcome.reason, now))
    }

    /// Takes documents of relays that nobody uploaded here: our own, or those that other authorities have.
    pub fn receive(&self, documents: &[u8], now: Unix) -> Answer {
        self.uploads().receive(documents, None, now)
    }

    /// Takes any number of them, as many at a time as one upload may have.
    pub fn receive_all(&self, documents: &str, now: Unix) {
        let texts: Vec<&str> = split_documents(documents).collect();
        for texts in texts.chunks(DOCUMENTS_PER_UPLOAD) {
            let answer = self.receive(texts.concat().as_bytes(), now);
            debug!("documents that nobody uploaded: {} {}", answer.status, answer.reason);
        }
    }

    fn upload(&self, body: &[u8], asker: Asker) -> Response {
        let from = asker.address.unwrap_or(CIRCUITS);
        let answer = self.uploads().receive(body, Some(from), asker.now);
        debug!("an upload is answered with {} {}", answer.status, answer.reason);
        let mut response = short(answer.status, answer.reason, asker.now);
        if answer.not_new {
            response.headers.push(("X-Descriptor-Not-New", "Yes".to_owned()));
        }
        response
    }
}

fn get(documents: &Documents, request: &Request, asker: Asker) -> Result<Response, Refused> {
    let Some(rest) = request.path.strip_prefix("/tor/status-vote/") else {
        return serve::get(&documents.served, request, asker);
    };
    let send = |body: Vec<Blob>, caching| match body.is_empty() {
        true => Err(NOT_FOUND),
        false => Ok(asker.list_with_length(request.accepted, &Encoding::STREAMED, body.into(), caching)),
    };
    let one = |document: &Option<Blob>, caching| send(document.iter().cloned().collect(), caching);
    let Next { votes, consensus, signatures, bandwidth } = &documents.next;
    match rest.split_once('/').ok_or(NOT_FOUND)? {
        ("current", name) if name.starts_with("consensus") => serve::get(&documents.served, request, asker),
        ("current", name) => send(named(&documents.votes, documents.served.authority, name), VOTING),
        ("next", "consensus") => one(consensus, VOTING),
        ("next", "consensus-signatures") => one(signatures, VOTING),
        ("next", "bandwidth") => one(bandwidth, BANDWIDTH),
        ("next", name) => send(named(votes, documents.served.authority, name), VOTING),
        _ => Err(NOT_FOUND),
    }
}

/// The votes that `name` stands for: `authority` is our own, `d/` begins digests, all else is v3 identities.
fn named(votes: &[StoredVote], us: Option<Fingerprint>, name: &str) -> Vec<Blob> {
    let of = |list: &str, key: fn(&StoredVote) -> Fingerprint| {
        let wanted = serve::names(list, '+', Fingerprint::from_hex);
        votes.iter().filter(|vote| wanted.binary_search(&key(vote)).is_ok()).map(|v| v.text.clone()).collect()
    };
    match name.strip_prefix("d/") {
        Some(digests) => of(digests, |vote| vote.digest),
        None if name == "authority" => {
            votes.iter().filter(|vote| Some(vote.identity) == us).map(|vote| vote.text.clone()).collect()
        }
        None => of(name, |vote| vote.identity),
    }
}

#[cfg(test)]
mod tests;
