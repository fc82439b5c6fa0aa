//! The state on disk: reading files, replacing them, and the journal of pinned keys, which only grows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use onionring_node::atomic_file;
use onionring_proto::netdoc::text;
use onionring_proto::time::Unix;
use thiserror::Error;

use crate::keypin::Pin;
use crate::limits;

/// A state file that cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system refuses.
    #[error("cannot {verb} {}: {source}; check its permissions and the space on its disk", path.display())]
    Io {
        /// What was to be done.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is longer than any file of its kind.
    #[error("{} has more than {most} bytes, so it is no file of an authority; move it away", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that it could have.
        most: u64,
    },
}

impl FileError {
    fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        move |source| FileError::Io { verb, path: path.to_owned(), source }
    }
}

/// The content of a state file; `None` if there is none yet.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    read_up_to(path, limits::STATE_FILE)
}

/// The content of a file that has no more than `most` bytes; `None` if there is none.
pub fn read_up_to(path: &Path, most: u64) -> Result<Option<Vec<u8>>, FileError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(FileError::io("open", path))?,
    };
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content).map_err(FileError::io("read", path))?;
    if content.len() as u64 > most {
        return Err(FileError::TooLarge { path: path.to_owned(), most });
    }
    Ok(Some(content))
}

/// Replaces a state file, readable by nobody else: the old content or the new is there at every moment.
pub fn replace(path: &Path, content: &str) -> Result<(), FileError> {
    atomic_file::write(path, content.as_bytes(), 0o600).map_err(FileError::io("replace", path))
}

/// The same of content in parts.
pub fn replace_parts(path: &Path, parts: &[impl AsRef<str>]) -> Result<(), FileError> {
    let parts = parts.iter().map(|part| part.as_ref().as_bytes());
    atomic_file::write_parts(path, parts, 0o600).map_err(FileError::io("replace", path))
}

/// The file `key-pinning-journal`, open to be added to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal and notes when. A line that was cut off before is closed, so that it spoils nothing.
    pub fn open(path: &Path, now: Unix) -> Result<Journal, FileError> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let file = options.open(path).map_err(FileError::io("open", path))?;
        let mut journal = Journal { path: path.to_owned(), file };
        journal.write(&format!("\n@opened-at {}\n", text::format_time(now)))?;
        Ok(journal)
    }

    /// Adds a pin. It is on the disk afterwards.
    pub fn append(&mut self, pin: &Pin) -> Result<(), FileError> {
        self.write(&format!("{pin}\n"))
    }

    /// A part of a line that does not fit is taken back, or it would spoil the next one.
    fn write(&mut self, lines: &str) -> Result<(), FileError> {
        let append = |file: &mut File| {
            let before = file.metadata()?.len();
            file.write_all(lines.as_bytes()).or_else(|error| file.set_len(before).and(Err(error)))?;
            file.sync_data()
        };
        append(&mut self.file).map_err(FileError::io("append to", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use onionring_proto::netdoc::text::Fingerprint;

    use super::*;
    use crate::keypin::KeyPins;

    #[test]
    fn state_is_replaced_and_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        assert!(read(&path).unwrap().is_none());
        replace(&path, "one").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(read(directory.path()), Err(FileError::Io { verb: "read", .. })));
    }

    #[test]
    fn a_journal_grows_past_a_line_that_was_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key-pinning-journal");
        let pin = |n| Pin { rsa: Fingerprint([n; 20]), ed25519: [n; 32] };
        Journal::open(&path, Unix(0)).unwrap().append(&pin(1)).unwrap();
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"AgICAgIC").unwrap();
        let mut journal = Journal::open(&path, Unix(1)).unwrap();
        journal.append(&pin(2)).unwrap();
        journal.append(&pin(3)).unwrap();
        let (pins, found) = KeyPins::read(&read(&path).unwrap().unwrap());
        assert_eq!((found.entries, found.damaged, pins.len()), (3, 1, 3));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
