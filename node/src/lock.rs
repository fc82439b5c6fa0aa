//! One process at a time in a data directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a data directory could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process, ours or C tor, works there.
    #[error("another process uses the data directory (it holds {}); stop it first", .0.display())]
    Taken(PathBuf),
    /// The lock file cannot be made.
    #[error("cannot lock {}: {source}; check the space on the disk and who owns the directory", path.display())]
    Failed {
        /// The lock file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The sole right to work in a data directory; given up on drop. C tor holds the same lock on the same file.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Locks `lock` in the data directory, without waiting.
    pub fn acquire(data_directory: &Path) -> Result<DataLock, LockError> {
        let path = data_directory.join("lock");
        let mut options = OpenOptions::new();
        let file = match options.write(true).create(true).truncate(false).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(source) => return Err(LockError::Failed { path, source }),
        };
        match file.try_lock() {
            Ok(()) => Ok(DataLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken(path)),
            Err(TryLockError::Error(source)) => Err(LockError::Failed { path, source }),
        }
    }
}

/// The process that holds the lock of a data directory, if one does and we may see it. The system is asked for it, so it
/// is never a process that is gone.
pub fn owner(data_directory: &Path) -> Option<i32> {
    let lock = fs::metadata(data_directory.join("lock")).ok()?;
    let inode = lock.ino().to_string();
    // 1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut holders = locks.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(4);
        let (pid, place) = (words.next()?, words.next()?);
        (place.rsplit(':').next() == Some(&*inode)).then(|| pid.parse().ok())?
    });
    // The device in that list is not what stat says on every file system.
    holders.find(|pid| has_open(*pid, &lock))
}

/// Whether a process has this file open.
fn has_open(pid: i32, file: &fs::Metadata) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| fs::metadata(entry.path()).ok())
        .any(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_turned_away_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(owner(directory.path()), None);
        let first = DataLock::acquire(directory.path()).unwrap();
        assert_eq!(owner(directory.path()), i32::try_from(std::process::id()).ok());
        assert!(matches!(DataLock::acquire(directory.path()), Err(LockError::Taken(_))));
        drop(first);
        assert_eq!(owner(directory.path()), None);
        DataLock::acquire(directory.path()).unwrap();
        assert!(matches!(DataLock::acquire(Path::new("/nonexistent")), Err(LockError::Failed { .. })));
    }
}
