//! What a round answers, document by document.

use onionring_proto::netdoc::detached::DetachedSignatures;
use onionring_proto::netdoc::tally::{SharedRandomTerms, TallyError, Terms};
use onionring_proto::time::Unix;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::maker::{PERIOD, VALID_AFTER, identities, maker};
use crate::limits::{OTHER_VOTES, QUEUED_CONSENSUSES};
use crate::voting::{
    Action, Alarm, Answer, DoublePolicy, Evidence, NoConsensus, OwnVoteError, Period, Round, Rules,
    SnapshotError, Whence,
};

const AUTHORITIES: usize = 3;
const POSTED: Whence = Whence::Posted(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
const EARLY: Unix = Unix(VALID_AFTER - 15);

fn rules() -> Rules {
    Rules {
        authorities: identities(AUTHORITIES),
        us: maker(0).identity(),
        terms: Terms { authorities: AUTHORITIES, shared_random: None },
        doubles: DoublePolicy::Alert,
        compare: true,
        testing: true,
    }
}

fn round() -> Round {
    Round::new(rules(), PERIOD)
}

fn timeout(round: &mut Round, now: Unix) {
    round.handle_timeout(now, &maker(0).signer, &mut ChaCha8Rng::seed_from_u64(3));
}

fn actions(round: &mut Round) -> Vec<Action> {
    std::iter::from_fn(|| round.poll_action()).collect()
}

fn post(round: &mut Round, now: Unix, text: &str) -> (u16, &'static str) {
    let Answer { status, reason } = round.handle_vote(now, text.as_bytes(), POSTED);
    (status, reason)
}

/// One in which all have voted, and computed at VA-D.
fn computed(of: usize) -> Round {
    let mut rules = rules();
    rules.us = maker(of).identity();
    let mut round = Round::new(rules, PERIOD);
    round.handle_own_vote(EARLY, &maker(of).vote(EARLY.0, "someone")).unwrap();
    for n in (0..AUTHORITIES).filter(|n| *n != of) {
        assert_eq!(post(&mut round, EARLY, &maker(n).vote(EARLY.0, "someone")), (200, "Vote stored"));
    }
    round.handle_timeout(PERIOD.voting_ends, &maker(of).signer, &mut ChaCha8Rng::seed_from_u64(3));
    round
}

#[test]
fn posted_votes_are_answered_as_by_c_tor() {
    let round = &mut round();
    let vote = maker(1).vote(EARLY.0, "one");
    assert_eq!(post(round, EARLY, &vote), (200, "Vote stored"));
    assert_eq!(post(round, EARLY, &vote), (200, "Duplicate discarded"));
    let same_time = maker(1).vote(EARLY.0, "two");
    assert_eq!(post(round, EARLY, &same_time), (400, "Already have a newer pending vote"));
    assert_eq!(post(round, EARLY, &maker(1).vote(EARLY.0 + 1, "three")), (200, "Vote stored"));
    assert_eq!(post(round, EARLY, &vote), (400, "Already have a newer pending vote"));
    assert_eq!(round.vote(&maker(1).identity()).unwrap().1.vote.published, Unix(EARLY.0 + 1));

    for bad in
        ["", "network-status-version", &vote[1..], &vote[..vote.len() - 30], &vote.replace("one", "uno")]
    {
        assert_eq!(post(round, EARLY, bad), (400, "Unable to parse vote"));
    }
    let expired = (200, "Vote stored");
    assert_eq!(post(&mut round.clone(), EARLY, &maker(2).expired_vote()), expired, "as with C tor");
    let stranger = maker(AUTHORITIES).vote(EARLY.0, "x");
    assert_eq!(post(round, EARLY, &stranger), (400, "Vote not from a recognized v3 authority"));
    let mut other = maker(2).unsigned(EARLY.0, "x");
    other.lifetime.valid_after = Unix(VALID_AFTER - 1);
    assert_eq!(post(round, EARLY, &maker(2).sign(&other)), (400, "Bad valid-after time"));
}

#[test]
fn posted_votes_are_late_from_the_next_second_on_and_fetched_ones_are_not() {
    let round = &mut round();
    let cut_off = PERIOD.fetch_votes;
    let (one, two) = (maker(1).vote(EARLY.0, "one"), maker(2).vote(EARLY.0, "two"));
    assert_eq!(post(round, cut_off, &one), (200, "Vote stored"));
    let late = (400, "Posted vote received too late, would be dangerous to count it");
    assert_eq!(post(round, Unix(cut_off.0 + 1), &two), late);
    assert_eq!(post(round, Unix(cut_off.0 + 1), &one), late, "even one that is known");
    assert!(round.vote(&maker(2).identity()).is_none());
    let answer = round.handle_vote(Unix(cut_off.0 + 1), two.as_bytes(), Whence::Fetched(maker(1).identity()));
    assert_eq!(answer.reason, "Vote stored");
}

#[test]
fn only_testing_networks_vote_more_often_than_every_five_minutes() {
    let vote = |fresh: u64, valid: u64| {
        let mut vote = maker(1).unsigned(EARLY.0, "x");
        vote.lifetime.fresh_until = Unix(VALID_AFTER + fresh);
        vote.lifetime.valid_until = Unix(VALID_AFTER + valid);
        maker(1).sign(&vote)
    };
    for (fresh, valid, status) in [(300, 600, 200), (299, 600, 400), (300, 599, 400), (20, 60, 400)] {
        let public = &mut Round::new(Rules { testing: false, ..rules() }, PERIOD);
        assert_eq!(post(public, EARLY, &vote(fresh, valid)).0, status, "{fresh} {valid}");
        assert_eq!(post(&mut round(), EARLY, &vote(fresh, valid)).0, 200);
    }
}

#[test]
fn a_body_may_have_several_votes() {
    let round = &mut round();
    let (one, two) = (maker(1).vote(EARLY.0, "one"), maker(2).vote(EARLY.0, "two"));
    let both = format!("{one}{two}");
    assert_eq!(post(round, EARLY, &both), (200, "Vote stored"));
    assert_eq!(post(round, EARLY, &both), (200, "Duplicate discarded"));
    let stranger = maker(AUTHORITIES).vote(EARLY.0, "x");
    let answer = post(round, EARLY, &format!("{one}{stranger}{two}"));
    assert_eq!(answer, (400, "Vote not from a recognized v3 authority"));
    assert_eq!(round.votes().count(), 2);
}

#[test]
fn signatures_are_answered_as_by_c_tor_unless_they_are_thrown_away() {
    let mut ours = computed(0);
    let theirs = computed(1).signatures().unwrap();
    let mut answer = |text: &str| {
        let Answer { status, reason } = ours.handle_signatures(PERIOD.voting_ends, text.as_bytes());
        (status, reason)
    };
    assert_eq!(answer(&theirs), (200, "Signatures added"));
    assert_eq!(answer(&theirs), (200, "Signatures ignored"));
    let unreadable = (400, "Couldn't parse detached signatures.");
    assert_eq!(answer("garbage"), unreadable);
    let mut doc = DetachedSignatures::parse(&theirs).unwrap();
    let forged =
        (400, "Signatures that are not right, of expired certificates, or of nobody whose vote counts");
    let mut wrong = doc.clone();
    wrong.signatures.iter_mut().for_each(|s| s.signature[9] ^= 1);
    assert_eq!(answer(&wrong.encode()), forged, "though right ones are there");
    let mut of_a_stranger = doc.clone();
    of_a_stranger.signatures.iter_mut().for_each(|s| s.identity = maker(AUTHORITIES).identity());
    assert_eq!(answer(&of_a_stranger.encode()), forged);
    doc.ns[0] ^= 1;
    assert_eq!(answer(&doc.encode()), (400, "Signatures ignored"));
    doc.microdesc = Some([0; 32]);
    assert_eq!(answer(&doc.encode()), (400, "Mismatched digest."));
    doc.lifetime.valid_after = Unix(VALID_AFTER + 20);
    let times = (400, "Valid-After times do not match when adding detached signatures to consensus");
    assert_eq!(answer(&doc.encode()), times);

    let round = &mut round();
    let mut early = |text: &str| {
        let Answer { status, reason } = round.handle_signatures(EARLY, text.as_bytes());
        (status, reason)
    };
    assert_eq!(early(&theirs), (200, "Signature queued"));
    assert_eq!((early("garbage"), early("")), (unreadable, unreadable));
    assert_eq!(early(&doc.encode()), times);
    assert_eq!(round.queue.iter().count(), 0, "nobody has voted, so nothing can be right");
    post(round, EARLY, &maker(1).vote(EARLY.0, "someone"));
    let answer = round.handle_signatures(EARLY, wrong.encode().as_bytes());
    assert_eq!((answer.status, answer.reason), forged);
    assert_eq!(round.queue.iter().count(), 0);
}

#[test]
fn early_signatures_of_voters_are_kept_and_others_do_not_fill_the_queue() {
    let theirs = computed(1).signatures().unwrap();
    let round = &mut round();
    round.handle_own_vote(EARLY, &maker(0).vote(EARLY.0, "someone")).unwrap();
    for n in 1..AUTHORITIES {
        post(round, EARLY, &maker(n).vote(EARLY.0, "someone"));
    }
    let mut doc = DetachedSignatures::parse(&theirs).unwrap();
    for n in 0..2 * QUEUED_CONSENSUSES {
        doc.ns[0] = n as u8;
        doc.microdesc = Some([n as u8; 32]);
        round.handle_signatures(EARLY, doc.encode().as_bytes());
    }
    round.handle_signatures(EARLY, theirs.as_bytes());
    assert_eq!(round.queue.iter().count(), 1);
    timeout(round, PERIOD.voting_ends);
    let signers: Vec<_> = round.pair.as_ref().unwrap().flavors()[0].signers().copied().collect();
    assert_eq!(signers.len(), 2, "we and the other");
    timeout(round, PERIOD.valid_after);
    let last = actions(round).pop().unwrap();
    assert!(matches!(last, Action::Publish(docs) if docs.len() == 2), "two of three are enough");
    assert!(round.is_over() && round.poll_timeout().is_none());
}

#[test]
fn our_own_vote_is_posted_once_and_in_time() {
    let mut round = round();
    timeout(&mut round, PERIOD.voting_starts);
    assert_eq!(actions(&mut round), [Action::MakeVote(PERIOD)]);
    assert_eq!(round.handle_own_vote(EARLY, &maker(1).vote(EARLY.0, "x")), Err(OwnVoteError::NotOurs));
    let vote = maker(0).vote(EARLY.0, "x");
    let late = round.clone().handle_own_vote(Unix(PERIOD.fetch_votes.0 + 1), &vote);
    assert_eq!(late, Err(OwnVoteError::TooLate));
    assert_eq!(round.handle_own_vote(EARLY, &vote), Ok(()));
    let post = |n: usize| Action::PostVote { to: maker(n).identity(), text: vote.clone() };
    assert_eq!(actions(&mut round), [Action::Save, post(1), post(2)], "saved before it leaves");
    let second = maker(0).vote(EARLY.0 + 1, "y");
    assert_eq!(round.handle_own_vote(EARLY, &second), Err(OwnVoteError::Already));
}

#[test]
fn rounds_that_begin_late_do_what_still_makes_sense() {
    let mut late = round();
    timeout(&mut late, PERIOD.fetch_votes);
    let done = actions(&mut late);
    assert_eq!(done[0], Action::Alarm(Alarm::TooLateToVote));
    let all = {
        let mut all = identities(AUTHORITIES);
        all.sort();
        all
    };
    let fetch = |n: usize| Action::FetchVotes { from: maker(n).identity(), of: all.clone() };
    assert_eq!(done[1..], [fetch(1), fetch(2)]);

    let mut later = round();
    timeout(&mut later, PERIOD.voting_ends);
    let too_few = NoConsensus::Tally(TallyError::TooFewVotes { votes: 0, authorities: AUTHORITIES });
    let done = actions(&mut later);
    assert_eq!(done, [Action::Alarm(Alarm::TooLateToVote), Action::NoConsensus(too_few)]);

    let mut asleep = round();
    timeout(&mut asleep, Unix(VALID_AFTER + 3600));
    let done = actions(&mut asleep);
    assert_eq!(done, [Action::Alarm(Alarm::TooLateToVote), Action::NoConsensus(NoConsensus::Missed)]);
    assert!(asleep.is_over());
}

/// The period that many seconds later.
fn moved(by: i64) -> Period {
    let at = |then: Unix| Unix(then.0.checked_add_signed(by).unwrap());
    Period {
        voting_starts: at(PERIOD.voting_starts),
        fetch_votes: at(PERIOD.fetch_votes),
        voting_ends: at(PERIOD.voting_ends),
        fetch_signatures: at(PERIOD.fetch_signatures),
        valid_after: at(PERIOD.valid_after),
    }
}

#[test]
fn slots_may_move_until_the_round_begins() {
    for by in [-3600, -15, 15, 3600] {
        let mut round = round();
        assert!(!round.gives_way_to(&PERIOD) && round.gives_way_to(&moved(by)));
        timeout(&mut round, PERIOD.voting_starts);
        // What begins after now begins after that; unless now is before.
        assert_eq!(round.gives_way_to(&moved(by)), by == -3600, "{by}");
        assert!(!round.gives_way_to(&PERIOD));
        timeout(&mut round, PERIOD.valid_after);
        assert!(round.gives_way_to(&moved(by)));
    }
}

#[test]
fn a_round_gives_way_when_the_clock_is_set_back_by_more_than_a_slot() {
    let timing = crate::options::Timing {
        interval: std::time::Duration::from_secs(3600),
        vote_delay: std::time::Duration::from_secs(300),
        dist_delay: std::time::Duration::from_secs(300),
    };
    let find = |now| Period::after(Unix(now), timing, std::time::Duration::ZERO);
    let period = find(VALID_AFTER - 1);
    for end in [period.voting_starts, period.fetch_votes, period.voting_ends, period.fetch_signatures] {
        let mut round = Round::new(rules(), period);
        timeout(&mut round, end);
        for (back, gives_way) in [(0, false), (1800, false), (3600, true), (24 * 3600, true)] {
            assert_eq!(round.gives_way_to(&find(end.0 - back)), gives_way, "{back}");
        }
    }
}

#[test]
fn only_missing_votes_are_asked_for_if_they_are_not_compared() {
    let mut round = Round::new(Rules { compare: false, ..rules() }, PERIOD);
    for n in 0..2 {
        post(&mut round, EARLY, &maker(n).vote(EARLY.0, "x"));
    }
    timeout(&mut round, PERIOD.fetch_votes);
    let fetch = |n: usize| Action::FetchVotes { from: maker(n).identity(), of: vec![maker(2).identity()] };
    let asked: Vec<_> =
        actions(&mut round).into_iter().filter(|a| matches!(a, Action::FetchVotes { .. })).collect();
    assert_eq!(asked, [fetch(1), fetch(2)]);
}

fn findings(actions: &[Action]) -> Vec<Evidence> {
    let finding = |action: &Action| match action {
        Action::Alarm(Alarm::Double(finding)) => Some(finding.evidence),
        _ => None,
    };
    actions.iter().filter_map(finding).collect()
}

#[test]
fn doubles_are_found_whichever_way_they_come() {
    let (one, two) = (maker(1).vote(EARLY.0, "one"), maker(1).vote(EARLY.0, "two"));
    let fetched = Whence::Fetched(maker(2).identity());
    let late = Unix(PERIOD.fetch_votes.0 + 1);
    let both = format!("{one}{two}");
    let ways: [&[(Unix, &str, Whence)]; 5] = [
        &[(EARLY, &one, POSTED), (EARLY, &two, POSTED)],
        &[(EARLY, &one, POSTED), (late, &two, fetched)],
        &[(late, &one, fetched), (late, &two, fetched)],
        &[(EARLY, &one, POSTED), (late, &two, POSTED)],
        &[(EARLY, &both, POSTED)],
    ];
    for (n, way) in ways.iter().enumerate() {
        let mut round = round();
        // Hearing it again is not news.
        for (now, text, whence) in way.iter().chain(*way) {
            round.handle_vote(*now, text.as_bytes(), *whence);
        }
        let done = actions(&mut round);
        assert_eq!(findings(&done), [Evidence::Double], "way {n}");
        let files: Vec<_> = done
            .iter()
            .filter_map(|action| match action {
                Action::Store { name, contents } => Some((name, contents)),
                _ => None,
            })
            .collect();
        assert_eq!(files.len(), 2);
        assert!(files[0].1.ends_with(&*one) && files[1].1.ends_with(&*two));
        assert_ne!(files[0].0, files[1].0);
        assert!(files.iter().all(|(name, _)| name.contains(&maker(1).identity().to_string())));
        let (text, _) = round.vote(&maker(1).identity()).unwrap();
        assert_eq!(*text, one, "what came first counts, as with stock authorities");
    }
}

#[test]
fn a_vote_after_a_restart_is_told_from_a_double() {
    let mut round = round();
    post(&mut round, EARLY, &maker(1).vote(EARLY.0 - 1, "one"));
    post(&mut round, Unix(EARLY.0 + 1), &maker(1).vote(EARLY.0, "two"));
    assert_eq!(findings(&actions(&mut round)), [Evidence::Restart]);
    assert_eq!(round.ballots.doubles().count(), 0);
    post(&mut round, Unix(EARLY.0 + 1), &maker(1).vote(EARLY.0, "three"));
    assert_eq!(findings(&actions(&mut round)), [Evidence::Double]);
    assert_eq!(round.ballots.doubles().count(), 1);
}

#[test]
fn a_fetched_vote_replaces_none_as_stock_authorities_would_not_have_asked() {
    let mut round = round();
    let one = maker(1).vote(EARLY.0, "one");
    post(&mut round, EARLY, &one);
    let later = maker(1).vote(EARLY.0 + 1, "two");
    round.handle_vote(PERIOD.fetch_votes, later.as_bytes(), Whence::Fetched(maker(2).identity()));
    assert_eq!(*round.vote(&maker(1).identity()).unwrap().0, one);
    assert_eq!(post(&mut round, PERIOD.fetch_votes, &later), (200, "Vote stored"), "posted in time, it does");
    assert_eq!(*round.vote(&maker(1).identity()).unwrap().0, later);
    assert_eq!(findings(&actions(&mut round)), [Evidence::Restart], "which is told once");
}

#[test]
fn signatures_are_asked_for_unless_all_have_signed() {
    let asked = |round: &mut Round| {
        timeout(round, PERIOD.fetch_signatures);
        actions(round).into_iter().filter(|a| matches!(a, Action::FetchSignatures { .. })).collect::<Vec<_>>()
    };
    let mut round = computed(0);
    let fetch = |n: usize| Action::FetchSignatures { from: maker(n).identity() };
    round.handle_signatures(PERIOD.voting_ends, computed(1).signatures().unwrap().as_bytes());
    assert_eq!(asked(&mut round.clone()), [fetch(1), fetch(2)]);
    round.handle_signatures(PERIOD.voting_ends, computed(2).signatures().unwrap().as_bytes());
    assert_eq!(asked(&mut round), []);
}

#[test]
fn evidence_is_bounded() {
    let mut round = round();
    for n in 0..3 * OTHER_VOTES as u64 {
        let text = maker(1).vote(VALID_AFTER - 100 + n, "x");
        assert_eq!(post(&mut round, EARLY, &text), (200, "Vote stored"), "the latest counts all the same");
    }
    assert_eq!(findings(&actions(&mut round)).len(), OTHER_VOTES);
    assert_eq!(round.ballots.get(&maker(1).identity()).unwrap().others.len(), OTHER_VOTES);
}

#[test]
fn made_up_restarts_hide_no_double_vote() {
    let round = &mut round();
    // Each is published when the one before has been received.
    let begin = EARLY.0 - 20;
    for n in 0..=OTHER_VOTES as u64 {
        let at = begin + n;
        assert_eq!(post(round, Unix(at), &maker(1).vote(at, "restarted")), (200, "Vote stored"));
    }
    assert!(findings(&actions(round)).iter().all(|found| *found == Evidence::Restart));
    let at = begin + 10;
    for text in ["to some", "to others"] {
        post(round, Unix(at), &maker(1).vote(at, text));
    }
    assert_eq!(findings(&actions(round)), [Evidence::Double]);
    let ballot = round.ballots.get(&maker(1).identity()).unwrap();
    assert_eq!(ballot.others.len(), OTHER_VOTES);
    assert!(
        ballot.others.iter().any(|other| other.against(&ballot.seen) == Evidence::Double),
        "the proof is kept"
    );
    assert_eq!(
        Round::from_snapshot(rules(), PERIOD, &round.snapshot()).unwrap().ballots.doubles().count(),
        1
    );
}

#[test]
fn snapshots_restore_votes_and_signatures() {
    let mut round = computed(0);
    round.handle_signatures(PERIOD.voting_ends, computed(1).signatures().unwrap().as_bytes());
    let two = maker(1).vote(EARLY.0, "two");
    round.handle_vote(PERIOD.voting_ends, two.as_bytes(), Whence::Fetched(maker(2).identity()));
    let snapshot = round.snapshot();

    let mut restored = Round::from_snapshot(rules(), PERIOD, &snapshot).unwrap();
    assert_eq!(restored.snapshot().matches("\nvote ").count(), 4);
    assert_eq!(restored.ballots.doubles().count(), 1);
    assert!(actions(&mut restored).is_empty(), "old findings are not reported again");
    timeout(&mut restored, PERIOD.voting_ends);
    assert_eq!(restored.signatures(), round.signatures());
    assert_eq!(restored.snapshot(), snapshot);

    let stale = Round::from_snapshot(
        rules(),
        crate::voting::Period { valid_after: Unix(VALID_AFTER + 20), ..PERIOD },
        &snapshot,
    );
    assert_eq!(stale.err(), Some(SnapshotError::OtherPeriod));
    assert_eq!(Round::from_snapshot(rules(), PERIOD, "").err(), Some(SnapshotError::Version));
    let cut = &snapshot[..snapshot.len() - 1];
    assert!(matches!(Round::from_snapshot(rules(), PERIOD, cut).err(), Some(SnapshotError::Damaged(_))));
}

#[test]
fn votes_that_are_fetched_after_the_consensus_was_computed_do_not_count_after_a_restart() {
    let mut round = Round::new(rules(), PERIOD);
    for n in 0..2 {
        post(&mut round, EARLY, &maker(n).vote(EARLY.0, "someone"));
    }
    timeout(&mut round, PERIOD.voting_ends);
    let mut restored = Round::from_snapshot(rules(), PERIOD, &round.snapshot()).unwrap();
    let third = maker(2).vote(EARLY.0, "someone");
    restored.handle_vote(PERIOD.voting_ends, third.as_bytes(), Whence::Fetched(maker(1).identity()));
    timeout(&mut restored, PERIOD.voting_ends);
    assert!(round.signatures().is_some());
    assert_eq!(restored.signatures(), round.signatures());
}

#[test]
fn what_a_consensus_was_computed_by_outlives_a_restart() {
    let exclude = Rules { doubles: DoublePolicy::Exclude, ..rules() };
    let shared = |fresh| Rules {
        terms: Terms { shared_random: Some(SharedRandomTerms { fresh }), ..rules().terms },
        ..exclude.clone()
    };
    for (before, after) in
        [(exclude.clone(), shared(false)), (shared(true), shared(false)), (shared(false), exclude)]
    {
        let mut round = Round::new(before, PERIOD);
        for n in 0..AUTHORITIES {
            post(&mut round, EARLY, &maker(n).vote(EARLY.0, "someone"));
        }
        timeout(&mut round, PERIOD.voting_ends);
        // One of those that counted turns out to have voted twice.
        let double = maker(2).vote(EARLY.0, "another");
        round.handle_vote(PERIOD.voting_ends, double.as_bytes(), Whence::Fetched(maker(1).identity()));
        assert_eq!(round.ballots.doubles().count(), 1);
        let mut restored = Round::from_snapshot(after, PERIOD, &round.snapshot()).unwrap();
        assert_eq!(restored.settled, round.settled);
        timeout(&mut restored, PERIOD.voting_ends);
        assert!(round.signatures().is_some());
        assert_eq!(restored.signatures(), round.signatures());
    }
    // And one that was excluded stays so.
    let before = Rules { doubles: DoublePolicy::Exclude, ..rules() };
    let mut round = Round::new(before.clone(), PERIOD);
    for (n, contact) in [(0, "x"), (1, "x"), (2, "x"), (2, "y")] {
        post(&mut round, EARLY, &maker(n).vote(EARLY.0, contact));
    }
    timeout(&mut round, PERIOD.voting_ends);
    assert!(round.snapshot().contains(&format!("settled yes none {}\n", maker(2).identity())));
    for rules in [before, rules()] {
        let mut restored = Round::from_snapshot(rules, PERIOD, &round.snapshot()).unwrap();
        timeout(&mut restored, PERIOD.voting_ends);
        assert_eq!(restored.signatures(), round.signatures());
    }
    let damaged = round.snapshot().replace("settled yes none", "settled yes nun");
    let damaged = Round::from_snapshot(rules(), PERIOD, &damaged).err();
    assert!(matches!(damaged, Some(SnapshotError::Damaged(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,100}") {
        let mut round = round();
        let before = round.snapshot();
        for body in [bytes.as_slice(), text.as_bytes(), format!("network-status-version {text}").as_bytes()] {
            prop_assert_eq!(round.handle_vote(EARLY, body, POSTED).status, 400);
            prop_assert_eq!(round.handle_signatures(EARLY, body).status, 400);
        }
        prop_assert!(round.poll_action().is_none());
        prop_assert_eq!(round.snapshot(), before);
        prop_assert!(Round::from_snapshot(rules(), PERIOD, &text).is_err());
    }

    #[test]
    fn damaged_votes_never_count(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let vote = maker(1).vote(EARLY.0, "one");
        let mut bytes = vote.as_bytes().to_vec();
        let at = at.index(vote.rfind("directory-signature ").unwrap());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let mut round = round();
        prop_assert_eq!(round.handle_vote(EARLY, &bytes, POSTED).status, 400);
        prop_assert_eq!(round.votes().count(), 0);
    }

    #[test]
    fn damaged_snapshots_do_not_panic(at in any::<prop::sample::Index>(), byte in 0..128u8) {
        let mut bytes = computed(0).snapshot().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(text) = String::from_utf8(bytes) && let Ok(mut round) = Round::from_snapshot(rules(), PERIOD, &text) {
            timeout(&mut round, PERIOD.valid_after);
            prop_assert!(round.votes().count() <= AUTHORITIES);
        }
    }
}
