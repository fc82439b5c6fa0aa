//! From what shards count to metrics: off the fast path, where plain numbers become handles and names.

use std::time::{Duration, Instant};

use onionring_node::metrics::table;
use onionring_proto::cell::Command;

use crate::engine::counters::Counters;
use crate::engine::ids::ShardIndex;
use crate::engine::queue::CellPool;
use crate::io::shard::IoCounters;

/// Puts the counters of one shard into the metrics. Called every few seconds, from any thread.
pub fn publish(shard: ShardIndex, engine: &Counters, io: &IoCounters) {
    let shard = shard.0.to_string();
    let only_shard = [("shard", shard.as_str())];
    let with = |name: &'static str, value: &'static str| [("shard", shard.as_str()), (name, value)];

    table::LINKS.gauge(&only_shard).set(engine.links as f64);
    table::PEERS.gauge(&only_shard).set(engine.peers as f64);
    for (kind, n) in ["client", "relay_in", "relay_out"].into_iter().zip(engine.links_opened) {
        table::LINKS_OPENED.counter(&with("kind", kind)).absolute(n);
    }
    for (reason, n) in &engine.links_closed {
        table::LINKS_CLOSED.counter(&with("reason", reason)).absolute(*n);
    }
    table::CONNECTIONS_ACCEPTED.counter(&only_shard).absolute(io.accepted);
    table::CONNECTIONS_NOT_ACCEPTED.counter(&only_shard).absolute(io.accept_errors);
    table::CONNECTIONS_DIALED.counter(&only_shard).absolute(engine.dials);
    table::CONNECTIONS_GIVEN_UP.counter(&only_shard).absolute(engine.dials_shed);
    let failed = IoCounters::FAILURES.into_iter().zip(io.tls_failed);
    for (outcome, n) in [("success", io.tls_done), ("shed", io.tls_shed)].into_iter().chain(failed) {
        table::TLS_HANDSHAKES.counter(&with("outcome", outcome)).absolute(n);
    }
    table::LINK_READ_BYTES.counter(&only_shard).absolute(engine.link_bytes_in);
    table::LINK_WRITTEN_BYTES.counter(&only_shard).absolute(engine.link_bytes_out);

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
    for (reason, n) in &engine.cells_ignored {
        table::CELLS_IGNORED.counter(&with("reason", reason)).absolute(*n);
    }
    table::QUEUED_CELLS.gauge(&only_shard).set(engine.queued_cells as f64);
    table::CROSSED_CELLS.counter(&only_shard).absolute(engine.crossed);

    table::CIRCUITS.gauge(&only_shard).set(engine.circuits as f64);
    for (outcome, kinds) in [("success", &engine.handshakes_done), ("failed", &engine.handshakes_failed)] {
        for (kind, n) in kinds {
            let labels = [("shard", shard.as_str()), ("handshake", kind), ("outcome", outcome)];
            table::CIRCUIT_HANDSHAKES.counter(&labels).absolute(*n);
        }
    }
    for (reason, n) in &engine.creates_refused {
        table::CIRCUIT_HANDSHAKES_REFUSED.counter(&with("reason", reason)).absolute(*n);
    }
    table::CIRCUIT_HANDSHAKES_SHED.counter(&only_shard).absolute(engine.creates_shed);
    table::CIRCUIT_HANDSHAKES_WAITING.gauge(&only_shard).set(engine.pending_creates as f64);
    for (reason, n) in &engine.circuits_closed {
        table::CIRCUITS_CLOSED.counter(&with("reason", reason)).absolute(*n);
    }
    table::CIRCUITS_SHED.counter(&only_shard).absolute(engine.circuits_shed);

    table::STREAMS.gauge(&only_shard).set(engine.streams as f64);
    for (kind, n) in ["begin", "begin_dir", "resolve"].into_iter().zip(engine.streams_opened) {
        table::STREAMS_OPENED.counter(&with("kind", kind)).absolute(n);
    }
    for (reason, n) in &engine.stream_ends {
        table::STREAMS_ENDED.counter(&with("reason", reason)).absolute(*n);
    }

    let queued_bytes = engine.queued_cells * CellPool::BYTES_PER_CELL;
    table::MEMORY_BYTES.gauge(&with("owner", "circuits")).set(queued_bytes as f64);
    table::MEMORY_BYTES.gauge(&with("owner", "streams")).set(engine.inbox_bytes as f64);
    table::MEMORY_FREED_BYTES.counter(&with("owner", "circuits")).absolute(engine.bytes_shed);
}

/// Measures the shard it runs on, once a second and for ever: how busy its thread is and how late its timers fire.
pub async fn pulse(shard: ShardIndex) {
    let shard = shard.0.to_string();
    let busy_seconds = table::SHARD_BUSY_SECONDS.counter(&[("shard", &shard)]);
    let lag = table::SHARD_LAG_SECONDS.histogram(&[("shard", &shard)]);
    let mut busy = Duration::ZERO;
    loop {
        let started = Instant::now();
        glommio::timer::sleep(PULSE).await;
        lag.record(started.elapsed().saturating_sub(PULSE));
        // What the executor tells is what was added since it was asked last.
        busy += glommio::executor().executor_stats().total_runtime();
        busy_seconds.absolute(busy.as_secs());
    }
}

const PULSE: Duration = Duration::from_secs(1);

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
        publish(ShardIndex(3), &counters, &IoCounters::default());
    }
}
