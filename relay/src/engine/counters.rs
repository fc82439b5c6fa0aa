//! What a shard counts. Plain numbers, written by one thread: reading them out is the driver's business, off the
//! fast path.

use std::collections::BTreeMap;

use onionring_proto::cell::Command;

use super::durations::Durations;

/// Totals since the start of the shard, and gauges as of the last call of `Engine::counters`.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Gauge: links, those in their handshake included.
    pub links: usize,
    /// Gauge: circuits at home here.
    pub circuits: usize,
    /// Gauge: legs of those circuits.
    pub legs: usize,
    /// Gauge: circuit ids of ours still in use after their circuits.
    pub ids_leaving: usize,
    /// Gauge: peers in this shard's part of the registry.
    pub peers: usize,
    /// Gauge: streams of circuits at home here.
    pub streams: usize,
    /// Gauge: cells waiting to be sent.
    pub queued_cells: usize,
    /// Gauge: bytes held ready for more cells that wait.
    pub spare_bytes: usize,
    /// Gauge: CREATE cells waiting for their public-key work.
    pub pending_creates: usize,
    /// Gauge: bytes of streams waiting for the driver.
    pub inbox_bytes: usize,
    /// Gauge: dials under way.
    pub dials_pending: usize,
    /// Gauge: circuits of all shards that wait for those dials.
    pub seekers: usize,
    /// Gauge: deadlines set.
    pub timers: usize,
    /// Gauge: batches waiting for the rings to other shards.
    pub batches_waiting: usize,
    /// Cells received, by command (index).
    pub cells_in: [u64; 256],
    /// Cells sent from circuits' queues.
    pub cells_out: u64,
    /// How long cells waited in their circuit's queue on a link: of every batch that was taken for a link, the last
    /// cell.
    pub queue_delay: Durations,
    /// Bytes of cells received on links.
    pub link_bytes_in: u64,
    /// Bytes of cells sent on links.
    pub link_bytes_out: u64,
    /// PADDING cells sent.
    pub padding_sent: u64,
    /// Relay cells passed on, away from the client and towards it.
    pub relayed: [u64; 2],
    /// Relay cells recognised here.
    pub recognised: u64,
    /// Cells and messages received from other shards.
    pub crossed: u64,
    /// Links that completed their handshake: with clients, with relays that came to us, with relays we went to.
    pub links_opened: [u64; 3],
    /// Links that relays opened to us over IPv6.
    pub links_from_relays_ipv6: u64,
    /// Links closed, by reason.
    pub links_closed: BTreeMap<&'static str, u64>,
    /// Dials begun.
    pub dials: u64,
    /// Dials given up because too many were under way.
    pub dials_shed: u64,
    /// Circuits created.
    pub circuits_created: u64,
    /// Circuits closed, by what closed them here.
    pub circuits_closed: BTreeMap<&'static str, u64>,
    /// Circuit handshakes answered, by kind.
    pub handshakes_done: BTreeMap<&'static str, u64>,
    /// Circuit handshakes refused, by kind.
    pub handshakes_failed: BTreeMap<&'static str, u64>,
    /// How long circuit handshakes waited for their public-key work.
    pub create_wait: Durations,
    /// CREATE cells refused, by reason.
    pub creates_refused: BTreeMap<&'static str, u64>,
    /// Those of them that were refused because too many were waiting.
    pub creates_shed: u64,
    /// ntor and ntor-v3 handshakes that relays asked for, those of their clients behind them.
    pub relay_ntor: u64,
    /// Those of them that were refused because too many were waiting.
    pub relay_ntor_shed: u64,
    /// Cells that were ignored, by reason.
    pub cells_ignored: BTreeMap<&'static str, u64>,
    /// Circuits closed to free memory.
    pub circuits_shed: u64,
    /// Bytes of cells freed by closing circuits.
    pub bytes_shed: u64,
    /// Streams opened: to the outside, to the directory, look-ups.
    pub streams_opened: [u64; 3],
    /// Bytes from clients for streams, and from streams for clients.
    pub stream_bytes: [u64; 2],
    /// How often the driver asked whether bytes for a client may be sent: and they might, and windows were closed.
    pub windows: [u64; 2],
    /// Streams ended by this side, by END reason.
    pub stream_ends: BTreeMap<&'static str, u64>,
    /// Connections, circuits and streams refused because a client asks for too many, by reason.
    pub dos_refused: BTreeMap<&'static str, u64>,
    /// Clients marked for that, by what they asked for.
    pub dos_marked: BTreeMap<&'static str, u64>,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            links: 0,
            circuits: 0,
            legs: 0,
            ids_leaving: 0,
            peers: 0,
            streams: 0,
            queued_cells: 0,
            spare_bytes: 0,
            pending_creates: 0,
            inbox_bytes: 0,
            dials_pending: 0,
            seekers: 0,
            timers: 0,
            batches_waiting: 0,
            cells_in: [0; 256],
            cells_out: 0,
            queue_delay: Durations::default(),
            link_bytes_in: 0,
            link_bytes_out: 0,
            padding_sent: 0,
            relayed: [0; 2],
            recognised: 0,
            crossed: 0,
            links_opened: [0; 3],
            links_from_relays_ipv6: 0,
            links_closed: BTreeMap::new(),
            dials: 0,
            dials_shed: 0,
            circuits_created: 0,
            circuits_closed: BTreeMap::new(),
            handshakes_done: BTreeMap::new(),
            handshakes_failed: BTreeMap::new(),
            create_wait: Durations::default(),
            creates_refused: BTreeMap::new(),
            creates_shed: 0,
            relay_ntor: 0,
            relay_ntor_shed: 0,
            cells_ignored: BTreeMap::new(),
            circuits_shed: 0,
            bytes_shed: 0,
            streams_opened: [0; 3],
            stream_bytes: [0; 2],
            windows: [0; 2],
            stream_ends: BTreeMap::new(),
            dos_refused: BTreeMap::new(),
            dos_marked: BTreeMap::new(),
        }
    }
}

impl Counters {
    /// Cells received with this command.
    pub fn received(&self, command: Command) -> u64 {
        self.cells_in[usize::from(command.0)]
    }

    pub(super) fn ignored(&mut self, reason: &'static str) {
        *self.cells_ignored.entry(reason).or_default() += 1;
    }

    pub(super) fn handshake(&mut self, kind: &'static str, done: bool) {
        let table = if done { &mut self.handshakes_done } else { &mut self.handshakes_failed };
        *table.entry(kind).or_default() += 1;
    }
}
