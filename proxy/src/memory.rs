//! What the proxy remembers over a restart besides the directory: its guards, and how long circuits take. It is kept in the
//! file `state` in the `DataDirectory`, in C tor's format; what others have written there stays.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use onionring_node::atomic_file;
use onionring_proto::build_times::{BuildTimeSettings, BuildTimes};
use onionring_proto::guard::Guards;
use onionring_proto::netdoc::params::ConsensusParams;
use onionring_proto::state_file::{Damage, StateFile};
use onionring_proto::time::Unix;
use thiserror::Error;
use tracing::warn;

use crate::limits;

/// Why the state cannot be kept.
#[derive(Debug, Error)]
#[error("{}: {source}; check who owns it and the space on the disk", path.display())]
pub struct MemoryError {
    /// The file.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// The state file, and what is read from it.
pub struct Memory {
    path: PathBuf,
    /// The guards.
    pub guards: Mutex<Guards>,
    /// How long circuits take.
    pub times: Mutex<BuildTimes>,
    file: Mutex<Kept>,
}

struct Kept {
    file: StateFile,
    /// Revisions of guards and times as they were written last.
    written: (u64, u64),
}

impl Memory {
    /// Reads what is remembered in the data directory.
    pub fn open(data: &Path, now: Unix) -> Result<Memory, MemoryError> {
        let path = data.join("state");
        let text = match read(&path) {
            Ok(text) => text,
            Err(source) => return Err(MemoryError { path, source }),
        };
        let file = StateFile::read(&text);
        let (guards, mut damage) = Guards::read(&file, now);
        let (params, settings) = (ConsensusParams::default(), BuildTimeSettings::default());
        let (times, damage_of_times) = BuildTimes::read(&file, &params, &settings, &mut rand::rng());
        damage.extend(damage_of_times);
        report(&path, &damage);
        let written = (guards.revision(), times.revision());
        Ok(Memory {
            path,
            guards: Mutex::new(guards),
            times: Mutex::new(times),
            file: Mutex::new(Kept { file, written }),
        })
    }

    /// Writes what has changed. A kill at any moment leaves the old file or the new one.
    pub fn save(&self) -> Result<(), MemoryError> {
        let kept = &mut *lock(&self.file);
        let revisions = {
            let (guards, times) = (lock(&self.guards), lock(&self.times));
            let revisions = (guards.revision(), times.revision());
            if revisions == kept.written {
                return Ok(());
            }
            guards.write(&mut kept.file);
            times.write(&mut kept.file);
            revisions
        };
        let written = atomic_file::write(&self.path, kept.file.to_string().as_bytes(), 0o600);
        written.map_err(|source| MemoryError { path: self.path.clone(), source })?;
        kept.written = revisions;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let length = match std::fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    if length > limits::STATE_BYTES {
        return Err(io::Error::other(format!(
            "it has {length} bytes, no state file has more than {}",
            limits::STATE_BYTES
        )));
    }
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

fn report(path: &Path, damage: &[Damage]) {
    if let Some(first) = damage.first() {
        warn!("{} lines of {} are damaged; the first: {first}", damage.len(), path.display());
    }
}

/// A panic elsewhere leaves what is locked as consistent as every other moment does.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
