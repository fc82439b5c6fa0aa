//! Asking a proxy over SOCKS, for commands: where its port is, and one request with its answer.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use onionring_proto::socks::{Answer, Client, ClientError, Command, Host};
use thiserror::Error;

use crate::limits;

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

/// Why the proxy did not do it.
#[derive(Debug, Error)]
pub enum SocksError {
    /// It said so, or what it says is no answer.
    #[error(transparent)]
    Answer(#[from] ClientError),
    /// The connection failed.
    #[error("the connection to the proxy fails: {0}")]
    Io(#[from] io::Error),
}

/// Makes a request, and gives the answer with what came behind it. After [`Command::Connect`] the stream is open, and what
/// came is its beginning.
pub fn request(
    stream: &mut (impl Stream + ?Sized),
    command: Command,
    host: Host,
    port: u16,
) -> Result<(Answer, Vec<u8>), SocksError> {
    let (mut unsent, mut unread, mut buf) = (Vec::new(), Vec::new(), [0; 512]);
    let mut client = Client::new(command, host, port, None, &mut unsent);
    loop {
        stream.write_all(&std::mem::take(&mut unsent))?;
        let read = stream.read(&mut buf)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        unread.extend(&buf[..read]);
        let (used, answer) = client.handle(&unread, &mut unsent)?;
        unread.drain(..used);
        if let Some(answer) = answer {
            return Ok((answer, unread));
        }
    }
}

/// The answer, for people to read: a name comes from an exit, and may hold anything.
pub fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Address(address) => address.to_string(),
        Answer::Name(name) => name.escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests {
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
        /// Byte by byte, or its answer would be there before the question.
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.says.read(&mut buf[..1])
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
    fn answers_come_with_what_follows_them() {
        let mut proxy = Played::new(b"\x05\x00\x05\x00\x00\x01\xc0\x00\x02\x07\x00\x00HTTP");
        let host = Host::parse("a.example").unwrap();
        let (answer, mut behind) = request(&mut proxy, Command::Connect, host, 80).unwrap();
        assert_eq!(shown(&answer), "192.0.2.7");
        proxy.read_to_end(&mut behind).unwrap();
        assert_eq!(behind, b"HTTP");
        assert_eq!(proxy.heard, b"\x05\x01\x00\x05\x01\x00\x03\x09a.example\x00\x50");
        assert_eq!(shown(&Answer::Name("a\n.".to_owned())), "a\\n.");
    }

    #[test]
    fn refusals_and_ends_are_errors() {
        let ask = |says: &[u8]| {
            let mut proxy = Played::new(says);
            let host = Host::Address([192, 0, 2, 7].into());
            request(&mut proxy, Command::Resolve, host, 0).unwrap_err().to_string()
        };
        assert!(ask(b"\x05\x00\x05\x04\x00\x01\0\0\0\0\0\0").contains("the name is not known"));
        assert!(ask(b"HTTP/1.1 400").contains("not a SOCKS 5 proxy"));
        assert!(ask(b"\x05\x00\x05").contains("connection to the proxy fails"));
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
}
