//! Authorities of both kinds come to one consensus, and nobody can tell who is which.

use onionring_loadgen::net::agreement::Agreement;
use onionring_loadgen::net::directory::Document;
use onionring_loadgen::net::{Kind, Network, Node, NodeSpec, Role};
use onionring_proto::netdoc::vote::SignedVote;
use onionring_proto::time::Unix;

use super::{PATIENCE, boot, spec};

const MIB: u64 = 1 << 20;

/// What stock nodes warn of in such a network, whoever is its authority, in lower case.
const USUAL: [&str; 11] = [
    // Of a testing network, its torrc, and the tests' user.
    "you have used dirauthority",
    "testingtornetwork is set",
    "your log may contain sensitive information",
    "you are running tor as root",
    "votinginterval is very low",
    // At the first start.
    "sr-state",
    "approved-routers",
    // While there is no consensus, or one with few relays.
    "http status code 404 (\"not found\")",
    "no available nodes when trying to choose node",
    "failed to choose an exit server",
    "could not find a node that matches the configured _hslayer2nodes",
];

/// What authorities warn of when some start after the first vote has begun, or when the machine is so busy that one is late
/// by a second or two, which is as long as a round has here. What is wrong with votes and signatures themselves reads
/// otherwise.
const LATE: [&str; 14] = [
    "bad valid-after time",
    "rejecting vote from",
    "rejected vote from",
    "enough votes to generate a consensus",
    "could not add queued signature to new consensus",
    "response after uploading signatures",
    "posted vote received too late",
    "a consensus needs",
    "not enough info to publish pending",
    "mismatched digest",
    "does not include configured authority",
    "too late to vote for this period",
    "there is no new consensus",
    "has signed another consensus than ours",
];

/// What ours warn of: the tests' user, and what the relays lack for the public network.
const OURS: [&str; 2] = ["runs as root", "the consensus requires protocols of relays"];

#[test]
fn ours_alone() {
    works(3, 0);
}

#[test]
fn one_of_ours_among_stock_ones() {
    works(1, 2);
}

#[test]
fn one_stock_one_among_ours() {
    works(2, 1);
}

/// What is asked of ours holds among stock ones.
#[test]
fn stock_ones_alone() {
    works(0, 3);
}

#[test]
#[ignore = "takes a minute and all of the machine: `make soak`"]
fn nine() {
    works(5, 4);
}

fn works(ours: usize, stock: usize) {
    let network = boot(spec(ours, stock).node(NodeSpec::new(Role::Client, Kind::TOR).named("client")));
    let agreement = two_in_a_row(&network);
    votes_are_there(&network, &agreement);
    assert_eq!(network.download("client", 4 * MIB).unwrap().bytes, 4 * MIB);
    assert_eq!(network.upload("client", MIB).unwrap().bytes, MIB);
    assert_eq!(complaints(&network), [""; 0]);
}

/// Waits until all authorities have agreed in two periods, one after the other, and returns the later agreement.
fn two_in_a_row(network: &Network) -> Agreement {
    let after =
        |valid_after| network.wait_agreement(valid_after, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let mut last = after(Unix(0));
    for _ in 0..10 {
        let next = after(last.lifetime.valid_after);
        if next.lifetime.valid_after == last.lifetime.fresh_until {
            return next;
        }
        last = next;
    }
    panic!("there is always a period between two agreements; the last was {last:#?}");
}

/// Every authority has the votes of all that the consensus counts, and those are the same.
fn votes_are_there(network: &Network, agreement: &Agreement) {
    let authorities = network.authorities();
    assert_eq!(agreement.voters.len(), authorities.len());
    for voter in &agreement.voters {
        let served = |authority: &Node| {
            let from = authority.dir_addr().expect("authorities have directory ports");
            Document::Vote(*voter).fetch(from).map_err(|error| format!("{authority:?}: {error}"))
        };
        // Of whatever period it is by now, at the last authority too.
        let vote = network.wait_ok("a vote that all authorities have", PATIENCE, || {
            let votes = authorities.iter().map(|node| served(node)).collect::<Result<Vec<_>, _>>()?;
            let (vote, others) = votes.split_first().expect("there is an authority");
            let all_alike = others.iter().all(|other| other == vote);
            if all_alike { Ok(vote.clone()) } else { Err("they differ".to_owned()) }
        });
        let vote = SignedVote::parse(&vote.unwrap_or_else(|error| panic!("{error}"))).unwrap();
        let relays = network.nodes().iter().filter(|node| node.role() != Role::Client).count();
        assert_eq!(vote.vote.relays.len(), relays, "{voter}");
    }
}

/// Warnings that there would not be if all authorities were stock ones.
fn complaints(network: &Network) -> Vec<String> {
    let of = |node: &Node| {
        let usual = if node.kind().is_onionring() { &OURS[..] } else { &USUAL[..] };
        let is_usual = |line: &String| {
            let line = line.to_lowercase();
            usual.iter().chain(&LATE).any(|words| line.contains(words))
        };
        let unusual = node.warnings().into_iter().filter(|line| !is_usual(line));
        unusual.map(|line| format!("{node:?}: {line}")).collect::<Vec<_>>()
    };
    network.nodes().iter().flat_map(of).collect()
}
