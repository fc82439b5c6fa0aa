//! The side of a program that asks a proxy, in version 5.

use std::net::IpAddr;
use std::str;

use thiserror::Error;

use super::reply::Status;
use super::{
    AUTH, Auth, Command, Host, METHOD_NONE, METHOD_PASSWORD, V5, WireHost, take_array, write_address,
    write_name,
};

/// What a proxy answers to a request that succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An address: what was looked up, or where the stream begins, which says little.
    Address(IpAddr),
    /// A name.
    Name(String),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    /// What answers is no SOCKS 5 proxy.
    #[error("not a SOCKS 5 proxy: its answer begins with {0:#04x}; check the address and port of the proxy")]
    NotSocks5(u8),
    /// It wants to be convinced in another way.
    #[error("the proxy does not take the authentication that is offered (it answers {0:#04x})")]
    Method(u8),
    /// It does not accept user name and password.
    #[error("the proxy does not accept user name and password (status {0})")]
    Denied(u8),
    /// It refuses.
    #[error("the proxy refuses: {} (status {:#04x})", .0.meaning(), .0.to_wire())]
    Refused(Status),
    /// Its answer has an address of unknown type, or a name that is no text.
    #[error("the proxy answers with an address that cannot be read (type {0})")]
    Address(u8),
}

/// Asks one thing.
#[derive(Debug)]
pub struct Client {
    command: Command,
    host: Host,
    port: u16,
    auth: Option<Auth>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Method,
    Auth,
    Answer,
    Done,
}

impl Client {
    /// Asks for this; `out` gets the greeting. The port means nothing unless a stream is asked for.
    ///
    /// User name and password have at most 255 bytes each, or the proxy is asked without.
    pub fn new(command: Command, host: Host, port: u16, auth: Option<Auth>, out: &mut Vec<u8>) -> Client {
        let auth = auth.filter(|auth| auth.user.len() <= 255 && auth.password.len() <= 255);
        let method = if auth.is_some() { METHOD_PASSWORD } else { METHOD_NONE };
        out.extend_from_slice(&[V5, 1, method]);
        Client { command, host, port, auth, state: State::Method }
    }

    /// Takes what has arrived and is not used yet; returns how much of it is used now, and the answer once it is there.
    /// What follows belongs to the stream. `out` gets what is to be sent.
    pub fn handle(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Answer>), ClientError> {
        let mut rest = input;
        while self.state != State::Done {
            let mut after = rest;
            let answer = match self.state {
                State::Method => self.method(&mut after, out)?.then_some(None),
                State::Auth => self.accepted(&mut after, out)?.then_some(None),
                State::Answer => answer(&mut after)?.map(Some),
                State::Done => None,
            };
            match answer {
                None => break,
                Some(None) => rest = after,
                Some(Some(answer)) => {
                    self.state = State::Done;
                    return Ok((input.len() - after.len(), Some(answer)));
                }
            }
        }
        Ok((input.len() - rest.len(), None))
    }

    fn method(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, ClientError> {
        check_version(rest)?;
        let Some([_, method]) = take_array(rest) else { return Ok(false) };
        match (method, &self.auth) {
            (METHOD_NONE, _) => self.ask(out),
            (METHOD_PASSWORD, Some(auth)) => {
                for (before, field) in [(&[AUTH][..], &auth.user), (&[], &auth.password)] {
                    out.extend_from_slice(before);
                    out.push(field.len() as u8);
                    out.extend_from_slice(field);
                }
                self.state = State::Auth;
            }
            _ => return Err(ClientError::Method(method)),
        }
        Ok(true)
    }

    fn accepted(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, ClientError> {
        let Some([_, status]) = take_array(rest) else { return Ok(false) };
        if status != 0 {
            return Err(ClientError::Denied(status));
        }
        self.ask(out);
        Ok(true)
    }

    fn ask(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[V5, self.command.to_wire(), 0]);
        match &self.host {
            Host::Address(address) => write_address(*address, out),
            Host::Name(name) => write_name(name, out),
        }
        out.extend_from_slice(&self.port.to_be_bytes());
        self.state = State::Answer;
    }
}

fn check_version(rest: &[u8]) -> Result<(), ClientError> {
    match rest.first() {
        Some(&version) if version != V5 => Err(ClientError::NotSocks5(version)),
        _ => Ok(()),
    }
}

fn answer(rest: &mut &[u8]) -> Result<Option<Answer>, ClientError> {
    check_version(rest)?;
    let Some([_, status, _]) = take_array(rest) else { return Ok(None) };
    let status = Status::from_wire(status);
    if status != Status::Succeeded {
        return Err(ClientError::Refused(status));
    }
    let Some(host) = WireHost::take(rest) else { return Ok(None) };
    let answer = match host {
        WireHost::Address(address) => Answer::Address(address),
        WireHost::Name(name) => match str::from_utf8(name) {
            Ok(name) => Answer::Name(name.to_owned()),
            Err(_) => return Err(ClientError::Address(super::ATYP_NAME)),
        },
        WireHost::Unknown(kind) => return Err(ClientError::Address(kind)),
    };
    Ok(take_array::<2>(rest).map(|_| answer))
}
