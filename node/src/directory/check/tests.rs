use std::time::Duration;

use crate::compress::Accepted;

use super::*;
use crate::directory::testdata::{self, NOW};

fn store() -> CertStore {
    testdata::library().certs().clone()
}

#[test]
fn certificates_of_strangers_and_of_the_past_are_left_out() {
    let all = certs(testdata::CERTS, &testdata::authorities(), NOW);
    assert_eq!((all.fit.len(), all.unfit), (3, 0));
    assert_eq!(all.fit.iter().map(|(_, text)| text.len()).sum::<usize>(), testdata::CERTS.len());
    let of_one = certs(testdata::CERTS, &testdata::authorities()[..1], NOW);
    assert_eq!((of_one.fit.len(), of_one.unfit, of_one.fault), (1, 2, Some(Unfit::Unasked)));
    let late = certs(testdata::CERTS, &testdata::authorities(), NOW + Duration::from_secs(10 * 365 * 86_400));
    assert_eq!((late.fit.len(), late.fault), (0, Some(Unfit::Expired)));
    let broken = testdata::CERTS.replacen("dir-key-published 2", "dir-key-published 3", 1);
    let broken = certs(&broken, &testdata::authorities(), NOW);
    assert!(matches!((broken.fit.len(), broken.fault), (2, Some(Unfit::Malformed(_)))));
}

#[test]
fn only_what_was_asked_for_is_kept() {
    let nothing = BTreeSet::new();
    let got = descriptors(testdata::DESCRIPTORS, &nothing);
    assert_eq!((got.fit.len(), got.fault), (0, Some(Unfit::Unasked)));
    assert_eq!(got.unfit, testdata::descriptors().len());
    let got = microdescs(testdata::MICRODESCS, &BTreeSet::new());
    assert_eq!((got.fit.len(), got.fault), (0, Some(Unfit::Unasked)));
    let one = BTreeSet::from([testdata::descriptors()[1].1.digest]);
    let got = descriptors(testdata::DESCRIPTORS, &one);
    assert_eq!((got.fit.len(), &*got.fit[0].1), (1, testdata::descriptors()[1].0.as_bytes()));
    assert_eq!(descriptors("junk", &one).unfit, 0);
}

#[test]
fn extra_infos_must_go_with_their_descriptors() {
    let (extra_text, extra) = testdata::extra_infos().remove(0);
    let all = testdata::descriptors();
    let descriptor = |n: usize| Blob::from(all[n].0.as_bytes());
    let right = all.iter().position(|(_, d)| d.identity == extra.identity).unwrap();
    let wrong = (right + 1) % all.len();
    let got = extra_infos(extra_text, &BTreeMap::from([(extra.digests.sha1, descriptor(right))]));
    assert_eq!((got.fit.len(), got.fault), (1, None));
    let got = extra_infos(extra_text, &BTreeMap::from([(extra.digests.sha1, descriptor(wrong))]));
    assert_eq!((got.fit.len(), got.fault), (0, Some(Unfit::Mismatch(ExtraInfoMismatch::Keys))));
    let got = extra_infos(extra_text, &BTreeMap::new());
    assert_eq!((got.fit.len(), got.fault), (0, Some(Unfit::Unasked)));
}

#[test]
fn a_consensus_must_be_newer_signed_current_and_of_its_flavour() {
    let (authorities, certs) = (testdata::authorities(), store());
    let judge = |text: &str, flavor, held, certs: &CertStore, now| {
        consensus(text, flavor, held, &authorities, certs, &[], now)
    };
    let good = judge(testdata::CONSENSUS_NS, Flavor::Ns, None, &certs, NOW).unwrap();
    assert_eq!(good.stored.signers.len(), 3);
    // Compressed is only what is served.
    assert!(good.stored.whole.choose(Accepted::IDENTITY).is_none());
    let served = [Encoding::Identity];
    let served =
        consensus(testdata::CONSENSUS_NS, Flavor::Ns, None, &authorities, &certs, &served, NOW).unwrap();
    assert!(served.stored.whole.choose(Accepted::IDENTITY).is_some());
    assert_eq!(&*served.stored.whole.form(Encoding::Identity), testdata::CONSENSUS_NS.as_bytes());
    let valid_after = good.consensus.lifetime.valid_after;
    let refused = |result: Result<CheckedConsensus, ConsensusUnfit>| result.unwrap_err();
    assert!(matches!(
        refused(judge(testdata::CONSENSUS_NS, Flavor::Microdesc, None, &certs, NOW)),
        ConsensusUnfit::Flavor
    ));
    assert!(matches!(
        refused(judge(testdata::CONSENSUS_NS, Flavor::Ns, Some(valid_after), &certs, NOW)),
        ConsensusUnfit::NotNewer
    ));
    assert!(matches!(
        refused(judge(
            testdata::CONSENSUS_NS,
            Flavor::Ns,
            None,
            &certs,
            NOW + Duration::from_secs(7 * 86_400)
        )),
        ConsensusUnfit::NotLive(_)
    ));
    match refused(judge(testdata::CONSENSUS_NS, Flavor::Ns, None, &CertStore::default(), NOW)) {
        ConsensusUnfit::Signatures(shortfall) => assert!(shortfall.certs_may_help()),
        other => panic!("{other}"),
    }
    let forged = testdata::CONSENSUS_NS.replacen("\nparams ", "\nparams forged=1 ", 1);
    let forged = if forged == testdata::CONSENSUS_NS {
        testdata::CONSENSUS_NS.replacen("\nknown-flags ", "\nknown-flags Forged ", 1)
    } else {
        forged
    };
    match refused(judge(&forged, Flavor::Ns, None, &certs, NOW)) {
        ConsensusUnfit::Signatures(shortfall) => assert!(!shortfall.certs_may_help()),
        other => panic!("{other}"),
    }
    assert!(matches!(refused(judge("junk", Flavor::Ns, None, &certs, NOW)), ConsensusUnfit::Malformed(_)));
}
