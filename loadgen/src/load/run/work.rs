//! What each lane is to do: the settings of a measurement, divided among its lanes.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::Sender;

use hdrhistogram::Histogram;

use crate::load::board::Board;
use crate::load::error::{LoadError, own};
use crate::load::hop;
use crate::load::lane::{self, Core};
use crate::load::public_key::{Connects, Handshakes};
use crate::load::settings::{Scenario, Settings};
use crate::load::subject::Subject;
use crate::load::traffic::{Plan, Traffic};

/// A lane that has not begun.
pub(super) struct Work {
    core: Core,
    task: Task,
}

enum Task {
    Traffic(Plan),
    Handshakes(Box<Handshakes>),
    Connects(Connects),
}

impl Work {
    pub(super) fn run(mut self, board: &Board, latencies: &Sender<Histogram<u64>>) -> Result<(), LoadError> {
        match self.task {
            Task::Traffic(plan) => lane::run(&mut self.core, &mut Traffic::new(plan), board, latencies),
            Task::Handshakes(mut job) => lane::run(&mut self.core, &mut *job, board, latencies),
            Task::Connects(mut job) => lane::run(&mut self.core, &mut job, board, latencies),
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
    let wants_hops = !matches!(settings.scenario, Scenario::Handshake | Scenario::Connect);
    let identities = if wants_hops { (0..lanes).map(|lane| hops(lane) + 1).sum() } else { 0 };
    let mut identities = hop::identities(identities)?.into_iter();
    let listen = listen.map_or_else(|| facing(subject.aim.address), Ok)?;
    let lane = |lane: usize| {
        let mut core = Core::new(subject.aim)?;
        let own_hops: Vec<_> = identities.by_ref().take(hops(lane) + 1).collect();
        core.listen(listen, &own_hops)?;
        let links = share(settings.links, lane);
        Ok(Work { core, task: task(subject, settings, links, hops(lane), lanes)? })
    };
    (0..lanes).map(lane).collect()
}

fn task(
    subject: &Subject,
    settings: &Settings,
    links: usize,
    hops: usize,
    lanes: usize,
) -> Result<Task, LoadError> {
    let circuits = settings.circuits as usize;
    let plan = Plan {
        links,
        circuits,
        probe_circuits: 0,
        probe_rate: 0.0,
        hops,
        bulk: Some(settings.direction),
        window: settings.window,
    };
    Ok(match settings.scenario {
        Scenario::Bulk => Task::Traffic(plan),
        Scenario::Idle => Task::Traffic(Plan { bulk: None, ..plan }),
        Scenario::Interactive => Task::Traffic(Plan {
            circuits: if settings.beside_bulk { circuits } else { 0 },
            bulk: settings.beside_bulk.then_some(settings.direction),
            probe_circuits: 1,
            probe_rate: f64::from(settings.rate) / lanes as f64,
            ..plan
        }),
        Scenario::Handshake => {
            let keys = subject.keys.clone().map_err(LoadError::NoDescriptor)?;
            Task::Handshakes(Box::new(Handshakes::new(keys, settings.handshake, links, circuits)))
        }
        Scenario::Connect => Task::Connects(Connects::new(links)),
    })
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
