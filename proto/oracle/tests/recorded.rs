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

/// Damages every recorded document, and one with all lines that onionring writes.
fn damage(rounds: usize, seed: u64) {
    let mut documents = recorded();
    documents.push(Forge::new().everything());
    damaged(&documents, rounds, seed).check();
}

#[test]
fn damaged_documents_are_read_alike() {
    damage(400, 1);
}

#[test]
#[ignore = "takes minutes"]
fn many_damaged_documents_are_read_alike() {
    damage(20_000, 2);
}

/// Where onionring was at fault once: documents that both readers take, and such as both refuse.
#[test]
fn mended_faults_stay_mended() {
    let mut forge = Forge::new();
    let recorded = recorded();
    let of = |kind| recorded.iter().filter(move |d| d.kind == kind);
    let change = |document: &Document, from: &str, to: &str| {
        assert!(document.text.contains(from), "{from}");
        Document { text: document.text.replacen(from, to, 1), ..document.clone() }
    };
    let (plain, microdesc) = (of(Kind::Consensus).next().unwrap(), of(Kind::Microdesc).next().unwrap());
    let exit = of(Kind::Microdesc).find(|d| d.text.contains("\np accept")).unwrap();
    let cert = forge.disguise(Kind::AuthCert, &of(Kind::AuthCert).next().unwrap().text);
    let taken = [
        change(exit, "\np accept", "\np  accept"),
        change(plain, "Relay=2-6", "Relay=2-6 Relay=2-6"),
        change(plain, "Relay=2-6", "Relay=02-006"),
        change(
            of(Kind::Microdesc).find(|d| d.text.contains("\nfamily $")).unwrap(),
            "\nfamily $",
            "\nfamily ",
        ),
    ];
    for document in &taken {
        let outcome = compare(document);
        assert!(matches!(outcome, Outcome::Same(_)), "{outcome:?}\n{}", document.text);
    }
    let refused = [
        forge.seal(Kind::AuthCert, &cert.replace("\ndir-signing-key\n", "\ndir-signing-key 1\n"), ""),
        change(microdesc, "\nM", "\n*"),
    ];
    for document in &refused {
        assert_eq!(compare(document), Outcome::Refused, "{}", document.text);
    }
    // An entry is left out where Arti refuses the whole consensus.
    let unread = compare(&change(plain, "Relay=2-6", "Relay=x"));
    assert!(matches!(&unread, Outcome::Known(why) if why.contains("left out")), "{unread:?}");
}
