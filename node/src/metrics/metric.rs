//! One line of the table.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Unit};

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Samples, counted by these upper bounds.
    Histogram(&'static [f64]),
}

/// A metric: its name, what it means and how it is split.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name with unit, and with `_total` on counters.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Names of the labels; the values of each come from a small fixed set and never name a peer or a destination.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

static METADATA: Metadata<'static> = Metadata::new("onionring", Level::INFO, None);

impl Metric {
    /// A handle for these label values, in the table's order. Take it once and keep it: this looks the metric up.
    pub fn counter(&self, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(self.kind, Kind::Counter, "{}", self.name);
        metrics::with_recorder(|r| r.register_counter(&self.key(labels), &METADATA))
    }

    /// As [`Metric::counter`], for a gauge.
    pub fn gauge(&self, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(self.kind, Kind::Gauge, "{}", self.name);
        metrics::with_recorder(|r| r.register_gauge(&self.key(labels), &METADATA))
    }

    /// As [`Metric::counter`], for a histogram.
    pub fn histogram(&self, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert!(matches!(self.kind, Kind::Histogram(_)), "{}", self.name);
        metrics::with_recorder(|r| r.register_histogram(&self.key(labels), &METADATA))
    }

    fn key(&self, labels: &[(&'static str, &str)]) -> Key {
        debug_assert!(
            labels.iter().map(|(name, _)| name).eq(self.labels),
            "labels of {}: {labels:?}",
            self.name
        );
        let labels: Vec<Label> =
            labels.iter().map(|&(name, value)| Label::new(name, value.to_owned())).collect();
        Key::from_parts(self.name, labels)
    }

    /// Tells the current recorder what this metric means.
    pub(super) fn describe(&self) {
        let name = self.name.into();
        let help = self.help.into();
        metrics::with_recorder(|r| match self.kind {
            Kind::Counter => r.describe_counter(name, None::<Unit>, help),
            Kind::Gauge => r.describe_gauge(name, None, help),
            Kind::Histogram(_) => r.describe_histogram(name, None, help),
        });
    }
}
