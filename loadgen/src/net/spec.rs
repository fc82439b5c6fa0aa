//! What a network is made of.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{BootError, Network, Progress, home};

/// The shortest regular voting interval that C tor takes: twice the least vote and distribution delays and a second.
pub const VOTING_INTERVAL_MIN_SECONDS: u32 = 10;

/// What a node does in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A directory authority. It is a relay too, but no path that we build uses it.
    Authority,
    /// A relay that refuses exit streams.
    Relay,
    /// A relay whose exit policy accepts everything.
    Exit,
    /// A client with a SOCKS port.
    Client,
}

impl Role {
    /// The word used in nicknames and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Role::Authority => "authority",
            Role::Relay => "relay",
            Role::Exit => "exit",
            Role::Client => "client",
        }
    }
}

/// Which implementation a node runs. Any two are interchangeable: all take C tor's command line and torrc.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kind(Cow<'static, str>);

impl Kind {
    /// The installed `tor`.
    pub const TOR: Kind = Kind(Cow::Borrowed("tor"));
    /// The programs of this build.
    pub const ONIONRING: Kind = Kind(Cow::Borrowed("onionring"));

    /// A kind whose program is given by [`NetworkSpec::program`].
    pub fn new(name: impl Into<String>) -> Kind {
        Kind(Cow::Owned(name.into()))
    }

    /// Whether it understands options that only onionring has a use for and lacks a control port.
    pub fn is_onionring(&self) -> bool {
        *self == Kind::ONIONRING
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something in a description of a network that makes no sense.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    /// A group is not of the form `kind:count,...`.
    #[error("`{0}` is no group of nodes; write kind:count, as in `onionring:2,tor:1`")]
    Group(String),
    /// A program is not of the form `name=path`.
    #[error("`{0}` names no program; write name=path, as in `oldtor=/opt/tor-0.4.8/bin/tor`")]
    Program(String),
    /// Nothing is known about how to start a kind.
    #[error("no program is known for kind `{kind}`; add `{kind}=PATH`, or use `tor` or `onionring`")]
    UnknownKind {
        /// The kind asked for.
        kind: Kind,
    },
    /// The program of a kind is not there.
    #[error(
        "{path} does not exist; build it first (`cargo build --release -p {package}`), name it in the environment \
         ({variable}=PATH), or use another kind",
        path = path.display(), variable = variable(package)
    )]
    NotBuilt {
        /// Where the program was looked for.
        path: PathBuf,
        /// The package that builds it.
        package: &'static str,
    },
    /// A network cannot work without authorities.
    #[error("a network needs at least one authority")]
    NoAuthority,
    /// Too many nodes for one block of addresses.
    #[error("{0} nodes do not fit into a network; the most is {NODES_MAX}")]
    TooManyNodes(usize),
    /// Two nodes have one name, or a name is no nickname.
    #[error(
        "`{0}` cannot be a nickname: it is taken, empty, longer than 19 or holds more than letters and digits"
    )]
    Nickname(String),
    /// A pin names no node.
    #[error("{client} pins a hop to `{pin}`, but there is no such relay")]
    Pin {
        /// The client.
        client: String,
        /// The nickname it asks for.
        pin: String,
    },
    /// A voting interval that C tor refuses.
    #[error(
        "a voting interval of {0} s is refused by C tor: it must be at least {VOTING_INTERVAL_MIN_SECONDS} s and \
         divide a day"
    )]
    VotingInterval(u32),
}

/// The most nodes a network can have: the rest of its 256 addresses serves the network itself.
pub const NODES_MAX: usize = 240;

/// A number of nodes of one kind: `onionring:2`. A list of them is separated by commas; the count defaults to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What the nodes run.
    pub kind: Kind,
    /// How many.
    pub count: usize,
}

/// Groups as given on the command line, `onionring:2,tor:2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(pub Vec<Group>);

/// As they are given: `onionring:2,tor:2`.
impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Group { kind, count }) in self.0.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            write!(f, "{comma}{kind}:{count}")?;
        }
        Ok(())
    }
}

impl FromStr for Groups {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Groups, SpecError> {
        let parse = |part: &str| {
            let (kind, count) = part.split_once(':').unwrap_or((part, "1"));
            let count = count.parse().ok().filter(|_| !kind.is_empty());
            count
                .map(|count| Group { kind: Kind::new(kind), count })
                .ok_or_else(|| SpecError::Group(text.into()))
        };
        text.split(',').filter(|part| !part.is_empty()).map(parse).collect::<Result<_, _>>().map(Groups)
    }
}

/// A node to be.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    pub(super) nickname: Option<String>,
    pub(super) role: Role,
    pub(super) kind: Kind,
    pub(super) torrc: Vec<String>,
    pub(super) shards: Option<u16>,
    pub(super) pins: Pins,
    pub(super) environment: Vec<(String, String)>,
    pub(super) dir_port: bool,
}

/// Nicknames of the relays a client may use in each position; empty means any.
#[derive(Clone, Debug, Default)]
pub(super) struct Pins {
    pub(super) entry: Vec<String>,
    pub(super) middle: Vec<String>,
    pub(super) exit: Vec<String>,
}

impl NodeSpec {
    /// A node with the default settings of its role.
    pub fn new(role: Role, kind: Kind) -> NodeSpec {
        NodeSpec {
            nickname: None,
            role,
            kind,
            torrc: Vec::new(),
            shards: None,
            pins: Pins::default(),
            environment: Vec::new(),
            dir_port: role == Role::Authority,
        }
    }

    /// Gives it a nickname. Without, it is its role and a number from 1: `relay1`, `exit1`.
    pub fn named(mut self, nickname: &str) -> NodeSpec {
        self.nickname = Some(nickname.to_owned());
        self
    }

    /// Adds a line to its torrc. Together with others for the same option it replaces what the library wrote for that
    /// option; with a `+` before the option (`+ORPort [::1]:9001`) it is added.
    pub fn torrc(mut self, line: &str) -> NodeSpec {
        self.torrc.push(line.to_owned());
        self
    }

    /// Has a relay serve the directory over plain HTTP too, as authorities always do.
    pub fn dir_port(mut self) -> NodeSpec {
        self.dir_port = true;
        self
    }

    /// Sets a variable in the environment of its process: for settings that no torrc has.
    pub fn env(mut self, name: &str, value: &str) -> NodeSpec {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The number of shards (`NumCPUs`) if it is a relay of onionring's; no effect on others.
    pub fn shards(mut self, count: u16) -> NodeSpec {
        self.shards = Some(count);
        self
    }

    /// For a client: every circuit that it builds by itself goes over these relays, one (or any of several, divided
    /// by commas) for each position. [`Paths`](super::Paths) instead chooses path by path while the client runs.
    pub fn pinned(mut self, entry: &str, middle: &str, exit: &str) -> NodeSpec {
        let list = |names: &str| names.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect();
        self.pins = Pins { entry: list(entry), middle: list(middle), exit: list(exit) };
        self
    }
}

/// A network to be. See the example at the [crate].
#[derive(Clone, Debug)]
pub struct NetworkSpec {
    pub(super) nodes: Vec<NodeSpec>,
    pub(super) programs: BTreeMap<String, PathBuf>,
    pub(super) torrc: Vec<(Option<Role>, String)>,
    pub(super) name: Option<String>,
    pub(super) voting_interval_seconds: u32,
    pub(super) boot_timeout: Duration,
    pub(super) keep: bool,
}

impl Default for NetworkSpec {
    fn default() -> NetworkSpec {
        NetworkSpec::new()
    }
}

impl NetworkSpec {
    /// An empty network.
    pub fn new() -> NetworkSpec {
        NetworkSpec {
            nodes: Vec::new(),
            programs: BTreeMap::new(),
            torrc: Vec::new(),
            name: None,
            voting_interval_seconds: VOTING_INTERVAL_MIN_SECONDS,
            boot_timeout: Duration::from_secs(120),
            keep: false,
        }
    }

    /// Three stock authorities and a stock client, `client1`: what most tests surround their relays with.
    pub fn stock() -> NetworkSpec {
        NetworkSpec::new().add(Role::Authority, Kind::TOR, 3).add(Role::Client, Kind::TOR, 1)
    }

    /// Adds `count` like nodes.
    pub fn add(mut self, role: Role, kind: Kind, count: usize) -> NetworkSpec {
        self.nodes.extend(std::iter::repeat_n(NodeSpec::new(role, kind), count));
        self
    }

    /// Adds groups of nodes.
    pub fn add_groups(self, role: Role, groups: &Groups) -> NetworkSpec {
        groups.0.iter().fold(self, |spec, group| spec.add(role, group.kind.clone(), group.count))
    }

    /// Adds one node.
    pub fn node(mut self, node: NodeSpec) -> NetworkSpec {
        self.nodes.push(node);
        self
    }

    /// Says which program a kind is. Also replaces what `tor` and `onionring` mean, for all roles; another program of
    /// onionring's for one role is named by `ONIONRING_DIRAUTH`, `ONIONRING_RELAY` or `ONIONRING_PROXY` in the environment.
    pub fn program(mut self, kind: &str, path: impl Into<PathBuf>) -> NetworkSpec {
        self.programs.insert(kind.to_owned(), path.into());
        self
    }

    /// The same from the form `name=path`.
    pub fn program_from(self, definition: &str) -> Result<NetworkSpec, SpecError> {
        match definition.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(self.program(name, path)),
            _ => Err(SpecError::Program(definition.to_owned())),
        }
    }

    /// Adds a line to the torrc of every node, with the same rule as [`NodeSpec::torrc`].
    pub fn torrc(mut self, line: &str) -> NetworkSpec {
        self.torrc.push((None, line.to_owned()));
        self
    }

    /// Adds a line to the torrc of every node of a role.
    pub fn torrc_of(mut self, role: Role, line: &str) -> NetworkSpec {
        self.torrc.push((Some(role), line.to_owned()));
        self
    }

    /// Sets the number of shards of every relay of onionring's that has none set.
    pub fn shards(mut self, count: u16) -> NetworkSpec {
        for node in &mut self.nodes {
            node.shards.get_or_insert(count);
        }
        self
    }

    /// Names the network; without, it is named after its addresses.
    pub fn named(mut self, name: &str) -> NetworkSpec {
        self.name = Some(name.to_owned());
        self
    }

    /// Seconds between two consensuses once the first one is there; default and least is 10. Longer means less work
    /// in the background of a measurement.
    pub fn voting_interval(mut self, seconds: u32) -> NetworkSpec {
        self.voting_interval_seconds = seconds;
        self
    }

    /// How long booting may take, default 120 s.
    pub fn boot_timeout(mut self, patience: Duration) -> NetworkSpec {
        self.boot_timeout = patience;
        self
    }

    /// Leaves the nodes' directories (keys, logs) behind.
    pub fn keep(mut self, keep: bool) -> NetworkSpec {
        self.keep = keep;
        self
    }

    /// Boots the network and waits until it is usable.
    pub fn boot(self) -> Result<Network, BootError> {
        self.boot_with(&mut |_| ControlFlow::Continue(()))
    }

    /// The same, with a report of what is going on, several times a second; the callback may break it off.
    pub fn boot_with(
        self,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Network, BootError> {
        Network::boot(self, report)
    }

    /// Fills in nicknames and checks what can be checked before anything is started.
    pub(super) fn complete(mut self) -> Result<NetworkSpec, SpecError> {
        if self.nodes.len() > NODES_MAX {
            return Err(SpecError::TooManyNodes(self.nodes.len()));
        }
        if !self.nodes.iter().any(|node| node.role == Role::Authority) {
            return Err(SpecError::NoAuthority);
        }
        let interval = self.voting_interval_seconds;
        if interval < VOTING_INTERVAL_MIN_SECONDS || 24 * 60 * 60 % interval != 0 {
            return Err(SpecError::VotingInterval(interval));
        }
        let mut counts = BTreeMap::new();
        for node in &mut self.nodes {
            let count = counts.entry(node.role).or_insert(0);
            *count += 1;
            node.nickname.get_or_insert_with(|| format!("{}{count}", node.role.word()));
        }
        let mut taken = BTreeMap::new();
        for node in &self.nodes {
            let name = node.nickname();
            let legal = (1..=19).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
            if !legal || taken.insert(name, node.role).is_some() {
                return Err(SpecError::Nickname(name.to_owned()));
            }
        }
        for node in &self.nodes {
            let pins = [&node.pins.entry, &node.pins.middle, &node.pins.exit];
            for pin in pins.into_iter().flatten() {
                if taken.get(pin.as_str()).is_none_or(|role| *role == Role::Client) {
                    return Err(SpecError::Pin { client: node.nickname().to_owned(), pin: pin.clone() });
                }
            }
        }
        Ok(self)
    }

    /// The program a node of this kind and role runs.
    pub(crate) fn program_of(&self, kind: &Kind, role: Role) -> Result<PathBuf, SpecError> {
        if let Some(path) = self.programs.get(&*kind.0) {
            return Ok(path.clone());
        }
        if *kind == Kind::TOR {
            return Ok(PathBuf::from("tor"));
        }
        if !kind.is_onionring() {
            return Err(SpecError::UnknownKind { kind: kind.clone() });
        }
        let package = match role {
            Role::Authority => "onionring-dirauth",
            Role::Relay | Role::Exit => "onionring-relay",
            Role::Client => "onionring-proxy",
        };
        match std::env::var_os(variable(package)) {
            Some(path) => Ok(PathBuf::from(path)),
            None => own(package),
        }
    }
}

impl NodeSpec {
    /// The nickname, which [`NetworkSpec::complete`] has made sure of.
    pub(super) fn nickname(&self) -> &str {
        self.nickname.as_deref().unwrap_or_default()
    }
}

/// The variable of the environment that names another program: `ONIONRING_DIRAUTH` for `onionring-dirauth`.
fn variable(package: &str) -> String {
    package.to_ascii_uppercase().replace('-', "_")
}

/// A program of this build: our own executable by that name, if it is `onionring-loadgen`, which holds all of them;
/// otherwise the one beside it, or one folder up when it is a test's (`target/debug/deps`).
fn own(package: &'static str) -> Result<PathBuf, SpecError> {
    let own = std::env::current_exe().unwrap_or_default();
    if cfg!(feature = "programs")
        && own.file_name().is_some_and(|name| name == "onionring-loadgen")
        && let Ok(link) = home::link(package, &own)
    {
        return Ok(link);
    }
    let folder = own.parent().unwrap_or(Path::new("."));
    let candidates = [Some(folder), folder.parent()];
    let found = candidates.into_iter().flatten().map(|f| f.join(package)).find(|path| path.is_file());
    found.ok_or_else(|| SpecError::NotBuilt { path: folder.join(package), package })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        let groups: Groups = "onionring:2,tor".parse().unwrap();
        assert_eq!(groups.0[0], Group { kind: Kind::ONIONRING, count: 2 });
        assert_eq!(groups.0[1], Group { kind: Kind::TOR, count: 1 });
        assert_eq!(groups.to_string(), "onionring:2,tor:1");
        assert_eq!("".parse::<Groups>().unwrap().0, []);
        for bad in ["tor:", "tor:x", ":3", "tor:-1"] {
            assert_eq!(bad.parse::<Groups>(), Err(SpecError::Group(bad.into())));
        }
    }

    #[test]
    fn nicknames_are_made_and_checked() {
        let names = |spec: NetworkSpec| {
            spec.complete().map(|s| s.nodes.iter().map(|n| n.nickname().to_owned()).collect::<Vec<_>>())
        };
        let stock = NetworkSpec::stock;
        assert_eq!(names(stock()).unwrap(), ["authority1", "authority2", "authority3", "client1"]);
        let relay = || NodeSpec::new(Role::Relay, Kind::TOR);
        assert_eq!(
            names(stock().node(relay().named("client1"))),
            Err(SpecError::Nickname("client1".into())),
            "taken"
        );
        assert_eq!(names(stock().node(relay().named("a b"))), Err(SpecError::Nickname("a b".into())));
        assert_eq!(names(NetworkSpec::new()), Err(SpecError::NoAuthority));
        assert_eq!(names(stock().voting_interval(5)), Err(SpecError::VotingInterval(5)));
    }

    #[test]
    fn pins_name_relays() {
        let client = |pin| NodeSpec::new(Role::Client, Kind::TOR).named("c").pinned(pin, "", "");
        let spec = |pin| NetworkSpec::stock().add(Role::Relay, Kind::TOR, 1).node(client(pin)).complete();
        assert!(spec("relay1").is_ok());
        for pin in ["client1", "relay2"] {
            assert_eq!(spec(pin).unwrap_err(), SpecError::Pin { client: "c".into(), pin: pin.into() });
        }
    }
}
