//! Where the two readers are known to disagree, and are meant to ([`DIFFERENCES`]).
//!
//! onionring reads as C tor does, because C tor's authorities decide what is in the network; Arti reads as it thinks
//! best. None of this occurs in documents that any known implementation writes.

use crate::Kind;
use crate::compare::Disagreement;

mod list;

pub use list::DIFFERENCES;

/// Who reads what the other refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// onionring.
    Ours,
    /// Arti.
    Arti,
}

/// How a disagreement is recognised.
pub enum When {
    /// Only one of them accepts. The other says one of these words about a line with one of these keywords; an empty
    /// list means any.
    Only(Side, &'static [&'static str], &'static [&'static str]),
    /// Something else, to be seen in the disagreement and the text.
    Seen(fn(&Disagreement<'_>, &str) -> bool),
}

/// A reason to disagree.
pub struct Difference {
    /// The kinds of documents it concerns; empty means all.
    pub kinds: &'static [Kind],
    /// How it is recognised: by one of these.
    pub when: &'static [When],
    /// Why that is right.
    pub why: &'static str,
}

impl Difference {
    /// Whether this is what happens in a document of this kind and text.
    pub fn explains(&self, kind: Kind, text: &str, disagreement: &Disagreement<'_>) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && self.when.iter().any(|when| when.is(disagreement, text))
    }
}

impl When {
    fn is(&self, disagreement: &Disagreement<'_>, text: &str) -> bool {
        match (self, disagreement) {
            (When::Only(side, keywords, words), Disagreement::Verdict { accepted_by, why, .. }) => {
                side == accepted_by
                    && (keywords.is_empty() || keywords.contains(&disagreement.keyword()))
                    && (words.is_empty() || words.iter().any(|word| why.contains(word)))
            }
            (When::Seen(seen), _) => seen(disagreement, text),
            _ => false,
        }
    }
}

/// Why they disagree, if it is known.
pub fn why(kind: Kind, text: &str, disagreement: &Disagreement<'_>) -> Option<&'static str> {
    let known = DIFFERENCES.iter().find(|d| d.explains(kind, text, disagreement));
    known.map(|difference| difference.why)
}
