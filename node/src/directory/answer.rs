//! Requests to a directory server, and its answer as it comes in: one HTTP/1.0 exchange per connection, everything hostile
//! bounded.

use std::net::IpAddr;
use std::time::Duration;

use onionring_proto::dir::request::{AtHand, DIFF_FROM_HEADER};
use onionring_proto::netdoc::text;
use onionring_proto::time::Unix;
use thiserror::Error;

use super::http;
use crate::compress::{DecodeError, Decoder, Encoding};
use crate::limits;

/// Why an answer is of no use.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// What came back does not begin like an HTTP answer, or its head is too long or cut off.
    #[error("the answer is not HTTP")]
    NotHttp,
    /// The answer is compressed in a way nobody asked for.
    #[error("the answer has the unknown Content-Encoding {0:?}")]
    Encoding(String),
    /// The answer does not decompress, is cut off, is too long, or is made to exhaust memory.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The answer ends before the length it announced.
    #[error("the answer is cut off after {got} of {announced} bytes")]
    CutOff {
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        announced: usize,
    },
}

impl AnswerError {
    /// A word for it, as a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            AnswerError::NotHttp => "not_http",
            AnswerError::Encoding(_) | AnswerError::Decode(_) => "undecodable",
            AnswerError::CutOff { .. } => "cut_off",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The words after the status: why, if it is a refusal. Shortened, without control characters.
    pub reason: String,
    /// The server's clock.
    pub date: Option<Unix>,
    /// What was posted is not news (`X-Descriptor-Not-New`).
    pub not_new: bool,
    /// Our address as the server sees it (`X-Your-Address-Is`).
    pub your_address: Option<IpAddr>,
    /// The body, decompressed.
    pub body: Vec<u8>,
}

/// The request for `path` on `host`. The server need not send what is `at_hand`.
pub fn get_request(host: &str, path: &str, at_hand: Option<AtHand>) -> String {
    let accepted: Vec<&str> = Encoding::ALL.iter().map(|e| e.token()).collect();
    let accepted = accepted.join(", ");
    let mut head = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept-Encoding: {accepted}\r\n");
    if let Some(at_hand) = at_hand {
        // Servers say "not modified" only of what is older than the time given.
        let since = http::format_date(at_hand.valid_after + Duration::from_secs(1));
        head.push_str(&format!("If-Modified-Since: {since}\r\n"));
        if let Some(base) = at_hand.diff_from {
            head.push_str(&format!("{DIFF_FROM_HEADER}: {}\r\n", text::hex_upper(&base)));
        }
    }
    head.push_str("\r\n");
    head
}

/// The request that hands in `body`; `why` is for the server's log.
pub fn post_request(host: &str, path: &str, why: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.0\r\nHost: {host}\r\nX-Desc-Gen-Reason: {why}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// An answer on its way in. It ends with the connection, or with the length that it announces.
pub struct AnswerReader {
    bytes_max: usize,
    part: Part,
}

enum Part {
    Head(Vec<u8>),
    Body(Box<Body>),
}

struct Body {
    answer: Answer,
    decoder: Decoder,
    length: Option<usize>,
    got: usize,
}

impl AnswerReader {
    /// For an answer whose body has at most `bytes_max` bytes, decompressed.
    pub fn new(bytes_max: usize) -> AnswerReader {
        AnswerReader { bytes_max, part: Part::Head(Vec::new()) }
    }

    /// Takes what has come in; says whether that was all of it.
    pub fn push(&mut self, piece: &[u8]) -> Result<bool, AnswerError> {
        match &mut self.part {
            Part::Body(body) => body.push(piece),
            Part::Head(received) => {
                received.extend_from_slice(piece);
                match Body::after_head(received, self.bytes_max)? {
                    Some((body, start)) => {
                        let mut body = Box::new(body);
                        let is_complete = body.push(received.get(start..).unwrap_or_default())?;
                        self.part = Part::Body(body);
                        Ok(is_complete)
                    }
                    None if received.len() > limits::DIR_ANSWER_HEAD => Err(AnswerError::NotHttp),
                    None => Ok(false),
                }
            }
        }
    }

    /// The answer, now that it is complete or the connection has ended.
    pub fn finish(self) -> Result<Answer, AnswerError> {
        match self.part {
            Part::Head(_) => Err(AnswerError::NotHttp),
            Part::Body(body) => body.finish(),
        }
    }
}

impl Body {
    /// Parses the head and says where the body starts; `None` if the head is not complete.
    fn after_head(received: &[u8], bytes_max: usize) -> Result<Option<(Body, usize)>, AnswerError> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        let start = match parsed.parse(received) {
            Ok(httparse::Status::Complete(start)) => start,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(AnswerError::NotHttp),
        };
        let header = |name: &str| {
            let found = parsed.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok().map(str::trim)
        };
        let encoding = match header("Content-Encoding") {
            None => Encoding::Identity,
            Some(token) => {
                Encoding::from_token(token).ok_or_else(|| AnswerError::Encoding(shorten(token)))?
            }
        };
        let answer = Answer {
            status: parsed.code.unwrap_or_default(),
            reason: shorten(parsed.reason.unwrap_or_default()),
            date: header("Date").and_then(http::parse_date),
            not_new: header("X-Descriptor-Not-New").is_some(),
            your_address: header("X-Your-Address-Is").and_then(|a| a.parse().ok()),
            body: Vec::new(),
        };
        let length = header("Content-Length").and_then(|n| n.parse().ok());
        let decoder = Decoder::new(encoding, bytes_max)?;
        Ok(Some((Body { answer, decoder, length, got: 0 }, start)))
    }

    fn push(&mut self, piece: &[u8]) -> Result<bool, AnswerError> {
        let wanted = self.length.map_or(usize::MAX, |length| length - self.got).min(piece.len());
        self.decoder.push(piece.get(..wanted).unwrap_or_default(), &mut self.answer.body)?;
        self.got += wanted;
        Ok(self.length == Some(self.got))
    }

    fn finish(self) -> Result<Answer, AnswerError> {
        let Body { answer, decoder, length, got } = self;
        if let Some(announced) = length.filter(|&length| got < length) {
            return Err(AnswerError::CutOff { got, announced });
        }
        // A refusal has no body, and so nothing whose end could be missing.
        if got > 0 {
            decoder.finish()?;
        }
        Ok(answer)
    }
}

/// What a server says, fit for a log.
fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
