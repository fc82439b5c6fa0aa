//! The checks that the tests make, over any set of documents.

use std::collections::BTreeMap;

use crate::compare::{Outcome, compare};
use crate::forge::Forge;
use crate::mutate::Mutator;
use crate::{Document, Kind, arti, ours};

/// Answers of a directory, each with all documents of a kind.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// `/tor/keys/all`
    pub certs: String,
    /// `/tor/server/all`
    pub descriptors: String,
    /// `/tor/extra/all`
    pub extra_infos: String,
    /// `/tor/micro/d/...`
    pub microdescs: String,
    /// `/tor/status-vote/current/consensus` and `...-microdesc`
    pub consensuses: Vec<String>,
}

impl Answers {
    /// The single documents. Both readers must cut the answers in the same way.
    pub fn documents(&self) -> Vec<Document> {
        let mut documents = Vec::new();
        let descriptors = split(Kind::Descriptor, &self.descriptors);
        for (kind, body) in [(Kind::AuthCert, &self.certs), (Kind::Microdesc, &self.microdescs)] {
            documents.extend(split(kind, body).into_iter().map(|text| Document::new(kind, text)));
        }
        for text in split(Kind::ExtraInfo, &self.extra_infos) {
            let identity = text.split_ascii_whitespace().nth(2).unwrap_or_default();
            let its =
                descriptors.iter().find(|d| d.replace(' ', "").contains(&format!("fingerprint{identity}\n")));
            let its = its.unwrap_or_else(|| panic!("no descriptor goes with {text}"));
            documents.push(Document::with(Kind::ExtraInfo, text, *its));
        }
        documents.extend(descriptors.iter().map(|t| Document::new(Kind::Descriptor, *t)));
        let consensuses = self.consensuses.iter();
        documents.extend(consensuses.map(|t| Document::with(Kind::Consensus, t, &self.certs)));
        documents
    }

    /// Whether every extra-info is the one that its relay's descriptor names: not so for a moment while a relay
    /// publishes new ones.
    pub fn go_together(&self) -> bool {
        let documents = self.documents();
        documents.iter().filter(|d| d.kind == Kind::ExtraInfo).all(|d| ours::read(d).is_ok())
    }
}

fn split(kind: Kind, body: &str) -> Vec<&str> {
    let documents = ours::split(kind, body);
    // C tor puts a blank line behind its own documents, with which Arti's new parser does not cope.
    assert_eq!(arti::split(kind, &body.replace("\n\n", "\n")).as_ref(), Ok(&documents), "{kind:?}");
    documents
}

/// Checks that both readers accept every document, signatures included, and read the same in it. Arti's older parser
/// must accept it as well.
pub fn good(documents: &[Document]) {
    for document in documents {
        let Document { kind, text, .. } = document;
        match compare(document) {
            Outcome::Same(fields) => assert!(fields >= 6, "{kind:?} has {fields} fields:\n{text}"),
            other => panic!("{kind:?}: {other:?}\n{text}"),
        }
        if matches!(kind, Kind::Consensus | Kind::Vote) {
            let verified = ours::read(document).map(|fields| fields.get("verified") == Some("true"));
            assert_eq!(verified, Ok(true), "{text}");
        }
        assert_eq!(arti::legacy(document), Ok(()), "{kind:?}\n{text}");
    }
}

/// What came of many damaged documents.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Read alike by both.
    pub same: usize,
    /// Refused by both.
    pub refused: usize,
    /// How often each known reason explained a disagreement.
    pub known: BTreeMap<&'static str, usize>,
    /// Disagreements that nothing explains, each with the document.
    pub wrong: Vec<(String, String)>,
}

impl Tally {
    fn add(&mut self, document: &Document) {
        match compare(document) {
            Outcome::Same(_) => self.same += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Known(why) => *self.known.entry(why).or_default() += 1,
            Outcome::Wrong(why) => self.wrong.push((why, document.text.clone())),
        }
    }

    /// How many documents there were.
    pub fn all(&self) -> usize {
        self.same + self.refused + self.known.values().sum::<usize>() + self.wrong.len()
    }

    /// Fails if something is unexplained, or if the damage was such that the comparison says little.
    pub fn check(&self) {
        println!(
            "{} alike, {} refused by both, {} known",
            self.same,
            self.refused,
            self.known.values().sum::<usize>()
        );
        let wrong: String = self.wrong.iter().map(|(why, text)| format!("{why}\n{text}\n")).collect();
        assert!(wrong.is_empty(), "{} disagreements are unexplained:\n{wrong}", self.wrong.len());
        assert!(self.same * 10 > self.all(), "only {} of {} were readable", self.same, self.all());
        assert!(self.refused * 10 > self.all(), "only {} of {} were refused", self.refused, self.all());
    }
}

/// Damages documents, `rounds` times for each kind, and compares what both readers make of it: with the old signatures,
/// and signed again where that can be.
pub fn damaged(documents: &[Document], rounds: usize, seed: u64) -> Tally {
    let mut forge = Forge::new();
    let mut mutator = Mutator::new(seed);
    let mut tally = Tally::default();
    for kind in [Kind::AuthCert, Kind::Descriptor, Kind::ExtraInfo, Kind::Microdesc, Kind::Consensus] {
        let originals: Vec<&Document> = documents.iter().filter(|d| d.kind == kind).collect();
        assert!(!originals.is_empty(), "there is no {kind:?}");
        for original in (0..rounds).map(|round| originals[round % originals.len()]) {
            let text = mutator.mutate(&original.text);
            tally.add(&Document { text, ..original.clone() });
            if matches!(kind, Kind::Microdesc | Kind::Consensus) {
                continue;
            }
            let body = forge.disguise(kind, &original.text);
            let descriptor = forge.disguise(Kind::Descriptor, &original.beside);
            tally.add(&forge.seal(kind, &mutator.mutate(&body), &descriptor));
        }
    }
    tally
}
