//! What a configuration that is read again (SIGHUP) changes in a running relay, and what waits for a restart.

use super::Config;

/// Options that count at once. Every other one that is supported counts when the relay starts; [`Config::reloaded`] is
/// the other side of this list.
#[rustfmt::skip]
pub(super) const RELOADABLE: &[&str] = &[
    "Address", "AssumeReachable", "AssumeReachableIPv6", "BandwidthBurst", "BandwidthRate", "ContactInfo",
    "CountPrivateBandwidth", "DirPortFrontPage", "DoSCircuitCreationBurst", "DoSCircuitCreationDefenseTimePeriod",
    "DoSCircuitCreationDefenseType", "DoSCircuitCreationEnabled", "DoSCircuitCreationMinConnections",
    "DoSCircuitCreationRate", "DoSConnectionConnectBurst", "DoSConnectionConnectDefenseTimePeriod",
    "DoSConnectionConnectRate", "DoSConnectionDefenseType", "DoSConnectionEnabled", "DoSConnectionMaxConcurrentCount",
    "DoSStreamCreationBurst", "DoSStreamCreationDefenseType", "DoSStreamCreationEnabled", "DoSStreamCreationRate",
    "EnforceDistinctSubnets", "ExitPolicy", "ExitPolicyRejectPrivate", "ExitRelay", "ExtendAllowPrivateAddresses",
    "ExtraInfoStatistics", "HalfClosedStreams", "HeartbeatPeriod", "IPv6Exit", "Log", "LogMessageDomains", "LogTimeGranularity",
    "MaxAdvertisedBandwidth", "MaxMemInQueues", "MetricsPortPolicy", "MyFamily", "Nickname", "OverloadStatistics",
    "PerConnBWBurst", "PerConnBWRate", "PublishServerDescriptor", "ReducedExitPolicy", "RefuseUnknownExits",
    "RelayBandwidthBurst", "RelayBandwidthRate", "SafeLogging", "ServerDNSAllowBrokenConfig",
    "ServerDNSAllowNonRFC953Hostnames", "ServerDNSRandomizeCase", "ServerDNSResolvConfFile", "ServerDNSSearchDomains",
    "ShutdownWaitLength", "SyslogIdentityTag", "TruncateLogFile",
];

impl Config {
    /// `new`, with everything in it that cannot change in a running relay as it is here. What is published follows
    /// from this, so that nothing is published that is not served.
    pub fn reloaded(&self, new: Config) -> Config {
        let old = self.clone();
        Config {
            or_ports: old.or_ports,
            dir_ports: old.dir_ports,
            directories: old.directories,
            keys: old.keys,
            user: old.user,
            keep_bind_capabilities: old.keep_bind_capabilities,
            pid_file: old.pid_file,
            shards: old.shards,
            outbound_or: old.outbound_or,
            outbound_exit: old.outbound_exit,
            metrics: super::MetricsConfig { listen: old.metrics.listen, policy: new.metrics.policy },
            authorities: old.authorities,
            dir_cache: old.dir_cache,
            testing: old.testing,
            ..new
        }
    }
}
