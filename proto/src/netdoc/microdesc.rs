//! Microdescriptors (dir-spec 3.3): what a client needs of a relay's descriptor, named by its digest.

use sha2::{Digest, Sha256};

use crate::netdoc::family::{Family, FamilyMember};
use crate::netdoc::routerdesc::rsa_1024;
use crate::netdoc::section::{Count, Obj, Rule, Section, exact, rule};
use crate::netdoc::text;
use crate::netdoc::{DocError, Fault};
use crate::policy::PortSummary;

mod build;

const RULES: &[Rule] = &[
    exact("onion-key", Count::One, 0, Obj::Any),
    rule("ntor-onion-key", Count::One, 1, Obj::No),
    rule("family", Count::Optional, 0, Obj::No),
    rule("family-ids", Count::Optional, 0, Obj::No),
    rule("p", Count::Optional, 1, Obj::No),
    rule("p6", Count::Optional, 1, Obj::No),
    rule("id", Count::Many, 2, Obj::No),
];

/// SHA-256 over the whole text of a microdescriptor: its name in the `microdesc` consensus.
pub type MicrodescDigest = [u8; 32];

/// A microdescriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Microdesc {
    /// SHA-256 of its text.
    pub digest: MicrodescDigest,
    /// The relay's ntor onion key (Curve25519).
    pub ntor_onion_key: [u8; 32],
    /// The relay's Ed25519 identity; absent only for very old relays.
    pub ed_identity: Option<[u8; 32]>,
    /// The relays it calls its family.
    pub family: Family,
    /// Families it has proved to belong to, as written (`ed25519:` and the family key; proposal 321).
    pub family_ids: Box<[Box<str>]>,
    /// IPv4 ports it may exit to, as a summary; `reject 1-65535` if none is written.
    pub policy: PortSummary,
    /// IPv6 ports likewise.
    pub policy_v6: PortSummary,
}

impl Microdesc {
    /// Parses one microdescriptor; `text` is exactly its text, because the digest covers all of it.
    pub fn parse(text: &str) -> Result<Self, DocError> {
        let s = Section::parse(text, RULES)?;
        // Nobody uses a TAP key any more, but what is there must be one.
        let tap = s.opens_with("onion-key")?;
        tap.object.map(|_| rsa_1024(tap, "onion-key")).transpose()?;
        let ntor_onion_key = s.need("ntor-onion-key")?.parse_arg(0, "ntor-onion-key", text::base64_array)?;
        let mut ed_identity = None;
        for id in s.all("id").filter(|i| i.arg(0) == Some("ed25519")) {
            if ed_identity.is_some() {
                return Err(id.fault(Fault::Duplicate("id ed25519")));
            }
            ed_identity = Some(id.parse_arg(1, "id ed25519", text::base64_array)?);
        }
        let policy = |keyword| match s.get(keyword) {
            Some(item) => {
                PortSummary::parse(item.rest).map_err(|_| item.fault(Fault::value("port summary", item.rest)))
            }
            None => Ok(PortSummary::reject_all()),
        };
        Ok(Microdesc {
            digest: Self::digest_of(text),
            ntor_onion_key,
            ed_identity,
            // Unknown forms of members are skipped here, because authorities have canonicalised the list.
            family: s
                .get("family")
                .map(|i| i.args().filter_map(FamilyMember::parse_bare).collect())
                .unwrap_or_default(),
            family_ids: s.get("family-ids").map(|i| i.args().map(Box::from).collect()).unwrap_or_default(),
            policy: policy("p")?,
            policy_v6: policy("p6")?,
        })
    }

    /// The name of the microdescriptor with this text.
    pub fn digest_of(text: &str) -> MicrodescDigest {
        Sha256::digest(text).into()
    }

    /// Parses the answer to a request for several; a bad one does not spoil the others. Each comes with its text.
    pub fn parse_all(text: &str) -> impl Iterator<Item = (&str, Result<Microdesc, DocError>)> {
        Microdesc::split(text).map(|one| (one, Microdesc::parse(one)))
    }

    /// The texts of several, one after the other.
    pub fn split(text: &str) -> impl Iterator<Item = &str> {
        text::split_at_lines(text, "onion-key")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::crypto::rsa::RsaPrivate;
    use crate::netdoc::consensus::UnverifiedConsensus;
    use crate::netdoc::testdata;

    fn all() -> Vec<Microdesc> {
        Microdesc::parse_all(testdata::MICRODESCS).map(|(_, m)| m.unwrap()).collect()
    }

    #[test]
    fn real_ones_are_those_that_the_consensus_names() {
        let consensus = UnverifiedConsensus::parse(testdata::CONSENSUS_MICRODESC).unwrap();
        let mut named: Vec<_> = consensus.peek().relays.iter().map(|r| *r.microdesc().unwrap()).collect();
        let mut have: Vec<_> = all().iter().map(|m| m.digest).collect();
        named.sort_unstable();
        have.sort_unstable();
        assert_eq!(named, have);
    }

    #[test]
    fn fields() {
        let mds = all();
        let family = mds.iter().find(|m| !m.family.is_empty()).unwrap();
        assert_eq!(family.family.members().len(), 3);
        assert_eq!(*family.family_ids, ["ed25519:S/m3EDcnKIQTs9fDcSWR2tkkdoIiempHd4DyGfoNisI".into()]);
        let exit = mds.iter().find(|m| m.policy.permits(80) && !m.policy.permits(22)).unwrap();
        assert!(exit.policy_v6.permits(443) && !exit.policy_v6.permits(22));
        assert!(family.policy.rejects_all() && family.policy_v6.rejects_all());
        assert!(mds.iter().all(|m| m.ed_identity.is_some()));
    }

    #[test]
    fn forms_that_must_parse_and_forms_that_must_not() {
        let key = "ntor-onion-key c/stVGsKQ6+Jc4FQ6Cgxnr30wwZHwjXjkPF6j0BzgFs\n";
        let parse = |text: &str| Microdesc::parse(text).map(|_| ()).map_err(|e| e.fault);
        // Method 35 and later leave the TAP key out; padded keys and unknown lines pass.
        assert_eq!(parse(&format!("onion-key\n{key}unknown x\nid rsa1024 xyz\n")), Ok(()));
        assert_eq!(parse(&format!("onion-key\n{}=\n", key.trim_end())), Ok(()));
        assert_eq!(parse("onion-key\n"), Err(Fault::Missing("ntor-onion-key")));
        assert_eq!(parse(key), Err(Fault::Missing("onion-key")));
        assert_eq!(parse(&format!("{key}onion-key\n")), Err(Fault::Misplaced("onion-key")));
        assert_eq!(parse(&format!("onion-key\n{key}{key}")), Err(Fault::Duplicate("ntor-onion-key")));
        let id = "id ed25519 dVVX2IObKvD2Kt49FYxRff/fy5R/V9GbCeQogk+6GCM\n";
        assert_eq!(parse(&format!("onion-key\n{key}{id}{id}")), Err(Fault::Duplicate("id ed25519")));
        assert!(matches!(parse(&format!("onion-key\n{key}p maybe 80\n")), Err(Fault::BadValue { .. })));
        let more = Fault::TooManyArguments { keyword: "onion-key", most: 0 };
        assert_eq!(parse(&format!("onion-key x\n{key}")), Err(more));
    }

    #[test]
    fn a_tap_key_is_one_or_is_not_there() {
        let text = Microdesc::parse_all(testdata::MICRODESCS).next().unwrap().0;
        assert!(text.contains("-----BEGIN RSA PUBLIC KEY-----\nM"), "{text}");
        let parse = |from: &str, to: &str| Microdesc::parse(&text.replace(from, to)).map_err(|e| e.fault);
        assert!(matches!(parse("KEY-----\nM", "KEY-----\n*"), Err(Fault::BadValue { .. })));
        let label = "RSA PUBLIC KEY";
        let missing = Fault::MissingObject { keyword: "onion-key", label };
        assert_eq!(parse(label, "SIGNATURE"), Err(missing));
        let mut other = String::from("onion-key\n");
        let key = RsaPrivate::generate(2048, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
        text::push_object(&mut other, label, &key.public().to_der());
        let rest = text.split_once("-----END RSA PUBLIC KEY-----\n").unwrap().1;
        assert!(matches!(
            Microdesc::parse(&(other + rest)).map_err(|e| e.fault),
            Err(Fault::BadValue { .. })
        ));
    }

    #[test]
    fn blanks_and_bare_fingerprints_are_read_as_c_tor_reads_them() {
        let texts: Vec<_> = Microdesc::parse_all(testdata::MICRODESCS).collect();
        let same = |text: &str, changed: String| {
            assert_ne!(text, changed);
            let changed =
                Microdesc { digest: Sha256::digest(text).into(), ..Microdesc::parse(&changed).unwrap() };
            assert_eq!(changed, Microdesc::parse(text).unwrap());
        };
        let exit = texts.iter().find(|(text, _)| text.contains("\np accept ")).unwrap().0;
        same(exit, exit.replace("\np accept ", "\np \t accept "));
        let family = texts.iter().find(|(text, _)| text.contains("\nfamily $")).unwrap().0;
        same(family, family.replace('$', ""));
    }

    #[test]
    fn a_bad_one_does_not_spoil_the_others() {
        let broken = testdata::MICRODESCS.replacen("\nntor-onion-key ", "\nntor-onion-key !", 1);
        let bad = Microdesc::parse_all(&broken).filter(|(_, m)| m.is_err()).count();
        assert_eq!((bad, Microdesc::parse_all(&broken).count()), (1, 7));
    }

    proptest! {
        #[test]
        fn mutated_ones_never_panic(at in any::<prop::sample::Index>(), with in "[ -~\n]{0,3}") {
            let mut text = testdata::MICRODESCS.to_owned();
            let at = at.index(text.len());
            text.replace_range(at..at + 1, &with);
            let _ = Microdesc::parse_all(&text).count();
        }
    }
}
