//! The side of the proxy.

use std::net::{IpAddr, Ipv4Addr};

use thiserror::Error;

use super::reply::{HTTP_PAGE, Status, write_status};
use super::{
    AUTH, Auth, Command, Host, METHOD_NO, METHOD_NONE, METHOD_PASSWORD, Request, V4, V5, Version, WireHost,
    take, take_array, take_counted,
};
use crate::limits::SOCKS_MESSAGE;

/// Why a connection is not served. It is to be closed once the answer, if there is one, is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SocksError {
    /// The first byte is no version.
    #[error("neither SOCKS 4 nor 5: the first byte is {0:#04x}")]
    Version(u8),
    /// It sends HTTP.
    #[error("HTTP on a SOCKS port; use HTTPTunnelPort for programs that speak HTTP")]
    Http,
    /// A message longer than any that makes sense.
    #[error("a message of more than {SOCKS_MESSAGE} bytes")]
    TooLong,
    /// No way to authenticate that is known here.
    #[error("no authentication method that is known here; use none, or user name and password")]
    Methods,
    /// The message with user name and password has an unknown version.
    #[error("user name and password in version {0}, known is 1")]
    AuthVersion(u8),
    /// A user name that asks for what this proxy does not know (proposal 351).
    #[error("a user name that begins with <torS0X> and is not <torS0X>0 asks for an unknown extension")]
    Extension,
    /// Another version in the request than in the greeting.
    #[error("a request of version {0} after a greeting of version 5")]
    Mixed(u8),
    /// Not CONNECT, RESOLVE or RESOLVE_PTR.
    #[error("command {1:#04x} of SOCKS {0} is not known; known are CONNECT, RESOLVE and RESOLVE_PTR")]
    Command(Version, u8),
    /// An address of unknown type.
    #[error("address type {0} is not known")]
    AddressType(u8),
    /// The name of a name is asked for.
    #[error("RESOLVE_PTR of something that is no address")]
    NotAnAddress,
    /// A name with unusual characters, or none.
    #[error("a host name that no exit resolves")]
    Name,
    /// Port 0.
    #[error("a stream to port 0")]
    Port,
    /// Address 0.0.0.0 in version 4.
    #[error("address 0.0.0.0 in SOCKS 4")]
    NoAddress,
}

impl SocksError {
    /// A short stable name for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            SocksError::Http => "http",
            SocksError::Methods | SocksError::Extension => "authentication",
            SocksError::Command(..) => "command",
            SocksError::AddressType(_) | SocksError::NotAnAddress => "address_type",
            SocksError::Name => "bad_name",
            SocksError::Port => "bad_port",
            SocksError::Version(_)
            | SocksError::TooLong
            | SocksError::AuthVersion(_)
            | SocksError::Mixed(_)
            | SocksError::NoAddress => "malformed",
        }
    }
}

/// Takes the request of one connection.
#[derive(Debug)]
pub struct Server {
    prefer_no_auth: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing has come.
    Start,
    /// Version 5: user name and password are next.
    Auth,
    /// Version 5: the request is next.
    Request(Option<Auth>),
    /// The request was handed out, or the connection was refused.
    Done,
}

/// What one message leads to.
enum Step {
    /// It is not all there.
    Incomplete,
    /// Another one follows.
    Next(State),
    /// This was the request.
    Request(Request),
}

/// A refusal, with the status that the application gets, if any.
type Refused = (SocksError, Option<(Version, Status)>);

/// A refusal with an answer of version 5.
fn refused(error: SocksError, status: Status) -> Refused {
    (error, Some((Version::V5, status)))
}

/// A refusal of version 4, which has but one.
fn refused_v4(error: SocksError) -> Refused {
    (error, Some((Version::V4, Status::GeneralFailure)))
}

impl Server {
    /// For a new connection. Of an application that offers both to give a password and not to, the password is asked for,
    /// unless `prefer_no_auth` (`PreferSOCKSNoAuth`).
    pub fn new(prefer_no_auth: bool) -> Server {
        Server { prefer_no_auth, state: State::Start }
    }

    /// Takes what has arrived and is not used yet; returns how much of it is used now, and the request once it is there.
    /// `out` gets what is to be sent, also in case of an error. After a request or an error it takes nothing.
    pub fn handle(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Request>), SocksError> {
        let mut rest = input;
        loop {
            // However much has arrived at once, a message is no longer than this.
            let message = &rest[..rest.len().min(SOCKS_MESSAGE)];
            let mut after = message;
            let step = match std::mem::replace(&mut self.state, State::Done) {
                State::Done => return Ok((input.len() - rest.len(), None)),
                State::Start => self.first(&mut after, out).map(|step| (step, State::Start)),
                State::Auth => password(&mut after, out).map(|step| (step, State::Auth)),
                State::Request(auth) => {
                    request_v5(&mut after, &auth).map(|step| (step, State::Request(auth)))
                }
            };
            match step {
                Err((error, answer)) => {
                    if let Some((version, status)) = answer {
                        write_status(version, status, out);
                    }
                    return Err(error);
                }
                Ok((Step::Incomplete, _)) if rest.len() >= SOCKS_MESSAGE => return Err(SocksError::TooLong),
                Ok((Step::Incomplete, state)) => {
                    self.state = state;
                    return Ok((input.len() - rest.len(), None));
                }
                Ok((Step::Next(state), _)) => {
                    self.state = state;
                    rest = &rest[message.len() - after.len()..];
                }
                Ok((Step::Request(request), _)) => {
                    let used = input.len() - rest.len() + message.len() - after.len();
                    return Ok((used, Some(request)));
                }
            }
        }
    }

    /// The first message tells the version.
    fn first(&self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<Step, Refused> {
        match rest.first() {
            None => Ok(Step::Incomplete),
            Some(&V4) => request_v4(rest),
            Some(&V5) => self.methods(rest, out),
            Some(b'G' | b'H' | b'P' | b'C') => {
                out.extend_from_slice(HTTP_PAGE);
                Err((SocksError::Http, None))
            }
            Some(&other) => Err((SocksError::Version(other), None)),
        }
    }

    /// The greeting of version 5 (RFC 1928 section 3).
    fn methods(&self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<Step, Refused> {
        take(rest, 1);
        let Some(methods) = take_counted(rest) else { return Ok(Step::Incomplete) };
        let password = methods.contains(&METHOD_PASSWORD);
        let none = methods.contains(&METHOD_NONE);
        let (method, next) = if password && !(none && self.prefer_no_auth) {
            (METHOD_PASSWORD, State::Auth)
        } else if none {
            (METHOD_NONE, State::Request(None))
        } else {
            out.extend_from_slice(&[V5, METHOD_NO]);
            return Err((SocksError::Methods, None));
        };
        out.extend_from_slice(&[V5, method]);
        Ok(Step::Next(next))
    }
}

/// User name and password (RFC 1929), of which any will do.
fn password(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<Step, Refused> {
    let Some([version]) = take_array(rest) else { return Ok(Step::Incomplete) };
    if version != AUTH {
        return Err(refused(SocksError::AuthVersion(version), Status::GeneralFailure));
    }
    let Some((user, password)) = take_counted(rest).zip(take_counted(rest)) else {
        return Ok(Step::Incomplete);
    };
    if user.starts_with(b"<torS0X>") && user != b"<torS0X>0" {
        out.extend_from_slice(&[AUTH, 1]);
        return Err((SocksError::Extension, None));
    }
    out.extend_from_slice(&[AUTH, 0]);
    Ok(Step::Next(State::Request(Some(Auth { user: user.into(), password: password.into() }))))
}

/// The request of version 5 (RFC 1928 section 4).
fn request_v5(rest: &mut &[u8], auth: &Option<Auth>) -> Result<Step, Refused> {
    if let Some(&version) = rest.first().filter(|version| **version != V5) {
        return Err(refused(SocksError::Mixed(version), Status::GeneralFailure));
    }
    let Some([_, command, _]) = take_array(rest) else { return Ok(Step::Incomplete) };
    let Some(host) = WireHost::take(rest) else { return Ok(Step::Incomplete) };
    if let WireHost::Unknown(kind) = host {
        return Err(refused(SocksError::AddressType(kind), Status::AddressTypeNotSupported));
    }
    let Some(port) = take_array(rest).map(u16::from_be_bytes) else { return Ok(Step::Incomplete) };

    let Some(command) = Command::from_wire(Version::V5, command) else {
        return Err(refused(SocksError::Command(Version::V5, command), Status::CommandNotSupported));
    };
    let (host, is_literal) = match host {
        WireHost::Address(address) => (Some(Host::Address(address)), true),
        WireHost::Name(name) => (Host::from_wire(name), false),
        WireHost::Unknown(_) => (None, false),
    };
    if command == Command::ResolvePtr && !matches!(host, Some(Host::Address(_))) {
        return Err(refused(SocksError::NotAnAddress, Status::AddressTypeNotSupported));
    }
    let Some(host) = host else { return Err(refused(SocksError::Name, Status::GeneralFailure)) };
    if command == Command::Connect && port == 0 {
        return Err(refused(SocksError::Port, Status::GeneralFailure));
    }
    let auth = auth.clone();
    Ok(Step::Request(Request { version: Version::V5, command, host, is_literal, port, auth }))
}

/// The request of version 4, and of 4a, where an address 0.0.0.x announces a name at the end.
fn request_v4(rest: &mut &[u8]) -> Result<Step, Refused> {
    let Some([_, command]) = take_array(rest) else { return Ok(Step::Incomplete) };
    let Some(port) = take_array(rest).map(u16::from_be_bytes) else { return Ok(Step::Incomplete) };
    let Some(address) = take_array::<4>(rest) else { return Ok(Step::Incomplete) };
    let Some(user) = take_terminated(rest) else { return Ok(Step::Incomplete) };
    let (host, is_literal) = match address {
        [0, 0, 0, 0] => return Err(refused_v4(SocksError::NoAddress)),
        [0, 0, 0, _] => {
            let Some(name) = take_terminated(rest) else { return Ok(Step::Incomplete) };
            (Host::from_wire(name).ok_or(refused_v4(SocksError::Name))?, false)
        }
        address => (Host::Address(IpAddr::V4(Ipv4Addr::from(address))), true),
    };
    let command = Command::from_wire(Version::V4, command)
        .ok_or(refused_v4(SocksError::Command(Version::V4, command)))?;
    if command == Command::Connect && port == 0 {
        return Err(refused_v4(SocksError::Port));
    }
    let auth = (!user.is_empty()).then(|| Auth { user: user.into(), password: [].into() });
    Ok(Step::Request(Request { version: Version::V4, command, host, is_literal, port, auth }))
}

/// Takes what a zero byte ends, and the zero byte.
fn take_terminated<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|&byte| byte == 0)?;
    let text = take(rest, end)?;
    take(rest, 1)?;
    Some(text)
}
