//! The small encodings that documents are made of: base64, hex, times, addresses, names.

use std::fmt;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use base64ct::{Base64, Base64Unpadded, Encoding};

use crate::time::Unix;

/// Decodes standard base64, padded or not; `None` if it is neither.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    Base64Unpadded::decode_vec(text.trim_end_matches('=')).ok()
}

/// Decodes base64 that must hold exactly `N` bytes.
pub fn base64_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let got = Base64Unpadded::decode(text.trim_end_matches('='), &mut out).ok()?.len();
    (got == N).then_some(out)
}

/// Encodes as base64 without padding, as digests, identities and signatures are written.
pub fn base64_unpadded(bytes: &[u8]) -> String {
    Base64Unpadded::encode_string(bytes)
}

/// Encodes as base64 with padding, as shared random values are written.
pub fn base64_padded(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// Appends an object: BEGIN line, base64 in lines of 64 characters, END line.
pub fn push_object(out: &mut String, label: &str, bytes: &[u8]) {
    let encoded = Base64::encode_string(bytes);
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
}

/// Decodes hex of either case that must hold exactly `N` bytes.
pub fn hex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(out)
}

/// Upper-case hex, as fingerprints are written.
pub fn hex_upper(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, b| {
        let _ = write!(out, "{b:02X}");
        out
    })
}

/// A SHA-1 digest or RSA identity in the form people and URLs use: 40 upper-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 20]);

impl Fingerprint {
    /// Reads 40 hex digits of either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex_array(text).map(Fingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex_upper(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A relay's nickname: 1 to 19 letters and digits (dir-spec 2.1.3), kept inline because networks have thousands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nickname {
    bytes: [u8; Nickname::MAX],
    len: u8,
}

impl Nickname {
    /// Longest nickname.
    pub const MAX: usize = 19;

    /// Checks length and alphabet.
    pub fn new(text: &str) -> Option<Self> {
        let ok = (1..=Self::MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !ok {
            return None;
        }
        let mut bytes = [0; Self::MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Nickname { bytes, len: text.len() as u8 })
    }

    /// The nickname as text.
    pub fn as_str(&self) -> &str {
        // Only `new` makes one, from ASCII of that length.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or("")
    }
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Reads `YYYY-MM-DD` and `HH:MM:SS` (UTC, years from 1970).
pub fn time(date: &str, clock: &str) -> Option<Unix> {
    let field = |text: &str, len: usize| {
        (text.len() == len && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<u16>().ok())
            .flatten()
    };
    let mut date = date.splitn(3, '-');
    let mut clock = clock.splitn(3, ':');
    let year = field(date.next()?, 4)?;
    let month = field(date.next()?, 2)?;
    let day = field(date.next()?, 2)?;
    let [hour, minute, second] =
        [field(clock.next()?, 2)?, field(clock.next()?, 2)?, field(clock.next()?, 2)?];
    let month = ::time::Month::try_from(month as u8).ok()?;
    let date = ::time::Date::from_calendar_date(i32::from(year), month, day as u8).ok()?;
    let clock = ::time::Time::from_hms(hour as u8, minute as u8, second as u8).ok()?;
    u64::try_from(date.with_time(clock).assume_utc().unix_timestamp()).ok().map(Unix)
}

/// Reads base64 as C tor does, for which the bits that are left over at its end may be anything.
pub(super) fn base64_array_lax<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.trim_end_matches('=');
    if text.len() % 4 != 3 || text.len() != (N * 4).div_ceil(3) {
        return base64_array(text);
    }
    // With one character more, they are the beginning of one more byte.
    let longer = Base64Unpadded::decode_vec(&format!("{text}A")).ok()?;
    longer.get(..N)?.try_into().ok()
}

/// Writes an IPv6 address and a port as C tor does: `[::1.2.3.4]:80` if the address is an IPv4-compatible one without
/// zeros in either half of that, and otherwise as everybody.
pub(super) fn format_ipv6(ip: Ipv6Addr, port: u16) -> String {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 && low != 0 => {
            format!("[::{}]:{port}", Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => format!("[{ip}]:{port}"),
    }
}

/// Writes `YYYY-MM-DD HH:MM:SS` (UTC).
///
/// Times past the year 9999, which the format cannot hold, are written as its last second.
pub fn format_time(at: Unix) -> String {
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(at.0).unwrap_or(LAST).min(LAST);
    let t =
        ::time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(::time::OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// Cuts `text` into the pieces that begin at a line starting with the word `keyword`; what precedes the first
/// such line is left out.
pub fn split_at_lines<'a>(text: &'a str, keyword: &str) -> impl Iterator<Item = &'a str> {
    let starts = |line: &str| {
        line.strip_prefix(keyword).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n']))
    };
    let mut pos = 0;
    let mut cuts = Vec::new();
    for line in text.split_inclusive('\n') {
        if starts(line) {
            cuts.push(pos);
        }
        pos += line.len();
    }
    let ends: Vec<usize> = cuts.iter().skip(1).copied().chain([text.len()]).collect();
    cuts.into_iter().zip(ends).map(|(start, end)| &text[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_by_c_tor() {
        for (address, written) in [
            ("::1.2.3.4", "::1.2.3.4"),
            ("::102:304", "::1.2.3.4"),
            ("::1", "::1"),
            ("::1.2.0.0", "::102:0"),
            ("::0.0.3.4", "::304"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
            ("::ffff:0.0.0.0", "::ffff:0.0.0.0"),
            ("::1:102:304", "::1:102:304"),
            ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
            ("2001:0:0:1:1:0:0:1", "2001::1:1:0:0:1"),
            ("2001:1:0:1:1:1:1:1", "2001:1:0:1:1:1:1:1"),
        ] {
            assert_eq!(format_ipv6(address.parse().unwrap(), 80), format!("[{written}]:80"));
        }
    }

    #[test]
    fn bits_left_over_are_read_as_by_c_tor() {
        let text = base64_unpadded(&[7; 32]);
        let odd = format!("{}d", &text[..42]);
        assert_ne!(odd, text);
        for text in [&text, &odd, &format!("{odd}=")] {
            assert_eq!(base64_array_lax(text), Some([7; 32]), "{text}");
            assert_eq!(base64_array_lax::<20>(text), None);
        }
        assert_eq!(base64_array_lax(&base64_unpadded(&[9; 20])), Some([9; 20]));
        for bad in ["", "A", "AAA", &text[..42], &format!("{text}A"), &format!("{}!", &text[..42])] {
            assert_eq!(base64_array_lax::<32>(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_round_trip_and_bad_ones_are_refused() {
        let t = time("2026-11-22", "10:54:41").unwrap();
        assert_eq!(t, Unix(1_795_344_881));
        assert_eq!(format_time(t), "2026-11-22 10:54:41");
        assert_eq!(format_time(Unix(0)), "1970-01-01 00:00:00");
        assert_eq!(format_time(Unix(u64::MAX)), "9999-12-31 23:59:59");
        for (date, clock) in [
            ("2026-13-01", "00:00:00"),
            ("2026-02-30", "00:00:00"),
            ("1969-12-31", "23:59:59"),
            ("2026-11-22", "24:00:00"),
            ("2026-11-22", "10:54"),
            ("2026-1-22", "10:54:41"),
            ("2026-11-22", "+1:00:00"),
            ("2026-11-22-1", "10:00:00"),
            ("", ""),
        ] {
            assert_eq!(time(date, clock), None, "{date} {clock}");
        }
    }

    #[test]
    fn base64_takes_both_paddings_and_exact_sizes() {
        assert_eq!(base64("AAECAw"), Some(vec![0, 1, 2, 3]));
        assert_eq!(base64("AAECAw=="), Some(vec![0, 1, 2, 3]));
        assert_eq!(base64("AAEC*w"), None);
        assert_eq!(base64_array::<4>("AAECAw"), Some([0, 1, 2, 3]));
        assert_eq!(base64_array::<3>("AAECAw"), None);
        assert_eq!(base64_array::<5>("AAECAw"), None);
    }

    #[test]
    fn objects_wrap_at_64_columns() {
        let mut out = String::new();
        push_object(&mut out, "X", &[0; 49]);
        assert_eq!(out, format!("-----BEGIN X-----\n{}\nAA==\n-----END X-----\n", "A".repeat(64)));
    }

    #[test]
    fn nicknames() {
        assert_eq!(Nickname::new("a1B").unwrap().as_str(), "a1B");
        for bad in ["", "a-b", "ünamed", "aaaaaaaaaaaaaaaaaaaa"] {
            assert_eq!(Nickname::new(bad), None);
        }
    }
}
