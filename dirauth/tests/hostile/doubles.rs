//! Authorities that vote twice.

use onionring_dirauth::voting::{DoublePolicy, Period};
use onionring_proto::netdoc::vote::SignedVote;

use crate::stage::{Stage, word};
use crate::wait;

/// How the two votes of authority `one` arrive, the one published earlier first.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    Posted,
    /// The one published later is posted first.
    PostedNewestFirst,
    /// The second is with another authority.
    PostedAndFetched,
    /// Each is with another authority.
    Fetched,
    /// The second is posted when votes are no longer taken.
    PostedAndLate,
}

#[test]
fn two_votes_are_found_out_whichever_way_they_arrive() {
    let arrivals = [
        Arrival::Posted,
        Arrival::PostedNewestFirst,
        Arrival::PostedAndFetched,
        Arrival::Fetched,
        Arrival::PostedAndLate,
    ];
    // They wait most of the time, so they do it together.
    std::thread::scope(|scope| {
        for arrival in arrivals {
            scope.spawn(move || {
                let stage = Stage::start("");
                let period = stage.next_period();
                let votes = vote_twice(&stage, &period, arrival);
                let consensus = stage.finish(&period);
                assert_eq!(consensus.voters.len(), 3, "{arrival:?}: it counts, as with stock authorities");
                let counted = stage.get(&format!("/tor/status-vote/current/{}", stage.played[0].identity()));
                let counted = votes.iter().position(|vote| Some(vote) == counted.as_ref());
                match arrival {
                    Arrival::Posted | Arrival::PostedNewestFirst => {
                        assert_eq!(counted, Some(1), "{arrival:?}")
                    }
                    Arrival::PostedAndFetched | Arrival::PostedAndLate => {
                        assert_eq!(counted, Some(0), "{arrival:?}")
                    }
                    Arrival::Fetched => assert!(counted.is_some()),
                }
                check_evidence(&stage, &period, &votes, arrival);
            });
        }
    });
}

#[test]
fn the_operator_chooses_what_becomes_of_them() {
    std::thread::scope(|scope| {
        for policy in [DoublePolicy::Exclude, DoublePolicy::Stop] {
            scope.spawn(move || {
                let stage = Stage::start(&format!("AuthDirDoubleVotes {}\n", word(policy)));
                let period = stage.next_period();
                let votes = vote_twice(&stage, &period, Arrival::PostedAndFetched);
                match policy {
                    DoublePolicy::Exclude => excluded(&stage, &period),
                    DoublePolicy::Alert | DoublePolicy::Stop => {
                        stage.over(&period);
                        assert_eq!(stage.in_force(), None, "no consensus");
                        let posted = stage.played[0].signatures_for(period.valid_after);
                        assert!(posted.is_empty(), "and no signature: {posted:?}");
                        assert!(stage.log().contains("this one is set to stop"));
                    }
                }
                check_evidence(&stage, &period, &votes, Arrival::PostedAndFetched);
                // What happened in one period is not held against anybody in the next.
                let period = stage.next_period();
                stage.vote_well(0, &period);
                stage.vote_well(1, &period);
                assert_eq!(stage.finish(&period).voters.len(), 3, "{policy:?}");
            });
        }
    });
}

/// The consensus is that of the other two, which sign it.
fn excluded(stage: &Stage, period: &Period) {
    let signed = wait("signatures", || stage.played[1].signatures_for(period.valid_after).pop());
    let votes = stage.votes();
    assert_eq!(votes.len(), 3, "it is kept, and served");
    let counted = |vote: &&SignedVote| vote.vote.authority.identity != stage.played[0].identity();
    let tally = stage.tally(votes.iter().filter(counted));
    assert_eq!(signed, stage_signatures(stage, period), "the same to both");
    assert_eq!(stage.post_signatures(&stage.played[1].signatures(&tally).encode()).0, 200);
    let consensus = stage.published(period, &tally);
    assert_eq!(consensus.voters.len(), 2);
}

fn stage_signatures(stage: &Stage, period: &Period) -> onionring_proto::netdoc::detached::DetachedSignatures {
    wait("signatures", || stage.played[0].signatures_for(period.valid_after).pop())
}

/// The other authority votes well.
fn vote_twice(stage: &Stage, period: &Period, arrival: Arrival) -> [String; 2] {
    stage.vote_well(1, period);
    let [one, two] = &stage.played;
    let votes = [one.vote(period, 3, "a"), one.vote(period, 2, "b")];
    let stored = (200, "Vote stored".to_owned());
    let serve = |played: &crate::played::Played, vote: &str| {
        played.desk.lock().unwrap().votes = vote.to_owned();
    };
    match arrival {
        Arrival::Posted => {
            votes.iter().for_each(|vote| assert_eq!(stage.post_vote(vote), stored));
            assert_eq!(stage.post_vote(&votes[0]).0, 400, "not the old one again");
        }
        Arrival::PostedNewestFirst => {
            assert_eq!(stage.post_vote(&votes[1]), stored);
            let older = (400, "Already have a newer pending vote".to_owned());
            assert_eq!(stage.post_vote(&votes[0]), older);
        }
        Arrival::PostedAndFetched => {
            assert_eq!(stage.post_vote(&votes[0]), stored);
            serve(two, &votes[1]);
        }
        Arrival::Fetched => {
            serve(one, &votes[0]);
            serve(two, &votes[1]);
        }
        Arrival::PostedAndLate => {
            assert_eq!(stage.post_vote(&votes[0]), stored);
            wait("votes are late", || (crate::now() > period.fetch_votes).then_some(()));
            let late = "Posted vote received too late, would be dangerous to count it";
            assert_eq!(stage.post_vote(&votes[1]), (400, late.to_owned()));
        }
    }
    votes
}

/// Both are on disk as they were signed, the operator knows, and the other authority is told.
fn check_evidence(stage: &Stage, period: &Period, votes: &[String; 2], arrival: Arrival) {
    let files = stage.evidence();
    assert_eq!(files.len(), 2, "{arrival:?}: {files:?}\n{}", stage.log());
    let [one, two] = &stage.played;
    wait("the other is told", || (two.votes_of(one.identity(), period.valid_after).len() == 2).then_some(()));
    assert!(one.votes_of(one.identity(), period.valid_after).is_empty(), "and not the one who voted");
    for vote in votes {
        let digest = SignedVote::parse(vote).unwrap().digest;
        let file = files.iter().find(|name| name.ends_with(&digest.to_string()));
        let file = file.unwrap_or_else(|| panic!("{arrival:?}: {digest} in {files:?}"));
        let kept = std::fs::read_to_string(stage.file(file)).unwrap();
        assert!(kept.starts_with("@received ") && kept.ends_with(vote.as_str()), "{arrival:?}: {kept}");
    }
    let told = format!("authority {} signed two votes for one consensus", stage.played[0].identity());
    assert_eq!(stage.errors().iter().filter(|line| line.contains(&told)).count(), 1, "{:?}", stage.errors());
    assert_eq!(stage.alarms("double_vote"), 1, "{arrival:?}");
}
