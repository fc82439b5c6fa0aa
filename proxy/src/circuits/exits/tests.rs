use super::*;
use crate::network::Families;

const A: Fingerprint = Fingerprint([1; 20]);
const B: Fingerprint = Fingerprint([2; 20]);
const MICRODESC: Option<[u8; 32]> = Some([7; 32]);

fn host(text: &str) -> Host {
    text.parse().map_or_else(|_| Host::Name(text.into()), Host::Address)
}

fn to(text: &str, port: u16) -> Target {
    Target::Stream { host: host(text), port, families: Families::default() }
}

fn forbids(text: &str, port: u16) -> Lesson {
    Lesson::Forbids(host(text), port)
}

#[test]
fn what_was_refused_once_is_not_asked_for_again() {
    let (mut exits, now) = (Exits::default(), Instant::now());
    assert_eq!(exits.unfit(&to("example.com", 80), now), Unfit::default());
    exits.learn(A, MICRODESC, forbids("example.com", 80), now);
    exits.learn(A, MICRODESC, forbids("192.0.2.1", 80), now);
    for (target, is_forbidden) in [
        (to("example.com", 80), true),
        (to("Example.COM", 80), true),
        (to("192.0.2.1", 80), true),
        (to("example.com", 81), false),
        (to("192.0.2.2", 80), false),
        (to("example.org", 80), false),
        (Target::LookUp, false),
    ] {
        let expected = if is_forbidden { vec![A] } else { vec![] };
        assert_eq!(exits.unfit(&target, now), Unfit { forbid: expected, full: vec![] }, "{target:?}");
    }
    exits.learn(B, MICRODESC, Lesson::NoPort(80), now);
    assert_eq!(exits.unfit(&to("example.com", 80), now).forbid, [A, B]);
    assert_eq!(exits.unfit(&to("example.com", 443), now).forbid, []);
    assert_eq!(exits.unfit(&Target::LookUp, now).forbid, []);
    exits.learn(B, MICRODESC, Lesson::NoLookUps, now);
    assert_eq!(exits.unfit(&Target::LookUp, now).forbid, [B]);
    assert_eq!(exits.unfit(&to("example.com", 443), now).forbid, []);

    exits.forget_destinations();
    assert_eq!(exits.unfit(&to("example.com", 80), now).forbid, [B]);
    assert!(!exits.known.contains_key(&A), "nothing else was known of it");
}

#[test]
fn policies_are_forgotten_after_a_day_and_want_of_room_after_an_hour() {
    let (mut exits, now) = (Exits::default(), Instant::now());
    exits.learn(A, MICRODESC, Lesson::Full, now);
    exits.learn(B, MICRODESC, Lesson::NoLookUps, now);
    let unfit = |exits: &Exits, after| {
        let unfit = exits.unfit(&Target::LookUp, now + after);
        (unfit.forbid, unfit.full)
    };
    let moment = Duration::from_millis(1);
    assert_eq!(unfit(&exits, limits::EXIT_FULL_TIME - moment), (vec![B], vec![A]));
    assert_eq!(unfit(&exits, limits::EXIT_FULL_TIME), (vec![B], vec![]));
    assert_eq!(unfit(&exits, limits::EXIT_POLICY_TIME - moment), (vec![B], vec![]));
    assert_eq!(unfit(&exits, limits::EXIT_POLICY_TIME), (vec![], vec![]));
    // Said again, it holds anew.
    exits.learn(A, MICRODESC, Lesson::Full, now + limits::EXIT_FULL_TIME / 2);
    assert_eq!(unfit(&exits, limits::EXIT_FULL_TIME), (vec![B], vec![A]));
    exits.set_network(|_| MICRODESC, now + limits::EXIT_FULL_TIME);
    assert_eq!(unfit(&exits, limits::EXIT_FULL_TIME), (vec![B], vec![A]));
    exits.set_network(|_| MICRODESC, now + limits::EXIT_POLICY_TIME);
    assert!(exits.known.is_empty());
}

#[test]
fn a_new_microdescriptor_is_believed() {
    let (mut exits, now) = (Exits::default(), Instant::now());
    exits.learn(A, MICRODESC, Lesson::NoLookUps, now);
    exits.learn(B, MICRODESC, Lesson::NoLookUps, now);
    exits.set_network(|identity| if *identity == A { Some([8; 32]) } else { MICRODESC }, now);
    assert_eq!(exits.unfit(&Target::LookUp, now).forbid, [B]);
    exits.set_network(|_| None, now);
    assert!(exits.known.is_empty(), "it is not in the network any more");
}

#[test]
fn there_is_a_bound_to_what_is_remembered() {
    let (mut exits, now) = (Exits::default(), Instant::now());
    for n in 0..=limits::REFUSALS_PER_EXIT as u16 {
        exits.learn(A, MICRODESC, forbids("example.com", n + 1), now);
    }
    assert_eq!(exits.known[&A].learned.len(), limits::REFUSALS_PER_EXIT);
    assert!(exits.unfit(&to("example.com", 1), now).forbid.is_empty(), "the oldest");
    assert_eq!(exits.unfit(&to("example.com", 2), now).forbid, [A]);
    for n in 0..limits::REFUSING_EXITS as u64 {
        let mut identity = [9; 20];
        identity[..8].copy_from_slice(&n.to_be_bytes());
        exits.learn(Fingerprint(identity), MICRODESC, Lesson::Full, now + Duration::from_millis(1 + n));
    }
    assert_eq!(exits.known.len(), limits::REFUSING_EXITS);
    assert!(!exits.known.contains_key(&A), "the one that was silent for longest");
}
