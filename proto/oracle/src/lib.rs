//! Two independent readers of the same network documents: onionring's parser, and that of Arti, the Tor Project's own
//! implementation in Rust, as an oracle.
//!
//! [`ours`] and [`arti`] each turn a [`Document`] into [`Fields`], plain names and values, or refuse it. [`compare`]
//! holds the two against each other: either both refuse, or both accept and read the same, or [`differences`] says why
//! they may disagree. [`mutate`] makes damaged documents out of good ones, and [`forge`] signs them again, so that it
//! is not the broken signature that both readers stop at. [`check`] puts it all together for the tests.
//!
//! The crate stands outside of the workspace, with a lock file of its own, because of Arti's dependencies.
#![forbid(unsafe_code)]

pub mod arti;
pub mod check;
pub mod compare;
pub mod differences;
pub mod fields;
pub mod forge;
pub mod mutate;
pub mod ours;

pub use fields::Fields;

/// The kinds of documents that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The certificate of an authority.
    AuthCert,
    /// A router descriptor.
    Descriptor,
    /// An extra-info.
    ExtraInfo,
    /// A microdescriptor.
    Microdesc,
    /// A consensus of either flavour.
    Consensus,
    /// The vote of an authority.
    Vote,
}

/// One document, and what is needed beside it to check its signatures.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it is.
    pub kind: Kind,
    /// Exactly its text.
    pub text: String,
    /// For an extra-info, the descriptor that names it; for a consensus, the certificates of all authorities.
    pub beside: String,
}

impl Document {
    /// A document that can be checked by itself.
    pub fn new(kind: Kind, text: impl Into<String>) -> Document {
        Document { kind, text: text.into(), beside: String::new() }
    }

    /// A document with what is needed to check it.
    pub fn with(kind: Kind, text: impl Into<String>, beside: impl Into<String>) -> Document {
        Document { kind, text: text.into(), beside: beside.into() }
    }
}
