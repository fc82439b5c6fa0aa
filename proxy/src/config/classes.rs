//! What this program makes of each option.
//!
//! Every option is in exactly one class, with one line for the operator. `docs/options-proxy.md` is made from this
//! table.

use onionring_node::config::{Class, Classes, Group, shared};

/// The table.
pub const CLASSES: Classes =
    Classes { supported: &[shared::PROGRAM, SUPPORTED], groups: GROUPS, reloadable: RELOADABLE };

/// The page of documentation about all options.
pub fn document() -> String {
    CLASSES.document(HEAD)
}

const HEAD: &str = "\
# Options of onionring-proxy

The configuration is a `torrc` in C tor's syntax. Every option of C tor 0.4.9, and every one that is ours, is in one of
these classes:

- **Supported**: it works as in C tor, if C tor has it.
- **Without effect**: it is accepted and does nothing here, so that one file serves a stock client and this one. The
  proxy names these options once when it starts.
- **Accepted with a warning**: it does nothing either, but something may be waiting for what it does in C tor.
- **Not supported**: any other value than the default would change what the proxy does, so it is an error that names
  the file and the line. `--allow-unsupported` turns these errors into warnings, at your own risk.

A running proxy reads its configuration again on SIGHUP. Options that cannot change then are named in the log, and
count after a restart.

C tor has no `CircuitLength`, `HalfClosedStreams`, `LeakyPipe` and `TruncateCircuits`, and refuses a torrc with them. What
they do no deployed client does; who sets them looks different from all others to the relays of a circuit.
`NewCircuitPeriod`, too, is the design's where it is not set: a minute.

This page is made from the table in `proxy/src/config/classes.rs`; a test holds the two equal.
";

/// Options that work and are not the same in all programs, with what they do.
#[rustfmt::skip]
const SUPPORTED: &[(&str, &str)] = &[
    ("__DisablePredictedCircuits", "Builds no circuit before somebody asks for one."),
    ("__DNSPort", "The same as `DNSPort`."),
    ("__HTTPTunnelPort", "The same as `HTTPTunnelPort`."),
    ("__SocksPort", "The same as `SocksPort`."),
    ("__TransPort", "The same as `TransPort`."),
    ("CacheDirectory", "Where the directory is kept; `DataDirectory` by default."),
    ("CacheDirectoryGroupReadable", "Lets the group read that directory; `auto` follows `DataDirectoryGroupReadable` if the two directories are one."),
    ("CircuitBuildTimeout", "How long a circuit may take to be built: at first if it is learned, otherwise always; 0 for what the consensus says, or a minute."),
    ("CircuitsAvailableTimeout", "How long a circuit that nobody uses is kept, up to twice that, at most a day; 0 for half an hour. Less while little is known of how long circuits take."),
    ("CircuitLength", "Ours. Relays on a path, from 3 to 8; more make it slower, and hardly safer."),
    ("CircuitStreamTimeout", "How long a stream waits for its exit before another circuit is tried, at least 10 seconds; 0 for 10, 10 and then 15 seconds."),
    ("ClientBootstrapConsensusAuthorityDownloadInitialDelay", "With `FallbackDir`: how long after the start the first authority is asked for a consensus."),
    ("ClientBootstrapConsensusAuthorityOnlyDownloadInitialDelay", "The same without `FallbackDir`."),
    ("ClientBootstrapConsensusFallbackDownloadInitialDelay", "How long after the start the first `FallbackDir` is asked for a consensus."),
    ("ClientBootstrapConsensusMaxInProgressTries", "How many servers are asked for the first consensus at the same time."),
    ("ClientDNSRejectInternalAddresses", "Refuses answers of exits that name an address of a private network."),
    ("ClientPreferIPv6ORPort", "Dials relays that have both over IPv6."),
    ("ClientRejectInternalAddresses", "Refuses streams to addresses of private networks, which mean something else at an exit."),
    ("ClientUseIPv4", "Dials relays over IPv4."),
    ("ClientUseIPv6", "Dials relays over IPv6."),
    ("DNSPort", "A UDP port that answers questions for A, AAAA and PTR records through the network, with isolation flags."),
    ("EnforceDistinctSubnets", "Puts no two relays of one IPv4 /16 or IPv6 /32 on one path."),
    ("EntryNodes", "Guards are chosen among these relays only. Several lines add up; countries are not known here."),
    ("ExcludeExitNodes", "These relays let no streams out. Several lines add up; countries are not known here."),
    ("ExcludeNodes", "These relays are on no path. Several lines add up; countries are not known here."),
    ("ExitNodes", "Only these relays let streams out. Several lines add up; countries are not known here."),
    ("FallbackDir", "A directory cache to ask for the first consensus, one line each; none is built in."),
    ("FetchDirInfoEarly", "Asks authorities and fallbacks for the directory even when relays could be asked; not earlier than without it."),
    ("GuardLifetime", "How long a guard is kept; less than a day for what the consensus says."),
    ("HalfClosedStreams", "Ours. Asks exits that offer it (`HalfClosedStreams` in their torrc) to end streams one direction at a time: an application that ends what it sends is heard to do so, and gets the answer all the same, and one goes on sending to a server that has ended its answer (section 4.3 of the design of 2004). Off, because no other client does it: the exit, and by the length of the request the relay before it, learn that they have to do with one of few."),
    ("HTTPTunnelPort", "A port for HTTP CONNECT, with isolation flags."),
    ("LeakyPipe", "Ours. Lets streams leave at any relay of a circuit whose policy allows, rather than at its last (leaky pipe, section 4 of the design of 2004)."),
    ("LearnCircuitBuildTimeout", "Learns how long circuits take to be built here, and gives up those that take much longer."),
    ("LongLivedPorts", "Ports of long sessions, whose circuits are of stable relays."),
    ("MaxCircuitDirtiness", "How long after its first stream a circuit takes new ones, at least 10 seconds."),
    ("MaxClientCircuitsPending", "How many circuits are being built for streams at the same time."),
    ("MiddleNodes", "Between first and last hop are only these relays. Several lines add up; countries are not known here."),
    ("NewCircuitPeriod", "How often it is considered whether circuits are needed before anybody asks for one; 60 seconds here if it is not set, as in the design of 2004."),
    ("NodeFamily", "Relays that are not together on a path, one set on each line."),
    ("NumCPUs", "Threads that carry traffic; 0 for one, which takes the least CPU time for each byte and has carried over 100 MiB/s. What takes long has threads of its own either way."),
    ("NumDirectoryGuards", "Guards in use for directory requests; 0 for what the consensus says."),
    ("NumEntryGuards", "Guards in use for circuits; 0 for what the consensus says."),
    ("NumPrimaryGuards", "Guards that are tried before all others; 0 for what the consensus says."),
    ("PathBiasCircThreshold", "Circuits through a guard before it is judged by how many fail; less than 5 for what the consensus says, 150 as a rule."),
    ("PathBiasDropGuards", "Whether a guard is not used any more that makes so many fail that `PathBiasExtremeRate` or `PathBiasExtremeUseRate` is missed; `auto` for what the consensus says."),
    ("PathBiasExtremeRate", "If less than this share of circuits does not fail, a warning is logged; less than 0 for what the consensus says, 0.3 as a rule."),
    ("PathBiasExtremeUseRate", "If less than this share of circuits carries what it was used for, a warning is logged; less than 0 for what the consensus says, 0.6 as a rule."),
    ("PathBiasNoticeRate", "If less than this share of circuits does not fail, that is logged; less than 0 for what the consensus says, 0.7 as a rule."),
    ("PathBiasNoticeUseRate", "If less than this share of circuits carries what it was used for, that is logged; less than 0 for what the consensus says, 0.8 as a rule."),
    ("PathBiasScaleThreshold", "Circuits through a guard from which on old ones count half; less than 10 for what the consensus says, 300 as a rule."),
    ("PathBiasScaleUseThreshold", "The same of circuits that were used; less than 10 for what the consensus says, 100 as a rule."),
    ("PathBiasUseThreshold", "Circuits through a guard that were used before it is judged by how many carry nothing; less than 3 for what the consensus says, 20 as a rule."),
    ("PathBiasWarnRate", "If less than this share of circuits does not fail, a milder warning is logged; less than 0 for what the consensus says, 0.5 as a rule."),
    ("PathsNeededToBuildCircuits", "The share of paths that must be known before circuits are built, from 0.25 to 0.95; less than 0 for what the consensus says."),
    ("RejectPlaintextPorts", "Refuses streams to these ports, on which passwords go in the clear."),
    ("SafeSocks", "Refuses SOCKS requests for an address, which an application has looked up itself, perhaps where others can see it."),
    ("SocksPolicy", "Which applications may use the ports; all who are not named may."),
    ("SocksPort", "A port for SOCKS 4, 4a and 5, also a Unix socket (`unix:PATH`), with isolation flags; 9050 on loopback if there is no line."),
    ("SocksTimeout", "How long an application may take to ask, and its stream to be opened."),
    ("StrictNodes", "Asks relays of `ExcludeNodes` not even for the directory when no other is left."),
    ("TestSocks", "Logs every SOCKS request with whether it leaks lookups."),
    ("TransPort", "A port for connections that the system redirects, on Linux, with isolation flags."),
    ("TransProxyType", "How they come: `default` for REDIRECT, or `TPROXY`."),
    ("TruncateCircuits", "Ours. Cuts an old circuit and extends it to a new exit (truncate, section 4.2 of the design of 2004), rather than building one anew."),
    ("UnixSocksGroupWritable", "Lets the group write to Unix sockets of `SocksPort`."),
    ("UseEntryGuards", "Begins circuits at a few relays that are kept for long; 0 is for tests."),
    ("WarnPlaintextPorts", "Warns of streams to these ports, on which passwords go in the clear."),
];

/// Options that count at once when the configuration is read again. Every other one counts when the proxy starts;
/// [`super::Config::reloaded`] is the other side of this list.
#[rustfmt::skip]
const RELOADABLE: &[&str] = &[
    "__DisablePredictedCircuits", "CircuitBuildTimeout", "CircuitLength", "CircuitsAvailableTimeout", "CircuitStreamTimeout",
    "ClientDNSRejectInternalAddresses", "ClientRejectInternalAddresses", "EnforceDistinctSubnets", "EntryNodes", "ExcludeExitNodes", "ExcludeNodes", "ExitNodes",
    "GuardLifetime", "HalfClosedStreams", "HeartbeatPeriod", "LeakyPipe", "LearnCircuitBuildTimeout", "Log",
    "LogMessageDomains", "LogTimeGranularity", "LongLivedPorts", "MaxCircuitDirtiness", "MaxClientCircuitsPending",
    "MetricsPortPolicy", "MiddleNodes", "NewCircuitPeriod", "NodeFamily", "NumDirectoryGuards", "NumEntryGuards",
    "NumPrimaryGuards", "PathBiasCircThreshold", "PathBiasDropGuards", "PathBiasExtremeRate", "PathBiasExtremeUseRate",
    "PathBiasNoticeRate", "PathBiasNoticeUseRate", "PathBiasScaleThreshold", "PathBiasScaleUseThreshold",
    "PathBiasUseThreshold", "PathBiasWarnRate", "PathsNeededToBuildCircuits", "RejectPlaintextPorts", "SafeLogging", "SafeSocks", "SocksPolicy",
    "SocksTimeout", "StrictNodes", "SyslogIdentityTag", "TestSocks", "TruncateCircuits", "TruncateLogFile",
    "WarnPlaintextPorts",
];

#[rustfmt::skip]
const GROUPS: &[Group] = &[
    Group {
        class: Class::Missing,
        text: "Bandwidth is not limited.",
        names: &["BandwidthBurst", "BandwidthRate", "CountPrivateBandwidth", "PerConnBWBurst", "PerConnBWRate"],
    },
    Group {
        class: Class::Missing,
        text: "No padding is sent.",
        names: &["CircuitPadding", "ConnectionPadding", "ReducedCircuitPadding", "ReducedConnectionPadding"],
    },
    Group { class: Class::NoEffect, text: "For directory authorities only.", names: shared::AUTHORITIES },
    Group { class: Class::NoEffect, text: "Belongs to bridges or pluggable transports, which other options would have to turn on.", names: shared::BRIDGES },
    Group { class: Class::NoEffect, text: "Belongs to onion services, which `HiddenServiceDir` would have to turn on.", names: shared::ONION_SERVICES },
    Group { class: Class::NoEffect, text: "Belongs to accounting, which `AccountingMax` would have to turn on.", names: shared::ACCOUNTING },
    Group { class: Class::NoEffect, text: "Belongs to proxies, which another option would have to turn on.", names: shared::PROXIES },
    Group { class: Class::NoEffect, text: "No statistics about users are kept or published.", names: shared::STATISTICS },
    Group {
        class: Class::NoEffect,
        text: "Onion services are not reached through this proxy yet.",
        names: &["FetchHidServDescriptors", "HSLayer2Nodes", "HSLayer3Nodes", "VanguardsLiteEnabled"],
    },
    Group {
        class: Class::NoEffect,
        text: "Belongs to virtual addresses, which another option would have to turn on.",
        names: &["AutomapHostsSuffixes", "TrackHostExitsExpire", "VirtualAddrNetworkIPv4", "VirtualAddrNetworkIPv6"],
    },
    Group {
        class: Class::NoEffect,
        text: "This program never goes to sleep: without streams it builds few circuits and fetches little.",
        names: &[
            "DormantCanceledByStartup", "DormantClientTimeout", "DormantOnFirstStartup",
            "DormantTimeoutDisabledByIdleStreams", "DormantTimeoutEnabled",
        ],
    },
    Group {
        class: Class::NoEffect,
        text: "A client fetches the consensus and microdescriptors, when it is time, and nothing else; what circuits need is in them.",
        names: &[
            "ClientOnly", "ClientPreferIPv6DirPort", "DirAuthorityFallbackRate", "DownloadExtraInfo", "ExtendByEd25519ID",
            "FetchDirInfoExtraEarly", "FetchServerDescriptors", "FetchUselessDescriptors",
            "TestingClientConsensusDownloadInitialDelay", "TestingClientDownloadInitialDelay",
            "TestingClientMaxIntervalWithoutRequest", "UseDefaultFallbackDirs", "UseGuardFraction",
            "UseMicrodescriptors",
        ],
    },
    Group {
        class: Class::NoEffect,
        text: "For relays: a client has no keys, carries nobody else's traffic, and publishes nothing.",
        names: &[
            "Address", "AddressDisableIPv6", "AssumeReachable", "AssumeReachableIPv6", "ContactInfo", "DirCache",
            "DirPolicy", "DirPortFrontPage", "DoSCircuitCreationBurst", "DoSCircuitCreationDefenseTimePeriod",
            "DoSCircuitCreationDefenseType", "DoSCircuitCreationEnabled", "DoSCircuitCreationMinConnections",
            "DoSCircuitCreationRate", "DoSConnectionConnectBurst", "DoSConnectionConnectDefenseTimePeriod",
            "DoSConnectionConnectRate", "DoSConnectionDefenseType", "DoSConnectionEnabled",
            "DoSConnectionMaxConcurrentCount", "DoSRefuseSingleHopClientRendezvous", "DoSStreamCreationBurst",
            "DoSStreamCreationDefenseType", "DoSStreamCreationEnabled", "DoSStreamCreationRate", "ExitPolicy",
            "ExitPolicyRejectLocalInterfaces", "ExitPolicyRejectPrivate", "ExitRelay", "ExtendAllowPrivateAddresses",
            "ExtraInfoStatistics", "FamilyId", "FamilyKeyDirectory", "IPv6Exit", "KeyDirectory",
            "KeyDirectoryGroupReadable", "MaxAdvertisedBandwidth", "MaxOnionQueueDelay", "MyFamily", "Nickname",
            "OfflineMasterKey", "OverloadStatistics", "PublishServerDescriptor", "ReducedExitPolicy",
            "ReevaluateExitPolicy", "RefuseUnknownExits", "RelayBandwidthBurst", "RelayBandwidthRate",
            "ServerDNSAllowBrokenConfig", "ServerDNSAllowNonRFC953Hostnames", "ServerDNSDetectHijacking",
            "ServerDNSRandomizeCase", "ServerDNSResolvConfFile", "ServerDNSSearchDomains", "ServerDNSTestAddresses",
            "ShutdownWaitLength", "SigningKeyLifetime", "TestingSigningKeySlop",
        ],
    },
    Group {
        class: Class::NoEffect,
        text: "Tunes a mechanism of C tor that is built differently here.",
        names: &[
            "__AlwaysCongestionControl", "__SbwsExit", "AccelDir", "AccelName", "AvoidDiskWrites",
            "CircuitPriorityHalflife", "ConfluxClientUX", "ConfluxEnabled", "ConnLimit", "ConstrainedSockets",
            "ConstrainedSockSize", "DisableOOSCheck", "HardwareAccel", "KeepalivePeriod", "KISTSchedRunInterval",
            "KISTSockBufSizeFactor", "MaxConsensusAgeForDiffs", "MaxMemInQueues", "MaxUnparseableDescSizeToLog",
            "ProtocolWarnings", "Schedulers", "SSLKeyLifetime", "TestingAuthKeyLifetime", "TestingAuthKeySlop",
            "TestingDirConnectionMaxStall", "TestingLinkCertLifetime", "TestingLinkKeySlop",
            "TestingServerConsensusDownloadInitialDelay", "TestingServerDownloadInitialDelay",
            "TokenBucketRefillInterval",
        ],
    },
    Group {
        class: Class::NoEffect,
        text: "This program never starts another one, and leaves debuggers to the system's own protection.",
        names: &["DisableDebuggerAttachment", "NoExec"],
    },
    Group {
        class: Class::Unsupported,
        text: "there is no control port: remove it, and use `onionring-proxy check` and `new-identity`, signals, and the MetricsPort",
        names: shared::CONTROL_PORT,
    },
    Group { class: Class::Unsupported, text: "there is no controller: remove it, and use signals", names: shared::CONTROLLER },
    Group {
        class: Class::Unsupported,
        text: "there is no controller that could attach streams or fetch the directory: remove it",
        names: &["__AllDirActionsPrivate", "__LeaveStreamsUnattached"],
    },
    Group {
        class: Class::Unsupported,
        text: "this program is a client only: remove it, and run onionring-relay or onionring-dirauth for this role",
        names: &[
            "__DirPort", "__ExtORPort", "__ORPort", "AuthoritativeDirectory", "BridgeAuthoritativeDir", "BridgeRelay",
            "DirPort", "ExtORPort", "ORPort", "ServerTransportPlugin", "V3AuthoritativeDirectory",
            "VersioningAuthoritativeDirectory",
        ],
    },
    Group {
        class: Class::Unsupported,
        text: "onion services are not there yet: remove it",
        names: &["ClientOnionAuthDir", "HiddenServiceDir"],
    },
    Group {
        class: Class::Unsupported,
        text: "bridges and pluggable transports are not there: remove it, or use a stock client where relays cannot be reached directly",
        names: &["Bridge", "ClientTransportPlugin", "UseBridges"],
    },
    Group {
        class: Class::Unsupported,
        text: "relays are dialed directly, wherever they are, from the address that the system chooses: remove it",
        names: &[
            "FascistFirewall", "FirewallPorts", "HTTPSProxy", "OutboundBindAddress", "OutboundBindAddressExit",
            "OutboundBindAddressOR", "ReachableAddresses", "ReachableDirAddresses", "ReachableORAddresses",
            "Socks4Proxy", "Socks5Proxy", "TCPProxy",
        ],
    },
    Group {
        class: Class::Unsupported,
        text: "names and addresses go to exits as applications write them: remove it",
        names: &["AllowNonRFC953Hostnames", "AutomapHostsOnResolve", "MapAddress", "TrackHostExits"],
    },
    Group {
        class: Class::Unsupported,
        text: "use a TransPort, which pf and iptables can redirect to: remove it",
        names: &["__NATDPort", "NATDPort"],
    },
    Group {
        class: Class::Unsupported,
        text: "stop the program instead: remove it",
        names: &["DisableNetwork"],
    },
    Group {
        class: Class::Unsupported,
        text: "a client cannot hibernate: remove it",
        names: &["AccountingMax"],
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
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/options-proxy.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == document(),
            "docs/options-proxy.md is out of date: run UPDATE_DOCS=1 cargo test -p onionring-proxy classes"
        );
    }
}
