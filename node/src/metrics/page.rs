//! A page of metrics, read again.

use std::collections::BTreeMap;

/// The samples of a page that this program rendered: label values are ours and hold no quotes, commas or braces.
pub struct Page<'a> {
    /// By metric name: the text between the braces, and the value.
    samples: BTreeMap<&'a str, Vec<(&'a str, f64)>>,
}

impl<'a> Page<'a> {
    /// Takes a page apart; lines that are no samples are left out.
    pub fn parse(page: &'a str) -> Self {
        let mut samples = BTreeMap::<_, Vec<_>>::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.trim_end_matches('}')),
                None => (series, ""),
            };
            if let Ok(value) = value.parse() {
                samples.entry(name).or_default().push((labels, value));
            }
        }
        Page { samples }
    }

    /// The values of a metric's samples that have all these labels, whatever others they have.
    pub fn values(&self, metric: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        let samples = self.samples.get(metric).map(Vec::as_slice).unwrap_or_default();
        samples
            .iter()
            .filter(|(have, _)| labels.iter().all(|label| has_label(have, *label)))
            .map(|&(_, value)| value)
    }

    /// Their sum.
    pub fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        // Not `sum()`: that of nothing is -0 for floats, which would be printed.
        self.values(metric, labels).fold(0.0, |sum, value| sum + value)
    }
}

fn has_label(have: &str, (name, value): (&str, &str)) -> bool {
    have.split(',').any(|label| {
        label.strip_prefix(name).and_then(|rest| rest.strip_prefix("=\"")?.strip_suffix('"')) == Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_the_labels_left_open() {
        let page = Page::parse(
            "# TYPE a counter\na{shard=\"0\",kind=\"x\"} 3\na{shard=\"1\",kind=\"x\"} 4\na{shard=\"1\",kind=\"xy\"} 50\n\nb 7\nnonsense\n",
        );
        assert_eq!(page.sum("a", &[]), 57.0);
        assert_eq!(page.sum("a", &[("kind", "x")]), 7.0);
        assert_eq!(page.sum("a", &[("kind", "x"), ("shard", "1")]), 4.0);
        assert_eq!(page.sum("b", &[]), 7.0);
        assert_eq!(page.sum("c", &[]).to_string(), "0");
        assert_eq!(page.values("a", &[("shard", "1")]).collect::<Vec<_>>(), [4.0, 50.0]);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "([a-z_]{0,3}[{} \"=,\\n0-9.]{0,6}){0,20}") {
            Page::parse(&text).sum("a", &[("b", "c")]);
        }
    }
}
