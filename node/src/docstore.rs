//! Network documents on disk, in the files that C tor keeps under `CacheDirectory`, so that either program starts
//! from what the other has fetched.
//!
//! A file is replaced as a whole or not at all: a crash or a full disk leaves the old one. Lists of documents that
//! grow have a journal beside them (`.new`), as in C tor.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

mod shelf;

pub use shelf::Shelf;

/// A file of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cached {
    /// Authority certificates.
    Certs,
    /// The consensus that names router descriptors.
    Consensus,
    /// The consensus that names microdescriptors.
    MicrodescConsensus,
    /// Router descriptors.
    Descriptors,
    /// Extra-infos.
    ExtraInfos,
    /// Microdescriptors.
    Microdescs,
}

impl Cached {
    /// Its name, which is C tor's.
    pub fn file_name(self) -> &'static str {
        match self {
            Cached::Certs => "cached-certs",
            Cached::Consensus => "cached-consensus",
            Cached::MicrodescConsensus => "cached-microdesc-consensus",
            Cached::Descriptors => "cached-descriptors",
            Cached::ExtraInfos => "cached-extrainfo",
            Cached::Microdescs => "cached-microdescs",
        }
    }

    /// Bytes that it may have, about ten times what the public network needs. A larger file is not read.
    pub fn bytes_max(self) -> u64 {
        match self {
            Cached::Certs => 4 << 20,
            Cached::Consensus | Cached::MicrodescConsensus => 64 << 20,
            Cached::Microdescs => 256 << 20,
            // Authorities keep superseded ones for days.
            Cached::Descriptors | Cached::ExtraInfos => 512 << 20,
        }
    }
}

/// What goes wrong with files.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk is full; what was there before is still there.
    #[error(
        "no space left to write {0}: free some, or move CacheDirectory to a larger disk; the old file stays"
    )]
    DiskFull(PathBuf),
    /// The file is too large to be what its name says.
    #[error("{path} has {size} bytes, more than the {max} it may have; remove it")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        size: u64,
        /// Bytes it may have.
        max: u64,
    },
    /// The file is not text, as all documents are.
    #[error("{0} is not text: it is damaged; remove it")]
    NotText(PathBuf),
    /// Anything else.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull(path),
        _ => StoreError::Io { doing, path, source },
    }
}

/// The directory of documents. Its calls block: keep them off threads that must not.
#[derive(Clone, Debug)]
pub struct DocStore {
    dir: PathBuf,
}

impl DocStore {
    /// Opens the store in `dir`, which is made if it is missing.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = dir.into();
        make_dir(&dir)?;
        Ok(DocStore { dir })
    }

    fn path(&self, cached: Cached) -> PathBuf {
        self.dir.join(cached.file_name())
    }

    fn journal(&self, cached: Cached) -> PathBuf {
        self.path(cached).with_extension("new")
    }

    /// The text of a file and its journal, without the annotations (`@` lines) that C tor puts between documents;
    /// empty if there is none. What was being appended to the journal when a program was killed is cut short, perhaps
    /// within a character: then the text ends before that one.
    pub fn load(&self, cached: Cached) -> Result<String, StoreError> {
        let mut text = read(&self.path(cached), cached.bytes_max(), false)?;
        let journal =
            read(&self.journal(cached), cached.bytes_max().saturating_sub(text.len() as u64), true)?;
        text.reserve_exact(journal.len());
        text.push_str(&journal);
        let is_annotation = |line: &str| line.starts_with('@');
        match text.lines().any(is_annotation) {
            true => Ok(text.split_inclusive('\n').filter(|line| !is_annotation(line)).collect()),
            // So that what may have many megabytes, and is in a file of ours, is not copied.
            false => Ok(text),
        }
    }

    /// Replaces a file with `documents`, one after the other, and drops its journal. After an error the file and
    /// its journal are what they were.
    pub fn replace<'a>(
        &self,
        cached: Cached,
        documents: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), StoreError> {
        let path = self.path(cached);
        let unfinished = path.with_extension("tmp");
        let result = write(&unfinished, documents).and_then(|()| fs::rename(&unfinished, &path));
        if let Err(error) = result {
            // It is only in the way.
            let _ = fs::remove_file(&unfinished);
            return Err(failed("write", &path)(error));
        }
        let journal = self.journal(cached);
        match fs::remove_file(&journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &journal)(error)),
            _ => Ok(()),
        }
    }

    /// Appends `documents` to a file's journal; they are on the disk afterwards. After an error the journal is what it was.
    pub fn append<'a>(
        &self,
        cached: Cached,
        documents: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), StoreError> {
        let path = self.journal(cached);
        let mut file = options().append(true).create(true).open(&path).map_err(failed("open", &path))?;
        let before = file.metadata().map_err(failed("look at", &path))?.len();
        let written = documents.into_iter().try_for_each(|document| file.write_all(document));
        written.and_then(|()| file.sync_data()).map_err(|error| {
            // Half a document would spoil the one that is written after it.
            let _ = file.set_len(before);
            failed("write", &path)(error)
        })
    }

    /// Bytes of a file and of its journal: when the second outgrows half the first, it is time to
    /// [`replace`](Self::replace).
    pub fn sizes(&self, cached: Cached) -> (u64, u64) {
        let size = |path: PathBuf| fs::metadata(path).map_or(0, |m| m.len());
        (size(self.path(cached)), size(self.journal(cached)))
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failed("make the directory", path))
}

/// The text of a file; of one that `grows`, a character that is cut off at its end is left out.
fn read(path: &Path, max: u64, grows: bool) -> Result<String, StoreError> {
    let mut bytes = read_bytes(path, max)?;
    if let Err(error) = std::str::from_utf8(&bytes)
        && grows
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    String::from_utf8(bytes).map_err(|_| StoreError::NotText(path.into()))
}

/// What is in a file; nothing, if there is none.
fn read_bytes(path: &Path, max: u64) -> Result<Vec<u8>, StoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.map_err(failed("open", path))?,
    };
    let size = file.metadata().map_err(failed("look at", path))?.len();
    if size > max {
        return Err(StoreError::TooLarge { path: path.into(), size, max });
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // The file may grow while it is read.
    file.take(max).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(bytes)
}

fn write<'a>(path: &Path, documents: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
    let file = options().write(true).create(true).truncate(true).open(path)?;
    let mut file = io::BufWriter::new(file);
    documents.into_iter().try_for_each(|document| file.write_all(document))?;
    // Without this, a crash after the renaming could leave an empty file under the name.
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn store() -> (tempfile::TempDir, DocStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = DocStore::open(dir.path().join("cache")).unwrap();
        (dir, store)
    }

    #[test]
    fn a_new_store_is_empty_and_private() {
        let (_dir, store) = store();
        assert_eq!(store.load(Cached::Certs).unwrap(), "");
        assert_eq!(fs::metadata(&store.dir).unwrap().permissions().mode() & 0o777, 0o700);
        store.replace(Cached::Certs, [&b"a\n"[..], &b"b\n"[..]]).unwrap();
        assert_eq!(store.load(Cached::Certs).unwrap(), "a\nb\n");
        let file = fs::metadata(store.dir.join("cached-certs")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn journals_come_after_and_go_with_a_replacement() {
        let (_dir, store) = store();
        store.replace(Cached::Descriptors, [&b"router one\n"[..]]).unwrap();
        store.append(Cached::Descriptors, [&b"router two\n"[..]]).unwrap();
        store.append(Cached::Descriptors, [&b"router three\n"[..]]).unwrap();
        assert_eq!(store.sizes(Cached::Descriptors), (11, 24));
        assert_eq!(store.load(Cached::Descriptors).unwrap(), "router one\nrouter two\nrouter three\n");
        store.replace(Cached::Descriptors, [&b"router four\n"[..]]).unwrap();
        assert_eq!(store.load(Cached::Descriptors).unwrap(), "router four\n");
        assert!(!store.dir.join("cached-descriptors.new").exists());
    }

    #[test]
    fn annotations_of_c_tor_are_left_out() {
        let (_dir, store) = store();
        let text =
            "@last-listed 2026-11-22 10:00:00\nonion-key\nntor-onion-key x\n@last-listed 2026\nonion-key\n";
        fs::write(store.dir.join("cached-microdescs"), text).unwrap();
        assert_eq!(store.load(Cached::Microdescs).unwrap(), "onion-key\nntor-onion-key x\nonion-key\n");
    }

    /// `/dev/full` in the place of the file to be written fails like a full disk.
    #[test]
    fn a_full_disk_leaves_the_old_file() {
        let (_dir, store) = store();
        store.replace(Cached::Consensus, [&b"old"[..]]).unwrap();
        symlink("/dev/full", store.dir.join("cached-consensus.tmp")).unwrap();
        let error = store.replace(Cached::Consensus, [&b"new"[..]]).unwrap_err();
        assert!(matches!(&error, StoreError::DiskFull(path) if path.ends_with("cached-consensus")));
        assert!(error.to_string().contains("CacheDirectory"));
        assert_eq!(store.load(Cached::Consensus).unwrap(), "old");
        assert!(!store.dir.join("cached-consensus.tmp").exists());
        symlink("/dev/full", store.dir.join("cached-microdescs.new")).unwrap();
        let error = store.append(Cached::Microdescs, [&b"new"[..]]).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull(_)));
    }

    #[test]
    fn a_journal_that_is_cut_off_within_a_character_ends_before_it() {
        let (_dir, store) = store();
        let text = "contact \u{fc}\u{20ac}".as_bytes();
        for len in 0..=text.len() {
            fs::write(store.dir.join("cached-descriptors.new"), &text[..len]).unwrap();
            assert!(text.starts_with(store.load(Cached::Descriptors).unwrap().as_bytes()));
        }
        fs::write(store.dir.join("cached-descriptors.new"), b"\xff\n").unwrap();
        assert!(matches!(store.load(Cached::Descriptors), Err(StoreError::NotText(_))));
    }

    #[test]
    fn what_cannot_be_a_document_is_named() {
        let (_dir, store) = store();
        fs::write(store.dir.join("cached-consensus"), [0xff, 0xfe]).unwrap();
        assert!(matches!(store.load(Cached::Consensus), Err(StoreError::NotText(_))));
        let huge = File::create(store.dir.join("cached-certs")).unwrap();
        huge.set_len(Cached::Certs.bytes_max() + 1).unwrap();
        assert!(matches!(store.load(Cached::Certs), Err(StoreError::TooLarge { .. })));
        fs::create_dir(store.dir.join("cached-extrainfo.tmp")).unwrap();
        assert!(matches!(store.replace(Cached::ExtraInfos, [&b"x"[..]]), Err(StoreError::Io { .. })));
    }
}
