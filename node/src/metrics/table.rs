//! Every metric, in one table: the names that code, dashboards and alerts use.
//!
//! Conventions: the prefix `onionring_`, base units in the name, `_total` on counters only, read and written as two
//! metrics rather than a label, `sum()` over any label means something, and no label whose values an outsider chooses.
//! `shard` is the number of the pinned thread; what is not split by it belongs to the whole process.

use super::metric::{Kind, Metric};

/// Bounds for times of the network: handshakes, connections, name lookups.
pub const NETWORK_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Bounds for times that shards count themselves: queues, loops, handshakes.
pub const SHARD_SECONDS: &[f64] =
    &[0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

macro_rules! kind {
    (counter) => {
        Kind::Counter
    };
    (gauge) => {
        Kind::Gauge
    };
    ($bounds:ident) => {
        Kind::Histogram($bounds)
    };
}

macro_rules! table {
    ($($ident:ident $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $ident: Metric =
                Metric { name: $name, kind: kind!($kind), labels: &[$($label),*], help: $help };
        )*

        /// The whole table.
        pub const ALL: &[Metric] = &[$($ident),*];
    };
}

table! {
    BUILD_INFO "onionring_build_info" gauge ["program", "version"]
        "Always 1; the labels say which program and version this is.";

    // The process, by the names every Prometheus client library uses; read when the page is.
    PROCESS_CPU_SECONDS "process_cpu_seconds_total" counter []
        "User and system CPU time spent, in seconds.";
    PROCESS_RESIDENT_BYTES "process_resident_memory_bytes" gauge []
        "Resident memory size, in bytes.";
    PROCESS_VIRTUAL_BYTES "process_virtual_memory_bytes" gauge []
        "Virtual memory size, in bytes.";
    PROCESS_OPEN_FDS "process_open_fds" gauge []
        "Open file descriptors.";
    PROCESS_MAX_FDS "process_max_fds" gauge []
        "Largest number of open file descriptors allowed.";
    PROCESS_START_TIME "process_start_time_seconds" gauge []
        "Start time of the process since the Unix epoch, in seconds.";
    PROCESS_THREADS "process_threads" gauge []
        "Threads of the process.";

    // Links: TLS connections to relays and clients.
    LINKS "onionring_links" gauge ["shard"]
        "Links now, those in their handshake included.";
    PEERS "onionring_peers" gauge ["shard"]
        "Relays that this shard keeps the register of links for.";
    LINKS_OPENED "onionring_links_opened_total" counter ["shard", "kind"]
        "Links whose handshake succeeded, by who is at the other end: a client, a relay that came to us (relay_in) or \
         one that we went to (relay_out).";
    LINKS_CLOSED "onionring_links_closed_total" counter ["shard", "reason"]
        "Links closed, by reason.";
    CONNECTIONS_ACCEPTED "onionring_connections_accepted_total" counter ["shard"]
        "TCP connections accepted on the ORPort, before any handshake; without those that were refused.";
    CONNECTIONS_REFUSED "onionring_connections_refused_total" counter ["shard"]
        "TCP connections to the ORPort closed at once, as a defence against floods.";
    CONNECTIONS_NOT_ACCEPTED "onionring_connections_not_accepted_total" counter ["shard"]
        "TCP connections to the ORPort that the system failed to hand over, mostly for want of file descriptors.";
    CONNECTIONS_DIALED "onionring_connections_dialed_total" counter ["shard"]
        "Attempts to connect to another relay.";
    CONNECTIONS_GIVEN_UP "onionring_connections_given_up_total" counter ["shard"]
        "Attempts to connect to another relay that were given up because too many were under way.";
    TLS_HANDSHAKES "onionring_tls_handshakes_total" counter ["shard", "outcome"]
        "TLS handshakes of both directions, by outcome: success, shed, or why they failed (closed, timeout, tls, \
         connection).";
    TLS_HANDSHAKE_SECONDS "onionring_tls_handshake_seconds" SHARD_SECONDS ["shard"]
        "How long successful TLS handshakes took, from the connection on, both directions.";
    LINK_READ_BYTES "onionring_link_read_bytes_total" counter ["shard"]
        "Bytes of cells read from links.";
    LINK_WRITTEN_BYTES "onionring_link_written_bytes_total" counter ["shard"]
        "Bytes of cells written to links.";

    DOS_REFUSED "onionring_dos_refused_total" counter ["shard", "reason"]
        "Refused to clients as a defence against floods, or too many where the defence only counts, by reason: connections \
         while there were too many of the address (concurrent_connections) or after it opened too many at once (connects), \
         circuits, streams.";
    DOS_MARKED "onionring_dos_marked_total" counter ["shard", "reason"]
        "Addresses of clients marked as sources of a flood, by reason: connects, and once for each address circuits or \
         queues (of their circuits away from them, which they filled).";

    // Cells.
    CELLS_READ "onionring_cells_read_total" counter ["shard", "command"]
        "Cells read from links, by cell command.";
    CELLS_WRITTEN "onionring_cells_written_total" counter ["shard"]
        "Cells written from circuits to links.";
    PADDING_CELLS_WRITTEN "onionring_padding_cells_written_total" counter ["shard"]
        "Link padding cells written.";
    CELLS_RELAYED_OUTBOUND "onionring_cells_relayed_outbound_total" counter ["shard"]
        "Relay cells passed on away from the client.";
    CELLS_RELAYED_INBOUND "onionring_cells_relayed_inbound_total" counter ["shard"]
        "Relay cells passed on towards the client.";
    CELLS_RECOGNISED "onionring_cells_recognised_total" counter ["shard"]
        "Relay cells that were for this relay.";
    CELLS_IGNORED "onionring_cells_ignored_total" counter ["shard", "reason"]
        "Cells and messages without effect, by reason.";
    QUEUED_CELLS "onionring_queued_cells" gauge ["shard"]
        "Cells waiting in circuits' queues for their link.";
    CELL_QUEUE_SECONDS "onionring_cell_queue_seconds" SHARD_SECONDS ["shard"]
        "How long cells waited in a circuit's queue for their link; one of every batch that was taken for a link counts.";
    CROSSED_CELLS "onionring_crossed_cells_total" counter ["shard"]
        "Cells and messages received from other shards.";

    // Circuits.
    CIRCUITS "onionring_circuits" gauge ["shard"]
        "Circuits open now.";
    CIRCUIT_HANDSHAKES "onionring_circuit_handshakes_total" counter ["shard", "handshake", "outcome"]
        "Circuit handshakes answered, by kind (fast, ntor, ntor_v3) and outcome (success, failed).";
    CIRCUIT_HANDSHAKES_REFUSED "onionring_circuit_handshakes_refused_total" counter ["shard", "reason"]
        "Circuits refused, by reason, those that were shed because too many handshakes waited included.";
    CIRCUIT_HANDSHAKES_SHED "onionring_circuit_handshakes_shed_total" counter ["shard"]
        "Circuit handshakes refused because too many waited.";
    CIRCUIT_HANDSHAKES_WAITING "onionring_circuit_handshakes_waiting" gauge ["shard"]
        "Circuit handshakes waiting for their turn.";
    CIRCUIT_HANDSHAKE_WAIT_SECONDS "onionring_circuit_handshake_wait_seconds" SHARD_SECONDS ["shard"]
        "How long circuit handshakes waited for their turn, those included that had then waited too long.";
    CIRCUIT_HANDSHAKE_WORK_SECONDS "onionring_circuit_handshake_work_seconds" SHARD_SECONDS ["shard"]
        "How long the public-key work of circuit handshakes took.";
    CIRCUITS_CLOSED "onionring_circuits_closed_total" counter ["shard", "reason"]
        "Circuits closed, by what closed them here. Cells found no room in the circuit's queue (queue_overrun_inbound towards \
         the client, queue_overrun_outbound away from it), in memory (memory_overrun), or on the way to another shard \
         (crossing_overrun).";

    // Streams and the outside.
    STREAMS "onionring_streams" gauge ["shard"]
        "Streams open now.";
    STREAMS_OPENED "onionring_streams_opened_total" counter ["shard", "kind"]
        "Requests for a stream, by kind (begin, begin_dir, resolve).";
    STREAMS_ENDED "onionring_streams_ended_total" counter ["shard", "reason"]
        "Streams ended by this relay, by the reason in the END message.";
    EXIT_CONNECTIONS "onionring_exit_connections" gauge ["shard", "family"]
        "Connections to destinations open now, by address family.";
    EXIT_CONNECTS "onionring_exit_connects_total" counter ["shard", "family", "outcome"]
        "Attempts to connect to a destination address, by address family and outcome.";
    EXIT_CONNECT_SECONDS "onionring_exit_connect_seconds" NETWORK_SECONDS ["shard"]
        "Time successful connections to destinations took.";
    EXIT_READ_BYTES "onionring_exit_read_bytes_total" counter ["shard"]
        "Bytes read from destinations.";
    EXIT_WRITTEN_BYTES "onionring_exit_written_bytes_total" counter ["shard"]
        "Bytes written to destinations.";
    PORTS_EXHAUSTED "onionring_ports_exhausted_total" counter ["shard"]
        "Times no local port was left for a connection, of an exit stream or a link.";

    // Names.
    DNS_LOOKUPS "onionring_dns_lookups_total" counter ["shard", "outcome"]
        "Lookups that went to a name server, by outcome.";
    DNS_QUERIES "onionring_dns_queries_total" counter ["shard"]
        "Questions sent to name servers, repeats included.";
    DNS_LOOKUP_SECONDS "onionring_dns_lookup_seconds" NETWORK_SECONDS ["shard"]
        "Time lookups took that went to a name server.";
    DNS_CACHE_HITS "onionring_dns_cache_hits_total" counter ["shard"]
        "Lookups answered from memory.";
    DNS_CACHE_ENTRIES "onionring_dns_cache_entries" gauge ["shard"]
        "Answers of name servers in memory.";
    DNS_SERVERS_FAILING "onionring_dns_servers_failing" gauge ["shard"]
        "Name servers passed over because they fail.";

    // Load.
    LIMITED_BY "onionring_limited_by" gauge ["cause"]
        "What keeps the relay from relaying more, over the last ten seconds: shares that add up to 1. processor: a \
         shard's thread is busy. network: sockets of links are full. rate_limit: the configured bandwidth is used up. \
         circuit_windows: clients have not acknowledged what they were sent. low_demand: nothing does.";
    LIMITED_SECONDS "onionring_limited_seconds_total" counter ["cause"]
        "The same over the whole life of the relay: the time for which each cause kept it from relaying more.";
    SHARD_BUSY_SECONDS "onionring_shard_busy_seconds_total" counter ["shard"]
        "Time the shard's thread worked, and waited for the processor while it had work.";
    SHARD_CPU_SECONDS "onionring_shard_cpu_seconds_total" counter ["shard"]
        "CPU time of the shard's thread.";
    OWNER_CPU_SECONDS "onionring_cpu_seconds_total" counter ["owner"]
        "CPU time of the process, by what spent it: the shards, the control thread, and others, such as the thread for \
         directory documents.";
    SOCKET_WRITES "onionring_socket_writes_total" counter ["shard"]
        "Writes of TLS records to links' sockets.";
    SOCKET_WAITS "onionring_socket_waits_total" counter ["shard"]
        "Writes to links' sockets that had to wait because the socket was full.";
    STREAM_WINDOWS_OPEN "onionring_stream_windows_open_total" counter ["shard"]
        "Times that bytes of a stream could be sent to its client.";
    STREAM_WINDOWS_CLOSED "onionring_stream_windows_closed_total" counter ["shard"]
        "Times that bytes of a stream had to wait until its client had acknowledged others.";
    SHARD_LAG_SECONDS "onionring_shard_lag_seconds" SHARD_SECONDS ["shard"]
        "How late the shard's timer fired, sampled once a second.";
    RATE_LIMIT_READ_REACHED "onionring_rate_limit_read_reached_total" counter ["shard"]
        "Times the configured bandwidth for reading was used up and somebody had to wait.";
    RATE_LIMIT_READ_SECONDS "onionring_rate_limit_read_seconds_total" counter ["shard"]
        "Time in which somebody waited for bandwidth to read.";
    RATE_LIMIT_WRITE_REACHED "onionring_rate_limit_write_reached_total" counter ["shard"]
        "Times the configured bandwidth for writing was used up and somebody had to wait.";
    RATE_LIMIT_WRITE_SECONDS "onionring_rate_limit_write_seconds_total" counter ["shard"]
        "Time in which somebody waited for bandwidth to write.";
    BANDWIDTH_RATE_REACHED "onionring_bandwidth_rate_reached_total" counter ["shard", "direction"]
        "Times somebody found BandwidthRate used up, while waiting too; RelayBandwidthRate does not count.";
    OVERLOADED "onionring_overloaded" gauge ["kind"]
        "1 if the relay was overloaded within the last minute, by kind as directory authorities know it: memory or local \
         ports ran out or too many circuit handshakes were dropped (general), BandwidthRate was used up (ratelimits), file \
         descriptors ran out (fd_exhausted).";
    OVERLOAD_TOLD "onionring_overload_told" gauge ["kind"]
        "1 as long as the descriptor (general) or the extra-info (the others) tells directory authorities of such an \
         overload: for one day (ratelimits) or three.";
    MEMORY_BYTES "onionring_memory_bytes" gauge ["shard", "owner"]
        "Memory held, by what it is for: cells that wait (circuits), bytes of streams that wait (streams), and what is kept \
         for more cells (spare).";
    DIRECTORY_MEMORY_BYTES "onionring_directory_memory_bytes" gauge []
        "Memory of directory documents, as they are served.";
    MEMORY_LIMIT_BYTES "onionring_memory_limit_bytes" gauge []
        "MaxMemInQueues as it is in force.";
    MEMORY_FREED_BYTES "onionring_memory_freed_bytes_total" counter ["shard", "owner"]
        "Memory freed because the limit was near, by what it was for.";
    CIRCUITS_SHED "onionring_circuits_shed_total" counter ["shard"]
        "Circuits closed because the memory limit was near.";

    // Directory and standing in the network.
    CONSENSUS_VALID_AFTER "onionring_consensus_valid_after_timestamp_seconds" gauge []
        "When the consensus in use became valid.";
    CONSENSUS_VALID_UNTIL "onionring_consensus_valid_until_timestamp_seconds" gauge []
        "When the consensus in use ends to be valid.";
    DIRECTORY_DOCUMENTS "onionring_directory_documents" gauge ["kind"]
        "Directory documents held, by kind.";
    DIRECTORY_FETCHES "onionring_directory_fetches_total" counter ["outcome"]
        "Requests to directory servers, by outcome: answered, or why they failed (such as connect, timeout, refused, unfit).";
    DIRECTORY_REQUESTS "onionring_directory_requests_total" counter ["shard", "status"]
        "Directory requests answered on streams of circuits, by HTTP status.";
    DIRECTORY_STREAMS_DROPPED "onionring_directory_streams_dropped_total" counter ["shard", "reason"]
        "Directory streams ended before their answer was out, by reason: too many at once (refused), nothing moved \
         (timed_out).";
    DIRECTORY_PORT_REQUESTS "onionring_directory_port_requests_total" counter ["status"]
        "Directory requests answered on the DirPort, by HTTP status; busy are connections closed because there were too \
         many.";
    DIRECTORY_PORT_SERVED_BYTES "onionring_directory_port_served_bytes_total" counter []
        "Bytes of directory documents served on the DirPort, as compressed.";
    DIRECTORY_SERVED_BYTES "onionring_directory_served_bytes_total" counter ["shard"]
        "Bytes of directory documents served on streams of circuits, as compressed.";
    DESCRIPTOR_UPLOADS "onionring_descriptor_uploads_total" counter ["outcome"]
        "Uploads of our descriptor to an authority, by outcome (taken, refused, lost, unreachable).";
    DESCRIPTOR_PUBLISHED "onionring_descriptor_published_timestamp_seconds" gauge []
        "When the descriptor in use was made.";
    RELAY_FLAG "onionring_relay_flag" gauge ["flag"]
        "Whether the consensus gives this relay the flag: 1 or 0.";
    REACHABLE "onionring_reachable" gauge ["family"]
        "Whether the ORPort was found reachable from outside, by address family: 1 or 0.";
    KEY_EXPIRY "onionring_key_expiry_timestamp_seconds" gauge ["key"]
        "When the certificate of the key expires.";

    // Directory authorities. `authority` is the nickname in the configuration, `identity` the fingerprint of the v3 identity.
    DIRAUTH_AUTHORITIES "onionring_dirauth_authorities" gauge []
        "Authorities that the configuration names, this one included.";
    DIRAUTH_CERTIFICATE_EXPIRY "onionring_dirauth_certificate_expiry_timestamp_seconds" gauge []
        "When this authority's certificate expires, without which it cannot vote.";
    DIRAUTH_CONSENSUS_VALID_AFTER "onionring_dirauth_consensus_valid_after_timestamp_seconds" gauge []
        "When the newest consensus at hand became valid; 0 if there is none.";
    DIRAUTH_CONSENSUS_FRESH_UNTIL "onionring_dirauth_consensus_fresh_until_timestamp_seconds" gauge []
        "When the next consensus is to follow the newest at hand; 0 if there is none.";
    DIRAUTH_CONSENSUS_VALID_UNTIL "onionring_dirauth_consensus_valid_until_timestamp_seconds" gauge []
        "When the newest consensus at hand ends to be valid; 0 if there is none.";
    DIRAUTH_CONSENSUS_RELAYS "onionring_dirauth_consensus_relays" gauge []
        "Relays in the newest consensus at hand.";
    DIRAUTH_CONSENSUSES_PUBLISHED "onionring_dirauth_consensuses_published_total" counter []
        "Consensuses that enough authorities signed, as this one computed them.";
    DIRAUTH_WITHOUT_CONSENSUS "onionring_dirauth_periods_without_consensus_total" counter ["reason"]
        "Periods of voting that ended without a consensus here, by reason: none can be computed (no_tally), too few have \
         signed ours (too_few_signatures), an authority voted twice (stopped), the time for it went by (missed).";
    DIRAUTH_CONSENSUS_SECONDS "onionring_dirauth_consensus_computation_seconds" gauge []
        "How long it took to compute and sign the last consensus.";
    DIRAUTH_VOTE_HELD "onionring_dirauth_vote_held" gauge ["authority", "identity"]
        "Whether the authority's vote of the period under way is at hand: 1 or 0.";
    DIRAUTH_SIGNATURE_HELD "onionring_dirauth_signature_held" gauge ["authority", "identity"]
        "Whether the authority's signature on the consensus that we computed in the period under way is at hand: 1 or 0.";
    DIRAUTH_VOTES_MISSED "onionring_dirauth_votes_missed_in_a_row" gauge ["authority", "identity"]
        "The last periods in a row that ended without the authority's vote; 0 if the last one had it.";
    DIRAUTH_SIGNATURES_MISSED "onionring_dirauth_signatures_missed_in_a_row" gauge ["authority", "identity"]
        "The last periods in a row that ended without the authority's signature on the consensus that we computed.";
    DIRAUTH_OWN_VOTES_MISSED "onionring_dirauth_own_votes_missed_in_a_row" gauge []
        "The last periods in a row that ended without a vote of this authority.";
    DIRAUTH_CLOCK_AHEAD "onionring_dirauth_clock_ahead_seconds" gauge ["authority", "identity"]
        "By how much the authority's clock was ahead of ours when it answered last; negative if it was behind. Known once \
         it has answered.";
    DIRAUTH_EXCHANGES "onionring_dirauth_exchanges_total" counter ["about", "outcome"]
        "Exchanges with other authorities, by what they were about, and by outcome: ok, answered with another status \
         than 200 (refused), or why there was no answer (such as connect, timeout).";
    DIRAUTH_ALARMS "onionring_dirauth_alarms_total" counter ["alarm"]
        "Alarms of voting: an authority signed two votes (double_vote), or voted anew after a restart (second_vote), or \
         signed another consensus than ours (other_consensus); we came too late to vote (too_late_to_vote), or could not \
         sign (signing).";
    DIRAUTH_UNSAVED "onionring_dirauth_state_unsaved_total" counter []
        "Times that state which a restart needs could not be written to the disk.";
    DIRAUTH_VOTE_SECONDS "onionring_dirauth_vote_making_seconds" gauge []
        "How long it took to make our last vote.";
    DIRAUTH_VOTE_RELAYS "onionring_dirauth_vote_relays" gauge []
        "Relays in our last vote.";
    DIRAUTH_VOTE_FLAGS "onionring_dirauth_vote_flag_relays" gauge ["flag"]
        "Relays to which our last vote gives the flag.";
    DIRAUTH_VOTE_MEASURED "onionring_dirauth_vote_measured_relays" gauge []
        "Relays in our last vote with a measured bandwidth.";
    DIRAUTH_RELAYS_STORED "onionring_dirauth_relays_stored" gauge []
        "Relays of which a descriptor is stored.";
    DIRAUTH_RELAYS_PENDING "onionring_dirauth_relays_pending" gauge []
        "Relays that wait for the approval of the administrator.";
    DIRAUTH_DOCUMENTS "onionring_dirauth_documents_total" counter ["verdict"]
        "Descriptors and extra-infos received from relays and other authorities, by what became of them: stored, stored of a \
         relay that waits for approval (pending), not_new, refused, and unsaved if they are well and found no room.";
    DIRAUTH_DOCUMENTS_REFUSED "onionring_dirauth_documents_refused_total" counter ["reason"]
        "Descriptors and extra-infos refused, by reason.";
    DIRAUTH_TESTS "onionring_dirauth_tests_total" counter ["test", "outcome"]
        "Tests of relays, by what was tested and by outcome (passed, failed, unclear). handshake and those after it are \
         parts of a round.";
    DIRAUTH_TESTS_UNDER_WAY "onionring_dirauth_tests_under_way" gauge []
        "Tests of relays that are under way.";
    DIRAUTH_RELAYS_TESTED "onionring_dirauth_relays_tested" gauge []
        "Relays that are tested.";
    DIRAUTH_RELAYS_UP "onionring_dirauth_relays_up" gauge []
        "Relays that links reach.";
    DIRAUTH_RELAYS_PROVEN "onionring_dirauth_relays_proven" gauge []
        "Relays that are known to carry circuits.";
    DIRAUTH_RELAYS_CONDEMNED "onionring_dirauth_relays_condemned" gauge []
        "Relays that links reach, and that count as not reached because they carry no circuits.";
    DIRAUTH_LINKS "onionring_dirauth_links" gauge []
        "Links on the ORPort, those in their handshake included.";
    DIRAUTH_ANSWERS "onionring_dirauth_answers_total" counter ["way", "status"]
        "Directory requests answered on the DirPort (dir_port) and on streams of circuits (circuit), by HTTP status; \
         unanswered are those whose connection was closed without an answer, one too many included.";
    DIRAUTH_SERVED_BYTES "onionring_dirauth_served_bytes_total" counter ["way"]
        "Bytes of the bodies of answers, as compressed, that were handed to the connection.";

    // A proxy.
    PROXY_BOOTSTRAP "onionring_proxy_bootstrap_ratio" gauge []
        "How far the proxy has come since its start: 1 is ready to carry streams.";
    PROXY_CONSENSUS_VALID_AFTER "onionring_proxy_consensus_valid_after_timestamp_seconds" gauge []
        "When the consensus in use became valid; 0 without one.";
    PROXY_CONSENSUS_VALID_UNTIL "onionring_proxy_consensus_valid_until_timestamp_seconds" gauge []
        "Until when the consensus in use is valid; 0 without one.";
    PROXY_GUARDS "onionring_proxy_guards" gauge ["kind", "state"]
        "Entry guards: those at which circuits begin (primary), others that were used (confirmed) and others that may come \
         to be (sampled), by whether the last attempt succeeded (up) or failed not long ago (down), or neither (untried); \
         barred are those that the consensus or the configuration does not allow now.";
    PROXY_LINKS "onionring_proxy_links" gauge []
        "Links to relays, those being opened included.";
    PROXY_CIRCUITS "onionring_proxy_circuits" gauge []
        "Circuits that are open.";
    PROXY_CIRCUITS_BUILT "onionring_proxy_circuits_built_total" counter []
        "Circuits built, every hop.";
    PROXY_CIRCUITS_FAILED "onionring_proxy_circuits_failed_total" counter ["reason"]
        "Circuits that were not built, by reason: no relays for the path (no_path), the guard not reached (connect), too \
         slow (timeout), not needed as a better guard works (better_guard), ended by a relay (destroyed), a relay that \
         breaks the protocol (protocol).";
    PROXY_CIRCUITS_TRUNCATED "onionring_proxy_circuits_truncated_total" counter []
        "Circuits that were cut and extended to another exit (TruncateCircuits).";
    PROXY_CIRCUIT_BUILD_SECONDS "onionring_proxy_circuit_build_seconds" NETWORK_SECONDS []
        "How long circuits took to their third hop, if they got so far.";
    PROXY_STREAMS "onionring_proxy_streams" gauge []
        "Streams that are open.";
    PROXY_STREAMS_OPENED "onionring_proxy_streams_opened_total" counter []
        "Streams opened, as their exits say.";
    PROXY_STREAMS_REFUSED "onionring_proxy_streams_refused_total" counter ["reason"]
        "Streams that were not opened, by the reason that the application was told.";
    PROXY_STREAMS_RETRIED "onionring_proxy_streams_retried_total" counter []
        "Attempts to open a stream, or to look something up, that were made again on another circuit.";
    PROXY_STREAM_READ_BYTES "onionring_proxy_stream_read_bytes_total" counter []
        "Bytes that applications got from the network.";
    PROXY_STREAM_WRITTEN_BYTES "onionring_proxy_stream_written_bytes_total" counter []
        "Bytes that applications gave to the network.";
    PROXY_LOOKUPS_ANSWERED "onionring_proxy_lookups_answered_total" counter []
        "Names and addresses that exits have looked up.";
    PROXY_LOOKUPS_REFUSED "onionring_proxy_lookups_refused_total" counter ["reason"]
        "Names and addresses that were not looked up, by the reason that the application was told.";
    PROXY_DIRECTORY_FETCHED "onionring_proxy_directory_requests_answered_total" counter []
        "Directory requests answered with what was asked for.";
    PROXY_DIRECTORY_FAILED "onionring_proxy_directory_requests_failed_total" counter ["reason"]
        "Directory requests that failed, by reason: directory not reached (connect), no circuit or stream to it (circuit), too \
         slow (timeout), an answer that breaks off (broken, cut_off), is no HTTP (not_http), cannot be decoded \
         (undecodable), says no (refused), or holds nothing fit to be kept (unfit).";
    PROXY_DIRECTORY_READ_BYTES "onionring_proxy_directory_read_bytes_total" counter []
        "Bytes of directory documents received, uncompressed.";

    // Logs.
    LOG_EVENTS "onionring_log_events_total" counter ["severity"]
        "Messages logged, by severity (err, warn, notice).";
    LOG_EVENTS_SUPPRESSED "onionring_log_events_suppressed_total" counter []
        "Repeated messages left out of the log.";
}
