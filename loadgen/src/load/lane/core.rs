//! Everything of a lane but its job: poller, links, listeners, counters.

use std::mem;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onionring_node::tls::{Acceptor, Connector, TlsVersions};
use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, DestroyReason};
use onionring_proto::link::LinkIdentity;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Aim, explain};
use crate::load::board::{Counts, Stage};
use crate::load::error::{LoadError, own};
use crate::load::hop::{self, Hop};
use crate::load::latencies::Latencies;
use crate::load::link::Link;

/// Bytes read from a socket at once.
const READ_LEN: usize = 64 * 1024;
/// Connections that may wait to be accepted by one of our relays.
const BACKLOG: i32 = 1024;
/// Tokens from here on are listeners; those below are links.
pub(super) const LISTENERS: u64 = 1 << 32;
/// The token of the metronome.
pub(super) const METRONOME: u64 = 1 << 33;

/// See the [module](self).
pub(in crate::load) struct Core {
    pub(super) epoll: OwnedFd,
    pub(in crate::load) links: Slab<Link>,
    listeners: Vec<(TcpListener, Arc<Hop>)>,
    pub(super) aim: Aim,
    connector: Connector,
    acceptor: Option<Acceptor>,
    /// Who we say we are on client links; nobody, unless a relay must be told.
    pub(in crate::load) identity: Option<Arc<LinkIdentity>>,
    /// Links to be flushed in this turn.
    pub(super) dirty: Vec<usize>,
    metronome: Option<OwnedFd>,
    pub(super) ciphertext: Vec<u8>,
    pub(super) plaintext: Vec<u8>,
    pub(in crate::load) rng: StdRng,
    pub(in crate::load) counts: Counts,
    /// How far the measurement is to go.
    pub(in crate::load) goal: Stage,
    /// How far the job has come.
    pub(in crate::load) reached: Stage,
    pub(in crate::load) latencies: Latencies,
    /// When what is being handled was read.
    pub(in crate::load) now: Instant,
    /// The job has done what there was to do.
    pub(in crate::load) finished: bool,
}

impl Core {
    pub(in crate::load) fn new(aim: Aim) -> Result<Core, LoadError> {
        Ok(Core {
            epoll: epoll::create(CreateFlags::CLOEXEC).map_err(own("making a poller"))?,
            links: Slab::new(),
            listeners: Vec::new(),
            aim,
            connector: Connector::new(TlsVersions::Both).map_err(own("setting TLS up"))?,
            acceptor: None,
            identity: None,
            dirty: Vec::new(),
            metronome: None,
            ciphertext: vec![0; READ_LEN],
            plaintext: Vec::with_capacity(2 * READ_LEN),
            rng: StdRng::from_rng(&mut rand::rng()),
            counts: Counts::default(),
            goal: Stage::Start,
            reached: Stage::Start,
            latencies: Latencies::new(),
            now: Instant::now(),
            finished: false,
        })
    }

    /// Listens on `ip` as the given relays.
    pub(in crate::load) fn listen(&mut self, ip: IpAddr, hops: &[Arc<Hop>]) -> Result<(), LoadError> {
        let doing = "listening as the next relay (--listen says where)";
        if !hops.is_empty() {
            self.acceptor = Some(hop::acceptor()?);
        }
        for hop in hops {
            let address = SocketAddr::new(ip, 0);
            let socket = socket(address, doing)?;
            socket.bind(&address.into()).map_err(own(doing))?;
            socket.listen(BACKLOG).map_err(own(doing))?;
            let token = EventData::new_u64(LISTENERS + self.listeners.len() as u64);
            epoll::add(&self.epoll, &socket, token, EventFlags::IN).map_err(own(doing))?;
            self.listeners.push((socket.into(), hop.clone()));
        }
        Ok(())
    }

    /// Where and who our relay number `n` is.
    pub(in crate::load) fn hop(&self, n: usize) -> Result<(SocketAddr, &Hop), LoadError> {
        let (listener, hop) = &self.listeners[n];
        Ok((listener.local_addr().map_err(own("listening"))?, hop))
    }

    /// Wakes the lane every `interval` from now on.
    pub(in crate::load) fn beat(&mut self, interval: Duration) -> Result<(), LoadError> {
        let doing = "setting a timer";
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(own(doing))?;
        let every = timespec(interval);
        let setting = Itimerspec { it_interval: every, it_value: every };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &setting).map_err(own(doing))?;
        epoll::add(&self.epoll, &timer, EventData::new_u64(METRONOME), EventFlags::IN).map_err(own(doing))?;
        self.metronome = Some(timer);
        Ok(())
    }

    /// The metronome has beaten. How often does not matter: the job looks at the clock.
    pub(super) fn beaten(&self) {
        if let Some(timer) = &self.metronome {
            let _ = rustix::io::read(timer.as_fd(), &mut [0; 8]);
        }
    }

    /// Opens a link to the relay under test.
    pub(in crate::load) fn connect(&mut self) -> Result<usize, LoadError> {
        self.connect_from(None)
    }

    /// The same from an address of ours.
    pub(in crate::load) fn connect_from(&mut self, source: Option<IpAddr>) -> Result<usize, LoadError> {
        let Aim { address, expected } = self.aim;
        let socket = socket(address, "opening a socket (the limit of open files may be too low)")?;
        if let Some(source) = source {
            let bound = socket.bind(&SocketAddr::new(source, 0).into());
            bound.map_err(own("taking an address to send from"))?;
        }
        match socket.connect(&address.into()) {
            Err(source) if source.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(LoadError::Unreachable { address, source });
            }
            _ => {}
        }
        let link = Link::client(
            socket.into(),
            address,
            expected,
            self.identity.clone(),
            &self.connector,
            &mut self.rng,
        );
        self.add(link.map_err(|e| explain(e, address, None, false))?)
    }

    /// Takes all links that wait for our relay number `n`.
    pub(super) fn accept(&mut self, n: usize) -> Result<(), LoadError> {
        let doing = "accepting a link of the relay";
        loop {
            let (listener, hop) = &self.listeners[n];
            let (socket, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(own(doing)(e)),
            };
            socket.set_nonblocking(true).map_err(own(doing))?;
            let acceptor = self.acceptor.as_ref().expect("made before the first listener");
            let link = Link::accepted(socket, peer, hop.identity.clone(), n, acceptor);
            let address = self.aim.address;
            self.add(link.map_err(|e| explain(e, address, Some(n), false))?)?;
        }
    }

    fn add(&mut self, link: Link) -> Result<usize, LoadError> {
        let key = self.links.insert(link);
        epoll::add(&self.epoll, &self.links[key].socket, token(key), FLAGS)
            .map_err(own("polling a socket"))?;
        self.touch(key);
        Ok(key)
    }

    /// Has the poller tell of a link that was left with something to read: it reports changes only.
    pub(super) fn read_later(&mut self, link: usize) -> Result<(), LoadError> {
        let socket = &self.links[link].socket;
        epoll::modify(&self.epoll, socket, token(link), FLAGS).map_err(own("polling a socket"))
    }

    /// Ends a link in order.
    pub(in crate::load) fn close(&mut self, link: usize) {
        self.links.remove(link).close();
    }

    /// Has the link flushed and filled in this turn.
    pub(in crate::load) fn touch(&mut self, link: usize) {
        if let Some(l) = self.links.get_mut(link)
            && !mem::replace(&mut l.dirty, true)
        {
            self.dirty.push(link);
        }
    }

    /// Queues one cell.
    pub(in crate::load) fn send(&mut self, link: usize, circ: CircId, command: Command, body: &Body) {
        if let Some(l) = self.links.get_mut(link) {
            l.send(circ, command, body);
        }
        self.touch(link);
    }

    /// Queues DESTROY without a reason, which is how clients end a circuit.
    pub(in crate::load) fn destroy(&mut self, link: usize, circ: CircId) {
        let mut body = [0; BODY_LEN];
        body[0] = DestroyReason::None.to_wire();
        self.send(link, circ, Command::DESTROY, &body);
    }

    /// Seals cells for a link and gives them to its socket; returns whether it takes more. Only for
    /// [`Job::fill`](super::Job::fill).
    pub(in crate::load) fn put(&mut self, link: usize, cells: &[u8]) -> Result<bool, LoadError> {
        let address = self.aim.address;
        let l = &mut self.links[link];
        l.seal(cells).and_then(|()| l.flush()).map_err(|e| explain(e, address, l.hop, true))
    }
}

const FLAGS: EventFlags = EventFlags::IN.union(EventFlags::OUT).union(EventFlags::ET);

fn token(link: usize) -> EventData {
    EventData::new_u64(link as u64)
}

/// A TCP socket that does not block, and sends at once what it is given; accepted ones inherit that.
fn socket(address: SocketAddr, doing: &'static str) -> Result<Socket, LoadError> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
    let socket = socket.map_err(own(doing))?;
    socket.set_nonblocking(true).map_err(own(doing))?;
    socket.set_tcp_nodelay(true).map_err(own(doing))?;
    Ok(socket)
}

pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
