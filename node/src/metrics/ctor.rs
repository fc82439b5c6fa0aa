//! Our metrics under the names of C tor's MetricsPort.
//!
//! C tor 0.4.9 has 24 `tor_relay_*` families. Existing dashboards and alerts read them, quirks included: some gauges end
//! in `_total`, and one family has a sample without the label its other samples have. They are a view: each sample is
//! the sum of some of our own, so nothing is counted twice and the two pages cannot disagree.

use super::page::Page;
use super::table;
use std::fmt::Write;

/// A family of C tor's.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: &'static [Sample],
}

/// One line of a family: its labels as they are printed, and the samples of ours that add up to it.
struct Sample {
    labels: &'static str,
    parts: &'static [Part],
}

/// All samples of one of our metrics that have these label values.
struct Part {
    metric: &'static str,
    labels: &'static [(&'static str, &'static str)],
}

macro_rules! sample {
    ($labels:literal $(= $($metric:ident [$($name:literal $value:literal),*])|+)?) => {
        Sample {
            labels: $labels,
            parts: &[$($(Part { metric: table::$metric.name, labels: &[$(($name, $value)),*] }),+)?],
        }
    };
}

macro_rules! families {
    ($($name:literal $kind:literal $help:literal {
        $($labels:literal $(= $($metric:ident [$($n:literal $v:literal),*])|+)?;)*
    })*) => {
        const FAMILIES: &[Family] = &[$(Family {
            name: $name,
            kind: $kind,
            help: $help,
            samples: &[$(sample!($labels $(= $($metric [$($n $v),*])|+)?)),*],
        }),*];
    };
}

// A line without `=` is always 0: this program has no such thing (yet), and dashboards expect the line.
families! {
    "tor_relay_load_oom_bytes_total" "counter" "Bytes freed because memory ran short, by subsystem" {
        "subsys=\"cell\"" = MEMORY_FREED_BYTES["owner" "circuits"];
        "subsys=\"dns\"";
        "subsys=\"geoip\"";
        "subsys=\"hsdir\"";
    }
    "tor_relay_load_onionskins_total" "counter" "Onionskins processed and dropped, by handshake" {
        // Those dropped are not told apart by kind here; nearly all handshakes of today's clients are ntor's kinds.
        "type=\"tap\",action=\"processed\"";
        "type=\"tap\",action=\"dropped\"";
        "type=\"fast\",action=\"processed\"" = CIRCUIT_HANDSHAKES["handshake" "fast", "outcome" "success"];
        "type=\"fast\",action=\"dropped\"";
        "type=\"ntor\",action=\"processed\"" = CIRCUIT_HANDSHAKES["handshake" "ntor", "outcome" "success"];
        "type=\"ntor\",action=\"dropped\"" = CIRCUIT_HANDSHAKES_SHED[];
        "type=\"ntor_v3\",action=\"processed\"" = CIRCUIT_HANDSHAKES["handshake" "ntor_v3", "outcome" "success"];
        "type=\"ntor_v3\",action=\"dropped\"";
    }
    "tor_relay_load_socket_total" "gauge" "Sockets open, and (without label) the most there can be" {
        "state=\"opened\"" = PROCESS_OPEN_FDS[];
        "" = PROCESS_MAX_FDS[];
    }
    "tor_relay_load_global_rate_limit_reached_total" "counter" "Times the configured bandwidth was used up" {
        "side=\"read\"" = BANDWIDTH_RATE_REACHED["direction" "read"];
        "side=\"write\"" = BANDWIDTH_RATE_REACHED["direction" "write"];
    }
    "tor_relay_load_tcp_exhaustion_total" "counter" "Times no local TCP port was left" {
        "" = PORTS_EXHAUSTED[];
    }
    "tor_relay_exit_dns_query_total" "counter" "DNS queries of this relay" {
        "" = DNS_QUERIES[];
    }
    "tor_relay_exit_dns_error_total" "counter" "Outcomes of DNS lookups" {
        "reason=\"success\"" = DNS_LOOKUPS["outcome" "success"];
        "reason=\"format\"" = DNS_LOOKUPS["outcome" "format"];
        "reason=\"serverfailed\"" = DNS_LOOKUPS["outcome" "server_failed"];
        "reason=\"notexist\"" = DNS_LOOKUPS["outcome" "no_such_name"];
        "reason=\"notimpl\"" = DNS_LOOKUPS["outcome" "not_implemented"];
        "reason=\"refused\"" = DNS_LOOKUPS["outcome" "refused"];
        "reason=\"truncated\"";
        "reason=\"unknown\"" = DNS_LOOKUPS["outcome" "unreachable"];
        "reason=\"tor_timeout\"" = DNS_LOOKUPS["outcome" "timeout"];
        "reason=\"shutdown\"";
        "reason=\"cancel\"";
        "reason=\"nodata\"" = DNS_LOOKUPS["outcome" "no_data"];
    }
    "tor_relay_connections" "gauge" "Connections open, by type, direction and address family" {
        // Links are not counted by family or direction; most are IPv4 and accepted.
        "type=\"OR\",direction=\"received\",state=\"opened\",family=\"ipv4\"" = LINKS[];
        "type=\"Exit\",direction=\"initiated\",state=\"opened\",family=\"ipv4\"" = EXIT_CONNECTIONS["family" "ipv4"];
        "type=\"Exit\",direction=\"initiated\",state=\"opened\",family=\"ipv6\"" = EXIT_CONNECTIONS["family" "ipv6"];
    }
    "tor_relay_connections_total" "counter" "Connections made and refused, by type, direction and address family" {
        "type=\"OR\",direction=\"initiated\",state=\"created\",family=\"ipv4\"" = CONNECTIONS_DIALED[];
        "type=\"OR\",direction=\"received\",state=\"created\",family=\"ipv4\"" = CONNECTIONS_ACCEPTED[];
        "type=\"OR\",direction=\"received\",state=\"rejected\",family=\"ipv4\"" = CONNECTIONS_NOT_ACCEPTED[] | CONNECTIONS_REFUSED[] | TLS_HANDSHAKES["outcome" "shed"];
        "type=\"Exit\",direction=\"initiated\",state=\"created\",family=\"ipv4\"" = EXIT_CONNECTS["family" "ipv4"];
        "type=\"Exit\",direction=\"initiated\",state=\"created\",family=\"ipv6\"" = EXIT_CONNECTS["family" "ipv6"];
    }
    "tor_relay_streams_total" "counter" "Requests for streams, by kind" {
        "type=\"BEGIN\"" = STREAMS_OPENED["kind" "begin"];
        "type=\"BEGIN_DIR\"" = STREAMS_OPENED["kind" "begin_dir"];
        "type=\"RESOLVE\"" = STREAMS_OPENED["kind" "resolve"];
    }
    "tor_relay_circuits_total" "gauge" "Circuits open" {
        "state=\"opened\"" = CIRCUITS[];
    }
    "tor_relay_traffic_bytes" "counter" "Bytes read and written on links" {
        "direction=\"read\"" = LINK_READ_BYTES[];
        "direction=\"written\"" = LINK_WRITTEN_BYTES[];
    }
    "tor_relay_flag" "gauge" "Flags the consensus gives this relay" {
        "type=\"Fast\"" = RELAY_FLAG["flag" "Fast"];
        "type=\"Exit\"" = RELAY_FLAG["flag" "Exit"];
        "type=\"Authority\"" = RELAY_FLAG["flag" "Authority"];
        "type=\"Stable\"" = RELAY_FLAG["flag" "Stable"];
        "type=\"HSDir\"" = RELAY_FLAG["flag" "HSDir"];
        "type=\"Running\"" = RELAY_FLAG["flag" "Running"];
        "type=\"V2Dir\"" = RELAY_FLAG["flag" "V2Dir"];
        "type=\"Sybil\"" = RELAY_FLAG["flag" "Sybil"];
        "type=\"Guard\"" = RELAY_FLAG["flag" "Guard"];
    }
    "tor_relay_congestion_control_total" "counter" "Congestion control events" {
        "state=\"starvation\",action=\"rtt_reset\"";
        "state=\"clock_stalls\",action=\"rtt_skipped\"";
        "state=\"flow_control\",action=\"xoff_num_sent\"";
        "state=\"flow_control\",action=\"xon_num_sent\"";
        "state=\"cc_limits\",action=\"above_delta\"";
        "state=\"cc_limits\",action=\"above_ss_cwnd_max\"";
        "state=\"cc_limits\",action=\"below_ss_inc_floor\"";
        "state=\"cc_circuits\",action=\"circs_created\"";
        "state=\"cc_circuits\",action=\"circs_closed\"";
        "state=\"cc_circuits\",action=\"circs_exited_ss\"";
    }
    "tor_relay_congestion_control" "gauge" "Congestion control averages" {
        "state=\"slow_start_exit\",action=\"cwnd\"";
        "state=\"slow_start_exit\",action=\"bdp\"";
        "state=\"slow_start_exit\",action=\"inc\"";
        "state=\"on_circ_close\",action=\"cwnd\"";
        "state=\"on_circ_close\",action=\"ss_cwnd\"";
        "state=\"buffers\",action=\"xon_outbuf\"";
        "state=\"buffers\",action=\"xoff_outbuf\"";
        "state=\"cc_backoff\",action=\"chan_blocked_pct\"";
        "state=\"cc_backoff\",action=\"gamma_drop\"";
        "state=\"cc_backoff\",action=\"delta_drop\"";
        "state=\"cc_backoff\",action=\"ss_chan_blocked_pct\"";
        "state=\"cc_cwnd_update\",action=\"alpha_pct\"";
        "state=\"cc_cwnd_update\",action=\"beta_pct\"";
        "state=\"cc_cwnd_update\",action=\"delta_pct\"";
        "state=\"cc_estimates\",action=\"ss_queue\"";
        "state=\"cc_estimates\",action=\"queue\"";
        "state=\"cc_estimates\",action=\"bdp\"";
    }
    "tor_relay_dos_total" "counter" "Refusals as a defence against floods" {
        "type=\"circuit_rejected\"" = DOS_REFUSED["reason" "circuits"];
        "type=\"circuit_killed_max_cell\"" = CIRCUITS_CLOSED["reason" "queue_overrun_inbound"]
            | CIRCUITS_CLOSED["reason" "queue_overrun_outbound"];
        "type=\"circuit_killed_max_cell_outq\"" = CIRCUITS_CLOSED["reason" "queue_overrun_outbound"];
        "type=\"marked_address\"" = DOS_MARKED["reason" "circuits"];
        "type=\"marked_address_maxq\"" = DOS_MARKED["reason" "queues"];
        "type=\"conn_rejected\"" = DOS_REFUSED["reason" "connects"];
        "type=\"concurrent_conn_rejected\"" = DOS_REFUSED["reason" "concurrent_connections"];
        "type=\"single_hop_refused\"";
        "type=\"introduce2_rejected\"";
        "type=\"stream_rejected\"" = DOS_REFUSED["reason" "streams"];
    }
    "tor_relay_signing_cert_expiry_timestamp" "gauge" "When the signing key's certificate expires" {
        "" = KEY_EXPIRY["key" "signing"];
    }
    "tor_relay_est_rend_total" "counter" "ESTABLISH_RENDEZVOUS messages" {
        "action=\"success\"";
        "action=\"unsuitable_circuit\"";
        "action=\"single_hop\"";
        "action=\"malformed\"";
        "action=\"duplicate_cookie\"";
        "action=\"circuit_dead\"";
    }
    "tor_relay_est_intro_total" "counter" "ESTABLISH_INTRO messages" {
        "action=\"success\"";
        "action=\"malformed\"";
        "action=\"unsuitable_circuit\"";
        "action=\"circuit_dead\"";
    }
    "tor_relay_intro1_total" "counter" "INTRODUCE1 messages" {
        "action=\"success\"";
        "action=\"circuit_dead\"";
        "action=\"malformed\"";
        "action=\"unknown_service\"";
        "action=\"rate_limited\"";
        "action=\"circuit_reused\"";
        "action=\"single_hop\"";
    }
    "tor_relay_rend1_total" "counter" "RENDEZVOUS1 messages" {
        "action=\"success\"";
        "action=\"unsuitable_circuit\"";
        "action=\"malformed\"";
        "action=\"unknown_cookie\"";
        "action=\"circuit_dead\"";
    }
    "tor_relay_destroy_cell_total" "counter" "DESTROY cells received" {
        "" = CELLS_READ["command" "destroy"];
    }
    "tor_relay_circ_proto_violation_total" "counter" "Circuit protocol violations" {
        "" = CIRCUITS_CLOSED["reason" "created_malformed"]
            | CIRCUITS_CLOSED["reason" "circuit_window_overrun"]
            | CIRCUITS_CLOSED["reason" "extend_malformed"]
            | CIRCUITS_CLOSED["reason" "extend_tap"]
            | CIRCUITS_CLOSED["reason" "extend_to_forbidden_address"]
            | CIRCUITS_CLOSED["reason" "extend_to_previous_hop"]
            | CIRCUITS_CLOSED["reason" "relay_length"]
            | CIRCUITS_CLOSED["reason" "second_extend"]
            | CIRCUITS_CLOSED["reason" "sendme_malformed"]
            | CIRCUITS_CLOSED["reason" "sendme_unexpected"]
            | CIRCUITS_CLOSED["reason" "stream_window_overrun"]
            | CIRCUITS_CLOSED["reason" "too_many_relay_early"]
            | CIRCUITS_CLOSED["reason" "truncate_empty"]
            | CIRCUITS_CLOSED["reason" "unexpected_command"]
            | CIRCUITS_CLOSED["reason" "unrecognised"];
    }
    "tor_relay_drop_cell_total" "counter" "DROP messages received" {
        "";
    }
}

/// Renders C tor's families from our own page.
pub fn translate(own: &str) -> String {
    let ours = Page::parse(own);
    let mut page = String::new();
    for family in FAMILIES {
        // Writing to a string cannot fail.
        let _ =
            writeln!(page, "# HELP {} {}\n# TYPE {} {}", family.name, family.help, family.name, family.kind);
        for sample in family.samples {
            let sum: f64 =
                sample.parts.iter().fold(0.0, |sum, part| sum + ours.sum(part.metric, part.labels));
            let _ = match sample.labels {
                "" => writeln!(page, "{} {sum}", family.name),
                labels => writeln!(page, "{}{{{labels}}} {sum}", family.name),
            };
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a stock tor's MetricsPort (0.4.9.11, a relay just started), without values.
    const STOCK: &str = include_str!("ctor_0.4.9.11.txt");

    #[test]
    fn has_the_families_types_and_label_names_of_stock_tor() {
        let page = translate("");
        let types = |page: &str| -> Vec<String> {
            let mut types: Vec<_> =
                page.lines().filter(|l| l.starts_with("# TYPE tor_relay_")).map(str::to_owned).collect();
            types.sort();
            types
        };
        let mut expected = types(STOCK);
        // Shown by a stock relay only once it has its certificate.
        expected.push("# TYPE tor_relay_signing_cert_expiry_timestamp gauge".into());
        expected.sort();
        assert_eq!(types(&page), expected);
        assert_eq!(expected.len(), 24);
    }

    #[test]
    fn every_line_but_those_of_connections_is_there_and_none_is_invented() {
        let series = |page: &str| -> Vec<String> {
            let mut series: Vec<_> = page
                .lines()
                .filter(|l| l.starts_with("tor_relay_") && !l.contains("expiry"))
                .filter_map(|l| Some(l.rsplit_once(' ')?.0.to_owned()))
                .collect();
            series.sort();
            series
        };
        let (ours, stock) = (series(&translate("")), series(STOCK));
        assert_eq!(ours.iter().filter(|s| !stock.contains(s)).collect::<Vec<_>>(), [""; 0]);
        let missing: Vec<_> =
            stock.iter().filter(|s| !ours.contains(s) && !s.starts_with("tor_relay_connections")).collect();
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn sums_over_shards_and_selects_by_label() {
        let own = "# TYPE onionring_streams_opened_total counter\n\
                   onionring_streams_opened_total{shard=\"0\",kind=\"begin\"} 3\n\
                   onionring_streams_opened_total{shard=\"1\",kind=\"begin\"} 4\n\
                   onionring_streams_opened_total{shard=\"1\",kind=\"begin_dir\"} 50\n\
                   onionring_dns_queries_total{shard=\"0\"} 7\n";
        let page = translate(own);
        assert!(page.contains("tor_relay_streams_total{type=\"BEGIN\"} 7\n"), "{page}");
        assert!(page.contains("tor_relay_streams_total{type=\"BEGIN_DIR\"} 50\n"));
        assert!(page.contains("tor_relay_streams_total{type=\"RESOLVE\"} 0\n"));
        assert!(page.contains("tor_relay_exit_dns_query_total 7\n"));
    }

    #[test]
    fn a_queue_away_from_the_client_that_is_full_counts_in_both_lines() {
        let own = "onionring_circuits_closed_total{shard=\"0\",reason=\"queue_overrun_inbound\"} 3\n\
                   onionring_circuits_closed_total{shard=\"1\",reason=\"queue_overrun_outbound\"} 4\n\
                   onionring_circuits_closed_total{shard=\"1\",reason=\"memory_overrun\"} 50\n\
                   onionring_dos_marked_total{shard=\"0\",reason=\"circuits\"} 5\n\
                   onionring_dos_marked_total{shard=\"0\",reason=\"queues\"} 6\n";
        let page = translate(own);
        for (line, value) in [
            ("circuit_killed_max_cell", 7),
            ("circuit_killed_max_cell_outq", 4),
            ("marked_address", 5),
            ("marked_address_maxq", 6),
        ] {
            assert!(page.contains(&format!("tor_relay_dos_total{{type=\"{line}\"}} {value}\n")), "{page}");
        }
    }

    #[test]
    fn connections_refused_as_a_defence_are_not_made() {
        let own = "onionring_connections_accepted_total{shard=\"0\"} 3\n\
                   onionring_connections_not_accepted_total{shard=\"0\"} 4\n\
                   onionring_connections_refused_total{shard=\"0\"} 50\n";
        let page = translate(own);
        for (state, value) in [("created", 3), ("rejected", 54)] {
            let labels = format!("direction=\"received\",state=\"{state}\"");
            assert!(page.lines().any(|line| line.contains(&labels) && line.ends_with(&format!(" {value}"))));
        }
    }

    #[test]
    fn asks_only_for_labels_that_exist() {
        for part in FAMILIES.iter().flat_map(|f| f.samples).flat_map(|s| s.parts) {
            let metric = table::ALL.iter().find(|m| m.name == part.metric);
            for (label, _) in part.labels {
                assert!(
                    metric.is_some_and(|m| m.labels.contains(label)),
                    "{} has no label {label}",
                    part.metric
                );
            }
        }
    }
}
