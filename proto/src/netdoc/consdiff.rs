//! Consensus diffs (dir-spec 4.5 and appendix E): how one consensus becomes a later one, in a few commands of `ed`.
//!
//! A diff says which consensus it is for by the digest of that one's signed part, since signatures may be encoded in
//! more than one way, and what must come out by the digest of the whole. Its commands go from the end of the base to
//! its beginning, so that their line numbers are those of the base; the first one takes off the old signatures.

use sha3::{Digest, Sha3_256};
use thiserror::Error;

use crate::limits::CONSENSUS_DIFF_LINES;

mod apply;
mod generate;

pub use apply::{ApplyError, CommandFault, apply};
pub use generate::{GenerateError, generate};

const VERSION_LINE: &str = "network-status-diff-version 1";
const SIGNATURE: &str = "directory-signature ";
/// Ends a block of inserted lines.
const BLOCK_END: &str = ".";

/// Whether a document that was sent for a consensus is a diff.
pub fn is_diff(document: &str) -> bool {
    document.starts_with(VERSION_LINE)
}

/// SHA3-256 of the signed part of a consensus, by which diffs and requests for them name it; of all of it, if there
/// is no signature.
pub fn signed_sha3(consensus: &str) -> [u8; 32] {
    let lines = consensus.split_inclusive('\n');
    let unsigned: usize = lines.take_while(|line| !line.starts_with(SIGNATURE)).map(str::len).sum();
    // The blank after the first keyword is the last byte that is signed.
    sha3(&consensus[..(unsigned + SIGNATURE.len()).min(consensus.len())])
}

fn sha3(text: &str) -> [u8; 32] {
    Sha3_256::digest(text).into()
}

/// Why a document cannot be divided into lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LinesError {
    /// Its last line does not end.
    #[error("the last line has no end")]
    Unfinished,
    /// It has more than [`CONSENSUS_DIFF_LINES`].
    #[error("there are more than {CONSENSUS_DIFF_LINES} lines")]
    TooMany,
}

/// A document by its lines, which are counted from 0 and include their ends.
struct Lines<'a> {
    text: &'a str,
    /// Where each line starts, and where the last one ends.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Result<Self, LinesError> {
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(LinesError::Unfinished);
        }
        let mut starts = vec![0];
        for line in text.split_inclusive('\n') {
            if starts.len() > CONSENSUS_DIFF_LINES {
                return Err(LinesError::TooMany);
            }
            starts.push(starts[starts.len() - 1] + line.len());
        }
        Ok(Lines { text, starts })
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn line(&self, at: usize) -> &'a str {
        self.slice(at..at + 1)
    }

    fn slice(&self, lines: std::ops::Range<usize>) -> &'a str {
        &self.text[self.starts[lines.start]..self.starts[lines.end]]
    }
}

#[cfg(test)]
mod tests;
