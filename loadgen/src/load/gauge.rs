//! What the process of the relay under test uses.

use std::fs;
use std::io;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::error::LoadError;
use crate::net::process;

/// Figures of one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// CPU time of all threads so far, in nanoseconds.
    pub(super) cpu_ns: u64,
    /// Memory resident now, in bytes.
    pub(super) rss_bytes: u64,
    /// Context switches of the threads that live, wanted and unwanted.
    pub(super) context_switches: u64,
}

/// A process that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gauge {
    pid: u32,
    clock: ClockId,
}

impl Gauge {
    pub(super) fn new(pid: u32) -> Result<Gauge, LoadError> {
        // The kernel's clock of the process counts nanoseconds, where /proc counts ticks of 10 ms.
        let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))
            .map_err(|e| LoadError::Usage { pid, source: e.into() })?;
        let gauge = Gauge { pid, clock };
        gauge.read()?;
        Ok(gauge)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process still runs.
    pub(super) fn lives(&self) -> bool {
        process::lives(self.pid)
    }

    pub(super) fn read(&self) -> Result<Reading, LoadError> {
        let usage = |source| LoadError::Usage { pid: self.pid, source };
        let cpu = clock_gettime(self.clock).map_err(|e| usage(e.into()))?;
        Ok(Reading {
            cpu_ns: cpu.tv_sec() as u64 * 1_000_000_000 + cpu.tv_nsec() as u64,
            rss_bytes: process::usage(self.pid).map_err(usage)?.rss_bytes,
            context_switches: context_switches(self.pid).map_err(usage)?,
        })
    }
}

fn context_switches(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ends between the two readings counts for nothing.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let counts = status.lines().filter(|line| line.contains("ctxt_switches:"));
        sum += counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(sum)
}
