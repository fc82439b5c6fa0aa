mod stock;

use proptest::prelude::*;

use super::*;
use crate::netdoc::consensus::{PendingConsensus, SharedRandom, UnverifiedConsensus};
use crate::netdoc::protover::Protocols;
use crate::netdoc::testdata::votes::{self, Recording};
use crate::netdoc::text::Nickname;
use crate::netdoc::vote::random::{self, Dice, as_signed, plain, relay};
use crate::netdoc::vote::{EdListing, SharedRandomVote, Vote, VotedMicrodesc, VotedParams, VotedRelay};
use crate::time::Unix;

/// Recorded networks take part in the shared random protocol.
fn terms(authorities: usize) -> Terms {
    Terms { authorities, shared_random: Some(SharedRandomTerms { fresh: false }) }
}

#[test]
fn recorded_votes_give_the_recorded_consensuses() {
    for Recording { name, authorities, votes, ns, microdesc, .. } in votes::all() {
        let votes: Vec<SignedVote> = votes::parsed(votes);
        let tally = Tally::of(&votes, &terms(authorities)).unwrap();
        for (ours, theirs) in [(&tally.ns, ns), (&tally.microdesc, microdesc)] {
            votes::same_lines(name, &ours.text, votes::unsigned(theirs));
        }
    }
}

/// Votes of as many authorities, each with all `relays`, Running and Valid; edited by number.
fn ballot(count: u8, relays: &[VotedRelay], edit: impl Fn(usize, &mut Vote)) -> Vec<SignedVote> {
    let vote = |n| {
        let mut vote = plain(n);
        vote.relays = relays.to_vec();
        let listed = vote.flag_bit("Running").unwrap() | vote.flag_bit("Valid").unwrap();
        vote.relays.iter_mut().for_each(|relay| relay.flags |= listed);
        edit(usize::from(n), &mut vote);
        as_signed(vote)
    };
    (0..count).map(vote).collect()
}

fn tally(authorities: usize, votes: &[SignedVote]) -> Tally {
    Tally::of(votes, &terms(authorities)).unwrap()
}

/// The lines of the `ns` flavour that begin with a keyword, without it.
fn lines(tally: &Tally, keyword: &str) -> Vec<String> {
    lines_of(&tally.ns.text, keyword)
}

fn lines_of(text: &str, keyword: &str) -> Vec<String> {
    let rest = |line: &str| line.strip_prefix(keyword)?.strip_prefix(' ').map(str::to_owned);
    text.lines().filter_map(rest).collect()
}

fn params<const N: usize>(params: [(&str, i32); N]) -> VotedParams {
    params.into_iter().collect()
}

#[test]
fn it_takes_the_votes_of_more_than_half() {
    let votes = ballot(3, &[], |_, _| {});
    let of = |authorities, votes: &[SignedVote]| Tally::of(votes, &terms(authorities)).map(|_| ());
    assert_eq!(of(3, &votes), Ok(()));
    assert_eq!(of(5, &votes), Ok(()));
    assert_eq!(of(6, &votes), Err(TallyError::TooFewVotes { votes: 3, authorities: 6 }));
    assert_eq!(of(2, &votes), Err(TallyError::TooManyVotes { votes: 3, authorities: 2 }));
    assert_eq!(of(0, &[]), Err(TallyError::TooFewVotes { votes: 0, authorities: 0 }));
    let twice = [votes[0].clone(), votes[0].clone(), votes[1].clone()];
    assert_eq!(of(3, &twice), Err(TallyError::TwoVotes(votes[0].vote.authority.identity)));
    let blind = ballot(3, &[], |_, vote| vote.known_flags = vec!["Valid".into()]);
    assert_eq!(of(3, &blind), Err(TallyError::NobodyKnowsRunning));
}

#[test]
fn the_method_is_one_of_more_than_two_thirds() {
    let method = |methods: &[&[u32]]| {
        let votes = ballot(methods.len() as u8, &[], |n, vote| vote.methods = methods[n].to_vec());
        tally(methods.len(), &votes).method
    };
    let (all, old): (&[u32], &[u32]) = (&[32, 33, 34, 35], &[32, 33]);
    assert_eq!(method(&[all, all, all]), 35);
    assert_eq!(method(&[all, all, old]), 33);
    assert_eq!(method(&[all, all, all, old]), 35);
    assert_eq!(method(&[all, all, old, old]), 33);
    // One that is listed twice counts once.
    assert_eq!(method(&[&[32, 35, 35], &[32, 35, 35], old]), 32);
    // None of ours.
    assert_eq!(method(&[&[36], &[36], &[36]]), 35);
    assert_eq!(method(&[&[1], &[2], &[3]]), 35);
}

#[test]
fn times_are_low_medians() {
    let votes = ballot(4, &[], |n, vote| {
        vote.voting_delay = ([10, 40, 20, 30][n], [5, 5, 7, 7][n]);
        vote.lifetime.valid_until = Unix(vote.lifetime.valid_until.0 + [60, 0, 120, 180][n]);
    });
    let tally = tally(4, &votes);
    assert_eq!(lines(&tally, "voting-delay"), ["20 5"]);
    assert_eq!(lines(&tally, "valid-until"), ["2026-11-22 14:01:00"]);
    assert_eq!(tally.ns.lifetime.valid_until, Unix(1_795_356_060));
}

#[test]
fn parameters_need_three_votes_or_more_than_half() {
    let votes = |count, with: usize| {
        ballot(count, &[], move |n, vote| {
            if n < with {
                vote.params = params([("a", n as i32)]);
            }
        })
    };
    let line = |authorities, votes: &[SignedVote]| lines(&tally(authorities, votes), "params");
    assert_eq!(line(9, &votes(9, 3)), ["a=1"]);
    assert_eq!(line(9, &votes(9, 2)), [] as [&str; 0]);
    assert_eq!(line(3, &votes(3, 2)), ["a=0"]);
    assert_eq!(line(4, &votes(3, 2)), [] as [&str; 0]);
    let order = ballot(3, &[], |_, vote| vote.params = params([("a", 1), ("a0", 2), ("a-", 3), ("ab", -4)]));
    assert_eq!(line(3, &order), ["a-=3 a0=2 a=1 ab=-4"]);
}

#[test]
fn protocols_need_half_or_two_thirds_of_all_authorities() {
    let set = |text: &str| Some(Protocols::parse(text).unwrap());
    let votes = ballot(5, &[], |n, vote| {
        let text = ["Link=4-5 Relay=2", "Link=4-5", "Link=4", "Link=4", "Old=1"][n];
        vote.recommended_client_protocols = set(text);
        vote.required_client_protocols = set(text);
        vote.required_relay_protocols = if n == 0 { set(text) } else { None };
    });
    let all = |authorities, keyword: &str| lines(&tally(authorities, &votes), keyword);
    assert_eq!(all(5, "recommended-client-protocols"), ["Link=4"]);
    assert_eq!(all(5, "required-client-protocols"), ["Link=4"]);
    assert_eq!(all(8, "recommended-client-protocols"), ["Link=4"]);
    assert_eq!(all(8, "required-client-protocols"), [""]);
    assert_eq!(all(9, "recommended-client-protocols"), [""]);
    assert_eq!(all(5, "required-relay-protocols"), [""]);
    assert_eq!(all(5, "recommended-relay-protocols"), [""]);
}

#[test]
fn versions_need_more_than_half_of_those_who_list_any() {
    let votes = ballot(5, &[], |n, vote| {
        let lists = [
            Some(vec!["0.4.8.10", "0.4.8.9", "0.4.9.11"]),
            Some(vec!["0.4.8.10", "0.4.9.11", "0.4.8.9"]),
            Some(vec!["0.4.9.11", "Tor 0.4.9.11"]),
            None,
            Some(vec![]),
        ];
        vote.client_versions = lists[n].clone().map(|list| list.into_iter().map(Box::from).collect());
    });
    assert_eq!(lines(&tally(5, &votes), "client-versions"), ["0.4.9.11"]);
    assert_eq!(lines(&tally(5, &votes[..4]), "client-versions"), ["0.4.8.9,0.4.8.10,0.4.9.11"]);
    assert_eq!(lines(&tally(5, &votes), "server-versions"), [""]);
}

#[test]
fn packages_are_listed_up_to_method_33() {
    let packages = |methods: &'static [u32]| {
        let votes = ballot(5, &[], |n, vote| {
            vote.methods = methods.to_vec();
            let tor = ["tor 1 u d=1", "tor 1 u d=2"][usize::from(n > 2)];
            vote.packages = ["old 1 u d=9", tor, "broken"].map(Box::from).into();
            if n > 1 {
                vote.packages[0] = format!("old 1 u d={n}").into();
            }
        });
        lines(&tally(5, &votes), "package")
    };
    assert_eq!(packages(&[33]), ["tor 1 u d=1"]);
    assert_eq!(packages(&[34]), [] as [&str; 0]);
}

#[test]
fn shared_random_values_need_a_majority_and_new_ones_more() {
    let value = |n: u8| Some(SharedRandom { reveals: 3, value: [n; 32] });
    let votes = ballot(5, &[], |n, vote| {
        let current = value(u8::from(n > 2));
        let vote_on = SharedRandomVote { current, previous: value(n as u8), ..SharedRandomVote::default() };
        vote.shared_random = Some(vote_on);
        vote.params = params([("AuthDirNumSRVAgreements", 4)]);
    });
    let of = |votes: &[SignedVote], shared_random| {
        let tally = Tally::of(votes, &Terms { authorities: 5, shared_random }).unwrap();
        assert_eq!(lines(&tally, "shared-rand-previous-value"), [] as [&str; 0]);
        lines(&tally, "shared-rand-current-value")
    };
    let (old, fresh) = (Some(SharedRandomTerms { fresh: false }), Some(SharedRandomTerms { fresh: true }));
    let line = format!("3 {}=", "A".repeat(43));
    assert_eq!(of(&votes, old), [&*line]);
    assert_eq!(of(&votes[1..], old), [] as [&str; 0]);
    assert_eq!(of(&votes, fresh), [] as [&str; 0]);
    assert_eq!(of(&votes, None), [] as [&str; 0]);
    // Without the parameter, two thirds of five are three.
    let without: Vec<SignedVote> =
        votes.iter().map(|v| as_signed(Vote { params: VotedParams::default(), ..v.vote.clone() })).collect();
    assert_eq!(of(&without, fresh), [line]);
}

#[test]
fn sources_are_sorted_and_former_identities_among_them() {
    let votes = ballot(3, &[], |n, vote| {
        vote.authority.identity = Fingerprint([[9, 5, 7][n]; 20]);
        vote.legacy_identity = (n == 0).then_some(Fingerprint([6; 20]));
    });
    let tally = tally(3, &votes);
    let sources = lines(&tally, "dir-source");
    let names: Vec<&str> = sources.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["auth1", "auth0-legacy", "auth2", "auth0"]);
    assert_eq!(sources[0], format!("auth1 {} localhost 127.0.0.1 7000 5000", Fingerprint([5; 20])));
    assert_eq!((lines(&tally, "contact").len(), lines(&tally, "vote-digest").len()), (3, 3));
    assert_eq!(tally.ns.sources, [5, 6, 7, 9].map(|n| Fingerprint([n; 20])));
}

#[test]
fn flags_need_more_than_half_of_those_who_vote_on_them() {
    let votes = ballot(5, &[relay(1)], |n, vote| {
        if n > 2 {
            vote.known_flags = ["Fast", "Guard", "Running", "Valid"].map(Box::from).into();
            vote.relays[0].flags = 0b1111;
        } else {
            vote.relays[0].flags |= u64::from(n < 2);
        }
    });
    let tally = tally(5, &votes);
    assert_eq!(lines(&tally, "known-flags"), ["Exit Fast Guard NoEdConsensus Running Valid"]);
    // Exit: two of three. Fast: two of two. Guard: two of five.
    assert_eq!(lines(&tally, "s"), ["Exit Fast Running Valid"]);
}

#[test]
fn relays_that_are_not_running_or_not_valid_are_left_out() {
    for flag in ["Running", "Valid"] {
        let with = |count: usize| {
            ballot(4, &[relay(1)], move |n, vote| {
                if n >= count {
                    vote.relays[0].flags &= !vote.flag_bit(flag).unwrap();
                }
            })
        };
        assert_eq!(lines(&tally(4, &with(3)), "r").len(), 1, "{flag}");
        assert_eq!(lines(&tally(4, &with(2)), "r").len(), 0, "{flag}");
    }
}

#[test]
fn relays_for_the_middle_only_lose_flags() {
    let all = ["BadExit", "Exit", "Guard", "HSDir", "MiddleOnly", "Running", "V2Dir", "Valid"];
    let flags = |known: &[&str]| {
        let votes = ballot(3, &[relay(1)], |_, vote| {
            vote.known_flags = known.iter().map(|flag| Box::from(*flag)).collect();
            let bad_exit = vote.flag_bit("BadExit").unwrap_or(0);
            vote.relays[0].flags = ((1 << known.len()) - 1) & !bad_exit;
            vote.relays[0].weight.bandwidth = Some(1000);
        });
        let tally = tally(3, &votes);
        // It counts as a middle: with 1001 of 1004 in the middle there is no balance.
        assert_eq!(lines(&tally, "bandwidth-weights"), [] as [&str; 0]);
        lines(&tally, "s")
    };
    assert_eq!(flags(&all), ["BadExit MiddleOnly Running Valid"]);
    // Nobody votes on BadExit.
    assert_eq!(flags(&all[1..]), ["MiddleOnly Running Valid"]);
}

#[test]
fn identities_are_collated_in_pairs() {
    let ed = |listings: [Option<EdListing>; 5]| {
        let votes = ballot(5, &[relay(1)], |n, vote| match listings[n] {
            Some(listing) => {
                vote.relays[0].ed_identity = listing;
                vote.relays[0].descriptor = match listing {
                    EdListing::Key(key) => Fingerprint([key[0]; 20]),
                    EdListing::None => Fingerprint([100; 20]),
                    EdListing::Unlisted => Fingerprint([200; 20]),
                };
            }
            None => vote.relays.clear(),
        });
        let tally = tally(5, &votes);
        lines(&tally, "s").pop().map(|flags| (flags.contains("NoEdConsensus"), lines(&tally, "r")[0].clone()))
    };
    let (a, b) = (Some(EdListing::Key([1; 32])), Some(EdListing::Key([2; 32])));
    let (none, unlisted) = (Some(EdListing::None), Some(EdListing::Unlisted));
    let named = |n| crate::netdoc::text::base64_unpadded(&[n; 20]);
    // Three agree; the other two are not asked, not even for flags.
    let (disputed, r) = ed([a, a, a, b, b]).unwrap();
    assert!(!disputed && r.contains(&named(1)));
    // Two and two who do not say: no pair has a majority, so all count.
    assert!(ed([a, a, unlisted, unlisted, b]).unwrap().0);
    assert!(ed([a, a, b, b, None]).unwrap().0);
    // That it has none can be agreed upon.
    assert!(!ed([none, none, none, a, a]).unwrap().0);
    // Those who do not say join those who agree.
    let votes = [a, a, a, unlisted, unlisted];
    assert!(!ed(votes).unwrap().0);
    assert_eq!(ed([a, a, None, None, None]), None);
    assert_eq!(ed([a, b, None, None, None]), None);
}

#[test]
fn others_ed_identities_do_not_vote() {
    // Of four votes three are for the pair; the fourth would tip the version.
    let votes = ballot(4, &[relay(1)], |n, vote| {
        vote.relays[0].version = Some(["1.0.0", "1.0.1", "1.0.0", "1.0.1"][n].into());
        if n == 3 {
            vote.relays[0].ed_identity = EdListing::Key([9; 32]);
        }
    });
    assert_eq!(lines(&tally(4, &votes), "v"), ["1.0.0"]);
    let unlisted = ballot(4, &[relay(1)], |n, vote| {
        *vote = votes[n].vote.clone();
        if n == 3 {
            vote.relays[0].ed_identity = EdListing::Unlisted;
        }
    });
    assert_eq!(lines(&tally(4, &unlisted), "v"), ["1.0.1"]);
}

/// One relay in as many votes as there are edits.
fn one_relay<const N: usize>(edits: [&dyn Fn(&mut VotedRelay); N]) -> Tally {
    let votes = ballot(N as u8, &[relay(1)], |n, vote| edits[n](&mut vote.relays[0]));
    tally(N, &votes)
}

#[test]
fn the_most_popular_descriptor_is_listed() {
    let descriptor = |n: u8, published: u64| {
        move |relay: &mut VotedRelay| {
            relay.descriptor = Fingerprint([n; 20]);
            relay.published = Unix(published);
        }
    };
    let (one, two, three) = (descriptor(1, 50), descriptor(2, 60), descriptor(3, 60));
    let later = descriptor(3, 61);
    let of = |edits: [&dyn Fn(&mut VotedRelay); 4]| {
        let votes = ballot(4, &[relay(7)], |n, vote| edits[n](&mut vote.relays[0]));
        let line = lines(&tally(4, &votes), "r").remove(0);
        [1u8, 2, 3]
            .into_iter()
            .find(|n| line.contains(&crate::netdoc::text::base64_unpadded(&[*n; 20])))
            .unwrap()
    };
    assert_eq!(of([&one, &one, &two, &three]), 1);
    assert_eq!(of([&one, &one, &two, &two]), 2);
    assert_eq!(of([&two, &three, &two, &three]), 2);
    assert_eq!(of([&two, &later, &two, &later]), 3);
}

#[test]
fn what_else_differs_is_decided_in_order() {
    let port = |n: u16| move |relay: &mut VotedRelay| relay.or_port = n;
    let nick =
        |nick: &'static str| move |relay: &mut VotedRelay| relay.nickname = Nickname::new(nick).unwrap();
    let address = |n: u8| move |relay: &mut VotedRelay| relay.ipv4 = [10, 0, 0, n].into();
    let first = |a: &dyn Fn(&mut VotedRelay), b: &dyn Fn(&mut VotedRelay)| {
        lines(&one_relay([a, b, a, b]), "r").remove(0)
    };
    assert!(first(&port(1), &port(2)).ends_with(" 2 0"));
    assert!(first(&nick("a"), &nick("b")).starts_with("b "));
    assert!(first(&address(1), &address(2)).contains(" 10.0.0.1 "));
}

#[test]
fn addresses_and_microdescriptors_are_those_of_the_listed_descriptor() {
    let ipv6 = |host: u16, port: u16| Some(([0xfe80, 0, 0, 0, 0, 0, 0, host].into(), port));
    let with = |descriptor: u8, host: u16, port: u16| {
        move |relay: &mut VotedRelay| {
            relay.descriptor = Fingerprint([descriptor; 20]);
            relay.ipv6 = ipv6(host, port);
            relay.microdescs[0].digest = [host as u8; 32];
        }
    };
    let of = |tally: &Tally| (lines(tally, "a"), lines_of(&tally.microdesc.text, "m"));
    let digest = |n: u8| crate::netdoc::text::base64_unpadded(&[n; 32]);
    // Three for descriptor 1; the other two do not count, though their address would win.
    let (one, two) = (with(1, 5, 1), with(2, 9, 1));
    let tally = one_relay([&one, &one, &with(1, 4, 1), &two, &two]);
    assert_eq!(of(&tally), (vec!["[fe80::5]:1".to_owned()], vec![digest(5)]));
    // Of equals the greatest address, but the least port.
    let tally = one_relay([&with(1, 5, 1), &with(1, 5, 2), &with(1, 4, 3), &with(1, 4, 3)]);
    assert_eq!(of(&tally).0, ["[fe80::4]:3"]);
    let tally = one_relay([&with(1, 5, 1), &with(1, 5, 2), &with(1, 4, 3)]);
    assert_eq!(of(&tally), (vec!["[fe80::5]:1".to_owned()], vec![digest(5)]));
    // No address, no port, no microdescriptor: no entry in that flavour.
    let tally = one_relay([&with(1, 0, 0), &with(1, 3, 0), &|relay| relay.microdescs.clear()]);
    assert_eq!(of(&tally).0, [] as [&str; 0]);
    let none = one_relay([&|r: &mut VotedRelay| r.microdescs.clear(); 3]);
    assert_eq!((lines(&none, "r").len(), lines_of(&none.microdesc.text, "r").len()), (1, 0));
}

#[test]
fn microdescriptors_go_by_the_method() {
    let votes = |method| {
        ballot(3, &[relay(1)], move |_, vote| {
            vote.methods = vec![method];
            let m = |methods: &[u32], n| VotedMicrodesc { methods: methods.to_vec(), digest: [n; 32] };
            vote.relays[0].microdescs = vec![m(&[32, 33, 34], 1), m(&[35], 2), m(&[34], 3)];
        })
    };
    for (method, n) in [(33, 1), (34, 3), (35, 2)] {
        let tally = tally(3, &votes(method));
        assert_eq!(lines_of(&tally.microdesc.text, "m"), [crate::netdoc::text::base64_unpadded(&[n; 32])]);
    }
}

#[test]
fn times_of_publication_go_by_the_method() {
    let r = |method, flavor| {
        let votes = ballot(3, &[relay(1)], |_, vote| vote.methods = vec![method]);
        let tally = tally(3, &votes);
        let doc = if flavor == Flavor::Ns { tally.ns } else { tally.microdesc };
        lines_of(&doc.text, "r").remove(0)
    };
    assert!(r(32, Flavor::Microdesc).contains(" 2026-11-22 09:33:20 "));
    assert!(r(33, Flavor::Microdesc).contains(" 2038-01-01 00:00:00 "));
    assert!(r(35, Flavor::Ns).contains(" 2026-11-22 09:33:20 "));
}

#[test]
fn versions_and_protocols_are_those_of_most() {
    let with = |version: Option<&'static str>, protocols: &'static str| {
        move |relay: &mut VotedRelay| {
            relay.version = version.map(|v| v.into());
            relay.protocols = protocols.into();
        }
    };
    // By version, not by text; whoever says none does not count; an empty list of protocols does.
    let tally = one_relay([
        &with(Some("Tor 0.4.8.9"), ""),
        &with(Some("Tor 0.4.8.10"), "Link=4"),
        &with(None, ""),
        &with(None, "Link=5"),
        &with(None, "Link=3-5"),
    ]);
    assert_eq!((lines(&tally, "v"), lines(&tally, "pr")), (vec!["Tor 0.4.8.10".into()], vec!["".into()]));
    let tally = one_relay([&with(None, "Link=4"), &with(Some(""), "Link=5"), &with(None, "Link=1")]);
    assert_eq!((lines(&tally, "v").len(), lines(&tally, "pr")), (0, vec!["Link=5".into()]));
}

#[test]
fn bandwidths_are_measured_or_claimed() {
    let w = |claims: [Option<u32>; 5], measured: [Option<u32>; 5], cap: Option<i32>| {
        // A second relay is measured by all, so that three authorities count as measuring.
        let votes = ballot(5, &[relay(1), relay(2)], |n, vote| {
            vote.relays[0].weight.bandwidth = claims[n];
            vote.relays[0].weight.measured = measured[n];
            vote.relays[1].weight.measured = (n < 3 && cap.is_some()).then_some(5);
            vote.params = cap.filter(|n| *n != 20).map(|n| ("maxunmeasuredbw", n)).into_iter().collect();
        });
        lines(&tally(5, &votes), "w").into_iter().next()
    };
    let all = |n| [Some(n); 5];
    let claims = [Some(10), Some(50), Some(30), Some(40), None];
    assert_eq!(w(claims, [None; 5], None).unwrap(), "Bandwidth=30 Unmeasured=1");
    let two = [Some(7), Some(8), None, None, None];
    assert_eq!(w(claims, two, None).unwrap(), "Bandwidth=30 Unmeasured=1");
    let three = [Some(7), Some(9), None, Some(8), None];
    assert_eq!(w(claims, three, None).unwrap(), "Bandwidth=8");
    assert_eq!(w([None; 5], three, None).unwrap(), "Bandwidth=8");
    // Where bandwidths are measured, a claim counts up to a limit.
    assert_eq!(w(claims, two, Some(20)).unwrap(), "Bandwidth=20 Unmeasured=1");
    assert_eq!(w(all(3), two, Some(20)).unwrap(), "Bandwidth=3 Unmeasured=1");
    assert_eq!(w(claims, two, Some(25)).unwrap(), "Bandwidth=25 Unmeasured=1");
    assert_eq!(w(claims, two, Some(0)).unwrap(), "Bandwidth=1 Unmeasured=1");
    assert_eq!(w(claims, two, Some(-1)).unwrap(), "Bandwidth=30 Unmeasured=1");
    assert_eq!(w([None; 5], [None; 5], None), None);
}

#[test]
fn guard_fractions_are_for_guards() {
    let w = |fractions: [Option<u8>; 4], guard: bool| {
        let votes = ballot(4, &[relay(1)], |n, vote| {
            vote.relays[0].weight.bandwidth = Some(100);
            vote.relays[0].weight.guard_fraction = fractions[n];
            if guard {
                vote.relays[0].flags |= vote.flag_bit("Guard").unwrap();
            }
        });
        lines(&tally(4, &votes), "w").remove(0)
    };
    let three = [Some(10), Some(30), Some(20), None];
    assert_eq!(w(three, true), "Bandwidth=100 Unmeasured=1 GuardFraction=20");
    assert_eq!(w(three, false), "Bandwidth=100 Unmeasured=1");
    assert_eq!(w([Some(1), Some(1), None, None], true), "Bandwidth=100 Unmeasured=1");
}

#[test]
fn policies_are_those_of_the_listed_descriptor() {
    let with = |descriptor: u8, policy: Option<&'static str>| {
        move |relay: &mut VotedRelay| {
            relay.descriptor = Fingerprint([descriptor; 20]);
            relay.policy = policy.map(|p| p.into());
        }
    };
    let p = |edits: [&dyn Fn(&mut VotedRelay); 5]| {
        let tally = one_relay(edits);
        assert!(!tally.microdesc.text.contains("\np "));
        lines(&tally, "p")
    };
    let others = with(2, Some("reject 25"));
    assert_eq!(
        p([&with(1, Some("accept 80")), &with(1, None), &with(1, None), &others, &others]),
        ["accept 80"]
    );
    let (a, b) = (with(1, Some("accept 80")), with(1, Some("accept 443")));
    assert_eq!(p([&a, &b, &with(1, None), &others, &others]), ["accept 80"]);
    assert_eq!(p([&a, &b, &b, &others, &others]), ["accept 443"]);
    let nothing = with(1, None);
    let more = with(3, Some("accept 80"));
    assert_eq!(p([&nothing, &nothing, &nothing, &others, &more]), ["reject 25"]);
    assert_eq!(p([&nothing, &nothing, &nothing, &nothing, &nothing]), [] as [&str; 0]);
}

#[test]
fn names_belong_to_relays() {
    let vote = |named: [u8; 3], unnamed: bool| {
        let votes = ballot(3, &[relay(1), relay(2)], |n, vote| {
            vote.known_flags = ["Named", "Running", "Unnamed", "Valid"].map(Box::from).into();
            vote.relays[0].nickname = Nickname::new("Bob").unwrap();
            vote.relays[1].nickname = Nickname::new("bob").unwrap();
            for relay in &mut vote.relays {
                relay.flags = 0b1010 | u64::from(relay.identity.0[0] == named[n]) | u64::from(unnamed) << 2;
            }
        });
        lines(&tally(3, &votes), "s")
    };
    assert_eq!(vote([1, 0, 0], false), ["Named Running Valid", "Running Unnamed Valid"]);
    assert_eq!(vote([1, 2, 0], false), ["Running Unnamed Valid", "Running Unnamed Valid"]);
    assert_eq!(vote([1, 1, 1], true), ["Running Unnamed Valid", "Running Unnamed Valid"]);
    assert_eq!(vote([0; 3], true), ["Running Unnamed Valid", "Running Unnamed Valid"]);
    assert_eq!(vote([0; 3], false), ["Running Valid", "Running Valid"]);
}

#[test]
fn relays_ascend_and_bandwidths_without_microdescriptor_count() {
    let votes = ballot(3, &[relay(1), relay(3), relay(200)], |n, vote| {
        if n == 1 {
            vote.relays.insert(1, VotedRelay { flags: u64::MAX >> 60, ..relay(2) });
        }
        vote.relays[0].weight.bandwidth = Some(100);
        vote.relays[0].flags = u64::MAX >> 60;
        vote.relays[0].microdescs.clear();
    });
    let tally = tally(3, &votes);
    let names: Vec<String> = lines(&tally, "r").iter().map(|l| l.split(' ').next().unwrap().into()).collect();
    assert_eq!(names, ["relay1", "relay3", "relay200"]);
    assert_eq!(lines_of(&tally.microdesc.text, "r").len(), 2);
    let weights = |text: &str| lines_of(text, "bandwidth-weights");
    assert_eq!(weights(&tally.ns.text), weights(&tally.microdesc.text));
    assert_eq!(weights(&tally.ns.text).len(), 1);
}

/// The document as a reader gets it, with a signature that is none.
fn read(consensus: &UnsignedConsensus) -> UnverifiedConsensus {
    let (id, text) = (consensus.sources[0], PendingConsensus::new(consensus.clone()).text());
    let signature =
        format!("directory-signature {id} {id}\n-----BEGIN SIGNATURE-----\nAAAA\n-----END SIGNATURE-----\n");
    UnverifiedConsensus::parse(&(text + &signature)).unwrap_or_else(|e| panic!("{e}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any votes give consensuses that everybody can read, and it does not matter in which order they came.
    #[test]
    fn any_votes_give_a_consensus(seed: u64) {
        let mut dice = Dice::new(seed);
        let authorities = 1 + dice.below(7);
        let count = authorities / 2 + 1 + dice.below(authorities - authorities / 2);
        let mut votes: Vec<SignedVote> =
            (0..count).map(|n| as_signed(random::vote(&mut dice, n as u8 + 1))).collect();
        let shared_random = dice.chance(70).then(|| SharedRandomTerms { fresh: dice.chance(50) });
        let terms = Terms { authorities, shared_random };
        let tally = match Tally::of(&votes, &terms) {
            Err(TallyError::NobodyKnowsRunning) => return Ok(()),
            tally => tally.unwrap(),
        };
        for _ in 0..3 {
            let (a, b) = (dice.below(count), dice.below(count));
            votes.swap(a, b);
            prop_assert_eq!(&Tally::of(&votes, &terms).unwrap(), &tally);
        }
        let (ns, microdesc) = (read(&tally.ns), read(&tally.microdesc));
        for (flavor, read) in [(Flavor::Ns, &ns), (Flavor::Microdesc, &microdesc)] {
            let consensus = read.peek();
            prop_assert_eq!((consensus.flavor, consensus.skipped_relays), (flavor, 0));
            prop_assert_eq!(consensus.method, tally.method);
            prop_assert_eq!(consensus.lifetime, tally.ns.lifetime);
            prop_assert_eq!(consensus.voters.len(), tally.ns.sources.len());
        }
        let descriptors = lines(&tally, "r").len();
        prop_assert_eq!(ns.peek().relays.len(), descriptors);
        prop_assert!(microdesc.peek().relays.len() <= descriptors);
    }
}
