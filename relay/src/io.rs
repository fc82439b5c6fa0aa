//! The shards on glommio: threads, sockets, rings and timers around [`crate::engine`].
//!
//! [`start`] makes one thread per shard, each with an executor, an engine, and a listener for every address. On a
//! shard run
//!
//! - one task per link (`link`): ciphertext in, cells through the engine, and out again what the engine chooses;
//! - the pump (`shard::pump`): whatever the engine asks for, batches from and to other shards, timers, control messages;
//! - TLS handshakes (`connect`) and the engine's public-key work, in a task queue that gets little time while there
//!   are cells to move;
//! - what the [`shard::StreamHandler`] starts for streams that end here.
//!
//! Link tasks and the pump alternate: what was read from many links in one turn of the executor crosses to other
//! shards in one batch, and is queued before the first link writes. So batches grow with the load by themselves, and
//! with little load `pace` sees to it that they are not too small.

pub mod bell;
pub mod check;
mod connect;
pub mod control;
mod link;
pub mod mesh;
pub mod net;
mod pace;
pub mod rate;
mod ready;
pub mod shard;
pub mod socket;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{self, Receiver, Sender};
use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};
use onionring_node::tls::{Acceptor, Connector};
use onionring_proto::time::Mono;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use thiserror::Error;

use crate::engine::Engine;
use crate::engine::ids::{HomeRule, ShardIndex};
use crate::engine::snapshot::Snapshot;
use crate::limits;
use bell::Bell;
use control::{Control, ShardHandle};
use net::OutboundAddresses;
use ready::Sources;
use shard::{Shard, StreamHandler};

/// What the shards are made of, settled for their life.
pub struct Setup {
    /// How many shards, at least 1.
    pub shards: u16,
    /// Whether each shard may be kept on a core of its own; it is, if there are as many shards as cores.
    pub pin: bool,
    /// The listeners of [`net::listen`], one list for each address and in it one for each shard.
    pub listeners: Vec<Vec<std::net::TcpListener>>,
    /// Where outbound connections come from.
    pub outbound: OutboundAddresses,
    /// Memory for cells that wait to be sent, all shards together, in bytes.
    pub queue_bytes: usize,
    /// Keys, parameters and knowledge of the network to begin with.
    pub snapshot: Arc<Snapshot>,
    /// Shows the certificate that `snapshot.link_identity` was made for.
    pub acceptor: Acceptor,
    /// For links that this relay opens.
    pub connector: Connector,
}

/// Why the shards did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An executor could not be made, though [`check::io_uring`] found nothing missing.
    #[error("a shard's executor does not start: {0}")]
    Executor(#[from] GlommioError<()>),
    /// The system has no descriptor or memory left for what a shard waits with.
    #[error("no means to wait for sockets: {0}; if too many files are open, raise LimitNOFILE")]
    Wait(io::Error),
    /// A shard ended without an error.
    #[error("a shard ended before all had started")]
    Ended,
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// The running shards.
pub struct Shards {
    handles: Vec<ShardHandle>,
    threads: Vec<ExecutorJoinHandle<()>>,
    ended: Receiver<ShardIndex>,
    clock: ShardClock,
}

/// The clock that all shards share, because what they share is timed by it.
#[derive(Clone, Copy, Debug)]
struct ShardClock(Instant);

impl ShardClock {
    fn now(self) -> Mono {
        Mono(self.0.elapsed().as_micros() as u64)
    }
}

/// Reports the end of a shard's thread, also when it panics.
struct End(ShardIndex, Sender<ShardIndex>);

impl Drop for End {
    fn drop(&mut self) {
        // Nobody may be listening any more.
        let _ = self.1.send(self.0);
    }
}

/// Starts the shards. `streams` is called once on each shard's thread, and makes what serves its streams.
pub fn start<F>(mut setup: Setup, streams: F) -> Result<Shards, StartError>
where
    F: Fn(&Rc<Shard>) -> Box<dyn StreamHandler> + Send + Sync + 'static,
{
    let shards = usize::from(setup.shards);
    let streams = Arc::new(streams);
    let mut rng =
        ChaCha20Rng::try_from_rng(&mut rand::rngs::SysRng).map_err(|e| StartError::Random(e.to_string()))?;
    let mut key = [0; 16];
    rng.fill_bytes(&mut key);
    let homes = HomeRule::new(key, setup.shards);
    let cores = match core_affinity::get_core_ids() {
        Some(cores) if setup.pin => own_cores(cores, shards),
        _ => Vec::new(),
    };

    let bells: Vec<_> = (0..shards).map(|_| Arc::new(Bell::default())).collect();
    let (ready, started) = channel::bounded(shards);
    let (end, ended) = channel::bounded(shards);
    let clock = ShardClock(Instant::now());
    let mut running = Shards { handles: Vec::new(), threads: Vec::new(), ended, clock };
    for port in mesh::mesh(&bells, limits::CROSSING_RING) {
        let index = port.me();
        let sources = Sources::new(&bells[index]).map_err(StartError::Wait)?;
        let (handle, mailbox) = control::mailbox(bells[index].clone());
        let core = cores.get(index).copied();
        let listeners = setup.listeners.iter_mut().filter_map(|address| address.pop()).collect();
        let me = ShardIndex(index as u16);
        let (homes, snapshot) = (homes.clone(), setup.snapshot.clone());
        let (engine_rng, driver_rng) = (ChaCha20Rng::from_rng(&mut rng), ChaCha20Rng::from_rng(&mut rng));
        let queue_bytes = setup.queue_bytes / shards;
        let (acceptor, connector, outbound) =
            (setup.acceptor.clone(), setup.connector.clone(), setup.outbound);
        let (streams, ready) = (streams.clone(), ready.clone());
        let end = End(me, end.clone());
        let run = move || {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            let engine = Engine::new(me, homes, snapshot, queue_bytes, engine_rng);
            let shard = Shard::new(engine, clock, sources, acceptor, connector, outbound, driver_rng);
            let handler = streams(&shard);
            let _ = ready.send(());
            async move {
                shard.run(port, mailbox, listeners, handler).await;
                drop(end);
            }
        };
        let thread = LocalExecutorBuilder::new(Placement::Unbound)
            .name(&format!("shard{index}"))
            .io_memory(0)
            .ring_depth(limits::RING_DEPTH)
            .preempt_timer(limits::RING_INTERVAL_BUSY)
            .spawn(run)?;
        running.handles.push(handle);
        running.threads.push(thread);
    }
    drop(ready);
    if started.iter().take(shards).count() < shards {
        running.stop();
        return running.join().and(Err(StartError::Ended));
    }
    Ok(running)
}

/// The cores to keep shards on, one each, out of those that this process may use: all of them or none.
///
/// With fewer shards than cores, another instance may be on the same machine, and would choose the same ones: then the
/// kernel places the threads better. An operator who wants them fixed gives each instance a mask of its own
/// (`CPUAffinity=`, `taskset`), of as many cores as it has shards.
fn own_cores<C>(cores: Vec<C>, shards: usize) -> Vec<C> {
    if cores.len() == shards { cores } else { Vec::new() }
}

impl Shards {
    /// How to speak to each shard.
    pub fn handles(&self) -> &[ShardHandle] {
        &self.handles
    }

    /// The time now, on the clock of the shards.
    pub fn now(&self) -> Mono {
        self.clock.now()
    }

    /// Names each shard when its thread ends. One that ends before [`stop`](Self::stop) has panicked: its circuits are
    /// lost, and the relay cannot go on without it.
    pub fn ended(&self) -> &Receiver<ShardIndex> {
        &self.ended
    }

    /// Puts a new snapshot in force, with the TLS side that its link identity was made for.
    pub fn set_snapshot(&self, snapshot: &Arc<Snapshot>, acceptor: &Acceptor) {
        for handle in &self.handles {
            handle.send(Control::Snapshot(snapshot.clone(), acceptor.clone()));
        }
    }

    /// Divides this memory for waiting cells among the shards from now on.
    pub fn set_queue_bytes(&self, bytes: usize) {
        for handle in &self.handles {
            handle.send(Control::QueueBytes(bytes / self.handles.len()));
        }
    }

    /// Has every shard accept no more links and circuits; what there is lives on.
    pub fn drain(&self) {
        for handle in &self.handles {
            handle.send(Control::Drain);
        }
    }

    /// Has every shard close its links and end.
    pub fn stop(&self) {
        for handle in &self.handles {
            handle.send(Control::Stop);
        }
    }

    /// Waits for the end of all shards. The error is that of the first that failed.
    pub fn join(self) -> Result<(), StartError> {
        let ends: Vec<_> = self.threads.into_iter().map(ExecutorJoinHandle::join).collect();
        ends.into_iter().collect::<Result<(), _>>().map_err(StartError::Executor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_kept_on_cores_only_where_they_take_all_of_them() {
        assert_eq!(own_cores(vec![4, 5], 2), [4, 5]);
        // Two such instances on one machine would both be on core 0.
        assert_eq!(own_cores(vec![0, 1], 1), [0; 0]);
        assert_eq!(own_cores(vec![0, 1], 3), [0; 0]);
    }
}
