//! Measurements at several points, one row for each.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use super::report::{Failure, MEASURES, Measure, Report, headline, plain};

/// The points of a sweep over links and rates, in order. It ends with the first that fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep<T> {
    /// What was found at each.
    pub points: Vec<T>,
}

/// What is measured at a point.
pub trait Point {
    /// The subject's figures.
    fn subject(&self) -> &Report;
    /// Columns of one measure: the head of each, and the figure.
    fn columns(&self, measure: &Measure) -> Vec<(String, String)>;
    /// Why it is not complete.
    fn failure(&self) -> Option<&Failure>;
    /// All that was measured, the subject first.
    fn reports(&self) -> Vec<&Report>;
}

fn figure(report: &Report, measure: &Measure) -> String {
    report.summary.get(measure.name).map_or_else(String::new, |s| plain(s.median / measure.unit.0))
}

fn head(kind: &str, measure: &Measure) -> String {
    let unit = if measure.unit.1.is_empty() { String::new() } else { format!(", {}", measure.unit.1) };
    format!("{kind}: {}{unit}", measure.label)
}

impl Point for Report {
    fn subject(&self) -> &Report {
        self
    }

    fn columns(&self, measure: &Measure) -> Vec<(String, String)> {
        vec![(head(&self.subject.kind, measure), figure(self, measure))]
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn reports(&self) -> Vec<&Report> {
        vec![self]
    }
}

impl Point for Comparison {
    fn subject(&self) -> &Report {
        &self.subject
    }

    fn columns(&self, measure: &Measure) -> Vec<(String, String)> {
        let mut columns = self.subject.columns(measure);
        for peer in &self.peers {
            columns.extend(peer.report.columns(measure));
            let ratio = peer.ratios.get(measure.name).map_or_else(String::new, |ratio| plain(ratio.median));
            columns.push(("ratio".to_owned(), ratio));
        }
        columns
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn reports(&self) -> Vec<&Report> {
        Comparison::reports(self)
    }
}

impl<T: Point> Sweep<T> {
    /// Why it ended before its time.
    pub fn failure(&self) -> Option<&Failure> {
        self.points.iter().find_map(Point::failure)
    }

    /// A table in Markdown.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let Some(first) = self.points.first() else { return text };
        let subject = first.subject();
        let names = headline(subject.settings.scenario);
        let measured = names.iter().filter(|name| subject.summary.contains_key(**name));
        let measures: Vec<&Measure> =
            measured.filter_map(|name| MEASURES.iter().find(|m| m.name == *name)).collect();
        let columns = |point: &T| measures.iter().flat_map(|m| point.columns(m)).collect::<Vec<_>>();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}, at each point\n", subject.settings.scenario.word());
        let heads: Vec<String> = columns(first).into_iter().map(|(head, _)| head).collect();
        let _ = writeln!(text, "| links | rate | {} | |", heads.join(" | "));
        let _ = writeln!(text, "|--:|--:|{}---|", "--:|".repeat(heads.len()));
        for point in &self.points {
            let report = point.subject();
            let settings = &report.settings;
            let rate = settings.offered().map_or_else(|| "most".to_owned(), plain);
            let figures: Vec<String> = columns(point).into_iter().map(|(_, figure)| figure).collect();
            let remark = match point.failure() {
                Some(_) => "INCOMPLETE",
                None if report.repetitions.iter().any(|r| r.loadgen_at_limit) => "loadgen at its limit",
                None => "",
            };
            let _ = writeln!(text, "| {} | {rate} | {} | {remark} |", settings.links, figures.join(" | "));
        }
        if let Some(failure) = self.failure() {
            let _ =
                writeln!(text, "\nINCOMPLETE after {} points: {}", self.points.len() - 1, failure.message);
        }
        text
    }

    /// One line for each figure.
    pub fn to_csv(&self) -> String {
        let lines: String = self.points.iter().flat_map(Point::reports).map(Report::csv_lines).collect();
        format!("{}{lines}", Report::CSV_HEAD)
    }
}
