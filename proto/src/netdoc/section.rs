//! Rule tables: which lines a document has, how often, with what.

use crate::limits::{NETDOC_ARGUMENTS, SECTION_ITEMS};
use crate::netdoc::tokenize::{Item, Tokenizer};
use crate::netdoc::{DocError, Fault};

/// How often a line may stand in a document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// Exactly once.
    One,
    /// At most once.
    Optional,
    /// Any number of times.
    Many,
}

/// Whether a line has an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Obj {
    /// It must have none.
    No,
    /// It must have one with this label.
    Label(&'static str),
    /// It may have one of any label; the reader of the line decides.
    Any,
}

/// The items of a document, one at a time.
pub(super) type Tokens<'a> = std::iter::Peekable<Tokenizer<'a>>;

/// The rule for one keyword.
pub(super) struct Rule {
    pub keyword: &'static str,
    pub count: Count,
    /// Least number of arguments.
    pub args: usize,
    /// Greatest number of arguments.
    pub most: usize,
    pub object: Obj,
}

/// Shorthand for a table row: a line with so many arguments or more, which are for later versions.
pub(super) const fn rule(keyword: &'static str, count: Count, args: usize, object: Obj) -> Rule {
    Rule { keyword, count, args, most: usize::MAX, object }
}

/// The same for a line with just so many.
pub(super) const fn exact(keyword: &'static str, count: Count, args: usize, object: Obj) -> Rule {
    Rule { keyword, count, args, most: args, object }
}

/// The same for a line whose arguments C tor takes one by one and not as one text: it refuses more than 512, whatever is
/// done with them.
pub(super) const fn words(keyword: &'static str, count: Count, args: usize, object: Obj) -> Rule {
    Rule { keyword, count, args, most: NETDOC_ARGUMENTS, object }
}

/// The items of one document that its table names, checked against the table; unknown lines are dropped.
pub(super) struct Section<'a> {
    items: Vec<(&'static str, Item<'a>)>,
    /// The first item of the document, known or not.
    first: Option<Item<'a>>,
    /// The second one.
    second: Option<Item<'a>>,
    /// The last one.
    last: Option<Item<'a>>,
    /// The last but one.
    before_last: Option<Item<'a>>,
    last_line: usize,
}

impl<'a> Section<'a> {
    /// Reads the whole of `text` by `rules`.
    pub(super) fn parse(text: &'a str, rules: &[Rule]) -> Result<Self, DocError> {
        Self::take(&mut Tokenizer::new(text).peekable(), rules, |_| false)
    }

    /// Reads items by `rules` up to, not including, the first one after the start for which `stop` holds.
    pub(super) fn take(
        tokens: &mut Tokens<'a>,
        rules: &[Rule],
        stop: impl Fn(&str) -> bool,
    ) -> Result<Self, DocError> {
        let mut section = Section {
            items: Vec::new(),
            first: None,
            second: None,
            last: None,
            before_last: None,
            last_line: 1,
        };
        let mut n = 0;
        let goes_on = |token: &Result<Item<'a>, DocError>, n| match token {
            Ok(item) => n == 0 || !stop(item.keyword),
            Err(_) => true,
        };
        // A known line that breaks the rules is reported only when the section has been read whole, so that
        // whoever reads sections one by one can leave out a bad one and go on behind it.
        let mut broken = None;
        while let Some(item) = tokens.next_if(|token| goes_on(token, n)) {
            let item = item?;
            match n {
                0 => section.first = Some(item),
                1 => section.second = Some(item),
                _ => {}
            }
            n += 1;
            section.before_last = section.last.replace(item);
            section.last_line = item.line;
            // Nor is anything added behind a fault: looking for each line's double takes its time.
            if broken.is_none()
                && let Some(rule) = rules.iter().find(|r| r.keyword == item.keyword)
            {
                broken = section.add(rule, item).err();
            }
        }
        if let Some(fault) = broken {
            return Err(fault);
        }
        for rule in rules.iter().filter(|r| r.count == Count::One) {
            section.need(rule.keyword)?;
        }
        Ok(section)
    }

    fn add(&mut self, rule: &Rule, item: Item<'a>) -> Result<(), DocError> {
        let keyword = rule.keyword;
        if self.items.len() >= SECTION_ITEMS {
            return Err(item.fault(Fault::TooManyLines));
        }
        if rule.count != Count::Many && self.get(keyword).is_some() {
            return Err(item.fault(Fault::Duplicate(keyword)));
        }
        if rule.args > 0 {
            let got = item.args().take(rule.args).count();
            if got < rule.args {
                return Err(item.fault(Fault::TooFewArguments { keyword, want: rule.args, got }));
            }
        }
        if rule.most != usize::MAX && item.arg(rule.most).is_some() {
            return Err(item.fault(Fault::TooManyArguments { keyword, most: rule.most }));
        }
        match (rule.object, item.object) {
            (Obj::No, Some(_)) => return Err(item.fault(Fault::UnexpectedObject(keyword))),
            (Obj::Label(label), object) if object.is_none_or(|o| o.label != label) => {
                return Err(item.fault(Fault::MissingObject { keyword, label }));
            }
            _ => {}
        }
        self.items.push((keyword, item));
        Ok(())
    }

    /// The first item of this keyword.
    pub(super) fn get(&self, keyword: &str) -> Option<&Item<'a>> {
        self.items.iter().find(|(k, _)| *k == keyword).map(|(_, item)| item)
    }

    /// The item of this keyword, or the fault that it is missing.
    pub(super) fn need(&self, keyword: &'static str) -> Result<&Item<'a>, DocError> {
        self.get(keyword).ok_or_else(|| Fault::Missing(keyword).at(self.last_line))
    }

    /// All items of this keyword, in order.
    pub(super) fn all(&self, keyword: &'static str) -> impl Iterator<Item = &Item<'a>> {
        self.items.iter().filter(move |(k, _)| *k == keyword).map(|(_, item)| item)
    }

    /// All known items, in document order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Item<'a>> {
        self.items.iter().map(|(_, item)| item)
    }

    /// Checks that `keyword` opens the document, and returns it.
    pub(super) fn opens_with(&self, keyword: &'static str) -> Result<&Item<'a>, DocError> {
        Self::at_place(self.first.as_ref(), keyword)
    }

    /// Checks that `keyword` is the second item, and returns it.
    pub(super) fn follows(&self, keyword: &'static str) -> Result<&Item<'a>, DocError> {
        Self::at_place(self.second.as_ref(), keyword)
    }

    /// Checks that `keyword` is the last item, and returns it.
    pub(super) fn ends_with(&self, keyword: &'static str) -> Result<&Item<'a>, DocError> {
        Self::at_place(self.last.as_ref(), keyword)
    }

    /// Checks that `keyword` is the last item but one, and returns it.
    pub(super) fn next_to_last(&self, keyword: &'static str) -> Result<&Item<'a>, DocError> {
        Self::at_place(self.before_last.as_ref(), keyword)
    }

    fn at_place<'b>(item: Option<&'b Item<'a>>, keyword: &'static str) -> Result<&'b Item<'a>, DocError> {
        match item {
            Some(item) if item.keyword == keyword => Ok(item),
            Some(item) => Err(item.fault(Fault::Misplaced(keyword))),
            None => Err(Fault::Missing(keyword).at(1)),
        }
    }
}
