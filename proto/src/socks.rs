//! SOCKS, by which applications ask for streams: versions 4, 4a and 5 (RFC 1928, RFC 1929) with the network's additions
//! (socks-extensions; proposals 304 and 351).
//!
//! [`Server`] is the side of the proxy, [`Client`] that of a program which asks a proxy. Both take what has arrived, say
//! how much of it they used, and append what is to be sent; what follows the last message is left to the caller, for it
//! belongs to the stream.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str;

use crate::relay_msg::is_valid_hostname;

mod client;
mod reply;
mod server;

pub use client::{Answer, Client, ClientError};
pub use reply::{HTTP_PAGE, Status};
pub use server::{Server, SocksError};

#[cfg(test)]
mod tests;

/// First byte of version 4.
const V4: u8 = 4;
/// First byte of version 5.
const V5: u8 = 5;
/// First byte of the messages with user name and password.
const AUTH: u8 = 1;

/// "No authentication".
const METHOD_NONE: u8 = 0;
/// User name and password.
const METHOD_PASSWORD: u8 = 2;
/// "None of those".
const METHOD_NO: u8 = 0xff;

const ATYP_V4: u8 = 1;
const ATYP_NAME: u8 = 3;
const ATYP_V6: u8 = 4;

/// The version that an application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 4 or 4a.
    V4,
    /// 5.
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V4 => "4",
            Version::V5 => "5",
        })
    }
}

/// What an application wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A stream.
    Connect,
    /// The address of a name.
    Resolve,
    /// The name of an address.
    ResolvePtr,
}

impl Command {
    fn from_wire(version: Version, byte: u8) -> Option<Command> {
        match (version, byte) {
            (_, 1) => Some(Command::Connect),
            (_, 0xf0) => Some(Command::Resolve),
            (Version::V5, 0xf1) => Some(Command::ResolvePtr),
            _ => None,
        }
    }

    fn to_wire(self) -> u8 {
        match self {
            Command::Connect => 1,
            Command::Resolve => 0xf0,
            Command::ResolvePtr => 0xf1,
        }
    }
}

/// Where to, or what to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name, valid by [`is_valid_hostname`], in the application's upper and lower case.
    Name(Box<str>),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(address) => address.fmt(f),
        }
    }
}

impl Host {
    /// Reads what an application calls a name: also an address, an IPv6 one with or without brackets. `None` if it is
    /// neither; names with unusual characters are not passed on, as in C tor.
    pub fn parse(name: &str) -> Option<Host> {
        if let Some(inner) = name.strip_prefix('[') {
            return Some(Host::Address(inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into()));
        }
        match name.parse() {
            Ok(address) => Some(Host::Address(address)),
            Err(_) => is_valid_hostname(name).then(|| Host::Name(name.into())),
        }
    }

    fn from_wire(name: &[u8]) -> Option<Host> {
        Host::parse(str::from_utf8(name).ok()?)
    }
}

/// User name and password: they open no door, but keep streams apart. Both may be empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// User name.
    pub user: Box<[u8]>,
    /// Password; empty in version 4, which has none.
    pub password: Box<[u8]>,
}

impl fmt::Debug for Auth {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth")
    }
}

/// What an application asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The version, which is that of the reply too.
    pub version: Version,
    /// What it wants.
    pub command: Command,
    /// Where.
    pub host: Host,
    /// Whether the host was given as an address, not as a name: then somebody has looked it up already.
    pub is_literal: bool,
    /// The port; 0 only if no stream is asked for.
    pub port: u16,
    /// User name and password.
    pub auth: Option<Auth>,
}

/// Takes `n` bytes off the front.
fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

/// Takes what one byte of length announces.
fn take_counted<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let [len] = take_array(rest)?;
    take(rest, len.into())
}

/// The address that messages of version 5 carry, as it is on the wire.
enum WireHost<'a> {
    Address(IpAddr),
    Name(&'a [u8]),
    Unknown(u8),
}

impl<'a> WireHost<'a> {
    fn take(rest: &mut &'a [u8]) -> Option<WireHost<'a>> {
        let [kind] = take_array(rest)?;
        Some(match kind {
            ATYP_V4 => WireHost::Address(Ipv4Addr::from(take_array::<4>(rest)?).into()),
            ATYP_V6 => WireHost::Address(Ipv6Addr::from(take_array::<16>(rest)?).into()),
            ATYP_NAME => WireHost::Name(take_counted(rest)?),
            other => WireHost::Unknown(other),
        })
    }
}

fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(ip) => {
            out.push(ATYP_V4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(ATYP_V6);
            out.extend_from_slice(&ip.octets());
        }
    }
}

/// A name of at most 255 bytes; what is longer is cut, which no caller lets happen.
fn write_name(name: &str, out: &mut Vec<u8>) {
    let name = &name.as_bytes()[..name.len().min(255)];
    out.extend_from_slice(&[ATYP_NAME, name.len() as u8]);
    out.extend_from_slice(name);
}
