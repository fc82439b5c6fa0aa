//! A SOCKS5 client (RFC 1928, 1929) with tor's extensions for names (socks-extensions 2).

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use thiserror::Error;

/// How long a client may take to open a stream, and how long a stream may be silent, unless it is said otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

const VERSION: u8 = 5;
const METHOD_NONE: u8 = 0;
const METHOD_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
/// Tor's own: resolve a name.
const RESOLVE: u8 = 0xF0;
/// Tor's own: resolve an address to a name.
const RESOLVE_PTR: u8 = 0xF1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// The reply code of a refused request (RFC 1928 6, and tor's extensions from 0xF0 on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocksStatus(pub u8);

impl std::fmt::Display for SocksStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let meaning = match self.0 {
            1 => "general failure",
            2 => "not allowed",
            3 => "network unreachable",
            4 => "host unreachable",
            5 => "connection refused",
            6 => "TTL expired",
            7 => "command not supported",
            8 => "address type not supported",
            _ => return write!(f, "status {:#04x}", self.0),
        };
        f.write_str(meaning)
    }
}

/// Why a client did not do what it was asked.
#[derive(Debug, Error)]
pub enum SocksError {
    /// The connection to the SOCKS port failed.
    #[error("SOCKS: {0}")]
    Io(#[from] io::Error),
    /// The request was refused.
    #[error("SOCKS: {0}")]
    Refused(SocksStatus),
    /// The client does not speak SOCKS5 as it should.
    #[error("SOCKS: {0}")]
    Protocol(&'static str),
}

/// Opens streams through a SOCKS port.
#[derive(Clone, Debug)]
pub struct Socks {
    proxy: SocketAddr,
    user: Option<String>,
    patience: Duration,
}

impl Socks {
    /// Without user name: streams share circuits with each other.
    pub fn new(proxy: SocketAddr) -> Socks {
        Socks { proxy, user: None, patience: PATIENCE }
    }

    /// With a user name, which tor takes as a reason for circuits of their own.
    pub fn with_user(mut self, user: &str) -> Socks {
        self.user = Some(user.to_owned());
        self
    }

    /// How long a client may take to open a stream, and how long a stream may be silent.
    pub fn with_patience(mut self, patience: Duration) -> Socks {
        self.patience = patience;
        self
    }

    /// Opens a stream to `host` (a name or an address) and `port`.
    pub fn connect(&self, host: &str, port: u16) -> Result<TcpStream, SocksError> {
        Ok(self.request(CONNECT, host, port)?.0)
    }

    /// Resolves a name at an exit.
    pub fn resolve(&self, name: &str) -> Result<IpAddr, SocksError> {
        match self.request(RESOLVE, name, 0)?.1 {
            Bound::Address(address) => Ok(address),
            Bound::Name(_) => Err(SocksError::Protocol("asked for an address, got a name")),
        }
    }

    /// Resolves an address to a name at an exit.
    pub fn resolve_ptr(&self, address: IpAddr) -> Result<String, SocksError> {
        match self.request(RESOLVE_PTR, &address.to_string(), 0)?.1 {
            Bound::Name(name) => Ok(name),
            Bound::Address(_) => Err(SocksError::Protocol("asked for a name, got an address")),
        }
    }

    fn request(&self, command: u8, host: &str, port: u16) -> Result<(TcpStream, Bound), SocksError> {
        let mut stream = TcpStream::connect(self.proxy)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        self.greet(&mut stream)?;

        let mut request = vec![VERSION, command, 0];
        match host.parse() {
            Ok(IpAddr::V4(v4)) => {
                request.push(IPV4);
                request.extend(v4.octets());
            }
            Ok(IpAddr::V6(v6)) => {
                request.push(IPV6);
                request.extend(v6.octets());
            }
            Err(_) => push_string(&mut request, NAME, host)?,
        }
        request.extend(port.to_be_bytes());
        stream.write_all(&request)?;

        let [version, status, _] = read(&mut stream)?;
        if version != VERSION {
            return Err(SocksError::Protocol("the reply is not SOCKS5"));
        }
        if status != 0 {
            return Err(SocksError::Refused(SocksStatus(status)));
        }
        let [kind] = read(&mut stream)?;
        let bound = match kind {
            IPV4 => Bound::Address(Ipv4Addr::from(read::<4>(&mut stream)?).into()),
            IPV6 => Bound::Address(Ipv6Addr::from(read::<16>(&mut stream)?).into()),
            NAME => {
                let [length] = read(&mut stream)?;
                let mut name = vec![0; length.into()];
                stream.read_exact(&mut name)?;
                Bound::Name(String::from_utf8_lossy(&name).into_owned())
            }
            _ => return Err(SocksError::Protocol("the reply has an address of unknown type")),
        };
        let [_, _] = read(&mut stream)?; // the bound port, which tor leaves 0
        Ok((stream, bound))
    }

    /// Agrees on a method, and passes the user name if there is one.
    fn greet(&self, stream: &mut TcpStream) -> Result<(), SocksError> {
        let method = if self.user.is_some() { METHOD_PASSWORD } else { METHOD_NONE };
        stream.write_all(&[VERSION, 1, method])?;
        if read(stream)? != [VERSION, method] {
            return Err(SocksError::Protocol("the authentication method was refused"));
        }
        if let Some(user) = &self.user {
            let mut login = Vec::new();
            push_string(&mut login, 1, user)?;
            login.extend([1, b'x']); // a password of one letter; tor looks only at whether streams have the same
            stream.write_all(&login)?;
            let [_, status] = read(stream)?;
            if status != 0 {
                return Err(SocksError::Protocol("the user name was refused"));
            }
        }
        Ok(())
    }
}

/// What a reply carries besides its status.
enum Bound {
    Address(IpAddr),
    Name(String),
}

/// Appends a tag, a length byte and the text.
fn push_string(to: &mut Vec<u8>, tag: u8, text: &str) -> Result<(), SocksError> {
    let length =
        u8::try_from(text.len()).map_err(|_| SocksError::Protocol("a name is longer than 255 bytes"))?;
    to.extend([tag, length]);
    to.extend(text.bytes());
    Ok(())
}

fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
