//! One question to one server: a datagram first, TCP when a datagram will not do.

use super::message::{Question, Transport, Verdict};
use super::{Answer, DnsError};
use crate::exit::decide::end_of_socket;
use crate::io::net::{self, OutboundAddresses};
use crate::limits;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use onionring_proto::relay_msg::EndReason;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Asks `server`, allowing `timeout` for the datagram and as much again if TCP is needed.
pub async fn ask(
    server: SocketAddr,
    question: &Question,
    source: &OutboundAddresses,
    timeout: Duration,
) -> Result<Answer, DnsError> {
    let message = question.to_wire()?;
    match within(timeout, over_udp(server, question, &message, source)).await? {
        Verdict::Answer(answer) => Ok(answer),
        Verdict::Truncated | Verdict::CaseChanged | Verdict::Unrelated => {
            match within(timeout, over_tcp(server, question, &message, source)).await? {
                Verdict::Answer(answer) => Ok(answer),
                Verdict::CaseChanged | Verdict::Truncated | Verdict::Unrelated => Err(DnsError::ServerFailed),
            }
        }
    }
}

async fn within(
    timeout: Duration,
    exchange: impl Future<Output = io::Result<Verdict>>,
) -> Result<Verdict, DnsError> {
    glommio::timer::timeout(timeout, async { Ok(exchange.await) })
        .await
        .map_err(|_| DnsError::Timeout)?
        .map_err(|error| match end_of_socket(&error) {
            // Our own shortage, no fault of the server's.
            EndReason::ResourceLimit => DnsError::Overloaded,
            _ => DnsError::Unreachable,
        })
}

/// Waits for a datagram that answers. [`Verdict::Unrelated`] means that too many came that do not.
async fn over_udp(
    server: SocketAddr,
    question: &Question,
    message: &[u8],
    source: &OutboundAddresses,
) -> io::Result<Verdict> {
    let socket = net::udp(server, source)?;
    socket.send(message).await?;
    let mut buf = [0; limits::DNS_DATAGRAM_LEN];
    for _ in 0..limits::DNS_DATAGRAMS_PER_QUESTION {
        let len = socket.recv(&mut buf).await?;
        match question.judge(buf.get(..len).unwrap_or_default(), Transport::Udp) {
            Verdict::Unrelated => {}
            verdict => return Ok(verdict),
        }
    }
    Ok(Verdict::Unrelated)
}

/// RFC 1035 section 4.2.2: messages with a two-byte length before them.
async fn over_tcp(
    server: SocketAddr,
    question: &Question,
    message: &[u8],
    source: &OutboundAddresses,
) -> io::Result<Verdict> {
    let mut stream = net::connect(server, source).await?;
    let mut framed = Vec::with_capacity(2 + message.len());
    // A question is far below 64 KiB: names end at 255 bytes.
    framed.extend_from_slice(&(message.len() as u16).to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let len = usize::from(u16::from_be_bytes(len));
    if len > limits::DNS_TCP_LEN {
        return Ok(Verdict::Unrelated);
    }
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer).await?;
    Ok(question.judge(&answer, Transport::Tcp))
}
