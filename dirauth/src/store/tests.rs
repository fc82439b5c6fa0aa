use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::admission::tests::{DESCRIPTORS, EXTRA_INFOS, NOW, edited};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn descriptors() -> Vec<(&'static str, Arc<RouterDesc>)> {
    split_documents(DESCRIPTORS).map(|text| (text, Arc::new(RouterDesc::parse(text).unwrap()))).collect()
}

fn extra_infos() -> Vec<(&'static str, ExtraInfo)> {
    split_documents(EXTRA_INFOS).map(|text| (text, ExtraInfo::parse(text).unwrap())).collect()
}

/// A descriptor of always the same relay.
fn made(published: Unix) -> (String, Arc<RouterDesc>) {
    let text = edited(|new| new.published = published);
    let descriptor = Arc::new(RouterDesc::parse(&text).unwrap());
    (text, descriptor)
}

fn full() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, found) = Store::open(directory.path(), NOW).unwrap();
    assert_eq!(found, Found::default());
    for (text, descriptor) in descriptors() {
        store.add_descriptor(descriptor, text, None).unwrap();
    }
    for (text, extra_info) in extra_infos() {
        store.add_extra_info(&extra_info, text).unwrap();
    }
    (directory, store)
}

/// All documents, by their digests.
fn digests(store: &Store) -> (BTreeSet<Fingerprint>, BTreeSet<Fingerprint>) {
    let of = |shelf: &Shelf| shelf.documents().into_keys().collect();
    (of(&store.descriptors), of(&store.extra_infos))
}

#[test]
fn documents_are_served_and_found_again() {
    let (directory, store) = full();
    let before = digests(&store);
    assert_eq!((before.0.len(), before.1.len()), (6, 6));
    let (routers, extras) = store.documents();
    for (text, descriptor) in descriptors() {
        assert_eq!(&routers.current(&descriptor.identity).unwrap().text[..], text.as_bytes());
        assert_eq!(&routers.by_digest(&descriptor.digest).unwrap().text[..], text.as_bytes());
    }
    for (text, extra_info) in extra_infos() {
        assert_eq!(&extras.current(&extra_info.identity).unwrap().text[..], text.as_bytes());
    }
    let newest = store.newest().clone();
    drop(store);
    let (store, found) = Store::open(directory.path(), NOW).unwrap();
    assert_eq!(found, Found { kept: 12, damaged: 0 });
    assert_eq!((digests(&store), store.newest()), (before, &newest));
    // The journals have been worked into the files.
    let bytes: usize = descriptors().iter().map(|(text, _)| text.len()).sum();
    assert_eq!(fs::read(directory.path().join("cached-descriptors")).unwrap().len(), bytes);
    assert!(!directory.path().join("cached-descriptors.new").exists());
}

#[test]
fn an_extra_info_that_comes_again_takes_no_room() {
    let (directory, mut store) = full();
    let journal = directory.path().join("cached-extrainfo.new");
    let before = fs::metadata(&journal).unwrap().len();
    for (text, extra_info) in extra_infos() {
        store.add_extra_info(&extra_info, text).unwrap();
    }
    assert_eq!(fs::metadata(&journal).unwrap().len(), before);
}

#[test]
fn a_document_without_the_end_of_its_last_line_spoils_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), NOW).unwrap();
    for (text, descriptor) in descriptors() {
        store.add_descriptor(descriptor, text.trim_end(), None).unwrap();
    }
    let before = digests(&store);
    drop(store);
    let (store, found) = Store::open(directory.path(), NOW).unwrap();
    assert_eq!((digests(&store), found), (before, Found { kept: 6, damaged: 0 }));
}

#[test]
fn a_relay_is_forgotten_for_votes_before_its_documents_are() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), NOW).unwrap();
    let (text, descriptor) = made(NOW);
    store.add_descriptor(descriptor.clone(), &text, None).unwrap();
    let identity = descriptor.identity;
    let served = |store: &Store| {
        let (routers, _) = store.documents();
        (routers.current(&identity).is_some(), routers.by_digest(&descriptor.digest).is_some())
    };
    for (later, newest, kept) in [
        (DAY * 2, true, true),
        (DAY * 2 + HOUR, false, true),
        (DAY * 5, false, true),
        (DAY * 5 + HOUR, false, false),
    ] {
        store.expire(NOW + later).unwrap();
        assert_eq!(store.newest().contains_key(&identity), newest, "{later:?}");
        assert_eq!(served(&store), (newest, kept), "{later:?}");
    }
}

#[test]
fn the_oldest_of_a_relay_go_first() {
    let directory = tempfile::tempdir().unwrap();
    let bounds = Bounds { per_relay: 3, ..Bounds::default() };
    let (mut store, _) = Store::open_bounded(directory.path(), NOW, bounds).unwrap();
    let made: Vec<_> = (0..5).map(|n| made(NOW + HOUR * n)).collect();
    for (text, descriptor) in &made {
        store.add_descriptor(descriptor.clone(), text, None).unwrap();
    }
    let expected = made[2..].iter().map(|(_, descriptor)| descriptor.digest).collect();
    assert_eq!(digests(&store).0, expected);
    assert_eq!(store.newest()[&made[0].1.identity].digest, made[4].1.digest);
}

#[test]
fn superseded_documents_make_room_and_newest_ones_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second, third] = [0, 1, 2].map(|n| made(NOW + HOUR * n));
    let bounds = Bounds { bytes: first.0.len() * 2 + 10, ..Bounds::default() };
    let (mut store, _) = Store::open_bounded(directory.path(), NOW, bounds).unwrap();
    for (text, descriptor) in [&first, &second, &third] {
        store.add_descriptor(descriptor.clone(), text, None).unwrap();
    }
    assert_eq!(digests(&store).0, [second.1.digest, third.1.digest].into());
    let (text, other) = descriptors().remove(0);
    // The superseded one goes, the newest stays, and there is no room for a third.
    store.add_descriptor(other, text, None).unwrap_err();
    let (text, extra_info) = extra_infos().remove(0);
    store.add_extra_info(&extra_info, text).unwrap();
    assert_eq!(store.newest()[&third.1.identity].digest, third.1.digest);
}

#[test]
fn strangers_make_room_for_those_that_came_before_them() {
    let directory = tempfile::tempdir().unwrap();
    // A relay whose descriptors get longer, and three others.
    let longer = |contact: usize, later: u32| {
        let text = edited(|new| {
            new.published = NOW - HOUR * 12 + HOUR * later;
            new.contact = Some("x".repeat(contact));
        });
        (Arc::new(RouterDesc::parse(&text).unwrap()), text)
    };
    let (descriptor, text) = longer(1, 0);
    let us = descriptor.identity;
    let others: Vec<_> = descriptors().into_iter().filter(|(_, other)| other.identity != us).collect();
    let [one, two, newcomer] = [0, 1, 2].map(|n| others[n].1.identity);
    let bytes = text.len() + others[..2].iter().map(|(text, _)| text.len()).sum::<usize>();
    let bounds = Bounds { bytes: bytes + 100, ..Bounds::default() };
    let (mut store, _) = Store::open_bounded(directory.path(), NOW, bounds).unwrap();
    let add_other = |store: &mut Store, n: usize| {
        let (text, descriptor) = &others[n];
        store.add_descriptor(descriptor.clone(), text, None)
    };
    let stored = |store: &Store| store.newest().keys().copied().collect::<BTreeSet<_>>();

    store.add_descriptor(descriptor, &text, None).unwrap();
    add_other(&mut store, 0).unwrap();
    add_other(&mut store, 1).unwrap();
    assert!(matches!(add_other(&mut store, 2), Err(AddError::Full { .. })));
    assert_eq!(stored(&store), [us, one, two].into());
    // The last that came goes, unless it is known by now.
    store.vouch([&two, &newcomer]);
    let (descriptor, text) = longer(1000, 1);
    store.add_descriptor(descriptor, &text, None).unwrap();
    assert_eq!(stored(&store), [us, two].into());
    let (descriptor, text) = longer(5000, 2);
    assert!(matches!(store.add_descriptor(descriptor, &text, None), Err(AddError::Full { .. })));
    assert_eq!(stored(&store), [us, two].into());
    drop(store);
    // After a start nobody is known, and all that the file still has are ranked by their first descriptors.
    let (mut store, _) = Store::open_bounded(directory.path(), NOW, bounds).unwrap();
    let lasts = |store: &Store| [&us, &two].map(|relay| store.ranks.last_after(relay));
    assert!(lasts(&store).contains(&None));
    store.vouch([&us, &two]);
    assert_eq!(lasts(&store), [Some(one); 2]);
}

#[test]
fn whoever_is_new_takes_the_place_of_the_first_stranger() {
    let directory = tempfile::tempdir().unwrap();
    let bounds = Bounds { relays: 2, ..Bounds::default() };
    let (mut store, _) = Store::open_bounded(directory.path(), NOW, bounds).unwrap();
    let relays = descriptors();
    let add = |store: &mut Store, n: usize| store.add_descriptor(relays[n].1.clone(), relays[n].0, None);
    let stored = |store: &Store| store.newest().keys().copied().collect::<BTreeSet<_>>();
    let ids = |of: [usize; 2]| BTreeSet::from(of.map(|n| relays[n].1.identity));
    for n in 0..3 {
        add(&mut store, n).unwrap();
    }
    assert_eq!(stored(&store), ids([1, 2]));
    store.vouch([&relays[1].1.identity]);
    add(&mut store, 3).unwrap();
    assert_eq!(stored(&store), ids([1, 3]), "those that were found stay");
    store.vouch([&relays[3].1.identity]);
    assert!(matches!(add(&mut store, 0), Err(AddError::TooManyRelays)));
    assert_eq!(stored(&store), ids([1, 3]));
}

#[test]
fn a_network_uploads_only_so_many_strangers() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), NOW).unwrap();
    let from = Some(IpAddr::from([198, 51, 100, 1]));
    for n in 0..crate::limits::STRANGERS_PER_NETWORK as u8 {
        store.ranks.arrive(Fingerprint([n; 20]), from);
    }
    let (text, descriptor) = made(NOW);
    let refused = store.add_descriptor(descriptor.clone(), &text, from);
    assert!(matches!(refused, Err(AddError::TooManyStrangers(_))));
    store.add_descriptor(descriptor, &text, None).unwrap();
    // Once it is stored, it is not new any more.
    let (text, later) = made(NOW + HOUR);
    store.add_descriptor(later, &text, from).unwrap();
}

#[test]
fn a_full_disk_is_told_and_changes_nothing() {
    let (directory, mut store) = full();
    let before = digests(&store);
    let journal = directory.path().join("cached-descriptors.new");
    fs::remove_file(&journal).unwrap();
    std::os::unix::fs::symlink("/dev/full", &journal).unwrap();
    let (text, descriptor) = made(NOW);
    let error = store.add_descriptor(descriptor, &text, None).unwrap_err();
    assert!(matches!(error, AddError::Disk(StoreError::DiskFull(_))), "{error}");
    assert_eq!(digests(&store), before);
}

#[test]
fn what_is_forgotten_leaves_the_disk_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let bounds = Bounds { per_relay: 2, ..Bounds::default() };
    let (mut store, _) = Store::open_bounded(directory.path(), NOW, bounds).unwrap();
    let size = |name: &str| fs::metadata(directory.path().join(name)).map_or(0, |m| m.len());
    // Long enough that a few are more than the slack.
    for n in 0..150 {
        let text = edited(|new| {
            new.published = NOW + HOUR * n;
            new.contact = Some("x".repeat(10_000));
        });
        store.add_descriptor(Arc::new(RouterDesc::parse(&text).unwrap()), &text, None).unwrap();
        assert!(size("cached-descriptors") + size("cached-descriptors.new") < (1 << 20) + 60_000);
    }
    assert!(size("cached-descriptors") > 0, "the file was written anew");
    assert_eq!(store.descriptors.len(), 2);
}

#[test]
fn a_file_that_cannot_be_written_anew_stays_short_enough_to_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let bounds = Bounds { per_relay: 2, on_disk: 1_200_000, ..Bounds::default() };
    let (mut store, _) = Store::open_bounded(directory.path(), NOW, bounds).unwrap();
    let in_the_way = directory.path().join("cached-descriptors.tmp");
    fs::create_dir(&in_the_way).unwrap();
    let longer = |n: u32| {
        let text = edited(|new| {
            new.published = NOW + Duration::from_secs(n.into());
            new.contact = Some("x".repeat(10_000));
        });
        (Arc::new(RouterDesc::parse(&text).unwrap()), text)
    };
    let mut failures = BTreeSet::new();
    let refused = (0..150).find_map(|n| {
        let (descriptor, text) = longer(n);
        let added = store.add_descriptor(descriptor, &text, None);
        failures.extend(store.descriptors.failed_at());
        added.err()
    });
    assert!(matches!(refused, Some(AddError::NotCompacted(_))), "{refused:?}");
    assert_eq!(failures.len(), 1, "it is not tried at each upload");
    let journal = directory.path().join("cached-descriptors.new");
    assert!(fs::metadata(&journal).unwrap().len() <= bounds.on_disk);
    store.expire(NOW).unwrap_err();
    fs::remove_dir(&in_the_way).unwrap();
    store.expire(NOW).unwrap();
    assert!(!journal.exists());
    let (descriptor, text) = longer(150);
    store.add_descriptor(descriptor, &text, None).unwrap();
}

/// Puts the files of a store somewhere else, each cut after so many bytes.
fn cut(directory: &std::path::Path, lens: &[(&str, usize)]) -> (tempfile::TempDir, PathBuf) {
    let copy = tempfile::tempdir().unwrap();
    for (name, len) in lens {
        let Ok(mut content) = fs::read(directory.join(name)) else { continue };
        content.truncate(*len);
        fs::write(copy.path().join(name), content).unwrap();
    }
    let path = copy.path().to_owned();
    (copy, path)
}

/// What a kill leaves of an append is its beginning. After it, all that was appended before is there, and what is stored
/// then is found at the next start.
fn survives_a_cut_at(directory: &std::path::Path, len: usize) {
    let whole = fs::read(directory.join("cached-descriptors.new")).unwrap();
    let (_copy, path) = cut(directory, &[("cached-descriptors.new", len)]);
    let (mut store, found) = Store::open(&path, NOW).unwrap();
    let (mut end, mut complete) = (0, BTreeSet::new());
    for text in split_documents(std::str::from_utf8(&whole).unwrap()) {
        end += text.len();
        if end <= len {
            complete.insert(RouterDesc::parse(text).unwrap().digest);
        }
    }
    assert!(digests(&store).0.is_superset(&complete), "cut at {len}");
    assert!(found.kept <= complete.len() + 1 && found.damaged <= 1, "cut at {len}: {found:?}");
    let (text, descriptor) = made(NOW);
    store.add_descriptor(descriptor.clone(), &text, None).unwrap();
    drop(store);
    let (store, found) = Store::open(&path, NOW).unwrap();
    assert_eq!(found.damaged, 0, "cut at {len}");
    assert!(digests(&store).0.is_superset(&complete), "cut at {len}");
    assert!(digests(&store).0.contains(&descriptor.digest), "cut at {len}");
}

/// A journal of three documents, one with characters of several bytes.
fn journal() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), NOW).unwrap();
    let odd = edited(|new| {
        new.published = NOW - HOUR;
        new.contact = Some("J\u{fc}rgen \u{20ac} \u{1f9c5}".into());
    });
    let texts = [descriptors()[0].0, &odd, descriptors()[1].0];
    for text in texts {
        store.add_descriptor(Arc::new(RouterDesc::parse(text).unwrap()), text, None).unwrap();
    }
    drop(store);
    directory
}

#[test]
fn a_kill_while_a_document_is_written_loses_only_that_one() {
    let directory = journal();
    let bytes = fs::read(directory.path().join("cached-descriptors.new")).unwrap();
    // Within every line, at its ends, and within every character.
    let mut cuts = BTreeSet::from([0, 1, bytes.len() - 1, bytes.len()]);
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' && at % 5 == 0 {
            cuts.extend([at, at + 1, at + 2]);
        }
        if !byte.is_ascii() {
            cuts.insert(at);
        }
    }
    for text in split_documents(std::str::from_utf8(&bytes).unwrap()) {
        let end = text.as_ptr() as usize - bytes.as_ptr() as usize + text.len();
        cuts.extend([end - 1, end, (end + 1).min(bytes.len())]);
    }
    for len in cuts {
        survives_a_cut_at(directory.path(), len);
    }
}

#[test]
fn a_kill_while_the_file_is_written_anew_leaves_the_old_or_the_new_one() {
    let directory = journal();
    let before = fs::read(directory.path().join("cached-descriptors.new")).unwrap();
    let (store, _) = Store::open(directory.path(), NOW).unwrap();
    let expected = digests(&store);
    drop(store);
    let after = fs::read(directory.path().join("cached-descriptors")).unwrap();
    let state = |files: &[(&str, &[u8])]| {
        let copy = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(copy.path().join(name), content).unwrap();
        }
        let (store, found) = Store::open(copy.path(), NOW).unwrap();
        assert_eq!((digests(&store), found.damaged), (expected.clone(), 0));
    };
    // Before the new file is whole, before it has its name, and before the journal is gone.
    for len in [0, 1, after.len() / 2, after.len()] {
        state(&[("cached-descriptors.new", &before), ("cached-descriptors.tmp", &after[..len])]);
    }
    state(&[("cached-descriptors", &after), ("cached-descriptors.new", &before)]);
    state(&[("cached-descriptors", &after)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_cut_anywhere_loses_only_what_was_cut(share in 0.0f64..1.0) {
        let directory = journal();
        let len = fs::metadata(directory.path().join("cached-descriptors.new")).unwrap().len() as f64;
        survives_a_cut_at(directory.path(), (len * share) as usize);
    }

    #[test]
    fn whatever_text_is_in_the_files_is_survived(junk in "(router |extra-info |[a-z@ \n-]){0,60}") {
        let directory = tempfile::tempdir().unwrap();
        for file in ["cached-descriptors", "cached-descriptors.new", "cached-extrainfo.new"] {
            fs::write(directory.path().join(file), &junk).unwrap();
        }
        let (store, found) = Store::open(directory.path(), NOW).unwrap();
        prop_assert_eq!((found.kept, digests(&store)), (0, Default::default()));
    }
}
