//! One document before both readers.

use std::fmt;

use crate::differences::{self, Side};
use crate::{Document, Fields, arti, ours};

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both read it, and read the same: so many fields.
    Same(usize),
    /// Both refuse it.
    Refused,
    /// They disagree in a way that is known, for this reason.
    Known(&'static str),
    /// They disagree, and nobody knows why.
    Wrong(String),
}

/// How the readers disagree.
#[derive(Clone, Debug)]
pub enum Disagreement<'a> {
    /// One of them refuses what the other reads.
    Verdict {
        /// Who reads it.
        accepted_by: Side,
        /// Why the other refuses it.
        why: &'a str,
        /// The line that the other stops at, empty if it does not say.
        line: &'a str,
        /// What is read.
        fields: &'a Fields,
    },
    /// A field has not the same value.
    Value {
        /// Its name.
        field: &'a str,
        /// What onionring reads.
        ours: Option<&'a str>,
        /// What Arti reads.
        arti: Option<&'a str>,
    },
}

impl Disagreement<'_> {
    /// Whether it is that only this reader accepts.
    pub fn only(&self, side: Side) -> bool {
        matches!(self, Disagreement::Verdict { accepted_by, .. } if *accepted_by == side)
    }

    /// The field, if both accept.
    pub fn value(&self) -> Option<&str> {
        match self {
            Disagreement::Verdict { .. } => None,
            Disagreement::Value { field, .. } => Some(field),
        }
    }

    /// The line that is stopped at; empty if both accept.
    pub fn line(&self) -> &str {
        match self {
            Disagreement::Verdict { line, .. } => line,
            Disagreement::Value { .. } => "",
        }
    }

    /// The keyword of that line.
    pub fn keyword(&self) -> &str {
        self.line().split([' ', '\t']).next().unwrap_or_default()
    }

    /// Whether onionring leaves out entries of a consensus that Arti refuses altogether.
    pub fn leaves_out_what_arti_refuses(&self) -> bool {
        let left_out = match self {
            Disagreement::Verdict { accepted_by: Side::Ours, fields, .. } => fields.get("relays left out"),
            _ => None,
        };
        left_out.is_some_and(|count| count != "0")
    }

    /// Whether it comes of an entry in a consensus that onionring leaves out and Arti reads.
    pub fn leaves_out_what_arti_reads(&self) -> bool {
        match self {
            Disagreement::Value { field, .. } if field.starts_with("relays") => true,
            Disagreement::Value { field, ours: None, .. } => field.starts_with("relay "),
            _ => false,
        }
    }
}

impl fmt::Display for Disagreement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disagreement::Verdict { accepted_by, why, line, .. } => {
                write!(f, "only {accepted_by:?} accepts it; the other says {why:?} at {line:?}")
            }
            Disagreement::Value { field, ours, arti } => {
                write!(f, "{field:?} is {ours:?} for onionring and {arti:?} for Arti")
            }
        }
    }
}

/// Lets both readers read a document.
pub fn compare(document: &Document) -> Outcome {
    match (ours::read(document), arti::read(document)) {
        (Err(_), Err(_)) => Outcome::Refused,
        (Ok(ours), Err(why)) => verdict(document, Side::Ours, &why, &ours),
        (Err(why), Ok(arti)) => verdict(document, Side::Arti, &why, &arti),
        (Ok(ours), Ok(arti)) => {
            let differences = ours.differences(&arti);
            let outcomes = differences
                .iter()
                .map(|&(field, ours, arti)| explain(document, &Disagreement::Value { field, ours, arti }));
            // One that is not known says more than those that are.
            outcomes.max_by_key(|o| matches!(o, Outcome::Wrong(_))).unwrap_or(Outcome::Same(ours.len()))
        }
    }
}

fn verdict(document: &Document, accepted_by: Side, why: &str, fields: &Fields) -> Outcome {
    let line = line_of(&document.text, why);
    explain(document, &Disagreement::Verdict { accepted_by, why, line, fields })
}

fn explain(Document { kind, text, .. }: &Document, disagreement: &Disagreement<'_>) -> Outcome {
    match differences::why(*kind, text, disagreement) {
        Some(why) => Outcome::Known(why),
        None => Outcome::Wrong(format!("{kind:?}: {disagreement}")),
    }
}

/// The line that a refusal names: both readers begin with `line N: `.
fn line_of<'a>(text: &'a str, why: &str) -> &'a str {
    let number = why.strip_prefix("line ").and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
    number.and_then(|n| text.split('\n').nth(n.checked_sub(1)?)).unwrap_or_default()
}
