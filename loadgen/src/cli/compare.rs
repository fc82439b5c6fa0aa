//! `onionring-loadgen compare`: implementations measured in turn.

use clap::Args;
use clap::builder::RangedI64ValueParser;

use super::CliError;
use super::load::Load;
use super::relay::{Output, Spinner, Start};
use super::ui::Interrupt;
use crate::load::{Comparison, REPETITIONS, compare};

/// Starts a relay of each kind and measures them in turn (A B A B), so that what else the machine does falls on all.
/// A ratio below 1 says that the subject has the smaller figure.
///
/// The default output is a table in Markdown. If one of the relays fails in mid-run, the pairs made until then are
/// printed and marked, and the exit status is 1.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What is measured against others: `onionring`, `tor` or NAME=PATH
    #[arg(long, value_name = "KIND", default_value = "onionring")]
    subject: String,
    /// What it is measured against; may be repeated
    #[arg(long, value_name = "KIND", required = true)]
    against: Vec<String>,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = RangedI64ValueParser::<u32>::new().range(REPETITIONS))]
    pairs: u32,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    load: Load,
    /// How results are printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), CliError> {
        let interrupt = Interrupt::watch()?;
        let points = self.load.points(1)?;
        self.output.check(points.len())?;
        let kinds = std::iter::once(&self.subject).chain(&self.against);
        let scenario = self.load.scenario;
        let specs = kinds.map(|kind| self.start.spec(kind, scenario)).collect::<Result<Vec<_>, _>>()?;
        if let Some(n) = (1..specs.len()).find(|n| specs[..*n].iter().any(|s| s.kind == specs[*n].kind)) {
            let kind = &specs[n].kind;
            let message = format!("two relays would be called `{kind}` in the results: name one, NAME=PATH");
            return Err(CliError::Usage(message));
        }
        let spinner = Spinner::new();
        let mut comparisons: Vec<Comparison> = Vec::new();
        for settings in &points {
            let tell = &mut |kind: &str, progress| spinner.show(kind, progress, &interrupt);
            let comparison = compare(&specs, settings, self.pairs, self.load.listen, tell)?;
            let failed = comparison.failure.is_some();
            comparisons.push(comparison);
            if failed {
                break;
            }
        }
        drop(spinner);
        self.output.print(comparisons, points.len() > 1, Comparison::to_text, &interrupt)
    }
}
