//! HTTP/1.0 as directories speak it (dir-spec 6): requests as they come in, dates, and the head of an answer.

use std::time::{Duration, SystemTime};

use crate::compress::{Accepted, Encoding};
use onionring_proto::dir::request::DIFF_FROM_HEADER;
use onionring_proto::netdoc::text;
use onionring_proto::time::Unix;

use crate::limits;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A document.
    Get,
    /// To hand one in.
    Post,
}

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path: it starts with `/tor/`, and a trailing `.z` is gone.
    pub path: String,
    /// The encodings that the client can read, those that `.z` stands for included.
    pub accepted: Accepted,
    /// The client has the document as of then.
    pub if_modified_since: Option<Unix>,
    /// The client has these consensuses, by the SHA3-256 of their signed parts (`X-Or-Diff-From-Consensus`).
    pub has_consensuses: Vec<[u8; 32]>,
    /// Bytes of the body that follows.
    pub content_length: usize,
}

/// Why a request gets no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Answer with `400 Bad request`.
    BadRequest,
    /// Close without an answer, as C tor does: the request is too long, or of an unknown method.
    Unanswered,
}

/// Gathers the head of a request from the pieces in which it arrives.
#[derive(Debug, Default)]
pub struct RequestReader {
    head: Vec<u8>,
}

const HEAD_END: &[u8] = b"\r\n\r\n";
const HEADERS_MAX: usize = 128;

impl RequestReader {
    /// Takes the next piece. Gives the request once its head is complete, and how much of the piece belongs to it;
    /// the rest is its body. Not to be called again after that.
    pub fn push(&mut self, piece: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
        let seen = self.head.len();
        let room = limits::DIR_REQUEST_HEAD.saturating_sub(seen);
        self.head.extend_from_slice(&piece[..piece.len().min(room)]);
        // The end mark may have begun in an earlier piece.
        let from = seen.saturating_sub(HEAD_END.len() - 1);
        let Some(at) = self.head[from..].windows(HEAD_END.len()).position(|w| w == HEAD_END) else {
            return if piece.len() > room { Err(Refusal::Unanswered) } else { Ok(None) };
        };
        let end = from + at + HEAD_END.len();
        self.head.truncate(end);
        let request = Request::parse(&self.head)?;
        self.head = Vec::new();
        Ok(Some((request, end - seen)))
    }
}

impl Request {
    /// Parses a head, empty line included.
    fn parse(head: &[u8]) -> Result<Self, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        if !matches!(parsed.parse(head), Ok(httparse::Status::Complete(_))) {
            return Err(refusal_of(head));
        }
        let header = |name: &str| {
            parsed.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|header| header.value)
        };
        Request::new(parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default(), header)
    }

    /// Makes sense of a head that was taken apart already. `header` finds the value of a header, whatever the case of
    /// its name.
    pub fn new<'a>(
        method: &str,
        target: &str,
        header: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Self, Refusal> {
        let method = match method {
            "GET" => Method::Get,
            "POST" => Method::Post,
            _ => return Err(refusal_of(method.as_bytes())),
        };
        let (path, deflated) = path_of(target);
        let header = |name: &str| std::str::from_utf8(header(name)?).ok().map(str::trim);
        let accepted = header("Accept-Encoding").map_or(Accepted::IDENTITY, Accepted::from_header);
        let content_length = header("Content-Length").and_then(|n| n.parse().ok()).unwrap_or(0);
        if content_length > limits::DIR_REQUEST_BODY {
            return Err(Refusal::Unanswered);
        }
        Ok(Request {
            method,
            path,
            accepted: if deflated { accepted.with(Encoding::Deflate) } else { accepted },
            if_modified_since: header("If-Modified-Since").and_then(parse_date),
            has_consensuses: header(DIFF_FROM_HEADER).map_or_else(Vec::new, |list| {
                list.split([' ', ',', '\t'])
                    .filter_map(text::hex_array)
                    .take(limits::DIR_DIFF_BASES)
                    .collect()
            }),
            content_length,
        })
    }
}

/// What becomes of a head that is no request. What a method is called matters to C tor twice: any letter case is
/// answered, only capitals are served.
fn refusal_of(head: &[u8]) -> Refusal {
    let is_known = |method: &&[u8]| head.get(..method.len()).is_some_and(|h| h.eq_ignore_ascii_case(method));
    if [&b"get"[..], &b"post"[..]].iter().any(is_known) { Refusal::BadRequest } else { Refusal::Unanswered }
}

/// The path of a request's target, and whether it asks for a deflated answer.
fn path_of(target: &str) -> (String, bool) {
    let path = ["http://", "https://"]
        .iter()
        .find_map(|scheme| target.strip_prefix(scheme))
        .map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let (path, deflated) = match path.strip_suffix(".z") {
        Some(path) if !path.is_empty() => (path, true),
        _ => (path, false),
    };
    let path = if path.starts_with("/tor/") {
        path.to_owned()
    } else {
        format!("/tor/{}", path.strip_prefix('/').unwrap_or(path))
    };
    (path, deflated)
}

/// Reads a date of a header; `None` if it is not one.
pub fn parse_date(text: &str) -> Option<Unix> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Unix(since.as_secs()))
}

/// Writes a date as headers want it, such as `Sun, 22 Nov 2026 11:00:00 GMT`.
pub fn format_date(at: Unix) -> String {
    /// The last second of the year 9999, where the format ends.
    const LAST: u64 = 253_402_300_799;
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(at.0.min(LAST)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<(Request, usize)>, Refusal> {
        RequestReader::default().push(text.as_bytes())
    }

    fn request(text: &str) -> Request {
        read(text).unwrap().unwrap().0
    }

    #[test]
    fn a_request_of_c_tors() {
        let r = request(
            "GET /tor/status-vote/current/consensus-microdesc/14C131+27102B.z HTTP/1.0\r\nHost: 127.0.0.1\r\n\
             Accept-Encoding: deflate, gzip, x-tor-lzma, x-zstd\r\n\
             If-Modified-Since: Sun, 22 Nov 2026 11:00:00 GMT\r\n\r\n",
        );
        assert_eq!(r.path, "/tor/status-vote/current/consensus-microdesc/14C131+27102B");
        assert_eq!(r.accepted, Accepted::ALL);
        assert_eq!(r.if_modified_since.map(format_date).as_deref(), Some("Sun, 22 Nov 2026 11:00:00 GMT"));
    }

    #[test]
    fn a_request_of_artis() {
        let (a, b) = ("ab".repeat(32), "CD".repeat(32));
        let r = request(&format!(
            "GET /tor/status-vote/current/consensus-microdesc HTTP/1.0\r\naccept-encoding: deflate, identity\r\n\
             x-or-diff-from-consensus: {a}, {b}\r\n\r\n"
        ));
        assert_eq!(r.has_consensuses, [[0xab; 32], [0xcd; 32]]);
        assert_eq!(r.accepted, Accepted::IDENTITY.with(Encoding::Deflate));
    }

    #[test]
    fn targets() {
        let of = |target: &str| path_of(target);
        assert_eq!(of("/tor/keys/all.z"), ("/tor/keys/all".into(), true));
        assert_eq!(of("http://host:80/tor/keys/all"), ("/tor/keys/all".into(), false));
        assert_eq!(of("/keys/all"), ("/tor/keys/all".into(), false));
        assert_eq!(of("keys/all"), ("/tor/keys/all".into(), false));
        assert_eq!(of("http://host"), ("/tor/".into(), false));
        assert_eq!(of("/"), ("/tor/".into(), false));
        assert_eq!(of(".z"), ("/tor/.z".into(), false));
    }

    #[test]
    fn what_is_answered_and_what_is_not() {
        for bad in ["get / HTTP/1.0", "GET / HTTP/2.0", "GET /", "GET / http/1.0", "POSTS / HTTP/1.0"] {
            assert_eq!(read(&format!("{bad}\r\n\r\n")), Err(Refusal::BadRequest), "{bad}");
        }
        for unknown in ["HEAD / HTTP/1.0", "PUT / HTTP/1.0", "\u{0}", ""] {
            assert_eq!(read(&format!("{unknown}\r\n\r\n")), Err(Refusal::Unanswered), "{unknown}");
        }
        // Without carriage returns the end of the head never comes.
        assert_eq!(read("GET / HTTP/1.0\n\n"), Ok(None));
        let long = |n| format!("POST /tor/ HTTP/1.0\r\nContent-Length: {n}\r\n\r\nbody");
        assert_eq!(request(&long(limits::DIR_REQUEST_BODY)).content_length, limits::DIR_REQUEST_BODY);
        assert_eq!(read(&long(limits::DIR_REQUEST_BODY + 1)), Err(Refusal::Unanswered));
        assert_eq!(read(&long(4)).unwrap().unwrap().1, long(4).len() - 4);
    }

    #[test]
    fn long_heads_are_not_gathered() {
        let mut reader = RequestReader::default();
        let filler = vec![b'x'; limits::DIR_REQUEST_HEAD - 5];
        assert_eq!(reader.push(b"GET /"), Ok(None));
        assert_eq!(reader.push(&filler), Ok(None));
        assert_eq!(reader.push(b"x"), Err(Refusal::Unanswered));
        assert!(reader.head.len() <= limits::DIR_REQUEST_HEAD);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8)) {
            let mut reader = RequestReader::default();
            for piece in &pieces {
                if !matches!(reader.push(piece), Ok(None)) {
                    break;
                }
            }
        }

        #[test]
        fn pieces_do_not_matter(cut in 0usize..60, path in "/[ -~]{0,20}", header in "[ -~]{0,20}") {
            let text = format!("GET {path} HTTP/1.0\r\nX: {header}\r\n\r\nbody");
            let whole = read(&text);
            let cut = cut.min(text.len() - 5);
            let mut reader = RequestReader::default();
            prop_assert_eq!(reader.push(&text.as_bytes()[..cut]), Ok(None));
            let rest = reader.push(&text.as_bytes()[cut..]);
            prop_assert_eq!(rest, whole.map(|r| r.map(|(request, used)| (request, used - cut))));
        }
    }
}
