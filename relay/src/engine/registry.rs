//! Which link leads to a peer: the part of that table that belongs to one shard.
//!
//! A peer's entry lives on the shard that [`super::ids::HomeRule::registrar`] names. That shard also dials, so that
//! circuits of all shards that want the same peer at once share one connection.
//!
//! Clients name the identities and addresses that a circuit is to be extended to, and may lie. So a dial is shared only
//! by those who would have dialed the same way, and there can be several to one peer (C tor's `channel_get_for_extend`
//! judges alike): whoever sends us to a wrong address, or asks for a wrong identity, waits for that alone.

use std::cmp::Reverse;
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
/// Ed25519 identity of a peer.
type EdId = [u8; 32];

/// The registry of one shard.
///
/// Invariant: the dials of all `peers` are exactly those in `dials`; no peer is without links and dials.
pub(super) struct Registry {
    peers: HashMap<RsaId, Peer, HomeRule>,
    dials: BTreeMap<DialId, Dial>,
    next_dial: u64,
}

#[derive(Default)]
struct Peer {
    links: Vec<(LinkId, Arc<LinkFacts>)>,
    /// In the order in which they began.
    dials: Vec<DialId>,
}

struct Dial {
    rsa_id: RsaId,
    ed_id: Option<EdId>,
    addresses: Vec<SocketAddr>,
    /// It goes where the consensus says that the peer is.
    listed: bool,
    /// The link of the circuit that asked for it.
    source: LinkId,
    /// The link that it led to, whose handshake is under way.
    link: Option<LinkId>,
    /// Who waits, each with the Ed25519 identity it needs.
    waiters: BTreeMap<Seeker, Option<EdId>>,
}

impl Dial {
    /// Whether it will do for `ask`: it demands no identity, and tries no address, that `ask` does not name.
    fn suits(&self, ask: &FindLink) -> bool {
        (self.ed_id.is_none() || self.ed_id == ask.ed_id)
            && self.addresses.iter().all(|address| ask.addresses.contains(address))
    }
}

/// What the registry asks its shard to do.
pub(super) enum Todo {
    /// Tell the shard that asked.
    Tell(ShardIndex, Message),
    /// Open a connection.
    Dial { dial: DialId, addresses: Vec<SocketAddr>, rsa_id: RsaId, ed_id: Option<EdId> },
    /// Stop trying, and close the link if it came to one.
    GiveUp { dial: DialId, link: Option<LinkId> },
}

impl Registry {
    pub(super) fn new(hasher: HomeRule) -> Self {
        Registry { peers: HashMap::with_hasher(hasher), dials: BTreeMap::new(), next_dial: 0 }
    }

    /// Answers a search: with an open link at once, or after a dial that all who ask alike meanwhile share.
    pub(super) fn find(&mut self, ask: FindLink, todo: &mut Vec<Todo>) {
        let peer = self.peers.get(&ask.rsa_id);
        if let Some((link, facts)) = peer.and_then(|peer| peer.best(ask.ed_id)) {
            return todo.push(found(ask.seeker, link, facts));
        }
        if ask.addresses.is_empty() {
            return todo.push(failed(ask.seeker, DestroyReason::ConnectFailed));
        }
        let under_way = peer.map(|peer| peer.dials.as_slice()).unwrap_or_default();
        let suits = |dial: &&DialId| self.dials.get(dial).is_some_and(|dial| dial.suits(&ask));
        if let Some(dial) = under_way.iter().find(suits).and_then(|dial| self.dials.get_mut(dial)) {
            if dial.waiters.len() < limits::WAITERS_PER_DIAL {
                dial.waiters.insert(ask.seeker, ask.ed_id);
            } else {
                todo.push(failed(ask.seeker, DestroyReason::ResourceLimit));
            }
            return;
        }
        self.make_room(&ask, todo);
        let id = DialId(self.next_dial);
        self.next_dial += 1;
        let FindLink { seeker, rsa_id, ed_id, addresses, listed, source } = ask;
        self.peers.entry(rsa_id).or_default().dials.push(id);
        todo.push(Todo::Dial { dial: id, addresses: addresses.clone(), rsa_id, ed_id });
        let waiters = BTreeMap::from([(seeker, ed_id)]);
        self.dials.insert(id, Dial { rsa_id, ed_id, addresses, listed, source, link: None, waiters });
    }

    /// Gives up what stands in the way of one dial more.
    fn make_room(&mut self, ask: &FindLink, todo: &mut Vec<Todo>) {
        if !ask.listed {
            let here = self.peers.get(&ask.rsa_id).map(|peer| peer.dials.as_slice()).unwrap_or_default();
            let unlisted = here.iter().filter_map(|id| Some((*id, self.dials.get(id)?)));
            let unlisted = unlisted.filter(|(_, dial)| !dial.listed);
            if unlisted.clone().count() >= limits::UNLISTED_DIALS_PER_PEER {
                self.shed(oldest_of_greediest(unlisted), todo);
            }
        }
        if self.dials.len() >= limits::DIALS_PER_SHARD {
            self.shed(oldest_of_greediest(self.dials.iter().map(|(id, dial)| (*id, dial))), todo);
        }
    }

    fn shed(&mut self, dial: Option<DialId>, todo: &mut Vec<Todo>) {
        let Some((id, dial)) = dial.and_then(|id| Some((id, self.dials.get(&id)?))) else { return };
        todo.push(Todo::GiveUp { dial: id, link: dial.link });
        self.dial_failed(id, DestroyReason::ResourceLimit, todo);
    }

    /// The circuit does not wait any more.
    pub(super) fn stop(&mut self, seeker: Seeker, rsa_id: &RsaId) {
        let dials = self.peers.get(rsa_id).map(|peer| peer.dials.as_slice()).unwrap_or_default();
        for id in dials {
            if let Some(dial) = self.dials.get_mut(id) {
                dial.waiters.remove(&seeker);
            }
        }
    }

    /// A dial led to a connection: the identities that it is meant for; `None` if the dial is over.
    pub(super) fn dial_connected(&mut self, dial: DialId, link: LinkId) -> Option<(RsaId, Option<EdId>)> {
        let dial = self.dials.get_mut(&dial)?;
        dial.link = Some(link);
        Some((dial.rsa_id, dial.ed_id))
    }

    /// A dial ended without a link.
    pub(super) fn dial_failed(&mut self, id: DialId, reason: DestroyReason, todo: &mut Vec<Todo>) {
        let Some(dial) = self.dials.remove(&id) else { return };
        todo.extend(dial.waiters.keys().map(|seeker| failed(*seeker, reason)));
        if let Some(peer) = self.peers.get_mut(&dial.rsa_id) {
            peer.dials.retain(|other| *other != id);
        }
        self.forget_if_unused(&dial.rsa_id);
    }

    /// A link to a peer that proved its identity opened, by whoever's initiative: those who wait for the peer get it.
    /// A dial still under way goes on; its link will find nobody waiting, and idle out.
    pub(super) fn opened(&mut self, link: LinkId, facts: Arc<LinkFacts>, todo: &mut Vec<Todo>) {
        let Some(identity) = &facts.peer else { return };
        let peer = self.peers.entry(identity.rsa_id).or_default();
        if peer.links.len() >= limits::LINKS_PER_PEER {
            return;
        }
        peer.links.push((link, facts));
        for id in &peer.dials {
            let Some(dial) = self.dials.get_mut(id) else { continue };
            dial.waiters.retain(|seeker, ed_id| match peer.best(*ed_id) {
                Some((link, facts)) => {
                    todo.push(found(*seeker, link, facts));
                    false
                }
                None => true,
            });
        }
    }

    /// The dial led to a link that has been reported by [`Registry::opened`]. Whoever still waits wanted another
    /// Ed25519 identity than the peer has, and hears what C tor says then.
    pub(super) fn dial_done(&mut self, dial: DialId, todo: &mut Vec<Todo>) {
        self.dial_failed(dial, DestroyReason::ChannelClosed, todo);
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

    /// Circuits that wait for them.
    pub(super) fn waiters(&self) -> usize {
        self.dials.values().map(|dial| dial.waiters.len()).sum()
    }

    /// Peers with an open link or a dial under way.
    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    fn forget_if_unused(&mut self, rsa_id: &RsaId) {
        if self.peers.get(rsa_id).is_some_and(|peer| peer.links.is_empty() && peer.dials.is_empty()) {
            self.peers.remove(rsa_id);
        }
    }
}

/// Of dials in the order in which they began, the first of the link that asked for most of them.
fn oldest_of_greediest<'a>(dials: impl Iterator<Item = (DialId, &'a Dial)>) -> Option<DialId> {
    let mut by_source: BTreeMap<LinkId, (usize, Reverse<DialId>)> = BTreeMap::new();
    for (id, dial) in dials {
        by_source.entry(dial.source).or_insert((0, Reverse(id))).0 += 1;
    }
    by_source.into_values().max().map(|(_, Reverse(oldest))| oldest)
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
