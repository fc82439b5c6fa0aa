//! Links that others open to us.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use onionring_proto::cell::LinkVersion;
use onionring_proto::link::{Handshake, LinkIdentity, LinkParams};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::connection::{Connection, Times};
use super::error::LinkFailure;
use super::responder::Service;
use super::shared::Link;
use crate::tls::Acceptor;

/// Who we are to those who connect. The identity must have been made for the certificate of the acceptor.
pub struct Side {
    /// The TLS side.
    pub acceptor: Acceptor,
    /// Our identity.
    pub identity: Arc<LinkIdentity>,
    /// Our own addresses.
    pub own_addresses: Vec<IpAddr>,
    /// What circuits are answered with; without it none can be built to us.
    pub service: Option<Arc<Service>>,
}

/// Makes links of accepted connections, only so many at a time: a handshake costs its initiator less than us.
pub struct LinkAcceptor {
    side: Mutex<Arc<Side>>,
    handshakes: Semaphore,
    most: usize,
    times: Times,
}

impl LinkAcceptor {
    /// Has at most `most` handshakes under way.
    pub fn new(side: Side, most: usize, times: Times) -> LinkAcceptor {
        let side = Mutex::new(Arc::new(side));
        LinkAcceptor { side, handshakes: Semaphore::new(most), most, times }
    }

    /// Shows another certificate and identity from now on.
    pub fn replace(&self, side: Side) {
        *self.side.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(side);
    }

    /// Makes a link of a connection that has just been accepted. When too many are at this, it is closed at once.
    pub async fn accept(&self, socket: TcpStream) -> Result<Link, LinkFailure> {
        let _permit = self.handshakes.try_acquire().map_err(|_| LinkFailure::Crowded(self.most))?;
        let side = self.side.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection = Connection::new(socket, side.acceptor.accept()?)?;
        connection.open_tls(self.times.tls).await?;
        let params = LinkParams {
            versions: LinkVersion::ALL.to_vec(),
            peer_address: connection.peer_address,
            own_addresses: side.own_addresses.clone(),
        };
        let handshake = Handshake::responder(side.identity.clone(), params);
        let established = connection.open_link(handshake, self.times.handshake).await?;
        Ok(Link::start(connection, established, side.service.clone()))
    }
}
