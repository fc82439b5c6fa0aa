//! What Arti reads in a document, with the newer of its two parsers (`parse2`), which reads every field.
//!
//! [`legacy`] asks the older one, which Arti's clients use.

use std::net::SocketAddr;
use std::time::SystemTime;

use digest::Digest as _;
use tor_checkable::{ExternallySigned as _, SelfSigned as _, TimeBound as _};
use tor_llcrypto::d::{Sha3_256, Sha256};
use tor_llcrypto::pk::keymanip::convert_curve25519_to_ed25519_public;
use tor_llcrypto::pk::rsa::RsaIdentity;
use tor_netdoc::doc::authcert::{AuthCert, AuthCertUnverified};
use tor_netdoc::doc::extra_info::ExtraInfoUnverified;
use tor_netdoc::doc::microdesc::{Microdesc, MicrodescAndHash};
use tor_netdoc::doc::netstatus::{MdConsensus, PlainConsensus};
use tor_netdoc::doc::routerdesc::{RouterDesc, RouterDescUnverified};
use tor_netdoc::parse2::{self, NetdocParseable, NetdocParseableUnverified as _, ParseError, ParseInput};
use tor_netdoc::types::family::RelayFamily;
use tor_netdoc::types::policy::RuleKind;
use tor_netdoc::types::{Ed25519IdentityCert, Ed25519NtorCrossCert};

use crate::fields::{destinations, hex, ports, protocols, seconds};
use crate::{Document, Fields, Kind};

mod consensus;
mod vote;

/// The documents of one kind in the answer to a request for several.
///
/// # Errors
/// Why one of them was refused.
pub fn split(kind: Kind, body: &str) -> Result<Vec<&str>, String> {
    fn offsets<D: NetdocParseable>(body: &str) -> Result<Vec<&str>, String> {
        let docs = parse2::parse_netdoc_multiple_with_offsets::<D>(&ParseInput::new(body, "answer"));
        let docs = docs.map_err(refusal)?;
        Ok(docs.into_iter().map(|(_, start, end)| &body[start..end]).collect())
    }
    match kind {
        Kind::AuthCert => offsets::<AuthCertUnverified>(body),
        Kind::Descriptor => offsets::<RouterDescUnverified>(body),
        Kind::ExtraInfo => offsets::<ExtraInfoUnverified>(body),
        Kind::Microdesc => offsets::<Microdesc>(body),
        Kind::Consensus | Kind::Vote => Ok(vec![body]),
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
        Kind::Consensus if consensus::is_microdesc(text) => consensus::microdesc(text, &certs(beside)?),
        Kind::Consensus => consensus::plain(text, &certs(beside)?),
        Kind::Vote => vote::vote(text),
    }
}

fn parse<D: NetdocParseable>(text: &str) -> Result<D, String> {
    let mut input = ParseInput::new(text, "document");
    input.retain_unknown_values();
    parse2::parse_netdoc(&input).map_err(refusal)
}

/// The error's own text leaves its cause out.
fn refusal(error: ParseError) -> String {
    format!("line {}: {}", error.lno, error.problem)
}

fn verified_cert(text: &str) -> Result<AuthCert, String> {
    let cert: AuthCertUnverified = parse(text)?;
    let identity = cert.inspect_unverified().0.fingerprint.0;
    Ok(cert.verify(&[identity]).map_err(|e| e.to_string())?.dangerously_assume_timely())
}

fn certs(texts: &str) -> Result<Vec<AuthCert>, String> {
    split(Kind::AuthCert, texts)?.into_iter().map(verified_cert).collect()
}

fn auth_cert(text: &str) -> Result<Fields, String> {
    let cert = verified_cert(text)?;
    let mut out = Fields::default();
    out.put("identity", cert.fingerprint);
    out.put("identity key", hex(cert.dir_identity_key.to_der()));
    out.put("signing key", hex(cert.dir_signing_key.to_der()));
    out.put("signing key id", hex(cert.key_ids().sk_fingerprint.as_bytes()));
    out.put("published", seconds(cert.published()));
    out.put("expires", seconds(cert.expires()));
    out.maybe("dir-address", cert.dir_address);
    Ok(out)
}

fn verified_descriptor(text: &str) -> Result<(RouterDesc, [u8; 20]), String> {
    let unverified: RouterDescUnverified = parse(text)?;
    let digest = unverified.inspect_unverified().1.hashes.sha1.ok_or("no digest")?;
    let verified = unverified.verify().map_err(|e| e.to_string())?;
    Ok((verified.dangerously_assume_timely(), digest))
}

fn descriptor(text: &str) -> Result<Fields, String> {
    let (d, digest) = verified_descriptor(text)?;
    let mut out = Fields::default();
    out.put("digest", hex(digest));
    out.put("identity", hex(d.rsa_identity().as_bytes()));
    out.put("identity key", hex(d.signing_key.to_der()));
    out.put("ed identity", hex(d.ed_identity().as_bytes()));
    signing_certs(&mut out, &d)?;
    out.put("nickname", &d.router.nickname);
    out.put("address", d.router.address);
    out.put("or port", d.router.orport);
    out.put("dir port", d.router.dirport);
    let ipv6 = d.or_address.iter().find(|a| a.is_ipv6() && a.port() != 0);
    out.maybe("ipv6", ipv6.map(SocketAddr::to_string));
    out.maybe("platform", d.platform.as_ref());
    out.set("protocols", protocols(&d.proto));
    out.put("published", seconds(d.published()));
    out.maybe("uptime", d.uptime);
    out.put("bandwidth", format!("{} {} {}", d.bandwidth.average, d.bandwidth.burst, d.bandwidth.observed));
    if let Some(digests) = &d.extra_info_digest {
        out.put("extra-info sha1", hex(digests.sha1.0));
        out.maybe("extra-info sha256", digests.sha2.as_ref().map(|d| hex(d.0)));
    }
    out.put("caches extra-info", d.caches_extra_info.is_some());
    out.put("ntor key", hex(d.ntor_onion_key().as_bytes()));
    out.set("family", family(&d.family()));
    let keys = d.family_cert.iter().map(|cert| cert.get().map(|cert| hex(cert.family_ed25519.as_bytes())));
    out.set("family keys", keys.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?);
    out.put("hibernating", d.hibernating.0);
    out.put("hidden-service-dir", d.hidden_service_dir.is_some());
    out.maybe("contact", d.contact.as_ref());
    let permits = |ip, port| d.ipv4_policy.allows(&ip, port).unwrap_or(RuleKind::Accept) == RuleKind::Accept;
    out.put("policy", destinations(d.router.address, permits));
    out.put("ipv6 policy", ports(|port| d.ipv6_policy.allows_port(port)));
    out.put("tunnelled-dir-server", d.tunnelled_dir_server.is_some());
    Ok(out)
}

/// The certificates once more, by themselves: what `verify` returns has a single time for all of them.
fn signing_certs(out: &mut Fields, d: &RouterDesc) -> Result<(), String> {
    let raw = d.identity_ed25519.raw_unverified().clone();
    let signing = Ed25519IdentityCert::verify(raw).map_err(|e| e.to_string())?;
    let (_, signing_ends) = signing.bounds_start_end();
    let signing = signing.dangerously_assume_timely();
    let sign_bit = d.ntor_onion_key_crosscert.bit.0.into();
    let ntor =
        convert_curve25519_to_ed25519_public(d.ntor_onion_key(), sign_bit).ok_or("the ntor key is bad")?;
    let raw = d.ntor_onion_key_crosscert.cert.raw_unverified().clone();
    let ntor = Ed25519NtorCrossCert::verify(ntor.into(), *d.ed_identity(), raw).map_err(|e| e.to_string())?;
    let ends = |end: Option<SystemTime>| end.ok_or("a certificate without end");
    let signing_ends = ends(signing_ends)?;
    out.put("signing cert by", hex(signing.id_ed25519.as_bytes()));
    out.put("signing cert for", hex(signing.sign_ed25519.as_bytes()));
    out.put("signing cert expires", seconds(signing_ends));
    out.put("certs expire", seconds(signing_ends.min(ends(ntor.bounds_start_end().1)?)));
    Ok(())
}

fn family(family: &RelayFamily) -> impl Iterator<Item = String> {
    family.members().map(|id| format!("${}", hex(id.as_bytes())))
}

fn extra_info(text: &str, descriptor: &str) -> Result<Fields, String> {
    let unverified: ExtraInfoUnverified = parse(text)?;
    let sha1 = unverified.inspect_unverified().1.hashes.sha1.ok_or("no digest")?;
    let (descriptor, _) = verified_descriptor(descriptor).map_err(|e| format!("its descriptor: {e}"))?;
    // Arti leaves this to do.
    let sha256 = Sha256::digest(text);
    let named = descriptor.extra_info_digest.as_ref().and_then(|digests| digests.sha2.as_ref());
    if named.is_some_and(|named| named.0[..] != sha256[..]) {
        return Err("another SHA-256 than the descriptor says".into());
    }
    let extra = unverified.verify(&descriptor).map_err(|e| e.to_string())?;
    let identity = extra.identity_ed25519.get().map_err(|e| e.to_string())?.id_ed25519;
    let mut out = Fields::default();
    out.put("sha1", hex(sha1));
    out.put("sha256", hex(sha256));
    out.put("nickname", &extra.extra_info.nickname);
    out.put("identity", extra.extra_info.fingerprint);
    out.put("ed identity", hex(identity.as_bytes()));
    out.put("published", seconds(extra.published.0));
    Ok(out)
}

fn microdesc(text: &str) -> Result<Fields, String> {
    let md: Microdesc = parse(text)?;
    let mut out = Fields::default();
    out.put("digest", hex(Sha256::digest(text)));
    out.put("ntor key", hex(md.ntor_key().as_bytes()));
    out.put("ed identity", hex(md.ed25519_id().as_bytes()));
    out.set("family", family(md.family()));
    out.set("family ids", md.family_ids());
    out.put("policy", ports(|port| md.ipv4_policy().allows_port(port)));
    out.put("ipv6 policy", ports(|port| md.ipv6_policy().allows_port(port)));
    Ok(out)
}

/// Whether Arti's older parser accepts the document too, signatures included. There is none for extra-infos.
///
/// # Errors
/// Why it was refused.
pub fn legacy(document: &Document) -> Result<(), String> {
    let Document { kind, text, beside } = document;
    match kind {
        Kind::AuthCert => {
            AuthCert::parse(text).map_err(|e| e.to_string())?.check_signature().map_err(|e| e.to_string())?;
        }
        Kind::Descriptor => {
            RouterDesc::parse(text)
                .map_err(|e| e.to_string())?
                .check_signature()
                .map_err(|e| e.to_string())?;
        }
        // It reads neither.
        Kind::ExtraInfo | Kind::Vote => {}
        Kind::Microdesc => {
            let md = MicrodescAndHash::parse(text).map_err(|e| e.to_string())?;
            let digest: [u8; 32] = Sha256::digest(text).into();
            if md.sha256 != digest {
                return Err("another digest".into());
            }
        }
        Kind::Consensus => {
            let certs = certs(beside)?;
            let checked = if consensus::is_microdesc(text) {
                let (_, _, c) = MdConsensus::parse(text).map_err(|e| e.to_string())?;
                let c = c.dangerously_assume_timely().set_n_authorities(certs.len());
                c.check_signature(&certs).map(drop)
            } else {
                let (_, _, c) = PlainConsensus::parse(text).map_err(|e| e.to_string())?;
                let c = c.dangerously_assume_timely().set_n_authorities(certs.len());
                c.check_signature(&certs).map(drop)
            };
            checked.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// SHA3-256 of the signed part of a consensus: its body, and the keyword of the first signature with its blank.
fn signed_sha3(text: &str, body_len: usize) -> String {
    hex(Sha3_256::new().chain_update(&text[..body_len]).chain_update("directory-signature ").finalize())
}

fn identities(certs: &[AuthCert]) -> Vec<RsaIdentity> {
    let mut identities: Vec<RsaIdentity> = certs.iter().map(|cert| *cert.id_fingerprint()).collect();
    identities.sort();
    identities.dedup();
    identities
}
