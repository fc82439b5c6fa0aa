//! Circuits of the relay's own, as a client builds them: for the test whether others reach this relay, and for
//! directory requests to servers without a DirPort.
//!
//! One connection carries one circuit and one request at a time, so one task drives it from top to bottom: what it
//! waits for is always the next cell.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;
use glommio::timer::timeout;
use onionring_node::tls::{Connector, TlsError, TlsStream};
use onionring_proto::cell::{CircId, Frame, FrameError, LinkVersion, next_frame, write_fixed};
use onionring_proto::limits::CIRC_ID_TRIES;
use onionring_proto::link::{
    CircIdError, Established, ExpectedPeer, Handshake, LinkError, LinkParams, Verdict, judge,
};
use onionring_proto::origin::{
    CloseReason, Event, FirstHop, HopTarget, OriginCircuit, OriginConfig, OriginError, StreamKey,
};
use onionring_proto::relay_msg::EndReason;
use onionring_proto::time::{Mono, Unix};
use rand_chacha::ChaCha20Rng;
use thiserror::Error;

use crate::io::net::{self, OutboundAddresses};
use crate::limits;

/// Why a circuit could not be built or used.
#[derive(Debug, Error)]
pub enum OwnCircuitError {
    /// The connection failed.
    #[error("connection failed: {0}")]
    Connection(#[from] io::Error),
    /// The TLS session failed.
    #[error("TLS failed: {0}")]
    Tls(#[from] TlsError),
    /// The link handshake failed, or the relay broke the link protocol.
    #[error("link failed: {0}")]
    Link(#[from] LinkError),
    /// The relay sent what is no cell.
    #[error("link failed: {0}")]
    Frame(#[from] FrameError),
    /// No circuit id could be drawn.
    #[error(transparent)]
    CircId(#[from] CircIdError),
    /// The circuit cannot do what is asked.
    #[error("circuit: {0}")]
    Origin(#[from] OriginError),
    /// The circuit was closed.
    #[error("circuit closed: {0}")]
    Closed(#[from] CloseReason),
    /// The directory stream was ended early.
    #[error("directory stream ended with {0:?}")]
    Ended(EndReason),
    /// The answer is longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// A circuit of this relay's own, on a connection of its own.
pub struct OwnCircuit {
    socket: TcpStream,
    tls: TlsStream,
    version: LinkVersion,
    circ_id: CircId,
    circuit: OriginCircuit,
    /// Bytes out of TLS that are not a whole cell yet.
    held: Vec<u8>,
    ciphertext: Box<[u8]>,
    rng: ChaCha20Rng,
    origin: Instant,
}

/// What connections are made with.
#[derive(Clone)]
pub struct Dialer {
    /// The TLS side.
    pub connector: Connector,
    /// Where connections come from.
    pub outbound: OutboundAddresses,
}

impl OwnCircuit {
    /// Connects to a relay as a client does, and makes it the first hop.
    pub async fn connect(
        dialer: &Dialer,
        address: SocketAddr,
        expected: ExpectedPeer,
        first: FirstHop<'_>,
        mut rng: ChaCha20Rng,
    ) -> Result<OwnCircuit, OwnCircuitError> {
        within(limits::OWN_CIRCUIT_STEP, async {
            let mut socket = net::connect(address, &dialer.outbound).await?;
            let mut tls = dialer.connector.connect(&mut rng)?;
            let mut ciphertext = vec![0; limits::OWN_CIRCUIT_READ].into_boxed_slice();
            let mut held = Vec::new();
            flush(&mut socket, &mut tls).await?;
            while tls.is_handshaking() {
                receive(&mut socket, &mut tls, &mut ciphertext, &mut held).await?;
                flush(&mut socket, &mut tls).await?;
            }
            let leaf = tls.peer_certificate().unwrap_or_default().to_vec();
            let params = LinkParams {
                versions: LinkVersion::ALL.to_vec(),
                peer_address: address.ip(),
                own_addresses: Vec::new(),
            };
            let mut handshake = Handshake::initiator(None, expected, &leaf, params);
            let established =
                open_link(&mut handshake, &mut socket, &mut tls, &mut ciphertext, &mut held, &mut rng)
                    .await?;
            let circ_id = established.circ_ids.allocate(CIRC_ID_TRIES, &mut rng, |_| true)?;
            let mut own = OwnCircuit {
                socket,
                tls,
                version: established.version,
                circ_id,
                circuit: OriginCircuit::new(OriginConfig::default()),
                held,
                ciphertext,
                rng,
                origin: Instant::now(),
            };
            own.circuit.create(own.now(), &mut own.rng, first)?;
            own.until(|event| matches!(event, Event::Extended { .. })).await?;
            Ok(own)
        })
        .await
    }

    /// Adds a hop.
    pub async fn extend(&mut self, target: &HopTarget) -> Result<(), OwnCircuitError> {
        within(limits::OWN_CIRCUIT_STEP, async {
            self.circuit.extend(self.now(), &mut self.rng, target)?;
            self.until(|event| matches!(event, Event::Extended { .. })).await
        })
        .await
    }

    /// Sends an HTTP request to the directory of the last hop, and reads the answer, of at most `limit` bytes, until
    /// the relay ends the stream.
    pub async fn directory_request(
        &mut self,
        request: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, OwnCircuitError> {
        within(limits::OWN_CIRCUIT_REQUEST, async {
            let last = self.circuit.hops().saturating_sub(1);
            let stream = self.circuit.begin_dir(&mut self.rng, last)?;
            let mut unsent = request;
            let mut answer = Vec::new();
            loop {
                unsent = &unsent[self.circuit.write_stream(stream, unsent)..];
                self.flush().await?;
                let ended = loop {
                    match self.circuit.poll_event() {
                        Some(Event::Ended { stream: ended, end }) if ended == stream => {
                            break Some(end.reason);
                        }
                        Some(Event::Closed(reason)) => return Err(reason.into()),
                        Some(Event::Readable(_)) => self.read_stream(stream, &mut answer, limit)?,
                        Some(_) => {}
                        None => break None,
                    }
                };
                match ended {
                    Some(EndReason::Done) => return Ok(answer),
                    Some(reason) => return Err(OwnCircuitError::Ended(reason)),
                    None => self.receive().await?,
                }
            }
        })
        .await
    }

    fn read_stream(
        &mut self,
        stream: StreamKey,
        answer: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), OwnCircuitError> {
        loop {
            let data = self.circuit.readable(stream);
            if data.is_empty() {
                return Ok(());
            }
            if answer.len() + data.len() > limit {
                return Err(OwnCircuitError::TooLong(limit));
            }
            answer.extend_from_slice(data);
            let len = data.len();
            self.circuit.consume(stream, len);
        }
    }

    /// Takes the circuit down in order.
    pub async fn close(mut self) {
        self.circuit.close();
        // The relay notices the end of the connection just as well.
        let _ = within(limits::OWN_CIRCUIT_STEP, self.flush()).await;
    }

    fn now(&self) -> Mono {
        Mono(self.origin.elapsed().as_micros() as u64)
    }

    /// Sends and receives until an event that is `wanted`, or the end of the circuit.
    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Result<(), OwnCircuitError> {
        loop {
            self.flush().await?;
            while let Some(event) = self.circuit.poll_event() {
                match event {
                    Event::Closed(reason) => return Err(reason.into()),
                    event if wanted(&event) => return Ok(()),
                    _ => {}
                }
            }
            self.receive().await?;
        }
    }

    /// Sends what the circuit has to send.
    async fn flush(&mut self) -> Result<(), OwnCircuitError> {
        let mut cells = Vec::new();
        while let Some((command, body)) = self.circuit.poll_transmit(&mut self.rng) {
            write_fixed(self.version, self.circ_id, command, &body, &mut cells);
        }
        self.tls.seal(&cells)?;
        flush(&mut self.socket, &mut self.tls).await
    }

    /// Receives bytes, and hands the circuit its cells.
    async fn receive(&mut self) -> Result<(), OwnCircuitError> {
        receive(&mut self.socket, &mut self.tls, &mut self.ciphertext, &mut self.held).await?;
        let now = self.now();
        let mut used = 0;
        while let Some((len, frame)) = next_frame(self.version.into(), &mut self.held[used..])? {
            used += len;
            if judge(self.version, &frame)? == Verdict::Circuit
                && frame.circ_id() == self.circ_id
                && let Frame::Fixed { command, body, .. } = frame
            {
                self.circuit.handle_cell(now, command, body);
            }
        }
        self.held.drain(..used);
        Ok(())
    }
}

async fn open_link(
    handshake: &mut Handshake,
    socket: &mut TcpStream,
    tls: &mut TlsStream,
    ciphertext: &mut [u8],
    held: &mut Vec<u8>,
    rng: &mut ChaCha20Rng,
) -> Result<Established, OwnCircuitError> {
    loop {
        let (used, established) = handshake.handle(unix_now(), held, &*tls, rng)?;
        held.drain(..used);
        let mut out = Vec::new();
        handshake.poll_transmit(&mut out);
        tls.seal(&out)?;
        flush(socket, tls).await?;
        if let Some(established) = established {
            return Ok(established);
        }
        receive(socket, tls, ciphertext, held).await?;
    }
}

/// Reads once from the connection, and appends what TLS makes of it to `plaintext`.
async fn receive(
    socket: &mut TcpStream,
    tls: &mut TlsStream,
    ciphertext: &mut [u8],
    plaintext: &mut Vec<u8>,
) -> Result<(), OwnCircuitError> {
    let len = socket.read(ciphertext).await?;
    if len == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(tls.open(&ciphertext[..len], plaintext)?)
}

/// Sends all ciphertext that there is.
async fn flush(socket: &mut TcpStream, tls: &mut TlsStream) -> Result<(), OwnCircuitError> {
    let mut out = Vec::new();
    while tls.wants_transmit() {
        tls.transmit(&mut out)?;
    }
    Ok(socket.write_all(&out).await?)
}

fn unix_now() -> Unix {
    Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// Bounds the time of a step.
async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, OwnCircuitError>>,
) -> Result<T, OwnCircuitError> {
    match timeout(limit, async { Ok(step.await) }).await {
        Ok(result) => result,
        Err::<_, glommio::GlommioError<()>>(_) => Err(OwnCircuitError::Timeout(limit)),
    }
}
