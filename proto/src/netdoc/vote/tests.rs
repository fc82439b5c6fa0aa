use proptest::prelude::*;

use super::random::{Dice, certificate, key, vote};
use super::*;
use crate::limits::SECTION_ITEMS;
use crate::netdoc::signed::BuildError;
use crate::netdoc::testdata::{edit_lines, votes};
use crate::netdoc::text;
use crate::netdoc::tokenize::Tokenizer;
use crate::netdoc::{DocError, Fault};

fn rng() -> rand_chacha::ChaCha8Rng {
    rand_chacha::rand_core::SeedableRng::seed_from_u64(3)
}

/// A recorded vote, with several relays and everything that authorities write.
fn recorded() -> &'static str {
    split(votes::THREE.votes).next().unwrap()
}

fn fault(text: &str) -> Fault {
    SignedVote::parse(text).map(|_| ()).expect_err("was to be refused").fault
}

/// What a vote says that was altered after it was signed is refused last, for its signature.
const SPOILED: Fault = Fault::BadSignature("directory-signature");

#[test]
fn recorded_votes_are_written_as_they_were() {
    for recording in votes::all() {
        for text in split(recording.votes) {
            let signed = SignedVote::parse(text).unwrap_or_else(|e| panic!("{}: {e}", recording.name));
            votes::same_lines(recording.name, &signed.vote.encode(), votes::unsigned(text));
            let named = format!("vote-digest {}\n", signed.digest);
            assert!(recording.ns.contains(&named) && recording.microdesc.contains(&named));
        }
    }
}

#[test]
fn fields() {
    let all = votes::parsed(votes::THREE.votes);
    let a0 = &all.iter().find(|v| &*v.vote.authority.nickname == "a0").unwrap().vote;
    assert_eq!(a0.methods, [32, 33, 34, 35]);
    assert_eq!((a0.voting_delay, a0.lifetime.interval().as_secs()), ((4, 4), 20));
    assert_eq!(a0.client_versions.as_deref().unwrap().join(" "), "0.4.8.9 0.4.8.10 0.4.9.11");
    assert_eq!(a0.params.get("some-future-param"), Some(-7));
    assert_eq!(&*a0.authority.contact, "a0 at example dot com ünï");
    assert_eq!((a0.authority.dir_port, a0.authority.or_port), (7000, 5000));
    assert_eq!(a0.authority.identity, a0.certificate.cert().identity);
    assert!(a0.required_relay_protocols.as_ref().unwrap().supports("FlowCtrl", 2));
    assert!(a0.measures() && a0.bandwidth_file_digest.is_some() && a0.bandwidth_file_headers.is_some());
    assert_eq!(a0.shared_random.as_ref().unwrap().commits.len(), 3);
    let named = |nickname: &str| a0.relays.iter().find(|r| r.nickname.as_str() == nickname).unwrap();
    let r0 = named("r0");
    assert!(r0.flags & a0.flag_bit("Guard").unwrap() != 0 && a0.flag_bit("Nonsense").is_none());
    assert!(a0.flag_names(r0.flags).any(|flag| flag == "Exit"));
    assert_eq!((r0.version.as_deref(), r0.policy.as_deref()), (Some("Tor 0.4.9.11"), Some("reject 25")));
    assert!(r0.weight.measured.is_some() && r0.weight.guard_fraction.is_some());
    assert!(named("a1").weight.measured_but_authority.is_some() && named("a1").weight.measured.is_none());
    assert_eq!(named("r4").ipv6.map(|(ip, _)| ip), Some(Ipv6Addr::LOCALHOST));
    // A family key makes a difference from method 35 on.
    assert_ne!(named("r1").microdesc(34), named("r1").microdesc(35));
    assert_eq!((r0.microdesc(32), r0.microdesc(31)), (r0.microdesc(35), None));
    let absent = all.iter().find(|v| &*v.vote.authority.nickname == "a2").unwrap();
    assert_eq!(absent.vote.client_versions, None);
}

#[test]
fn texts_that_relays_share_are_stored_once() {
    let relays = &votes::parsed(votes::THREE.votes)[0].vote.relays;
    assert!(relays.windows(2).all(|w| Arc::ptr_eq(&w[0].protocols, &w[1].protocols)));
}

/// Every line of a vote is dropped and doubled; what is not needed shows in the signature only.
#[test]
fn lines_dropped_and_doubled() {
    let text = recorded();
    for item in Tokenizer::new(text).map(|item| item.unwrap()) {
        let mut dropped = text.to_owned();
        dropped.replace_range(item.start..item.end, "");
        let mut doubled = text.to_owned();
        doubled.insert_str(item.end, &text[item.start..item.end]);
        let (keyword, line) = (item.keyword, item.line);
        let optional = match keyword {
            "params" | "legacy-dir-key" | "directory-footer" | "v" | "w" | "p" | "a" | "m" | "id"
            | "stats" => true,
            "dir-address" => false,
            k => {
                k.ends_with("-versions")
                    || k.starts_with("re") && k.ends_with("-protocols")
                    || k.starts_with("shared-rand-")
                    || k.starts_with("bandwidth-file-")
                    || k == "flag-thresholds"
            }
        };
        if keyword != "r" && keyword != "dir-address" {
            assert_eq!(fault(&dropped) == SPOILED, optional, "{keyword}, line {line}: {}", fault(&dropped));
        }
        let many = ["m", "id", "stats", "a", "shared-rand-commit", "flag-thresholds"].contains(&keyword)
            || keyword.starts_with("bandwidth-file-");
        match many {
            true => assert_eq!(fault(&doubled), SPOILED, "{keyword}, line {line}"),
            false => assert_ne!(fault(&doubled), SPOILED, "{keyword}, line {line}"),
        }
    }
}

#[test]
fn what_c_tor_refuses_is_refused() {
    let swap = |from: &str, to: &str| {
        assert!(recorded().contains(from), "{from:?}");
        fault(&recorded().replacen(from, to, 1))
    };
    let refused = |fault: Fault| fault != SPOILED;
    assert!(refused(swap("vote-status vote", "vote-status consensus")));
    assert!(refused(swap("network-status-version 3", "network-status-version 3 microdesc")));
    assert!(refused(swap("voting-delay 4 4", "voting-delay 4 1")));
    assert!(refused(swap("known-flags Authority", "known-flags Zeta Authority")));
    assert!(refused(swap("known-flags Authority ", "known-flags ")));
    let flags = (0..70).map(|n| format!("A{n:02} ")).collect::<String>();
    assert_eq!(
        swap("known-flags Authority", &format!("known-flags {flags}Authority")),
        Fault::TooLarge { size: 81, max: 64 }
    );
    let params = |line: &str| {
        fault(&edit_lines(recorded(), |_, l| match l.starts_with("params ") {
            true => format!("params {line}\n"),
            false => l.to_owned(),
        }))
    };
    for bad in ["b=1 a=1", "a=1 a=2", "a=1 a=1", "a", "a=", "a=x", "a=2147483648", "=1 b"] {
        assert!(refused(params(bad)), "{bad}");
    }
    // `0` sorts before `=`, so `a0` before `a`.
    for good in ["", "a0=1 a=2", "a=-5", "a=+5", "a-b=1 a0=1 a=2 ab=3"] {
        assert_eq!(params(good), SPOILED, "{good}");
    }
    assert!(refused(params("a=1 a0=1")));
    let relays = |edit: &dyn Fn(&str) -> Option<String>| {
        fault(&edit_lines(recorded(), |_, l| edit(l).unwrap_or_else(|| l.to_owned())))
    };
    assert!(refused(relays(&|l| l.starts_with("s ").then(|| "s Unheard\n".into()))));
    assert!(refused(relays(&|l| l.starts_with("pr ").then(|| "pr Link=x\n".into()))));
    assert_eq!(relays(&|l| l.starts_with("pr ").then(|| "pr \n".into())), SPOILED);
    assert!(refused(relays(&|l| l.starts_with("p ").then(|| "p maybe 80\n".into()))));
    assert!(refused(relays(&|l| l.starts_with("w ").then(|| "w Bandwidth=x\n".into()))));
    assert!(refused(relays(&|l| l.starts_with("w ").then(|| "w Measured=-1\n".into()))));
    assert!(refused(relays(&|l| l.starts_with("w ").then(|| "w GuardFraction=101\n".into()))));
    assert_eq!(relays(&|l| l.starts_with("w ").then(|| "w Unheard=of\n".into())), SPOILED);
    let same = text::base64_unpadded(&[5; 32]);
    let twice = relays(&|l| l.starts_with("id ").then(|| format!("id ed25519 {same}\n")));
    assert_eq!(twice, Fault::Mismatch("two relays have the same Ed25519 identity"));
    // No identity is one that many have.
    assert_eq!(relays(&|l| l.starts_with("id ").then(|| "id ed25519 none\n".into())), SPOILED);
    let zero = text::base64_unpadded(&[0; 32]);
    assert_eq!(relays(&|l| l.starts_with("id ").then(|| format!("id ed25519 {zero}\n"))), SPOILED);
    assert!(refused(swap("\nr r", "\nr r-")));
}

#[test]
fn relays_must_ascend() {
    let text = recorded();
    let starts: Vec<usize> =
        Tokenizer::new(text).map(|i| i.unwrap()).filter(|i| i.keyword == "r").map(|i| i.start).collect();
    let (first, second) = (&text[starts[0]..starts[1]], &text[starts[1]..starts[2]]);
    let out_of_order = Fault::Mismatch("relays are not in ascending order of identity");
    let swapped = text.replacen(&format!("{first}{second}"), &format!("{second}{first}"), 1);
    assert_eq!(fault(&swapped), out_of_order);
    assert_eq!(fault(&text.replacen(first, &format!("{first}{first}"), 1)), out_of_order);
}

#[test]
fn the_signature_must_be_the_voters() {
    let all: Vec<&str> = split(votes::THREE.votes).collect();
    let at = |text: &str, what: &str| text.find(what).unwrap();
    let (ours, theirs) = (all[0], all[1]);
    let signature = |text: &str| text[at(text, "directory-signature ")..].to_owned();
    let foreign = ours.replace(&signature(ours), &signature(theirs));
    assert_eq!(fault(&foreign), Fault::Mismatch("another authority than the voter signed"));
    let cert = |text: &str| text[at(text, "dir-key-certificate-version")..at(text, "\nr ") + 1].to_owned();
    let foreign = ours.replace(&cert(ours), &cert(theirs));
    assert_eq!(fault(&foreign), Fault::Mismatch("dir-source and certificate name different authorities"));
    let followed = ours.replacen("directory-footer\n", "", 1) + "directory-footer\n";
    assert_eq!(fault(&followed), Fault::Misplaced("directory-footer"));
    let longer = ours.to_owned() + "and-more that nobody signed\n";
    assert_eq!(fault(&longer), Fault::Misplaced("directory-signature"));
    let named =
        |name: &str| ours.replacen("directory-signature ", &format!("directory-signature {name} "), 1);
    assert!(matches!(fault(&named("md5")), Fault::BadValue { .. }), "{}", fault(&named("md5")));
    // The faults of a certificate are where they are in the vote.
    let broken = ours.replacen("dir-key-expires 2", "dir-key-expires 3", 1);
    let line = 1 + ours.lines().position(|l| l == "dir-key-certification").unwrap();
    let want = Fault::BadSignature("dir-key-certification").at(line);
    assert_eq!(SignedVote::parse(&broken), Err::<SignedVote, DocError>(want));
}

/// A line of three bytes takes forty times that in memory.
#[test]
fn an_entry_has_only_so_many_lines() {
    let with = |lines: usize| {
        recorded().replacen("\nid ed25519", &format!("{}\nid ed25519", "\nm 1 x=y".repeat(lines)), 1)
    };
    assert_eq!(fault(&with(SECTION_ITEMS)), Fault::TooManyLines);
    assert_ne!(fault(&with(SECTION_ITEMS / 2)), Fault::TooManyLines);
}

#[test]
fn a_body_of_several_votes() {
    let bodies: Vec<&str> = split(votes::THREE.votes).collect();
    assert_eq!((bodies.len(), bodies.concat()), (3, votes::THREE.votes.to_owned()));
    assert_eq!(split("").count() + split("garbage\n").count(), 0);
}

fn signable(mut vote: Vote) -> Vote {
    vote.certificate = certificate(&key());
    vote.authority.identity = vote.certificate.cert().identity;
    vote
}

/// What is read of a vote on one relay that was edited before it was signed.
fn edited(edit: impl Fn(String) -> String) -> Result<Vote, Fault> {
    let mut vote = signable(random::plain(1));
    vote.relays = vec![random::relay(1)];
    let text = random::sign(edit(vote.encode()), &vote, &key());
    SignedVote::parse(&text).map(|signed| signed.vote).map_err(|error| error.fault)
}

/// The same with other lines in place of all that begin with a keyword.
fn with_lines(keyword: &str, lines: &str) -> Result<Vote, Fault> {
    edited(|text| {
        let lines = std::cell::Cell::new(Some(lines));
        edit_lines(&text, |_, line| match line.trim_end().split(' ').next() == Some(keyword) {
            true => lines.take().unwrap_or("").to_owned(),
            false => line.to_owned(),
        })
    })
}

#[test]
fn microdescriptors_are_those_that_c_tor_finds() {
    let digest = |n: u8| text::base64_unpadded(&[n; 32]);
    let found = |lines: &str, method: u32| {
        with_lines("m", lines).unwrap().relays[0].microdesc(method).map(|digest| digest[0])
    };
    let line = |methods: &str, n: u8| format!("m {methods} sha256={}\n", digest(n));
    let (one, two) = (line("32,33", 1), line("33", 2));
    assert_eq!([32, 33, 34].map(|method| found(&format!("{one}{two}"), method)), [Some(1), Some(2), None]);
    // However many there are, the last counts.
    let many: String = (0..1000).map(|n| line("33", n as u8)).chain([line("33", 200)]).collect();
    assert_eq!(found(&many, 33), Some(200));
    // A line that names the method and has no digest is the last to be looked at.
    for odd in ["m 33\n", "m 33 md5=x\n", "m 33 sha256=x\n", &one.replace(" sha", "\tsha")] {
        let found = |lines: &str| [32, 33].map(|method| found(lines, method));
        assert_eq!(found(&format!("{}{odd}", line("32,33", 1)))[1], None, "{odd}");
        assert_eq!(found(&format!("{odd}{}", line("32,33", 1))), [Some(1), Some(1)], "{odd}");
    }
    for (methods, has) in [
        ("33,", true),
        ("99999999999,33", true),
        ("33x", true),
        ("32x,33", false),
        ("32,,33", false),
        ("033", false),
        ("+33", false),
        ("x,33", false),
    ] {
        assert_eq!(found(&line(methods, 1), 33).is_some(), has, "{methods}");
    }
    let behind = |tail: &str| found(&line("33 x=y", 1).replace('\n', &format!("{tail}\n")), 33);
    assert_eq!(["=", " more", "more"].map(behind), [Some(1); 3]);
    let bits = format!("m 33 sha256={}h\n", &digest(1)[..42]);
    assert_eq!(found(&bits, 33), Some(1), "the last two bits may be anything");
}

#[test]
fn odd_numbers_are_read_as_by_c_tor() {
    let methods = |texts: &str| {
        with_lines("consensus-methods", &format!("consensus-methods {texts}\n")).unwrap().methods
    };
    assert_eq!(methods("32 33 x 2147483647 2147483648 4294967295 -1 35x 0"), [32, 33, 2147483647]);
    // Others count texts: who writes a number in another way, first at least, does not count for it.
    assert_eq!(methods("32 032 033 33 +34 35 35"), [32, 35, 35]);
    let r = |ports: &str| {
        let vote = edited(|text| {
            edit_lines(&text, |_, line| match line.starts_with("r ") {
                true => format!("{} {ports}\n", line.rsplitn(3, ' ').last().unwrap_or("")),
                false => line.to_owned(),
            })
        });
        vote.map(|vote| (vote.relays[0].or_port, vote.relays[0].dir_port))
    };
    assert_eq!(r("+9001 65535"), Ok((9001, 65535)));
    assert_eq!(r("x 65536"), Ok((0, 0)));
    assert_eq!(
        with_lines("voting-delay", "voting-delay 2147483647 2\n").unwrap().voting_delay,
        (2147483647, 2)
    );
    assert!(with_lines("voting-delay", "voting-delay 2147483648 2\n").is_err());
    let mut relay = random::relay(1);
    relay.ipv6 = Some(("::1.2.3.4".parse().unwrap(), 80));
    let mut out = String::new();
    entry::write(&mut out, &random::plain(1), &relay);
    assert!(out.contains("\na [::1.2.3.4]:80\n"), "{out}");
}

#[test]
fn lines_have_as_many_arguments_as_c_tor_takes() {
    let most = |keyword: &str, first: &str, filler: &str| {
        let with = |n: usize| {
            let words = first.split(' ').filter(|word| !word.is_empty()).count();
            let line = format!("{keyword} {first} {}\n", format!("{filler} ").repeat(n - words));
            with_lines(keyword, &line)
        };
        assert!(with(512).is_ok(), "{keyword}");
        assert!(matches!(with(513), Err(Fault::TooManyArguments { most: 512, .. })), "{keyword}");
    };
    most("consensus-methods", "32 33 34 35", "x");
    most("vote-status", "vote", "x");
    most("voting-delay", "4 4", "x");
    most("s", "Running", "Running");
    most("id", "ed25519 none", "x");
    // What is one text has no such bound.
    let contact = format!("contact {}\n", "x ".repeat(2000));
    assert!(with_lines("contact", &contact).is_ok());
    // Of these there are just so many.
    let before = |line: &'static str| {
        edited(move |text| text.replacen("\nknown-flags ", &format!("\n{line}\nknown-flags "), 1))
    };
    let value = "shared-rand-current-value 1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(before(value).is_ok() && before("shared-rand-participate").is_ok());
    for more in ["shared-rand-participate x", "shared-rand-current-value 1 AAAA= x"] {
        assert!(matches!(before(more), Err(Fault::TooManyArguments { .. })), "{more}");
    }
    // A line that C tor does not know may have an object.
    assert!(before("flag-thresholds x\n-----BEGIN X-----\nAAAA\n-----END X-----").is_ok());
}

#[test]
fn texts_of_several_lines_are_not_signed() {
    let sign = |edit: &dyn Fn(&mut Vote)| {
        let mut vote = signable(random::plain(1));
        vote.relays = vec![random::relay(1)];
        edit(&mut vote);
        vote.sign(&key(), &mut rng()).map(|_| ())
    };
    assert!(sign(&|_| {}).is_ok());
    let evil = "x\nr evil";
    let edits: [&dyn Fn(&mut Vote); 5] = [
        &|v| v.authority.contact = evil.into(),
        &|v| v.client_versions = Some(vec![evil.into()]),
        &|v| v.params = [(evil, 1)].into_iter().collect(),
        &|v| v.relays[0].version = Some(evil.into()),
        &|v| v.relays[0].protocols = evil.into(),
    ];
    for edit in edits {
        assert!(matches!(sign(edit), Err(BuildError::NotOneLine { .. })));
    }
    // Nor is what others would refuse.
    let twice = |v: &mut Vote| v.relays.push(v.relays[0].clone());
    assert!(matches!(sign(&twice), Err(BuildError::Refused(_))));
    assert!(matches!(sign(&|v| v.authority.identity = Fingerprint([0; 20])), Err(BuildError::Refused(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_signed_reads_as_it_was_meant(seed: u64) {
        let vote = signable(vote(&mut Dice::new(seed), 1));
        let (text, signed) = vote.sign(&key(), &mut rng()).unwrap();
        prop_assert_eq!(&signed.vote, &vote);
        prop_assert_eq!(SignedVote::parse(&text).unwrap(), signed);
        prop_assert!(text.starts_with(&vote.encode()));
    }

    #[test]
    fn mutated_ones_never_panic(at in any::<prop::sample::Index>(), with in "[ -~\n]{0,3}") {
        let mut text = recorded().to_owned();
        let mut at = at.index(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
        text.replace_range(at..end, &with);
        let _ = SignedVote::parse(&text);
    }
}
