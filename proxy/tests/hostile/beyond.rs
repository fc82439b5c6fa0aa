//! The hostile relay is reached through a guard that is honest.

use tokio::sync::Semaphore;

use crate::manners::{CIRCUIT, Manner, STREAM};
use crate::network::Role;
use crate::{run, trial};

/// Proxies at the same time, each of which meets its share of the manners.
const LANES: usize = 4;

fn meet(role: Role, manners: impl Iterator<Item = &'static Manner>) {
    let (alone, quick): (Vec<_>, Vec<_>) =
        manners.filter(|manner| manner.roles.contains(&role)).partition(|manner| manner.alone);
    let mut lanes = vec![Vec::new(); LANES];
    quick.into_iter().enumerate().for_each(|(n, manner)| lanes[n % LANES].push(manner));
    lanes.extend(alone.into_iter().map(|manner| vec![manner]));
    lanes.retain(|lane| !lane.is_empty());
    let lanes = lanes.into_iter().map(move |lane| trial::beyond(role, lane));
    run(trial::all(Semaphore::MAX_PERMITS, lanes));
}

#[test]
fn a_middle_whose_circuits_are_bad() {
    meet(Role::Middle, CIRCUIT.iter());
}

#[test]
fn an_exit_whose_circuits_are_bad() {
    meet(Role::Exit, CIRCUIT.iter());
}

#[test]
fn an_exit_whose_streams_are_bad() {
    meet(Role::Exit, STREAM.iter());
}
