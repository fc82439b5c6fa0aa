//! The program is killed at any moment, and loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use onionring_dirauth::shared_random::SharedRandom;
use onionring_dirauth::voting::{DoublePolicy, Period, Round, Rules};
use onionring_proto::netdoc::consensus::Flavor;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::tally::Terms;
use onionring_proto::netdoc::vote::SignedVote;
use onionring_proto::time::Unix;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::relay::Relay;
use crate::stage::{INTERVAL, Stage};
use crate::{now, wait};

const KILLS: usize = 6;
/// Between a start and the next kill; a start takes a moment, too.
const LIFE: std::ops::Range<u64> = 1_000..7_000;

#[test]
fn kills_lose_nothing_and_lead_to_no_second_vote() {
    let mut stage = Stage::start("AuthDirSharedRandomness 1\n");
    let relay = Relay::new(7);
    let (descriptor, _) = relay.documents(now());
    let answer = stage.post("/tor/", &descriptor);
    assert_eq!((answer.status, &*answer.reason), (200, "Stored"));
    let digest = RouterDesc::parse(&descriptor).unwrap().digest;

    let rng = &mut ChaCha8Rng::seed_from_u64(20);
    let mut periods = BTreeSet::new();
    for kill in 0..KILLS {
        let until = Instant::now() + Duration::from_millis(rng.random_range(LIFE));
        // Meanwhile the others have votes for whoever asks.
        wait("it is time", || {
            have_votes(&stage, &mut periods);
            (Instant::now() >= until).then_some(())
        });
        stage.restart();
        let served = stage.get(&format!("/tor/server/d/{digest}"));
        assert_eq!(served.as_ref(), Some(&descriptor), "after kill {kill}");
        check_state(&stage);
    }
    // At last a period without one.
    let period = stage.next_period();
    have_votes(&stage, &mut periods);
    stage.finish(&period);

    let mut commits: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut voted = 0;
    for valid_after in periods {
        let mut votes: Vec<SignedVote> =
            stage.played.iter().flat_map(|played| played.votes_of(stage.identity, valid_after)).collect();
        votes.dedup_by_key(|vote| vote.digest);
        assert!(votes.len() <= 1, "{valid_after:?}: two votes: {votes:#?}");
        voted += votes.len();
        for vote in &votes {
            let part = vote.vote.shared_random.as_ref().expect("it takes part in shared randomness");
            let own = part.commits.iter().find(|commit| commit.authority == stage.identity);
            // Whoever starts after the commitments of a run are made has none.
            assert!(own.is_some() || is_for_reveals(valid_after), "{:#?}", vote.vote);
            if let Some(own) = own {
                // It begins with the time of the run.
                commits.entry(own.commit[..8].to_vec()).or_default().insert(own.commit.to_vec());
            }
        }
        let signed = stage.played.iter().flat_map(|played| played.signatures_for(valid_after));
        let digests: BTreeSet<_> = signed
            .map(|doc| Flavor::ALL.map(|flavor| doc.digest(flavor).map(|d| d.as_bytes().to_vec())))
            .collect();
        assert!(digests.len() <= 1, "{valid_after:?}: two consensuses are signed");
    }
    assert!(voted > 1, "{voted} votes");
    assert!(commits.values().all(|of_run| of_run.len() == 1), "{commits:?}");
    assert!(stage.evidence().is_empty());
    assert!(!stage.log().contains("panicked"));
}

/// Runs of the protocol for shared randomness have 12 rounds for commitments, and 12 for what was committed to.
fn is_for_reveals(valid_after: Unix) -> bool {
    valid_after.0 / INTERVAL % 24 >= 12
}

/// The others have a vote each for the period under way, and never another one.
fn have_votes(stage: &Stage, periods: &mut BTreeSet<Unix>) {
    let period = stage.period();
    if periods.insert(period.valid_after) {
        for played in &stage.played {
            played.desk.lock().unwrap().votes = played.vote(&period, 1, "well");
        }
    }
}

/// What is on disk can be read, whole.
fn check_state(stage: &Stage) {
    let interval = Duration::from_secs(INTERVAL);
    let state = std::fs::read_to_string(stage.file("sr-state")).unwrap();
    SharedRandom::read(&state, now(), interval).unwrap_or_else(|error| panic!("{error}: {state}"));
    let Ok(state) = std::fs::read_to_string(stage.file("voting-state")) else { return };
    let authorities = [stage.identity, stage.played[0].identity(), stage.played[1].identity()].to_vec();
    let valid_after = state.lines().nth(1).unwrap().strip_prefix("valid-after ").unwrap();
    let (date, clock) = valid_after.split_once(' ').unwrap();
    let valid_after = onionring_proto::netdoc::text::time(date, clock).unwrap();
    let rules = Rules {
        us: stage.identity,
        terms: Terms { authorities: authorities.len(), shared_random: None },
        authorities,
        doubles: DoublePolicy::Alert,
        compare: true,
        testing: true,
    };
    let period = Period::after(Unix(valid_after.0 - 1), crate::stage::timing(), Duration::ZERO);
    let round = Round::from_snapshot(rules, period, &state);
    assert!(round.is_ok(), "{:?}: {state}", round.err());
}
