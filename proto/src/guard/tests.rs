use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::limits::GUARD_ATTEMPTS;
use crate::netdoc::consensus::{Consensus, Lifetime, Listed, RelayFlags, UnverifiedConsensus};
use crate::netdoc::microdesc::Microdesc;
use crate::netdoc::testdata;

mod bias;
mod sim;
mod state;
mod stock;

const NOW: Unix = Unix(1_795_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn id(n: u16) -> Fingerprint {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    Fingerprint(bytes)
}

/// A network of relays with these numbers, all fit to be guards, that is current at `now`.
#[derive(Clone)]
struct Net {
    consensus: Consensus,
    microdesc: Arc<Microdesc>,
}

impl Net {
    fn new(relays: impl IntoIterator<Item = u16>, now: Unix) -> Self {
        let mut consensus = UnverifiedConsensus::parse(testdata::CONSENSUS_MICRODESC).unwrap().peek().clone();
        let microdesc = Microdesc::parse_all(testdata::MICRODESCS).next().unwrap().1.unwrap();
        let template = consensus.relays[0].clone();
        let flags = RelayFlags::from_names(["Fast", "Guard", "Running", "Stable", "V2Dir", "Valid"]);
        let relay = |n| RelayStatus {
            identity: id(n),
            listed: Listed::Microdesc(microdesc.digest),
            flags,
            bandwidth: Some(1000),
            ..template.clone()
        };
        consensus.relays = relays.into_iter().map(relay).collect();
        consensus.lifetime =
            Lifetime { valid_after: now, fresh_until: now + HOUR, valid_until: now + 3 * HOUR };
        Net { consensus, microdesc: Arc::new(microdesc) }
    }

    fn with(mut self, change: impl Fn(&mut RelayStatus)) -> Self {
        self.consensus.relays.iter_mut().for_each(change);
        self
    }

    fn params(mut self, params: &[(&'static str, i32)]) -> Self {
        self.consensus.params = params.iter().copied().collect();
        self
    }

    fn network(&self) -> Network {
        Network::new(Arc::new(self.consensus.clone()), |_| Some(self.microdesc.clone()))
    }
}

/// A client with guards, at a time that moves.
struct Client {
    guards: Guards,
    rng: ChaCha20Rng,
    now: Unix,
}

impl Client {
    fn new(seed: u64) -> Self {
        Client { guards: Guards::new(), rng: rng(seed), now: NOW }
    }

    /// One in a network of 200 relays.
    fn ready(seed: u64) -> Self {
        let mut client = Client::new(seed);
        client.set(&Net::new(0..200, NOW));
        client
    }

    fn set(&mut self, net: &Net) -> Update {
        self.set_with(net, &GuardSettings::default(), &|_| true)
    }

    fn set_with(
        &mut self,
        net: &Net,
        settings: &GuardSettings,
        filter: &dyn Fn(&RelayStatus) -> bool,
    ) -> Update {
        self.guards.set_network(&net.network(), settings, filter, self.now, &mut self.rng)
    }

    fn select(&mut self, purpose: Purpose) -> Selected {
        self.select_but(purpose, &[]).expect("a guard")
    }

    fn circuit(&mut self) -> Selected {
        self.select(Purpose::Circuit)
    }

    fn select_but(&mut self, purpose: Purpose, avoid: &[Fingerprint]) -> Option<Selected> {
        self.guards.select(purpose, &|relay| avoid.contains(relay), self.now, &mut self.rng)
    }

    fn succeed(&mut self, selected: Selected) -> Verdict {
        self.guards.succeeded(selected.attempt, self.now, &mut self.rng)
    }

    fn fail(&mut self, selected: Selected) {
        self.guards.failed(selected.attempt, self.now);
    }

    fn verdict(&mut self, selected: Selected) -> Verdict {
        self.guards.verdict(selected.attempt, self.now)
    }

    fn primary(&self) -> Vec<Fingerprint> {
        self.guards.primary().map(Guard::identity).collect()
    }

    fn sample(&self) -> Vec<Fingerprint> {
        self.guards.sample().map(Guard::identity).collect()
    }

    fn guard(&self, identity: Fingerprint) -> &Guard {
        self.guards.sample().find(|guard| guard.identity() == identity).expect("a guard of the sample")
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Uses every primary guard once, so that all are confirmed, then lets all fail; returns them.
    fn lose_primary(&mut self) -> Vec<Fingerprint> {
        let all = self.primary();
        for n in 0..all.len() {
            let others: Vec<_> = all.iter().copied().filter(|other| *other != all[n]).collect();
            let selected = self.select_but(Purpose::Circuit, &others).unwrap();
            assert_eq!(selected.relay, all[n]);
            assert_eq!(self.succeed(selected), Verdict::Use);
            self.guards.closed(selected.attempt);
        }
        assert_eq!(self.primary(), all);
        self.fail_primary();
        all
    }

    fn fail_primary(&mut self) {
        loop {
            let selected = self.circuit();
            if !self.primary().contains(&selected.relay) {
                return self.guards.closed(selected.attempt);
            }
            self.fail(selected);
        }
    }
}

#[test]
fn a_sample_is_drawn_by_weight_and_has_the_size_of_the_parameters() {
    let client = Client::ready(1);
    assert_eq!((client.sample().len(), client.primary().len()), (20, 3));
    assert_eq!(client.primary(), client.sample()[..3]);
    assert_eq!(client.sample().iter().collect::<BTreeSet<_>>().len(), 20);
    // Ten relays have nearly all of the weight, and 40 % of all relays may be sampled.
    let heavy = Net::new(0..200, NOW)
        .with(|relay| relay.bandwidth = Some(if relay.identity < id(10) { 1_000_000 } else { 1 }))
        .params(&[("guard-min-filtered-sample-size", 10), ("guard-n-primary-guards", 5)]);
    let mut client = Client::new(1);
    client.set(&heavy);
    let mut sample = client.sample();
    sample.sort();
    assert_eq!(sample, (0..10).map(id).collect::<Vec<_>>());
    assert_eq!(client.primary().len(), 5);
}

#[test]
fn only_relays_that_are_fit_are_sampled() {
    let fit = |relay: &RelayStatus| relay.identity.0[1].is_multiple_of(2);
    for missing in ["Guard", "Stable", "Fast", "V2Dir", "Valid"] {
        let names = ["Fast", "Guard", "Running", "Stable", "V2Dir", "Valid"];
        let flags = RelayFlags::from_names(names.into_iter().filter(|name| *name != missing));
        let net = Net::new(0..100, NOW).with(|relay| {
            if !fit(relay) {
                relay.flags = flags;
            }
        });
        let mut client = Client::new(2);
        client.set(&net);
        assert_eq!(client.sample().len(), 20);
        assert!(client.sample().iter().all(|identity| identity.0[1].is_multiple_of(2)), "{missing}");
    }
}

#[test]
fn circuits_go_through_the_first_primary_guard_and_requests_through_three() {
    let mut client = Client::ready(3);
    let primary = client.primary();
    let mut asked = BTreeSet::new();
    for _ in 0..50 {
        let circuit = client.circuit();
        assert_eq!(circuit.relay, primary[0]);
        assert_eq!(client.succeed(circuit), Verdict::Use);
        asked.insert(client.select(Purpose::Directory).relay);
    }
    assert_eq!(asked, primary.iter().copied().collect());
}

#[test]
fn the_configuration_overrides_the_consensus() {
    let net = Net::new(0..200, NOW);
    let settings = GuardSettings {
        num_entry_guards: 2,
        num_directory_guards: 1,
        num_primary_guards: 4,
        guard_lifetime: 10 * DAY,
        bias: BiasSettings::default(),
    };
    let mut client = Client::new(4);
    client.set_with(&net, &settings, &|_| true);
    let primary = client.primary();
    assert_eq!(primary.len(), 4);
    let used: BTreeSet<_> = (0..50).map(|_| client.circuit().relay).collect();
    assert_eq!(used, primary[..2].iter().copied().collect());
    let asked: BTreeSet<_> = (0..50).map(|_| client.select(Purpose::Directory).relay).collect();
    assert_eq!(asked, [primary[0]].into());
    assert!(client.guards.sample().all(|guard| NOW.since(guard.sampled_on()) <= DAY));
    client.wait(10 * DAY + HOUR);
    let before = client.sample();
    client.set_with(&Net::new(0..200, client.now), &settings, &|_| true);
    assert!(
        client
            .sample()
            .iter()
            .all(|guard| !before.contains(guard) || client.guard(*guard).sampled_on() > NOW)
    );
    // Less than a day is no lifetime.
    let short = GuardSettings { guard_lifetime: HOUR, ..GuardSettings::default() };
    let terms = Terms::new(&ConsensusParams::default(), &short);
    assert_eq!((terms.lifetime, terms.confirmed_lifetime), (120 * DAY, 60 * DAY));
}

#[test]
fn a_primary_guard_that_fails_is_passed_over_and_tried_again_by_schedule() {
    let mut client = Client::ready(5);
    let primary = client.primary();
    let first = client.circuit();
    client.fail(first);
    assert_eq!(client.guard(primary[0]).reachable(), Reachable::No);
    assert_eq!(client.guard(primary[0]).failing_since(), Some(NOW));
    client.wait(Duration::from_secs(599));
    assert_eq!(client.circuit().relay, primary[1]);
    client.wait(Duration::from_secs(1));
    let again = client.circuit();
    assert_eq!(again.relay, primary[0]);
    assert_eq!(client.guard(primary[0]).reachable(), Reachable::Maybe);
    assert_eq!(client.succeed(again), Verdict::Use);
    assert_eq!(client.guard(primary[0]).reachable(), Reachable::Yes);
    assert_eq!(client.guard(primary[0]).failing_since(), None);
}

#[test]
fn the_retry_schedule() {
    use terms::retry_delay;
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let second = Duration::from_secs(1);
    for (failing, primary, other) in [
        (Duration::ZERO, 10, 60),
        (6 * HOUR, 10, 60),
        (6 * HOUR + second, 90, 240),
        (4 * DAY, 90, 240),
        (4 * DAY + second, 240, 18 * 60),
        (7 * DAY, 240, 18 * 60),
        (7 * DAY + second, 540, 36 * 60),
        (300 * DAY, 540, 36 * 60),
    ] {
        assert_eq!(
            (retry_delay(failing, true), retry_delay(failing, false)),
            (minutes(primary), minutes(other))
        );
    }
}

#[test]
fn other_guards_wait_until_the_primary_ones_are_known_to_fail() {
    let mut client = Client::ready(6);
    let primary = client.lose_primary();
    let other = client.circuit();
    assert!(!primary.contains(&other.relay));
    // While one of the primary guards may be up again, it is not to be used.
    client.wait(Duration::from_secs(601));
    let retried = client.circuit();
    assert_eq!(retried.relay, primary[0]);
    client.guards.network_seen(client.now);
    assert_eq!(client.succeed(other), Verdict::Wait);
    assert_eq!(client.verdict(other), Verdict::Wait);
    client.fail(retried);
    assert_eq!(client.verdict(other), Verdict::Wait, "two more may be up");
    for _ in 1..3 {
        let retried = client.circuit();
        assert!(primary.contains(&retried.relay));
        client.fail(retried);
    }
    assert_eq!(client.verdict(other), Verdict::Use);
    assert_eq!(client.verdict(other), Verdict::Use);
    assert!(client.guard(other.relay).confirmed_on().is_some() && !client.guard(other.relay).is_primary());
}

#[test]
fn a_circuit_waits_for_better_ones_that_are_under_way_but_not_forever() {
    let mut client = Client::ready(7);
    client.lose_primary();
    client.guards.network_seen(client.now);
    let (better, worse) = (client.circuit(), client.circuit());
    assert_ne!(better.relay, worse.relay);
    // The worse one is confirmed by its success, and so would come before the better one.
    client.wait(Duration::from_secs(2));
    assert_eq!(client.succeed(worse), Verdict::Use);
    assert_eq!(client.succeed(better), Verdict::Wait);
    client.guards.closed(worse.attempt);
    assert_eq!(client.verdict(better), Verdict::Use);
    client.guards.closed(better.attempt);

    // Now both are confirmed, the worse one first: while it is tried, the other waits 15 seconds.
    let (first, second) = (client.circuit(), client.circuit());
    let began = client.now;
    let best = if client.guard(first.relay).confirmed.unwrap().index
        < client.guard(second.relay).confirmed.unwrap().index
    {
        (first, second)
    } else {
        (second, first)
    };
    client.wait(Duration::from_secs(3));
    assert_eq!(client.succeed(best.1), Verdict::Wait);
    assert_eq!(client.guards.next_timeout(client.now), Some(began + Duration::from_secs(15)));
    client.wait(Duration::from_secs(11));
    assert_eq!(client.verdict(best.1), Verdict::Wait);
    client.wait(Duration::from_secs(1));
    assert_eq!(client.verdict(best.1), Verdict::Use);
}

#[test]
fn a_circuit_that_waits_too_long_is_discarded() {
    let mut client = Client::ready(8);
    client.lose_primary();
    let other = client.circuit();
    client.wait(Duration::from_secs(700));
    // The primary guards may be up again, and nobody tries them.
    client.guards.network_seen(client.now);
    assert_eq!(client.succeed(other), Verdict::Wait);
    let at = client.guards.next_timeout(client.now).unwrap();
    assert_eq!(at, client.now + Duration::from_secs(601));
    client.now = Unix(at.0 - 1);
    assert_eq!(client.verdict(other), Verdict::Wait);
    client.now = at;
    assert_eq!(client.verdict(other), Verdict::Discard);
    assert_eq!(client.guards.next_timeout(client.now), None);
}

#[test]
fn what_failed_while_our_own_connection_was_down_is_tried_again() {
    let mut client = Client::ready(9);
    let primary = client.lose_primary();
    client.wait(Duration::from_secs(300));
    // Ten minutes of silence have not passed since the last success.
    let other = client.circuit();
    assert_eq!(client.succeed(other), Verdict::Use);
    assert_eq!(client.guard(primary[0]).reachable(), Reachable::No);
    client.guards.closed(other.attempt);

    client.wait(2 * HOUR);
    client.fail_primary();
    let other = client.circuit();
    assert!(!primary.contains(&other.relay));
    assert_eq!(client.succeed(other), Verdict::Wait);
    assert!(client.guards.primary().all(|guard| guard.reachable() == Reachable::Maybe));
    let back = client.circuit();
    assert_eq!(back.relay, primary[0]);
    assert_eq!(client.succeed(back), Verdict::Use);
    assert_eq!(client.verdict(other), Verdict::Wait);
}

#[test]
fn a_guard_that_is_used_first_becomes_primary() {
    let mut client = Client::ready(10);
    let before = client.primary();
    client.fail_primary();
    let other = client.circuit();
    assert_eq!(client.succeed(other), Verdict::Use);
    let after = client.primary();
    assert_eq!(after.len(), 3);
    assert!(after.contains(&other.relay) && after.contains(&before[0]) && after.contains(&before[1]));
    assert!(NOW.since(client.guard(other.relay).confirmed_on().unwrap()) <= 12 * DAY);
}

#[test]
fn guards_that_do_not_go_with_an_exit_are_left_out() {
    let mut client = Client::ready(11);
    let primary = client.primary();
    assert_eq!(client.select_but(Purpose::Circuit, &primary[..1]).unwrap().relay, primary[1]);
    let fourth = client.select_but(Purpose::Circuit, &primary).unwrap().relay;
    assert_eq!(fourth, client.sample()[3]);
    // Of two to be used, one that must be avoided still takes its place.
    let settings = GuardSettings { num_entry_guards: 2, ..GuardSettings::default() };
    client.set_with(&Net::new(0..200, NOW), &settings, &|_| true);
    for _ in 0..30 {
        assert_eq!(client.select_but(Purpose::Circuit, &primary[..1]).unwrap().relay, primary[1]);
    }
    // For a directory request it does not.
    let asked: BTreeSet<_> =
        (0..30).map(|_| client.select_but(Purpose::Directory, &primary[..1]).unwrap().relay).collect();
    assert_eq!(asked, primary[1..].iter().copied().collect());
}

#[test]
fn a_circuit_does_not_wait_for_guards_it_must_avoid() {
    let mut client = Client::ready(12);
    client.lose_primary();
    client.guards.network_seen(client.now);
    let better = client.circuit();
    assert_eq!(client.succeed(better), Verdict::Use);
    let other = client.select_but(Purpose::Circuit, &[better.relay]).unwrap();
    assert_eq!(client.succeed(other), Verdict::Use);
    let third = client.circuit();
    let third = if third.relay == better.relay { client.circuit() } else { third };
    assert_eq!(client.succeed(third), Verdict::Wait);
}

#[test]
fn requests_avoid_directories_only_while_there_are_enough() {
    let mut client = Client::new(13);
    client.set(&Net::new(0..9, NOW));
    let all = client.sample();
    assert_eq!(all.len(), 9);
    assert!(client.select_but(Purpose::Directory, &all).is_some());
    assert!(client.select_but(Purpose::Circuit, &all).is_none());
}

#[test]
fn when_all_have_failed_all_are_tried_again() {
    let mut client = Client::new(14);
    client.set(&Net::new(0..5, NOW));
    for _ in 0..5 {
        let selected = client.circuit();
        client.fail(selected);
    }
    assert_eq!(client.select_but(Purpose::Circuit, &[]), None);
    assert_eq!(client.circuit().relay, client.primary()[0]);
}

#[test]
fn a_guard_without_microdescriptor_serves_requests_only() {
    let mut client = Client::ready(15);
    let primary = client.primary();
    let net = Net::new(0..200, NOW).with(|relay| {
        if relay.identity == primary[0] {
            relay.listed = Listed::Nothing;
        }
    });
    client.set(&net);
    assert_eq!(client.primary(), primary);
    assert_eq!(client.guards.undescribed().collect::<Vec<_>>(), primary[..1]);
    assert_eq!(client.circuit().relay, primary[1]);
    assert!((0..50).any(|_| client.select(Purpose::Directory).relay == primary[0]));
    client.set(&Net::new(0..200, NOW));
    assert_eq!(client.guards.undescribed().count(), 0);
}

#[test]
fn guards_that_are_gone_leave_the_sample_in_time() {
    let mut client = Client::ready(16);
    let gone = client.primary()[0];
    let n = u16::from_be_bytes([gone.0[0], gone.0[1]]);
    let used = client.circuit();
    client.succeed(used);
    let without = |now| Net::new((0..200).filter(move |other| *other != n), now);
    client.set(&without(client.now));
    let since = client.guard(gone).unlisted_since().unwrap();
    assert!(since < NOW && NOW.since(since) <= 4 * DAY);
    assert!(!client.primary().contains(&gone) && client.primary().len() == 3);
    // It comes back as it was.
    client.wait(DAY);
    client.set(&Net::new(0..200, client.now));
    assert_eq!(client.guard(gone).unlisted_since(), None);
    assert!(client.primary().contains(&gone));
    client.set(&without(client.now));
    client.wait(16 * DAY);
    client.set(&without(client.now));
    assert!(client.sample().contains(&gone));
    client.wait(4 * DAY + HOUR);
    client.set(&without(client.now));
    assert!(!client.sample().contains(&gone));
}

#[test]
fn guards_are_kept_for_their_lifetime_and_no_longer() {
    let mut client = Client::ready(17);
    let sample = client.sample();
    let used = client.circuit();
    client.succeed(used);
    let kept = |client: &Client| sample.iter().filter(|guard| client.sample().contains(guard)).count();
    client.wait(47 * DAY);
    client.set(&Net::new(0..200, client.now));
    assert_eq!(kept(&client), sample.len());
    client.wait(14 * DAY);
    client.set(&Net::new(0..200, client.now));
    assert!(!client.sample().contains(&used.relay), "60 days after its first use");
    assert_eq!(kept(&client), sample.len() - 1);
    client.wait(60 * DAY);
    client.set(&Net::new(0..200, client.now));
    assert_eq!(client.guards.sample().filter(|guard| guard.sampled_on() < NOW).count(), 0);
    assert_eq!(client.primary().len(), 3);
}

#[test]
fn a_stale_consensus_changes_no_sample() {
    let mut client = Client::ready(18);
    let before = client.sample();
    client.wait(40 * DAY);
    client.set(&Net::new(100..200, NOW));
    assert_eq!(client.sample(), before);
    assert!(client.guards.sample().all(|guard| guard.unlisted_since().is_none()));
    let mut new = Client::new(18);
    new.wait(40 * DAY);
    new.set(&Net::new(0..200, NOW));
    assert_eq!(new.sample(), []);
    assert!(new.select_but(Purpose::Circuit, &[]).is_none());
}

#[test]
fn a_sample_does_not_outgrow_its_bound() {
    let mut client = Client::ready(19);
    // A fifth of 200.
    for _ in 0..200 {
        if let Some(selected) = client.select_but(Purpose::Circuit, &[]) {
            client.fail(selected);
        }
    }
    assert_eq!(client.sample().len(), 40);
    let huge = Net::new(0..3000, NOW).params(&[
        ("guard-max-sample-threshold-percent", 100),
        ("guard-max-sample-size", i32::MAX),
        ("guard-min-filtered-sample-size", i32::MAX),
    ]);
    client.set(&huge);
    assert_eq!(client.sample().len(), 40, "there are enough primary guards");
    assert!(client.select_but(Purpose::Circuit, &client.primary()).is_some());
    assert_eq!(client.sample().len(), GUARD_SAMPLE);
}

#[test]
fn a_restrictive_configuration_has_a_sample_of_its_own() {
    let mut client = Client::ready(20);
    let default = client.sample();
    let net = Net::new(0..200, NOW);
    let settings = GuardSettings::default();
    // 39 of 200 are still within 5 % of a fifth.
    assert!(!client.set_with(&net, &settings, &|relay| relay.identity < id(39)).switched);
    let attempt = client.circuit();
    let update = client.set_with(&net, &settings, &|relay| relay.identity < id(5));
    assert!(update.switched && !update.is_extreme);
    assert_eq!(client.guards.kind(), Kind::Restricted);
    assert_eq!(client.verdict(attempt), Verdict::Discard);
    assert_eq!(client.sample().len(), 5);
    assert!(client.sample().iter().all(|guard| *guard < id(5)));
    assert!(!client.set_with(&net, &settings, &|relay| relay.identity < id(41)).switched);
    assert!(client.set_with(&net, &settings, &|relay| relay.identity < id(42)).switched);
    assert_eq!(client.sample()[..20], default[..]);
    assert!(client.set_with(&net, &settings, &|relay| relay.identity < id(1)).is_extreme);
    let mut new = Client::new(20);
    let update = new.set_with(&net, &settings, &|relay| relay.identity < id(39));
    assert_eq!((update, new.guards.kind()), (Update::default(), Kind::Restricted));
}

#[test]
fn a_filter_keeps_guards_of_the_sample_from_use_only() {
    let mut client = Client::ready(21);
    let primary = client.primary();
    let net = Net::new(0..200, NOW);
    client.set_with(&net, &GuardSettings::default(), &|relay| relay.identity != primary[0]);
    assert!(client.sample().contains(&primary[0]) && !client.guard(primary[0]).is_filtered());
    assert_eq!(client.circuit().relay, primary[1]);
    assert_eq!(client.primary().len(), 3);
}

#[test]
fn attempts_are_bounded_and_unknown_ones_are_discarded() {
    let mut client = Client::ready(22);
    let first = client.circuit();
    let used = client.circuit();
    assert_eq!(client.succeed(used), Verdict::Use);
    for _ in 2..=GUARD_ATTEMPTS {
        client.circuit();
    }
    assert_eq!(client.verdict(used), Verdict::Discard, "what is in use already is forgotten first");
    assert_eq!(client.verdict(first), Verdict::Wait);
    client.circuit();
    assert_eq!(client.succeed(first), Verdict::Discard);
    client.fail(first);
    client.guards.closed(first.attempt);
    assert!(client.guards.sample().all(|guard| guard.reachable() != Reachable::No));
}

#[test]
fn the_revision_grows_with_what_is_remembered() {
    let mut client = Client::ready(23);
    let drawn = client.guards.revision();
    assert!(drawn > 0);
    client.set(&Net::new(0..200, NOW));
    let selected = client.circuit();
    assert_eq!(client.guards.revision(), drawn);
    client.succeed(selected);
    let confirmed = client.guards.revision();
    assert!(confirmed > drawn);
    let again = client.circuit();
    client.succeed(again);
    assert_eq!(client.guards.revision(), confirmed);
}
