//! What shards say to each other: cells and small messages, gathered into one batch per destination.
//!
//! Order is kept per pair of shards, so a CREATE2 never overtakes, nor is overtaken by, what belongs to its circuit.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use onionring_proto::cell::{Body, Command, DestroyReason};

use super::ids::{CircuitId, Leg, LinkId, ShardIndex};
use super::link::LinkFacts;
use crate::limits;

/// One item of a batch.
#[derive(Debug)]
pub enum Cross {
    /// A cell from a link, on its way to the circuit's home.
    Inward(Leg, Command),
    /// A cell from a circuit's home, on its way to a link, ready to send.
    Outward(Leg, Command),
    /// Everything rare.
    Message(Box<Message>),
}

/// A message that is not a cell.
#[derive(Debug)]
pub enum Message {
    /// Link to home: a CREATE2 or CREATE_FAST came in.
    Create {
        /// Where.
        leg: Leg,
        /// CREATE2 or CREATE_FAST.
        command: Command,
        /// Its body.
        body: Box<Body>,
        /// The link it came on.
        facts: Arc<LinkFacts>,
        /// The client asks for too many.
        flood: bool,
        /// The link has all the circuits it may have.
        link_full: bool,
    },
    /// Link to home: the peer destroyed the circuit.
    Destroyed(Leg),
    /// Link to home: the cells of this leg found no more room.
    Overrun(Leg, Overrun),
    /// Link to home: so many cells wait for this leg, towards the client, that the circuit's streams are not to be read.
    QueueHigh(Leg),
    /// Link to home: few enough are left.
    QueueLow(Leg),
    /// Home to link: destroy the circuit at the peer and drop what still waits for it.
    Destroy(Leg, DestroyReason),
    /// Link to home: the peer has been told that the circuit is over, or need not be told; the id may be used again.
    Free(Leg),
    /// Home to link: the peer does not get the circuit that it asked for.
    Refuse(Leg, DestroyReason),
    /// Home to link: a circuit runs over this leg now.
    Joined(Leg),
    /// Home to link: no circuit runs over this leg any more; what still waits for it is dropped.
    Left(Leg),
    /// Home to link: a circuit of this link went on beyond the relay.
    Extended(LinkId),
    /// Link to everyone: the link is gone, and its circuits with it.
    LinkClosed(LinkId),
    /// Home to registrar: which link leads to this peer?
    FindLink(FindLink),
    /// Home to registrar: the search for a link to the peer with this RSA identity is over.
    StopSeeking(Seeker, [u8; 20]),
    /// Registrar to home: this one.
    LinkFound {
        /// Who asked.
        seeker: Seeker,
        /// The link.
        link: LinkId,
        /// What is known of it.
        facts: Arc<LinkFacts>,
    },
    /// Registrar to home: none, for this reason.
    LinkFailed {
        /// Who asked.
        seeker: Seeker,
        /// What to close the circuit with.
        reason: DestroyReason,
    },
    /// Link to registrar: a link to an authenticated peer opened.
    LinkOpened(LinkId, Arc<LinkFacts>),
    /// Link to registrar: that link is gone or no longer wanted for new circuits.
    LinkRetired(LinkId, Arc<LinkFacts>),
}

/// What has no more room for a circuit's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// The circuit's queue on a link.
    Queue,
    /// The memory for all that waits.
    Memory,
    /// The way to another shard.
    Crossing,
}

/// One attempt to extend a circuit, which looks for a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seeker {
    /// The circuit's home.
    pub home: ShardIndex,
    /// The circuit.
    pub circuit: CircuitId,
    /// Tells the attempt from earlier ones of the same circuit, which a TRUNCATE cut short.
    pub attempt: u32,
}

/// A search for a link to a peer.
#[derive(Debug)]
pub struct FindLink {
    /// Who asks.
    pub seeker: Seeker,
    /// RSA identity of the peer.
    pub rsa_id: [u8; 20],
    /// Ed25519 identity of the peer, if known.
    pub ed_id: Option<[u8; 32]>,
    /// Where to dial if no link is open.
    pub addresses: Vec<SocketAddr>,
    /// Whether that is where the consensus says that this peer is.
    pub listed: bool,
    /// The link that the circuit came on, which answers for the dial.
    pub source: LinkId,
}

/// A batch on its way to another shard. Its memory goes back to the sender when it has been read.
///
/// Bodies lie apart from what is to be done with them, so that each is copied once, from where the cell was, and worked
/// on where it then lies.
#[derive(Debug)]
pub struct Batch {
    pub(super) items: Vec<Cross>,
    /// One for each item that is a cell, in order.
    pub(super) bodies: Vec<Body>,
}

impl Batch {
    /// Memory that a batch takes, whatever is in it.
    pub const BYTES: usize = limits::CROSSING_BATCH * (size_of::<Cross>() + size_of::<Body>());

    fn new() -> Self {
        Batch {
            items: Vec::with_capacity(limits::CROSSING_BATCH),
            bodies: Vec::with_capacity(limits::CROSSING_BATCH),
        }
    }

    /// How many cells it has.
    pub fn cells(&self) -> usize {
        self.bodies.len()
    }

    /// How many cells and messages it has.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn clear(&mut self) {
        self.items.clear();
        self.bodies.clear();
    }
}

/// Batches under way from one shard to the others.
pub(super) struct Outgoing {
    lanes: Vec<VecDeque<Batch>>,
    spare: Vec<Batch>,
}

impl Outgoing {
    pub(super) fn new(shards: u16) -> Self {
        Outgoing { lanes: (0..shards).map(|_| VecDeque::new()).collect(), spare: Vec::new() }
    }

    /// Appends a cell, or says `false` when the other shard is hopelessly far behind: [`Outgoing::congested`] stops
    /// what this shard reads, but not what others send through it.
    #[must_use]
    pub(super) fn push_cell(&mut self, to: ShardIndex, item: Cross, body: &Body) -> bool {
        let fits = self.lanes[usize::from(to.0)].len() <= limits::CROSSING_LIMIT;
        if fits {
            let batch = self.batch(to);
            batch.items.push(item);
            batch.bodies.extend_from_slice(std::slice::from_ref(body));
        }
        fits
    }

    /// Appends a message. What peers can cause at will, CREATE and DESTROY and the answers, is no more than the cells
    /// read, and so stops with the reading; so do high and low marks, between which cells lie; of other messages there are no
    /// more than circuits and links.
    pub(super) fn push(&mut self, to: ShardIndex, message: Message) {
        self.batch(to).items.push(Cross::Message(Box::new(message)));
    }

    /// The batch that the next item goes into.
    fn batch(&mut self, to: ShardIndex) -> &mut Batch {
        let lane = &mut self.lanes[usize::from(to.0)];
        if lane.back().is_none_or(|batch| batch.len() >= limits::CROSSING_BATCH) {
            lane.push_back(self.spare.pop().unwrap_or_else(Batch::new));
        }
        let last = lane.len() - 1;
        &mut lane[last]
    }

    /// The next batch to send to `to`.
    pub(super) fn take(&mut self, to: ShardIndex) -> Option<Batch> {
        self.lanes[usize::from(to.0)].pop_front()
    }

    /// Puts back a batch that did not fit into the ring, ahead of the others.
    pub(super) fn put_back(&mut self, to: ShardIndex, batch: Batch) {
        self.lanes[usize::from(to.0)].push_front(batch);
    }

    /// Takes back the memory of a batch that has been read.
    pub(super) fn recycle(&mut self, mut batch: Batch) {
        if self.spare.len() < limits::CROSSING_BACKLOG {
            batch.clear();
            self.spare.push(batch);
        }
    }

    /// Batches waiting for all rings.
    pub(super) fn waiting(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// Whether some shard is too far behind.
    pub(super) fn congested(&self) -> bool {
        self.lanes.iter().any(|lane| lane.len() > limits::CROSSING_BACKLOG)
    }
}
