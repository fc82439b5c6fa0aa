//! When to publish a new descriptor, and to which authorities it still has to go (dir-spec 2.1, C tor 0.4.9).

use std::time::Duration;

use rand_core::Rng;

use super::backoff::{Backoff, Delays};
use crate::netdoc::consensus::{Consensus, RelayFlags};
use crate::netdoc::routerdesc::NewDescriptor;
use crate::netdoc::text::Fingerprint;
use crate::time::{Mono, Unix};

/// A descriptor of this age is replaced in any case.
pub const MAX_AGE: Duration = Duration::from_secs(18 * 3600);
/// One of this age is replaced if the consensus shows that it did not arrive.
pub const RETRY_AGE: Duration = Duration::from_secs(90 * 60);
/// Authorities take a descriptor that differs only in what they do not compare for the old one until the old one is
/// this much older (C tor's ROUTER_MAX_COSMETIC_TIME_DIFFERENCE).
pub const COSMETIC_AGE: Duration = Duration::from_secs(2 * 3600);
/// A change of bandwidth is published for this long after start-up; later the regular descriptor is enough.
pub const BANDWIDTH_UPTIME: Duration = Duration::from_secs(24 * 3600);
/// And at most this often.
pub const BANDWIDTH_INTERVAL: Duration = Duration::from_secs(3 * 3600);
/// Such a change is one by this factor.
const BANDWIDTH_FACTOR: u64 = 2;

/// Why a new descriptor is due; its text goes into the header `X-Desc-Gen-Reason`, in C tor's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// None was published yet.
    #[error("Tor just started")]
    Started,
    /// [`MAX_AGE`] has passed.
    #[error("time for new descriptor")]
    Age,
    /// The consensus does not list us.
    #[error("not listed in consensus")]
    NotListed,
    /// The consensus calls our descriptor stale.
    #[error("listed as stale in consensus")]
    Stale,
    /// An address or port is another.
    #[error("IP address changed")]
    Address,
    /// The onion keys are others.
    #[error("rotated onion key")]
    OnionKey,
    /// We went to sleep, or woke up.
    #[error("hibernation changed")]
    Hibernation,
    /// The observed bandwidth changed a lot.
    #[error("bandwidth has changed")]
    Bandwidth,
    /// Something else that we say is different.
    #[error("config change")]
    Config,
}

/// What the consensus says of our descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// There is no valid consensus to judge by.
    Unknown,
    /// We are listed.
    Listed,
    /// We are not listed.
    NotListed,
    /// We are listed with the flag StaleDesc, in a consensus of this time.
    Stale(Unix),
}

impl Listing {
    /// Looks us up.
    pub fn of(identity: &Fingerprint, consensus: Option<&Consensus>, now: Unix) -> Listing {
        let Some(consensus) = consensus.filter(|c| c.lifetime.is_valid(now)) else { return Listing::Unknown };
        match consensus.relay(identity) {
            None => Listing::NotListed,
            Some(r) if r.flags.has(RelayFlags::STALE_DESC) => Listing::Stale(consensus.lifetime.valid_after),
            Some(_) => Listing::Listed,
        }
    }
}

/// What a descriptor says, and with which keys: the part that decides whether another is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The descriptor.
    pub descriptor: NewDescriptor,
    /// Public half of the ntor key.
    pub ntor_key: [u8; 32],
    /// Fingerprint of the TAP key, if one is published.
    pub tap_key: Option<Fingerprint>,
    /// The certificate of the signing key.
    pub signing_cert: Box<[u8]>,
}

impl Contents {
    /// What an authority would notice of a change from `old`, apart from bandwidth and age (protocol of C tor's
    /// `router_differences_are_cosmetic`).
    fn visible_change(&self, old: &Contents) -> Option<Reason> {
        let (new, was) = (&self.descriptor, &old.descriptor);
        let place = |d: &NewDescriptor| (d.nickname, d.ipv4, d.or_port, d.dir_port, d.ipv6);
        let rate = |d: &NewDescriptor| (d.bandwidth.rate, d.bandwidth.burst);
        if place(new) != place(was) {
            Some(Reason::Address)
        } else if self.tap_key != old.tap_key {
            Some(Reason::OnionKey)
        } else if new.hibernating != was.hibernating {
            Some(Reason::Hibernation)
        } else if new.platform != was.platform
            || new.contact != was.contact
            || new.family != was.family
            || new.policy.descriptor_lines() != was.policy.descriptor_lines()
            || new.tunnelled_dir_server != was.tunnelled_dir_server
            || rate(new) != rate(was)
        {
            Some(Reason::Config)
        } else {
            None
        }
    }

    /// A change that authorities do not look for, but that others should learn.
    fn other_change(&self, old: &Contents) -> Option<Reason> {
        let (new, was) = (&self.descriptor, &old.descriptor);
        if self.ntor_key != old.ntor_key {
            Some(Reason::OnionKey)
        } else if self.signing_cert != old.signing_cert
            || new.protocols != was.protocols
            || new.policy != was.policy
            || new.family_certs != was.family_certs
            || new.hidden_service_dir != was.hidden_service_dir
            || new.caches_extra_info != was.caches_extra_info
        {
            Some(Reason::Config)
        } else {
            None
        }
    }
}

#[derive(Clone, Debug)]
struct Published {
    at: Unix,
    contents: Contents,
}

/// What is to be done for one authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// POST the descriptor and its extra-info to `/tor/`.
    Post,
    /// GET `/tor/server/fp/` and our fingerprint, and compare: the answer to the POST says nothing about whether the
    /// descriptor was understood.
    Confirm,
}

/// One step that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Index of the authority.
    pub authority: usize,
    /// What to do.
    pub step: Step,
    /// Which of our descriptors it is about.
    serial: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Upload {
    backoff: Backoff,
    posted: bool,
    done: bool,
    under_way: bool,
}

/// Publishes our descriptor.
#[derive(Clone, Debug)]
pub struct Publisher {
    testing: bool,
    delays: Delays,
    last: Option<Published>,
    bandwidth_changed: Option<Unix>,
    uploads: Vec<Upload>,
    /// Counts the descriptors published.
    serial: u64,
}

impl Publisher {
    /// Nothing is published yet. There are `authorities` to publish to, which go by their index from here on;
    /// `testing` is for networks with `TestingTorNetwork`.
    pub fn new(authorities: usize, testing: bool) -> Self {
        let delays = if testing { Delays::TESTING } else { Delays::NORMAL };
        // Until there is something to publish, every authority has all there is.
        let uploads = vec![Upload { done: true, ..Upload::default() }; authorities];
        Publisher { testing, delays, last: None, bandwidth_changed: None, uploads, serial: 0 }
    }

    /// Whether a descriptor with these contents is to be published now, and why. To be asked every minute or so and
    /// whenever something changes. If so: make it, at the time of [`Publisher::publication_time`], and say so with
    /// [`Publisher::published`].
    pub fn due(&self, contents: &Contents, listing: Listing, now: Unix) -> Option<Reason> {
        let Some(last) = &self.last else { return Some(Reason::Started) };
        if let Some(reason) = contents.visible_change(&last.contents) {
            return Some(reason);
        }
        let age = now.since(last.at);
        if age > MAX_AGE {
            return Some(Reason::Age);
        }
        if let Some(reason) = contents.other_change(&last.contents)
            && age > COSMETIC_AGE
        {
            return Some(reason);
        }
        if self.bandwidth_changed_much(contents, last, now) {
            return Some(Reason::Bandwidth);
        }
        match listing {
            Listing::NotListed if age > RETRY_AGE => Some(Reason::NotListed),
            Listing::Stale(since) if age > RETRY_AGE && since > last.at => Some(Reason::Stale),
            _ => None,
        }
    }

    fn bandwidth_changed_much(&self, contents: &Contents, last: &Published, now: Unix) -> bool {
        let observed = |c: &Contents| u64::from(c.descriptor.bandwidth.observed);
        let (new, was) = (observed(contents), observed(&last.contents));
        let changed =
            new.min(was) == 0 && new != was || new > was * BANDWIDTH_FACTOR || new * BANDWIDTH_FACTOR < was;
        let young = contents.descriptor.uptime <= BANDWIDTH_UPTIME.as_secs();
        let rested = self.bandwidth_changed.is_none_or(|at| now.since(at) > BANDWIDTH_INTERVAL);
        changed && (young || contents.descriptor.hibernating) && (rested || self.testing || was == 0)
    }

    /// The time to write into a descriptor made now: authorities refuse one that is not later than the last.
    pub fn publication_time(&self, now: Unix) -> Unix {
        self.last.as_ref().map_or(now, |last| now.max(last.at + Duration::from_secs(1)))
    }

    /// A descriptor was made and signed, to replace the last at every authority.
    pub fn published(&mut self, contents: Contents, reason: Reason) {
        let at = contents.descriptor.published;
        if reason == Reason::Bandwidth {
            self.bandwidth_changed = Some(at);
        }
        self.last = Some(Published { at, contents });
        // Whatever is under way carries the old one, and its end is of no interest.
        self.serial += 1;
        self.uploads.iter_mut().for_each(|u| *u = Upload::default());
    }

    /// The next thing to do, if any; report its end with [`Publisher::finished`].
    pub fn poll(&mut self, now: Mono) -> Option<Task> {
        let due = |u: &Upload| !u.done && !u.under_way && u.backoff.is_ready(now);
        let (authority, upload) = self.uploads.iter_mut().enumerate().find(|(_, u)| due(u))?;
        upload.under_way = true;
        let step = if upload.posted { Step::Confirm } else { Step::Post };
        Some(Task { authority, step, serial: self.serial })
    }

    /// How a step ended. `ok` means for [`Step::Post`]: a 200 (also with `X-Descriptor-Not-New`); for
    /// [`Step::Confirm`]: the authority has this very descriptor. What is said of a descriptor that has been replaced
    /// since is ignored.
    pub fn finished(&mut self, task: Task, ok: bool, now: Mono, rng: &mut (impl Rng + ?Sized)) {
        let delays = self.delays;
        let current = task.serial == self.serial;
        let Some(upload) = self.uploads.get_mut(task.authority).filter(|_| current) else { return };
        upload.under_way = false;
        match (task.step, ok) {
            (Step::Post, true) => upload.posted = true,
            (Step::Confirm, true) => upload.done = true,
            (_, false) => {
                // An authority that does not have it after all gets it again.
                upload.posted = false;
                upload.backoff.failed(&delays, now, rng);
            }
        }
    }

    /// Authorities that are known to have our descriptor.
    pub fn confirmed(&self) -> usize {
        if self.last.is_none() { 0 } else { self.uploads.iter().filter(|u| u.done).count() }
    }

    /// When [`Publisher::poll`] may have something to do without anything happening.
    pub fn next_timeout(&self) -> Option<Mono> {
        self.uploads.iter().filter(|u| !u.done && !u.under_way).map(|u| u.backoff.ready_at()).min()
    }
}

#[cfg(test)]
mod tests;
