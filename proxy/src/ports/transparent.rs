//! `TransPort`: connections of programs that know of no proxy, redirected by the system.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use onionring_node::log::{RateLimit, safe};
use tracing::{debug, warn};

use super::app::App;
use super::carry::carry;
use super::{Asker, Denied, Port, TransProxyType};
use crate::isolation::Protocol;
use crate::network::{Host, Network};

/// Serves one application. All it can be told is that the connection ends.
pub(super) async fn serve<N: Network>(
    port: &Port<N>,
    mut app: App,
    client: Option<IpAddr>,
    how: TransProxyType,
) {
    let target = match target(&app, how) {
        Ok(target) => target,
        Err(error) => {
            static LIMIT: RateLimit = RateLimit::every(Duration::from_secs(60));
            if let Some(suppressed) = LIMIT.check() {
                warn!(
                    "cannot tell where a connection to TransPort was going: {error}; check the rules that redirect, and \
                     that TransProxyType fits them{suppressed}"
                );
            }
            return port.counters().deny(Denied::Malformed);
        }
    };
    let asker = Asker { client, protocol: Protocol::Transparent, auth: None };
    let host = Host::Address(target.ip().to_canonical());
    let opened = match port.destination(&asker, host, target.port()) {
        Ok(destination) => port.open(&destination, &mut app, Vec::new()).await,
        Err(denied) => Err(denied),
    };
    match opened {
        Ok((tunnel, is_over)) => carry(app, tunnel, is_over, port.counters()).await,
        Err(denied) => {
            debug!("TransPort to {}: {denied}", safe(target));
            port.counters().deny(denied);
        }
    }
}

/// Where the application wanted to go.
fn target(app: &App, how: TransProxyType) -> io::Result<SocketAddr> {
    let App::Tcp(stream) = app else { return Err(io::ErrorKind::Unsupported.into()) };
    let ours = stream.local_addr()?;
    match how {
        // The connection keeps the address that it was made to.
        TransProxyType::Tproxy => Ok(ours),
        TransProxyType::Default => {
            let target = original(stream, ours)?;
            if target == ours {
                return Err(io::Error::other("it was made to the port itself, not redirected there"));
            }
            Ok(target)
        }
    }
}

/// The address that the packet filter has replaced.
#[cfg(target_os = "linux")]
fn original(stream: &tokio::net::TcpStream, ours: SocketAddr) -> io::Result<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let found = if ours.is_ipv4() { socket.original_dst_v4()? } else { socket.original_dst_v6()? };
    found.as_socket().ok_or_else(|| io::Error::other("it has no address of the Internet"))
}

#[cfg(not(target_os = "linux"))]
fn original(_stream: &tokio::net::TcpStream, _ours: SocketAddr) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}
