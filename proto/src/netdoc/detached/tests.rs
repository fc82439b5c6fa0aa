use proptest::prelude::*;

use super::*;
use crate::netdoc::authcert::CertStore;
use crate::netdoc::consensus::{Added, SignaturesRefused, UnverifiedConsensus};
use crate::netdoc::tally::{SharedRandomTerms, Tally, Terms};
use crate::netdoc::testdata::votes::{self, Recording};
use crate::netdoc::vote::SignedVote;
use crate::netdoc::vote::random::{as_signed, certificate, key, plain};
use crate::time::Unix;

const TEXT: &str = votes::THREE.detached;
/// When the recorded certificates were current.
const NOW: Unix = Unix(1_795_802_000);

fn terms(authorities: usize) -> Terms {
    Terms { authorities, shared_random: Some(SharedRandomTerms { fresh: false }) }
}

fn certs(votes: &[SignedVote]) -> CertStore {
    let mut store = CertStore::default();
    votes.iter().for_each(|v| store.insert(v.vote.certificate.cert().clone()));
    store
}

/// The recorded round: both consensuses, unsigned, and the certificates of the voters.
fn round(recording: &Recording) -> (PendingConsensus, PendingConsensus, CertStore) {
    let votes = votes::parsed(recording.votes);
    let Tally { ns, microdesc, .. } = Tally::of(&votes, &terms(recording.authorities)).unwrap();
    (PendingConsensus::new(ns), PendingConsensus::new(microdesc), certs(&votes))
}

#[test]
fn recorded_signatures_make_the_recorded_documents() {
    for recording in votes::signed() {
        let (mut ns, mut microdesc, certs) = round(&recording);
        let detached = DetachedSignatures::parse(recording.detached).unwrap();
        assert_eq!(detached.encode(), recording.detached);
        let all = recording.authorities;
        for (pending, theirs) in [(&mut ns, recording.ns), (&mut microdesc, recording.microdesc)] {
            let added = pending.add(&detached, &certs, NOW).unwrap();
            assert_eq!(added, Added { new: all, ..Added::default() }, "{}", recording.name);
            votes::same_lines(recording.name, &pending.text(), theirs);
            let authorities: Vec<Fingerprint> = pending.signers().copied().collect();
            assert!(pending.is_complete(&authorities));
            let read = UnverifiedConsensus::parse(&pending.text()).unwrap();
            assert_eq!(read.check(&authorities, &certs, NOW), Ok(()));
        }
        assert_eq!(DetachedSignatures::of(&ns, &microdesc), Some(detached));
        assert_eq!(DetachedSignatures::of(&microdesc, &ns), None);
    }
}

#[test]
fn signatures_are_added_once_and_only_if_right() {
    let (mut ns, _, certs) = round(&votes::THREE);
    let detached = DetachedSignatures::parse(TEXT).unwrap();
    let ours = |n: usize| {
        let mut part = detached.clone();
        part.signatures.retain(|s| s.flavor == Flavor::Ns);
        part.signatures.truncate(n);
        part
    };
    let all: Vec<Fingerprint> = certs.iter().map(|c| c.identity).collect();
    assert_eq!(ns.add(&ours(1), &certs, NOW), Ok(Added { new: 1, ..Added::default() }));
    assert!(!ns.is_complete(&all));
    // A wrong signature, one that is known, one by a key without certificate, one by a stranger.
    let mut bad = ours(3);
    bad.signatures[1].signature[7] ^= 1;
    bad.signatures[2].signing_key_id = Fingerprint([0; 20]);
    let stranger = DetachedSignature { identity: Fingerprint([9; 20]), ..bad.signatures[0].clone() };
    bad.signatures.push(stranger);
    let before = ns.clone();
    assert_eq!(ns.add(&bad, &certs, NOW), Ok(Added { known: 1, unverified: 2, strangers: 1, new: 0 }));
    assert_eq!(ns, before);
    // Expired certificates do not help.
    let late = Unix(NOW.0 + 2 * 366 * 86_400);
    assert_eq!(ns.add(&ours(2), &certs, late).unwrap().unverified, 1);
    assert_eq!(ns.add(&ours(2), &certs, NOW), Ok(Added { new: 1, known: 1, ..Added::default() }));
    assert!(ns.is_complete(&all) && !ns.is_complete(&[]));
    // Two of four are not more than half; others than the configured ones do not count.
    let four: Vec<Fingerprint> = all.iter().copied().chain([Fingerprint([9; 20])]).collect();
    assert!(!ns.is_complete(&four));
}

#[test]
fn signatures_for_another_consensus_are_refused() {
    let (mut ns, mut microdesc, certs) = round(&votes::THREE);
    let good = DetachedSignatures::parse(TEXT).unwrap();
    let mut other_time = good.clone();
    other_time.lifetime.valid_until = Unix(other_time.lifetime.valid_until.0 + 1);
    assert_eq!(ns.add(&other_time, &certs, NOW), Err(SignaturesRefused::Lifetime));
    let mut other_digest = good.clone();
    other_digest.ns[0] ^= 1;
    assert_eq!(ns.add(&other_digest, &certs, NOW), Err(SignaturesRefused::Digest));
    assert!(microdesc.add(&other_digest, &certs, NOW).is_ok());
    let no_digest = DetachedSignatures { microdesc: None, ..good };
    assert_eq!(microdesc.add(&no_digest, &certs, NOW), Err(SignaturesRefused::NoDigest));
    assert_eq!(ns.signers().count(), 0);
}

#[test]
fn what_we_sign_others_can_check() {
    let mut vote = plain(1);
    vote.certificate = certificate(&key());
    vote.authority.identity = vote.certificate.cert().identity;
    let votes = [as_signed(vote)];
    let cert = votes[0].vote.certificate.cert();
    let store = certs(&votes);
    let rng = &mut <rand_chacha::ChaCha8Rng as rand_chacha::rand_core::SeedableRng>::seed_from_u64(1);
    let now = Unix(1_795_345_000);
    let tally = Tally::of(&votes, &terms(1)).unwrap();
    let sign = |consensus| {
        let mut pending = PendingConsensus::new(consensus);
        pending.sign(cert, &key(), rng).unwrap();
        let read = UnverifiedConsensus::parse(&pending.text()).unwrap();
        assert_eq!(read.check(&[cert.identity], &store, now), Ok(()));
        pending
    };
    let [ns, microdesc] = [tally.ns.clone(), tally.microdesc].map(sign);
    let sent = DetachedSignatures::of(&ns, &microdesc).unwrap().encode();
    let mut theirs = PendingConsensus::new(tally.ns);
    theirs.add(&DetachedSignatures::parse(&sent).unwrap(), &store, now).unwrap();
    assert_eq!(theirs, ns);
}

#[test]
fn forms_that_must_parse_and_forms_that_must_not() {
    let parse = |text: &str| DetachedSignatures::parse(text).map_err(|e| e.fault);
    let good = parse(TEXT).unwrap();
    assert_eq!(good.signatures.len(), 6);
    let swap = |from: &str, to: &str| {
        assert!(TEXT.contains(from));
        parse(&TEXT.replacen(from, to, 1))
    };
    // What is not known is passed over, and so is what is there twice.
    let later = "additional-digest later sha256 00\nadditional-digest microdesc sha512 00\n";
    assert_eq!(swap("additional-digest", &format!("{later}additional-digest")), Ok(good.clone()));
    assert_eq!(
        swap("additional-signature microdesc", "additional-signature later").unwrap().signatures.len(),
        5
    );
    let first = &TEXT[TEXT.find("additional-signature").unwrap()..];
    let first = &first[..first.find("-----END SIGNATURE-----\n").unwrap() + 24];
    assert_eq!(parse(&format!("{TEXT}{first}")), Ok(good.clone()));
    let no_digest: String =
        TEXT.lines().filter(|l| !l.starts_with("additional-digest")).map(|l| format!("{l}\n")).collect();
    assert_eq!(parse(&no_digest).unwrap().digest(Flavor::Microdesc), None);
    assert!(matches!(swap("consensus-digest ", "consensus-digest 0"), Err(Fault::BadValue { .. })));
    assert!(matches!(swap("microdesc sha256 ", "microdesc sha256 x"), Err(Fault::BadValue { .. })));
    assert!(matches!(swap("valid-after 2", "valid-after x"), Err(Fault::BadValue { .. })));
    assert!(matches!(swap("consensus-digest", "digest"), Err(Fault::Missing(DIGEST))));
    assert!(matches!(swap("BEGIN SIGNATURE", "BEGIN X"), Err(Fault::BadObject(_))));
    let only_ours = &TEXT[..TEXT.find("\ndirectory-signature").unwrap() + 1];
    assert_eq!(parse(only_ours), Err(Fault::Missing(SIGNATURE)));
    let id = |n: usize| Fingerprint([n as u8; 20]);
    let object = "-----BEGIN SIGNATURE-----\nAAAA\n-----END SIGNATURE-----\n";
    let many: String =
        (0..129).map(|n| format!("directory-signature {} {}\n{object}", id(n), id(n))).collect();
    assert!(matches!(parse(&format!("{TEXT}{many}")), Err(Fault::TooLarge { size: 129, max: 128 })));
}

proptest! {
    #[test]
    fn mutated_ones_never_panic(at in any::<prop::sample::Index>(), with in "[ -~\n]{0,3}") {
        let mut text = TEXT.to_owned();
        let at = at.index(text.len());
        text.replace_range(at..at + 1, &with);
        if let Ok(read) = DetachedSignatures::parse(&text) {
            prop_assert_eq!(DetachedSignatures::parse(&read.encode()), Ok(read));
        }
    }
}
