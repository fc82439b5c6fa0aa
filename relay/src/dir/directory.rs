//! What the control side has found out about the network, for everyone: swapped whole, read without waiting.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use onionring_proto::netdoc::consensus::{Consensus, Flavor};
use onionring_proto::netdoc::microdesc::{Microdesc, MicrodescDigest};

use super::snapshot::{DirSnapshot, OwnDocs, StoredConsensus};
use super::spool::Blob;
use crate::engine::snapshot::{KnownRelay, KnownRelays};

/// The directory as the rest of the relay sees it.
#[derive(Debug, Default)]
pub struct Directory {
    documents: ArcSwap<DirSnapshot>,
    network: ArcSwapOption<NetworkView>,
}

/// The network according to the newest consensus.
#[derive(Clone, Debug)]
pub struct NetworkView {
    /// The consensus, of the flavour that names microdescriptors.
    pub consensus: Arc<Consensus>,
    /// The microdescriptors it names, as far as they are here.
    pub microdescs: BTreeMap<MicrodescDigest, Arc<Microdesc>>,
    /// Its relays, in the form in which circuits need them.
    pub relays: Arc<KnownRelays>,
}

impl NetworkView {
    /// Puts together a consensus and its microdescriptors.
    pub fn new(consensus: Arc<Consensus>, microdescs: BTreeMap<MicrodescDigest, Arc<Microdesc>>) -> Self {
        let known = consensus.relays.iter().map(|relay| {
            let microdesc = relay.microdesc().and_then(|digest| microdescs.get(digest));
            let addresses: Vec<SocketAddr> =
                [Some(relay.or_addr()), relay.or_addr_v6()].into_iter().flatten().collect();
            (relay.identity.0, KnownRelay { ed_id: microdesc.and_then(|m| m.ed_identity), addresses })
        });
        let relays = Arc::new(known.collect());
        NetworkView { consensus, microdescs, relays }
    }
}

impl Directory {
    /// A directory that knows nothing yet; `front_page` is shown to people who look (`DirPortFrontPage`).
    pub fn new(front_page: Option<Blob>) -> Self {
        let documents = ArcSwap::from_pointee(DirSnapshot { front_page, ..DirSnapshot::default() });
        Directory { documents, network: ArcSwapOption::empty() }
    }

    /// The documents to serve.
    pub fn documents(&self) -> Arc<DirSnapshot> {
        self.documents.load_full()
    }

    /// The network, once there is a consensus.
    pub fn network(&self) -> Option<Arc<NetworkView>> {
        self.network.load_full()
    }

    /// Serves other documents from now on; what this relay says of itself and the front page stay.
    pub fn set_documents(&self, documents: DirSnapshot) {
        self.documents.rcu(|old| DirSnapshot {
            own: old.own.clone(),
            front_page: old.front_page.clone(),
            ..documents.clone()
        });
    }

    /// Shows another page to people who look from now on.
    pub fn set_front_page(&self, front_page: Option<Blob>) {
        self.documents.rcu(|old| DirSnapshot { front_page: front_page.clone(), ..DirSnapshot::clone(old) });
    }

    /// Serves another form of a consensus from now on, such as one with more diffs.
    pub fn set_consensus(&self, flavor: Flavor, consensus: Arc<StoredConsensus>) {
        self.documents.rcu(|old| {
            let mut documents = DirSnapshot::clone(old);
            *documents.consensus_mut(flavor) = Some(consensus.clone());
            documents
        });
    }

    /// Serves another descriptor of this relay from now on.
    pub fn set_own(&self, own: OwnDocs) {
        self.documents.rcu(|old| DirSnapshot { own: Some(own.clone()), ..DirSnapshot::clone(old) });
    }

    /// Knows another network from now on.
    pub fn set_network(&self, network: NetworkView) {
        self.network.store(Some(Arc::new(network)));
    }
}
