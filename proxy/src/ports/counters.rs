//! What happens on the ports, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use onionring_proto::torrc::port::ClientKind;

use super::Denied;

/// The numbers of all ports, by what is spoken there.
#[derive(Debug, Default)]
pub struct Counters([PortCounters; ClientKind::ALL.len()]);

impl Counters {
    /// The numbers of all ports of one kind together.
    pub fn of(&self, kind: ClientKind) -> &PortCounters {
        match kind {
            ClientKind::Socks => &self.0[0],
            ClientKind::Http => &self.0[1],
            ClientKind::Dns => &self.0[2],
            ClientKind::Transparent => &self.0[3],
        }
    }
}

/// The numbers of one kind of port.
#[derive(Debug, Default)]
pub struct PortCounters {
    accepted: AtomicU64,
    open: AtomicU64,
    turned_away: AtomicU64,
    denied: [AtomicU64; Denied::ALL.len()],
    sent: AtomicU64,
    received: AtomicU64,
}

impl PortCounters {
    /// Connections that were taken, or questions of a DNSPort.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Those of them that are still there.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that were closed at once, because there were too many or `SocksPolicy` forbids them.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Requests that were refused for this reason.
    pub fn denied(&self, reason: Denied) -> u64 {
        self.denied[reason.index()].load(Ordering::Relaxed)
    }

    /// Bytes from applications into the network.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes from the network to applications.
    pub fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// A connection was taken; it counts as open until the value is dropped.
    pub(super) fn enter(&self) -> Visit<'_> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Visit(self)
    }

    pub(super) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn deny(&self, reason: Denied) {
        self.denied[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A connection that is open.
pub(super) struct Visit<'a>(&'a PortCounters);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
