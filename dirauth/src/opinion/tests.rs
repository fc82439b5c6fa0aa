use std::time::Duration;

use onionring_proto::netdoc::routerdesc::split_documents;
use onionring_proto::netdoc::vote::SignedVote;
use rand_core::SeedableRng as _;

use super::*;
use crate::approval::ApprovedRouters;
use crate::bandwidth_file::BandwidthFile;
use crate::flags::{FlagOptions, TestingOptions};
use crate::options::tests::options;
use crate::voting::tests::maker::{VALID_AFTER, maker};

/// What an authority of C tor 0.4.9.11 voted at `VOTED` on these descriptors: some lines of its vote.
const DESCRIPTORS: &str = include_str!("../testdata/descriptors.txt");
const VOTE: &str = include_str!("../testdata/vote-a0.txt");
const VOTED: Unix = Unix(1_795_801_460);

fn settings() -> AuthorityOptions {
    let lines = "TestingTorNetwork 1\nV3AuthVotingInterval 1 hour\nV3AuthVoteDelay 300 seconds\n\
                 V3AuthDistDelay 200 seconds\nConsensusParams CircuitPriorityHalflifeMsec=30000\n\
                 VersioningAuthoritativeDirectory 1\nRecommendedVersions 0.4.9.11,0.4.9.12\n";
    AuthorityOptions {
        // As the recorded one was set, but for times that its torrc did not say.
        flags: FlagOptions {
            list_bad_exits: true,
            list_middle_only: true,
            max_servers_per_address: 0,
            hs_dir_uptime: Duration::ZERO,
            time_to_learn_reachability: Duration::ZERO,
            allow_private_addresses: true,
            testing: Some(TestingOptions::default()),
            ..FlagOptions::default()
        },
        ..options(lines)
    }
}

/// The opinion of the recorded authority on the recorded descriptors.
fn opinion(shared_random: Option<VoteLines>) -> Opinion {
    let parsed = split_documents(DESCRIPTORS).map(|text| Arc::new(RouterDesc::parse(text).unwrap()));
    let relays: BTreeMap<_, _> = parsed.map(|descriptor| (descriptor.identity, descriptor)).collect();
    let of = |nickname: &str| {
        relays.values().find(|descriptor| descriptor.nickname.as_str() == nickname).unwrap().identity
    };
    let line = |(nickname, bandwidth): &(&str, u32)| format!("node_id={} bw={bandwidth}\n", of(nickname));
    let measured = [("r0", 300), ("r1", 42), ("a1", 777)];
    let file = format!("{}\n{}", VOTED.0, measured.iter().map(line).collect::<String>());
    let mut measurements = Measurements::default();
    measurements.update(&BandwidthFile::read(file.as_bytes(), VOTED).unwrap(), VOTED);
    // That one had forgotten this mark, as C tor does after a consensus in which others say Valid.
    let decisions = include_str!("../testdata/approved-routers.txt").lines();
    let decisions: Vec<_> = decisions.filter(|line| !line.starts_with("!invalid")).collect();
    let history = include_str!("../testdata/router-stability-after.txt");
    let (mut stability, _) = Stability::read(history, Unix(VOTED.0 + 5)).unwrap();
    let us = Us {
        nickname: "a0".into(),
        relay: of("a0"),
        address: [127, 0, 0, 1].into(),
        or_port: 5000,
        dir_port: 7000,
        certificate: maker(0).certificate.clone(),
    };
    Grounds {
        options: &settings(),
        relays: &relays,
        approvals: &Approvals {
            routers: ApprovedRouters::read(&decisions.join("\n")).0,
            ..Approvals::default()
        },
        reached: &|_| Reached { v4: Some(Unix(VOTED.0 - 60)), v6: None },
        authorities: &["a0", "a1", "a2"].map(of),
        params: &ConsensusParams::default(),
        measurements: &measurements,
        bandwidth_source: Some(BandwidthSource {
            headers: vec!["timestamp=1".into(), "a=b".into()],
            digest: [7; 32],
        }),
        shared_random,
        us: &us,
        started: Unix(VOTED.0 - 79),
        valid_after: Unix(VALID_AFTER),
        now: VOTED,
    }
    .opinion(&mut stability)
}

fn lines<'a>(vote: &'a str, keyword: &str) -> Vec<&'a str> {
    vote.lines().filter(|line| line.starts_with(keyword)).collect()
}

#[test]
fn relays_are_listed_as_a_stock_authority_lists_them() {
    let text = opinion(None).vote.encode();
    for keyword in ["r ", "s ", "w ", "flag-thresholds ", "known-flags "] {
        assert_eq!(lines(&text, keyword), lines(VOTE, keyword));
    }
}

#[test]
fn a_vote_is_what_others_read() {
    let lines = VoteLines {
        commits: include_str!("../testdata/sr-votes.txt")
            .lines()
            .filter_map(|line| line.strip_prefix("shared-rand-commit "))
            .take(2)
            .map(str::to_owned)
            .collect(),
        previous: None,
        current: Some(crate::shared_random::Srv { reveals: 3, value: [9; 32] }),
    };
    assert_eq!(lines.commits.len(), 2);
    let Opinion { vote, microdescs, microdesc_texts } = opinion(Some(lines.clone()));
    let rng = &mut rand_chacha::ChaCha8Rng::from_seed([1; 32]);
    let (text, signed) = vote.sign(&maker(0).signer.key, rng).unwrap();
    assert_eq!(SignedVote::parse(&text).unwrap(), signed);
    assert_eq!(signed.vote, vote, "nothing is lost on the way");

    for line in &lines.commits {
        assert!(text.contains(&format!("\nshared-rand-commit {line}\n")), "{line}");
    }
    for line in [
        "fresh-until 2026-11-22 12:00:00",
        "valid-until 2026-11-22 14:00:00",
        "voting-delay 300 200",
        "client-versions 0.4.9.11,0.4.9.12",
        "bandwidth-file-headers timestamp=1 a=b",
        "params AuthDirMaxServersPerAddr=0 CircuitPriorityHalflifeMsec=30000",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} is not in\n{text}");
    }
    assert!(vote.required_relay_protocols.is_some() && vote.required_client_protocols.is_some());
    assert!(vote.recommended_relay_protocols.is_some() && vote.recommended_client_protocols.is_some());

    // What it names can be served.
    let served: Vec<[u8; 32]> = microdescs.iter().map(|microdesc| microdesc.digest).collect();
    let named = vote.relays.iter().flat_map(|relay| &relay.microdescs).map(|microdesc| microdesc.digest);
    assert!(named.clone().count() >= vote.relays.len() && named.into_iter().all(|n| served.contains(&n)));
    for (microdesc, text) in microdescs.iter().zip(&microdesc_texts) {
        assert_eq!(Microdesc::digest_of(text), microdesc.digest);
    }
}

#[test]
fn commitments_are_told_as_far_as_they_are_known() {
    let (identity, base64) = ("A".repeat(40), "A".repeat(54) + "==");
    let told = |rest: &str| commit(&format!("1 sha3-256 {identity} {base64}{rest}")).map(|c| c.reveal);
    assert_eq!(told(""), Some(Reveal::Withheld));
    assert_eq!(told(" "), Some(Reveal::Missing));
    assert_eq!(told(&format!(" {base64}")), Some(Reveal::Known([0; 40])));
    assert_eq!((told(" x"), commit("1 sha3-256")), (None, None));
}
