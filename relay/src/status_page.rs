//! The page that people see who open the metrics port in a browser: how the relay is, in one screen.
//!
//! One document without scripts, fonts or pictures; the browser loads it again every few seconds.

use std::fmt::Write as _;
use std::time::Duration;

use onionring_node::metrics::page::Page;
use onionring_node::metrics::table;

use crate::heartbeat::{bytes, duration};
use crate::load::{Cause, Limits, Rates};

/// What the page says that the metrics do not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Nickname.
    pub nickname: String,
    /// SHA-1 of the RSA identity key, in hexadecimal.
    pub fingerprint: String,
    /// Advertised ORPorts, each with whether others reach it.
    pub addresses: Vec<(String, bool)>,
    /// Time since the start.
    pub uptime: Duration,
    /// What it does now.
    pub rates: Rates,
    /// What keeps it from doing more.
    pub limits: Limits,
    /// It is shutting down.
    pub draining: bool,
}

/// Renders the page; `metrics` are the relay's own, as on `/metrics`.
pub fn render(status: &Status, metrics: &Page<'_>) -> String {
    let sum = |metric: onionring_node::metrics::Metric| metrics.sum(metric.name, &[]);
    let name = escape(&status.nickname);
    let (state, tone) = state(status, metrics);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta http-equiv=\"refresh\" content=\"10\">\n\
         <title>{name} - onionring relay</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{name}</h1>\n<p class=\"{tone}\" id=\"state\">{state}</p>\n</header>\n"
    );
    let per_second = |n: f64| format!("{}/s", bytes(n as u64));
    let figures = [
        ("read", "Read", per_second(status.rates.read_bytes)),
        ("written", "Written", per_second(status.rates.written_bytes)),
        ("cells", "Cells relayed", format!("{}/s", grouped(status.rates.relayed_cells as u64))),
        ("handshakes", "Circuit handshakes", format!("{:.1}/s", status.rates.handshakes)),
        ("circuits", "Circuits", grouped(sum(table::CIRCUITS) as u64)),
        ("links", "Links", grouped(sum(table::LINKS) as u64)),
        ("streams", "Streams", grouped(sum(table::STREAMS) as u64)),
        ("memory", "Memory", bytes(sum(table::PROCESS_RESIDENT_BYTES) as u64)),
    ];
    page.push_str("<section id=\"figures\">\n");
    for (id, label, value) in figures {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "<div><span>{label}</span><b id=\"{id}\">{value}</b></div>");
    }
    page.push_str("</section>\n");
    write_limits(&mut page, &status.limits);
    write_facts(&mut page, status, metrics);
    page.push_str(
        "<footer>\n<a href=\"/metrics\">/metrics</a> for Prometheus, \
         <a href=\"/metrics/tor\">/metrics/tor</a> the same under the names of C tor.\n</footer>\n</body>\n</html>\n",
    );
    page
}

/// How the relay is, in a sentence, and whether that is good.
fn state(status: &Status, metrics: &Page<'_>) -> (String, &'static str) {
    if status.draining {
        return ("It is shutting down and lets circuits end.".into(), "warn");
    }
    if metrics.sum(table::CONSENSUS_VALID_UNTIL.name, &[]) == 0.0 {
        return ("It has no consensus yet.".into(), "warn");
    }
    let unreachable: Vec<_> =
        status.addresses.iter().filter(|(_, reached)| !reached).map(|(address, _)| escape(address)).collect();
    if status.addresses.is_empty() {
        return ("Its public address is not known.".into(), "warn");
    }
    if !unreachable.is_empty() {
        return (format!("Others have not been seen to reach it at {}.", unreachable.join(", ")), "warn");
    }
    match metrics.sum(table::RELAY_FLAG.name, &[("flag", "Running")]) > 0.0 {
        true => ("It runs, and the network knows it.".into(), "good"),
        false => ("It runs, but the consensus does not list it as running.".into(), "warn"),
    }
}

fn write_limits(page: &mut String, limits: &Limits) {
    let _ = writeln!(
        page,
        "<section>\n<h2>What limits it now</h2>\n<p id=\"limit\">It is limited by {}.</p>\n<table>",
        limits.main().words()
    );
    for (cause, share) in Cause::ALL.into_iter().zip(limits.0) {
        let (label, percent) = (cause.label().replace('_', " "), share * 100.0);
        let _ = writeln!(
            page,
            "<tr><th>{label}</th><td><meter max=\"100\" value=\"{percent:.0}\"></meter></td><td>{percent:.0} %</td></tr>"
        );
    }
    page.push_str("</table>\n</section>\n");
}

fn write_facts(page: &mut String, status: &Status, metrics: &Page<'_>) {
    let flags: Vec<_> = onionring_proto::netdoc::consensus::RelayFlags::NAMES
        .iter()
        .map(|(_, name)| *name)
        .filter(|name| metrics.sum(table::RELAY_FLAG.name, &[("flag", name)]) > 0.0)
        .collect();
    let flags = if flags.is_empty() { "none".to_owned() } else { flags.join(", ") };
    let addresses: Vec<_> = status.addresses.iter().map(|(address, _)| escape(address)).collect();
    let facts = [
        ("Fingerprint", format!("<code>{}</code>", escape(&status.fingerprint))),
        ("ORPort", addresses.join(", ")),
        ("Flags", flags),
        ("Up for", duration(status.uptime)),
        ("Version", concat!("onionring-relay ", env!("CARGO_PKG_VERSION")).to_owned()),
    ];
    page.push_str("<section>\n<h2>The relay</h2>\n<table>\n");
    for (label, value) in facts {
        let _ = writeln!(page, "<tr><th>{label}</th><td>{value}</td></tr>");
    }
    page.push_str("</table>\n</section>\n");
}

/// Text for a place between tags or in quotes.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

/// A number with a comma after every three digits from the right.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --dim: #777; }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
header { border-bottom: 1px solid var(--line); margin-bottom: 1.5rem; }
h1 { margin: 0; font-size: 1.8rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
#state::before { content: '\\25CF'; margin-right: .5em; }
.good::before { color: #2a9d4a; }
.warn::before { color: #d98200; }
#figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .75rem; }
#figures div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
#figures span { display: block; color: var(--dim); font-size: .85rem; }
#figures b { font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; }
th { text-align: left; font-weight: normal; color: var(--dim); padding-right: 1.5rem; white-space: nowrap; }
td { padding: .1rem .8rem .1rem 0; }
meter { width: 14rem; }
code { overflow-wrap: anywhere; }
footer { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: .75rem; color: var(--dim); }
";

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "onionring_circuits{shard=\"0\"} 1200\nonionring_circuits{shard=\"1\"} 34\n\
        onionring_consensus_valid_until_timestamp_seconds 1700000000\nonionring_relay_flag{flag=\"Running\"} 1\n\
        onionring_relay_flag{flag=\"Guard\"} 1\nonionring_relay_flag{flag=\"Exit\"} 0\n";

    fn status() -> Status {
        Status {
            nickname: "myrelay".into(),
            fingerprint: "AB".repeat(20),
            addresses: vec![("192.0.2.1:9001".into(), true)],
            rates: Rates {
                written_bytes: 3.0 * 1024.0 * 1024.0,
                relayed_cells: 12_345.6,
                ..Rates::default()
            },
            limits: Limits([0.7, 0.1, 0.0, 0.0, 0.2]),
            ..Status::default()
        }
    }

    #[test]
    fn says_how_the_relay_is() {
        let page = render(&status(), &Page::parse(METRICS));
        for part in [
            "<title>myrelay - onionring relay</title>",
            "class=\"good\" id=\"state\">It runs, and the network knows it.",
            "<b id=\"circuits\">1,234</b>",
            "<b id=\"written\">3.00 MiB/s</b>",
            "<b id=\"cells\">12,345/s</b>",
            "It is limited by its processor",
            "<th>low demand</th><td><meter max=\"100\" value=\"20\"></meter></td><td>20 %</td>",
            "Running, Guard",
            "href=\"/metrics\"",
            "href=\"/metrics/tor\"",
        ] {
            let running_first = part == "Running, Guard" && page.contains("Guard, Running");
            assert!(page.contains(part) || running_first, "{part}: {page}");
        }
    }

    #[test]
    fn names_what_is_not_well() {
        let says = |status: Status, metrics: &str, words: &str| {
            let page = render(&status, &Page::parse(metrics));
            assert!(page.contains("class=\"warn\"") && page.contains(words), "{words}: {page}");
        };
        says(status(), "", "no consensus yet");
        says(status(), &METRICS.replace("Running\"} 1", "Running\"} 0"), "does not list it");
        says(Status { addresses: Vec::new(), ..status() }, METRICS, "address is not known");
        let unreached = vec![("192.0.2.1:9001".into(), true), ("[2001:db8::1]:9001".into(), false)];
        says(Status { addresses: unreached, ..status() }, METRICS, "reach it at [2001:db8::1]:9001.");
        says(Status { draining: true, ..status() }, METRICS, "shutting down");
    }

    #[test]
    fn needs_nothing_from_elsewhere_and_shows_text_as_text() {
        let hostile = "<script>alert('1')</script>&\"";
        let status = Status { nickname: hostile.into(), fingerprint: hostile.into(), ..status() };
        let page = render(&status, &Page::parse(METRICS));
        for part in ["<script", "http:", "https:", "src=", "url(", "@import", "<link", "<img"] {
            assert!(!page.contains(part), "{part}: {page}");
        }
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;"));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
