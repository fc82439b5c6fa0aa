//! A recorded round of three stock authorities, followed by one that does not vote.

use onionring_proto::netdoc::consensus::Flavor;
use onionring_proto::netdoc::tally::{SharedRandomTerms, Terms};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::netdoc::vote::{SignedVote, split};
use onionring_proto::time::Unix;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::maker::maker;
use crate::voting::{Action, Alarm, DoublePolicy, NoConsensus, Period, Round, Rules, Whence};

macro_rules! recorded {
    ($file:literal) => {
        include_str!(concat!("../../../../proto/src/netdoc/testdata/votes/three/", $file))
    };
}

const VOTES: &str = recorded!("votes.txt");
const SIGNATURES: &str = recorded!("detached.txt");
const CONSENSUSES: [(Flavor, &str); 2] =
    [(Flavor::Ns, recorded!("consensus.txt")), (Flavor::Microdesc, recorded!("consensus_microdesc.txt"))];

fn authorities() -> Vec<Fingerprint> {
    split(VOTES).map(|vote| SignedVote::parse(vote).unwrap().vote.authority.identity).collect()
}

fn period() -> Period {
    let valid_after = SignedVote::parse(split(VOTES).next().unwrap()).unwrap().vote.lifetime.valid_after;
    let before = |seconds| Unix(valid_after.0 - seconds);
    Period {
        voting_starts: before(8),
        fetch_votes: before(6),
        voting_ends: before(4),
        fetch_signatures: before(2),
        valid_after,
    }
}

fn round() -> Round {
    let terms = Terms { authorities: 3, shared_random: Some(SharedRandomTerms { fresh: false }) };
    let (authorities, us) = (authorities(), maker(0).identity());
    Round::new(
        Rules { authorities, us, terms, doubles: DoublePolicy::Alert, compare: true, testing: true },
        period(),
    )
}

fn timeout(round: &mut Round, now: Unix) -> Vec<Action> {
    round.handle_timeout(now, &maker(0).signer, &mut ChaCha8Rng::seed_from_u64(3));
    std::iter::from_fn(|| round.poll_action()).collect()
}

fn fetched() -> Whence {
    Whence::Fetched(authorities()[0])
}

#[test]
fn votes_and_signatures_of_stock_authorities_make_their_consensus() {
    let mut round = round();
    assert_eq!(round.handle_vote(period().fetch_votes, VOTES.as_bytes(), fetched()).reason, "Vote stored");
    // They are early.
    round.handle_signatures(period().fetch_votes, SIGNATURES.as_bytes());
    let done = timeout(&mut round, period().voting_ends);
    assert!(!done.iter().any(|action| matches!(action, Action::PostSignatures { .. })), "we are no voter");
    assert_eq!(round.signatures().as_deref(), Some(SIGNATURES));
    let done = timeout(&mut round, period().valid_after);
    let consensuses = CONSENSUSES.map(|(flavor, text)| (flavor, text.to_owned()));
    assert_eq!(done.last(), Some(&Action::Publish(consensuses.to_vec())));
}

#[test]
fn signatures_on_a_consensus_of_other_votes_are_an_alarm() {
    let mut round = round();
    for vote in split(VOTES).take(2) {
        round.handle_vote(period().fetch_votes, vote.as_bytes(), fetched());
    }
    timeout(&mut round, period().voting_ends);
    let answer = round.handle_signatures(period().voting_ends, SIGNATURES.as_bytes());
    assert_eq!((answer.status, answer.reason), (400, "Mismatched digest."));
    let done = timeout(&mut round, period().valid_after);
    for authority in &authorities()[..2] {
        assert!(done.contains(&Action::Alarm(Alarm::OtherConsensus(*authority))));
    }
    let none = NoConsensus::TooFewSignatures { signed: 0, needed: 2 };
    assert_eq!(done.last(), Some(&Action::NoConsensus(none)));
}
