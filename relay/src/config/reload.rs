//! What a configuration that is read again (SIGHUP) changes in a running relay, and what waits for a restart.

use onionring_proto::torrc::Settings;
use onionring_proto::torrc::options::{self, OptionInfo};
use onionring_proto::torrc::value::Kind;

use super::classes::{Class, classify};
use super::sources::own_lines;
use super::{Config, Loaded};

/// Options that count at once. Every other one that is supported counts when the relay starts; [`Config::reloaded`] is
/// the other side of this list.
#[rustfmt::skip]
const RELOADABLE: &[&str] = &[
    "Address", "AssumeReachable", "AssumeReachableIPv6", "BandwidthBurst", "BandwidthRate", "ContactInfo",
    "CountPrivateBandwidth", "DirPortFrontPage", "DoSCircuitCreationBurst", "DoSCircuitCreationDefenseTimePeriod",
    "DoSCircuitCreationDefenseType", "DoSCircuitCreationEnabled", "DoSCircuitCreationMinConnections",
    "DoSCircuitCreationRate", "DoSConnectionConnectBurst", "DoSConnectionConnectDefenseTimePeriod",
    "DoSConnectionConnectRate", "DoSConnectionDefenseType", "DoSConnectionEnabled", "DoSConnectionMaxConcurrentCount",
    "DoSStreamCreationBurst", "DoSStreamCreationDefenseType", "DoSStreamCreationEnabled", "DoSStreamCreationRate",
    "EnforceDistinctSubnets", "ExitPolicy", "ExitPolicyRejectPrivate", "ExitRelay", "ExtendAllowPrivateAddresses",
    "ExtraInfoStatistics", "HeartbeatPeriod", "IPv6Exit", "Log", "LogMessageDomains", "LogTimeGranularity",
    "MaxAdvertisedBandwidth", "MaxMemInQueues", "MetricsPortPolicy", "MyFamily", "Nickname", "OverloadStatistics",
    "PerConnBWBurst", "PerConnBWRate", "PublishServerDescriptor", "ReducedExitPolicy", "RefuseUnknownExits",
    "RelayBandwidthBurst", "RelayBandwidthRate", "SafeLogging", "ServerDNSAllowBrokenConfig",
    "ServerDNSAllowNonRFC953Hostnames", "ServerDNSRandomizeCase", "ServerDNSResolvConfFile", "ServerDNSSearchDomains",
    "ShutdownWaitLength", "SyslogIdentityTag", "TruncateLogFile",
];

impl Loaded {
    /// The options that differ from `before`, in any of their lines, and only count after a restart.
    pub fn needs_restart(&self, before: &Settings) -> Vec<&'static str> {
        let waits = |option: &&OptionInfo| {
            classify(option).0 == Class::Supported && !RELOADABLE.contains(&option.name)
        };
        let changed = options::all().iter().filter(waits);
        changed
            .filter(|option| values(&self.settings, option) != values(before, option))
            .map(|option| option.name)
            .collect()
    }
}

/// What an option says, the same for different spellings of a value.
fn values(settings: &Settings, option: &'static OptionInfo) -> Vec<String> {
    if option.kind == Kind::Lines {
        return own_lines(settings, option).iter().map(|item| item.value.clone()).collect();
    }
    let text = settings.text(option.name).unwrap_or_default();
    vec![option.kind.normalize(text).unwrap_or_else(|_| text.to_owned())]
}

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
