//! The ports that applications talk to: SOCKS, HTTP CONNECT, DNS, and connections that the system redirects.
//!
//! [`bind`] opens them, while the program may still do everything; [`Bound::serve`] answers on them. What an application
//! asks for is checked against the [`Rules`] and the flags of its port, and handed to a [`Network`]; `carry` moves the
//! bytes of streams that are open. Nothing here looks up a name or opens a connection by itself.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use onionring_proto::torrc::port::ClientPort;
use tokio::task::JoinSet;

use crate::isolation::{Credentials, Isolate, Protocol, Token};
use crate::limits;
use crate::network::{Destination, Early, Families, Host, Network, Question, Refusal};

mod accept;
mod app;
mod carry;
mod config;
mod counters;
mod dns;
pub mod foreign;
mod http;
mod listen;
mod rules;
mod socks;
mod transparent;

pub use config::{Config, TransProxyType};
pub use counters::{Counters, PortCounters};
pub use listen::{BindError, Bound, Place, bind};
pub use rules::{Denied, Rules};

use app::App;

#[cfg(test)]
mod tests;

/// What connections of one port have in common.
struct Port<N> {
    settings: ClientPort,
    /// What its tokens say of the session: a group, or a number of its own.
    session: i32,
    /// They may change while the port is open.
    rules: Arc<ArcSwap<Rules>>,
    network: Arc<N>,
    counters: Arc<Counters>,
}

impl Bound {
    /// Answers on all ports, with streams and names from `network`, until the value is dropped.
    pub fn serve<N: Network>(self, network: Arc<N>, counters: Arc<Counters>) -> io::Result<Serving> {
        let mut tasks = JoinSet::new();
        let rules = Arc::new(ArcSwap::from_pointee(self.rules));
        for (index, (settings, socket)) in self.sockets.into_iter().enumerate() {
            // Numbers of groups are not negative, and -1 to -3 mean something in C tor.
            let own = -4 - i32::try_from(index).unwrap_or(i32::MAX - 4);
            let session = settings.session_group.unwrap_or(own);
            let (rules, network, counters) = (rules.clone(), network.clone(), counters.clone());
            let port = Arc::new(Port { settings, session, rules, network, counters });
            match socket {
                listen::Socket::Udp(socket) => {
                    let socket = tokio::net::UdpSocket::from_std(socket)?;
                    tasks.spawn(dns::serve(port, socket));
                }
                listen::Socket::Stream(listener) => {
                    let listener = listener.into_tokio()?;
                    tasks.spawn(accept::serve(port, listener, self.transparent));
                }
            }
        }
        Ok(Serving { tasks, rules })
    }
}

/// Ports that are answered on. When it is dropped, they are closed, and with them all that applications have open there.
pub struct Serving {
    tasks: JoinSet<()>,
    rules: Arc<ArcSwap<Rules>>,
}

impl Serving {
    /// From now on, these rules hold for requests.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serving({} ports)", self.tasks.len())
    }
}

/// Who asks, and by which protocol.
struct Asker {
    client: Option<IpAddr>,
    protocol: Protocol,
    auth: Option<Credentials>,
}

impl<N: Network> Port<N> {
    fn counters(&self) -> &PortCounters {
        self.counters.of(self.settings.kind)
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// What a stream to there must not share a circuit over.
    fn token(&self, asker: &Asker, host: &Host, port: u16) -> Token {
        let by = self.settings.isolate;
        let parts = [
            (by.client_addr, Isolate::CLIENT),
            (by.socks_auth, Isolate::AUTH),
            (by.client_protocol, Isolate::PROTOCOL),
            (by.dest_port, Isolate::DEST_PORT),
            (by.dest_addr, Isolate::DEST_ADDR),
        ];
        let isolate = parts
            .into_iter()
            .filter(|(wanted, _)| *wanted)
            .fold(Isolate::SESSION, |all, (_, part)| all | part);
        Token {
            isolate,
            session: self.session,
            client: asker.client,
            protocol: asker.protocol,
            auth: asker.auth.clone(),
            dest_addr: host.to_string().to_ascii_lowercase().into(),
            dest_port: port,
            keep_alive: self.settings.keep_alive && by.socks_auth && asker.auth.is_some(),
        }
    }

    /// Which addresses streams of this port may lead to.
    fn families(&self) -> Families {
        let ClientPort { ipv4: v4, ipv6: v6, prefer_ipv6: prefer_v6, .. } = self.settings;
        Families { v4, v6, prefer_v6 }
    }

    /// The stream that is asked for, unless it is not allowed.
    fn destination(&self, asker: &Asker, host: Host, port: u16) -> Result<Destination, Denied> {
        let host = match host {
            Host::Address(address) => Host::Address(address.to_canonical()),
            name => name,
        };
        self.rules().check_host(&self.settings, &host)?;
        self.rules().check_stream(&host, port)?;
        let token = self.token(asker, &host, port);
        let mut families = self.families();
        if asker.protocol == Protocol::Socks4 {
            // Its applications would not know what to do with the other one.
            families.v6 = false;
        }
        match host {
            Host::Address(IpAddr::V4(_)) => families.v6 = false,
            Host::Address(IpAddr::V6(_)) => families.v4 = false,
            Host::Name(_) => {}
        }
        if !families.v4 && !families.v6 {
            return Err(Denied::Family);
        }
        Ok(Destination { host, port, families, token })
    }

    /// Opens a stream for `app`, of which `read` came behind the request. Also says whether the application has ended
    /// what it sends.
    async fn open(
        &self,
        destination: &Destination,
        app: &mut App,
        read: Vec<u8>,
    ) -> Result<(N::Tunnel, bool), Denied> {
        let mut early = Early::new(app, read);
        let connect = self.network.connect(destination, &mut early);
        let tunnel = tokio::time::timeout(self.rules().timeout + limits::NETWORK_SLACK, connect)
            .await
            .unwrap_or(Err(Refusal::Timeout))?;
        let counters = self.counters();
        counters.sent(early.read.len() as u64);
        Ok((tunnel, early.is_over))
    }

    /// The addresses of a name, those of the better family first; at least one.
    async fn addresses(
        &self,
        asker: &Asker,
        name: Box<str>,
        families: Families,
    ) -> Result<Vec<IpAddr>, Denied> {
        let host = Host::Name(name);
        self.rules().check_host(&self.settings, &host)?;
        let token = self.token(asker, &host, 0);
        let Host::Name(name) = host else { return Err(Denied::Name) };
        let found = self.resolve(&Question::Addresses(name), &token).await?;
        let mut addresses: Vec<IpAddr> = rules::addresses(&found)
            .filter(|ip| if ip.is_ipv4() { families.v4 } else { families.v6 })
            .collect();
        addresses.sort_by_key(|ip| ip.is_ipv6() != families.prefer_v6);
        if addresses.is_empty() { Err(Refusal::NotFound.into()) } else { Ok(addresses) }
    }

    /// The name of an address.
    async fn name(&self, asker: &Asker, address: IpAddr) -> Result<String, Denied> {
        if !self.settings.dns_request {
            return Err(Denied::Lookup);
        }
        self.rules().check_reverse(address)?;
        let token = self.token(asker, &Host::Address(address), 0);
        let found = self.resolve(&Question::Name(address), &token).await?;
        rules::name(found).ok_or(Denied::Network(Refusal::NotFound))
    }

    async fn resolve(
        &self,
        question: &Question,
        token: &Token,
    ) -> Result<onionring_proto::relay_msg::Resolved, Denied> {
        let resolve = self.network.resolve(question, token);
        Ok(tokio::time::timeout(self.rules().timeout + limits::NETWORK_SLACK, resolve)
            .await
            .unwrap_or(Err(Refusal::Timeout))?)
    }
}
