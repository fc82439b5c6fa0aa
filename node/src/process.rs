//! The program as a process: its pid file, and what it tells systemd.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use thiserror::Error;

/// The pid file cannot be written.
#[derive(Debug, Error)]
#[error("PidFile {}: {source}; make its directory writable for the user that starts the program", path.display())]
pub struct PidFileError {
    path: PathBuf,
    source: io::Error,
}

/// A file with our process id (`PidFile`), which goes when the program does.
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes `path`, over what an earlier run left.
    pub fn create(path: &Path) -> Result<Self, PidFileError> {
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
            writeln!(file, "{}", std::process::id())
        };
        write().map_err(|source| PidFileError { path: path.to_owned(), source })?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // After a change of user it may not be ours to remove; the next start overwrites it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What systemd is told (`Type=notify`); without systemd, nothing happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The program listens and works.
    Ready,
    /// The configuration is being read again; [`Notice::Ready`] follows.
    Reloading,
    /// The program is shutting down.
    Stopping,
    /// One line for `systemctl status`.
    Status(&'a str),
    /// The program is alive (`WatchdogSec=`).
    Alive,
}

/// Tells systemd. A failure is worth a line at debug level and no more.
pub fn notify(notice: Notice<'_>) {
    let result = match notice {
        Notice::Ready => sd_notify::notify(&[NotifyState::Ready]),
        Notice::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|since| sd_notify::notify(&[NotifyState::Reloading, since])),
        Notice::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Notice::Status(text) => sd_notify::notify(&[NotifyState::Status(text)]),
        Notice::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
    };
    if let Err(error) = result {
        tracing::trace!(target: "process", "cannot notify systemd: {error}");
    }
}

/// How often systemd wants [`Notice::Alive`]: half the time after which it would kill us.
pub fn watchdog_interval() -> Option<std::time::Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Each connection is a file: takes all that the system lets the program have. With fewer, connections are refused
/// earlier.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Files that this program may open.
pub fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    /// Set in a child process that runs the test of systemd once more, with its socket in the environment.
    const CHILD: &str = "ONIONRING_TEST_CHILD";

    #[test]
    fn the_pid_file_has_our_pid_and_goes_with_us() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        std::fs::write(&path, "99999999 of an earlier run").unwrap();
        let file = PidFile::create(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        let error = PidFile::create(&directory.path().join("no/such/pid")).err().unwrap().to_string();
        assert!(error.starts_with("PidFile ") && error.contains("no/such/pid"), "{error}");
    }

    #[test]
    fn systemd_hears_of_every_stage() {
        if std::env::var_os(CHILD).is_some() {
            for notice in [
                Notice::Ready,
                Notice::Reloading,
                Notice::Ready,
                Notice::Status("draining: 3 links"),
                Notice::Alive,
                Notice::Stopping,
            ] {
                notify(notice);
            }
            return;
        }
        // Nobody listens here: that is fine.
        notify(Notice::Ready);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::tests::systemd_hears_of_every_stage"])
            .env(CHILD, "1")
            .env("NOTIFY_SOCKET", &path)
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        let mut heard = Vec::new();
        systemd.set_nonblocking(true).unwrap();
        let mut buf = [0; 200];
        while let Ok(len) = systemd.recv(&mut buf) {
            heard.push(String::from_utf8_lossy(&buf[..len]).lines().next().unwrap_or_default().to_owned());
        }
        let expected =
            ["READY=1", "RELOADING=1", "READY=1", "STATUS=draining: 3 links", "WATCHDOG=1", "STOPPING=1"];
        assert_eq!(heard, expected);
    }
}
