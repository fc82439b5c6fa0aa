//! One side of a link, cell by cell.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use onionring_proto::cell::{Body, CircId, Command, Frame, Framing, LinkVersion, next_frame};
use onionring_proto::link::{Established, Handshake, LinkParams};
use tokio::net::{TcpSocket, TcpStream};

use super::keys::LEAF;
use super::{is_dialed_from, now};
use crate::link::connection::Connection;
use crate::link::error::{LinkFailure, Step};
use crate::tls::{Connector, TlsVersions};

/// Longer than any test: who waits for somebody else leaves when that one does.
const PATIENCE: Duration = Duration::from_secs(600);

/// A connection with TLS, and with a link on it once that is open.
pub(super) struct Wire {
    connection: Connection,
    established: Option<Established>,
}

impl Wire {
    /// Answers the TLS handshake.
    pub async fn accept(socket: TcpStream) -> Result<Wire, LinkFailure> {
        let mut connection = Connection::new(socket, LEAF.1.accept()?)?;
        connection.open_tls(PATIENCE).await?;
        Ok(Wire { connection, established: None })
    }

    /// Connects, with TLS.
    pub async fn dial(from: IpAddr, to: SocketAddr) -> Result<Wire, LinkFailure> {
        let socket = dial(from, to).await?;
        let tls = Connector::new(TlsVersions::Both)?.connect(&mut rand::rng())?;
        let mut connection = Connection::new(socket, tls)?;
        connection.open_tls(PATIENCE).await?;
        Ok(Wire { connection, established: None })
    }

    /// The certificate that the other side showed.
    pub fn peer_certificate(&self) -> &[u8] {
        self.connection.tls.peer_certificate().unwrap_or_default()
    }

    /// Makes the link handshake. Of what it sends, `edit` makes what is really sent.
    pub async fn open(
        &mut self,
        mut handshake: Handshake,
        edit: impl Fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>,
    ) -> Result<(), LinkFailure> {
        let mut read = Ok(());
        loop {
            let Connection { held, tls, .. } = &mut self.connection;
            let result = handshake.handle(now(), held, tls, &mut rand::rng());
            let mut out = Vec::new();
            handshake.poll_transmit(&mut out);
            if !out.is_empty() {
                tls.seal(&edit(split(out)).concat())?;
            }
            let (used, established) = result?;
            self.connection.held.drain(..used);
            self.connection.flush().await?;
            if established.is_some() {
                self.established = established;
                return Ok(());
            }
            // The last cells may come with the end.
            read?;
            read = self.receive().await;
        }
    }

    /// The open link.
    ///
    /// # Panics
    /// Before it is.
    pub fn established(&self) -> &Established {
        self.established.as_ref().expect("the link is open")
    }

    pub fn version(&self) -> LinkVersion {
        self.established().version
    }

    pub async fn receive(&mut self) -> Result<(), LinkFailure> {
        self.connection.receive(Step::Open).await
    }

    /// Sends bytes, and waits until they are out.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), LinkFailure> {
        if !bytes.is_empty() {
            self.connection.tls.seal(bytes)?;
        }
        self.connection.flush().await
    }

    /// Reads until the other side closes.
    pub async fn drain(&mut self) -> Result<(), LinkFailure> {
        loop {
            self.receive().await?;
            self.connection.held.clear();
        }
    }

    /// A cell that has come, if there is one.
    pub fn cell(&mut self) -> Result<Option<(CircId, Command, Body)>, LinkFailure> {
        let version = self.version().into();
        while let Some((len, frame)) = next_frame(version, &mut self.connection.held)? {
            let cell = match frame {
                Frame::Fixed { circ_id, command, body } => Some((circ_id, command, *body)),
                Frame::Variable { .. } => None,
            };
            self.connection.held.drain(..len);
            if cell.is_some() {
                return Ok(cell);
            }
        }
        Ok(None)
    }
}

/// Connects from this address, if one can from there.
pub(super) async fn dial(from: IpAddr, to: SocketAddr) -> Result<TcpStream, LinkFailure> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if is_dialed_from(from, to) {
        socket.bind((from, 0).into())?;
    }
    Ok(socket.connect(to).await?)
}

/// Link parameters of a relay whose peer is there.
pub(super) fn params(peer_address: IpAddr) -> LinkParams {
    LinkParams { versions: LinkVersion::ALL.to_vec(), peer_address, own_addresses: Vec::new() }
}

/// What one side of a handshake says, cut into its cells. Both sides know all versions, so it goes on in the newest.
fn split(mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let mut cells = Vec::new();
    let mut framing = match bytes.get(..3) {
        Some([0, 0, command]) if *command == Command::VERSIONS.0 => Framing::Initial,
        _ => Framing::Negotiated(LinkVersion::V5),
    };
    while let Ok(Some((len, _))) = next_frame(framing, &mut bytes) {
        cells.push(bytes.drain(..len).collect());
        framing = Framing::Negotiated(LinkVersion::V5);
    }
    cells
}
