//! What operators look at, by the programs that they use: a real Prometheus scrapes relays under load, their authorities
//! and a proxy, and answers every query of `dashboards/`; a real browser shows the page of the metrics port.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use onionring_loadgen::load::{self, MEASURES, Report, Spread};
use onionring_loadgen::net::{Kind, Network, NetworkSpec, Node, NodeSpec, Paths, Role, directory};
use onionring_loadgen::traffic::{self, Socks};
use onionring_proto::origin::HandshakeKind;
use serde_json::Value;

use super::client::{Client, hop};
use super::{MIB, assert_no_warnings, boot, metric, relay, wait, wait_informed};

const ONIONRING: [&str; 3] = ["oGuard", "oMiddle", "oExit"];
const AUTHORITIES: [&str; 3] = ["oAuthority1", "oAuthority2", "oAuthority3"];
const PROXY: &str = "oProxy";

#[test]
fn every_query_of_the_dashboards_has_an_answer() {
    let network = network();
    let results = serve_text(network.spare_address(1), loadgen_results());
    let prometheus = Prometheus::start(&network, results);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| use_everything(&network, &done));
        // Ends the load also when something fails.
        let _done = OnDrop(&done);
        let mut silent = prometheus.queries(&network);
        assert!(silent.len() > 150, "{} queries", silent.len());
        let answers = |query: &String| prometheus.ask(query).is_some_and(|series| series > 0);
        // Not `wait`: the failure has to name the queries.
        let answered = network.wait("answers", super::PATIENCE, || {
            silent.retain(|query| !answers(query));
            silent.is_empty()
        });
        assert!(answered.is_ok(), "without an answer: {silent:#?}");
    });
    for name in ONIONRING {
        let node = network.node(name);
        promtool(&["check", "metrics"], &get(node, "/metrics"));
        // What is measured here and nowhere in C tor has really been measured.
        for counted in [
            "onionring_cell_queue_seconds_count",
            "onionring_circuit_handshake_wait_seconds_count",
            "onionring_circuit_handshake_work_seconds_count",
            "onionring_tls_handshake_seconds_count",
            "onionring_shard_lag_seconds_count",
            "onionring_shard_busy_seconds_total",
            "onionring_shard_cpu_seconds_total",
            "onionring_socket_writes_total",
            "onionring_directory_memory_bytes",
        ] {
            assert!(metric(node, counted, &[]) > 0.0, "{name}: {counted}");
        }
        for owner in ["shards", "control", "others"] {
            assert!(
                metric(node, "onionring_cpu_seconds_total", &[("owner", owner)]) > 0.0,
                "{name}: {owner}"
            );
        }
        let shares = metric(node, "onionring_limited_by", &[]);
        assert!((shares - 1.0).abs() < 1e-6, "{name}: {shares}");
    }
    assert!(metric(network.node("oExit"), "onionring_stream_windows_open_total", &[]) > 0.0);
    for name in AUTHORITIES {
        measures_what_authorities_do(&network, network.node(name));
    }
    measures_what_proxies_do(network.node(PROXY));
    assert_no_warnings(&network);
}

/// All is well with an authority, by its own account.
fn measures_what_authorities_do(network: &Network, node: &Node) {
    promtool(&["check", "metrics"], &get(node, "/metrics"));
    let dirauth =
        |name: &str, labels: &[(&str, &str)]| metric(node, &format!("onionring_dirauth_{name}"), labels);
    // Those of ours, and the authorities themselves.
    let relays = (ONIONRING.len() + AUTHORITIES.len()) as f64;
    for (name, labels) in [
        ("consensus_relays", &[][..]),
        ("vote_relays", &[]),
        ("vote_flag_relays", &[("flag", "Running")]),
        ("relays_stored", &[]),
    ] {
        assert_eq!(dirauth(name, labels), relays, "{node:?}: {name}");
    }
    assert_eq!(dirauth("authorities", &[]), AUTHORITIES.len() as f64);
    for (name, labels) in [
        ("consensuses_published_total", &[][..]),
        ("vote_making_seconds", &[]),
        ("consensus_computation_seconds", &[]),
        ("documents_total", &[("verdict", "stored")]),
        ("exchanges_total", &[("about", "vote"), ("outcome", "ok")]),
        ("tests_total", &[("test", "link_ipv4"), ("outcome", "passed")]),
        ("tests_total", &[("test", "carry"), ("outcome", "passed")]),
        ("answers_total", &[("way", "dir_port"), ("status", "200")]),
        ("served_bytes_total", &[("way", "dir_port")]),
        ("certificate_expiry_timestamp_seconds", &[]),
    ] {
        assert!(dirauth(name, labels) > 0.0, "{node:?}: {name} {labels:?}");
    }
    for (name, labels) in [
        ("votes_missed_in_a_row", &[][..]),
        ("signatures_missed_in_a_row", &[]),
        ("own_votes_missed_in_a_row", &[]),
        ("alarms_total", &[("alarm", "double_vote")]),
        ("state_unsaved_total", &[]),
        ("relays_condemned", &[]),
        ("documents_total", &[("verdict", "unsaved")]),
    ] {
        assert_eq!(dirauth(name, labels), 0.0, "{node:?}: {name} {labels:?}");
    }
    // All votes are at hand for a while in each period.
    let held = |name| dirauth(name, &[]) == AUTHORITIES.len() as f64;
    wait(network, "all votes and signatures", || held("vote_held") && held("signature_held"));
    let path = "/metrics/tor";
    assert!(directory::get(node.metrics_addr().unwrap(), path).is_err(), "{node:?} is no relay");
}

/// A proxy has done what it was used for, by its own account.
fn measures_what_proxies_do(node: &Node) {
    promtool(&["check", "metrics"], &get(node, "/metrics"));
    let proxy = |name: &str| metric(node, &format!("onionring_proxy_{name}"), &[]);
    assert_eq!(proxy("bootstrap_ratio"), 1.0);
    for name in [
        "consensus_valid_until_timestamp_seconds",
        "guards",
        "links",
        "circuits",
        "circuits_built_total",
        "circuit_build_seconds_count",
        "streams_opened_total",
        "lookups_answered_total",
        "directory_requests_answered_total",
        "directory_read_bytes_total",
    ] {
        assert!(proxy(name) > 0.0, "{node:?}: {name}");
    }
    for name in ["stream_read_bytes_total", "stream_written_bytes_total"] {
        assert!(proxy(name) > MIB as f64, "{node:?}: {name}");
    }
}

#[test]
fn a_browser_shows_the_page_of_the_metrics_port() {
    let network = network();
    let node = network.node("oMiddle");
    let client = network.node("client").socks().unwrap();
    traffic::download(&client, network.target(), MIB).unwrap();
    wait(&network, "the relay's numbers", || {
        get(node, "/").contains(">It runs, and the network knows it.<")
            && !get(node, "/").contains("id=\"links\">0<")
    });
    let shown = browse(&format!("http://{}/", node.metrics_addr().unwrap()));
    let text = |id: &str| {
        let (_, on) = shown.split_once(&format!("id=\"{id}\">")).unwrap_or_else(|| panic!("{id}: {shown}"));
        on.split('<').next().unwrap_or_default().to_owned()
    };
    assert!(shown.contains("<title>oMiddle - onionring relay</title>"), "{shown}");
    assert!(text("links").parse::<u32>().unwrap() > 0);
    assert!(text("written").ends_with("B/s") || text("written").ends_with("bytes/s"));
    assert!(text("limit").starts_with("It is limited by "));
    assert!(shown.contains(node.fingerprint()));
    for link in ["/metrics", "/metrics/tor"] {
        assert!(shown.contains(&format!("<a href=\"{link}\">")), "{shown}");
    }
}

fn network() -> Network {
    let client = NodeSpec::new(Role::Client, Kind::TOR).named("client").pinned("oGuard", "oMiddle", "oExit");
    let authorities = AUTHORITIES.map(|name| NodeSpec::new(Role::Authority, Kind::ONIONRING).named(name));
    let spec = authorities.into_iter().fold(NetworkSpec::new(), NetworkSpec::node).node(client);
    let spec = spec.node(NodeSpec::new(Role::Client, Kind::ONIONRING).named(PROXY));
    let spec = spec.node(relay("oGuard").dir_port()).node(relay("oMiddle")).node(relay("oExit"));
    let network = boot(spec.shards(2));
    wait_informed(&network);
    network
}

fn get(node: &Node, path: &str) -> String {
    let page = directory::get(node.metrics_addr().unwrap(), path).unwrap_or_else(|e| panic!("{node:?}: {e}"));
    String::from_utf8(page).unwrap()
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Traffic, name lookups and directory requests, over circuits of the client's and of the proxy, until told to stop.
fn use_everything(network: &Network, done: &AtomicBool) {
    let paths = Paths::of(network.node("client")).unwrap();
    let hops = ONIONRING.map(|name| network.node(name));
    let proxy = network.node(PROXY).socks().unwrap();
    while !done.load(Ordering::Relaxed) {
        let path = paths.build(&hops).unwrap();
        let socks: Socks = path.socks();
        for socks in [&socks, &proxy] {
            traffic::download(socks, network.target(), MIB).unwrap();
            traffic::upload(socks, network.target(), MIB).unwrap();
            socks.resolve("sink.test").unwrap();
        }
        let path = "/tor/status-vote/current/consensus-microdesc";
        // The relay fetches it some time after it is made.
        let _ = directory::get(network.node("oGuard").dir_addr().unwrap(), path);
        Client::connect(&hop(network, "oGuard", HandshakeKind::Ntor)).ask_directory(0, path);
    }
}

/// What loadgen says of a measurement in which everything was measured.
fn loadgen_results() -> String {
    let summary: BTreeMap<String, Spread> = MEASURES
        .iter()
        .map(|measure| (measure.name.to_owned(), Spread { median: 0.5, min: 0.0, max: 1.0 }))
        .collect();
    let subject = load::SubjectInfo {
        kind: "onionring".into(),
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        fingerprint: String::new(),
        ed25519: String::new(),
        platform: None,
        pid: None,
    };
    let settings = load::Settings::new(load::Scenario::Bulk);
    let (repetitions, notes) = (Vec::new(), Vec::new());
    let report = Report { settings, subject, complete: true, failure: None, repetitions, summary, notes };
    let text = load::exposition(&[&report]);
    promtool(&["check", "metrics"], &text);
    text
}

/// Answers every request with `text`, as long as the test runs.
fn serve_text(address: std::net::IpAddr, text: String) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            // The request is short: it comes in one piece.
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
            let _ = stream.write_all(format!("{head}{text}").as_bytes());
        }
    });
    address
}

/// Fails with what promtool says, if it says anything.
fn promtool(arguments: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of Debian's package prometheus");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
}

/// A running Prometheus, with the configuration of `dashboards/`.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn dashboards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

impl Prometheus {
    fn start(network: &Network, loadgen: SocketAddr) -> Prometheus {
        let data = tempfile::tempdir().unwrap();
        for file in ["rules.yml", "alerts.yml", "authority-alerts.yml", "proxy-alerts.yml"] {
            fs::copy(dashboards().join(file), data.path().join(file)).unwrap();
        }
        let targets = |names: &[&str]| {
            let address = |name: &&str| format!("\"{}\"", network.node(name).metrics_addr().unwrap());
            format!("[{}]", names.iter().map(address).collect::<Vec<_>>().join(", "))
        };
        let (relays, authorities, proxy) = (targets(&ONIONRING), targets(&AUTHORITIES), targets(&[PROXY]));
        let committed = fs::read_to_string(dashboards().join("prometheus.yml")).unwrap();
        let config = committed
            .replace("_interval: 30s", "_interval: 1s")
            .replace("[\"127.0.0.1:9035\"]", &relays)
            .replace("[\"127.0.0.1:9036\"]", &authorities)
            .replace("[\"127.0.0.1:9037\"]", &proxy);
        let count = |part: &str| config.matches(part).count();
        assert_eq!([&relays, &authorities, &proxy].map(|part| count(part)), [2, 1, 1]);
        assert_eq!(count("_interval: 1s"), 2);
        let config =
            format!("{config}  - job_name: loadgen\n    static_configs:\n      - targets: [\"{loadgen}\"]\n");
        let file = data.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        promtool(&["check", "config", file.to_str().unwrap()], "");

        let address = {
            // Free a moment ago, on an address that only this network uses.
            let listener = TcpListener::bind((network.spare_address(2), 0)).unwrap();
            listener.local_addr().unwrap()
        };
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .spawn()
            .expect("prometheus, of Debian's package");
        let prometheus = Prometheus { process, address, _data: data };
        wait(network, "Prometheus", || directory::get(address, "/-/ready").is_ok());
        prometheus
    }

    fn api(&self, path: &str) -> Option<Value> {
        let answer: Value = serde_json::from_slice(&directory::get(self.address, path).ok()?).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// How many series a query gives now; `None` if it is not understood.
    fn ask(&self, query: &str) -> Option<usize> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.api(&format!("/api/v1/query?query={encoded}"))?["result"].as_array().map(Vec::len)
    }

    /// Everything that must have an answer: queries of panels, recording rules, and what alerts look at.
    fn queries(&self, network: &Network) -> Vec<String> {
        let mut queries = BTreeSet::new();
        for entry in fs::read_dir(dashboards()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                collect(&serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap(), &mut queries);
            }
        }
        // The second set, for dashboards made for C tor.
        queries
            .extend(["up{job=\"onionring-as-tor\"} == 1", "tor_relay_traffic_bytes > 0"].map(str::to_owned));
        let mut rules = Value::Null;
        wait(network, "the rules to be evaluated", || {
            rules = self.api("/api/v1/rules").unwrap_or_default();
            let health =
                |health: &str| rules.to_string().matches(&format!("\"health\":\"{health}\"")).count();
            health("ok") > 0 && health("unknown") == 0
        });
        for rule in rules["groups"].as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap()) {
            assert_eq!(rule["health"], "ok", "{rule}");
            let query = rule["query"].as_str().unwrap();
            match rule["type"].as_str() {
                Some("recording") => queries.extend([query.to_owned()]),
                // It has no answer as long as all is well.
                _ => queries.extend(selectors(query)),
            }
        }
        queries.into_iter().collect()
    }
}

/// The queries of all panels, with what Grafana would put in place of its variables.
fn collect(json: &Value, queries: &mut BTreeSet<String>) {
    match json {
        Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
        Value::Object(fields) => {
            if let Some(Value::String(query)) = fields.get("expr") {
                let query = query.replace("$__rate_interval", "10s");
                queries.insert(query.replace("$job", ".+").replace("$instance", ".+"));
            }
            fields.values().for_each(|value| collect(value, queries));
        }
        _ => {}
    }
}

/// The metrics that a query looks at, with their labels.
fn selectors(query: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut rest = query;
    while let Some(at) = rest.find(is_name) {
        let word = &rest[at..];
        let end = word.find(|c| !is_name(c)).unwrap_or(word.len());
        let labels = match word[end..].starts_with('{') {
            true => word[end..].find('}').map_or(0, |close| close + 1),
            false => 0,
        };
        if ["onionring_", "onionring:", "process_", "up"].iter().any(|start| word[..end].starts_with(start)) {
            found.push(word[..end + labels].to_owned());
        }
        rest = &word[end + labels..];
    }
    found
}

#[test]
fn selectors_of_a_query() {
    let query = "rate(process_x{job=\"a b\"}[5m]) / onionring:y > 2 and (onionring_z offset 1d) > 1";
    assert_eq!(selectors(query), ["process_x{job=\"a b\"}", "onionring:y", "onionring_z"]);
}

/// The document as a browser has it after it has drawn the page.
fn browse(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--no-first-run", "--disable-default-apps", "--disable-extensions", "--no-proxy-server"])
        // Nothing but loopback has a name or an address.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=1000", "--dump-dom", url])
        .output()
        .expect("chromium, of Debian's package");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}
