//! Guards that make circuits fail, among others.

use super::*;

/// Circuits through `guard` that get beyond it and no further.
fn fail(client: &mut Client, guard: Fingerprint, circuits: usize) -> Vec<Suspicion> {
    let mut said = Vec::new();
    for _ in 0..circuits {
        let mut course = Course::new(guard);
        for step in [Step::SecondHop, Step::Closed { by_others: true }] {
            said.extend(client.guards.watch(&mut course, step, client.now, &mut client.rng));
        }
    }
    said
}

#[test]
fn a_guard_that_makes_circuits_fail_is_named_and_stays() {
    let mut client = Client::ready(1);
    let primary = client.primary();
    let revision = client.guards.revision();
    let said = fail(&mut client, primary[0], 152);
    assert!(client.guards.revision() > revision);
    let levels: Vec<_> = said.iter().map(|one| (one.guard, one.of, one.level, one.well, one.all)).collect();
    assert_eq!(levels, [(primary[0], Failing::Circuits, Level::Extreme, 0, 152)]);
    assert_eq!(fail(&mut client, primary[0], 300), []);
    assert_eq!(client.primary(), primary);
    // What is not of the sample is not counted.
    assert_eq!(fail(&mut client, id(999), 200), []);
}

#[test]
fn a_guard_is_dropped_if_that_is_wanted_and_another_takes_its_place() {
    let mut client = Client::new(1);
    let bias = BiasSettings { drop: Some(true), circuits: Some(20), ..BiasSettings::default() };
    let settings = GuardSettings { bias, ..GuardSettings::default() };
    let net = Net::new(0..200, NOW);
    client.set_with(&net, &settings, &|_| true);
    let before = client.primary();
    let bad = client.circuit();
    client.succeed(bad);
    let said = fail(&mut client, bad.relay, 22);
    assert_eq!(said.iter().map(|one| one.level).collect::<Vec<_>>(), [Level::Dropped]);
    let after = client.primary();
    assert!(!after.contains(&bad.relay) && after.len() == before.len(), "{after:?}");
    assert!(before.iter().all(|guard| *guard == bad.relay || after.contains(guard)), "{after:?}");
    for _ in 0..20 {
        assert_ne!(client.circuit().relay, bad.relay);
    }

    // A restart does not forgive it, another configuration does.
    let mut file = StateFile::read("");
    client.guards.write(&mut file);
    let (guards, _) = Guards::read(&StateFile::read(&file.to_string()), NOW);
    client.guards = guards;
    client.set_with(&net, &settings, &|_| true);
    assert!(!client.primary().contains(&bad.relay));
    client.set(&net);
    assert!(client.primary().contains(&bad.relay), "it was used first");
}
