//! Uploads that a stock authority and this one judge alike.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use onionring_dirauth::admission::{Admission, AdmissionOptions, Document, TapKey, Verdict};
use onionring_dirauth::approval::{AddressPolicies, Approvals, ApprovedRouters, RelayId};
use onionring_dirauth::files;
use onionring_dirauth::keypin::KeyPins;
use onionring_node::link::played;
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::netdoc::extrainfo::NewExtraInfo;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::{DocumentKeys, NewDescriptor, OnionKeys, RouterDesc};
use onionring_proto::netdoc::text::{Fingerprint, Nickname};
use onionring_proto::time::Unix;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::authority::{Authority, make_keys, now};

/// A relay's keys.
struct Relay {
    identity: RsaPrivate,
    tap: RsaPrivate,
    master: Ed25519Pair,
    expires: Unix,
}

impl Relay {
    fn new(seed: u64) -> Relay {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Relay {
            identity: RsaPrivate::generate(1024, &mut rng).unwrap(),
            tap: RsaPrivate::generate(1024, &mut rng).unwrap(),
            master: Ed25519Pair::generate(&mut rng),
            expires: Unix(now().0 + 86_400),
        }
    }

    fn with_keys<T>(&self, sign: impl FnOnce(&DocumentKeys<'_>) -> T) -> T {
        let signing = Ed25519Pair::from_seed(&[9; 32]);
        let certified = Certified::Ed25519(signing.public());
        let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, self.expires, &self.master);
        sign(&DocumentKeys {
            identity: &self.identity,
            ed_identity: self.master.public(),
            signing: &signing,
            signing_cert: &signing_cert,
        })
    }

    fn descriptor_with(&self, has_tap: bool, edit: impl FnOnce(&mut NewDescriptor)) -> String {
        let mut new = NewDescriptor {
            nickname: Nickname::new("uploader").unwrap(),
            protocols: Protocols::parse("Link=3-5 Relay=2-4").unwrap(),
            published: Unix(now().0 - 3600),
            uptime: 100_000,
            ..played::descriptor(Ipv4Addr::new(203, 0, 113, 1), 9001, "reject *:*")
        };
        edit(&mut new);
        let onion =
            OnionKeys { ntor: &[4; 32], ntor_expires: self.expires, tap: has_tap.then_some(&self.tap) };
        self.with_keys(|keys| new.sign(keys, &onion, &mut ChaCha8Rng::seed_from_u64(5)).unwrap().text)
    }

    fn descriptor(&self, edit: impl FnOnce(&mut NewDescriptor)) -> String {
        self.descriptor_with(true, edit)
    }
}

/// What became of an upload: whether it was refused, whether it was called not new, and the descriptor that is stored of
/// the relay afterwards.
type Outcome = (bool, bool, Option<Fingerprint>);

/// This authority, as far as uploads go.
struct Ours {
    options: AdmissionOptions,
    approvals: Approvals,
    pins: KeyPins,
    stored: BTreeMap<Fingerprint, Arc<RouterDesc>>,
}

impl Ours {
    fn upload(&mut self, relay: &Fingerprint, body: &str) -> Outcome {
        let upload = Admission {
            options: &self.options,
            approvals: &self.approvals,
            pins: &mut self.pins,
            stored: &self.stored,
            now: now(),
        }
        .judge(body.as_bytes());
        let answer = upload.answer();
        for judged in upload.judged {
            if let (Some(Document::Descriptor(descriptor)), Verdict::Stored { .. }) =
                (judged.document, judged.verdict)
            {
                self.stored.insert(descriptor.identity, descriptor);
            }
        }
        (answer.status != 200, answer.not_new, self.stored.get(relay).map(|descriptor| descriptor.digest))
    }
}

fn upload_to(authority: &Authority, relay: &Fingerprint, body: &str) -> Outcome {
    let answer = authority.request("POST /tor/", body);
    let stored = authority.request(&format!("GET /tor/server/fp/{relay}"), "");
    let descriptor = stored.find("\r\n\r\n").and_then(|head| RouterDesc::parse(&stored[head + 4..]).ok());
    let refused = !answer.starts_with("HTTP/1.0 200 ");
    (refused, answer.contains("X-Descriptor-Not-New: Yes"), descriptor.map(|descriptor| descriptor.digest))
}

#[test]
fn both_authorities_decide_alike() {
    let directory = tempfile::tempdir().unwrap();
    let v3_identity = make_keys(directory.path());
    let relays: Vec<Relay> = (1..=4).map(Relay::new).collect();
    let [relay, other, rejected, fresh] = &relays[..] else { panic!("four relays") };
    let mut routers = ApprovedRouters::default();
    routers.reject(&[RelayId::Ed25519(rejected.master.public())]);
    files::replace(&directory.path().join("approved-routers"), &routers.write()).unwrap();
    let torrc = "DirAllowPrivateAddresses 0\nAuthDirReject 198.51.100.0/24\n";
    let theirs = Authority::start(directory.path(), v3_identity, torrc, &["Bootstrapped"]);
    let addresses = AddressPolicies {
        reject: AddressPolicies::parse(["198.51.100.0/24"]).unwrap(),
        ..AddressPolicies::default()
    };
    let mut ours = Ours {
        options: AdmissionOptions {
            tap_key: TapKey::Required,
            minimal_version: "0.4.8.0-alpha-dev".parse().unwrap(),
            allow_private_addresses: false,
            pin_keys: true,
            us: None,
        },
        approvals: Approvals { routers, addresses, strict: false },
        pins: KeyPins::default(),
        stored: BTreeMap::new(),
    };

    let at = now().0;
    let published = |ago: u64| Unix(at - ago);
    let swapped = Relay {
        identity: other.identity.clone(),
        tap: other.tap.clone(),
        master: Ed25519Pair::from_seed(&[77; 32]),
        expires: other.expires,
    };
    let expired = Relay {
        identity: relay.identity.clone(),
        tap: relay.tap.clone(),
        master: Ed25519Pair::generate(&mut ChaCha8Rng::seed_from_u64(0)),
        expires: published(7200),
    };
    let extra = |relay: &Relay, ago: u64| {
        let new = NewExtraInfo {
            nickname: Nickname::new("uploader").unwrap(),
            published: published(ago),
            statistics: vec!["dirreq-stats-end 2026-01-01 00:00:00 (86400 s)".into()],
        };
        relay.with_keys(|keys| new.sign(keys, &mut ChaCha8Rng::seed_from_u64(6)).unwrap())
    };
    let named = extra(fresh, 500);
    let descriptor_of_named = fresh.descriptor(|new| {
        new.published = published(500);
        new.extra_info = Some(named.parsed.digests);
    });

    let uploads: Vec<(&str, &Relay, String)> = vec![
        ("no TAP key", relay, relay.descriptor_with(false, |_| {})),
        ("old version", relay, relay.descriptor(|new| new.platform = "Tor 0.4.7.16 on Linux".into())),
        (
            "least version",
            other,
            other.descriptor(|new| new.platform = "Tor 0.4.8.0-alpha-dev on Linux".into()),
        ),
        ("malformed platform", relay, relay.descriptor(|new| new.platform = "Tor soon on Linux".into())),
        ("odd commit", relay, relay.descriptor(|new| new.platform = "Tor 0.4.9.1 (git-abc) on Linux".into())),
        ("rejected identity", rejected, rejected.descriptor(|_| {})),
        ("rejected address", relay, relay.descriptor(|new| new.ipv4 = Ipv4Addr::new(198, 51, 100, 7))),
        ("private address", relay, relay.descriptor(|new| new.ipv4 = Ipv4Addr::new(100, 127, 0, 1))),
        ("private IPv6", relay, relay.descriptor(|new| new.ipv6 = Some(("fd00::1".parse().unwrap(), 1)))),
        ("25 hours old", relay, relay.descriptor(|new| new.published = published(25 * 3600))),
        ("13 hours ahead", relay, relay.descriptor(|new| new.published = Unix(at + 13 * 3600))),
        ("good", relay, relay.descriptor(|_| {})),
        ("the same", relay, relay.descriptor(|new| new.published = published(3600))),
        ("cosmetic", relay, relay.descriptor(|new| (new.published, new.uptime) = (published(3000), 100_600))),
        (
            "other protocols",
            relay,
            relay.descriptor(|new| {
                new.published = published(2990);
                new.protocols = Protocols::parse("Link=5").unwrap();
            }),
        ),
        (
            "half the bandwidth",
            relay,
            relay.descriptor(|new| {
                new.published = published(2980);
                new.bandwidth.observed = 249_999;
            }),
        ),
        (
            "new contact",
            relay,
            relay.descriptor(|new| {
                new.published = published(2970);
                new.contact = Some("me".into());
            }),
        ),
        (
            "older",
            relay,
            relay.descriptor(|new| {
                new.published = published(2971);
                new.contact = Some("you".into());
            }),
        ),
        (
            "hibernating",
            relay,
            relay.descriptor(|new| {
                new.published = published(2960);
                new.hibernating = true;
            }),
        ),
        (
            "expired certificates, other Ed25519 identity",
            &expired,
            expired.descriptor(|new| new.published = published(10)),
        ),
        ("another Ed25519 identity", other, swapped.descriptor(|new| new.published = published(20))),
        ("extra-info of nobody", fresh, named.text.clone()),
        ("extra-info before its descriptor", fresh, format!("{}\n{descriptor_of_named}", named.text)),
        ("extra-info again", fresh, named.text.clone()),
        ("unnamed extra-info, earlier", fresh, extra(fresh, 501).text),
        ("unnamed extra-info, later", fresh, extra(fresh, 499).text),
        (
            "one good, one refused",
            fresh,
            format!(
                "{}{}",
                fresh.descriptor(|new| {
                    new.published = published(100);
                    new.contact = Some("again".into());
                }),
                relay.descriptor(|new| new.ipv4 = Ipv4Addr::new(10, 0, 0, 1)),
            ),
        ),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (what, relay, body) in uploads {
        let identity = Fingerprint(relay.identity.public().rsa_id());
        let (mine, their) = (ours.upload(&identity, &body), upload_to(&theirs, &identity, &body));
        assert_eq!(mine, their, "{what}");
        seen.insert((mine.0, mine.1));
    }
    assert_eq!(seen.len(), 3, "stored, not new and refused ones were among them");

    // What cannot be read is the difference: C tor says nothing.
    let garbled =
        relay.descriptor(|new| new.published = published(1)).replace("uptime 100000", "uptime 100001");
    let identity = Fingerprint(relay.identity.public().rsa_id());
    let (mine, their) = (ours.upload(&identity, &garbled), upload_to(&theirs, &identity, &garbled));
    assert_eq!((mine.0, their.0, mine.2), (true, false, their.2));
    theirs.stop();
}
