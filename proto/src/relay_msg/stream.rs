//! Bodies of the messages that open, close and answer streams, and of those that look names up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str;

use thiserror::Error;

use super::{MAX_DATA_LEN, take, take_array};
use crate::limits::MAX_HOSTNAME_LEN;

/// The destination of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A name for the exit to resolve, valid by [`is_valid_hostname`], in the client's upper and lower case.
    Name(&'a str),
    /// An address literal.
    Addr(IpAddr),
}

impl fmt::Display for Host<'_> {
    /// The name, or the address as in a URL: an IPv6 one in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Addr(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Host::Addr(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// Whether exits look this name up: labels of letters, digits, `-` and `_` that begin with neither of the last two,
/// one final dot allowed, at most [`MAX_HOSTNAME_LEN`] bytes. This is the rule of deployed exits, wider than RFC 1123.
pub fn is_valid_hostname(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    let in_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    name.len() <= MAX_HOSTNAME_LEN
        && labels.split('.').all(|label| {
            label.bytes().all(in_label) && label.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        })
}

/// What a client accepts as the destination's address (tor-spec 6.2); no flags at all means IPv4 only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BeginFlags(pub u32);

impl BeginFlags {
    /// An IPv6 address is acceptable.
    pub const IPV6_OK: BeginFlags = BeginFlags(1);
    /// An IPv4 address is not acceptable.
    pub const IPV4_NOT_OK: BeginFlags = BeginFlags(2);
    /// IPv6 rather than IPv4, if both are there.
    pub const IPV6_PREFERRED: BeginFlags = BeginFlags(4);

    /// Whether all of `other` are set.
    pub const fn contains(self, other: BeginFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for BeginFlags {
    type Output = BeginFlags;
    fn bitor(self, other: BeginFlags) -> BeginFlags {
        BeginFlags(self.0 | other.0)
    }
}

/// Opens a stream: `host:port`, NUL, and optionally four bytes of flags (tor-spec 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin<'a> {
    /// Where to.
    pub host: Host<'a>,
    /// Port there, never 0.
    pub port: u16,
    /// What addresses the client takes.
    pub flags: BeginFlags,
}

/// Why a BEGIN is refused; the stream ends with [`BeginError::end_reason`], the circuit lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BeginError {
    /// The address is not ended by a zero byte.
    #[error("BEGIN without a zero byte")]
    NoNul,
    /// No port, or one that is not in 1 to 65535.
    #[error("BEGIN without a valid port")]
    Port,
    /// Brackets around something that is no IPv6 address.
    #[error("BEGIN with brackets around no IPv6 address")]
    Address,
    /// A name that cannot exist.
    #[error("BEGIN with a name that is no host name")]
    Name,
}

impl BeginError {
    /// The reason that the END carries, as deployed exits answer.
    pub const fn end_reason(self) -> EndReason {
        match self {
            BeginError::NoNul | BeginError::Port | BeginError::Address => EndReason::TorProtocol,
            BeginError::Name => EndReason::ResolveFailed,
        }
    }
}

impl<'a> Begin<'a> {
    /// Reads the body. One to three flag bytes count as none, further bytes are ignored.
    pub fn parse(data: &'a [u8]) -> Result<Begin<'a>, BeginError> {
        let nul = data.iter().position(|&b| b == 0).ok_or(BeginError::NoNul)?;
        let (target, mut rest) = (&data[..nul], &data[nul + 1..]);
        let colon = target.iter().rposition(|&b| b == b':').ok_or(BeginError::Port)?;
        let port = parse_port(&target[colon + 1..]).ok_or(BeginError::Port)?;
        let host = parse_host(&target[..colon])?;
        let flags = BeginFlags(take_array(&mut rest).map_or(0, u32::from_be_bytes));
        Ok(Begin { host, port, flags })
    }

    /// Appends the body; flags are left out if there are none.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{}:{}\0", self.host, self.port).as_bytes());
        if self.flags != BeginFlags::default() {
            out.extend_from_slice(&self.flags.0.to_be_bytes());
        }
    }
}

/// A decimal port in 1 to 65535, without sign.
fn parse_port(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok().filter(|&port| port != 0)
}

fn parse_host(host: &[u8]) -> Result<Host<'_>, BeginError> {
    let host = str::from_utf8(host).map_err(|_| BeginError::Name)?;
    if let Some(bracketed) = host.strip_prefix('[') {
        let ip = bracketed.strip_suffix(']').and_then(|ip| ip.parse::<Ipv6Addr>().ok());
        return ip.map(|ip| Host::Addr(ip.into())).ok_or(BeginError::Address);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Addr(ip.into()));
    }
    if is_valid_hostname(host) { Ok(Host::Name(host)) } else { Err(BeginError::Name) }
}

/// The exit has opened the stream (tor-spec 6.2). Empty for BEGIN_DIR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// The address it connected to, and for how many seconds the client may believe the name leads there.
    pub addr: Option<(IpAddr, u32)>,
}

/// A CONNECTED that is neither empty nor one of the two forms; closes the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("CONNECTED of {0} bytes has no known form")]
pub struct ConnectedError(pub usize);

/// In CONNECTED, after four zero bytes, announces an IPv6 address.
const CONNECTED_IPV6: u8 = 6;

impl Connected {
    /// Reads the body: empty, the IPv4 form (a lifetime left out counts as 0) or the IPv6 form.
    pub fn parse(data: &[u8]) -> Result<Connected, ConnectedError> {
        if data.is_empty() {
            return Ok(Connected { addr: None });
        }
        Self::parse_addr(data).map(|addr| Connected { addr: Some(addr) }).ok_or(ConnectedError(data.len()))
    }

    fn parse_addr(mut data: &[u8]) -> Option<(IpAddr, u32)> {
        let ipv4 = Ipv4Addr::from(take_array::<4>(&mut data)?);
        if !ipv4.is_unspecified() {
            return Some((ipv4.into(), take_array(&mut data).map_or(0, u32::from_be_bytes)));
        }
        let [kind] = take_array(&mut data)?;
        let ipv6 = Ipv6Addr::from(take_array::<16>(&mut data)?);
        let ttl = u32::from_be_bytes(take_array(&mut data)?);
        (kind == CONNECTED_IPV6).then_some((ipv6.into(), ttl))
    }

    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Some((ip, ttl)) = self.addr else { return };
        match ip {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => {
                out.extend_from_slice(&[0, 0, 0, 0, CONNECTED_IPV6]);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&ttl.to_be_bytes());
    }
}

/// Why a stream was closed (tor-spec 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// Anything else.
    Misc,
    /// The name could not be resolved.
    ResolveFailed,
    /// The destination refused the connection.
    ConnectRefused,
    /// The exit policy forbids the destination.
    ExitPolicy,
    /// The circuit is being destroyed.
    Destroy,
    /// An orderly end.
    Done,
    /// The connection timed out.
    Timeout,
    /// No route to the destination.
    NoRoute,
    /// The relay is hibernating.
    Hibernating,
    /// Internal error at the relay.
    Internal,
    /// The relay has no resources for the stream.
    ResourceLimit,
    /// The destination reset the connection.
    ConnReset,
    /// The peer violated the protocol.
    TorProtocol,
    /// The relay is no directory.
    NotDirectory,
    /// A reason this crate does not know, treated as [`EndReason::Misc`].
    Unknown(u8),
}

impl EndReason {
    /// The reason for a byte from the wire.
    pub const fn from_wire(byte: u8) -> EndReason {
        match byte {
            1 => EndReason::Misc,
            2 => EndReason::ResolveFailed,
            3 => EndReason::ConnectRefused,
            4 => EndReason::ExitPolicy,
            5 => EndReason::Destroy,
            6 => EndReason::Done,
            7 => EndReason::Timeout,
            8 => EndReason::NoRoute,
            9 => EndReason::Hibernating,
            10 => EndReason::Internal,
            11 => EndReason::ResourceLimit,
            12 => EndReason::ConnReset,
            13 => EndReason::TorProtocol,
            14 => EndReason::NotDirectory,
            other => EndReason::Unknown(other),
        }
    }

    /// The byte for the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            EndReason::Misc => 1,
            EndReason::ResolveFailed => 2,
            EndReason::ConnectRefused => 3,
            EndReason::ExitPolicy => 4,
            EndReason::Destroy => 5,
            EndReason::Done => 6,
            EndReason::Timeout => 7,
            EndReason::NoRoute => 8,
            EndReason::Hibernating => 9,
            EndReason::Internal => 10,
            EndReason::ResourceLimit => 11,
            EndReason::ConnReset => 12,
            EndReason::TorProtocol => 13,
            EndReason::NotDirectory => 14,
            EndReason::Unknown(byte) => byte,
        }
    }

    /// A short stable name for metrics; every unknown reason is `unknown`.
    pub const fn label(self) -> &'static str {
        match self {
            EndReason::Misc => "misc",
            EndReason::ResolveFailed => "resolve_failed",
            EndReason::ConnectRefused => "connect_refused",
            EndReason::ExitPolicy => "exit_policy",
            EndReason::Destroy => "destroy",
            EndReason::Done => "done",
            EndReason::Timeout => "timeout",
            EndReason::NoRoute => "no_route",
            EndReason::Hibernating => "hibernating",
            EndReason::Internal => "internal",
            EndReason::ResourceLimit => "resource_limit",
            EndReason::ConnReset => "conn_reset",
            EndReason::TorProtocol => "tor_protocol",
            EndReason::NotDirectory => "not_directory",
            EndReason::Unknown(_) => "unknown",
        }
    }
}

/// Closes a stream, both directions at once (tor-spec 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// With [`EndReason::ExitPolicy`]: the address that the policy forbids, and for how many seconds the client may
    /// believe the name leads there.
    pub addr: Option<(IpAddr, u32)>,
}

impl From<EndReason> for End {
    fn from(reason: EndReason) -> End {
        End { reason, addr: None }
    }
}

impl End {
    /// Reads the body; any bytes will do. An empty one counts as [`EndReason::Misc`] (tor-spec 6.3), though C tor 0.4.9
    /// closes the circuit on it: [`End::write`] always gives a reason.
    pub fn parse(mut data: &[u8]) -> End {
        let Some([reason]) = take_array(&mut data) else { return EndReason::Misc.into() };
        let reason = EndReason::from_wire(reason);
        let addr = if reason == EndReason::ExitPolicy { Self::parse_addr(data) } else { None };
        End { reason, addr }
    }

    /// The address is told apart by what remains: 4 or 16 bytes, with or without 4 more of lifetime.
    fn parse_addr(mut data: &[u8]) -> Option<(IpAddr, u32)> {
        let ip: IpAddr = match data.len() {
            4 | 8 => take_array::<4>(&mut data)?.into(),
            16 | 20 => take_array::<16>(&mut data)?.into(),
            _ => return None,
        };
        Some((ip, take_array(&mut data).map_or(0, u32::from_be_bytes)))
    }

    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.reason.to_wire());
        if let (EndReason::ExitPolicy, Some((ip, ttl))) = (self.reason, self.addr) {
            match ip {
                IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
            }
            out.extend_from_slice(&ttl.to_be_bytes());
        }
    }
}

/// Asks an exit to look something up (tor-spec 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve<'a> {
    /// The addresses of a name, valid by [`is_valid_hostname`].
    Name(&'a str),
    /// The name of an address, asked as `4.3.2.1.in-addr.arpa` or with 32 nibbles under `ip6.arpa`.
    Reverse(IpAddr),
    /// An address literal: nothing to look up, deployed exits answer with a permanent error.
    Literal(IpAddr),
}

/// A RESOLVE for what cannot be a name; answered with [`ResolvedValue::PermanentError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("RESOLVE for something that is no host name")]
pub struct ResolveError;

const REVERSE_V4: &str = ".in-addr.arpa";
const REVERSE_V6: &str = ".ip6.arpa";

impl<'a> Resolve<'a> {
    /// Reads the body: up to the first zero byte, or all of it if there is none.
    pub fn parse(data: &'a [u8]) -> Result<Resolve<'a>, ResolveError> {
        let end = data.iter().position(|&b| b == 0).unwrap_or(data.len());
        let name = str::from_utf8(&data[..end]).map_err(|_| ResolveError)?;
        if let Ok(ip) = name.parse() {
            return Ok(Resolve::Literal(ip));
        }
        if !is_valid_hostname(name) {
            return Err(ResolveError);
        }
        if let Some(reversed) = strip_suffix_ignore_case(name, REVERSE_V4) {
            return parse_reverse_v4(reversed).map(|ip| Resolve::Reverse(ip.into())).ok_or(ResolveError);
        }
        if let Some(reversed) = strip_suffix_ignore_case(name, REVERSE_V6) {
            return parse_reverse_v6(reversed).map(|ip| Resolve::Reverse(ip.into())).ok_or(ResolveError);
        }
        Ok(Resolve::Name(name))
    }

    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        let text = match *self {
            Resolve::Name(name) => name.to_owned(),
            Resolve::Literal(ip) => ip.to_string(),
            Resolve::Reverse(IpAddr::V4(ip)) => {
                let [a, b, c, d] = ip.octets();
                format!("{d}.{c}.{b}.{a}{REVERSE_V4}")
            }
            Resolve::Reverse(IpAddr::V6(ip)) => {
                let nibbles: Vec<String> =
                    ip.octets().iter().rev().map(|b| format!("{:x}.{:x}", b & 15, b >> 4)).collect();
                nibbles.join(".") + REVERSE_V6
            }
        };
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }
}

/// `name` without `suffix` and a dot after it; both are ASCII.
fn strip_suffix_ignore_case<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let (head, tail) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(head)
}

fn parse_reverse_v4(reversed: &str) -> Option<Ipv4Addr> {
    let ip: Ipv4Addr = reversed.parse().ok()?;
    let [a, b, c, d] = ip.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

fn parse_reverse_v6(reversed: &str) -> Option<Ipv6Addr> {
    let mut bits = 0u128;
    let mut count = 0u32;
    for label in reversed.split('.') {
        let [digit] = label.as_bytes() else { return None };
        let nibble = char::from(*digit).to_digit(16)?;
        if count == 32 {
            return None;
        }
        bits |= u128::from(nibble) << (4 * count);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(bits))
}

/// One answer to RESOLVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedValue {
    /// A host name, answering a reverse look-up.
    Name(String),
    /// An address.
    Addr(IpAddr),
    /// No answer now; asking again may help.
    TransientError,
    /// No answer, and asking again is pointless.
    PermanentError,
}

/// Answers to RESOLVE, each with the seconds for which it may be kept (tor-spec 6.4). No END follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The answers, at most as many as fit a cell.
    pub answers: Vec<(ResolvedValue, u32)>,
}

/// A RESOLVED that cannot be read; closes the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ResolvedError {
    /// An answer ends early.
    #[error("RESOLVED of {0} bytes ends within an answer")]
    Truncated(usize),
    /// An address of a wrong length, or a name that is no text.
    #[error("RESOLVED has an answer of type {kind} with {len} bytes that cannot be one")]
    Value {
        /// Type of the answer.
        kind: u8,
        /// Its length.
        len: u8,
    },
}

const RESOLVED_NAME: u8 = 0;
const RESOLVED_IPV4: u8 = 4;
const RESOLVED_IPV6: u8 = 6;
const RESOLVED_TRANSIENT: u8 = 0xF0;
const RESOLVED_PERMANENT: u8 = 0xF1;
/// Goes into error answers, where the value is ignored, as deployed exits do.
const RESOLVED_ERROR_TEXT: &[u8] = b"Error resolving hostname";

impl Resolved {
    /// Reads the body; answers of unknown type are skipped.
    pub fn parse(data: &[u8]) -> Result<Resolved, ResolvedError> {
        let mut answers = Vec::new();
        let mut rest = data;
        while !rest.is_empty() {
            let (kind, value, ttl) =
                Self::take_answer(&mut rest).ok_or(ResolvedError::Truncated(data.len()))?;
            if let Some(value) = Self::parse_value(kind, value)? {
                answers.push((value, ttl));
            }
        }
        Ok(Resolved { answers })
    }

    fn take_answer<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8], u32)> {
        let [kind, len] = take_array(rest)?;
        let value = take(rest, usize::from(len))?;
        Some((kind, value, u32::from_be_bytes(take_array(rest)?)))
    }

    fn parse_value(kind: u8, value: &[u8]) -> Result<Option<ResolvedValue>, ResolvedError> {
        // The value's length came from one byte.
        let wrong = ResolvedError::Value { kind, len: value.len() as u8 };
        Ok(Some(match kind {
            RESOLVED_NAME => ResolvedValue::Name(str::from_utf8(value).map_err(|_| wrong)?.to_owned()),
            RESOLVED_IPV4 => ResolvedValue::Addr(<[u8; 4]>::try_from(value).map_err(|_| wrong)?.into()),
            RESOLVED_IPV6 => ResolvedValue::Addr(<[u8; 16]>::try_from(value).map_err(|_| wrong)?.into()),
            RESOLVED_TRANSIENT => ResolvedValue::TransientError,
            RESOLVED_PERMANENT => ResolvedValue::PermanentError,
            _ => return Ok(None),
        }))
    }

    /// Appends the body. Answers beyond what one message holds, and names over 255 bytes, are left out.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for (value, ttl) in &self.answers {
            let (v4, v6);
            let (kind, bytes): (u8, &[u8]) = match value {
                ResolvedValue::Name(name) => (RESOLVED_NAME, name.as_bytes()),
                ResolvedValue::Addr(IpAddr::V4(ip)) => {
                    v4 = ip.octets();
                    (RESOLVED_IPV4, &v4)
                }
                ResolvedValue::Addr(IpAddr::V6(ip)) => {
                    v6 = ip.octets();
                    (RESOLVED_IPV6, &v6)
                }
                ResolvedValue::TransientError => (RESOLVED_TRANSIENT, RESOLVED_ERROR_TEXT),
                ResolvedValue::PermanentError => (RESOLVED_PERMANENT, RESOLVED_ERROR_TEXT),
            };
            let Ok(len) = u8::try_from(bytes.len()) else { continue };
            if out.len() - start + 6 + bytes.len() > MAX_DATA_LEN {
                continue;
            }
            out.extend_from_slice(&[kind, len]);
            out.extend_from_slice(bytes);
            out.extend_from_slice(&ttl.to_be_bytes());
        }
    }
}
