//! One rule of a policy: an action, a network and a range of ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use thiserror::Error;

use super::PolicyError;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let it through.
    Accept,
    /// Refuse it.
    Reject,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Accept => "accept",
            Action::Reject => "reject",
        })
    }
}

/// A range of ports within 1 to 65535, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Every port.
    pub const ALL: Ports = Ports { first: 1, last: u16::MAX };

    /// The ports from `first` to `last`; `None` if there are none, or one is 0.
    pub const fn new(first: u16, last: u16) -> Option<Ports> {
        if first == 0 || first > last { None } else { Some(Ports { first, last }) }
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether the port is in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Reads `80` or `80-90`.
    pub(super) fn parse(text: &str) -> Option<Ports> {
        let port = |digits: &str| -> Option<u16> {
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        match text.split_once('-') {
            Some((first, last)) => Ports::new(port(first)?, port(last)?),
            None => Ports::new(port(text)?, port(text)?),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// The addresses that share a prefix. Bits after the prefix are kept as they were written, and do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    prefix_len: u8,
}

/// A prefix longer than the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("prefix length {prefix_len} does not fit the address {ip}")]
pub struct NetworkError {
    ip: IpAddr,
    prefix_len: u8,
}

const fn v4(a: u8, b: u8, prefix_len: u8) -> Network {
    Network { ip: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), prefix_len }
}

const fn v6(first: u16, prefix_len: u8) -> Network {
    Network { ip: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), prefix_len }
}

impl Network {
    /// Every IPv4 address.
    pub const ALL_V4: Network = v4(0, 0, 0);
    /// Every IPv6 address.
    pub const ALL_V6: Network = v6(0, 0);

    /// What `private` stands for. Authorities leave the same networks out of summaries, so the list is part of the
    /// protocol.
    pub const PRIVATE: [Network; 12] = [
        v4(0, 0, 8),
        v4(169, 254, 16),
        v4(127, 0, 8),
        v4(192, 168, 16),
        v4(10, 0, 8),
        v4(172, 16, 12),
        v6(0, 8),
        v6(0xfc00, 7),
        v6(0xfe80, 10),
        v6(0xfec0, 10),
        v6(0xff00, 8),
        v6(0, 127),
    ];

    /// The network of `ip` and all that share its first `prefix_len` bits.
    pub fn new(ip: IpAddr, prefix_len: u8) -> Result<Network, NetworkError> {
        let max = if ip.is_ipv4() { 32 } else { 128 };
        if prefix_len > max { Err(NetworkError { ip, prefix_len }) } else { Ok(Network { ip, prefix_len }) }
    }

    /// The network of a single address.
    pub fn host(ip: IpAddr) -> Network {
        Network { ip, prefix_len: if ip.is_ipv4() { 32 } else { 128 } }
    }

    /// Bits that addresses of the network share.
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Whether it is a network of IPv4 addresses.
    pub const fn is_ipv4(self) -> bool {
        self.ip.is_ipv4()
    }

    /// Whether every address of its family is in it.
    pub const fn is_everything(self) -> bool {
        self.prefix_len == 0
    }

    /// Whether the address is in the network.
    pub fn contains(self, ip: IpAddr) -> bool {
        self.shares_prefix(ip, self.prefix_len)
    }

    /// Whether both are of one family and agree on that many first bits.
    fn shares_prefix(self, ip: IpAddr, bits: u8) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// The /8 networks of IPv4 that it touches, by their first octet.
    pub(super) fn slash_8s(self) -> Option<RangeInclusive<u8>> {
        let IpAddr::V4(ip) = self.ip else { return None };
        let host_bits = u32::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0);
        let [first, ..] = (ip.to_bits() & !host_bits).to_be_bytes();
        let [last, ..] = (ip.to_bits() | host_bits).to_be_bytes();
        Some(first..=last)
    }
}

impl fmt::Display for Network {
    /// As in a policy: `*4`, `*6`, an IPv6 address in brackets, and no prefix length for a single address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip, self.prefix_len) {
            (IpAddr::V4(_), 0) => f.write_str("*4"),
            (IpAddr::V6(_), 0) => f.write_str("*6"),
            (IpAddr::V4(ip), 32) => write!(f, "{ip}"),
            (IpAddr::V4(ip), len) => write!(f, "{ip}/{len}"),
            (IpAddr::V6(ip), 128) => write!(f, "[{ip}]"),
            (IpAddr::V6(ip), len) => write!(f, "[{ip}]/{len}"),
        }
    }
}

/// Whether the address is not routed on the Internet: loopback, link-local, private or shared address space. Relays do
/// not extend to such addresses and do not publish them.
pub fn is_internal(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            matches!(a, 0 | 10 | 127)
                || (a == 100 && b & 0xc0 == 64)
                || (a == 169 && b == 254)
                || (a == 172 && b & 0xf0 == 16)
                || (a == 192 && b == 168)
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            first & 0xfe00 == 0xfc00 || first & 0xff80 == 0xfe80 || ip.to_bits() <= 1
        }
    }
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What to do.
    pub action: Action,
    /// With which addresses.
    pub network: Network,
    /// On which ports.
    pub ports: Ports,
}

impl Rule {
    /// Whether all that `other` matches, this matches too.
    pub(super) fn covers(&self, other: &Rule) -> bool {
        self.network.prefix_len <= other.network.prefix_len
            && self.network.contains(other.network.ip)
            && self.ports.first <= other.ports.first
            && other.ports.last <= self.ports.last
    }

    /// Whether both match some address and port.
    pub(super) fn overlaps(&self, other: &Rule) -> bool {
        let bits = self.network.prefix_len.min(other.network.prefix_len);
        self.network.shares_prefix(other.network.ip, bits)
            && self.ports.first <= other.ports.last
            && other.ports.first <= self.ports.last
    }

    /// The line of a router descriptor for an IPv4 rule, where `*` means IPv4.
    pub(super) fn descriptor_line(&self) -> String {
        if self.network.is_everything() {
            format!("{} *:{}", self.action, PortsOrStar(self.ports))
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for Rule {
    /// As in a torrc, like `reject 192.0.2.0/24:*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.action, self.network, PortsOrStar(self.ports))
    }
}

struct PortsOrStar(Ports);

impl fmt::Display for PortsOrStar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Ports::ALL { f.write_str("*") } else { self.0.fmt(f) }
    }
}

/// The address part of a written rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// `*`
    Any,
    /// `*4`
    Any4,
    /// `*6`
    Any6,
    /// `private`
    Private,
    /// An address, with or without mask.
    Network(Network),
}

/// A rule as it is written, before its stars are given a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    pub action: Action,
    /// Whether the keyword was `accept6` or `reject6`.
    pub six: bool,
    pub host: Host,
    pub ports: Ports,
}

impl Pattern {
    /// Reads a keyword, white space, and `address[/mask][:ports]`.
    pub fn parse(entry: &str) -> Result<Pattern, PolicyError> {
        let mut words = entry.split_ascii_whitespace();
        let (action, six) = match words.next() {
            Some("accept") => (Action::Accept, false),
            Some("accept6") => (Action::Accept, true),
            Some("reject") => (Action::Reject, false),
            Some("reject6") => (Action::Reject, true),
            _ => return Err(PolicyError::Keyword(entry.to_owned())),
        };
        let (Some(pattern), None) = (words.next(), words.next()) else {
            return Err(PolicyError::Pattern(entry.to_owned()));
        };

        // An IPv6 address has colons of its own, so the port is looked for behind the bracket.
        let after_ip = pattern.find(']').map_or(0, |bracket| bracket + 1);
        let (address, ports) = match pattern[after_ip..].find(':') {
            Some(colon) => (&pattern[..after_ip + colon], &pattern[after_ip + colon + 1..]),
            None => (pattern, "*"),
        };
        let (ip, mask) = match address.split_once('/') {
            Some((ip, mask)) => (ip, Some(mask)),
            None => (address, None),
        };
        let host = match ip {
            "*" => Host::Any,
            "*4" => Host::Any4,
            "*6" => Host::Any6,
            "private" => Host::Private,
            _ => Host::Network(parse_network(ip, mask, entry)?),
        };
        if mask.is_some() && !matches!(host, Host::Network(_)) {
            return Err(PolicyError::Mask(entry.to_owned()));
        }
        let ports = match ports {
            "" | "*" => Ports::ALL,
            ports => Ports::parse(ports).ok_or_else(|| PolicyError::Ports(entry.to_owned()))?,
        };
        Ok(Pattern { action, six, host, ports })
    }
}

fn parse_network(ip: &str, mask: Option<&str>, entry: &str) -> Result<Network, PolicyError> {
    let ip = match ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
        Some(ip) => ip.parse::<Ipv6Addr>().map(IpAddr::V6),
        None => ip.parse::<Ipv4Addr>().map(IpAddr::V4),
    };
    let ip = ip.map_err(|_| PolicyError::Address(entry.to_owned()))?;
    let Some(mask) = mask else { return Ok(Network::host(ip)) };
    let bad_mask = || PolicyError::Mask(entry.to_owned());
    let prefix_len = if mask.bytes().all(|b| b.is_ascii_digit()) {
        mask.parse().map_err(|_| bad_mask())?
    } else {
        netmask_len(mask).filter(|_| ip.is_ipv4()).ok_or_else(bad_mask)?
    };
    Network::new(ip, prefix_len).map_err(|_| bad_mask())
}

/// The prefix length of a mask like `255.255.0.0`.
fn netmask_len(mask: &str) -> Option<u8> {
    let bits = mask.parse::<Ipv4Addr>().ok()?.to_bits();
    let len = bits.leading_ones();
    // At most 32.
    (len + bits.trailing_zeros().min(32 - len) == 32).then_some(len as u8)
}
