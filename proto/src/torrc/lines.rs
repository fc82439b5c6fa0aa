//! The line syntax of a torrc file.
//!
//! A line is `Keyword value`. `#` starts a comment, also behind a value. A backslash right before the end of a
//! line continues it on the next; comments between continued lines are dropped, and the continuation goes on
//! behind them. A value that starts with a double quote runs to the closing quote and knows the escapes
//! `\n \r \t \\ \" \'`, `\xHH` and up to three octal digits; a quoted value cannot be continued. `+Keyword` adds
//! to a list, `/Keyword` clears, `%include path` names more files.

use std::sync::Arc;

use super::{Command, Item, Origin, Problem};

/// A meaningful line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A setting.
    Item(Item),
    /// `%include`: the driver expands the pattern (a file, a directory or a glob) and puts what it reads in this
    /// line's place.
    Include {
        /// Where the directive stands.
        origin: Origin,
        /// The path or glob as written.
        pattern: String,
    },
}

/// Splits the text of a file into its lines. What cannot be understood is left out and added to `problems`.
///
/// The text need not be UTF-8, since comments may hold anything; keywords and values must be.
pub fn parse(text: &[u8], path: &Arc<str>, problems: &mut Vec<Problem>) -> Vec<Line> {
    let mut cursor = Cursor { text, at: 0, line: 1 };
    let mut lines = Vec::new();
    while cursor.skip_to_keyword() {
        let origin = Origin::File { path: path.clone(), line: cursor.line };
        match cursor.line(&origin) {
            Ok(line) => lines.push(line),
            Err(problem) => {
                problems.push(problem);
                cursor.skip_line();
            }
        }
    }
    lines
}

/// A position in the text. `line` is always 1 + the number of newlines before `at`.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
}

/// What C's `isspace` takes for white space.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        self.line += u32::from(byte == b'\n');
        Some(byte)
    }

    fn at_continuation(&self) -> bool {
        self.text[self.at..].starts_with(b"\\\n")
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.next();
        }
    }

    fn skip_line(&mut self) {
        self.skip_while(|byte| byte != b'\n');
    }

    /// Moves to the next keyword; false at the end of the text.
    fn skip_to_keyword(&mut self) -> bool {
        loop {
            self.skip_while(is_space);
            match self.peek() {
                None => return false,
                Some(b'#') => self.skip_line(),
                Some(_) => return true,
            }
        }
    }

    /// Parses the line that starts here and stops before its newline.
    fn line(&mut self, origin: &Origin) -> Result<Line, Problem> {
        let problem = |option: &str, what: &str, remedy: &str| Problem {
            origin: origin.clone(),
            option: option.to_owned(),
            value: None,
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        };
        let start = self.at;
        while let Some(byte) = self.peek() {
            if is_space(byte) || byte == b'#' || self.at_continuation() {
                break;
            }
            self.next();
        }
        let keyword = std::str::from_utf8(&self.text[start..self.at])
            .map_err(|_| problem("", "the keyword is not UTF-8", "write it in plain letters"))?;
        self.skip_while(|byte| byte == b' ' || byte == b'\t');
        let raw = match self.peek() {
            Some(b'"') => self.quoted().map_err(|what| {
                problem(
                    keyword,
                    what,
                    "close the quotes, and escape inside them with \\n \\r \\t \\\\ \\\" \\' \\xHH or octal",
                )
            })?,
            _ => self.plain(),
        };
        let value = String::from_utf8(raw)
            .map_err(|_| problem(keyword, "the value is not UTF-8", "save the file as UTF-8"))?;
        if value.contains('\0') || keyword.contains('\0') {
            return Err(problem("", "the line holds a NUL byte", "remove it"));
        }
        if keyword == "%include" {
            return Ok(Line::Include { origin: origin.clone(), pattern: value });
        }
        let (command, name) = match keyword.as_bytes().first() {
            Some(b'+') => (Command::Append, &keyword[1..]),
            Some(b'/') => (Command::Clear, &keyword[1..]),
            _ => (Command::Set, keyword),
        };
        let value = if command == Command::Clear { String::new() } else { value };
        Ok(Line::Item(Item { origin: origin.clone(), command, name: name.to_owned(), value }))
    }

    /// A value in double quotes, with nothing but a comment behind it.
    fn quoted(&mut self) -> Result<Vec<u8>, &'static str> {
        const ESCAPE: &str = "the quoted value holds an escape that does not exist";
        let mut value = Vec::new();
        self.next();
        loop {
            match self.peek() {
                None | Some(b'\n') => return Err("the quotes are not closed on this line"),
                Some(b'"') => break,
                Some(b'\\') => {
                    self.next();
                    // A newline stays unread: it belongs to the skipping of this bad line.
                    let escape = self.peek().filter(|&byte| byte != b'\n').ok_or(ESCAPE)?;
                    self.next();
                    value.push(match escape {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'"' | b'\\' | b'\'' => escape,
                        b'x' | b'X' => {
                            let high = self.digit(16).ok_or(ESCAPE)?;
                            let low = self.digit(16).ok_or(ESCAPE)?;
                            (high * 16 + low) as u8
                        }
                        b'0'..=b'7' => {
                            let mut code = u32::from(escape - b'0');
                            for _ in 0..2 {
                                code = self.digit(8).map_or(code, |digit| code * 8 + digit);
                            }
                            u8::try_from(code).map_err(|_| ESCAPE)?
                        }
                        _ => return Err(ESCAPE),
                    });
                }
                Some(byte) => {
                    self.next();
                    value.push(byte);
                }
            }
        }
        self.next();
        self.skip_while(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        match self.peek() {
            None | Some(b'\n') => Ok(value),
            Some(b'#') => {
                self.skip_line();
                Ok(value)
            }
            Some(_) => Err("there is something behind the closing quote"),
        }
    }

    /// Takes one digit of the given base, if one stands here.
    fn digit(&mut self, base: u32) -> Option<u32> {
        let digit = char::from(self.peek()?).to_digit(base)?;
        self.next();
        Some(digit)
    }

    /// A value without quotes, trimmed. Once a line has been continued, a comment ends at its newline and the
    /// value goes on behind it; before that, a comment ends the value.
    fn plain(&mut self) -> Vec<u8> {
        let mut value = Vec::new();
        let mut continued = false;
        while let Some(byte) = self.peek() {
            if self.at_continuation() {
                continued = true;
                self.next();
                self.next();
            } else if byte == b'\n' {
                break;
            } else if byte == b'#' {
                self.skip_line();
                if !continued {
                    break;
                }
                self.next();
            } else {
                self.next();
                value.push(byte);
            }
        }
        let end = value.iter().rposition(|&byte| !is_space(byte)).map_or(0, |last| last + 1);
        value.truncate(end);
        let start = value.iter().position(|&byte| !is_space(byte)).unwrap_or(0);
        value.split_off(start)
    }
}
