//! Applying a diff: as strict as C tor, since whoever sends diffs may be hostile.

use std::ops::Range;

use thiserror::Error;

use super::{BLOCK_END, Lines, LinesError, VERSION_LINE, sha3, signed_sha3};
use crate::netdoc::text;

/// Why a diff was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// Its first two lines are not those of a diff.
    #[error("the document does not begin as a consensus diff")]
    NotADiff,
    /// It is meant for another consensus.
    #[error("the diff is for another consensus than the one at hand")]
    OtherBase,
    /// The base has no lines that could be counted, or the last line of the diff does not end.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// A command is wrong.
    #[error("line {line} of the diff: {fault}")]
    Command {
        /// Line number within the diff, from 1.
        line: usize,
        /// What is wrong.
        fault: CommandFault,
    },
    /// Its commands work, and what comes out is not what it announced.
    #[error("what the diff makes is not the consensus that it announced")]
    OtherResult,
}

/// What can be wrong with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommandFault {
    /// It is none of those that diffs may have.
    #[error("not a command")]
    Unknown,
    /// It names lines that are not there, or not before those of the command before it.
    #[error("the lines do not exist, or come after those of an earlier command")]
    Lines,
    /// There are more commands than any two documents could need.
    #[error("more commands than the base has lines")]
    TooMany,
    /// There is no text to be inserted.
    #[error("a block without lines")]
    EmptyBlock,
    /// The text to be inserted does not end.
    #[error("a block without end")]
    OpenBlock,
}

/// Applies `diff` to the consensus `base`. What comes out is as long as both together at most, and is still to be
/// checked as if it had been sent itself.
pub fn apply(base: &str, diff: &str) -> Result<String, ApplyError> {
    let mut script = Script { rest: diff, line: 0 };
    let (from, to) = header(&mut script).ok_or(ApplyError::NotADiff)?;
    if signed_sha3(base) != from {
        return Err(ApplyError::OtherBase);
    }
    if !diff.ends_with('\n') {
        return Err(LinesError::Unfinished.into());
    }
    let lines = Lines::new(base)?;
    // Pieces of the result, the last one first.
    let mut pieces = Vec::new();
    let mut untouched = lines.len();
    let mut commands = 0;
    while let Some(command) = script.next() {
        let at = script.line;
        let failed = |fault| ApplyError::Command { line: at, fault };
        commands += 1;
        // One for the signatures, and between any two others a line that stays.
        if commands > lines.len() + 2 {
            return Err(failed(CommandFault::TooMany));
        }
        let Command { removed, inserts } = Command::parse(command, lines.len()).map_err(failed)?;
        if removed.end > untouched {
            return Err(failed(CommandFault::Lines));
        }
        pieces.push(lines.slice(removed.end..untouched));
        if inserts {
            pieces.push(script.block().map_err(failed)?);
        }
        untouched = removed.start;
    }
    pieces.push(lines.slice(0..untouched));
    pieces.reverse();
    let result = pieces.concat();
    if sha3(&result) == to { Ok(result) } else { Err(ApplyError::OtherResult) }
}

/// The two digests of a diff: of its base, and of its result.
fn header(script: &mut Script<'_>) -> Option<([u8; 32], [u8; 32])> {
    script.next().filter(|line| *line == VERSION_LINE)?;
    let (from, to) = script.next()?.strip_prefix("hash ")?.split_once(' ')?;
    Some((text::hex_array(from)?, text::hex_array(to)?))
}

/// Reads a diff line by line.
struct Script<'a> {
    rest: &'a str,
    /// Lines read.
    line: usize,
}

impl<'a> Script<'a> {
    /// The next line, without its end.
    fn next(&mut self) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        self.line += 1;
        Some(line)
    }

    /// The lines up to the next lone dot, which is read past.
    fn block(&mut self) -> Result<&'a str, CommandFault> {
        let all = self.rest;
        loop {
            let before = all.len() - self.rest.len();
            match self.next() {
                None => return Err(CommandFault::OpenBlock),
                Some(BLOCK_END) if before == 0 => return Err(CommandFault::EmptyBlock),
                Some(BLOCK_END) => return Ok(&all[..before]),
                Some(_) => {}
            }
        }
    }
}

/// What a command does to its base.
struct Command {
    /// Lines it takes off, from 0; where it inserts, if that is nothing.
    removed: Range<usize>,
    /// Whether a block follows.
    inserts: bool,
}

impl Command {
    /// Reads `Nd`, `N,Md`, `N,$d`, `Nc`, `N,Mc` or `Na`.
    fn parse(command: &str, base_len: usize) -> Result<Command, CommandFault> {
        let (action, range) = match command.as_bytes() {
            [.., action @ (b'a' | b'c' | b'd')] => (*action, &command[..command.len() - 1]),
            _ => return Err(CommandFault::Unknown),
        };
        let (first, last) = match (range.split_once(','), action) {
            (None, _) => (number(range)?, number(range)?),
            (Some(_), b'a') | (Some((_, "$")), b'c') => return Err(CommandFault::Unknown),
            (Some((first, "$")), _) => (number(first)?, base_len),
            (Some((first, last)), _) => match (number(first)?, number(last)?) {
                // A range of one line is written without a comma.
                (first, last) if first == last => return Err(CommandFault::Unknown),
                range => range,
            },
        };
        match action {
            b'a' => Ok(Command { removed: first..first, inserts: true }),
            _ if first == 0 || first > last => Err(CommandFault::Lines),
            _ => Ok(Command { removed: first - 1..last, inserts: action == b'c' }),
        }
    }
}

fn number(text: &str) -> Result<usize, CommandFault> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(CommandFault::Unknown)
}
