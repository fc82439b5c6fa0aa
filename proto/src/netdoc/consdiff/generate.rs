//! Making a diff, in time and memory that grow with the length of the documents and no faster.
//!
//! Both documents are cut into blocks: what comes before the relays, each relay, and what comes after them. Relays are
//! sorted by identity, so one pass over both finds the blocks that correspond, as in C tor; only within such a pair,
//! of a few lines each, a longest common subsequence is looked for. Documents that are not sorted make long diffs, no
//! wrong ones.

use std::fmt::Write as _;
use std::ops::Range;

use thiserror::Error;

use super::{BLOCK_END, Lines, LinesError, SIGNATURE, VERSION_LINE, sha3, signed_sha3};
use crate::limits::CONSENSUS_DIFF_CELLS;
use crate::netdoc::text;

/// Why there is no diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GenerateError {
    /// One of the documents has no lines that could be counted.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// A line that would have to be inserted is a lone dot, which no diff can say.
    #[error("a line to be inserted is a lone dot")]
    LoneDot,
}

/// The diff from the consensus `base` to the consensus `target`.
pub fn generate(base: &str, target: &str) -> Result<String, GenerateError> {
    let (old, new) = (Lines::new(base)?, Lines::new(target)?);
    let signed = (0..old.len()).find(|at| old.line(*at).starts_with(SIGNATURE)).unwrap_or(old.len());
    let mut diff = format!(
        "{VERSION_LINE}\nhash {} {}\n",
        text::hex_upper(&signed_sha3(base)),
        text::hex_upper(&sha3(target))
    );
    // Writing to a String does not fail.
    match old.len() - signed {
        0 => {}
        // C tor takes no range of one line; no real signature is that short.
        1 => _ = writeln!(diff, "{}d", signed + 1),
        _ => _ = writeln!(diff, "{},$d", signed + 1),
    }
    for change in Comparison::of(&old, signed, &new).changes.iter().rev() {
        let inserted = new.slice(change.new.clone());
        let has_lone_dot = inserted.lines().any(|line| line == BLOCK_END);
        if has_lone_dot {
            return Err(GenerateError::LoneDot);
        }
        let (first, last) = (change.old.start + 1, change.old.end);
        let action = if inserted.is_empty() { 'd' } else { 'c' };
        match change.old.len() {
            0 => _ = writeln!(diff, "{last}a"),
            1 => _ = writeln!(diff, "{first}{action}"),
            _ => _ = writeln!(diff, "{first},{last}{action}"),
        }
        if !inserted.is_empty() {
            diff.push_str(inserted);
            diff.push_str(BLOCK_END);
            diff.push('\n');
        }
    }
    Ok(diff)
}

/// Lines of the base, and the lines of the target that take their place.
#[derive(Clone, Debug)]
struct Change {
    old: Range<usize>,
    new: Range<usize>,
}

/// What a block is about, in the order in which blocks come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Preamble,
    Relay([u8; 20]),
    Footer,
}

impl Topic {
    /// The topic of the block that a line opens, if it opens one.
    fn opened_by(line: &str) -> Option<Topic> {
        if let Some(entry) = line.strip_prefix("r ") {
            return entry.split([' ', '\n']).nth(1).and_then(text::base64_array).map(Topic::Relay);
        }
        line.starts_with("directory-footer").then_some(Topic::Footer)
    }
}

/// The next block of some lines, if any are left.
fn block(lines: &Lines<'_>, left: &Range<usize>) -> Option<(Topic, Range<usize>)> {
    if left.is_empty() {
        return None;
    }
    let topic = Topic::opened_by(lines.line(left.start)).unwrap_or(Topic::Preamble);
    let mut following = left.start + 1..left.end;
    let end = following.find(|at| Topic::opened_by(lines.line(*at)).is_some()).unwrap_or(left.end);
    Some((topic, left.start..end))
}

/// Two documents on the way to the changes between them.
struct Comparison<'a> {
    old: &'a Lines<'a>,
    new: &'a Lines<'a>,
    changes: Vec<Change>,
    /// Memory for [`Self::align`].
    lengths: Vec<u16>,
}

impl<'a> Comparison<'a> {
    /// Compares the first `signed` lines of `old` with `new`.
    fn of(old: &'a Lines<'a>, signed: usize, new: &'a Lines<'a>) -> Self {
        let mut comparison = Comparison { old, new, changes: Vec::new(), lengths: Vec::new() };
        let mut left = Change { old: 0..signed, new: 0..new.len() };
        let mut ours = block(old, &left.old);
        let mut theirs = block(new, &left.new);
        loop {
            let mut pair =
                Change { old: left.old.start..left.old.start, new: left.new.start..left.new.start };
            let (take_old, take_new) = match (&ours, &theirs) {
                (None, None) => return comparison,
                (Some((a, _)), Some((b, _))) => (a <= b, a >= b),
                (a, b) => (a.is_some(), b.is_some()),
            };
            if let Some((_, lines)) = ours.take_if(|_| take_old) {
                left.old.start = lines.end;
                pair.old = lines;
                ours = block(old, &left.old);
            }
            if let Some((_, lines)) = theirs.take_if(|_| take_new) {
                left.new.start = lines.end;
                pair.new = lines;
                theirs = block(new, &left.new);
            }
            comparison.compare(pair);
        }
    }

    fn same(&self, old: usize, new: usize) -> bool {
        self.old.line(old) == self.new.line(new)
    }

    /// Finds the changes within a pair of blocks.
    fn compare(&mut self, mut pair: Change) {
        while !pair.old.is_empty() && !pair.new.is_empty() && self.same(pair.old.start, pair.new.start) {
            pair.old.start += 1;
            pair.new.start += 1;
        }
        while !pair.old.is_empty() && !pair.new.is_empty() && self.same(pair.old.end - 1, pair.new.end - 1) {
            pair.old.end -= 1;
            pair.new.end -= 1;
        }
        let cells = (pair.old.len() + 1).saturating_mul(pair.new.len() + 1);
        if pair.old.is_empty() || pair.new.is_empty() || cells > CONSENSUS_DIFF_CELLS {
            self.change(pair);
        } else {
            self.align(pair);
        }
    }

    /// Keeps as many lines as possible: `lengths` has, for every pair of positions, the number of lines that the rests
    /// from there on have in common.
    fn align(&mut self, Change { old, new }: Change) {
        let width = new.len() + 1;
        let cell = |i: usize, j: usize| i * width + j;
        let mut lengths = std::mem::take(&mut self.lengths);
        lengths.clear();
        lengths.resize((old.len() + 1) * width, 0);
        for i in (0..old.len()).rev() {
            for j in (0..new.len()).rev() {
                lengths[cell(i, j)] = if self.same(old.start + i, new.start + j) {
                    lengths[cell(i + 1, j + 1)] + 1
                } else {
                    lengths[cell(i + 1, j)].max(lengths[cell(i, j + 1)])
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < old.len() && j < new.len() {
            let (a, b) = (old.start + i, new.start + j);
            if self.same(a, b) {
                (i, j) = (i + 1, j + 1);
            } else if lengths[cell(i + 1, j)] >= lengths[cell(i, j + 1)] {
                self.change(Change { old: a..a + 1, new: b..b });
                i += 1;
            } else {
                self.change(Change { old: a..a, new: b..b + 1 });
                j += 1;
            }
        }
        self.change(Change { old: old.start + i..old.end, new: new.start + j..new.end });
        self.lengths = lengths;
    }

    /// Notes a change, as part of the one before it where they touch.
    fn change(&mut self, Change { old, new }: Change) {
        if old.is_empty() && new.is_empty() {
            return;
        }
        match self.changes.last_mut() {
            Some(last) if last.old.end == old.start && last.new.end == new.start => {
                (last.old.end, last.new.end) = (old.end, new.end);
            }
            _ => self.changes.push(Change { old, new }),
        }
    }
}
