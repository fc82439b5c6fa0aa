//! Requests to a DirPort, each on a connection of its own, as relays and clients send them.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// How long an authority may take for the next bytes of an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The most that is read of an answer.
const ANSWER_MAX: u64 = 64 << 20;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Status code.
    pub status: u16,
    /// What stands behind it.
    pub reason: String,
    /// The body, as it was sent.
    pub body: Vec<u8>,
}

/// Asks for `path` with further header lines, each ended.
pub(super) fn get(to: SocketAddr, path: &str, headers: &str) -> io::Result<Answer> {
    exchange(connect(to, None)?, format!("GET {path} HTTP/1.0\r\n{headers}\r\n").as_bytes(), &[])
}

/// Posts `body`, from the address `from` if that matters.
pub(super) fn post(to: SocketAddr, from: Option<Ipv4Addr>, path: &str, body: &[u8]) -> io::Result<Answer> {
    let head = format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    exchange(connect(to, from)?, head.as_bytes(), body)
}

fn connect(to: SocketAddr, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

fn exchange(mut stream: TcpStream, head: &[u8], body: &[u8]) -> io::Result<Answer> {
    stream.write_all(head)?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::other("an answer without the end of a header"))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut words = head.lines().next().unwrap_or_default().splitn(3, ' ').skip(1);
    let status = words.next().and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("an answer without a status: {head}")))?;
    let reason = words.next().unwrap_or_default().to_owned();
    Ok(Answer { status, reason, body: answer.split_off(end + 4) })
}
