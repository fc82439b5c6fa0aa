//! The torrc of every node, in the order of C tor's manual page.

use std::fmt::Display;

use super::node::Node;
use super::spec::{NodeSpec, Role};

/// What all nodes of a network have in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// One `DirAuthority` line each.
    pub(super) authorities: Vec<String>,
    /// Fingerprints of all relays and exits.
    pub(super) guards: Vec<String>,
    /// Seconds between consensuses.
    pub(super) voting_interval_seconds: u32,
    /// Lines for all nodes of a role, or for all nodes.
    pub(super) extra: Vec<(Option<Role>, String)>,
    /// The file that names the network's resolver.
    pub(super) resolv_conf: String,
    /// A file with nothing in it.
    pub(super) empty_file: String,
    /// The authorities' bandwidth file.
    pub(super) bandwidths: String,
}

/// Seconds between the attempts at a first consensus: the least C tor takes, four times a day's divisor.
const INITIAL_VOTING_INTERVAL_SECONDS: u32 = 5;
/// The least delay C tor takes for sending votes, and for sending signatures.
const VOTE_DELAY_SECONDS: u32 = 2;

/// The few lines under which a stock authority makes its identity key, before the network's `DirAuthority` lines exist.
pub(super) fn for_keys(node: &Node, empty_file: &str) -> String {
    let (directory, nickname) = (node.dir().display(), node.nickname());
    let geoip = format!("GeoIPFile {empty_file}\nGeoIPv6File {empty_file}\n");
    format!("DataDirectory {directory}\nNickname {nickname}\nORPort 9001\nSocksPort 0\n{geoip}")
}

/// The torrc of `node`. `fingerprint` translates the nicknames of pins.
pub(super) fn for_node(
    node: &Node,
    spec: &NodeSpec,
    shared: &Shared,
    fingerprint: &dyn Fn(&str) -> String,
) -> String {
    let mut torrc = Lines::default();
    torrc.put("TestingTorNetwork", 1);
    for authority in &shared.authorities {
        torrc.put("DirAuthority", authority);
    }
    torrc.put("DataDirectory", node.dir().display());
    torrc.put("Log", "notice stdout");
    // Nobody to protect here, and the addresses are what one looks for when something fails.
    torrc.put("SafeLogging", 0);
    // Our authority and our proxy let the system choose where they connect from, and have no use for the rest.
    let is_plain = matches!(node.role(), Role::Authority | Role::Client) && node.kind().is_onionring();
    if !is_plain {
        // So that peers see who connects. C tor does it in a namespace only: towards loopback it binds to nothing.
        torrc.put("OutboundBindAddress", node.address());
        // Everybody asks the authorities, and early. A client that asks a cache that has not caught up yet waits 10 s
        // before it asks again.
        torrc.put("FetchDirInfoEarly", 1);
        torrc.put("FetchDirInfoExtraEarly", 1);
        // Parsing the real ones is half of the CPU time that starting a tor takes.
        torrc.put("GeoIPFile", &shared.empty_file);
        torrc.put("GeoIPv6File", &shared.empty_file);
        torrc.put("ShutdownWaitLength", 0);
    }
    if let Some(port) = node.control_addr() {
        torrc.put("ControlPort", port);
        torrc.put("CookieAuthentication", 1);
    }
    if let Some(port) = node.metrics_addr() {
        torrc.put("MetricsPort", port);
        torrc.put("MetricsPortPolicy", "accept *");
    }
    match node.role() {
        Role::Client => client(&mut torrc, node, spec, fingerprint),
        _ => server(&mut torrc, node),
    }
    if node.role() != Role::Client && !is_plain {
        relay(&mut torrc, node, spec, shared);
    }
    if node.role() == Role::Authority {
        authority(&mut torrc, shared);
    }
    let shared_lines = shared.extra.iter().filter(|(role, _)| role.is_none_or(|role| role == node.role()));
    torrc.override_with(shared_lines.map(|(_, line)| line.as_str()).collect());
    torrc.override_with(spec.torrc.iter().map(String::as_str).collect());
    torrc.text()
}

fn client(torrc: &mut Lines, node: &Node, spec: &NodeSpec, fingerprint: &dyn Fn(&str) -> String) {
    if let Some(port) = node.socks_addr() {
        torrc.put("SocksPort", port);
    }
    // A few relays are a whole network here; the default wants more of them known before it builds circuits.
    torrc.put("PathsNeededToBuildCircuits", "0.25");
    // On loopback a slow circuit is a busy machine, nothing to learn from.
    torrc.put("LearnCircuitBuildTimeout", 0);
    torrc.put("CircuitBuildTimeout", 30);
    let pins = [
        ("EntryNodes", &spec.pins.entry),
        ("MiddleNodes", &spec.pins.middle),
        ("ExitNodes", &spec.pins.exit),
    ];
    for (option, names) in pins {
        if !names.is_empty() {
            let list: Vec<String> = names.iter().map(|name| format!("${}", fingerprint(name))).collect();
            torrc.put(option, list.join(","));
            torrc.put("StrictNodes", 1);
        }
    }
}

/// What all have that are listed in a consensus.
fn server(torrc: &mut Lines, node: &Node) {
    torrc.put("Nickname", node.nickname());
    torrc.put("ContactInfo", "onionring-loadgen private network");
    torrc.put("Address", node.address());
    if let Some(port) = node.or_addr() {
        torrc.put("ORPort", format_args!("{port} IPv4Only"));
    }
    if let Some(port) = node.dir_addr() {
        torrc.put("DirPort", port);
    }
}

fn relay(torrc: &mut Lines, node: &Node, spec: &NodeSpec, shared: &Shared) {
    torrc.put("SocksPort", 0);
    // Publish at once: the self-test needs a consensus, and the consensus needs what is published.
    torrc.put("AssumeReachable", 1);
    match node.role() {
        Role::Exit => {
            torrc.put("ExitRelay", 1);
            torrc.put("ExitPolicy", "accept *:*");
        }
        _ => {
            torrc.put("ExitRelay", 0);
            torrc.put("ExitPolicy", "reject *:*");
        }
    }
    // An exit would refuse streams whose previous hop it does not know yet.
    torrc.put("RefuseUnknownExits", 0);
    torrc.put("ServerDNSResolvConfFile", &shared.resolv_conf);
    torrc.put("ServerDNSDetectHijacking", 0);
    torrc.put("ServerDNSTestAddresses", super::SERVER_NAME);
    if let Some(count) = spec.shards.filter(|_| node.kind().is_onionring()) {
        torrc.put("NumCPUs", count);
    }
}

fn authority(torrc: &mut Lines, shared: &Shared) {
    torrc.put("AuthoritativeDirectory", 1);
    torrc.put("V3AuthoritativeDirectory", 1);
    torrc.put("TestingV3AuthInitialVotingInterval", INITIAL_VOTING_INTERVAL_SECONDS);
    torrc.put("TestingV3AuthInitialVoteDelay", VOTE_DELAY_SECONDS);
    torrc.put("TestingV3AuthInitialDistDelay", VOTE_DELAY_SECONDS);
    torrc.put("V3AuthVotingInterval", shared.voting_interval_seconds);
    torrc.put("V3AuthVoteDelay", VOTE_DELAY_SECONDS);
    torrc.put("V3AuthDistDelay", VOTE_DELAY_SECONDS);
    torrc.put("V3BandwidthsFile", &shared.bandwidths);
    // Flags that otherwise take days of uptime. Clients take no guard that is not Stable, and without the guarantees
    // only relays older than the median would be: a matter of which process started in which second.
    torrc.put("AuthDirVoteStableGuaranteeMinUptime", 0);
    torrc.put("AuthDirVoteStableGuaranteeMTBF", 0);
    torrc.put("TestingDirAuthVoteHSDir", "*");
    // No guard but the relays under test; in a network without relays the authorities have to do.
    match shared.guards.is_empty() {
        true => torrc.put("TestingDirAuthVoteGuard", "*"),
        false => {
            torrc.put("TestingDirAuthVoteGuard", shared.guards.join(","));
            torrc.put("TestingDirAuthVoteGuardIsStrict", 1);
        }
    }
}

/// Lines of a torrc, each split into option and value.
#[derive(Default)]
struct Lines(Vec<(String, String)>);

impl Lines {
    fn put(&mut self, option: &str, value: impl Display) {
        self.0.push((option.to_owned(), value.to_string()));
    }

    /// Adds lines in place of those that set the same options so far. With a `+` before the option they join them.
    fn override_with(&mut self, lines: Vec<&str>) {
        let lines: Vec<(&str, &str)> =
            lines.into_iter().map(|line| line.trim().split_once(' ').unwrap_or((line.trim(), ""))).collect();
        self.0.retain(|(option, _)| !lines.iter().any(|(replaced, _)| replaced.eq_ignore_ascii_case(option)));
        for (option, value) in lines {
            self.put(option.trim_start_matches('+'), value);
        }
    }

    fn text(&self) -> String {
        self.0.iter().map(|(option, value)| format!("{option} {value}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::PathBuf;

    use super::*;
    use crate::net::spec::Kind;

    #[test]
    fn all_authorities_vote_by_the_same() {
        let torrc = |kind| {
            let home = tempfile::tempdir().unwrap();
            let spec = NodeSpec::new(Role::Authority, kind).named("a");
            let node = Node::lay_out(&spec, PathBuf::new(), Ipv4Addr::LOCALHOST, home.path()).unwrap();
            let shared = Shared { voting_interval_seconds: 20, ..Shared::default() };
            for_node(&node, &spec, &shared, &|_| String::new())
        };
        let [ours, stock] = [Kind::ONIONRING, Kind::TOR].map(torrc);
        let of_votes = |torrc: &str| -> Vec<String> {
            let counts =
                |line: &&str| ["Testing", "V3", "AuthDir"].iter().any(|begin| line.starts_with(begin));
            torrc.lines().filter(counts).map(str::to_owned).collect()
        };
        assert_eq!(of_votes(&ours), of_votes(&stock));
        assert!(ours.contains("\nV3AuthVotingInterval 20\n"), "{ours}");
        for option in ["ControlPort", "SocksPort", "ExitPolicy", "FetchDirInfoEarly", "OutboundBindAddress"] {
            assert!(!ours.contains(option), "{option}: {ours}");
            assert!(stock.contains(option), "{option}: {stock}");
        }
    }

    #[test]
    fn lines_replace_or_join() {
        let mut lines = Lines::default();
        lines.put("ExitPolicy", "accept *:*");
        lines.put("ORPort", "127.1.1.1:9001");
        lines.override_with(vec!["exitpolicy reject *:25", "ExitPolicy accept *:*", "+ORPort [::1]:9001"]);
        assert_eq!(
            lines.text(),
            "ORPort 127.1.1.1:9001\nexitpolicy reject *:25\nExitPolicy accept *:*\nORPort [::1]:9001\n"
        );
    }
}
