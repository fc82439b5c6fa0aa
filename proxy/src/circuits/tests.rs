//! Which exits are taken after some have refused.

use onionring_node::directory::testdata::{self, CONSENSUS_MICRODESC, NOW};
use onionring_proto::netdoc::consensus::UnverifiedConsensus;

use super::table::tests::{token, web};
use super::*;

/// A network of stock tor, whose relays do not answer.
fn network() -> Arc<path::Network> {
    let consensus = UnverifiedConsensus::parse(CONSENSUS_MICRODESC).unwrap().peek().clone();
    let microdescs: Vec<_> = testdata::microdescs().into_iter().map(|(_, m)| Arc::new(m)).collect();
    let find = |digest: &[u8; 32]| microdescs.iter().find(|m| m.digest == *digest).cloned();
    Arc::new(path::Network::new(Arc::new(consensus), find))
}

fn settings() -> Settings {
    Settings {
        rules: table::Rules {
            max_dirtiness: Duration::from_secs(600),
            leaky_pipe: false,
            worn_time: Duration::ZERO,
        },
        nodes: Arc::default(),
        distinct_subnets: false,
        long_lived_ports: BTreeSet::new(),
        new_circuit_period: Duration::from_secs(60),
        pending_max: 100,
        spare_time: Duration::from_secs(60),
        ahead: false,
        length: 3,
        ask: Terms::default(),
        use_guards: false,
        dial: Families::default(),
    }
}

/// Circuits in that network, and the exits of pages of the web.
fn circuits() -> (Arc<Circuits>, Vec<Fingerprint>) {
    let network = network();
    let is_exit = |relay: &path::RelayRef<'_>| relay.permits(443, false);
    let exits: Vec<_> = network.relays().filter(is_exit).map(|relay| relay.status.identity).collect();
    assert!(exits.len() > 1, "{exits:?}");
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::open(folder.path(), NOW).unwrap());
    let guards = Guards::new(memory.clone(), Arc::new(|| NOW));
    let map: Map = Arc::new(move || Some(network.clone()));
    let links = Arc::new(Links::new().unwrap());
    (Circuits::new(settings(), map, memory, guards, links, Arc::default()), exits)
}

/// The exit of the circuit that is built for a page of the web, unless there is none.
fn exit_for_web(circuits: &Arc<Circuits>) -> Option<Fingerprint> {
    let before: Vec<Number> = circuits.sights().iter().map(|sight| sight.number).collect();
    let (target, token) = (web(), token("a"));
    let wish = Wish { target: &target, stable: false, token: &token, avoid: &[] };
    match circuits.look_past_unfit(&wish) {
        Err(Wait::Change) => {}
        Err(Wait::Never(refusal)) => {
            assert_eq!(refusal, Refusal::NotAllowed);
            return None;
        }
        _ => panic!("no circuit can be there or fail yet"),
    }
    let sights = circuits.sights();
    circuits.new_identity();
    let new = sights.iter().find(|sight| !before.contains(&sight.number)).expect("a new circuit");
    new.path.last().map(|(_, identity)| *identity)
}

#[tokio::test]
async fn an_exit_that_has_refused_is_not_taken_again() {
    let (circuits, exits) = circuits();
    let (last, others) = exits.split_last().unwrap();
    let Target::Stream { port, .. } = web() else { panic!("it is one") };
    for exit in others {
        circuits.learn(*exit, Lesson::NoPort(port));
    }
    for _ in 0..10 {
        assert_eq!(exit_for_web(&circuits), Some(*last));
    }
    circuits.learn(*last, Lesson::NoPort(443));
    assert_eq!(exit_for_web(&circuits), None);
}

#[tokio::test]
async fn a_new_identity_has_no_past() {
    let (circuits, exits) = circuits();
    let Target::Stream { host, port, .. } = web() else { panic!("it is one") };
    exits.iter().for_each(|exit| circuits.learn(*exit, Lesson::Forbids(host.clone(), port)));
    assert_eq!(exit_for_web(&circuits), None);
    circuits.new_identity();
    assert!(exit_for_web(&circuits).is_some());
}

#[tokio::test]
async fn an_exit_without_room_is_taken_only_if_there_is_no_other() {
    let (circuits, exits) = circuits();
    let (last, others) = exits.split_last().unwrap();
    for exit in others {
        circuits.learn(*exit, Lesson::Full);
    }
    for _ in 0..10 {
        assert_eq!(exit_for_web(&circuits), Some(*last));
    }
    circuits.learn(*last, Lesson::NoPort(443));
    let exit = exit_for_web(&circuits).unwrap();
    assert!(others.contains(&exit));
    // The directory says nothing new.
    circuits.map_changed();
    assert_ne!(exit_for_web(&circuits), Some(*last));
}
