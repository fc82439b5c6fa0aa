//! The `*Port` options: `[address:]port|auto flags…`, several lines each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Item, Origin, Problem, value};

mod client;

pub use client::{ClientKind, ClientPlace, ClientPort, IsolateBy, client_ports};

/// A port number as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortNumber {
    /// This one, from 1 to 65535.
    Fixed(u16),
    /// Any that is free, chosen when the listener opens.
    Auto,
}

impl PortNumber {
    /// The number to bind to: 0 lets the system choose.
    pub fn to_bind(self) -> u16 {
        match self {
            PortNumber::Fixed(port) => port,
            PortNumber::Auto => 0,
        }
    }
}

/// A listener of a server, or an address it advertises, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPort {
    /// The line it comes from.
    pub origin: Origin,
    /// The address. Without one on the line: all of one family, `0.0.0.0` or `::`.
    pub address: IpAddr,
    /// Whether the line gives the address.
    pub is_explicit: bool,
    /// The port.
    pub port: PortNumber,
    /// Whether to open a listener here (no `NoListen`).
    pub listen: bool,
    /// Whether to put it into the descriptor (no `NoAdvertise`).
    pub advertise: bool,
}

impl ServerPort {
    /// Where to bind the listener.
    pub fn to_bind(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port.to_bind())
    }
}

/// What stands before the flags of a `*Port` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `0`: no listener.
    Off,
    /// A port, and an address if one is given.
    At(Option<IpAddr>, PortNumber),
}

const PLACE_REMEDY: &str = "write a port, auto, 1.2.3.4:port or [2001:db8::1]:port";

fn place(item: &Item, text: &str) -> Result<Place, Problem> {
    let port = |digits: &str| match digits {
        _ if digits.eq_ignore_ascii_case("auto") => Some(PortNumber::Auto),
        _ => digits.parse().ok().filter(|&port| port != 0).map(PortNumber::Fixed),
    };
    if text == "0" {
        return Ok(Place::Off);
    }
    if let Some(port) = port(text) {
        return Ok(Place::At(None, port));
    }
    let parsed = text.rsplit_once(':').and_then(|(host, digits)| {
        // An IPv6 address must be in brackets here, or its last group would pass for a port.
        let address =
            value::address(host).ok().filter(|address| address.is_ipv4() || host.starts_with('['))?;
        Some(Place::At(Some(address), port(digits)?))
    });
    let what = if text.starts_with("unix:") { "a socket file is not possible here" } else { "not a port" };
    parsed.ok_or_else(|| Problem::with(item, what, PLACE_REMEDY))
}

/// Reports lines that turn a port off beside others that turn it on.
fn contradiction(items: &[Item], off: &[&Item], problems: &mut Vec<Problem>) {
    if let Some(item) = off.first().filter(|_| off.len() < items.len()) {
        let what = format!("port 0 turns it off, but other {} lines turn it on", item.name);
        problems.push(Problem::with(item, what, "remove the one or the others"));
    }
}

/// The listeners and advertised addresses of `ORPort` lines. A line without an address stands for both families,
/// unless `IPv4Only` or `IPv6Only` picks one; a line with an address takes precedence over one without on the same
/// port and family.
pub fn or_ports(items: &[Item], problems: &mut Vec<Problem>) -> Vec<ServerPort> {
    server_ports(items, &[Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()], problems)
}

/// The listeners of `DirPort` lines. A line without an address means IPv4.
pub fn dir_ports(items: &[Item], problems: &mut Vec<Problem>) -> Vec<ServerPort> {
    server_ports(items, &[Ipv4Addr::UNSPECIFIED.into()], problems)
}

fn server_ports(items: &[Item], implicit: &[IpAddr], problems: &mut Vec<Problem>) -> Vec<ServerPort> {
    let mut ports: Vec<ServerPort> = Vec::new();
    let mut off = Vec::new();
    for item in items {
        match server_line(item, implicit) {
            Ok(Some(line)) => ports.extend(line),
            Ok(None) => off.push(item),
            Err(problem) => problems.push(problem),
        }
    }
    contradiction(items, &off, problems);
    let explicit: Vec<_> = ports.iter().filter(|p| p.is_explicit).map(|p| (p.address, p.port)).collect();
    ports.retain(|p| {
        let superseded = |&(address, port): &(IpAddr, PortNumber)| {
            address.is_ipv4() == p.address.is_ipv4() && port == p.port
        };
        p.is_explicit || !explicit.iter().any(superseded)
    });
    let mut unique: Vec<ServerPort> = Vec::new();
    for port in ports {
        let same = |u: &ServerPort| {
            (u.address, u.port, u.listen, u.advertise)
                == (port.address, port.port, port.listen, port.advertise)
        };
        // `auto` twice means two ports; a number twice means the same one.
        if port.port == PortNumber::Auto || !unique.iter().any(same) {
            unique.push(port);
        }
    }
    unique
}

fn server_line(item: &Item, implicit: &[IpAddr]) -> Result<Option<Vec<ServerPort>>, Problem> {
    let mut words = item.value.split_ascii_whitespace();
    let Place::At(address, port) = place(item, words.next().unwrap_or(""))? else {
        return Ok(None);
    };
    let (mut listen, mut advertise, mut v4, mut v6) = (true, true, true, true);
    for word in words {
        match word.to_ascii_lowercase().as_str() {
            "nolisten" => listen = false,
            "noadvertise" => advertise = false,
            "ipv4only" => v6 = false,
            "ipv6only" => v4 = false,
            _ => {
                let what = format!("unknown flag {word}");
                return Err(Problem::with(item, what, "use NoListen, NoAdvertise, IPv4Only or IPv6Only"));
            }
        }
    }
    if !listen && !advertise {
        return Err(Problem::with(
            item,
            "NoListen and NoAdvertise leave nothing",
            "remove one of them, or the line",
        ));
    }
    let wanted = |address: &IpAddr| if address.is_ipv4() { v4 } else { v6 };
    let addresses: Vec<IpAddr> = match address {
        Some(address) => [address].into_iter().filter(wanted).collect(),
        None => implicit.iter().copied().filter(wanted).collect(),
    };
    if addresses.is_empty() {
        let what = "IPv4Only or IPv6Only leaves no address of this line";
        return Err(Problem::with(item, what, "remove the flag, or give an address of that family"));
    }
    let is_explicit = address.is_some();
    let build =
        |address| ServerPort { origin: item.origin.clone(), address, is_explicit, port, listen, advertise };
    Ok(Some(addresses.into_iter().map(build).collect()))
}

/// The listeners of `MetricsPort` lines: loopback unless the line gives an address, and `prometheus` as the only
/// format.
pub fn metrics_ports(items: &[Item], problems: &mut Vec<Problem>) -> Vec<SocketAddr> {
    let mut ports = Vec::new();
    let mut off = Vec::new();
    for item in items {
        let mut words = item.value.split_ascii_whitespace();
        match place(item, words.next().unwrap_or("")) {
            Ok(Place::Off) => off.push(item),
            Ok(Place::At(address, port)) => {
                let address = address.unwrap_or(Ipv4Addr::LOCALHOST.into());
                ports.push(SocketAddr::new(address, port.to_bind()));
            }
            Err(problem) => problems.push(problem),
        }
        if let Some(word) = words.find(|word| !word.eq_ignore_ascii_case("prometheus")) {
            let what = format!("unknown format {word}");
            problems.push(Problem::with(item, what, "the one format is prometheus"));
        }
    }
    contradiction(items, &off, problems);
    ports
}
