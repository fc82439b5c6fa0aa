use onionring_proto::netdoc::text::Fingerprint;

use super::*;

const A: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const ED: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
const WAITING: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE \
                       192.0.2.1 2026-11-27 10:00:00 2026-11-27 11:00:00 alice a@example.com\n\
                       BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI \
                       192.0.2.2 2026-11-27 09:00:00 2026-11-27 11:00:00 bob\n\
                       CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM \
                       192.0.2.3 2026-11-27 08:00:00 2026-11-27 11:00:00 Bob\n";

#[test]
fn relays_that_wait_are_found_by_every_name() {
    let pending = Pending::read(WAITING);
    let alice = find("Alice", &pending).unwrap();
    assert_eq!((alice.ids.len(), alice.nickname.unwrap().as_str()), (2, "alice"));
    for name in [A, ED, &format!("${A}")] {
        assert_eq!(find(name, &pending).unwrap(), alice);
    }
    assert!(matches!(find("bob", &pending), Err(RelaysError::Ambiguous { count: 2, .. })));
    assert!(matches!(find("carol", &pending), Err(RelaysError::Unknown(_))));
    let other = Fingerprint([0xDD; 20]);
    let found = find(&other.to_string(), &pending).unwrap();
    assert_eq!(found, Relay { ids: vec![RelayId::Rsa(other)], nickname: None });
}

#[test]
fn decisions_are_under_all_identities_and_replace_those_before() {
    let alice = find("alice", &Pending::read(WAITING)).unwrap();
    let before = format!("# mine\n!reject {A} # spam\n!badexit {A}\nold {ED}\n");
    let (mut routers, _) = ApprovedRouters::read(&before);
    decide(&mut routers, true, &alice);
    assert_eq!(routers.write(), format!("# mine\n!badexit {A}\nalice {ED}\nalice {A}\n"));
    decide(&mut routers, true, &alice);
    assert_eq!(routers.write(), format!("# mine\n!badexit {A}\nalice {ED}\nalice {A}\n"));
    decide(&mut routers, false, &alice);
    assert_eq!(routers.write(), format!("# mine\n!badexit {A}\n!reject {ED}\n!reject {A}\n"));
}

#[test]
fn names_and_options_stand_in_any_order() {
    let words = ["a", "-f", "torrc", "b", "--quiet", "c", "--DataDirectory", "/x"].map(str::to_owned);
    let (names, options) = split(&words);
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(options, ["-f", "torrc", "--quiet", "--DataDirectory", "/x"]);
}
