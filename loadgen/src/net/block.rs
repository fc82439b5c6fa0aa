//! Addresses: every network owns a block of 256 loopback addresses, every node one address of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use super::netns;

/// The port on which the block's last address is held for as long as the network lives.
const CLAIM_PORT: u16 = 7;
/// The same for users who may not bind low ports.
const CLAIM_PORT_UNPRIVILEGED: u16 = 7007;
/// Ports are taken below the range from which the kernel picks source ports, so that no outgoing connection of a
/// node can sit on the port another one is about to listen on.
const PORT_MAX: u16 = 32767;
/// How many blocks are tried before giving up.
const ATTEMPTS_MAX: u32 = 4096;

/// A claimed block of addresses `a.b.c.0/24`.
///
/// The claim is a listening socket on the block's last address: the kernel hands it to one owner at a time and takes
/// it back when that process ends, however it ends.
#[derive(Debug)]
pub struct Block {
    prefix: [u8; 3],
    _claim: TcpListener,
}

impl Block {
    /// Claims a block nobody else has: under 127.0.0.0/8, or under 198.18.0.0/15 inside a namespace of
    /// [`netns`].
    pub fn claim() -> io::Result<Block> {
        for _ in 0..ATTEMPTS_MAX {
            let [a, b] = rand::random::<[u8; 2]>();
            // 127.0/16 and 127.255/16 stay free: people and systemd-resolved use them.
            let prefix = if netns::inside() { [198, 18 + (a & 1), b] } else { [127, a.clamp(1, 254), b] };
            let last = Ipv4Addr::new(prefix[0], prefix[1], prefix[2], 255);
            let claim = match TcpListener::bind((last, CLAIM_PORT)) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    TcpListener::bind((last, CLAIM_PORT_UNPRIVILEGED))
                }
                other => other,
            };
            match claim {
                Ok(claim) => return Ok(Block { prefix, _claim: claim }),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => continue,
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("no free address block in {ATTEMPTS_MAX} attempts"),
        ))
    }

    /// A name for the block that is fit for a directory: `127-33-7`.
    pub fn name(&self) -> String {
        let [a, b, c] = self.prefix;
        format!("{a}-{b}-{c}")
    }

    /// The address with the given last byte.
    pub fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.prefix[0], self.prefix[1], self.prefix[2], last)
    }

    /// The first port at or above `preferred` that is free for TCP on `address`.
    ///
    /// Since the block is ours, only a listener on the wildcard address can be in the way.
    pub fn free_port(address: Ipv4Addr, preferred: u16) -> io::Result<u16> {
        for port in preferred..=PORT_MAX {
            match TcpListener::bind(SocketAddr::new(IpAddr::V4(address), port)) {
                Ok(_) => return Ok(port),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => continue,
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("no free port on {address} from {preferred} up"),
        ))
    }
}
