use std::path::Path;

use onionring_proto::netdoc::microdesc::Microdesc;

use super::super::testdata::{self, NOW, pair};
use super::*;

const DELAYS: Delays = Delays { base: Duration::from_secs(1), cap: Duration::from_secs(20) };

fn keeper(role: Role, authorities: Vec<Fingerprint>, disk: Option<&Path>) -> Keeper {
    let settings = KeeperSettings { role, extra_infos: true, authorities, delays: DELAYS };
    Keeper::new(settings, disk.map(|path| DocStore::open(path).unwrap()))
}

fn clocks(start: Unix, after: Duration) -> Clocks {
    Clocks { mono: Mono(0) + after, unix: start + after }
}

fn answer(body: &str) -> Answer {
    Answer { status: 200, body: body.into(), ..Answer::default() }
}

/// What a server that is well has, of the recorded network.
fn well(request: &DirRequest) -> &'static str {
    match request {
        DirRequest::Consensus { flavor: Flavor::Ns, .. } => testdata::CONSENSUS_NS,
        DirRequest::Consensus { flavor: Flavor::Microdesc, .. } => testdata::CONSENSUS_MICRODESC,
        DirRequest::CertsById(_) | DirRequest::CertsBySigningKey(_) => testdata::CERTS,
        DirRequest::Microdescs(_) => testdata::MICRODESCS,
        DirRequest::Descriptors(_) | DirRequest::DescriptorsById(_) => testdata::DESCRIPTORS,
        DirRequest::ExtraInfos(_) => testdata::EXTRA_INFOS,
    }
}

/// Has a server answer what is due, for so many seconds.
fn run(keeper: &mut Keeper, start: Unix, seconds: u64, serve: impl Fn(&DirRequest) -> Answer) {
    for second in 0..seconds {
        let now = clocks(start, Duration::from_secs(second));
        while let Some(fetch) = keeper.poll(now) {
            let answer = serve(&fetch.request);
            keeper.take(&fetch, "server", answer, now);
        }
    }
}

#[test]
fn a_client_fetches_what_it_needs_and_has_it_again_after_a_restart() {
    let disk = tempfile::tempdir().unwrap();
    let mut first = keeper(Role::Plain, testdata::authorities(), Some(disk.path()));
    assert!(!first.has_changed());
    first.load(NOW);
    assert!(first.has_changed() && first.library().network().is_none());
    run(&mut first, NOW, 60, |request| answer(well(request)));
    assert_eq!((first.state().missing, first.state().disk_failing), (0, false));
    assert_eq!(first.state().microdescs, testdata::microdescs().len());
    assert!(first.has_changed() && !first.has_changed());
    let (_, microdescs) = first.library().network().unwrap();
    assert_eq!(microdescs.len(), testdata::microdescs().len());
    assert!(first.library().missing_descriptors().is_empty() && first.library().stored(Flavor::Ns).is_none());

    let mut second = keeper(Role::Plain, testdata::authorities(), Some(disk.path()));
    second.load(NOW);
    assert_eq!(second.library().network().unwrap().1.len(), microdescs.len());
    assert!(second.poll(clocks(NOW, Duration::ZERO)).is_none(), "there is nothing to ask for");
    assert!(second.next_timeout(clocks(NOW, Duration::ZERO)).unwrap() > Duration::ZERO);
}

#[test]
fn a_client_rewrites_its_microdescriptors_though_it_holds_no_texts() {
    let disk = tempfile::tempdir().unwrap();
    let store = DocStore::open(disk.path()).unwrap();
    let texts: Vec<&str> = Microdesc::split(testdata::MICRODESCS).collect();
    let (at_hand, fetched) = texts.split_at(texts.len() / 2);
    store.replace(Cached::Certs, [testdata::CERTS.as_bytes()]).unwrap();
    store.replace(Cached::MicrodescConsensus, [testdata::CONSENSUS_MICRODESC.as_bytes()]).unwrap();
    store.replace(Cached::Microdescs, at_hand.iter().map(|text| text.as_bytes())).unwrap();
    // So many superseded ones that the file is due.
    let superseded = texts[0].replace("\nntor-onion-key ", "\nntor-onion-key x");
    store.append(Cached::Microdescs, std::iter::repeat_n(superseded.as_bytes(), 8000)).unwrap();
    assert!(store.sizes(Cached::Microdescs).1 > 1 << 20);

    let mut first = keeper(Role::Plain, testdata::authorities(), Some(disk.path()));
    first.load(NOW);
    assert_eq!(first.library().missing_microdescs().len(), fetched.len());
    run(&mut first, NOW, 60, |request| answer(well(request)));
    let bytes = texts.iter().map(|text| text.len() as u64).sum();
    assert_eq!(store.sizes(Cached::Microdescs), (bytes, 0));
    let mut second = keeper(Role::Plain, testdata::authorities(), Some(disk.path()));
    second.load(NOW);
    assert!(second.library().missing_microdescs().is_empty());
}

#[test]
fn who_sent_a_forged_consensus_is_blamed_once_the_certificates_are_there() {
    let forged = testdata::CONSENSUS_MICRODESC.replacen("\nknown-flags ", "\nknown-flags Forged ", 1);
    let mut keeper = keeper(Role::Plain, testdata::authorities(), None);
    let now = clocks(NOW, Duration::ZERO);
    let fetch = keeper.poll(now).unwrap();
    assert_eq!(keeper.take(&fetch, "liar", answer(&forged), now), Outcome::Answered);
    assert!(keeper.awaits_certs() && keeper.blamed().is_empty());
    let certs = keeper.poll(now).unwrap();
    assert_eq!(keeper.take(&certs, "honest", answer(testdata::CERTS), now), Outcome::Answered);
    assert_eq!(keeper.blamed(), [fetch.id]);
    assert!(!keeper.awaits_certs() && keeper.library().network().is_none());
    run(&mut keeper, NOW, 60, |request| answer(well(request)));
    assert_eq!(keeper.state().missing, 0);
}

#[test]
fn answers_of_no_use_count_against_their_server() {
    let mut keeper = keeper(Role::Plain, testdata::authorities(), None);
    let now = clocks(NOW, Duration::ZERO);
    for (bad, reason) in [
        (answer("garbage"), "unfit"),
        (answer(testdata::CONSENSUS_NS), "unfit"),
        (Answer { status: 200, body: vec![0xff; 10], ..Answer::default() }, "unfit"),
        (Answer { status: 503, ..Answer::default() }, "refused"),
    ] {
        let fetch = keeper.poll(now).unwrap();
        let before = keeper.state().failed.get(reason).copied().unwrap_or_default();
        assert_eq!(keeper.take(&fetch, "server", bad, now), Outcome::Failed);
        assert_eq!(keeper.state().failed.get(reason).copied(), Some(before + 1));
    }
    let fetch = keeper.poll(now).unwrap();
    keeper.fail(&fetch, "connect", now);
    assert_eq!(keeper.state().failed.get("connect"), Some(&1));
    // Nothing but the time is lost.
    assert!(keeper.poll(now).is_some());
}

#[test]
fn a_consensus_of_another_time_says_something_of_the_clock() {
    let week = Duration::from_secs(7 * 86_400);
    for wrong in [NOW + week, NOW - week] {
        let mut keeper = keeper(Role::Plain, testdata::authorities(), None);
        let now = clocks(wrong, Duration::ZERO);
        let fetch = keeper.poll(now).unwrap();
        assert_eq!(keeper.take(&fetch, "server", answer(well(&fetch.request)), now), Outcome::Failed);
        let (lifetime, when) = keeper.state().untimely.unwrap();
        assert!(lifetime.is_valid(NOW) && when == wrong);
    }
}

#[test]
fn a_diff_makes_the_next_consensus_and_a_bad_one_costs_a_request() {
    let [base, target] = pair::MICRODESC;
    let diff = consdiff::generate(base, target).unwrap();
    let disk = tempfile::tempdir().unwrap();
    let store = DocStore::open(disk.path()).unwrap();
    for (role, useful) in
        [Role::Cache, Role::Plain].into_iter().flat_map(|role| [(role, true), (role, false)])
    {
        store.replace(Cached::Certs, [pair::CERTS.as_bytes()]).unwrap();
        store.replace(Cached::MicrodescConsensus, [base.as_bytes()]).unwrap();
        let mut keeper = keeper(role, pair::authorities(), Some(disk.path()));
        keeper.load(pair::NOW);
        run(&mut keeper, pair::NOW, 60, |request| match request {
            DirRequest::Consensus { flavor: Flavor::Microdesc, at_hand, .. } => {
                let has = at_hand.and_then(|held| held.diff_from);
                match (has, useful) {
                    (Some(name), _) if name == consdiff::signed_sha3(target) => {
                        Answer { status: 304, ..Answer::default() }
                    }
                    (Some(_), true) => answer(&diff),
                    (Some(_), false) => answer(&diff.replacen("\n", "\n999999d\n", 3)),
                    (None, _) => answer(target),
                }
            }
            _ => Answer { status: 404, ..Answer::default() },
        });
        let stored = keeper.library().stored(Flavor::Microdesc).unwrap();
        assert_eq!(stored.signed_sha3, consdiff::signed_sha3(target));
        assert_eq!(store.load(Cached::MicrodescConsensus).unwrap(), target);
        // A client has it on the disk alone.
        let in_memory = stored.whole.get(Encoding::Identity).map(|text| &text[..]);
        assert_eq!(in_memory, (role == Role::Cache).then_some(target.as_bytes()));
        assert_eq!((keeper.state().diffs, keeper.state().unfit), if useful { (1, 0) } else { (0, 1) });
        // A cache has a diff to make for others now.
        assert_eq!(keeper.diffs_due().len(), usize::from(role == Role::Cache));
    }
}

/// What was written to the disk may be gone, or another one, when a diff comes: whoever sent that is not to blame.
#[test]
fn a_client_whose_consensus_is_gone_from_the_disk_fetches_the_next_one_whole() {
    let [base, target] = pair::MICRODESC;
    let diff = consdiff::generate(base, target).unwrap();
    for left in [None, Some(target)] {
        let disk = tempfile::tempdir().unwrap();
        let store = DocStore::open(disk.path()).unwrap();
        store.replace(Cached::Certs, [pair::CERTS.as_bytes()]).unwrap();
        store.replace(Cached::MicrodescConsensus, [base.as_bytes()]).unwrap();
        let mut keeper = keeper(Role::Plain, pair::authorities(), Some(disk.path()));
        keeper.load(pair::NOW);
        match left {
            Some(other) => store.replace(Cached::MicrodescConsensus, [other.as_bytes()]).unwrap(),
            None => std::fs::remove_file(disk.path().join("cached-microdesc-consensus")).unwrap(),
        }
        run(&mut keeper, pair::NOW, 60, |request| match request {
            DirRequest::Consensus { at_hand, .. } => match at_hand.and_then(|held| held.diff_from) {
                Some(name) if name == consdiff::signed_sha3(base) => answer(&diff),
                Some(_) => Answer { status: 304, ..Answer::default() },
                None => answer(target),
            },
            _ => Answer { status: 404, ..Answer::default() },
        });
        let stored = keeper.library().stored(Flavor::Microdesc).unwrap();
        assert_eq!(stored.signed_sha3, consdiff::signed_sha3(target));
        assert_eq!((keeper.state().diffs, keeper.state().unfit), (0, 0));
        assert!(keeper.state().failed.is_empty(), "{:?}", keeper.state().failed);
    }
}

#[test]
fn a_disk_that_fails_costs_nothing_but_the_next_start() {
    let disk = tempfile::tempdir().unwrap();
    let mut keeper = keeper(Role::Plain, testdata::authorities(), Some(disk.path()));
    std::fs::create_dir(disk.path().join("cached-microdescs.new")).unwrap();
    run(&mut keeper, NOW, 60, |request| answer(well(request)));
    assert!(keeper.state().disk_failing);
    assert_eq!(keeper.state().missing, 0);
}
