//! Lists of options that several programs put into their classes.

/// Options that mean the same in every program, with what they do.
#[rustfmt::skip]
pub const PROGRAM: &[(&str, &str)] = &[
    ("__MetricsPort", "The same as `MetricsPort`."),
    ("AlternateDirAuthority", "The same as `DirAuthority`, used when there is no such line."),
    ("DataDirectory", "Where everything else is kept; `~/.tor` by default."),
    ("DataDirectoryGroupReadable", "Lets the group read that directory."),
    ("DirAuthority", "A directory authority, one line each. At least one is needed: none is built in."),
    ("HeartbeatPeriod", "Time between two summaries in the log; 0 for none."),
    ("KeepBindCapabilities", "Keeps the right to open ports below 1024 after the change of user; `auto` means if one is configured."),
    ("Log", "What is logged where, one line each; by default `notice stdout`, with `--hush` `warn stdout`, with `--quiet` `err stdout`."),
    ("LogMessageDomains", "Writes the domain before each message."),
    ("LogTimeGranularity", "Rounds the times in the log."),
    ("MetricsPort", "A port for Prometheus and browsers. `/` is a page for people, `/metrics` has this program's names (`onionring_*`), and of a relay `/metrics/tor` has those of C tor (`tor_relay_*`)."),
    ("MetricsPortPolicy", "Who may connect to it; nobody by default."),
    ("PidFile", "A file for the number of the process."),
    ("SafeLogging", "Keeps addresses out of the log; `relay` is taken as `1`."),
    ("SyslogIdentityTag", "Added to the program's name in the system log."),
    ("TestingTorNetwork", "A private network for tests, with other defaults for many options."),
    ("TruncateLogFile", "Empties log files at the start."),
    ("User", "The user to become after the start as root."),
];

/// Those that mean the same in every program that is a relay.
#[rustfmt::skip]
pub const RELAY: &[(&str, &str)] = &[
    ("__DirPort", "The same as `DirPort`."),
    ("__ORPort", "The same as `ORPort`."),
    ("AddressDisableIPv6", "Opens and publishes no IPv6 ORPort."),
    ("ContactInfo", "How to reach the operator, in the descriptor."),
    ("DirPortFrontPage", "A file with the HTML page that people see who open the DirPort in a browser."),
    ("KeyDirectory", "Where keys are kept; `DataDirectory/keys` by default."),
    ("KeyDirectoryGroupReadable", "Lets the group read that directory; `auto` follows `DataDirectoryGroupReadable` if the two directories are one."),
    ("Nickname", "The relay's name, 1 to 19 letters and digits."),
    ("OfflineMasterKey", "Never makes or reads the secret Ed25519 master key."),
    ("SigningKeyLifetime", "Life of an Ed25519 signing key, at least twice `TestingSigningKeySlop`."),
    ("TestingSigningKeySlop", "How long before its end a signing key is replaced."),
];

/// Those of the control port.
#[rustfmt::skip]
pub const CONTROL_PORT: &[&str] = &[
    "__ControlPort", "__HashedControlSessionPassword", "ControlPort", "ControlPortFileGroupReadable",
    "ControlPortWriteToFile", "ControlSocket", "ControlSocketsGroupWritable", "CookieAuthentication",
    "CookieAuthFile", "CookieAuthFileGroupReadable", "HashedControlPassword",
];

/// Those of clients.
#[rustfmt::skip]
pub const CLIENTS: &[&str] = &[
    "__AllDirActionsPrivate", "__AlwaysCongestionControl", "__DisablePredictedCircuits", "__DNSPort",
    "__HTTPTunnelPort", "__LeaveStreamsUnattached", "__NATDPort", "__SocksPort", "__TransPort",
    "AllowNonRFC953Hostnames", "AutomapHostsOnResolve", "AutomapHostsSuffixes", "Bridge", "CircuitBuildTimeout",
    "CircuitsAvailableTimeout", "CircuitStreamTimeout", "ClientBootstrapConsensusAuthorityDownloadInitialDelay",
    "ClientBootstrapConsensusAuthorityOnlyDownloadInitialDelay",
    "ClientBootstrapConsensusFallbackDownloadInitialDelay", "ClientBootstrapConsensusMaxInProgressTries",
    "ClientDNSRejectInternalAddresses", "ClientOnionAuthDir", "ClientPreferIPv6DirPort", "ClientPreferIPv6ORPort",
    "ClientRejectInternalAddresses", "ClientTransportPlugin", "ClientUseIPv6", "ConfluxClientUX",
    "DirAuthorityFallbackRate", "DNSPort", "DormantCanceledByStartup", "DormantClientTimeout",
    "DormantOnFirstStartup", "DormantTimeoutDisabledByIdleStreams", "DormantTimeoutEnabled", "EntryNodes",
    "ExcludeExitNodes", "ExcludeNodes", "ExitNodes", "ExtendByEd25519ID", "FallbackDir", "FetchHidServDescriptors",
    "CircuitLength", "GuardLifetime", "HSLayer2Nodes", "HSLayer3Nodes", "HTTPTunnelPort", "LeakyPipe", "LearnCircuitBuildTimeout", "LongLivedPorts",
    "MapAddress", "MaxCircuitDirtiness", "MaxClientCircuitsPending", "MiddleNodes", "NATDPort", "NewCircuitPeriod",
    "NodeFamily", "NumDirectoryGuards", "NumEntryGuards", "NumPrimaryGuards", "PathBiasCircThreshold",
    "PathBiasDropGuards", "PathBiasExtremeRate", "PathBiasExtremeUseRate", "PathBiasNoticeRate",
    "PathBiasNoticeUseRate", "PathBiasScaleThreshold", "PathBiasScaleUseThreshold", "PathBiasUseThreshold",
    "PathBiasWarnRate", "PathsNeededToBuildCircuits", "RejectPlaintextPorts", "SafeSocks", "SocksPolicy", "SocksPort",
    "SocksTimeout", "StrictNodes", "TestingClientConsensusDownloadInitialDelay", "TestingClientDownloadInitialDelay",
    "TestingClientMaxIntervalWithoutRequest", "TestSocks", "TrackHostExits", "TrackHostExitsExpire", "TransPort",
    "TransProxyType", "TruncateCircuits", "UnixSocksGroupWritable", "UseDefaultFallbackDirs", "UseEntryGuards", "UseGuardFraction",
    "UseMicrodescriptors", "VanguardsLiteEnabled", "VirtualAddrNetworkIPv4", "VirtualAddrNetworkIPv6",
    "WarnPlaintextPorts",
];

/// Those of directory authorities that are no role.
#[rustfmt::skip]
pub const AUTHORITIES: &[&str] = &[
    "AuthDirBadExit", "AuthDirBadExitCCs", "AuthDirCompareVotes", "AuthDirDoubleVotes", "AuthDirFastGuarantee",
    "AuthDirGuardBWGuarantee", "AuthDirHasIPv6Connectivity", "AuthDirInvalid", "AuthDirInvalidCCs",
    "AuthDirListApprovedOnly", "AuthDirListBadExits", "AuthDirListMiddleOnly", "AuthDirMaxServersPerAddr",
    "AuthDirMiddleOnly", "AuthDirMiddleOnlyCCs", "AuthDirPinKeys", "AuthDirReject", "AuthDirRejectCCs",
    "AuthDirRejectRequestsUnderLoad", "AuthDirSharedRandomness", "AuthDirTapKey", "AuthDirTestCircuits",
    "AuthDirTestEd25519LinkKeys", "AuthDirTestReachability", "AuthDirVoteGuard",
    "AuthDirVoteGuardBwThresholdFraction", "AuthDirVoteGuardGuaranteeTimeKnown", "AuthDirVoteGuardGuaranteeWFU",
    "AuthDirVoteStableGuaranteeMinUptime", "AuthDirVoteStableGuaranteeMTBF", "ConsensusParams",
    "DirAllowPrivateAddresses", "GuardfractionFile", "MinimalAcceptedServerVersion",
    "MinMeasuredBWsForAuthToIgnoreAdvertised", "MinUptimeHidServDirectoryV2", "RecommendedClientVersions",
    "RecommendedServerVersions", "RecommendedVersions", "RephistTrackTime", "TestingAuthDirTimeToLearnReachability",
    "TestingDirAuthVoteExit", "TestingDirAuthVoteExitIsStrict", "TestingDirAuthVoteGuard",
    "TestingDirAuthVoteGuardIsStrict", "TestingDirAuthVoteHSDir", "TestingDirAuthVoteHSDirIsStrict",
    "TestingMinExitFlagThreshold", "TestingMinFastFlagThreshold", "TestingV3AuthInitialDistDelay",
    "TestingV3AuthInitialVoteDelay", "TestingV3AuthInitialVotingInterval", "TestingV3AuthVotingStartOffset",
    "V3AuthDistDelay", "V3AuthNIntervalsValid", "V3AuthUseLegacyKey", "V3AuthVoteDelay", "V3AuthVotingInterval",
    "V3BandwidthsFile",
];

/// Those of bridges and pluggable transports that are no role.
#[rustfmt::skip]
pub const BRIDGES: &[&str] = &[
    "AlternateBridgeAuthority", "BridgeDistribution", "BridgePassword", "BridgeRecordUsageByCountry",
    "ExtORPortCookieAuthFile", "ExtORPortCookieAuthFileGroupReadable", "OutboundBindAddressPT",
    "ReconfigDropsBridgeDescs", "ServerTransportListenAddr", "ServerTransportOptions",
    "TestingBridgeBootstrapDownloadInitialDelay", "TestingBridgeDownloadInitialDelay", "UpdateBridgesFromAuthority",
];

/// Those of onion services, and of relays for them, without `HiddenServiceDir`.
#[rustfmt::skip]
pub const ONION_SERVICES: &[&str] = &[
    "CompiledProofOfWorkHash", "HiddenServiceAllowUnknownPorts", "HiddenServiceDirGroupReadable",
    "HiddenServiceEnableIntroDoSBurstPerSec", "HiddenServiceEnableIntroDoSDefense",
    "HiddenServiceEnableIntroDoSRatePerSec", "HiddenServiceExportCircuitID", "HiddenServiceMaxStreams",
    "HiddenServiceMaxStreamsCloseCircuit", "HiddenServiceNonAnonymousMode", "HiddenServiceNumIntroductionPoints",
    "HiddenServiceOnionBalanceInstance", "HiddenServicePort", "HiddenServicePoWDefensesEnabled",
    "HiddenServicePoWQueueBurst", "HiddenServicePoWQueueRate", "HiddenServiceSingleHopMode", "HiddenServiceVersion",
    "MaxHSDirCacheBytes", "PublishHidServDescriptors",
];

/// Those of accounting, without `AccountingMax`.
#[rustfmt::skip]
pub const ACCOUNTING: &[&str] = &[
    "AccountingRule", "AccountingStart",
];

/// Those of outgoing proxies that do nothing alone.
#[rustfmt::skip]
pub const PROXIES: &[&str] = &[
    "HTTPProxy", "HTTPProxyAuthenticator", "HTTPSProxyAuthenticator", "Socks5ProxyPassword", "Socks5ProxyUsername",
];

/// Those of statistics about users.
#[rustfmt::skip]
pub const STATISTICS: &[&str] = &[
    "CellStatistics", "ConnDirectionStatistics", "DirReqStatistics", "EntryStatistics", "ExitPortStatistics",
    "GeoIPExcludeUnknown", "GeoIPFile", "GeoIPv6File", "HiddenServiceStatistics", "MainloopStats",
    "PaddingStatistics", "TestingEnableCellStatsEvent", "TestingEnableConnBwEvent", "TestingMinTimeToReportBandwidth",
];

/// Those of a process that owns this one.
#[rustfmt::skip]
pub const CONTROLLER: &[&str] = &[
    "__DisableSignalHandlers", "__OwningControllerFD", "__OwningControllerProcess", "__ReloadTorrcOnSIGHUP",
];
