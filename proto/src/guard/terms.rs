//! The numbers of the mechanism: what the consensus says, and what the configuration overrides.

use std::time::Duration;

use crate::limits::GUARD_SAMPLE;
use crate::netdoc::params::{
    ConsensusParams, GUARD_CONFIRMED_MIN_LIFETIME_DAYS, GUARD_EXTREME_RESTRICTION_PERCENT,
    GUARD_INTERNET_LIKELY_DOWN_INTERVAL, GUARD_LIFETIME_DAYS, GUARD_MAX_SAMPLE_SIZE,
    GUARD_MAX_SAMPLE_THRESHOLD_PERCENT, GUARD_MEANINGFUL_RESTRICTION_PERCENT, GUARD_MIN_FILTERED_SAMPLE_SIZE,
    GUARD_N_PRIMARY_DIR_GUARDS_TO_USE, GUARD_N_PRIMARY_GUARDS, GUARD_N_PRIMARY_GUARDS_TO_USE,
    GUARD_NONPRIMARY_GUARD_CONNECT_TIMEOUT, GUARD_NONPRIMARY_GUARD_IDLE_TIMEOUT,
    GUARD_REMOVE_UNLISTED_GUARDS_AFTER_DAYS, PB_DROPGUARDS, PB_EXTREMEPCT, PB_EXTREMEUSEPCT, PB_MINCIRCS,
    PB_MINUSE, PB_MULTFACTOR, PB_NOTICEPCT, PB_NOTICEUSEPCT, PB_SCALECIRCS, PB_SCALEFACTOR, PB_SCALEUSE,
    PB_WARNPCT, Param,
};

const DAY: Duration = Duration::from_secs(86_400);

/// What a configuration may say of guards; what it leaves open, the consensus says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GuardSettings {
    /// Primary guards that circuits are spread over (`NumEntryGuards`); 0 leaves it open.
    pub num_entry_guards: u32,
    /// Primary guards that directory requests are spread over (`NumDirectoryGuards`); 0 leaves it open.
    pub num_directory_guards: u32,
    /// Primary guards (`NumPrimaryGuards`); 0 leaves it open.
    pub num_primary_guards: u32,
    /// How long guards are kept (`GuardLifetime`); less than a day leaves it open.
    pub guard_lifetime: Duration,
    /// When guards make too many circuits fail.
    pub bias: BiasSettings,
}

/// When guards make too many circuits fail. What is `None`, the consensus says. Rates are shares from 0 to 1 of circuits
/// that do not fail; 0 switches off what happens below it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BiasSettings {
    /// Circuits before anything is said (`PathBiasCircThreshold`).
    pub circuits: Option<u32>,
    /// Below this rate, circuits fail notably (`PathBiasNoticeRate`),
    pub notable: Option<f64>,
    /// badly (`PathBiasWarnRate`),
    pub bad: Option<f64>,
    /// and extremely (`PathBiasExtremeRate`).
    pub extreme: Option<f64>,
    /// Whether guards are dropped then (`PathBiasDropGuards`).
    pub drop: Option<bool>,
    /// Circuits from which on old ones count less (`PathBiasScaleThreshold`).
    pub scale_circuits: Option<u32>,
    /// Circuits that were used before anything is said of them (`PathBiasUseThreshold`).
    pub uses: Option<u32>,
    /// Below this rate, they notably carry nothing (`PathBiasNoticeUseRate`),
    pub notable_use: Option<f64>,
    /// and extremely (`PathBiasExtremeUseRate`).
    pub extreme_use: Option<f64>,
    /// Circuits that were used from which on old ones count less (`PathBiasScaleUseThreshold`).
    pub scale_uses: Option<u32>,
}

/// The numbers by which guards are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BiasTerms {
    /// Circuits that say nothing yet.
    pub circuits: u32,
    /// Shares below which circuits fail notably, badly, extremely.
    pub circuit_rates: [f64; 3],
    /// Circuits that were used and say nothing yet.
    pub uses: u32,
    /// The same of those that were used.
    pub use_rates: [f64; 3],
    /// Circuits from which on old ones count less, and the same of those that were used.
    pub scale_circuits: u32,
    pub scale_uses: u32,
    /// How much less: numerator and denominator.
    pub scale: (u32, u32),
    /// Whether guards are dropped.
    pub drop: bool,
}

impl BiasTerms {
    fn new(params: &ConsensusParams, settings: &BiasSettings) -> Self {
        let number = |param: &Param| params.get(param).unsigned_abs();
        let count = |setting: Option<u32>, param| setting.unwrap_or_else(|| number(param));
        let rate = |setting: Option<f64>, param| setting.unwrap_or_else(|| f64::from(number(param)) / 100.0);
        let denominator = number(&PB_SCALEFACTOR);
        BiasTerms {
            circuits: count(settings.circuits, &PB_MINCIRCS),
            circuit_rates: [
                rate(settings.notable, &PB_NOTICEPCT),
                rate(settings.bad, &PB_WARNPCT),
                rate(settings.extreme, &PB_EXTREMEPCT),
            ],
            uses: count(settings.uses, &PB_MINUSE),
            // There is no level between.
            use_rates: [
                rate(settings.notable_use, &PB_NOTICEUSEPCT),
                0.0,
                rate(settings.extreme_use, &PB_EXTREMEUSEPCT),
            ],
            scale_circuits: count(settings.scale_circuits, &PB_SCALECIRCS),
            scale_uses: count(settings.scale_uses, &PB_SCALEUSE),
            scale: (number(&PB_MULTFACTOR).min(denominator), denominator),
            drop: settings.drop.unwrap_or_else(|| params.is_on(&PB_DROPGUARDS)),
        }
    }
}

/// The numbers in force.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Terms {
    max_sample_percent: usize,
    max_sample_size: usize,
    /// Usable guards that a sample should have.
    pub min_usable: usize,
    /// How long a guard may be unlisted.
    pub unlisted: Duration,
    /// How long a guard that was never used is kept.
    pub lifetime: Duration,
    /// How long a guard is kept from its first use.
    pub confirmed_lifetime: Duration,
    /// Primary guards.
    pub primary: usize,
    /// Primary guards that circuits are spread over.
    pub for_circuits: usize,
    /// Primary guards that directory requests are spread over.
    pub for_directories: usize,
    /// Silence after which our own connection was down.
    pub likely_down: Duration,
    /// For how long an attempt holds up those with worse guards.
    pub connect: Duration,
    /// How long a circuit waits for better guards to fail.
    pub idle: Duration,
    /// Percentage of possible guards below which a filter is a restriction.
    pub restricted_percent: u64,
    /// Percentage of possible guards below which a filter is extreme.
    pub extreme_percent: u64,
    /// When guards make too many circuits fail.
    pub bias: BiasTerms,
}

impl Terms {
    pub fn new(params: &ConsensusParams, settings: &GuardSettings) -> Self {
        // Parameters are at least 1.
        let number = |param: &Param| params.get(param).unsigned_abs();
        let count = |param: &Param| number(param) as usize;
        let seconds = |param: &Param| Duration::from_secs(u64::from(number(param)));
        let days = |param: &Param| DAY * number(param);
        let configured = |setting: u32, param| if setting > 0 { setting as usize } else { count(param) };
        let lifetime = Some(settings.guard_lifetime).filter(|lifetime| *lifetime >= DAY);
        Terms {
            max_sample_percent: count(&GUARD_MAX_SAMPLE_THRESHOLD_PERCENT),
            max_sample_size: count(&GUARD_MAX_SAMPLE_SIZE),
            min_usable: count(&GUARD_MIN_FILTERED_SAMPLE_SIZE).min(GUARD_SAMPLE),
            unlisted: days(&GUARD_REMOVE_UNLISTED_GUARDS_AFTER_DAYS),
            lifetime: lifetime.unwrap_or_else(|| days(&GUARD_LIFETIME_DAYS)),
            confirmed_lifetime: lifetime.unwrap_or_else(|| days(&GUARD_CONFIRMED_MIN_LIFETIME_DAYS)),
            primary: configured(settings.num_primary_guards, &GUARD_N_PRIMARY_GUARDS),
            for_circuits: configured(settings.num_entry_guards, &GUARD_N_PRIMARY_GUARDS_TO_USE),
            for_directories: configured(settings.num_directory_guards, &GUARD_N_PRIMARY_DIR_GUARDS_TO_USE),
            likely_down: seconds(&GUARD_INTERNET_LIKELY_DOWN_INTERVAL),
            connect: seconds(&GUARD_NONPRIMARY_GUARD_CONNECT_TIMEOUT),
            idle: seconds(&GUARD_NONPRIMARY_GUARD_IDLE_TIMEOUT),
            restricted_percent: u64::from(number(&GUARD_MEANINGFUL_RESTRICTION_PERCENT)),
            extreme_percent: u64::from(number(&GUARD_EXTREME_RESTRICTION_PERCENT)),
            bias: BiasTerms::new(params, &settings.bias),
        }
    }

    /// Guards that a sample may have when there are `possible` to choose from (guard-spec 4.2, MAX_SAMPLE_THRESHOLD).
    pub fn max_sample(&self, possible: usize) -> usize {
        let share = possible.saturating_mul(self.max_sample_percent) / 100;
        share.min(self.max_sample_size).max(self.min_usable).min(GUARD_SAMPLE)
    }
}

/// After how long a guard that fails since `failing` is tried again (guard-spec 4.6).
pub(super) fn retry_delay(failing: Duration, is_primary: bool) -> Duration {
    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    let (primary, other) = match failing {
        d if d <= 6 * HOUR => (10 * MINUTE, HOUR),
        d if d <= 4 * DAY => (90 * MINUTE, 4 * HOUR),
        d if d <= 7 * DAY => (4 * HOUR, 18 * HOUR),
        _ => (9 * HOUR, 36 * HOUR),
    };
    if is_primary { primary } else { other }
}
