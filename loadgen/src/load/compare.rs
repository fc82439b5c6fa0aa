//! Several implementations measured in turn, and their ratios.
//!
//! A machine is never quite idle, and what else it does changes from minute to minute. So the subject and its peers
//! are measured in turn (A B A B), each ratio is that of two neighbours, and the median of the ratios is what counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::error::LoadError;
use super::paper;
use super::report::{Failure, MEASURES, Report, Spread, headline, plain};
use super::run::Progress;
use super::settings::{Scenario, Settings};
use super::standalone::StandaloneSpec;
use super::syscalls;
use super::target::{Target, flood_rate};

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// How often each was to be measured.
    pub pairs: u32,
    /// Whether all pairs were made.
    pub complete: bool,
    /// Why not.
    pub failure: Option<Failure>,
    /// What is compared. Its repetitions are those of the pairs, in order.
    pub subject: Report,
    /// What it is compared with.
    pub peers: Vec<Peer>,
}

/// One of those that the subject is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its figures.
    pub report: Report,
    /// The subject's figures over the peer's, pair by pair.
    pub pair_ratios: Vec<BTreeMap<String, f64>>,
    /// Medians and ranges of those.
    pub ratios: BTreeMap<String, Spread>,
}

/// One implementation in a comparison.
struct Side<'a> {
    spec: &'a StandaloneSpec,
    target: Option<Target>,
    report: Report,
}

impl<'a> Side<'a> {
    fn start(
        spec: &'a StandaloneSpec,
        settings: &Settings,
        tell: &mut Tell<'_>,
    ) -> Result<Side<'a>, LoadError> {
        let target = Target::start(spec, settings.scenario, tell)?;
        let report = Report::new(settings.clone(), target.info().clone());
        Ok(Side { spec, target: Some(target), report })
    }

    /// Measures once.
    fn turn(
        &mut self,
        settings: &Settings,
        listen: Option<IpAddr>,
        tell: &mut Tell<'_>,
    ) -> Result<(), Failure> {
        let target = match self.target.take() {
            Some(target) => target,
            None => Target::start(self.spec, settings.scenario, tell).map_err(|e| Failure::from(&e))?,
        };
        let report = target.measure(settings, listen, tell);
        self.report.subject = report.subject;
        self.report.settings = report.settings;
        self.report.repetitions.extend(report.repetitions);
        // All others follow from the figures, and are made anew of those of all pairs.
        let stays = |note: &String| note == paper::THEN || note.starts_with(syscalls::NOT_COUNTED);
        self.report.notes = report.notes.into_iter().filter(stays).collect();
        // Memory that a relay has taken it does not give back: the next reading is of a new process.
        self.target = Some(target).filter(|_| settings.scenario != Scenario::Idle);
        report.failure.map_or(Ok(()), Err)
    }
}

type Tell<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// Measures relays of the first kind and of each other in turn, `pairs` times. Fails if one of them does not start;
/// what goes wrong later is in the result, with the pairs that were made until then.
pub fn compare(
    specs: &[StandaloneSpec],
    settings: &Settings,
    pairs: u32,
    listen: Option<IpAddr>,
    tell: &mut dyn FnMut(&str, Progress) -> ControlFlow<()>,
) -> Result<Comparison, LoadError> {
    let settings = Settings { repetitions: 1, ..settings.clone() };
    let mut sides = Vec::new();
    for spec in specs {
        sides.push(Side::start(spec, &settings, &mut |progress| tell(&spec.kind, progress))?);
    }
    // All are to carry the same beside a flood.
    let targets: Vec<&Target> = sides.iter().filter_map(|side| side.target.as_ref()).collect();
    let settings = flood_rate(&targets, &settings, listen, &mut |progress| tell("capacity", progress))?;
    let mut failure = None;
    'pairs: for pair in 1..=pairs {
        for side in &mut sides {
            let kind = side.spec.kind.clone();
            let mut tell = |progress| {
                let progress = match progress {
                    Progress::Measuring { per_second, .. } => {
                        Progress::Measuring { repetition: pair, per_second }
                    }
                    other => other,
                };
                tell(&kind, progress)
            };
            if let Err(e) = side.turn(&settings, listen, &mut tell) {
                failure = Some((kind, e));
                break 'pairs;
            }
        }
    }
    let mut reports = sides.into_iter().map(|side| {
        let failed = failure.as_ref().filter(|(kind, _)| *kind == side.spec.kind).map(|(_, e)| e.clone());
        let mut report = side.report;
        report.settings.repetitions = pairs;
        let all = report.repetitions.len() == pairs as usize;
        let mut report = report.finish(failed);
        report.complete &= all;
        report
    });
    let subject = reports.next().expect("a comparison has a subject");
    let peers = reports.map(|report| Peer::new(&subject, report)).collect();
    let failure = failure.map(|(kind, e)| Failure { message: format!("{kind}: {}", e.message), ..e });
    Ok(Comparison { pairs, complete: failure.is_none(), failure, subject, peers })
}

impl Peer {
    fn new(subject: &Report, report: Report) -> Peer {
        let pairs = subject.repetitions.iter().zip(&report.repetitions);
        let pair_ratios: Vec<BTreeMap<String, f64>> = pairs
            .map(|(ours, theirs)| {
                let ratio = |(name, ours): (&String, &f64)| {
                    let ratio = ours / theirs.measures.get(name)?;
                    ratio.is_finite().then(|| (name.clone(), ratio))
                };
                ours.measures.iter().filter_map(ratio).collect()
            })
            .collect();
        let mut ratios = BTreeMap::new();
        for measure in MEASURES {
            let of = pair_ratios.iter().filter_map(|pair| pair.get(measure.name).copied());
            if let Some(spread) = Spread::of(of.collect()) {
                ratios.insert(measure.name.to_owned(), spread);
            }
        }
        Peer { report, pair_ratios, ratios }
    }
}

impl Comparison {
    /// A table in Markdown: what implementations are compared by first, then everything else that was measured on
    /// both.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let Comparison { subject, peers, .. } = self;
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}\n", subject.settings.describe());
        let _ = write!(text, "| | {} |", subject.subject.kind);
        for peer in peers {
            let kind = &peer.report.subject.kind;
            let _ = write!(text, " {kind} | ratio | pair by pair |");
        }
        let _ = write!(text, "\n|---|--:|{}", "--:|--:|---|".repeat(peers.len()));
        let main = headline(subject.settings.scenario);
        let first = main.iter().filter_map(|name| MEASURES.iter().find(|m| m.name == *name));
        let rest = MEASURES.iter().filter(|m| !main.contains(&m.name));
        for measure in first.chain(rest) {
            let Some(ours) = subject.summary.get(measure.name) else { continue };
            let figure = |spread: &Spread| plain(spread.median / measure.unit.0);
            let unit =
                if measure.unit.1.is_empty() { String::new() } else { format!(", {}", measure.unit.1) };
            let _ = write!(text, "\n| {}{unit} | {} |", measure.label, figure(ours));
            for peer in peers {
                let theirs = peer.report.summary.get(measure.name).map_or_else(String::new, figure);
                let ratio = peer.ratios.get(measure.name).map_or_else(String::new, |r| plain(r.median));
                let pairs = peer.pair_ratios.iter().filter_map(|pair| pair.get(measure.name));
                let pairs: Vec<String> = pairs.map(|ratio| plain(*ratio)).collect();
                let _ = write!(text, " {theirs} | {ratio} | {} |", pairs.join(" "));
            }
        }
        text.push('\n');
        for report in self.reports() {
            let platform = report.subject.platform.as_deref().unwrap_or("unknown version");
            let _ = write!(text, "\n{}: {platform}", report.subject.kind);
            for note in &report.notes {
                let _ = write!(text, "; {note}");
            }
        }
        text.push('\n');
        if let Some(failure) = &self.failure {
            let done = peers.iter().map(|peer| peer.pair_ratios.len()).min().unwrap_or_default();
            let _ = writeln!(text, "\nINCOMPLETE after {done} of {} pairs: {}", self.pairs, failure.message);
        }
        text
    }

    /// What was found of each, the subject first.
    pub fn reports(&self) -> Vec<&Report> {
        std::iter::once(&self.subject).chain(self.peers.iter().map(|peer| &peer.report)).collect()
    }
}
