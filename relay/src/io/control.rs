//! What the control side says to a shard, from any thread.

use std::sync::Arc;

use crossbeam::channel::{self, Receiver, Sender};
use onionring_node::tls::Acceptor;

use super::bell::Bell;
use super::shard::IoCounters;
use crate::engine::counters::Counters;
use crate::engine::ids::ShardIndex;
use crate::engine::snapshot::Snapshot;

/// A message to a shard.
pub enum Control {
    /// New keys, parameters and knowledge of the network, with the TLS side that shows the certificate which the
    /// snapshot's link identity was made for.
    Snapshot(Arc<Snapshot>, Acceptor),
    /// The shard's share of the memory for waiting cells, in bytes.
    QueueBytes(usize),
    /// Report the counters.
    Counters(Sender<(ShardIndex, Box<(Counters, IoCounters)>)>),
    /// Accept no more links and circuits.
    Drain,
    /// Close all links, then end.
    Stop,
}

/// One shard, as seen from other threads.
#[derive(Clone)]
pub struct ShardHandle {
    messages: Sender<Control>,
    bell: Arc<Bell>,
}

impl ShardHandle {
    /// Tells the shard. A shard that has ended hears nothing.
    pub fn send(&self, message: Control) {
        if self.messages.send(message).is_ok() {
            self.bell.ring();
        }
    }
}

/// Both ends of a shard's mailbox; its messages are few, so it is not bounded.
pub(super) fn mailbox(bell: Arc<Bell>) -> (ShardHandle, Mailbox) {
    let (messages, received) = channel::unbounded();
    (ShardHandle { messages, bell: bell.clone() }, Mailbox { received, bell })
}

/// The shard's end.
pub(super) struct Mailbox {
    pub(super) received: Receiver<Control>,
    pub(super) bell: Arc<Bell>,
}
