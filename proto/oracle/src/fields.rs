//! What a reader made of a document, in a form in which two readers can be compared.
//!
//! Every value is written by the same function for both readers wherever their types differ: addresses and numbers as
//! `Display` has them, bytes in hex, times in seconds, policies by what they permit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{SystemTime, UNIX_EPOCH};

/// Names and values; what a document does not say has no name here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Adds a value.
    pub fn put(&mut self, name: impl Into<String>, value: impl Display) {
        self.0.insert(name.into(), value.to_string());
    }

    /// Adds a value, if there is one.
    pub fn maybe(&mut self, name: impl Into<String>, value: Option<impl Display>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    /// Adds a set, in an order of its own.
    pub fn set(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = impl Display>) {
        let values: BTreeSet<String> = values.into_iter().map(|v| v.to_string()).collect();
        self.put(name, values.into_iter().collect::<Vec<_>>().join(" "));
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The number of names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What differs: name, value here, value there.
    pub fn differences<'a>(&'a self, other: &'a Fields) -> Vec<(&'a str, Option<&'a str>, Option<&'a str>)> {
        let names: BTreeSet<&str> = self.0.keys().chain(other.0.keys()).map(String::as_str).collect();
        let both = names.into_iter().map(|name| (name, self.get(name), other.get(name)));
        both.filter(|(_, here, there)| here != there).collect()
    }
}

/// Bytes in upper-case hex.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02X}");
        out
    })
}

/// Seconds since 1970; times before that do not occur in documents that anyone accepts.
pub fn seconds(at: SystemTime) -> String {
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs().to_string(),
        Err(before) => format!("-{}", before.duration().as_secs()),
    }
}

/// The ports that are permitted, as ranges.
pub fn ports(permits: impl Fn(u16) -> bool) -> String {
    let mut out = String::new();
    let mut first = None;
    for port in 1..=u16::MAX {
        let permitted = permits(port);
        if permitted && first.is_none() {
            first = Some(port);
        }
        let goes_on = permitted && port < u16::MAX;
        if let Some(start) = first.filter(|_| !goes_on) {
            let last = if permitted { port } else { port - 1 };
            let _ = write!(out, "{start}-{last},");
            first = None;
        }
    }
    out
}

/// IPv4 addresses in and beside the networks that policies single out.
const ADDRESSES: [[u8; 4]; 20] = [
    [0, 0, 0, 1],
    [1, 1, 1, 1],
    [9, 255, 255, 255],
    [10, 0, 0, 0],
    [10, 255, 255, 255],
    [100, 64, 0, 1],
    [127, 0, 0, 1],
    [127, 71, 0, 1],
    [169, 253, 255, 255],
    [169, 254, 1, 1],
    [172, 15, 255, 255],
    [172, 16, 0, 0],
    [172, 31, 255, 255],
    [172, 32, 0, 0],
    [192, 168, 1, 1],
    [192, 169, 0, 0],
    [198, 51, 100, 7],
    [203, 0, 113, 1],
    [224, 0, 0, 1],
    [255, 255, 255, 255],
];

/// For each of many addresses and ports, whether a stream to it is permitted: `1` or `0`. Only IPv4: descriptors have
/// a line of its own for IPv6.
pub fn destinations(own: Ipv4Addr, permits: impl Fn(IpAddr, u16) -> bool) -> String {
    let mut out = String::new();
    for address in ADDRESSES.map(Ipv4Addr::from).into_iter().chain([own]) {
        for port in (1..=1100).chain((1101..=u16::MAX).step_by(97)).chain([6881, 6999, 7000, u16::MAX]) {
            out.push(if permits(address.into(), port) { '1' } else { '0' });
        }
        out.push('\n');
    }
    out
}

/// A list of protocols without those that have no version, which some leave out; each reader has an order of its own.
pub fn protocols(list: impl Display) -> BTreeSet<String> {
    let list = list.to_string();
    list.split(' ').filter(|entry| !entry.is_empty() && !entry.ends_with('=')).map(str::to_owned).collect()
}

/// The names before the `=` signs of the first line of `text` with this keyword.
pub fn argument_names<'a>(text: &'a str, keyword: &str) -> BTreeSet<&'a str> {
    let rest = text.lines().find_map(|line| line.strip_prefix(keyword)?.strip_prefix([' ', '\t']));
    let words = rest.unwrap_or_default().split([' ', '\t']);
    words.filter_map(|word| word.split_once('=')).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports() {
        assert_eq!(ports(|_| false), "");
        assert_eq!(ports(|_| true), "1-65535,");
        assert_eq!(ports(|p| p == 1 || (80..=90).contains(&p) || p > 65_533), "1-1,80-90,65534-65535,");
    }

    #[test]
    fn differences_name_what_is_missing() {
        let (mut one, mut two) = (Fields::default(), Fields::default());
        one.put("a", 1);
        two.put("a", 1);
        two.maybe("b", Some(2));
        two.maybe("c", None::<u8>);
        assert_eq!(one.differences(&two), [("b", None, Some("2"))]);
        assert!(one.differences(&one).is_empty());
    }
}
