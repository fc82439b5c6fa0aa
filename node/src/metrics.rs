//! Metrics: one table of everything that is measured, the recorder behind it, and the pages it is read on.
//!
//! Code that measures takes a handle from the [`table`] once and moves it from then on. `/metrics` is our own set;
//! `/metrics/tor` shows the same numbers under the names of C tor's MetricsPort ([`ctor`]), so that dashboards made for it
//! keep working.

pub mod ctor;
mod figures;
pub mod http;
mod metric;
pub mod page;
#[cfg(feature = "tokio")]
pub mod port;
pub mod process;
pub mod table;

#[cfg(test)]
mod tests;

pub use metric::{Kind, Metric};

use std::collections::BTreeMap;
use std::sync::Arc;

use figures::Figures;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// The program's metrics, readable as pages.
#[derive(Clone)]
pub struct Exporter {
    recorded: PrometheusHandle,
    figures: Arc<Figures>,
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// [`install`] was called twice.
    #[error("the metrics recorder is already installed")]
    AlreadyInstalled,
}

/// Installs the recorder of this process; `program` and `version` become its build info. Metrics touched earlier are lost.
///
/// Histogram samples pile up until they are read: whoever calls this also calls [`Exporter::upkeep`] every few seconds.
pub fn install(program: &str, version: &str) -> Result<Exporter, MetricsError> {
    let (recorder, exporter) = recorder();
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::AlreadyInstalled)?;
    table::BUILD_INFO.gauge(&[("program", program), ("version", version)]).set(1.0);
    for severity in ["err", "warn", "notice"] {
        table::LOG_EVENTS.counter(&[("severity", severity)]).absolute(0);
    }
    table::LOG_EVENTS_SUPPRESSED.counter(&[]).absolute(0);
    Ok(exporter)
}

/// What was counted by label, with a zero for each of the `known` labels that was not: a counter that first appears with
/// what it counts looks as if nothing had happened.
pub fn from_zero<L: Copy + Ord>(known: &[L], counted: &BTreeMap<L, u64>) -> BTreeMap<L, u64> {
    let mut all: BTreeMap<_, _> = known.iter().map(|&label| (label, 0)).collect();
    all.extend(counted);
    all
}

/// The page of what `work` sets in this thread, without the process's figures, whatever recorder is installed: for tests
/// of what a program publishes.
pub fn page_of(work: impl FnOnce()) -> String {
    let (recorder, exporter) = recorder();
    metrics::with_local_recorder(&recorder, work);
    exporter.recorded.render()
}

/// A recorder that knows the table, not installed anywhere.
fn recorder() -> (PrometheusRecorder, Exporter) {
    let mut builder = PrometheusBuilder::new();
    for metric in table::ALL {
        if let Kind::Histogram(bounds) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)
                .expect("the tests check that no histogram is without bounds");
        }
    }
    let recorder = builder.build_recorder();
    metrics::with_local_recorder(&recorder, || table::ALL.iter().for_each(Metric::describe));
    let exporter = Exporter { recorded: recorder.handle(), figures: Arc::default() };
    (recorder, exporter)
}

impl Exporter {
    /// An exporter without a recorder: it shows only what it is given.
    pub fn detached() -> Exporter {
        recorder().1
    }

    /// Sets a counter that is counted elsewhere, with its fraction. One and the same metric is set so or by
    /// [`Metric::counter`], never by both.
    pub fn set_total(&self, metric: &Metric, labels: &[(&'static str, &str)], value: f64) {
        self.figures.set_total(metric, labels, value);
    }

    /// Sets a histogram that is counted elsewhere: `counts` are the samples in each of its buckets and beyond the last,
    /// `sum` is that of all samples. Not to be mixed with [`Metric::histogram`].
    pub fn set_histogram(&self, metric: &Metric, labels: &[(&'static str, &str)], counts: &[u64], sum: f64) {
        self.figures.set_histogram(metric, labels, counts, sum);
    }

    /// Our own metrics in the Prometheus text format, the process's included.
    pub fn render(&self) -> String {
        let mut page = self.recorded.render();
        self.figures.write(&mut page);
        process::Process::read().write(&mut page);
        page
    }

    /// The same under C tor's names.
    pub fn render_ctor(&self) -> String {
        ctor::translate(&self.render())
    }

    /// Sums up histogram samples, so that they take no memory however rarely the pages are read.
    pub fn upkeep(&self) {
        self.recorded.run_upkeep();
    }
}
