//! One process at a time in a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_turned_away_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataLock::acquire(directory.path()).unwrap();
        assert!(matches!(DataLock::acquire(directory.path()), Err(LockError::Taken(_))));
        drop(first);
        DataLock::acquire(directory.path()).unwrap();
        assert!(matches!(DataLock::acquire(Path::new("/nonexistent")), Err(LockError::Failed { .. })));
    }
}
