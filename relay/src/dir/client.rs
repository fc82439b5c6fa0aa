//! Asking directory servers: one HTTP/1.0 exchange per connection, everything hostile bounded.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
pub use onionring_node::directory::answer::Answer;
use onionring_node::directory::answer::{AnswerError, AnswerReader, get_request, post_request};
use onionring_node::limits::DIR_ANSWER_HEAD;
use onionring_proto::dir::request::AtHand;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::torrc::authority::Authority;
use thiserror::Error;

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
    /// What came back is of no use.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl FetchError {
    /// A word for it, as a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            FetchError::Connect(_) => "connect",
            FetchError::Broken(_) => "broken",
            FetchError::TimedOut { .. } => "timeout",
            FetchError::Answer(error) => error.label(),
        }
    }
}

/// Asks for `path`; the answer may have `bytes_max` bytes. The server need not send what is `at_hand`.
pub async fn get(
    transport: &impl Transport,
    server: &DirServer,
    path: &str,
    at_hand: Option<AtHand>,
    bytes_max: usize,
) -> Result<Answer, FetchError> {
    let head = get_request(&server.dir.to_string(), path, at_hand);
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
    let request = post_request(&server.dir.to_string(), path, why, body);
    exchange(transport, server, request.as_bytes(), DIR_ANSWER_HEAD).await
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
    let mut reader = AnswerReader::new(bytes_max);
    loop {
        let read = async { stream.read(&mut piece).await.map_err(FetchError::Broken) };
        let n = within("more of the answer", limits::DIR_FETCH_STALL, read).await?;
        if n == 0 || reader.push(&piece[..n])? {
            return Ok(reader.finish()?);
        }
    }
}

#[cfg(test)]
mod tests;
