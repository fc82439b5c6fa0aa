//! Votes of an authority that signs whatever it likes.

use onionring_dirauth::voting::Period;
use onionring_proto::netdoc::vote::SignedVote;

use crate::now;
use crate::played::sign_text;
use crate::stage::Stage;
use crate::sweep::{Mutant, mutants};

/// What a vote says that would be nonsense in a consensus, beyond what one changed line does.
const NONSENSE: [(&str, &str); 12] = [
    ("params bwweightscale=10000 circwindow=1000", "params bwweightscale=0 circwindow=0"),
    ("params bwweightscale=10000 circwindow=1000", "params bwweightscale=2147483647 circwindow=2147483647"),
    ("params bwweightscale=10000 circwindow=1000", "params bwweightscale=-2147483648 circwindow=-1"),
    ("params bwweightscale=10000 circwindow=1000", "params circwindow=2147483648"),
    ("params bwweightscale=10000 circwindow=1000", "params circwindow=1 circwindow=2"),
    ("params bwweightscale=10000 circwindow=1000", "params x=2147483648"),
    ("p accept 80,443", "p accept 0"),
    ("p accept 80,443", "p accept 0-65535"),
    ("p accept 80,443", "p reject 65536"),
    ("p accept 80,443", "p accept 443-80"),
    ("w Bandwidth=100", "w Bandwidth=4294967295 Measured=4294967295"),
    ("consensus-methods 32 33 34 35", "consensus-methods 0 1 4294967295 4294967296"),
];

#[test]
fn whatever_a_vote_says_it_is_taken_or_refused_with_a_reason() {
    let stage = Stage::start("");
    let mut period = stage.next_period();
    let of = |period: &Period| stage.played[0].unsigned(period, 1, "hostile").encode();
    let count = mutants(&of(&period)).len() + NONSENSE.len();
    let (mut sent, mut taken, mut refused) = (0, 0, 0);
    while sent < count {
        let good = of(&period);
        let nonsense = NONSENSE.iter().map(|(line, instead)| {
            assert!(good.contains(line), "{line}");
            Mutant { what: format!("`{line}` as `{instead}`"), text: good.replacen(line, instead, 1) }
        });
        let all = mutants(&good).into_iter().chain(nonsense);
        stage.vote_well(1, &period);
        for Mutant { what, text } in all.skip(sent) {
            if now().0 + 1 >= period.fetch_votes.0 {
                break;
            }
            sent += 1;
            let vote = sign_text(&stage.played[0].key, &text);
            let (status, reason) = stage.post_vote(&vote);
            let expected: &[&str] = match SignedVote::parse(&vote) {
                Err(_) => &["Unable to parse vote"],
                Ok(vote) if vote.vote.lifetime.valid_after != period.valid_after => &["Bad valid-after time"],
                Ok(_) => &["Vote stored", "Duplicate discarded", "Already have a newer pending vote"],
            };
            assert!(expected.contains(&&*reason), "{what}: {status} {reason}\n{vote}");
            let is_taken = matches!(&*reason, "Vote stored" | "Duplicate discarded");
            assert_eq!(status, if is_taken { 200 } else { 400 }, "{what}");
            *(if is_taken { &mut taken } else { &mut refused }) += 1;
        }
        // Whatever counts of that, the consensus is what anybody computes.
        stage.finish(&period);
        period = stage.next_period();
    }
    assert!(taken > 0 && refused > count / 2, "{taken} were taken, {refused} refused");

    stage.vote_well(0, &period);
    stage.vote_well(1, &period);
    let consensus = stage.finish(&period);
    assert_eq!((consensus.voters.len(), consensus.relays.len()), (3, 2), "and the next one is as ever");
    assert!(!stage.log().contains("panicked"));
}
