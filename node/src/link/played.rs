//! Relays that a test plays: on loopback, with real links and circuits, honest but for what their [`Conduct`] says.
//!
//! They extend circuits, let streams out and answer requests to the directory, and know of flow control only what short
//! streams need: nobody sends more than a window on one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use onionring_proto::cell::{Body, CircId, Command};
use onionring_proto::link::{LinkIdentity, PeerIdentity};
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::{Bandwidth, NewDescriptor};
use onionring_proto::netdoc::text::Nickname;
use onionring_proto::policy::ExitPolicy;
use onionring_proto::relay_msg::{RelayMsg, StreamId};
use onionring_proto::time::Unix;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

mod keys;
mod served;
mod wire;

pub use keys::Keys;
pub use served::Served;

/// What a relay does where it is not to be honest. Every method says what an honest one does.
pub trait Conduct: Send + Sync + 'static {
    /// Somebody has connected.
    fn door(&self) -> Door {
        Door::Link
    }

    /// Whose identity the link handshake shows, if not the relay's own.
    fn identity(&self) -> Option<Arc<LinkIdentity>> {
        None
    }

    /// The cells of the relay's part of the link handshake, each with its header: what is sent instead.
    fn hello(&self, cells: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        cells
    }

    /// Something happens on a link.
    fn on(&self, _: &Occasion<'_>, _: &mut Served) -> Next {
        Next::Honest
    }

    /// Whether streams may go there.
    fn permits(&self, _: IpAddr, _: u16) -> bool {
        false
    }

    /// What a name leads to.
    fn look_up(&self, _: &str) -> Option<IpAddr> {
        None
    }

    /// What the directory has at this path.
    fn document(&self, _: &str) -> Option<String> {
        None
    }
}

/// How those who connect are received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// With TLS and a link.
    Link,
    /// With these bytes, and nothing more.
    Bytes(Vec<u8>),
    /// With TLS, and these bytes inside it.
    Tls(Vec<u8>),
    /// Not at all: the connection is closed.
    Closed,
}

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The relay goes on as an honest one.
    Honest,
    /// The conduct has done all there is to do.
    Done,
}

/// What happens on a link.
#[derive(Debug)]
pub enum Occasion<'a> {
    /// It is open.
    Opened,
    /// A cell has come.
    Cell {
        /// Its circuit.
        id: CircId,
        /// What it is.
        command: Command,
        /// Its body, before anything is decrypted.
        body: &'a Body,
    },
    /// The answer to a request for a circuit has been sent.
    Created {
        /// The circuit.
        id: CircId,
    },
    /// A message for this relay has come on a circuit.
    Message {
        /// The circuit.
        id: CircId,
        /// The message.
        msg: &'a RelayMsg<'a>,
    },
    /// A cell has come that is to go on to the next relay.
    Outbound {
        /// The circuit.
        id: CircId,
    },
    /// The next relay has answered, and the client is to hear of it.
    Extended {
        /// The circuit.
        id: CircId,
        /// What the next relay has said.
        hdata: &'a [u8],
    },
    /// A stream leads where it should, and the client is to hear of it.
    Connected {
        /// The circuit.
        id: CircId,
        /// The stream.
        stream: StreamId,
    },
    /// A cell has come from the next relay, and is to go on to the client.
    Inbound {
        /// The circuit.
        id: CircId,
    },
}

/// What a relay has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Links that opened, of relays and of clients.
    pub links: [AtomicUsize; 2],
    /// Circuits that were asked for, on such links.
    pub circuits: [AtomicUsize; 2],
    /// The relays who opened links.
    pub peers: Mutex<Vec<PeerIdentity>>,
}

impl Seen {
    /// Circuits that relays asked for.
    pub fn circuits_of_relays(&self) -> usize {
        self.circuits[0].load(Ordering::SeqCst)
    }

    /// Circuits that clients asked for.
    pub fn circuits_of_clients(&self) -> usize {
        self.circuits[1].load(Ordering::SeqCst)
    }
}

/// A running relay. It ends, with its links, when this is dropped.
pub struct Relay {
    /// What it has seen.
    pub seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What all tasks of a relay share.
struct Core {
    keys: Arc<Keys>,
    conduct: Arc<dyn Conduct>,
    seen: Arc<Seen>,
    /// Where its own connections come from.
    address: IpAddr,
}

impl Relay {
    /// Serves whoever connects to one of these, of which the first says where the relay's own connections come from.
    ///
    /// # Panics
    /// Without a listener.
    pub fn start(listeners: Vec<TcpListener>, keys: Arc<Keys>, conduct: Arc<dyn Conduct>) -> Relay {
        let seen = Arc::<Seen>::default();
        let address = listeners[0].local_addr().expect("it listens").ip();
        let core = Arc::new(Core { keys, conduct, seen: seen.clone(), address });
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            for listener in listeners {
                let core = core.clone();
                serving.spawn(async move {
                    let mut links = JoinSet::new();
                    while let Ok((socket, _)) = listener.accept().await {
                        while links.try_join_next().is_some() {}
                        let core = core.clone();
                        links.spawn(async move {
                            // Those who look only at TLS, or go away, are none of its business.
                            let _ = served::serve(socket, core).await;
                        });
                    }
                });
            }
            serving.join_all().await;
        });
        Relay { seen, task }
    }
}

/// What an ordinary relay at this place says of itself, for [`Keys::sign`].
///
/// # Panics
/// If the policy is none.
pub fn descriptor(address: Ipv4Addr, port: u16, policy: &str) -> NewDescriptor {
    NewDescriptor {
        nickname: Nickname::new("played").expect("letters"),
        ipv4: address,
        or_port: port,
        dir_port: 0,
        ipv6: None,
        platform: "onionring 0.1.0 on Linux".into(),
        protocols: Protocols::parse(
            "Cons=2 Desc=2 DirCache=2 FlowCtrl=1 Link=3-5 LinkAuth=3 Microdesc=2 Relay=2-4",
        )
        .expect("a list of protocols"),
        published: now(),
        uptime: 1,
        bandwidth: Bandwidth { rate: 1_000_000, burst: 2_000_000, observed: 500_000 },
        extra_info: None,
        caches_extra_info: false,
        family: Vec::new(),
        family_certs: Vec::new(),
        hibernating: false,
        hidden_service_dir: true,
        contact: None,
        policy: ExitPolicy::from_descriptor([policy]).expect("a policy"),
        tunnelled_dir_server: true,
        overloaded_since: None,
    }
}

fn now() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()))
}

/// Whether a socket address can be dialed from this one.
fn is_dialed_from(source: IpAddr, to: SocketAddr) -> bool {
    source.is_ipv4() == to.is_ipv4()
}
