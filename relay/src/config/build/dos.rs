//! Limits of single clients.

use super::Builder;
use crate::config::{DosConfig, FloodConfig};

impl Builder<'_> {
    pub(super) fn dos(&mut self) -> DosConfig {
        DosConfig {
            connections: FloodConfig {
                enabled: self.read.settings.auto_flag("DoSConnectionEnabled"),
                rate: self.count("DoSConnectionConnectRate"),
                burst: self.count("DoSConnectionConnectBurst"),
                defence: self.defence("DoSConnectionDefenseType", 2),
                period: self.period("DoSConnectionConnectDefenseTimePeriod"),
            },
            concurrent_connections: self.count("DoSConnectionMaxConcurrentCount"),
            circuits: FloodConfig {
                enabled: self.read.settings.auto_flag("DoSCircuitCreationEnabled"),
                rate: self.count("DoSCircuitCreationRate"),
                burst: self.count("DoSCircuitCreationBurst"),
                defence: self.defence("DoSCircuitCreationDefenseType", 2),
                period: self.period("DoSCircuitCreationDefenseTimePeriod"),
            },
            min_connections: self.count("DoSCircuitCreationMinConnections"),
            streams: FloodConfig {
                enabled: self.read.settings.auto_flag("DoSStreamCreationEnabled"),
                rate: self.count("DoSStreamCreationRate"),
                burst: self.count("DoSStreamCreationBurst"),
                defence: self.defence("DoSStreamCreationDefenseType", 3),
                period: None,
            },
        }
    }

    /// A number for which 0 means that it is not set.
    fn count(&self, option: &str) -> Option<u32> {
        Some(u32::try_from(self.read.settings.integer(option)).unwrap_or(u32::MAX)).filter(|count| *count > 0)
    }

    fn period(&self, option: &str) -> Option<std::time::Duration> {
        Some(self.read.settings.interval(option)).filter(|period| !period.is_zero())
    }

    fn defence(&mut self, option: &str, last: u32) -> Option<u32> {
        match self.read.settings.text(option).unwrap_or("0").parse::<i64>() {
            Ok(0) => None,
            Ok(number) if (1..=i64::from(last)).contains(&number) => u32::try_from(number).ok(),
            _ => {
                let remedy = format!("write 1 to {last}, or 0 to follow the consensus");
                self.read.wrong(option, "not a kind of defence", remedy);
                None
            }
        }
    }
}
