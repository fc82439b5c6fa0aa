use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::netdoc::authcert::{AuthCert, CertStore};
use crate::netdoc::routerdesc::{RouterDesc, split_documents};
use crate::netdoc::testdata::{self, CONSENSUS_MICRODESC, CONSENSUS_NS, NOW, edit_lines};
use crate::netdoc::tokenize::Tokenizer;
use crate::netdoc::{DocError, Fault};

fn parse(text: &str) -> Result<Consensus, Fault> {
    UnverifiedConsensus::parse(text).map(|c| c.peek().clone()).map_err(|e| e.fault)
}

#[test]
fn an_entry_says_what_its_relay_speaks_as_c_tor_reads_it() {
    for text in [CONSENSUS_NS, CONSENSUS_MICRODESC] {
        let with = |list| parse(&text.replacen("Relay=2-6", list, 1)).unwrap();
        let first = |c: &Consensus| c.relays[0].protocols.to_string();
        let real = with("Relay=2-6");
        let unread = with("Relay=x");
        assert_eq!((unread.relays.len(), unread.skipped_relays), (real.relays.len() - 1, 1));
        for same in ["Relay=2-6 Relay=7", "Relay=02-006"] {
            let same = with(same);
            assert_eq!((first(&same), same.skipped_relays), (first(&real), 0));
        }
    }
}

#[test]
fn lines_that_take_no_arguments_have_none() {
    let more = CONSENSUS_NS.replacen("\ndirectory-footer\n", "\ndirectory-footer x\n", 1);
    assert_eq!(parse(&more), Err(Fault::TooManyArguments { keyword: "directory-footer", most: 0 }));
}

#[test]
fn both_flavours_of_a_real_consensus_verify() {
    for (text, flavor) in [(CONSENSUS_NS, Flavor::Ns), (CONSENSUS_MICRODESC, Flavor::Microdesc)] {
        let parsed = UnverifiedConsensus::parse(text).unwrap();
        let c = parsed.verify(&testdata::authorities(), testdata::certs(), NOW).unwrap();
        assert_eq!((c.flavor, c.method, c.voting_delay), (flavor, 35, (4, 4)));
        assert_eq!((c.relays.len(), c.skipped_relays, c.voters.len()), (7, 0, 3));
        assert_eq!(c.params.get(&crate::netdoc::params::CIRCWINDOW), 900);
        assert_eq!(c.params.raw("some-future-param"), Some(-7));
        assert_eq!(c.weights.raw("Wgd"), Some(3333));
        assert!(c.required_relay_protocols.supports("FlowCtrl", 2));
        assert!(c.known_flags.has(RelayFlags::SYBIL) && !c.known_flags.has(RelayFlags::BAD_EXIT));
        assert_eq!(&*c.voters[0].nickname, "a2");
        assert_eq!(&*c.voters[0].contact, "a2 at example dot com ünï");
        assert_eq!((c.voters[0].dir_port, c.voters[0].or_port), (7000, 5000));
        let a0 = &c.relays[0];
        assert_eq!(a0.identity.to_string(), "1768721F0F389993F69CAB59933085973FB4AAC7");
        assert_eq!(a0.or_addr(), "127.71.0.1:5000".parse().unwrap());
        assert_eq!((a0.bandwidth, a0.unmeasured, a0.dir_port), (Some(7), true, 7000));
        assert_eq!(a0.version.as_deref(), Some("Tor 0.4.9.11"));
        assert!(a0.protocols.supports("Relay", 6));
        assert!(a0.flags.has(RelayFlags::AUTHORITY | RelayFlags::RUNNING | RelayFlags::VALID));
        assert_eq!(a0.policy.is_some(), flavor == Flavor::Ns);
        assert_eq!(c.relay(&a0.identity), Some(a0));
        assert_eq!(c.relay(&Fingerprint([0; 20])), None);
    }
}

#[test]
fn texts_that_relays_share_are_stored_once() {
    let c = parse(CONSENSUS_NS).unwrap();
    assert!(c.relays.windows(2).all(|w| std::sync::Arc::ptr_eq(&w[0].protocols, &w[1].protocols)));
    assert!(size_of::<RelayStatus>() <= 168, "{}", size_of::<RelayStatus>());
}

#[test]
fn the_ns_flavour_names_the_descriptors() {
    let c = parse(CONSENSUS_NS).unwrap();
    for text in split_documents(testdata::DESCRIPTORS) {
        let d = RouterDesc::parse(text).unwrap();
        let entry = c.relay(&d.identity).unwrap();
        assert_eq!(entry.descriptor(), Some(&d.digest));
        assert_eq!((entry.published, entry.nickname), (d.published, d.nickname));
        assert_eq!(
            entry.policy.as_ref().unwrap().rejects_all(),
            d.nickname.as_str() != "r0" && d.nickname.as_str() != "r3"
        );
    }
}

#[test]
fn more_than_half_of_the_configured_authorities_must_have_signed() {
    let parsed = UnverifiedConsensus::parse(CONSENSUS_MICRODESC).unwrap();
    let all = testdata::authorities();
    let stranger = |n| Fingerprint([n; 20]);
    let store = |n: usize| {
        let mut store = CertStore::default();
        testdata::certs().iter().take(n).for_each(|c| store.insert(c.clone()));
        store
    };
    assert_eq!(parsed.check(&all, &store(2), NOW), Ok(()));
    let short = parsed.check(&all, &store(1), NOW).unwrap_err();
    assert_eq!((short.needed, short.good.len(), short.missing_certs.len(), short.bad.len()), (2, 1, 2, 0));
    assert!(short.certs_may_help());
    // Three of five are enough, three of six are not; certificates cannot help then.
    let with = |n: u8| all.iter().copied().chain((0..n).map(stranger)).collect::<Vec<_>>();
    assert_eq!(parsed.check(&with(2), &store(3), NOW), Ok(()));
    let short = parsed.check(&with(3), &store(3), NOW).unwrap_err();
    assert_eq!((short.needed, short.good.len(), short.certs_may_help()), (4, 3, false));
    // An authority listed twice counts once; signatures of authorities that are not configured do not count.
    let doubled = [all[0], all[0], all[0]];
    assert_eq!(parsed.check(&doubled, &store(3), NOW), Ok(()));
    assert_eq!(parsed.check(&[stranger(1)], &store(3), NOW).unwrap_err().good.len(), 0);
    assert!(parsed.check(&[], &store(3), NOW).is_err());
}

#[test]
fn expired_certificates_do_not_count() {
    let parsed = UnverifiedConsensus::parse(CONSENSUS_NS).unwrap();
    let late = NOW + Duration::from_secs(366 * 24 * 3600);
    let short = parsed.check(&testdata::authorities(), testdata::certs(), late).unwrap_err();
    assert_eq!((short.good.len(), short.missing_certs.len()), (0, 3));
}

#[test]
fn a_changed_byte_or_a_swapped_key_breaks_all_signatures() {
    for text in [CONSENSUS_NS, CONSENSUS_MICRODESC] {
        let changed = text.replacen("Bandwidth=7 ", "Bandwidth=8 ", 1);
        let parsed = UnverifiedConsensus::parse(&changed).unwrap();
        let short = parsed.check(&testdata::authorities(), testdata::certs(), NOW).unwrap_err();
        assert_eq!((short.good.len(), short.bad.len()), (0, 3));
    }
    let mut swapped = CertStore::default();
    let certs: Vec<AuthCert> = testdata::certs().iter().cloned().collect();
    for (n, cert) in certs.iter().enumerate() {
        swapped.insert(AuthCert { signing_key: certs[(n + 1) % 3].signing_key.clone(), ..cert.clone() });
    }
    let parsed = UnverifiedConsensus::parse(CONSENSUS_NS).unwrap();
    assert_eq!(parsed.check(&testdata::authorities(), &swapped, NOW).unwrap_err().bad.len(), 3);
}

/// What a flavour's document gives when a line is dropped or doubled, by keyword.
#[test]
fn lines_dropped_and_doubled() {
    for text in [CONSENSUS_NS, CONSENSUS_MICRODESC] {
        let items: Vec<_> = Tokenizer::new(text).map(|i| i.unwrap()).collect();
        for item in &items {
            let mut dropped = text.to_owned();
            dropped.replace_range(item.start..item.end, "");
            let mut doubled = text.to_owned();
            doubled.insert_str(item.end, &text[item.start..item.end]);
            let (dropped, doubled) = (parse(&dropped), parse(&doubled));
            let keyword = item.keyword;
            match keyword {
                // Lines of an entry: the entry goes, the rest stays. Without its `r`, it doubles the lines of the one before.
                "s" | "pr" => {
                    assert_eq!(
                        (dropped.as_ref().unwrap().relays.len(), dropped.unwrap().skipped_relays),
                        (6, 1)
                    );
                    assert_eq!(doubled.unwrap().skipped_relays, 1);
                }
                "v" | "w" | "p" => {
                    assert_eq!(dropped.unwrap().skipped_relays, 0);
                    assert_eq!(doubled.unwrap().skipped_relays, 1);
                }
                "m" => {
                    assert_eq!(dropped.unwrap().relays.iter().filter(|r| r.microdesc().is_none()).count(), 1);
                    assert!(doubled.is_ok());
                }
                "r" => {
                    assert!(dropped.is_ok_and(|c| c.relays.len() < 7) || item.line < 30);
                    assert_eq!(doubled.unwrap().skipped_relays, 1);
                }
                "client-versions" | "server-versions" | "params" => {
                    assert!(dropped.is_ok());
                    assert!(matches!(doubled, Err(Fault::Duplicate(_))), "{keyword}");
                }
                k if k.ends_with("-protocols") => {
                    assert!(dropped.is_ok());
                    assert!(matches!(doubled, Err(Fault::Duplicate(_))), "{keyword}");
                }
                "directory-footer" | "bandwidth-weights" => {
                    assert!(dropped.is_ok());
                    assert!(matches!(doubled, Err(Fault::Duplicate(_))), "{keyword}");
                }
                "directory-signature" => assert!(dropped.is_ok() && doubled.is_ok()),
                "dir-source" => {
                    // What follows is then not an entry of an authority, or belongs to the one before.
                    assert!(dropped.is_err());
                    assert!(matches!(doubled, Err(Fault::Missing("contact"))), "{doubled:?}");
                }
                "contact" | "vote-digest" => {
                    assert!(matches!(dropped, Err(Fault::Missing(_))), "{keyword}");
                    assert!(matches!(doubled, Err(Fault::Duplicate(_))), "{keyword}");
                }
                "network-status-version" => {
                    assert!(matches!(dropped, Err(Fault::Missing(_))));
                    assert!(matches!(doubled, Err(Fault::Duplicate(_))));
                }
                _ => {
                    assert!(matches!(dropped, Err(Fault::Missing(_))), "{keyword}");
                    assert!(matches!(doubled, Err(Fault::Duplicate(_))), "{keyword}");
                }
            }
        }
    }
}

#[test]
fn places_and_contents_are_checked() {
    let swap = |from: &str, to: &str| {
        assert!(CONSENSUS_NS.contains(from), "{from}");
        parse(&CONSENSUS_NS.replacen(from, to, 1))
    };
    assert!(matches!(swap("version 3", "version 4"), Err(Fault::BadValue { .. })));
    assert!(matches!(swap("version 3\n", "version 3 other\n"), Err(Fault::BadValue { .. })));
    assert_eq!(swap("version 3\n", "version 3 ns\n").map(|c| c.flavor), Ok(Flavor::Ns));
    assert!(matches!(swap("status consensus", "status vote"), Err(Fault::BadValue { .. })));
    assert!(matches!(swap("valid-until 2026", "valid-until 2025"), Err(Fault::Mismatch(_))));
    assert!(matches!(swap("circwindow=900", "circwindow=x"), Err(Fault::BadValue { .. })));
    assert!(matches!(swap("circwindow=900", "circwindow=1 circwindow=2"), Err(Fault::BadValue { .. })));
    assert!(swap("vote-status", "x\nvote-status").is_ok());
    assert!(matches!(
        swap("network-status-version 3", "x\nnetwork-status-version 3"),
        Err(Fault::Misplaced(_))
    ));
    assert!(matches!(
        swap("bandwidth-weights Wbd=3333", "bandwidth-weights Wbd"),
        Err(Fault::BadValue { .. })
    ));
    assert!(swap("directory-signature ", "directory-signature  ").is_ok());
    assert!(matches!(swap("\ndirectory-signature ", "\n directory-signature "), Err(Fault::Misplaced(_))));
    // A signature by someone who is no voter refuses the document; one of an unknown kind is passed over.
    let id = "directory-signature 55F84A8365B0B4009BC3F32ED5E5270656736686 ";
    let other = "directory-signature 0000000000000000000000000000000000000000 ";
    assert!(matches!(swap(id, other), Err(Fault::Mismatch(_))));
    assert!(swap(id, "directory-signature sha3-999 0000000000000000000000000000000000000000 ").is_ok());
    // Order of entries.
    let c = parse(CONSENSUS_NS).unwrap();
    assert!(c.relays.is_sorted_by_key(|r| r.identity));
    let entries: Vec<&str> = crate::netdoc::text::split_at_lines(CONSENSUS_NS, "r").collect();
    let reversed = CONSENSUS_NS.replacen(&entries[..2].concat(), &[entries[1], entries[0]].concat(), 1);
    assert!(matches!(parse(&reversed), Err(Fault::Mismatch(_))));
    let twice = CONSENSUS_NS.replacen(entries[0], &entries[0].repeat(2), 1);
    assert!(matches!(parse(&twice), Err(Fault::Mismatch(_))));
}

#[test]
fn fields_that_the_captured_network_does_not_have() {
    let text = CONSENSUS_NS
        .replacen("\ns ", "\na 1.2.3.4:5\na [2001:db8::1]:443\na [2001:db8::2]:443\ns BadExit ", 1)
        .replacen("Bandwidth=7 Unmeasured=1", "Bandwidth=4000000000 GuardFraction=55 Future=1", 1)
        .replacen(
            "\nparams",
            "\nshared-rand-current-value 3 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\nparams",
            1,
        )
        .replacen("client-versions \n", "client-versions 0.4.8.1,0.4.9.2\n", 1);
    let c = parse(&text).unwrap();
    let relay = &c.relays[0];
    assert_eq!(relay.or_addr_v6(), Some("[2001:db8::1]:443".parse().unwrap()));
    assert_eq!(
        (relay.bandwidth, relay.unmeasured, relay.guard_fraction),
        (Some(4_000_000_000), false, Some(55))
    );
    assert!(relay.flags.has(RelayFlags::BAD_EXIT));
    let random = c.shared_random_current.unwrap();
    assert_eq!((random.reveals, random.value[31]), (3, 31));
    assert_eq!(c.client_versions, ["0.4.8.1".into(), "0.4.9.2".into()]);
}

#[test]
fn nothing_stands_between_signatures() {
    let at = CONSENSUS_NS.find("bandwidth-weights ").unwrap();
    let (body, rest) = CONSENSUS_NS.split_at(at);
    let (weights, signatures) = rest.split_once('\n').unwrap();
    let (first, others) = signatures.split_once("-----END SIGNATURE-----\n").unwrap();
    let moved = format!("{body}{first}-----END SIGNATURE-----\n{weights}\n{others}");
    assert!(matches!(parse(&moved), Err(Fault::Misplaced("directory-signature"))));
}

#[test]
fn too_many_signatures_or_authorities_are_refused() {
    let signature = CONSENSUS_NS[CONSENSUS_NS.find("directory-signature").unwrap()..].to_owned();
    assert!(matches!(parse(&format!("{CONSENSUS_NS}{}", signature.repeat(30))), Err(Fault::TooLarge { .. })));
    let start = CONSENSUS_NS.find("dir-source").unwrap();
    let voter = &CONSENSUS_NS[start..CONSENSUS_NS.find("\nr ").unwrap() + 1];
    let many = CONSENSUS_NS.replacen(voter, &voter.repeat(30), 1);
    assert!(matches!(parse(&many), Err(Fault::TooLarge { .. })));
}

#[test]
fn lifetimes() {
    let l =
        Lifetime { valid_after: Unix(1_000_000), fresh_until: Unix(1_003_600), valid_until: Unix(1_010_800) };
    let at = |t| (l.is_fresh(Unix(t)), l.is_valid(Unix(t)), l.is_reasonably_live(Unix(t)));
    assert_eq!(at(1_000_000 - 86_401), (false, false, false));
    assert_eq!(at(1_000_000 - 86_400), (false, false, true));
    assert_eq!(at(1_000_000), (true, true, true));
    assert_eq!(at(1_003_600), (true, true, true));
    assert_eq!(at(1_003_601), (false, true, true));
    assert_eq!(at(1_010_801), (false, false, true));
    assert_eq!(at(1_010_800 + 86_400), (false, false, true));
    assert_eq!(at(1_010_800 + 86_401), (false, false, false));
    assert_eq!(l.interval(), Duration::from_secs(3600));
}

proptest! {
    #[test]
    fn mutations_never_panic_and_never_verify(at in any::<prop::sample::Index>(), with in "[ -~\n]{0,3}", flip: bool) {
        let mut text = if flip { CONSENSUS_NS } else { CONSENSUS_MICRODESC }.to_owned();
        let signed_end = text.find("\ndirectory-signature ").unwrap();
        let at = at.index(text.len());
        prop_assume!(text.is_char_boundary(at) && text.is_char_boundary(at + 1) && text[at..at + 1] != with);
        text.replace_range(at..at + 1, &with);
        if let Ok(parsed) = UnverifiedConsensus::parse(&text) {
            let verdict = parsed.check(&testdata::authorities(), testdata::certs(), NOW);
            prop_assert!(at >= signed_end || verdict.is_err());
        }
    }

    #[test]
    fn cut_documents_never_panic(from in 0usize..80, to in 0usize..80) {
        let cut = edit_lines(CONSENSUS_NS, |n, l| if n >= from && n < to { String::new() } else { l.into() });
        let _: Result<_, DocError> = UnverifiedConsensus::parse(&cut);
    }
}
