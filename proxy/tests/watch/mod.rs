//! Looks at every packet of a network namespace.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};

/// Whether this program can move into a network namespace.
pub fn may_enter() -> bool {
    let words = ["--net", "--user", "--map-root-user", "true"];
    rustix::process::geteuid().is_root()
        || Command::new("unshare").args(words).status().is_ok_and(|status| status.success())
}

/// The beginning of a TCP connection, or a UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub is_tcp: bool,
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// Sees all packets, as long as the program runs.
pub struct Watch(Arc<Mutex<Vec<Packet>>>);

/// All protocols (`ETH_P_ALL`), in network byte order.
const EVERYTHING: i32 = (3u16.to_be()) as i32;
/// Bytes that may wait to be looked at.
const UNSEEN: usize = 64 << 20;

impl Watch {
    pub fn start() -> Watch {
        // Without the header of the link: packets begin with that of IP.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(EVERYTHING))).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, UNSEEN).unwrap();
        let seen = Arc::<Mutex<Vec<Packet>>>::default();
        let list = Arc::clone(&seen);
        thread::spawn(move || {
            loop {
                let mut buffer = [0; 128];
                let length = (&socket).read(&mut buffer).unwrap();
                list.lock().unwrap().extend(Packet::parse(&buffer[..length]));
            }
        });
        Watch(seen)
    }

    pub fn seen(&self) -> Vec<Packet> {
        self.0.lock().unwrap().clone()
    }
}

impl Packet {
    /// Reads an IP packet; `None` if it is neither TCP's first nor UDP.
    fn parse(bytes: &[u8]) -> Option<Packet> {
        let array = |at: usize| bytes.get(at..at + 16).and_then(|part| <[u8; 16]>::try_from(part).ok());
        let v4 =
            |at: usize| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?)));
        let v6 = |at| Some(IpAddr::from(Ipv6Addr::from(array(at)?)));
        let (protocol, from, to, header) = match bytes.first()? >> 4 {
            4 => (bytes.get(9)?, v4(12)?, v4(16)?, usize::from(bytes[0] & 15) * 4),
            6 => (bytes.get(6)?, v6(8)?, v6(24)?, 40),
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let (from, to) = ((from, port(header)?).into(), (to, port(header + 2)?).into());
        const TCP: u8 = 6;
        const UDP: u8 = 17;
        // SYN without ACK.
        let begins = || bytes.get(header + 13).is_some_and(|flags| flags & 0x12 == 0x02);
        match *protocol {
            TCP if begins() => Some(Packet { is_tcp: true, from, to }),
            UDP => Some(Packet { is_tcp: false, from, to }),
            _ => None,
        }
    }
}
