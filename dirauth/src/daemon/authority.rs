//! What all parts of the running authority share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use onionring_node::directory::spool::Blob;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use tokio::sync::Notify;

use super::press::Press;
use super::session::Session;
use super::tallies::Tallies;
use crate::approval::Approvals;
use crate::bandwidth_file::Measurements;
use crate::config::Config;
use crate::directory::Directory;
use crate::keys::AuthorityKeys;
use crate::opinion::{BandwidthSource, Us};
use crate::peers::Peer;
use crate::reach::Reached;
use crate::stability::Stability;

/// When a relay was last reached, from whoever looks.
pub type ReachedBy = Arc<dyn Fn(&Fingerprint) -> Reached + Send + Sync>;

/// A running authority.
pub struct Authority {
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// Who we are, with the certificate in force.
    pub us: ArcSwap<Us>,
    /// What we sign with.
    pub keys: ArcSwap<AuthorityKeys>,
    /// What the administrator decided.
    pub approvals: ArcSwap<Approvals>,
    /// The other authorities.
    pub peers: Vec<Peer>,
    /// What is served, and uploads.
    pub directory: Arc<Directory>,
    /// Consensuses.
    pub press: Press,
    /// Voting.
    pub session: Arc<Session>,
    /// What is known of relays' past.
    pub stability: Arc<Mutex<Stability>>,
    /// Measured bandwidths.
    pub bandwidths: Mutex<Bandwidths>,
    /// When relays were reached.
    pub reached: ReachedBy,
    /// Descriptors of others that were refused, and so are not asked for again.
    pub refused: Mutex<BTreeSet<Fingerprint>>,
    /// Rung when there may be a consensus to be had from others.
    pub behind: Notify,
    /// When the operator was told last that the certificate ends soon.
    pub warned_of_expiry: Mutex<Option<Unix>>,
    /// Counters.
    pub tallies: Arc<Tallies>,
    /// When the program started.
    pub started: Unix,
}

/// What was measured, and the file that says so.
#[derive(Debug, Default)]
pub struct Bandwidths {
    /// By relay.
    pub measurements: Measurements,
    /// The file of the last vote.
    pub source: Option<BandwidthSource>,
    /// Its text.
    pub file: Option<Blob>,
}

impl Authority {
    /// The peer with this v3 identity.
    pub fn peer(&self, identity: &Fingerprint) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.v3_ident == *identity)
    }

    /// The relays' past.
    pub fn stability(&self) -> MutexGuard<'_, Stability> {
        lock(&self.stability)
    }
}

/// The lock: whoever panicked under it has left something that is no worse than old.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
