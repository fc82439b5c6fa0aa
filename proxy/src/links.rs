//! Links to relays, shared by all circuits that begin there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onionring_node::link::{ConnectError, Dialer, Link, Times};
use onionring_node::tls::{Connector, TlsError, TlsVersions};
use onionring_proto::link::ExpectedPeer;
use onionring_proto::origin::HopTarget;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits;
use crate::network::Families;

/// A relay that circuits may begin at: where it is, and who it must prove to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its ORPort.
    pub address: SocketAddr,
    /// SHA-1 of its RSA identity key.
    pub rsa_id: [u8; 20],
    /// Its Ed25519 identity, if it is known.
    pub ed_id: Option<[u8; 32]>,
}

impl Place {
    /// The place of a relay that the directory lists; `None` if it has no address of a family that is dialed.
    pub fn of(target: &HopTarget, dial: Families) -> Option<Place> {
        let specs = &target.specs;
        let address = dial.choose(specs.ipv4.map(SocketAddr::V4), specs.ipv6.map(SocketAddr::V6))?;
        Some(Place { address, rsa_id: specs.rsa_id, ed_id: specs.ed_id })
    }
}

/// How a link that is being opened stands; `None` while it is.
type Outcome = Option<Result<Arc<Link>, Arc<ConnectError>>>;

/// The links of the program.
pub struct Links {
    dialer: Dialer,
    table: Mutex<HashMap<[u8; 20], Entry>>,
}

struct Entry {
    place: Place,
    outcome: watch::Receiver<Outcome>,
    /// When it was last seen to carry a circuit.
    used: Instant,
}

impl Entry {
    /// Whether the next circuit can still use it: it is open, or being opened.
    fn is_usable(&self) -> bool {
        match &*self.outcome.borrow() {
            None => self.outcome.has_changed().is_ok(),
            Some(Ok(link)) => link.failure().is_none(),
            Some(Err(_)) => false,
        }
    }
}

impl Links {
    /// No links yet.
    pub fn new() -> Result<Links, TlsError> {
        let times =
            Times { dial: limits::DIAL_TIME, tls: limits::HANDSHAKE_TIME, handshake: limits::HANDSHAKE_TIME };
        let connector = Connector::new(TlsVersions::Both)?;
        let dialer = Dialer { connector, identity: None, own_addresses: Vec::new(), service: None, times };
        Ok(Links { dialer, table: Mutex::default() })
    }

    /// A link to the relay: one that is open, or a new one. Those who ask while it is being opened get the same.
    pub async fn get(&self, place: &Place) -> Result<Arc<Link>, Arc<ConnectError>> {
        let mut outcome = self.entry(place);
        let found = outcome.wait_for(Option::is_some).await;
        match found.as_deref() {
            Ok(Some(Ok(link))) => Ok(link.clone()),
            Ok(Some(Err(error))) => Err(error.clone()),
            // The task that opens it always says how that went, unless the program ends.
            Ok(None) | Err(_) => Err(Arc::new(ConnectError {
                address: place.address,
                failure: onionring_node::link::LinkFailure::Closed,
            })),
        }
    }

    fn entry(&self, place: &Place) -> watch::Receiver<Outcome> {
        let mut table = self.table();
        if let Some(entry) = table.get_mut(&place.rsa_id).filter(|e| e.place == *place && e.is_usable()) {
            entry.used = Instant::now();
            return entry.outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        let (dialer, to) = (self.dialer.clone(), place.clone());
        tokio::spawn(async move {
            let expected = ExpectedPeer { rsa_id: Some(to.rsa_id), ed_id: to.ed_id };
            let result = dialer.connect(to.address, expected).await;
            // Without a receiver nobody waits for it any more.
            let _ = sender.send(Some(result.map(Arc::new).map_err(Arc::new)));
        });
        let entry = Entry { place: place.clone(), outcome: outcome.clone(), used: Instant::now() };
        table.insert(place.rsa_id, entry);
        outcome
    }

    /// A link on which no relay answers is used no more; true for whoever says so first.
    pub fn give_up(&self, place: &Place, link: &Arc<Link>) -> bool {
        let mut table = self.table();
        let is_it =
            |entry: &Entry| matches!(&*entry.outcome.borrow(), Some(Ok(open)) if Arc::ptr_eq(open, link));
        let found = table.get(&place.rsa_id).is_some_and(is_it);
        if found {
            table.remove(&place.rsa_id);
        }
        found
    }

    /// Lets go of links that are gone, or have carried nothing for long.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.table().retain(|_, entry| {
            let outcome = entry.outcome.borrow().clone();
            if let Some(Ok(link)) = outcome
                && link.circuits() > 0
            {
                entry.used = now;
            }
            entry.is_usable() && now.duration_since(entry.used) < limits::LINK_IDLE
        });
    }

    /// Number of links that are open or being opened.
    pub fn len(&self) -> usize {
        self.table().values().filter(|entry| entry.is_usable()).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A panic elsewhere leaves the table as consistent as every other moment does.
    fn table(&self) -> MutexGuard<'_, HashMap<[u8; 20], Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
