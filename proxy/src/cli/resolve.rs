//! `resolve`: looks a name or an address up through the network, the way exits see it (the paper's tool similar to dig).

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use onionring_node::cli::{BAD_STATE, FAILED, failed, print};
use onionring_proto::socks::{ClientError, Command, Host};
use onionring_proto::torrc::cmdline::{Argument, Flag};
use thiserror::Error;

use super::command::Words;
use super::socks::{self, Place, SocksError};
use crate::control::{self, AskError, Report, Request};

const REVERSE: Flag = Flag { name: "-x", short: "", argument: Argument::Required };
const SOCKS: Flag = Flag { name: "--socks", short: "", argument: Argument::Required };

/// Why no SocksPort can be asked.
#[derive(Debug, Error)]
pub(super) enum NoPort {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the proxy listens on no SocksPort; add one to its torrc and restart it")]
    None,
    #[error("cannot connect to the SocksPort {place}: {source}; is the proxy running?")]
    Connect { place: Place, source: io::Error },
}

/// Obeys the command; `words` are those behind it.
pub fn run(words: &[String]) -> ExitCode {
    let words = match Words::read(words, &[REVERSE, SOCKS]) {
        Ok(words) => words,
        Err(code) => return code,
    };
    let (command, host) = match question(&words) {
        Ok(question) => question,
        Err(text) => return words.wrong(&text),
    };
    let place = match words.line.flag(SOCKS.name).map(Place::parse) {
        Some(Some(place)) => Ok(place),
        Some(None) => return words.wrong("--socks needs ADDRESS:PORT or unix:PATH"),
        None => match words.data_directory() {
            Ok(data) => socks_port(&data),
            Err(code) => return code,
        },
    };
    let stream = place.and_then(connect);
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return failed(&error, BAD_STATE),
    };
    match socks::request(&mut *stream, command, host, 0) {
        Ok((found, _)) => print(&format!("{}\n", socks::shown(&found))),
        Err(error @ SocksError::Answer(ClientError::Refused(_))) => failed(&error, FAILED),
        Err(error) => failed(&error, BAD_STATE),
    }
}

/// What is asked, of the words.
fn question(words: &Words) -> Result<(Command, Host), String> {
    match (words.line.flag(REVERSE.name), words.about.as_slice()) {
        (Some(address), []) => match address.parse::<IpAddr>() {
            Ok(address) => Ok((Command::ResolvePtr, Host::Address(address))),
            Err(_) => Err(format!("-x needs an address, and '{address}' is none")),
        },
        (None, [name]) => match Host::parse(name) {
            Some(host) => Ok((Command::Resolve, host)),
            None => {
                Err("this is no name that the network looks up: letters, digits, dots and dashes".to_owned())
            }
        },
        (None, []) => Err("resolve needs a name, or -x and an address".to_owned()),
        _ => Err("resolve looks up one name or address at a time".to_owned()),
    }
}

/// The SocksPort of the proxy that runs with this data directory.
fn socks_port(data: &Path) -> Result<Place, NoPort> {
    port_of(&Report::parse(&control::ask(data, Request::Status)?))
}

/// The first SocksPort that a proxy listens on.
pub(super) fn port_of(report: &Report) -> Result<Place, NoPort> {
    report.ports_of("SocksPort").find_map(Place::parse).ok_or(NoPort::None)
}

/// Connects to it.
pub(super) fn connect(place: Place) -> Result<Box<dyn socks::Stream>, NoPort> {
    place.connect().map_err(|source| NoPort::Connect { place, source })
}
