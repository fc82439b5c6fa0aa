//! Metrics: one table of everything that is measured, the recorder behind it, and the pages it is read on.
//!
//! Code that measures takes a handle from the [`table`] once and moves it from then on. `/metrics` is our own set;
//! `/metrics/tor` shows the same numbers under the names of C tor's MetricsPort ([`ctor`]), so that dashboards made for it
//! keep working.

pub mod ctor;
pub mod http;
mod metric;
pub mod page;
pub mod process;
pub mod table;

#[cfg(test)]
mod tests;

pub use metric::{Kind, Metric};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// The program's metrics, readable as pages.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

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
    Ok(exporter)
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
    let exporter = Exporter(recorder.handle());
    (recorder, exporter)
}

impl Exporter {
    /// Our own metrics in the Prometheus text format, the process's included.
    pub fn render(&self) -> String {
        let mut page = self.0.render();
        process::Process::read().write(&mut page);
        page
    }

    /// The same under C tor's names.
    pub fn render_ctor(&self) -> String {
        ctor::translate(&self.render())
    }

    /// Sums up histogram samples, so that they take no memory however rarely the pages are read.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}
