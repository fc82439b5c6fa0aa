//! Taking the connections of applications.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use onionring_node::log::{RateLimit, safe};
use onionring_proto::torrc::port::ClientKind;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::app::App;
use super::listen::Listener;
use super::{Port, TransProxyType, http, socks, transparent};
use crate::network::Network;

/// Time between attempts to accept after one has failed, for lack of files as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections for ever. When the future is dropped, so are they.
pub(super) async fn serve<N: Network>(port: Arc<Port<N>>, listener: Listener, how: TransProxyType) {
    let room = Arc::new(Semaphore::new(port.rules().applications));
    let mut visits = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            // Only to forget those that have ended.
            Some(_) = visits.join_next() => continue,
        };
        let (app, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!("cannot accept a connection to {}: {error}", port.settings.kind.option());
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !is_admitted(&port, client) {
            continue;
        }
        let Ok(place) = room.clone().try_acquire_owned() else {
            too_many(&port);
            continue;
        };
        let port = port.clone();
        visits.spawn(async move {
            let _visit = port.counters().enter();
            match port.settings.kind {
                ClientKind::Socks => socks::serve(&port, app, client).await,
                ClientKind::Http => http::serve(&port, app, client).await,
                ClientKind::Transparent => transparent::serve(&port, app, client, how).await,
                ClientKind::Dns => unreachable!("a DNSPort has no connections"),
            }
            drop(place);
        });
    }
}

async fn accept(listener: &Listener) -> io::Result<(App, Option<IpAddr>)> {
    Ok(match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            // What comes through the network in pieces is passed on in pieces.
            stream.set_nodelay(true)?;
            (App::Tcp(stream), Some(peer.ip()))
        }
        Listener::Unix { listener, .. } => (App::Unix(listener.accept().await?.0), None),
    })
}

/// Whether `SocksPolicy` lets the application in; if not, it says so.
pub(super) fn is_admitted<N: Network>(port: &Port<N>, client: Option<IpAddr>) -> bool {
    let admitted = port.rules().admits(client);
    if !admitted {
        port.counters().turn_away();
        static LIMIT: RateLimit = RateLimit::every(Duration::from_secs(60));
        if let (Some(suppressed), Some(client)) = (LIMIT.check(), client) {
            info!(
                "turned {} away from {}: SocksPolicy does not let it in{suppressed}",
                safe(client),
                port.settings.kind.option()
            );
        }
    }
    admitted
}

/// There is no room for another application.
pub(super) fn too_many<N: Network>(port: &Port<N>) {
    port.counters().turn_away();
    static LIMIT: RateLimit = RateLimit::every(Duration::from_secs(60));
    if let Some(suppressed) = LIMIT.check() {
        warn!(
            "{} has {} applications at once and takes no more until some end{suppressed}",
            port.settings.kind.option(),
            port.rules().applications
        );
    }
}
