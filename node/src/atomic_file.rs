//! Replacing files so that at every moment either the old or the new content is there, whole.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

/// Content that is on disk beside the file it will replace. Dropping it leaves the file as it was.
pub struct Prepared<'a> {
    temp: NamedTempFile,
    path: &'a Path,
}

/// Writes the new content of `path` to disk under another name, with these permissions. Everything that can fail for
/// want of space fails here.
pub fn prepare<'a>(path: &'a Path, content: &[u8], mode: u32) -> io::Result<Prepared<'a>> {
    prepare_parts(path, [content], mode)
}

fn prepare_parts<'a, 'c>(
    path: &'a Path,
    parts: impl IntoIterator<Item = &'c [u8]>,
    mode: u32,
) -> io::Result<Prepared<'a>> {
    let parent = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let mut temp = tempfile::Builder::new().prefix(".new-").tempfile_in(parent)?;
    parts.into_iter().try_for_each(|part| temp.write_all(part))?;
    temp.as_file().set_permissions(Permissions::from_mode(mode))?;
    temp.as_file().sync_all()?;
    Ok(Prepared { temp, path })
}

impl Prepared<'_> {
    /// Puts the new content in place.
    pub fn commit(self) -> io::Result<()> {
        self.temp.persist(self.path).map_err(|e| e.error)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// Replaces the content of `path`.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    prepare(path, content, mode)?.commit()
}

/// Replaces the content of `path` by parts that follow each other.
pub fn write_parts<'c>(path: &Path, parts: impl IntoIterator<Item = &'c [u8]>, mode: u32) -> io::Result<()> {
    prepare_parts(path, parts, mode)?.commit()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_or_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write(&path, b"one", 0o600).unwrap();
        drop(prepare(&path, b"two", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"three", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        write_parts(&path, [&b"fo"[..], b"", b"ur"], 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"four");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
