//! Names for exit streams, asked of the system's resolvers over the shard's own sockets.
//!
//! Each shard has one [`Resolver`]. A question goes to the first healthy server, over UDP from a fresh random port with
//! a random identifier and random letter case, over TCP when the answer does not fit or looks forged, and to the next
//! server when one fails. Streams that ask the same question wait for one lookup; answers are remembered for their
//! time to live. That time never leaves the relay: clients are told [`TTL_LOOKED_UP`] whatever it is, so that nobody
//! can read from it what others have asked (C tor's issue 40979).

pub mod cache;
pub mod message;
mod metrics;
pub mod resolv_conf;
pub mod servers;
mod transport;

#[cfg(test)]
mod tests;

use crate::io::net::OutboundAddresses;
use crate::limits;
use cache::{Cache, Key};
use glommio::channels::local_channel::{self, LocalReceiver, LocalSender};
use hickory_proto::rr::{LowerName, Name};
use message::{Answer, Kind, Question};
use metrics::Metrics;
use onionring_node::log::RateLimit;
use onionring_proto::time::Mono;
use resolv_conf::ResolvConf;
use servers::Servers;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Time to live, in seconds, that CONNECTED and RESOLVED give for a name that was looked up.
pub const TTL_LOOKED_UP: u32 = 60;

/// Time to live, in seconds, that CONNECTED gives when the client named an address itself.
pub const TTL_LITERAL: u32 = 1800;

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Addresses, in the server's order; never empty.
    Addresses(Vec<IpAddr>),
    /// The name of an address.
    Name(String),
}

/// Why a lookup found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The text is not a host name.
    #[error("not a host name")]
    BadName,
    /// The name does not exist.
    #[error("no such name")]
    NoSuchName,
    /// The name exists, but has nothing of the kind asked.
    #[error("the name has no such record")]
    NoData,
    /// The server could not find out (SERVFAIL), or its answer made no sense.
    #[error("the name server failed")]
    ServerFailed,
    /// The server will not answer us.
    #[error("the name server refused to answer")]
    Refused,
    /// The server did not understand the question.
    #[error("the name server did not understand the question")]
    Format,
    /// The server cannot answer such questions.
    #[error("the name server does not implement the question")]
    NotImplemented,
    /// No server answered in time.
    #[error("no name server answered in time")]
    Timeout,
    /// The sockets to the servers report errors.
    #[error("no name server is reachable")]
    Unreachable,
    /// Too many lookups at once ([`limits::DNS_LOOKUPS`]).
    #[error("too many lookups at once")]
    Overloaded,
}

impl DnsError {
    /// Whether asking again is pointless: RESOLVED says F1 (permanent) then, otherwise F0 (transient).
    pub fn is_permanent(self) -> bool {
        matches!(self, DnsError::BadName | DnsError::NoSuchName | DnsError::NoData)
    }

    /// Whether the name server, not the name, is at fault.
    fn blames_server(self) -> bool {
        !matches!(
            self,
            DnsError::BadName
                | DnsError::NoSuchName
                | DnsError::NoData
                | DnsError::ServerFailed
                | DnsError::Overloaded
        )
    }
}

/// Which addresses a stream can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Both,
}

/// How names are asked for; from the `ServerDNS*` options and the consensus.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time one server has for one answer (consensus `exit_dns_timeout`).
    pub timeout: Duration,
    /// Rounds over all servers (consensus `exit_dns_num_attempts`).
    pub attempts: u32,
    /// `ServerDNSRandomizeCase`.
    pub randomize_case: bool,
    /// `ServerDNSSearchDomains`.
    pub search_domains: bool,
    /// `ServerDNSAllowNonRFC953Hostnames`.
    pub allow_any_characters: bool,
    /// The address questions come from.
    pub source: OutboundAddresses,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            timeout: Duration::from_secs(1),
            attempts: 2,
            randomize_case: true,
            search_domains: false,
            allow_any_characters: false,
            source: OutboundAddresses::default(),
        }
    }
}

/// How a lookup ended.
type Outcome = Result<Data, DnsError>;

/// A shard's resolver. Clones share everything. Must be used inside a glommio executor.
#[derive(Clone)]
pub struct Resolver(Rc<RefCell<State>>);

struct State {
    options: Rc<Options>,
    conf: Rc<ResolvConf>,
    servers: Servers,
    cache: Cache,
    /// Lookups under way, with those who wait for them.
    lookups: HashMap<Key, Vec<LocalSender<Outcome>>>,
    metrics: Metrics,
    epoch: Instant,
}

impl State {
    fn now(&self) -> Mono {
        Mono(0) + self.epoch.elapsed()
    }
}

impl Resolver {
    /// A resolver that asks the servers of `conf`; `shard` names it in the metrics.
    pub fn new(conf: ResolvConf, options: Options, shard: usize) -> Self {
        Resolver(Rc::new(RefCell::new(State {
            servers: Servers::new(&conf.servers, conf.rotate),
            options: Rc::new(options),
            conf: Rc::new(conf),
            cache: Cache::new(limits::DNS_CACHE_ENTRIES),
            lookups: HashMap::new(),
            metrics: Metrics::new(shard),
            epoch: Instant::now(),
        })))
    }

    /// Takes a new configuration; lookups under way end with the old one. Other servers may give other answers, so
    /// what the old ones said is forgotten.
    pub fn reconfigure(&self, conf: ResolvConf, options: Options) {
        let state = &mut *self.0.borrow_mut();
        if *state.conf != conf {
            state.servers = Servers::new(&conf.servers, conf.rotate);
            state.cache.clear();
            state.conf = Rc::new(conf);
        }
        state.options = Rc::new(options);
    }

    /// Answers remembered, lookups under way, servers passed over.
    pub fn load(&self) -> (usize, usize, usize) {
        let state = self.0.borrow();
        (state.cache.len(), state.lookups.len(), state.servers.resting(state.now()))
    }

    /// The addresses of `host`, IPv4 first. Both families are asked for at once; when one has answered, the other is
    /// given [`limits::DNS_OTHER_FAMILY_TIME`] more.
    pub async fn addresses(&self, host: &str, families: Families) -> Result<Vec<IpAddr>, DnsError> {
        let mut result = Err(DnsError::NoSuchName);
        for name in self.candidates(host)? {
            result = match families {
                Families::V4 => self.lookup(&name, Kind::A).await.map(addresses_of),
                Families::V6 => self.lookup(&name, Kind::Aaaa).await.map(addresses_of),
                Families::Both => self.both_families(&name).await,
            };
            match result {
                Err(DnsError::NoSuchName | DnsError::NoData) => {}
                _ => break,
            }
        }
        result
    }

    /// The name of `ip` (PTR under in-addr.arpa or ip6.arpa).
    pub async fn reverse(&self, ip: IpAddr) -> Result<String, DnsError> {
        let mut name = Name::from(ip);
        name.set_fqdn(true);
        match self.lookup(&name, Kind::Ptr).await? {
            Data::Name(name) => Ok(name),
            Data::Addresses(_) => Err(DnsError::NoData),
        }
    }

    /// The names that `host` may stand for: itself, and with `ServerDNSSearchDomains` those below the search domains.
    fn candidates(&self, host: &str) -> Result<Vec<Name>, DnsError> {
        let state = self.0.borrow();
        let is_rooted = host.ends_with('.');
        let plausible = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if host.is_empty() || !(state.options.allow_any_characters || host.bytes().all(plausible)) {
            return Err(DnsError::BadName);
        }
        let name = Name::from_ascii(host).map_err(|_| DnsError::BadName)?;
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        if absolute.is_root() {
            return Err(DnsError::BadName);
        }
        if is_rooted || !state.options.search_domains {
            return Ok(vec![absolute]);
        }
        let mut names: Vec<Name> =
            state.conf.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
        let dots = host.bytes().filter(|&b| b == b'.').count();
        let position = if dots >= state.conf.ndots { 0 } else { names.len() };
        names.insert(position, absolute);
        Ok(names)
    }

    /// Asks for both families at once. Once IPv4 addresses are there, IPv6 ones get a moment more and no longer: servers
    /// that never answer AAAA exist, and must not hold up every stream.
    async fn both_families(&self, name: &Name) -> Result<Vec<IpAddr>, DnsError> {
        let (v4, v6) = (self.begin(name, Kind::A), self.begin(name, Kind::Aaaa));
        let v4 = outcome(v4).await;
        let patience = if v4.is_ok() { limits::DNS_OTHER_FAMILY_TIME } else { limits::DNS_LOOKUP_TIME };
        let v6 = glommio::timer::timeout(patience, async { Ok(outcome(v6).await) })
            .await
            .unwrap_or(Err(DnsError::Timeout));
        match (v4, v6) {
            // If only one of the two says for certain that there is nothing, asking again may help.
            (Err(v4), Err(v6)) => Err(if v4.is_permanent() { v6 } else { v4 }),
            (v4, v6) => Ok([v4, v6].into_iter().flatten().flat_map(addresses_of).collect()),
        }
    }

    async fn lookup(&self, name: &Name, kind: Kind) -> Result<Data, DnsError> {
        outcome(self.begin(name, kind)).await
    }

    /// Answers one question from memory, from a lookup under way, or from a new one. A lookup runs as a task of its
    /// own: it goes on for others who wait, and for the memory, when the stream that began it has gone.
    fn begin(&self, name: &Name, kind: Kind) -> LocalReceiver<Outcome> {
        let key = Key { name: LowerName::new(name), kind };
        let (sender, receiver) = local_channel::new_bounded(1);
        if self.join(&key, sender) {
            let (resolver, name) = (self.clone(), name.clone());
            // Runs up to its first wait before this returns.
            glommio::spawn_local(async move { resolver.run_lookup(name, key).await }).detach();
        }
        receiver
    }

    /// Answers `waiter` at once, or enters it for the lookup of `key`. Returns whether that lookup is yet to be started.
    fn join(&self, key: &Key, waiter: LocalSender<Outcome>) -> bool {
        let state = &mut *self.0.borrow_mut();
        let now = state.now();
        let lookups_under_way = state.lookups.len();
        let result = if let Some(result) = state.cache.get(key, now) {
            state.metrics.cache_hits.increment(1);
            result.clone()
        } else {
            match state.lookups.get_mut(key) {
                Some(waiters) if waiters.len() < limits::DNS_WAITERS_PER_LOOKUP => {
                    waiters.push(waiter);
                    return false;
                }
                None if lookups_under_way < limits::DNS_LOOKUPS => {
                    state.lookups.insert(key.clone(), vec![waiter]);
                    return true;
                }
                _ => {
                    state.metrics.finished(Some(DnsError::Overloaded), Duration::ZERO);
                    Err(DnsError::Overloaded)
                }
            }
        };
        // The channel is fresh and has room for one.
        let _ = waiter.try_send(result);
        false
    }

    async fn run_lookup(&self, name: Name, key: Key) {
        let started = Instant::now();
        let answer = glommio::timer::timeout(limits::DNS_LOOKUP_TIME, async {
            Ok(self.ask_servers(&name, key.kind).await)
        })
        .await
        .unwrap_or(Answer { result: Err(DnsError::Timeout), ttl: limits::DNS_FAILURE_TTL });
        let waiters = {
            let state = &mut *self.0.borrow_mut();
            state.metrics.finished(answer.result.as_ref().err().copied(), started.elapsed());
            let now = state.now();
            state.cache.insert(key.clone(), &answer, now);
            state.metrics.cache_entries.set(state.cache.len() as f64);
            state.lookups.remove(&key).unwrap_or_default()
        };
        for waiter in waiters {
            // A stream that ended meanwhile has dropped its receiver.
            let _ = waiter.try_send(answer.result.clone());
        }
    }

    /// Asks one server after the other, round after round, until one gives an answer about the name.
    async fn ask_servers(&self, name: &Name, kind: Kind) -> Answer {
        let options = self.0.borrow().options.clone();
        let mut last = DnsError::Timeout;
        for _ in 0..options.attempts.max(1) {
            let order = {
                let state = &mut *self.0.borrow_mut();
                let now = state.now();
                state.servers.order(now)
            };
            for server in order {
                let question = Question::new(name, kind, options.randomize_case, &mut rand::rng());
                self.0.borrow().metrics.queries.increment(1);
                let answer = transport::ask(server, &question, &options.source, options.timeout).await;
                let error = match &answer {
                    Ok(Answer { result: Ok(_), .. }) => None,
                    Ok(Answer { result: Err(error), .. }) | Err(error) => Some(*error),
                };
                self.note_health(server, error);
                match (answer, error) {
                    (Ok(answer), None) => return answer,
                    (Ok(answer), Some(error)) if error.is_permanent() => return answer,
                    (_, Some(DnsError::BadName)) => {
                        return Answer { result: Err(DnsError::BadName), ttl: Duration::ZERO };
                    }
                    (_, Some(error)) => last = error,
                    (Err(_), None) => {}
                }
            }
        }
        Answer { result: Err(last), ttl: limits::DNS_FAILURE_TTL }
    }

    fn note_health(&self, server: std::net::SocketAddr, error: Option<DnsError>) {
        let state = &mut *self.0.borrow_mut();
        match error {
            Some(error) if error.blames_server() => {
                let now = state.now();
                static FAILING: RateLimit = RateLimit::every(Duration::from_secs(600));
                if state.servers.failed(server, now)
                    && let Some(suppressed) = FAILING.check()
                {
                    tracing::warn!(
                        target: "net",
                        "Name server {server} fails ({error}); passing it over while others answer. \
                         If this lasts, exits lose traffic: check the server, or name others in resolv.conf.{suppressed}"
                    );
                }
            }
            _ => state.servers.succeeded(server),
        }
        let resting = state.servers.resting(state.now());
        state.metrics.servers_failing.set(resting as f64);
    }
}

async fn outcome(receiver: LocalReceiver<Outcome>) -> Outcome {
    // The sender goes without a word only when the executor shuts down.
    receiver.recv().await.unwrap_or(Err(DnsError::ServerFailed))
}

fn addresses_of(data: Data) -> Vec<IpAddr> {
    match data {
        Data::Addresses(addresses) => addresses,
        Data::Name(_) => Vec::new(),
    }
}
