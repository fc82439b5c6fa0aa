//! A folder of documents that are found by name, beside the files that C tor knows.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{DocStore, StoreError, failed, make_dir, read_bytes, write};

/// A folder within a store. Its calls block. A name is that of a file, so it must not come from others.
#[derive(Clone, Debug)]
pub struct Shelf {
    dir: PathBuf,
}

/// The end of the name of a file that is being written.
const UNFINISHED: &str = "tmp";

impl DocStore {
    /// The folder `name`, which is made when something is put into it.
    pub fn shelf(&self, name: &str) -> Shelf {
        Shelf { dir: self.dir.join(name) }
    }
}

impl Shelf {
    /// The names of what is there. What a crash left unfinished is removed.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("list", &self.dir))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed("list", &self.dir))?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            } else if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// What is there under a name; a file of more than `bytes_max` is not read.
    pub fn load(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        read_bytes(&self.dir.join(name), bytes_max)
    }

    /// Puts something there, whole or not at all.
    pub fn store(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        make_dir(&self.dir)?;
        let path = self.dir.join(name);
        let unfinished = self.dir.join(format!("{name}.{UNFINISHED}"));
        let result = write(&unfinished, [bytes]).and_then(|()| fs::rename(&unfinished, &path));
        result.map_err(|error| {
            // It is only in the way.
            let _ = fs::remove_file(&unfinished);
            failed("write", &path)(error)
        })
    }

    /// Removes what is there under a name.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_there_is_found_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = DocStore::open(dir.path()).unwrap().shelf("shelf");
        assert_eq!(shelf.names().unwrap(), Vec::<String>::new());
        assert_eq!(shelf.load("a", 9).unwrap(), b"");
        shelf.remove("a").unwrap();
        shelf.store("a", b"1").unwrap();
        shelf.store("a", b"\xff2").unwrap();
        shelf.store("b", b"3").unwrap();
        fs::write(dir.path().join("shelf/c.tmp"), b"4").unwrap();
        let mut names = shelf.names().unwrap();
        names.sort_unstable();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(shelf.load("a", 2).unwrap(), b"\xff2");
        assert!(matches!(shelf.load("a", 1), Err(StoreError::TooLarge { .. })));
        shelf.remove("a").unwrap();
        assert_eq!(shelf.names().unwrap(), ["b"]);
    }
}
