//! `onionring-loadgen compare`: implementations measured in turn.

use std::io::{self, Write as _};

use clap::Args;
use clap::builder::RangedI64ValueParser;

use super::CliError;
use super::relay::{Load, Output, Spinner, Start};
use super::ui::Interrupt;
use crate::load::{REPETITIONS, compare, exposition};

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
        let settings = self.load.settings(1)?;
        let kinds = std::iter::once(&self.subject).chain(&self.against);
        let specs = kinds.map(|kind| self.start.spec(kind)).collect::<Result<Vec<_>, _>>()?;
        if let Some(n) = (1..specs.len()).find(|n| specs[..*n].iter().any(|s| s.kind == specs[*n].kind)) {
            let kind = &specs[n].kind;
            let message = format!("two relays would be called `{kind}` in the results: name one, NAME=PATH");
            return Err(CliError::Usage(message));
        }
        let spinner = Spinner::new();
        let comparison = compare(&specs, &settings, self.pairs, self.load.listen, &mut |kind, progress| {
            spinner.show(kind, progress, &interrupt)
        })?;
        drop(spinner);
        let mut out = io::stdout().lock();
        match self.output {
            Output::Text => out.write_all(comparison.to_text().as_bytes())?,
            Output::Csv => out.write_all(comparison.to_csv().as_bytes())?,
            Output::Prometheus => out.write_all(exposition(&comparison.reports()).as_bytes())?,
            Output::Json => {
                writeln!(out, "{}", serde_json::to_string_pretty(&comparison).map_err(io::Error::from)?)?;
            }
        }
        out.flush()?;
        interrupt.check()?;
        comparison.failure.map_or(Ok(()), |failure| Err(CliError::Incomplete(failure.message)))
    }
}
