//! The other authorities, asked and told over HTTP on their DirPorts.

use std::io;
use std::net::SocketAddr;

use onionring_node::directory::answer::{Answer, get_request, post_request};
use onionring_node::directory::exchange::{ExchangeError, Patience, exchange};
use onionring_node::limits::DIR_ANSWER_HEAD;
use onionring_proto::dir::request::AtHand;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::torrc::authority::Authority;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits;

/// Another authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What to call it in logs.
    pub name: String,
    /// Fingerprint of its v3 identity key.
    pub v3_ident: Fingerprint,
    /// SHA-1 of its RSA identity key as a relay.
    pub rsa_id: Fingerprint,
    /// Its DirPort.
    pub dir: SocketAddr,
}

impl Peer {
    /// A configured authority; `None` if it does not vote.
    pub fn new(authority: &Authority) -> Option<Peer> {
        let dir = SocketAddr::from(authority.dir);
        Some(Peer {
            name: authority.nickname.map_or_else(|| dir.to_string(), |nickname| nickname.to_string()),
            v3_ident: authority.v3_ident?,
            rsa_id: authority.rsa_id,
            dir,
        })
    }

    /// Asks for `path`; the answer may have `bytes_max` bytes. The peer need not send what is `at_hand`.
    pub async fn get(
        &self,
        path: &str,
        at_hand: Option<AtHand>,
        bytes_max: usize,
    ) -> Result<Answer, PeerError> {
        self.exchange(get_request(&self.dir.to_string(), path, at_hand), bytes_max).await
    }

    /// Hands in `body`; `why` is for the peer's log.
    pub async fn post(&self, path: &str, why: &str, body: &str) -> Result<Answer, PeerError> {
        self.exchange(post_request(&self.dir.to_string(), path, why, body), DIR_ANSWER_HEAD).await
    }

    async fn exchange(&self, request: String, bytes_max: usize) -> Result<Answer, PeerError> {
        let connected = timeout(limits::PEER_CONNECT_TIME, TcpStream::connect(self.dir)).await;
        let mut stream = connected.map_err(io::Error::from).flatten().map_err(PeerError::Connect)?;
        let patience = Patience { stall: limits::PEER_STALL, total: limits::PEER_TIME };
        Ok(exchange(&mut stream, &request, bytes_max, patience).await?)
    }
}

/// Why a peer gives no usable answer.
#[derive(Debug, Error)]
pub enum PeerError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// No usable answer came over it.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl PeerError {
    /// A word for it, as a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            PeerError::Connect(error) if error.kind() == io::ErrorKind::TimedOut => "timeout",
            PeerError::Connect(_) => "connect",
            PeerError::Exchange(error) => error.label(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A peer that answers one request so.
    async fn peer(answer: &'static str) -> (Peer, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let dir = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            request.truncate(n);
            String::from_utf8(request).unwrap()
        });
        let id = Fingerprint([1; 20]);
        (Peer { name: "peer".into(), v3_ident: id, rsa_id: id, dir }, asked)
    }

    #[tokio::test]
    async fn asks_and_tells() {
        let (asked, request) = peer("HTTP/1.0 200 OK\r\n\r\nthe body").await;
        let answer = asked.get("/tor/keys/all", None, 100).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (200, &b"the body"[..]));
        assert!(request.await.unwrap().starts_with("GET /tor/keys/all HTTP/1.0\r\n"));
        let (told, request) = peer("HTTP/1.0 400 Bad valid-after time\r\n\r\n").await;
        let answer = told.post("/tor/post/vote", "vote", "a vote").await.unwrap();
        assert_eq!((answer.status, &*answer.reason), (400, "Bad valid-after time"));
        assert!(request.await.unwrap().ends_with("Content-Length: 6\r\n\r\na vote"));
    }

    #[tokio::test]
    async fn refuses_what_is_too_long_or_nothing() {
        let (asked, _) = peer("HTTP/1.0 200 OK\r\n\r\nmore than four").await;
        assert_eq!(asked.get("/", None, 4).await.unwrap_err().label(), "undecodable");
        let (asked, _) = peer("").await;
        assert_eq!(asked.get("/", None, 4).await.unwrap_err().label(), "not_http");
    }
}
