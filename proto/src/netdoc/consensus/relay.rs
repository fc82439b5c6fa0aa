//! One relay's entry in a consensus.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use crate::netdoc::protover::Protocols;
use crate::netdoc::text::{Fingerprint, Nickname};
use crate::policy::PortSummary;
use crate::time::Unix;

/// Flags of a relay (dir-spec 3.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayFlags(u16);

macro_rules! flags {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $bit:literal;)*) => {
        impl RelayFlags {
            $($(#[$doc])* pub const $id: RelayFlags = RelayFlags(1 << $bit);)*

            /// The flags with their names, in the order in which documents list them.
            pub const NAMES: &[(RelayFlags, &str)] = &[$((RelayFlags::$id, $name)),*];
        }
    };
}

flags! {
    /// Is a directory authority.
    AUTHORITY = "Authority", 0;
    /// Must not be used as exit.
    BAD_EXIT = "BadExit", 1;
    /// Useful as exit.
    EXIT = "Exit", 2;
    /// Fast enough for ordinary circuits.
    FAST = "Fast", 3;
    /// Fit to be a guard.
    GUARD = "Guard", 4;
    /// Keeps onion-service descriptors.
    HS_DIR = "HSDir", 5;
    /// To be used in the middle only.
    MIDDLE_ONLY = "MiddleOnly", 6;
    /// The authorities disagree on its Ed25519 identity.
    NO_ED_CONSENSUS = "NoEdConsensus", 7;
    /// Reachable.
    RUNNING = "Running", 8;
    /// Fit for long-lived circuits.
    STABLE = "Stable", 9;
    /// Its descriptor is old.
    STALE_DESC = "StaleDesc", 10;
    /// One of too many on an address.
    SYBIL = "Sybil", 11;
    /// Serves directory documents.
    V2_DIR = "V2Dir", 12;
    /// Not known to be harmful.
    VALID = "Valid", 13;
}

impl RelayFlags {
    /// Reads flag names; unknown ones are left out.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let known = |name| Self::NAMES.iter().find(|(_, n)| *n == name).map_or(0, |(flag, _)| flag.0);
        RelayFlags(names.into_iter().fold(0, |bits, name| bits | known(name)))
    }

    /// Whether all of `flags` are set.
    pub fn has(self, flags: RelayFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl std::ops::BitOr for RelayFlags {
    type Output = RelayFlags;
    fn bitor(self, other: RelayFlags) -> RelayFlags {
        RelayFlags(self.0 | other.0)
    }
}

/// The document that a consensus names for a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A router descriptor, by SHA-1 (flavour [`super::Flavor::Ns`]).
    Descriptor(Fingerprint),
    /// A microdescriptor, by SHA-256 (flavour [`super::Flavor::Microdesc`]).
    Microdesc([u8; 32]),
    /// None: an entry without an `m` line.
    Nothing,
}

/// A relay's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayStatus {
    /// SHA-1 of its RSA identity key.
    pub identity: Fingerprint,
    /// Its nickname.
    pub nickname: Nickname,
    /// Its descriptor or microdescriptor.
    pub listed: Listed,
    /// When its descriptor was published; a fixed time in the future in the `microdesc` flavour.
    pub published: Unix,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its ORPort there.
    pub or_port: u16,
    /// Its DirPort there, or 0.
    pub dir_port: u16,
    /// Its IPv6 ORPort, if the authorities reached it.
    pub ipv6: Option<(Ipv6Addr, u16)>,
    /// Its flags.
    pub flags: RelayFlags,
    /// Its weight, in kilobytes (1000) a second; `None` if no authority gave one.
    pub bandwidth: Option<u32>,
    /// Whether that weight is the relay's own claim.
    pub unmeasured: bool,
    /// Percentage of the time it has been a guard, if the authorities count that.
    pub guard_fraction: Option<u8>,
    /// Tor version, if it runs Tor.
    pub version: Option<Arc<str>>,
    /// Its subprotocols.
    pub protocols: Arc<Protocols>,
    /// Its exit policy's summary (flavour [`super::Flavor::Ns`] only).
    pub policy: Option<Arc<PortSummary>>,
}

impl RelayStatus {
    /// The IPv4 ORPort.
    pub fn or_addr(&self) -> SocketAddr {
        SocketAddrV4::new(self.ipv4, self.or_port).into()
    }

    /// The IPv6 ORPort.
    pub fn or_addr_v6(&self) -> Option<SocketAddr> {
        self.ipv6.map(|(ip, port)| SocketAddrV6::new(ip, port, 0, 0).into())
    }

    /// The digest of its microdescriptor.
    pub fn microdesc(&self) -> Option<&[u8; 32]> {
        match &self.listed {
            Listed::Microdesc(digest) => Some(digest),
            _ => None,
        }
    }

    /// The digest of its descriptor.
    pub fn descriptor(&self) -> Option<&Fingerprint> {
        match &self.listed {
            Listed::Descriptor(digest) => Some(digest),
            _ => None,
        }
    }
}
