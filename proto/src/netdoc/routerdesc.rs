//! Router descriptors (dir-spec 2.1.1): what a relay says of itself.
//!
//! Parsing accepts and refuses what authorities running C tor 0.4.9 do, so that whatever passes here is in the
//! network; [`NewDescriptor`] writes one that they take.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::crypto::rsa::RsaPublic;
use crate::limits::ROUTER_DESCRIPTOR;
use crate::link::cert::{CertType, UnverifiedCert, verify_onion_key_crosscert};
use crate::netdoc::authcert::time_of;
use crate::netdoc::family::{Family, FamilyMember};
use crate::netdoc::protover::{Protocols, ProtoverError};
use crate::netdoc::section::{Count, Obj, Rule, Section, exact, rule};
use crate::netdoc::signed::{self, ED_CERT, EVER, SignedBy};
use crate::netdoc::text::{self, Fingerprint, Nickname};
use crate::netdoc::tokenize::Item;
use crate::netdoc::{DocError, Fault};
use crate::policy::{ExitPolicy, PortSummary};
use crate::time::Unix;

mod build;

pub use crate::netdoc::signed::{BuildError, DocumentKeys, split_documents};
pub use build::{NewDescriptor, OnionKeys, SignedDescriptor};

const ROUTER: &str = "router";
const RSA_KEY: Obj = Obj::Label("RSA PUBLIC KEY");

const RULES: &[Rule] = &[
    rule(ROUTER, Count::One, 5, Obj::No),
    exact(signed::IDENTITY, Count::One, 0, Obj::Label(ED_CERT)),
    rule("master-key-ed25519", Count::One, 1, Obj::No),
    rule("or-address", Count::Many, 1, Obj::No),
    rule("platform", Count::Optional, 0, Obj::No),
    rule("proto", Count::One, 0, Obj::No),
    rule("published", Count::One, 2, Obj::No),
    rule("fingerprint", Count::Optional, 0, Obj::No),
    rule("uptime", Count::Optional, 1, Obj::No),
    rule("bandwidth", Count::One, 3, Obj::No),
    rule("read-history", Count::Optional, 0, Obj::No),
    rule("write-history", Count::Optional, 0, Obj::No),
    rule("extra-info-digest", Count::Optional, 1, Obj::No),
    exact("caches-extra-info", Count::Optional, 0, Obj::No),
    exact("onion-key", Count::Optional, 0, RSA_KEY),
    exact("signing-key", Count::One, 0, RSA_KEY),
    exact("onion-key-crosscert", Count::Optional, 0, Obj::Label("CROSSCERT")),
    exact("ntor-onion-key-crosscert", Count::One, 1, Obj::Label(ED_CERT)),
    rule("family", Count::Optional, 0, Obj::No),
    rule("hibernating", Count::Optional, 1, Obj::No),
    exact("hidden-service-dir", Count::Optional, 0, Obj::No),
    exact("allow-single-hop-exits", Count::Optional, 0, Obj::No),
    rule("family-cert", Count::Many, 0, Obj::Any),
    rule("contact", Count::Optional, 0, Obj::No),
    rule("bridge-distribution-request", Count::Optional, 0, Obj::No),
    rule("ntor-onion-key", Count::One, 1, Obj::No),
    rule("accept", Count::Many, 1, Obj::No),
    rule("reject", Count::Many, 1, Obj::No),
    rule("accept6", Count::Many, 0, Obj::No),
    rule("reject6", Count::Many, 0, Obj::No),
    rule("ipv6-policy", Count::Optional, 2, Obj::No),
    exact("tunnelled-dir-server", Count::Optional, 0, Obj::No),
    rule(signed::ED_SIGNATURE, Count::One, 1, Obj::No),
    exact(signed::RSA_SIGNATURE, Count::One, 0, Obj::Label("SIGNATURE")),
];

/// What a relay can carry, in bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// What it is willing to carry over time; at least 1.
    pub rate: u32,
    /// What it is willing to carry for a moment.
    pub burst: u32,
    /// What it has been seen to carry.
    pub observed: u32,
}

impl Bandwidth {
    /// Greatest value of each: 2^31-1.
    pub const MAX: u32 = i32::MAX as u32;
}

/// The names of the extra-info that goes with a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtraInfoDigests {
    /// SHA-1 of its signed part.
    pub sha1: Fingerprint,
    /// SHA-256 of all of it; may be left out.
    pub sha256: Option<[u8; 32]>,
}

/// A router descriptor whose signatures and cross-certificates hold.
///
/// Whether it is current is another matter: see [`RouterDesc::published`] and [`RouterDesc::certs_expire`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterDesc {
    /// SHA-1 of the signed part: the descriptor's name.
    pub digest: Fingerprint,
    /// SHA-1 of the RSA identity key.
    pub identity: Fingerprint,
    /// RSA identity key.
    pub identity_key: RsaPublic,
    /// Ed25519 identity.
    pub ed_identity: [u8; 32],
    /// The certificate from the Ed25519 identity to the signing key.
    pub signing_cert: Box<[u8]>,
    /// When the first of its certificates ends.
    pub certs_expire: Unix,
    /// Nickname.
    pub nickname: Nickname,
    /// IPv4 address.
    pub ipv4: Ipv4Addr,
    /// ORPort there; never 0.
    pub or_port: u16,
    /// DirPort there, or 0.
    pub dir_port: u16,
    /// IPv6 ORPort.
    pub ipv6: Option<(Ipv6Addr, u16)>,
    /// Software and system.
    pub platform: Option<Box<str>>,
    /// Subprotocols as written; see [`RouterDesc::protocols`].
    pub proto: Box<str>,
    /// When it was made.
    pub published: Unix,
    /// Seconds the relay had been up.
    pub uptime: Option<u64>,
    /// What it can carry.
    pub bandwidth: Bandwidth,
    /// Its extra-info.
    pub extra_info: Option<ExtraInfoDigests>,
    /// Whether it serves extra-infos.
    pub caches_extra_info: bool,
    /// The TAP onion key, which nobody uses any more.
    pub tap_onion_key: Option<RsaPublic>,
    /// The ntor onion key (Curve25519).
    pub ntor_onion_key: [u8; 32],
    /// Relays it calls its family.
    pub family: Family,
    /// Keys of the families it has proved to belong to.
    pub family_keys: Box<[[u8; 32]]>,
    /// Whether it takes no circuits for now.
    pub hibernating: bool,
    /// Whether it keeps onion-service descriptors.
    pub hidden_service_dir: bool,
    /// Its operator.
    pub contact: Option<Box<str>>,
    /// Its IPv4 exit policy.
    pub policy: ExitPolicy,
    /// Its IPv6 exit policy; absent means that nothing is let out.
    pub policy_v6: Option<PortSummary>,
    /// Whether it serves its directory over BEGIN_DIR.
    pub tunnelled_dir_server: bool,
}

impl RouterDesc {
    /// Parses and verifies one descriptor; `text` is exactly its text (see [`split_documents`]).
    pub fn parse(text: &str) -> Result<Self, DocError> {
        if text.len() > ROUTER_DESCRIPTOR {
            return Err(Fault::TooLarge { size: text.len(), max: ROUTER_DESCRIPTOR }.at(1));
        }
        let s = Section::parse(text, RULES)?;
        let signed = signed::check(text, ROUTER, &s)?;
        let identity_key = rsa_1024(s.need("signing-key")?, "signing-key")?;
        let identity = Fingerprint(identity_key.rsa_id());
        identity_key
            .verify_bare(&signed.digest.0, &signed.rsa_signature)
            .map_err(|_| Fault::BadSignature(signed::RSA_SIGNATURE).at(signed.rsa_line))?;
        check_names(&s, &identity, &signed)?;
        let (ntor_onion_key, ntor_expires) = ntor_key(&s, &signed.ed_identity)?;
        let router = s.need(ROUTER)?;
        let port = |n| router.parse_arg(n, "port", |a| a.parse::<u16>().ok());
        Ok(RouterDesc {
            digest: signed.digest,
            tap_onion_key: tap_key(&s, &identity, &signed.ed_identity)?,
            identity,
            identity_key,
            ed_identity: signed.ed_identity,
            certs_expire: signed.expires.min(ntor_expires),
            signing_cert: signed.signing_cert,
            nickname: router.parse_arg(0, "nickname", Nickname::new)?,
            ipv4: router.parse_arg(1, "address", |a| a.parse().ok())?,
            or_port: port(2).and_then(|p| match p {
                0 => Err(router.fault(Fault::value("ORPort", "0"))),
                p => Ok(p),
            })?,
            dir_port: port(4)?,
            ipv6: s.all("or-address").filter_map(|i| i.arg(0)).find_map(ipv6_or_port),
            platform: s.get("platform").map(|i| i.rest.into()),
            proto: s.need("proto")?.rest.into(),
            published: time_of(s.need("published")?)?,
            uptime: s.get("uptime").map(|i| i.parse_arg(0, "uptime", |a| a.parse().ok())).transpose()?,
            bandwidth: bandwidth(s.need("bandwidth")?)?,
            extra_info: s.get("extra-info-digest").map(extra_info_digests).transpose()?,
            caches_extra_info: s.get("caches-extra-info").is_some(),
            ntor_onion_key,
            family: s.get("family").map(family).transpose()?.unwrap_or_default(),
            family_keys: s
                .all("family-cert")
                .map(|i| family_key(i, &signed.ed_identity))
                .collect::<Result<_, _>>()?,
            hibernating: s.get("hibernating").is_some_and(|i| i.arg(0) != Some("0")),
            hidden_service_dir: s.get("hidden-service-dir").is_some(),
            contact: s.get("contact").map(|i| i.rest.into()),
            policy: policy(&s)?,
            policy_v6: s
                .get("ipv6-policy")
                .map(|i| PortSummary::parse(i.rest).map_err(|_| i.fault(Fault::value("ipv6-policy", i.rest))))
                .transpose()?,
            tunnelled_dir_server: s.get("tunnelled-dir-server").is_some(),
        })
    }

    /// Its subprotocols. C tor stores a descriptor whose line does not parse, and leaves the relay out of votes.
    pub fn protocols(&self) -> Result<Protocols, ProtoverError> {
        Protocols::parse(&self.proto)
    }
}

/// The RSA key of a line, which has 1024 bits.
pub(super) fn rsa_1024(item: &Item<'_>, what: &'static str) -> Result<RsaPublic, DocError> {
    let der = item.decode_object("RSA PUBLIC KEY", what)?;
    let key = RsaPublic::from_der(&der).map_err(|e| item.fault(Fault::value(what, &e.to_string())))?;
    match key.bits() {
        1024 => Ok(key),
        bits => Err(item.fault(Fault::value(what, &format!("{bits} bits")))),
    }
}

/// The lines that repeat the identities must agree with the keys.
fn check_names(s: &Section<'_>, identity: &Fingerprint, signed: &SignedBy) -> Result<(), DocError> {
    let master = s.need("master-key-ed25519")?;
    if master.parse_arg(0, "master-key-ed25519", text::base64_array)? != signed.ed_identity {
        return Err(
            master.fault(Fault::Mismatch("master-key-ed25519 is not the key that identity-ed25519 names"))
        );
    }
    if let Some(item) = s.get("fingerprint") {
        let joined: String = item.args().collect();
        if Fingerprint::from_hex(&joined) != Some(*identity) {
            return Err(item.fault(Fault::Mismatch("the fingerprint is not that of the signing-key")));
        }
    }
    Ok(())
}

/// The TAP key and its cross-certificate, which come together or not at all.
fn tap_key(s: &Section<'_>, identity: &Fingerprint, ed: &[u8; 32]) -> Result<Option<RsaPublic>, DocError> {
    let (key, crosscert) = match (s.get("onion-key"), s.get("onion-key-crosscert")) {
        (None, None) => return Ok(None),
        (Some(key), Some(crosscert)) => (key, crosscert),
        (Some(key), None) => return Err(key.fault(Fault::Missing("onion-key-crosscert"))),
        (None, Some(crosscert)) => return Err(crosscert.fault(Fault::Missing("onion-key"))),
    };
    let key = rsa_1024(key, "onion-key")?;
    let signature = crosscert.decode_object("CROSSCERT", "onion-key-crosscert")?;
    key.verify_bare(&tap_crosscert_message(identity, ed), &signature)
        .map_err(|_| crosscert.fault(Fault::BadSignature("onion-key-crosscert")))?;
    Ok(Some(key))
}

/// What the TAP key signs: both identities, not hashed.
fn tap_crosscert_message(identity: &Fingerprint, ed: &[u8; 32]) -> [u8; 52] {
    let mut message = [0; 52];
    message[..20].copy_from_slice(&identity.0);
    message[20..].copy_from_slice(ed);
    message
}

fn ntor_key(s: &Section<'_>, ed: &[u8; 32]) -> Result<([u8; 32], Unix), DocError> {
    const CROSSCERT: &str = "ntor-onion-key-crosscert";
    let key = s.need("ntor-onion-key")?.parse_arg(0, "ntor-onion-key", text::base64_array)?;
    let item = s.need(CROSSCERT)?;
    let sign = item.parse_arg(0, "sign bit", |a| match a {
        "0" => Some(0),
        "1" => Some(1),
        _ => None,
    })?;
    let cert = item.decode_object(ED_CERT, CROSSCERT)?;
    let cert = verify_onion_key_crosscert(&cert, &key, sign, ed, EVER)
        .map_err(|e| item.fault(Fault::BadCertificate { what: CROSSCERT, why: e.to_string() }))?;
    Ok((key, cert.expires))
}

/// The family key of one certificate. As in C tor, the object's label and the expiry do not matter.
fn family_key(item: &Item<'_>, ed: &[u8; 32]) -> Result<[u8; 32], DocError> {
    const CERT: &str = "family-cert";
    let bad = |why: String| item.fault(Fault::BadCertificate { what: CERT, why });
    let bytes = item
        .object
        .ok_or_else(|| item.fault(Fault::MissingObject { keyword: CERT, label: "FAMILY CERT" }))?
        .decode()
        .ok_or_else(|| bad("not base64".into()))?;
    let (family, cert) = UnverifiedCert::parse(&bytes)
        .and_then(|c| c.verify_self_named(CertType::FAMILY_V_IDENTITY, EVER))
        .map_err(|e| bad(e.to_string()))?;
    match cert.ed25519() {
        Ok(subject) if subject == *ed => Ok(family),
        _ => Err(bad("it vouches for another relay".into())),
    }
}

/// The first entry that is an IPv6 address and port counts; others are passed over.
fn ipv6_or_port(text: &str) -> Option<(Ipv6Addr, u16)> {
    match text.parse().ok()? {
        SocketAddr::V6(addr) if addr.port() != 0 => Some((*addr.ip(), addr.port())),
        _ => None,
    }
}

fn bandwidth(item: &Item<'_>) -> Result<Bandwidth, DocError> {
    let field = |n| item.parse_arg(n, "bandwidth", |a| a.parse().ok().filter(|b| *b <= Bandwidth::MAX));
    let bandwidth = Bandwidth { rate: field(0)?, burst: field(1)?, observed: field(2)? };
    if bandwidth.rate == 0 {
        return Err(item.fault(Fault::value("bandwidth rate", "0")));
    }
    Ok(bandwidth)
}

fn extra_info_digests(item: &Item<'_>) -> Result<ExtraInfoDigests, DocError> {
    let sha1 = item.parse_arg(0, "extra-info-digest", Fingerprint::from_hex)?;
    let sha256 =
        item.arg(1).map(|_| item.parse_arg(1, "extra-info-digest", text::base64_array)).transpose()?;
    Ok(ExtraInfoDigests { sha1, sha256 })
}

fn family(item: &Item<'_>) -> Result<Family, DocError> {
    let member = |arg| FamilyMember::parse(arg).ok_or_else(|| item.fault(Fault::value("family member", arg)));
    item.args().map(member).collect()
}

fn policy(s: &Section<'_>) -> Result<ExitPolicy, DocError> {
    let mut rules = Vec::new();
    for item in s.iter().filter(|i| matches!(i.keyword, "accept" | "reject" | "accept6" | "reject6")) {
        let line = format!("{} {}", item.keyword, item.arg(0).unwrap_or(""));
        let one = ExitPolicy::from_descriptor([line.as_str()])
            .map_err(|_| item.fault(Fault::value("policy line", &line)))?;
        rules.extend_from_slice(one.rules());
    }
    if rules.is_empty() {
        return Err(Fault::Missing("accept or reject").at(s.opens_with(ROUTER)?.line));
    }
    Ok(ExitPolicy::from_rules(rules))
}

#[cfg(test)]
mod tests;
