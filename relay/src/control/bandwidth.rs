//! How much the relay has carried: the observed bandwidth of its descriptor, remembered over restarts.
//!
//! What counts is the best rate over ten seconds, of what was read or written, whichever is less, in the last five days
//! and today (dir-spec 2.1.1, "bandwidth"). The days are kept in C tor's `state` file, on its `BWHistory` lines, so that
//! neither a restart nor a change of program makes the relay look new; all other lines of that file stay as they are. The
//! bytes of past days go into the extra-info too.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onionring_node::atomic_file;
use onionring_proto::netdoc::text::{self, format_time};
use onionring_proto::time::Unix;
use thiserror::Error;

/// The time over which a rate is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// The time for which one best rate is kept.
const PERIOD: Duration = Duration::from_secs(24 * 3600);
/// Periods that are kept beside the present one.
const PERIODS: usize = 5;
/// The names of the two directions in the file.
const DIRECTIONS: [&str; 2] = ["Read", "Write"];

/// The state file cannot be read or written.
#[derive(Debug, Error)]
#[error(
    "the bandwidth history cannot be kept in {}: {source}; check who owns the file and the space on the disk",
    path.display()
)]
pub struct StateError {
    path: PathBuf,
    source: io::Error,
}

/// One day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Period {
    bytes: u64,
    /// The best rate in bytes a second.
    best: u64,
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Series {
    /// When the present period ends.
    ends: Unix,
    present: Period,
    /// The periods before it, the oldest first.
    past: VecDeque<Period>,
}

/// What was read and written.
#[derive(Clone, Debug)]
pub struct History {
    series: [Series; 2],
    /// Totals since the start of the relay at moments of its life, the oldest about a window ago.
    totals: VecDeque<(Duration, [u64; 2])>,
}

impl Series {
    fn new(now: Unix) -> Series {
        Series { ends: now + PERIOD, present: Period::default(), past: VecDeque::new() }
    }

    /// Closes the periods that are over.
    fn advance(&mut self, now: Unix) {
        while self.ends <= now {
            self.past.push_back(std::mem::take(&mut self.present));
            if self.past.len() > PERIODS {
                self.past.pop_front();
            }
            self.ends = self.ends + PERIOD;
        }
    }

    fn best(&self) -> u64 {
        self.past.iter().map(|period| period.best).fold(self.present.best, u64::max)
    }

    /// The value of a line, oldest period first and the present one last.
    fn column(&self, value: impl Fn(&Period) -> u64) -> String {
        let values: Vec<_> = self.past.iter().chain([&self.present]).map(|p| value(p).to_string()).collect();
        values.join(",")
    }

    /// Reads the lines of one direction; `None` if they are missing, damaged, too old or from the future.
    fn parse(state: &str, direction: &str, now: Unix) -> Option<Series> {
        let value = |field: &str| {
            let name = format!("BWHistory{direction}{field} ");
            state.lines().find_map(|line| line.strip_prefix(&name)).map(str::trim)
        };
        let numbers = |field| -> Option<Vec<u64>> {
            value(field)?.split(',').map(|number| number.trim().parse().ok()).collect()
        };
        let (date, clock) = value("Ends")?.split_once(' ')?;
        let ends = text::time(date, clock)?;
        let (bytes, best) = (numbers("Values")?, numbers("Maxima")?);
        let fits = value("Interval")? == PERIOD.as_secs().to_string()
            && bytes.len() == best.len()
            && ends <= now + PERIOD
            && now.since(ends) <= PERIOD * PERIODS as u32;
        let mut periods: VecDeque<Period> =
            bytes.into_iter().zip(best).map(|(bytes, best)| Period { bytes, best }).collect();
        let present = periods.pop_back().filter(|_| fits)?;
        periods.drain(..periods.len().saturating_sub(PERIODS));
        let mut series = Series { ends, present, past: periods };
        series.advance(now);
        Some(series)
    }
}

impl History {
    /// A relay that has carried nothing yet.
    pub fn new(now: Unix) -> History {
        History { series: [Series::new(now), Series::new(now)], totals: VecDeque::new() }
    }

    /// What the state file in this data directory remembers.
    pub fn load(data_directory: &Path, now: Unix) -> Result<History, StateError> {
        let state = read(&path(data_directory))?;
        let series = DIRECTIONS
            .map(|direction| Series::parse(&state, direction, now).unwrap_or_else(|| Series::new(now)));
        Ok(History { series, totals: VecDeque::new() })
    }

    /// Writes the history into the state file, among whatever else is there.
    pub fn save(&self, data_directory: &Path) -> Result<(), StateError> {
        let path = path(data_directory);
        let mut state = String::new();
        let is_ours = |line: &&str| {
            DIRECTIONS.iter().any(|direction| {
                let rest = line.strip_prefix("BWHistory").and_then(|rest| rest.strip_prefix(direction));
                rest.is_some_and(|rest| {
                    ["Ends", "Interval", "Values", "Maxima"].iter().any(|f| rest.starts_with(f))
                })
            })
        };
        for line in read(&path)?.lines().filter(|line| !is_ours(line)) {
            state += line;
            state += "\n";
        }
        for (direction, series) in DIRECTIONS.iter().zip(&self.series) {
            state += &format!(
                "BWHistory{direction}Ends {}\nBWHistory{direction}Interval {}\nBWHistory{direction}Values {}\n\
                 BWHistory{direction}Maxima {}\n",
                format_time(series.ends),
                PERIOD.as_secs(),
                series.column(|period| rounded(period.bytes)),
                series.column(|period| rounded(period.best)),
            );
        }
        atomic_file::write(&path, state.as_bytes(), 0o600).map_err(|source| StateError { path, source })
    }

    /// Takes the totals of bytes read and written, after `uptime`.
    pub fn observe(&mut self, now: Unix, uptime: Duration, totals: [u64; 2]) {
        let (_, last) = self.totals.back().copied().unwrap_or((uptime, totals));
        self.totals.push_back((uptime, totals));
        // The oldest that stays is the youngest that is a window old.
        while self.totals.get(1).is_some_and(|(at, _)| uptime.saturating_sub(*at) >= WINDOW) {
            self.totals.pop_front();
        }
        let (since, oldest) = self.totals.front().copied().unwrap_or((uptime, totals));
        let elapsed = uptime.saturating_sub(since);
        for (direction, series) in self.series.iter_mut().enumerate() {
            series.advance(now);
            let [moved, in_window] =
                [last, oldest].map(|old| totals[direction].saturating_sub(old[direction]));
            series.present.bytes += moved;
            if elapsed >= WINDOW {
                let rate = u128::from(in_window) * 1000 / elapsed.as_millis();
                series.present.best = series.present.best.max(u64::try_from(rate).unwrap_or(u64::MAX));
            }
        }
    }

    /// The lines of the extra-info: what was moved in each of the past periods, written first, as C tor has it. C tor
    /// also cuts them off at `RelayBandwidthRate`, to hide what a client in it moves; here only links count.
    pub fn lines(&self) -> Vec<String> {
        let written = DIRECTIONS.iter().zip(&self.series).rev().filter(|(_, series)| !series.past.is_empty());
        written
            .map(|(direction, series)| {
                let ended = format_time(series.ends - PERIOD);
                let bytes: Vec<_> =
                    series.past.iter().map(|period| rounded(period.bytes).to_string()).collect();
                let name = direction.to_ascii_lowercase();
                format!("{name}-history {ended} ({} s) {}", PERIOD.as_secs(), bytes.join(","))
            })
            .collect()
    }

    /// The best rate in bytes a second that both directions have seen.
    pub fn observed(&self) -> u64 {
        self.series.iter().map(Series::best).min().unwrap_or(0)
    }
}

/// Rounded down to 1 KiB as C tor does: no need to know better.
fn rounded(bytes: u64) -> u64 {
    bytes & !0x3ff
}

fn path(data_directory: &Path) -> PathBuf {
    data_directory.join("state")
}

/// The text of the state file; empty if there is none.
fn read(path: &Path) -> Result<String, StateError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(|source| StateError { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests;
