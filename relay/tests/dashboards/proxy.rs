//! What is on the dashboard of proxies.

use super::grafana::{Dashboard, Panel};

pub const PROXY: Dashboard = Dashboard {
    file: "proxy.json",
    title: "onionring: proxy",
    anchor: "onionring_proxy_bootstrap_ratio",
    second_row: "Streams",
    stats: &[
        panel!("Up since", "dateTimeFromNow", ["process_start_time_seconds * 1000" => ""]),
        panel!("Version", "none", ["onionring_build_info" => "{{version}}"]),
        panel!("Ready", "percentunit", [
            "min (onionring_proxy_bootstrap_ratio)" => "",
        ]; "How far the slowest has come since its start. It never goes back."),
        panel!("Consensus began", "dateTimeFromNow", [
            "onionring_proxy_consensus_valid_after_timestamp_seconds * 1000" => "",
        ]; "The consensus in use."),
        panel!("Consensus ends", "dateTimeFromNow", [
            "onionring_proxy_consensus_valid_until_timestamp_seconds * 1000" => "",
        ]; "A newer one is fetched before that."),
        panel!("Guards", "short", [
            "min (sum by (instance) (onionring_proxy_guards{kind=\"primary\",state!=\"down\"}))" => "",
        ]; "At which circuits begin, and which are not known to be down, of the proxy that has fewest."),
        panel!("Circuits", "short", ["sum (onionring_proxy_circuits)" => ""]; "Open, those that wait for a stream included."),
        panel!("Streams", "short", ["sum (onionring_proxy_streams)" => ""]; "Open."),
    ],
    traffic: &[
        panel!("Traffic of applications", "Bps", [
            "sum by (instance) (rate(onionring_proxy_stream_read_bytes_total))" => "{{instance}} from the network",
            "sum by (instance) (rate(onionring_proxy_stream_written_bytes_total))" => "{{instance}} to the network",
        ]),
        panel!("Streams opened and refused", "ops", [
            "sum by (instance) (rate(onionring_proxy_streams_opened_total))" => "{{instance}} opened",
            "sum by (instance) (rate(onionring_proxy_streams_refused_total))" => "{{instance}} refused",
        ]),
    ],
    topics: &[
        (
            "Streams and look-ups",
            &[
                panel!("Streams refused, by reason", "ops", [
                    "sum by (reason) (rate(onionring_proxy_streams_refused_total))" => "{{reason}}",
                ]; "What the application was told."),
                panel!("Attempts made again on another circuit", "ops", [
                    "sum by (instance) (rate(onionring_proxy_streams_retried_total))" => "{{instance}}",
                ]; "Of streams and look-ups. Applications only notice the time that it takes."),
                panel!("Look-ups answered", "ops", [
                    "sum by (instance) (rate(onionring_proxy_lookups_answered_total))" => "{{instance}}",
                ]; "Names and addresses that exits were asked about."),
                panel!("Look-ups refused, by reason", "ops", [
                    "sum by (reason) (rate(onionring_proxy_lookups_refused_total))" => "{{reason}}",
                ]),
                panel!("Open streams", "short", [
                    "onionring_proxy_streams" => "{{instance}}",
                ]),
            ],
        ),
        (
            "Circuits",
            &[
                panel!("Circuits built", "ops", [
                    "sum by (instance) (rate(onionring_proxy_circuits_built_total))" => "{{instance}} built",
                    "sum by (instance) (rate(onionring_proxy_circuits_truncated_total))" => "{{instance}} cut and extended",
                ]; "The latter with TruncateCircuits alone."),
                panel!("Circuits not built, by reason", "ops", [
                    "sum by (reason) (rate(onionring_proxy_circuits_failed_total))" => "{{reason}}",
                ]; "Some timeouts are meant to be: circuits that are slower than most are given up."),
                panel!("Time to build a circuit", "s", [
                    "histogram_quantile(0.5, sum by (le) (rate(onionring_proxy_circuit_build_seconds_bucket)))" => "median",
                    "histogram_quantile(0.99, sum by (le) (rate(onionring_proxy_circuit_build_seconds_bucket)))" => "99 %",
                ]; "To the third hop, those given up as too slow included."),
                panel!("Open circuits", "short", [
                    "onionring_proxy_circuits" => "{{instance}}",
                ]),
                panel!("Links", "short", [
                    "onionring_proxy_links" => "{{instance}}",
                ]),
                panel!("Guards", "short", [
                    "sum by (kind, state) (onionring_proxy_guards)" => "{{kind}}, {{state}}",
                ]; "Circuits begin at primary ones. Others take over while these are down; barred ones may not be used now."),
            ],
        ),
        (
            "Directory",
            &[
                panel!("Requests answered", "ops", [
                    "sum by (instance) (rate(onionring_proxy_directory_requests_answered_total))" => "{{instance}}",
                ]),
                panel!("Requests that failed, by reason", "ops", [
                    "sum by (reason) (rate(onionring_proxy_directory_requests_failed_total))" => "{{reason}}",
                ]; "Another directory is asked then."),
                panel!("Answers", "Bps", [
                    "sum by (instance) (rate(onionring_proxy_directory_read_bytes_total))" => "{{instance}}",
                ]; "As compressed."),
                panel!("Time left of the consensus", "s", [
                    "onionring_proxy_consensus_valid_until_timestamp_seconds - time()" => "{{instance}}",
                ]; "Below zero it is no longer valid."),
            ],
        ),
        (
            "Process",
            &[
                panel!("Processor time", "percentunit", [
                    "rate(process_cpu_seconds_total)" => "{{instance}}",
                ]; "Of one core."),
                panel!("Memory", "bytes", [
                    "process_resident_memory_bytes" => "{{instance}}",
                ]),
                panel!("File descriptors", "short", [
                    "process_open_fds" => "{{instance}} in use",
                    "process_max_fds" => "{{instance}} at most",
                ]; "Each connection of an application is one, and each link."),
            ],
        ),
    ],
};
