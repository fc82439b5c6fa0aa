use super::*;
use crate::isolation::{Isolate, Protocol};

const MINUTE: Duration = Duration::from_secs(60);

/// A relay that lets out what the summaries say.
pub fn hop(n: u8, v4: &str, v6: &str) -> Hop {
    Hop {
        identity: Fingerprint([n; 20]),
        nickname: Nickname::new(&format!("relay{n}")).unwrap(),
        stable: false,
        may_exit: true,
        policy: PortSummary::parse(v4).unwrap(),
        policy_v6: PortSummary::parse(v6).unwrap(),
    }
}

const NOTHING: &str = "reject 1-65535";

fn path(exit: Hop) -> Arc<[Hop]> {
    [hop(1, NOTHING, NOTHING), hop(2, NOTHING, NOTHING), exit].into()
}

pub fn token(user: &str) -> Token {
    Token {
        isolate: Isolate::DEFAULT,
        session: -1,
        client: None,
        protocol: Protocol::Socks5,
        auth: Some((user.as_bytes().into(), [].into())),
        dest_addr: "example.com".into(),
        dest_port: 443,
        keep_alive: false,
    }
}

pub fn web() -> Target {
    Target::Stream { host: Host::Name("example.com".into()), port: 443, families: Families::default() }
}

fn table() -> (Table<&'static str>, Instant) {
    (
        Table::new(Rules { max_dirtiness: 10 * MINUTE, leaky_pipe: false, worn_time: Duration::ZERO }),
        Instant::now(),
    )
}

fn wish<'a>(target: &'a Target, token: &'a Token) -> Wish<'a> {
    Wish { target, stable: false, token, avoid: &[] }
}

#[test]
fn streams_that_may_share_do_and_others_do_not() {
    let (mut table, now) = table();
    let (web, a, b) = (web(), token("a"), token("b"));
    assert_eq!(table.find(&wish(&web, &a), now), Found::Nothing);
    let first = table.begin(path(hop(3, "accept 443", NOTHING)), false, now + MINUTE);
    assert_eq!(table.find(&wish(&web, &a), now), Found::Building(first));
    assert_eq!(table.find(&wish(&web, &b), now), Found::Nothing, "it is spoken for");
    assert_eq!(table.built(first, "first"), None);
    let second = table.begin(path(hop(4, "accept 443", NOTHING)), false, now + MINUTE);
    table.built(second, "second");
    assert_eq!(table.find(&wish(&web, &a), now), Found::Open(first, 2));
    assert_eq!(table.find(&wish(&web, &b), now), Found::Open(second, 2));
    assert_eq!(table.get(second).unwrap().circuit(), Some(&"second"));
}

#[test]
fn an_open_circuit_comes_before_one_being_built() {
    let (mut table, now) = table();
    let (web, a) = (web(), token("a"));
    let slow = table.begin(path(hop(3, "accept 443", NOTHING)), false, now + MINUTE);
    assert_eq!(table.find(&wish(&web, &a), now), Found::Building(slow));
    let quick = table.begin(path(hop(4, "accept 443", NOTHING)), false, now + MINUTE);
    table.built(quick, "quick");
    assert_eq!(table.find(&wish(&web, &a), now), Found::Open(quick, 2));
    // Whoever waited for the other has no more use for it: it is as good as new, and does not stay for ever.
    table.built(slow, "slow");
    assert_eq!(table.spare(&web, false, &[]), 1);
    assert_eq!(table.expire(now + MINUTE, |_| false, |_| false).len(), 1);
}

#[test]
fn a_circuit_that_waits_for_better_guards_is_nobodys() {
    let (mut table, now) = table();
    let (web, a) = (web(), token("a"));
    let number = table.begin(path(hop(3, "accept 443", NOTHING)), false, now + MINUTE);
    table.wait(number);
    assert_eq!(table.find(&wish(&web, &a), now), Found::Nothing);
    assert_eq!((table.spare(&web, false, &[]), table.building()), (0, 0));
    assert!(table.expire(now + 60 * MINUTE, |_| false, |_| false).is_empty());
    assert_eq!(table.built(number, "it"), None);
    assert_eq!(table.find(&wish(&web, &a), now), Found::Open(number, 2));
}

#[test]
fn a_leaky_pipe_leaks_at_no_relay_that_must_not_be_an_exit() {
    let (mut table, now) = table();
    let (web, a) = (web(), token("a"));
    table.rules.leaky_pipe = true;
    let middle = Hop { may_exit: false, ..hop(2, "accept 443", NOTHING) };
    let hops = [hop(1, NOTHING, NOTHING), middle, hop(3, "accept 80", NOTHING)];
    let number = table.begin(hops.into(), false, now + MINUTE);
    table.built(number, "it");
    assert_eq!(table.find(&wish(&web, &a), now), Found::Nothing);
}

#[test]
fn the_last_hop_must_let_it_out_and_not_have_failed() {
    let (mut table, now) = table();
    let a = token("a");
    let number = table.begin(path(hop(3, "accept 80,443", "accept 22")), false, now + MINUTE);
    table.built(number, "it");
    let found = Found::Open(number, 2);
    let to = |host: &str, port| {
        let host = host.parse().map_or_else(|_| Host::Name(host.into()), Host::Address);
        Target::Stream { host, port, families: Families::default() }
    };
    for (target, expected) in [
        (to("example.com", 443), found),
        (to("example.com", 22), found),
        (to("example.com", 25), Found::Nothing),
        (to("192.0.2.1", 443), found),
        (to("192.0.2.1", 22), Found::Nothing),
        (to("2001:db8::1", 22), found),
        (to("2001:db8::1", 443), Found::Nothing),
        (Target::LookUp, found),
    ] {
        assert_eq!(table.find(&wish(&target, &a), now), expected, "{target:?}");
    }
    let v6_only = Families { v4: false, v6: true, prefer_v6: true };
    let target = Target::Stream { host: Host::Name("example.com".into()), port: 443, families: v6_only };
    assert_eq!(table.find(&wish(&target, &a), now), Found::Nothing);
    let avoid = [Fingerprint([3; 20])];
    assert_eq!(table.find(&Wish { avoid: &avoid, ..wish(&web(), &a) }, now), Found::Nothing);
    assert_eq!(table.find(&Wish { stable: true, ..wish(&web(), &a) }, now), Found::Nothing);
}

#[test]
fn a_leaky_pipe_lets_out_in_the_middle_but_not_at_the_first_hop() {
    let (mut table, now) = table();
    let (web, a) = (web(), token("a"));
    let hops = [hop(1, "accept 443", NOTHING), hop(2, "accept 443", NOTHING), hop(3, "accept 80", NOTHING)];
    let number = table.begin(hops.into(), false, now + MINUTE);
    table.built(number, "it");
    assert_eq!(table.find(&wish(&web, &a), now), Found::Nothing);
    table.rules.leaky_pipe = true;
    assert_eq!(table.find(&wish(&web, &a), now), Found::Open(number, 1));
    let avoid = [Fingerprint([2; 20])];
    assert_eq!(table.find(&Wish { avoid: &avoid, ..wish(&web, &a) }, now), Found::Nothing);
}

#[test]
fn circuits_wear_out_and_leave_when_their_last_stream_ends() {
    let (mut table, now) = table();
    let (web, a) = (web(), token("a"));
    let number = table.begin(path(hop(3, "accept 443", NOTHING)), false, now + 60 * MINUTE);
    table.built(number, "it");
    table.find(&wish(&web, &a), now);
    let worn = now + 10 * MINUTE;
    assert!(table.expire(worn - MINUTE, |_| false, |_| false).is_empty());
    assert_eq!(table.find(&wish(&web, &a), worn), Found::Nothing);
    assert!(table.expire(worn, |_| false, |_| true).is_empty(), "a stream is still on it");
    assert_eq!(table.expire(worn, |_| false, |_| false).len(), 1);
    assert!(table.get(number).is_none());
}

#[test]
fn a_circuit_that_is_kept_alive_wears_out_after_its_last_stream() {
    let (mut table, now) = table();
    let (web, a) = (web(), Token { keep_alive: true, ..token("a") });
    let number = table.begin(path(hop(3, "accept 443", NOTHING)), false, now + 60 * MINUTE);
    table.built(number, "it");
    table.find(&wish(&web, &a), now);
    let later = now + 9 * MINUTE;
    assert_eq!(table.find(&wish(&web, &a), later), Found::Open(number, 2));
    assert_eq!(table.find(&wish(&web, &a), later + 9 * MINUTE), Found::Open(number, 2));
    assert_eq!(table.find(&wish(&web, &a), later + 20 * MINUTE), Found::Nothing);
}

#[test]
fn spare_circuits_wait_so_long_and_broken_ones_leave_at_once() {
    let (mut table, now) = table();
    let numbers: Vec<Number> =
        (0..3).map(|_| table.begin(path(hop(3, "accept 443", NOTHING)), false, now + MINUTE)).collect();
    table.built(numbers[0], "broken");
    table.built(numbers[1], "spare");
    assert_eq!(table.spare(&web(), false, &[]), 3);
    assert_eq!(table.spare(&web(), true, &[]), 0);
    assert_eq!(table.spare(&web(), false, &[Fingerprint([3; 20])]), 0, "its exit is known to refuse it");
    assert_eq!(table.expire(now, |c| *c == "broken", |_| true).len(), 1);
    assert!(table.expire(now, |_| false, |_| false).is_empty());
    assert_eq!(table.expire(now + MINUTE, |_| false, |_| false).len(), 1);
    assert_eq!(table.building(), 1, "what is being built is its builder's to give up");
}

#[test]
fn after_a_new_identity_nothing_old_is_used() {
    let (mut table, now) = table();
    let (web, a) = (web(), token("a"));
    let open = table.begin(path(hop(3, "accept 443", NOTHING)), false, now + MINUTE);
    table.built(open, "open");
    let building = table.begin(path(hop(3, "accept 443", NOTHING)), false, now + MINUTE);
    table.retire_all();
    assert_eq!(table.find(&wish(&web, &a), now), Found::Nothing);
    assert_eq!(table.built(building, "late"), Some("late"));
    assert_eq!(table.expire(now, |_| false, |_| false).len(), 1);
    assert_eq!(table.iter().count(), 0);
}

#[test]
fn a_worn_circuit_waits_to_be_cut() {
    let (mut table, now) = table();
    let (web, a) = (web(), token("a"));
    table.rules.worn_time = MINUTE;
    let number = table.begin(path(hop(3, "accept 443", NOTHING)), false, now + 60 * MINUTE);
    table.built(number, "it");
    assert!(table.worn(now + 60 * MINUTE, false, |_| true).is_none(), "it was not used");
    table.find(&wish(&web, &a), now);
    let worn = now + 10 * MINUTE;
    assert!(table.worn(worn - MINUTE, false, |_| true).is_none(), "it is in use");
    assert!(table.worn(worn, false, |_| false).is_none(), "it has streams");
    assert!(table.expire(worn, |_| false, |_| false).is_empty(), "it waits");
    assert_eq!(table.find(&wish(&web, &a), worn), Found::Nothing);
    assert_eq!(table.expire(worn + MINUTE, |_| false, |_| false).len(), 1, "not for ever");

    let number = table.begin(path(hop(3, "accept 443", NOTHING)), false, now + 60 * MINUTE);
    table.built(number, "another");
    table.find(&wish(&web, &a), now);
    let (number, hops) = table.worn(worn, false, |_| true).unwrap();
    assert_eq!((hops.len(), table.take(number)), (3, Some("another")));
    assert!(table.get(number).is_none());

    let number = table.begin(path(hop(3, "accept 443", NOTHING)), false, now + 60 * MINUTE);
    table.built(number, "who has another identity now");
    table.find(&wish(&web, &a), now);
    table.retire_all();
    assert!(table.worn(worn, false, |_| true).is_none());
}

#[test]
fn a_circuit_is_cut_for_long_streams_only_if_what_stays_of_it_is_stable() {
    let (mut table, now) = table();
    let (web, a) = (web(), token("a"));
    table.rules.worn_time = MINUTE;
    let worn = now + 10 * MINUTE;
    let exit = || hop(3, "accept 443", NOTHING);
    let stable = |n| Hop { stable: true, ..hop(n, NOTHING, NOTHING) };
    let mut used = |hops: [Hop; 3], is_stable, circuit| {
        let number = table.begin(hops.into(), is_stable, now + 60 * MINUTE);
        table.built(number, circuit);
        assert_eq!(table.find(&wish(&web, &a), now), Found::Open(number, 2));
        let mut take = |long| table.worn(worn, long, |_| true).and_then(|(number, _)| table.take(number));
        let for_long = take(true);
        let for_short = take(false);
        (for_long, for_short)
    };
    assert_eq!(used([stable(1), hop(2, NOTHING, NOTHING), exit()], false, "half"), (None, Some("half")));
    assert_eq!(
        used([stable(1), stable(2), exit()], false, "all but the exit"),
        (Some("all but the exit"), None)
    );
    // There were no better relays when it was built for such streams.
    let hops = [hop(1, NOTHING, NOTHING), hop(2, NOTHING, NOTHING), exit()];
    assert_eq!(used(hops, true, "as good as can be"), (Some("as good as can be"), None));
}
