//! A network: an authority, guards, middles, exits and a server, all played.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use onionring_node::link::played::{self, Conduct, Door, Keys, Next, Occasion, Relay, Served};
use onionring_proto::link::LinkIdentity;
use onionring_proto::netdoc::consensus::Lifetime;
use onionring_proto::netdoc::text::Fingerprint;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::manners::{Act, Manner};
use crate::paper::{self, Listed, Paper};
use crate::{Who, allow};

/// The name that leads to the server, and its port.
pub const NAME: &str = "server.test";
/// What the server sends to who says a line.
pub const BYTES: usize = 50_000;

/// What a relay is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Authority,
    Guard,
    Middle,
    Exit,
}

/// The relays that clients choose among.
const RELAYS: [Role; 7] =
    [Role::Guard, Role::Guard, Role::Guard, Role::Middle, Role::Middle, Role::Exit, Role::Exit];

/// Keys of somebody who is in no network, of the authority, and of the relays; each network has the same, since they take
/// long to make.
static KEYS: LazyLock<[Arc<Keys>; 2 + RELAYS.len()]> =
    LazyLock::new(|| std::array::from_fn(|_| Arc::new(Keys::generate())));

/// A network that runs until this is dropped.
pub struct Network {
    pub scene: Arc<Scene>,
    authority: (SocketAddr, Fingerprint),
    identities: Vec<Fingerprint>,
    pub server: SocketAddr,
    _relays: Vec<Relay>,
}

/// Who behaves how.
#[derive(Default)]
pub struct Scene {
    paper: OnceLock<Paper>,
    server: OnceLock<SocketAddr>,
    act: Mutex<Option<Playing>>,
    /// What the hostile relay has done.
    done: AtomicUsize,
    /// Connections to guards.
    knocks: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Playing {
    role: Role,
    manner: &'static Manner,
    /// The relay, by its number; the first that has an occasion, if it is not said.
    who: Option<usize>,
}

impl Scene {
    /// One relay of this role behaves in this manner from now on: the first to whom anything happens.
    pub fn play(&self, role: Role, manner: &'static Manner) {
        self.done.store(0, SeqCst);
        *self.act.lock().unwrap() = Some(Playing { role, manner, who: None });
    }

    /// All are honest again.
    pub fn end(&self) {
        *self.act.lock().unwrap() = None;
    }

    /// How often the hostile relay has done what it does.
    pub fn done(&self) -> usize {
        self.done.load(SeqCst)
    }

    /// How often somebody has connected to a guard.
    pub fn knocks(&self) -> usize {
        self.knocks.load(SeqCst)
    }
}

/// How one relay behaves.
struct Player {
    number: usize,
    role: Role,
    scene: Arc<Scene>,
    /// Somebody else's.
    other: Arc<LinkIdentity>,
}

impl Player {
    /// What it is to do, if it is the one.
    fn act(&self) -> Option<&'static Act> {
        let mut playing = self.scene.act.lock().unwrap();
        let Playing { role, manner, who } = playing.as_mut()?;
        (*role == self.role && *who.get_or_insert(self.number) == self.number).then_some(&manner.act)
    }

    fn note(&self) {
        self.scene.done.fetch_add(1, SeqCst);
    }
}

impl Conduct for Player {
    fn door(&self) -> Door {
        if self.role == Role::Guard {
            self.scene.knocks.fetch_add(1, SeqCst);
        }
        match self.act() {
            Some(Act::Door(door)) => {
                self.note();
                door()
            }
            _ => Door::Link,
        }
    }

    fn identity(&self) -> Option<Arc<LinkIdentity>> {
        match self.act() {
            Some(Act::OtherIdentity) => {
                self.note();
                Some(self.other.clone())
            }
            _ => None,
        }
    }

    fn hello(&self, cells: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        match self.act() {
            Some(Act::Hello(edit)) => {
                self.note();
                edit(cells)
            }
            _ => cells,
        }
    }

    fn on(&self, occasion: &Occasion<'_>, served: &mut Served) -> Next {
        let Some(Act::On(does)) = self.act() else { return Next::Honest };
        let next = does(occasion, served);
        if next.is_some() {
            self.note();
        }
        next.unwrap_or(Next::Honest)
    }

    fn permits(&self, address: IpAddr, port: u16) -> bool {
        self.role == Role::Exit && self.scene.server.get() == Some(&SocketAddr::new(address, port))
    }

    fn look_up(&self, name: &str) -> Option<IpAddr> {
        let server = self.scene.server.get().filter(|_| name == NAME);
        server.map(SocketAddr::ip)
    }

    fn document(&self, path: &str) -> Option<String> {
        self.scene.paper.get()?.document(path)
    }
}

impl Network {
    /// Starts one whose consensus holds so long.
    pub async fn start(lifetime: Lifetime) -> Network {
        static NETWORKS: AtomicU16 = AtomicU16::new(1);
        let [high, low] = NETWORKS.fetch_add(1, SeqCst).to_be_bytes();
        // Relays of one /16 are not on one path.
        let address = |n: usize| Ipv4Addr::new(127, 10 + n as u8, high, low);
        let scene = Arc::<Scene>::default();
        let server = serve(address(0)).await;
        scene.server.set(server).unwrap();

        let other = &KEYS[0];
        let (mut relays, mut descriptors) = (Vec::new(), Vec::new());
        for (number, role) in std::iter::once(Role::Authority).chain(RELAYS).enumerate() {
            let listener = TcpListener::bind((address(number + 1), 0)).await.unwrap();
            let at = listener.local_addr().unwrap();
            allow(at, Who::Anybody);
            let keys = KEYS[number + 1].clone();
            let policy = if role == Role::Exit { "accept *:*" } else { "reject *:*" };
            let signed = keys.sign(&played::descriptor(address(number + 1), at.port(), policy));
            descriptors.push((role, at, signed.parsed));
            let (scene, other) = (scene.clone(), other.link.clone());
            let player = Player { number, role, scene, other };
            relays.push(Relay::start(vec![listener], keys, Arc::new(player)));
        }
        let (_, at, authority) = descriptors.remove(0);
        let listed = descriptors
            .iter()
            .map(|(role, _, descriptor)| Listed { descriptor, is_guard: *role == Role::Guard });
        let listed: Vec<Listed<'_>> = listed.collect();
        let paper = Paper::new(&listed, lifetime, at);
        let identities = descriptors.iter().map(|(.., descriptor)| descriptor.identity).collect();
        assert!(scene.paper.set(paper).is_ok());
        Network { scene, authority: (at, authority.identity), identities, server, _relays: relays }
    }

    /// What a client must know of it.
    pub fn torrc(&self) -> String {
        let (at, identity) = self.authority;
        let of = |wanted: Role| -> String {
            let relays = self.identities.iter().zip(RELAYS).filter(|(_, role)| *role == wanted);
            relays.map(|(identity, _)| format!("${identity}")).collect::<Vec<_>>().join(",")
        };
        format!(
            "DirAuthority authority orport={} v3ident={} {}:9 {identity}\nMiddleNodes {}\nStrictNodes 1\n",
            at.port(),
            paper::authority(),
            at.ip(),
            of(Role::Middle)
        )
    }
}

/// Sends so many bytes to everybody who says a line.
async fn serve(address: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    allow(at, Who::Relays);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (reader, mut writer) = socket.split();
                BufReader::new(reader).read_line(&mut String::new()).await?;
                writer.write_all(&content()).await?;
                writer.shutdown().await
            });
        }
    });
    at
}

/// What the server sends.
pub fn content() -> Vec<u8> {
    (0..BYTES).map(|n| (n % 251) as u8).collect()
}
