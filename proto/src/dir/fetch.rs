//! What a relay lacks of the directory, and when to ask for it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::time::Duration;

use rand_core::Rng;

use super::backoff::{Backoff, Delays, below};
use super::request::{
    AtHand, CERTS_PER_REQUEST, DESCRIPTORS_PER_REQUEST, DirRequest, MICRODESCS_PER_REQUEST,
};
use crate::netdoc::authcert::CertStore;
use crate::netdoc::consensus::{Consensus, Flavor, Lifetime, Shortfall};
use crate::netdoc::text::Fingerprint;
use crate::time::{Mono, Unix};

/// Missing documents of a kind are spread over at least this many requests,
const REQUESTS_MIN: usize = 3;
/// but a request asks for at least this many, if so many are missing.
const DOCUMENTS_MIN: usize = 32;
/// Seconds that a directory cache leaves the authorities between making a consensus and asking for it.
const CACHE_HEAD_START: u64 = 120;
/// From a consensus older than this, no diff is asked for (C tor's `try-diff-for-consensus-newer-than`): caches hardly
/// have one, and it would not be short.
const DIFF_BASE_AGE: Duration = Duration::from_secs(72 * 3600);

/// What this node needs of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A directory cache: both consensuses early, and every document they name.
    Cache,
    /// A relay that serves no directory, or a client: the `microdesc` consensus when caches have it, and
    /// microdescriptors.
    Plain,
}

impl Role {
    /// The consensuses it fetches.
    pub fn flavors(self) -> &'static [Flavor] {
        match self {
            Role::Cache => &Flavor::ALL,
            Role::Plain => &[Flavor::Microdesc],
        }
    }
}

/// When to fetch the successor of a consensus (C tor's `update_consensus_networkstatus_fetch_time`): `now` if there
/// is none or it is not valid, otherwise a random moment in the window that keeps caches ahead of clients.
pub fn next_consensus_fetch(
    role: Role,
    current: Option<&Lifetime>,
    now: Unix,
    rng: &mut (impl Rng + ?Sized),
) -> Unix {
    let Some(current) = current.filter(|c| c.is_valid(now)) else { return now };
    let interval = current.interval().as_secs();
    let (start, window) = match role {
        Role::Cache => {
            let head_start = CACHE_HEAD_START.min(interval / 16).max(1);
            (current.fresh_until.0 + head_start, interval / 2)
        }
        Role::Plain => {
            let start = current.fresh_until.0 + interval * 3 / 4;
            (start, current.valid_until.0.saturating_sub(start) * 7 / 8)
        }
    };
    let window = window.max(1);
    // In networks with very short intervals the window can reach past the end.
    let start = match start + window >= current.valid_until.0 {
        true => current.valid_until.0.saturating_sub(window + 1),
        false => start,
    };
    Unix(start + below(window, rng))
}

/// Names one request that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(u64);

/// A request that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Its name, for [`Fetcher::finished`].
    pub id: FetchId,
    /// What to ask.
    pub request: DirRequest,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The directory answered; what it sent has been reported with the `got_*` calls before. What it left out is
    /// asked again after a delay.
    Answered,
    /// There was no usable answer, which says nothing about the documents: they are asked elsewhere at once, and it
    /// is for [`super::sources::Sources`] to leave that directory alone.
    Failed,
}

/// A document that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Consensus(Flavor),
    CertById(Fingerprint),
    CertBySigningKey(Fingerprint, Fingerprint),
    Microdesc([u8; 32]),
    Descriptor(Fingerprint),
    ExtraInfo(Fingerprint),
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    backoff: Backoff,
    under_way: bool,
}

/// What is known of a flavour of consensus.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// The one at hand: its lifetime, and its name in requests for diffs.
    known: Option<(Lifetime, [u8; 32])>,
    /// When to fetch the next.
    due: Unix,
    /// A diff from it was of no use: the next is to come whole.
    whole: bool,
}

impl Held {
    fn at_hand(&self, now: Unix) -> Option<AtHand> {
        let (lifetime, name) = self.known?;
        let is_base = !self.whole && now.since(lifetime.valid_after) <= DIFF_BASE_AGE;
        Some(AtHand { valid_after: lifetime.valid_after, diff_from: is_base.then_some(name) })
    }
}

/// Decides what to fetch.
///
/// Tell it what arrives ([`Fetcher::got_consensus`] and the others), then call [`Fetcher::poll`] until it returns
/// `None`, report each request's end with [`Fetcher::finished`], and poll again then and at
/// [`Fetcher::next_timeout`].
#[derive(Clone, Debug)]
pub struct Fetcher {
    role: Role,
    authorities: Vec<Fingerprint>,
    delays: Delays,
    consensuses: BTreeMap<Flavor, Held>,
    wanted: BTreeMap<Wanted, State>,
    under_way: BTreeMap<FetchId, Vec<Wanted>>,
    last_id: u64,
}

impl Fetcher {
    /// A fetcher that has nothing yet. `authorities` are the configured v3 identities.
    pub fn new(role: Role, authorities: Vec<Fingerprint>, delays: Delays) -> Self {
        let consensuses = role.flavors().iter().map(|f| (*f, Held::default())).collect();
        let wanted = role.flavors().iter().map(|f| (Wanted::Consensus(*f), State::default())).collect();
        let (under_way, last_id) = (BTreeMap::new(), 0);
        Fetcher { role, authorities, delays, consensuses, wanted, under_way, last_id }
    }

    /// A verified consensus is at hand, fetched or from the disk; `have_microdesc` and `have_descriptor` say which of
    /// the documents it names are, too. One that is not newer than what was known changes nothing.
    pub fn got_consensus(
        &mut self,
        consensus: &Consensus,
        have_microdesc: impl Fn(&[u8; 32]) -> bool,
        have_descriptor: impl Fn(&Fingerprint) -> bool,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) {
        let Some(held) = self.consensuses.get_mut(&consensus.flavor) else { return };
        if held.known.is_some_and(|(known, _)| known.valid_after >= consensus.lifetime.valid_after) {
            return;
        }
        *held = Held {
            known: Some((consensus.lifetime, consensus.signed_sha3)),
            due: next_consensus_fetch(self.role, Some(&consensus.lifetime), now, rng),
            whole: false,
        };
        if let Some(state) = self.wanted.get_mut(&Wanted::Consensus(consensus.flavor)) {
            state.backoff.succeeded();
        }
        if !consensus.lifetime.is_reasonably_live(now) {
            return;
        }
        match consensus.flavor {
            Flavor::Microdesc => {
                let named =
                    consensus.relays.iter().filter_map(|r| r.microdesc()).filter(|d| !have_microdesc(d));
                let named = named.map(|d| Wanted::Microdesc(*d)).collect();
                self.want(named, |w| matches!(w, Wanted::Microdesc(_)));
            }
            Flavor::Ns => {
                let named =
                    consensus.relays.iter().filter_map(|r| r.descriptor()).filter(|d| !have_descriptor(d));
                let named = named.map(|d| Wanted::Descriptor(*d)).collect();
                self.want(named, |w| matches!(w, Wanted::Descriptor(_)));
            }
        }
    }

    /// Looks through the certificates at hand: those of authorities of which none is current are wanted, and those
    /// that a consensus was found to be signed with.
    pub fn check_certs(&mut self, certs: &CertStore, shortfall: Option<&Shortfall>, now: Unix) {
        let current = |id: &Fingerprint| certs.of(id).any(|c| now <= c.expires);
        let by_id: BTreeSet<_> = self.authorities.iter().filter(|id| !current(id)).copied().collect();
        // The newest certificate of an authority is most likely the one that is missing, so ask for one thing.
        let by_key = shortfall.into_iter().flat_map(|s| &s.missing_certs);
        let by_key =
            by_key.filter(|(id, _)| !by_id.contains(id)).map(|(id, key)| Wanted::CertBySigningKey(*id, *key));
        let wanted = by_key.chain(by_id.iter().map(|id| Wanted::CertById(*id))).collect();
        self.want(wanted, |w| matches!(w, Wanted::CertById(_) | Wanted::CertBySigningKey(..)));
    }

    /// Extra-infos that descriptors at hand name and that are to be served; replaces what was wanted before.
    pub fn want_extra_infos(&mut self, digests: impl IntoIterator<Item = Fingerprint>) {
        let wanted = digests.into_iter().map(Wanted::ExtraInfo).collect();
        self.want(wanted, |w| matches!(w, Wanted::ExtraInfo(_)));
    }

    /// A microdescriptor arrived.
    pub fn got_microdesc(&mut self, digest: &[u8; 32]) {
        self.wanted.remove(&Wanted::Microdesc(*digest));
    }

    /// A descriptor arrived.
    pub fn got_descriptor(&mut self, digest: &Fingerprint) {
        self.wanted.remove(&Wanted::Descriptor(*digest));
    }

    /// An extra-info arrived.
    pub fn got_extra_info(&mut self, digest: &Fingerprint) {
        self.wanted.remove(&Wanted::ExtraInfo(*digest));
    }

    /// Makes `wanted` the set of what is wanted of its `kind`; what stays wanted keeps its state.
    fn want(&mut self, wanted: BTreeSet<Wanted>, kind: impl Fn(&Wanted) -> bool) {
        self.wanted.retain(|w, _| !kind(w) || wanted.contains(w));
        for w in wanted {
            self.wanted.entry(w).or_default();
        }
    }

    /// The diff from the consensus at hand made nothing that can be used: the next one is asked for whole.
    pub fn refuse_diffs(&mut self, flavor: Flavor) {
        if let Some(held) = self.consensuses.get_mut(&flavor) {
            held.whole = true;
        }
    }

    /// Documents that are missing, consensuses aside.
    pub fn missing(&self) -> usize {
        self.wanted.keys().filter(|w| !matches!(w, Wanted::Consensus(_))).count()
    }

    /// The next request that is due, if any. The caller chooses the directory: authorities for a [`Role::Cache`], any
    /// relay with the flag V2Dir otherwise (or authorities as long as none is known).
    pub fn poll(&mut self, now: Mono, unix: Unix) -> Option<Fetch> {
        let (request, wanted) = self.due_consensus(now, unix).or_else(|| self.due_documents(now))?;
        for w in &wanted {
            if let Some(state) = self.wanted.get_mut(w) {
                state.under_way = true;
            }
        }
        self.last_id += 1;
        let id = FetchId(self.last_id);
        self.under_way.insert(id, wanted);
        Some(Fetch { id, request })
    }

    fn due_consensus(&self, now: Mono, unix: Unix) -> Option<(DirRequest, Vec<Wanted>)> {
        let (flavor, held) = self.consensuses.iter().find(|(flavor, held)| {
            held.due <= unix && self.wanted.get(&Wanted::Consensus(**flavor)).is_some_and(|s| is_due(s, now))
        })?;
        let request = DirRequest::Consensus {
            flavor: *flavor,
            signers: self.authorities.clone(),
            at_hand: held.at_hand(unix),
        };
        Some((request, vec![Wanted::Consensus(*flavor)]))
    }

    /// A batch of what is missing of the first kind of which something is due, in the order of [`Wanted`].
    fn due_documents(&self, now: Mono) -> Option<(DirRequest, Vec<Wanted>)> {
        let due = |(w, s): &(&Wanted, &State)| !matches!(w, Wanted::Consensus(_)) && is_due(s, now);
        let mut due = self.wanted.iter().filter(due).map(|(w, _)| *w).peekable();
        let first = *due.peek()?;
        let mut batch: Vec<Wanted> = due.take_while(|w| discriminant(w) == discriminant(&first)).collect();
        let max = match first {
            Wanted::Consensus(_) => 1,
            Wanted::CertById(_) | Wanted::CertBySigningKey(..) => CERTS_PER_REQUEST,
            Wanted::Microdesc(_) => MICRODESCS_PER_REQUEST,
            Wanted::Descriptor(_) | Wanted::ExtraInfo(_) => DESCRIPTORS_PER_REQUEST,
        };
        batch.truncate(batch.len().div_ceil(REQUESTS_MIN).max(DOCUMENTS_MIN).min(max));
        Some((request_for(&batch)?, batch))
    }

    /// A request ended; see [`Outcome`]. A consensus counts as delivered only if it was newer.
    pub fn finished(
        &mut self,
        id: FetchId,
        outcome: Outcome,
        now: Mono,
        unix: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) {
        for w in self.under_way.remove(&id).unwrap_or_default() {
            let delivered = match w {
                Wanted::Consensus(flavor) => {
                    self.consensuses.get(&flavor).is_some_and(|held| held.due > unix)
                }
                _ => false,
            };
            let Some(state) = self.wanted.get_mut(&w) else { continue };
            state.under_way = false;
            if !delivered && outcome == Outcome::Answered {
                state.backoff.failed(&self.delays, now, rng);
            }
        }
    }

    /// How long after `now` the next request may fall due on its own; `None` if only events can make one due.
    pub fn next_timeout(&self, now: Mono, unix: Unix) -> Option<Duration> {
        let waits = self.wanted.iter().filter(|(_, s)| !s.under_way).map(|(w, state)| {
            let due = match w {
                Wanted::Consensus(flavor) => self.consensuses.get(flavor).map_or(Unix(0), |held| held.due),
                _ => Unix(0),
            };
            state.backoff.ready_at().since(now).max(due.since(unix))
        });
        waits.min()
    }
}

fn is_due(state: &State, now: Mono) -> bool {
    !state.under_way && state.backoff.is_ready(now)
}

/// The request for these documents, which are of one kind.
fn request_for(batch: &[Wanted]) -> Option<DirRequest> {
    fn all<T>(batch: &[Wanted], one: impl Fn(&Wanted) -> Option<T>) -> Vec<T> {
        batch.iter().filter_map(one).collect()
    }
    Some(match batch.first()? {
        // Asked for one by one.
        Wanted::Consensus(_) => return None,
        Wanted::CertById(_) => DirRequest::CertsById(all(batch, |w| match w {
            Wanted::CertById(id) => Some(*id),
            _ => None,
        })),
        Wanted::CertBySigningKey(..) => DirRequest::CertsBySigningKey(all(batch, |w| match w {
            Wanted::CertBySigningKey(id, key) => Some((*id, *key)),
            _ => None,
        })),
        Wanted::Microdesc(_) => DirRequest::Microdescs(all(batch, |w| match w {
            Wanted::Microdesc(digest) => Some(*digest),
            _ => None,
        })),
        Wanted::Descriptor(_) => DirRequest::Descriptors(all(batch, |w| match w {
            Wanted::Descriptor(digest) => Some(*digest),
            _ => None,
        })),
        Wanted::ExtraInfo(_) => DirRequest::ExtraInfos(all(batch, |w| match w {
            Wanted::ExtraInfo(digest) => Some(*digest),
            _ => None,
        })),
    })
}

#[cfg(test)]
mod tests;
