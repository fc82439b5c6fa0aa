//! The hostile relay is the guard.

use crate::manners;
use crate::network::Role;
use crate::{run, trial};

/// Proxies that run at the same time: most only wait.
const AT_ONCE: usize = 40;

#[test]
fn a_guard_whose_links_are_bad() {
    run(trial::all(AT_ONCE, manners::LINK.iter().map(trial::guard_of_links)));
}

#[test]
fn a_guard_whose_circuits_are_bad() {
    let manners = manners::CIRCUIT.iter().filter(|manner| manner.roles.contains(&Role::Guard));
    run(trial::all(AT_ONCE, manners.map(trial::guard_of_circuits)));
}
