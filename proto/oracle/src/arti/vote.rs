//! The vote of an authority.

use tor_netdoc::doc::netstatus::vote::{NetworkStatusUnverified, RouterStatus};
use tor_netdoc::parse2::NetdocParseableUnverified as _;

use super::consensus::{flags, lifetime, parameters, statuses};
use super::parse;
use crate::Fields;
use crate::fields::{hex, ports, protocols, seconds};

/// Reads a vote, and checks its signature and that of the certificate in it.
pub(super) fn vote(text: &str) -> Result<Fields, String> {
    let unverified: NetworkStatusUnverified = parse(text)?;
    let trusted = unverified.peek_alleged_authority();
    let (v, _) = unverified.inspect_unverified();
    let mut out = Fields::default();
    out.set("methods", &v.preamble.consensus_methods.methods);
    out.put("published", seconds(v.preamble.published.0.0));
    lifetime(&mut out, &v.preamble.lifetime);
    out.maybe("voting-delay", v.preamble.voting_delay.map(|delay| format!("{delay:?}")));
    out.set("client-versions", v.preamble.client_versions.iter());
    out.set("server-versions", v.preamble.server_versions.iter());
    out.set("known-flags", flags(&v.preamble.known_flags));
    statuses(&mut out, &v.preamble.proto_statuses);
    parameters(&mut out, "params", &v.preamble.params, text);
    let source = &v.authority.authority.dir_source;
    out.put("identity", source.identity);
    out.put("nickname", &source.nickname);
    out.put("address", source.ip);
    out.put("dir port", source.dir_port);
    out.put("or port", source.or_port);
    out.put("contact", &v.authority.authority.contact);
    v.routers.iter().for_each(|r| relay(&mut out, r));
    out.put("relays", v.routers.len());
    let verified = unverified.verify(&[trusted]);
    out.put("verified", verified.is_ok());
    Ok(out)
}

fn relay(out: &mut Fields, r: &RouterStatus) {
    let id = hex(r.r.identity.0.as_bytes());
    let name = |field: &str| format!("relay {id} {field}");
    out.put(name("nickname"), &r.r.nickname);
    out.put(name("address"), r.r.ip);
    out.put(name("or port"), r.r.or_port);
    out.put(name("dir port"), r.r.dir_port);
    out.put(name("descriptor"), hex(r.r.doc_digest.0));
    out.put(name("published"), seconds(r.r.publication.0));
    out.maybe(name("ipv6"), r.a.iter().find(|a| a.is_ipv6()));
    out.set(name("flags"), flags(&r.flags));
    out.maybe(name("version"), r.version.as_ref());
    out.set(name("protocols"), protocols(&r.protos));
    for weight in ["Bandwidth", "Measured"] {
        out.maybe(name(weight), r.weight.w.as_ref().and_then(|w| w.get(weight)));
    }
    out.maybe(name("policy"), r.port_policy.as_deref().map(|p| ports(|port| p.allows_port(port))));
    out.put(name("ed identity"), hex(r.ed25519_id.pk.0.as_bytes()));
    let microdescs = r.m.iter().map(|m| {
        let methods: Vec<String> = m.consensus_methods.methods.iter().map(ToString::to_string).collect();
        let digests: Vec<String> = m.digests.iter().map(ToString::to_string).collect();
        format!("{} {}", methods.join(","), digests.join(" "))
    });
    out.set(name("microdescs"), microdescs);
}
