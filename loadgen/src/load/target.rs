//! What is measured: a relay, or for `paper-2004` a network of them.

use std::net::IpAddr;
use std::ops::ControlFlow;

use super::error::LoadError;
use super::paper::Paper;
use super::report::Report;
use super::run::{Progress, capacity, measure};
use super::settings::{Scenario, Settings};
use super::standalone::{Standalone, StandaloneSpec};
use super::subject::{Subject, SubjectInfo};

/// The share of a relay's capacity that honest bulk takes beside a flood, unless a rate is given.
const FLOODED_SHARE: f64 = 0.5;

/// Something that can be measured again and again.
pub enum Target {
    /// One relay.
    Relay(Box<Subject>),
    /// The network of `paper-2004`.
    Network(Box<Paper>),
}

impl Target {
    /// Starts what the scenario needs.
    pub fn start(
        spec: &StandaloneSpec,
        scenario: Scenario,
        tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Target, LoadError> {
        match scenario {
            Scenario::Paper2004 => Ok(Target::Network(Box::new(Paper::boot(spec, tell)?))),
            _ => Ok(Target::Relay(Box::new(Subject::started(Standalone::start(spec)?)?))),
        }
    }

    /// What is known of it; of a network, of its first relay.
    pub fn info(&self) -> &SubjectInfo {
        match self {
            Target::Relay(subject) => subject.info(),
            Target::Network(paper) => paper.info(),
        }
    }

    /// Measures. Whatever goes wrong is in the report, with the repetitions that were made until then. `listen` is
    /// where a relay under test finds us, by default the address that faces it.
    pub fn measure(
        &self,
        settings: &Settings,
        listen: Option<IpAddr>,
        tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Report {
        match self {
            Target::Relay(subject) => match flood_rate(&[self], settings, listen, tell) {
                Ok(settings) => measure(subject, &settings, listen, tell),
                Err(e) => Report::new(settings.clone(), self.info().clone()).finish(Some((&e).into())),
            },
            Target::Network(paper) => paper.measure(settings, tell),
        }
    }
}

/// Settings of a flood with a rate of bulk that all of these can carry, if none is given.
pub(super) fn flood_rate(
    targets: &[&Target],
    settings: &Settings,
    listen: Option<IpAddr>,
    tell: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Settings, LoadError> {
    let mut settings = settings.clone();
    if settings.scenario == Scenario::Flood && settings.bulk_rate.is_none() {
        let mut least = f64::INFINITY;
        for target in targets {
            if let Target::Relay(subject) = target {
                least = least.min(capacity(subject, &settings, listen, tell)?);
            }
        }
        settings.bulk_rate = Some(least * FLOODED_SHARE);
    }
    Ok(settings)
}
