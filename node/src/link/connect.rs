//! Links that we open: dialing a relay, and the probe whether it can be reached.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use onionring_proto::cell::LinkVersion;
use onionring_proto::link::{Established, ExpectedPeer, Handshake, LinkIdentity, LinkParams};
use thiserror::Error;
use tokio::net::TcpStream;

use super::connection::{Connection, Times, within};
use super::error::{LinkFailure, Step};
use super::responder::Service;
use super::shared::Link;
use crate::limits;
use crate::tls::Connector;

/// Why a relay could not be reached.
#[derive(Debug, Error)]
#[error("link to {address}: {failure}")]
pub struct ConnectError {
    /// Its address.
    pub address: SocketAddr,
    /// What failed.
    #[source]
    pub failure: LinkFailure,
}

/// What links are opened with. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    /// The TLS side.
    pub connector: Connector,
    /// The relay that we say we are; `None` for a client.
    pub identity: Option<Arc<LinkIdentity>>,
    /// Our own addresses, which only a relay tells.
    pub own_addresses: Vec<IpAddr>,
    /// What circuits are answered with that the peer builds to us, which relays may do on a link on which we have said
    /// who we are; `None` for a client.
    pub service: Option<Arc<Service>>,
    /// How long each step may take.
    pub times: Times,
}

impl Dialer {
    /// Opens a link to the relay at `address`, which must prove to be `expected`.
    pub async fn connect(&self, address: SocketAddr, expected: ExpectedPeer) -> Result<Link, ConnectError> {
        let (connection, established) = self.open(address, expected).await?;
        Ok(Link::start(connection, established, self.service.clone()))
    }

    /// Whether the relay at `address` can be reached: completes TLS and the link handshake, in which it must prove to
    /// be `expected`, and closes the connection in order. This is the reachability test of an authority.
    pub async fn probe(
        &self,
        address: SocketAddr,
        expected: ExpectedPeer,
    ) -> Result<Established, ConnectError> {
        let (connection, established) = self.open(address, expected).await?;
        connection.close(limits::LINK_CLOSE).await;
        Ok(established)
    }

    async fn open(
        &self,
        address: SocketAddr,
        expected: ExpectedPeer,
    ) -> Result<(Connection, Established), ConnectError> {
        self.try_open(address, expected).await.map_err(|failure| ConnectError { address, failure })
    }

    async fn try_open(
        &self,
        address: SocketAddr,
        expected: ExpectedPeer,
    ) -> Result<(Connection, Established), LinkFailure> {
        let dialed = async { Ok(TcpStream::connect(address).await?) };
        let socket = within(Step::Dial, self.times.dial, dialed).await?;
        let tls = self.connector.connect(&mut rand::rng())?;
        let mut connection = Connection::new(socket, tls)?;
        connection.open_tls(self.times.tls).await?;

        // A TLS server without certificate is none that TLS lets through; an empty one matches no CERTS.
        let leaf = connection.tls.peer_certificate().unwrap_or_default();
        let params = LinkParams {
            versions: LinkVersion::ALL.to_vec(),
            peer_address: connection.peer_address,
            own_addresses: self.own_addresses.clone(),
        };
        let handshake = Handshake::initiator(self.identity.clone(), expected, leaf, params);
        let established = connection.open_link(handshake, self.times.handshake).await?;
        Ok((connection, established))
    }
}
