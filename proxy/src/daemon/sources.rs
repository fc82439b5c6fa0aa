//! Directory guards: the relays that the directory is fetched from once there are guards.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::{Arc, Mutex, OnceLock};

use onionring_proto::netdoc::text::Fingerprint;
use tokio::sync::watch;

use crate::directory::{DirectorySources, View};
use crate::guards::{Attempt, Guards, Purpose};
use crate::links::Place;
use crate::memory::lock;
use crate::network::Families;

/// Names guards.
pub struct GuardSources {
    guards: Arc<Guards>,
    dial: Families,
    views: OnceLock<watch::Receiver<Option<Arc<View>>>>,
    /// Requests under way.
    asked: Mutex<HashMap<Fingerprint, Vec<Attempt>>>,
}

impl GuardSources {
    /// Guards, at addresses of these families.
    pub fn new(guards: Arc<Guards>, dial: Families) -> GuardSources {
        GuardSources { guards, dial, views: OnceLock::new(), asked: Mutex::default() }
    }

    /// Says where to look up what is known of guards.
    pub fn follow(&self, views: watch::Receiver<Option<Arc<View>>>) {
        // It is said once.
        let _ = self.views.set(views);
    }

    fn place(&self, guard: &Fingerprint) -> Option<Place> {
        let view = self.views.get()?.borrow().clone()?;
        let relays = &view.network.consensus().relays;
        let relay = relays.get(relays.binary_search_by(|relay| relay.identity.cmp(guard)).ok()?)?;
        let v4 = SocketAddr::V4(SocketAddrV4::new(relay.ipv4, relay.or_port));
        let v6 = relay.ipv6.map(|(ip, port)| SocketAddr::V6(SocketAddrV6::new(ip, port, 0, 0)));
        let address = self.dial.choose(Some(v4), v6)?;
        let ed_id = view.network.relay(guard).and_then(|relay| relay.microdesc.ed_identity);
        Some(Place { address, rsa_id: guard.0, ed_id })
    }

    fn take(&self, id: &Fingerprint) -> Option<Attempt> {
        lock(&self.asked).get_mut(id)?.pop()
    }
}

impl DirectorySources for GuardSources {
    fn next(&self) -> Option<(Place, Fingerprint)> {
        let attempt = self.guards.select(Purpose::Directory, &|_| false)?;
        let guard = attempt.relay();
        let place = self.place(&guard)?;
        lock(&self.asked).entry(guard).or_default().push(attempt);
        Some((place, guard))
    }

    fn succeeded(&self, id: Fingerprint) {
        if let Some(attempt) = self.take(&id) {
            attempt.answered();
        }
    }

    fn lets_ask_any_relay(&self) -> bool {
        false
    }

    fn failed(&self, id: Fingerprint) {
        if let Some(attempt) = self.take(&id) {
            attempt.failed();
        }
    }
}
