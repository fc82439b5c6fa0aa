//! Documents as large as those of a network of 10,000 relays and 9 authorities. No such network runs: its relays,
//! authorities and votes are loadgen's, and onionring counts the votes.

use std::time::{Duration, SystemTime};

use onionring_loadgen::synthetic::{Directory, Size, Slot};
use onionring_oracle::check::{Answers, good};
use onionring_oracle::{Document, Kind};
use onionring_proto::time::Unix;

const AUTHORITIES: usize = 9;
/// Of so many relays one has its descriptor and extra-info compared: they are no larger than in a small network.
const SAMPLE: usize = 20;

/// All documents that a network of this size makes.
fn all_documents(relays: usize) {
    let now = Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs());
    let slot = Slot {
        number: 0,
        published: now,
        valid_after: now + Duration::from_secs(600),
        interval: Duration::from_secs(3600),
        voting_delay: (300, 300),
    };
    let directory = Directory::generate(Size { relays, authorities: AUTHORITIES }, 1, now).unwrap();
    let votes: Vec<_> = (0..AUTHORITIES).map(|n| directory.vote(n, &slot).unwrap()).collect();
    let consensuses = directory.consensuses(votes.iter().map(|(_, vote)| vote)).unwrap();
    let entries = consensuses.each_ref().map(|text| text.matches("\nr ").count());
    assert!(entries.into_iter().all(|count| count * 10 > relays * 9), "{entries:?} of {relays}");

    let sample = || directory.relays.iter().step_by(SAMPLE);
    let answers = Answers {
        certs: directory.certificates(),
        descriptors: sample().map(|relay| relay.descriptor.as_str()).collect(),
        extra_infos: sample().map(|relay| relay.extra_info.as_str()).collect(),
        microdescs: directory.relays.iter().flat_map(|relay| &relay.microdescs).map(String::as_str).collect(),
        consensuses: consensuses.into(),
    };
    let mut documents = answers.documents();
    // The first two authorities say nothing of bandwidths, the others do.
    documents.extend([1, 2].map(|n| Document::new(Kind::Vote, &*votes[n].0)));
    let count = |kind| documents.iter().filter(|d| d.kind == kind).count();
    assert_eq!([Kind::AuthCert, Kind::Consensus, Kind::Vote].map(count), [AUTHORITIES, 2, 2]);
    assert!(count(Kind::Microdesc) >= relays, "{}", count(Kind::Microdesc));
    good(&documents);
}

#[test]
fn a_large_network() {
    all_documents(2_000);
}

#[test]
#[ignore = "takes a minute"]
fn a_network_of_10_000_relays() {
    all_documents(10_000);
}
