//! What this program makes of each of C tor's options.
//!
//! Every option is in exactly one class, with one line for the operator. `docs/options.md` is made from this table.

use onionring_node::config::{Class, Classes, Group, shared};

use super::reload::RELOADABLE;

/// The table.
pub const CLASSES: Classes = Classes {
    supported: &[shared::PROGRAM, shared::RELAY, SUPPORTED],
    groups: GROUPS,
    reloadable: RELOADABLE,
};

/// The page of documentation about all options.
pub fn document() -> String {
    CLASSES.document(HEAD)
}

const HEAD: &str = "\
# Options of onionring-relay

The configuration is a `torrc` in C tor's syntax. Every option of C tor 0.4.9, and every one that is ours, is in one of
these classes:

- **Supported**: it works as in C tor.
- **Without effect**: it is accepted and does nothing here, so that one file serves a stock node and this one. The relay
  names these options once when it starts.
- **Accepted with a warning**: it does nothing either, but something may be waiting for what it does in C tor.
- **Not supported**: any other value than the default would change what the relay does, so it is an error that names the
  file and the line. `--allow-unsupported` turns these errors into warnings, at your own risk.

A running relay reads its configuration again on SIGHUP. Options that cannot change then are named in the log, and count
after a restart.

C tor has no `HalfClosedStreams`, and refuses a torrc with it.

This page is made from the table in `relay/src/config/classes.rs`; a test holds the two equal.
";

/// Options that work and are not the same in all relays, with what they do.
#[rustfmt::skip]
const SUPPORTED: &[(&str, &str)] = &[
    ("Address", "An IPv4 and an IPv6 address to publish; names are not resolved. Without an IPv4 address, it is that of the interface towards the network if that is public, and otherwise what most directory authorities see."),
    ("AssumeReachable", "Publishes without testing that others can connect."),
    ("AssumeReachableIPv6", "The same for the IPv6 ORPort alone; `auto` follows `AssumeReachable`."),
    ("BandwidthBurst", "Bytes in each direction that may go out at once after a time of less use, at least `BandwidthRate`."),
    ("BandwidthRate", "Bytes a second in each direction, at least 75 KB, over a long time: links with their TLS handshakes, the DirPort, and connections of exit streams together, what comes from a destination in whole cells. Name lookups do not count, as in C tor; the relay's own directory requests are few and do not count either."),
    ("CacheDirectory", "Where directory documents are kept; `DataDirectory` by default."),
    ("CacheDirectoryGroupReadable", "Lets the group read that directory; `auto` follows `DataDirectoryGroupReadable` if the two directories are one."),
    ("CountPrivateBandwidth", "Limits connections with private addresses (such as 127.0.0.1 or 10.0.0.1) as well."),
    ("DirCache", "Serves directory documents to others."),
    ("DirPort", "A port for plain directory requests."),
    ("DoSCircuitCreationBurst", "How many circuits a client may create at once; 0 follows the consensus, as for all of these."),
    ("DoSCircuitCreationDefenseTimePeriod", "How long a client that creates too many is refused, and up to half as long again."),
    ("DoSCircuitCreationDefenseType", "1 only counts what would be refused, 2 refuses its circuits before their public-key work."),
    ("DoSCircuitCreationEnabled", "Limits the circuits of each client, which is an IPv4 address or an IPv6 network of 64 bits, on links with whoever does not prove to be a relay of the consensus, and refuses further ones to clients whose circuits filled their queues away from the client `dos_num_circ_max_outq` times (a parameter of the consensus, 3 by default, 0 for never); `auto` follows the consensus."),
    ("DoSCircuitCreationMinConnections", "Connections below which a client is never taken for the source of a flood of circuits."),
    ("DoSCircuitCreationRate", "Circuits a second that a client may create over a long time."),
    ("DoSConnectionConnectBurst", "How many connections a client may open at once."),
    ("DoSConnectionConnectDefenseTimePeriod", "How long a client that opens too many is refused, and up to half as long again."),
    ("DoSConnectionConnectRate", "Connections a second that a client may open over a long time."),
    ("DoSConnectionDefenseType", "1 only counts what would be refused, 2 closes connections before their TLS handshake."),
    ("DoSConnectionEnabled", "Limits the connections of each client, from the moment they are accepted, those of relays too; up to 262,144 clients are known at a time; `auto` follows the consensus."),
    ("DoSConnectionMaxConcurrentCount", "With more connections than so many, a client gets no further one."),
    ("DoSStreamCreationBurst", "How many streams to the outside and look-ups a circuit may ask for at once."),
    ("DoSStreamCreationDefenseType", "1 only counts what would be refused, 2 refuses further ones, 3 closes the circuit."),
    ("DoSStreamCreationEnabled", "Limits the streams to the outside and look-ups of each circuit; `auto` follows the consensus."),
    ("DoSStreamCreationRate", "Streams and look-ups a second that a circuit may ask for over a long time."),
    ("EnforceDistinctSubnets", "Tests the ORPort through no relay of the same network (/16, in IPv6 /32)."),
    ("ExitPolicy", "Which destinations exit streams may go to."),
    ("ExitPolicyRejectPrivate", "Refuses private networks and the relay's own addresses first."),
    ("ExitRelay", "Whether to be an exit; `auto` means if another option asks for it."),
    ("ExtendAllowPrivateAddresses", "Extends circuits to private addresses, too."),
    ("ExtraInfoStatistics", "Publishes in the extra-info how many bytes links read and wrote on each of the last days, and what `OverloadStatistics` has there. No statistics about users are among them."),
    ("HalfClosedStreams", "Ours, for exits. Lets streams of clients that ask for it end one direction at a time, so that one side may answer after the other has said all (section 4.3 of the design of 2004). Off, because no other relay does it: one that offers it says so in its descriptor, and can be told from all others there; it learns of clients that ask for it that they are onionring with this option."),
    ("IPv6Exit", "Lets exit streams go to IPv6 destinations."),
    ("MaxAdvertisedBandwidth", "The most bandwidth to publish, at least 38400 bytes."),
    ("MaxMemInQueues", "Memory for what is queued; by default 3/4 of the memory, or 2/5 of it from 8 GB on, at most 8 GB."),
    ("MyFamily", "Other relays of the same operator."),
    ("NumCPUs", "Number of shards; 0 means one for each core. If there are as many as cores that the process may use (`CPUAffinity=` in a systemd unit), each stays on one; otherwise the system places them."),
    ("ORPort", "A port for links, with `NoListen`, `NoAdvertise`, `IPv4Only` and `IPv6Only`."),
    ("OutboundBindAddress", "Where outgoing connections come from, once for IPv4 and once for IPv6."),
    ("OutboundBindAddressExit", "The same for exit streams and their name lookups."),
    ("OutboundBindAddressOR", "The same for links."),
    ("OverloadStatistics", "Tells the directory authorities when the relay was overloaded last. In the descriptor for 3 days: memory for queues or local ports were used up, or too many circuit handshakes dropped. In the extra-info: `BandwidthRate` (for a day) or file descriptors (for 3 days) were used up."),
    ("PerConnBWBurst", "The burst of `PerConnBWRate`; 0 follows the consensus, or `BandwidthBurst` if that says nothing."),
    ("PerConnBWRate", "The same as `BandwidthRate` for each link with a peer that is no relay of the consensus; 0 follows the consensus, or `BandwidthRate` if that says nothing."),
    ("PublishServerDescriptor", "Whether to publish the relay: `1` or `v3`, or `0`."),
    ("ReducedExitPolicy", "Ends the exit policy with few accepted ports."),
    ("RefuseUnknownExits", "Refuses exit streams of clients that come directly; `auto` follows the consensus."),
    ("RelayBandwidthBurst", "The burst of `RelayBandwidthRate`, by default the same."),
    ("RelayBandwidthRate", "The same as `BandwidthRate` for links and the DirPort alone, at least 75 KB; 0 means no limit but that one."),
    ("ServerDNSAllowBrokenConfig", "Lets an exit start if that file cannot be read (the resolver at 127.0.0.1 is asked then) or has bad lines (they are skipped), with a warning; 0 refuses."),
    ("ServerDNSAllowNonRFC953Hostnames", "Looks up names with unusual characters, too."),
    ("ServerDNSRandomizeCase", "Mixes the case of names in DNS queries, which makes forged answers harder."),
    ("ServerDNSResolvConfFile", "The resolvers of an exit; `/etc/resolv.conf` by default."),
    ("ServerDNSSearchDomains", "Completes names with the search list of that file."),
    ("ShutdownWaitLength", "How long the relay goes on serving its circuits after SIGINT."),
];

#[rustfmt::skip]
const GROUPS: &[Group] = &[
    Group { class: Class::Missing, text: "There is no control port: controllers such as nyx cannot connect.", names: shared::CONTROL_PORT },
    Group { class: Class::NoEffect, text: "For clients: this program is a relay only.", names: shared::CLIENTS },
    Group { class: Class::NoEffect, text: "For directory authorities only.", names: shared::AUTHORITIES },
    Group { class: Class::NoEffect, text: "Belongs to bridges or pluggable transports, which other options would have to turn on.", names: shared::BRIDGES },
    Group { class: Class::NoEffect, text: "Belongs to onion services, which `HiddenServiceDir` would have to turn on.", names: shared::ONION_SERVICES },
    Group { class: Class::NoEffect, text: "Belongs to accounting, which `AccountingMax` would have to turn on.", names: shared::ACCOUNTING },
    Group { class: Class::NoEffect, text: "Belongs to proxies, which another option would have to turn on.", names: shared::PROXIES },
    Group { class: Class::NoEffect, text: "No statistics about users are kept or published.", names: shared::STATISTICS },
    Group {
        class: Class::NoEffect,
        text: "Belongs to rendezvous points; this program is none yet.",
        names: &["DoSRefuseSingleHopClientRendezvous"],
    },
    Group {
        class: Class::NoEffect,
        text: "Tunes a mechanism of C tor that is built differently here.",
        names: &[
            "AccelDir", "AccelName", "AvoidDiskWrites", "ConfluxEnabled", "ConnLimit",
            "DisableOOSCheck", "FetchDirInfoEarly", "FetchDirInfoExtraEarly", "HardwareAccel", "KISTSchedRunInterval",
            "KISTSockBufSizeFactor", "MaxConsensusAgeForDiffs", "MaxOnionQueueDelay", "MaxUnparseableDescSizeToLog",
            "ProtocolWarnings", "Schedulers", "ServerDNSDetectHijacking", "ServerDNSTestAddresses",
            "TestingDirConnectionMaxStall", "TestingServerConsensusDownloadInitialDelay",
            "TestingServerDownloadInitialDelay", "TokenBucketRefillInterval",
        ],
    },
    Group {
        class: Class::NoEffect,
        text: "This program never starts another one, and leaves debuggers to the system's own protection.",
        names: &["DisableDebuggerAttachment", "NoExec"],
    },
    Group {
        class: Class::Unsupported,
        text: "the relay cannot hibernate: remove it, or stay with C tor where traffic is paid for by volume",
        names: &["AccountingMax"],
    },
    Group {
        class: Class::Unsupported,
        text: "this program is a public relay only: remove it, and run a stock tor for this role",
        names: &[
            "AuthoritativeDirectory", "BridgeAuthoritativeDir", "BridgeRelay", "ClientOnly", "ExtORPort",
            "HiddenServiceDir", "ServerTransportPlugin", "V3AuthoritativeDirectory", "VersioningAuthoritativeDirectory",
            "__ExtORPort",
        ],
    },
    Group {
        class: Class::Unsupported,
        text: "a relay must be able to connect to every other: remove it",
        names: &[
            "ClientUseIPv4", "DisableNetwork", "FascistFirewall", "FirewallPorts", "HTTPSProxy", "ReachableAddresses",
            "ReachableDirAddresses", "ReachableORAddresses", "Socks4Proxy", "Socks5Proxy", "TCPProxy", "UseBridges",
        ],
    },
    Group {
        class: Class::Unsupported,
        text: "relays must leave padding as it is, or they stand out: remove it",
        names: &["CircuitPadding", "ConnectionPadding", "ReducedCircuitPadding", "ReducedConnectionPadding"],
    },
    Group {
        class: Class::Unsupported,
        text: "run it in the foreground under systemd or another supervisor: remove it, or add `--RunAsDaemon 0`",
        names: &["RunAsDaemon"],
    },
    Group {
        class: Class::Unsupported,
        text: "use what systemd offers (SystemCallFilter, ProtectSystem, MemorySwapMax) instead: remove it",
        names: &["DisableAllSwap", "Sandbox"],
    },
    Group {
        class: Class::Unsupported,
        text: "family keys are not there yet: use `MyFamily`",
        names: &["FamilyId", "FamilyKeyDirectory"],
    },
    Group {
        class: Class::Unsupported,
        text: "list what the exit should refuse in `ExitPolicy` instead",
        names: &["ExitPolicyRejectLocalInterfaces", "ReevaluateExitPolicy"],
    },
    Group {
        class: Class::Unsupported,
        text: "the directory of a relay is fetched and served whole: remove it",
        names: &["DirPolicy", "DownloadExtraInfo", "FetchServerDescriptors", "FetchUselessDescriptors"],
    },
    Group {
        class: Class::Unsupported,
        text: "there is one value for all: remove it",
        names: &[
            "CircuitPriorityHalflife", "ConstrainedSockets", "ConstrainedSockSize", "KeepalivePeriod", "SSLKeyLifetime",
            "TestingAuthKeyLifetime", "TestingAuthKeySlop", "TestingLinkCertLifetime", "TestingLinkKeySlop", "__SbwsExit",
        ],
    },
    Group { class: Class::Unsupported, text: "there is no controller: remove it, and use signals", names: shared::CONTROLLER },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_exactly_one_class() {
        assert_eq!(CLASSES.faults(), [""; 0]);
    }

    #[test]
    fn the_documentation_says_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/options.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == document(),
            "docs/options.md is out of date: run UPDATE_DOCS=1 cargo test -p onionring-relay classes"
        );
    }
}
