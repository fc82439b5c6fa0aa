//! Reading a vote from its text.

use std::collections::{BTreeMap, BTreeSet};

use sha1::{Digest, Sha1};

use super::entry::{self, Shared, line};
use super::{
    Authority, Certificate, Commit, EdListing, MIN_DELAY_SECONDS, MIN_INTERVAL_SECONDS, Reveal,
    SharedRandomVote, SignedVote, Vote, VotedParams, VotedRelay,
};
use crate::limits::{CONSENSUS_AUTHORITIES, CONSENSUS_RELAYS, VOTE_KNOWN_FLAGS};
use crate::netdoc::authcert::time_of;
use crate::netdoc::consensus::{Lifetime, shared_random, voting_delay};
use crate::netdoc::protover::Protocols;
use crate::netdoc::section::{Count, Obj, Rule, Section, Tokens, exact, rule, words};
use crate::netdoc::text::{self, Fingerprint};
use crate::netdoc::tokenize::{Item, Tokenizer};
use crate::netdoc::{DocError, Fault};

const VERSION: &str = "network-status-version";
const CERTIFICATE: &str = "dir-key-certificate-version";
const FOOTER: &str = "directory-footer";
const SIGNATURE: &str = "directory-signature";

/// C tor does not know those that may have an object.
const HEADER: &[Rule] = &[
    words(VERSION, Count::One, 1, Obj::No),
    words("vote-status", Count::One, 1, Obj::No),
    words("consensus-methods", Count::One, 1, Obj::No),
    rule("published", Count::One, 2, Obj::No),
    rule("valid-after", Count::One, 2, Obj::No),
    rule("fresh-until", Count::One, 2, Obj::No),
    rule("valid-until", Count::One, 2, Obj::No),
    words("voting-delay", Count::One, 2, Obj::No),
    rule("client-versions", Count::Optional, 0, Obj::No),
    rule("server-versions", Count::Optional, 0, Obj::No),
    rule("package", Count::Many, 0, Obj::No),
    rule("recommended-relay-protocols", Count::Optional, 0, Obj::No),
    rule("recommended-client-protocols", Count::Optional, 0, Obj::No),
    rule("required-relay-protocols", Count::Optional, 0, Obj::No),
    rule("required-client-protocols", Count::Optional, 0, Obj::No),
    words("known-flags", Count::One, 0, Obj::No),
    rule("flag-thresholds", Count::Many, 0, Obj::Any),
    words("params", Count::Optional, 0, Obj::No),
    rule("bandwidth-file-headers", Count::Many, 0, Obj::Any),
    rule("bandwidth-file-digest", Count::Many, 0, Obj::Any),
    words("dir-source", Count::One, 6, Obj::No),
    rule("contact", Count::One, 0, Obj::No),
    exact("shared-rand-participate", Count::Optional, 0, Obj::No),
    words("shared-rand-commit", Count::Many, 3, Obj::No),
    exact("shared-rand-previous-value", Count::Optional, 2, Obj::No),
    exact("shared-rand-current-value", Count::Optional, 2, Obj::No),
    words("legacy-dir-key", Count::Optional, 1, Obj::No),
];

const FOOT: &[Rule] =
    &[rule(FOOTER, Count::Optional, 0, Obj::No), rule(SIGNATURE, Count::One, 2, Obj::Label("SIGNATURE"))];

/// Cuts a body of several votes, as they are posted, into votes.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    text::split_at_lines(text, VERSION)
}

fn opens_entries(keyword: &str) -> bool {
    matches!(keyword, "r" | FOOTER | SIGNATURE)
}

impl SignedVote {
    /// Parses one vote, and checks its signature and those of its certificate; `text` is exactly its text (see
    /// [`split`]).
    ///
    /// The certificate must be the last part of the header, where everybody puts it.
    pub fn parse(text: &str) -> Result<Self, DocError> {
        let mut tokens: Tokens<'_> = Tokenizer::new(text).peekable();
        let header = Section::take(&mut tokens, HEADER, |k| k == CERTIFICATE || opens_entries(k))?;
        let first = *header.opens_with(VERSION)?;
        check_kind(&header)?;
        let certificate = certificate(text, &mut tokens)?;
        let known_flags = known_flags(header.need("known-flags")?)?;
        let relays = relays(&mut tokens, &known_flags)?;
        let vote = vote(&header, known_flags, certificate, relays)?;
        let footer = Section::take(&mut tokens, FOOT, |_| false)?;
        let digest = check_signature(text, &first, &footer, &vote)?;
        Ok(SignedVote { vote, digest })
    }
}

fn check_kind(header: &Section<'_>) -> Result<(), DocError> {
    let version = header.need(VERSION)?;
    let status = header.need("vote-status")?;
    // A vote has no flavour, but may say so.
    if version.arg(0) != Some("3") || !matches!(version.arg(1), None | Some("ns")) {
        return Err(version.fault(Fault::value("vote version", version.rest)));
    }
    match status.arg(0) {
        Some("vote") => Ok(()),
        _ => Err(status.fault(Fault::value("vote-status", status.rest))),
    }
}

fn certificate(text: &str, tokens: &mut Tokens<'_>) -> Result<Certificate, DocError> {
    let Some(Ok(first)) = tokens.peek() else { return Err(Fault::Missing(CERTIFICATE).at(1)) };
    let first = *first;
    if first.keyword != CERTIFICATE {
        return Err(first.fault(Fault::Missing(CERTIFICATE)));
    }
    Section::take(tokens, &[], opens_entries)?;
    let end = match tokens.peek() {
        Some(Ok(next)) => next.start,
        _ => text.len(),
    };
    // Both ends are starts of lines of this text, in order.
    let part = text.get(first.start..end).unwrap_or("");
    Certificate::parse(part).map_err(|e| e.fault.at(first.line + e.line - 1))
}

fn vote(
    header: &Section<'_>,
    known_flags: Vec<Box<str>>,
    certificate: Certificate,
    relays: Vec<VotedRelay>,
) -> Result<Vote, DocError> {
    let first_line = |keyword| header.get(keyword).map(|item| line(item).into());
    let protocols = |keyword| header.get(keyword).map(protocols).transpose();
    let authority = authority(header, &certificate)?;
    Ok(Vote {
        methods: methods(header.need("consensus-methods")?.args()),
        published: time_of(header.need("published")?)?,
        lifetime: lifetime(header)?,
        voting_delay: delays(header.need("voting-delay")?)?,
        client_versions: header.get("client-versions").map(versions),
        server_versions: header.get("server-versions").map(versions),
        packages: header.all("package").map(|item| line(item).into()).collect(),
        recommended_relay_protocols: protocols("recommended-relay-protocols")?,
        recommended_client_protocols: protocols("recommended-client-protocols")?,
        required_relay_protocols: protocols("required-relay-protocols")?,
        required_client_protocols: protocols("required-client-protocols")?,
        known_flags,
        flag_thresholds: first_line("flag-thresholds"),
        params: header.get("params").map(params).transpose()?.unwrap_or_default(),
        bandwidth_file_headers: first_line("bandwidth-file-headers"),
        bandwidth_file_digest: header
            .get("bandwidth-file-digest")
            .and_then(|item| item.args().find_map(|arg| arg.strip_prefix("sha256=")))
            .and_then(text::base64_array),
        authority,
        shared_random: header.get("shared-rand-participate").map(|_| shared_random_vote(header)),
        legacy_identity: header.get("legacy-dir-key").and_then(|i| i.arg(0)).and_then(Fingerprint::from_hex),
        certificate,
        relays,
    })
}

/// C tor takes the first text of each number, and then counts how many authorities wrote the same text: one that is not the
/// usual one is of no use to anybody. Its numbers have a sign, and what does not fit is none.
fn methods<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let number = |text: &'a str| Some((u32::try_from(text.parse::<i32>().ok()?).ok()?, text));
    let mut first = BTreeMap::new();
    texts
        .filter_map(number)
        .filter(|(method, text)| *first.entry(*method).or_insert(*text) == *text)
        .filter(|(_, text)| !text.starts_with(['0', '+']))
        .map(|(method, _)| method)
        .collect()
}

fn lifetime(header: &Section<'_>) -> Result<Lifetime, DocError> {
    let valid_until = header.need("valid-until")?;
    let lifetime = Lifetime {
        valid_after: time_of(header.need("valid-after")?)?,
        fresh_until: time_of(header.need("fresh-until")?)?,
        valid_until: time_of(valid_until)?,
    };
    let after = lifetime.valid_after.0;
    if lifetime.fresh_until.0 < after + MIN_INTERVAL_SECONDS
        || lifetime.valid_until.0 < after + 2 * MIN_INTERVAL_SECONDS
    {
        let fault = "valid-after, fresh-until and valid-until are not in order, or too close";
        return Err(valid_until.fault(Fault::Mismatch(fault)));
    }
    Ok(lifetime)
}

fn delays(item: &Item<'_>) -> Result<(u32, u32), DocError> {
    let (vote, dist) = voting_delay(item)?;
    // The upper bound is that of C tor's numbers.
    let range = MIN_DELAY_SECONDS..=i32::MAX as u32;
    if !range.contains(&vote) || !range.contains(&dist) {
        return Err(item.fault(Fault::value("voting-delay", item.rest)));
    }
    Ok((vote, dist))
}

fn versions(item: &Item<'_>) -> Vec<Box<str>> {
    item.rest
        .split(',')
        .map(|v| v.trim_matches([' ', '\t']))
        .filter(|v| !v.is_empty())
        .map(Box::from)
        .collect()
}

fn protocols(item: &Item<'_>) -> Result<Protocols, DocError> {
    Protocols::parse(item.rest).map_err(|_| item.fault(Fault::value("protocol list", item.rest)))
}

fn known_flags(item: &Item<'_>) -> Result<Vec<Box<str>>, DocError> {
    let flags: Vec<&str> = item.args().collect();
    if flags.len() > VOTE_KNOWN_FLAGS {
        return Err(item.fault(Fault::TooLarge { size: flags.len(), max: VOTE_KNOWN_FLAGS }));
    }
    if !flags.is_sorted_by(|a, b| a < b) {
        return Err(item.fault(Fault::Mismatch("known-flags are not in ascending order")));
    }
    Ok(flags.into_iter().map(Box::from).collect())
}

fn params(item: &Item<'_>) -> Result<VotedParams, DocError> {
    let mut params: Vec<(Box<str>, i32)> = Vec::new();
    let mut last = "";
    for entry in item.args() {
        let bad = || item.fault(Fault::value("consensus parameter", entry));
        let (name, value) = entry.split_once('=').ok_or_else(bad)?;
        let repeated = params.last().is_some_and(|(before, _)| **before == *name);
        if repeated || last >= entry {
            return Err(
                item.fault(Fault::Mismatch("params are not in ascending order, or one is there twice"))
            );
        }
        last = entry;
        params.push((name.into(), value.parse().map_err(|_| bad())?));
    }
    Ok(VotedParams(params))
}

fn authority(header: &Section<'_>, certificate: &Certificate) -> Result<Authority, DocError> {
    let source = header.need("dir-source")?;
    let contact = header.need("contact")?;
    if contact.start < source.start {
        return Err(contact.fault(Fault::Misplaced("contact")));
    }
    let port = |n| source.parse_arg(n, "authority port", |a| a.parse().ok());
    let identity = source.parse_arg(1, "authority identity", Fingerprint::from_hex)?;
    if identity != certificate.cert().identity {
        return Err(source.fault(Fault::Mismatch("dir-source and certificate name different authorities")));
    }
    Ok(Authority {
        nickname: source.arg(0).unwrap_or("").into(),
        identity,
        hostname: source.arg(2).unwrap_or("").into(),
        address: source.parse_arg(3, "authority address", |a| a.parse().ok())?,
        dir_port: port(4)?,
        or_port: port(5)?,
        contact: line(contact).into(),
    })
}

/// Values and commitments that do not parse are left out, as in C tor.
fn shared_random_vote(header: &Section<'_>) -> SharedRandomVote {
    let value = |keyword| shared_random(header.get(keyword)).ok().flatten();
    SharedRandomVote {
        commits: header.all("shared-rand-commit").take(CONSENSUS_AUTHORITIES).filter_map(commit).collect(),
        previous: value("shared-rand-previous-value"),
        current: value("shared-rand-current-value"),
    }
}

/// `1 sha3-256 AUTHORITY COMMIT [REVEAL]`; a blank at the end says that the reveal is missing though due.
fn commit(item: &Item<'_>) -> Option<Commit> {
    if (item.arg(0), item.arg(1)) != (Some("1"), Some("sha3-256")) {
        return None;
    }
    let reveal = match item.arg(4) {
        Some(reveal) => Reveal::Known(text::base64_array(reveal)?),
        None if item.rest.ends_with(' ') => Reveal::Missing,
        None => Reveal::Withheld,
    };
    let authority = Fingerprint::from_hex(item.arg(2)?)?;
    Some(Commit { authority, commit: text::base64_array(item.arg(3)?)?, reveal })
}

fn relays(tokens: &mut Tokens<'_>, known_flags: &[Box<str>]) -> Result<Vec<VotedRelay>, DocError> {
    let mut relays: Vec<VotedRelay> = Vec::new();
    let mut ed_identities = BTreeSet::new();
    let mut shared = Shared::default();
    while let Some(Ok(first)) = tokens.peek() {
        let first = *first;
        if first.keyword != "r" {
            break;
        }
        if relays.len() >= CONSENSUS_RELAYS {
            return Err(first.fault(Fault::TooLarge { size: relays.len() + 1, max: CONSENSUS_RELAYS }));
        }
        let section = Section::take(tokens, entry::RELAY, opens_entries)?;
        let relay = entry::parse(&section, known_flags, &mut shared)?;
        if relays.last().is_some_and(|last| last.identity >= relay.identity) {
            return Err(first.fault(Fault::Mismatch("relays are not in ascending order of identity")));
        }
        if let EdListing::Key(key) = relay.ed_identity
            && !ed_identities.insert(key)
        {
            return Err(first.fault(Fault::Mismatch("two relays have the same Ed25519 identity")));
        }
        relays.push(relay);
    }
    relays.shrink_to_fit();
    Ok(relays)
}

/// Checks the signature and returns the digest that it is over.
fn check_signature(
    text: &str,
    first: &Item<'_>,
    footer: &Section<'_>,
    vote: &Vote,
) -> Result<Fingerprint, DocError> {
    if let Some(line) = footer.get(FOOTER)
        && footer.opens_with(FOOTER).is_err()
    {
        return Err(line.fault(Fault::Misplaced(FOOTER)));
    }
    // What stood behind it would be kept and passed on, and nobody has signed it.
    let signature = footer.ends_with(SIGNATURE)?;
    // The blank after `directory-signature` is the last byte that is signed.
    let signed = text
        .get(first.start..signature.start + SIGNATURE.len() + 1)
        .filter(|s| s.ends_with("directory-signature "))
        .ok_or_else(|| signature.fault(Fault::Misplaced(SIGNATURE)))?;
    let digest = Fingerprint(Sha1::digest(signed).into());
    // The algorithm may be named: votes have but one.
    let is_named = signature.arg(2).is_some();
    if is_named && signature.arg(0) != Some("sha1") {
        return Err(signature.fault(Fault::value("digest algorithm", signature.rest)));
    }
    let signer = usize::from(is_named);
    let identity = signature.parse_arg(signer, "signer", Fingerprint::from_hex)?;
    signature.parse_arg(signer + 1, "signing key", Fingerprint::from_hex)?;
    if identity != vote.authority.identity {
        return Err(signature.fault(Fault::Mismatch("another authority than the voter signed")));
    }
    let bytes = signature.decode_object("SIGNATURE", SIGNATURE)?;
    let key = &vote.certificate.cert().signing_key;
    key.verify_bare(&digest.0, &bytes).map_err(|_| signature.fault(Fault::BadSignature(SIGNATURE)))?;
    Ok(digest)
}
