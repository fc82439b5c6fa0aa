//! Booting: keys and torrc files of all nodes, their processes, and the wait until they are a network.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use super::block::Block;
use super::control::Control;
use super::directory::{self, Consensus};
use super::dns::{Answer, Dns};
use super::home::Home;
use super::node::Node;
use super::process::{self, describe};
use super::progress::{BootError, Progress, doing};
use super::spec::{NetworkSpec, Role};
use super::torrc::{self, Shared};
use super::{Network, POLL, SERVER_NAME};
use crate::traffic::Server;

/// The port of the network's [`Server`], unless something on the machine occupies it.
const SERVER_PORT: u16 = 8080;
/// Last bytes of the addresses that serve the network itself.
const RESOLVER_BYTE: u8 = 253;
const SERVER_BYTE: u8 = 254;

impl Network {
    pub(super) fn boot(
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
        let node_spec = |node: &Node| {
            let found = spec.nodes.iter().find(|s| s.nickname() == node.nickname());
            found.expect("every node was laid out from its specification")
        };
        let (authorities, others): (Vec<&mut Node>, Vec<&mut Node>) =
            self.nodes.iter_mut().partition(|node| node.role() == Role::Authority);
        let authorities = at_once(authorities, |node| {
            let (or, dir) = node.or_addr().zip(node.dir_addr()).expect("authorities have both ports");
            let v3_identity = directory::make_authority_keys(&node.dir().join("keys"), dir)?;
            let torrc = match node.kind().is_onionring() {
                true => torrc::for_node(node, node_spec(node), &shared, &|_| String::new()),
                false => torrc::for_keys(node, &shared.empty_file),
            };
            fs::write(node.torrc_path(), torrc)?;
            node.fingerprint = list_fingerprint(node)?;
            node.v3_identity = Some(v3_identity);
            let (name, fingerprint) = (node.nickname(), node.fingerprint());
            Ok(format!("{name} orport={} no-v2 v3ident={v3_identity} {dir} {fingerprint}", or.port()))
        })?;
        shared.authorities = authorities;
        let relays: Vec<&mut Node> = others.into_iter().filter(|node| node.role() != Role::Client).collect();
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
