//! From what shards count to metrics: off the fast path, where plain numbers become handles and names.

use onionring_node::metrics::{Exporter, Metric, from_zero, table};
use onionring_proto::cell::Command;

use crate::engine::counters::Counters;
use crate::engine::durations::Durations;
use crate::engine::ids::ShardIndex;
use crate::engine::queue::CellPool;
use crate::io::shard::IoCounters;

/// Puts the counters of one shard into the metrics. Called every few seconds, from any thread.
pub fn publish(exporter: &Exporter, shard: ShardIndex, engine: &Counters, io: &IoCounters) {
    let shard = shard.0.to_string();
    let only_shard = [("shard", shard.as_str())];
    let with = |name: &'static str, value: &'static str| [("shard", shard.as_str()), (name, value)];

    table::LINKS.gauge(&only_shard).set(engine.links as f64);
    table::PEERS.gauge(&only_shard).set(engine.peers as f64);
    for (kind, n) in ["client", "relay_in", "relay_out"].into_iter().zip(engine.links_opened) {
        table::LINKS_OPENED.counter(&with("kind", kind)).absolute(n);
    }
    for (reason, n) in from_zero(&known::LINKS_CLOSED, &engine.links_closed) {
        table::LINKS_CLOSED.counter(&with("reason", reason)).absolute(n);
    }
    table::CONNECTIONS_ACCEPTED.counter(&only_shard).absolute(io.accepted);
    table::CONNECTIONS_REFUSED.counter(&only_shard).absolute(io.refused);
    table::CONNECTIONS_NOT_ACCEPTED.counter(&only_shard).absolute(io.accept_errors);
    table::PORTS_EXHAUSTED.counter(&only_shard).absolute(io.ports_exhausted);
    table::CONNECTIONS_DIALED.counter(&only_shard).absolute(engine.dials);
    table::CONNECTIONS_GIVEN_UP.counter(&only_shard).absolute(engine.dials_shed);
    let failed = IoCounters::FAILURES.into_iter().zip(io.tls_failed);
    for (outcome, n) in [("success", io.tls_done), ("shed", io.tls_shed)].into_iter().chain(failed) {
        table::TLS_HANDSHAKES.counter(&with("outcome", outcome)).absolute(n);
    }
    table::LINK_READ_BYTES.counter(&only_shard).absolute(engine.link_bytes_in);
    table::LINK_WRITTEN_BYTES.counter(&only_shard).absolute(engine.link_bytes_out);

    let rates = [
        ("read", table::RATE_LIMIT_READ_REACHED, table::RATE_LIMIT_READ_SECONDS),
        ("write", table::RATE_LIMIT_WRITE_REACHED, table::RATE_LIMIT_WRITE_SECONDS),
    ];
    for ((direction, times, seconds), reached) in rates.into_iter().zip(io.rate_reached) {
        times.counter(&only_shard).absolute(reached.times);
        table::BANDWIDTH_RATE_REACHED.counter(&with("direction", direction)).absolute(reached.all_used_up);
        exporter.set_total(&seconds, &only_shard, reached.time.as_secs_f64());
    }

    // A peer may send any command; those without a name are counted as one.
    let mut unknown = 0;
    for (command, n) in (0..=u8::MAX).map(Command).zip(engine.cells_in).filter(|(_, n)| *n > 0) {
        match command.name() {
            Some(name) => {
                let name = name.to_ascii_lowercase();
                table::CELLS_READ.counter(&[("shard", &shard), ("command", &name)]).absolute(n);
            }
            None => unknown += n,
        }
    }
    table::CELLS_READ.counter(&with("command", "unknown")).absolute(unknown);
    table::CELLS_WRITTEN.counter(&only_shard).absolute(engine.cells_out);
    table::PADDING_CELLS_WRITTEN.counter(&only_shard).absolute(engine.padding_sent);
    let [outbound, inbound] = engine.relayed;
    table::CELLS_RELAYED_OUTBOUND.counter(&only_shard).absolute(outbound);
    table::CELLS_RELAYED_INBOUND.counter(&only_shard).absolute(inbound);
    table::CELLS_RECOGNISED.counter(&only_shard).absolute(engine.recognised);
    for (reason, n) in from_zero(&known::CELLS_IGNORED, &engine.cells_ignored) {
        table::CELLS_IGNORED.counter(&with("reason", reason)).absolute(n);
    }
    table::QUEUED_CELLS.gauge(&only_shard).set(engine.queued_cells as f64);
    table::CROSSED_CELLS.counter(&only_shard).absolute(engine.crossed);

    table::CIRCUITS.gauge(&only_shard).set(engine.circuits as f64);
    for (outcome, kinds) in [("success", &engine.handshakes_done), ("failed", &engine.handshakes_failed)] {
        for (kind, n) in from_zero(&known::HANDSHAKES, kinds) {
            let labels = [("shard", shard.as_str()), ("handshake", kind), ("outcome", outcome)];
            table::CIRCUIT_HANDSHAKES.counter(&labels).absolute(n);
        }
    }
    for (reason, n) in from_zero(&known::HANDSHAKES_REFUSED, &engine.creates_refused) {
        table::CIRCUIT_HANDSHAKES_REFUSED.counter(&with("reason", reason)).absolute(n);
    }
    table::CIRCUIT_HANDSHAKES_SHED.counter(&only_shard).absolute(engine.creates_shed);
    table::CIRCUIT_HANDSHAKES_WAITING.gauge(&only_shard).set(engine.pending_creates as f64);
    for (reason, n) in from_zero(&known::CIRCUITS_CLOSED, &engine.circuits_closed) {
        table::CIRCUITS_CLOSED.counter(&with("reason", reason)).absolute(n);
    }
    table::CIRCUITS_SHED.counter(&only_shard).absolute(engine.circuits_shed);

    table::STREAMS.gauge(&only_shard).set(engine.streams as f64);
    for (kind, n) in ["begin", "begin_dir", "resolve"].into_iter().zip(engine.streams_opened) {
        table::STREAMS_OPENED.counter(&with("kind", kind)).absolute(n);
    }
    for (reason, n) in from_zero(&known::STREAMS_ENDED, &engine.stream_ends) {
        table::STREAMS_ENDED.counter(&with("reason", reason)).absolute(n);
    }

    let queued_bytes = engine.queued_cells * CellPool::BYTES_PER_CELL;
    for (reason, n) in from_zero(&known::DOS_REFUSED, &engine.dos_refused) {
        table::DOS_REFUSED.counter(&with("reason", reason)).absolute(n);
    }
    for (reason, n) in from_zero(&known::DOS_MARKED, &engine.dos_marked) {
        table::DOS_MARKED.counter(&with("reason", reason)).absolute(n);
    }

    table::MEMORY_BYTES.gauge(&with("owner", "circuits")).set(queued_bytes as f64);
    table::MEMORY_BYTES.gauge(&with("owner", "streams")).set(engine.inbox_bytes as f64);
    table::MEMORY_BYTES.gauge(&with("owner", "spare")).set(engine.spare_bytes as f64);
    table::MEMORY_FREED_BYTES.counter(&with("owner", "circuits")).absolute(engine.bytes_shed);

    table::SOCKET_WRITES.counter(&only_shard).absolute(io.writes);
    table::SOCKET_WAITS.counter(&only_shard).absolute(io.writes_held);
    let [open, closed] = engine.windows;
    table::STREAM_WINDOWS_OPEN.counter(&only_shard).absolute(open);
    table::STREAM_WINDOWS_CLOSED.counter(&only_shard).absolute(closed);
    exporter.set_total(&table::SHARD_BUSY_SECONDS, &only_shard, io.busy.as_secs_f64());
    exporter.set_total(&table::SHARD_CPU_SECONDS, &only_shard, io.cpu.as_secs_f64());
    let histogram = |metric: Metric, durations: &Durations| {
        exporter.set_histogram(&metric, &only_shard, durations.counts(), durations.sum().as_secs_f64());
    };
    histogram(table::SHARD_LAG_SECONDS, &io.lag);
    histogram(table::CELL_QUEUE_SECONDS, &engine.queue_delay);
    histogram(table::CIRCUIT_HANDSHAKE_WAIT_SECONDS, &engine.create_wait);
    histogram(table::CIRCUIT_HANDSHAKE_WORK_SECONDS, &io.create_work);
    histogram(table::TLS_HANDSHAKE_SECONDS, &io.tls_time);
}

/// Labels to expect of a relay that is used as relays are. What only broken or hostile peers bring about appears when it
/// happens.
mod known {
    pub const DOS_REFUSED: [&str; 4] = ["concurrent_connections", "connects", "circuits", "streams"];
    pub const DOS_MARKED: [&str; 3] = ["connects", "circuits", "queues"];
    pub const LINKS_CLOSED: [&str; 7] =
        ["connection", "handshake_timeout", "idle", "overrun", "dial_shed", "shutdown", "unexpected_cell"];
    pub const CELLS_IGNORED: [&str; 4] =
        ["unknown_circuit", "unknown_stream", "circuit_id_in_use", "stream_id_in_use"];
    pub const HANDSHAKES: [&str; 3] = ["fast", "ntor", "ntor_v3"];
    pub const HANDSHAKES_REFUSED: [&str; 8] = [
        "shed",
        "flood",
        "waited_too_long",
        "circuits_of_link",
        "circuits_of_shard",
        "draining",
        "unknown_onion_key",
        "tap",
    ];
    pub const CIRCUITS_CLOSED: [&str; 14] = [
        "destroyed_by_client_side",
        "destroyed_by_far_side",
        "link_closed",
        "queue_overrun_inbound",
        "queue_overrun_outbound",
        "memory_overrun",
        "crossing_overrun",
        "inbox_overrun",
        "extend_failed",
        "extend_timeout",
        "circuit_ids_exhausted",
        "unrecognised",
        "relay_length",
        "sendme_unexpected",
    ];
    pub const STREAMS_ENDED: [&str; 10] = [
        "misc",
        "resolve_failed",
        "connect_refused",
        "exit_policy",
        "done",
        "timeout",
        "no_route",
        "resource_limit",
        "conn_reset",
        "not_directory",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The metrics of this process are not installed in tests; what this shows is that names, kinds and labels agree
    /// with the table, which debug builds assert.
    #[test]
    fn everything_that_is_published_is_in_the_table_with_its_labels() {
        let mut counters = Counters { cells_in: [1; 256], ..Counters::default() };
        counters.links_closed.insert("idle", 1);
        counters.circuits_closed.insert("requested", 1);
        counters.handshakes_done.insert("ntor", 1);
        counters.handshakes_failed.insert("ntor_v3", 1);
        counters.creates_refused.insert("draining", 1);
        counters.cells_ignored.insert("unknown_stream", 1);
        counters.stream_ends.insert("done", 1);
        publish(&Exporter::detached(), ShardIndex(3), &counters, &IoCounters::default());
    }

    #[test]
    fn shards_count_durations_by_the_bounds_of_the_table() {
        let bounds = Durations::BOUNDS.map(|micros| micros as f64 / 1e6);
        assert_eq!(bounds, table::SHARD_SECONDS);
    }
}
