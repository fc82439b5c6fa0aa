//! What is decided about the descriptors and extra-infos that relays upload (`POST /tor/`, dir-spec 3.2).
//!
//! The rules and their order are those of C tor, with two differences. What does not parse, or is wrongly signed, is
//! refused with the reason, where C tor answers as if all were well and tells only its own log. And whether a descriptor
//! needs a TAP key is a setting, because releases of C tor disagree about it.
//!
//! Each document of an upload is judged alone; the answer is the worst verdict, and the good ones are stored nevertheless.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onionring_proto::netdoc::extrainfo::{ExtraInfo, ExtraInfoMismatch};
use onionring_proto::netdoc::routerdesc::{RouterDesc, split_documents};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::netdoc::{DocError, text_of};
use onionring_proto::policy::is_internal;
use onionring_proto::time::Unix;
use thiserror::Error;

use crate::approval::Approvals;
use crate::keypin::{KeyPins, Pin, Pinned};
use crate::limits::{ANSWER_REASON, DOCUMENTS_PER_UPLOAD};
use crate::version::TorVersion;

/// How far ahead of our clock a descriptor may be, and how old it may be.
const AHEAD_MAX: Duration = Duration::from_secs(12 * 60 * 60);
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Until when a descriptor without changes is not stored, and how far the uptime may be from what the time between two
/// descriptors makes it.
const COSMETIC_AGE: Duration = Duration::from_secs(2 * 60 * 60);
const UPTIME_DRIFT: u64 = 6 * 60 * 60;

/// What is done about the TAP key in descriptors, which nobody uses any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TapKey {
    /// Descriptors without one are refused, as C tor 0.4.9.11 does: it lists no relay without one.
    #[default]
    Required,
    /// Descriptors are taken with and without one.
    Optional,
    /// Descriptors with one are refused.
    Refused,
}

/// The settings of admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionOptions {
    /// What is done about TAP keys.
    pub tap_key: TapKey,
    /// `MinimalAcceptedServerVersion`.
    pub minimal_version: TorVersion,
    /// `DirAllowPrivateAddresses`.
    pub allow_private_addresses: bool,
    /// `AuthDirPinKeys`.
    pub pin_keys: bool,
    /// This authority itself, whose every descriptor is stored; `None` until its keys are loaded.
    pub us: Option<Fingerprint>,
}

/// Why a document is refused; the text goes to the relay, which writes it to its operator's log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The upload as a whole is not text.
    #[error("The upload is not UTF-8, or starts with a byte-order mark.")]
    NotText,
    /// The upload has no document.
    #[error("No router descriptor or extra-info was found in the upload.")]
    Empty,
    /// The upload has more documents than a relay ever sends.
    #[error("More than {DOCUMENTS_PER_UPLOAD} documents in one upload; send the rest in another.")]
    TooMany,
    /// A document does not parse, or a signature or certificate in it is wrong.
    #[error("Cannot use this {what}: {fault}")]
    Unreadable {
        /// Descriptor or extra-info.
        what: &'static str,
        /// What is wrong, and where.
        fault: DocError,
    },
    /// A document has annotations, which are a cache's own.
    #[error("Annotations (lines that begin with @) are not taken: send the document without them.")]
    Annotated,
    /// There is no TAP key.
    #[error(
        "Missing TAP key in descriptor: this authority wants a dummy one (onion-key and onion-key-crosscert)."
    )]
    NoTapKey,
    /// There is a TAP key.
    #[error(
        "TAP key in descriptor: this authority takes none any more (leave out onion-key and onion-key-crosscert)."
    )]
    TapKey,
    /// One of the identities is pinned to another.
    #[error(
        "This RSA identity was seen with another Ed25519 identity, or the other way round. Were only some of the key \
         files replaced or copied? Bring back the keys that belong together, or delete all to start with a new identity."
    )]
    KeysChanged,
    /// The platform begins as Tor's does, and goes on otherwise.
    #[error("The platform line begins with 'Tor' and then names no version of Tor.")]
    Platform,
    /// The version is too old.
    #[error("This version of Tor is too old for this network. Please upgrade!")]
    OldVersion,
    /// The administrator rejected the identity.
    #[error(
        "This authority rejects the relay's identity. If that is a mistake, write to the authority's contact."
    )]
    IdentityRejected,
    /// The administrator rejected the address.
    #[error(
        "This authority rejects relays at this address. If that is a mistake, write to the authority's contact."
    )]
    AddressRejected,
    /// The ntor key is all zero.
    #[error("The ntor onion key is all zero. Delete keys/secret_onion_key_ntor and restart the relay.")]
    NoNtorKey,
    /// The descriptor is from the future.
    #[error("The descriptor is {} minutes ahead of this authority's clock. See to the relay's clock and timezone.", by.as_secs() / 60)]
    Ahead {
        /// By how much.
        by: Duration,
    },
    /// The descriptor is old.
    #[error("The descriptor is {} hours old. See to the relay's clock and timezone.", age.as_secs() / 3600)]
    Expired {
        /// How old.
        age: Duration,
    },
    /// An address is not routed on the Internet.
    #[error("The relay publishes a private address. Set Address in its torrc to its public one.")]
    PrivateAddress,
    /// There is no descriptor that the extra-info goes with.
    #[error("This authority has no descriptor of the relay that this extra-info is of.")]
    NoDescriptor,
    /// The extra-info does not go with the descriptor.
    #[error("Cannot use this extra-info: {0}.")]
    ExtraInfo(ExtraInfoMismatch),
}

impl Refusal {
    /// A name for counting.
    pub fn label(&self) -> &'static str {
        match self {
            Refusal::NotText => "not_text",
            Refusal::Empty => "empty",
            Refusal::TooMany => "too_many",
            Refusal::Unreadable { .. } => "unreadable",
            Refusal::Annotated => "annotated",
            Refusal::NoTapKey => "no_tap_key",
            Refusal::TapKey => "tap_key",
            Refusal::KeysChanged => "keys_changed",
            Refusal::Platform => "platform",
            Refusal::OldVersion => "old_version",
            Refusal::IdentityRejected => "identity_rejected",
            Refusal::AddressRejected => "address_rejected",
            Refusal::NoNtorKey => "no_ntor_key",
            Refusal::Ahead { .. } => "ahead",
            Refusal::Expired { .. } => "expired",
            Refusal::PrivateAddress => "private_address",
            Refusal::NoDescriptor => "no_descriptor",
            Refusal::ExtraInfo(_) => "extra_info",
        }
    }
}

/// Why a document that is well in itself is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotNew {
    /// It is the one that is stored.
    #[error("This very descriptor is stored already.")]
    Same,
    /// Nothing of interest differs from the one that is stored.
    #[error("Nothing has changed since the last descriptor, which was made less than 2 hours earlier.")]
    Cosmetic,
    /// The one that is stored is newer, or as new.
    #[error("A newer descriptor of this relay is stored.")]
    Older,
    /// Its certificates have ended.
    #[error("Certificates in the descriptor have expired. Renew the relay's signing key.")]
    CertsExpired,
    /// The extra-info is of a descriptor that is not here yet.
    #[error("The extra-info is newer than the descriptor that is stored.")]
    NoDescriptorYet,
}

/// What is decided about one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is to be stored.
    Stored {
        /// Whether the relay may be listed; else it waits for the administrator.
        listed: bool,
        /// Whether the relay is to be probed at once, because it is new, has moved or comes back.
        probe: bool,
    },
    /// It is fine, and not stored.
    NotNew(NotNew),
    /// It is refused.
    Refused(Refusal),
}

impl Verdict {
    fn rank(&self) -> u8 {
        match self {
            Verdict::Stored { .. } => 0,
            Verdict::NotNew(_) => 1,
            Verdict::Refused(_) => 2,
        }
    }
}

/// A document as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A router descriptor.
    Descriptor(Arc<RouterDesc>),
    /// An extra-info.
    ExtraInfo(Box<ExtraInfo>),
}

/// A document of an upload and what is decided about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged<'a> {
    /// Its text; nothing when the verdict is on the whole upload.
    pub text: &'a str,
    /// What it says, if it could be read.
    pub document: Option<Document>,
    /// What is decided.
    pub verdict: Verdict,
}

/// What is decided about an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload<'a> {
    /// About each document, descriptors first; never empty.
    pub judged: Vec<Judged<'a>>,
    /// Pairs of identities that were pinned: they are to be added to the journal.
    pub pinned: Vec<Pin>,
}

/// The answer to an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 or 400; 503 when what is fine cannot be stored.
    pub status: u16,
    /// What the status line says besides: printable ASCII, of bounded length.
    pub reason: String,
    /// Whether it has the header `X-Descriptor-Not-New: Yes`.
    pub not_new: bool,
}

impl Upload<'_> {
    /// The answer: the first of the worst verdicts.
    pub fn answer(&self) -> Answer {
        let worst =
            self.judged.iter().map(|judged| &judged.verdict).rev().max_by_key(|verdict| verdict.rank());
        let (status, reason) = match worst {
            Some(Verdict::Refused(refusal)) => (400, refusal.to_string()),
            Some(Verdict::NotNew(why)) => (200, why.to_string()),
            Some(Verdict::Stored { listed: false, .. }) => {
                (200, "Stored; the relay waits for approval by this authority's administrator.".to_owned())
            }
            Some(Verdict::Stored { listed: true, .. }) | None => (200, "Stored".to_owned()),
        };
        Answer { status, reason: printable(&reason), not_new: matches!(worst, Some(Verdict::NotNew(_))) }
    }
}

/// What may stand on a status line: values of the document are quoted in some reasons.
fn printable(reason: &str) -> String {
    let ascii = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    reason.chars().map(ascii).take(ANSWER_REASON).collect()
}

/// Judges uploads at one moment.
#[derive(Debug)]
pub struct Admission<'a> {
    /// The settings.
    pub options: &'a AdmissionOptions,
    /// What the administrator decided.
    pub approvals: &'a Approvals,
    /// The pinned keys, to which new pairs are added.
    pub pins: &'a mut KeyPins,
    /// The newest descriptor stored of each relay.
    pub stored: &'a BTreeMap<Fingerprint, Arc<RouterDesc>>,
    /// Now.
    pub now: Unix,
}

impl Admission<'_> {
    /// Judges the body of an upload.
    pub fn judge<'b>(&mut self, body: &'b [u8]) -> Upload<'b> {
        let mut upload = Upload { judged: Vec::new(), pinned: Vec::new() };
        let refuse = |refusal| Judged { text: "", document: None, verdict: Verdict::Refused(refusal) };
        let Ok(text) = text_of(body) else {
            upload.judged.push(refuse(Refusal::NotText));
            return upload;
        };
        let mut documents: Vec<&str> = split_documents(text).take(DOCUMENTS_PER_UPLOAD + 1).collect();
        let too_many = documents.len() > DOCUMENTS_PER_UPLOAD;
        documents.truncate(DOCUMENTS_PER_UPLOAD);
        if documents.is_empty() {
            upload.judged.push(refuse(Refusal::Empty));
        }

        let (annotated, documents): (Vec<_>, Vec<_>) =
            with_gaps(text, &documents).partition(|(gap, text)| is_annotated(gap) || is_annotated(text));
        for (_, text) in annotated {
            upload.judged.push(Judged { text, ..refuse(Refusal::Annotated) });
        }
        // Descriptors first: an extra-info may stand before the descriptor that it goes with.
        let (descriptors, extra_infos): (Vec<_>, Vec<_>) =
            documents.into_iter().map(|(_, text)| text).partition(|text| text.starts_with("router "));
        let mut accepted = BTreeMap::new();
        for text in descriptors {
            let judged = self.judge_descriptor(text, &accepted, &mut upload.pinned);
            if let (Some(Document::Descriptor(descriptor)), Verdict::Stored { .. }) =
                (&judged.document, &judged.verdict)
            {
                accepted.insert(descriptor.identity, descriptor.clone());
            }
            upload.judged.push(judged);
        }
        for text in extra_infos {
            upload.judged.push(self.judge_extra_info(text, &accepted));
        }
        if too_many {
            upload.judged.push(refuse(Refusal::TooMany));
        }
        upload
    }

    fn judge_descriptor<'b>(
        &mut self,
        text: &'b str,
        accepted: &BTreeMap<Fingerprint, Arc<RouterDesc>>,
        pinned: &mut Vec<Pin>,
    ) -> Judged<'b> {
        let descriptor = match RouterDesc::parse(text) {
            Ok(descriptor) => Arc::new(descriptor),
            Err(fault) => {
                let refusal = Refusal::Unreadable { what: "descriptor", fault };
                return Judged { text, document: None, verdict: Verdict::Refused(refusal) };
            }
        };
        let stored = accepted.get(&descriptor.identity).or_else(|| self.stored.get(&descriptor.identity));
        let verdict =
            self.weigh(&descriptor, stored.map(Arc::as_ref), pinned).unwrap_or_else(|verdict| verdict);
        Judged { text, document: Some(Document::Descriptor(descriptor)), verdict }
    }

    /// The checks in their order; the first that fails is the verdict.
    fn weigh(
        &mut self,
        new: &RouterDesc,
        stored: Option<&RouterDesc>,
        pinned: &mut Vec<Pin>,
    ) -> Result<Verdict, Verdict> {
        self.check_tap_key(new).map_err(Verdict::Refused)?;
        let is_us = Some(new.identity) == self.options.us;
        if !is_us && stored.is_some_and(|old| old.published < new.published && is_cosmetic(old, new)) {
            return Err(Verdict::NotNew(NotNew::Cosmetic));
        }
        // Also descriptors that are refused for what follows pin their keys.
        self.check_pin(new, pinned).map_err(Verdict::Refused)?;
        if new.certs_expire < self.now {
            return Err(Verdict::NotNew(NotNew::CertsExpired));
        }
        if stored.is_some_and(|old| old.digest == new.digest) {
            return Err(Verdict::NotNew(NotNew::Same));
        }
        let listed = self.check_relay(new).map_err(Verdict::Refused)?;
        self.check_time(new).map_err(Verdict::Refused)?;
        if !self.options.allow_private_addresses && has_private_address(new) {
            return Err(Verdict::Refused(Refusal::PrivateAddress));
        }
        if stored.is_some_and(|old| old.published >= new.published) {
            return Err(Verdict::NotNew(NotNew::Older));
        }
        let probe = stored.is_none_or(|old| (old.hibernating && !new.hibernating) || has_moved(old, new));
        Ok(Verdict::Stored { listed, probe })
    }

    fn check_tap_key(&self, new: &RouterDesc) -> Result<(), Refusal> {
        match (self.options.tap_key, &new.tap_onion_key) {
            (TapKey::Required, None) => Err(Refusal::NoTapKey),
            (TapKey::Refused, Some(_)) => Err(Refusal::TapKey),
            _ => Ok(()),
        }
    }

    fn check_pin(&mut self, new: &RouterDesc, pinned: &mut Vec<Pin>) -> Result<(), Refusal> {
        let pin = Pin { rsa: new.identity, ed25519: new.ed_identity };
        let mismatch = self.pins.check(&pin) == Pinned::Mismatch;
        if self.pins.pin(pin, !self.options.pin_keys) {
            pinned.push(pin);
        }
        if mismatch && self.options.pin_keys { Err(Refusal::KeysChanged) } else { Ok(()) }
    }

    /// The rules about who it is and what it runs. Says whether it may be listed.
    fn check_relay(&self, new: &RouterDesc) -> Result<bool, Refusal> {
        let version =
            TorVersion::of_platform(new.platform.as_deref().unwrap_or("")).map_err(|_| Refusal::Platform)?;
        if version.is_some_and(|version| version < self.options.minimal_version) {
            return Err(Refusal::OldVersion);
        }
        let standing = self.approvals.standing(&new.identity, &new.ed_identity, new.ipv4);
        if standing.identity_rejected {
            return Err(Refusal::IdentityRejected);
        }
        if standing.marks.reject {
            return Err(Refusal::AddressRejected);
        }
        if new.ntor_onion_key == [0; 32] {
            return Err(Refusal::NoNtorKey);
        }
        Ok(standing.listed)
    }

    fn check_time(&self, new: &RouterDesc) -> Result<(), Refusal> {
        let (by, age) = (new.published.since(self.now), self.now.since(new.published));
        if by > AHEAD_MAX {
            return Err(Refusal::Ahead { by });
        }
        if age > AGE_MAX {
            return Err(Refusal::Expired { age });
        }
        Ok(())
    }

    fn judge_extra_info<'b>(
        &self,
        text: &'b str,
        accepted: &BTreeMap<Fingerprint, Arc<RouterDesc>>,
    ) -> Judged<'b> {
        let extra_info = match ExtraInfo::parse(text) {
            Ok(extra_info) => Box::new(extra_info),
            Err(fault) => {
                let refusal = Refusal::Unreadable { what: "extra-info", fault };
                return Judged { text, document: None, verdict: Verdict::Refused(refusal) };
            }
        };
        let identity = extra_info.identity;
        let verdict = match accepted.get(&identity).or_else(|| self.stored.get(&identity)) {
            None => Verdict::Refused(Refusal::NoDescriptor),
            Some(descriptor) => match extra_info.check_with(descriptor) {
                Ok(()) => Verdict::Stored { listed: true, probe: false },
                Err(ExtraInfoMismatch::Published) if extra_info.published > descriptor.published => {
                    Verdict::NotNew(NotNew::NoDescriptorYet)
                }
                Err(mismatch) => Verdict::Refused(Refusal::ExtraInfo(mismatch)),
            },
        };
        Judged { text, document: Some(Document::ExtraInfo(extra_info)), verdict }
    }
}

/// The documents of an upload, each after what stands between it and the one before.
fn with_gaps<'a>(upload: &'a str, documents: &[&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let mut rest = upload;
    documents.iter().map(move |document| {
        let at = document.as_ptr() as usize - rest.as_ptr() as usize;
        // Documents are parts of the upload, in their order.
        let (gap, from_there) = rest.split_at(at);
        rest = &from_there[document.len()..];
        (gap, *document)
    })
}

/// Whether a line is an annotation, to C tor as well: it takes no document with one before or in it. In the files on disk
/// they stand between documents, and are left out when those are read.
fn is_annotated(text: &str) -> bool {
    text.lines().map(str::trim_start).any(|line| {
        let keyword = line.strip_prefix("opt").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(line);
        keyword.trim_start().starts_with('@')
    })
}

/// Whether a descriptor says nothing new over an older one of the same relay, as C tor sees it: not the ntor key, the
/// signing certificate, the subprotocols and the IPv6 policy count, and the bandwidth only from a factor of two on.
pub fn is_cosmetic(old: &RouterDesc, new: &RouterDesc) -> bool {
    let lower = |text: Option<&str>| text.map(str::to_ascii_lowercase);
    !has_moved(old, new)
        && old.dir_port == new.dir_port
        && old.nickname.as_str().eq_ignore_ascii_case(new.nickname.as_str())
        && old.tap_onion_key == new.tap_onion_key
        && old.identity == new.identity
        && lower(old.platform.as_deref()) == lower(new.platform.as_deref())
        && lower(old.contact.as_deref()) == lower(new.contact.as_deref())
        && old.hibernating == new.hibernating
        && old.policy == new.policy
        && old.tunnelled_dir_server == new.tunnelled_dir_server
        && old.family == new.family
        && has_similar_bandwidth(old, new)
        && new.published.since(old.published) <= COSMETIC_AGE
        && has_plausible_uptime(old, new)
}

fn has_moved(old: &RouterDesc, new: &RouterDesc) -> bool {
    (old.ipv4, old.or_port, old.ipv6) != (new.ipv4, new.or_port, new.ipv6)
}

fn has_similar_bandwidth(old: &RouterDesc, new: &RouterDesc) -> bool {
    let (old, new) = (old.bandwidth, new.bandwidth);
    (old.rate, old.burst) == (new.rate, new.burst)
        && old.observed >= new.observed / 2
        && new.observed >= old.observed / 2
}

/// Whether the relay has been up for about as much longer as time has passed.
fn has_plausible_uptime(old: &RouterDesc, new: &RouterDesc) -> bool {
    let (before, after) = (old.uptime.unwrap_or(0), new.uptime.unwrap_or(0));
    let expected = before.saturating_add(new.published.since(old.published).as_secs());
    let drift = after.abs_diff(expected);
    drift <= UPTIME_DRIFT || drift as f64 <= before as f64 * 0.05 || drift as f64 <= after as f64 * 0.05
}

fn has_private_address(new: &RouterDesc) -> bool {
    is_internal(new.ipv4.into()) || new.ipv6.is_some_and(|(ip, _)| is_internal(ip.into()))
}

#[cfg(test)]
pub(crate) mod tests;
