//! Authorities of this build and stock ones in one network: private networks, booted for each test by
//! `onionring_loadgen`.
//!
//! - `mix`: ours alone, and with stock ones, either in the majority: consensuses, clients, and what stock nodes say of it;
//! - `rounds`: authorities that are killed or held up before each round of a vote.

mod mix;
mod rounds;

use std::time::Duration;

use onionring_loadgen::net::{Kind, Network, NetworkSpec, NodeSpec, Role};

/// How long what must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Authorities by turns ours (`oAuthority1`, ...) and stock (`tAuthority1`, ...) for as long as there are of both, with
/// the least relays that clients build circuits with, of both kinds.
fn spec(ours: usize, stock: usize) -> NetworkSpec {
    let authority =
        |kind, letter, n| NodeSpec::new(Role::Authority, kind).named(&format!("{letter}Authority{n}"));
    let by_turns = (1..=ours.max(stock)).flat_map(|n| {
        let of_ours = (n <= ours).then(|| authority(Kind::ONIONRING, 'o', n));
        let of_stock = (n <= stock).then(|| authority(Kind::TOR, 't', n));
        [of_ours, of_stock].into_iter().flatten()
    });
    let relays = [
        NodeSpec::new(Role::Relay, Kind::ONIONRING).named("oRelay"),
        NodeSpec::new(Role::Relay, Kind::TOR).named("tRelay"),
        NodeSpec::new(Role::Exit, Kind::ONIONRING).named("oExit"),
        NodeSpec::new(Role::Exit, Kind::TOR).named("tExit"),
    ];
    by_turns.chain(relays).fold(NetworkSpec::new(), NetworkSpec::node).shards(1)
}

fn boot(spec: NetworkSpec) -> Network {
    spec.boot().unwrap_or_else(|error| panic!("{error}"))
}
