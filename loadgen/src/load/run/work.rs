//! What each lane is to do: the settings of a measurement, divided among its lanes.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::Sender;

use onionring_proto::relay_msg::MAX_DATA_LEN;

use crate::load::board::Board;
use crate::load::error::{LoadError, own};
use crate::load::exit::{self, Exit};
use crate::load::flood::{Creates, Junk};
use crate::load::hop;
use crate::load::lane::{self, Core};
use crate::load::latencies::Latencies;
use crate::load::public_key::{Connects, Handshakes};
use crate::load::server::Server;
use crate::load::settings::{Scenario, Settings};
use crate::load::subject::Subject;
use crate::load::traffic::{Plan, Traffic};

const MIB: f64 = 1_048_576.0;
/// Last byte of the first of several addresses of a flood: nobody else in the relay's block has these.
const FIRST_SOURCE: u8 = 120;

/// A lane that has not begun.
pub(super) struct Work {
    core: Core,
    task: Task,
}

enum Task {
    Traffic(Plan),
    Handshakes(Box<Handshakes>),
    Connects(Connects),
    Exit(Box<Exit>),
    Junk(Box<Junk>),
    Creates(Box<Creates>),
}

impl Work {
    pub(super) fn run(mut self, board: &Board, latencies: &Sender<Latencies>) -> Result<(), LoadError> {
        match self.task {
            Task::Traffic(plan) => lane::run(&mut self.core, &mut Traffic::new(plan), board, latencies),
            Task::Handshakes(mut job) => lane::run(&mut self.core, &mut *job, board, latencies),
            Task::Connects(mut job) => lane::run(&mut self.core, &mut job, board, latencies),
            Task::Exit(mut job) => lane::run(&mut self.core, &mut *job, board, latencies),
            Task::Junk(mut job) => lane::run(&mut self.core, &mut *job, board, latencies),
            Task::Creates(mut job) => lane::run(&mut self.core, &mut *job, board, latencies),
        }
    }
}

/// The lanes, whose relays listen already.
pub(super) fn split(
    subject: &Subject,
    settings: &Settings,
    listen: Option<IpAddr>,
) -> Result<Vec<Work>, LoadError> {
    raise_file_limit();
    let lanes = settings.threads.min(settings.links).max(1) as usize;
    let share = |n: u32, lane: usize| (n as usize + lanes - 1 - lane) / lanes;
    // Every lane has at least one relay of its own, and one more for probes.
    let hops = |lane| share(settings.next_hops, lane).max(1);
    let wants_hops = !matches!(settings.scenario, Scenario::Handshake | Scenario::Connect | Scenario::Exit);
    let identities = if wants_hops { (0..lanes).map(|lane| hops(lane) + 1).sum() } else { 0 };
    let mut identities = hop::identities(identities)?.into_iter();
    let listen = listen.map_or_else(|| facing(subject.aim.address), Ok)?;
    let lane = |lane: usize| {
        let mut core = Core::new(subject.aim)?;
        let own_hops: Vec<_> = identities.by_ref().take(hops(lane) + 1).collect();
        core.listen(listen, &own_hops)?;
        if settings.scenario == Scenario::Exit {
            core.identity = hop::identities(1)?.first().map(|hop| hop.identity.clone());
        }
        let links = share(settings.links, lane);
        Ok(Work { core, task: task(subject, settings, listen, links, hops(lane), lanes)? })
    };
    let mut lanes: Vec<Work> = (0..lanes).map(lane).collect::<Result<_, LoadError>>()?;
    if settings.scenario == Scenario::Flood {
        let keys = subject.keys.clone().map_err(LoadError::NoDescriptor)?;
        let sources = sources(subject.aim.address, settings.flood_sources)?;
        let junk = Junk::new(keys, settings.flood_links as usize, sources, settings.flood_rate);
        for task in [Task::Junk(Box::new(junk)), Task::Creates(Box::new(Creates::new(keys)))] {
            lanes.push(Work { core: Core::new(subject.aim)?, task });
        }
    }
    Ok(lanes)
}

fn task(
    subject: &Subject,
    settings: &Settings,
    listen: IpAddr,
    links: usize,
    hops: usize,
    lanes: usize,
) -> Result<Task, LoadError> {
    let circuits = settings.circuits as usize;
    let keys = || subject.keys.clone().map_err(LoadError::NoDescriptor);
    let lane_rate = |rate: f64| rate * links as f64 / f64::from(settings.links);
    let plan = Plan {
        links,
        circuits,
        probe_circuits: 0,
        probe_rate: 0.0,
        hops,
        bulk: Some(settings.direction),
        bulk_rate: settings.bulk_rate.map(|mib| lane_rate(mib * MIB / MAX_DATA_LEN as f64)),
        window: settings.window,
    };
    Ok(match settings.scenario {
        Scenario::Bulk | Scenario::Flood => Task::Traffic(plan),
        Scenario::Idle => Task::Traffic(Plan { bulk: None, bulk_rate: None, ..plan }),
        Scenario::Interactive => Task::Traffic(Plan {
            circuits: if settings.beside_bulk { circuits } else { 0 },
            bulk: settings.beside_bulk.then_some(settings.direction),
            probe_circuits: 1,
            probe_rate: settings.rate / lanes as f64,
            ..plan
        }),
        Scenario::Handshake => {
            Task::Handshakes(Box::new(Handshakes::new(keys()?, settings.handshake, links, circuits)))
        }
        Scenario::Connect => Task::Connects(Connects::new(links)),
        Scenario::Exit => {
            let (direction, bytes) = (settings.direction, (settings.size * MIB) as u64);
            let server = Server::start(listen, direction, bytes)?;
            let (keys, streams) = (keys()?, settings.streams as usize);
            Task::Exit(Box::new(Exit::new(exit::Plan {
                keys,
                links,
                circuits,
                streams,
                bytes,
                direction,
                server,
            })))
        }
        Scenario::Paper2004 => unreachable!("it has a run of its own"),
    })
}

/// Addresses that a flood comes from: none in particular, or several next to that of a relay on loopback.
fn sources(address: SocketAddr, count: u32) -> Result<Vec<IpAddr>, LoadError> {
    match address.ip() {
        _ if count == 1 => Ok(Vec::new()),
        IpAddr::V4(relay) if relay.is_loopback() => {
            let [a, b, c, _] = relay.octets();
            Ok((0..count).map(|n| IpAddr::from([a, b, c, FIRST_SOURCE + n as u8])).collect())
        }
        _ => Err(LoadError::Sources { sources: count, address }),
    }
}

/// The address of ours that faces `peer`, so that it can reach us there.
fn facing(peer: SocketAddr) -> Result<IpAddr, LoadError> {
    let doing = "finding the address that faces the relay";
    let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    // Nothing is sent: this only looks the route up.
    let socket = UdpSocket::bind(any).map_err(own(doing))?;
    socket.connect(peer).map_err(own(doing))?;
    Ok(socket.local_addr().map_err(own(doing))?.ip())
}

/// Every link is an open file, and the default limit is 1,024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, opening a socket says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
