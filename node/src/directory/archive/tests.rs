use crate::compress::{Accepted, decompress};
use crate::docstore::DocStore;
use onionring_proto::netdoc::consensus::UnverifiedConsensus;

use super::*;
use crate::directory::testdata;

fn past_of(flavor: Flavor, text: &str, valid_after: u64) -> Past {
    let packed = compress::compress(PACKED, text.as_bytes()).unwrap().into();
    Past { flavor, valid_after: Unix(valid_after), signed_sha3: consdiff::signed_sha3(text), packed }
}

#[test]
fn diffs_lead_from_the_past_to_the_present() {
    let target = testdata::CONSENSUS_NS;
    let base = testdata::earlier(target);
    let parsed = UnverifiedConsensus::parse(&base).unwrap();
    let past = Past::new(Flavor::Ns, &StoredConsensus::new(&base, parsed.peek(), &Encoding::ALL).unwrap());
    assert_eq!(past.valid_after, parsed.peek().lifetime.valid_after);
    let diff = past.diff_to(target.as_bytes()).unwrap();
    for encoding in Encoding::ALL {
        let (chosen, form) = diff.choose(Accepted::IDENTITY.with(encoding)).unwrap();
        assert_eq!(chosen, encoding);
        let diff = String::from_utf8(decompress(encoding, form, 1 << 20).unwrap()).unwrap();
        assert_eq!(consdiff::apply(&base, &diff).as_deref(), Ok(target));
    }
}

#[test]
fn what_makes_no_diff() {
    let past = past_of(Flavor::Ns, "a\nb\n", 0);
    assert!(matches!(past.diff_to(b"c\n"), Err(NoDiff::TooLong)));
    assert!(matches!(past.diff_to(b"a\n.\n"), Err(NoDiff::Generate(GenerateError::LoneDot))));
    assert!(matches!(past.diff_to(b"\xff\n"), Err(NoDiff::Damaged)));
    for packed in [&b"junk"[..], &compress::compress(PACKED, b"a\nc\n").unwrap()] {
        let damaged = Past { packed: packed.into(), ..past.clone() };
        assert!(matches!(damaged.diff_to(b"a\nb\n"), Err(NoDiff::Damaged)));
    }
}

#[test]
fn the_oldest_make_room() {
    let mut archive = Archive::default();
    let count = limits::DIR_PAST_CONSENSUSES as u64;
    let text = |n: u64| format!("consensus {n}\n");
    for n in (1..=count).rev() {
        assert!(archive.add(past_of(Flavor::Ns, &text(n), n)).is_empty());
    }
    assert!(archive.add(past_of(Flavor::Microdesc, &text(0), 0)).is_empty(), "each flavour has its own room");
    let gone = archive.add(past_of(Flavor::Ns, &text(count + 1), count + 1));
    assert_eq!(gone.iter().map(|past| past.valid_after.0).collect::<Vec<_>>(), [1]);
    let kept: Vec<u64> = archive.of(Flavor::Ns).iter().map(|past| past.valid_after.0).collect();
    assert_eq!(kept, (2..=count + 1).rev().collect::<Vec<_>>());
    // By bytes, too.
    let huge =
        Past { packed: vec![0; limits::DIR_PAST_BYTES].into(), ..past_of(Flavor::Ns, "x\n", count + 2) };
    assert_eq!(archive.add(huge).len() as u64, count);
    assert_eq!(archive.of(Flavor::Ns).len(), 1);
}

#[test]
fn the_disk_keeps_what_is_kept() {
    let disk = tempfile::tempdir().unwrap();
    let shelf = DocStore::open(disk.path()).unwrap().shelf("past");
    assert!(Archive::load(&shelf).unwrap().of(Flavor::Ns).is_empty());
    let count = limits::DIR_PAST_CONSENSUSES as u64;
    for n in 1..=count + 2 {
        past_of(Flavor::Microdesc, &format!("consensus {n}\n"), n).store(&shelf).unwrap();
    }
    shelf.store("of-another-kind", b"x").unwrap();
    let archive = Archive::load(&shelf).unwrap();
    let kept = archive.of(Flavor::Microdesc);
    assert_eq!(kept.len() as u64, count);
    let newest = past_of(Flavor::Microdesc, &format!("consensus {}\n", count + 2), count + 2);
    assert_eq!((kept[0].valid_after, &kept[0].packed), (newest.valid_after, &newest.packed));
    assert_eq!(shelf.names().unwrap().len() as u64, count + 1, "the two oldest are gone");
    kept[0].remove(&shelf).unwrap();
    assert_eq!(Archive::load(&shelf).unwrap().of(Flavor::Microdesc).len() as u64, count - 1);
}

#[test]
fn names_on_disk_say_what_is_in_them() {
    let past = past_of(Flavor::Microdesc, "a\n", 1_795_344_950);
    let name = past.name();
    let read = Past::named(&name).unwrap();
    assert_eq!(
        (read.flavor, read.valid_after, read.signed_sha3),
        (past.flavor, past.valid_after, past.signed_sha3)
    );
    for bad in
        ["", "ns", "ns-1", "ns-1-00", &name.to_lowercase(), &name.replace("-1", "-01"), &format!("{name}-x")]
    {
        assert!(Past::named(bad).is_none(), "{bad}");
    }
}
