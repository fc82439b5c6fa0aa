//! A period in which all do what they should.

use crate::stage::Stage;
use crate::wait;

#[test]
fn well_behaved_authorities_agree() {
    let stage = Stage::start("");
    let period = stage.next_period();
    let posted = stage.vote_well(0, &period);
    // The other's is only to be had.
    stage.played[1].desk.lock().unwrap().votes = stage.played[1].vote(&period, 1, "well");

    let ours = wait("the vote is posted to both", || {
        let [one, two] =
            stage.played.each_ref().map(|played| played.votes_of(stage.identity, period.valid_after).pop());
        one.zip(two)
    });
    assert_eq!(ours.0.digest, ours.1.digest, "the same to both");
    assert_eq!(ours.0.vote.authority.identity, stage.identity);
    assert!(ours.0.vote.relays.iter().any(|relay| relay.identity == stage.relay), "it lists itself");

    let (votes, tally) = stage.signed(&period);
    assert_eq!(votes.len(), 3);
    let of_one = stage.get(&format!("/tor/status-vote/next/{}", stage.played[0].identity()));
    assert_eq!(of_one.as_ref(), Some(&posted), "others get what was posted");
    // One posts its signature, and the other's is to be had.
    let [one, two] = stage.played.each_ref().map(|played| played.signatures(&tally).encode());
    assert_eq!(stage.post_signatures(&one), (200, "Signatures added".to_owned()));
    stage.played[1].desk.lock().unwrap().signatures = Some(two);
    let consensus = stage.published(&period, &tally);
    assert_eq!(consensus.voters.len(), 3);
    let path = "/tor/status-vote/current/consensus-microdesc";
    let microdesc = wait("the other flavour is in force", || stage.get(path));
    assert!(microdesc.starts_with(&*tally.microdesc.text));
    let current = stage.get(&format!("/tor/status-vote/current/{}", stage.played[0].identity()));
    assert_eq!(current, Some(posted), "and it is kept with the consensus");
    assert_eq!(stage.errors(), [""; 0]);
    assert!(stage.evidence().is_empty());
}
