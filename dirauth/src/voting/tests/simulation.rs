//! Whole periods of several authorities.

use std::sync::Arc;

use onionring_proto::netdoc::tally::TallyError;

use super::maker::{VALID_AFTER, maker};
use super::network::Network;
use crate::voting::{Alarm, DoublePolicy, Evidence, NoConsensus};

const SIZES: [usize; 3] = [3, 5, 9];
/// Milliseconds before the consensus, each in the middle of one of the four rounds.
const ROUNDS: [i64; 4] = [-14_000, -10_000, -6_000, -2_000];
/// When nobody has done anything.
const BEFORE: i64 = -17_000;

fn network(n: usize, seed: u64) -> Network {
    Network::new(n, seed, DoublePolicy::Alert)
}

fn everybody(n: usize) -> Vec<usize> {
    (0..n).collect()
}

fn assert_quiet(network: &Network) {
    for node in &network.nodes {
        assert_eq!((&node.alarms[..], node.failure), (&[][..], None));
        assert!(node.stored.is_empty());
    }
}

#[test]
fn all_that_are_up_sign_the_same() {
    for n in SIZES {
        for seed in 0..4 {
            let mut network = network(n, seed);
            network.finish();
            assert_eq!(network.publishers(), everybody(n));
            assert_eq!(network.check_agreement(), n, "everybody has all signatures");
            assert_quiet(&network);
        }
    }
}

#[test]
fn clocks_may_differ_by_seconds() {
    for n in SIZES {
        for seed in 0..6 {
            let mut network = network(n, seed);
            for i in 0..n {
                network.nodes[i].skew = network.below(3000) as i64 - 1500;
            }
            network.finish();
            assert_eq!(network.publishers(), everybody(n));
            assert_eq!(network.check_agreement(), n);
            assert_quiet(&network);
        }
    }
}

#[test]
fn lost_messages_never_lead_to_two_consensuses() {
    let mut published = 0;
    for n in SIZES {
        for seed in 0..8 {
            let mut network = network(n, seed);
            network.loss = [5, 20, 50, 80][seed as usize % 4];
            network.delay = 3000;
            network.finish();
            network.check_agreement();
            if network.loss == 5 && n > 3 {
                assert_eq!(network.publishers(), everybody(n), "asking all others makes up for a few losses");
            }
            published += network.publishers().len();
            for node in &network.nodes {
                assert!(node.published.is_some() != node.failure.is_some(), "one or the other");
                assert!(!node.alarms.iter().any(|alarm| matches!(alarm, Alarm::Double(_))));
            }
        }
    }
    assert!(published > 0);
}

#[test]
fn without_some_the_others_go_on_if_they_are_more_than_half() {
    for n in SIZES {
        for missing in 1..n {
            for (round, at) in [BEFORE].into_iter().chain(ROUNDS).enumerate() {
                let mut network = network(n, missing as u64);
                network.run_until(at);
                (0..missing).for_each(|i| network.kill(i));
                network.finish();
                let rest: Vec<usize> = (missing..n).collect();
                let (up, enough) = (n - missing, n / 2 + 1);
                let (votes, signed) = match round {
                    0 => (up, up),
                    1 | 2 => (n, up),
                    _ => (n, n),
                };
                let failure = if votes < enough {
                    Some(NoConsensus::Tally(TallyError::TooFewVotes { votes, authorities: n }))
                } else if signed < enough {
                    Some(NoConsensus::TooFewSignatures { signed, needed: enough })
                } else {
                    None
                };
                let what = format!("{missing} of {n} missing from round {round} on");
                assert!(rest.iter().all(|i| network.nodes[*i].failure == failure), "{what}");
                assert_eq!(network.publishers(), if failure.is_none() { rest } else { vec![] }, "{what}");
                if failure.is_none() {
                    assert_eq!(network.check_agreement(), signed, "{what}");
                }
            }
        }
    }
}

#[test]
fn who_is_cut_off_publishes_nothing_unless_it_has_the_signatures() {
    for n in SIZES {
        for (round, at) in [BEFORE].into_iter().chain(ROUNDS).enumerate() {
            let mut network = network(n, round as u64);
            network.run_until(at);
            network.nodes[0].cut_off = true;
            network.finish();
            network.check_agreement();
            let others: Vec<usize> = (1..n).collect();
            let failure = match round {
                0 => Some(NoConsensus::Tally(TallyError::TooFewVotes { votes: 1, authorities: n })),
                1 | 2 => Some(NoConsensus::TooFewSignatures { signed: 1, needed: n / 2 + 1 }),
                _ => None,
            };
            assert_eq!(network.nodes[0].failure, failure, "{n} authorities, round {round}");
            let publishers = if failure.is_some() { others } else { everybody(n) };
            assert_eq!(network.publishers(), publishers);
        }
    }
}

#[test]
fn votes_and_signatures_that_were_missed_are_got_from_the_others() {
    for n in SIZES {
        for (from, to) in [(-16_250, -14_000), (-8_250, -6_000)] {
            let mut network = network(n, 1);
            network.run_until(from);
            network.nodes[0].cut_off = true;
            network.run_until(to);
            network.nodes[0].cut_off = false;
            network.finish();
            assert_eq!((network.publishers(), network.check_agreement()), (everybody(n), n));
            assert_quiet(&network);
        }
    }
}

#[test]
fn slow_ones_keep_up_or_are_left_behind() {
    for n in SIZES {
        let mut slow = network(n, 1);
        slow.nodes[0].slow = 1200;
        slow.finish();
        assert_eq!((slow.publishers(), slow.check_agreement()), (everybody(n), n));

        let mut slower = network(n, 1);
        slower.nodes[0].slow = 10_000;
        slower.finish();
        slower.check_agreement();
        assert_eq!(slower.publishers(), everybody(n)[1..], "the others do without it");
    }
}

#[test]
fn a_restart_in_any_phase_changes_nothing() {
    for n in SIZES {
        for (round, at) in ROUNDS.into_iter().enumerate() {
            let mut network = network(n, round as u64);
            network.run_until(at);
            network.kill(0);
            network.run_until(at + 500);
            network.restart(0);
            network.finish();
            assert_eq!(network.publishers(), everybody(n), "{n} authorities, round {round}");
            network.check_agreement();
            assert_quiet(&network);
            assert_eq!(network.nodes[0].made, 1, "it votes once");
        }
    }
}

#[test]
fn an_authority_that_forgets_its_vote_is_seen_to_have_restarted() {
    let mut network = network(5, 1);
    network.run_until(-15_000);
    network.kill(0);
    network.nodes[0].round = Some(fresh(&network));
    network.run_until(-13_000);
    network.finish();
    assert_eq!(network.nodes[0].made, 2);
    for n in 1..5 {
        assert_eq!(network.findings(n, 0), [Evidence::Restart]);
    }
    assert_eq!(
        (network.publishers(), network.check_agreement()),
        (everybody(5), 5),
        "all count the later one"
    );
}

/// Node 0 without its memory.
fn fresh(network: &Network) -> crate::voting::Round {
    let rules = network.rules_of(0);
    crate::voting::Round::new(rules, super::maker::PERIOD)
}

/// How an authority gets two votes about.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It posts both to all.
    BothToAll,
    /// It posts one to some, and the other to one.
    OneEach,
    /// It posts one to all, and serves the other.
    PostedAndServed,
    /// It posts none, and serves one to each, both together.
    ServedTogether,
    /// It posts one to all, and the other to one that has the first, as an older one that nobody counts.
    OlderToOne,
}

const WAYS: [Way; 5] =
    [Way::BothToAll, Way::OneEach, Way::PostedAndServed, Way::ServedTogether, Way::OlderToOne];

/// Runs five authorities of which the first votes twice.
fn double(way: Way, policy: DoublePolicy, seed: u64) -> Network {
    let mut network = Network::new(5, seed, policy);
    let published = VALID_AFTER - 17;
    let (one, two) = (maker(0).vote(published, "one"), maker(0).vote(published, "two"));
    let both: Arc<str> = format!("{one}{two}").into();
    match way {
        Way::BothToAll => {
            network.puppet(0, &[&one]);
            network.run_until(-16_000);
            (1..5).for_each(|n| network.post_vote(0, n, &one));
            network.run_until(-14_500);
            (1..5).for_each(|n| network.post_vote(0, n, &two));
        }
        Way::OneEach => {
            network.puppet(0, &[]);
            network.run_until(-16_000);
            (1..4).for_each(|n| network.post_vote(0, n, &one));
            network.post_vote(0, 4, &two);
        }
        Way::PostedAndServed => {
            network.puppet(0, &[&two]);
            network.run_until(-16_000);
            (1..5).for_each(|n| network.post_vote(0, n, &one));
        }
        Way::ServedTogether => network.puppet(0, &[&both]),
        Way::OlderToOne => {
            network.puppet(0, &[&two]);
            network.run_until(-16_000);
            (1..5).for_each(|n| network.post_vote(0, n, &two));
            network.run_until(-14_500);
            network.post_vote(0, 1, &maker(0).vote(published - 1, "older"));
        }
    }
    network.finish();
    network
}

#[test]
fn double_votes_are_found_by_all_and_count_as_with_stock_authorities() {
    for way in WAYS {
        for seed in 0..3 {
            let network = double(way, DoublePolicy::Alert, seed);
            network.check_agreement();
            for n in 1..5 {
                assert_eq!(network.findings(n, 0), [Evidence::Double], "{way:?}, seen by {n}");
                assert_eq!(network.nodes[n].stored.len(), 2);
            }
            let publishers = match way {
                // The fourth counted another vote than the majority.
                Way::OneEach => vec![1, 2, 3],
                _ => vec![1, 2, 3, 4],
            };
            assert_eq!(network.publishers(), publishers, "{way:?}");
        }
    }
    let split = double(Way::OneEach, DoublePolicy::Alert, 1);
    let alarm = Alarm::OtherConsensus(maker(4).identity());
    assert!(split.nodes[1].alarms.contains(&alarm));
    assert_eq!(split.nodes[4].failure, Some(NoConsensus::TooFewSignatures { signed: 1, needed: 3 }));
}

#[test]
fn who_votes_twice_is_excluded_or_stops_the_vote_if_that_is_wanted() {
    for way in WAYS {
        let network = double(way, DoublePolicy::Exclude, 1);
        assert_eq!((network.publishers(), network.check_agreement()), (vec![1, 2, 3, 4], 4), "{way:?}");
        let (_, text) = &network.nodes[1].published.as_ref().unwrap()[0];
        assert!(!text.contains(&maker(0).identity().to_string()), "{way:?}");

        let network = double(way, DoublePolicy::Stop, 1);
        assert_eq!(network.publishers(), [0; 0], "{way:?}");
        let stopped = Some(NoConsensus::Stopped(maker(0).identity()));
        assert!((1..5).all(|n| network.nodes[n].failure == stopped), "{way:?}");
    }
}

#[test]
fn whatever_happens_nobody_signs_twice() {
    let mut published = 0;
    for seed in 0..60 {
        let mut network = network(5, seed);
        network.loss = network.below(20);
        network.delay = 500 + network.below(3000);
        for n in 0..5 {
            network.nodes[n].skew = network.below(3000) as i64 - 1500;
        }
        // One of them is in other hands, and posts two votes to whom it likes.
        let votes = ["one", "two"].map(|contact| maker(0).vote(VALID_AFTER - 17, contact));
        network.puppet(0, &[&votes[0]]);
        let mut signed = vec![None; 5];
        while network.now < 3_000 {
            network.run_until(network.now + 500);
            let n = 1 + network.below(4) as usize;
            match network.below(6) {
                0 => network.kill(n),
                1 => network.nodes[n].cut_off ^= true,
                2 => (1..5)
                    .filter(|n| network.nodes[*n].round.is_none())
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|n| network.restart(n)),
                3 => {
                    let vote = &votes[network.below(2) as usize];
                    network.post_vote(0, n, vote);
                }
                _ => {}
            }
            for (n, signed) in signed.iter_mut().enumerate().skip(1) {
                let consensus = network.nodes[n].round.as_ref().and_then(|round| round.signatures());
                let Some(digest) = consensus.and_then(|text| text.lines().next().map(str::to_owned)) else {
                    continue;
                };
                assert_eq!(*signed.get_or_insert(digest.clone()), digest, "seed {seed}, {n} signed two");
            }
        }
        network.finish();
        network.check_agreement();
        assert!((1..5).all(|n| network.nodes[n].made <= 1), "seed {seed}");
        assert!((1..5).all(|n| (1..5).all(|about| network.findings(n, about).is_empty())), "seed {seed}");
        published += network.publishers().len();
    }
    assert!(published > 0);
}
