//! Building one circuit: link, first hop, and the others one after the other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use onionring_node::link::{Circuit, CircuitError, ConnectError, Link, LinkFailure};
use onionring_proto::build_times::MEASURED_HOPS;
use onionring_proto::netdoc::params::{CIRCWINDOW, ConsensusParams, SENDME_ACCEPT_MIN_VERSION};
use onionring_proto::origin::{CloseReason, FirstHop, HopTarget, OriginConfig, Violation};
use onionring_proto::path;
use rustix::io::Errno;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

use super::Circuits;
use super::plan::Plan;
use super::table::Number;
use crate::guards::{Attempt, Step};
use crate::memory::lock;
use crate::tallies::CircuitTally;

/// Why a circuit was not built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The guard cannot be reached.
    #[error(transparent)]
    Link(#[from] Arc<ConnectError>),
    /// A relay did not do its part.
    #[error(transparent)]
    Circuit(#[from] CircuitError),
    /// It has no address that is used here.
    #[error("the guard has no address of a family that is used here")]
    NoAddress,
    /// It took longer than circuits do.
    #[error("it took longer than {} ms", .0.as_millis())]
    Slow(Duration),
    /// A better guard works.
    #[error("a better guard works")]
    BetterGuard,
}

impl BuildError {
    /// What it is counted as.
    pub fn tally(&self) -> &'static str {
        match self {
            BuildError::Link(_) | BuildError::NoAddress => CircuitTally::CONNECT,
            BuildError::Slow(_) => CircuitTally::TIMEOUT,
            BuildError::BetterGuard => CircuitTally::GUARD,
            BuildError::Circuit(error) => match error {
                CircuitError::Closed(CloseReason::Handshake { .. } | CloseReason::Violation(_)) => {
                    CircuitTally::PROTOCOL
                }
                CircuitError::Closed(CloseReason::Timeout { .. }) | CircuitError::Timeout(_) => {
                    CircuitTally::TIMEOUT
                }
                CircuitError::Link(_) => CircuitTally::CONNECT,
                _ => CircuitTally::DESTROYED,
            },
        }
    }
}

/// A circuit that is built, and the use that it makes of its guard.
pub struct Built {
    /// The circuit.
    pub circuit: Circuit,
    /// Circuits through worse guards wait while it is there.
    guard: Option<Arc<Attempt>>,
}

impl Built {
    /// Something has happened to it, by which its guard is judged.
    pub fn note(&self, step: Step) {
        if let Some(guard) = &self.guard {
            guard.note(step);
        }
    }

    /// Whether it was used, still stands, and it is not known that it carries anything.
    pub fn is_in_doubt(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.is_in_doubt()) && self.circuit.failure().is_none()
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        let by_others = self.circuit.failure().is_some();
        self.note(Step::Closed { by_others });
    }
}

/// Builds the planned circuit.
pub(super) async fn build(
    circuits: &Circuits,
    number: Number,
    plan: Plan,
    network: &path::Network,
) -> Result<Built, BuildError> {
    let Plan { targets, guard, .. } = plan;
    let guard = guard.map(Arc::new);
    let place = targets.first().and_then(|first| circuits.place(first)).ok_or(BuildError::NoAddress)?;
    let link = circuits.links.get(&place).await.inspect_err(|error| {
        if is_peers_fault(&error.failure) {
            blame(guard.as_deref());
        }
    })?;
    let (usable, close) = {
        let mut times = lock(&circuits.memory.times);
        times.launched(circuits.mono());
        let usable = times.timeout(targets.len());
        (usable, times.close_after().max(usable))
    };
    // What was learned on another line may be too short on this one: with no circuit at all, any will do.
    let usable = if circuits.has_open() { usable } else { close };
    let keep_early = !lock(&circuits.settings).rules.worn_time.is_zero();
    let config = config(&network.consensus().params, close, keep_early);
    let (begun, began) = (Instant::now(), circuits.mono());
    let done = AtomicUsize::new(0);
    let watched = guard.clone();
    let hops = build_hops(&link, &targets, config, |hops| {
        done.store(hops, Relaxed);
        note_hop(watched.as_deref(), hops, targets.len());
        let mut times = lock(&circuits.memory.times);
        times.network_seen(circuits.mono());
        if hops == MEASURED_HOPS {
            times.built(begun.elapsed(), begun.elapsed() > usable);
            circuits.tallies.circuits.build_times.record(begun.elapsed());
        }
    });
    tokio::pin!(hops);
    let circuit = tokio::select! {
        built = &mut hops => built.inspect_err(|error| {
            if (done.load(Relaxed) == 0 && is_guards_fault(error)) || is_only_guards_fault(error) {
                blame(guard.as_deref());
            }
        })?,
        () = sleep(usable) => {
            // Others need not wait for it.
            circuits.forget(number);
            circuits.failed();
            if let Some(guard) = &guard {
                guard.note(Step::TimedOut);
            }
            if done.load(Relaxed) < MEASURED_HOPS {
                lock(&circuits.memory.times).timed_out(done.load(Relaxed) > 0);
            }
            // Not even the guard has answered: on this link none will. Only the first to see it blames the guard, since the
            // connection may just have been forgotten on the way.
            if done.load(Relaxed) == 0 && circuits.links.give_up(&place, &link) {
                blame(guard.as_deref());
            }
            // How long it takes is still worth knowing, if not too many are watched for that.
            if let Ok(_place) = circuits.late.try_acquire() {
                let late = timeout(close.saturating_sub(usable), hops).await;
                if late.is_err() && done.load(Relaxed) < MEASURED_HOPS {
                    lock(&circuits.memory.times).closed(began);
                }
            }
            return Err(BuildError::Slow(usable));
        }
    };
    let built = Built { circuit, guard };
    let Some(attempt) = &built.guard else { return Ok(built) };
    circuits.wait_for_guards(number);
    match attempt.succeeded().await {
        true => Ok(built),
        false => Err(BuildError::BetterGuard),
    }
}

/// A circuit has `hops` of `all` its hops: what its guard had to do with that.
fn note_hop(guard: Option<&Attempt>, hops: usize, all: usize) {
    let Some(guard) = guard else { return };
    if hops == 2 {
        guard.note(Step::SecondHop);
    }
    if hops == all {
        guard.note(Step::Built);
    }
}

/// Whether a link that could not be opened speaks against the relay, and not against this machine.
fn is_peers_fault(failure: &LinkFailure) -> bool {
    // No files, buffers or ports left, or forbidden: another relay would not be reached either.
    match failure {
        LinkFailure::Connection(error) => match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::OutOfMemory => false,
            _ => !matches!(
                error.raw_os_error().map(Errno::from_raw_os_error),
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS)
            ),
        },
        LinkFailure::Closed => false,
        _ => true,
    }
}

/// Whether the first hop itself did wrong. That it destroys the circuit may be because others overload it.
fn is_guards_fault(error: &CircuitError) -> bool {
    match error {
        CircuitError::Closed(reason) => !matches!(reason, CloseReason::Destroyed(_)),
        CircuitError::Link(failure) => is_peers_fault(failure),
        CircuitError::Timeout(_) => true,
        _ => false,
    }
}

/// Whether nobody but the first hop can have done it, however far the circuit was: it alone says what comes on the link, and
/// what is said in its name.
fn is_only_guards_fault(error: &CircuitError) -> bool {
    match error {
        CircuitError::Closed(CloseReason::Violation(violation)) => match violation {
            Violation::Cell(_) | Violation::Message { hop: 0, .. } => true,
            Violation::StreamMessage { stream, .. } => stream.hop == 0,
            _ => false,
        },
        _ => false,
    }
}

/// The guard did not do its part.
fn blame(guard: Option<&Attempt>) {
    guard.into_iter().for_each(Attempt::failed);
}

/// Builds hop after hop, and says so of each.
async fn build_hops(
    link: &Link,
    targets: &[HopTarget],
    config: OriginConfig,
    mut done: impl FnMut(usize),
) -> Result<Circuit, CircuitError> {
    let Some((first, others)) = targets.split_first() else { return Err(CircuitError::Dropped) };
    let circuit = link.create(FirstHop::Relay(first), config).await?;
    done(1);
    for target in others {
        circuit.extend(target).await?;
        done(circuit.hops());
    }
    Ok(circuit)
}

/// Puts another exit in place of a circuit's last hop.
pub(super) async fn recut(
    circuits: &Circuits,
    circuit: &Circuit,
    exit: &HopTarget,
) -> Result<(), BuildError> {
    let limit = lock(&circuits.memory.times).timeout(MEASURED_HOPS);
    let last = circuit.hops().saturating_sub(2);
    circuit.truncate(last, limit).await?;
    circuit.extend(exit).await?;
    Ok(())
}

/// How circuits behave in a network with these parameters.
fn config(params: &ConsensusParams, hop_timeout: Duration, keep_early: bool) -> OriginConfig {
    OriginConfig {
        circwindow: u16::try_from(params.get(&CIRCWINDOW)).unwrap_or(onionring_proto::flow::CIRCUIT_WINDOW),
        accept_v0_sendmes: params.get(&SENDME_ACCEPT_MIN_VERSION) == 0,
        // Circuits that are extended later need what is left of RELAY_EARLY then.
        early_data: !keep_early,
        hop_timeout,
        ..OriginConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use onionring_proto::cell::{Command, DestroyReason};
    use onionring_proto::origin::StreamKey;
    use onionring_proto::relay_msg::{RelayCmd, StreamId};

    use super::*;

    #[test]
    fn guards_are_blamed_for_what_nobody_else_can_do() {
        let violated = |violation: Violation| CircuitError::Closed(violation.into());
        let says = |hop| violated(Violation::Message { hop, cmd: RelayCmd::EXTENDED2 });
        let of_stream = |hop| {
            let stream = StreamKey { hop, id: StreamId(1) };
            violated(Violation::StreamMessage { stream, cmd: RelayCmd::DATA })
        };
        for guards in [says(0), of_stream(0), violated(Violation::Cell(Command::CREATED2))] {
            assert!(is_only_guards_fault(&guards), "{guards}");
        }
        let destroyed = CircuitError::Closed(CloseReason::Destroyed(DestroyReason::Protocol));
        for anybodys in [says(1), of_stream(2), violated(Violation::Unrecognised), destroyed] {
            assert!(!is_only_guards_fault(&anybodys), "{anybodys}");
        }
    }
}
