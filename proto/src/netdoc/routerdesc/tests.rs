use std::sync::LazyLock;

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::crypto::ed25519::Ed25519Pair;
use crate::crypto::rsa::RsaPrivate;
use crate::link::cert::{self, Certified};
use crate::netdoc::extrainfo::{ExtraInfo, NewExtraInfo};
use crate::netdoc::testdata;
use crate::netdoc::tokenize::Tokenizer;

const NOW: Unix = testdata::NOW;
const LATER: Unix = Unix(NOW.0 + 30 * 24 * 3600);

struct Keys {
    identity: RsaPrivate,
    tap: RsaPrivate,
    master: Ed25519Pair,
    signing: Ed25519Pair,
    signing_cert: Vec<u8>,
    family: Ed25519Pair,
    ntor: [u8; 32],
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let mut rng = rng();
    let master = Ed25519Pair::from_seed(&[1; 32]);
    let signing = Ed25519Pair::from_seed(&[2; 32]);
    let certified = Certified::Ed25519(signing.public());
    Keys {
        identity: RsaPrivate::generate(1024, &mut rng).unwrap(),
        tap: RsaPrivate::generate(1024, &mut rng).unwrap(),
        signing_cert: cert::build(CertType::IDENTITY_V_SIGNING, certified, LATER, &master),
        master,
        signing,
        family: Ed25519Pair::from_seed(&[3; 32]),
        ntor: [4; 32],
    }
});

impl Keys {
    fn document(&self) -> DocumentKeys<'_> {
        DocumentKeys {
            identity: &self.identity,
            ed_identity: self.master.public(),
            signing: &self.signing,
            signing_cert: &self.signing_cert,
        }
    }

    fn onion(&self) -> OnionKeys<'_> {
        OnionKeys { ntor: &self.ntor, ntor_expires: LATER, tap: Some(&self.tap) }
    }
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([7; 32])
}

/// A descriptor with every line there is.
fn full() -> NewDescriptor {
    let subject = Certified::Ed25519(KEYS.master.public());
    let family_cert = cert::build(CertType::FAMILY_V_IDENTITY, subject, LATER, &KEYS.family);
    NewDescriptor {
        nickname: Nickname::new("onion1").unwrap(),
        ipv4: Ipv4Addr::new(127, 0, 0, 9),
        or_port: 9001,
        dir_port: 0,
        ipv6: Some(("2001:db8::9".parse().unwrap(), 9002)),
        platform: "onionring 0.1.0 on Linux".into(),
        protocols: Protocols::parse("Link=3-5 LinkAuth=3 Relay=2-4").unwrap(),
        published: NOW,
        uptime: 77,
        bandwidth: Bandwidth { rate: 1_000_000, burst: 2_000_000, observed: 0 },
        extra_info: Some(ExtraInfoDigests { sha1: Fingerprint([9; 20]), sha256: Some([8; 32]) }),
        caches_extra_info: true,
        family: vec![FamilyMember::Identity(Fingerprint([5; 20]))],
        family_certs: vec![family_cert],
        hibernating: true,
        hidden_service_dir: true,
        contact: Some("ünï".into()),
        policy: ExitPolicy::from_torrc(["accept *4:80, accept6 *6:80, accept6 *6:443, reject *:*"])
            .unwrap()
            .0,
        tunnelled_dir_server: true,
        overloaded_since: Some(NOW),
    }
}

fn signed(new: &NewDescriptor) -> SignedDescriptor {
    new.sign(&KEYS.document(), &KEYS.onion(), &mut rng()).unwrap()
}

/// Signs again what was changed before the signatures of `text`.
fn resigned(text: &str) -> String {
    let mut doc = text[..text.find("router-sig-ed25519 ").unwrap()].to_owned();
    crate::netdoc::signed::sign(&mut doc, &KEYS.document(), &mut rng()).unwrap();
    doc
}

fn fault(text: &str) -> Fault {
    RouterDesc::parse(text).map(|_| ()).unwrap_err().fault
}

#[test]
fn real_descriptors_verify() {
    let all: Vec<_> = split_documents(testdata::DESCRIPTORS).map(|d| RouterDesc::parse(d).unwrap()).collect();
    assert_eq!(all.len(), 7);
    let of = |nick: &str| all.iter().find(|d| d.nickname.as_str() == nick).unwrap();
    let a0 = of("a0");
    assert_eq!(a0.identity.to_string(), "1768721F0F389993F69CAB59933085973FB4AAC7");
    assert_eq!((a0.ipv4, a0.or_port, a0.dir_port), (Ipv4Addr::new(127, 71, 0, 1), 5000, 7000));
    assert_eq!(a0.contact.as_deref(), Some("a0 at example dot com ünï"));
    assert!(a0.hidden_service_dir && a0.tunnelled_dir_server && !a0.hibernating);
    assert!(a0.caches_extra_info && !of("r2").caches_extra_info);
    assert!(a0.protocols().unwrap().supports("Relay", 6));
    assert_eq!(a0.policy.descriptor_lines(), ["reject *:*"]);
    assert_eq!(of("r2").ipv6, Some((Ipv6Addr::LOCALHOST, 5099)));
    assert_eq!((of("r1").family.members().len(), of("r1").family_keys.len()), (3, 1));
    assert_eq!(of("r1").family_keys, of("r2").family_keys);
    assert!(of("r0").policy_v6.as_ref().unwrap().permits(443));
    assert_eq!(of("r3").policy.rules().len(), 72);
    assert!(all.iter().all(|d| d.tap_onion_key.is_some() && d.extra_info.unwrap().sha256.is_some()));
    assert!(all.iter().all(|d| d.certs_expire > NOW));
}

#[test]
fn ours_says_what_it_should() {
    let new = full();
    let SignedDescriptor { text, parsed: d } = signed(&new);
    assert_eq!(RouterDesc::parse(&text).unwrap(), d);
    assert_eq!((d.nickname, d.ipv4, d.or_port, d.dir_port), (new.nickname, new.ipv4, new.or_port, 0));
    assert_eq!((d.ipv6, d.published, d.uptime, d.bandwidth), (new.ipv6, NOW, Some(77), new.bandwidth));
    assert_eq!((d.extra_info, d.caches_extra_info, d.hibernating), (new.extra_info, true, true));
    assert_eq!(d.family.members(), new.family);
    assert_eq!(*d.family_keys, [KEYS.family.public()]);
    assert_eq!((d.protocols().unwrap(), d.contact.as_deref()), (new.protocols, Some("ünï")));
    assert_eq!(d.tap_onion_key, Some(KEYS.tap.public()));
    let ntor = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(KEYS.ntor));
    assert_eq!(d.ntor_onion_key, ntor.to_bytes());
    assert!(text.contains("\noverload-general 1 2026-11-22 10:00:00\n"), "{text}");
    let keywords: Vec<_> = Tokenizer::new(&text).map(|i| i.unwrap().keyword).collect();
    let order = "router identity-ed25519 master-key-ed25519 or-address platform proto published fingerprint uptime \
        bandwidth extra-info-digest caches-extra-info onion-key signing-key onion-key-crosscert \
        ntor-onion-key-crosscert family hibernating hidden-service-dir family-cert contact ntor-onion-key accept reject \
        ipv6-policy tunnelled-dir-server overload-general router-sig-ed25519 router-signature";
    assert_eq!(keywords, order.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn the_least_descriptor_leaves_out_what_is_optional() {
    let new = NewDescriptor {
        ipv6: None,
        extra_info: None,
        caches_extra_info: false,
        family: vec![],
        family_certs: vec![],
        hibernating: false,
        hidden_service_dir: false,
        contact: None,
        policy: ExitPolicy::middleman(),
        tunnelled_dir_server: false,
        overloaded_since: None,
        ..full()
    };
    let onion = OnionKeys { tap: None, ..KEYS.onion() };
    let d = new.sign(&KEYS.document(), &onion, &mut rng()).unwrap().parsed;
    assert!(d.tap_onion_key.is_none() && d.family.is_empty() && d.policy_v6.is_none());
}

#[test]
fn descriptor_and_extra_info_of_ours_go_together() {
    let extra = NewExtraInfo {
        nickname: full().nickname,
        published: NOW,
        statistics: vec!["padding-counts 2026-11-22 10:54:22 (86400 s) bin-size=10000".into()],
    };
    let extra = extra.sign(&KEYS.document(), &mut rng()).unwrap();
    let d = signed(&NewDescriptor { extra_info: Some(extra.parsed.digests), ..full() });
    assert_eq!(extra.parsed.check_with(&d.parsed), Ok(()));
    let both = format!("{}\n{}\n", d.text, extra.text);
    let parts: Vec<_> = split_documents(&both).collect();
    assert_eq!(parts, [d.text.as_str(), extra.text.as_str()]);
    assert_eq!(ExtraInfo::parse(parts[1]).unwrap(), extra.parsed);
}

#[test]
fn what_would_be_refused_is_not_built() {
    let sign = |new: NewDescriptor| new.sign(&KEYS.document(), &KEYS.onion(), &mut rng()).map(|_| ());
    assert!(matches!(sign(NewDescriptor { or_port: 0, ..full() }), Err(BuildError::Refused(_))));
    let contact = Some("a\nrouter x".into());
    assert!(matches!(
        sign(NewDescriptor { contact, ..full() }),
        Err(BuildError::NotOneLine { what: "contact", .. })
    ));
    let lines: Vec<String> = (1..2000).map(|n| format!("reject 10.0.0.1:{n}")).collect();
    let policy = ExitPolicy::from_descriptor(lines.iter().map(String::as_str)).unwrap();
    assert!(matches!(
        sign(NewDescriptor { policy, ..full() }),
        Err(BuildError::Refused(DocError { fault: Fault::TooLarge { .. }, .. }))
    ));
    // A signing certificate by another identity, and an expired one: the first is refused, the second is for the
    // caller to notice.
    let stranger = Ed25519Pair::from_seed(&[6; 32]);
    let subject = Certified::Ed25519(KEYS.signing.public());
    let foreign = cert::build(CertType::IDENTITY_V_SIGNING, subject, LATER, &stranger);
    let keys = DocumentKeys { signing_cert: &foreign, ..KEYS.document() };
    assert!(matches!(full().sign(&keys, &KEYS.onion(), &mut rng()), Err(BuildError::Refused(_))));
    let old = cert::build(CertType::IDENTITY_V_SIGNING, subject, Unix(3600), &KEYS.master);
    let keys = DocumentKeys { signing_cert: &old, ..KEYS.document() };
    let d = full().sign(&keys, &KEYS.onion(), &mut rng()).unwrap();
    assert_eq!(d.parsed.certs_expire, Unix(3600));
}

#[test]
fn each_line_dropped_and_doubled() {
    let text = signed(&full()).text;
    let items: Vec<_> = Tokenizer::new(&text).map(|i| i.unwrap()).collect();
    for item in &items[..items.len() - 2] {
        let line = &text[item.start..item.end];
        let mut dropped = text.clone();
        dropped.replace_range(item.start..item.end, "");
        let mut doubled = text.clone();
        doubled.insert_str(item.end, line);
        let dropped = RouterDesc::parse(&resigned_or_not(&dropped)).map(|_| ()).map_err(|e| e.fault);
        let doubled = RouterDesc::parse(&resigned_or_not(&doubled)).map(|_| ()).map_err(|e| e.fault);
        let required = matches!(
            item.keyword,
            "router"
                | "identity-ed25519"
                | "master-key-ed25519"
                | "proto"
                | "published"
                | "bandwidth"
                | "signing-key"
                | "ntor-onion-key-crosscert"
                | "ntor-onion-key"
                | "onion-key"
                | "onion-key-crosscert"
        );
        let repeatable =
            matches!(item.keyword, "or-address" | "family-cert" | "accept" | "reject" | "overload-general");
        assert_eq!(matches!(dropped, Err(Fault::Missing(_))), required, "{}: {dropped:?}", item.keyword);
        assert_eq!(dropped.is_ok(), !required, "{}: {dropped:?}", item.keyword);
        assert_eq!(matches!(doubled, Err(Fault::Duplicate(_))), !repeatable, "{}: {doubled:?}", item.keyword);
    }
}

/// As [`resigned`], unless the line that signatures start from is gone.
fn resigned_or_not(text: &str) -> String {
    if text.starts_with("router ") { resigned(text) } else { text.to_owned() }
}

#[test]
fn each_line_moved() {
    let text = signed(&full()).text;
    let items: Vec<_> = Tokenizer::new(&text).map(|i| i.unwrap()).collect();
    let end = text.find("router-sig-ed25519 ").unwrap();
    for item in &items[2..items.len() - 2] {
        let moved = format!("{}{}{}", &text[..item.start], &text[item.end..end], &text[item.start..item.end]);
        assert!(
            RouterDesc::parse(&resigned(&format!("{moved}router-sig-ed25519 x"))).is_ok(),
            "{}",
            item.keyword
        );
    }
    // An unknown line anywhere, but not where places are fixed.
    let insert = |at: usize| {
        let mut t = text.clone();
        t.insert_str(at, "x-unknown 1\n");
        t
    };
    assert!(RouterDesc::parse(&resigned(&insert(items[4].start))).is_ok());
    assert_eq!(fault(&resigned(&insert(items[1].start))), Fault::Misplaced("identity-ed25519"));
    assert_eq!(fault(&insert(0)), Fault::Misplaced("router"));
    let last = &items[items.len() - 1];
    assert_eq!(fault(&insert(last.start)), Fault::Misplaced("router-sig-ed25519"));
    assert_eq!(fault(&insert(last.end)), Fault::Misplaced("router-sig-ed25519"));
    // The bytes that delimit what is signed must stand there literally.
    assert_eq!(fault(&text.replacen("router ", "router\t", 1)), Fault::Misplaced("router"));
    assert_eq!(
        fault(&text.replacen("\nrouter-signature\n", "\nrouter-signature \n", 1)),
        Fault::Misplaced("router-signature")
    );
}

#[test]
fn contents_are_checked_as_authorities_do() {
    let text = signed(&full()).text;
    let swap = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        RouterDesc::parse(&resigned(&text.replacen(from, to, 1))).map_err(|e| e.fault)
    };
    let bad_value = |r: Result<RouterDesc, Fault>| matches!(r, Err(Fault::BadValue { .. }));
    assert!(bad_value(swap("router onion1", "router onion-1")));
    assert!(bad_value(swap(" 9001 0 0", " 0 0 0")));
    assert!(bad_value(swap(" 9001 0 0", " 65536 0 0")));
    assert!(bad_value(swap("127.0.0.9", "127.0.0.999")));
    assert!(matches!(swap(" 9001 0 0", " 9001 0"), Err(Fault::TooFewArguments { .. })));
    assert!(swap(" 9001 0 0", " 9001 0 0 more").is_ok());
    for keyword in
        ["signing-key", "onion-key", "onion-key-crosscert", "caches-extra-info", "tunnelled-dir-server"]
    {
        let more = Fault::TooManyArguments { keyword, most: 0 };
        assert_eq!(swap(&format!("\n{keyword}\n"), &format!("\n{keyword} 1\n")), Err(more));
    }
    let more = Fault::TooManyArguments { keyword: "ntor-onion-key-crosscert", most: 1 };
    assert_eq!(swap("\nntor-onion-key-crosscert ", "\nntor-onion-key-crosscert 0 "), Err(more));
    assert!(bad_value(swap("bandwidth 1000000", "bandwidth 0")));
    assert!(bad_value(swap("bandwidth 1000000", "bandwidth 2147483648")));
    assert!(swap("bandwidth 1000000 2000000 0", "bandwidth 1 0 2147483647").is_ok());
    assert!(matches!(swap("fingerprint ", "fingerprint 0000 "), Err(Fault::Mismatch(_))));
    let grouped = text.lines().find(|l| l.starts_with("fingerprint")).unwrap();
    assert!(
        swap(
            grouped,
            &grouped.to_lowercase().replacen(' ', "", 4).replacen("fingerprint", "fingerprint ", 1)
        )
        .is_ok()
    );
    assert!(matches!(swap("master-key-ed25519 ", "master-key-ed25519 AAAA"), Err(Fault::BadValue { .. })));
    assert!(bad_value(swap("family $", "family ")));
    assert!(swap("family $0505050505050505050505050505050505050505", "family").is_ok());
    assert!(swap("family $0505", "family nick $0505").is_ok());
    assert!(bad_value(swap("accept *:80", "accept6 *:80")));
    assert!(bad_value(swap("accept *:80", "accept [::1]:80")));
    assert!(bad_value(swap("accept *:80", "accept *4:80")));
    assert!(bad_value(swap("accept *:80", "accept *:0")));
    assert!(swap("accept *:80", "accept private:80").is_ok());
    assert!(swap("accept *:80", "accept 18.0.0.0/255.0.0.0:80").is_ok());
    assert!(bad_value(swap("ipv6-policy accept", "ipv6-policy maybe")));
    assert!(bad_value(swap("published 2026-11-22", "published 2026-11-32")));
    assert!(bad_value(swap("uptime 77", "uptime -1")));
    assert!(swap("proto Link=3-5", "proto Link=foo").is_ok_and(|d| d.protocols().is_err()));
    assert!(
        swap("or-address [2001:db8::9]:9002", "or-address 1.2.3.4:5\nor-address [::2]:3")
            .unwrap()
            .ipv6
            .is_some()
    );
    assert!(swap("or-address [2001:db8::9]:9002", "or-address what").unwrap().ipv6.is_none());
    let sign = text.lines().find(|l| l.starts_with("ntor-onion-key-crosscert")).unwrap().to_owned();
    let other =
        if sign.ends_with('0') { sign.replace('0', "1") } else { format!("{} 0", &sign[..sign.len() - 2]) };
    assert!(matches!(swap(&sign, &other), Err(Fault::BadCertificate { .. })));
    assert!(bad_value(swap(&sign, &sign.replace(['0', '1'], "2"))));
}

#[test]
fn family_certificates_must_be_about_this_relay() {
    let make = |subject: [u8; 32], kind| cert::build(kind, Certified::Ed25519(subject), LATER, &KEYS.family);
    let with = |cert: Vec<u8>| {
        let new = NewDescriptor { family_certs: vec![cert], ..full() };
        new.sign(&KEYS.document(), &KEYS.onion(), &mut rng()).map(|_| ())
    };
    let me = KEYS.master.public();
    assert!(with(make(me, CertType::FAMILY_V_IDENTITY)).is_ok());
    for bad in
        [make([1; 32], CertType::FAMILY_V_IDENTITY), make(me, CertType::IDENTITY_V_SIGNING), vec![1, 2, 3]]
    {
        assert!(matches!(
            with(bad),
            Err(BuildError::Refused(DocError {
                fault: Fault::BadCertificate { what: "family-cert", .. },
                ..
            }))
        ));
    }
    // Expiry and the label do not matter.
    let old = cert::build(CertType::FAMILY_V_IDENTITY, Certified::Ed25519(me), Unix(1), &KEYS.family);
    assert!(with(old).is_ok());
    let relabelled = signed(&full()).text.replace("FAMILY CERT", "WHATEVER");
    assert!(RouterDesc::parse(&resigned(&relabelled)).is_ok());
}

#[test]
fn signatures_are_checked() {
    let text = signed(&full()).text;
    let changed = text.replacen("uptime 77", "uptime 78", 1);
    assert_eq!(fault(&changed), Fault::BadSignature("router-sig-ed25519"));
    let real = split_documents(testdata::DESCRIPTORS).next().unwrap();
    let sigs = |t: &str| t[t.find("-----BEGIN SIGNATURE").unwrap()..].to_owned();
    assert_eq!(fault(&text.replace(&sigs(&text), &sigs(real))), Fault::BadSignature("router-signature"));
}

#[test]
fn documents_are_cut_out_of_whatever_surrounds_them() {
    let all: Vec<_> = split_documents(testdata::DESCRIPTORS).collect();
    let mixed = format!("junk\n\n{}@source x\nnoise\n{}router cut off here\n{}", all[0], all[1], all[2]);
    let parts: Vec<_> = split_documents(&mixed).collect();
    assert_eq!(parts.len(), 4);
    assert_eq!((parts[0], parts[1], parts[3]), (all[0], all[1], all[2]));
    assert!(RouterDesc::parse(parts[2]).is_err());
    assert_eq!(split_documents("").count() + split_documents("router").count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn mutations_never_panic_and_never_verify(at in any::<prop::sample::Index>(), with in "[ -~\n]{0,3}") {
        let original = split_documents(testdata::DESCRIPTORS).nth(1).unwrap();
        let mut text = original.to_owned();
        let at = at.index(text.len());
        prop_assume!(text.is_char_boundary(at) && text.is_char_boundary(at + 1) && text[at..at + 1] != with);
        text.replace_range(at..at + 1, &with);
        let _ = split_documents(&text).map(RouterDesc::parse).count();
        let _ = ExtraInfo::parse(&text);
        // Nothing signs the blanks around the last signature, nor what pads it.
        let bare = |t: &str| t.split_whitespace().collect::<String>().replace('=', "");
        prop_assert!(RouterDesc::parse(&text).is_err() || bare(&text) == bare(original));
    }

    #[test]
    fn arbitrary_descriptors_round_trip(
        nick in "[a-zA-Z0-9]{1,19}", ip: u32, or_port in 1u16.., dir_port: u16, uptime: u64,
        rate in 1u32..=Bandwidth::MAX, burst in 0u32..=Bandwidth::MAX, contact in "[^\\p{Cc}]{0,80}",
        published in 0u64..200_000_000_000, ntor: [u8; 32], hibernating: bool,
    ) {
        let new = NewDescriptor {
            nickname: Nickname::new(&nick).unwrap(), ipv4: ip.into(), or_port, dir_port, uptime, hibernating,
            bandwidth: Bandwidth { rate, burst, observed: 5 }, contact: Some(contact.clone()),
            published: Unix(published), ..full()
        };
        let onion = OnionKeys { ntor: &ntor, ..KEYS.onion() };
        let d = new.sign(&KEYS.document(), &onion, &mut rng()).unwrap().parsed;
        prop_assert_eq!((d.nickname.as_str(), u32::from(d.ipv4), d.or_port, d.dir_port), (&*nick, ip, or_port, dir_port));
        prop_assert_eq!((d.uptime, d.bandwidth.rate, d.bandwidth.burst), (Some(uptime), rate, burst));
        // Blanks at the beginning are those behind the keyword.
        let contact = contact.trim_start_matches(' ');
        prop_assert_eq!((d.published, d.hibernating, d.contact.as_deref()), (Unix(published), hibernating, Some(contact)));
    }

    #[test]
    fn never_panics_on_anything(text in "(router a\n|identity-ed25519\n|-----(BEGIN|END) [A-Z0-9 ]{1,4}-----\n|[ -~]{0,9}\n){0,9}") {
        let _ = RouterDesc::parse(&text);
        let _ = split_documents(&text).count();
    }
}
