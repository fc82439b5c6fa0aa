//! Descriptors of relays that sign whatever they like.

use onionring_proto::netdoc::extrainfo::ExtraInfo;
use onionring_proto::netdoc::routerdesc::{RouterDesc, split_documents};
use onionring_proto::time::Unix;

use crate::now;
use crate::relay::{Relay, unsigned};
use crate::stage::Stage;
use crate::sweep::{Mutant, mutants};

/// Exit policies that let out where no port is, and other lines for which a descriptor is refused.
const NONSENSE: [(&str, &str); 7] = [
    ("reject *:*\n", "accept *:0\nreject *:*\n"),
    ("reject *:*\n", "accept *:1-0\nreject *:*\n"),
    ("reject *:*\n", "accept *:65536\nreject *:*\n"),
    ("reject *:*\n", "accept 1.2.3.4/33:80\nreject *:*\n"),
    ("reject *:*\n", "ipv6-policy accept 0\nreject *:*\n"),
    ("router publisher", "router a-name-that-is-no-nickname"),
    ("published ", "@purpose bridge\npublished "),
];

#[test]
fn whatever_relays_publish_is_taken_or_refused_with_a_reason() {
    let stage = Stage::start("");
    let (good, hostile) = (Relay::new(7), Relay::new(8));
    let (descriptor, extra_info) = good.documents(Unix(now().0 - 60));
    let both = format!("{descriptor}{extra_info}");
    let answer = stage.post("/tor/", &both);
    assert_eq!((answer.status, &*answer.reason), (200, "Stored"));

    // Each alone, so that nothing is refused for the sake of its neighbour.
    let (of_hostile, extra_of_hostile) = hostile.documents(Unix(now().0 - 60));
    let body = unsigned(&of_hostile);
    let nonsense = NONSENSE.iter().map(|(line, instead)| {
        assert!(body.contains(line), "{line}");
        Mutant { what: format!("`{line}` as `{instead}`"), text: body.replacen(line, instead, 1) }
    });
    let (mut taken, mut refused) = (0, 0);
    let mut count = |status, reason: &str, what: &str| {
        assert!(!reason.is_empty(), "{what}");
        *(if status == 200 { &mut taken } else { &mut refused }) += 1;
    };
    for Mutant { what, text } in mutants(body).into_iter().chain(nonsense) {
        let text = hostile.sign(&text);
        let answer = stage.post("/tor/", &text);
        let whole = split_documents(&text).next() == Some(text.as_str());
        if !whole || RouterDesc::parse(&text).is_err() {
            assert_eq!(answer.status, 400, "{what}: {}\n{text}", answer.reason);
        } else {
            assert!([200, 400].contains(&answer.status), "{what}: {answer:?}");
        }
        let is_nonsense = NONSENSE.iter().any(|(_, instead)| text.contains(instead));
        assert!(!is_nonsense || answer.status == 400, "{what}: {answer:?}");
        count(answer.status, &answer.reason, &what);
    }
    for Mutant { what, text } in mutants(unsigned(&extra_of_hostile)) {
        let text = hostile.sign(&text);
        let answer = stage.post("/tor/", &text);
        if ExtraInfo::parse(&text).is_err() {
            assert_eq!(answer.status, 400, "extra-info: {what}: {}\n{text}", answer.reason);
        }
        count(answer.status, &answer.reason, &what);
    }
    for body in
        ["", "router", "\0", "@annotation\n", &both[..both.len() / 2], &format!("{both}\n").repeat(40)]
    {
        let answer = stage.post("/tor/", body);
        assert_eq!(answer.status, 400, "{}", answer.reason);
    }
    assert!(taken > 0 && refused > taken, "{taken} were taken, {refused} refused");
    // What is stored of the hostile one, if anything, is what it signed, and parses.
    let stored = stage.get(&format!("/tor/server/fp/{}", hostile.identity()));
    let stored = stored.map(|text| RouterDesc::parse(&text).unwrap());

    let served = stage.get(&format!("/tor/server/fp/{}", good.identity()));
    assert_eq!(served, Some(descriptor.clone()), "the good one is unharmed");
    let period = stage.next_period();
    stage.vote_well(0, &period);
    stage.vote_well(1, &period);
    stage.finish(&period);
    let vote = stage.played[0].votes_of(stage.identity, period.valid_after).pop().unwrap().vote;
    let digest = RouterDesc::parse(&descriptor).unwrap().digest;
    let is_listed = |relay: &&onionring_proto::netdoc::vote::VotedRelay| relay.identity == good.identity();
    let listed = vote.relays.iter().find(is_listed).unwrap();
    assert_eq!(listed.descriptor, digest);
    assert!(vote.flag_names(listed.flags).any(|flag| flag == "Running"));
    let mut identities = vec![stage.relay, good.identity()];
    identities.extend(stored.map(|stored| stored.identity));
    identities.sort();
    let listed: Vec<_> = vote.relays.iter().map(|relay| relay.identity).collect();
    assert_eq!(listed, identities, "and nobody else is listed");
    assert!(!stage.log().contains("panicked"));
}
