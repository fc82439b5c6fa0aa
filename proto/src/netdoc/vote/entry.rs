//! One relay's entry in a vote: reading and writing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::{EdListing, Vote, VotedMicrodesc, VotedRelay, VotedWeight};
use crate::netdoc::consensus::ipv6;
use crate::netdoc::protover::Protocols;
use crate::netdoc::section::{Count, Obj, Rule, Section, rule, words};
use crate::netdoc::text::{self, Fingerprint, Nickname};
use crate::netdoc::tokenize::Item;
use crate::netdoc::{DocError, Fault};

pub(super) const RELAY: &[Rule] = &[
    words("r", Count::One, 8, Obj::No),
    words("a", Count::Many, 1, Obj::No),
    words("s", Count::One, 0, Obj::No),
    rule("v", Count::Optional, 0, Obj::No),
    rule("pr", Count::One, 0, Obj::No),
    words("w", Count::Optional, 0, Obj::No),
    rule("p", Count::Optional, 0, Obj::No),
    words("id", Count::Many, 2, Obj::No),
    // C tor does not know it.
    rule("stats", Count::Many, 0, Obj::Any),
    rule("m", Count::Many, 0, Obj::No),
];

/// Texts that many entries share, stored once; protocol lists only after a check.
#[derive(Default)]
pub(super) struct Shared<'a> {
    texts: BTreeMap<&'a str, Arc<str>>,
    protocols: BTreeMap<&'a str, Arc<str>>,
}

impl<'a> Shared<'a> {
    fn text(&mut self, text: &'a str) -> Arc<str> {
        self.texts.entry(text).or_insert_with(|| Arc::from(text)).clone()
    }

    fn protocols(&mut self, item: &Item<'a>) -> Result<Arc<str>, DocError> {
        let text = line(item);
        if let Some(known) = self.protocols.get(text) {
            return Ok(known.clone());
        }
        Protocols::parse(text).map_err(|_| item.fault(Fault::value("protocol list", text)))?;
        Ok(self.protocols.entry(text).or_insert_with(|| Arc::from(text)).clone())
    }
}

/// The rest of a line as one text.
pub(super) fn line<'a>(item: &Item<'a>) -> &'a str {
    item.rest.trim_start_matches([' ', '\t'])
}

/// Reads an entry of a vote on these flags. As in C tor, what does not parse refuses the vote.
pub(super) fn parse<'a>(
    s: &Section<'a>,
    known_flags: &[Box<str>],
    shared: &mut Shared<'a>,
) -> Result<VotedRelay, DocError> {
    let r = s.need("r")?;
    let sha1_id = |t: &str| text::base64_array_lax(t).map(Fingerprint);
    let clock = r.arg(4).unwrap_or("");
    // To C tor, what is no port is none.
    let port = |n| r.arg(n).and_then(|a| a.parse().ok()).unwrap_or(0);
    Ok(VotedRelay {
        nickname: r.parse_arg(0, "nickname", Nickname::new)?,
        identity: r.parse_arg(1, "identity", sha1_id)?,
        ed_identity: ed_identity(s)?,
        descriptor: r.parse_arg(2, "descriptor digest", sha1_id)?,
        published: r.parse_arg(3, "publication time", |date| text::time(date, clock))?,
        ipv4: r.parse_arg(5, "address", |a| a.parse().ok())?,
        or_port: port(6),
        dir_port: port(7),
        ipv6: s.all("a").filter_map(|a| a.arg(0)).find_map(ipv6),
        flags: flags(s.need("s")?, known_flags)?,
        version: s.get("v").map(|v| shared.text(line(v))),
        protocols: shared.protocols(s.need("pr")?)?,
        weight: s.get("w").map(weight).transpose()?.unwrap_or_default(),
        policy: s.get("p").map(|p| policy(p, shared)).transpose()?,
        stats: s.get("stats").map(|i| line(i).into()),
        microdescs: microdescs(s),
    })
}

fn ed_identity(s: &Section<'_>) -> Result<EdListing, DocError> {
    let mut listing = EdListing::Unlisted;
    for id in s.all("id").filter(|id| id.arg(0) == Some("ed25519")) {
        listing = match id.arg(1) {
            Some("none") => EdListing::None,
            _ => match id.parse_arg(1, "id ed25519", text::base64_array_lax)? {
                key if key == [0; 32] => EdListing::None,
                key => EdListing::Key(key),
            },
        };
    }
    Ok(listing)
}

fn flags(s: &Item<'_>, known: &[Box<str>]) -> Result<u64, DocError> {
    s.args().try_fold(0, |bits, name| {
        let n = known.binary_search_by(|k| (**k).cmp(name)).ok().and_then(|n| u32::try_from(n).ok());
        match n.and_then(|n| 1u64.checked_shl(n)) {
            Some(bit) => Ok(bits | bit),
            None => Err(s.fault(Fault::value("flag that is not among the known-flags", name))),
        }
    })
}

fn weight(w: &Item<'_>) -> Result<VotedWeight, DocError> {
    let mut weight = VotedWeight::default();
    for arg in w.args() {
        let Some((name, value)) = arg.split_once('=') else { continue };
        let bad = || w.fault(Fault::value("w", arg));
        let number = || value.parse::<u32>().map_err(|_| bad());
        match name {
            "Bandwidth" => weight.bandwidth = Some(number()?),
            "Measured" => weight.measured = Some(number()?),
            "MeasuredButAuthority" => weight.measured_but_authority = value.parse().ok(),
            "GuardFraction" => {
                weight.guard_fraction = Some(value.parse().ok().filter(|p| *p <= 100).ok_or_else(bad)?);
            }
            _ => {}
        }
    }
    Ok(weight)
}

fn policy<'a>(p: &Item<'a>, shared: &mut Shared<'a>) -> Result<Arc<str>, DocError> {
    let text = line(p);
    if text.starts_with("accept ") || text.starts_with("reject ") {
        Ok(shared.text(text))
    } else {
        Err(p.fault(Fault::value("policy summary", text)))
    }
}

/// Lines `32,33,34 sha256=DIGEST`. For each method C tor looks at the last line that names it, and no further: if there is
/// no digest in that one, the relay has none.
fn microdescs(s: &Section<'_>) -> Vec<VotedMicrodesc> {
    let lines: Vec<&str> = s.all("m").map(line).collect();
    let mut without = BTreeSet::new();
    let mut microdescs = Vec::new();
    for line in lines.into_iter().rev() {
        match sha256(line) {
            Some(digest) => {
                let methods = methods(line).filter(|method| !without.contains(method)).collect();
                microdescs.push(VotedMicrodesc { methods, digest });
            }
            None => without.extend(methods(line)),
        }
    }
    microdescs.reverse();
    // Of thousands of relays, one or two of each.
    microdescs.shrink_to_fit();
    microdescs
}

/// The numbers at the start of the line, with commas between them; what has leading zeros or is too large is no method.
fn methods(line: &str) -> impl Iterator<Item = u32> {
    let mut rest = Some(line);
    let digits = std::iter::from_fn(move || {
        let text = rest?;
        let (digits, behind) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        rest = behind.strip_prefix(',');
        (!digits.is_empty()).then_some(digits)
    });
    digits.filter(|digits| !digits.starts_with('0')).filter_map(|digits| digits.parse().ok())
}

/// What follows the first `sha256=`, as far as a digest goes.
fn sha256(line: &str) -> Option<[u8; 32]> {
    let (_, digest) = line.split_once(" sha256=")?;
    text::base64_array_lax(digest.get(..43)?)
}

/// Writes an entry of `vote`, in C tor's order of lines.
pub(super) fn write(out: &mut String, vote: &Vote, relay: &VotedRelay) {
    let VotedRelay { nickname, ipv4, or_port, dir_port, .. } = relay;
    let identity = text::base64_unpadded(&relay.identity.0);
    let descriptor = text::base64_unpadded(&relay.descriptor.0);
    let published = text::format_time(relay.published);
    // Writing to a String does not fail, here and below.
    let _ = writeln!(out, "r {nickname} {identity} {descriptor} {published} {ipv4} {or_port} {dir_port}");
    if let Some((ip, port)) = relay.ipv6 {
        let _ = writeln!(out, "a {}", text::format_ipv6(ip, port));
    }
    out.push('s');
    vote.flag_names(relay.flags).for_each(|name| out.extend([" ", name]));
    out.push('\n');
    if let Some(version) = &relay.version {
        let _ = writeln!(out, "v {version}");
    }
    let _ = writeln!(out, "pr {}", relay.protocols);
    write_weight(out, &relay.weight);
    if let Some(policy) = &relay.policy {
        let _ = writeln!(out, "p {policy}");
    }
    match &relay.ed_identity {
        EdListing::Unlisted => {}
        EdListing::None => out.push_str("id ed25519 none\n"),
        EdListing::Key(key) => _ = writeln!(out, "id ed25519 {}", text::base64_unpadded(key)),
    }
    if let Some(stats) = &relay.stats {
        let _ = writeln!(out, "stats {stats}");
    }
    for m in &relay.microdescs {
        let methods: Vec<String> = m.methods.iter().map(u32::to_string).collect();
        let _ = writeln!(out, "m {} sha256={}", methods.join(","), text::base64_unpadded(&m.digest));
    }
}

fn write_weight(out: &mut String, weight: &VotedWeight) {
    if *weight == VotedWeight::default() {
        return;
    }
    let fields = [
        ("Bandwidth", weight.bandwidth),
        ("Measured", weight.measured),
        ("MeasuredButAuthority", weight.measured_but_authority),
        ("GuardFraction", weight.guard_fraction.map(u32::from)),
    ];
    out.push('w');
    for (name, value) in fields {
        if let Some(value) = value {
            let _ = write!(out, " {name}={value}");
        }
    }
    out.push('\n');
}
