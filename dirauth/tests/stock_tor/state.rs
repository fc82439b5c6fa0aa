//! The state that this authority keeps, taken over by a stock authority and taken back.

use std::time::Duration;

use onionring_dirauth::approval::{ApprovedRouters, RelayId};
use onionring_dirauth::files::{self, Journal};
use onionring_dirauth::keypin::{KeyPins, Pin, Pinned};
use onionring_dirauth::shared_random::{SharedRandom, Srv};
use onionring_dirauth::stability::Stability;
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::authority::{Authority, INTERVAL, make_keys, now};

fn pin(n: u8) -> Pin {
    Pin { rsa: Fingerprint([n; 20]), ed25519: [n; 32] }
}

/// The line with this keyword that follows the line of a relay, without its time.
fn entry<'a>(state: &'a str, relay: &Fingerprint, keyword: &str) -> &'a str {
    let mut lines = state.lines().skip_while(|line| *line != format!("R {relay}")).skip(1);
    let line = lines.find(|line| line.starts_with(keyword)).unwrap();
    line.split(" S=").next().unwrap()
}

#[test]
fn stock_tor_goes_on_with_our_state_and_we_with_its() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let v3_identity = make_keys(directory.path());
    let start = now();

    let mut journal = Journal::open(&path("key-pinning-journal"), start).unwrap();
    for n in 1..=3 {
        journal.append(&pin(n)).unwrap();
    }

    // As written by an authority that stopped an hour ago.
    let stopped = Unix(start.0 - 3600);
    let mut stability = Stability::default();
    let days = |days: u64| Unix(stopped.0 - days * 86_400);
    for n in 1..=3u8 {
        let relay = pin(n).rsa;
        stability.reached(&relay, None, days(20 + u64::from(n)), Duration::ZERO);
        stability.unreachable(&relay, days(10), days(10));
        stability.discount(days(9));
        stability.reached(&relay, None, days(5), Duration::ZERO);
        stability.unreachable(&relay, days(u64::from(n)), days(u64::from(n)));
    }
    stability.discount(stopped);
    let history = stability.write(stopped);
    files::replace(&path("router-stability"), &history).unwrap();

    let mut shared_random = SharedRandom::new(start, INTERVAL);
    let (previous, current) = (Srv { reveals: 2, value: [7; 32] }, Srv { reveals: 3, value: [8; 32] });
    let next = Unix((start.0 / INTERVAL.as_secs() + 1) * INTERVAL.as_secs());
    shared_random.prepare(next, INTERVAL, v3_identity, &[v3_identity], &mut ChaCha8Rng::seed_from_u64(1));
    shared_random.adopt(Some(previous), Some(current));
    files::replace(&path("sr-state"), &shared_random.write()).unwrap();

    let mut routers = ApprovedRouters::default();
    routers.reject(&[RelayId::Rsa(pin(1).rsa)]);
    // Other bytes than those of a key are none for C tor.
    routers.approve(&[RelayId::Ed25519(Ed25519Pair::from_seed(&[1; 32]).public())], None);
    files::replace(&path("approved-routers"), &routers.write()).unwrap();

    let awaited = [
        "Loaded 3 entries from keypin journal. Found 0 corrupt lines (ignored), 0 duplicates (harmless), and 0 conflicts",
        "SR: State loaded successfully",
        "Opened Directory listener",
    ];
    let said = Authority::start(directory.path(), v3_identity, "", &awaited).stop();
    for bad in [
        "Invalid fingerprint",
        "mtbf history file",
        "Couldn't scan",
        "Truncated MTBF",
        "corrupt lines (ignored), 1",
    ] {
        assert!(!said.iter().any(|line| line.contains(bad)), "{bad}");
    }

    let after = files::read(&path("router-stability")).unwrap().unwrap();
    let after = std::str::from_utf8(&after).unwrap();
    assert_ne!(after.lines().nth(1), history.lines().nth(1), "tor has written it anew");
    for n in 1..=3 {
        for keyword in ["+MTBF", "+WFU"] {
            assert_eq!(entry(after, &pin(n).rsa, keyword), entry(&history, &pin(n).rsa, keyword));
        }
    }
    let (theirs, _) = Stability::read(after, now()).unwrap();
    let (ours, _) = Stability::read(&history, stopped).unwrap();
    assert_eq!(theirs.mtbf(&pin(1).rsa, now()), ours.mtbf(&pin(1).rsa, stopped));

    let state = files::read(&path("sr-state")).unwrap().unwrap();
    let theirs = SharedRandom::read(std::str::from_utf8(&state).unwrap(), now(), INTERVAL).unwrap();
    // Should a run end just now, our current value is the previous one of the next.
    let (before, latest) = theirs.values();
    assert!(
        before == Some(current) || (before, latest) == (Some(previous), Some(current)),
        "{before:?} {latest:?}"
    );
    if latest == Some(current) && theirs.phase() == shared_random.phase() {
        assert_eq!(theirs.vote().commits, shared_random.vote().commits);
    }

    let (pins, found) = KeyPins::read(&files::read(&path("key-pinning-journal")).unwrap().unwrap());
    assert_eq!(found.damaged, 0);
    assert!((1..=3).all(|n| pins.check(&pin(n)) == Pinned::Known));
}
