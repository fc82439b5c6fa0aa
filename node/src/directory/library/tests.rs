use super::*;
use crate::directory::testdata::{self, NOW};

#[test]
fn nothing_is_missing_from_a_whole_library() {
    let library = testdata::library();
    assert!(library.missing_descriptors().is_empty());
    assert!(library.missing_extra_infos().is_empty());
    assert!(library.missing_microdescs().is_empty());
    let (consensus, microdescs) = library.network().unwrap();
    assert_eq!(microdescs.len(), consensus.relays.len());
}

#[test]
fn an_empty_library_misses_what_its_consensuses_name() {
    let full = testdata::library();
    let mut library = Library::default();
    assert!(library.missing_descriptors().is_empty() && library.network().is_none());
    for (flavor, text) in
        [(Flavor::Ns, testdata::CONSENSUS_NS), (Flavor::Microdesc, testdata::CONSENSUS_MICRODESC)]
    {
        let checked = super::super::check::consensus(
            text,
            flavor,
            None,
            &testdata::authorities(),
            full.certs(),
            &[],
            NOW,
        );
        library.set_consensus(checked.unwrap(), NOW);
    }
    let relays = library.consensus(Flavor::Ns).unwrap().relays.len();
    assert_eq!((library.missing_descriptors().len(), library.missing_microdescs().len()), (relays, relays));
    assert!(library.missing_extra_infos().is_empty(), "no descriptor names one yet");
}

#[test]
fn a_newer_descriptor_becomes_the_current_one_and_the_older_stays_by_digest() {
    let mut library = testdata::library();
    let (text, mut newer) = testdata::descriptors().remove(0);
    let old = newer.digest;
    newer.digest = Fingerprint([9; 20]);
    newer.published = newer.published + Duration::from_secs(1);
    library.add_descriptors(vec![(newer.clone(), Blob::from(format!("{text}\n").as_bytes()))], NOW);
    let snapshot = library.snapshot();
    assert_eq!(snapshot.descriptors.current(&newer.identity).unwrap().published, newer.published);
    assert!(snapshot.descriptors.by_digest(&old).is_some());
    assert_eq!(snapshot.descriptors.len(), testdata::descriptors().len() + 1);
    assert_eq!(snapshot.descriptors.all().len(), testdata::descriptors().len());
}

#[test]
fn what_no_consensus_names_any_more_goes_in_time() {
    let mut library = testdata::library();
    let (text, mut stray) = testdata::descriptors().remove(0);
    stray.digest = Fingerprint([9; 20]);
    library.add_descriptors(vec![(stray, Blob::from(text.as_bytes()))], NOW);
    library.expire(NOW + KEEP_UNLISTED);
    assert!(library.has_descriptor(&Fingerprint([9; 20])));
    library.expire(NOW + KEEP_UNLISTED + Duration::from_secs(1));
    assert!(!library.has_descriptor(&Fingerprint([9; 20])));
    assert_eq!(library.extra_info_texts().count(), 0, "an extra-info goes with its descriptor");
    library.expire(Unix(u64::from(u32::MAX)));
    assert_eq!(library.cert_texts().count(), 0);
}
