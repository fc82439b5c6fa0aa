use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::netdoc::consensus::UnverifiedConsensus;
use crate::netdoc::protover::Protocols;
use crate::netdoc::routerdesc::Bandwidth;
use crate::netdoc::testdata;
use crate::netdoc::text::Nickname;
use crate::policy::ExitPolicy;

const T0: Unix = Unix(1_800_000_000);

fn contents() -> Contents {
    let descriptor = NewDescriptor {
        nickname: Nickname::new("x").unwrap(),
        ipv4: [127, 0, 0, 1].into(),
        or_port: 9001,
        dir_port: 0,
        ipv6: None,
        platform: "onionring".into(),
        protocols: Protocols::default(),
        published: T0,
        uptime: 600,
        bandwidth: Bandwidth { rate: 1000, burst: 1000, observed: 100 },
        extra_info: None,
        caches_extra_info: false,
        family: vec![],
        family_certs: vec![],
        hibernating: false,
        hidden_service_dir: false,
        contact: None,
        policy: ExitPolicy::middleman(),
        tunnelled_dir_server: true,
        overloaded_since: None,
    };
    Contents {
        descriptor,
        ntor_key: [1; 32],
        tap_key: Some(Fingerprint([1; 20])),
        signing_cert: Box::new([1]),
    }
}

fn changed(change: impl FnOnce(&mut Contents)) -> Contents {
    let mut c = contents();
    change(&mut c);
    c
}

fn publisher() -> Publisher {
    let mut p = Publisher::new(2, false);
    assert_eq!(p.due(&contents(), Listing::Listed, T0), Some(Reason::Started));
    p.published(contents(), Reason::Started);
    p
}

fn after(seconds: u64) -> Unix {
    T0 + Duration::from_secs(seconds)
}

#[test]
fn nothing_new_is_published_for_18_hours() {
    let p = publisher();
    let same = changed(|c| {
        c.descriptor.uptime += 5;
        c.descriptor.published = after(5);
    });
    for seconds in [0, 60, 18 * 3600] {
        assert_eq!(p.due(&same, Listing::Listed, after(seconds)), None);
        assert_eq!(p.due(&same, Listing::Unknown, after(seconds)), None);
    }
    assert_eq!(p.due(&same, Listing::Listed, after(18 * 3600 + 1)), Some(Reason::Age));
}

#[test]
fn changes_that_authorities_notice_are_published_at_once() {
    let p = publisher();
    let due = |change: &dyn Fn(&mut Contents)| p.due(&changed(|c| change(c)), Listing::Listed, after(1));
    assert_eq!(due(&|c| c.descriptor.or_port = 1), Some(Reason::Address));
    assert_eq!(due(&|c| c.descriptor.ipv6 = Some(("::2".parse().unwrap(), 1))), Some(Reason::Address));
    assert_eq!(due(&|c| c.tap_key = None), Some(Reason::OnionKey));
    assert_eq!(due(&|c| c.descriptor.hibernating = true), Some(Reason::Hibernation));
    assert_eq!(due(&|c| c.descriptor.contact = Some("me".into())), Some(Reason::Config));
    assert_eq!(due(&|c| c.descriptor.policy = ExitPolicy::open()), Some(Reason::Config));
    assert_eq!(due(&|c| c.descriptor.bandwidth.rate = 1001), Some(Reason::Config));
}

#[test]
fn changes_that_authorities_take_for_cosmetic_wait_two_hours() {
    let p = publisher();
    let new_key = changed(|c| c.ntor_key = [2; 32]);
    assert_eq!(p.due(&new_key, Listing::Listed, after(7200)), None);
    assert_eq!(p.due(&new_key, Listing::Listed, after(7201)), Some(Reason::OnionKey));
    let new_cert = changed(|c| c.signing_cert = Box::new([2]));
    assert_eq!(p.due(&new_cert, Listing::Listed, after(7200)), None);
    assert_eq!(p.due(&new_cert, Listing::Listed, after(7201)), Some(Reason::Config));
    let protocols = changed(|c| c.descriptor.protocols = Protocols::parse("Relay=2").unwrap());
    assert_eq!(p.due(&protocols, Listing::Listed, after(7201)), Some(Reason::Config));
    let six = ExitPolicy::from_torrc(["accept6 *6:80, reject *:*"]).unwrap().0;
    let policy_v6 = changed(|c| c.descriptor.policy = six);
    assert_eq!(p.due(&policy_v6, Listing::Listed, after(1)), None);
    assert_eq!(p.due(&policy_v6, Listing::Listed, after(7201)), Some(Reason::Config));
}

#[test]
fn a_descriptor_that_did_not_arrive_is_replaced_after_90_minutes() {
    let p = publisher();
    assert_eq!(p.due(&contents(), Listing::NotListed, after(90 * 60)), None);
    assert_eq!(p.due(&contents(), Listing::NotListed, after(90 * 60 + 1)), Some(Reason::NotListed));
    assert_eq!(p.due(&contents(), Listing::Stale(after(10)), after(90 * 60 + 1)), Some(Reason::Stale));
    // A consensus from before the descriptor says nothing about it.
    assert_eq!(p.due(&contents(), Listing::Stale(T0), after(90 * 60 + 1)), None);
}

#[test]
fn bandwidth_by_a_factor_of_two_in_the_first_day_every_three_hours() {
    let mut p = publisher();
    let observed = |n, uptime| {
        changed(|c| {
            c.descriptor.bandwidth.observed = n;
            c.descriptor.uptime = uptime;
        })
    };
    for (n, want) in
        [(100, None), (200, None), (50, None), (201, Some(Reason::Bandwidth)), (49, Some(Reason::Bandwidth))]
    {
        assert_eq!(p.due(&observed(n, 600), Listing::Listed, after(1)), want, "{n}");
    }
    assert_eq!(p.due(&observed(1000, 24 * 3600 + 1), Listing::Listed, after(1)), None);
    let mut next = observed(300, 600);
    next.descriptor.published = after(1);
    p.published(next, Reason::Bandwidth);
    assert_eq!(p.due(&observed(700, 600), Listing::Listed, after(3 * 3600 + 1)), None);
    assert_eq!(p.due(&observed(700, 600), Listing::Listed, after(3 * 3600 + 2)), Some(Reason::Bandwidth));
}

#[test]
fn publication_times_always_rise() {
    let p = publisher();
    assert_eq!(p.publication_time(T0), after(1));
    assert_eq!(p.publication_time(Unix(5)), after(1));
    assert_eq!(p.publication_time(after(50)), after(50));
    assert_eq!(Publisher::new(1, false).publication_time(T0), T0);
}

#[test]
fn listings_are_read_from_a_real_consensus() {
    let mut c = UnverifiedConsensus::parse(testdata::CONSENSUS_MICRODESC).unwrap().peek().clone();
    let a0 = c.relays[0].identity;
    let now = testdata::NOW;
    assert_eq!(Listing::of(&a0, Some(&c), now), Listing::Listed);
    assert_eq!(Listing::of(&Fingerprint([0; 20]), Some(&c), now), Listing::NotListed);
    assert_eq!(Listing::of(&a0, Some(&c), now + Duration::from_secs(3600)), Listing::Unknown);
    assert_eq!(Listing::of(&a0, None, now), Listing::Unknown);
    c.relays[0].flags = c.relays[0].flags | RelayFlags::STALE_DESC;
    assert_eq!(Listing::of(&a0, Some(&c), now), Listing::Stale(c.lifetime.valid_after));
}

#[test]
fn every_authority_gets_it_and_is_asked_whether_it_has_it() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let now = Mono(1);
    let mut p = Publisher::new(2, true);
    assert_eq!((p.poll(now), p.confirmed(), p.next_timeout()), (None, 0, None));
    p.published(contents(), Reason::Started);
    let (first, second) = (p.poll(now).unwrap(), p.poll(now).unwrap());
    assert_eq!((first.authority, first.step, second.authority, second.step), (0, Step::Post, 1, Step::Post));
    assert_eq!(p.poll(now), None);
    p.finished(first, true, now, &mut rng);
    p.finished(second, false, now, &mut rng);
    let confirm = p.poll(now).unwrap();
    assert_eq!((confirm.authority, confirm.step), (0, Step::Confirm));
    assert_eq!(p.poll(now), None, "the other one waits");
    p.finished(confirm, true, now, &mut rng);
    assert_eq!(p.confirmed(), 1);
    let later = p.next_timeout().unwrap();
    let again = p.poll(later).unwrap();
    assert_eq!((again.authority, again.step), (1, Step::Post));
    p.finished(again, true, later, &mut rng);
    let confirm = p.poll(later).unwrap();
    assert_eq!((confirm.authority, confirm.step), (1, Step::Confirm));
    // The 200 was for nothing: it is sent again.
    p.finished(confirm, false, later, &mut rng);
    let later = p.next_timeout().unwrap();
    let again = p.poll(later).unwrap();
    assert_eq!((again.authority, again.step), (1, Step::Post));
    // A new descriptor starts over, and does not care what becomes of the old one.
    p.published(contents(), Reason::Config);
    p.finished(again, true, later, &mut rng);
    assert_eq!(
        (p.confirmed(), p.poll(later).unwrap().step, p.poll(later).unwrap().step),
        (0, Step::Post, Step::Post)
    );
}
