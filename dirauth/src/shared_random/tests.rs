use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;

/// Written by one authority of three, running C tor 0.4.9.11 with a round each 12 s: before the last round of a run, and
/// before the first of the next.
const REVEALED: &str = include_str!("../testdata/sr-state-reveal.txt");
const NEXT_RUN: &str = include_str!("../testdata/sr-state-commit.txt");
/// What one of them voted that had revealed its own number and heard of no other's; then the one that wrote the states.
const VOTES: &str = include_str!("../testdata/sr-votes.txt");
const INTERVAL: Duration = Duration::from_secs(12);
const LAST_ROUND: Unix = Unix(1_795_801_236);
const FIRST_ROUND: Unix = Unix(1_795_801_248);

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn recorded(state: &str, now: Unix) -> SharedRandom {
    SharedRandom::read(state, now, INTERVAL).unwrap()
}

fn authorities() -> [Fingerprint; 3] {
    let hex = [
        "02086898961024DCA086118DB073876696470F1C",
        "34855680BB464BD6A641CE9725A174A240BD2D5D",
        "E1548A54D8E52FF6DEAE069DDBC83AEC1E101537",
    ];
    hex.map(|hex| Fingerprint::from_hex(hex).unwrap())
}

#[test]
fn a_run_of_c_tor_ends_in_the_value_it_computed() {
    let mut state = recorded(REVEALED, LAST_ROUND);
    let next = recorded(NEXT_RUN, FIRST_ROUND);
    assert_eq!((state.phase(), next.phase()), (Phase::Reveal, Phase::Commit));
    assert!(state.commits.values().all(Commit::is_kept));
    assert!(!state.prepare(LAST_ROUND, INTERVAL, authorities()[1], &authorities(), &mut rng()));
    assert!(state.prepare(FIRST_ROUND, INTERVAL, authorities()[1], &authorities(), &mut rng()));
    assert_eq!(state.values(), next.values());
    assert_eq!(state.current.unwrap().reveals, 3);
    assert!(state.is_fresh());
    // A commitment of an authority that is no longer one counts for nothing.
    let mut fewer = recorded(REVEALED, LAST_ROUND);
    fewer.prepare(FIRST_ROUND, INTERVAL, authorities()[1], &authorities()[..2], &mut rng());
    assert_eq!(fewer.current.unwrap().reveals, 2);
}

#[test]
fn the_value_of_no_reveals_is_that_of_c_tor() {
    let mut state = SharedRandom::new(LAST_ROUND, INTERVAL);
    state.prepare(FIRST_ROUND, INTERVAL, authorities()[0], &authorities(), &mut rng());
    assert_eq!(state.values().1, recorded(NEXT_RUN, FIRST_ROUND).values().0);
}

#[test]
fn what_is_voted_is_what_c_tor_votes() {
    let mut revealing = recorded(REVEALED, LAST_ROUND);
    for other in &authorities()[1..] {
        revealing.commits.get_mut(other).unwrap().reveal = None;
    }
    let states = [revealing, recorded(REVEALED, LAST_ROUND), recorded(NEXT_RUN, LAST_ROUND)];
    let votes: Vec<&str> = VOTES.split("\n\n").map(|vote| vote.trim_end_matches('\n')).collect();
    assert_eq!(states.map(|state| state.vote().to_string().trim_end_matches('\n').to_owned()), votes[..]);
}

#[test]
fn states_survive_being_written() {
    for text in [REVEALED, NEXT_RUN] {
        let state = recorded(text, LAST_ROUND);
        let written = state.write();
        assert_eq!(recorded(&written, LAST_ROUND), state);
        for line in text.lines().filter(|l| !l.starts_with(['#', 'T']) && !l.starts_with("ValidUntil")) {
            assert!(written.contains(line), "{line}");
        }
    }
}

#[test]
fn a_state_of_another_run_or_damaged_is_not_used() {
    let read = |text: &str, now| SharedRandom::read(text, Unix(now), INTERVAL).unwrap_err();
    assert_eq!(read(REVEALED, FIRST_ROUND.0 + 1), StateError::OtherRun);
    assert_eq!(read(REVEALED, LAST_ROUND.0 - 25), StateError::OtherRun);
    assert_eq!(read("", 0), StateError::Version);
    assert_eq!(read(&REVEALED.replace("Version 1", "Version 2"), 0), StateError::Version);
    assert_eq!(read(&REVEALED.replace("ValidAfter", "ValidSince"), 0), StateError::NoTime);
    let twice = format!("{REVEALED}SharedRandCurrentValue 0 zxJao+gBmFMSezvz/VXkEWEQJD5b/z+7AXNCGoLFVW0=\n");
    assert_eq!(read(&twice, 0), StateError::Line("SharedRandCurrentValue"));
    assert_eq!(read(&REVEALED.replace("zxJao", "zx"), 0), StateError::Line("SharedRandCurrentValue"));
    let commit = REVEALED.lines().find(|l| l.starts_with("Commit")).unwrap();
    let many: String =
        (0..65).map(|n| format!("{}\n", commit.replace("34855680", &format!("{n:08X}")))).collect();
    assert_eq!(read(&format!("{REVEALED}{many}"), LAST_ROUND.0), StateError::TooManyCommits);
    let bad = REVEALED.replace("sha3-256 34855680", "sha3-512 34855680");
    assert_eq!(recorded(&bad, LAST_ROUND).commits.len(), 2);
}

#[test]
fn three_authorities_agree_over_a_whole_run() {
    let ids = authorities();
    let start = Unix(FIRST_ROUND.0 - 24 * 12);
    let mut states = ids.map(|_| SharedRandom::new(start, INTERVAL));
    let mut rng = rng();
    for round in 0..=24u64 {
        let valid_after = Unix(start.0 + 12 * round);
        for (state, us) in states.iter_mut().zip(ids) {
            // Each authority restarts once in the run.
            if round == 5 {
                let now = Unix(valid_after.0 - 1);
                let again = SharedRandom::read(&state.write(), now, INTERVAL).unwrap();
                assert_eq!(again, *state);
                *state = again;
            }
            assert!(state.prepare(valid_after, INTERVAL, us, &ids, &mut rng));
        }
        let votes = states.clone().map(|state| state.vote());
        assert!(round >= 12 || votes.iter().all(|v| v.commits.iter().all(|c| c.split(' ').count() == 4)));
        for state in &mut states {
            for (voter, vote) in ids.iter().zip(&votes) {
                for commit in &vote.commits {
                    state.receive(voter, &Commit::parse(commit).unwrap(), &ids);
                }
            }
        }
    }
    let values = states.clone().map(|state| state.values().1.unwrap());
    assert_eq!(values[0].reveals, 3);
    assert!(values.iter().all(|v| *v == values[0]));
    states[0].adopt(None, Some(values[1]));
    assert_eq!((states[0].is_fresh(), states[0].values()), (false, (None, Some(values[1]))));
}

#[test]
fn each_authority_speaks_for_itself_and_once() {
    let [us, other, third] = authorities();
    let mut rng = rng();
    let mut state = SharedRandom::new(FIRST_ROUND, INTERVAL);
    state.prepare(FIRST_ROUND, INTERVAL, us, &[us, other], &mut rng);
    let theirs = Commit::generate(other, FIRST_ROUND, &mut rng);
    let hidden = Commit::parse(&theirs.arguments(false)).unwrap();
    let altered = Commit::generate(other, FIRST_ROUND, &mut rng);

    assert_eq!(state.receive(&us, &hidden, &[us, other]), Received::NotItsOwn);
    assert_eq!(state.receive(&other, &hidden, &[us, third]), Received::UnknownAuthority);
    assert_eq!(state.receive(&other, &theirs, &[us, other]), Received::OutOfPhase);
    assert_eq!(state.receive(&other, &hidden, &[us, other]), Received::Committed);
    assert_eq!(state.receive(&other, &hidden, &[us, other]), Received::Known);
    assert_eq!(state.receive(&other, &altered, &[us, other]), Received::Altered);

    let reveal_round = Unix(FIRST_ROUND.0 + 12 * 12);
    state.prepare(reveal_round, INTERVAL, us, &[us, other, third], &mut rng);
    let late = Commit::generate(third, FIRST_ROUND, &mut rng);
    assert_eq!(state.receive(&third, &late, &[us, other, third]), Received::OutOfPhase);
    assert_eq!(state.receive(&other, &hidden, &[us, other]), Received::Known);
    assert_eq!(state.receive(&other, &altered, &[us, other]), Received::Altered);
    for wrong in [altered.reveal.clone(), late.reveal.clone()] {
        let mut lie = hidden.clone();
        lie.reveal = wrong;
        assert_eq!(state.receive(&other, &lie, &[us, other]), Received::WrongReveal);
    }
    assert_eq!(state.receive(&other, &theirs, &[us, other]), Received::Revealed);
    assert_eq!(state.receive(&other, &theirs, &[us, other]), Received::Known);
}

#[test]
fn an_authority_that_was_stopped_for_a_day_begins_anew() {
    let [us, ..] = authorities();
    let mut state = SharedRandom::new(FIRST_ROUND, INTERVAL);
    state.prepare(FIRST_ROUND, INTERVAL, us, &[us], &mut rng());
    let old = state.commits[&us].clone();
    state.prepare(Unix(FIRST_ROUND.0 + 24 * 12 + 36), INTERVAL, us, &[us], &mut ChaCha8Rng::seed_from_u64(2));
    assert_ne!(state.commits[&us], old);
    assert_eq!(state.values(), (None, None));
}

#[test]
fn an_authority_that_was_stopped_until_a_later_reveal_phase_makes_no_value() {
    let [us, ..] = authorities();
    let reveal = |run: u64| Unix(FIRST_ROUND.0 + (24 * run + 12) * 12);
    let mut state = SharedRandom::new(FIRST_ROUND, INTERVAL);
    state.prepare(FIRST_ROUND, INTERVAL, us, &[us], &mut rng());
    state.prepare(reveal(0), INTERVAL, us, &[us], &mut rng());
    let in_force = Srv { reveals: 3, value: [7; 32] };
    state.adopt(None, Some(in_force));
    assert!(state.prepare(reveal(1), INTERVAL, us, &[us], &mut rng()));
    assert_eq!((state.values(), state.is_fresh()), ((None, Some(in_force)), false));
    assert!(state.commits.is_empty(), "what was committed to in another run is not revealed in this");
    // At the end of a run there is one to make.
    assert!(state.prepare(Unix(reveal(2).0 + 12 * 12), INTERVAL, us, &[us], &mut rng()));
    assert!(state.is_fresh());
}

#[test]
fn a_run_goes_on_when_the_network_begins_to_vote_less_often() {
    let [us, ..] = authorities();
    let (short, long) = (Duration::from_secs(150), Duration::from_secs(300));
    // A run of the long interval begins here, and one of the short ends an hour later.
    let begin = 7200 * 249_000;
    let mut state = SharedRandom::new(Unix(begin + 10), short);
    state.prepare(Unix(begin + 150), short, us, &[us], &mut rng());
    let commits = state.commits.clone();
    for round in 1..24 {
        assert!(state.prepare(Unix(begin + 300 * round), long, us, &[us], &mut ChaCha8Rng::seed_from_u64(2)));
        assert_eq!(state.commits, commits, "round {round}");
    }
    assert_eq!(state.values(), (None, None));
    state.prepare(Unix(begin + 7200), long, us, &[us], &mut ChaCha8Rng::seed_from_u64(2));
    assert_eq!(state.values().1.unwrap().reveals, 1);
    assert_ne!(state.commits, commits);
}

#[test]
fn our_number_is_in_no_debug_output() {
    let commit = Commit::generate(authorities()[0], FIRST_ROUND, &mut rng());
    let number = commit.reveal.as_ref().unwrap().base64.to_string();
    assert!(!format!("{commit:?}").contains(&number));
}

proptest! {
    #[test]
    fn any_text_is_a_state_or_an_error(text in "(Commit|Version|ValidAfter|SharedRandCurrentValue|[ 0-9A-F:\n=-]){0,60}") {
        let _ = SharedRandom::read(&text, LAST_ROUND, INTERVAL);
        let _ = Commit::parse(&text);
        let _ = Srv::parse(&text);
    }

    #[test]
    fn commitments_survive_being_written(seed: u64, identity: [u8; 20], at in 0u64..1 << 40) {
        let commit = Commit::generate(Fingerprint(identity), Unix(at), &mut ChaCha8Rng::seed_from_u64(seed));
        prop_assert!(commit.is_kept());
        prop_assert_eq!(Commit::parse(&commit.arguments(true)).unwrap(), commit);
    }

    #[test]
    fn rounds_fill_runs(valid_after in any::<u64>(), seconds in 1u64..100_000) {
        let interval = Duration::from_secs(seconds);
        let end = end_of_run(Unix(valid_after), interval);
        prop_assert!(end.0 > valid_after || end.0 == u64::MAX);
        prop_assert!(end.0 == u64::MAX || round(end, interval) == 0);
    }
}
