//! The ORPort: links of relays and clients, who ask for documents in BEGIN_DIR streams.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use onionring_node::identity::Identity;
use onionring_node::link::{Dialer, DirRequest, LinkAcceptor, Service, Side, Times};
use onionring_node::tls::{Connector, TlsError, TlsVersions};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::http::{self, Desk};
use crate::limits;

/// How long the steps of opening a link may take, as in C tor.
const TIMES: Times =
    Times { dial: Duration::from_secs(30), tls: Duration::from_secs(30), handshake: Duration::from_secs(60) };
/// Time between attempts to accept after one has failed, for lack of files as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What links are made with, in both directions.
pub struct Links {
    acceptor: LinkAcceptor,
    service: Arc<Service>,
    own_addresses: Vec<IpAddr>,
    connector: Connector,
    room: Arc<Semaphore>,
}

impl Links {
    /// Links of this identity. Requests on them go to `requests`; `open_files` is how many files the program may open.
    pub fn new(
        identity: &Identity,
        own_addresses: Vec<IpAddr>,
        requests: mpsc::Sender<DirRequest>,
        open_files: usize,
    ) -> Result<Links, TlsError> {
        let service = Arc::new(Service::new(identity.server(), identity.onion_keys.clone(), requests));
        let side = side(identity, &own_addresses, &service);
        Ok(Links {
            acceptor: LinkAcceptor::new(side, limits::LINK_HANDSHAKES, TIMES),
            service,
            own_addresses,
            connector: Connector::new(TlsVersions::Both)?,
            // The rest of the files that may be open is for the DirPort, other authorities and the disk.
            room: Arc::new(Semaphore::new(limits::LINKS.min(open_files / 2))),
        })
    }

    /// Shows other keys from now on.
    pub fn renew(&self, identity: &Identity) {
        self.service.replace_onion_keys(identity.onion_keys.clone());
        self.acceptor.replace(side(identity, &self.own_addresses, &self.service));
    }

    /// What links are opened with that say who we are.
    pub fn relay_dialer(&self, identity: &Identity) -> Dialer {
        Dialer {
            identity: Some(identity.link.clone()),
            own_addresses: self.own_addresses.clone(),
            service: Some(self.service.clone()),
            ..self.client_dialer()
        }
    }

    /// What links are opened with that do not.
    pub fn client_dialer(&self) -> Dialer {
        Dialer {
            connector: self.connector.clone(),
            identity: None,
            own_addresses: Vec::new(),
            service: None,
            times: TIMES,
        }
    }

    /// Links that others opened, those in their handshake included.
    pub fn open(&self) -> usize {
        limits::LINKS.saturating_sub(self.room.available_permits())
    }

    /// Takes links for ever.
    pub async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => self.clone().admit(socket),
                Err(error) => {
                    warn!(
                        "the ORPort takes no connections at the moment: {error}; see to the limit of open files"
                    );
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: Arc<Self>, socket: TcpStream) {
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            return debug!("too many links: one is closed unanswered");
        };
        tokio::spawn(async move {
            match self.acceptor.accept(socket).await {
                Ok(link) => {
                    // Those who want nothing for a while make room for others.
                    loop {
                        tokio::select! {
                            _ = link.closed() => break,
                            () = sleep(limits::LINK_IDLE) => if link.circuits() == 0 { break },
                        }
                    }
                }
                Err(error) => debug!("a link does not come about: {error}"),
            }
            drop(place);
        });
    }
}

fn side(identity: &Identity, own_addresses: &[IpAddr], service: &Arc<Service>) -> Side {
    Side {
        acceptor: identity.acceptor.clone(),
        identity: identity.link.clone(),
        own_addresses: own_addresses.to_vec(),
        service: Some(service.clone()),
    }
}

/// Answers requests for ever.
pub async fn answer(mut requests: mpsc::Receiver<DirRequest>, desk: Arc<Desk>) {
    while let Some(DirRequest { stream, peer, address }) = requests.recv().await {
        // Behind a relay there may be anybody.
        let client = peer.is_none().then_some(address);
        tokio::spawn(http::serve_stream(stream, client, desk.clone()));
    }
}
