//! Subprotocol versions: the `proto`, `pr` and `required-*-protocols` lines (tor-spec 9).

use std::collections::BTreeMap;
use std::fmt;

/// Highest version number a protocol can have; a set of versions is a 64-bit mask.
const MAX_VERSION: u8 = 63;
/// Longest protocol name that C tor takes.
const MAX_NAME: usize = 100;
/// Most protocols on one line; a longer list does not parse. C tor knows 14.
const MAX_PROTOCOLS: usize = 256;

/// A protocol of our own, by name and version: [`Terms::half_close`](crate::handshake::Terms). Stock authorities carry
/// names that they do not know into the consensus, and stock clients pass over them.
pub const HALF_CLOSE: (&str, u8) = ("X-HalfClose", 1);

/// What a list of protocol versions can be wrong in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtoverError {
    /// An entry is not `Name=versions`.
    #[error("protocol entry {0:?} is not of the form Name=1-3,5 with versions up to 63")]
    BadEntry(String),
    /// There are more entries than anyone has protocols.
    #[error("more than {MAX_PROTOCOLS} protocols in one list")]
    TooMany,
}

/// A set of supported protocol versions, by protocol name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// Bit n of a mask stands for version n.
    masks: BTreeMap<String, u64>,
}

impl Protocols {
    /// Reads `Name=1-3,5 Other=2`; an empty text is the empty set. Of several entries of one name the first counts, as in
    /// C tor.
    pub fn parse(text: &str) -> Result<Self, ProtoverError> {
        let mut masks = BTreeMap::new();
        for entry in text.split([' ', '\t']).filter(|e| !e.is_empty()) {
            if masks.len() >= MAX_PROTOCOLS {
                return Err(ProtoverError::TooMany);
            }
            let bad = || ProtoverError::BadEntry(entry.chars().take(64).collect());
            let (name, versions) = entry.split_once('=').ok_or_else(bad)?;
            let name_ok = (1..=MAX_NAME).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if !name_ok {
                return Err(bad());
            }
            let mask = parse_versions(versions).ok_or_else(bad)?;
            masks.entry(name.to_owned()).or_insert(mask);
        }
        Ok(Protocols { masks })
    }

    /// Adds one version of a protocol; one above 63 is none.
    pub fn add(&mut self, name: &str, version: u8) {
        if version <= MAX_VERSION {
            *self.masks.entry(name.to_owned()).or_default() |= 1 << version;
        }
    }

    /// Whether `version` of `name` is in the set.
    pub fn supports(&self, name: &str, version: u8) -> bool {
        version <= MAX_VERSION && self.masks.get(name).is_some_and(|m| m >> version & 1 == 1)
    }

    /// What `self` asks for that `ours` lacks; empty if nothing.
    ///
    /// Use with a consensus's `required-relay-protocols`: anything left is a reason not to run (dir-spec 3.4.1).
    pub fn missing_from(&self, ours: &Protocols) -> Protocols {
        let lacking = |(name, mask): (&String, &u64)| {
            let rest = mask & !ours.masks.get(name).copied().unwrap_or(0);
            (rest != 0).then(|| (name.clone(), rest))
        };
        Protocols { masks: self.masks.iter().filter_map(lacking).collect() }
    }

    /// Every version that at least `threshold` of the sets have: how authorities agree on a list (dir-spec 3.8).
    pub fn agreed<'a>(sets: impl IntoIterator<Item = &'a Protocols>, threshold: usize) -> Protocols {
        let mut counts: BTreeMap<&str, [usize; 64]> = BTreeMap::new();
        for (name, mask) in sets.into_iter().flat_map(|set| &set.masks) {
            let counts = counts.entry(name).or_insert([0; 64]);
            counts.iter_mut().enumerate().for_each(|(n, count)| *count += usize::from(mask >> n & 1 == 1));
        }
        let mask_of = |counts: [usize; 64]| {
            counts
                .iter()
                .enumerate()
                .filter(|(_, c)| **c >= threshold)
                .fold(0, |mask, (n, _)| mask | 1u64 << n)
        };
        let masks = counts.into_iter().map(|(name, counts)| (name.to_owned(), mask_of(counts)));
        Protocols { masks: masks.filter(|(_, mask)| *mask != 0).collect() }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.masks.values().all(|m| *m == 0)
    }
}

/// Written as C tor writes a `proto` line: names in ASCII order, ranges where versions adjoin.
impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, mask)) in self.masks.iter().enumerate() {
            write!(f, "{}{name}=", if n == 0 { "" } else { " " })?;
            let mut rest = *mask;
            let mut first = true;
            while rest != 0 {
                let low = rest.trailing_zeros();
                let run = (rest >> low).trailing_ones();
                let comma = if first { "" } else { "," };
                match run {
                    1 => write!(f, "{comma}{low}")?,
                    _ => write!(f, "{comma}{low}-{}", low + run - 1)?,
                }
                first = false;
                rest &= u64::MAX.checked_shl(low + run).unwrap_or(0);
            }
        }
        Ok(())
    }
}

/// `1-3,5` as a mask; an empty text is the empty mask (dir-spec allows `Name=`).
fn parse_versions(text: &str) -> Option<u64> {
    // Zeros may stand in front. A plus sign, which `parse` takes, may not.
    let number = |t: &str| {
        let digits = t.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| t.parse::<u8>().ok()).flatten().filter(|v| *v <= MAX_VERSION)
    };
    let mut mask = 0u64;
    if text.is_empty() {
        return Some(mask);
    }
    for part in text.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (number(low)?, number(high)?);
        if low > high {
            return None;
        }
        mask |= u64::MAX >> (MAX_VERSION - (high - low)) << low;
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOR: &str = "Conflux=1 Cons=1-2 Desc=1-4 DirCache=2 FlowCtrl=1-2 HSDir=2 HSIntro=4-5 HSRend=1-2 Link=3-5 \
                       LinkAuth=3 Microdesc=1-3 Padding=2 Relay=2-6";

    #[test]
    fn reads_and_writes_what_tor_advertises() {
        let tor = Protocols::parse(TOR).unwrap();
        assert_eq!(tor.to_string(), TOR);
        assert!(tor.supports("Relay", 2) && tor.supports("Relay", 6) && !tor.supports("Relay", 1));
        assert!(!tor.supports("Relay", 200) && !tor.supports("Datagram", 1));
        assert_eq!(Protocols::parse("A=0-63").unwrap().to_string(), "A=0-63");
        assert_eq!(Protocols::parse("A=63,0,5-6").unwrap().to_string(), "A=0,5-6,63");
        assert!(Protocols::parse("").unwrap().is_empty());
    }

    #[test]
    fn names_what_is_missing() {
        let ours = Protocols::parse("Link=3-5 LinkAuth=3 Relay=2-4 FlowCtrl=1").unwrap();
        let wanted = Protocols::parse("FlowCtrl=1-2 HSDir=2 Link=4-5 Relay=2-4").unwrap();
        assert_eq!(wanted.missing_from(&ours).to_string(), "FlowCtrl=2 HSDir=2");
        assert!(wanted.missing_from(&wanted).is_empty());
    }

    #[test]
    fn versions_are_added() {
        let mut set = Protocols::parse("Link=3 X-HalfClose=2").unwrap();
        let (name, version) = HALF_CLOSE;
        set.add(name, version);
        set.add("Link", 64);
        assert_eq!(set.to_string(), "Link=3 X-HalfClose=1-2");
        assert_eq!(Protocols::parse(&set.to_string()).unwrap(), set);
    }

    #[test]
    fn takes_what_c_tor_takes() {
        assert_eq!(Protocols::parse("A=1 B=7 A=2-3").unwrap().to_string(), "A=1 B=7");
        assert_eq!(Protocols::parse("A=001-0000000000000000000000000000063").unwrap().to_string(), "A=1-63");
    }

    #[test]
    fn agreed_versions() {
        let sets = ["Link=1-3 Old=1", "Link=2-4", "Link=3 Desc=63"].map(|s| Protocols::parse(s).unwrap());
        let agreed = |threshold| Protocols::agreed(&sets, threshold).to_string();
        assert_eq!(agreed(1), "Desc=63 Link=1-4 Old=1");
        assert_eq!(agreed(2), "Link=2-3");
        assert_eq!(agreed(3), "Link=3");
        assert_eq!(agreed(4), "");
    }

    #[test]
    fn refuses_what_c_tor_refuses() {
        for bad in [
            "Link",
            "Link=foo",
            "Link=64",
            "Link=5-4",
            "Link=1-",
            "=1",
            "L_k=1",
            "Link=1,,2",
            "Link=100",
            "Link=+1",
        ] {
            assert!(Protocols::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Protocols::parse("A=1 A=x"), Err(ProtoverError::BadEntry("A=x".into())));
        let many: String = (0..300).map(|n| format!("P{n}=1 ")).collect();
        assert_eq!(Protocols::parse(&many), Err(ProtoverError::TooMany));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = Protocols::parse(&text);
        }

        #[test]
        fn round_trips(masks in proptest::collection::btree_map("[A-Za-z0-9-]{1,8}", 1u64.., 0..8)) {
            let set = Protocols { masks };
            prop_assert_eq!(Protocols::parse(&set.to_string()).unwrap(), set);
        }
    }
}
