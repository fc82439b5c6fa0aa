//! Where networks live on disk, and how another shell finds them.
//!
//! Each network is a directory below `$TMPDIR/onionring-net-UID`. Its owner holds a lock on the file `owner` in it,
//! which the kernel releases when the owner ends in whatever way: a directory that nobody locks is debris.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::{NetworkInfo, netns};

/// The locked file.
const OWNER: &str = "owner";
/// Marks a directory that outlives its network.
const KEPT: &str = "kept";
/// What the network is, for other programs.
const STATE: &str = "network.json";

/// A network's directory, removed when dropped.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    _owner: File,
}

impl Home {
    /// Makes the directory for a network called `name`, and removes those that dead owners left.
    pub(super) fn create(name: &str) -> io::Result<Home> {
        let base = base()?;
        sweep(&base)?;
        let path = base.join(name);
        if name.is_empty() || name.starts_with('.') || name.contains('/') || path.exists() {
            let message = format!(
                "a network cannot be called `{name}`: not a file name, or taken ({})",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        // Locked before it appears under its name, so that nobody takes it for debris.
        let hidden = base.join(format!(".{name}.{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&hidden)?;
        let owner = File::create_new(hidden.join(OWNER))?;
        owner.lock()?;
        fs::rename(&hidden, &path)?;
        Ok(Home { path, _owner: owner })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells other programs about the network.
    pub(super) fn publish(&self, info: &NetworkInfo) -> io::Result<()> {
        let draft = self.path.join("network.json.new");
        fs::write(&draft, serde_json::to_vec_pretty(info)?)?;
        fs::rename(draft, self.path.join(STATE))
    }

    /// Leaves the directory behind.
    pub(super) fn keep(&self) -> io::Result<()> {
        fs::write(self.path.join(KEPT), "")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.path.join(KEPT).exists() {
            // What cannot be removed now is swept by the next network.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// All networks of this user that are up, with what they say about themselves; `None` while still booting.
pub fn list() -> io::Result<Vec<(String, Option<NetworkInfo>)>> {
    let mut found = Vec::new();
    for path in networks(&base()?)? {
        if is_owned(&path)? {
            let state = fs::read(path.join(STATE)).ok().and_then(|json| serde_json::from_slice(&json).ok());
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, state));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// A link called `name` to the program at `target`, for programs that do what they are called. It stays, and is the same
/// for all networks of one build.
pub(super) fn link(name: &str, target: &Path) -> io::Result<PathBuf> {
    let found = fs::metadata(target)?;
    let folder = base()?.join(format!(".programs-{}-{}", found.dev(), found.ino()));
    DirBuilder::new().mode(0o700).recursive(true).create(&folder)?;
    let link = folder.join(name);
    if fs::read_link(&link).ok().as_deref() != Some(target) {
        let draft = folder.join(format!("{name}.{}", std::process::id()));
        symlink(target, &draft)?;
        fs::rename(draft, &link)?;
    }
    Ok(link)
}

/// The directory of all networks; made if missing, refused if somebody else's.
fn base() -> io::Result<PathBuf> {
    let base = std::env::temp_dir().join(format!("onionring-net-{}", netns::outer_uid()));
    DirBuilder::new().mode(0o700).recursive(true).create(&base)?;
    let found = fs::symlink_metadata(&base)?;
    if !found.is_dir() || found.uid() != rustix::process::getuid().as_raw() {
        let message = format!("{} is not a directory of yours; remove it or set TMPDIR", base.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(base)
}

fn networks(base: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn sweep(base: &Path) -> io::Result<()> {
    for path in networks(base)? {
        if !path.join(KEPT).exists() && !is_owned(&path)? {
            // Another process may be sweeping too: whoever is second finds nothing.
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

/// Whether the network's owner lives.
fn is_owned(network: &Path) -> io::Result<bool> {
    let Ok(owner) = File::open(network.join(OWNER)) else { return Ok(false) };
    match owner.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(e),
    }
}
