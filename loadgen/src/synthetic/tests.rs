use std::collections::BTreeSet;

use onionring_proto::netdoc::extrainfo::ExtraInfo;
use onionring_proto::netdoc::tally::{Tally, Terms};

use onionring_proto::netdoc::vote::SignedVote;

use super::*;

const NOW: Unix = Unix(1_795_345_200);
const SIZE: Size = Size { relays: 40, authorities: 5 };

fn slot(number: u64) -> Slot {
    Slot {
        number,
        published: Unix(NOW.0 - 60),
        valid_after: NOW,
        interval: std::time::Duration::from_secs(3600),
        voting_delay: (300, 300),
    }
}

#[test]
fn relays_are_all_different_and_their_documents_go_together() {
    let directory = Directory::generate(SIZE, 1, NOW).unwrap();
    assert_eq!(directory.relays.len(), SIZE.relays);
    let identities: BTreeSet<_> = directory.relays.iter().map(|relay| relay.parsed.identity).collect();
    let addresses: BTreeSet<_> = directory.relays.iter().map(|relay| relay.parsed.ipv4).collect();
    assert_eq!((identities.len(), addresses.len()), (SIZE.relays, SIZE.relays));
    for relay in &directory.relays {
        assert!(relay.parsed.ipv4.is_loopback(), "{}", relay.parsed.ipv4);
        assert_eq!(relay.parsed.identity_key.bits(), RELAY_BITS);
        ExtraInfo::parse(&relay.extra_info).unwrap().check_with(&relay.parsed).unwrap();
    }
    let again = Directory::generate(SIZE, 1, NOW).unwrap();
    assert!(directory.relays.iter().zip(&again.relays).all(|(a, b)| a.descriptor == b.descriptor));
    let other = Directory::generate(SIZE, 2, NOW).unwrap();
    assert_ne!(directory.relays[0].descriptor, other.relays[0].descriptor);
}

#[test]
fn authorities_agree_on_most_and_change_their_minds_on_little() {
    let directory = Directory::generate(SIZE, 1, NOW).unwrap();
    let votes = |number| -> Vec<SignedVote> {
        (0..SIZE.authorities).map(|n| directory.vote(n, &slot(number)).unwrap().1).collect()
    };
    let first = votes(0);
    let identities: BTreeSet<_> = first.iter().map(|vote| vote.vote.authority.identity).collect();
    assert_eq!(identities.len(), SIZE.authorities);
    assert_eq!(first.iter().map(|v| v.vote.measures()).collect::<Vec<_>>(), [false, false, true, true, true]);
    assert_ne!(first[3].vote.relays, first[4].vote.relays);
    let terms = Terms { authorities: SIZE.authorities, shared_random: None };
    let [before, after] = [first, votes(1)].map(|votes| Tally::of(&votes, &terms).unwrap().ns.text);
    assert!(before.matches("\nr ").count() * 10 >= SIZE.relays * 9);
    let lines: BTreeSet<&str> = before.lines().collect();
    let changed = after.lines().filter(|line| !lines.contains(line)).count();
    assert!(changed > 0 && changed * 4 < after.lines().count(), "{changed} of {}", after.lines().count());
}
