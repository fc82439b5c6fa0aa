//! Grafana's JSON from short descriptions, so that all dashboards look alike.

use serde_json::{Map, Value, json};

/// A dashboard.
pub struct Dashboard {
    /// The name of its file, and the end of its uid.
    pub file: &'static str,
    pub title: &'static str,
    /// A metric that every scraped target has: it says which jobs and instances there are.
    pub anchor: &'static str,
    /// What the second row is about.
    pub second_row: &'static str,
    /// One number each, in the first row.
    pub stats: &'static [Panel],
    /// In the second row.
    pub traffic: &'static [Panel],
    /// In the collapsed rows after that, by topic.
    pub topics: &'static [(&'static str, &'static [Panel])],
}

/// A panel.
pub struct Panel {
    pub title: &'static str,
    pub unit: &'static str,
    /// What is to be known beyond the title; may be empty.
    pub hint: &'static str,
    pub stacked: bool,
    /// Expressions in short form (see [`expand`]), each with its legend.
    pub queries: &'static [(&'static str, &'static str)],
}

/// `panel!(title, unit, [query => legend, ...])`, then perhaps `; hint`; `stacked!` the same for parts of a whole.
macro_rules! panel {
    ($title:literal, $unit:literal, [$($query:literal => $legend:literal),+ $(,)?] $(; $hint:literal)?) => {
        Panel { title: $title, unit: $unit, hint: concat!($($hint)?), stacked: false, queries: &[$(($query, $legend)),+] }
    };
}

macro_rules! stacked {
    ($($panel:tt)*) => {
        Panel { stacked: true, ..panel!($($panel)*) }
    };
}

pub const SELECTOR: &str = "job=~\"$job\",instance=~\"$instance\"";
const COLUMNS: usize = 24;

/// Writes out what every query has: the labels chosen above the dashboard, and the interval of rates.
///
/// `rate(onionring_x_total{a="b"})` becomes `rate(onionring_x_total{<chosen>,a="b"}[$__rate_interval])`.
pub fn expand(short: &str) -> String {
    let (mut out, mut rest) = (String::new(), short);
    while let Some(at) = ["onionring_", "process_"].iter().filter_map(|p| rest.find(p)).min() {
        let (before, name_on) = rest.split_at(at);
        let end = name_on.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(name_on.len());
        let (name, mut after) = name_on.split_at(end);
        out += before;
        out += name;
        out += "{";
        out += SELECTOR;
        if let Some(labels_on) = after.strip_prefix('{') {
            let (labels, behind) = labels_on.split_once('}').expect("a brace for each brace");
            out += ",";
            out += labels;
            after = behind;
        }
        out += "}";
        if before.ends_with("rate(") || before.ends_with("increase(") {
            out += "[$__rate_interval]";
        }
        rest = after;
    }
    out + rest
}

impl Dashboard {
    /// Its JSON, as Grafana imports it.
    pub fn json(&self) -> Value {
        let mut ids = 0;
        let mut next = || {
            ids += 1;
            ids
        };
        let mut panels = vec![row(next(), "Now", 0, None)];
        let width = COLUMNS / self.stats.len();
        for (i, stat) in self.stats.iter().enumerate() {
            panels.push(stat.stat(next(), [i * width, 1, width, 4]));
        }
        panels.push(row(next(), self.second_row, 5, None));
        let width = COLUMNS / self.traffic.len();
        for (i, panel) in self.traffic.iter().enumerate() {
            panels.push(panel.timeseries(next(), [i * width, 6, width, 8]));
        }
        for (i, (title, inside)) in self.topics.iter().enumerate() {
            let (id, y) = (next(), 14 + i);
            let inside = inside.iter().enumerate();
            let inside: Vec<Value> = inside
                .map(|(n, panel)| panel.timeseries(next(), [n % 2 * 12, y + 1 + n / 2 * 8, 12, 8]))
                .collect();
            panels.push(row(id, title, y, Some(inside)));
        }
        json!({
            "title": self.title,
            "uid": format!("onionring-{}", self.file.trim_end_matches(".json")),
            "tags": ["onionring", "tor"],
            "editable": true,
            "graphTooltip": 1,
            "schemaVersion": 39,
            "version": 1,
            "refresh": "1m",
            "time": { "from": "now-24h", "to": "now" },
            "timezone": "browser",
            "annotations": { "list": [] },
            // To the other dashboards, with the same choice of relays and of time.
            "links": [{
                "type": "dashboards",
                "title": "onionring",
                "tags": ["onionring"],
                "asDropdown": true,
                "includeVars": true,
                "keepTime": true,
            }],
            "templating": { "list": self.variables() },
            "panels": panels,
        })
    }

    fn variables(&self) -> Value {
        let query = |name: &str, label: &str, query: String| {
            json!({
                "name": name,
                "label": label,
                "type": "query",
                "datasource": source(),
                "query": { "query": query, "refId": name },
                "definition": query,
                "refresh": 2,
                "multi": true,
                "includeAll": true,
                "allValue": ".+",
                "sort": 1,
                "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
            })
        };
        let anchor = self.anchor;
        json!([
            { "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
              "refresh": 1, "current": {} },
            query("job", "Job", format!("label_values({anchor}, job)")),
            query("instance", "Instance", format!("label_values({anchor}{{job=~\"$job\"}}, instance)")),
        ])
    }

    /// All panels.
    pub fn panels(&self) -> impl Iterator<Item = &'static Panel> {
        let topics = self.topics.iter().flat_map(|(_, panels)| panels.iter());
        self.stats.iter().chain(self.traffic).chain(topics)
    }
}

impl Panel {
    fn stat(&self, id: usize, at: [usize; 4]) -> Value {
        // A version or a name is in a label; there is nothing to draw.
        let named = !self.queries[0].1.is_empty();
        let mut panel = self.common("stat", id, at);
        panel.insert(
            "fieldConfig".into(),
            json!({
                "defaults": {
                    "unit": self.unit,
                    "thresholds": { "mode": "absolute", "steps": [{ "color": "blue", "value": null }] },
                },
                "overrides": [],
            }),
        );
        panel.insert(
            "options".into(),
            json!({
                "colorMode": "value",
                "graphMode": if named { "none" } else { "area" },
                "justifyMode": "auto",
                "orientation": "auto",
                "textMode": if named { "name" } else { "auto" },
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            }),
        );
        panel.into()
    }

    fn timeseries(&self, id: usize, at: [usize; 4]) -> Value {
        let mut custom = json!({
            "drawStyle": "line",
            "fillOpacity": if self.stacked { 20 } else { 5 },
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": false,
        });
        if self.stacked {
            custom["stacking"] = json!({ "mode": "normal", "group": "A" });
        }
        let mut defaults = json!({ "unit": self.unit, "min": 0, "custom": custom });
        if self.unit == "percentunit" && self.stacked {
            defaults["max"] = json!(1);
        }
        let mut panel = self.common("timeseries", id, at);
        panel.insert("fieldConfig".into(), json!({ "defaults": defaults, "overrides": [] }));
        panel.insert(
            "options".into(),
            json!({
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
        );
        panel.into()
    }

    fn common(&self, kind: &str, id: usize, [x, y, w, h]: [usize; 4]) -> Map<String, Value> {
        let targets: Vec<Value> = self
            .queries
            .iter()
            .zip('A'..)
            .map(|((expr, legend), name)| {
                json!({
                    "datasource": source(),
                    "editorMode": "code",
                    "expr": expand(expr),
                    "legendFormat": legend,
                    "range": true,
                    "refId": name.to_string(),
                })
            })
            .collect();
        let Value::Object(panel) = json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.hint,
            "datasource": source(),
            "gridPos": { "x": x, "y": y, "w": w, "h": h },
            "targets": targets,
        }) else {
            unreachable!("an object")
        };
        panel
    }
}

fn row(id: usize, title: &str, y: usize, collapsed: Option<Vec<Value>>) -> Value {
    json!({
        "id": id,
        "type": "row",
        "title": title,
        "collapsed": collapsed.is_some(),
        "gridPos": { "x": 0, "y": y, "w": COLUMNS, "h": 1 },
        "panels": collapsed.unwrap_or_default(),
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

#[test]
fn short_forms_are_written_out() {
    let all = SELECTOR;
    assert_eq!(
        expand("sum by (a) (rate(onionring_x_total{b=\"c\"})) / time() - onionring_y"),
        format!(
            "sum by (a) (rate(onionring_x_total{{{all},b=\"c\"}}[$__rate_interval])) / time() - onionring_y{{{all}}}"
        )
    );
    assert_eq!(expand("1 + 1"), "1 + 1");
}
