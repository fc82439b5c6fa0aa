use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::*;
use crate::netdoc::consensus::UnverifiedConsensus;
use crate::netdoc::routerdesc::split_documents;
use crate::netdoc::tally::METHODS;
use crate::netdoc::testdata;
use crate::netdoc::text::Fingerprint;

fn descriptors() -> Vec<RouterDesc> {
    split_documents(testdata::DESCRIPTORS).map(|text| RouterDesc::parse(text).unwrap()).collect()
}

#[test]
fn stock_authorities_made_the_same() {
    let consensus = UnverifiedConsensus::parse(testdata::CONSENSUS_MICRODESC).unwrap();
    let texts: BTreeMap<[u8; 32], &str> =
        Microdesc::parse_all(testdata::MICRODESCS).map(|(text, m)| (m.unwrap().digest, text)).collect();
    for desc in descriptors() {
        let text = Microdesc::text_of(&desc, consensus.peek().method).unwrap();
        let digest: [u8; 32] = Sha256::digest(&text).into();
        assert_eq!(texts.get(&digest), Some(&&*text), "{}", desc.nickname);
        assert_eq!(consensus.peek().relay(&desc.identity).unwrap().microdesc(), Some(&digest));
    }
}

#[test]
fn methods_that_make_the_same_share_a_text() {
    for desc in descriptors() {
        let texts = Microdesc::texts_of(&desc, METHODS);
        let methods: Vec<&[u32]> = texts.iter().map(|(methods, _)| &**methods).collect();
        match desc.family_keys.is_empty() {
            true => assert_eq!(methods, [[32, 33, 34, 35]]),
            false => assert_eq!(methods, [&[32, 33, 34][..], &[35]]),
        }
        assert!(!texts[0].1.contains("family-ids"));
    }
}

#[test]
fn families_become_canonical() {
    let mut desc = descriptors().into_iter().next().unwrap();
    let low = format!("${}", Fingerprint([0; 20]));
    let members = ["Zoe", "$0000000000000000000000000000000000000000~nick", "adam", "ADAM", "9lives"];
    desc.family = members.into_iter().map(|m| FamilyMember::parse(m).unwrap()).collect();
    desc.family_keys = [[255; 32], [0; 32], [255; 32]].into();
    let text = Microdesc::text_of(&desc, 35).unwrap();
    let line = |keyword: &str| text.lines().find_map(|l| l.strip_prefix(keyword)).unwrap().to_owned();
    assert_eq!(line("family "), format!("{low} ${} 9lives adam zoe", desc.identity));
    let ids = [[255; 32], [0; 32]].map(|key| format!("ed25519:{}", text::base64_unpadded(&key)));
    // By their texts, in which `/` precedes `A`.
    assert_eq!(line("family-ids "), ids.join(" "));
}

#[test]
fn there_is_none_without_a_tap_key() {
    let mut desc = descriptors().into_iter().next().unwrap();
    desc.tap_onion_key = None;
    assert_eq!(Microdesc::texts_of(&desc, METHODS), []);
}
