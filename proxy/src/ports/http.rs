//! `HTTPTunnelPort`: HTTP CONNECT with the network's headers (http-connect, proposal 365).

use std::net::IpAddr;

use onionring_node::log::safe;
use onionring_proto::socks::Host as SocksHost;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tracing::{debug, info};

use super::app::App;
use super::carry::carry;
use super::{Asker, Denied, Port};
use crate::isolation::{Credentials, Protocol};
use crate::limits;
use crate::network::{Host, Network, Refusal};

/// Who made an answer to CONNECT.
const VIA: &str =
    concat!("Tor-Capabilities: \r\nVia: tor/1.0 tor-network (onionring ", env!("CARGO_PKG_VERSION"), ")\r\n");
/// Who made any other answer.
const SERVER: &str =
    concat!("Tor-Capabilities: \r\nServer: tor/1.0 (onionring ", env!("CARGO_PKG_VERSION"), ")\r\n");

const PAGE: &str = "<!DOCTYPE html>\n\
<html lang=\"en\">\n\
<head><title>This is an HTTP CONNECT tunnel</title></head>\n\
<body>\n\
<h1>This is an HTTP CONNECT tunnel, not a full HTTP proxy</h1>\n\
<p>Your program asks this port to fetch a page. It only opens tunnels, as programs do for <code>https://</code>. Use\n\
<code>https://</code>, or let your program use the proxy's SOCKS port.</p>\n\
</body>\n\
</html>\n";

/// Serves one application.
pub(super) async fn serve<N: Network>(port: &Port<N>, mut app: App, client: Option<IpAddr>) {
    let head = timeout(port.rules().timeout, head(&mut app));
    let request = match head.await {
        Ok(Ok(request)) => request,
        Ok(Err(reply)) => {
            port.counters().deny(Denied::Malformed);
            return app.dismiss(&reply).await;
        }
        Err(_) => return port.counters().deny(Denied::Malformed),
    };
    let asker = Asker { client, protocol: Protocol::Http, auth: request.auth };
    let opened = match port.destination(&asker, request.host, request.port) {
        Ok(destination) => {
            let opened = port.open(&destination, &mut app, request.read).await;
            opened.inspect_err(|denied| debug!("HTTPTunnelPort to {}: {denied}", safe(&destination.host)))
        }
        Err(denied) => Err(denied),
    };
    match opened {
        Ok((tunnel, is_over)) => {
            let reply = format!("HTTP/1.0 200 OK\r\n{VIA}\r\n");
            if app.write_all(reply.as_bytes()).await.is_ok() {
                carry(app, tunnel, is_over, port.counters()).await;
            }
        }
        Err(denied) => {
            port.counters().deny(denied);
            let (status, reason) = status(denied);
            let reply = format!("HTTP/1.0 {status}\r\n{VIA}Tor-Request-Failed: {reason}\r\n\r\n");
            app.dismiss(reply.as_bytes()).await;
        }
    }
}

/// A tunnel that is asked for.
#[derive(Debug)]
pub(super) struct Request {
    host: Host,
    port: u16,
    auth: Option<Credentials>,
    /// What came behind the request.
    read: Vec<u8>,
}

/// Reads the request; or what to answer to what is no request for a tunnel, which may be nothing.
async fn head(app: &mut App) -> Result<Request, Vec<u8>> {
    let mut read = Vec::with_capacity(1024);
    loop {
        match app.read_buf(&mut read).await {
            Ok(n) if n > 0 => {}
            _ => return Err(Vec::new()),
        }
        let judged = judge(&read)?;
        if let Some((len, mut request)) = judged {
            request.read = read.split_off(len);
            return Ok(request);
        }
        read.reserve(1024);
    }
}

/// A refusal with nothing but a status.
fn refusal(status: &str) -> Vec<u8> {
    info!("refused a request to HTTPTunnelPort: {status}");
    format!("HTTP/1.0 {status}\r\n{VIA}\r\n").into_bytes()
}

/// The request and its length, once it is all there.
pub(super) fn judge(read: &[u8]) -> Result<Option<(usize, Request)>, Vec<u8>> {
    let too_long = || Err(refusal("431 Request Header Fields Too Large"));
    let mut headers = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(read) {
        Ok(httparse::Status::Complete(len)) if len <= limits::HTTP_REQUEST => len,
        Ok(httparse::Status::Partial) if read.len() < limits::HTTP_REQUEST => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return too_long(),
        Err(_) => return Err(refusal("400 Bad Request")),
    };
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if !method.eq_ignore_ascii_case("CONNECT") {
        return Err(other_method(method, target, header(&request, "Host")));
    }
    if header(&request, "Tor-RPC-Target").is_some() {
        return Err(refusal("501 Not implemented (No RPC Support)"));
    }
    let Some((host, port)) = authority(target) else { return Err(refusal("400 Bad Request")) };
    if host.len() > onionring_proto::limits::MAX_HOSTNAME_LEN {
        return Err(refusal("414 Request-URI Too Long"));
    }
    let host = match SocksHost::parse(host) {
        Some(SocksHost::Name(name)) => Host::Name(name),
        Some(SocksHost::Address(address)) => Host::Address(address),
        None => return Err(refusal("400 Bad Request (not a host name)")),
    };
    Ok(Some((len, Request { host, port, auth: isolation(&request), read: Vec::new() })))
}

fn header<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Option<&'a [u8]> {
    request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// What keeps streams apart as user name and password do: the credentials in the place of the one, and both headers for
/// isolation in that of the other.
fn isolation(request: &httparse::Request<'_, '_>) -> Option<Credentials> {
    let user = header(request, "Proxy-Authorization");
    let new = header(request, "Tor-Stream-Isolation");
    let old = header(request, "X-Tor-Stream-Isolation");
    if user.is_none() && new.is_none() && old.is_none() {
        return None;
    }
    // No value has a zero byte in it.
    let token = [new.unwrap_or_default(), old.unwrap_or_default()].join(&0);
    Some((user.unwrap_or_default().into(), token.into()))
}

/// The host and port of `host:port` or `[address]:port`.
fn authority(target: &str) -> Option<(&str, u16)> {
    let (host, port) = target.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    // An IPv6 address without brackets would leave open where the port begins.
    let clear = host.starts_with('[') || !host.contains(':');
    let port = port.parse().ok().filter(|port| digits && clear && *port != 0)?;
    Some((host, port))
}

/// Answers OPTIONS, and explains itself to those who take it for an HTTP proxy. A page of some site that has its name lead
/// here (DNS rebinding) hears nothing: it asks for a path, and names another host than this one.
fn other_method(method: &str, target: &str, host: Option<&[u8]>) -> Vec<u8> {
    let is_local = host.and_then(|host| std::str::from_utf8(host).ok()).is_some_and(is_local_host);
    let is_proxied = target.contains("://");
    if method.eq_ignore_ascii_case("OPTIONS") && is_local {
        return format!("HTTP/1.0 200 OK\r\nAllow: OPTIONS, CONNECT\r\n{SERVER}\r\n").into_bytes();
    }
    if !is_local && !is_proxied {
        return Vec::new();
    }
    info!("refused a request to HTTPTunnelPort that is not for a tunnel");
    format!(
        "HTTP/1.0 405 Method Not Allowed\r\nAllow: OPTIONS, CONNECT\r\nContent-Type: text/html; charset=utf-8\r\n\
         {SERVER}\r\n{PAGE}"
    )
    .into_bytes()
}

/// Whether a `Host` header names this host.
fn is_local_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    match SocksHost::parse(name) {
        Some(SocksHost::Address(address)) => address.is_loopback(),
        Some(SocksHost::Name(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

/// The status line, as C tor's for the same reason, and the value of `Tor-Request-Failed`.
fn status(denied: Denied) -> (&'static str, &'static str) {
    match denied {
        Denied::Malformed | Denied::Port => ("400 Bad Request", "onionring/malformed"),
        Denied::Name => ("400 Bad Request (not a host name)", "onionring/bad-name"),
        Denied::DotExit => ("403 Forbidden (.exit is not supported)", "onionring/dot-exit"),
        Denied::Unsafe | Denied::Plaintext | Denied::Family | Denied::Lookup => {
            ("403 Forbidden (entry policy violation)", "onionring/entry-policy")
        }
        Denied::Network(refusal) => match refusal {
            Refusal::NotReady => ("503 Service Unavailable (not ready yet)", "onionring/not-ready"),
            Refusal::NotAllowed => ("403 Forbidden (exit policy)", "end/EXITPOLICY"),
            Refusal::Internal => ("403 Forbidden (internal address)", "onionring/internal-address"),
            Refusal::OnionService => ("501 Not implemented (onion services)", "onionring/onion-service"),
            Refusal::NotFound => ("503 Service Unavailable (resolve failed)", "end/RESOLVEFAILED"),
            Refusal::NoRoute => ("503 Service Unavailable (no route)", "end/NOROUTE"),
            Refusal::Refused => ("403 Forbidden (connection refused)", "end/CONNECTREFUSED"),
            Refusal::Timeout => ("504 Gateway Timeout", "end/TIMEOUT"),
            Refusal::Failed => ("502 Bad Gateway (the network fails)", "onionring/failed"),
        },
    }
}
