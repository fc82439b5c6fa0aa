//! The exit side: names, policy, connections to destinations and the streams they carry.
//!
//! Each shard has one [`Exit`], which is handed the events of its circuits' streams. A stream is a task: it finds the
//! destination ([`decide`], [`dns`]), connects ([`connect`]) and carries bytes both ways ([`stream`]).

pub mod connect;
pub mod decide;
pub mod dns;
pub mod stream;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_lite::future::or;
use glommio::net::TcpStream;
use onionring_proto::relay_msg::{
    Begin, BeginFlags, Connected, End, EndReason, Host, Resolved, ResolvedValue,
};

use crate::engine::event::{self, Lookup, StreamEvent, StreamRef};
use crate::io::net::OutboundAddresses;
use crate::io::shard::{Shard, StreamHandler};
use crate::limits;
use connect::{ConnectMetrics, connect_first};
use decide::{ExitRules, Plan, end_of_lookup};
use dns::resolv_conf::ResolvConf;
use dns::{Resolver, TTL_LITERAL, TTL_LOOKED_UP};
use stream::{Slot, StreamMetrics, StreamSide};

impl StreamHandler for Exit<Rc<Shard>> {
    /// For a relay that is no directory: BEGIN_DIR is refused.
    fn handle(&mut self, event: StreamEvent) {
        self.handle_alone(event);
    }
}

/// What the control side decided about exiting: immutable, shared by all shards and swapped whole.
#[derive(Clone, Debug)]
pub struct ExitSettings {
    /// Which destinations are allowed.
    pub rules: ExitRules,
    /// The name servers.
    pub resolv_conf: ResolvConf,
    /// How they are asked.
    pub dns: dns::Options,
    /// Where connections to destinations come from (`OutboundBindAddressExit`, `OutboundBindAddress`).
    pub outbound: OutboundAddresses,
}

/// The exit of one shard. Clones share everything.
pub struct Exit<S>(Rc<Inner<S>>);

struct Inner<S> {
    side: S,
    shared: Arc<ArcSwap<ExitSettings>>,
    settings: RefCell<Arc<ExitSettings>>,
    resolver: Resolver,
    slots: RefCell<HashMap<StreamRef, Rc<Slot>>>,
    /// What a stream reads before the engine packs it into cells; each use is over before the next begins.
    scratch: RefCell<Box<[u8]>>,
    /// [`limits::STREAM_FLUSH_TIME`].
    flush_time: Duration,
    /// [`limits::HALF_CLOSED_IDLE`].
    half_closed_idle: Duration,
    connect_metrics: ConnectMetrics,
    stream_metrics: StreamMetrics,
}

impl<S> Clone for Exit<S> {
    fn clone(&self) -> Self {
        Exit(Rc::clone(&self.0))
    }
}

impl<S: StreamSide> Exit<S> {
    /// The exit of the shard with this number; `side` is the shard's engine. To be called on the shard's executor.
    pub fn new(side: S, settings: Arc<ArcSwap<ExitSettings>>, shard: usize) -> Self {
        let current = settings.load_full();
        Exit(Rc::new(Inner {
            side,
            resolver: Resolver::new(current.resolv_conf.clone(), current.dns.clone(), shard),
            settings: RefCell::new(current),
            shared: settings,
            slots: RefCell::default(),
            scratch: RefCell::new(vec![0; limits::STREAM_WRITE_CHUNK].into()),
            flush_time: limits::STREAM_FLUSH_TIME,
            half_closed_idle: limits::HALF_CLOSED_IDLE,
            connect_metrics: ConnectMetrics::new(shard),
            stream_metrics: StreamMetrics::new(shard),
        }))
    }

    /// Takes an event; gives back one that is not about a stream to the outside.
    pub fn handle(&self, event: StreamEvent) -> Option<StreamEvent> {
        match event {
            StreamEvent::Begin { at, host, port, flags } => self.start(at, |exit, slot| {
                exit.0.side.clone().spawn(async move { exit.begin(at, &slot, host, port, flags).await });
            }),
            StreamEvent::Resolve { at, lookup } => self.start(at, |exit, slot| {
                exit.0.side.clone().spawn(async move { exit.resolve(at, &slot, lookup).await });
            }),
            StreamEvent::Readable(at) | StreamEvent::Writable(at) => match self.slot(at) {
                Some(slot) => slot.wake(),
                None => return Some(event),
            },
            StreamEvent::Finished(at) => match self.slot(at) {
                Some(slot) => slot.finish(),
                None => return Some(event),
            },
            StreamEvent::Closed { at, reason } => match self.0.slots.borrow_mut().remove(&at) {
                // Only now may the client use the stream id again: the task knows its slot, not the id.
                Some(slot) => slot.close(reason.is_some()),
                None => return Some(event),
            },
            StreamEvent::BeginDir { .. } => return Some(event),
        }
        None
    }

    /// Takes an event on a relay that is no directory.
    fn handle_alone(&self, event: StreamEvent) {
        if let Some(StreamEvent::BeginDir { at }) = self.handle(event) {
            self.0.side.end(at, &EndReason::NotDirectory.into());
        }
    }

    /// Streams and lookups under way.
    pub fn streams(&self) -> usize {
        self.0.slots.borrow().len()
    }

    fn slot(&self, at: StreamRef) -> Option<Rc<Slot>> {
        self.0.slots.borrow().get(&at).cloned()
    }

    fn start(&self, at: StreamRef, spawn: impl FnOnce(Exit<S>, Rc<Slot>)) {
        let slot = Rc::new(Slot::default());
        // What is over the limit is refused by the task itself, which finds its slot missing.
        if self.streams() < limits::EXIT_STREAMS {
            self.0.slots.borrow_mut().insert(at, Rc::clone(&slot));
        }
        spawn(self.clone(), slot);
    }

    /// The settings in force.
    fn settings(&self) -> Arc<ExitSettings> {
        let latest = self.0.shared.load_full();
        let previous = self.0.settings.replace(Arc::clone(&latest));
        if !Arc::ptr_eq(&previous, &latest) {
            self.0.resolver.reconfigure(latest.resolv_conf.clone(), latest.dns.clone());
        }
        latest
    }

    async fn begin(&self, at: StreamRef, slot: &Rc<Slot>, host: event::Host, port: u16, flags: BeginFlags) {
        let found = match self.is_current(at, slot) {
            true => or(async { Some(self.open(&host, port, flags).await) }, slot.closed()).await,
            false => Some(Err(EndReason::ResourceLimit.into())),
        };
        let end = match found {
            Some(Ok((connection, target, ttl))) => {
                self.0.side.connected(at, &Connected { addr: Some((target.ip(), ttl)) });
                let _open = self.0.stream_metrics.opened(target);
                self.carry(at, slot, connection).await.into()
            }
            Some(Err(end)) => end,
            // The client no longer waits.
            None => EndReason::Done.into(),
        };
        self.forget(at, slot);
        self.0.side.end(at, &end);
    }

    /// From a destination as the client named it to a connection, its address and the address's time to live.
    async fn open(
        &self,
        host: &event::Host,
        port: u16,
        flags: BeginFlags,
    ) -> Result<(TcpStream, SocketAddr, u32), End> {
        let settings = self.settings();
        let begin = match host {
            event::Host::Name(name) => Begin { host: Host::Name(name), port, flags },
            event::Host::Address(ip) => Begin { host: Host::Addr(*ip), port, flags },
        };
        let (targets, ttl) = match (settings.rules.plan(&begin)?, host) {
            (Plan::Resolve(families), event::Host::Name(name)) => {
                let found = self.0.resolver.addresses(name, families).await.map_err(end_of_lookup)?;
                // The rules may have changed while the name server took its time.
                (self.settings().rules.choose(&begin, &found)?, TTL_LOOKED_UP)
            }
            (Plan::Resolve(_), event::Host::Address(_)) => return Err(EndReason::Internal.into()),
            (Plan::Connect(targets), _) => (targets, TTL_LITERAL),
        };
        let (connection, target) =
            connect_first(&targets, &settings.outbound, &self.0.side, &self.0.connect_metrics).await?;
        Ok((connection, target, ttl))
    }

    async fn resolve(&self, at: StreamRef, slot: &Rc<Slot>, lookup: Lookup) {
        let answers = match self.is_current(at, slot) {
            true => or(async { Some(self.look_up(&lookup).await) }, slot.closed()).await,
            false => Some(vec![ResolvedValue::TransientError]),
        };
        self.forget(at, slot);
        if let Some(answers) = answers {
            let answers = answers.into_iter().map(|value| (value, TTL_LOOKED_UP)).collect();
            self.0.side.resolved(at, &Resolved { answers });
        }
    }

    async fn look_up(&self, lookup: &Lookup) -> Vec<ResolvedValue> {
        let settings = self.settings();
        let found = match lookup {
            Lookup::Name(name) => match settings.rules.resolvable_families() {
                Some(families) => self
                    .0
                    .resolver
                    .addresses(name, families)
                    .await
                    .map(|found| found.into_iter().map(ResolvedValue::Addr).collect()),
                None => return vec![ResolvedValue::PermanentError],
            },
            Lookup::Reverse(ip) if settings.rules.may_name(*ip) => {
                self.0.resolver.reverse(*ip).await.map(|name| vec![ResolvedValue::Name(name)])
            }
            Lookup::Reverse(_) => return vec![ResolvedValue::PermanentError],
        };
        found.unwrap_or_else(|error| match error.is_permanent() {
            true => vec![ResolvedValue::PermanentError],
            false => vec![ResolvedValue::TransientError],
        })
    }

    fn is_current(&self, at: StreamRef, slot: &Rc<Slot>) -> bool {
        self.0.slots.borrow().get(&at).is_some_and(|current| Rc::ptr_eq(current, slot))
    }

    /// The task of `slot` is over. A new stream may have the same id already.
    fn forget(&self, at: StreamRef, slot: &Rc<Slot>) {
        if self.is_current(at, slot) {
            self.0.slots.borrow_mut().remove(&at);
        }
    }
}
