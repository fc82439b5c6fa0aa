//! Bandwidth limits.

use onionring_proto::rate::Rate;

use super::Builder;
use crate::config::BandwidthConfig;
use crate::engine::rate::RateLimits;

/// The least rate of a relay in bytes a second, as C tor has it.
const RATE_MIN: u64 = 75 * 1024;
/// The most, as C tor has it: 2 GB less a byte. Of 2 GB it takes one byte off.
const RATE_MAX: u64 = (1 << 31) - 1;

impl Builder<'_> {
    pub(super) fn bandwidth(&mut self) -> BandwidthConfig {
        let mut all = Rate {
            per_second: self.bytes_per_second("BandwidthRate"),
            burst: self.bytes_per_second("BandwidthBurst"),
        };
        self.enough_for_a_relay("BandwidthRate", all.per_second);
        let relayed = self.pair("RelayBandwidthRate", "RelayBandwidthBurst");
        let relayed = match relayed {
            (None, None) => None,
            (rate, burst) => {
                // Each is the other's default.
                let per_second = rate.or(burst).unwrap_or(RATE_MAX);
                let named = if rate.is_some() { "RelayBandwidthRate" } else { "RelayBandwidthBurst" };
                self.enough_for_a_relay(named, per_second);
                Some(Rate { per_second, burst: burst.unwrap_or(per_second) })
            }
        };
        if let Some(relayed) = relayed {
            // As in C tor: whoever wants to relay more than the default allows need not say so twice.
            all.per_second = all.per_second.max(relayed.per_second);
            all.burst = all.burst.max(relayed.burst);
        }
        if all.per_second > all.burst {
            self.burst_below_rate("BandwidthRate", "BandwidthBurst");
        }
        let (per_link_rate, per_link_burst) = self.pair("PerConnBWRate", "PerConnBWBurst");
        BandwidthConfig {
            all,
            relayed,
            per_link_rate,
            per_link_burst,
            count_private: self.read.settings.flag("CountPrivateBandwidth"),
        }
    }

    /// A rate and a burst for which 0 means that they are not set.
    fn pair(&mut self, rate: &str, burst: &str) -> (Option<u64>, Option<u64>) {
        let values = [rate, burst].map(|option| Some(self.bytes_per_second(option)).filter(|n| *n > 0));
        if let [Some(per_second), Some(most)] = values
            && per_second > most
        {
            self.burst_below_rate(rate, burst);
        }
        (values[0], values[1])
    }

    fn bytes_per_second(&mut self, option: &str) -> u64 {
        match self.read.settings.memory(option) {
            bytes if bytes <= RATE_MAX + 1 => bytes.min(RATE_MAX),
            _ => {
                self.read.wrong(option, "more than can be counted", "write at most 2 GB");
                // So that nothing else is said of it.
                RateLimits::DEFAULT.burst
            }
        }
    }

    fn enough_for_a_relay(&mut self, option: &str, bytes: u64) {
        if bytes < RATE_MIN {
            let remedy = "write at least 75 KB, better 250 KB or more, or remove it";
            self.read.wrong(option, "too little for a relay", remedy);
        }
    }

    fn burst_below_rate(&mut self, rate: &str, burst: &str) {
        // At the line that there is.
        match self.read.settings.item(burst) {
            Some(_) => {
                self.read.wrong(burst, format!("less than {rate}"), "write at least as much, or remove both")
            }
            None => {
                let what = format!("more than {burst}, which is not set");
                self.read.wrong(rate, what, format!("write a {burst} of at least as much"));
            }
        }
    }
}
