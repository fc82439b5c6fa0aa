use onionring_proto::netdoc::routerdesc::{RouterDesc, split_documents};
use onionring_proto::time::Unix;
use proptest::prelude::*;

use super::*;
use crate::limits::{PENDING_CONTACT, PENDING_RELAYS};

/// A file that C tor 0.4.9.11 read; it complained of the line "nonsense here".
const RECORDED: &str = include_str!("../testdata/approved-routers.txt");
const DESCRIPTORS: &str = include_str!("../testdata/descriptors.txt");

fn relays() -> Vec<RouterDesc> {
    split_documents(DESCRIPTORS).map(|text| RouterDesc::parse(text).unwrap()).collect()
}

fn relay(nickname: &str) -> RouterDesc {
    relays().into_iter().find(|relay| relay.nickname.as_str() == nickname).unwrap()
}

fn marks(routers: &ApprovedRouters, nickname: &str) -> Marks {
    let relay = relay(nickname);
    routers.marks(&relay.identity, &relay.ed_identity)
}

#[test]
fn a_file_of_c_tor_is_read_and_left_as_it_is() {
    let (routers, damaged) = ApprovedRouters::read(RECORDED);
    assert_eq!(damaged, [DamagedLine { line: 7, text: "nonsense here".into() }]);
    // From another system.
    let with_cr = RECORDED.replace('\n', "\r\n");
    let (crlf, _) = ApprovedRouters::read(&with_cr);
    assert!(
        crlf.list()
            .map(|(_, id, decision)| (id, decision))
            .eq(routers.list().map(|(_, id, decision)| (id, decision)))
    );
    assert_eq!(crlf.write(), with_cr);
    assert_eq!(routers.write(), RECORDED);
    let none = Marks::default();
    assert_eq!(marks(&routers, "r0"), Marks { bad_exit: true, ..none });
    assert_eq!(marks(&routers, "r1"), Marks { approved: true, ..none });
    assert_eq!(marks(&routers, "r2"), Marks { middle_only: true, ..none });
    assert_eq!(marks(&routers, "a1"), none);
    // Marked under both identities.
    assert_eq!(marks(&routers, "a2"), Marks { invalid: true, strip_v2_dir: true, ..none });
}

#[test]
fn lines_in_all_their_forms() {
    let file = "\
        \t !Reject\t0123 4567 89ab cdef 0123 4567 89AB CDEF 0123 4567 # why\n\
        a\tAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n\
        !stripguard 0123456789ABCDEF0123456789ABCDEF01234567\n\
        !striphsdir 0123456789ABCDEF0123456789ABCDEF01234567\n\
        !approve 0123456789ABCDEF0123456789ABCDEF01234567\n\
        0123456789ABCDEF0123456789ABCDEF01234567\n\
        x 0123456789ABCDEF0123456789ABCDEF0123456\n\
        x AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\
        \n\
        #!reject AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";
    let (routers, damaged) = ApprovedRouters::read(file);
    // An unknown decision is no approval.
    assert_eq!(damaged.iter().map(|d| d.line).collect::<Vec<_>>(), [5, 6, 7, 8]);
    assert!(damaged[0].to_string().contains("line 5: '!approve 0123"), "{}", damaged[0]);
    let rsa = Fingerprint::from_hex("0123456789ABCDEF0123456789ABCDEF01234567").unwrap();
    let ed25519 = std::array::from_fn(|n| n as u8);
    let expected =
        Marks { approved: true, reject: true, strip_guard: true, strip_hs_dir: true, ..Marks::default() };
    assert_eq!(routers.marks(&rsa, &ed25519), expected);
    assert_eq!(routers.marks(&rsa, &[0; 32]), Marks { approved: false, ..expected });
    let list: Vec<_> = routers.list().map(|(keyword, _, decision)| (keyword, decision)).collect();
    assert_eq!(list[..2], [("!Reject", Decision::Reject), ("a", Decision::Approve)]);
}

#[test]
fn decisions_replace_each_other_and_leave_the_rest() {
    let relay = relay("r2");
    let ids = [RelayId::Rsa(relay.identity), RelayId::Ed25519(relay.ed_identity)];
    let (mut routers, _) = ApprovedRouters::read(RECORDED);
    routers.reject(&ids);
    assert!(marks(&routers, "r2").reject && marks(&routers, "r2").middle_only);
    assert_eq!(routers.write(), format!("{RECORDED}!reject {}\n", relay.identity));
    // Rejected under one identity, approved under the other: nothing of the old decision stays.
    routers.approve(&[ids[1], ids[0]], Some(&relay.nickname));
    assert_eq!(marks(&routers, "r2"), Marks { approved: true, middle_only: true, ..Marks::default() });
    assert_eq!(routers.write(), format!("{RECORDED}r2 {}\n", ids[1]));
    routers.approve(&ids, None);
    assert_eq!(routers.write(), format!("{RECORDED}Unnamed {}\n", ids[0]));
    assert_eq!(ApprovedRouters::read(&routers.write()).0, routers);
    routers.reject(&[]);
    assert_eq!(routers.write(), format!("{RECORDED}Unnamed {}\n", ids[0]));
}

#[test]
fn addresses_are_marked_whatever_their_port() {
    let addresses = AddressPolicies {
        reject: AddressPolicies::parse(["192.0.2.0/25:80", "accept 198.51.100.7, 198.51.100.0/24"]).unwrap(),
        bad_exit: AddressPolicies::parse(["203.0.113.1"]).unwrap(),
        invalid: AddressPolicies::parse(["203.0.113.2,"]).unwrap(),
        middle_only: AddressPolicies::parse(["reject 203.0.113.0/24"]).unwrap(),
    };
    let approvals = Approvals { addresses, ..Approvals::default() };
    let marks = |ip: [u8; 4]| approvals.standing(&Fingerprint([0; 20]), &[0; 32], ip.into()).marks;
    let none = Marks::default();
    assert_eq!(marks([192, 0, 2, 1]), Marks { reject: true, ..none });
    assert_eq!(marks([192, 0, 2, 128]), none);
    assert_eq!(marks([198, 51, 100, 7]), none);
    assert_eq!(marks([198, 51, 100, 8]), Marks { reject: true, ..none });
    assert_eq!(marks([203, 0, 113, 1]), Marks { bad_exit: true, middle_only: true, ..none });
    assert_eq!(marks([203, 0, 113, 2]), Marks { invalid: true, middle_only: true, ..none });
    assert!(AddressPolicies::parse(["192.0.2"]).is_err());
}

#[test]
fn only_approved_relays_are_listed_in_a_strict_network() {
    let (routers, _) = ApprovedRouters::read(RECORDED);
    let mut approvals = Approvals { routers, ..Approvals::default() };
    let standing = |approvals: &Approvals, nickname| {
        let relay = relay(nickname);
        approvals.standing(&relay.identity, &relay.ed_identity, relay.ipv4)
    };
    assert!(standing(&approvals, "a1").listed);
    approvals.strict = true;
    assert_eq!(["a1", "r0", "r1", "r2"].map(|n| standing(&approvals, n).listed), [false, false, true, false]);
    // An approval does not help a relay in a rejected network.
    approvals.addresses.reject = AddressPolicies::parse(["127.0.0.0/8"]).unwrap();
    let rejected = standing(&approvals, "r1");
    assert!(!rejected.listed && rejected.marks.reject && !rejected.identity_rejected);
}

#[test]
fn relays_wait_until_they_are_decided_about() {
    let mut pending = Pending::default();
    let mut approvals = Approvals { strict: true, ..Approvals::default() };
    for (n, relay) in relays().iter().enumerate() {
        pending.note(relay, Unix(100 - n as u64));
    }
    pending.note(&relays()[0], Unix(200));
    let waiting = pending.list();
    assert_eq!(waiting.len(), 6);
    assert_eq!(
        (waiting[5].rsa, waiting[5].since, waiting[5].last),
        (relays()[0].identity, Unix(100), Unix(200))
    );
    approvals.routers.approve(&[RelayId::Rsa(relays()[1].identity)], None);
    approvals.routers.reject(&[RelayId::Ed25519(relays()[2].ed_identity)]);
    pending.settle(&approvals);
    assert_eq!(pending.list().len(), 4);
    let waiting = pending.get(&relays()[3].identity).unwrap().clone();
    approvals.routers.approve(&waiting.ids(), Some(&waiting.nickname));
    pending.settle(&approvals);
    assert_eq!(pending.get(&relays()[3].identity), None);
    assert!(approvals.standing(&waiting.rsa, &waiting.ed25519, waiting.ipv4).listed);
}

#[test]
fn those_that_wait_survive_being_written() {
    let mut pending = Pending::default();
    for (n, relay) in relays().iter_mut().enumerate() {
        relay.contact = [None, Some(" "), Some(" a\u{1b}[2J  b\t "), Some("\u{fc}")]
            .get(n)
            .copied()
            .flatten()
            .map(Box::from);
        pending.note(relay, Unix(1_795_800_000 + n as u64));
    }
    let contacts: Vec<_> = pending.list().iter().map(|relay| relay.contact.clone()).collect();
    assert_eq!(contacts[..4], [None, None, Some("a[2J  b".into()), Some("\u{fc}".into())]);
    assert_eq!(Pending::read(&pending.write()), pending);
    let mut long = relays().remove(0);
    long.contact = Some("x".repeat(1000).into());
    pending.note(&long, Unix(0));
    assert_eq!(pending.get(&long.identity).unwrap().contact.as_ref().unwrap().len(), PENDING_CONTACT);
}

#[test]
fn the_one_that_was_silent_longest_makes_room() {
    let mut pending = Pending::default();
    let mut relay = relays().remove(0);
    for n in 0..=PENDING_RELAYS as u64 {
        relay.identity.0[..8].copy_from_slice(&n.to_be_bytes());
        // The second one comes first.
        pending.note(&relay, Unix(if n == 1 { 0 } else { n + 1 }));
    }
    assert_eq!(pending.list().len(), PENDING_RELAYS);
    assert!(pending.list().iter().all(|relay| relay.rsa.0[7] != 1 || relay.rsa.0[6] != 0));
}

proptest! {
    #[test]
    fn any_list_of_those_that_wait_is_read(
        state in "([0-9A-F]{40} [A-Za-z0-9+/]{43} 192.0.2.1 (2026-11-27 10:00:00 ){2}|nick|\\PC{0,9}| |\n){0,20}"
    ) {
        let pending = Pending::read(&state);
        prop_assert_eq!(Pending::read(&pending.write()), pending);
    }

    #[test]
    fn any_file_is_read_and_left_as_it_is(file in "(!reject|!badexit|nick|#| |\t|\r|\n|[0-9A-F]{40}|[A-Za-z0-9+/]{43}|\\PC){0,40}") {
        let (routers, _) = ApprovedRouters::read(&file);
        let written = routers.write();
        let end = if file.is_empty() || file.ends_with('\n') { "" } else { "\n" };
        prop_assert_eq!(written, format!("{file}{end}"));
    }

    #[test]
    fn what_was_decided_last_holds(decisions in prop::collection::vec((0u8..4, any::<bool>(), any::<bool>()), 1..20)) {
        let mut routers = ApprovedRouters::default();
        for (n, approve, by_rsa) in decisions {
            let (rsa, ed25519) = (Fingerprint([n; 20]), [n; 32]);
            let mut ids = [RelayId::Rsa(rsa), RelayId::Ed25519(ed25519)];
            if !by_rsa {
                ids.reverse();
            }
            if approve {
                routers.approve(&ids, None);
            } else {
                routers.reject(&ids);
            }
            let marks = routers.marks(&rsa, &ed25519);
            prop_assert_eq!((marks.approved, marks.reject), (approve, !approve));
        }
        prop_assert_eq!(&ApprovedRouters::read(&routers.write()).0, &routers);
        prop_assert!(routers.lines.len() <= 4);
    }
}
