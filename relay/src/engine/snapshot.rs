//! What the control side decided and every shard obeys: immutable, and swapped whole.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use onionring_proto::cell::LinkVersion;
use onionring_proto::handshake::{OnionKeyRing, ServerIdentity, Terms};
use onionring_proto::link::{LinkIdentity, PaddingParams, PeerIdentity};

use super::dos::{Clients, DosLimits};
use super::link::LinkFacts;
use super::rate::Rates;
use crate::limits;

/// Keys, parameters and knowledge of the network.
pub struct Snapshot {
    /// Who we are, for circuit handshakes.
    pub identity: ServerIdentity,
    /// Onion keys: the current one and, during its grace period, the one before.
    pub onion_keys: OnionKeyRing,
    /// What we prove on links.
    pub link_identity: Arc<LinkIdentity>,
    /// Link protocols that we offer.
    pub link_versions: Vec<LinkVersion>,
    /// Our own addresses, for NETINFO: IPv4, then IPv6.
    pub own_addresses: Vec<IpAddr>,
    /// The relays of the consensus.
    pub relays: Arc<KnownRelays>,
    /// Parameters of the network and of the operator.
    pub params: CircuitParams,
    /// Bandwidth limits, with what is left of them.
    pub rates: Arc<Rates>,
    /// What a single client may do.
    pub dos: DosLimits,
    /// Those of which that is counted.
    pub clients: Arc<Clients>,
}

impl Snapshot {
    /// Whether the peer of a link is a relay of the consensus; before there is one, every relay is taken for that.
    pub fn is_listed(&self, facts: &LinkFacts) -> bool {
        let listed = |peer: &PeerIdentity| self.relays.is_empty() || self.relays.get(&peer.rsa_id).is_some();
        facts.peer.as_ref().is_some_and(listed)
    }
}

/// What bounds and permits circuits.
#[derive(Clone, Debug)]
pub struct CircuitParams {
    /// Cells of one circuit that may wait on the link towards the client, and on the one away from it
    /// (`circ_max_cell_queue_size`, `circ_max_cell_queue_size_out`).
    pub cells_per_circuit: [usize; 2],
    /// Cells of one circuit waiting on the link towards the client at which its streams are no longer read (`cellq_high`).
    pub cells_high: usize,
    /// Cells left at which they are read again (`cellq_low`).
    pub cells_low: usize,
    /// Half-life of the activity by which links choose whom to serve (`CircuitPriorityHalflifeMsec`); holds for links
    /// that open from now on.
    pub priority_half_life: Duration,
    /// Time that a CREATE cell may wait for its turn (`onion_queue_wait_cutoff`).
    pub create_wait: Duration,
    /// Whether EXTEND2 is obeyed outside RELAY_EARLY as well (`AllowNonearlyExtend`).
    pub allow_nonearly_extend: bool,
    /// Time after which a canonical link with a relay is closed when it carries no circuit, a quarter more or less
    /// (`nf_conntimeout_relays`); holds for links that open from now on.
    pub idle_canonical_link: Duration,
    /// Whether links with relays are padded (`nf_pad_relays`); holds for links that open from now on.
    pub pad_relays: bool,
    /// Whether padding begins once a circuit is extended, and not only when it is used (`nf_pad_before_usage`).
    pub pad_before_usage: bool,
    /// Circuits that a relay may have on one link.
    pub circuits_per_link: usize,
    /// Circuits that a client may have on one link.
    pub circuits_per_client: usize,
    /// Circuits of one shard.
    pub circuits_per_shard: usize,
    /// Start of a circuit's sending window in cells (`circwindow`).
    pub circuit_window: u16,
    /// Whether SENDMEs without a tag are accepted (`sendme_accept_min_version` is 0).
    pub accept_sendme_v0: bool,
    /// Whether circuits may be extended to private addresses (`ExtendAllowPrivateAddresses`).
    pub extend_to_private: bool,
    /// Whether circuits may be extended to IPv6 addresses, because this relay has one.
    pub extend_to_ipv6: bool,
    /// Whether streams are only opened for circuits that come from a relay of the consensus (`refuseunknownexits`).
    pub refuse_unknown_exits: bool,
    /// What clients are granted that ask for it in their handshake (`HalfClosedStreams`); holds for circuits that are
    /// made from now on.
    pub offer: Terms,
    /// Bounds of link padding (`nf_ito_low`, `nf_ito_high`).
    pub padding: PaddingParams,
}

impl Default for CircuitParams {
    fn default() -> Self {
        CircuitParams {
            cells_per_circuit: [limits::CELLS_PER_CIRCUIT; 2],
            cells_high: limits::CELLS_HIGH,
            cells_low: limits::CELLS_LOW,
            priority_half_life: limits::CIRCUIT_PRIORITY_HALF_LIFE,
            create_wait: limits::CREATE_WAIT,
            allow_nonearly_extend: false,
            idle_canonical_link: limits::IDLE_CANONICAL_LINK,
            pad_relays: false,
            pad_before_usage: true,
            circuits_per_link: limits::CIRCUITS_PER_LINK,
            circuits_per_client: limits::CIRCUITS_PER_CLIENT,
            circuits_per_shard: limits::CIRCUITS_PER_SHARD,
            circuit_window: 1000,
            accept_sendme_v0: true,
            extend_to_private: false,
            extend_to_ipv6: false,
            refuse_unknown_exits: true,
            offer: Terms::default(),
            padding: PaddingParams { low_ms: 1500, high_ms: 9500 },
        }
    }
}

/// The relays of the consensus, as far as circuits need them.
#[derive(Clone, Debug, Default)]
pub struct KnownRelays {
    by_rsa_id: HashMap<[u8; 20], KnownRelay>,
}

/// One relay.
#[derive(Clone, Debug)]
pub struct KnownRelay {
    /// Its Ed25519 identity, if listed.
    pub ed_id: Option<[u8; 32]>,
    /// Its ORPorts: IPv4, then IPv6.
    pub addresses: Vec<SocketAddr>,
}

impl KnownRelays {
    /// What is known of a relay.
    pub fn get(&self, rsa_id: &[u8; 20]) -> Option<&KnownRelay> {
        self.by_rsa_id.get(rsa_id)
    }

    /// Whether no relay is known: there is no consensus yet.
    pub fn is_empty(&self) -> bool {
        self.by_rsa_id.is_empty()
    }
}

impl FromIterator<([u8; 20], KnownRelay)> for KnownRelays {
    fn from_iter<I: IntoIterator<Item = ([u8; 20], KnownRelay)>>(relays: I) -> Self {
        KnownRelays { by_rsa_id: relays.into_iter().collect() }
    }
}
