//! What this relay says of itself: descriptor and extra-info.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use onionring_proto::dir::publish::Contents;
use onionring_proto::netdoc::extrainfo::NewExtraInfo;
use onionring_proto::netdoc::family::FamilyMember;
use onionring_proto::netdoc::protover::{self, Protocols};
use onionring_proto::netdoc::routerdesc::{Bandwidth, BuildError, DocumentKeys, NewDescriptor, OnionKeys};
use onionring_proto::netdoc::text::{Fingerprint, Nickname};
use onionring_proto::policy::ExitPolicy;
use onionring_proto::rate::Rate;
use onionring_proto::time::Unix;
use rand_chacha::ChaCha20Rng;

use super::bandwidth::History;
use super::overload::{Kind, Overload};
use crate::config::StatisticsConfig;
use crate::dir::publish::{Describe, SignedDocs};
use onionring_node::identity::{Identity, OnionKeyLife};

/// The subprotocols that work here, and no others (tor-spec 9).
///
/// Not there yet: congestion control (FlowCtrl=2), onion-service roles (HSDir, HSIntro, HSRend), circuit padding
/// machines (Padding), conflux, protocol requests and CGO (Relay=5-6).
pub const PROTOCOLS: &str =
    "Cons=1-2 Desc=1-4 DirCache=2 FlowCtrl=1 Link=3-5 LinkAuth=3 Microdesc=1-3 Relay=2-4";

/// The one of them that only a directory cache can have: consensus diffs.
const DIR_CACHE: &str = "DirCache=2 ";

/// What the configuration says about the descriptor.
#[derive(Clone, Debug)]
pub struct Publicity {
    /// Nickname.
    pub nickname: Nickname,
    /// Contact line.
    pub contact: Option<String>,
    /// Advertised IPv4 address and ORPort; without, nothing is published.
    pub ipv4: Option<(Ipv4Addr, u16)>,
    /// Advertised IPv6 address and ORPort.
    pub ipv6: Option<(Ipv6Addr, u16)>,
    /// Advertised DirPort, or 0.
    pub dir_port: u16,
    /// Bandwidth rate and burst in bytes a second.
    pub rate: (u64, u64),
    /// Relays of the same operator.
    pub family: Vec<FamilyMember>,
    /// Exit policy, as clients are to see it.
    pub policy: ExitPolicy,
    /// Whether the directory is served over BEGIN_DIR.
    pub dir_cache: bool,
    /// Whether streams end by halves for clients that ask for it.
    pub half_close: bool,
    /// Whether to publish anything.
    pub publish: bool,
    /// What is published of how things go.
    pub statistics: StatisticsConfig,
    /// `BandwidthRate` and `BandwidthBurst`, which overloads of the bandwidth are told with.
    pub limit: Rate,
}

impl Publicity {
    /// The ORPorts to which others are to connect.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let (v4, v6) = (self.ipv4.map(SocketAddr::from), self.ipv6.map(SocketAddr::from));
        v4.into_iter().chain(v6).collect()
    }
}

/// What changes while the relay runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// Whether others reach the IPv4 ORPort, or are assumed to: only then the relay is published.
    pub reachable: bool,
    /// The same for the IPv6 ORPort, which is left out of the descriptor until then.
    pub reachable_ipv6: bool,
    /// The best rate in bytes a second that was seen in the last days ([`bandwidth`](super::bandwidth)).
    pub observed: u64,
    /// Whether the consensus wants the TAP key published (`publish-dummy-tap-key`).
    pub tap_key: bool,
    /// How long onion keys live.
    pub onion_life: OnionKeyLife,
    /// The log says already which protocols are missing.
    pub warned_of_protocols: bool,
}

impl Standing {
    /// What is published changes: an address that is new has to be found reachable first. Returns whether one is.
    pub fn follow(&mut self, before: &Publicity, after: &Publicity) -> bool {
        self.reachable &= before.ipv4 == after.ipv4;
        self.reachable_ipv6 &= before.ipv6 == after.ipv6;
        before.addresses() != after.addresses()
    }

    /// Whether others reach an address of this family.
    pub fn reaches(&self, address: SocketAddr) -> bool {
        if address.is_ipv6() { self.reachable_ipv6 } else { self.reachable }
    }
}

/// The relay's account of itself.
pub struct Describer {
    /// What the configuration says.
    pub publicity: Rc<RefCell<Publicity>>,
    /// The keys.
    pub identity: Rc<RefCell<Identity>>,
    /// What changes.
    pub standing: Rc<RefCell<Standing>>,
    /// What was read and written in the last days.
    pub bandwidth: Rc<RefCell<History>>,
    /// When the relay was overloaded last.
    pub overload: Rc<RefCell<Overload>>,
    /// When the relay started.
    pub started: Unix,
    /// Randomness for signatures.
    pub rng: ChaCha20Rng,
}

impl Describe for Describer {
    fn contents(&mut self, now: Unix) -> Option<Contents> {
        let standing = *self.standing.borrow();
        if !standing.reachable {
            return None;
        }
        let publicity = self.publicity.borrow();
        let (ipv4, or_port) = publicity.ipv4.filter(|_| publicity.publish)?;
        let identity = self.identity.borrow();
        let (rate, burst) = publicity.rate;
        let descriptor = NewDescriptor {
            nickname: publicity.nickname,
            ipv4,
            or_port,
            dir_port: publicity.dir_port,
            ipv6: publicity.ipv6.filter(|_| standing.reachable_ipv6),
            platform: format!("onionring {} on Linux", env!("CARGO_PKG_VERSION")),
            protocols: advertised(publicity.dir_cache, publicity.half_close),
            published: now,
            uptime: now.since(self.started).as_secs(),
            bandwidth: Bandwidth {
                rate: clamp(rate).max(1),
                burst: clamp(burst),
                observed: clamp(standing.observed),
            },
            extra_info: None,
            caches_extra_info: publicity.dir_cache,
            family: publicity.family.clone(),
            family_certs: Vec::new(),
            hibernating: false,
            hidden_service_dir: false,
            contact: publicity.contact.clone(),
            policy: publicity.policy.clone(),
            tunnelled_dir_server: publicity.dir_cache,
            overloaded_since: self
                .overload
                .borrow()
                .told(Kind::General, now)
                .filter(|_| publicity.statistics.overload),
        };
        let keys = &identity.keys;
        Some(Contents {
            descriptor,
            ntor_key: *keys.onion.public(),
            tap_key: standing.tap_key.then(|| Fingerprint(keys.tap.public().rsa_id())),
            signing_cert: keys.signing_cert.clone().into(),
        })
    }

    fn sign(&mut self, contents: &Contents) -> Result<SignedDocs, BuildError> {
        let identity = self.identity.borrow();
        let standing = self.standing.borrow();
        let keys = &identity.keys;
        let document_keys = DocumentKeys {
            identity: &keys.rsa_identity,
            ed_identity: keys.ed_identity,
            signing: &keys.signing,
            signing_cert: &keys.signing_cert,
        };
        let extra_info = NewExtraInfo {
            nickname: contents.descriptor.nickname,
            published: contents.descriptor.published,
            statistics: self.statistics(contents.descriptor.published),
        };
        let extra_info = extra_info.sign(&document_keys, &mut self.rng)?;
        let life = standing.onion_life;
        let onion = OnionKeys {
            ntor: keys.onion.secret(),
            ntor_expires: keys.onion_since + life.rotation + life.grace + Duration::from_secs(24 * 3600),
            tap: contents.tap_key.is_some().then_some(&keys.tap),
        };
        let mut descriptor = contents.descriptor.clone();
        descriptor.extra_info = Some(extra_info.parsed.digests);
        let descriptor = descriptor.sign(&document_keys, &onion, &mut self.rng)?;
        Ok(SignedDocs { descriptor, extra_info })
    }
}

impl Describer {
    /// The statistics of the extra-info, in C tor's order.
    fn statistics(&self, now: Unix) -> Vec<String> {
        let publicity = self.publicity.borrow();
        let StatisticsConfig { extra_info, overload } = publicity.statistics;
        if !extra_info {
            return Vec::new();
        }
        let mut lines = self.bandwidth.borrow().lines();
        if overload {
            lines.extend(self.overload.borrow().lines(now, publicity.limit));
        }
        lines
    }
}

/// A rate as descriptors can say it.
fn clamp(bytes_per_second: u64) -> u32 {
    u32::try_from(bytes_per_second).map_or(Bandwidth::MAX, |rate| rate.min(Bandwidth::MAX))
}

/// What this program can do: [`PROTOCOLS`], parsed.
pub fn protocols() -> Protocols {
    Protocols::parse(PROTOCOLS).expect("a constant that the tests parse")
}

/// What this relay does: with `DirCache 0` it serves no directory, so no diffs either.
fn advertised(dir_cache: bool, half_close: bool) -> Protocols {
    let served = if dir_cache { PROTOCOLS.to_owned() } else { PROTOCOLS.replace(DIR_CACHE, "") };
    let mut served = Protocols::parse(&served).expect("a constant that the tests parse");
    if half_close {
        let (name, version) = protover::HALF_CLOSE;
        served.add(name, version);
    }
    served
}

#[cfg(test)]
mod tests;
