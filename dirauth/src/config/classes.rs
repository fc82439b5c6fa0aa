//! What this program makes of each option.
//!
//! Every option is in exactly one class, with one line for the operator. `docs/options-dirauth.md` is made from this
//! table.

use onionring_node::config::{Class, Classes, Group, shared};

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
# Options of onionring-dirauth

The configuration is a `torrc` in C tor's syntax. Every option of C tor 0.4.9, and every one that is ours, is in one of
these classes:

- **Supported**: it works as in C tor, if C tor has it.
- **Without effect**: it is accepted and does nothing here, so that one file serves a stock node and this one. The
  authority names these options once when it starts.
- **Accepted with a warning**: it does nothing either, but something may be waiting for what it does in C tor.
- **Not supported**: any other value than the default would change what the authority does, so it is an error that names
  the file and the line. `--allow-unsupported` turns these errors into warnings, at your own risk.

A running authority reads its configuration again on SIGHUP. Options that cannot change then are named in the log, and
count after a restart.

C tor has no `AuthDirCompareVotes`, `AuthDirDoubleVotes`, `AuthDirListApprovedOnly`, `AuthDirTapKey` and
`AuthDirTestCircuits`, and refuses a torrc with them; it is as if they were always 0, `alert`, 0, `required` and 0.

This page is made from the table in `dirauth/src/config/classes.rs`; a test holds the two equal.
";

/// Options that work and are not the same in all relays, with what they do.
#[rustfmt::skip]
const SUPPORTED: &[(&str, &str)] = &[
    ("Address", "The IPv4 address to publish, that of the `DirAuthority` line, and perhaps an IPv6 address; names are not resolved. May be left out if an ORPort names it."),
    ("AuthDirBadExit", "Networks in which relays are voted BadExit."),
    ("AuthDirCompareVotes", "Asks every authority for all votes, in each period, so that an authority that votes twice is found out; 0 asks for missing ones alone."),
    ("AuthDirDoubleVotes", "What becomes of an authority that signs two votes for one consensus: `alert` tells the operator and the other authorities, keeps both as evidence and counts what stock authorities count; `exclude` counts none of its votes, which only makes sense if most authorities do so; `stop` signs no consensus of that period."),
    ("AuthDirFastGuarantee", "With so much bandwidth a relay is Fast, whatever the others have."),
    ("AuthDirGuardBWGuarantee", "With so much bandwidth a relay is fast enough for a guard, whatever the others have."),
    ("AuthDirHasIPv6Connectivity", "Relays' IPv6 ORPorts are tested, too, and count."),
    ("AuthDirInvalid", "Networks in which relays are not voted Valid."),
    ("AuthDirListApprovedOnly", "Lists only relays that were approved (`onionring-dirauth approve`); all others wait (`onionring-dirauth pending`)."),
    ("AuthDirListBadExits", "Has an opinion about BadExit at all."),
    ("AuthDirListMiddleOnly", "Has an opinion about MiddleOnly at all."),
    ("AuthDirMaxServersPerAddr", "Lists at most so many relays with one address; 0 for any number."),
    ("AuthDirMiddleOnly", "Networks in which relays are voted MiddleOnly."),
    ("AuthDirPinKeys", "Refuses a relay that comes back with only one of its two identities; the pairs are in `key-pinning-journal`."),
    ("AuthDirReject", "Networks in which relays are refused."),
    ("AuthDirSharedRandomness", "Takes part in the protocol for shared randomness."),
    ("AuthDirTapKey", "The TAP key in descriptors, which nobody uses any more: `required` refuses those without one as C tor 0.4.9.11 does, `optional` takes both, `refused` refuses those with one."),
    ("AuthDirTestCircuits", "Tests relays through a circuit as well, and not by their links alone."),
    ("AuthDirTestEd25519LinkKeys", "Tests the Ed25519 identity of relays, too."),
    ("AuthDirTestReachability", "Tests whether relays can be reached; 0 takes all for running."),
    ("AuthDirVoteGuard", "Relays that are voted Guard whatever their bandwidth and age."),
    ("AuthDirVoteGuardBwThresholdFraction", "The share of relays that is too slow for a guard, from 0 to 1."),
    ("AuthDirVoteGuardGuaranteeTimeKnown", "Known for so long, a relay is known for long enough for a guard."),
    ("AuthDirVoteGuardGuaranteeWFU", "With so much weighted uptime, a relay is up enough for a guard."),
    ("AuthDirVoteStableGuaranteeMinUptime", "Up for so long, a relay is Stable."),
    ("AuthDirVoteStableGuaranteeMTBF", "With so long between failures, a relay is Stable."),
    ("AuthoritativeDirectory", "Must be 1."),
    ("ConsensusParams", "The parameters to vote for, `name=number` each."),
    ("DirAllowPrivateAddresses", "Takes relays with private addresses."),
    ("DirPort", "A port for plain directory requests; one is needed."),
    ("MinimalAcceptedServerVersion", "Refuses relays of Tor versions before this one."),
    ("MinMeasuredBWsForAuthToIgnoreAdvertised", "With so many measured relays, what relays say of their bandwidth does not count for flags."),
    ("MinUptimeHidServDirectoryV2", "Up for so long, a relay may be an HSDir."),
    ("ORPort", "A port for links, with `NoListen`, `NoAdvertise`, `IPv4Only` and `IPv6Only`; an authority answers directory requests on it."),
    ("RecommendedClientVersions", "Versions to recommend to clients, with `VersioningAuthoritativeDirectory`."),
    ("RecommendedServerVersions", "Versions to recommend to relays, with `VersioningAuthoritativeDirectory`."),
    ("RecommendedVersions", "Either, where it has no list of its own."),
    ("TestingAuthDirTimeToLearnReachability", "How long after the start all relays are taken for running."),
    ("TestingDirAuthVoteExit", "Relays of a testing network that are voted Exit whatever their policy."),
    ("TestingDirAuthVoteExitIsStrict", "No others are."),
    ("TestingDirAuthVoteGuard", "Relays of a testing network that are voted Guard whatever their history."),
    ("TestingDirAuthVoteGuardIsStrict", "No others are."),
    ("TestingDirAuthVoteHSDir", "Relays of a testing network that are voted HSDir whatever their uptime."),
    ("TestingDirAuthVoteHSDirIsStrict", "No others are."),
    ("TestingMinExitFlagThreshold", "The least bandwidth of relays that count for the limits of flags, in a testing network."),
    ("TestingMinFastFlagThreshold", "The least bandwidth of a Fast relay, in a testing network."),
    ("TestingV3AuthInitialDistDelay", "`V3AuthDistDelay` until there is a consensus, in a testing network."),
    ("TestingV3AuthInitialVoteDelay", "`V3AuthVoteDelay` until there is a consensus, in a testing network."),
    ("TestingV3AuthInitialVotingInterval", "`V3AuthVotingInterval` until there is a consensus, in a testing network."),
    ("TestingV3AuthVotingStartOffset", "Added to the times at which consensuses begin, in a testing network."),
    ("V3AuthDistDelay", "How long authorities take to exchange signatures."),
    ("V3AuthNIntervalsValid", "For how many intervals a consensus is valid, at least 2."),
    ("V3AuthoritativeDirectory", "Must be 1."),
    ("V3AuthVoteDelay", "How long authorities take to exchange votes."),
    ("V3AuthVotingInterval", "From one consensus to the next."),
    ("V3BandwidthsFile", "What a bandwidth scanner measured, read again for each vote."),
    ("VersioningAuthoritativeDirectory", "Recommends versions of Tor."),
];

/// Options that count at once when the configuration is read again. Every other one counts when the authority starts;
/// [`super::Config::reloaded`] is the other side of this list.
#[rustfmt::skip]
const RELOADABLE: &[&str] = &[
    "AuthDirBadExit", "AuthDirCompareVotes", "AuthDirDoubleVotes", "AuthDirFastGuarantee", "AuthDirGuardBWGuarantee",
    "AuthDirInvalid", "AuthDirListApprovedOnly", "AuthDirListBadExits",
    "AuthDirListMiddleOnly", "AuthDirMaxServersPerAddr", "AuthDirMiddleOnly", "AuthDirPinKeys", "AuthDirReject",
    "AuthDirTapKey", 
    "AuthDirVoteGuard", "AuthDirVoteGuardBwThresholdFraction", "AuthDirVoteGuardGuaranteeTimeKnown",
    "AuthDirVoteGuardGuaranteeWFU", "AuthDirVoteStableGuaranteeMinUptime", "AuthDirVoteStableGuaranteeMTBF",
    "ConsensusParams", "ContactInfo", "DirAllowPrivateAddresses", "DirPortFrontPage", "HeartbeatPeriod", "Log",
    "LogMessageDomains", "LogTimeGranularity", "MetricsPortPolicy", "MinimalAcceptedServerVersion",
    "MinMeasuredBWsForAuthToIgnoreAdvertised", "MinUptimeHidServDirectoryV2", 
    "RecommendedClientVersions", "RecommendedServerVersions", "RecommendedVersions", "SafeLogging",
    "SyslogIdentityTag", "TestingDirAuthVoteExit", "TestingDirAuthVoteExitIsStrict", "TestingDirAuthVoteGuard",
    "TestingDirAuthVoteGuardIsStrict", "TestingDirAuthVoteHSDir", "TestingDirAuthVoteHSDirIsStrict",
    "TestingAuthDirTimeToLearnReachability", "TestingMinExitFlagThreshold", "TestingMinFastFlagThreshold",
    "TruncateLogFile", "V3BandwidthsFile",
    "VersioningAuthoritativeDirectory",
];

#[rustfmt::skip]
const GROUPS: &[Group] = &[
    Group { class: Class::Missing, text: "There is no control port: controllers such as nyx cannot connect.", names: shared::CONTROL_PORT },
    Group {
        class: Class::Missing,
        text: "Bandwidth is not limited: an authority needs little.",
        names: &[
            "AuthDirRejectRequestsUnderLoad", "BandwidthBurst", "BandwidthRate", "CountPrivateBandwidth", "PerConnBWBurst", "PerConnBWRate",
            "RelayBandwidthBurst", "RelayBandwidthRate",
        ],
    },
    Group {
        class: Class::Missing,
        text: "Floods are not refused by the consensus' rules for relays: connections are limited in number, for each address and in all.",
        names: &[
            "DoSCircuitCreationBurst", "DoSCircuitCreationDefenseTimePeriod", "DoSCircuitCreationDefenseType",
            "DoSCircuitCreationEnabled", "DoSCircuitCreationMinConnections", "DoSCircuitCreationRate",
            "DoSConnectionConnectBurst", "DoSConnectionConnectDefenseTimePeriod", "DoSConnectionConnectRate",
            "DoSConnectionDefenseType", "DoSConnectionEnabled", "DoSConnectionMaxConcurrentCount",
            "DoSStreamCreationBurst", "DoSStreamCreationDefenseType", "DoSStreamCreationEnabled",
            "DoSStreamCreationRate",
        ],
    },
    Group { class: Class::NoEffect, text: "For clients: this program is a directory authority only.", names: shared::CLIENTS },
    Group { class: Class::NoEffect, text: "Belongs to bridges or pluggable transports, which other options would have to turn on.", names: shared::BRIDGES },
    Group { class: Class::NoEffect, text: "Belongs to onion services, which `HiddenServiceDir` would have to turn on.", names: shared::ONION_SERVICES },
    Group { class: Class::NoEffect, text: "Belongs to accounting, which `AccountingMax` would have to turn on.", names: shared::ACCOUNTING },
    Group { class: Class::NoEffect, text: "Belongs to proxies, which another option would have to turn on.", names: shared::PROXIES },
    Group { class: Class::NoEffect, text: "No statistics about users are kept or published.", names: shared::STATISTICS },
    Group {
        class: Class::NoEffect,
        text: "An authority carries no traffic of others: on its ORPort it answers directory requests alone.",
        names: &[
            "CircuitPadding", "ConnectionPadding", "DoSRefuseSingleHopClientRendezvous", "EnforceDistinctSubnets",
            "ExitPolicy", "ExitPolicyRejectLocalInterfaces", "ExitPolicyRejectPrivate", "ExitRelay",
            "ExtendAllowPrivateAddresses", "ExtraInfoStatistics", "HalfClosedStreams", "IPv6Exit", "MaxAdvertisedBandwidth",
            "MaxMemInQueues", "MyFamily", "OverloadStatistics", "ReducedCircuitPadding", "ReducedConnectionPadding",
            "ReducedExitPolicy", "ReevaluateExitPolicy", "RefuseUnknownExits", "ServerDNSAllowBrokenConfig",
            "ServerDNSAllowNonRFC953Hostnames", "ServerDNSDetectHijacking", "ServerDNSRandomizeCase",
            "ServerDNSResolvConfFile", "ServerDNSSearchDomains", "ServerDNSTestAddresses", "ShutdownWaitLength",
        ],
    },
    Group {
        class: Class::NoEffect,
        text: "An authority publishes itself, serves the whole directory, and does not test itself.",
        names: &[
            "AssumeReachable", "AssumeReachableIPv6", "DirCache", "DownloadExtraInfo", "FetchDirInfoEarly",
            "FetchDirInfoExtraEarly", "FetchServerDescriptors", "FetchUselessDescriptors", "PublishServerDescriptor",
        ],
    },
    Group {
        class: Class::NoEffect,
        text: "All that an authority keeps is its own state, in `DataDirectory`.",
        names: &["CacheDirectory", "CacheDirectoryGroupReadable"],
    },
    Group {
        class: Class::NoEffect,
        text: "Tunes a mechanism of C tor that is built differently here.",
        names: &[
            "__SbwsExit", "AccelDir", "AccelName", "AvoidDiskWrites", "CircuitPriorityHalflife", "ConfluxEnabled",
            "ConnLimit", "ConstrainedSockets", "ConstrainedSockSize", "DisableOOSCheck", "HardwareAccel",
            "KeepalivePeriod", "KISTSchedRunInterval", "KISTSockBufSizeFactor", "MaxConsensusAgeForDiffs",
            "MaxOnionQueueDelay", "MaxUnparseableDescSizeToLog", "NumCPUs", "ProtocolWarnings", "RephistTrackTime",
            "Schedulers", "SSLKeyLifetime", "TestingAuthKeyLifetime", "TestingAuthKeySlop",
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
        text: "clients no longer use guard fractions: remove it",
        names: &["GuardfractionFile"],
    },
    Group {
        class: Class::Unsupported,
        text: "remove it, and let the key expire that it would replace",
        names: &["V3AuthUseLegacyKey"],
    },
    Group {
        class: Class::Unsupported,
        text: "this program knows of no countries: name networks in the option without `CCs`",
        names: &["AuthDirBadExitCCs", "AuthDirInvalidCCs", "AuthDirMiddleOnlyCCs", "AuthDirRejectCCs"],
    },
    Group {
        class: Class::Unsupported,
        text: "an authority cannot hibernate: remove it",
        names: &["AccountingMax"],
    },
    Group {
        class: Class::Unsupported,
        text: "this program is a directory authority only: remove it, and run another for this role",
        names: &[
            "__ExtORPort", "BridgeAuthoritativeDir", "BridgeRelay", "ClientOnly", "ExtORPort", "HiddenServiceDir",
            "ServerTransportPlugin",
        ],
    },
    Group {
        class: Class::Unsupported,
        text: "an authority must be able to connect to every relay, from the address that the system chooses: remove it",
        names: &[
            "ClientUseIPv4", "DisableNetwork", "FascistFirewall", "FirewallPorts", "HTTPSProxy",
            "OutboundBindAddress", "OutboundBindAddressExit", "OutboundBindAddressOR", "ReachableAddresses",
            "ReachableDirAddresses", "ReachableORAddresses", "Socks4Proxy", "Socks5Proxy", "TCPProxy", "UseBridges",
        ],
    },
    Group {
        class: Class::Unsupported,
        text: "the directory is for everybody: remove it",
        names: &["DirPolicy"],
    },
    Group {
        class: Class::Unsupported,
        text: "family keys are not there yet: remove it",
        names: &["FamilyId", "FamilyKeyDirectory"],
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
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/options-dirauth.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == document(),
            "docs/options-dirauth.md is out of date: run UPDATE_DOCS=1 cargo test -p onionring-dirauth classes"
        );
    }
}
