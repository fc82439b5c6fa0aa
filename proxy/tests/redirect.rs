//! A program that knows of no proxy, whose connections the packet filter redirects to `TransPort`.
//!
//! A program by itself, since it moves into a network namespace, where the rules harm nobody.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use onionring_loadgen::net::{Kind, NetworkSpec, NodeSpec, Role, netns};
use onionring_loadgen::traffic::Pattern;
use onionring_proxy::control::{self, Report, Request};

/// What is fetched: so many bytes of the pattern of this seed.
const BYTES: usize = 100_000;
const SEED: u64 = 8;

/// Where the program's connections come from, by which the packet filter knows them.
const APPLICATION: &str = "127.9.9.9";

#[test]
fn redirected_connections_lead_where_they_were_going() {
    if !netns::inside() && !may_enter() {
        eprintln!("skipped: this needs root, or a kernel that lets users make network namespaces");
        return;
    }
    netns::enter().unwrap();
    if let Err(said) =
        nft("table ip to_proxy {\n chain output {\n type nat hook output priority -100\n }\n}\n")
    {
        assert!(!said.contains("syntax"), "{said}");
        eprintln!("skipped: the kernel of this machine redirects no connections: {said}");
        return;
    }
    let client =
        NodeSpec::new(Role::Client, Kind::ONIONRING).named("client").torrc("TransPort 127.0.0.1:auto");
    let spec = NetworkSpec::new()
        .add(Role::Authority, Kind::ONIONRING, 3)
        .add(Role::Relay, Kind::ONIONRING, 2)
        .node(NodeSpec::new(Role::Exit, Kind::ONIONRING).named("exit"))
        .node(client)
        .shards(1);
    let network = spec.boot().unwrap_or_else(|error| panic!("{error}"));
    let report = Report::parse(&control::ask(network.node("client").dir(), Request::Status).unwrap());
    let trans_port: SocketAddr = report.ports_of("TransPort").next().unwrap().parse().unwrap();
    let rule = format!("ip saddr {APPLICATION} meta l4proto tcp redirect to :{}", trans_port.port());
    nft(&format!("add rule ip to_proxy output {rule}")).unwrap();

    let server = network.server().address();
    let url = format!("http://{server}/{BYTES}?seed={SEED}");
    let words = ["--silent", "--show-error", "--fail", "--max-time", "60", "--interface", APPLICATION, &url];
    let output = Command::new("curl").args(words).output().unwrap_or_else(|error| panic!("curl: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut expected = vec![0; BYTES];
    Pattern::new(SEED).fill(&mut expected);
    assert!(output.stdout == expected, "other bytes");
    let from = network.server().served().pop().unwrap().from;
    assert_eq!(from, network.node("exit").address(), "it came through the network");
}

fn may_enter() -> bool {
    let words = ["--net", "--user", "--map-root-user", "true"];
    rustix::process::geteuid().is_root()
        || Command::new("unshare").args(words).status().is_ok_and(|status| status.success())
}

/// Has the packet filter take these rules; the error is what `nft` says.
fn nft(rules: &str) -> Result<(), String> {
    let started = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut nft = started.unwrap_or_else(|error| panic!("nft (package nftables): {error}"));
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    let output = nft.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")),
    }
}
