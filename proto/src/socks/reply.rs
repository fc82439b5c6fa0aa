//! What a proxy answers.

use std::net::IpAddr;

use super::{ATYP_V4, Request, V5, Version, write_address, write_name};

/// How a request went, as version 5 says it; version 4 knows only yes and no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It is done.
    Succeeded,
    /// No, and no better word for it.
    GeneralFailure,
    /// A policy forbids it.
    NotAllowed,
    /// No network.
    NetworkUnreachable,
    /// The name is not known, or there is no way to it.
    HostUnreachable,
    /// The destination refuses.
    Refused,
    /// It takes too long.
    TtlExpired,
    /// Not CONNECT, RESOLVE or RESOLVE_PTR.
    CommandNotSupported,
    /// No such kind of address, or not for this command.
    AddressTypeNotSupported,
    /// Extended (proposal 304): the descriptor of the onion service cannot be found.
    DescriptorNotFound,
    /// Extended: the descriptor is invalid.
    DescriptorInvalid,
    /// Extended: no introduction point works.
    IntroductionFailed,
    /// Extended: no rendezvous.
    RendezvousFailed,
    /// Extended: the service asks for authorisation.
    AuthorizationMissing,
    /// Extended: the authorisation is wrong.
    AuthorizationWrong,
    /// Extended: the onion address is malformed.
    BadOnionAddress,
    /// Extended: introduction took too long.
    IntroductionTimeout,
    /// A number that means nothing here.
    Unknown(u8),
}

impl Status {
    /// The status for a byte from the wire.
    pub const fn from_wire(byte: u8) -> Status {
        match byte {
            0 => Status::Succeeded,
            1 => Status::GeneralFailure,
            2 => Status::NotAllowed,
            3 => Status::NetworkUnreachable,
            4 => Status::HostUnreachable,
            5 => Status::Refused,
            6 => Status::TtlExpired,
            7 => Status::CommandNotSupported,
            8 => Status::AddressTypeNotSupported,
            0xf0 => Status::DescriptorNotFound,
            0xf1 => Status::DescriptorInvalid,
            0xf2 => Status::IntroductionFailed,
            0xf3 => Status::RendezvousFailed,
            0xf4 => Status::AuthorizationMissing,
            0xf5 => Status::AuthorizationWrong,
            0xf6 => Status::BadOnionAddress,
            0xf7 => Status::IntroductionTimeout,
            other => Status::Unknown(other),
        }
    }

    /// The byte for the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            Status::Succeeded => 0,
            Status::GeneralFailure => 1,
            Status::NotAllowed => 2,
            Status::NetworkUnreachable => 3,
            Status::HostUnreachable => 4,
            Status::Refused => 5,
            Status::TtlExpired => 6,
            Status::CommandNotSupported => 7,
            Status::AddressTypeNotSupported => 8,
            Status::DescriptorNotFound => 0xf0,
            Status::DescriptorInvalid => 0xf1,
            Status::IntroductionFailed => 0xf2,
            Status::RendezvousFailed => 0xf3,
            Status::AuthorizationMissing => 0xf4,
            Status::AuthorizationWrong => 0xf5,
            Status::BadOnionAddress => 0xf6,
            Status::IntroductionTimeout => 0xf7,
            Status::Unknown(byte) => byte,
        }
    }

    /// What an application is told that does not know the extended ones (a port without `ExtendedErrors`).
    pub const fn plain(self) -> Status {
        match self {
            Status::BadOnionAddress => Status::GeneralFailure,
            Status::DescriptorNotFound
            | Status::DescriptorInvalid
            | Status::IntroductionFailed
            | Status::RendezvousFailed
            | Status::AuthorizationMissing
            | Status::AuthorizationWrong
            | Status::IntroductionTimeout => Status::HostUnreachable,
            other => other,
        }
    }

    /// What it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Status::Succeeded => "done",
            Status::GeneralFailure => "general failure",
            Status::NotAllowed => "not allowed",
            Status::NetworkUnreachable => "the network is unreachable",
            Status::HostUnreachable => "the name is not known, or the host is unreachable",
            Status::Refused => "the destination refuses the connection",
            Status::TtlExpired => "no answer in time",
            Status::CommandNotSupported => "the proxy does not know the command",
            Status::AddressTypeNotSupported => "the proxy does not take such an address",
            Status::DescriptorNotFound => "the onion service cannot be found",
            Status::DescriptorInvalid => "the descriptor of the onion service is invalid",
            Status::IntroductionFailed => "no introduction point of the onion service works",
            Status::RendezvousFailed => "no rendezvous with the onion service",
            Status::AuthorizationMissing => "the onion service asks for authorisation",
            Status::AuthorizationWrong => "the onion service does not accept the authorisation",
            Status::BadOnionAddress => "the onion address is malformed",
            Status::IntroductionTimeout => "the onion service takes too long to introduce",
            Status::Unknown(_) => "an unknown status",
        }
    }
}

/// Yes and no of version 4.
pub(super) const V4_GRANTED: u8 = 90;
const V4_REJECTED: u8 = 91;

/// Appends an answer with nothing but a status.
pub(super) fn write_status(version: Version, status: Status, out: &mut Vec<u8>) {
    match version {
        Version::V4 => {
            let answer = if status == Status::Succeeded { V4_GRANTED } else { V4_REJECTED };
            out.extend_from_slice(&[0, answer, 0, 0, 0, 0, 0, 0]);
        }
        Version::V5 => {
            out.extend_from_slice(&[V5, status.to_wire(), 0, ATYP_V4, 0, 0, 0, 0, 0, 0]);
        }
    }
}

impl Request {
    /// Appends the answer to CONNECT, or a refusal of anything.
    pub fn write_status(&self, status: Status, out: &mut Vec<u8>) {
        write_status(self.version, status, out);
    }

    /// Appends the answer to RESOLVE. Version 4 has no place for an IPv6 address, so there it is a refusal.
    pub fn write_address(&self, address: IpAddr, out: &mut Vec<u8>) {
        match (self.version, address) {
            (Version::V4, IpAddr::V4(ip)) => {
                out.extend_from_slice(&[0, V4_GRANTED, 0, 0]);
                out.extend_from_slice(&ip.octets());
            }
            (Version::V4, IpAddr::V6(_)) => self.write_status(Status::HostUnreachable, out),
            (Version::V5, address) => {
                out.extend_from_slice(&[V5, Status::Succeeded.to_wire(), 0]);
                write_address(address, out);
                out.extend_from_slice(&[0, 0]);
            }
        }
    }

    /// Appends the answer to RESOLVE_PTR. A name that is too long for it, or for version 4, is a refusal.
    pub fn write_name(&self, name: &str, out: &mut Vec<u8>) {
        if self.version == Version::V4 || name.len() > 255 {
            return self.write_status(Status::HostUnreachable, out);
        }
        out.extend_from_slice(&[V5, Status::Succeeded.to_wire(), 0]);
        write_name(name, out);
        out.extend_from_slice(&[0, 0]);
    }
}

/// What a browser gets that takes a SOCKS port for an HTTP proxy.
pub const HTTP_PAGE: &[u8] = b"HTTP/1.0 501 Not an HTTP proxy\r\n\
Content-Type: text/html; charset=utf-8\r\n\
Connection: close\r\n\
\r\n\
<!DOCTYPE html>\n\
<html lang=\"en\">\n\
<head><title>This is a SOCKS proxy</title></head>\n\
<body>\n\
<h1>This is a SOCKS proxy, not an HTTP proxy</h1>\n\
<p>Your program sends HTTP to a port that speaks SOCKS. Enter this address as the program's SOCKS host (version 5, names\n\
resolved by the proxy). A program that knows only HTTP proxies needs an <code>HTTPTunnelPort</code> in the proxy's\n\
configuration.</p>\n\
</body>\n\
</html>\n";
