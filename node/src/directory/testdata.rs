//! Documents captured from a private network of C tor 0.4.9.11: three authorities and four relays.

use std::collections::{BTreeMap, BTreeSet};

use crate::compress::Encoding;
use onionring_proto::netdoc::consensus::{Flavor, UnverifiedConsensus};
use onionring_proto::netdoc::extrainfo::ExtraInfo;
use onionring_proto::netdoc::microdesc::Microdesc;
use onionring_proto::netdoc::routerdesc::{RouterDesc, split_documents};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;

use super::archive::Past;
use super::check;
use super::library::Library;
use super::snapshot::StoredConsensus;

/// The consensus that names descriptors.
pub const CONSENSUS_NS: &str = include_str!("../../../proto/src/netdoc/testdata/consensus.txt");
/// The one that names microdescriptors.
pub const CONSENSUS_MICRODESC: &str =
    include_str!("../../../proto/src/netdoc/testdata/consensus_microdesc.txt");
/// The certificates of the authorities.
pub const CERTS: &str = include_str!("../../../proto/src/netdoc/testdata/certs.txt");
/// Descriptors of all relays.
pub const DESCRIPTORS: &str = include_str!("../../../proto/src/netdoc/testdata/descriptors.txt");
/// Their extra-infos.
pub const EXTRA_INFOS: &str = include_str!("../../../proto/src/netdoc/testdata/extrainfos.txt");
/// Their microdescriptors.
pub const MICRODESCS: &str = include_str!("../../../proto/src/netdoc/testdata/microdescs.txt");

/// A moment at which all of it was current.
pub const NOW: Unix = Unix(1_795_344_950);

/// The v3 identities of the authorities.
pub fn authorities() -> Vec<Fingerprint> {
    let consensus = UnverifiedConsensus::parse(CONSENSUS_NS).unwrap();
    consensus.peek().voters.iter().map(|voter| voter.identity).collect()
}

/// The descriptors with their texts.
pub fn descriptors() -> Vec<(&'static str, RouterDesc)> {
    split_documents(DESCRIPTORS).map(|text| (text, RouterDesc::parse(text).unwrap())).collect()
}

/// The extra-infos with their texts.
pub fn extra_infos() -> Vec<(&'static str, ExtraInfo)> {
    split_documents(EXTRA_INFOS).map(|text| (text, ExtraInfo::parse(text).unwrap())).collect()
}

/// The microdescriptors with their texts.
pub fn microdescs() -> Vec<(&'static str, Microdesc)> {
    Microdesc::parse_all(MICRODESCS).map(|(text, microdesc)| (text, microdesc.unwrap())).collect()
}

/// A consensus that could have been in force before this one: nobody signed it.
pub fn earlier(consensus: &str) -> String {
    let text = consensus.replacen("\nvalid-after 2026", "\nvalid-after 2025", 1);
    let text =
        text.replacen("\ns Exit Fast ", "\ns Fast ", 1).replacen("\nw Bandwidth=", "\nw Bandwidth=9", 2);
    assert_ne!(text, consensus);
    text
}

/// The same with a diff to each consensus from the one [`earlier`].
pub fn library_with_diffs() -> Library {
    let mut library = library();
    for (flavor, text) in [(Flavor::Ns, CONSENSUS_NS), (Flavor::Microdesc, CONSENSUS_MICRODESC)] {
        add_diff(&mut library, flavor, &earlier(text), text);
    }
    library
}

/// Adds the diff between two consensuses to a library in which the second is in force.
pub fn add_diff(library: &mut Library, flavor: Flavor, base: &str, target: &str) {
    let parsed = UnverifiedConsensus::parse(base).unwrap();
    let past = Past::new(flavor, &StoredConsensus::new(base, parsed.peek(), &Encoding::ALL).unwrap());
    let name = library.stored(flavor).unwrap().signed_sha3;
    library.add_diff(flavor, past.signed_sha3, name, past.diff_to(target.as_bytes()).unwrap());
}

/// Two consensuses in a row of each flavour, from another such network.
pub mod pair {
    use super::*;

    /// Those that name descriptors.
    pub const NS: [&str; 2] = [
        include_str!("../../../proto/src/netdoc/testdata/consdiff/ns_base.txt"),
        include_str!("../../../proto/src/netdoc/testdata/consdiff/ns_target.txt"),
    ];
    /// Those that name microdescriptors.
    pub const MICRODESC: [&str; 2] = [
        include_str!("../../../proto/src/netdoc/testdata/consdiff/microdesc_base.txt"),
        include_str!("../../../proto/src/netdoc/testdata/consdiff/microdesc_target.txt"),
    ];
    /// The certificates of their authorities.
    pub const CERTS: &str = include_str!("../../../proto/src/netdoc/testdata/consdiff/certs.txt");

    /// A moment at which a new consensus is due to whoever has the first ones: 2026-11-25 10:59:45.
    pub const NOW: Unix = Unix(1_795_604_385);

    /// The v3 identities of the authorities.
    pub fn authorities() -> Vec<Fingerprint> {
        let consensus = UnverifiedConsensus::parse(NS[0]).unwrap();
        consensus.peek().voters.iter().map(|voter| voter.identity).collect()
    }

    /// A library that holds the second ones, and no diffs.
    pub fn library() -> Library {
        let mut library = Library::default();
        library.add_certs(check::certs(CERTS, &authorities(), NOW).fit);
        for (flavor, text) in [(Flavor::Ns, NS[1]), (Flavor::Microdesc, MICRODESC[1])] {
            let checked =
                check::consensus(text, flavor, None, &authorities(), library.certs(), &Encoding::ALL, NOW)
                    .unwrap();
            library.set_consensus(checked, NOW);
        }
        library
    }
}

/// A library that holds all of it.
pub fn library() -> Library {
    let mut library = Library::default();
    let certs = check::certs(CERTS, &authorities(), NOW);
    assert_eq!((certs.fit.len(), certs.unfit), (3, 0));
    library.add_certs(certs.fit);
    for (flavor, text) in [(Flavor::Ns, CONSENSUS_NS), (Flavor::Microdesc, CONSENSUS_MICRODESC)] {
        let checked =
            check::consensus(text, flavor, None, &authorities(), library.certs(), &Encoding::ALL, NOW)
                .unwrap();
        library.set_consensus(checked, NOW);
    }
    let wanted: BTreeSet<_> = descriptors().iter().map(|(_, d)| d.digest).collect();
    library.add_descriptors(check::descriptors(DESCRIPTORS, &wanted).fit, NOW);
    let wanted: BTreeMap<_, _> = descriptors()
        .iter()
        .filter_map(|(text, d)| Some((d.extra_info?.sha1, text.as_bytes().into())))
        .collect();
    library.add_extra_infos(check::extra_infos(EXTRA_INFOS, &wanted).fit);
    library.add_microdescs(check::microdescs(MICRODESCS, &library.missing_microdescs()).fit, NOW);
    library
}
