//! A network namespace of our own, for peers that refuse loopback addresses.
//!
//! The whole program moves into it, so that its resolver, its traffic server and its clients live beside the nodes.
//! Within, 198.18.0.0/15 (the benchmarking block, RFC 2544) is local on `lo`, and nothing else is reachable.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, io};

/// Set in the environment of a program that has moved: the user it was before.
const MARK: &str = "ONIONRING_NETNS";

/// Whether this process runs in a namespace that [`enter`] made.
pub fn inside() -> bool {
    env::var_os(MARK).is_some()
}

/// The user this process belongs to, seen from outside the namespace.
pub(super) fn outer_uid() -> u32 {
    let before = env::var(MARK).ok().and_then(|uid| uid.parse().ok());
    before.unwrap_or_else(|| rustix::process::getuid().as_raw())
}

/// Starts this program again, same process id and same arguments, in a fresh network namespace with 198.18.0.0/15 on
/// its loopback device. Returns at once when already inside.
///
/// Needs root, or a kernel that lets users make user namespaces.
pub fn enter() -> io::Result<()> {
    if inside() {
        return prepare();
    }
    let mut unshare = Command::new("unshare");
    unshare.arg("--net");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare
        .arg("--")
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(MARK, outer_uid().to_string());
    Err(explain("unshare (package util-linux)", unshare.exec()))
}

/// Gives the namespace its addresses. Adding the prefix to `lo` makes every address of it local.
fn prepare() -> io::Result<()> {
    for arguments in [&["link", "set", "lo", "up"][..], &["addr", "replace", "198.18.0.1/15", "dev", "lo"]] {
        let output =
            Command::new("ip").args(arguments).output().map_err(|e| explain("ip (package iproute2)", e))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("ip {}: {}", arguments.join(" "), reason.trim())));
        }
    }
    Ok(())
}

fn explain(program: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot run {program}, which a network namespace needs: {error}"))
}
