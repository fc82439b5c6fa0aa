//! The numbers of the mechanism: what the consensus says, and what the configuration overrides.

use std::time::Duration;

use crate::limits::BUILD_TIMES;
use crate::netdoc::params::{
    CBTCLOSEQUANTILE, CBTDISABLED, CBTINITIALTIMEOUT, CBTLEARNTIMEOUT, CBTMAXOPENCIRCS, CBTMAXTIMEOUTS,
    CBTMINCIRCS, CBTMINTIMEOUT, CBTNUMMODES, CBTQUANTILE, CBTRECENTCOUNT, CBTTESTFREQ, ConsensusParams,
    Param,
};

/// What a configuration may say of build times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildTimeSettings {
    /// The time-out while nothing is learned (`CircuitBuildTimeout`); `None` leaves it to the consensus.
    pub timeout: Option<Duration>,
    /// Whether to learn (`LearnCircuitBuildTimeout`).
    pub learn: bool,
}

impl Default for BuildTimeSettings {
    fn default() -> Self {
        BuildTimeSettings { timeout: None, learn: true }
    }
}

/// The numbers in force.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Terms {
    pub learn: bool,
    /// Commonest bins that make the start of the curve.
    pub modes: usize,
    /// Recent circuits that are looked at for time-outs.
    pub recent: usize,
    /// Time-outs among them at which all is forgotten.
    pub timeouts_most: usize,
    /// Times before the first estimate.
    pub least: usize,
    pub timeout_quantile: f64,
    pub close_quantile: f64,
    /// Between two circuits that are built only to learn.
    pub test_every: Duration,
    /// Unused circuits at which none is built only to learn.
    pub unused_most: usize,
    /// How long an unused circuit is kept while learning.
    pub idle: Duration,
    /// The least time-out.
    pub least_ms: f64,
    /// The time-out that the consensus gives before there is an estimate, and the least close time.
    pub default_ms: f64,
    /// The time-out before there is an estimate.
    pub initial_ms: f64,
}

impl Terms {
    pub fn new(params: &ConsensusParams, settings: &BuildTimeSettings) -> Self {
        // No parameter can be negative.
        let number = |param: &Param| params.get(param).unsigned_abs();
        let count = |param: &Param| number(param) as usize;
        let seconds = |param: &Param| Duration::from_secs(u64::from(number(param)));
        let learn = settings.learn && !params.is_on(&CBTDISABLED);
        let least_ms = f64::from(number(&CBTMINTIMEOUT));
        let default_ms = f64::from(number(&CBTINITIALTIMEOUT)).max(least_ms);
        let configured = settings.timeout.filter(|timeout| !timeout.is_zero());
        let initial_ms = match configured.map(|timeout| timeout.as_secs_f64() * 1000.0) {
            Some(ms) if learn => ms.max(least_ms),
            Some(ms) => ms,
            None => default_ms,
        };
        let quantile = number(&CBTQUANTILE);
        Terms {
            learn,
            modes: count(&CBTNUMMODES),
            recent: count(&CBTRECENTCOUNT),
            timeouts_most: count(&CBTMAXTIMEOUTS),
            // More than are kept would never be there.
            least: count(&CBTMINCIRCS).min(BUILD_TIMES),
            timeout_quantile: f64::from(quantile) / 100.0,
            close_quantile: f64::from(number(&CBTCLOSEQUANTILE).max(quantile)) / 100.0,
            test_every: seconds(&CBTTESTFREQ),
            unused_most: count(&CBTMAXOPENCIRCS),
            idle: seconds(&CBTLEARNTIMEOUT),
            least_ms,
            default_ms,
            initial_ms: initial_ms.min(f64::from(super::MS_MAX)),
        }
    }
}
