//! The types of values: numbers with units, switches, lists, addresses.
//!
//! Units and their spellings are C tor's (its manual page, "The Configuration File Format").

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// A value that does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ValueError {
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub remedy: &'static str,
}

fn error<T>(what: impl Into<String>, remedy: &'static str) -> Result<T, ValueError> {
    Err(ValueError { what: what.into(), remedy })
}

/// The type of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `0` or `1`.
    Bool,
    /// `0`, `1` or `auto`.
    AutoBool,
    /// An integer of 32 bits with sign.
    Int,
    /// An integer from 0 to 2^31-1.
    PosInt,
    /// An integer from 0 to 2^64-1.
    Uint,
    /// A decimal fraction.
    Double,
    /// A time with a unit, in whole seconds.
    Interval,
    /// A time with a unit, in milliseconds.
    MsecInterval,
    /// A list of times of which only the first counts.
    CsvInterval,
    /// An amount of bytes or bits with a unit.
    Memory,
    /// Free text.
    Text,
    /// The name of a file or directory.
    Path,
    /// A list separated by commas.
    Csv,
    /// May be given several times; all lines count.
    Lines,
}

impl Kind {
    /// Checks that `value` is of this type and brings it into the one form that C tor's `--dump-config` prints:
    /// bytes, seconds and milliseconds as plain numbers.
    pub fn normalize(self, value: &str) -> Result<String, ValueError> {
        let number = "give a whole number within the range";
        Ok(match self {
            Kind::Bool => u8::from(flag(value)?).to_string(),
            Kind::AutoBool => match auto_flag(value)? {
                None => "auto".to_owned(),
                Some(on) => u8::from(on).to_string(),
            },
            Kind::Int => match value.parse::<i32>() {
                Ok(n) => n.to_string(),
                Err(e) => return error(e.to_string(), number),
            },
            Kind::PosInt => integer(value, i32::MAX as u64)?.to_string(),
            Kind::Uint => integer(value, u64::MAX)?.to_string(),
            Kind::Double => match value.parse::<f64>() {
                Ok(n) if n.is_finite() => format!("{n:.6}"),
                _ => return error("not a number", "give a number such as 0.25"),
            },
            Kind::Interval => interval(value)?.as_secs().to_string(),
            Kind::MsecInterval => msec_interval(value)?.as_millis().to_string(),
            Kind::CsvInterval => interval(value.split(',').next().unwrap_or(value))?.as_secs().to_string(),
            Kind::Memory => memory(value)?.to_string(),
            Kind::Text | Kind::Path | Kind::Lines => value.to_owned(),
            Kind::Csv => csv(value).collect::<Vec<_>>().join(","),
        })
    }
}

/// A switch: `0` or `1`.
pub fn flag(value: &str) -> Result<bool, ValueError> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => error("neither 0 nor 1", "write 0 or 1"),
    }
}

/// A switch that may be left to the program: `0`, `1` or `auto` (`None`).
pub fn auto_flag(value: &str) -> Result<Option<bool>, ValueError> {
    match value {
        "0" => Ok(Some(false)),
        "1" => Ok(Some(true)),
        _ if value.eq_ignore_ascii_case("auto") => Ok(None),
        _ => error("neither 0 nor 1 nor auto", "write 0, 1 or auto"),
    }
}

/// A whole number from 0 to `max`, in decimal.
pub fn integer(value: &str, max: u64) -> Result<u64, ValueError> {
    match value.parse::<u64>() {
        Ok(n) if n <= max => Ok(n),
        _ => error(format!("not a whole number from 0 to {max}"), "give a whole number within the range"),
    }
}

/// The non-empty entries of a list separated by commas.
pub fn csv(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// An amount of data in bytes: `20 GBytes`, `1 MB`, `100 Mbits`, `512`.
pub fn memory(value: &str) -> Result<u64, ValueError> {
    with_unit(value, "use bytes, KB, MB, GB, TB, or kbits, mbits, gbits, tbits", |unit| {
        // A bit unit counts 1024 or more bits, so it is a whole number of bytes.
        Some(match unit {
            "" | "b" | "byte" | "bytes" => 1,
            "kb" | "kbyte" | "kbytes" | "kilobyte" | "kilobytes" => 1 << 10,
            "kilobits" | "kilobit" | "kbits" | "kbit" => 1 << 7,
            "m" | "mb" | "mbyte" | "mbytes" | "megabyte" | "megabytes" => 1 << 20,
            "megabits" | "megabit" | "mbits" | "mbit" => 1 << 17,
            "gb" | "gbyte" | "gbytes" | "gigabyte" | "gigabytes" => 1 << 30,
            "gigabits" | "gigabit" | "gbits" | "gbit" => 1 << 27,
            "tb" | "tbyte" | "tbytes" | "terabyte" | "terabytes" => 1 << 40,
            "terabits" | "terabit" | "tbits" | "tbit" => 1 << 37,
            _ => return None,
        })
    })
}

/// A month is a twelfth of a mean year.
const SECONDS_PER_MONTH: u64 = 2_629_728;

fn seconds_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "second" | "seconds" => 1,
        "minute" | "minutes" => 60,
        "hour" | "hours" => 60 * 60,
        "day" | "days" => 24 * 60 * 60,
        "week" | "weeks" => 7 * 24 * 60 * 60,
        _ => return None,
    })
}

/// A length of time in seconds: `30 days`, `5 minutes`, `10`; at most 2^31-1 seconds.
pub fn interval(value: &str) -> Result<Duration, ValueError> {
    let remedy = "use seconds, minutes, hours, days, weeks or months";
    let seconds = with_unit(value, remedy, |unit| match unit {
        "" => Some(1),
        "month" | "months" => Some(SECONDS_PER_MONTH),
        _ => seconds_of(unit),
    })?;
    if seconds > i32::MAX as u64 {
        return error("longer than 68 years", "give a shorter time");
    }
    Ok(Duration::from_secs(seconds))
}

/// A length of time in milliseconds: `100 msec`, `1 second`, `100`; at most 2^31-1 milliseconds.
pub fn msec_interval(value: &str) -> Result<Duration, ValueError> {
    let remedy = "use msec, seconds, minutes, hours, days or weeks";
    let millis = with_unit(value, remedy, |unit| match unit {
        "" | "msec" | "millisecond" | "milliseconds" => Some(1),
        _ => seconds_of(unit).map(|seconds| seconds * 1000),
    })?;
    if millis > i32::MAX as u64 {
        return error("longer than 24 days", "give a shorter time");
    }
    Ok(Duration::from_millis(millis))
}

/// A number, whole or with a fraction, an optional blank, and a unit whatever its case.
fn with_unit(
    value: &str,
    remedy: &'static str,
    factor: impl Fn(&str) -> Option<u64>,
) -> Result<u64, ValueError> {
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let Some(factor) = factor(&unit) else {
        return error(format!("unknown unit \"{}\"", unit.escape_debug()), remedy);
    };
    let product = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        // Amounts are far below 2^53 wherever a fraction makes sense, so f64 is exact enough.
        Err(_) => match number.parse::<f64>() {
            Ok(fraction) => Some(fraction * factor as f64).filter(|p| *p < i64::MAX as f64).map(|p| p as u64),
            Err(_) => return error("does not start with a number", remedy),
        },
    };
    match product.filter(|&p| p <= i64::MAX as u64) {
        Some(product) => Ok(product),
        None => error("too large", "give a smaller amount"),
    }
}

/// An IPv4 address, or an IPv6 address with or without brackets.
pub fn address(value: &str) -> Result<IpAddr, ValueError> {
    let bare = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
    let parsed = match bare {
        Some(v6) => v6.parse::<Ipv6Addr>().map(IpAddr::V6),
        None => value.parse::<IpAddr>(),
    };
    parsed.or_else(|_| error("not an IP address", "write an IPv4 address, or an IPv6 address in brackets"))
}

/// An address with a port: `1.2.3.4:443` or `[2001:db8::1]:443`. Port 0 is refused.
pub fn address_port(value: &str) -> Result<SocketAddr, ValueError> {
    match value.parse::<SocketAddr>() {
        Ok(addr) if addr.port() != 0 => Ok(addr),
        _ => error("not an address with a port", "write 1.2.3.4:443 or [2001:db8::1]:443"),
    }
}
