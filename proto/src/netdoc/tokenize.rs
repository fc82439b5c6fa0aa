//! The meta-format of network documents (dir-spec 1.2): items, arguments, objects.
//!
//! Nothing is copied: an [`Item`] borrows from the text, and its byte offsets let callers hash exactly the bytes
//! that were signed. Blank lines and `opt ` prefixes are stepped over, as C tor does.

use crate::limits::{NETDOC_LINE, NETDOC_OBJECT};
use crate::netdoc::{DocError, Fault, text};

/// One line and the object that follows it, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The first word of the line.
    pub keyword: &'a str,
    /// The rest of the line after the blanks that end the keyword, as it stands.
    pub rest: &'a str,
    /// The object, if one follows.
    pub object: Option<Object<'a>>,
    /// Line number of the keyword, from 1.
    pub line: usize,
    /// Byte offset of the start of the line in the text.
    pub start: usize,
    /// Byte offset just after the newline that ends the keyword's own line.
    pub line_end: usize,
    /// Byte offset just after the item, its object included.
    pub end: usize,
}

/// A base64 object between its BEGIN and END lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// The word(s) after `-----BEGIN `.
    pub label: &'a str,
    /// The lines between, still encoded.
    pub body: &'a str,
}

impl<'a> Item<'a> {
    /// The arguments, split at blanks and tabs.
    pub fn args(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.rest.split([' ', '\t']).filter(|a| !a.is_empty())
    }

    /// Argument number `n`, from 0.
    pub fn arg(&self, n: usize) -> Option<&'a str> {
        self.args().nth(n)
    }

    /// A fault at this item's line.
    pub(crate) fn fault(&self, fault: Fault) -> DocError {
        fault.at(self.line)
    }

    /// Argument `n` through `parse`; a missing argument or a `None` is a [`Fault::BadValue`] named `what`.
    pub(crate) fn parse_arg<T>(
        &self,
        n: usize,
        what: &'static str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, DocError> {
        let arg = self.arg(n).unwrap_or("");
        parse(arg).ok_or_else(|| self.fault(Fault::value(what, arg)))
    }

    /// The decoded object, which must be there and carry `label`.
    pub(crate) fn decode_object(&self, label: &'static str, what: &'static str) -> Result<Vec<u8>, DocError> {
        let object = self
            .object
            .filter(|o| o.label == label)
            .ok_or_else(|| self.fault(Fault::MissingObject { keyword: what, label }))?;
        object.decode().ok_or_else(|| self.fault(Fault::value(what, object.body)))
    }
}

impl Object<'_> {
    /// The bytes of the object; `None` if the base64 is wrong.
    pub fn decode(&self) -> Option<Vec<u8>> {
        let joined: String = self.body.split_ascii_whitespace().collect();
        text::base64(&joined)
    }
}

/// Splits a document into items.
///
/// Yields an error once, at the first fault, and then ends.
#[derive(Clone, Debug)]
pub struct Tokenizer<'a> {
    text: &'a str,
    pos: usize,
    line: usize,
}

impl<'a> Tokenizer<'a> {
    /// A tokenizer over the whole of `text`.
    pub fn new(text: &'a str) -> Self {
        Tokenizer { text, pos: 0, line: 1 }
    }

    /// The line at `pos` without its newline, and the offset behind the newline.
    ///
    /// The last line of a document may lack its newline (as in C tor).
    fn line_at(&self, pos: usize) -> (&'a str, usize) {
        let rest = &self.text[pos..];
        match rest.find('\n') {
            Some(n) => (&rest[..n], pos + n + 1),
            None => (rest, self.text.len()),
        }
    }

    fn next_item(&mut self) -> Result<Option<Item<'a>>, DocError> {
        let (line, start, line_end) = loop {
            if self.pos >= self.text.len() {
                return Ok(None);
            }
            let (line, next) = self.line_at(self.pos);
            if line.len() > NETDOC_LINE {
                return Err(Fault::LineTooLong(line.len()).at(self.line));
            }
            if let Some(&c) = line.as_bytes().iter().find(|&&b| b == 0 || b == b'\r') {
                return Err(Fault::ControlCharacter(c).at(self.line));
            }
            if !line.trim_matches([' ', '\t']).is_empty() {
                break (line, self.pos, next);
            }
            self.pos = next;
            self.line += 1;
        };
        let number = self.line;
        if line.starts_with("-----") {
            return Err(Fault::StrayObject.at(number));
        }
        let body = line.trim_start_matches([' ', '\t']);
        let body = body.strip_prefix("opt ").map_or(body, |b| b.trim_start_matches([' ', '\t']));
        let (keyword, rest) = body.split_once([' ', '\t']).unwrap_or((body, ""));
        let rest = rest.trim_start_matches([' ', '\t']);
        self.pos = line_end;
        self.line += 1;
        let object = self.object()?;
        Ok(Some(Item { keyword, rest, object, line: number, start, line_end, end: self.pos }))
    }

    /// The object at the current position, if one begins there.
    fn object(&mut self) -> Result<Option<Object<'a>>, DocError> {
        let (first, body_start) = self.line_at(self.pos);
        let Some(label) = first.strip_prefix("-----BEGIN ") else { return Ok(None) };
        let begin_line = self.line;
        let bad = || {
            let shown: String = label.trim_end_matches('-').chars().take(64).collect();
            Fault::BadObject(shown).at(begin_line)
        };
        let label = label.strip_suffix("-----").ok_or_else(bad)?;
        let mut pos = body_start;
        self.line += 1;
        loop {
            if pos >= self.text.len() {
                return Err(bad());
            }
            let (line, next) = self.line_at(pos);
            self.line += 1;
            if let Some(end) = line.strip_prefix("-----") {
                let closes = end.strip_prefix("END ").and_then(|e| e.strip_suffix("-----")) == Some(label);
                if !closes {
                    return Err(bad());
                }
                self.pos = next;
                return Ok(Some(Object { label, body: &self.text[body_start..pos] }));
            }
            if next - body_start > NETDOC_OBJECT {
                return Err(Fault::ObjectTooLong(next - body_start).at(begin_line));
            }
            pos = next;
        }
    }
}

impl<'a> Iterator for Tokenizer<'a> {
    type Item = Result<Item<'a>, DocError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_item();
        if next.is_err() {
            self.pos = self.text.len();
        }
        next.transpose()
    }
}

#[cfg(test)]
mod tests;
