//! A SOCKS 5 client for commands: it asks, waits, and knows what the proxy's answers mean (RFC 1928, and Tor's RESOLVE
//! and RESOLVE_PTR of socks-extensions).

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use thiserror::Error;

use crate::limits;
use crate::network::Host;

/// Where a SocksPort is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Place {
    /// Reads `ADDRESS:PORT` or `unix:PATH`. A port that listens on all addresses is asked on loopback.
    pub fn parse(text: &str) -> Option<Place> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Some(Place::Unix(path.trim_matches('"').into()));
        }
        let mut address: SocketAddr = text.parse().ok()?;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Some(Place::Tcp(address))
    }

    /// Connects, to somebody who answers or fails within [`limits::COMMAND_TIME`].
    pub fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let time = Some(limits::COMMAND_TIME);
        Ok(match self {
            Place::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, limits::CONTROL_TIME)?;
                stream.set_read_timeout(time)?;
                stream.set_write_timeout(time)?;
                Box::new(stream)
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(time)?;
                stream.set_write_timeout(time)?;
                Box::new(stream)
            }
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection to the proxy.
pub trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// A stream.
    Connect = 0x01,
    /// The address of a name.
    Resolve = 0xf0,
    /// The name of an address.
    ResolvePtr = 0xf1,
}

/// Why the proxy did not do it.
#[derive(Debug, Error)]
pub enum SocksError {
    /// It answered so.
    #[error("{}", meaning(*.0))]
    Refused(u8),
    /// Its answer is none.
    #[error("what answers there is no SOCKS 5 proxy, or wants a password")]
    NoSocks,
    /// The name is too long to be one.
    #[error("a name of more than {} bytes, which cannot be one", limits::NAME_LEN)]
    TooLong,
    /// The connection failed.
    #[error("the connection to the proxy fails: {0}")]
    Io(#[from] io::Error),
}

/// What the status of an answer means, as this network's proxies use it.
fn meaning(status: u8) -> &'static str {
    match status {
        1 => "the proxy is not ready, or the network fails",
        2 => "not allowed: no exit lets it out, or the proxy's configuration forbids it",
        3 => "the network cannot be reached",
        4 => "the exit cannot find the name, or has no route to the host",
        5 => "the destination refuses the connection",
        6 => "no answer in time",
        7 => "the proxy does not know this request",
        8 => "the proxy does not know this kind of address",
        0xf0..=0xf7 => "the onion service cannot be reached",
        _ => "the proxy refuses, without a reason that is known",
    }
}

/// Makes a request, and gives the host of the answer. After [`Command::Connect`] the stream is open.
pub fn request(
    stream: &mut (impl Stream + ?Sized),
    command: Command,
    host: &Host,
    port: u16,
) -> Result<Host, SocksError> {
    stream.write_all(&[5, 1, 0])?;
    let mut method = [0; 2];
    stream.read_exact(&mut method)?;
    if method != [5, 0] {
        return Err(SocksError::NoSocks);
    }
    let mut request = vec![5, command as u8, 0];
    match host {
        Host::Name(name) => {
            let len = u8::try_from(name.len()).map_err(|_| SocksError::TooLong)?;
            request.extend([3, len]);
            request.extend(name.bytes());
        }
        Host::Address(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Host::Address(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
    }
    request.extend(port.to_be_bytes());
    stream.write_all(&request)?;
    answer(stream)
}

fn answer(stream: &mut (impl Stream + ?Sized)) -> Result<Host, SocksError> {
    let [version, status, _, kind] = take(stream)?;
    match (version, status) {
        (5, 0) => {}
        (5, status) => return Err(SocksError::Refused(status)),
        _ => return Err(SocksError::NoSocks),
    }
    let host = match kind {
        1 => Host::Address(Ipv4Addr::from(take::<4>(stream)?).into()),
        4 => Host::Address(Ipv6Addr::from(take::<16>(stream)?).into()),
        3 => {
            let [len] = take(stream)?;
            let mut name = vec![0; usize::from(len)];
            stream.read_exact(&mut name)?;
            // A name is for people to read, and what an exit sends need not be one.
            Host::Name(String::from_utf8_lossy(&name).escape_debug().to_string().into())
        }
        _ => return Err(SocksError::NoSocks),
    };
    take::<2>(stream)?;
    Ok(host)
}

fn take<const N: usize>(stream: &mut (impl Stream + ?Sized)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A proxy that says this, whatever it hears.
    struct Played {
        says: io::Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Played {
        fn new(says: &[u8]) -> Played {
            Played { says: io::Cursor::new(says.to_vec()), heard: Vec::new() }
        }
    }

    impl Read for Played {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.says.read(buf)
        }
    }

    impl Write for Played {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.heard.extend(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_name_is_looked_up() {
        let mut proxy = Played::new(b"\x05\x00\x05\x00\x00\x01\xc0\x00\x02\x07\x00\x00");
        let found = request(&mut proxy, Command::Resolve, &Host::Name("a.example".into()), 0).unwrap();
        assert_eq!(found, Host::Address([192, 0, 2, 7].into()));
        assert_eq!(proxy.heard, b"\x05\x01\x00\x05\xf0\x00\x03\x09a.example\x00\x00");
    }

    #[test]
    fn an_address_is_looked_up() {
        let mut proxy = Played::new(b"\x05\x00\x05\x00\x00\x03\x03a\n.\x00\x00");
        let address = Host::Address("2001:db8::1".parse().unwrap());
        let found = request(&mut proxy, Command::ResolvePtr, &address, 0).unwrap();
        assert_eq!(found, Host::Name("a\\n.".into()));
        assert_eq!(proxy.heard[3..8], *b"\x05\xf1\x00\x04\x20");
        assert_eq!(proxy.heard.len(), 3 + 4 + 16 + 2);
    }

    #[test]
    fn refusals_say_what_they_mean() {
        let ask = |says: &[u8]| {
            let mut proxy = Played::new(says);
            request(&mut proxy, Command::Connect, &Host::Address([192, 0, 2, 7].into()), 80).unwrap_err()
        };
        assert!(ask(b"\x05\x00\x05\x04\x00\x01\0\0\0\0\0\0").to_string().contains("cannot find the name"));
        assert!(ask(b"\x05\xff").to_string().contains("no SOCKS 5 proxy"));
        assert!(ask(b"HTTP/1.1 400").to_string().contains("no SOCKS 5 proxy"));
        assert!(ask(b"\x05\x00\x05").to_string().contains("connection to the proxy fails"));
        let long = Host::Name("x".repeat(256).into());
        let mut proxy = Played::new(b"\x05\x00");
        assert!(matches!(request(&mut proxy, Command::Resolve, &long, 0), Err(SocksError::TooLong)));
    }

    #[test]
    fn places_are_addresses_and_sockets() {
        let place = |text| Place::parse(text).map(|place| place.to_string());
        assert_eq!(place("127.0.0.1:9050").as_deref(), Some("127.0.0.1:9050"));
        assert_eq!(place("0.0.0.0:1").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(place("[::]:1").as_deref(), Some("[::1]:1"));
        assert_eq!(place("unix:/run/socks").as_deref(), Some("unix:/run/socks"));
        assert_eq!(place("9050"), None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(says in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut proxy = Played::new(&[b"\x05\x00".as_slice(), &says].concat());
            let _ = request(&mut proxy, Command::Resolve, &Host::Name("a".into()), 0);
        }
    }
}
