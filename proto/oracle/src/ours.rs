//! What onionring reads in a document.

use std::collections::BTreeSet;

use onionring_proto::link::cert::{CertType, UnverifiedCert};
use onionring_proto::netdoc::authcert::{AuthCert, CertStore};
use onionring_proto::netdoc::consensus::{Consensus, Flavor, RelayFlags, RelayStatus, UnverifiedConsensus};
use onionring_proto::netdoc::extrainfo::ExtraInfo;
use onionring_proto::netdoc::family::Family;
use onionring_proto::netdoc::microdesc::Microdesc;
use onionring_proto::netdoc::params::ConsensusParams;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::{RouterDesc, split_documents};
use onionring_proto::netdoc::text::{Fingerprint, base64_unpadded, split_at_lines};
use onionring_proto::netdoc::vote::{EdListing, SignedVote, Vote, VotedRelay};
use onionring_proto::policy::PortSummary;
use onionring_proto::time::Unix;

use crate::fields::{argument_names, destinations, hex, ports, protocols};
use crate::{Document, Fields, Kind};

/// A time at which no certificate has expired: only form and signatures are compared.
const EVER: Unix = Unix(0);

/// The documents of one kind in the answer to a request for several.
pub fn split(kind: Kind, body: &str) -> Vec<&str> {
    match kind {
        Kind::AuthCert => AuthCert::parse_all(body).map(|(text, _)| text).collect(),
        Kind::Microdesc => Microdesc::parse_all(body).map(|(text, _)| text).collect(),
        Kind::Descriptor | Kind::ExtraInfo => split_documents(body).collect(),
        Kind::Consensus | Kind::Vote => split_at_lines(body, "network-status-version").collect(),
    }
}

/// Reads a document and checks its signatures; a consensus without enough of them still has fields.
///
/// # Errors
/// Why it was refused.
pub fn read(document: &Document) -> Result<Fields, String> {
    let Document { kind, text, beside } = document;
    match kind {
        Kind::AuthCert => auth_cert(text),
        Kind::Descriptor => descriptor(text),
        Kind::ExtraInfo => extra_info(text, beside),
        Kind::Microdesc => microdesc(text),
        Kind::Consensus => consensus(text, beside),
        Kind::Vote => vote(text),
    }
}

fn auth_cert(text: &str) -> Result<Fields, String> {
    let cert = AuthCert::parse(text).map_err(|e| e.to_string())?;
    let mut out = Fields::default();
    out.put("identity", cert.identity);
    out.put("identity key", hex(cert.identity_key.to_der()));
    out.put("signing key", hex(cert.signing_key.to_der()));
    out.put("signing key id", cert.signing_key_id);
    out.put("published", cert.published.0);
    out.put("expires", cert.expires.0);
    out.maybe("dir-address", cert.dir_address);
    Ok(out)
}

fn descriptor(text: &str) -> Result<Fields, String> {
    let d = RouterDesc::parse(text).map_err(|e| e.to_string())?;
    let signing_cert = UnverifiedCert::parse(&d.signing_cert).map_err(|e| e.to_string())?;
    let (signer, signing_cert) = signing_cert
        .verify_self_named(CertType::IDENTITY_V_SIGNING, EVER)
        .map_err(|e| format!("accepted with a bad certificate: {e}"))?;
    let mut out = Fields::default();
    out.put("digest", d.digest);
    out.put("identity", d.identity);
    out.put("identity key", hex(d.identity_key.to_der()));
    out.put("ed identity", hex(d.ed_identity));
    out.put("signing cert by", hex(signer));
    out.put("signing cert expires", signing_cert.expires.0);
    out.put("signing cert for", hex(signing_cert.ed25519().map_err(|e| e.to_string())?));
    out.put("certs expire", d.certs_expire.0);
    out.put("nickname", d.nickname);
    out.put("address", d.ipv4);
    out.put("or port", d.or_port);
    out.put("dir port", d.dir_port);
    out.maybe("ipv6", d.ipv6.map(|(ip, port)| format!("[{ip}]:{port}")));
    out.maybe("platform", d.platform.as_deref());
    match d.protocols() {
        Ok(list) => out.set("protocols", protocols(list)),
        Err(_) => out.put("protocols", "unreadable"),
    }
    out.put("published", d.published.0);
    out.maybe("uptime", d.uptime);
    out.put("bandwidth", format!("{} {} {}", d.bandwidth.rate, d.bandwidth.burst, d.bandwidth.observed));
    if let Some(digests) = d.extra_info {
        out.put("extra-info sha1", digests.sha1);
        out.maybe("extra-info sha256", digests.sha256.map(hex));
    }
    out.put("caches extra-info", d.caches_extra_info);
    out.put("ntor key", hex(d.ntor_onion_key));
    out.set("family", family(&d.family));
    out.set("family keys", d.family_keys.iter().map(hex));
    out.put("hibernating", d.hibernating);
    out.put("hidden-service-dir", d.hidden_service_dir);
    out.maybe("contact", d.contact.as_deref());
    out.put("policy", destinations(d.ipv4, |ip, port| d.policy.permits(ip, port)));
    out.put("ipv6 policy", ports(|port| d.policy_v6.as_ref().is_some_and(|p| p.permits(port))));
    out.put("tunnelled-dir-server", d.tunnelled_dir_server);
    Ok(out)
}

fn family(family: &Family) -> impl Iterator<Item = String> {
    family.members().iter().map(ToString::to_string)
}

fn extra_info(text: &str, descriptor: &str) -> Result<Fields, String> {
    let extra = ExtraInfo::parse(text).map_err(|e| e.to_string())?;
    let descriptor = RouterDesc::parse(descriptor).map_err(|e| format!("its descriptor: {e}"))?;
    extra.check_with(&descriptor).map_err(|e| e.to_string())?;
    let mut out = Fields::default();
    out.put("sha1", extra.digests.sha1);
    out.maybe("sha256", extra.digests.sha256.map(hex));
    out.put("nickname", extra.nickname);
    out.put("identity", extra.identity);
    out.put("ed identity", hex(extra.ed_identity));
    out.put("published", extra.published.0);
    Ok(out)
}

fn microdesc(text: &str) -> Result<Fields, String> {
    let md = Microdesc::parse(text).map_err(|e| e.to_string())?;
    let mut out = Fields::default();
    out.put("digest", hex(md.digest));
    out.put("ntor key", hex(md.ntor_onion_key));
    out.maybe("ed identity", md.ed_identity.map(hex));
    out.set("family", family(&md.family));
    out.set("family ids", &md.family_ids);
    out.put("policy", ports(|port| md.policy.permits(port)));
    out.put("ipv6 policy", ports(|port| md.policy_v6.permits(port)));
    Ok(out)
}

fn consensus(text: &str, certs: &str) -> Result<Fields, String> {
    let unverified = UnverifiedConsensus::parse(text).map_err(|e| e.to_string())?;
    let mut store = CertStore::default();
    for (_, cert) in AuthCert::parse_all(certs) {
        store.insert(cert.map_err(|e| format!("a certificate: {e}"))?);
    }
    let authorities: BTreeSet<Fingerprint> = store.iter().map(|cert| cert.identity).collect();
    let authorities: Vec<Fingerprint> = authorities.into_iter().collect();
    let c = unverified.peek();
    let mut out = Fields::default();
    preamble(&mut out, c, text);
    for voter in &c.voters {
        let name = |field: &str| format!("voter {} {field}", voter.identity);
        out.put(name("nickname"), &voter.nickname);
        out.put(name("address"), voter.address);
        out.put(name("dir port"), voter.dir_port);
        out.put(name("or port"), voter.or_port);
        // Votes for a superseded key come without these in the other reader.
        if !voter.nickname.ends_with("-legacy") {
            out.put(name("contact"), &voter.contact);
            out.maybe(name("vote digest"), voter.vote_digest);
        }
    }
    for entry in &c.relays {
        relay(&mut out, entry, c.flavor);
    }
    out.put("relays", c.relays.len());
    out.put("relays left out", c.skipped_relays);
    out.put("verified", unverified.check(&authorities, &store, EVER).is_ok());
    // Without a certificate at hand, every signature that would count is reported by its keys.
    let signers = unverified.check(&authorities, &CertStore::default(), EVER).err();
    let signers = signers.into_iter().flat_map(|shortfall| shortfall.missing_certs);
    out.set("signers", signers.map(|(identity, key)| format!("{identity}-{key}")));
    Ok(out)
}

fn preamble(out: &mut Fields, c: &Consensus, text: &str) {
    out.put("flavor", format!("{:?}", c.flavor));
    out.put("signed sha3", hex(c.signed_sha3));
    out.put("method", c.method);
    out.put("valid-after", c.lifetime.valid_after.0);
    out.put("fresh-until", c.lifetime.fresh_until.0);
    out.put("valid-until", c.lifetime.valid_until.0);
    out.put("voting-delay", format!("{:?}", c.voting_delay));
    out.set("client-versions", &c.client_versions);
    out.set("server-versions", &c.server_versions);
    out.set("known-flags", flags(c.known_flags));
    out.set("recommended-client-protocols", protocols(&c.recommended_client_protocols));
    out.set("recommended-relay-protocols", protocols(&c.recommended_relay_protocols));
    out.set("required-client-protocols", protocols(&c.required_client_protocols));
    out.set("required-relay-protocols", protocols(&c.required_relay_protocols));
    parameters(out, "params", &c.params, text);
    parameters(out, "bandwidth-weights", &c.weights, text);
    for (name, random) in
        [("previous random", c.shared_random_previous), ("current random", c.shared_random_current)]
    {
        out.maybe(name, random.map(|r| format!("{} {}", r.reveals, hex(r.value))));
    }
}

/// Both readers are asked for the names that stand on the line.
fn parameters(out: &mut Fields, line: &str, params: &ConsensusParams, text: &str) {
    for name in argument_names(text, line) {
        out.maybe(format!("{line} {name}"), params.raw(name));
    }
}

fn flags(flags: RelayFlags) -> impl Iterator<Item = &'static str> {
    RelayFlags::NAMES.iter().filter(move |(flag, _)| flags.has(*flag)).map(|(_, name)| *name)
}

fn relay(out: &mut Fields, r: &RelayStatus, flavor: Flavor) {
    let name = |field: &str| format!("relay {} {field}", r.identity);
    out.put(name("nickname"), r.nickname);
    out.put(name("address"), r.ipv4);
    out.put(name("or port"), r.or_port);
    out.put(name("dir port"), r.dir_port);
    out.maybe(name("ipv6"), r.or_addr_v6());
    // A consensus lists only what is running and valid, and the other reader takes that for granted.
    out.set(name("flags"), flags(r.flags | RelayFlags::RUNNING | RelayFlags::VALID));
    out.maybe(name("bandwidth"), r.bandwidth);
    out.put(name("unmeasured"), r.unmeasured);
    out.maybe(name("guard fraction"), r.guard_fraction);
    out.maybe(name("version"), r.version.as_deref());
    out.set(name("protocols"), protocols(&r.protocols));
    match flavor {
        Flavor::Ns => {
            out.maybe(name("descriptor"), r.descriptor());
            out.maybe(name("policy"), r.policy.as_deref().map(|p| ports(|port| p.permits(port))));
        }
        Flavor::Microdesc => out.maybe(name("microdesc"), r.microdesc().map(hex)),
    }
}

/// A vote is refused unless its signature and that of the certificate in it are right.
fn vote(text: &str) -> Result<Fields, String> {
    let SignedVote { vote: v, .. } = SignedVote::parse(text).map_err(|e| e.to_string())?;
    let mut out = Fields::default();
    out.set("methods", &v.methods);
    out.put("published", v.published.0);
    out.put("valid-after", v.lifetime.valid_after.0);
    out.put("fresh-until", v.lifetime.fresh_until.0);
    out.put("valid-until", v.lifetime.valid_until.0);
    out.put("voting-delay", format!("{:?}", v.voting_delay));
    out.set("client-versions", v.client_versions.iter().flatten());
    out.set("server-versions", v.server_versions.iter().flatten());
    out.set("known-flags", &v.known_flags);
    for (name, list) in [
        ("recommended-client-protocols", &v.recommended_client_protocols),
        ("recommended-relay-protocols", &v.recommended_relay_protocols),
        ("required-client-protocols", &v.required_client_protocols),
        ("required-relay-protocols", &v.required_relay_protocols),
    ] {
        out.set(name, list.iter().flat_map(protocols));
    }
    for name in argument_names(text, "params") {
        out.maybe(format!("params {name}"), v.params.get(name));
    }
    out.put("identity", v.authority.identity);
    out.put("nickname", &v.authority.nickname);
    out.put("address", v.authority.address);
    out.put("dir port", v.authority.dir_port);
    out.put("or port", v.authority.or_port);
    out.put("contact", &v.authority.contact);
    for relay in &v.relays {
        voted(&mut out, relay, &v)?;
    }
    out.put("relays", v.relays.len());
    out.put("verified", true);
    Ok(out)
}

fn voted(out: &mut Fields, r: &VotedRelay, vote: &Vote) -> Result<(), String> {
    let name = |field: &str| format!("relay {} {field}", r.identity);
    out.put(name("nickname"), r.nickname);
    out.put(name("address"), r.ipv4);
    out.put(name("or port"), r.or_port);
    out.put(name("dir port"), r.dir_port);
    out.put(name("descriptor"), r.descriptor);
    out.put(name("published"), r.published.0);
    out.maybe(name("ipv6"), r.ipv6.map(|(ip, port)| format!("[{ip}]:{port}")));
    out.set(name("flags"), vote.flag_names(r.flags));
    out.maybe(name("version"), r.version.as_deref());
    let list = Protocols::parse(&r.protocols).map_err(|e| format!("accepted with bad protocols: {e}"))?;
    out.set(name("protocols"), protocols(&list));
    out.maybe(name("Bandwidth"), r.weight.bandwidth);
    out.maybe(name("Measured"), r.weight.measured);
    if let Some(text) = &r.policy {
        let policy = PortSummary::parse(text).map_err(|e| format!("accepted with a bad policy: {e}"))?;
        out.put(name("policy"), ports(|port| policy.permits(port)));
    }
    if let EdListing::Key(key) = &r.ed_identity {
        out.put(name("ed identity"), hex(key));
    }
    let microdescs = r.microdescs.iter().map(|m| {
        let methods: Vec<String> = m.methods.iter().map(ToString::to_string).collect();
        format!("{} sha256={}", methods.join(","), base64_unpadded(&m.digest))
    });
    out.set(name("microdescs"), microdescs);
    Ok(())
}
