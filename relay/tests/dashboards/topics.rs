//! What is on which dashboard.

use super::authority::AUTHORITY;
use super::grafana::{Dashboard, Panel};
use super::proxy::PROXY;

const RELAY: Dashboard = Dashboard {
    file: "relay.json",
    title: "onionring: relay",
    anchor: "onionring_build_info",
    second_row: "Traffic",
    stats: &[
        panel!("Up since", "dateTimeFromNow", ["process_start_time_seconds * 1000" => ""]),
        panel!("Version", "none", ["onionring_build_info" => "{{version}}"]),
        panel!("Written", "Bps", [
            "sum (rate(onionring_link_written_bytes_total))" => "",
        ]; "Bytes of cells written to links."),
        panel!("Limited by", "percentunit", [
            "topk(1, avg by (cause) (onionring_limited_by))" => "{{cause}}",
        ]; "What keeps the relay most from relaying more."),
        panel!("Links", "short", ["sum (onionring_links)" => ""]),
        panel!("Circuits", "short", ["sum (onionring_circuits)" => ""]),
        panel!("Streams", "short", ["sum (onionring_streams)" => ""]),
        panel!("Memory", "bytes", ["sum (process_resident_memory_bytes)" => ""]; "Resident memory."),
    ],
    traffic: &[
        panel!("Link traffic", "Bps", [
            "sum (rate(onionring_link_read_bytes_total))" => "read",
            "sum (rate(onionring_link_written_bytes_total))" => "written",
        ]),
        panel!("Cells relayed", "ops", [
            "sum (rate(onionring_cells_relayed_outbound_total))" => "away from clients",
            "sum (rate(onionring_cells_relayed_inbound_total))" => "towards clients",
        ]),
    ],
    topics: &[
        (
            "What limits it",
            &[
                stacked!("Limited by", "percentunit", [
                "avg by (cause) (onionring_limited_by)" => "{{cause}}",
            ]; "Shares that add up to 1, over ten seconds."),
                stacked!("Limited by, over the interval", "percentunit", [
                "avg by (cause) (rate(onionring_limited_seconds_total))" => "{{cause}}",
            ]; "The same without gaps between scrapes."),
                panel!("Writes that found the socket full", "percentunit", [
                    "sum (rate(onionring_socket_waits_total)) / sum (rate(onionring_socket_writes_total))" => "of all writes",
                ]),
                panel!("Streams that found windows closed", "percentunit", [
                "sum (rate(onionring_stream_windows_closed_total)) / (sum (rate(onionring_stream_windows_closed_total)) + sum (rate(onionring_stream_windows_open_total)))" => "of all tries",
            ]; "Of streams that end at this relay."),
                panel!("Time waited for bandwidth", "percentunit", [
                    "sum (rate(onionring_rate_limit_read_seconds_total))" => "to read",
                    "sum (rate(onionring_rate_limit_write_seconds_total))" => "to write",
                ]; "Share of the time, added over shards, in which links or streams waited for the configured bandwidth."),
                panel!("Times the bandwidth was used up", "ops", [
                    "sum (rate(onionring_rate_limit_read_reached_total))" => "reading",
                    "sum (rate(onionring_rate_limit_write_reached_total))" => "writing",
                    "sum by (direction) (rate(onionring_bandwidth_rate_reached_total))" => "BandwidthRate, {{direction}}",
                ]),
                panel!("Overloaded", "short", [
                    "sum by (kind) (onionring_overloaded)" => "{{kind}}",
                    "sum by (kind) (onionring_overload_told)" => "{{kind}}, told to authorities",
                ]; "Relays that were overloaded within the last minute, and those whose descriptors say that they were lately."),
            ],
        ),
        (
            "Links",
            &[
                panel!("Links", "short", ["sum by (instance) (onionring_links)" => "{{instance}}"]),
                panel!("Links opened, by peer", "ops", [
                    "sum by (kind) (rate(onionring_links_opened_total))" => "{{kind}}",
                ]),
                panel!("Links closed, by reason", "ops", [
                    "sum by (reason) (rate(onionring_links_closed_total))" => "{{reason}}",
                ]),
                panel!("Relays registered", "short", [
                "sum (onionring_peers)" => "relays",
            ]; "Relays that shards keep the register of links for."),
            ],
        ),
        (
            "Circuits and cells",
            &[
                panel!("Circuits", "short", ["sum by (instance) (onionring_circuits)" => "{{instance}}"]),
                panel!("Circuits closed, by reason", "ops", [
                    "sum by (reason) (rate(onionring_circuits_closed_total))" => "{{reason}}",
                ]),
                panel!("Cells read, by command", "ops", [
                    "sum by (command) (rate(onionring_cells_read_total))" => "{{command}}",
                ]),
                panel!("Cells written", "ops", [
                    "sum (rate(onionring_cells_written_total))" => "of circuits",
                    "sum (rate(onionring_padding_cells_written_total))" => "padding",
                ]),
                panel!("Cells for this relay", "ops", [
                    "sum (rate(onionring_cells_recognised_total))" => "recognised",
                ]),
                panel!("Cells without effect, by reason", "ops", [
                    "sum by (reason) (rate(onionring_cells_ignored_total))" => "{{reason}}",
                ]),
            ],
        ),
        (
            "Memory",
            &[
                stacked!("Memory held, by owner", "bytes", [
                "sum by (owner) (onionring_memory_bytes)" => "{{owner}}",
                "sum (onionring_directory_memory_bytes)" => "directory documents",
                "sum (process_resident_memory_bytes) - sum (onionring_memory_bytes) - sum (onionring_directory_memory_bytes)" => "everything else",
            ]; "Adds up to the resident memory."),
                panel!("Waiting cells and streams, and their limit", "bytes", [
                    "sum (onionring_memory_bytes{owner=~\"circuits|streams\"})" => "held",
                    "sum (onionring_memory_limit_bytes)" => "limit",
                ]),
                panel!("Memory freed near the limit", "Bps", [
                    "sum (rate(onionring_memory_freed_bytes_total))" => "freed",
                ]),
                panel!("Memory of the process", "bytes", [
                    "process_resident_memory_bytes" => "{{instance}} resident",
                    "process_virtual_memory_bytes" => "{{instance}} virtual",
                ]),
            ],
        ),
        (
            "Process and log",
            &[
                panel!("CPU time, by owner", "percentunit", [
                "sum by (owner) (rate(onionring_cpu_seconds_total))" => "{{owner}}",
                "sum (rate(process_cpu_seconds_total))" => "process",
            ]; "100 % is one core."),
                panel!("File descriptors", "short", [
                    "process_open_fds" => "{{instance}} open",
                    "process_max_fds" => "{{instance}} allowed",
                ]),
                panel!("Threads", "short", ["process_threads" => "{{instance}}"]),
                panel!("Messages logged", "ops", [
                    "sum by (severity) (rate(onionring_log_events_total))" => "{{severity}}",
                    "sum (rate(onionring_log_events_suppressed_total))" => "left out as repeated",
                ]),
            ],
        ),
    ],
};

const SHARDS: Dashboard = Dashboard {
    file: "shards.json",
    title: "onionring: shards",
    anchor: "onionring_build_info",
    second_row: "Traffic",
    stats: &[
        panel!("Shards", "short", ["count (onionring_circuits)" => ""]),
        panel!("Busiest shard", "percentunit", ["max (rate(onionring_shard_busy_seconds_total))" => ""]),
        panel!("CPU time", "percentunit", [
            "sum (rate(onionring_shard_cpu_seconds_total))" => "",
        ]; "Of all shards; 100 % is one core."),
        panel!("Lag, 99 %", "s", [
            "histogram_quantile(0.99, sum by (le) (rate(onionring_shard_lag_seconds_bucket)))" => "",
        ]; "How late timers fire."),
        panel!("Cells in queues", "short", ["sum (onionring_queued_cells)" => ""]),
        panel!("Time in queues, 99 %", "s", [
            "histogram_quantile(0.99, sum by (le) (rate(onionring_cell_queue_seconds_bucket)))" => "",
        ]),
    ],
    traffic: &[
        panel!("Written, by shard", "Bps", [
            "rate(onionring_link_written_bytes_total)" => "{{instance}} {{shard}}",
        ]),
        panel!("Cells written, by shard", "ops", [
            "rate(onionring_cells_written_total)" => "{{instance}} {{shard}}",
        ]),
    ],
    topics: &[
        (
            "Time",
            &[
                panel!("Busy, by shard", "percentunit", [
                "rate(onionring_shard_busy_seconds_total)" => "{{instance}} {{shard}}",
            ]; "Time with work to do, waits for a core included."),
                panel!("CPU time, by shard", "percentunit", [
                "rate(onionring_shard_cpu_seconds_total)" => "{{instance}} {{shard}}",
            ]; "Much less than busy: others use the core too."),
                panel!("Lag of timers", "s", [
                    "histogram_quantile(0.5, sum by (le) (rate(onionring_shard_lag_seconds_bucket)))" => "median",
                    "histogram_quantile(0.99, sum by (le) (rate(onionring_shard_lag_seconds_bucket)))" => "99 %",
                ]),
                panel!("Lag of timers by shard, 99 %", "s", [
                    "histogram_quantile(0.99, sum by (instance, shard, le) (rate(onionring_shard_lag_seconds_bucket)))" => "{{instance}} {{shard}}",
                ]),
            ],
        ),
        (
            "Queues",
            &[
                panel!("Cells that wait for their link", "short", [
                    "onionring_queued_cells" => "{{instance}} {{shard}}",
                ]),
                panel!("Time cells waited for their link", "s", [
                "histogram_quantile(0.5, sum by (le) (rate(onionring_cell_queue_seconds_bucket)))" => "median",
                "histogram_quantile(0.99, sum by (le) (rate(onionring_cell_queue_seconds_bucket)))" => "99 %",
            ]; "One cell of each batch."),
                panel!("Time cells waited, by shard, 99 %", "s", [
                    "histogram_quantile(0.99, sum by (instance, shard, le) (rate(onionring_cell_queue_seconds_bucket)))" => "{{instance}} {{shard}}",
                ]),
                panel!("Writes that found the socket full, by shard", "percentunit", [
                    "rate(onionring_socket_waits_total) / rate(onionring_socket_writes_total)" => "{{instance}} {{shard}}",
                ]),
                panel!("Cells and messages from other shards", "ops", [
                    "rate(onionring_crossed_cells_total)" => "{{instance}} {{shard}}",
                ]),
                panel!("Memory of queues, by shard", "bytes", [
                    "sum by (instance, shard) (onionring_memory_bytes)" => "{{instance}} {{shard}}",
                ]),
            ],
        ),
        (
            "What each has",
            &[
                panel!("Links, by shard", "short", ["onionring_links" => "{{instance}} {{shard}}"]),
                panel!("Circuits, by shard", "short", ["onionring_circuits" => "{{instance}} {{shard}}"]),
                panel!("Streams, by shard", "short", ["onionring_streams" => "{{instance}} {{shard}}"]),
                panel!("Relays registered, by shard", "short", ["onionring_peers" => "{{instance}} {{shard}}"]),
            ],
        ),
    ],
};

const HANDSHAKES: Dashboard = Dashboard {
    file: "handshakes.json",
    title: "onionring: handshakes and floods",
    anchor: "onionring_build_info",
    second_row: "Traffic",
    stats: &[
        panel!("Circuit handshakes", "ops", ["sum (rate(onionring_circuit_handshakes_total))" => ""]),
        panel!("Refused", "ops", ["sum (rate(onionring_circuit_handshakes_refused_total))" => ""]),
        panel!("Waiting", "short", ["sum (onionring_circuit_handshakes_waiting)" => ""]),
        panel!("Wait, 99 %", "s", [
            "histogram_quantile(0.99, sum by (le) (rate(onionring_circuit_handshake_wait_seconds_bucket)))" => "",
        ]),
        panel!("TLS handshakes", "ops", [
            "sum (rate(onionring_tls_handshakes_total{outcome=\"success\"}))" => "",
        ]),
        panel!("TLS failures", "ops", [
            "sum (rate(onionring_tls_handshakes_total{outcome!=\"success\"}))" => "",
        ]),
    ],
    traffic: &[
        panel!("Circuit handshakes, by kind", "ops", [
            "sum by (handshake, outcome) (rate(onionring_circuit_handshakes_total))" => "{{handshake}} {{outcome}}",
        ]),
        panel!("TLS handshakes, by outcome", "ops", [
            "sum by (outcome) (rate(onionring_tls_handshakes_total))" => "{{outcome}}",
        ]),
    ],
    topics: &[
        (
            "Circuit handshakes",
            &[
                panel!("Wait for their turn", "s", [
                    "histogram_quantile(0.5, sum by (le) (rate(onionring_circuit_handshake_wait_seconds_bucket)))" => "median",
                    "histogram_quantile(0.99, sum by (le) (rate(onionring_circuit_handshake_wait_seconds_bucket)))" => "99 %",
                ]),
                panel!("Public-key work", "s", [
                    "histogram_quantile(0.5, sum by (le) (rate(onionring_circuit_handshake_work_seconds_bucket)))" => "median",
                    "histogram_quantile(0.99, sum by (le) (rate(onionring_circuit_handshake_work_seconds_bucket)))" => "99 %",
                ]),
                panel!("Circuit handshakes that wait", "short", [
                    "onionring_circuit_handshakes_waiting" => "{{instance}} {{shard}}",
                ]),
                panel!("Refused, by reason", "ops", [
                    "sum by (reason) (rate(onionring_circuit_handshakes_refused_total))" => "{{reason}}",
                ]),
                panel!("Refused because too many waited", "ops", [
                    "sum by (instance) (rate(onionring_circuit_handshakes_shed_total))" => "{{instance}}",
                ]),
            ],
        ),
        (
            "TLS and connections",
            &[
                panel!("Time TLS handshakes take", "s", [
                "histogram_quantile(0.5, sum by (le) (rate(onionring_tls_handshake_seconds_bucket)))" => "median",
                "histogram_quantile(0.99, sum by (le) (rate(onionring_tls_handshake_seconds_bucket)))" => "99 %",
            ]; "Those that succeed, both directions."),
                panel!("TLS handshakes that fail, by reason", "ops", [
                    "sum by (outcome) (rate(onionring_tls_handshakes_total{outcome!=\"success\"}))" => "{{outcome}}",
                ]),
                panel!("Connections", "ops", [
                    "sum (rate(onionring_connections_accepted_total))" => "accepted",
                    "sum (rate(onionring_connections_refused_total))" => "refused",
                    "sum (rate(onionring_connections_not_accepted_total))" => "not accepted",
                    "sum (rate(onionring_connections_dialed_total))" => "dialed",
                    "sum (rate(onionring_connections_given_up_total))" => "dials given up",
                ]),
                panel!("Links closed, by reason", "ops", [
                    "sum by (reason) (rate(onionring_links_closed_total))" => "{{reason}}",
                ]),
            ],
        ),
        (
            "Limits reached",
            &[
                panel!("Refused as a defence against floods", "ops", [
                    "sum by (reason) (rate(onionring_dos_refused_total))" => "{{reason}}",
                ]),
                panel!("Addresses marked as sources of floods", "ops", [
                    "sum by (reason) (rate(onionring_dos_marked_total))" => "of {{reason}}",
                ]),
                panel!("Circuits closed, by reason", "ops", [
                "sum by (reason) (rate(onionring_circuits_closed_total{reason!~\"destroyed_by_client_side|destroyed_by_far_side|link_closed\"}))" => "{{reason}}",
            ]; "Those that neither neighbour asked for."),
                panel!("Circuits closed to save memory", "ops", [
                    "sum by (instance) (rate(onionring_circuits_shed_total))" => "{{instance}}",
                ]),
                panel!("Streams and directory requests dropped", "ops", [
                    "sum by (reason) (rate(onionring_directory_streams_dropped_total))" => "directory: {{reason}}",
                    "sum (rate(onionring_streams_ended_total{reason=\"resource_limit\"}))" => "streams: too many",
                ]),
                panel!("Cells without effect, by reason", "ops", [
                    "sum by (reason) (rate(onionring_cells_ignored_total))" => "{{reason}}",
                ]),
            ],
        ),
    ],
};

const EXIT: Dashboard = Dashboard {
    file: "exit.json",
    title: "onionring: exit",
    anchor: "onionring_build_info",
    second_row: "Traffic",
    stats: &[
        panel!("Streams", "short", ["sum (onionring_streams)" => ""]),
        panel!("Connections open", "short", ["sum (onionring_exit_connections)" => ""]),
        panel!("Connections made", "ops", [
            "sum (rate(onionring_exit_connects_total{outcome=\"success\"}))" => "",
        ]),
        panel!("Lookups", "ops", ["sum (rate(onionring_dns_lookups_total))" => ""]),
        panel!("Lookups timed out", "percentunit", [
            "sum (rate(onionring_dns_lookups_total{outcome=\"timeout\"})) / sum (rate(onionring_dns_lookups_total))" => "",
        ]),
        panel!("No port left", "ops", ["sum (rate(onionring_ports_exhausted_total))" => ""]),
    ],
    traffic: &[
        panel!("Traffic with destinations", "Bps", [
            "sum (rate(onionring_exit_read_bytes_total))" => "read",
            "sum (rate(onionring_exit_written_bytes_total))" => "written",
        ]),
        panel!("Streams asked for, by kind", "ops", [
            "sum by (kind) (rate(onionring_streams_opened_total))" => "{{kind}}",
        ]),
    ],
    topics: &[
        (
            "Connections",
            &[
                panel!("Connections open, by family", "short", [
                    "sum by (family) (onionring_exit_connections)" => "{{family}}",
                ]),
                panel!("Connections, by outcome", "ops", [
                    "sum by (family, outcome) (rate(onionring_exit_connects_total))" => "{{family}} {{outcome}}",
                ]),
                panel!("Time connections take", "s", [
                    "histogram_quantile(0.5, sum by (le) (rate(onionring_exit_connect_seconds_bucket)))" => "median",
                    "histogram_quantile(0.95, sum by (le) (rate(onionring_exit_connect_seconds_bucket)))" => "95 %",
                ]),
                panel!("No local port left", "ops", [
                    "sum by (instance) (rate(onionring_ports_exhausted_total))" => "{{instance}}",
                ]),
                panel!("Streams, by shard", "short", ["onionring_streams" => "{{instance}} {{shard}}"]),
                panel!("Streams ended here, by reason", "ops", [
                    "sum by (reason) (rate(onionring_streams_ended_total))" => "{{reason}}",
                ]),
            ],
        ),
        (
            "Names (DNS)",
            &[
                panel!("Lookups, by outcome", "ops", [
                    "sum by (outcome) (rate(onionring_dns_lookups_total))" => "{{outcome}}",
                ]),
                panel!("Time lookups take", "s", [
                    "histogram_quantile(0.5, sum by (le) (rate(onionring_dns_lookup_seconds_bucket)))" => "median",
                    "histogram_quantile(0.95, sum by (le) (rate(onionring_dns_lookup_seconds_bucket)))" => "95 %",
                ]),
                panel!("Questions sent, and lookups answered from memory", "ops", [
                    "sum (rate(onionring_dns_queries_total))" => "questions",
                    "sum (rate(onionring_dns_cache_hits_total))" => "from memory",
                ]),
                panel!("Answers in memory, and failing servers", "short", [
                    "sum (onionring_dns_cache_entries)" => "answers",
                    "max (onionring_dns_servers_failing)" => "failing servers",
                ]),
            ],
        ),
    ],
};

const DIRECTORY: Dashboard = Dashboard {
    file: "directory.json",
    title: "onionring: directory and standing",
    anchor: "onionring_build_info",
    second_row: "Traffic",
    stats: &[
        panel!("Flags", "short", ["count (onionring_relay_flag == 1)" => ""]; "That the consensus gives."),
        panel!("Reachable", "short", ["min (onionring_reachable)" => ""]; "1 if every address is."),
        panel!("Consensus valid for", "s", [
            "min (onionring_consensus_valid_until_timestamp_seconds) - time()" => "",
        ]),
        panel!("Certificate valid for", "s", ["min (onionring_key_expiry_timestamp_seconds) - time()" => ""]),
        panel!("Documents", "short", ["sum (onionring_directory_documents)" => ""]),
        panel!("Memory of documents", "bytes", ["sum (onionring_directory_memory_bytes)" => ""]),
    ],
    traffic: &[
        panel!("Documents served", "Bps", [
            "sum (rate(onionring_directory_served_bytes_total))" => "over circuits",
            "sum (rate(onionring_directory_port_served_bytes_total))" => "on the DirPort",
        ]; "As compressed."),
        panel!("Requests answered, by status", "ops", [
            "sum by (status) (rate(onionring_directory_requests_total))" => "{{status}} over circuits",
            "sum by (status) (rate(onionring_directory_port_requests_total))" => "{{status}} on the DirPort",
        ]),
    ],
    topics: &[
        (
            "Standing in the network",
            &[
                panel!("Flags", "short", [
                    "max by (instance, flag) (onionring_relay_flag)" => "{{instance}} {{flag}}",
                ]),
                panel!("Reachable", "short", ["onionring_reachable" => "{{instance}} {{family}}"]),
                panel!("Descriptor uploads, by outcome", "ops", [
                    "sum by (outcome) (rate(onionring_descriptor_uploads_total))" => "{{outcome}}",
                ]),
                panel!("Age of the descriptor", "s", [
                    "time() - onionring_descriptor_published_timestamp_seconds" => "{{instance}}",
                ]),
                panel!("Certificates: time left", "s", [
                    "onionring_key_expiry_timestamp_seconds - time()" => "{{instance}} {{key}}",
                ]),
            ],
        ),
        (
            "Directory cache",
            &[
                panel!("Consensus: age, and time it is still valid", "s", [
                    "time() - onionring_consensus_valid_after_timestamp_seconds" => "{{instance}} age",
                    "onionring_consensus_valid_until_timestamp_seconds - time()" => "{{instance}} valid",
                ]),
                panel!("Documents held, by kind", "short", [
                    "sum by (kind) (onionring_directory_documents)" => "{{kind}}",
                ]),
                panel!("Documents fetched, by outcome", "ops", [
                    "sum by (outcome) (rate(onionring_directory_fetches_total))" => "{{outcome}}",
                ]),
                panel!("Directory streams dropped, by reason", "ops", [
                    "sum by (reason) (rate(onionring_directory_streams_dropped_total))" => "{{reason}}",
                ]),
                panel!("Memory of documents", "bytes", ["onionring_directory_memory_bytes" => "{{instance}}"]),
            ],
        ),
    ],
};

const LOADGEN: Dashboard = Dashboard {
    file: "loadgen.json",
    title: "onionring: results of loadgen",
    anchor: "onionring_loadgen_measured_timestamp_seconds",
    second_row: "Traffic",
    stats: &[
        panel!("Last measured", "dateTimeFromNow", [
            "max (onionring_loadgen_measured_timestamp_seconds) * 1000" => "",
        ]),
        panel!("Best goodput", "Bps", ["max (onionring_loadgen_goodput_bytes_per_second)" => ""]),
        panel!("Least CPU per GiB", "s", ["min (onionring_loadgen_cpu_seconds_per_gib)" => ""]),
        panel!("Memory", "bytes", ["max (onionring_loadgen_rss_bytes)" => ""]),
    ],
    traffic: &[
        panel!("Goodput", "Bps", [
            "onionring_loadgen_goodput_bytes_per_second" => "{{scenario}} {{kind}}",
        ]; "Medians of the repetitions, here and below."),
        panel!("CPU per GiB", "s", [
            "onionring_loadgen_cpu_seconds_per_gib" => "{{scenario}} {{kind}}",
        ]; "Of the relay, all threads."),
    ],
    topics: &[
        (
            "Bulk",
            &[
                panel!("Cells", "ops", ["onionring_loadgen_cells_per_second" => "{{scenario}} {{kind}}"]),
                panel!("CPU per cell", "s", [
                    "onionring_loadgen_cpu_seconds_per_cell" => "{{scenario}} {{kind}}",
                ]),
                panel!("CPU used, in cores", "short", ["onionring_loadgen_cpu_cores" => "{{scenario}} {{kind}}"]),
                panel!("Context switches", "ops", [
                    "onionring_loadgen_context_switches_per_second" => "{{scenario}} {{kind}}",
                ]),
                panel!("System calls per MiB", "short", [
                    "onionring_loadgen_syscalls_per_mib" => "{{scenario}} {{kind}}",
                ]; "Measured with --syscalls only."),
                panel!("System calls", "ops", [
                    "onionring_loadgen_syscalls_per_second" => "{{scenario}} {{kind}}",
                ]; "Measured with --syscalls only."),
                panel!("Memory", "bytes", ["onionring_loadgen_rss_bytes" => "{{scenario}} {{kind}}"]),
                panel!("Cells verified", "short", [
                    "onionring_loadgen_verified_cells" => "{{scenario}} {{kind}}",
                ]),
                panel!("Loadgen's own CPU, in cores", "short", [
                    "onionring_loadgen_loadgen_cpu_cores" => "{{scenario}} {{kind}}",
                ]),
            ],
        ),
        (
            "Interactive",
            &[
                panel!("Latency", "s", [
                "onionring_loadgen_latency_p50_seconds" => "{{kind}} median",
                "onionring_loadgen_latency_p90_seconds" => "{{kind}} 90 %",
                "onionring_loadgen_latency_p99_seconds" => "{{kind}} 99 %",
                "onionring_loadgen_latency_p999_seconds" => "{{kind}} 99.9 %",
                "onionring_loadgen_latency_max_seconds" => "{{kind}} most",
            ]; "From the time at which a cell was meant to be sent."),
                panel!("Probes answered", "ops", [
                    "onionring_loadgen_probes_per_second" => "{{scenario}} {{kind}}",
                ]),
                panel!("Probes missed, and sent late", "percentunit", [
                    "onionring_loadgen_missed_ratio" => "{{kind}} missed",
                    "onionring_loadgen_late_ratio" => "{{kind}} late",
                ]),
            ],
        ),
        (
            "Handshakes and links",
            &[
                panel!("Circuit handshakes", "ops", [
                    "onionring_loadgen_handshakes_per_second" => "{{scenario}} {{kind}}",
                ]),
                panel!("Circuit handshakes per CPU second", "short", [
                    "onionring_loadgen_handshakes_per_cpu_second" => "{{scenario}} {{kind}}",
                ]),
                panel!("Circuit handshakes refused", "percentunit", [
                    "onionring_loadgen_refused_ratio" => "{{scenario}} {{kind}}",
                ]),
                panel!("Links opened", "ops", ["onionring_loadgen_links_per_second" => "{{scenario}} {{kind}}"]),
                panel!("Links opened per CPU second", "short", [
                    "onionring_loadgen_links_per_cpu_second" => "{{scenario}} {{kind}}",
                ]),
            ],
        ),
        (
            "Bulk at a given rate",
            &[
                panel!("Latency of cells", "s", [
                    "onionring_loadgen_bulk_latency_p50_seconds" => "{{kind}} median",
                    "onionring_loadgen_bulk_latency_p90_seconds" => "{{kind}} 90 %",
                    "onionring_loadgen_bulk_latency_p99_seconds" => "{{kind}} 99 %",
                    "onionring_loadgen_bulk_latency_p999_seconds" => "{{kind}} 99.9 %",
                    "onionring_loadgen_bulk_latency_max_seconds" => "{{kind}} most",
                ]; "From the time at which a cell was meant to be sent."),
                panel!("Cells missed, and sent late", "percentunit", [
                    "onionring_loadgen_bulk_missed_ratio" => "{{kind}} missed",
                    "onionring_loadgen_bulk_late_ratio" => "{{kind}} late",
                ]),
            ],
        ),
        (
            "Flood",
            &[
                panel!("Goodput lost", "percentunit", [
                    "onionring_loadgen_goodput_lost_ratio" => "{{kind}} lost",
                ]),
                panel!("Goodput without the flood", "Bps", [
                    "onionring_loadgen_goodput_quiet_bytes_per_second" => "{{kind}} quiet",
                ]),
                panel!("Latency of cells without the flood", "s", [
                    "onionring_loadgen_bulk_quiet_latency_p50_seconds" => "{{kind}} median",
                    "onionring_loadgen_bulk_quiet_latency_p99_seconds" => "{{kind}} 99 %",
                ]),
                panel!("Latency of honest circuit handshakes", "s", [
                    "onionring_loadgen_create_latency_p50_seconds" => "{{kind}} median",
                    "onionring_loadgen_create_latency_p99_seconds" => "{{kind}} 99 %",
                ]),
                panel!("Honest circuit handshakes answered", "percentunit", [
                    "onionring_loadgen_create_success_ratio" => "{{kind}} answered",
                ]),
                panel!("Junk", "ops", [
                    "onionring_loadgen_junk_per_second" => "{{kind}} sent",
                    "onionring_loadgen_junk_answered_per_second" => "{{kind}} answered",
                    "onionring_loadgen_junk_refused_per_second" => "{{kind}} refused",
                    "onionring_loadgen_junk_links_lost_per_second" => "{{kind}} links lost",
                ]),
            ],
        ),
        (
            "Exit",
            &[
                panel!("Transfers", "ops", [
                    "onionring_loadgen_transfers_per_second" => "{{kind}} done",
                ]),
                panel!("Time to the first byte", "s", [
                    "onionring_loadgen_time_to_first_byte_p50_seconds" => "{{kind}} median",
                    "onionring_loadgen_time_to_first_byte_p99_seconds" => "{{kind}} 99 %",
                ]),
                panel!("Time to the last byte", "s", [
                    "onionring_loadgen_time_to_last_byte_p50_seconds" => "{{kind}} median",
                    "onionring_loadgen_time_to_last_byte_p99_seconds" => "{{kind}} 99 %",
                ]),
            ],
        ),
        (
            "The paper's downloads",
            &[
                panel!("File", "s", [
                    "onionring_loadgen_file_mean_seconds" => "{{kind}} over relays",
                    "onionring_loadgen_file_direct_mean_seconds" => "{{kind}} directly",
                ]),
                panel!("File, over relays to directly", "percentunit", [
                    "onionring_loadgen_file_over_direct_ratio" => "{{kind}} ratio",
                ]),
                panel!("Page", "s", [
                    "onionring_loadgen_page_min_seconds" => "{{kind}} least",
                    "onionring_loadgen_page_median_seconds" => "{{kind}} median",
                    "onionring_loadgen_page_p80_seconds" => "{{kind}} 80 %",
                    "onionring_loadgen_page_direct_median_seconds" => "{{kind}} directly, median",
                ]),
            ],
        ),
        (
            "Idle",
            &[
                panel!("Memory per 1,000 links", "bytes", [
                    "onionring_loadgen_rss_bytes_per_1000_links" => "{{scenario}} {{kind}}",
                ]),
                panel!("Memory per 10,000 circuits", "bytes", [
                    "onionring_loadgen_rss_bytes_per_10000_circuits" => "{{scenario}} {{kind}}",
                ]),
            ],
        ),
    ],
};

/// All dashboards.
pub const ALL: &[Dashboard] = &[RELAY, SHARDS, HANDSHAKES, EXIT, DIRECTORY, LOADGEN, AUTHORITY, PROXY];
