//! What stock authorities make of relays: microdescriptors, votes, consensuses. All of it made again, byte for byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use onionring_loadgen::net::{Kind, Network, NetworkSpec, Node, NodeSpec, Role, directory};
use onionring_proto::netdoc::consensus::UnverifiedConsensus;
use onionring_proto::netdoc::microdesc::Microdesc;
use onionring_proto::netdoc::routerdesc::{RouterDesc, split_documents};
use onionring_proto::netdoc::tally::{METHODS, SharedRandomTerms, Tally, Terms};
use onionring_proto::netdoc::vote::{SignedVote, VotedMicrodesc};

use super::{boot, relay, wait};

const AUTHORITIES: usize = 3;
const VOTES: &str = "/tor/status-vote/current";

/// What one authority says of one time.
struct Round {
    votes: Vec<String>,
    consensuses: [String; 2],
    descriptors: String,
}

/// A network whose authorities have opinions of their own.
fn network() -> Network {
    let opinions = [
        "ConsensusParams circwindow=900 bwweightscale=9000",
        "ConsensusParams circwindow=950 cc_alg=2 bwweightscale=9500",
        "ConsensusParams circwindow=800 some-future-param=-7",
    ];
    let authority = |opinion: &&str| NodeSpec::new(Role::Authority, Kind::TOR).torrc(opinion);
    let relays = ["oMiddle", "tGuard", "tExit"].into_iter().map(relay);
    boot(opinions.iter().map(authority).chain(relays).fold(NetworkSpec::new(), NetworkSpec::node))
}

fn get(from: SocketAddr, path: &str) -> Option<String> {
    String::from_utf8(directory::get(from, path).ok()?).ok()
}

/// `None` while the authority is between two times.
fn round(authority: SocketAddr) -> Option<Round> {
    let ns = get(authority, &format!("{VOTES}/consensus"))?;
    let read = UnverifiedConsensus::parse(&ns).ok()?;
    let vote = |voter| get(authority, &format!("{VOTES}/{voter}"));
    let votes: Vec<String> = read.peek().voters.iter().map(|v| vote(v.identity)).collect::<Option<_>>()?;
    let digests = votes.iter().map(|vote| SignedVote::parse(vote).ok().map(|v| v.digest));
    let microdesc = get(authority, &format!("{VOTES}/consensus-microdesc"))?;
    let same_time = UnverifiedConsensus::parse(&microdesc).ok()?.peek().lifetime == read.peek().lifetime;
    let complete = digests.eq(read.peek().voters.iter().map(|v| v.vote_digest)) && votes.len() == AUTHORITIES;
    let descriptors = get(authority, "/tor/server/all")?;
    (same_time && complete).then_some(Round { votes, consensuses: [ns, microdesc], descriptors })
}

#[test]
fn what_stock_authorities_compute_we_compute() {
    let network = network();
    let authority =
        network.nodes().iter().find_map(Node::dir_addr).expect("authorities have directory ports");
    let mut found = None;
    wait(&network, "all votes of one time, and the consensuses of it", || {
        found = round(authority);
        found.is_some()
    });
    let Round { votes, consensuses, descriptors } = found.expect("the wait ended with a round");

    let votes: Vec<SignedVote> = votes
        .iter()
        .map(|text| {
            let signed = SignedVote::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert!(text.starts_with(&(signed.vote.encode() + "directory-signature ")), "{text}");
            signed
        })
        .collect();
    // Whether this is the first consensus of a run of the shared random protocol only the authorities know.
    let tallies = [false, true].map(|fresh| {
        let shared_random = Some(SharedRandomTerms { fresh });
        Tally::of(&votes, &Terms { authorities: AUTHORITIES, shared_random }).expect("enough votes")
    });
    let theirs = consensuses.each_ref().map(|text| {
        let end = text.find("directory-signature ").expect("it is signed");
        &text[..end]
    });
    let ours = tallies.each_ref().map(|tally| [&*tally.ns.text, &*tally.microdesc.text]);
    assert!(ours.contains(&theirs), "ours: {}\ntheirs: {}", ours[0].concat(), theirs.concat());

    let descriptors: BTreeMap<_, RouterDesc> = split_documents(&descriptors)
        .map(|text| RouterDesc::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}")))
        .map(|desc| (desc.digest, desc))
        .collect();
    let mut compared = 0;
    for relay in votes.iter().flat_map(|v| &v.vote.relays) {
        let Some(desc) = descriptors.get(&relay.descriptor) else { continue };
        let ours: Vec<VotedMicrodesc> = Microdesc::texts_of(desc, METHODS)
            .into_iter()
            .map(|(methods, text)| VotedMicrodesc { methods, digest: Microdesc::digest_of(&text) })
            .collect();
        assert_eq!(relay.microdescs, ours, "{}", relay.nickname);
        compared += 1;
    }
    assert!(compared >= AUTHORITIES, "{compared} entries had descriptors to compare with");
}
