//! A connection with its TLS session, and the two handshakes that open a link on it.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onionring_proto::link::{Established, Handshake};
use onionring_proto::time::Unix;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::{LinkFailure, Step};
use crate::limits;
use crate::tls::TlsStream;

/// The longest that each step of opening a link may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Until the connection stands; without effect on accepted ones.
    pub dial: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// The link handshake.
    pub handshake: Duration,
}

/// A socket and its TLS session. After an error nothing is left but to drop it.
pub(super) struct Connection {
    pub socket: TcpStream,
    pub tls: TlsStream,
    pub peer_address: IpAddr,
    /// Plaintext that nobody has taken yet: less than a cell, when all that could be has been.
    pub held: Vec<u8>,
    ciphertext: Box<[u8]>,
    /// Bytes that the socket has taken.
    pub taken: u64,
}

impl Connection {
    pub fn new(socket: TcpStream, tls: TlsStream) -> Result<Connection, LinkFailure> {
        // Cells leave in batches as it is: waiting for more would only delay them.
        socket.set_nodelay(true)?;
        let peer_address = socket.peer_addr()?.ip();
        let ciphertext = vec![0; limits::LINK_READ].into_boxed_slice();
        Ok(Connection { socket, tls, peer_address, held: Vec::new(), ciphertext, taken: 0 })
    }

    /// Makes the TLS handshake.
    pub async fn open_tls(&mut self, limit: Duration) -> Result<(), LinkFailure> {
        within(Step::Tls, limit, async {
            self.flush().await?;
            while self.tls.is_handshaking() {
                self.receive(Step::Tls).await?;
                self.flush().await?;
            }
            Ok(())
        })
        .await
    }

    /// Makes the link handshake. What the peer has sent after it stays in `held`.
    pub async fn open_link(
        &mut self,
        mut handshake: Handshake,
        limit: Duration,
    ) -> Result<Established, LinkFailure> {
        within(Step::Handshake, limit, async {
            loop {
                let result = handshake.handle(unix_now(), &mut self.held, &self.tls, &mut rand::rng());
                let mut out = Vec::new();
                handshake.poll_transmit(&mut out);
                self.tls.seal(&out)?;
                let (used, established) = result?;
                self.held.drain(..used);
                self.flush().await?;
                if let Some(established) = established {
                    return Ok(established);
                }
                self.receive(Step::Handshake).await?;
            }
        })
        .await
    }

    /// Reads what the socket has, at most once, into `held`; returns whether there may be more. `step` is what ends if the peer
    /// closes.
    pub fn try_read(&mut self, step: Step) -> Result<bool, LinkFailure> {
        let len = match self.socket.try_read(&mut self.ciphertext) {
            Ok(0) => return Err(LinkFailure::PeerClosed(step)),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if let Err(error) = self.tls.open(&self.ciphertext[..len], &mut self.held) {
            // Ours is the alert that says so; if the socket does not take it, the peer sees the end all the same.
            let _ = self.try_write();
            return Err(error.into());
        }
        if self.tls.peer_has_closed() {
            Err(LinkFailure::PeerClosed(step))
        } else {
            Ok(len == self.ciphertext.len())
        }
    }

    /// Hands ciphertext to the socket; returns whether it took all.
    pub fn try_write(&mut self) -> Result<bool, LinkFailure> {
        while self.tls.wants_transmit() {
            match self.tls.transmit(&mut TryWrite(&self.socket)) {
                Ok(len) => self.taken += len as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Closes in order, if the peer lets us within `limit`.
    pub async fn close(mut self, limit: Duration) {
        self.tls.close();
        // The connection ends either way.
        let _ = timeout(limit, self.flush()).await;
    }

    pub async fn receive(&mut self, step: Step) -> Result<(), LinkFailure> {
        self.socket.readable().await?;
        self.try_read(step).map(drop)
    }

    pub async fn flush(&mut self) -> Result<(), LinkFailure> {
        while !self.try_write()? {
            self.socket.ready(Interest::WRITABLE).await?;
        }
        Ok(())
    }
}

/// The socket as the TLS session writes to it.
struct TryWrite<'a>(&'a TcpStream);

impl io::Write for TryWrite<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bounds the time of a step.
pub(super) async fn within<T>(
    step: Step,
    limit: Duration,
    work: impl Future<Output = Result<T, LinkFailure>>,
) -> Result<T, LinkFailure> {
    timeout(limit, work).await.unwrap_or(Err(LinkFailure::Timeout { step, limit }))
}

fn unix_now() -> Unix {
    Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}
