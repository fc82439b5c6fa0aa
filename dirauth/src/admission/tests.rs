use std::net::Ipv4Addr;
use std::sync::LazyLock;

use onionring_node::link::played;
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::netdoc::extrainfo::NewExtraInfo;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::{DocumentKeys, NewDescriptor, OnionKeys};
use onionring_proto::netdoc::text::Nickname;
use onionring_proto::policy::ExitPolicy;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::approval::{AddressPolicies, RelayId};

/// What three authorities and three relays of C tor 0.4.9.11 published, and their authorities stored.
pub(crate) const DESCRIPTORS: &str = include_str!("../testdata/descriptors.txt");
pub(crate) const EXTRA_INFOS: &str = include_str!("../testdata/extra-infos.txt");

pub(crate) const NOW: Unix = Unix(1_795_801_460);
const HOUR: u64 = 3600;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(3)
}

struct Keys {
    identity: RsaPrivate,
    tap: RsaPrivate,
    master: u8,
    expires: Unix,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    identity: RsaPrivate::generate(1024, &mut rng()).unwrap(),
    tap: RsaPrivate::generate(1024, &mut ChaCha8Rng::seed_from_u64(4)).unwrap(),
    master: 1,
    expires: Unix(NOW.0 + 30 * 24 * HOUR),
});

/// The settings that hold unless a test changes them.
pub(crate) fn options() -> AdmissionOptions {
    AdmissionOptions {
        tap_key: TapKey::Required,
        minimal_version: "0.4.8.0-alpha-dev".parse().unwrap(),
        allow_private_addresses: false,
        pin_keys: true,
        us: None,
    }
}

/// An authority's state, and what relays send it.
struct Authority {
    options: AdmissionOptions,
    approvals: Approvals,
    pins: KeyPins,
    stored: BTreeMap<Fingerprint, Arc<RouterDesc>>,
}

impl Authority {
    fn new() -> Authority {
        Authority {
            options: options(),
            approvals: Approvals::default(),
            pins: KeyPins::default(),
            stored: BTreeMap::new(),
        }
    }

    fn judge_at<'a>(&mut self, now: Unix, body: &'a str) -> Upload<'a> {
        let upload = Admission {
            options: &self.options,
            approvals: &self.approvals,
            pins: &mut self.pins,
            stored: &self.stored,
            now,
        }
        .judge(body.as_bytes());
        for judged in &upload.judged {
            if let (Some(Document::Descriptor(descriptor)), Verdict::Stored { .. }) =
                (&judged.document, &judged.verdict)
            {
                self.stored.insert(descriptor.identity, descriptor.clone());
            }
        }
        upload
    }

    /// The verdict on the only document.
    fn verdict_at(&mut self, now: Unix, body: &str) -> Verdict {
        let mut upload = self.judge_at(now, body);
        assert_eq!(upload.judged.len(), 1);
        upload.judged.remove(0).verdict
    }

    fn verdict(&mut self, body: &str) -> Verdict {
        self.verdict_at(NOW, body)
    }
}

const STORED: Verdict = Verdict::Stored { listed: true, probe: false };
const NEW: Verdict = Verdict::Stored { listed: true, probe: true };

fn refused(refusal: Refusal) -> Verdict {
    Verdict::Refused(refusal)
}

fn plain() -> NewDescriptor {
    NewDescriptor {
        nickname: Nickname::new("onion1").unwrap(),
        protocols: Protocols::parse("Link=3-5 Relay=2-4").unwrap(),
        published: NOW,
        uptime: 100_000,
        ..played::descriptor(Ipv4Addr::new(192, 0, 2, 1), 9001, "reject *:*")
    }
}

fn with_document_keys<T>(master: u8, expires: Unix, sign: impl FnOnce(&DocumentKeys<'_>) -> T) -> T {
    let master = Ed25519Pair::from_seed(&[master; 32]);
    let signing = Ed25519Pair::from_seed(&[99; 32]);
    let certified = Certified::Ed25519(signing.public());
    let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, expires, &master);
    sign(&DocumentKeys {
        identity: &KEYS.identity,
        ed_identity: master.public(),
        signing: &signing,
        signing_cert: &signing_cert,
    })
}

fn signed_with(new: &NewDescriptor, master: u8, expires: Unix, tap: bool) -> String {
    let onion = OnionKeys { ntor: &[4; 32], ntor_expires: KEYS.expires, tap: tap.then_some(&KEYS.tap) };
    with_document_keys(master, expires, |keys| new.sign(keys, &onion, &mut rng()).unwrap().text)
}

fn signed(new: &NewDescriptor) -> String {
    signed_with(new, KEYS.master, KEYS.expires, true)
}

/// The descriptor of a relay.
pub(crate) fn edited(edit: impl FnOnce(&mut NewDescriptor)) -> String {
    let mut new = plain();
    edit(&mut new);
    signed(&new)
}

#[test]
fn documents_with_annotations_are_refused() {
    let mut authority = Authority::new();
    let text = edited(|_| {});
    let signed = |line: &str| {
        // It does not matter whether the rest is right.
        text.replacen("\nplatform ", &format!("\n{line}\nplatform "), 1)
    };
    for line in ["@source \"somewhere\"", "  @x", "opt @x", "opt\t @x"] {
        assert_eq!(authority.verdict(&signed(line)), refused(Refusal::Annotated), "{line}");
        let before = format!("junk\n{line}\nmore\n{text}");
        assert_eq!(authority.verdict(&before), refused(Refusal::Annotated), "{line}");
    }
    for line in ["optional @x", "a@b", "#@x"] {
        assert_ne!(authority.verdict(&signed(line)), refused(Refusal::Annotated), "{line}");
    }
    // After all documents they are nobody's.
    let answer = authority.judge_at(NOW, &format!("{text}@last words\n")).answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    let two = format!("{text}@of the next\n{}", split_documents(DESCRIPTORS).next().unwrap());
    authority.options.allow_private_addresses = true;
    let upload = authority.judge_at(NOW, &two);
    assert_eq!((upload.judged.len(), upload.answer().status), (2, 400));
    assert!(upload.judged.iter().any(|judged| judged.verdict == refused(Refusal::Annotated)));
}

#[test]
fn what_c_tor_publishes_is_stored_once() {
    let mut authority = Authority::new();
    authority.options.allow_private_addresses = true;
    let body = format!("{EXTRA_INFOS}\ndownloaded\n{DESCRIPTORS}");
    let upload = authority.judge_at(NOW, &body);
    let stored =
        upload.judged.iter().filter(|judged| matches!(judged.verdict, Verdict::Stored { .. })).count();
    assert_eq!(stored, upload.judged.len(), "{:?}", upload.answer());
    assert_eq!((authority.stored.len(), upload.pinned.len(), authority.pins.len()), (6, 6, 6));
    assert!(upload.judged.len() > 6);
    assert_eq!(upload.answer(), Answer { status: 200, reason: "Stored".into(), not_new: false });
    let again = authority.judge_at(NOW, DESCRIPTORS);
    assert!(again.judged.iter().all(|judged| judged.verdict == Verdict::NotNew(NotNew::Same)));
    assert_eq!((again.answer().status, again.answer().not_new, again.pinned.len()), (200, true, 0));
    authority.options.allow_private_addresses = false;
    authority.stored.clear();
    let private = authority.judge_at(NOW, DESCRIPTORS);
    assert!(private.judged.iter().all(|judged| judged.verdict == refused(Refusal::PrivateAddress)));
}

#[test]
fn what_cannot_be_read_is_refused_with_the_reason() {
    let mut authority = Authority::new();
    let good = signed(&plain());
    for body in ["", "garbage\n", "\n\n"] {
        assert_eq!(authority.verdict(body), refused(Refusal::Empty));
    }
    assert_eq!(authority.verdict(&format!("\u{feff}{good}")), refused(Refusal::NotText));
    let cases = [
        (
            good.replace("proto Link", "pr0to Link"),
            "400 Cannot use this descriptor: line 44: the line \"proto\" is missing",
        ),
        (good.replace("uptime 100000", "uptime 100001"), "router-sig-ed25519"),
        (format!("router \u{e9}\n{}", "x\n".repeat(20_000)), "more than the 20000 allowed"),
    ];
    for (body, reason) in cases {
        let answer = authority.judge_at(NOW, &body).answer();
        let line = format!("{} {}", answer.status, answer.reason);
        assert!(line.contains(reason), "{line}");
        assert!(line.is_ascii() && line.len() <= 404 && answer.status == 400);
    }
    assert_eq!(authority.pins.len(), 0);
}

#[test]
fn tap_keys_are_a_setting() {
    let mut authority = Authority::new();
    let (with, without) = (signed(&plain()), signed_with(&plain(), 1, KEYS.expires, false));
    assert_eq!(authority.verdict(&without), refused(Refusal::NoTapKey));
    assert_eq!(authority.pins.len(), 0, "nothing is pinned before");
    authority.options.tap_key = TapKey::Refused;
    assert_eq!(authority.verdict(&with), refused(Refusal::TapKey));
    assert_eq!(authority.verdict(&without), NEW);
    authority.stored.clear();
    authority.options.tap_key = TapKey::Optional;
    assert_eq!(authority.verdict(&with), NEW);
}

#[test]
fn identities_are_pinned_even_by_what_is_refused() {
    let mut authority = Authority::new();
    let private = edited(|new| new.ipv4 = Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(authority.verdict(&private), refused(Refusal::PrivateAddress));
    let other = signed_with(&plain(), 2, KEYS.expires, true);
    let upload = authority.judge_at(NOW, &other);
    assert_eq!((upload.judged[0].verdict.clone(), upload.pinned.len()), (refused(Refusal::KeysChanged), 0));
    assert_eq!(authority.verdict(&signed(&plain())), NEW);
    // A cosmetic change is found before.
    let later = NewDescriptor { published: Unix(NOW.0 + 60), uptime: 100_060, ..plain() };
    let later = signed_with(&later, 2, KEYS.expires, true);
    assert_eq!(authority.verdict(&later), Verdict::NotNew(NotNew::Cosmetic));
    authority.options.pin_keys = false;
    authority.stored.clear();
    assert_eq!(authority.verdict(&other), NEW);
    authority.options.pin_keys = true;
    assert_eq!(authority.verdict(&signed(&plain())), refused(Refusal::KeysChanged));
}

#[test]
fn platforms_and_the_administrator() {
    let mut authority = Authority::new();
    let platform = |platform: &str| edited(|new| new.platform = platform.into());
    assert_eq!(authority.verdict(&platform("Tor 0.4.7.16 on Linux")), refused(Refusal::OldVersion));
    assert_eq!(authority.verdict(&platform("Tor soon on Linux")), refused(Refusal::Platform));
    assert_eq!(authority.verdict(&platform("Tor 0.4.8.0-alpha-dev on Linux")), NEW);
    authority.stored.clear();

    let good = signed(&plain());
    let parsed = RouterDesc::parse(&good).unwrap();
    authority.approvals.routers.reject(&[RelayId::Ed25519(parsed.ed_identity)]);
    assert_eq!(authority.verdict(&good), refused(Refusal::IdentityRejected));
    authority.approvals = Approvals::default();
    authority.approvals.addresses.reject = AddressPolicies::parse(["192.0.2.0/24"]).unwrap();
    assert_eq!(authority.verdict(&good), refused(Refusal::AddressRejected));
    authority.approvals = Approvals { strict: true, ..Approvals::default() };
    let upload = authority.judge_at(NOW, &good);
    assert_eq!(upload.judged[0].verdict, Verdict::Stored { listed: false, probe: true });
    assert!(upload.answer().reason.contains("waits for approval"));
}

#[test]
fn publication_times_have_a_window() {
    let good = signed(&plain());
    let verdict = |now: u64| Authority::new().verdict_at(Unix(now), &good);
    assert_eq!(verdict(NOW.0 + 24 * HOUR), NEW);
    let old = verdict(NOW.0 + 24 * HOUR + 1);
    assert_eq!(old, refused(Refusal::Expired { age: Duration::from_secs(24 * HOUR + 1) }));
    assert_eq!(verdict(NOW.0 - 12 * HOUR), NEW);
    let new = verdict(NOW.0 - 12 * HOUR - 1);
    assert_eq!(new, refused(Refusal::Ahead { by: Duration::from_secs(12 * HOUR + 1) }));
    let mut authority = Authority::new();
    let expired = signed_with(&plain(), 1, Unix(NOW.0 - 2 * HOUR), true);
    assert_eq!(authority.verdict(&expired), Verdict::NotNew(NotNew::CertsExpired));
}

#[test]
fn older_and_equal_ones_are_not_new() {
    let mut authority = Authority::new();
    assert_eq!(authority.verdict(&signed(&plain())), NEW);
    let older = edited(|new| {
        new.published = Unix(NOW.0 - 60);
        new.contact = Some("me".into());
    });
    assert_eq!(authority.verdict(&older), Verdict::NotNew(NotNew::Older));
    let same_time = edited(|new| new.contact = Some("me".into()));
    assert_eq!(authority.verdict(&same_time), Verdict::NotNew(NotNew::Older));
}

#[test]
fn changes_of_interest_and_cosmetic_ones() {
    type Edit = fn(&mut NewDescriptor);
    let cosmetic: [Edit; 8] = [
        |_| {},
        |new| new.nickname = Nickname::new("OnIoN1").unwrap(),
        |new| new.bandwidth.observed = 999_999,
        |new| new.bandwidth.observed = 250_000,
        |new| new.protocols = Protocols::parse("Link=5").unwrap(),
        |new| new.uptime = 100_060 + 6 * HOUR,
        |new| new.platform = "ONIONRING 0.1.0 on Linux".into(),
        |new| new.hidden_service_dir = false,
    ];
    let interesting: [(Edit, bool); 15] = [
        (|new| new.ipv4 = Ipv4Addr::new(192, 0, 2, 2), true),
        (|new| new.or_port = 9002, true),
        (|new| new.ipv6 = Some(("2001:db8::1".parse().unwrap(), 1)), true),
        (|new| new.dir_port = 9030, false),
        (|new| new.nickname = Nickname::new("onion2").unwrap(), false),
        (|new| new.platform = "onionring 0.2.0 on Linux".into(), false),
        (|new| new.contact = Some("me".into()), false),
        (|new| new.hibernating = true, false),
        (|new| new.policy = ExitPolicy::open(), false),
        (|new| new.tunnelled_dir_server = false, false),
        (
            |new| {
                new.family = vec!["$0123456789ABCDEF0123456789ABCDEF01234567"]
                    .into_iter()
                    .filter_map(onionring_proto::netdoc::family::FamilyMember::parse)
                    .collect()
            },
            false,
        ),
        (|new| new.bandwidth.observed = 1_000_002, false),
        (|new| new.bandwidth.rate += 1, false),
        (|new| new.uptime = 60, false),
        (|new| new.published = Unix(NOW.0 + 2 * HOUR + 1), false),
    ];
    let at = Unix(NOW.0 + 3 * HOUR);
    let second = |edit: Edit| {
        let mut new = NewDescriptor { published: Unix(NOW.0 + 60), uptime: 100_060, ..plain() };
        edit(&mut new);
        let mut authority = Authority::new();
        authority.verdict(&signed(&plain()));
        authority.verdict_at(at, &signed(&new))
    };
    for (n, edit) in cosmetic.into_iter().enumerate() {
        assert_eq!(second(edit), Verdict::NotNew(NotNew::Cosmetic), "{n}");
    }
    for (n, (edit, probe)) in interesting.into_iter().enumerate() {
        assert_eq!(second(edit), Verdict::Stored { listed: true, probe }, "{n}");
    }
    // Our own is stored whatever it says.
    let mut authority = Authority::new();
    authority.options.us = Some(RouterDesc::parse(&signed(&plain())).unwrap().identity);
    authority.verdict(&signed(&plain()));
    let later = edited(|new| new.published = Unix(NOW.0 + 60));
    assert_eq!(authority.verdict(&later), STORED);
}

#[test]
fn a_relay_that_wakes_up_is_probed() {
    let mut authority = Authority::new();
    assert_eq!(authority.verdict(&edited(|new| new.hibernating = true)), NEW);
    assert_eq!(authority.verdict(&edited(|new| new.published = Unix(NOW.0 + 60))), NEW);
}

#[test]
fn extra_infos_go_with_their_descriptors() {
    let extra = |published: u64, statistic: &str| {
        let new = NewExtraInfo {
            nickname: plain().nickname,
            published: Unix(published),
            statistics: vec![statistic.to_owned()],
        };
        with_document_keys(KEYS.master, KEYS.expires, |keys| new.sign(keys, &mut rng()).unwrap())
    };
    let good = extra(NOW.0, "dirreq-stats 1");
    let descriptor = edited(|new| new.extra_info = Some(good.parsed.digests));
    let verdicts = |authority: &mut Authority, body: &str| -> Vec<Verdict> {
        authority.judge_at(NOW, body).judged.into_iter().map(|judged| judged.verdict).collect()
    };

    let mut authority = Authority::new();
    assert_eq!(authority.verdict(&good.text), refused(Refusal::NoDescriptor));
    // Before the descriptor in the same upload, and after it in another.
    assert_eq!(verdicts(&mut authority, &format!("{}{descriptor}", good.text)), [NEW, STORED]);
    assert_eq!(authority.verdict(&good.text), STORED);
    let unnamed = extra(NOW.0, "dirreq-stats 2");
    assert_eq!(authority.verdict(&unnamed.text), refused(Refusal::ExtraInfo(ExtraInfoMismatch::Digest)));
    let earlier = extra(NOW.0 - 1, "dirreq-stats 1");
    assert_eq!(authority.verdict(&earlier.text), refused(Refusal::ExtraInfo(ExtraInfoMismatch::Published)));
    let later = extra(NOW.0 + 1, "dirreq-stats 1");
    assert_eq!(authority.verdict(&later.text), Verdict::NotNew(NotNew::NoDescriptorYet));
    let spoilt = good.text.replace("dirreq-stats 1", "dirreq-stats 3");
    assert!(matches!(
        authority.verdict(&spoilt),
        Verdict::Refused(Refusal::Unreadable { what: "extra-info", .. })
    ));
}

#[test]
fn the_worst_verdict_is_the_answer_and_the_good_are_stored() {
    let mut authority = Authority::new();
    authority.verdict(&signed(&plain()));
    let body = format!("{}{}router x\n", signed(&plain()), DESCRIPTORS);
    authority.options.allow_private_addresses = true;
    let upload = authority.judge_at(NOW, &body);
    assert_eq!(upload.judged[0].verdict, Verdict::NotNew(NotNew::Same));
    assert_eq!(authority.stored.len(), 7);
    let answer = upload.answer();
    assert!(answer.status == 400 && answer.reason.starts_with("Cannot use this descriptor"), "{answer:?}");
    let many = "router x\n".repeat(DOCUMENTS_PER_UPLOAD + 5);
    let upload = authority.judge_at(NOW, &many);
    assert_eq!(upload.judged.len(), DOCUMENTS_PER_UPLOAD + 1);
    assert_eq!(upload.judged.last().unwrap().verdict, refused(Refusal::TooMany));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
        let mut authority = Authority::new();
        // In the middle of descriptors that are fine.
        let mut body = DESCRIPTORS.as_bytes().to_vec();
        let at = at.index(body.len());
        body.splice(at..at, bytes);
        let upload = Admission {
            options: &authority.options,
            approvals: &authority.approvals,
            pins: &mut authority.pins,
            stored: &authority.stored,
            now: NOW,
        }.judge(&body);
        let answer = upload.answer();
        prop_assert_eq!(answer.status, 400);
        prop_assert!(answer.reason.is_ascii() && !answer.reason.contains(['\r', '\n']));
    }
}
