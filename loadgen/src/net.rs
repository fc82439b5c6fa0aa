//! Private networks: boot one, use it, and be rid of it.
//!
//! [`NetworkSpec`] says what is wanted, [`NetworkSpec::boot`] makes it and returns when it is usable: the consensus of
//! every authority lists every relay as running, and every client has built a circuit. Dropping the [`Network`] ends
//! every process and removes every file. See [`process`] for what holds when this program crashes.
//!
//! Nothing leaves the machine: nodes have addresses on loopback, and names are resolved by the network's own [`dns`].

pub mod agreement;
pub(crate) mod block;
mod boot;
pub mod control;
pub mod directory;
pub mod dns;
mod home;
pub mod netns;
mod node;
mod paths;
pub mod process;
mod progress;
mod spec;
mod torrc;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use serde::{Deserialize, Serialize};

use self::block::Block;
use self::directory::Consensus;
use self::dns::Dns;
use self::home::Home;
use crate::traffic::{self, Server, TrafficError, Transfer};

pub use self::home::list;
pub use self::node::{Node, NodeInfo};
pub use self::paths::{Path as RelayPath, Paths};
pub use self::progress::{BootError, Progress};
pub use self::spec::{Group, Groups, Kind, NODES_MAX, NetworkSpec, NodeSpec, Role, SpecError};

/// The name under which the network's [`Server`] is known to its exits.
pub const SERVER_NAME: &str = "sink.test";

/// How often conditions are looked at.
const POLL: Duration = Duration::from_millis(100);

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
    /// All nodes that are relays: everything but clients.
    fn relays(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role() != Role::Client)
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
        self.wait_ok(what, patience, || match self.consensus() {
            Ok(consensus) if condition(&consensus) => Ok(consensus),
            Ok(consensus) => Err(format!("the consensus is that of {}", consensus.valid_after)),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Waits until `condition` holds.
    pub fn wait(
        &self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), BootError> {
        self.wait_ok(what, patience, || if condition() { Ok(()) } else { Err("it did not come") })
    }

    /// Waits until `look` finds what it looks for, and returns that. The last reason why not is in the error.
    pub fn wait_ok<T, E: fmt::Display>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut() -> Result<T, E>,
    ) -> Result<T, BootError> {
        let deadline = Instant::now() + patience;
        loop {
            let reason = match look() {
                Ok(found) => return Ok(found),
                Err(reason) => reason,
            };
            if Instant::now() >= deadline {
                let all: Vec<String> = self.nodes.iter().map(|n| n.nickname().to_owned()).collect();
                return Err(BootError::NotUsable {
                    after: patience,
                    missing: format!("waited in vain for {what}: {reason}"),
                    logs: self.log_tails(&all),
                    directory: self.keep().map(Path::to_owned).unwrap_or_default(),
                });
            }
            thread::sleep(POLL);
        }
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
