//! Bandwidth files: what a scanner (sbws) has measured of relays (bandwidth-file-spec).
//!
//! ```text
//! <seconds since 1970, when it was written>
//! version=1.9.0            headers, since 1.1.0
//! software=sbws
//! =====
//! bw=760 node_id=$68A483E05A2ABDCA6DA5A3EF8DB5177638A27F80 nick=... vote=0
//! ```
//!
//! `bw` is in kilobytes (1000) a second.

use std::collections::BTreeMap;
use std::time::Duration;

use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::limits::{BANDWIDTH_HEADERS, MEASURED_RELAYS};

/// How old a measurement may be to count.
const FRESH: Duration = Duration::from_secs(3 * 24 * 60 * 60);
const TERMINATOR: &str = "=====";

/// Why a bandwidth file is not used. Its digest goes into the vote nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BandwidthFileError {
    /// There is nothing in it.
    #[error("the bandwidth file is empty: see whether the scanner runs")]
    Empty,
    /// It does not begin with a time.
    #[error(
        "the bandwidth file begins with {0:?} instead of the time it was written: it is damaged or of another program"
    )]
    NoTime(String),
    /// It is too old.
    #[error("the bandwidth file was written {} hours ago, more than 3 days: see whether the scanner runs", age.as_secs() / 3600)]
    Stale {
        /// How old.
        age: Duration,
    },
    /// It is not text.
    #[error("the bandwidth file is not text: it is damaged or of another program")]
    NotText,
}

/// SHA-256 of a bandwidth file, which goes into the vote whatever the file holds.
pub fn digest(file: &[u8]) -> [u8; 32] {
    Sha256::digest(file).into()
}

/// A bandwidth file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BandwidthFile {
    /// When it was written.
    pub written: Unix,
    /// What goes on the line `bandwidth-file-headers` of the vote, in this order.
    pub headers: Vec<String>,
    /// Kilobytes a second of each relay.
    pub measured: BTreeMap<Fingerprint, u32>,
    /// Lines of relays that the scanner says not to vote on.
    pub not_voted: usize,
    /// Lines after the headers that could not be read.
    pub damaged: usize,
}

impl BandwidthFile {
    /// Reads a file that was found at `now`. Lines that cannot be read are counted and skipped. Of several lines for one
    /// relay the last counts.
    pub fn read(file: &[u8], now: Unix) -> Result<BandwidthFile, BandwidthFileError> {
        let text = std::str::from_utf8(file).map_err(|_| BandwidthFileError::NotText)?;
        // A line without its end was cut off.
        let mut lines = text.split_inclusive('\n').map_while(|line| line.strip_suffix('\n'));
        let first = lines.next().unwrap_or(text);
        let written = match first {
            "" => return Err(BandwidthFileError::Empty),
            first => first
                .parse()
                .map(Unix)
                .map_err(|_| BandwidthFileError::NoTime(first.chars().take(64).collect()))?,
        };
        if now.since(written) > FRESH {
            return Err(BandwidthFileError::Stale { age: now.since(written) });
        }

        let headers = vec![format!("timestamp={}", written.0)];
        let mut read =
            BandwidthFile { written, headers, measured: BTreeMap::new(), not_voted: 0, damaged: 0 };
        let mut after_headers = false;
        for line in lines {
            match Line::parse(line) {
                Some(Line::Measured(relay, bandwidth)) => {
                    after_headers = true;
                    if read.measured.len() < MEASURED_RELAYS || read.measured.contains_key(&relay) {
                        read.measured.insert(relay, bandwidth);
                    }
                }
                Some(Line::NotVoted) => read.not_voted += 1,
                None if line == TERMINATOR => after_headers = true,
                None if after_headers => read.damaged += 1,
                None if is_header(line) && read.headers.len() < BANDWIDTH_HEADERS => {
                    read.headers.push(line.to_owned())
                }
                None => {}
            }
        }
        Ok(read)
    }
}

enum Line {
    Measured(Fingerprint, u32),
    NotVoted,
}

impl Line {
    fn parse(line: &str) -> Option<Line> {
        let (mut relay, mut bandwidth) = (None, None);
        for word in line.split([' ', '\t']) {
            if word.starts_with("vote=0") {
                return Some(Line::NotVoted);
            } else if let Some(value) = word.strip_prefix("bw=") {
                let value: u64 = value.parse().ok()?;
                if bandwidth.replace(u32::try_from(value).unwrap_or(u32::MAX)).is_some() {
                    return None;
                }
            } else if let Some(value) = word.strip_prefix("node_id=") {
                let value = Fingerprint::from_hex(value.strip_prefix('$').unwrap_or(value))?;
                if relay.replace(value).is_some() {
                    return None;
                }
            }
        }
        Some(Line::Measured(relay?, bandwidth?))
    }
}

/// `key=value` in one word.
fn is_header(line: &str) -> bool {
    let pair = line.split_once('=');
    pair.is_some_and(|(key, value)| !key.is_empty() && !value.is_empty()) && !line.contains([' ', '\t', '\r'])
}

/// The latest measurement of each relay that is fresh: that of the last file, or of one before it that named the relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurements {
    relays: BTreeMap<Fingerprint, (u32, Unix)>,
}

impl Measurements {
    /// Takes in a file, and forgets what is no longer fresh.
    pub fn update(&mut self, file: &BandwidthFile, now: Unix) {
        for (relay, &bandwidth) in &file.measured {
            let entry = self.relays.entry(*relay).or_insert((bandwidth, file.written));
            if entry.1 < file.written {
                *entry = (bandwidth, file.written);
            }
        }
        self.relays.retain(|_, (_, written)| now.since(*written) <= FRESH);
    }

    /// Kilobytes a second of a relay.
    pub fn get(&self, relay: &Fingerprint) -> Option<u32> {
        self.relays.get(relay).map(|(bandwidth, _)| *bandwidth)
    }

    /// Relays of which there is a measurement.
    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use onionring_proto::netdoc::text::hex_upper;
    use proptest::prelude::*;

    use super::*;

    const NOW: Unix = Unix(1_795_000_000);

    /// The example of the specification, shortened, with what sbws 1.9 writes besides.
    const EXAMPLE: &str = "1794990000\n\
        version=1.9.0\n\
        earliest_bandwidth=2026-11-13T00:00:00\n\
        software=sbws\n\
        tor_version=0.4.9.11\n\
        recent_measurement_attempt_count=12\n\
        =====\n\
        bw=760 bw_mean=134 error_circ=0 node_id=$68A483E05A2ABDCA6DA5A3EF8DB5177638A27F80 master_key_ed25519=YaqV4vbvPYKucElk297eVdNArDz9HtIwUoIeo0+cVIpQ nick=Test success=1\n\
        bw=1 node_id=$96C15995F30895689291F455587BD94CA427B6FC under_min_report=1 unmeasured=1 vote=0\n\
        node_id=6E60A2A3E5C5E4C4E1E1B3FA1C4A2F2D37F9C1B5\tbw=1000000000000\n";

    #[test]
    fn headers_measurements_and_relays_not_voted_on() {
        let file = BandwidthFile::read(EXAMPLE.as_bytes(), NOW).unwrap();
        assert_eq!(
            file.headers.join(" "),
            "timestamp=1794990000 version=1.9.0 earliest_bandwidth=2026-11-13T00:00:00 software=sbws \
             tor_version=0.4.9.11 recent_measurement_attempt_count=12"
        );
        let measured: Vec<_> = file.measured.values().copied().collect();
        assert_eq!(measured, [760, u32::MAX]);
        assert_eq!((file.not_voted, file.damaged, file.written), (1, 0, Unix(1_794_990_000)));
        assert_eq!(
            hex_upper(&digest(b"abc")),
            "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"
        );
    }

    #[test]
    fn a_file_without_headers_is_of_version_1_0() {
        let old = "1794990000\nnode_id=$68A483E05A2ABDCA6DA5A3EF8DB5177638A27F80 bw=5 nick=a measured_at=1\nversion=2\n";
        let file = BandwidthFile::read(old.as_bytes(), NOW).unwrap();
        assert_eq!(file.headers, ["timestamp=1794990000"]);
        assert_eq!((file.measured.len(), file.damaged), (1, 1));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let read = |text: &str| BandwidthFile::read(text.as_bytes(), NOW).unwrap_err();
        assert_eq!(read(""), BandwidthFileError::Empty);
        assert_eq!(read("\n"), BandwidthFileError::Empty);
        assert_eq!(read("version=1\n"), BandwidthFileError::NoTime("version=1".into()));
        assert_eq!(read("-1\n"), BandwidthFileError::NoTime("-1".into()));
        let three_days = NOW.0 - 3 * 86_400;
        assert!(BandwidthFile::read(format!("{three_days}\n").as_bytes(), NOW).is_ok());
        let error = read(&format!("{}\n", three_days - 1));
        assert!(error.to_string().contains("72 hours ago"), "{error}");
        assert_eq!(BandwidthFile::read(b"1\xff\n", NOW), Err(BandwidthFileError::NotText));
    }

    #[test]
    fn damaged_lines_are_counted_and_the_last_of_several_counts() {
        let id = "node_id=$68A483E05A2ABDCA6DA5A3EF8DB5177638A27F80";
        let text = format!(
            "1794990000\n=====\n{id} bw=1\n{id} bw=2 bw=3\n{id} {id} bw=4\n{id} bw=-5\n{id}\nbw=6\nnode_id=$68A4 bw=7\n\
             {id} bw=8\n{id} bw=9"
        );
        let file = BandwidthFile::read(text.as_bytes(), NOW).unwrap();
        assert_eq!((file.measured.into_values().collect::<Vec<_>>(), file.damaged), (vec![8], 6));
    }

    #[test]
    fn headers_of_a_vote_are_bounded() {
        let many: String = (0..200).map(|n| format!("h{n}=x\n")).collect();
        let file =
            BandwidthFile::read(format!("1794990000\nno header\nx=\n=y\n{many}").as_bytes(), NOW).unwrap();
        assert_eq!(file.headers.len(), BANDWIDTH_HEADERS);
        assert_eq!(file.headers[1], "h0=x");
    }

    #[test]
    fn a_measurement_counts_until_it_is_no_longer_fresh() {
        let id = |n: u8| Fingerprint([n; 20]);
        let file = |written: u64, relays: &[(u8, u32)]| {
            let lines: String =
                relays.iter().map(|(n, bw)| format!("node_id={} bw={bw}\n", id(*n))).collect();
            BandwidthFile::read(format!("{written}\n{lines}").as_bytes(), NOW).unwrap()
        };
        let mut measurements = Measurements::default();
        measurements.update(&file(NOW.0 - 3 * 86_400, &[(1, 10), (2, 20)]), NOW);
        measurements.update(&file(NOW.0, &[(2, 30)]), NOW);
        measurements.update(&file(NOW.0 - 60, &[(2, 40), (3, 50)]), NOW);
        assert_eq!([1, 2, 3, 4].map(|n| measurements.get(&id(n))), [Some(10), Some(30), Some(50), None]);
        measurements.update(&file(NOW.0, &[]), Unix(NOW.0 + 1));
        assert_eq!([1, 2, 3].map(|n| measurements.get(&id(n))), [None, Some(30), Some(50)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = BandwidthFile::read(&bytes, NOW);
        }

        #[test]
        fn any_lines_are_read(lines in "(bw=[0-9]{0,12}|node_id=\\$?[0-9A-F]{40}|vote=[01]|=====|a=b|[ \t\n]){0,30}") {
            let text = format!("{}\n{lines}", NOW.0);
            let file = BandwidthFile::read(text.as_bytes(), NOW).unwrap();
            prop_assert!(file.headers.iter().all(|h| is_header(h)));
        }
    }
}
