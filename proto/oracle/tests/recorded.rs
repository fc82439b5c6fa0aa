//! The documents that the protocol crate's own tests use, recorded from a network of stock tor.

use onionring_oracle::check::{Answers, damaged, good};
use onionring_oracle::compare::{Outcome, compare};
use onionring_oracle::forge::Forge;
use onionring_oracle::{Document, Kind};

fn recorded() -> Vec<Document> {
    let answers = Answers {
        certs: include_str!("../../src/netdoc/testdata/certs.txt").into(),
        descriptors: include_str!("../../src/netdoc/testdata/descriptors.txt").into(),
        extra_infos: include_str!("../../src/netdoc/testdata/extrainfos.txt").into(),
        microdescs: include_str!("../../src/netdoc/testdata/microdescs.txt").into(),
        consensuses: vec![
            include_str!("../../src/netdoc/testdata/consensus.txt").into(),
            include_str!("../../src/netdoc/testdata/consensus_microdesc.txt").into(),
        ],
    };
    answers.documents()
}

#[test]
fn both_readers_read_the_same() {
    let documents = recorded();
    let count = |kind| documents.iter().filter(|d| d.kind == kind).count();
    let kinds = [Kind::AuthCert, Kind::Descriptor, Kind::ExtraInfo, Kind::Microdesc, Kind::Consensus];
    assert_eq!(kinds.map(count), [3, 7, 7, 7, 2]);
    good(&documents);
    good(&[Forge::new().everything()]);
}

/// What the damage is done to must be good before.
#[test]
fn forged_documents_are_as_good_as_real_ones() {
    let mut forge = Forge::new();
    let with_one_signer = |d: &&Document| !matches!(d.kind, Kind::Microdesc | Kind::Consensus);
    for document in recorded().iter().filter(with_one_signer) {
        let body = forge.disguise(document.kind, &document.text);
        let descriptor = forge.disguise(Kind::Descriptor, &document.beside);
        let forged = forge.seal(document.kind, &body, &descriptor);
        let outcome = compare(&forged);
        assert!(matches!(outcome, Outcome::Same(_)), "{outcome:?}\n{}", forged.text);
    }
}

fn damage(rounds: usize, seed: u64) -> onionring_oracle::check::Tally {
    let mut documents = recorded();
    documents.push(Forge::new().everything());
    let tally = damaged(&documents, rounds, seed);
    let kinds_with_two_ways = 3;
    assert_eq!(tally.all(), (5 + kinds_with_two_ways) * rounds);
    tally
}

#[test]
fn damaged_documents_are_read_alike() {
    damage(400, 1).check();
}

/// Takes minutes; also finds reasons in the list of differences that are none any more.
#[test]
#[ignore = "takes minutes"]
fn many_damaged_documents_are_read_alike() {
    let tally = damage(
        std::env::var("R").map_or(20000, |r| r.parse().unwrap()),
        std::env::var("SEED").map_or(2, |r| r.parse().unwrap()),
    );
    tally.check();
    assert!(tally.idle().is_empty(), "nothing disagrees any more because: {:#?}", tally.idle());
}
