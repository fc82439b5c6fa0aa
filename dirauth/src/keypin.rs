//! Key pinning: once a relay has been seen with an RSA and an Ed25519 identity, neither is taken with another partner.
//!
//! RSA identities of 1024 bits will not be unforgeable for ever; bound to an Ed25519 identity, one cannot be taken over
//! without that one too. The pairs stand in the file `key-pinning-journal`, a line each, to which is only added; where
//! lines contradict each other the later one holds.

use std::collections::BTreeMap;
use std::fmt;

use onionring_proto::netdoc::text::{self, Fingerprint};

use crate::limits::PINS;

/// Characters of a digest of 20 bytes in base64 without padding; the key of 32 bytes has the rest of the line.
const RSA_LEN: usize = 27;

/// Two identities that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// SHA-1 of the RSA identity key.
    pub rsa: Fingerprint,
    /// Ed25519 identity.
    pub ed25519: [u8; 32],
}

impl Pin {
    fn parse(line: &str) -> Option<Pin> {
        let (rsa, ed25519) = line.split_once(' ')?;
        (rsa.len() == RSA_LEN && !ed25519.ends_with('='))
            .then(|| {
                Some(Pin {
                    rsa: Fingerprint(text::base64_array(rsa)?),
                    ed25519: text::base64_array(ed25519)?,
                })
            })
            .flatten()
    }
}

impl fmt::Display for Pin {
    /// A line of the journal, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", text::base64_unpadded(&self.rsa.0), text::base64_unpadded(&self.ed25519))
    }
}

/// What is known of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// It is pinned.
    Known,
    /// Neither half is pinned yet.
    Unknown,
    /// One half is pinned to another partner.
    Mismatch,
}

/// What was found in a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalFindings {
    /// Lines that are pairs.
    pub entries: usize,
    /// Lines that are nothing known; they are skipped.
    pub damaged: usize,
    /// Pairs that were there already.
    pub duplicates: usize,
    /// Pairs that contradicted earlier ones, and replaced them.
    pub conflicts: usize,
}

/// All pinned pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPins {
    by_rsa: BTreeMap<Fingerprint, [u8; 32]>,
    by_ed25519: BTreeMap<[u8; 32], Fingerprint>,
}

impl KeyPins {
    /// Reads a journal. Lines beginning with `@` or `#` are notes; damaged ones are counted and skipped.
    pub fn read(journal: &[u8]) -> (KeyPins, JournalFindings) {
        let mut pins = KeyPins::default();
        let mut found = JournalFindings::default();
        for line in journal.split(|&b| b == b'\n') {
            if line.iter().all(u8::is_ascii_whitespace) || matches!(line.first(), Some(b'@' | b'#')) {
                continue;
            }
            let Some(pin) = std::str::from_utf8(line).ok().and_then(Pin::parse) else {
                found.damaged += 1;
                continue;
            };
            found.entries += 1;
            match pins.check(&pin) {
                Pinned::Known => found.duplicates += 1,
                Pinned::Unknown => pins.insert(pin),
                Pinned::Mismatch => {
                    found.conflicts += 1;
                    pins.insert(pin);
                }
            }
        }
        (pins, found)
    }

    /// What is known of this pair.
    pub fn check(&self, pin: &Pin) -> Pinned {
        match (self.by_rsa.get(&pin.rsa), self.by_ed25519.get(&pin.ed25519)) {
            (None, None) => Pinned::Unknown,
            (Some(ed25519), _) if *ed25519 == pin.ed25519 => Pinned::Known,
            _ => Pinned::Mismatch,
        }
    }

    /// Pins the pair, if `check` would not know it and it contradicts nothing; with `replace` (`AuthDirPinKeys 0`) also
    /// if it does. True if it was pinned, and so is to be added to the journal.
    pub fn pin(&mut self, pin: Pin, replace: bool) -> bool {
        let new = match self.check(&pin) {
            Pinned::Known => false,
            Pinned::Unknown => self.by_rsa.len() < PINS,
            Pinned::Mismatch => replace,
        };
        if new {
            self.insert(pin);
        }
        new
    }

    /// Pairs that are pinned.
    pub fn len(&self) -> usize {
        self.by_rsa.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_rsa.is_empty()
    }

    /// Adds the pair in place of all that contradict it.
    fn insert(&mut self, pin: Pin) {
        if let Some(ed25519) = self.by_rsa.insert(pin.rsa, pin.ed25519) {
            self.by_ed25519.remove(&ed25519);
        }
        if let Some(rsa) = self.by_ed25519.insert(pin.ed25519, pin.rsa)
            && rsa != pin.rsa
        {
            self.by_rsa.remove(&rsa);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by C tor 0.4.9.11.
    const RECORDED: &[u8] = include_bytes!("testdata/key-pinning-journal.txt");

    fn pin(rsa: u8, ed25519: u8) -> Pin {
        Pin { rsa: Fingerprint([rsa; 20]), ed25519: [ed25519; 32] }
    }

    #[test]
    fn a_journal_of_c_tor_is_read_and_its_lines_written() {
        let (pins, found) = KeyPins::read(RECORDED);
        assert_eq!(found, JournalFindings { entries: 6, ..JournalFindings::default() });
        assert_eq!(pins.len(), 6);
        let recorded = std::str::from_utf8(RECORDED).unwrap();
        let lines: Vec<&str> = recorded.lines().filter(|l| !l.is_empty() && !l.starts_with('@')).collect();
        for line in lines {
            let pin = Pin::parse(line).unwrap();
            assert_eq!(pin.to_string(), line);
            assert_eq!(pins.check(&pin), Pinned::Known);
        }
    }

    #[test]
    fn each_half_holds_the_other() {
        let mut pins = KeyPins::default();
        assert!(pins.pin(pin(1, 1), false));
        assert!(!pins.pin(pin(1, 1), false));
        for other in [pin(1, 2), pin(2, 1)] {
            assert_eq!(pins.check(&other), Pinned::Mismatch);
            assert!(!pins.pin(other, false));
        }
        assert_eq!(pins.check(&pin(2, 2)), Pinned::Unknown);
        assert_eq!(pins.check(&pin(1, 1)), Pinned::Known);
    }

    #[test]
    fn without_pinning_the_last_pair_replaces_both_it_contradicts() {
        let mut pins = KeyPins::default();
        assert!(pins.pin(pin(1, 1), true) && pins.pin(pin(2, 2), true));
        assert!(pins.pin(pin(1, 2), true));
        assert_eq!(pins.len(), 1);
        assert_eq!(pins.check(&pin(1, 2)), Pinned::Known);
        assert_eq!(pins.check(&pin(2, 1)), Pinned::Unknown);
    }

    #[test]
    fn damaged_lines_are_skipped_and_later_ones_win() {
        let lines = [
            "# a comment".to_owned(),
            pin(1, 1).to_string(),
            format!("{} ", pin(2, 2)),
            pin(3, 3).to_string().replace(' ', "\t"),
            "\u{fffd}".to_owned(),
            pin(1, 1).to_string(),
            " \t".to_owned(),
            pin(1, 4).to_string(),
        ];
        let (pins, found) = KeyPins::read(lines.join("\n").as_bytes());
        assert_eq!(found, JournalFindings { entries: 3, damaged: 3, duplicates: 1, conflicts: 1 });
        assert_eq!(pins.check(&pin(1, 4)), Pinned::Known);
        assert_eq!(pins.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            KeyPins::read(&bytes);
        }

        #[test]
        fn both_directions_agree_whatever_is_pinned(
            pairs in prop::collection::vec((0u8..6, 0u8..6, any::<bool>()), 0..30)
        ) {
            let mut pins = KeyPins::default();
            let mut journal = String::new();
            for (rsa, ed25519, replace) in pairs {
                let pin = pin(rsa, ed25519);
                if pins.pin(pin, replace) {
                    journal.push_str(&format!("{pin}\n"));
                    prop_assert_eq!(pins.check(&pin), Pinned::Known);
                }
                prop_assert_eq!(pins.by_rsa.len(), pins.by_ed25519.len());
                for (rsa, ed25519) in &pins.by_rsa {
                    prop_assert_eq!(pins.by_ed25519.get(ed25519), Some(rsa));
                }
            }
            prop_assert_eq!(KeyPins::read(journal.as_bytes()).0, pins);
        }
    }
}
