//! Relays that wait to be approved in a strict network.
//!
//! The state is a file with a line for each, so that another process can show it to the administrator:
//!
//! ```text
//! FINGERPRINT ED25519 ADDRESS <first descriptor> <last descriptor> NICKNAME [CONTACT]
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::text::{self, Fingerprint, Nickname};
use onionring_proto::time::Unix;

use super::{Approvals, RelayId};
use crate::limits::{PENDING_CONTACT, PENDING_RELAYS};

/// A relay that waits to be approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRelay {
    /// Its RSA identity.
    pub rsa: Fingerprint,
    /// Its Ed25519 identity.
    pub ed25519: [u8; 32],
    /// What it calls itself.
    pub nickname: Nickname,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its operator, as it says, without control characters and shortened.
    pub contact: Option<Box<str>>,
    /// When it first sent a descriptor.
    pub since: Unix,
    /// When it last did.
    pub last: Unix,
}

impl PendingRelay {
    /// Its identities, to decide about it: first that which cannot be forged.
    pub fn ids(&self) -> [RelayId; 2] {
        [RelayId::Ed25519(self.ed25519), RelayId::Rsa(self.rsa)]
    }

    fn parse(line: &str) -> Option<PendingRelay> {
        let mut words = line.splitn(9, ' ');
        let mut next = || words.next();
        let (rsa, ed25519, ipv4) = (next()?, next()?, next()?);
        let since = text::time(next()?, next()?)?;
        let last = text::time(next()?, next()?)?;
        let (nickname, contact) = (next()?, next());
        Some(PendingRelay {
            rsa: Fingerprint::from_hex(rsa)?,
            ed25519: text::base64_array(ed25519)?,
            nickname: Nickname::new(nickname)?,
            ipv4: ipv4.parse().ok()?,
            contact: contact.and_then(shown),
            since,
            last,
        })
    }
}

/// What is shown of a contact.
fn shown(contact: &str) -> Option<Box<str>> {
    let shown: String = contact.chars().filter(|c| !c.is_control()).take(PENDING_CONTACT).collect();
    Some(shown.trim()).filter(|shown| !shown.is_empty()).map(Box::from)
}

/// The relays that wait to be approved in a strict network, as far as they still send descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    relays: BTreeMap<Fingerprint, PendingRelay>,
}

impl Pending {
    /// Reads the state. Lines that cannot be read are left out: the relay comes back with its next descriptor.
    pub fn read(state: &str) -> Pending {
        let mut pending = Pending::default();
        for relay in state.lines().filter_map(PendingRelay::parse) {
            pending.insert(relay);
        }
        pending
    }

    /// The state.
    pub fn write(&self) -> String {
        let mut out = String::new();
        for relay in self.relays.values() {
            let (ed25519, ipv4) = (text::base64_unpadded(&relay.ed25519), relay.ipv4);
            let (since, last) = (text::format_time(relay.since), text::format_time(relay.last));
            // Writing to a String does not fail.
            let _ = write!(out, "{} {ed25519} {ipv4} {since} {last} {}", relay.rsa, relay.nickname);
            if let Some(contact) = &relay.contact {
                let _ = write!(out, " {contact}");
            }
            out.push('\n');
        }
        out
    }

    /// A relay that is not approved sent this descriptor. When too many wait, the one that was silent longest is dropped;
    /// it comes back with its next descriptor.
    pub fn note(&mut self, descriptor: &RouterDesc, now: Unix) {
        let since = self.relays.get(&descriptor.identity).map_or(now, |relay| relay.since);
        self.insert(PendingRelay {
            rsa: descriptor.identity,
            ed25519: descriptor.ed_identity,
            nickname: descriptor.nickname,
            ipv4: descriptor.ipv4,
            contact: descriptor.contact.as_deref().and_then(shown),
            since,
            last: now,
        });
    }

    fn insert(&mut self, relay: PendingRelay) {
        self.relays.insert(relay.rsa, relay);
        if self.relays.len() > PENDING_RELAYS
            && let Some(silent) = self.relays.values().min_by_key(|relay| relay.last).map(|relay| relay.rsa)
        {
            self.relays.remove(&silent);
        }
    }

    /// Drops those that were decided about meanwhile.
    pub fn settle(&mut self, approvals: &Approvals) {
        self.relays.retain(|_, relay| {
            let standing = approvals.standing(&relay.rsa, &relay.ed25519, relay.ipv4);
            !standing.listed && !standing.marks.reject
        });
    }

    /// The one with this fingerprint.
    pub fn get(&self, rsa: &Fingerprint) -> Option<&PendingRelay> {
        self.relays.get(rsa)
    }

    /// Those that wait, longest first.
    pub fn list(&self) -> Vec<&PendingRelay> {
        let mut relays: Vec<_> = self.relays.values().collect();
        relays.sort_by_key(|relay| relay.since);
        relays
    }
}
