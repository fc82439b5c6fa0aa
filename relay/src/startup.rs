//! What a busy relay wants from its system and can start without: looked at once, told with the exact remedy.
//!
//! What a relay cannot start without is [`crate::io::check`]'s business.

use std::fs;
use std::path::Path;

use thiserror::Error;

use crate::limits;

/// Settings of the system that matter to a relay; `None` where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// Most files this process may open (the hard limit); `None` is also "no limit".
    pub open_files: Option<u64>,
    /// First and last local port of outgoing connections (`net.ipv4.ip_local_port_range`).
    pub local_ports: Option<(u16, u16)>,
    /// Connections that the firewall tracks now, and most that it can.
    pub tracked_connections: Option<(u64, u64)>,
    /// Longest queue of connections not accepted yet (`net.core.somaxconn`).
    pub listen_backlog: Option<u64>,
    /// Whether this process has all rights of root and will keep them.
    pub stays_root: bool,
}

/// Something that will hurt a busy relay. The text says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Advice {
    /// Few files may be open.
    #[error(
        "Only {0} files may be open, and each connection is one; a busy relay has tens of thousands. Set \
         LimitNOFILE=65536 in the systemd unit, or run `ulimit -n 65536` before the start."
    )]
    FewOpenFiles(u64),
    /// Few local ports.
    #[error(
        "Only {available} local ports are there for outgoing connections ({first} to {last}). Run \
         `sysctl -w net.ipv4.ip_local_port_range=\"15000 64000\"`, and put the same into /etc/sysctl.d/. Ports that \
         this relay listens on can be kept out with net.ipv4.ip_local_reserved_ports."
    )]
    FewLocalPorts {
        /// How many.
        available: u16,
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
    /// The firewall can track few connections.
    #[error(
        "The firewall tracks connections and has {used} of {max} entries in use; when none is left, new connections \
         are dropped without a message here. Run `sysctl -w net.netfilter.nf_conntrack_max={wanted}` and put the same \
         into /etc/sysctl.d/, or exempt the relay's ports with a `notrack` rule."
    )]
    FewTrackedConnections {
        /// Entries in use.
        used: u64,
        /// Entries there are.
        max: u64,
        /// Entries that suffice.
        wanted: u64,
    },
    /// A short queue for new connections.
    #[error(
        "The system holds only {0} new connections until they are accepted; bursts beyond are dropped. Run \
         `sysctl -w net.core.somaxconn={wanted}` and put the same into /etc/sysctl.d/.",
        wanted = limits::LISTEN_BACKLOG
    )]
    ShortBacklog(u64),
    /// Running as root.
    #[error(
        "This relay runs as root, which it does not need. Set the User option, or User= in the systemd unit, to a user \
         of its own."
    )]
    Root,
}

impl System {
    /// Reads the system's settings.
    pub fn read(stays_root: bool) -> Self {
        System {
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
            stays_root,
            ..Self::read_sysctls(Path::new("/proc/sys/net"))
        }
    }

    fn read_sysctls(net: &Path) -> Self {
        let number = |name: &str| fs::read_to_string(net.join(name)).ok()?.trim().parse().ok();
        let ports = fs::read_to_string(net.join("ipv4/ip_local_port_range")).ok();
        System {
            local_ports: ports.and_then(|text| {
                let mut words = text.split_ascii_whitespace();
                Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
            }),
            tracked_connections: number("netfilter/nf_conntrack_count")
                .zip(number("netfilter/nf_conntrack_max")),
            listen_backlog: number("core/somaxconn"),
            ..System::default()
        }
    }

    /// What the operator should change.
    pub fn advice(&self) -> Vec<Advice> {
        let mut advice = Vec::new();
        if let Some(files) = self.open_files.filter(|&files| files < limits::OPEN_FILES_ADVISED) {
            advice.push(Advice::FewOpenFiles(files));
        }
        if let Some((first, last)) = self.local_ports {
            let available = last.saturating_sub(first).saturating_add(1);
            if available < limits::LOCAL_PORTS_ADVISED {
                advice.push(Advice::FewLocalPorts { available, first, last });
            }
        }
        if let Some((used, max)) = self.tracked_connections {
            let wanted = limits::TRACKED_CONNECTIONS_ADVISED;
            if max < wanted || used > max / 4 * 3 {
                advice.push(Advice::FewTrackedConnections {
                    used,
                    max,
                    wanted: wanted.max(max.saturating_mul(2)),
                });
            }
        }
        if let Some(backlog) = self.listen_backlog.filter(|&backlog| backlog < limits::LISTEN_BACKLOG as u64)
        {
            advice.push(Advice::ShortBacklog(backlog));
        }
        if self.stays_root {
            advice.push(Advice::Root);
        }
        advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_kept_system_needs_no_advice() {
        let system = System {
            open_files: Some(65_536),
            local_ports: Some((15_000, 64_000)),
            tracked_connections: Some((1000, 1 << 20)),
            listen_backlog: Some(4096),
            stays_root: false,
        };
        assert_eq!(system.advice(), []);
        assert_eq!(System::default().advice(), [], "what the system does not tell is not complained of");
    }

    #[test]
    fn each_lack_is_named_with_its_remedy() {
        let system = System {
            open_files: Some(4096),
            local_ports: Some((32_768, 40_000)),
            tracked_connections: Some((900_000, 1 << 20)),
            listen_backlog: Some(128),
            stays_root: true,
        };
        let advice: Vec<String> = system.advice().iter().map(ToString::to_string).collect();
        let remedies = [
            "LimitNOFILE=65536",
            "net.ipv4.ip_local_port_range=\"15000 64000\"",
            "net.netfilter.nf_conntrack_max=2097152",
            "net.core.somaxconn=4096",
            "User option",
        ];
        assert_eq!(advice.len(), remedies.len());
        for (advice, remedy) in advice.iter().zip(remedies) {
            assert!(advice.contains(remedy), "{advice}");
        }
        assert!(advice[1].contains("Only 7233 local ports"), "{}", advice[1]);
    }

    #[test]
    fn sysctls_are_read_where_they_are_and_passed_over_where_not() {
        let directory = tempfile::tempdir().unwrap();
        let net = directory.path();
        assert_eq!(System::read_sysctls(net), System::default());
        for (name, text) in [
            ("ipv4/ip_local_port_range", "32768\t60999\n"),
            ("netfilter/nf_conntrack_count", "17\n"),
            ("netfilter/nf_conntrack_max", "262144\n"),
            ("core/somaxconn", "what?"),
        ] {
            let path = net.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let expected = System {
            local_ports: Some((32_768, 60_999)),
            tracked_connections: Some((17, 262_144)),
            ..System::default()
        };
        assert_eq!(System::read_sysctls(net), expected);
        assert!(System::read(true).advice().contains(&Advice::Root));
    }
}
