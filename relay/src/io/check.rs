//! What the system must provide, looked at before the shards start.

use std::fs;

use glommio::{GlommioError, LocalExecutorBuilder, Placement, ReactorErrorKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use crate::limits;

/// Something that the system lacks. The text says what to do about it.
#[derive(Debug, Error)]
pub enum SystemLacks {
    /// The administrator has barred io_uring.
    #[error(
        "io_uring is barred (kernel.io_uring_disabled = {0}): run `sysctl kernel.io_uring_disabled=0`, or with 1 put \
         this user into the group of kernel.io_uring_group"
    )]
    IoUringBarred(u8),
    /// A sandbox refuses io_uring.
    #[error(
        "io_uring is not available ({0}): a container needs a seccomp profile that permits io_uring_setup, \
         io_uring_enter and io_uring_register, a systemd unit needs them in SystemCallFilter, and the kernel must be \
         5.8 or newer"
    )]
    IoUringRefused(String),
    /// Too little memory may be locked.
    #[error(
        "only {available} bytes of memory may be locked, {needed} are needed: set LimitMEMLOCK={needed} in the \
         systemd unit, or `ulimit -l {}` before the start", needed.div_ceil(1024)
    )]
    Memlock {
        /// The hard limit of the process.
        available: u64,
        /// What the shards need.
        needed: u64,
    },
    /// Too few files may be open for even a small relay.
    #[error(
        "only {available} files may be open, at least {needed} are needed: set LimitNOFILE=65536 in the systemd unit, \
         or `ulimit -n 65536` before the start"
    )]
    OpenFiles {
        /// The hard limit of the process.
        available: u64,
        /// What the relay cannot do without.
        needed: u64,
    },
}

/// Raises the limits of this process as far as it may, which root may more than others: to be called before a change
/// of user. Gives how much memory may be locked if that is little for `shards` shards.
pub fn raise_limits(shards: usize) -> Result<Option<LittleMemlock>, SystemLacks> {
    let needed = limits::MEMLOCK_NEEDED;
    raise(Resource::Memlock, needed).map_err(|available| SystemLacks::Memlock { available, needed })?;
    let wanted = limits::MEMLOCK_PER_SHARD * shards as u64;
    let little = raise(Resource::Memlock, wanted).err().map(|available| {
        // All there is then, which is never refused.
        let _ = raise(Resource::Memlock, available);
        LittleMemlock { available, wanted }
    });
    // Each connection is a file: take all there is.
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(limits::OPEN_FILES_WANTED);
    let needed = limits::OPEN_FILES_NEEDED;
    raise(Resource::Nofile, files.max(needed))
        .map_err(|available| SystemLacks::OpenFiles { available, needed })?;
    Ok(little)
}

/// Little memory may be locked, which an older kernel may refuse some shards for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "Only {available} bytes of memory may be locked; with a kernel older than 5.12, shards may need {wanted}. Set \
     LimitMEMLOCK={wanted} in the systemd unit, or run `ulimit -l {}` before the start.", wanted.div_ceil(1024)
)]
pub struct LittleMemlock {
    available: u64,
    wanted: u64,
}

/// Raises the soft limit to `wanted`, the hard one too if it must and this process may. `Err` is what there is.
fn raise(resource: Resource, wanted: u64) -> Result<(), u64> {
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    let limit = getrlimit(resource);
    if enough(limit.current) {
        return Ok(());
    }
    let maximum = if enough(limit.maximum) { limit.maximum } else { Some(wanted) };
    let available = limit.maximum.or(limit.current).unwrap_or(u64::MAX);
    setrlimit(resource, Rlimit { current: Some(wanted), maximum }).map_err(|_| available)
}

/// Tries whether this process may use io_uring, as the user that it stays.
pub fn io_uring() -> Result<(), SystemLacks> {
    let barred = fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    // 1 still admits members of a group and root, so only the attempt can tell.
    if barred == Some(2) {
        return Err(SystemLacks::IoUringBarred(2));
    }
    match attempt() {
        Ok(()) => Ok(()),
        Err(_) if barred == Some(1) => Err(SystemLacks::IoUringBarred(1)),
        Err(reason) => Err(SystemLacks::IoUringRefused(reason)),
    }
}

/// Starts and ends an executor, on a thread of its own: glommio panics where a system call is missing.
fn attempt() -> Result<(), String> {
    let executor = || LocalExecutorBuilder::new(Placement::Unbound).io_memory(0).make().map(drop);
    match std::thread::spawn(executor).join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(GlommioError::ReactorError(ReactorErrorKind::MemLockLimit(available, needed)))) => {
            Err(format!("{available} bytes of memory may be locked, {needed} are needed"))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("its system calls are refused".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_suffices() {
        raise_limits(2).unwrap();
        io_uring().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let text = SystemLacks::Memlock { available: 65_536, needed: 2_000_000 }.to_string();
        assert!(
            text.contains("65536")
                && text.contains("LimitMEMLOCK=2000000")
                && text.contains("ulimit -l 1954")
        );
        // More shards than an 8 MiB limit suffices for by the book start all the same.
        let text = LittleMemlock { available: 8 << 20, wanted: 10 << 20 }.to_string();
        assert!(text.contains("LimitMEMLOCK=10485760") && text.contains("ulimit -l 10240"), "{text}");
        assert!(SystemLacks::IoUringBarred(2).to_string().contains("sysctl kernel.io_uring_disabled=0"));
    }
}
