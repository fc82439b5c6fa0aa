use proptest::prelude::*;

use super::*;
use crate::netdoc::testdata::{self, edit_lines};
use crate::netdoc::tokenize::Tokenizer;

fn one() -> &'static str {
    AuthCert::parse_all(testdata::CERTS).next().unwrap().0
}

#[test]
fn real_certificates_verify() {
    let certs: Vec<_> = AuthCert::parse_all(testdata::CERTS).map(|(_, c)| c.unwrap()).collect();
    assert_eq!(certs.len(), 3);
    let a2 = &certs[0];
    assert_eq!(a2.identity.to_string(), "55F84A8365B0B4009BC3F32ED5E5270656736686");
    assert_eq!(a2.signing_key_id.to_string(), "DAF7777209BC09A661FEC461FBA09F75C2617BA7");
    assert_eq!(a2.dir_address, Some("127.71.0.3:7000".parse().unwrap()));
    assert_eq!(text::format_time(a2.published), "2026-11-22 10:54:12");
    assert_eq!(text::format_time(a2.expires), "2027-11-22 10:54:12");
    assert_eq!((a2.identity_key.bits(), a2.signing_key.bits()), (3072, 2048));
}

#[test]
fn what_is_built_is_parsed_and_says_the_same() {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let [identity, signing] = [1, 2].map(|_| crate::crypto::rsa::RsaPrivate::generate(1024, rng).unwrap());
    for dir_address in [None, Some("127.0.0.1:7000".parse().unwrap())] {
        let terms = CertTerms { published: Unix(1_795_000_000), expires: Unix(1_826_000_000), dir_address };
        let text = build(&identity, &signing, &terms, rng).unwrap();
        let cert = AuthCert::parse(&text).unwrap();
        assert_eq!((&cert.identity_key, &cert.signing_key), (&identity.public(), &signing.public()));
        let said =
            CertTerms { published: cert.published, expires: cert.expires, dir_address: cert.dir_address };
        assert_eq!(said, terms);
    }
}

#[test]
fn a_bad_one_does_not_spoil_the_others() {
    let broken = testdata::CERTS.replacen("dir-key-published 2026", "dir-key-published 2025", 1);
    let results: Vec<_> = AuthCert::parse_all(&broken).map(|(_, c)| c.map(|_| ())).collect();
    assert!(matches!(results[0], Err(DocError { fault: Fault::BadSignature(CERTIFICATION), .. })));
    assert_eq!(results[1..], [Ok(()), Ok(())]);
}

#[test]
fn lines_dropped_doubled_and_moved() {
    let keywords: Vec<_> = Tokenizer::new(one()).map(|i| i.unwrap()).collect();
    for item in &keywords {
        let range = item.start..item.end;
        let mut dropped = one().to_owned();
        dropped.replace_range(range.clone(), "");
        let got = AuthCert::parse(&dropped).map(|_| ()).unwrap_err().fault;
        match item.keyword {
            "dir-address" => assert!(matches!(got, Fault::BadSignature(_))),
            _ => assert!(matches!(got, Fault::Missing(_) | Fault::Misplaced(_)), "{}: {got}", item.keyword),
        }
        let mut doubled = one().to_owned();
        doubled.insert_str(item.end, &one()[range.clone()]);
        let got = AuthCert::parse(&doubled).map(|_| ()).unwrap_err().fault;
        assert!(matches!(got, Fault::Duplicate(_)), "{}: {got}", item.keyword);
    }
    let first = &keywords[0];
    let moved = format!("{}{}", &one()[first.end..], &one()[..first.end]);
    assert_eq!(AuthCert::parse(&moved).unwrap_err().fault, Fault::Misplaced(VERSION));
    let followed = format!("{}unknown line\n", one());
    assert_eq!(AuthCert::parse(&followed).unwrap_err().fault, Fault::Misplaced(CERTIFICATION));
}

#[test]
fn contents_are_checked() {
    let swap = |from: &str, to: &str| AuthCert::parse(&one().replacen(from, to, 1)).unwrap_err().fault;
    assert!(matches!(swap("version 3", "version 4"), Fault::BadValue { .. }));
    assert!(matches!(swap("fingerprint 55", "fingerprint 56"), Fault::Mismatch(_)));
    assert!(matches!(swap("2026-11-22 10:54:12", "2026-11-22"), Fault::TooFewArguments { .. }));
    for keyword in ["dir-identity-key", "dir-signing-key", "dir-key-crosscert", CERTIFICATION] {
        let more = Fault::TooManyArguments { keyword, most: 0 };
        assert_eq!(swap(&format!("\n{keyword}\n"), &format!("\n{keyword} 1\n")), more);
    }
    assert!(matches!(swap("BEGIN RSA PUBLIC KEY", "BEGIN RSA KEY"), Fault::BadObject(_)));
    // Both labels of the cross-certificate are in use.
    let relabelled = one().replace("ID SIGNATURE", "SIGNATURE");
    assert_eq!(AuthCert::parse(&relabelled).unwrap_err().fault, Fault::BadSignature(CERTIFICATION));
    let other = AuthCert::parse_all(testdata::CERTS).nth(1).unwrap().0;
    let crosscert = |t: &str| {
        let start = t.find("-----BEGIN ID SIG").unwrap();
        t[start..t.find("-----END ID SIG").unwrap()].to_owned()
    };
    let swapped = one().replace(&crosscert(one()), &crosscert(other));
    assert_eq!(AuthCert::parse(&swapped).unwrap_err().fault, Fault::BadSignature("dir-key-crosscert"));
}

#[test]
fn the_store_keeps_the_newest() {
    let mut store = CertStore::default();
    let cert = AuthCert::parse(one()).unwrap();
    let mut older = cert.clone();
    older.expires = Unix(1);
    store.insert(older.clone());
    store.insert(cert.clone());
    store.insert(older);
    assert_eq!(store.get(&cert.identity, &cert.signing_key_id).unwrap().expires, cert.expires);
    assert_eq!(store.of(&cert.identity).count(), 1);
    assert_eq!(store.of(&Fingerprint([0; 20])).count(), 0);
    store.remove_expired(cert.expires + std::time::Duration::from_secs(1));
    assert_eq!(store.iter().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn mutations_never_verify(at in any::<prop::sample::Index>(), byte in 0x20u8..0x7f) {
        let mut bytes = one().as_bytes().to_vec();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let text = String::from_utf8(bytes).unwrap();
        // How the last signature is broken into lines does not matter; everything else is signed or is a signature.
        let without_blanks = |t: &str| t.split_whitespace().collect::<String>();
        prop_assert!(AuthCert::parse(&text).is_err() || without_blanks(&text) == without_blanks(one()));
    }

    #[test]
    fn lines_cut_anywhere_never_panic(from in 0usize..70, to in 0usize..70) {
        let cut = edit_lines(one(), |n, l| if n >= from && n < to { String::new() } else { l.into() });
        let _ = AuthCert::parse(&cut);
    }
}
