//! Directories that nobody else may look into: DataDirectory, KeyDirectory, CacheDirectory.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{getgid, getuid};
use thiserror::Error;

/// Why a directory is not taken.
#[derive(Debug, Error)]
pub enum PrivateDirError {
    /// It cannot be looked at, or not be made.
    #[error("cannot use directory {}: {source}; check that it and its parents exist and who owns them", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is someone else's.
    #[error(
        "directory {} belongs to user {owner}, this program runs as user {user}; \
         start it as the right user, or hand the directory over with chown", path.display()
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Number of the user it belongs to.
        owner: u32,
        /// Number of the user we are.
        user: u32,
    },
    /// Its group may read it, and is not ours.
    #[error(
        "directory {} is open to group {group}, this program runs in group {ours}; \
         change its group, or do not make it group-readable", path.display()
    )]
    Group {
        /// The directory.
        path: PathBuf,
        /// Number of the group it belongs to.
        group: u32,
        /// Number of our group.
        ours: u32,
    },
}

/// Makes the directory if it is missing, and closes it to others: mode 0700, or 0750 if the group may read it. It must
/// belong to the user this process runs as. True if the permissions were too wide and have been mended, which the
/// operator should hear of. A symbolic link is refused, as C tor does.
pub fn ensure(path: &Path, group_readable: bool) -> Result<bool, PrivateDirError> {
    let unusable = |source: io::Error| PrivateDirError::Unusable { path: path.to_owned(), source };
    let mode = if group_readable { 0o750 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(error)),
        _ => {}
    }
    // Through a descriptor, so that what is checked is what is changed.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| unusable(e.into()))?;
    let stat = rustix::fs::fstat(&directory).map_err(|e| unusable(e.into()))?;
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    if stat.st_uid != user {
        return Err(PrivateDirError::Owner { path: path.to_owned(), owner: stat.st_uid, user });
    }
    if group_readable && stat.st_gid != group && stat.st_gid != 0 {
        return Err(PrivateDirError::Group { path: path.to_owned(), group: stat.st_gid, ours: group });
    }
    let unwanted = Mode::from_raw_mode(if group_readable { 0o027 } else { 0o077 });
    let found = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if !found.intersects(unwanted) {
        return Ok(false);
    }
    let mended = (found | Mode::from_raw_mode(mode)) - unwanted;
    rustix::fs::fchmod(&directory, mended).map_err(|e| unusable(e.into()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn directories_are_made_and_closed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("keys");
        assert!(!ensure(&path, false).unwrap());
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o2755)).unwrap();
        assert!(ensure(&path, true).unwrap());
        assert_eq!(mode(&path), 0o2750);
        assert!(ensure(&path, false).unwrap());
        assert_eq!(mode(&path), 0o2700);
    }

    #[test]
    fn links_files_and_missing_parents_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let (real, link, file) =
            (parent.path().join("real"), parent.path().join("link"), parent.path().join("file"));
        ensure(&real, false).unwrap();
        symlink(&real, &link).unwrap();
        fs::write(&file, "").unwrap();
        for path in [link, file, parent.path().join("a/b")] {
            assert!(
                matches!(ensure(&path, false), Err(PrivateDirError::Unusable { .. })),
                "{}",
                path.display()
            );
        }
    }
}
