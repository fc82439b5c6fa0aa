use std::fs;

use onionring_proto::netdoc::routerdesc::split_documents;

use super::*;
use crate::admission::tests::{DESCRIPTORS, EXTRA_INFOS, NOW, edited, options};

fn open(directory: &Path, strict: bool) -> Uploads {
    let options = AdmissionOptions { allow_private_addresses: true, ..options() };
    let approvals = Approvals { strict, ..Approvals::default() };
    Uploads::open(directory, options, approvals, NOW).unwrap()
}

#[test]
fn what_is_accepted_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut uploads = open(directory.path(), false);
    let answer = uploads.receive(format!("{DESCRIPTORS}{EXTRA_INFOS}").as_bytes(), None, NOW);
    assert_eq!((answer.status, uploads.take_probes().len(), uploads.take_probes().len()), (200, 6, 0));
    drop(uploads);
    let mut uploads = open(directory.path(), false);
    assert_eq!((uploads.store().newest().len(), uploads.pins.len()), (6, 6));
    let (routers, extras) = uploads.store().documents();
    assert_eq!((routers.len(), extras.len()), (6, 6));
    let again = uploads.receive(DESCRIPTORS.as_bytes(), None, NOW);
    assert!(again.not_new && uploads.take_probes().is_empty());
    assert!(uploads.pending().list().is_empty());
}

#[test]
fn in_a_strict_network_relays_are_stored_and_wait() {
    let directory = tempfile::tempdir().unwrap();
    let mut uploads = open(directory.path(), true);
    let answer = uploads.receive(DESCRIPTORS.as_bytes(), None, NOW);
    assert_eq!((answer.status, uploads.pending().list().len()), (200, 6));
    assert_eq!(*uploads.received(), Received { pending: 6, ..Received::default() });
    drop(uploads);
    let mut uploads = open(directory.path(), true);
    assert_eq!((uploads.pending().list().len(), uploads.store().newest().len()), (6, 6));
    uploads.set_approvals(Approvals::default());
    assert!(uploads.pending().list().is_empty());
    drop(uploads);
    assert!(open(directory.path(), true).pending().list().is_empty());
}

#[test]
fn what_cannot_be_stored_is_not_promised() {
    let directory = tempfile::tempdir().unwrap();
    let mut uploads = open(directory.path(), false);
    std::os::unix::fs::symlink("/dev/full", directory.path().join("cached-descriptors.new")).unwrap();
    let answer = uploads.receive(DESCRIPTORS.as_bytes(), None, NOW);
    assert_eq!((answer.status, uploads.take_probes().len()), (503, 0));
    assert!(uploads.store().newest().is_empty());
    assert_eq!(*uploads.received(), Received { unsaved: 6, ..Received::default() });
    // What is refused anyway is told why.
    let answer = uploads.receive(b"router nonsense\n", None, NOW);
    assert_eq!(answer.status, 400);
    fs::remove_file(directory.path().join("cached-descriptors.new")).unwrap();
    assert_eq!(uploads.receive(DESCRIPTORS.as_bytes(), None, NOW).status, 200);
}

#[test]
fn a_bad_document_does_not_keep_a_good_one_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut uploads = open(directory.path(), false);
    let (good, bad) =
        (edited(|_| {}), split_documents(DESCRIPTORS).next().unwrap().replace("uptime", "uptime 1"));
    let answer = uploads.receive(format!("{good}{bad}").as_bytes(), None, NOW);
    assert_eq!((answer.status, uploads.store().newest().len()), (400, 1));
    let refused = BTreeMap::from([("unreadable", 1)]);
    assert_eq!(*uploads.received(), Received { stored: 1, refused, ..Received::default() });
    uploads.receive(good.as_bytes(), None, NOW);
    assert_eq!(uploads.received().not_new, 1);
}

#[test]
fn what_is_stored_of_rejected_relays_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let mut uploads = open(directory.path(), true);
    uploads.receive(format!("{DESCRIPTORS}{EXTRA_INFOS}").as_bytes(), None, NOW);
    let all: Vec<_> = uploads.store().newest().values().cloned().collect();
    let rejecting = |rejected: &[&RouterDesc]| {
        let lines: String = rejected.iter().map(|relay| format!("!reject {}\n", relay.identity)).collect();
        let (routers, damaged) = crate::approval::ApprovedRouters::read(&lines);
        assert!(damaged.is_empty());
        Approvals { routers, strict: true, ..Approvals::default() }
    };
    let stored = |uploads: &Uploads| {
        let (routers, extras) = uploads.store().documents();
        (routers.len(), extras.len(), uploads.store().newest().len(), uploads.pending().list().len())
    };
    assert_eq!(stored(&uploads), (6, 6, 6, 6));
    uploads.set_approvals(rejecting(&[&all[0]]));
    assert_eq!(stored(&uploads), (5, 5, 5, 5));
    assert!(!uploads.store().newest().contains_key(&all[0].identity));
    drop(uploads);
    // While it did not run, another was rejected, which by now is too old for votes.
    let options = AdmissionOptions { allow_private_addresses: true, ..options() };
    let later = NOW + std::time::Duration::from_secs(3 * 24 * 3600);
    let uploads = Uploads::open(directory.path(), options, rejecting(&[&all[0], &all[1]]), later).unwrap();
    assert_eq!(stored(&uploads), (4, 4, 0, 4));
    assert!(uploads.store().documents().0.by_digest(&all[1].digest).is_none());
    // By its address, too.
    let mut uploads = open(directory.path(), false);
    let reject = crate::approval::AddressPolicies::parse(["127.0.0.0/8"]).unwrap();
    let addresses = crate::approval::AddressPolicies { reject, ..Default::default() };
    uploads.set_approvals(Approvals { addresses, ..Approvals::default() });
    assert_eq!(stored(&uploads), (0, 0, 0, 0));
}

#[test]
fn a_probe_goes_by_the_newest_descriptor() {
    let directory = tempfile::tempdir().unwrap();
    let mut uploads = open(directory.path(), false);
    for contact in ["before", "after"] {
        let text = edited(|new| {
            new.contact = Some(contact.into());
            new.published = NOW - std::time::Duration::from_secs(if contact == "before" { 60 } else { 0 });
        });
        assert_eq!(uploads.receive(text.as_bytes(), None, NOW).status, 200);
    }
    let probes = uploads.take_probes();
    assert_eq!(probes.values().map(|relay| relay.published).collect::<Vec<_>>(), [NOW]);
    assert!(uploads.take_probes().is_empty());
}
