//! What is fuzzed: functions of any bytes that must not panic, hang or grow, and that check what holds for every input.
//!
//! The fuzzer in `dirauth/fuzz` drives them with coverage; the test beside this file replays the kept inputs and mutations
//! of them with every `cargo test`.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use onionring_dirauth::admission::{Admission, AdmissionOptions, TapKey, Verdict};
use onionring_dirauth::approval::{AddressPolicies, Approvals, ApprovedRouters, Pending, RelayId};
use onionring_dirauth::bandwidth_file::{self, BandwidthFile, Measurements};
use onionring_dirauth::directory::{Directory, Documents, Next, StoredVote};
use onionring_dirauth::keypin::{KeyPins, Pin, Pinned};
use onionring_dirauth::reach::answer;
use onionring_dirauth::reach::results::Results;
use onionring_dirauth::relay_set::RelaySet;
use onionring_dirauth::shared_random::{Commit, SharedRandom};
use onionring_dirauth::stability::Stability;
use onionring_dirauth::uploads::Uploads;
use onionring_dirauth::version::TorVersion;
use onionring_dirauth::voting::{DoublePolicy, Period, Round, Rules, Whence};
use onionring_node::directory::answer::{Answer, AnswerReader};
use onionring_node::directory::http::{Method, RequestReader};
use onionring_node::directory::serve::Asker;
use onionring_node::directory::spool::{Blob, Spool};
use onionring_node::limits::DIR_ANSWER_HEAD;
use onionring_proto::netdoc::routerdesc::{RouterDesc, split_documents};
use onionring_proto::netdoc::tally::Terms;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;

/// A target: its name, which is that of its corpus too, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("upload", upload),
    ("directory_request", directory_request),
    ("directory_answer", directory_answer),
    ("approved_routers", approved_routers),
    ("pending_relays", pending_relays),
    ("key_pinning_journal", key_pinning_journal),
    ("router_stability", router_stability),
    ("relay_reachability", relay_reachability),
    ("own_descriptor", own_descriptor),
    ("sr_state", sr_state),
    ("bandwidth_file", bandwidth_file),
    ("relay_names", relay_names),
    ("voting", voting),
];

/// When the recorded documents and states of the corpus were current.
const NOW: Unix = Unix(1_795_801_236);

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

fn options() -> AdmissionOptions {
    AdmissionOptions {
        tap_key: TapKey::Required,
        minimal_version: "0.4.8.0-alpha-dev".parse().expect("a version"),
        allow_private_addresses: true,
        pin_keys: true,
        us: None,
    }
}

fn upload(data: &[u8]) {
    let options = options();
    let mut pins = KeyPins::default();
    let (approvals, stored) = (Approvals::default(), BTreeMap::new());
    let mut admission =
        Admission { options: &options, approvals: &approvals, pins: &mut pins, stored: &stored, now: NOW };
    let upload = admission.judge(data);
    let answer = upload.answer();
    assert!(!upload.judged.is_empty());
    assert!(answer.reason.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
    let all_stored = upload.judged.iter().all(|judged| matches!(judged.verdict, Verdict::Stored { .. }));
    assert_eq!(all_stored, answer.status == 200 && !answer.not_new);
    assert_eq!(upload.pinned.len(), pins.len());
}

/// A directory with something of each kind that requests may name.
fn directory() -> Directory {
    let home = tempfile::tempdir().expect("a directory");
    let mut uploads = Uploads::open(home.path(), options(), Approvals::default(), NOW).expect("a new store");
    let answer = uploads.receive(include_bytes!("corpus/upload/relay"), None, NOW);
    assert_eq!(answer.status, 200, "{}", answer.reason);
    let directory = Directory::new(uploads);
    let text = || Blob::from(&b"document\n"[..]);
    let vote = StoredVote { identity: Fingerprint([1; 20]), digest: Fingerprint([2; 20]), text: text() };
    let next = Next {
        votes: vec![vote.clone()],
        consensus: Some(text()),
        signatures: Some(text()),
        bandwidth: Some(text()),
    };
    directory.set_documents(Documents { next, votes: vec![vote], ..Documents::default() });
    directory
}

/// A request with its head. What POST brings has targets of its own.
fn directory_request(data: &[u8]) {
    static DIRECTORY: LazyLock<Directory> = LazyLock::new(directory);
    let Ok(Some((request, used))) = RequestReader::default().push(data) else { return };
    assert!(used <= data.len() && request.path.starts_with("/tor/"));
    if request.method == Method::Post {
        return;
    }
    let asker = Asker { address: None, now: NOW, may_encode: true };
    let response = DIRECTORY.answer(&request, &[], asker);
    assert_eq!(response.body.is_empty(), response.status != 200);
    let mut spool = Spool::new(response).expect("memory");
    let mut piece = [0; 4096];
    while !spool.is_finished() {
        spool.fill(&mut piece).expect("memory");
    }
}

/// What another authority answers, in pieces of the length that the first byte says.
fn directory_answer(data: &[u8]) {
    const MAX: usize = 1 << 16;
    let Some((&length, data)) = data.split_first() else { return };
    let read = |length: usize| -> Option<Answer> {
        let mut reader = AnswerReader::new(MAX);
        for piece in data.chunks(length) {
            if reader.push(piece).ok()? {
                break;
            }
        }
        reader.finish().ok()
    };
    let whole = read(data.len().max(1));
    assert!(whole.as_ref().is_none_or(|answer| answer.body.len() <= MAX && answer.reason.len() <= 800));
    // A longer head may be whole before it is found to be too long.
    if data.len() <= DIR_ANSWER_HEAD {
        assert_eq!(read(usize::from(length).max(1)), whole);
    }
}

fn approved_routers(data: &[u8]) {
    let Some(file) = text(data) else { return };
    let (mut routers, _) = ApprovedRouters::read(file);
    assert_eq!(routers.write().trim_end_matches('\n'), file.trim_end_matches('\n'));
    let relay = Pin { rsa: Fingerprint([7; 20]), ed25519: [7; 32] };
    let before = routers.list().count();
    routers.reject(&[RelayId::Rsa(relay.rsa), RelayId::Ed25519(relay.ed25519)]);
    assert!(routers.marks(&relay.rsa, &relay.ed25519).reject);
    assert!(routers.list().count() <= before + 1);
    assert_eq!(ApprovedRouters::read(&routers.write()).0, routers);
}

fn pending_relays(data: &[u8]) {
    let Some(state) = text(data) else { return };
    let pending = Pending::read(state);
    assert_eq!(Pending::read(&pending.write()), pending);
}

fn key_pinning_journal(data: &[u8]) {
    let (mut pins, found) = KeyPins::read(data);
    assert!(pins.len() <= found.entries);
    let pin = Pin { rsa: Fingerprint([7; 20]), ed25519: [7; 32] };
    pins.pin(pin, true);
    assert_eq!(pins.check(&pin), Pinned::Known);
}

fn router_stability(data: &[u8]) {
    let Some(Ok((stability, _))) = text(data).map(|text| Stability::read(text, NOW)) else { return };
    // What cannot be believed is mended when it is read first.
    let read = |text: &str| Stability::read(text, NOW).expect("what we wrote").0;
    let mended = read(&stability.write(NOW)).write(NOW);
    assert_eq!(read(&mended).write(NOW), mended);
}

fn relay_reachability(data: &[u8]) {
    let Some(Ok((results, _))) = text(data).map(|text| Results::read(text, NOW)) else { return };
    let (again, found) = Results::read(&results.write(), NOW).expect("what we wrote");
    assert_eq!((again, found.damaged), (results, 0));
}

/// What a relay answers when it is asked for its descriptor.
fn own_descriptor(data: &[u8]) {
    static UPLOADED: LazyLock<RouterDesc> = LazyLock::new(|| {
        let text = split_documents(include_str!("../../src/testdata/descriptors.txt")).next();
        RouterDesc::parse(text.expect("a descriptor")).expect("a descriptor")
    });
    // Nothing else has the same digest.
    if answer::check(data, &UPLOADED).is_ok() {
        assert!(text(data).is_some_and(|text| text.contains(&*UPLOADED.proto)));
    }
}

fn sr_state(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let interval = Duration::from_secs(12);
    if let Ok(state) = SharedRandom::read(text, NOW, interval) {
        assert_eq!(SharedRandom::read(&state.write(), NOW, interval).expect("what we wrote"), state);
        for commit in state.vote().commits {
            Commit::parse(&commit).expect("what we vote");
        }
    }
    let _ = Commit::parse(text);
}

fn bandwidth_file(data: &[u8]) {
    bandwidth_file::digest(data);
    let Ok(file) = BandwidthFile::read(data, NOW) else { return };
    assert!(file.headers.iter().all(|header| header.contains('=') && !header.contains([' ', '\n'])));
    let mut measurements = Measurements::default();
    measurements.update(&file, NOW);
    assert_eq!(measurements.len(), file.measured.len());
}

/// Versions, sets of relays and address policies, a line each.
fn relay_names(data: &[u8]) {
    let Some(text) = text(data) else { return };
    for line in text.lines() {
        let _ = TorVersion::of_platform(line);
        if let Ok(version) = line.parse::<TorVersion>() {
            assert!(version >= version.clone());
        }
        let _ = RelaySet::parse(line);
        let _ = AddressPolicies::parse([line]);
        if let Ok(id) = line.parse::<RelayId>() {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}

/// Votes, signatures and states of voting, for the period of the recorded votes.
fn voting(data: &[u8]) {
    const VALID_AFTER: u64 = 1_795_801_680;
    let before = |seconds| Unix(VALID_AFTER - seconds);
    let period = Period {
        voting_starts: before(8),
        fetch_votes: before(6),
        voting_ends: before(4),
        fetch_signatures: before(2),
        valid_after: before(0),
    };
    let identities = ["F7B22110885E68EB5433F3A120C8A80F0762B18A", "FDC5EF9F2C52DAFC1191176A6358B84B3D42B6DC"];
    let authorities: Vec<_> = identities.iter().filter_map(|id| Fingerprint::from_hex(id)).collect();
    let rules = Rules {
        us: Fingerprint([0; 20]),
        terms: Terms { authorities: authorities.len(), shared_random: None },
        authorities,
        doubles: DoublePolicy::Alert,
        compare: true,
        testing: true,
    };
    let restore = |text: &str| Round::from_snapshot(rules.clone(), period, text);

    let mut round = Round::new(rules.clone(), period);
    let own = text(data).is_some_and(|text| round.handle_own_vote(before(8), text).is_ok());
    assert!(!own, "it is not ours");
    let posted = round.handle_vote(before(7), data, Whence::Posted([127, 0, 0, 1].into()));
    assert_eq!(posted.status == 200, round.votes().count() > 0 && posted.reason == "Vote stored");
    let fetched = round.handle_vote(before(5), data, Whence::Fetched(Fingerprint([7; 20])));
    assert!(posted.status != 200 || fetched.reason == "Duplicate discarded");
    let signed = round.handle_signatures(before(5), data);
    assert_eq!(signed.status == 200, signed.reason == "Signature queued");
    assert!(round.votes().count() <= identities.len());
    assert_eq!(restore(&round.snapshot()).expect("what we wrote").snapshot(), round.snapshot());

    if let Some(Ok(round)) = text(data).map(restore) {
        assert_eq!(restore(&round.snapshot()).expect("what we wrote").snapshot(), round.snapshot());
    }
}
