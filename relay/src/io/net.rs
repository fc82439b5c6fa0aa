//! Sockets: listeners shared by the shards, and outbound connections.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{FromRawFd, IntoRawFd as _, OwnedFd};
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_lite::AsyncWrite as _;
use glommio::net::{TcpListener, TcpStream, UdpSocket};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::limits;

/// How often a port in use is tried again.
const BIND_RETRY: Duration = Duration::from_millis(50);

/// A listening address that cannot be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process listens there, or another of our addresses covers it.
    #[error("{0} is in use: stop the process that listens there (`ss -ltnp`), or choose another port")]
    InUse(SocketAddr),
    /// A port below 1024.
    #[error(
        "no permission to listen on {0}: start as root with the User option, or grant CAP_NET_BIND_SERVICE, or choose \
         a port above 1023"
    )]
    Forbidden(SocketAddr),
    /// The machine does not have this address.
    #[error("cannot listen on {0}: no network interface has this address")]
    NoSuchAddress(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, io::Error),
}

/// Listens on `address` with one socket per shard, between which the kernel spreads connections (SO_REUSEPORT).
///
/// Returns the address with its port, which the kernel chooses if it is 0. Waits for a port in use for up to
/// [`limits::BIND_PATIENCE`]. Usable before privileges are dropped and before the shards run.
pub fn listen(
    address: SocketAddr,
    shards: usize,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), BindError> {
    let started = Instant::now();
    loop {
        match try_listen(address, shards) {
            // The kernel closes what a killed relay had in its io_uring some time after its process is gone.
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < limits::BIND_PATIENCE =>
            {
                std::thread::sleep(BIND_RETRY);
            }
            Err(error) => {
                return Err(match error.kind() {
                    io::ErrorKind::AddrInUse => BindError::InUse(address),
                    io::ErrorKind::PermissionDenied => BindError::Forbidden(address),
                    io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(address),
                    _ => BindError::Other(address, error),
                });
            }
            Ok(listeners) => return Ok(listeners),
        }
    }
}

fn try_listen(address: SocketAddr, shards: usize) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    // With SO_REUSEPORT a second relay of the same user would silently share the port: look without it first.
    let probe = bind(address, false)?;
    let address = local_address(&probe)?;
    drop(probe);
    let sockets = (0..shards).map(|_| {
        let socket = bind(address, true)?;
        // Accepted connections inherit the options of their listener.
        set_options(&socket)?;
        socket.listen(limits::LISTEN_BACKLOG)?;
        Ok(socket.into())
    });
    Ok((address, sockets.collect::<io::Result<_>>()?))
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the kernel reports no internet address"))
}

/// No waiting for more to fill a segment, and little handed to the kernel ahead of time: what goes out next is chosen
/// late.
fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(limits::UNSENT_BYTES)
}

/// Gives a listener of [`listen`] to the executor of this thread.
pub fn adopt_listener(listener: std::net::TcpListener) -> TcpListener {
    adopt(listener.into())
}

/// Makes one of glommio's sockets out of a descriptor; there is no safe way to.
fn adopt<T: FromRawFd>(fd: OwnedFd) -> T {
    // SAFETY: `into_raw_fd` gives up the only owner of an open descriptor, which the new one becomes. All callers
    // hold a socket of the kind that `T` is.
    unsafe { T::from_raw_fd(fd.into_raw_fd()) }
}

/// What this machine has run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// File descriptors, or the memory for sockets.
    Files,
    /// Local ports for outbound connections.
    Ports,
}

impl Exhausted {
    /// What the error of a socket, by its number, says that there is none of.
    pub fn of(errno: Option<i32>) -> Option<Exhausted> {
        match Errno::from_raw_os_error(errno?) {
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Some(Exhausted::Files),
            Errno::ADDRINUSE | Errno::ADDRNOTAVAIL => Some(Exhausted::Ports),
            _ => None,
        }
    }
}

/// The source addresses of outbound connections; `None` leaves the choice to the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutboundAddresses {
    /// For IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// For IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl OutboundAddresses {
    /// The source towards `peer`. A configured public address is not for talking to services on this host.
    fn towards(&self, peer: SocketAddr) -> Option<SocketAddr> {
        let ip = match peer {
            SocketAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            SocketAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        };
        ip.filter(|ip| ip.is_loopback() || !peer.ip().is_loopback()).map(|ip| SocketAddr::new(ip, 0))
    }
}

/// A UDP socket on a random port that hears only `peer`.
pub fn udp(peer: SocketAddr, from: &OutboundAddresses) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if let Some(source) = from.towards(peer) {
        socket.bind(&source.into())?;
    }
    socket.connect(&peer.into())?;
    Ok(adopt(socket.into()))
}

/// Connects to `peer`. The caller bounds the time; dropping the future gives the attempt up.
pub async fn connect(peer: SocketAddr, from: &OutboundAddresses) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    set_options(&socket)?;
    if let Some(source) = from.towards(peer) {
        // The port is chosen when connecting, so that one address carries 64k connections to each destination, not
        // 64k in all.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&source.into())?;
    }
    match socket.connect(&peer.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        _ => {}
    }
    let mut stream: TcpStream = adopt(socket.into());
    // An empty write waits for the connection like any other, and fails with what the connection failed with.
    poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &[])).await?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
    use glommio::LocalExecutor;
    use socket2::SockRef;

    use super::*;

    fn executor() -> LocalExecutor {
        glommio::LocalExecutorBuilder::default().io_memory(0).make().unwrap()
    }

    fn loopback(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn shards_share_a_port_and_nobody_else_gets_it() {
        let (address, listeners) = listen(loopback("127.0.0.1:0"), 3).unwrap();
        assert_eq!(listeners.len(), 3);
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        assert!(matches!(listen(address, 1), Err(BindError::InUse(taken)) if taken == address));
        assert!(matches!(listen(loopback("192.0.2.1:0"), 1), Err(BindError::NoSuchAddress(_))));
    }

    #[test]
    fn ipv6_and_ipv4_take_the_same_port_side_by_side() {
        let Ok((any6, _listeners6)) = listen(loopback("[::]:0"), 2) else {
            return eprintln!("no IPv6 on this machine");
        };
        listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), any6.port()), 2).unwrap();
    }

    #[test]
    fn accepted_connections_inherit_the_options() {
        let (address, listeners) = listen(loopback("127.0.0.1:0"), 1).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listeners[0].accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), limits::UNSENT_BYTES);
    }

    #[test]
    fn a_connection_comes_from_the_address_asked_for_and_carries_data() {
        executor().run(async {
            let (address, mut listeners) = listen(loopback("127.0.0.1:0"), 1).unwrap();
            let listener = adopt_listener(listeners.remove(0));
            let from = OutboundAddresses { ipv4: Some(Ipv4Addr::new(127, 0, 0, 9)), ipv6: None };
            let mut client = connect(address, &from).await.unwrap();
            let mut server = listener.accept().await.unwrap();
            assert_eq!(server.peer_addr().unwrap().ip(), Ipv4Addr::new(127, 0, 0, 9));
            assert!(client.nodelay().unwrap() && server.nodelay().unwrap());
            client.write_all(b"cell").await.unwrap();
            let mut buf = [0; 4];
            server.read_exact(&mut buf).await.unwrap();
            assert_eq!(&buf, b"cell");
        });
    }

    #[test]
    fn a_refused_connection_says_so() {
        executor().run(async {
            let (address, listeners) = listen(loopback("127.0.0.1:0"), 1).unwrap();
            drop(listeners);
            let error = connect(address, &OutboundAddresses::default()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn errors_say_what_is_exhausted() {
        let of = |errno: Errno| Exhausted::of(io::Error::from(errno).raw_os_error());
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(of(errno), Some(Exhausted::Files));
        }
        assert_eq!(of(Errno::ADDRINUSE), Some(Exhausted::Ports));
        assert_eq!(of(Errno::ADDRNOTAVAIL), Some(Exhausted::Ports));
        assert_eq!(of(Errno::CONNREFUSED), None);
        assert_eq!(Exhausted::of(io::Error::other("x").raw_os_error()), None);
    }

    /// A full backlog leaves the connection half open: the connect waits, and can be given up.
    #[test]
    fn a_connection_that_does_not_come_about_can_be_given_up() {
        executor().run(async {
            let socket = bind(loopback("127.0.0.1:0"), false).unwrap();
            socket.listen(0).unwrap();
            let address = local_address(&socket).unwrap();
            let _fills_backlog = std::net::TcpStream::connect(address).unwrap();
            let wait = std::time::Duration::from_millis(50);
            let from = OutboundAddresses::default();
            let attempt = async { Ok(connect(address, &from).await) };
            let result = glommio::timer::timeout(wait, attempt).await;
            assert!(result.is_err(), "connected, or failed before the time was over");
        });
    }
}
