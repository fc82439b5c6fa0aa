//! Reading a consensus from its text.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use sha3::Sha3_256;

use super::relay::{Listed, RelayFlags, RelayStatus};
use super::verify::{Signature, SignatureAlg, SignedDigests, UnverifiedConsensus};
use super::{Consensus, Flavor, Lifetime, SharedRandom, Voter};
use crate::limits::{CONSENSUS_AUTHORITIES, CONSENSUS_RELAYS};
use crate::netdoc::authcert::time_of;
use crate::netdoc::params::ConsensusParams;
use crate::netdoc::protover::Protocols;
use crate::netdoc::section::{Count, Obj, Rule, Section, Tokens, exact, rule};
use crate::netdoc::text::{self, Fingerprint, Nickname};
use crate::netdoc::tokenize::{Item, Tokenizer};
use crate::netdoc::{DocError, Fault};
use crate::policy::PortSummary;

const VERSION: &str = "network-status-version";
const FOOTER: &str = "directory-footer";
const SIGNATURE: &str = "directory-signature";

const HEADER: &[Rule] = &[
    rule(VERSION, Count::One, 1, Obj::No),
    rule("vote-status", Count::One, 1, Obj::No),
    rule("consensus-method", Count::One, 1, Obj::No),
    rule("valid-after", Count::One, 2, Obj::No),
    rule("fresh-until", Count::One, 2, Obj::No),
    rule("valid-until", Count::One, 2, Obj::No),
    rule("voting-delay", Count::One, 2, Obj::No),
    rule("client-versions", Count::Optional, 0, Obj::No),
    rule("server-versions", Count::Optional, 0, Obj::No),
    rule("known-flags", Count::One, 0, Obj::No),
    rule("recommended-client-protocols", Count::Optional, 0, Obj::No),
    rule("recommended-relay-protocols", Count::Optional, 0, Obj::No),
    rule("required-client-protocols", Count::Optional, 0, Obj::No),
    rule("required-relay-protocols", Count::Optional, 0, Obj::No),
    rule("params", Count::Optional, 0, Obj::No),
    rule("shared-rand-previous-value", Count::Optional, 2, Obj::No),
    rule("shared-rand-current-value", Count::Optional, 2, Obj::No),
];

const VOTER: &[Rule] = &[
    rule("dir-source", Count::One, 6, Obj::No),
    rule("contact", Count::Optional, 0, Obj::No),
    rule("vote-digest", Count::Optional, 1, Obj::No),
];

const RELAY: &[Rule] = &[
    rule("r", Count::One, 7, Obj::No),
    rule("a", Count::Many, 1, Obj::No),
    rule("m", Count::Many, 1, Obj::No),
    rule("s", Count::One, 0, Obj::No),
    rule("v", Count::Optional, 0, Obj::No),
    rule("pr", Count::One, 0, Obj::No),
    rule("w", Count::Optional, 0, Obj::No),
    rule("p", Count::Optional, 0, Obj::No),
];

const FOOT: &[Rule] = &[
    exact(FOOTER, Count::Optional, 0, Obj::No),
    rule("bandwidth-weights", Count::Optional, 0, Obj::No),
    rule(SIGNATURE, Count::Many, 2, Obj::Label("SIGNATURE")),
];

fn opens_footer(keyword: &str) -> bool {
    keyword == FOOTER || keyword == SIGNATURE
}

impl UnverifiedConsensus {
    /// Parses a consensus of either flavour.
    ///
    /// An entry that does not parse is left out and counted, as C tor does; any other fault, and entries out of
    /// order, refuse the document.
    pub fn parse(text: &str) -> Result<Self, DocError> {
        let mut tokens: Tokens<'_> = Tokenizer::new(text).peekable();
        let header =
            Section::take(&mut tokens, HEADER, |k| k == "dir-source" || k == "r" || opens_footer(k))?;
        let first = header.opens_with(VERSION)?;
        let flavor = flavor(first)?;
        let status = header.need("vote-status")?;
        if status.arg(0) != Some("consensus") {
            return Err(status.fault(Fault::value("vote-status", status.rest)));
        }
        let voters = voters(&mut tokens)?;
        let (relays, skipped_relays) = relays(&mut tokens, flavor)?;
        let footer = Section::take(&mut tokens, FOOT, |_| false)?;
        let footer_line = footer.get(FOOTER);
        if let Some(line) = footer_line
            && footer.opens_with(FOOTER).is_err()
        {
            return Err(line.fault(Fault::Misplaced(FOOTER)));
        }
        let first_signature = *footer.need(SIGNATURE)?;
        // What stands between signatures is signed by none of them.
        if footer.iter().skip_while(|i| i.keyword != SIGNATURE).any(|i| i.keyword != SIGNATURE) {
            return Err(first_signature.fault(Fault::Misplaced(SIGNATURE)));
        }
        // The blank after the first `directory-signature` is the last byte that is signed.
        let signed_end = first_signature.start + SIGNATURE.len() + 1;
        let signed = text
            .get(first.start..signed_end)
            .filter(|s| s.ends_with("directory-signature "))
            .ok_or_else(|| first_signature.fault(Fault::Misplaced(SIGNATURE)))?;
        let weights = footer.get("bandwidth-weights").map(ConsensusParams::from_item).transpose()?;
        let consensus = Consensus {
            flavor,
            method: header.need("consensus-method")?.parse_arg(0, "consensus-method", |a| a.parse().ok())?,
            lifetime: lifetime(&header)?,
            voting_delay: voting_delay(header.need("voting-delay")?)?,
            client_versions: versions(header.get("client-versions")),
            server_versions: versions(header.get("server-versions")),
            known_flags: RelayFlags::from_names(header.need("known-flags")?.args()),
            recommended_client_protocols: protocols(header.get("recommended-client-protocols"))?,
            recommended_relay_protocols: protocols(header.get("recommended-relay-protocols"))?,
            required_client_protocols: protocols(header.get("required-client-protocols"))?,
            required_relay_protocols: protocols(header.get("required-relay-protocols"))?,
            params: header.get("params").map(ConsensusParams::from_item).transpose()?.unwrap_or_default(),
            shared_random_previous: shared_random(header.get("shared-rand-previous-value"))?,
            shared_random_current: shared_random(header.get("shared-rand-current-value"))?,
            voters,
            relays,
            skipped_relays,
            weights: weights.unwrap_or_default(),
            signed_sha3: Sha3_256::digest(signed).into(),
        };
        let signatures = signatures(&footer, &consensus.voters)?;
        let digests =
            SignedDigests { sha1: Sha1::digest(signed).into(), sha256: Sha256::digest(signed).into() };
        Ok(UnverifiedConsensus::new(consensus, digests, signatures))
    }
}

fn flavor(first: &Item<'_>) -> Result<Flavor, DocError> {
    match (first.arg(0), first.arg(1)) {
        (Some("3"), None | Some("ns")) => Ok(Flavor::Ns),
        (Some("3"), Some("microdesc")) => Ok(Flavor::Microdesc),
        _ => Err(first.fault(Fault::value("consensus version and flavour", first.rest))),
    }
}

fn lifetime(header: &Section<'_>) -> Result<Lifetime, DocError> {
    let valid_until = header.need("valid-until")?;
    let lifetime = Lifetime {
        valid_after: time_of(header.need("valid-after")?)?,
        fresh_until: time_of(header.need("fresh-until")?)?,
        valid_until: time_of(valid_until)?,
    };
    if lifetime.valid_after < lifetime.fresh_until && lifetime.fresh_until <= lifetime.valid_until {
        Ok(lifetime)
    } else {
        Err(valid_until.fault(Fault::Mismatch("valid-after, fresh-until and valid-until are not in order")))
    }
}

fn versions(item: Option<&Item<'_>>) -> Vec<Box<str>> {
    let list = item.and_then(|i| i.arg(0)).unwrap_or("");
    list.split(',').filter(|v| !v.is_empty()).map(Box::from).collect()
}

fn protocols(item: Option<&Item<'_>>) -> Result<Protocols, DocError> {
    let Some(item) = item else { return Ok(Protocols::default()) };
    Protocols::parse(item.rest).map_err(|_| item.fault(Fault::value("protocol list", item.rest)))
}

/// Seconds for votes and for signatures.
pub(in crate::netdoc) fn voting_delay(item: &Item<'_>) -> Result<(u32, u32), DocError> {
    let delay = |n| item.parse_arg(n, "voting-delay", |a| a.parse().ok());
    Ok((delay(0)?, delay(1)?))
}

pub(in crate::netdoc) fn shared_random(item: Option<&Item<'_>>) -> Result<Option<SharedRandom>, DocError> {
    let Some(item) = item else { return Ok(None) };
    let reveals = item.parse_arg(0, "number of reveals", |a| a.parse().ok())?;
    let value = item.parse_arg(1, "shared random value", text::base64_array)?;
    Ok(Some(SharedRandom { reveals, value }))
}

fn voters(tokens: &mut Tokens<'_>) -> Result<Vec<Voter>, DocError> {
    let mut voters = Vec::new();
    while tokens.peek().is_some_and(|t| t.as_ref().is_ok_and(|i| i.keyword == "dir-source")) {
        let s = Section::take(tokens, VOTER, |k| k == "dir-source" || k == "r" || opens_footer(k))?;
        let source = s.need("dir-source")?;
        if voters.len() >= CONSENSUS_AUTHORITIES {
            return Err(source.fault(Fault::TooLarge { size: voters.len() + 1, max: CONSENSUS_AUTHORITIES }));
        }
        let nickname = source.arg(0).unwrap_or("");
        if !nickname.ends_with("-legacy") {
            s.need("contact").and_then(|_| s.need("vote-digest"))?;
        }
        let digest = |item: &Item<'_>| item.parse_arg(0, "vote-digest", Fingerprint::from_hex);
        let port = |n| source.parse_arg(n, "authority port", |a| a.parse().ok());
        voters.push(Voter {
            nickname: nickname.into(),
            identity: source.parse_arg(1, "authority identity", Fingerprint::from_hex)?,
            address: source.parse_arg(3, "authority address", |a| a.parse().ok())?,
            dir_port: port(4)?,
            or_port: port(5)?,
            contact: s.get("contact").map_or("", |item| item.rest).into(),
            vote_digest: s.get("vote-digest").map(digest).transpose()?,
        });
    }
    Ok(voters)
}

/// Texts that many entries share, each parsed and stored once.
#[derive(Default)]
struct Shared<'a> {
    protocols: BTreeMap<&'a str, Arc<Protocols>>,
    versions: BTreeMap<&'a str, Arc<str>>,
    policies: BTreeMap<&'a str, Arc<PortSummary>>,
}

fn relays(tokens: &mut Tokens<'_>, flavor: Flavor) -> Result<(Vec<RelayStatus>, usize), DocError> {
    let mut relays: Vec<RelayStatus> = Vec::new();
    let mut skipped = 0;
    let mut shared = Shared::default();
    while let Some(Ok(first)) = tokens.peek() {
        let first = *first;
        if first.keyword != "r" {
            break;
        }
        if relays.len() + skipped >= CONSENSUS_RELAYS {
            return Err(first.fault(Fault::TooLarge { size: relays.len() + 1, max: CONSENSUS_RELAYS }));
        }
        let section = Section::take(tokens, RELAY, |k| k == "r" || opens_footer(k));
        match section.and_then(|s| relay(&s, flavor, &mut shared)) {
            Err(_) => skipped += 1,
            Ok(relay) => {
                if relays.last().is_some_and(|last| last.identity >= relay.identity) {
                    return Err(first.fault(Fault::Mismatch("relays are not in ascending order of identity")));
                }
                relays.push(relay);
            }
        }
    }
    Ok((relays, skipped))
}

fn relay<'a>(s: &Section<'a>, flavor: Flavor, shared: &mut Shared<'a>) -> Result<RelayStatus, DocError> {
    let r = s.need("r")?;
    let sha1_id = |t: &str| text::base64_array(t).map(Fingerprint);
    // `r` names the descriptor in the ns flavour only; what follows it moves up by one in the other.
    let (listed, rest) = match flavor {
        Flavor::Ns => (Listed::Descriptor(r.parse_arg(2, "descriptor digest", sha1_id)?), 3),
        Flavor::Microdesc => match s.get("m") {
            Some(m) => (Listed::Microdesc(m.parse_arg(0, "microdescriptor digest", text::base64_array)?), 2),
            None => (Listed::Nothing, 2),
        },
    };
    let clock = r.arg(rest + 1).unwrap_or("");
    let port = |n| r.parse_arg(n, "port", |a| a.parse().ok());
    let w = bandwidth(s.get("w"))?;
    let protocols = relay_protocols(s.need("pr")?, shared)?;
    Ok(RelayStatus {
        nickname: r.parse_arg(0, "nickname", Nickname::new)?,
        identity: r.parse_arg(1, "identity", sha1_id)?,
        listed,
        published: r.parse_arg(rest, "publication time", |date| text::time(date, clock))?,
        ipv4: r.parse_arg(rest + 2, "address", |a| a.parse().ok())?,
        or_port: port(rest + 3)?,
        dir_port: port(rest + 4)?,
        ipv6: s.all("a").filter_map(|a| a.arg(0)).find_map(ipv6),
        flags: RelayFlags::from_names(s.need("s")?.args()),
        bandwidth: w.bandwidth,
        unmeasured: w.unmeasured,
        guard_fraction: w.guard_fraction,
        version: s
            .get("v")
            .map(|v| shared.versions.entry(v.rest).or_insert_with(|| Arc::from(v.rest)).clone()),
        protocols,
        policy: s.get("p").map(|p| policy(p, shared)).transpose()?,
    })
}

fn relay_protocols<'a>(pr: &Item<'a>, shared: &mut Shared<'a>) -> Result<Arc<Protocols>, DocError> {
    if let Some(known) = shared.protocols.get(pr.rest) {
        return Ok(known.clone());
    }
    let parsed = Arc::new(protocols(Some(pr))?);
    shared.protocols.insert(pr.rest, parsed.clone());
    Ok(parsed)
}

fn policy<'a>(p: &Item<'a>, shared: &mut Shared<'a>) -> Result<Arc<PortSummary>, DocError> {
    if let Some(known) = shared.policies.get(p.rest) {
        return Ok(known.clone());
    }
    let parsed = PortSummary::parse(p.rest).map_err(|_| p.fault(Fault::value("port summary", p.rest)))?;
    let parsed = Arc::new(parsed);
    shared.policies.insert(p.rest, parsed.clone());
    Ok(parsed)
}

pub(in crate::netdoc) fn ipv6(text: &str) -> Option<(std::net::Ipv6Addr, u16)> {
    // A zone, which nobody else reads there.
    let addr: SocketAddr = text.parse().ok().filter(|_| !text.contains('%'))?;
    match addr.ip() {
        IpAddr::V6(ip) => Some((ip, addr.port())),
        IpAddr::V4(_) => None,
    }
}

#[derive(Default)]
struct Weight {
    bandwidth: Option<u32>,
    unmeasured: bool,
    guard_fraction: Option<u8>,
}

fn bandwidth(w: Option<&Item<'_>>) -> Result<Weight, DocError> {
    let mut weight = Weight::default();
    let Some(w) = w else { return Ok(weight) };
    for arg in w.args() {
        let bad = || w.fault(Fault::value("w", arg));
        match arg.split_once('=') {
            Some(("Bandwidth", value)) => weight.bandwidth = Some(value.parse().map_err(|_| bad())?),
            Some(("Unmeasured", value)) => weight.unmeasured = value == "1",
            Some(("GuardFraction", value)) => {
                let percent = value.parse().ok().filter(|p| *p <= 100).ok_or_else(bad)?;
                weight.guard_fraction = Some(percent);
            }
            _ => {}
        }
    }
    Ok(weight)
}

fn signatures(footer: &Section<'_>, voters: &[Voter]) -> Result<Vec<Signature>, DocError> {
    let mut signatures: Vec<Signature> = Vec::new();
    for (n, item) in footer.all(SIGNATURE).enumerate() {
        if n >= CONSENSUS_AUTHORITIES {
            return Err(item.fault(Fault::TooLarge { size: n + 1, max: CONSENSUS_AUTHORITIES }));
        }
        let (alg, ids) = match (item.arg(0), item.args().count()) {
            (_, 2) | (Some("sha1"), _) => (SignatureAlg::Sha1, item.args().count().min(3) - 2),
            (Some("sha256"), _) => (SignatureAlg::Sha256, 1),
            // A digest of the future: not ours to check.
            _ => continue,
        };
        let identity = item.parse_arg(ids, "signer", Fingerprint::from_hex)?;
        let signing_key_id = item.parse_arg(ids + 1, "signing key", Fingerprint::from_hex)?;
        if !voters.iter().any(|v| v.identity == identity) {
            return Err(item.fault(Fault::Mismatch("a signature by an authority that has no dir-source")));
        }
        let signature = item.decode_object("SIGNATURE", SIGNATURE)?;
        if !signatures.iter().any(|s| s.identity == identity && s.alg == alg) {
            signatures.push(Signature { alg, identity, signing_key_id, signature });
        }
    }
    Ok(signatures)
}
