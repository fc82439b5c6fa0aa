//! Answers of a directory (dir-spec 6; the table of its URLs is in appendix B there), in C tor's words: those of a cache,
//! and what an authority answers in the same way.
//!
//! Pure: a request and a snapshot go in, the head of the answer and shared documents come out.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::compress::{Accepted, Encoding};
use onionring_proto::dir::request::DIFF_FROM_HEADER;
use onionring_proto::netdoc::consensus::Flavor;
use onionring_proto::netdoc::text::{self, Fingerprint};
use onionring_proto::policy::is_internal;
use onionring_proto::time::Unix;

use super::http::{self, Method, Refusal, Request};
use super::snapshot::{DirSnapshot, RouterDoc, RouterDocs, StoredCert};
use super::spool::{Blob, Response};

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The client's address, or that of the previous hop; told back to it (`X-Your-Address-Is`).
    pub address: Option<IpAddr>,
    /// The time.
    pub now: Unix,
    /// Whether a list may be compressed for this client while it is sent.
    pub may_encode: bool,
}

const HOUR: Duration = Duration::from_secs(3600);
/// Descriptors named by their digest never change.
const BY_DIGEST: Duration = Duration::from_secs(48 * 3600);
const ROBOTS: Duration = Duration::from_secs(24 * 3600);
const FRONT_PAGE: Duration = Duration::from_secs(20 * 60);
/// A descriptor older than this is not given out to those who do not ask for it by its digest.
const CURRENT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The statuses of most answers.
pub const STATUSES: [u16; 4] = [200, 304, 404, 503];

/// A refusal in numbers and words.
pub type Refused = (u16, &'static str);

/// There is no such document, or no such URL.
pub const NOT_FOUND: Refused = (404, "Not found");
const UNAVAILABLE: Refused = (404, "Servers unavailable");
const NOT_MODIFIED: Refused = (304, "Not modified");

/// Answers a request as a cache does.
pub fn respond(dir: &DirSnapshot, request: &Request, asker: Asker) -> Response {
    let answer = match request.method {
        Method::Get => get(dir, request, asker),
        // Onion-service descriptors would be another matter; this cache keeps none.
        Method::Post if request.path.starts_with("/tor/hs/") => Err(NOT_FOUND),
        Method::Post => Err((400, "Nonauthoritative directory does not accept posted server descriptors")),
    };
    answer.unwrap_or_else(|(status, reason)| short(status, reason, asker.now))
}

/// The answer to what is no request, if there is one.
pub fn refuse(refusal: Refusal, now: Unix) -> Option<Response> {
    match refusal {
        Refusal::BadRequest => Some(short(400, "Bad request", now)),
        Refusal::Unanswered => None,
    }
}

/// The answer of a cache that has too much to do.
pub fn busy(now: Unix) -> Response {
    short(503, "Directory busy, try again later", now)
}

/// An answer that is a status line and its date.
pub fn short(status: u16, reason: impl Into<Cow<'static, str>>, now: Unix) -> Response {
    Response {
        status,
        reason: reason.into(),
        headers: vec![("Date", http::format_date(now))],
        body: Arc::default(),
        encoding: Encoding::Identity,
    }
}

/// Answers a GET of what caches and authorities alike serve.
pub fn get(dir: &DirSnapshot, request: &Request, asker: Asker) -> Result<Response, Refused> {
    let path = request.path.strip_prefix("/tor/").ok_or(NOT_FOUND)?;
    if let Some(rest) = path.strip_prefix("status-vote/current/consensus") {
        return consensus(dir, rest, request, asker);
    }
    let list = |body, caching| Ok(asker.list(request.accepted, body, caching));
    match path.split_once('/').unwrap_or((path, "")) {
        ("", "") => {
            let page = dir.front_page.clone().ok_or(NOT_FOUND)?;
            Ok(asker.plain("text/html", page, FRONT_PAGE))
        }
        ("robots.txt", "") => {
            Ok(asker.plain("text/plain", Blob::from(&b"User-agent: *\r\nDisallow: /\r\n"[..]), ROBOTS))
        }
        ("server", key) => {
            let own = dir.own.as_ref().map(|own| (own.identity, &own.descriptor));
            let (body, caching) = router_docs(&dir.descriptors, own, key, asker.now)?;
            list(body, caching)
        }
        ("extra", key) => {
            let own = dir.own.as_ref().map(|own| (own.identity, &own.extra_info));
            let (body, caching) = router_docs(&dir.extra_infos, own, key, asker.now)?;
            list(body, caching)
        }
        ("micro", key) => {
            let digests = key.strip_prefix("d/").ok_or(NOT_FOUND)?;
            let digests = names(digests, '-', text::base64_array::<32>);
            let body: Arc<[Blob]> =
                digests.iter().rev().filter_map(|digest| dir.microdescs.get(digest).cloned()).collect();
            if body.is_empty() { Err(NOT_FOUND) } else { list(body, Some(BY_DIGEST)) }
        }
        ("keys", key) => keys(dir, key, request, asker),
        _ => Err(NOT_FOUND),
    }
}

/// The sorted set of names in a list; what is not a name is passed over.
pub fn names<T: Ord>(list: &str, separator: char, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let mut names: Vec<T> = list.split(separator).filter_map(parse).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// `rest` is what follows `consensus`: `[-FLAVOR][/diff/HASH][/FP+FP...]`.
fn consensus(dir: &DirSnapshot, rest: &str, request: &Request, asker: Asker) -> Result<Response, Refused> {
    let (flavor, rest) = rest.split_once('/').map_or((rest, None), |(flavor, rest)| (flavor, Some(rest)));
    let flavor = match flavor {
        "-microdesc" => Flavor::Microdesc,
        // An unknown flavour gets the plain one.
        _ => Flavor::Ns,
    };
    let (only_diff, signers) = match rest.and_then(|rest| rest.strip_prefix("diff/")) {
        None => (None, rest),
        Some(rest) => {
            let (base, signers) = rest.split_once('/').map_or((rest, None), |(base, s)| (base, Some(s)));
            (Some(text::hex_array::<32>(base).ok_or((404, "Couldn't parse request"))?), signers)
        }
    };
    const NO_DIFF: Refused = (404, "No such diff available");
    let bases = only_diff.as_ref().map_or(&request.has_consensuses[..], std::slice::from_ref);
    let consensus = dir.consensus(flavor).ok_or(if only_diff.is_some() { NO_DIFF } else { NOT_FOUND })?;
    if bases.contains(&consensus.signed_sha3) {
        return Err(NOT_MODIFIED);
    }
    let document = match consensus.diff_from(bases) {
        Some(diff) => diff,
        None if only_diff.is_some() => return Err(NO_DIFF),
        None => &consensus.whole,
    };
    let lifetime = &consensus.lifetime;
    if !lifetime.is_reasonably_live(asker.now) {
        let is_new = asker.now < lifetime.valid_after;
        return Err((404, if is_new { "Consensus is too new" } else { "Consensus is too old" }));
    }
    if signers.is_some_and(|wanted| !signed_by_most(&consensus.signers, wanted)) {
        return Err((404, "Consensus not signed by sufficient number of requested authorities"));
    }
    if request.if_modified_since.is_some_and(|since| lifetime.valid_after < since) {
        return Err(NOT_MODIFIED);
    }
    let (encoding, blob) = document.choose(request.accepted).ok_or(NOT_FOUND)?;
    let fresh = lifetime.fresh_until.since(asker.now);
    let mut headers = asker.headers("text/plain", encoding, None, (!fresh.is_zero()).then_some(fresh));
    headers.push(("Vary", DIFF_FROM_HEADER.to_owned()));
    Ok(found(headers, [blob.clone()].into(), Encoding::Identity))
}

/// Whether more than half of the `wanted` authorities, named by the first hex digits of their identities, signed.
fn signed_by_most(signers: &[Fingerprint], wanted: &str) -> bool {
    let signers: Vec<String> = signers.iter().map(Fingerprint::to_string).collect();
    let has_signed = |wanted: &str| {
        let wanted = wanted.to_ascii_uppercase();
        signers.iter().any(|signer| signer.starts_with(&wanted))
    };
    let wanted: Vec<&str> = wanted.split('+').collect();
    2 * wanted.iter().filter(|w| has_signed(w)).count() > wanted.len()
}

/// Descriptors or extra-infos, and for how long they may be kept.
fn router_docs(
    docs: &RouterDocs,
    own: Option<(Fingerprint, &RouterDoc)>,
    key: &str,
    now: Unix,
) -> Result<(Arc<[Blob]>, Option<Duration>), Refused> {
    let body: Arc<[Blob]> = match key.split_once('/').unwrap_or((key, "")) {
        ("all", "") => {
            if docs.all().is_empty() {
                return Err(UNAVAILABLE);
            }
            let recent = docs.all_since(now - CURRENT_MAX);
            return if recent.is_empty() { Err(NOT_FOUND) } else { Ok((recent, Some(HOUR))) };
        }
        ("authority", "") => recent(own.iter().map(|(_, doc)| *doc).collect(), now)?,
        ("d", digests) => {
            let digests = names(digests, '+', Fingerprint::from_hex);
            // C tor sends a list from its end.
            digests.iter().rev().filter_map(|d| docs.by_digest(d)).map(|doc| doc.text.clone()).collect()
        }
        ("fp", identities) => {
            let current = |identity: &Fingerprint| match own {
                Some((own, doc)) if own == *identity => Some(doc),
                _ => docs.current(identity),
            };
            let identities = names(identities, '+', Fingerprint::from_hex);
            recent(identities.iter().rev().filter_map(current).collect(), now)?
        }
        _ => return Err(NOT_FOUND),
    };
    match body.len() {
        0 => Err(UNAVAILABLE),
        1 => Ok((body, Some(BY_DIGEST))),
        _ => Ok((body, None)),
    }
}

/// Those that are not too old for who asks for current ones.
fn recent(found: Vec<&RouterDoc>, now: Unix) -> Result<Arc<[Blob]>, Refused> {
    if found.is_empty() {
        return Err(UNAVAILABLE);
    }
    let recent = found.iter().filter(|doc| doc.published >= now - CURRENT_MAX);
    let body: Arc<[Blob]> = recent.map(|doc| doc.text.clone()).collect();
    if body.is_empty() { Err(NOT_FOUND) } else { Ok(body) }
}

fn keys(dir: &DirSnapshot, key: &str, request: &Request, asker: Asker) -> Result<Response, Refused> {
    const ANY: Fingerprint = Fingerprint([0; 20]);
    const LAST: Fingerprint = Fingerprint([0xff; 20]);
    let newest = |id: &Fingerprint| {
        dir.certs.range((*id, ANY)..=(*id, LAST)).map(|(_, cert)| cert).max_by_key(|c| c.published)
    };
    let certs: Vec<&StoredCert> = match key.split_once('/').unwrap_or((key, "")) {
        ("all", "") => dir.certs.values().collect(),
        ("authority", "") => dir.authority.iter().filter_map(newest).collect(),
        ("fp", identities) => {
            names(identities, '+', Fingerprint::from_hex).iter().filter_map(newest).collect()
        }
        ("sk", signing_keys) => {
            let with = |sk: &Fingerprint| dir.certs.iter().find(|((_, s), _)| s == sk).map(|(_, cert)| cert);
            names(signing_keys, '+', Fingerprint::from_hex).iter().filter_map(with).collect()
        }
        ("fp-sk", pairs) => {
            let pair = |pair: &str| {
                let (identity, signing_key) = pair.split_once('-')?;
                Some((Fingerprint::from_hex(identity)?, Fingerprint::from_hex(signing_key)?))
            };
            names(pairs, '+', pair).iter().filter_map(|pair| dir.certs.get(pair)).collect()
        }
        _ => return Err((400, "Bad request")),
    };
    if certs.is_empty() {
        return Err(NOT_FOUND);
    }
    let since = request.if_modified_since.unwrap_or_default();
    let body: Arc<[Blob]> =
        certs.iter().filter(|cert| cert.published >= since).map(|cert| cert.text.clone()).collect();
    if body.is_empty() {
        return Err(NOT_MODIFIED);
    }
    Ok(asker.list_with_length(request.accepted, &Encoding::STREAMED, body, HOUR))
}

fn found(headers: Vec<(&'static str, String)>, body: Arc<[Blob]>, encoding: Encoding) -> Response {
    Response { status: 200, reason: "OK".into(), headers, body, encoding }
}

impl Asker {
    /// The headers of an answer with a body.
    fn headers(
        &self,
        content_type: &str,
        encoding: Encoding,
        length: Option<usize>,
        caching: Option<Duration>,
    ) -> Vec<(&'static str, String)> {
        let mut headers =
            vec![("Date", http::format_date(self.now)), ("Content-Type", content_type.to_owned())];
        if let Some(address) = self.address.filter(|a| !is_internal(*a)) {
            headers.push(("X-Your-Address-Is", address.to_string()));
        }
        headers.push(("Content-Encoding", encoding.to_string()));
        if let Some(length) = length {
            headers.push(("Content-Length", length.to_string()));
        }
        headers.push(match caching {
            Some(lifetime) => ("Expires", http::format_date(self.now + lifetime)),
            None => ("Pragma", "no-cache".to_owned()),
        });
        headers
    }

    /// A document that is sent as it is.
    fn plain(&self, content_type: &str, document: Blob, caching: Duration) -> Response {
        let encoding = Encoding::Identity;
        let headers = self.headers(content_type, encoding, Some(document.len()), Some(caching));
        found(headers, [document].into(), encoding)
    }

    /// Documents that are compressed as they are sent.
    fn list(&self, accepted: Accepted, body: Arc<[Blob]>, caching: Option<Duration>) -> Response {
        let encoding = self.encoding(accepted, &Encoding::STREAMED);
        found(self.headers("text/plain", encoding, None, caching), body, encoding)
    }

    /// The same in the first of `preferences` that the client can read, with the length where it is known.
    pub fn list_with_length(
        &self,
        accepted: Accepted,
        preferences: &[Encoding],
        body: Arc<[Blob]>,
        caching: Duration,
    ) -> Response {
        let encoding = self.encoding(accepted, preferences);
        let length = (encoding == Encoding::Identity).then(|| body.iter().map(|blob| blob.len()).sum());
        found(self.headers("text/plain", encoding, length, Some(caching)), body, encoding)
    }

    fn encoding(&self, accepted: Accepted, preferences: &[Encoding]) -> Encoding {
        if self.may_encode { accepted.choose(preferences) } else { Encoding::Identity }
    }
}
