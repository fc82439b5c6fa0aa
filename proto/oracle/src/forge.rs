//! Documents with the contents of others under keys of our own.
//!
//! In a damaged document it is first of all the signature that is wrong. To see what readers make of the damage itself,
//! a document's keys are replaced by keys whose secret halves are at hand, and after the damage is done it is signed
//! again.

use std::collections::BTreeMap;

use digest::Digest as _;
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::netdoc::family::FamilyMember;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::{
    Bandwidth, DocumentKeys, ExtraInfoDigests, NewDescriptor, OnionKeys,
};
use onionring_proto::netdoc::text::{Fingerprint, Nickname, base64_unpadded, push_object};
use onionring_proto::policy::ExitPolicy;
use onionring_proto::time::Unix;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tor_llcrypto::d::{Sha1, Sha256};

use crate::mutate::items;
use crate::{Document, Kind};

/// 2100: certificates must not end while anyone runs this.
const FAR: Unix = Unix(4_102_444_800);
const ED_SIGNATURE: &str = "router-sig-ed25519 ";
const CERTIFICATION: &str = "dir-key-certification\n";

/// The keys, and the lines that contain them.
pub struct Forge {
    rng: ChaCha20Rng,
    rsa: RsaPrivate,
    ed_signing: Ed25519Pair,
    /// By keyword, the items of a relay's documents that depend on the keys.
    relay_items: BTreeMap<String, String>,
    /// The same for an authority's certificate.
    cert_items: BTreeMap<String, String>,
    /// See [`Forge::everything`].
    everything: String,
}

impl Forge {
    /// A forge whose keys are the same every time.
    pub fn new() -> Forge {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut rsa_key = || RsaPrivate::generate(1024, &mut rng).expect("1024 bits are a legal size");
        let (rsa, other_rsa) = (rsa_key(), rsa_key());
        let [ed_identity, ed_signing, family] = [1, 2, 3].map(|n| Ed25519Pair::from_seed(&[n; 32]));
        let keys =
            RelayKeys { rsa: &rsa, tap: &other_rsa, ed_identity: &ed_identity, ed_signing: &ed_signing };
        let everything = keys.descriptor(&family, &mut rng);
        let relay_items = keyed_items(&everything);
        let cert_items = cert_items(&rsa, &other_rsa, &mut rng);
        Forge { rng, rsa, ed_signing, relay_items, cert_items, everything }
    }

    /// A descriptor with every line that onionring can write.
    pub fn everything(&self) -> Document {
        Document::new(Kind::Descriptor, &self.everything)
    }

    /// The part of a document that is signed, with our keys in place of its own. What is not signed by a single key is
    /// taken as it is.
    pub fn disguise(&self, kind: Kind, text: &str) -> String {
        let (end, replaced) = match kind {
            Kind::Descriptor | Kind::ExtraInfo => (ED_SIGNATURE, &self.relay_items),
            Kind::AuthCert => (CERTIFICATION, &self.cert_items),
            Kind::Microdesc | Kind::Consensus | Kind::Vote => return text.to_owned(),
        };
        let body = text.split(end).next().unwrap_or_default();
        let mut out = String::new();
        for item in items(body) {
            let keyword = item.split([' ', '\n']).next().unwrap_or_default();
            match (keyword, replaced.get(keyword)) {
                ("extra-info", _) => {
                    let nickname = item.split_ascii_whitespace().nth(1).unwrap_or_default();
                    out += &format!("extra-info {nickname} {}\n", self.rsa.public().fingerprint());
                }
                (_, Some(ours)) => out += ours,
                (_, None) => out += item,
            }
        }
        out
    }

    /// Signs a body that [`disguise`](Self::disguise) made, or what has become of it. `descriptor` is the body of the
    /// descriptor that an extra-info goes with; it is made to name the extra-info, and signed too.
    pub fn seal(&mut self, kind: Kind, body: &str, descriptor: &str) -> Document {
        match kind {
            Kind::Descriptor => Document::new(kind, self.seal_relay_document(body).0),
            Kind::ExtraInfo => {
                let (text, sha1) = self.seal_relay_document(body);
                let sha256 = base64_unpadded(&Sha256::digest(&text));
                let digests = format!("extra-info-digest {} {sha256}\n", crate::fields::hex(sha1));
                let others =
                    items(descriptor).into_iter().filter(|item| !item.starts_with("extra-info-digest "));
                let descriptor = format!("{}{digests}", others.collect::<String>());
                Document::with(kind, text, self.seal_relay_document(&descriptor).0)
            }
            Kind::AuthCert => {
                let mut text = format!("{body}{CERTIFICATION}");
                let signature = self.rsa_signature(&text);
                push_object(&mut text, "SIGNATURE", &signature);
                Document::new(kind, text)
            }
            Kind::Microdesc | Kind::Consensus | Kind::Vote => Document::new(kind, body),
        }
    }

    /// The document, and the SHA-1 by which it is known.
    fn seal_relay_document(&mut self, body: &str) -> (String, [u8; 20]) {
        let mut text = format!("{body}{ED_SIGNATURE}");
        let message =
            Sha256::new().chain_update("Tor router descriptor signature v1").chain_update(&text).finalize();
        text += &base64_unpadded(&self.ed_signing.sign(&message));
        text += "\nrouter-signature\n";
        let sha1 = Sha1::digest(&text).into();
        let signature = self.rsa_signature(&text);
        push_object(&mut text, "SIGNATURE", &signature);
        (text, sha1)
    }

    fn rsa_signature(&mut self, text: &str) -> Vec<u8> {
        self.rsa.sign_bare(&Sha1::digest(text), &mut self.rng).expect("a digest fits the key")
    }
}

impl Default for Forge {
    fn default() -> Self {
        Forge::new()
    }
}

struct RelayKeys<'a> {
    rsa: &'a RsaPrivate,
    tap: &'a RsaPrivate,
    ed_identity: &'a Ed25519Pair,
    ed_signing: &'a Ed25519Pair,
}

impl RelayKeys<'_> {
    fn descriptor(&self, family: &Ed25519Pair, rng: &mut ChaCha20Rng) -> String {
        let identity = Certified::Ed25519(self.ed_identity.public());
        let signing = Certified::Ed25519(self.ed_signing.public());
        let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, signing, FAR, self.ed_identity);
        let keys = DocumentKeys {
            identity: self.rsa,
            ed_identity: self.ed_identity.public(),
            signing: self.ed_signing,
            signing_cert: &signing_cert,
        };
        let onion = OnionKeys { ntor: &[4; 32], ntor_expires: FAR, tap: Some(self.tap) };
        let descriptor = NewDescriptor {
            nickname: Nickname::new("forged").expect("a legal nickname"),
            ipv4: [198, 51, 100, 9].into(),
            or_port: 9001,
            dir_port: 9030,
            ipv6: Some(("2001:db8::9".parse().expect("an address"), 9002)),
            platform: "onionring 0.1.0 on Linux".into(),
            protocols: Protocols::parse("Desc=1-4 Link=3-5 Relay=2-4,6").expect("a legal list"),
            published: Unix(1_795_344_950),
            uptime: 77,
            bandwidth: Bandwidth { rate: 1_000_000, burst: 2_000_000, observed: 500_000 },
            extra_info: Some(ExtraInfoDigests { sha1: Fingerprint([9; 20]), sha256: Some([8; 32]) }),
            caches_extra_info: true,
            family: vec![
                FamilyMember::Identity(Fingerprint([5; 20])),
                FamilyMember::Identity(Fingerprint([6; 20])),
            ],
            family_certs: vec![cert::build(CertType::FAMILY_V_IDENTITY, identity, FAR, family)],
            hibernating: true,
            hidden_service_dir: true,
            contact: Some("someone at example dot com ünï".into()),
            policy: ExitPolicy::restricted(),
            tunnelled_dir_server: true,
            overloaded_since: Some(Unix(1_795_344_950)),
        };
        descriptor.sign(&keys, &onion, rng).expect("a correct descriptor").text
    }
}

/// The items of a descriptor that depend on its keys.
fn keyed_items(descriptor: &str) -> BTreeMap<String, String> {
    const KEYED: [&str; 9] = [
        "identity-ed25519",
        "master-key-ed25519",
        "fingerprint",
        "onion-key",
        "signing-key",
        "onion-key-crosscert",
        "ntor-onion-key-crosscert",
        "ntor-onion-key",
        "family-cert",
    ];
    let keyword = |item: &str| item.split([' ', '\n']).next().unwrap_or_default().to_owned();
    let all = items(descriptor).into_iter().map(|item| (keyword(item), item.to_owned()));
    all.filter(|(keyword, _)| KEYED.contains(&keyword.as_str())).collect()
}

fn cert_items(
    identity: &RsaPrivate,
    signing: &RsaPrivate,
    rng: &mut ChaCha20Rng,
) -> BTreeMap<String, String> {
    let id = identity.public().rsa_id();
    let crosscert = signing.sign_bare(&id, rng).expect("an identity fits the key");
    let item = |keyword: &str, label: &str, bytes: &[u8]| {
        let mut out = format!("{keyword}\n");
        push_object(&mut out, label, bytes);
        (keyword.to_owned(), out)
    };
    BTreeMap::from([
        ("fingerprint".to_owned(), format!("fingerprint {}\n", identity.public().fingerprint())),
        item("dir-identity-key", "RSA PUBLIC KEY", &identity.public().to_der()),
        item("dir-signing-key", "RSA PUBLIC KEY", &signing.public().to_der()),
        item("dir-key-crosscert", "ID SIGNATURE", &crosscert),
    ])
}
