//! Room and turns for what is posted. Uploads of relays keep no vote out, and what strangers post as votes keeps none of
//! an authority out: each of the three has a room for bodies and a turn of its own.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::limits;

/// What is posted in one way.
pub(super) struct Lane {
    /// Bytes of bodies for which there is room.
    pub room: Arc<Semaphore>,
    /// Bodies are judged one after the other: those that wait take no threads.
    pub turn: Semaphore,
    /// Bytes of one body.
    pub body: usize,
}

impl Lane {
    pub fn new(room: usize, body: usize) -> Lane {
        Lane { room: Arc::new(Semaphore::new(room)), turn: Semaphore::new(1), body }
    }
}

/// All ways.
pub(super) struct Lanes {
    /// The addresses of the configured authorities.
    pub authorities: Arc<[IpAddr]>,
    /// Descriptors and extra-infos.
    pub uploads: Lane,
    /// Votes and signatures, from addresses of authorities.
    pub votes: Lane,
    /// The same from everywhere else, where an authority may be as well: signatures say whose they are.
    pub others: Lane,
}

impl Lanes {
    pub fn new(authorities: Arc<[IpAddr]>) -> Lanes {
        let body = onionring_node::limits::DIR_REQUEST_BODY;
        Lanes {
            authorities: authorities.iter().map(IpAddr::to_canonical).collect(),
            uploads: Lane::new(limits::HTTP_UPLOAD_BYTES, limits::HTTP_UPLOAD_BODY),
            votes: Lane::new(limits::HTTP_VOTE_BYTES, body),
            others: Lane::new(limits::HTTP_OTHER_BYTES, body),
        }
    }

    /// Whether a configured authority is at this address.
    pub fn is_authority(&self, client: IpAddr) -> bool {
        self.authorities.contains(&client)
    }

    /// The one for what a client posts to a path.
    pub fn of(&self, path: &str, client: Option<IpAddr>) -> &Lane {
        if path == "/tor/" {
            &self.uploads
        } else if client.is_some_and(|client| self.is_authority(client)) {
            &self.votes
        } else {
            &self.others
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_of_authorities_share_with_nobody() {
        let [authority, stranger] = [1, 2].map(|n| IpAddr::from([198, 51, 100, n]));
        let mapped: IpAddr = "::ffff:198.51.100.1".parse().unwrap();
        let lanes = Lanes::new([mapped].into());
        let is = |path, client, lane: &Lane| std::ptr::eq(lanes.of(path, Some(client)), lane);
        for client in [authority, stranger] {
            assert!(is("/tor/", client, &lanes.uploads));
        }
        for path in ["/tor/post/vote", "/tor/post/consensus-signature"] {
            assert!(is(path, authority, &lanes.votes) && is(path, stranger, &lanes.others));
        }
        assert!(lanes.others.room.available_permits() > lanes.others.body, "one of any length has room");
        assert!(lanes.votes.room.available_permits() > 4 * lanes.votes.body);
    }
}
