//! System calls of a process, counted by the kernel at its tracepoint `raw_syscalls:sys_enter`.
//!
//! Nothing else sees them all: what `/proc` counts leaves out io_uring, and `strace` stops the process at each. What it
//! takes is in `docs/loadgen.md`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use nix::libc::pid_t;
use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use thiserror::Error;

/// Where the number of the tracepoint is.
const TRACEPOINT: &str = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id";
/// How a note begins that says why there is no figure.
pub(super) const NOT_COUNTED: &str = "system calls are not counted";
/// How often it is begun anew because threads were started meanwhile.
const ATTEMPTS: u32 = 10;

/// Why system calls cannot be counted.
#[derive(Debug, Error)]
pub(super) enum CountError {
    /// tracefs is not mounted, not readable, or the kernel has no such tracepoint.
    #[error("{TRACEPOINT}: {0}; it takes root, and tracefs at /sys/kernel/tracing")]
    Tracepoint(io::Error),
    /// The kernel lets us not.
    #[error("counting those of process {pid}: {source}; it takes root or CAP_PERFMON")]
    Open { pid: u32, source: io::Error },
    /// Threads come and go all the time.
    #[error("process {0} starts threads faster than they are found")]
    Restless(u32),
}

/// Counts from the moment at which it is made.
pub(super) struct Syscalls {
    threads: BTreeMap<pid_t, Counter>,
}

impl Syscalls {
    /// Of all threads of a process, and of all threads that they start.
    pub(super) fn of(pid: u32) -> Result<Syscalls, CountError> {
        Syscalls::at(Path::new(TRACEPOINT), pid)
    }

    fn at(tracepoint: &Path, pid: u32) -> Result<Syscalls, CountError> {
        let id = fs::read_to_string(tracepoint).and_then(|id| id.trim().parse().map_err(io::Error::other));
        let tracepoint = Tracepoint::with_id(id.map_err(CountError::Tracepoint)?);
        let failed = |source| CountError::Open { pid, source };
        for _ in 0..ATTEMPTS {
            let mut threads = BTreeMap::new();
            for thread in threads_of(pid).map_err(failed)? {
                match count(tracepoint, thread) {
                    Ok(counter) => drop(threads.insert(thread, counter)),
                    // It has ended since.
                    Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => {}
                    Err(e) => return Err(failed(e)),
                }
            }
            // A thread started in between is counted by none, or with its parent and once more.
            if threads_of(pid).map_err(failed)?.iter().all(|thread| threads.contains_key(thread)) {
                return Ok(Syscalls { threads });
            }
        }
        Err(CountError::Restless(pid))
    }

    /// How many there were so far, those of threads that have ended too.
    pub(super) fn read(&mut self) -> io::Result<u64> {
        self.threads.values_mut().map(Counter::read).sum()
    }
}

fn threads_of(pid: u32) -> io::Result<Vec<pid_t>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?;
    threads.map(|thread| thread?.file_name().to_string_lossy().parse().map_err(io::Error::other)).collect()
}

/// A counter that runs, of a thread and of those that it starts from now on.
fn count(tracepoint: Tracepoint, thread: pid_t) -> io::Result<Counter> {
    let mut builder = Builder::new(tracepoint);
    // The tracepoint is hit inside the kernel: without that, nothing would ever be counted.
    builder.observe_pid(thread).any_cpu().exclude_kernel(false).exclude_hv(false).inherit(true);
    let mut counter = builder.build()?;
    counter.enable()?;
    Ok(counter)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const CALLS: u64 = 1000;

    fn call() {
        for _ in 0..CALLS {
            let _ = nix::unistd::getppid();
        }
    }

    /// Threads that were there and that come later, and what they did before they ended; a machine that does not let us
    /// count says why.
    #[test]
    fn calls_of_all_threads_are_counted_or_it_is_told_why_not() {
        let (go, told) = mpsc::channel::<()>();
        let there = thread::spawn(move || {
            told.recv().unwrap();
            call();
            thread::spawn(call).join().unwrap();
        });
        let mut counted = match Syscalls::of(std::process::id()) {
            Ok(counted) => counted,
            Err(e) => {
                assert!(!nix::unistd::geteuid().is_root() || fs::read_to_string(TRACEPOINT).is_err(), "{e}");
                return assert!(e.to_string().contains("it takes root"), "{e}");
            }
        };
        let before = counted.read().unwrap();
        call();
        thread::spawn(call).join().unwrap();
        go.send(()).unwrap();
        there.join().unwrap();
        let calls = counted.read().unwrap() - before;
        assert!(calls >= 4 * CALLS, "{calls}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let nowhere = Syscalls::at(Path::new("/nonexistent/id"), std::process::id());
        assert!(matches!(nowhere, Err(CountError::Tracepoint(e)) if e.kind() == io::ErrorKind::NotFound));
        let directory = tempfile::tempdir().unwrap();
        let id = directory.path().join("id");
        fs::write(&id, "1\n").unwrap();
        assert!(matches!(Syscalls::at(&id, 999_999_999), Err(CountError::Open { pid: 999_999_999, .. })));
        fs::write(&id, "x\n").unwrap();
        assert!(matches!(Syscalls::at(&id, 1), Err(CountError::Tracepoint(_))));
    }
}
