//! The process's own figures, with the names and meanings that every Prometheus client library gives them.

use super::{Kind, Metric, table};
use std::fmt::Write;
use std::fs;

/// Figures of this process, read from `/proc`; what cannot be read is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// User and system time, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Most file descriptors it may open.
    pub max_fds: Option<u64>,
    /// When it started, in seconds since 1970.
    pub start_seconds: Option<f64>,
    /// Its threads.
    pub threads: Option<u64>,
}

impl Process {
    /// Reads `/proc/self`.
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second();
        let mut process = Self::parse(&stat, &boot, ticks, rustix::param::page_size() as u64);
        // The listing itself holds one descriptor open.
        process.open_fds =
            fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1));
        process.max_fds = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        process
    }

    /// Takes the figures from the text of `/proc/self/stat` and of `/proc/stat` (proc(5)).
    fn parse(stat: &str, boot: &str, ticks_per_second: u64, page_size: u64) -> Self {
        // The command name is in parentheses and may contain anything, blanks and parentheses too.
        let fields: Vec<&str> = match stat.rsplit_once(')') {
            Some((_, rest)) => rest.split_ascii_whitespace().collect(),
            None => Vec::new(),
        };
        // proc(5) counts from 1 and the state, the first one here, is number 3.
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second as f64;
        let boot_seconds = boot
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|text| text.trim().parse::<u64>().ok());
        Process {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| seconds(user + system)),
            threads: field(20),
            start_seconds: field(22).zip(boot_seconds).map(|(ticks, boot)| boot as f64 + seconds(ticks)),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * page_size),
            ..Process::default()
        }
    }

    fn values(&self) -> [(Metric, Option<f64>); 7] {
        let count = |n: Option<u64>| n.map(|n| n as f64);
        [
            (table::PROCESS_CPU_SECONDS, self.cpu_seconds),
            (table::PROCESS_RESIDENT_BYTES, count(self.resident_bytes)),
            (table::PROCESS_VIRTUAL_BYTES, count(self.virtual_bytes)),
            (table::PROCESS_OPEN_FDS, count(self.open_fds)),
            (table::PROCESS_MAX_FDS, count(self.max_fds)),
            (table::PROCESS_START_TIME, self.start_seconds),
            (table::PROCESS_THREADS, count(self.threads)),
        ]
    }

    /// Appends the figures in the Prometheus text format. They do not go through the recorder, whose counters are
    /// integers.
    pub fn write(&self, page: &mut String) {
        for (Metric { name, kind, help, .. }, value) in self.values() {
            let kind = if kind == Kind::Counter { "counter" } else { "gauge" };
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_of_proc_whatever_the_command_is_called() {
        let stat =
            "77 (a b) c) S 1 77 77 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 4 0 1000 8192000 300 184467440";
        let process = Process::parse(stat, "cpu 1 2\nbtime 1700000000\n", 100, 4096);
        assert_eq!(process.cpu_seconds, Some(4.0));
        assert_eq!(process.threads, Some(4));
        assert_eq!(process.start_seconds, Some(1_700_000_010.0));
        assert_eq!(process.virtual_bytes, Some(8_192_000));
        assert_eq!(process.resident_bytes, Some(300 * 4096));
        assert_eq!(Process::parse("", "", 100, 4096), Process::default());
        assert_eq!(Process::parse("1 (x) S 1", "btime x", 100, 4096), Process::default());
    }

    #[test]
    fn this_process_has_every_figure() {
        let process = Process::read();
        assert!(process.values().iter().all(|(_, value)| value.is_some()), "{process:?}");
        assert!(process.resident_bytes > Some(1 << 20) && process.open_fds >= Some(3));
    }
}
