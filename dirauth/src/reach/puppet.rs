//! Relays for tests, with the vices that a test gives them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use onionring_node::link::played::{self, Conduct, Next, Occasion, Relay, Seen, Served};
use onionring_proto::netdoc::routerdesc::{NewDescriptor, RouterDesc};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::relay_msg::{EndReason, RelayCmd, StreamId};
use onionring_proto::time::Unix;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::net::TcpListener;

pub use onionring_node::link::played::Keys;

/// What a relay does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vice {
    None,
    /// Completes TLS and the link handshake, and drops all cells after that.
    DropsCells,
    /// Answers CREATE2, and EXTEND2 as long as it comes in the first cells; carries nothing else.
    CarriesNothing,
    /// Does not extend.
    ExtendsNothing,
    /// Serves a descriptor that it had before it published.
    ServesOther,
    /// Lets streams out whatever its policy says, and none that its policy permits.
    IgnoresPolicy,
    /// Lets no streams out, and says MISC.
    EndsWithMisc,
}

/// A running relay. It ends when this is dropped.
pub struct Puppet {
    pub descriptor: Arc<RouterDesc>,
    pub seen: Arc<Seen>,
    character: Arc<Character>,
    _relay: Relay,
}

/// How it behaves.
struct Character {
    vice: Mutex<Vice>,
    descriptor: Arc<RouterDesc>,
    /// The answer to requests for its descriptor.
    served: String,
}

pub fn now() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

/// Other numbers each time.
pub fn rng() -> ChaCha20Rng {
    static SEED: AtomicUsize = AtomicUsize::new(0);
    ChaCha20Rng::seed_from_u64(SEED.fetch_add(1, Ordering::SeqCst) as u64)
}

impl Puppet {
    pub async fn start(vice: Vice) -> Puppet {
        Puppet::with(vice, "reject *:*", |_| {}).await
    }

    /// With an exit policy, and whatever else its descriptor is to say. An IPv6 port 0 is one of its own.
    pub async fn with(vice: Vice, policy: &str, edit: impl FnOnce(&mut NewDescriptor)) -> Puppet {
        let mut listeners = vec![TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let keys = Keys::generate();
        let port = listeners[0].local_addr().unwrap().port();
        let mut new = played::descriptor(Ipv4Addr::LOCALHOST, port, policy);
        edit(&mut new);
        if let Some((ip, port @ 0)) = &mut new.ipv6 {
            let listener = TcpListener::bind((*ip, 0)).await.unwrap();
            *port = listener.local_addr().unwrap().port();
            listeners.push(listener);
        }
        let signed = keys.sign(&new);
        let older = NewDescriptor { published: new.published - Duration::from_secs(60), ..new };
        let served = match vice {
            Vice::ServesOther => keys.sign(&older).text,
            _ => signed.text,
        };
        let descriptor = Arc::new(signed.parsed);
        let vice = Mutex::new(vice);
        let character = Arc::new(Character { vice, descriptor: descriptor.clone(), served });
        let relay = Relay::start(listeners, Arc::new(keys), character.clone());
        Puppet { descriptor, seen: relay.seen.clone(), character, _relay: relay }
    }

    pub fn set_vice(&self, vice: Vice) {
        *self.character.vice.lock().unwrap() = vice;
    }

    pub fn id(&self) -> Fingerprint {
        self.descriptor.identity
    }
}

impl Character {
    fn vice(&self) -> Vice {
        *self.vice.lock().unwrap()
    }
}

impl Conduct for Character {
    fn on(&self, occasion: &Occasion<'_>, served: &mut Served) -> Next {
        match (self.vice(), occasion) {
            (Vice::DropsCells, Occasion::Cell { .. })
            | (Vice::CarriesNothing, Occasion::Outbound { .. } | Occasion::Inbound { .. }) => Next::Done,
            (Vice::CarriesNothing, Occasion::Message { msg, .. }) if msg.stream != StreamId::CIRCUIT => {
                Next::Done
            }
            (Vice::ExtendsNothing, Occasion::Message { msg, .. }) if msg.cmd == RelayCmd::EXTEND2 => {
                Next::Done
            }
            (Vice::EndsWithMisc, Occasion::Message { id, msg }) if msg.cmd == RelayCmd::BEGIN => {
                served.end(*id, msg.stream, EndReason::Misc);
                Next::Done
            }
            _ => Next::Honest,
        }
    }

    fn permits(&self, address: IpAddr, port: u16) -> bool {
        self.descriptor.policy.permits(address, port) != (self.vice() == Vice::IgnoresPolicy)
    }

    fn document(&self, path: &str) -> Option<String> {
        assert_eq!(path, "/tor/server/authority");
        Some(self.served.clone())
    }
}
