//! Asking directory servers: one HTTP/1.0 exchange per connection, everything hostile bounded.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use onionring_node::compress::{DecodeError, Decoder, Encoding};
use onionring_proto::dir::request::{AtHand, DIFF_FROM_HEADER};
use onionring_proto::netdoc::text::{self, Fingerprint};
use onionring_proto::time::Unix;
use onionring_proto::torrc::authority::Authority;
use thiserror::Error;

use super::http;
use crate::io::net::{self, OutboundAddresses};
use crate::limits;

/// A directory authority to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirServer {
    /// What to call it in logs.
    pub name: String,
    /// SHA-1 of its RSA identity key as a relay.
    pub rsa_id: Fingerprint,
    /// Fingerprint of its v3 identity key, if it votes.
    pub v3_ident: Option<Fingerprint>,
    /// Its DirPort.
    pub dir: SocketAddr,
    /// Its ORPort, if known.
    pub or: Option<SocketAddr>,
}

impl From<&Authority> for DirServer {
    fn from(authority: &Authority) -> Self {
        let dir = SocketAddr::from(authority.dir);
        DirServer {
            name: authority.nickname.map_or_else(|| dir.to_string(), |nickname| nickname.to_string()),
            rsa_id: authority.rsa_id,
            v3_ident: authority.v3_ident,
            dir,
            or: authority.or_port.map(|port| SocketAddr::new(dir.ip(), port)),
        }
    }
}

/// How to reach a directory server.
pub trait Transport {
    /// A connection, closed when dropped.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// Opens a connection on which the server expects an HTTP request. The caller bounds the time.
    fn open(&self, server: &DirServer) -> impl Future<Output = io::Result<Self::Stream>>;
}

/// Plain TCP to DirPorts.
#[derive(Clone, Copy, Debug, Default)]
pub struct DirPorts {
    /// The source addresses of connections (`OutboundBindAddress`).
    pub from: OutboundAddresses,
}

impl Transport for DirPorts {
    type Stream = glommio::net::TcpStream;

    async fn open(&self, server: &DirServer) -> io::Result<Self::Stream> {
        net::connect(server.dir, &self.from).await
    }
}

/// Why there is no usable answer.
#[derive(Debug, Error)]
pub enum FetchError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The connection broke.
    #[error("the connection failed: {0}")]
    Broken(io::Error),
    /// It takes too long.
    #[error("no {what} within {after:?}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        after: Duration,
    },
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

impl FetchError {
    /// A word for it, as a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            FetchError::Connect(_) => "connect",
            FetchError::Broken(_) => "broken",
            FetchError::TimedOut { .. } => "timeout",
            FetchError::NotHttp => "not_http",
            FetchError::Encoding(_) | FetchError::Decode(_) => "undecodable",
            FetchError::CutOff { .. } => "cut_off",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Asks for `path`; the answer may have `bytes_max` bytes. The server need not send what is `at_hand`.
pub async fn get(
    transport: &impl Transport,
    server: &DirServer,
    path: &str,
    at_hand: Option<AtHand>,
    bytes_max: usize,
) -> Result<Answer, FetchError> {
    let accepted: Vec<&str> = Encoding::ALL.iter().map(|e| e.token()).collect();
    let mut head = format!(
        "GET {path} HTTP/1.0\r\nHost: {}\r\nAccept-Encoding: {}\r\n",
        server.dir,
        accepted.join(", ")
    );
    if let Some(at_hand) = at_hand {
        // Servers say "not modified" only of what is older than the time given.
        let since = http::format_date(at_hand.valid_after + Duration::from_secs(1));
        head.push_str(&format!("If-Modified-Since: {since}\r\n"));
        if let Some(base) = at_hand.diff_from {
            head.push_str(&format!("{DIFF_FROM_HEADER}: {}\r\n", text::hex_upper(&base)));
        }
    }
    head.push_str("\r\n");
    exchange(transport, server, head.as_bytes(), bytes_max).await
}

/// Hands in `body`; `why` is for the server's log.
pub async fn post(
    transport: &impl Transport,
    server: &DirServer,
    path: &str,
    why: &str,
    body: &str,
) -> Result<Answer, FetchError> {
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {}\r\nX-Desc-Gen-Reason: {why}\r\nContent-Length: {}\r\n\r\n{body}",
        server.dir,
        body.len()
    );
    exchange(transport, server, request.as_bytes(), limits::DIR_ANSWER_HEAD).await
}

async fn exchange(
    transport: &impl Transport,
    server: &DirServer,
    request: &[u8],
    bytes_max: usize,
) -> Result<Answer, FetchError> {
    within("answer", limits::DIR_FETCH_TIMEOUT, async {
        let connect = async { transport.open(server).await.map_err(FetchError::Connect) };
        let mut stream = within("connection", limits::DIR_CONNECT_TIMEOUT, connect).await?;
        let send = async { stream.write_all(request).await.map_err(FetchError::Broken) };
        within("room for the request", limits::DIR_FETCH_STALL, send).await?;
        receive(&mut stream, bytes_max).await
    })
    .await
}

async fn within<T>(
    what: &'static str,
    after: Duration,
    attempt: impl Future<Output = Result<T, FetchError>>,
) -> Result<T, FetchError> {
    let result = glommio::timer::timeout(after, async { Ok(attempt.await) }).await;
    result.unwrap_or(Err(FetchError::TimedOut { what, after }))
}

/// Reads an answer to its end: that of the connection, or of the length it announces.
async fn receive(stream: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> Result<Answer, FetchError> {
    let mut piece = vec![0; 16 * 1024];
    let mut read = async |piece: &mut [u8]| {
        let read = async { stream.read(piece).await.map_err(FetchError::Broken) };
        within("more of the answer", limits::DIR_FETCH_STALL, read).await
    };
    let mut received = Vec::new();
    let (mut head, start) = loop {
        let n = read(&mut piece).await?;
        received.extend_from_slice(&piece[..n]);
        if let Some(found) = Head::parse(&received)? {
            break found;
        }
        if n == 0 || received.len() > limits::DIR_ANSWER_HEAD {
            return Err(FetchError::NotHttp);
        }
    };
    let mut decoder = Decoder::new(head.encoding, bytes_max)?;
    let announced = head.length.unwrap_or(usize::MAX);
    let mut body = Vec::new();
    let mut got = 0;
    let mut piece_of_body = &received[start..];
    loop {
        let wanted = piece_of_body.len().min(announced - got);
        decoder.push(&piece_of_body[..wanted], &mut body)?;
        got += wanted;
        if got == announced {
            break;
        }
        let n = read(&mut piece).await?;
        if n == 0 {
            break;
        }
        piece_of_body = &piece[..n];
    }
    if got < announced && head.length.is_some() {
        return Err(FetchError::CutOff { got, announced });
    }
    // A refusal has no body, and so nothing whose end could be missing.
    if got > 0 {
        decoder.finish()?;
    }
    head.answer.body = body;
    Ok(head.answer)
}

/// What stands before a body.
struct Head {
    answer: Answer,
    encoding: Encoding,
    length: Option<usize>,
}

impl Head {
    /// Parses the head and says where the body starts; `None` if the head is not complete.
    fn parse(received: &[u8]) -> Result<Option<(Head, usize)>, FetchError> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        let start = match parsed.parse(received) {
            Ok(httparse::Status::Complete(start)) => start,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(FetchError::NotHttp),
        };
        let header = |name: &str| {
            let found = parsed.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok().map(str::trim)
        };
        let encoding = match header("Content-Encoding") {
            None => Encoding::Identity,
            Some(token) => Encoding::from_token(token).ok_or_else(|| FetchError::Encoding(shorten(token)))?,
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
        Ok(Some((Head { answer, encoding, length }, start)))
    }
}

/// What a server says, fit for a log.
fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests;
