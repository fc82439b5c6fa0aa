//! What is made of the answers of exits.

use super::*;

const SETTINGS: Settings =
    Settings { patience: Duration::from_secs(120), stream_timeout: None, reject_internal_answers: true };

fn to(host: Host, families: Families) -> Target {
    Target::Stream { host, port: 80, families }
}

fn name(families: Families) -> Target {
    to(Host::Name("example.com".into()), families)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn exits_that_refuse_by_policy_or_have_no_room_are_remembered() {
    let target = name(Families::default());
    let address = ip("192.0.2.1");
    assert_eq!(
        lessons(&StreamError::Forbidden(address), &target),
        [Lesson::Forbids(Host::Name("example.com".into()), 80), Lesson::Forbids(Host::Address(address), 80)]
    );
    for (reason, expected) in [
        (EndReason::ExitPolicy, &[Lesson::NoPort(80)][..]),
        (EndReason::Hibernating, &[Lesson::Full]),
        (EndReason::ResourceLimit, &[Lesson::Full]),
        (EndReason::ConnectRefused, &[]),
        (EndReason::ResolveFailed, &[]),
        (EndReason::Misc, &[]),
    ] {
        assert_eq!(lessons(&StreamError::Ended(reason), &target), expected, "{reason:?}");
    }
    assert_eq!(lessons(&StreamError::Timeout(Duration::ZERO), &target), []);
    assert_eq!(lessons(&StreamError::Forbidden(address), &Target::LookUp), []);
    assert_eq!(lessons(&StreamError::Ended(EndReason::ExitPolicy), &Target::LookUp), [Lesson::NoLookUps]);
    // Of an address that was asked for nobody has to say where it is.
    let asked = Host::Address(ip("198.51.100.1"));
    let target = to(asked.clone(), Families::default());
    assert_eq!(lessons(&StreamError::Forbidden(address), &target), [Lesson::Forbids(asked, 80)]);
}

#[test]
fn another_exit_must_let_out_to_the_address() {
    let families = Families::default();
    let narrowed = name(families).at(ip("2001:db8::1"));
    assert_eq!(narrowed, Some(to(Host::Address(ip("2001:db8::1")), families)));
    assert_eq!(Target::LookUp.at(ip("192.0.2.1")), None);
    assert!(matches!(judge(&StreamError::Forbidden(ip("192.0.2.1"))), Tried::Exit(Refusal::NotAllowed)));
}

#[test]
fn where_a_name_leads_is_said_by_exits_and_where_an_address_leads_is_not() {
    let families = Families::default();
    let elsewhere = ip("2001:db8::1");
    assert_eq!(SETTINGS.led_to(&name(families), elsewhere), Ok(name(families).at(elsewhere)));
    assert_eq!(SETTINGS.led_to(&name(families), ip("127.0.0.1")), Err(EndReason::TorProtocol.into()));
    let literal = to(Host::Address(ip("192.0.2.1")), families);
    assert_eq!(SETTINGS.led_to(&literal, elsewhere), Ok(None), "it must not choose the next exit");
    assert_eq!(SETTINGS.led_to(&Target::LookUp, elsewhere), Ok(None));
}

#[test]
fn exits_are_not_believed_that_a_name_leads_home_or_where_it_must_not() {
    let both = Families::default();
    let only_v4 = Families { v6: false, ..both };
    let only_v6 = Families { v4: false, ..both };
    for (families, address, expected) in [
        (both, "192.0.2.1", true),
        (both, "2001:db8::1", true),
        (only_v4, "192.0.2.1", true),
        (only_v4, "2001:db8::1", false),
        (only_v6, "192.0.2.1", false),
        (both, "127.0.0.1", false),
        (both, "192.168.1.1", false),
        (both, "::ffff:127.0.0.1", false),
        (both, "fe80::1", false),
        (both, "0.0.0.0", false),
    ] {
        assert_eq!(SETTINGS.believe(&name(families), ip(address)), expected, "{families:?} {address}");
    }
    let lax = Settings { reject_internal_answers: false, ..SETTINGS };
    assert!(lax.believe(&name(both), ip("127.0.0.1")));
    assert!(!lax.believe(&name(both), ip("0.0.0.0")), "which is no address");
    let literal = to(Host::Address(ip("127.0.0.1")), both);
    assert!(SETTINGS.believe(&literal, ip("127.0.0.1")), "it was asked for");
}

#[test]
fn ends_tell_of_circuits_what_they_tell_in_stock_tor() {
    let ended = StreamError::Ended;
    for (error, expected) in [
        (ended(EndReason::ConnectRefused), &[Step::Answered][..]),
        (ended(EndReason::Timeout), &[Step::Answered]),
        (ended(EndReason::ResolveFailed), &[Step::Answered, Step::Left]),
        (ended(EndReason::ResourceLimit), &[Step::Answered, Step::Left]),
        (StreamError::Forbidden(ip("192.0.2.1")), &[Step::Answered, Step::Left]),
        (ended(EndReason::Internal), &[]),
        (ended(EndReason::TorProtocol), &[Step::Garbled]),
        (ended(EndReason::Destroy), &[Step::Garbled]),
        (StreamError::Timeout(Duration::ZERO), &[Step::Left]),
        (StreamError::Circuit(CircuitError::Dropped), &[]),
    ] {
        assert_eq!(steps(&error), expected, "{error}");
    }
}
