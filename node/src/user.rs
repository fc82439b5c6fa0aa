//! Becoming another user (`User`) after a start as root.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd::{initgroups, setresgid, setresuid};
use rustix::process::getuid;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities};
use thiserror::Error;

/// Why the user could not be changed.
#[derive(Debug, Error)]
pub enum UserError {
    /// There is no such user.
    #[error("there is no user {0}; create it, or correct the User option")]
    Unknown(String),
    /// We are not root and not that user.
    #[error("cannot become user {name}: this process runs as user {uid}; start it as root or as {name}")]
    NotRoot {
        /// The user to become.
        name: String,
        /// Number of the user we are.
        uid: u32,
    },
    /// The system refused.
    #[error("cannot become user {name}: {source}")]
    Refused {
        /// The user to become.
        name: String,
        /// What the system says.
        source: io::Error,
    },
}

/// A user of this system.
#[derive(Clone, Debug)]
pub struct User(nix::unistd::User);

impl User {
    /// Looks a user up.
    pub fn find(name: &str) -> Result<User, UserError> {
        match nix::unistd::User::from_name(name) {
            Ok(Some(user)) => Ok(User(user)),
            Ok(None) => Err(UserError::Unknown(name.to_owned())),
            Err(error) => Err(UserError::Refused { name: name.to_owned(), source: error.into() }),
        }
    }

    /// Its number and that of its group.
    pub fn ids(&self) -> (u32, u32) {
        (self.0.uid.as_raw(), self.0.gid.as_raw())
    }

    /// The home directory.
    pub fn home(&self) -> PathBuf {
        self.0.dir.clone()
    }

    /// Makes this process run as the user, for good. Call it before any thread is started. With `keep_bind`, ports below
    /// 1024 can still be opened, if that was allowed before.
    pub fn become_it(&self, keep_bind: bool) -> Result<(), UserError> {
        let name = self.0.name.clone();
        match getuid().as_raw() {
            uid if uid == self.0.uid.as_raw() => Ok(()),
            0 => self.switch(keep_bind).map_err(|source| UserError::Refused { name, source }),
            uid => Err(UserError::NotRoot { name, uid }),
        }
    }

    fn switch(&self, keep_bind: bool) -> io::Result<()> {
        let (uid, gid) = (self.0.uid, self.0.gid);
        initgroups(&CString::new(self.0.name.as_str())?, gid)?;
        setresgid(gid, gid, gid)?;
        set_keep_capabilities(keep_bind)?;
        setresuid(uid, uid, uid)?;
        if keep_bind {
            // Under a service manager the bounding set may lack it; then there is nothing to keep.
            let kept = capabilities(None)?.permitted & CapabilitySet::NET_BIND_SERVICE;
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: none })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_or_named() {
        assert_eq!(User::find("root").unwrap().home(), PathBuf::from("/root"));
        let message = User::find("no-such-user").unwrap_err().to_string();
        assert_eq!(message, "there is no user no-such-user; create it, or correct the User option");
    }

    #[test]
    fn becoming_oneself_changes_nothing() {
        let me = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap();
        User(me).become_it(false).unwrap();
    }
}
