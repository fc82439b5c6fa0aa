//! Votes and signatures that are not what they say, and those that come at the wrong time.

use onionring_proto::netdoc::detached::DetachedSignatures;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;

use crate::played::{Played, certificate, key};
use crate::stage::{INTERVAL, Stage};
use crate::{now, wait};

#[test]
fn what_is_forged_early_or_late_is_refused_and_the_period_ends_well() {
    let stage = Stage::start("");
    let period = stage.next_period();
    let [one, two] = &stage.played;
    let stranger = Played {
        name: "stranger",
        key: key(3).clone(),
        certificate: certificate(key(3)),
        dir: one.dir,
        desk: one.desk.clone(),
    };
    let refused = |vote: &str, reason: &str, what: &str| {
        assert_eq!(stage.post_vote(vote), (400, reason.to_owned()), "{what}");
    };
    let unreadable = "Unable to parse vote";
    let good = one.vote(&period, 1, "good");
    refused(&stranger.vote(&period, 1, "good"), "Vote not from a recognized v3 authority", "a stranger");
    refused(&good.replace("contact good", "contact evil"), unreadable, "a changed byte");
    let mut forger = one.unsigned(&period, 1, "good");
    forger.certificate = stranger.certificate.clone();
    refused(&crate::played::sign_text(&two.key, &forger.encode()), unreadable, "another's certificate");
    refused(
        &crate::played::sign_text(&two.key, &one.unsigned(&period, 1, "good").encode()),
        unreadable,
        "another's key",
    );
    refused(&good[..good.len() - 40], unreadable, "half a signature");
    refused("", unreadable, "nothing");
    refused("network-status-version 3\n", unreadable, "a first line");
    let mut later = period;
    later.valid_after = Unix(period.valid_after.0 + INTERVAL);
    refused(&one.vote(&later, 1, "good"), "Bad valid-after time", "early");
    later.valid_after = Unix(period.valid_after.0 - INTERVAL);
    refused(&one.vote(&later, 1, "good"), "Bad valid-after time", "of the last period");
    let garbage = (400, "Couldn't parse detached signatures.".to_owned());
    assert_eq!(stage.post_signatures("garbage"), garbage, "before there is a consensus");

    // One votes in time, and the other not: its vote is had from the first all the same.
    assert_eq!(stage.post_vote(&good).0, 200);
    wait("votes are late", || (now() > period.fetch_votes).then_some(()));
    let late = "Posted vote received too late, would be dangerous to count it";
    refused(&two.vote(&period, 1, "late"), late, "a late vote");

    let (votes, tally) = stage.signed(&period);
    assert_eq!(votes.len(), 2, "the late one does not count");
    let right = one.signatures(&tally);
    let signed_by = |signer: &Played, claimed: Fingerprint| {
        let mut doc = signer.signatures(&tally);
        doc.signatures.iter_mut().for_each(|s| (s.identity, s.signing_key_id) = (claimed, claimed));
        doc
    };
    let forged = |doc: &DetachedSignatures, what: &str| {
        let (status, reason) = stage.post_signatures(&doc.encode());
        assert!(status == 400 && !reason.is_empty(), "{what}: {status} {reason}");
    };
    forged(&signed_by(two, one.identity()), "another's key");
    forged(&signed_by(&stranger, stranger.identity()), "a stranger");
    forged(&DetachedSignatures { ns: [1; 20], microdesc: Some([1; 32]), ..right.clone() }, "other digests");
    let mut flipped = right.clone();
    flipped.signatures.iter_mut().for_each(|s| s.signature[40] ^= 1);
    forged(&flipped, "a changed bit");
    let mut early = right.clone();
    early.lifetime.valid_after = Unix(period.valid_after.0 + INTERVAL);
    forged(&early, "of another period");
    assert_eq!(stage.post_signatures("garbage"), garbage);

    assert_eq!(stage.post_signatures(&right.encode()), (200, "Signatures added".to_owned()));
    assert_eq!(stage.post_signatures(&right.encode()), (200, "Signatures ignored".to_owned()), "again");
    let consensus = stage.published(&period, &tally);
    assert_eq!(consensus.voters.len(), 2);
    assert!(stage.evidence().is_empty());
}
