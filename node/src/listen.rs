//! Listening sockets, opened before a runtime is there and the user is changed.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// New connections that the system holds until they are accepted.
const BACKLOG: i32 = 1024;

/// Listens for connections, without blocking. A port without an address is opened twice, once for each family, and so each
/// of them is for its own family alone.
pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn both_families_listen_on_one_port() {
        let v4 = tcp((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let number = v4.local_addr().unwrap().port();
        let v6 = tcp((Ipv6Addr::UNSPECIFIED, number).into()).unwrap();
        assert_eq!(v6.local_addr().unwrap().port(), number);
        assert!(tcp((Ipv4Addr::UNSPECIFIED, number).into()).is_err(), "somebody listens there");
    }
}
