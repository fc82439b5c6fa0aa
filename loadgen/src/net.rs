//! Private networks: boot one, use it, and be rid of it.
//!
//! [`NetworkSpec`] says what is wanted, [`NetworkSpec::boot`] makes it and returns when it is usable: the consensus of
//! every authority lists every relay as running, and every client has built a circuit. Dropping the [`Network`] ends
//! every process and removes every file. See [`process`] for what holds when this program crashes.
//!
//! Nothing leaves the machine: nodes have addresses on loopback, and names are resolved by the network's own [`dns`].

pub(crate) mod block;
pub mod control;
pub mod directory;
pub mod dns;
mod home;
pub mod netns;
mod node;
mod paths;
pub mod process;
mod spec;
mod torrc;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::block::Block;
use self::control::Control;
use self::directory::Consensus;
use self::dns::{Answer, Dns};
use self::home::Home;
use self::process::describe;
use self::torrc::Shared;
use crate::traffic::{self, Server, TrafficError, Transfer};

pub use self::home::list;
pub use self::node::{Node, NodeInfo};
pub use self::paths::{Path as RelayPath, Paths};
pub use self::spec::{Group, Groups, Kind, NODES_MAX, NetworkSpec, NodeSpec, Role, SpecError};

/// The name under which the network's [`Server`] is known to its exits.
pub const SERVER_NAME: &str = "sink.test";
/// The port of the network's [`Server`], unless something on the machine occupies it.
const SERVER_PORT: u16 = 8080;
/// Last bytes of the addresses that serve the network itself.
const RESOLVER_BYTE: u8 = 253;
const SERVER_BYTE: u8 = 254;

/// How often conditions are looked at.
const POLL: Duration = Duration::from_millis(100);

/// How far booting has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Keys are being made.
    Keys,
    /// Waiting for every authority to list every relay.
    Consensus {
        /// Relays that the authority which is furthest behind lists as running.
        listed: usize,
        /// Relays there are, authorities included.
        expected: usize,
    },
    /// Waiting for a client.
    Client {
        /// Its name.
        nickname: String,
        /// How far it says it is.
        percent: u8,
    },
    /// The network is usable.
    Ready,
}

/// Why a network is not up.
#[derive(Debug, Error)]
pub enum BootError {
    /// The description makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Files, sockets or processes.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What happened.
        source: io::Error,
    },
    /// A node ended by itself.
    #[error(
        "{nickname} ({kind}) ended with {status} while the network was booting; its log ends with:\n{log}"
    )]
    NodeEnded {
        /// The node.
        nickname: String,
        /// What it runs.
        kind: Kind,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: String,
        /// Its directory, which stays.
        directory: PathBuf,
    },
    /// Time is up.
    #[error("the network is not usable after {after:?}: {missing}\n{logs}all files are kept in {directory}", directory = directory.display())]
    NotUsable {
        /// For how long it was waited.
        after: Duration,
        /// What is missing, by node.
        missing: String,
        /// The last lines of the log of each node concerned.
        logs: String,
        /// The network's directory, which stays.
        directory: PathBuf,
    },
    /// The caller broke it off.
    #[error("interrupted")]
    Interrupted,
}

/// Attaches what was being done to an I/O error.
fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> BootError {
    let doing = what.into();
    move |source| BootError::Io { doing, source }
}

/// What `net up` writes as JSON and `net status` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// The network's name.
    pub name: String,
    /// The process that owns it; when that ends, the network ends.
    pub owner_pid: u32,
    /// Whether it lives in a network namespace (enter with `nsenter --net --target OWNER_PID`).
    pub netns: bool,
    /// Its directory.
    pub directory: PathBuf,
    /// Seconds from the first process to usable.
    pub boot_seconds: f64,
    /// Its resolver, UDP.
    pub dns: SocketAddr,
    /// Its traffic server, also known to exits as `sink.test`.
    pub server: SocketAddr,
    /// Its nodes: authorities, relays, exits, clients in the order asked for.
    pub nodes: Vec<NodeInfo>,
}

/// A running network. Dropping it ends it.
#[derive(Debug)]
pub struct Network {
    // Order matters for dropping: processes first, then what they use, the directory last but one.
    nodes: Vec<Node>,
    server: Server,
    dns: Dns,
    home: Home,
    block: Block,
    name: String,
    boot_time: Duration,
}

impl Network {
    fn boot(
        spec: NetworkSpec,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Network, BootError> {
        let spec = spec.complete()?;
        let block = Block::claim().map_err(doing("claiming addresses"))?;
        let name = spec.name.clone().unwrap_or_else(|| block.name());
        let home = Home::create(&name).map_err(doing("making the network's directory"))?;
        if spec.keep {
            home.keep().map_err(doing("marking the network's directory"))?;
        }
        let dns = Dns::start(block.address(RESOLVER_BYTE)).map_err(doing("starting the resolver"))?;
        let server = start_server(&block).map_err(doing("starting the traffic server"))?;
        dns.set(SERVER_NAME, Answer::Addresses(vec![server.address().ip()]));

        let mut nodes = Vec::new();
        for (node, last) in spec.nodes.iter().zip(1..) {
            let program = spec.program_of(&node.kind, node.role)?;
            let laid_out = Node::lay_out(node, program, block.address(last), home.path());
            nodes.push(laid_out.map_err(doing(format!("laying out {}", node.nickname())))?);
        }
        let mut network = Network { nodes, server, dns, home, block, name, boot_time: Duration::ZERO };
        let started = Instant::now();
        tell(report, Progress::Keys)?;
        network.make_keys(&spec)?;
        network.start(&spec, started, report).inspect_err(|e| {
            // What the error quotes is rarely all one wants to read.
            if !matches!(e, BootError::Interrupted) {
                let _ = network.home.keep();
            }
        })?;
        network.boot_time = started.elapsed();
        network.home.publish(&network.info()).map_err(doing("writing network.json"))?;
        tell(report, Progress::Ready)?;
        Ok(network)
    }

    /// Makes all keys and writes every torrc, all nodes at once.
    fn make_keys(&mut self, spec: &NetworkSpec) -> Result<(), BootError> {
        let resolv_conf = self.home.path().join("resolv.conf");
        fs::write(&resolv_conf, self.dns.resolv_conf()).map_err(doing("writing resolv.conf"))?;
        let bandwidths = self.home.path().join("bandwidths");
        let empty_file = self.home.path().join("empty");
        fs::write(&empty_file, "").map_err(doing("writing an empty file"))?;
        let mut shared = Shared {
            bandwidths: bandwidths.display().to_string(),
            empty_file: empty_file.display().to_string(),
            authorities: Vec::new(),
            guards: Vec::new(),
            voting_interval_seconds: spec.voting_interval_seconds,
            extra: spec.torrc.clone(),
            resolv_conf: resolv_conf.display().to_string(),
        };
        let (authorities, others): (Vec<&mut Node>, Vec<&mut Node>) =
            self.nodes.iter_mut().partition(|node| node.role() == Role::Authority);
        let authorities = at_once(authorities, |node| {
            let (or, dir) = node.or_addr().zip(node.dir_addr()).expect("authorities have both ports");
            let v3_ident = directory::make_authority_keys(&node.dir().join("keys"), dir)?;
            fs::write(node.torrc_path(), torrc::for_keys(node, &shared.empty_file))?;
            node.fingerprint = list_fingerprint(node)?;
            let (name, fingerprint) = (node.nickname(), node.fingerprint());
            Ok(format!("{name} orport={} no-v2 v3ident={v3_ident} {dir} {fingerprint}", or.port()))
        })?;
        shared.authorities = authorities;
        let relays: Vec<&mut Node> = others.into_iter().filter(|node| node.role() != Role::Client).collect();
        let node_spec = |node: &Node| {
            let found = spec.nodes.iter().find(|s| s.nickname() == node.nickname());
            found.expect("every node was laid out from its specification")
        };
        let guards = at_once(relays, |node| {
            let torrc = torrc::for_node(node, node_spec(node), &shared, &|_| String::new());
            fs::write(node.torrc_path(), torrc)?;
            node.fingerprint = list_fingerprint(node)?;
            Ok(node.fingerprint.clone())
        })?;
        shared.guards = guards;
        fs::write(&bandwidths, directory::bandwidth_file(self.relays()))
            .map_err(doing("writing bandwidths"))?;
        // Authorities only now know each other, and clients the relays they pin.
        let fingerprint = |nickname: &str| self.node(nickname).fingerprint().to_owned();
        for node in self.nodes.iter().filter(|n| matches!(n.role(), Role::Authority | Role::Client)) {
            let torrc = torrc::for_node(node, node_spec(node), &shared, &fingerprint);
            fs::write(node.torrc_path(), torrc).map_err(doing(format!("writing the torrc of {node:?}")))?;
        }
        Ok(())
    }

    /// Starts all nodes and waits until they form a network.
    fn start(
        &self,
        spec: &NetworkSpec,
        started: Instant,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<(), BootError> {
        // Authorities first: who finds none of them listening tries again much later. Clients last: one that sees
        // the network half grown does not look again for a while.
        for role in [Role::Authority, Role::Relay, Role::Exit] {
            self.start_all(role)?;
        }
        self.until_nothing_is_missing(spec, started, report, || self.missing_in_consensus())?;
        self.start_all(Role::Client)?;
        let mut controls = BTreeMap::new();
        self.until_nothing_is_missing(spec, started, report, || self.missing_at_clients(&mut controls))
    }

    fn start_all(&self, role: Role) -> Result<(), BootError> {
        let mut nodes = self.nodes.iter().filter(|node| node.role() == role);
        nodes.try_for_each(|node| node.start().map_err(doing(format!("starting {node:?}"))))
    }

    fn until_nothing_is_missing(
        &self,
        spec: &NetworkSpec,
        started: Instant,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
        mut look: impl FnMut() -> Option<Missing>,
    ) -> Result<(), BootError> {
        while let Some(missing) = look() {
            self.check_alive()?;
            if started.elapsed() >= spec.boot_timeout {
                return Err(BootError::NotUsable {
                    after: spec.boot_timeout,
                    missing: missing.text,
                    logs: self.log_tails(&missing.nodes),
                    directory: self.home.path().to_owned(),
                });
            }
            tell(report, missing.progress)?;
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Which authority does not list which relay.
    fn missing_in_consensus(&self) -> Option<Missing> {
        let expected = self.relays().count();
        for authority in self.nodes.iter().filter(|n| n.role() == Role::Authority) {
            let Some(consensus) = authority.dir_addr().and_then(|dir| Consensus::fetch(dir).ok()) else {
                return Some(Missing {
                    text: format!("{} has no consensus", authority.nickname()),
                    nodes: vec![authority.nickname().to_owned()],
                    progress: Progress::Consensus { listed: 0, expected },
                });
            };
            let unlisted: Vec<String> = self
                .relays()
                .filter(|relay| consensus.running(relay.fingerprint()).is_none())
                .map(|relay| relay.nickname().to_owned())
                .collect();
            if !unlisted.is_empty() {
                return Some(Missing {
                    text: format!(
                        "{} does not list {} as running",
                        authority.nickname(),
                        unlisted.join(", ")
                    ),
                    progress: Progress::Consensus { listed: expected - unlisted.len(), expected },
                    nodes: unlisted.into_iter().chain([authority.nickname().to_owned()]).collect(),
                });
            }
        }
        None
    }

    /// Which client is not ready. `controls` keeps the control connections from one look to the next.
    fn missing_at_clients(&self, controls: &mut BTreeMap<String, Control>) -> Option<Missing> {
        for client in self.nodes.iter().filter(|n| n.role() == Role::Client) {
            let nickname = client.nickname().to_owned();
            let state = self.client_state(client, controls).unwrap_or_else(|e| {
                controls.remove(&nickname);
                Err((0, e))
            });
            if let Err((percent, phase)) = state {
                return Some(Missing {
                    text: format!("{nickname} has bootstrapped {percent} % ({phase})"),
                    nodes: vec![nickname.clone()],
                    progress: Progress::Client { nickname, percent },
                });
            }
        }
        None
    }

    /// Whether a client has a circuit and knows every relay; else how far it is. A client without a control port is
    /// asked for a stream instead. The outer error is that it cannot be asked.
    fn client_state(
        &self,
        client: &Node,
        controls: &mut BTreeMap<String, Control>,
    ) -> Result<Result<(), (u8, String)>, String> {
        if client.control_addr().is_none() {
            let (host, port) = self.target();
            let socks = client.socks().map_err(|e| e.to_string())?;
            return socks.connect(host, port).map(|_| Ok(())).map_err(|e| e.to_string());
        }
        let control = match controls.entry(client.nickname().to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(client.control().map_err(|e| e.to_string())?),
        };
        let (percent, phase) = control.bootstrap().map_err(|e| e.to_string())?;
        if percent < 100 {
            return Ok(Err((percent, phase)));
        }
        let unknown =
            self.relays().find(|relay| control.get_info(&format!("md/id/{}", relay.fingerprint())).is_err());
        Ok(unknown
            .map_or(Ok(()), |relay| Err((percent, format!("it knows nothing of {}", relay.nickname())))))
    }

    /// All nodes that are relays: everything but clients.
    fn relays(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role() != Role::Client)
    }

    fn check_alive(&self) -> Result<(), BootError> {
        for node in &self.nodes {
            if let Some(status) = node.exited().map_err(doing(format!("looking after {node:?}")))? {
                return Err(BootError::NodeEnded {
                    nickname: node.nickname().to_owned(),
                    kind: node.kind().clone(),
                    status: describe(status),
                    log: node.log_tail(),
                    directory: node.dir().to_owned(),
                });
            }
        }
        Ok(())
    }

    fn log_tails(&self, nicknames: &[String]) -> String {
        let tail = |name: &String| format!("--- end of the log of {name}:\n{}\n", self.node(name).log_tail());
        nicknames.iter().map(tail).collect()
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it took from the first key to usable.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// All nodes, in the order they were asked for.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this nickname.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn node(&self, nickname: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.nickname() == nickname);
        found.unwrap_or_else(|| panic!("no node is called {nickname}; there are {:?}", self.nodes))
    }

    /// The server that traffic goes to. Exits know it as [`SERVER_NAME`].
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Host and port to ask a client for, to reach [`server`](Self::server).
    pub fn target(&self) -> (&'static str, u16) {
        (SERVER_NAME, self.server.address().port())
    }

    /// The resolver of all exits.
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// An address of this network's block that no node has: `n` from 0 to 9.
    pub fn spare_address(&self, n: u8) -> IpAddr {
        assert!(n < 10, "there are ten spare addresses");
        IpAddr::V4(self.block.address(NODES_MAX as u8 + 1 + n))
    }

    /// The consensus that the first authority has.
    pub fn consensus(&self) -> io::Result<Consensus> {
        Consensus::fetch(self.directory())
    }

    /// A document (such as `/tor/server/all`) from the first authority.
    pub fn document(&self, path: &str) -> io::Result<Vec<u8>> {
        directory::get(self.directory(), path)
    }

    fn directory(&self) -> SocketAddr {
        let found = self.nodes.iter().filter(|n| n.role() == Role::Authority).find_map(Node::dir_addr);
        found.expect("a network has an authority, and authorities have directory ports")
    }

    /// Waits until a consensus newer than now satisfies `condition`, and returns it.
    pub fn wait_consensus(
        &self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut(&Consensus) -> bool,
    ) -> Result<Consensus, BootError> {
        let mut found = None;
        self.wait(what, patience, || {
            found = self.consensus().ok().filter(&mut condition);
            found.is_some()
        })?;
        Ok(found.expect("the wait ended with a consensus"))
    }

    /// Waits until `condition` holds.
    pub fn wait(
        &self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), BootError> {
        let deadline = Instant::now() + patience;
        while !condition() {
            if Instant::now() >= deadline {
                let all: Vec<String> = self.nodes.iter().map(|n| n.nickname().to_owned()).collect();
                return Err(BootError::NotUsable {
                    after: patience,
                    missing: format!("waited in vain for {what}"),
                    logs: self.log_tails(&all),
                    directory: self.keep().map(Path::to_owned).unwrap_or_default(),
                });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Downloads `bytes` from the network's server through the client with this nickname, and checks every byte.
    pub fn download(&self, client: &str, bytes: u64) -> Result<Transfer, TrafficError> {
        traffic::download(&self.node(client).socks()?, self.target(), bytes)
    }

    /// Uploads `bytes` to the network's server, which must have received every byte.
    pub fn upload(&self, client: &str, bytes: u64) -> Result<Transfer, TrafficError> {
        traffic::upload(&self.node(client).socks()?, self.target(), bytes)
    }

    /// Leaves the directory behind when the network ends, and returns it.
    pub fn keep(&self) -> io::Result<&Path> {
        self.home.keep()?;
        Ok(self.home.path())
    }

    /// What other programs are told.
    pub fn info(&self) -> NetworkInfo {
        NetworkInfo {
            name: self.name.clone(),
            owner_pid: std::process::id(),
            netns: netns::inside(),
            directory: self.home.path().to_owned(),
            boot_seconds: self.boot_time.as_secs_f64(),
            dns: self.dns.address(),
            server: self.server.address(),
            nodes: self.nodes.iter().map(Node::info).collect(),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A failed test is understood from the logs.
        if thread::panicking() && self.keep().is_ok() {
            eprintln!("the network's files are kept in {}", self.home.path().display());
        }
        // All at once first, so that no node spends its last moments on missing the others.
        for node in &self.nodes {
            let _ = node.signal(rustix::process::Signal::KILL);
        }
    }
}

/// What keeps a network from being usable, and whose logs tell why.
struct Missing {
    text: String,
    nodes: Vec<String>,
    progress: Progress,
}

fn tell(report: &mut dyn FnMut(&Progress) -> ControlFlow<()>, progress: Progress) -> Result<(), BootError> {
    match report(&progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(BootError::Interrupted),
    }
}

fn start_server(block: &Block) -> io::Result<Server> {
    let address = block.address(SERVER_BYTE);
    Server::start((address, Block::free_port(address, SERVER_PORT)?).into())
}

/// Runs `work` for all nodes side by side and returns its results in order.
fn at_once<T: Send>(
    nodes: Vec<&mut Node>,
    work: impl Fn(&mut Node) -> io::Result<T> + Sync,
) -> Result<Vec<T>, BootError> {
    thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = nodes
            .into_iter()
            .map(|node| {
                let what = format!("making the keys of {node:?}");
                (what, scope.spawn(move || work(node)))
            })
            .collect();
        running
            .into_iter()
            .map(|(what, thread)| {
                let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result.map_err(doing(what))
            })
            .collect()
    })
}

/// Has the node's own program make its identity and say what it is: `nickname AAAA BBBB ...`.
fn list_fingerprint(node: &Node) -> io::Result<String> {
    let torrc = node.torrc_path().display().to_string();
    let said = process::run(node.program(), &["--quiet", "-f", &torrc, "--list-fingerprint"], "")?;
    let line = said.lines().find_map(|line| line.strip_prefix(node.nickname()));
    let fingerprint: String = line.unwrap_or_default().split_whitespace().collect();
    if fingerprint.len() == 40 && fingerprint.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(fingerprint);
    }
    let program = node.program().display();
    Err(io::Error::other(format!(
        "`{program} --list-fingerprint` prints no fingerprint but: {}",
        said.trim()
    )))
}
