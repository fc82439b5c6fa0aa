//! `SocksPort`: SOCKS 4, 4a and 5; the syntax is [`onionring_proto::socks`].

use std::net::IpAddr;
use std::time::Duration;

use onionring_node::log::{RateLimit, safe};
use onionring_proto::socks::{Auth, Command, Host as SocksHost, Request, Server, Status, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::app::App;
use super::carry::carry;
use super::{Asker, Denied, Port, Rules};
use crate::isolation::Protocol;
use crate::limits;
use crate::network::{Families, Host, Network, Refusal};

/// Serves one application.
pub(super) async fn serve<N: Network>(port: &Port<N>, mut app: App, client: Option<IpAddr>) {
    let hello = hello(&mut app, port.settings.prefer_no_auth);
    let (request, read) = match timeout(port.rules().timeout, hello).await {
        Ok(Some(Ok(found))) => found,
        Ok(Some(Err(answer))) => {
            port.counters().deny(Denied::Malformed);
            return app.dismiss(&answer).await;
        }
        // It is gone, or says nothing.
        Ok(None) => return,
        Err(_) => return port.counters().deny(Denied::Malformed),
    };
    let mut answer = Vec::new();
    let done = match judge_leak(port, &request) {
        Err(denied) => Err(denied),
        Ok(()) if request.command == Command::Connect => {
            match connect(port, &request, client, &mut app, read).await {
                Ok((tunnel, is_over)) => {
                    request.write_status(Status::Succeeded, &mut answer);
                    if app.write_all(&answer).await.is_ok() {
                        carry(app, tunnel, is_over, port.counters()).await;
                    }
                    return;
                }
                Err(denied) => Err(denied),
            }
        }
        Ok(()) => look_up(port, &request, client, &mut answer).await,
    };
    if let Err(denied) = done {
        debug!("{} to {}: {denied}", port.settings.kind.option(), safe(&request.host));
        port.counters().deny(denied);
        let status = status(denied);
        let status = if port.settings.extended_errors { status } else { status.plain() };
        request.write_status(status, &mut answer);
    }
    app.dismiss(&answer).await;
}

/// Reads the request, and answers what comes before it. With the request comes what follows it; instead of it, what to say
/// last; or nothing, if the application is gone.
async fn hello(app: &mut App, prefer_no_auth: bool) -> Option<Result<(Request, Vec<u8>), Vec<u8>>> {
    let mut server = Server::new(prefer_no_auth);
    let mut read = Vec::with_capacity(limits::SOCKS_HELLO);
    loop {
        if app.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        let mut answer = Vec::new();
        match server.handle(&read, &mut answer) {
            Ok((used, request)) => {
                read.drain(..used);
                if !answer.is_empty() {
                    app.write_all(&answer).await.ok()?;
                }
                if let Some(request) = request {
                    return Some(Ok((request, read)));
                }
            }
            Err(error) => {
                static LIMIT: RateLimit = RateLimit::every(Duration::from_secs(60));
                if let Some(suppressed) = LIMIT.check() {
                    warn!("An application does not speak SOCKS as it should: {error}{suppressed}");
                }
                return Some(Err(answer));
            }
        }
        // A server that waits has used up all but the beginning of a message, so this is no more than one of them.
        read.reserve(limits::SOCKS_HELLO);
    }
}

/// The paper's warning: whoever gives an address has looked it up, and told others where it goes.
fn judge_leak<N: Network>(port: &Port<N>, request: &Request) -> Result<(), Denied> {
    let Rules { safe_socks, test_socks, .. } = *port.rules();
    let leaks = request.is_literal && request.command != Command::ResolvePtr;
    if !leaks {
        if test_socks {
            info!(
                "An application asks by SOCKS {} for port {} and leaves names to the network, which is good",
                request.version, request.port
            );
        }
        return Ok(());
    }
    static LIMIT: RateLimit = RateLimit::every(Duration::from_secs(5));
    let say = |end: &dyn std::fmt::Display| {
        let refusing = if safe_socks { "; SafeSocks refuses it" } else { "" };
        warn!(
            "An application gives an address instead of a name (SOCKS {}, port {}). If it looks names up by itself, it \
             tells its name server where it goes. Let it use SOCKS 4a, or SOCKS 5 with names{refusing}{end}",
            request.version, request.port
        );
    };
    if safe_socks || test_socks {
        say(&"");
    } else if let Some(suppressed) = LIMIT.check() {
        say(&suppressed);
    }
    if safe_socks { Err(Denied::Unsafe) } else { Ok(()) }
}

fn asker(request: &Request, client: Option<IpAddr>) -> Asker {
    let protocol = match request.version {
        Version::V4 => Protocol::Socks4,
        Version::V5 => Protocol::Socks5,
    };
    let auth = request.auth.clone().map(|Auth { user, password }| (user, password));
    Asker { client, protocol, auth }
}

async fn connect<N: Network>(
    port: &Port<N>,
    request: &Request,
    client: Option<IpAddr>,
    app: &mut App,
    read: Vec<u8>,
) -> Result<(N::Tunnel, bool), Denied> {
    let host = match &request.host {
        SocksHost::Name(name) => Host::Name(name.clone()),
        SocksHost::Address(address) => Host::Address(*address),
    };
    let destination = port.destination(&asker(request, client), host, request.port)?;
    port.open(&destination, app, read).await
}

/// RESOLVE and RESOLVE_PTR.
async fn look_up<N: Network>(
    port: &Port<N>,
    request: &Request,
    client: Option<IpAddr>,
    answer: &mut Vec<u8>,
) -> Result<(), Denied> {
    let asker = asker(request, client);
    let families = match request.version {
        Version::V4 => Families { v6: false, ..port.families() },
        Version::V5 => port.families(),
    };
    match (&request.host, request.command) {
        (SocksHost::Address(address), Command::ResolvePtr) => {
            request.write_name(&port.name(&asker, *address).await?, answer);
        }
        // Nothing to look up.
        (SocksHost::Address(address), _) => {
            port.rules().check_host(&port.settings, &Host::Address(*address))?;
            request.write_address(*address, answer);
        }
        (SocksHost::Name(name), _) => {
            let found = port.addresses(&asker, name.clone(), families).await?;
            let first = found.first().ok_or(Refusal::NotFound)?;
            request.write_address(*first, answer);
        }
    }
    Ok(())
}

/// What applications are told, as C tor tells them (`src/core/or/reasons.c`).
pub(super) fn status(denied: Denied) -> Status {
    match denied {
        Denied::Unsafe | Denied::Plaintext | Denied::Family | Denied::Lookup => Status::NotAllowed,
        Denied::Malformed | Denied::Name | Denied::DotExit | Denied::Port => Status::GeneralFailure,
        Denied::Network(refusal) => match refusal {
            Refusal::NotReady | Refusal::Internal | Refusal::Failed => Status::GeneralFailure,
            // There is no better word for what this proxy cannot do.
            Refusal::NotAllowed | Refusal::OnionService => Status::NotAllowed,
            Refusal::NotFound | Refusal::NoRoute => Status::HostUnreachable,
            Refusal::Refused => Status::Refused,
            Refusal::Timeout => Status::TtlExpired,
        },
    }
}
