//! Network documents (dir-spec): what relays publish and authorities sign.
//!
//! Every document is text in one meta-format ([`tokenize`]): lines of a keyword and arguments, each perhaps
//! followed by a base64 object. Parsing borrows from the text, checks form and counts, and hands out values of
//! plain types; digests are taken over the very bytes that were read. A type that this module hands out has had
//! its self-contained signatures checked; a consensus, which needs the authorities' certificates for that, is an
//! [`consensus::UnverifiedConsensus`] first.

use thiserror::Error;

pub mod authcert;
pub mod consdiff;
pub mod consensus;
pub mod detached;
pub mod extrainfo;
pub mod family;
pub mod microdesc;
pub mod params;
pub mod protover;
pub mod routerdesc;
mod section;
mod signed;
pub mod tally;
#[cfg(test)]
pub(crate) mod testdata;
pub mod text;
pub mod tokenize;
pub mod version;
pub mod vote;

/// Why a document was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {fault}")]
pub struct DocError {
    /// Line number within the document, from 1.
    pub line: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What can be wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are not UTF-8.
    #[error("the document is not UTF-8")]
    NotUtf8,
    /// A byte-order mark opens the document.
    #[error("the document starts with a byte-order mark")]
    ByteOrderMark,
    /// A NUL or carriage return lies within the document.
    #[error("control character {0:#04x} in the document")]
    ControlCharacter(u8),
    /// The document is longer than its kind may be.
    #[error("the document has {size} bytes, more than the {max} allowed")]
    TooLarge {
        /// Bytes it has.
        size: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// The document, or one of its entries, has more than [`crate::limits::SECTION_ITEMS`] lines that count.
    #[error("more than {} lines of known keywords", crate::limits::SECTION_ITEMS)]
    TooManyLines,
    /// One line is longer than [`crate::limits::NETDOC_LINE`].
    #[error("a line of {0} bytes is too long")]
    LineTooLong(usize),
    /// One object is longer than [`crate::limits::NETDOC_OBJECT`].
    #[error("an object of {0} bytes is too long")]
    ObjectTooLong(usize),
    /// An object's BEGIN or END line is malformed, missing or of another label.
    #[error("the object {0:?} is not closed by its own END line")]
    BadObject(String),
    /// An object stands where no item precedes it.
    #[error("an object without an item")]
    StrayObject,
    /// A line that must be there is not.
    #[error("the line {0:?} is missing")]
    Missing(&'static str),
    /// A line that may be there once is there again.
    #[error("a second {0:?} line")]
    Duplicate(&'static str),
    /// A line has fewer arguments than it needs.
    #[error("{keyword:?} has {got} arguments and needs {want}")]
    TooFewArguments {
        /// The line's keyword.
        keyword: &'static str,
        /// Arguments it needs.
        want: usize,
        /// Arguments it has.
        got: usize,
    },
    /// A line that takes so many arguments and no more has more.
    #[error("{keyword:?} takes no more than {most} arguments")]
    TooManyArguments {
        /// The line's keyword.
        keyword: &'static str,
        /// Arguments it takes.
        most: usize,
    },
    /// The object of a line is missing or has another label.
    #[error("{keyword:?} needs an object {label:?}")]
    MissingObject {
        /// The line's keyword.
        keyword: &'static str,
        /// The label wanted.
        label: &'static str,
    },
    /// A line that takes no object has one.
    #[error("{0:?} takes no object")]
    UnexpectedObject(&'static str),
    /// A line is not at its fixed place.
    #[error("{0:?} is not at its place")]
    Misplaced(&'static str),
    /// A value does not parse, or is out of range.
    #[error("{what}: bad value {value:?}")]
    BadValue {
        /// What the value is.
        what: &'static str,
        /// The value, shortened.
        value: String,
    },
    /// Two values that must agree do not.
    #[error("{0}")]
    Mismatch(&'static str),
    /// A certificate does not parse or is of the wrong kind.
    #[error("{what}: {why}")]
    BadCertificate {
        /// Which certificate.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// A signature does not verify.
    #[error("the signature of {0} is wrong")]
    BadSignature(&'static str),
}

impl Fault {
    /// This fault at `line`.
    pub(crate) fn at(self, line: usize) -> DocError {
        DocError { line, fault: self }
    }

    /// A bad value; only its first characters are kept, so that hostile input does not fill logs.
    pub(crate) fn value(what: &'static str, value: &str) -> Fault {
        Fault::BadValue { what, value: value.chars().take(64).collect() }
    }
}

/// The text of a document received as bytes: UTF-8 without a byte-order mark (dir-spec 1.2.1).
pub fn text_of(bytes: &[u8]) -> Result<&str, DocError> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes.iter().take(e.valid_up_to()).filter(|&&b| b == b'\n').count();
        Fault::NotUtf8.at(line)
    })?;
    if text.starts_with('\u{feff}') {
        return Err(Fault::ByteOrderMark.at(1));
    }
    Ok(text)
}
