//! From a connection to a link: accepting, dialing, and the TLS handshake of both.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::future;
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::Timer;
use glommio::{Task, executor};
use onionring_node::tls::TlsStream;
use tracing::{debug, warn};

use super::link::{self, Connection, LinkFailure};
use super::net;
use super::shard::Shard;
use super::socket::Socket;
use crate::engine::dos::Admission;
use crate::engine::event::DialId;
use crate::engine::link::Origin;
use crate::engine::rate::{Direction, Traffic};
use crate::limits;

/// TLS handshakes of accepted connections that are under way. When there are too many, the oldest is given up: one
/// that takes long is more likely to be held up than to be slow.
#[derive(Default)]
pub(super) struct Handshakes {
    tasks: RefCell<BTreeMap<u64, Task<()>>>,
    started: Cell<u64>,
}

impl Handshakes {
    fn start(&self, task: impl FnOnce(u64) -> Task<()>, shard: &Shard) {
        let serial = self.started.get();
        self.started.set(serial + 1);
        let mut tasks = self.tasks.borrow_mut();
        if tasks.len() >= limits::TLS_HANDSHAKES {
            shard.count(|counters| counters.tls_shed += 1);
            // Dropping a task cancels it.
            tasks.pop_first();
        }
        tasks.insert(serial, task(serial));
    }

    fn done(&self, serial: u64) {
        if let Some(task) = self.tasks.borrow_mut().remove(&serial) {
            task.detach();
        }
    }

    /// Gives all of them up.
    pub(super) fn clear(&self) {
        self.tasks.borrow_mut().clear();
    }
}

/// Accepts connections until it is dropped.
pub(super) async fn accept(shard: Rc<Shard>, listener: TcpListener) {
    let mut warned: Option<Instant> = None;
    loop {
        match listener.shared_accept().await {
            Ok(accepted) => {
                let socket = accepted.bind_to_executor();
                // A connection that is gone already has no address, and needs no answer.
                let Ok(peer) = socket.peer_addr() else { continue };
                let Ok(admission) = shard.engine(|engine, now| engine.admit(now, peer.ip())) else {
                    // Closed without a word, as in C tor: whatever is said costs more than it cost to ask.
                    shard.count(|counters| counters.refused += 1);
                    continue;
                };
                shard.count(|counters| counters.accepted += 1);
                let task =
                    |serial| shard.spawn_background(respond(shard.clone(), serial, socket, peer, admission));
                shard.handshakes.start(task, &shard);
            }
            Err(error) => {
                shard.count(|counters| {
                    counters.accept_errors += 1;
                    counters.no_connection(error.raw_os_error());
                });
                if warned.is_none_or(|at| at.elapsed() > limits::WARN_INTERVAL) {
                    warned = Some(Instant::now());
                    warn!(
                        "cannot accept connections: {error}; if too many files are open, raise LimitNOFILE"
                    );
                }
                Timer::new(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The TLS handshake of an accepted connection, and the start of the link if it succeeds.
async fn respond(shard: Rc<Shard>, serial: u64, socket: TcpStream, peer: SocketAddr, admission: Admission) {
    let begun = Instant::now();
    let (acceptor, identity) = shard.responder();
    let socket = shard.socket(socket);
    let connection = async { shake(&shard, socket, acceptor.accept()?, peer).await };
    let result = within(limits::TLS_HANDSHAKE_TIMEOUT, connection).await;
    shard.handshakes.done(serial);
    shard.count(|counters| counters.tls_handshake(begun, &result));
    match result {
        Ok(connection) => {
            let origin = Origin::Accepted(identity);
            shard.spawn(link::run(shard.clone(), connection, origin, admission));
        }
        Err(failure) => debug!("TLS handshake with a peer that came to us: {failure}"),
    }
}

/// Opens a connection to the first of `addresses` that answers, and starts the link.
pub(super) async fn dial(shard: Rc<Shard>, dial: DialId, addresses: Vec<SocketAddr>) {
    let mut connection = None;
    for address in addresses {
        match initiate(&shard, address).await {
            Ok(opened) => {
                connection = Some(opened);
                break;
            }
            Err(failure) => debug!(dial = dial.0, "connection to a peer: {failure}"),
        }
    }
    // From here on there is nothing to give up.
    if let Some(task) = shard.dials.borrow_mut().remove(&dial) {
        task.detach();
    }
    match connection {
        Some(connection) => {
            let leaf = connection.tls.peer_certificate().unwrap_or_default().to_vec();
            let origin = Origin::Dialed(dial, leaf);
            shard.spawn(link::run(shard.clone(), connection, origin, Admission::uncounted()));
        }
        None => shard.engine(|engine, now| engine.dial_failed(now, dial)),
    }
}

async fn initiate(shard: &Rc<Shard>, address: SocketAddr) -> Result<Connection, LinkFailure> {
    let connect = async {
        let result = net::connect(address, &shard.outbound).await;
        if let Err(error) = &result {
            shard.count(|counters| counters.no_connection(error.raw_os_error()));
        }
        Ok(result?)
    };
    let socket = within(limits::CONNECT_TIMEOUT, connect).await?;
    let socket = shard.socket(socket);
    let begun = Instant::now();
    let tls = shard.connector.connect(&mut *shard.rng.borrow_mut())?;
    let result = within(limits::TLS_HANDSHAKE_TIMEOUT, shake(shard, socket, tls, address)).await;
    shard.count(|counters| counters.tls_handshake(begun, &result));
    result
}

/// Brings a TLS handshake to its end. Its bytes are charged to the bandwidth limits but wait for none: there are few, and
/// handshakes have a time limit.
async fn shake(
    shard: &Shard,
    mut socket: Socket,
    mut tls: TlsStream,
    peer: SocketAddr,
) -> Result<Connection, LinkFailure> {
    let charge = |direction, bytes: usize| {
        shard.charge_bandwidth(direction, Traffic::Relayed, peer.ip(), bytes as u64);
    };
    let mut early = Vec::new();
    let mut buf = vec![0; limits::TLS_HANDSHAKE_READ_BYTES];
    let mut failed = None;
    loop {
        while tls.wants_transmit() {
            let len = poll_fn(|cx| match tls.transmit(&mut socket.writer(cx)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                result => Poll::Ready(result),
            })
            .await?;
            charge(Direction::Write, len);
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        if !tls.is_handshaking() {
            return Ok(Connection { socket, tls, early, peer });
        }
        let len = poll_fn(|cx| socket.poll_read(cx, &mut buf)).await?;
        if len == 0 {
            return Err(LinkFailure::ClosedByPeer);
        }
        charge(Direction::Read, len);
        // Public-key work, after which cells come first. On failure the peer is still told why.
        failed = tls.open(&buf[..len], &mut early).err().map(LinkFailure::Tls);
        executor().yield_task_queue_now().await;
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, LinkFailure>>,
) -> Result<T, LinkFailure> {
    let too_late = async {
        Timer::new(limit).await;
        Err(LinkFailure::Timeout)
    };
    future::or(work, too_late).await
}
