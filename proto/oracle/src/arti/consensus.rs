//! The consensus, whose two flavours are types of their own in Arti, with the same fields in most places.

use tor_llcrypto::pk::rsa::RsaIdentity;
use tor_netdoc::doc::authcert::AuthCert;
use tor_netdoc::doc::netstatus::{
    ConsensusAuthoritySection, DirectorySignatureHashAlgo, Lifetime, NetParams, ProtoStatuses,
    RelayWeightsItem, SharedRandStatus, Signature, md, plain,
};
use tor_netdoc::parse2::NetdocParseableUnverified as _;
use tor_netdoc::types::KeywordOrString;
use tor_netdoc::types::relay_flags::DocRelayFlags;

use super::{identities, parse, signed_sha3};
use crate::Fields;
use crate::fields::{argument_names, hex, ports, protocols, seconds};

/// Flags that onionring knows and Arti does not.
const UNKNOWN_TO_ARTI: [&str; 1] = ["Sybil"];

/// Whether a consensus says it is of the `microdesc` flavour.
pub(super) fn is_microdesc(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.split_ascii_whitespace().nth(2) == Some("microdesc"))
}

macro_rules! reader {
    ($(#[$doc:meta])* $name:ident, $flavor:ident, $label:literal, $of_flavor:ident) => {
        $(#[$doc])*
        pub(super) fn $name(text: &str, certs: &[AuthCert]) -> Result<Fields, String> {
            let unverified: $flavor::NetworkStatusUnverified = parse(text)?;
            let trusted = identities(certs);
            let (c, signatures) = unverified.inspect_unverified();
            let mut out = Fields::default();
            out.put("flavor", $label);
            out.put("signed sha3", signed_sha3(text, signatures.unsigned_body_len));
            out.put("method", c.preamble.consensus_method.0);
            lifetime(&mut out, &c.preamble.lifetime);
            out.maybe("voting-delay", c.preamble.voting_delay.map(|delay| format!("{delay:?}")));
            out.set("client-versions", c.preamble.client_versions.iter());
            out.set("server-versions", c.preamble.server_versions.iter());
            out.set("known-flags", flags(&c.preamble.known_flags));
            statuses(&mut out, &c.preamble.proto_statuses);
            parameters(&mut out, "params", &c.preamble.params, text);
            parameters(&mut out, "bandwidth-weights", &c.footer.consensus.bandwidth_weights, text);
            random(&mut out, "previous random", &c.preamble.shared_rand.shared_rand_previous_value);
            random(&mut out, "current random", &c.preamble.shared_rand.shared_rand_current_value);
            voters(&mut out, &c.authority);
            for r in &c.routers {
                let id = hex(r.r.identity.0.as_bytes());
                let name = |field: &str| format!("relay {id} {field}");
                out.put(name("nickname"), &r.r.nickname);
                out.put(name("address"), r.r.ip);
                out.put(name("or port"), r.r.or_port);
                out.put(name("dir port"), r.r.dir_port);
                out.maybe(name("ipv6"), r.a.iter().find(|a| a.is_ipv6()));
                out.set(name("flags"), flags(&r.flags));
                weight(&mut out, &name, &r.weight);
                out.maybe(name("version"), r.version.as_ref());
                out.set(name("protocols"), protocols(&r.protos));
                $of_flavor(&mut out, &name, r);
            }
            out.put("relays", c.routers.len());
            out.put("relays left out", 0);
            let counted = signatures.sigs.directory_signature.iter().filter(|s| counts(s, $label, &trusted));
            out.set("signers", counted.map(keys));
            out.put("verified", unverified.verify(&trusted, certs).is_ok());
            Ok(out)
        }
    };
}

reader!(
    /// Reads a consensus of the `microdesc` flavour.
    microdesc, md, "Microdesc", only_microdesc
);
reader!(
    /// Reads a consensus of the older flavour.
    plain, plain, "Ns", only_plain
);

fn only_microdesc(out: &mut Fields, name: &dyn Fn(&str) -> String, r: &md::RouterStatus) {
    out.put(name("microdesc"), hex(r.m.0));
}

fn only_plain(out: &mut Fields, name: &dyn Fn(&str) -> String, r: &plain::RouterStatus) {
    out.put(name("descriptor"), hex(r.r.doc_digest.0));
    out.maybe(name("policy"), r.port_policy.as_deref().map(|p| ports(|port| p.allows_port(port))));
}

fn keys(signature: &Signature) -> String {
    let ids = [signature.key_ids.id_fingerprint, signature.key_ids.sk_fingerprint];
    ids.map(|id| hex(id.as_bytes())).join("-")
}

/// Whether a signature is of those that may count: by a known authority, with a digest that signs this flavour.
fn counts(signature: &Signature, flavor: &str, trusted: &[RsaIdentity]) -> bool {
    let sha1_counts = flavor == "Ns";
    let digest_counts = match signature.digest_algo.algorithm() {
        KeywordOrString::Known(DirectorySignatureHashAlgo::Sha256) => true,
        KeywordOrString::Known(DirectorySignatureHashAlgo::Sha1) => sha1_counts,
        _ => false,
    };
    digest_counts && trusted.contains(&signature.key_ids.id_fingerprint)
}

pub(super) fn lifetime(out: &mut Fields, lifetime: &Lifetime) {
    out.put("valid-after", seconds(lifetime.valid_after()));
    out.put("fresh-until", seconds(lifetime.fresh_until()));
    out.put("valid-until", seconds(lifetime.valid_until()));
}

pub(super) fn flags(flags: &DocRelayFlags) -> Vec<String> {
    let unknown = flags.unknown.as_ref().only_known();
    let unknown =
        unknown.into_iter().flatten().filter(|name| UNKNOWN_TO_ARTI.contains(&name.as_str())).cloned();
    let mut names: Vec<String> = flags.known.iter().map(|flag| flag.to_string()).chain(unknown).collect();
    names.sort();
    names
}

pub(super) fn statuses(out: &mut Fields, statuses: &ProtoStatuses) {
    for (who, status) in [("client", statuses.client()), ("relay", statuses.relay())] {
        out.set(format!("recommended-{who}-protocols"), protocols(status.recommended_protocols()));
        out.set(format!("required-{who}-protocols"), protocols(status.required_protocols()));
    }
}

pub(super) fn parameters(out: &mut Fields, line: &str, params: &NetParams<i32>, text: &str) {
    for name in argument_names(text, line) {
        out.maybe(format!("{line} {name}"), params.get(name));
    }
}

fn random(out: &mut Fields, name: &str, status: &Option<SharedRandStatus>) {
    out.maybe(name, status.as_ref().map(|s| format!("{} {}", s.n_reveals, hex(<[u8; 32]>::from(s.value)))));
}

fn voters(out: &mut Fields, section: &ConsensusAuthoritySection) {
    for voter in &section.authorities {
        let source = &voter.dir_source;
        let name = |field: &str| format!("voter {} {field}", source.identity);
        out.put(name("nickname"), &source.nickname);
        out.put(name("address"), source.ip);
        out.put(name("dir port"), source.dir_port);
        out.put(name("or port"), source.or_port);
        out.put(name("contact"), &voter.contact);
        out.put(name("vote digest"), hex(voter.vote_digest.as_bytes()));
    }
    for key in &section.superseded_keys {
        let name = |field: &str| format!("voter {} {field}", key.identity());
        out.put(name("nickname"), key.raw_nickname_string());
        out.put(name("address"), key.ip());
        out.put(name("dir port"), key.dir_port());
        out.put(name("or port"), key.or_port());
    }
}

fn weight(out: &mut Fields, name: &dyn Fn(&str) -> String, item: &RelayWeightsItem) {
    let params = item.params().only_known().and_then(Option::as_ref);
    let value = |key: &str| params.and_then(|p| p.get(key));
    out.maybe(name("bandwidth"), value("Bandwidth"));
    out.put(name("unmeasured"), value("Unmeasured") == Some(&1));
    out.maybe(name("guard fraction"), value("GuardFraction"));
}
