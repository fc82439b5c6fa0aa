use std::time::Duration;

use onionring_proto::netdoc::routerdesc::split_documents;
use onionring_proto::policy;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::super::super::results::Round;
use super::*;
use crate::admission::tests::DESCRIPTORS;

const NOW: Unix = Unix(1_800_000_000);

/// Relays number 0 to 19, each in a network of its own.
struct Network {
    relays: BTreeMap<Fingerprint, Arc<RouterDesc>>,
    results: Results,
    testing: bool,
}

fn id(n: u8) -> Fingerprint {
    Fingerprint([n; 20])
}

impl Network {
    fn new(edit: impl Fn(u8, &mut RouterDesc)) -> Network {
        let model = RouterDesc::parse(split_documents(DESCRIPTORS).next().unwrap()).unwrap();
        let relays = (0..20).map(|n| {
            let mut descriptor = model.clone();
            descriptor.identity = id(n);
            descriptor.ipv4 = [10 + n, 0, 0, 1].into();
            descriptor.proto = "Relay=2-4".into();
            edit(n, &mut descriptor);
            (id(n), Arc::new(descriptor))
        });
        Network { relays: relays.collect(), results: Results::default(), testing: false }
    }

    fn prove(&mut self, relays: impl IntoIterator<Item = u8>) {
        for n in relays {
            self.results.link(&id(n), policy::Family::V4, NOW);
            self.results.round(&id(n), Round::Passed, NOW);
        }
    }

    /// Who takes part in 50 rounds of relay 0: helpers, and those beyond with whether they count as proven.
    fn casts(&self) -> (BTreeSet<u8>, BTreeSet<(u8, bool)>) {
        let Network { relays, results, testing } = self;
        let casting = Casting { relays, results, testing: *testing, now: NOW };
        let (mut helpers, mut beyond) = (BTreeSet::new(), BTreeSet::new());
        for seed in 0..50 {
            let cast = casting.cast(&relays[&id(0)], &mut ChaCha8Rng::seed_from_u64(seed));
            assert!(cast.helpers.len() <= CIRCUIT_HELPERS && cast.beyond.len() <= CIRCUIT_HELPERS + 1);
            helpers.extend(cast.helpers.iter().map(|relay| relay.identity.0[0]));
            beyond
                .extend(cast.beyond.iter().map(|beyond| (beyond.descriptor.identity.0[0], beyond.is_proven)));
        }
        (helpers, beyond)
    }
}

#[test]
fn every_proven_relay_may_be_drawn_and_nobody_else() {
    let mut network = Network::new(|_, _| {});
    assert_eq!(network.casts(), Default::default());
    network.prove(0..10);
    network.results.link(&id(15), policy::Family::V4, NOW);
    // One that has failed last, one that was reached long ago.
    network.results.round(&id(8), Round::Failed, NOW);
    network.results.link(&id(9), policy::Family::V4, NOW - Duration::from_secs(3600));
    let (helpers, beyond) = network.casts();
    assert_eq!(helpers, (1..8).collect());
    assert_eq!(
        beyond.iter().filter(|(_, is_proven)| *is_proven).map(|(n, _)| *n).collect::<BTreeSet<_>>(),
        helpers
    );
    // Those who are not proven come after those who are, and there are others to choose from.
    let (_, beyond) = {
        let mut few = Network::new(|_, _| {});
        few.prove([3]);
        few.results.link(&id(15), policy::Family::V4, NOW);
        few.casts()
    };
    assert_eq!(beyond, BTreeSet::from([(3, true), (15, false)]));
}

#[test]
fn kin_and_those_without_circuits_are_not_drawn() {
    let mut network = Network::new(|n, descriptor| match n {
        1 => descriptor.ipv4 = [10, 0, 200, 1].into(),
        2 => descriptor.hibernating = true,
        3 => descriptor.proto = "Link=3-5".into(),
        _ => {}
    });
    network.prove(0..5);
    let (helpers, beyond) = network.casts();
    assert_eq!(helpers, BTreeSet::from([4]));
    assert_eq!(beyond, BTreeSet::from([(3, true), (4, true)]));
    // In a testing network all are in one place.
    network.testing = true;
    assert_eq!(network.casts().0, BTreeSet::from([1, 4]));
}

#[test]
fn directories_come_first_beyond() {
    let mut network = Network::new(|n, descriptor| descriptor.tunnelled_dir_server = n < 4);
    network.prove(0..20);
    let (helpers, beyond) = network.casts();
    assert_eq!(helpers.len(), 19);
    for n in 1..4 {
        assert!(beyond.contains(&(n, true)));
    }
}
