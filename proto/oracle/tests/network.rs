//! Every document of a network of stock authorities with onionring relays.
//!
//! The relays' program is `target/debug/onionring-relay` of the main workspace, or what `ONIONRING_RELAY` names. With
//! the path of a stock tor there, the same network is all stock: that is how one learns what authorities warn of anyway.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, io};

use onionring_loadgen::net::directory::get;
use onionring_loadgen::net::{Kind as Program, Network, NetworkSpec, Node, NodeSpec, Role};
use onionring_oracle::check::{Answers, damaged, good};
use onionring_oracle::{Kind, ours};
use onionring_proto::netdoc::consensus::UnverifiedConsensus;
use onionring_proto::netdoc::text::base64_unpadded;

const PATIENCE: Duration = Duration::from_secs(120);
const CONSENSUS: &str = "/tor/status-vote/current/consensus";
/// The onionring relay that serves its directory over plain HTTP too.
const CACHE: &str = "cache";
/// Authorities, onionring relays and exit, stock relay.
const RELAYS: usize = 7;

/// One network for all of it: booting is what takes time.
#[test]
fn a_network_with_onionring_relays() {
    let dir_port = free_port();
    let net = boot(dir_port);
    let mut documents = Vec::new();
    for authority in net.nodes().iter().filter_map(Node::dir_addr) {
        documents = all_answers(&net, authority).documents();
        good(&documents);
    }
    damaged(&documents, 200, 3).check();
    is_served_by_cache(&net, SocketAddr::from((net.node(CACHE).address(), dir_port)));
    let now = net.consensus().unwrap().valid_after;
    net.wait_consensus("the next consensus", PATIENCE, |consensus| consensus.valid_after > now).unwrap();
    nobody_complains(&net);
}

fn boot(dir_port: u16) -> Network {
    let cache = NodeSpec::new(Role::Relay, Program::ONIONRING).named(CACHE);
    let spec = NetworkSpec::stock()
        .program("onionring", relay_program())
        // Arti's new parser does not read a consensus without parameters.
        .torrc_of(Role::Authority, "ConsensusParams circwindow=900 onion-key-rotation-days=20")
        .node(cache.torrc(&format!("DirPort {dir_port}")))
        .add(Role::Relay, Program::ONIONRING, 1)
        .add(Role::Exit, Program::ONIONRING, 1)
        .add(Role::Relay, Program::TOR, 1);
    spec.boot().unwrap_or_else(|e| panic!("{e}"))
}

fn relay_program() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/onionring-relay");
    let program = env::var_os("ONIONRING_RELAY").map_or(built, PathBuf::from);
    let shown = program.display();
    assert!(
        program.is_file(),
        "{shown} does not exist: run `cargo build` in the main workspace, or set ONIONRING_RELAY"
    );
    program
}

/// A port that is free on all addresses, because a relay's DirPort listens on all of them.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|listener| listener.local_addr()).unwrap().port()
}

fn text(from: SocketAddr, path: &str) -> io::Result<String> {
    get(from, path).and_then(|body| String::from_utf8(body).map_err(io::Error::other))
}

/// All that a directory has; `extra_infos` is where it has extra-infos.
fn answers(from: SocketAddr, extra_infos: &str) -> io::Result<Answers> {
    let microdesc = text(from, &format!("{CONSENSUS}-microdesc"))?;
    let parsed = UnverifiedConsensus::parse(&microdesc).map_err(io::Error::other)?;
    let digests = parsed.peek().relays.iter().filter_map(|relay| relay.microdesc());
    let digests: Vec<String> = digests.map(|digest| base64_unpadded(digest)).collect();
    Ok(Answers {
        certs: text(from, "/tor/keys/all")?,
        descriptors: text(from, "/tor/server/all")?,
        extra_infos: text(from, extra_infos)?,
        microdescs: text(from, &format!("/tor/micro/d/{}", digests.join("-")))?,
        consensuses: vec![text(from, CONSENSUS)?, microdesc],
    })
}

/// What an authority has, once it has all there is to have: it may have been caught between two versions.
fn all_answers(net: &Network, authority: SocketAddr) -> Answers {
    let mut found = None;
    let what = "every relay to have a descriptor, an extra-info and a microdescriptor";
    net.wait(what, PATIENCE, || {
        let all = |kind, body: &str| ours::split(kind, body).len() == RELAYS;
        found = answers(authority, "/tor/extra/all").ok().filter(|answers| {
            all(Kind::Descriptor, &answers.descriptors)
                && all(Kind::ExtraInfo, &answers.extra_infos)
                && all(Kind::Microdesc, &answers.microdescs)
                && answers.go_together()
        });
        found.is_some()
    })
    .unwrap_or_else(|e| panic!("{e}"));
    found.expect("the wait ended with answers")
}

/// The cache comes to serve the very documents that the first authority has. It keeps no extra-info but its own.
fn is_served_by_cache(net: &Network, cache: SocketAddr) {
    let texts = |answers: &Answers| -> BTreeSet<String> {
        let documents = answers.documents().into_iter();
        documents.filter(|d| d.kind != Kind::ExtraInfo).map(|d| d.text).collect()
    };
    let authority = net.nodes().iter().find_map(Node::dir_addr).expect("authorities have directory ports");
    let mut served = Answers::default();
    net.wait("the cache to have the authority's documents", PATIENCE, || {
        let both = (answers(authority, "/tor/extra/all"), answers(cache, "/tor/extra/authority"));
        let (Ok(authority), Ok(cache)) = both else { return false };
        served = cache;
        texts(&authority) == texts(&served) && served.go_together()
    })
    .unwrap_or_else(|e| panic!("{e}"));
    let documents = served.documents();
    assert_eq!(documents.iter().filter(|d| d.kind == Kind::ExtraInfo).count(), 1);
    good(&documents);
}

/// What authorities of a new testing network warn of, whoever the relays are, and why that is no harm.
const HARMLESS: &[(&str, &str)] = &[
    ("You have used DirAuthority", "the network is a private one"),
    ("TestingTorNetwork is set", "the same"),
    ("V3AuthVotingInterval is very low", "so that nobody has to wait"),
    ("Your log may contain sensitive information", "there is none in it"),
    ("You are running Tor as root", "whoever runs the tests"),
    ("Cannot open fingerprint file", "no relay is rejected or approved by hand"),
    ("sr-state", "there was no vote on a shared random value before"),
    ("No available nodes when trying to choose node", "the first consensus may list no relay"),
    (
        "vote",
        "an authority is late, at the start or on a busy machine: no matter between relays and authorities",
    ),
    ("signature", "the same"),
    ("consensus", "the same"),
    ("Your system clock just jumped", "the same"),
];

/// No authority warns of anything that a network of stock relays would not make it warn of, and no stock node names
/// an onionring relay in a warning.
fn nobody_complains(net: &Network) {
    let (relays, stock): (Vec<&Node>, Vec<&Node>) = net.nodes().iter().partition(|n| n.kind().is_onionring());
    for node in stock {
        for warning in node.warnings() {
            let about = |relay: &&&Node| {
                let address = relay.address().to_string();
                [relay.nickname(), relay.fingerprint(), &address].iter().any(|name| has_word(&warning, name))
            };
            let concerned = relays.iter().find(about);
            assert!(concerned.is_none(), "{node:?} warns of {concerned:?}: {warning}");
            let warning = warning.to_lowercase();
            let is_about = |text: &str| warning.contains(&text.to_lowercase());
            let about_relays = is_about("descriptor") || is_about("extra-info") || is_about("extrainfo");
            let harmless = !about_relays && HARMLESS.iter().any(|(text, _)| is_about(text));
            assert!(harmless || node.role() != Role::Authority, "{node:?}: {warning}");
        }
    }
}

/// Whether a name stands in a text, and not just at the beginning of a longer one.
fn has_word(text: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    text.match_indices(name).any(|(at, _)| ends(&text[at + name.len()..]))
}
