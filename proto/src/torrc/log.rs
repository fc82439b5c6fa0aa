//! `Log` lines: `severities… stdout|stderr|syslog|file NAME`.

use super::{Item, Origin, Problem};

/// How grave a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is broken.
    Err,
    /// Something is wrong, or needs attention.
    Warn,
    /// What an operator wants to read anyway.
    Notice,
    /// What happens, without detail.
    Info,
    /// Everything.
    Debug,
}

impl Severity {
    /// All, gravest first.
    pub const ALL: [Severity; 5] =
        [Severity::Err, Severity::Warn, Severity::Notice, Severity::Info, Severity::Debug];

    fn parse(word: &str) -> Option<Severity> {
        let names = ["err", "warn", "notice", "info", "debug"];
        let at = names.iter().position(|name| word.eq_ignore_ascii_case(name))?;
        Some(Severity::ALL[at])
    }
}

/// The domains that C tor sorts its messages into.
const DOMAINS: [&str; 30] = [
    "GENERAL",
    "CRYPTO",
    "NET",
    "CONFIG",
    "FS",
    "PROTOCOL",
    "MM",
    "HTTP",
    "APP",
    "CONTROL",
    "CIRC",
    "REND",
    "BUG",
    "DIR",
    "DIRSERV",
    "OR",
    "EDGE",
    "ACCT",
    "HIST",
    "HANDSHAKE",
    "HEARTBEAT",
    "CHANNEL",
    "SCHED",
    "GUARD",
    "CONSDIFF",
    "DOS",
    "PROCESS",
    "PT",
    "BTRACK",
    "MESG",
];

/// A set of message domains, one bit each in the order of C tor's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Domains(u32);

impl Domains {
    /// Every domain.
    pub const ALL: Domains = Domains((1 << DOMAINS.len()) - 1);

    /// Whether the set holds the domain of this name.
    pub fn contains(self, domain: &str) -> bool {
        Domains::one(domain).is_some_and(|one| self.0 & one.0 != 0)
    }

    /// Whether the set holds no domain.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn one(domain: &str) -> Option<Domains> {
        let at = DOMAINS.iter().position(|name| domain.eq_ignore_ascii_case(name))?;
        Some(Domains(1 << at))
    }
}

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The system log.
    Syslog,
    /// A file, appended to.
    File(String),
}

/// One `Log` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The line it comes from.
    pub origin: Origin,
    /// For each severity, in the order of [`Severity::ALL`], the domains that are logged.
    pub domains: [Domains; 5],
    /// Where to.
    pub target: Target,
}

impl LogLine {
    /// A line that logs everything of `severity` and graver.
    pub fn down_to(severity: Severity, target: Target) -> LogLine {
        let mut domains = [Domains::default(); 5];
        domains[..=severity as usize].fill(Domains::ALL);
        LogLine { origin: Origin::Default, domains, target }
    }

    /// The least grave severity that is logged for any domain.
    pub fn lowest(&self) -> Severity {
        let last = self.domains.iter().rposition(|domains| !domains.is_empty());
        last.map_or(Severity::Err, |at| Severity::ALL[at])
    }

    /// Whether a message is logged.
    pub fn accepts(&self, severity: Severity, domain: &str) -> bool {
        self.domains[severity as usize].contains(domain)
    }
}

const FORM: &str = "write e.g. \"notice stdout\", \"info-err file /var/log/tor/log\" or \"[net,or]debug syslog\"; \
                    severities are err, warn, notice, info and debug";

/// Parses the value of a `Log` line: `([domains]? severity[-severity])+ target`. The first severity of a range is
/// the least grave; alone it means "and graver". Without a target, messages go to standard output.
pub fn parse(item: &Item) -> Result<LogLine, Problem> {
    let bad = |what: String| Problem::with(item, what, FORM);
    let mut line =
        LogLine { origin: item.origin.clone(), domains: [Domains::default(); 5], target: Target::Stdout };
    let mut rest = item.value.trim();
    let mut unqualified = false;
    loop {
        let mut domains = Domains::ALL;
        let list = rest.strip_prefix('[');
        if let Some(list) = list {
            let (names, behind) =
                list.split_once(']').ok_or_else(|| bad("the bracket is not closed".into()))?;
            domains = domain_list(names).map_err(|name| bad(format!("no such domain as {name}")))?;
            rest = behind.trim_start();
        }
        let (word, behind) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
        if list.is_none() && (word.is_empty() || is_target(word)) {
            break;
        }
        if list.is_none() && std::mem::replace(&mut unqualified, true) {
            return Err(bad("more than one range of severities without domains".into()));
        }
        let (low, high) = word.split_once('-').unwrap_or((word, "err"));
        let severity =
            |name: &str| Severity::parse(name).ok_or_else(|| bad(format!("no such severity as {name}")));
        let (low, high) = (severity(low)?, severity(high)?);
        for severity in Severity::ALL.into_iter().filter(|s| (high..=low).contains(s)) {
            line.domains[severity as usize].0 |= domains.0;
        }
        rest = behind.trim_start();
    }
    if line.domains.iter().all(|domains| domains.is_empty()) {
        return Err(bad("the severity is missing".into()));
    }
    line.target = target(rest).ok_or_else(|| bad(format!("no such target as {rest}")))?;
    Ok(line)
}

fn is_target(word: &str) -> bool {
    ["stdout", "stderr", "syslog", "android", "file"].iter().any(|t| word.eq_ignore_ascii_case(t))
}

fn target(text: &str) -> Option<Target> {
    let (word, argument) = text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""));
    let argument = argument.trim();
    Some(match (word.to_ascii_lowercase().as_str(), argument) {
        ("" | "stdout", "") => Target::Stdout,
        ("stderr", "") => Target::Stderr,
        ("syslog" | "android", "") => Target::Syslog,
        ("file", name) if !name.is_empty() => Target::File(name.to_owned()),
        _ => return None,
    })
}

/// `*`, names, and `~name` for all but that one.
fn domain_list(names: &str) -> Result<Domains, String> {
    let (mut with, mut without) = (0, 0);
    for name in names.split(',').map(str::trim) {
        let (set, bare) = match name.strip_prefix('~') {
            Some(bare) => (&mut without, bare),
            None => (&mut with, name),
        };
        *set |= match bare {
            "*" => Domains::ALL.0,
            _ => Domains::one(bare).ok_or_else(|| name.to_owned())?.0,
        };
    }
    if with == 0 {
        with = Domains::ALL.0;
    }
    Ok(Domains(with & !without))
}
