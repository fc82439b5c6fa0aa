//! Which link leads to a peer: the part of that table that belongs to one shard.
//!
//! A peer's entry lives on the shard that [`super::ids::HomeRule::registrar`] names. That shard also dials, so that
//! circuits of all shards that want the same peer at once share one connection.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use onionring_proto::cell::DestroyReason;

use super::cross::{FindLink, Message, Seeker};
use super::event::DialId;
use super::ids::{HomeRule, LinkId, ShardIndex};
use super::link::LinkFacts;
use crate::limits;

/// RSA identity of a peer.
type RsaId = [u8; 20];

/// The registry of one shard.
pub(super) struct Registry {
    peers: HashMap<RsaId, Peer, HomeRule>,
    dials: BTreeMap<DialId, RsaId>,
    next_dial: u64,
}

#[derive(Default)]
struct Peer {
    links: Vec<(LinkId, Arc<LinkFacts>)>,
    dial: Option<Dial>,
}

struct Dial {
    ed_id: Option<[u8; 32]>,
    /// Who waits, each with the Ed25519 identity it needs.
    waiters: Vec<(Seeker, Option<[u8; 32]>)>,
}

/// What the registry asks its shard to do.
pub(super) enum Todo {
    /// Tell the shard that asked.
    Tell(ShardIndex, Message),
    /// Open a connection.
    Dial { dial: DialId, addresses: Vec<SocketAddr>, rsa_id: RsaId, ed_id: Option<[u8; 32]> },
}

impl Registry {
    pub(super) fn new(hasher: HomeRule) -> Self {
        Registry { peers: HashMap::with_hasher(hasher), dials: BTreeMap::new(), next_dial: 0 }
    }

    /// Answers a search: with an open link at once, or after a dial that all who ask meanwhile share.
    pub(super) fn find(&mut self, ask: FindLink, todo: &mut Vec<Todo>) {
        let dialing = self.dials.len();
        let peer = self.peers.entry(ask.rsa_id).or_default();
        if let Some((link, facts)) = peer.best(ask.ed_id) {
            todo.push(found(ask.seeker, link, facts));
            return;
        }
        if let Some(dial) = &mut peer.dial {
            if dial.waiters.len() < limits::WAITERS_PER_PEER {
                dial.waiters.push((ask.seeker, ask.ed_id));
            } else {
                todo.push(failed(ask.seeker, DestroyReason::ResourceLimit));
            }
            return;
        }
        if ask.addresses.is_empty() || dialing >= limits::DIALS_PER_SHARD {
            let reason = match ask.addresses.is_empty() {
                true => DestroyReason::ConnectFailed,
                false => DestroyReason::ResourceLimit,
            };
            self.forget_if_unused(&ask.rsa_id);
            todo.push(failed(ask.seeker, reason));
            return;
        }
        let id = DialId(self.next_dial);
        self.next_dial += 1;
        peer.dial = Some(Dial { ed_id: ask.ed_id, waiters: vec![(ask.seeker, ask.ed_id)] });
        self.dials.insert(id, ask.rsa_id);
        todo.push(Todo::Dial { dial: id, addresses: ask.addresses, rsa_id: ask.rsa_id, ed_id: ask.ed_id });
    }

    /// The identities that a dial is meant for; `None` once it is over.
    pub(super) fn dial_target(&self, dial: DialId) -> Option<(RsaId, Option<[u8; 32]>)> {
        let rsa_id = self.dials.get(&dial)?;
        Some((*rsa_id, self.peers.get(rsa_id)?.dial.as_ref()?.ed_id))
    }

    /// A dial ended without a link.
    pub(super) fn dial_failed(&mut self, dial: DialId, reason: DestroyReason, todo: &mut Vec<Todo>) {
        let Some(rsa_id) = self.dials.remove(&dial) else { return };
        if let Some(dial) = self.peers.get_mut(&rsa_id).and_then(|peer| peer.dial.take()) {
            todo.extend(dial.waiters.iter().map(|(seeker, _)| failed(*seeker, reason)));
        }
        self.forget_if_unused(&rsa_id);
    }

    /// A link to a peer that proved its identity opened, by whoever's initiative: those who wait for the peer get it.
    /// A dial still under way goes on; its link will find nobody waiting, and idle out.
    pub(super) fn opened(&mut self, link: LinkId, facts: Arc<LinkFacts>, todo: &mut Vec<Todo>) {
        let Some(identity) = &facts.peer else { return };
        let rsa_id = identity.rsa_id;
        let peer = self.peers.entry(rsa_id).or_default();
        if peer.links.len() >= limits::LINKS_PER_PEER {
            return;
        }
        peer.links.push((link, facts));
        let mut still_waiting = Vec::new();
        for (seeker, ed_id) in
            peer.dial.as_mut().map(|dial| std::mem::take(&mut dial.waiters)).unwrap_or_default()
        {
            match peer.best(ed_id) {
                Some((link, facts)) => todo.push(found(seeker, link, facts)),
                None => still_waiting.push((seeker, ed_id)),
            }
        }
        if let Some(dial) = &mut peer.dial {
            dial.waiters = still_waiting;
        }
    }

    /// The dial led to a link that has been reported by [`Registry::opened`]. Whoever still waits wanted another
    /// Ed25519 identity than the peer has.
    pub(super) fn dial_done(&mut self, dial: DialId, todo: &mut Vec<Todo>) {
        self.dial_failed(dial, DestroyReason::OrIdentity, todo);
    }

    /// A link is gone, or takes no new circuits.
    pub(super) fn retired(&mut self, link: LinkId, facts: &LinkFacts) {
        let Some(identity) = &facts.peer else { return };
        if let Some(peer) = self.peers.get_mut(&identity.rsa_id) {
            peer.links.retain(|(other, _)| *other != link);
        }
        self.forget_if_unused(&identity.rsa_id);
    }

    /// Dials under way.
    pub(super) fn dials(&self) -> usize {
        self.dials.len()
    }

    /// Peers with an open link or a dial under way.
    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    fn forget_if_unused(&mut self, rsa_id: &RsaId) {
        if self.peers.get(rsa_id).is_some_and(|peer| peer.links.is_empty() && peer.dial.is_none()) {
            self.peers.remove(rsa_id);
        }
    }
}

impl Peer {
    /// The link for new circuits: a canonical one before others, then the oldest (tor-spec 5.3.1).
    fn best(&self, ed_id: Option<[u8; 32]>) -> Option<(LinkId, Arc<LinkFacts>)> {
        self.links
            .iter()
            .filter(|(_, facts)| {
                let Some(peer) = &facts.peer else { return false };
                ed_id.is_none_or(|wanted| wanted == peer.ed_id)
            })
            .min_by_key(|(_, facts)| (!facts.canonical, facts.opened_at))
            .map(|(link, facts)| (*link, facts.clone()))
    }
}

fn found(seeker: Seeker, link: LinkId, facts: Arc<LinkFacts>) -> Todo {
    Todo::Tell(seeker.home, Message::LinkFound { seeker, link, facts })
}

fn failed(seeker: Seeker, reason: DestroyReason) -> Todo {
    Todo::Tell(seeker.home, Message::LinkFailed { seeker, reason })
}
