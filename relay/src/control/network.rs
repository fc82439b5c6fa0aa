//! From what the directory says to what shards obey.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use onionring_proto::handshake::Terms;
use onionring_proto::link::PaddingParams;
use onionring_proto::netdoc::consensus::Consensus;
use onionring_proto::netdoc::params::{self, ConsensusParams, Param};
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::rate::Rate;

use super::describe::protocols;
use crate::config::{BandwidthConfig, DosConfig, FloodConfig};
use crate::dir::directory::NetworkView;
use crate::engine::dos::{CircuitLimits, ConnectionLimits, DosLimits, StreamDefence, StreamLimits};
use crate::engine::rate::RateLimits;
use crate::engine::snapshot::CircuitParams;
use crate::exit::dns;
use onionring_node::identity::OnionKeyLife;

/// What the operator says about circuits.
#[derive(Clone, Copy, Debug)]
pub struct CircuitOptions {
    /// `ExtendAllowPrivateAddresses`.
    pub extend_to_private: bool,
    /// Whether this relay has an IPv6 ORPort.
    pub ipv6: bool,
    /// `RefuseUnknownExits`, if it is not left to the consensus.
    pub refuse_unknown_exits: Option<bool>,
    /// Whether streams end by halves for clients that ask for it.
    pub half_close: bool,
}

/// What bounds and permits circuits, from consensus and configuration. Every parameter is clamped to its legal range.
pub fn circuit_params(network: &ConsensusParams, options: CircuitOptions) -> CircuitParams {
    let size = |value: i32| usize::try_from(value).unwrap_or(0);
    let number = |param| u64::try_from(network.get(param)).unwrap_or(0);
    let (low_ms, high_ms) = network.padding_interval_ms(false);
    CircuitParams {
        cells_per_circuit: [
            size(network.get(&params::CIRC_MAX_CELL_QUEUE_SIZE)),
            size(network.circ_max_cell_queue_size_out()),
        ],
        cells_high: size(network.get(&params::CELLQ_HIGH)),
        cells_low: size(network.get(&params::CELLQ_LOW)),
        priority_half_life: Duration::from_millis(number(&params::CIRCUIT_PRIORITY_HALFLIFE_MSEC)),
        create_wait: Duration::from_secs(number(&params::ONION_QUEUE_WAIT_CUTOFF)),
        allow_nonearly_extend: network.is_on(&params::ALLOW_NONEARLY_EXTEND),
        idle_canonical_link: Duration::from_secs(number(&params::NF_CONNTIMEOUT_RELAYS)),
        pad_relays: network.is_on(&params::NF_PAD_RELAYS),
        pad_before_usage: network.is_on(&params::NF_PAD_BEFORE_USAGE),
        circuit_window: network.get(&params::CIRCWINDOW) as u16,
        accept_sendme_v0: network.get(&params::SENDME_ACCEPT_MIN_VERSION) == 0,
        extend_to_private: options.extend_to_private,
        extend_to_ipv6: options.ipv6,
        refuse_unknown_exits: options
            .refuse_unknown_exits
            .unwrap_or_else(|| network.is_on(&params::REFUSE_UNKNOWN_EXITS)),
        offer: Terms { half_close: options.half_close },
        padding: PaddingParams { low_ms: low_ms as u32, high_ms: high_ms as u32 },
        ..CircuitParams::default()
    }
}

/// Bandwidth limits from consensus and configuration. Where neither says anything of a link with a peer that is no relay,
/// it has no limit of its own.
pub fn rate_limits(network: &ConsensusParams, config: &BandwidthConfig) -> RateLimits {
    let said = |param: &Param| network.raw(param.name).map(|_| u64::from(network.get(param).unsigned_abs()));
    let rate = config.per_link_rate.or_else(|| said(&params::PER_CONN_BW_RATE));
    let burst = config.per_link_burst.or_else(|| said(&params::PER_CONN_BW_BURST));
    let per_link = (rate.is_some() || burst.is_some()).then(|| Rate {
        per_second: rate.unwrap_or(config.all.per_second),
        burst: burst.unwrap_or(config.all.burst),
    });
    RateLimits { all: config.all, relayed: config.relayed, per_link, count_private: config.count_private }
}

/// What a single client may do, from configuration and, where that says nothing, from the consensus.
pub fn dos_limits(network: &ConsensusParams, config: &DosConfig) -> DosLimits {
    let number = |set: Option<u32>, param: &Param| set.unwrap_or(network.get(param).unsigned_abs());
    let seconds = |set: Option<Duration>, param: &Param| {
        set.unwrap_or(Duration::from_secs(network.get(param).unsigned_abs().into()))
    };
    let is_on = |set: Option<bool>, param: &Param| set.unwrap_or_else(|| network.is_on(param));
    let rate = |config: &FloodConfig, per_second: &Param, burst: &Param| Rate {
        per_second: number(config.rate, per_second).into(),
        burst: number(config.burst, burst).into(),
    };

    let connections = &config.connections;
    let connection_limits = ConnectionLimits {
        concurrent: number(config.concurrent_connections, &params::DOS_CONNECTION_MAX_CONCURRENT_COUNT),
        connects: rate(
            connections,
            &params::DOS_CONNECTION_CONNECT_RATE,
            &params::DOS_CONNECTION_CONNECT_BURST,
        ),
        refuse: number(connections.defence, &params::DOS_CONNECTION_DEFENSE_TYPE) == 2,
        period: seconds(connections.period, &params::DOS_CONNECTION_CONNECT_DEFENSE_TIME_PERIOD),
    };
    let circuits = &config.circuits;
    let circuit_limits = CircuitLimits {
        min_connections: number(config.min_connections, &params::DOS_CIRCUIT_CREATION_MIN_CONNECTIONS),
        creates: rate(circuits, &params::DOS_CIRCUIT_CREATION_RATE, &params::DOS_CIRCUIT_CREATION_BURST),
        max_outq: number(None, &params::DOS_NUM_CIRC_MAX_OUTQ),
        refuse: number(circuits.defence, &params::DOS_CIRCUIT_CREATION_DEFENSE_TYPE) == 2,
        period: seconds(circuits.period, &params::DOS_CIRCUIT_CREATION_DEFENSE_TIME_PERIOD),
    };
    let streams = &config.streams;
    let stream_limits = StreamLimits {
        opens: rate(streams, &params::DOS_STREAM_CREATION_RATE, &params::DOS_STREAM_CREATION_BURST),
        defence: match number(streams.defence, &params::DOS_STREAM_CREATION_DEFENSE_TYPE) {
            2 => StreamDefence::Refuse,
            3 => StreamDefence::CloseCircuit,
            _ => StreamDefence::Count,
        },
    };
    DosLimits {
        connections: is_on(connections.enabled, &params::DOS_CONNECTION_ENABLED).then_some(connection_limits),
        circuits: is_on(circuits.enabled, &params::DOS_CIRCUIT_CREATION_ENABLED).then_some(circuit_limits),
        streams: is_on(streams.enabled, &params::DOS_STREAM_CREATION_ENABLED).then_some(stream_limits),
    }
}

/// How exits ask name servers.
pub fn set_dns_options(options: &mut dns::Options, network: &ConsensusParams) {
    options.timeout = Duration::from_millis(network.get(&params::EXIT_DNS_TIMEOUT) as u64);
    // The parameter counts repeats in C tor's library, where none still means to ask.
    options.attempts = (network.get(&params::EXIT_DNS_NUM_ATTEMPTS) as u32).max(1);
}

/// How long onion keys live.
pub fn onion_key_life(network: &ConsensusParams) -> OnionKeyLife {
    let days = |days: i32| Duration::from_secs(days as u64 * 24 * 3600);
    OnionKeyLife {
        rotation: days(network.get(&params::ONION_KEY_ROTATION_DAYS)),
        grace: days(network.onion_key_grace_period_days()),
    }
}

/// Addresses of the network, to which no exit stream may lead; none if the consensus allows it.
pub fn closed_to_exits(network: &NetworkView) -> HashSet<SocketAddr> {
    let consensus = &network.consensus;
    if consensus.params.is_on(&params::ALLOW_NETWORK_REENTRY) {
        return HashSet::new();
    }
    let relays = consensus.relays.iter().flat_map(|relay| [Some(relay.or_addr()), relay.or_addr_v6()]);
    let authorities = consensus.voters.iter().flat_map(|voter| {
        [voter.or_port, voter.dir_port].map(|port| Some(SocketAddr::new(voter.address.into(), port)))
    });
    relays.chain(authorities).flatten().collect()
}

/// What the consensus requires of relays and this one lacks.
pub fn missing_protocols(consensus: &Consensus) -> Protocols {
    consensus.required_relay_protocols.missing_from(&protocols())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rate::RateLimits;

    #[test]
    fn floods_are_what_the_operator_or_the_consensus_calls_so() {
        let nothing = ConsensusParams::default();
        assert_eq!(dos_limits(&nothing, &DosConfig::default()), DosLimits::default());
        let says: ConsensusParams = [
            ("DoSConnectionEnabled", 1),
            ("DoSConnectionMaxConcurrentCount", 50),
            ("DoSCircuitCreationEnabled", 1),
            ("DoSStreamCreationEnabled", 1),
            ("DoSStreamCreationDefenseType", 3),
        ]
        .into_iter()
        .collect();
        let followed = dos_limits(&says, &DosConfig::default());
        let connections = followed.connections.unwrap();
        assert_eq!((connections.concurrent, connections.refuse), (50, true));
        assert_eq!(connections.connects, Rate { per_second: 20, burst: 40 });
        assert_eq!(connections.period, Duration::from_secs(24 * 3600));
        let circuits = followed.circuits.unwrap();
        assert_eq!((circuits.min_connections, circuits.creates), (3, Rate { per_second: 3, burst: 90 }));
        assert_eq!((circuits.period, circuits.max_outq), (Duration::from_secs(3600), 3));
        let streams = followed.streams.unwrap();
        let opens = Rate { per_second: 100, burst: 300 };
        assert_eq!(streams, StreamLimits { opens, defence: StreamDefence::CloseCircuit });

        let mut config = DosConfig { min_connections: Some(7), ..DosConfig::default() };
        config.connections.enabled = Some(false);
        config.circuits.defence = Some(1);
        config.circuits.burst = Some(5);
        let limits = dos_limits(&says, &config);
        assert_eq!(limits.connections, None);
        let circuits = limits.circuits.unwrap();
        assert_eq!((circuits.min_connections, circuits.creates.burst, circuits.refuse), (7, 5, false));
        let never: ConsensusParams =
            [("DoSCircuitCreationEnabled", 1), ("dos_num_circ_max_outq", 0)].into_iter().collect();
        assert_eq!(dos_limits(&never, &config).circuits.unwrap().max_outq, 0);
        config.connections.enabled = Some(true);
        assert!(dos_limits(&nothing, &config).connections.is_some());
    }

    #[test]
    fn links_of_clients_are_limited_by_the_operator_or_the_consensus() {
        let mut config = BandwidthConfig {
            all: RateLimits::DEFAULT,
            relayed: None,
            per_link_rate: None,
            per_link_burst: None,
            count_private: false,
        };
        let rate = |per_second, burst| Some(Rate { per_second, burst });
        let says: ConsensusParams = [("perconnbwrate", 1000), ("perconnbwburst", 0)].into_iter().collect();
        assert_eq!(rate_limits(&ConsensusParams::default(), &config).per_link, None);
        assert_eq!(rate_limits(&says, &config).per_link, rate(1000, 1));
        config.per_link_rate = Some(500);
        assert_eq!(rate_limits(&says, &config).per_link, rate(500, 1));
        assert_eq!(rate_limits(&ConsensusParams::default(), &config).per_link, rate(500, 1 << 30));
    }
    use crate::dir::testdata::CONSENSUS_MICRODESC;
    use onionring_proto::netdoc::consensus::UnverifiedConsensus;

    #[test]
    fn the_consensus_says_how_names_are_asked_for() {
        let mut options = dns::Options::default();
        let mut with = |parameters: &str| {
            let text = CONSENSUS_MICRODESC.replacen("\nparams ", &format!("\nparams {parameters}"), 1);
            let consensus = UnverifiedConsensus::parse(&text).unwrap();
            set_dns_options(&mut options, &consensus.peek().params);
            (options.timeout, options.attempts)
        };
        assert_eq!(with("exit_dns_num_attempts=5 exit_dns_timeout=2500 "), (Duration::from_millis(2500), 5));
        assert_eq!(with("exit_dns_num_attempts=0 "), (Duration::from_secs(1), 1));
    }
}
