//! What the authority asks of the others, and tells them.

use std::sync::Arc;
use std::time::Duration;

use onionring_node::directory::answer::Answer;
use onionring_proto::dir::request::DirRequest;
use onionring_proto::netdoc;
use onionring_proto::netdoc::consensus::{Consensus, Flavor};
use onionring_proto::netdoc::routerdesc::{RouterDesc, split_documents};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{debug, error, info, warn};

use super::authority::{Authority, lock};
use super::press::CONSENSUS_MAX;
use super::session::{Errand, Named, clock};
use crate::limits;
use crate::peers::{Peer, PeerError};

/// How long to wait before others are asked for a consensus that we do not have.
const CATCH_UP: Duration = Duration::from_secs(60);
const TESTING_CATCH_UP: Duration = Duration::from_secs(2);

/// Does errands for ever, all at the same time: as many as a round has steps and peers, and one more for each vote that was
/// taken.
pub async fn run(authority: Arc<Authority>, mut errands: UnboundedReceiver<Errand>) {
    while let Some(errand) = errands.recv().await {
        tokio::spawn(authority.clone().go(errand));
    }
}

/// Gets a consensus from others whenever ours is not the newest that there ought to be.
pub async fn keep_up(authority: Arc<Authority>) {
    loop {
        let testing = authority.config.load().authority.testing;
        let pause = if testing { TESTING_CATCH_UP } else { CATCH_UP };
        if authority.is_behind(clock()) {
            authority.clone().catch_up().await;
        }
        // Whoever rings means: after those who have one have had the time to publish it.
        let _ = tokio::time::timeout(10 * pause, authority.behind.notified()).await;
        tokio::time::sleep(pause).await;
    }
}

impl Authority {
    async fn go(self: Arc<Self>, errand: Errand) {
        match errand {
            Errand::MakeVote(period) => {
                blocking(move || match self.make_vote(&period) {
                    Ok(vote) => self.session.take_own_vote(&vote, clock()),
                    Err(error) => error!("our vote cannot be made: {error}"),
                })
                .await;
            }
            Errand::PostVote { to, text } => self.post(&to, "vote", "/tor/post/vote", &text).await,
            Errand::TellVote { to, text } => self.tell(&to, &text).await,
            Errand::PostSignatures { to, text } => {
                self.post(&to, "signatures", "/tor/post/consensus-signature", &text).await;
            }
            Errand::FetchVotes { from, of } => self.fetch_votes(from, &of).await,
            Errand::FetchSignatures { from } => self.fetch_signatures(from).await,
            Errand::Publish { documents, certs } => self.publish(documents, certs).await,
            Errand::CatchUp => self.behind.notify_one(),
            Errand::FetchDescriptors { from, named } => self.fetch_descriptors(from, named).await,
        }
    }

    async fn post(&self, to: &Fingerprint, what: &'static str, path: &str, text: &str) {
        let Some(peer) = self.peer(to) else { return };
        match self.counted(what, peer, peer.post(path, what, text)).await {
            Some(answer) if answer.status == 200 => {
                debug!("{} took our {what}: {}", peer.name, answer.reason)
            }
            Some(answer) => {
                warn!("{} refuses our {what}: {} {}", peer.name, answer.status, answer.reason);
            }
            None => {}
        }
    }

    /// Tells of a vote that is too late to count: it is refused, and looked at.
    async fn tell(&self, to: &Fingerprint, vote: &str) {
        let (Some(peer), what) = (self.peer(to), "evidence") else { return };
        if let Some(answer) = self.counted(what, peer, peer.post("/tor/post/vote", what, vote)).await {
            info!("{} was told of one of two votes of an authority, and says: {}", peer.name, answer.reason);
        }
    }

    async fn fetch_votes(self: Arc<Self>, from: Fingerprint, of: &[Fingerprint]) {
        let list: Vec<String> = of.iter().map(Fingerprint::to_string).collect();
        let path = format!("/tor/status-vote/next/{}", list.join("+"));
        if let Some(votes) = self.fetch(&from, "votes", &path, limits::VOTES).await {
            blocking(move || self.session.take_fetched_votes(&votes, from, clock())).await;
        }
    }

    async fn fetch_signatures(self: Arc<Self>, from: Fingerprint) {
        let path = "/tor/status-vote/next/consensus-signatures";
        if let Some(signatures) = self.fetch(&from, "signatures", path, limits::SIGNATURES).await {
            blocking(move || self.session.take_fetched_signatures(&signatures, from, clock())).await;
        }
    }

    /// What a peer has to say; nothing if that is nothing.
    async fn fetch(
        &self,
        from: &Fingerprint,
        what: &'static str,
        path: &str,
        bytes_max: usize,
    ) -> Option<Vec<u8>> {
        let peer = self.peer(from)?;
        let answer = self.counted(what, peer, peer.get(path, None, bytes_max)).await?;
        if answer.status != 200 {
            debug!("{} has no {what}: {} {}", peer.name, answer.status, answer.reason);
            return None;
        }
        Some(answer.body)
    }

    /// Waits for an answer, and takes note of how the exchange went.
    async fn counted(
        &self,
        what: &'static str,
        peer: &Peer,
        exchange: impl Future<Output = Result<Answer, PeerError>>,
    ) -> Option<Answer> {
        let asked = clock();
        match exchange.await {
            Ok(answer) => {
                self.tallies.exchange(what, if answer.status == 200 { "ok" } else { "refused" });
                if let Some(date) = answer.date {
                    self.tallies.skew(peer.v3_ident, ahead(date, asked, clock()));
                }
                Some(answer)
            }
            Err(error) => {
                self.tallies.exchange(what, error.label());
                warn!("{what} with {}: {error}", peer.name);
                None
            }
        }
    }

    async fn publish(self: Arc<Self>, documents: Vec<(Flavor, String)>, certs: String) {
        let authority = self.clone();
        let published = blocking(move || {
            let now = clock();
            authority.press.add_certs(&certs, now);
            for (flavor, text) in documents {
                match authority.press.take_consensus(&text, flavor, now) {
                    Ok(consensus) => {
                        authority.in_force(&consensus, flavor, now);
                        if flavor == Flavor::Ns {
                            authority.tallies.published();
                        }
                    }
                    Err(error) => error!("the {} consensus is not published: {error}", flavor.name()),
                }
            }
        });
        published.await;
        self.fetch_named().await;
    }

    /// A consensus was put in force.
    fn in_force(&self, consensus: &Consensus, flavor: Flavor, now: Unix) {
        if flavor == Flavor::Ns {
            info!("a new consensus on {} relays is in force", consensus.relays.len());
        }
        // Whoever others list, too, has its place in the store.
        self.directory.uploads().vouch(consensus.relays.iter().map(|relay| &relay.identity));
        self.session.adopt(consensus, now);
    }

    /// Whether there ought to be a consensus newer than ours.
    fn is_behind(&self, now: Unix) -> bool {
        self.press.consensus().is_none_or(|consensus| now > consensus.lifetime.fresh_until)
    }

    /// First with the certificates at hand, and if that is in vain with those that others have.
    async fn catch_up(self: Arc<Self>) {
        if !self.clone().catch_up_from_anybody().await {
            let mut certs = JoinSet::new();
            for peer in self.peers.clone() {
                certs.spawn(self.clone().fetch_certs(peer.v3_ident));
            }
            certs.join_all().await;
            self.clone().catch_up_from_anybody().await;
        }
        self.fetch_named().await;
    }

    async fn fetch_certs(self: Arc<Self>, from: Fingerprint) {
        if let Some(certs) = self.fetch(&from, "certs", "/tor/keys/all", limits::CERTS).await {
            blocking(move || self.press.add_certs(netdoc::text_of(&certs).unwrap_or_default(), clock()))
                .await;
        }
    }

    /// Says whether there is a consensus of both flavours now.
    async fn catch_up_from_anybody(self: Arc<Self>) -> bool {
        let mut all = true;
        for flavor in Flavor::ALL {
            let mut taken = false;
            for peer in &self.peers {
                taken = taken || self.clone().catch_up_from(peer, flavor).await;
            }
            all &= taken;
        }
        all
    }

    /// Gets a consensus from a peer; says whether it was any good.
    async fn catch_up_from(self: Arc<Self>, peer: &Peer, flavor: Flavor) -> bool {
        let path = DirRequest::Consensus { flavor, signers: Vec::new(), at_hand: None }.path();
        let Some(body) = self.fetch(&peer.v3_ident, "consensus", &path, CONSENSUS_MAX).await else {
            return false;
        };
        let name = peer.name.clone();
        let taken = blocking(move || {
            let now = clock();
            let text = netdoc::text_of(&body).unwrap_or_default();
            match self.press.take_consensus(text, flavor, now) {
                Ok(consensus) => {
                    info!("took the {} consensus from {name}", flavor.name());
                    self.in_force(&consensus, flavor, now);
                    true
                }
                Err(error) => {
                    debug!("the consensus of {name} is not taken: {error}");
                    false
                }
            }
        });
        taken.await.unwrap_or(false)
    }

    /// Gets the descriptors that the consensus names and that are not here.
    async fn fetch_named(self: &Arc<Self>) {
        let Some(consensus) = self.press.consensus() else { return };
        let named = consensus.relays.iter().filter_map(|relay| {
            let digest = *relay.descriptor()?;
            Some(Named { identity: relay.identity, digest, published: relay.published })
        });
        let named: Vec<Named> = named.collect();
        for peer in &self.peers {
            self.clone().fetch_descriptors(peer.v3_ident, named.clone()).await;
        }
    }

    async fn fetch_descriptors(self: Arc<Self>, from: Fingerprint, named: Vec<Named>) {
        let wanted = self.wanted(&named);
        for digests in wanted.chunks(limits::DESCRIPTORS_PER_REQUEST).take(limits::DESCRIPTOR_REQUESTS) {
            let path = DirRequest::Descriptors(digests.to_vec()).path();
            let Some(body) = self.fetch(&from, "descriptors", &path, limits::DESCRIPTORS).await else {
                return;
            };
            let authority = self.clone();
            blocking(move || authority.take_descriptors(&body)).await;
        }
    }

    /// Takes descriptors that another authority has. Those that are refused are not asked for again; those that did not come
    /// may be had from the next.
    fn take_descriptors(&self, body: &[u8]) {
        let text = netdoc::text_of(body).unwrap_or_default();
        self.directory.receive_all(text, clock());
        let documents = self.directory.documents();
        let digests = split_documents(text).filter_map(|text| Some(RouterDesc::parse(text).ok()?.digest));
        let missing: Vec<_> =
            digests.filter(|d| documents.served.descriptors.by_digest(d).is_none()).collect();
        let mut refused = lock(&self.refused);
        if refused.len() > limits::STORED_RELAYS {
            refused.clear();
        }
        refused.extend(missing);
    }

    /// Those of which we have no descriptor as new, and that were not refused before.
    fn wanted(&self, named: &[Named]) -> Vec<Fingerprint> {
        let uploads = self.directory.uploads();
        let newest = uploads.store().newest();
        let refused = lock(&self.refused);
        let is_news =
            |named: &&Named| newest.get(&named.identity).is_none_or(|have| have.published < named.published);
        let fits = |named: &&Named| !refused.contains(&named.digest);
        named.iter().filter(is_news).filter(fits).map(|named| named.digest).collect()
    }
}

/// By how many seconds a clock that showed `date` at some time from `asked` to `answered` is ahead of ours, at least;
/// negative if it is behind. A long answer was dated when it began.
fn ahead(date: Unix, asked: Unix, answered: Unix) -> i64 {
    let seconds = |from: Unix, to: Unix| i64::try_from(to.since(from).as_secs()).unwrap_or(i64::MAX);
    if date > answered { seconds(answered, date) } else { -seconds(date, asked) }
}

/// Runs what takes long where it keeps nobody waiting; `None` if it panicked, which was logged.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_differs_only_by_what_the_exchange_does_not_explain() {
        let ahead = |date| ahead(Unix(date), Unix(100), Unix(160));
        assert_eq!([99, 100, 130, 160, 161, 760].map(ahead), [-1, 0, 0, 0, 1, 600]);
    }
}
