use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::netdoc::consensus::UnverifiedConsensus;
use crate::netdoc::testdata::{CONSENSUS_MICRODESC, CONSENSUS_NS, edit_lines};
use crate::netdoc::text;

/// A diff with these commands and the right digests.
fn with_digests(base: &str, target: &str, commands: &str) -> String {
    let (from, to) = (text::hex_upper(&signed_sha3(base)), text::hex_upper(&sha3(target)));
    format!("{VERSION_LINE}\nhash {from} {to}\n{commands}")
}

fn commands(base: &str, target: &str) -> String {
    let diff = generate(base, target).unwrap();
    assert_eq!(apply(base, &diff).as_deref(), Ok(target), "{diff}");
    diff.splitn(3, '\n').nth(2).unwrap().to_owned()
}

#[test]
fn a_consensus_is_named_by_what_is_signed() {
    for consensus in [CONSENSUS_NS, CONSENSUS_MICRODESC] {
        let parsed = UnverifiedConsensus::parse(consensus).unwrap();
        assert_eq!(signed_sha3(consensus), parsed.peek().signed_sha3);
    }
    assert_eq!(signed_sha3("a\nb\n"), sha3("a\nb\n"));
    assert_eq!(signed_sha3("a\ndirectory-signature b"), sha3("a\ndirectory-signature "));
    assert_eq!(signed_sha3(""), sha3(""));
}

/// The form that C tor gives to what changes every hour: see `protocol.md` 5.13 and dir-spec appendix E.
#[test]
fn signatures_are_taken_off_first_and_lines_counted_from_the_end() {
    let base = "v 3\nvalid-after 1\nfresh-until 2\nknown-flags\nr a AAAAAAAAAAAAAAAAAAAAAAAAAAA\ns Fast\n\
                directory-footer\ndirectory-signature x\n-----BEGIN\n-----END\n";
    let target = "v 3\nvalid-after 2\nfresh-until 3\nknown-flags\nr a AAAAAAAAAAAAAAAAAAAAAAAAAAA\ns Slow\n\
                  directory-footer\ndirectory-signature y\n-----BEGIN\n-----END\n";
    assert_eq!(
        commands(base, target),
        "8,$d\n7a\ndirectory-signature y\n-----BEGIN\n-----END\n.\n6c\ns Slow\n.\n\
         2,3c\nvalid-after 2\nfresh-until 3\n.\n"
    );
    // The signatures themselves may be other than those of who made the diff.
    let re_encoded = base.replace("x\n-----BEGIN\n-----END\n", "z\n-----BEGIN\n-----MORE\n-----END\n");
    assert_eq!(apply(&re_encoded, &generate(base, target).unwrap()).as_deref(), Ok(target));
}

#[test]
fn relays_come_go_and_change() {
    let relay = |n: u8, flags: &str| {
        format!("r name {} 2038\nm digest\ns {flags}\nw Bandwidth={n}\n", text::base64_unpadded(&[n; 20]))
    };
    let document = |relays: &[String]| format!("head\n{}directory-footer\n", relays.concat());
    let base = document(&[relay(1, "A"), relay(2, "A"), relay(3, "A"), relay(5, "A")]);
    let target = document(&[relay(2, "A"), relay(3, "B"), relay(4, "A"), relay(5, "A"), relay(9, "A")]);
    let expected = format!("17a\n{}.\n13a\n{}.\n12c\ns B\n.\n2,5d\n", relay(9, "A"), relay(4, "A"));
    assert_eq!(commands(&base, &target), expected);
    // Without order, it still comes out right.
    let unsorted = document(&[relay(9, "A"), relay(2, "C"), relay(2, "A"), relay(1, "A")]);
    commands(&unsorted, &target);
    commands(&target, &unsorted);
}

/// As many commands as there can be, which are more lines than either document has.
#[test]
fn every_other_line_changes() {
    let relay = |n: u32, line: &str| {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&n.to_be_bytes());
        format!("r x {}\n{line}\n", text::base64_unpadded(&id))
    };
    let document = |line: &str| (0..300_000).map(|n| relay(n, line)).collect::<String>();
    let commands = commands(&document("a"), &document("b"));
    assert_eq!(commands.lines().count(), 900_000);
}

#[test]
fn long_parts_are_not_compared_line_by_line() {
    let lines = |step: usize| (0..2000).map(|n| format!("{}\n", n / step * step)).collect::<String>();
    let commands = commands(&lines(1), &lines(2));
    assert!(commands.starts_with("2,2000c\n"), "{}", commands.lines().next().unwrap());
}

#[test]
fn recorded_consensuses() {
    let all = [CONSENSUS_NS, CONSENSUS_MICRODESC];
    for base in all {
        for target in all {
            commands(base, target);
        }
    }
    let later = edit_lines(CONSENSUS_NS, |n, line| match n % 7 {
        0 => String::new(),
        3 => format!("{line}{line}"),
        _ => line.to_owned(),
    });
    commands(CONSENSUS_NS, &later);
    commands(&later, CONSENSUS_NS);
}

/// Of C tor 0.4.9.11: three authorities and three relays, one consensus to the next.
#[test]
fn recorded_diffs() {
    for (base, target, diff) in [
        (
            include_str!("../testdata/consdiff/ns_base.txt"),
            include_str!("../testdata/consdiff/ns_target.txt"),
            include_str!("../testdata/consdiff/ns_diff.txt"),
        ),
        (
            include_str!("../testdata/consdiff/microdesc_base.txt"),
            include_str!("../testdata/consdiff/microdesc_target.txt"),
            include_str!("../testdata/consdiff/microdesc_diff.txt"),
        ),
    ] {
        assert_eq!(apply(base, diff).as_deref(), Ok(target));
        assert_eq!(generate(base, target).as_deref(), Ok(diff));
    }
}

#[test]
fn what_no_diff_can_say() {
    assert_eq!(generate("a\n", "a\n.\n"), Err(GenerateError::LoneDot));
    assert_eq!(generate("a\n", "a"), Err(LinesError::Unfinished.into()));
    assert_eq!(generate("a", "a\n"), Err(LinesError::Unfinished.into()));
    // Where it is, it may stay.
    commands(".\na\n", ".\nb\n");
    let long = "\n".repeat(CONSENSUS_DIFF_LINES + 1);
    assert_eq!(generate(&long, "a\n"), Err(LinesError::TooMany.into()));
    assert!(generate(&long[1..], "a\n").is_ok());
}

#[test]
fn commands_that_work() {
    let base = "1\n2\n3\n4\n5\n";
    for (script, result) in [
        ("", "1\n2\n3\n4\n5\n"),
        ("3d\n", "1\n2\n4\n5\n"),
        ("4,5d\n1,2d\n", "3\n"),
        ("2,$d\n", "1\n"),
        ("5,$d\n", "1\n2\n3\n4\n"),
        ("1,$d\n", ""),
        ("5a\nx\n..\n.\n", "1\n2\n3\n4\n5\nx\n..\n"),
        ("0a\nx\n.\n", "x\n1\n2\n3\n4\n5\n"),
        ("5a\ny\n.\n5a\nx\n.\n", "1\n2\n3\n4\n5\nx\ny\n"),
        ("3,4c\nx\n.\n2a\ny\n.\n2c\nz\n.\n", "1\nz\ny\nx\n5\n"),
        ("003d\n", "1\n2\n4\n5\n"),
    ] {
        let diff = with_digests(base, result, script);
        assert_eq!(apply(base, &diff).as_deref(), Ok(result), "{script:?}");
    }
}

#[test]
fn commands_that_do_not() {
    use CommandFault::*;
    let base = "1\n2\n3\n4\n5\n";
    for (script, line, fault) in [
        ("\n", 1, Unknown),
        ("d\n", 1, Unknown),
        ("3\n", 1, Unknown),
        ("3x\n", 1, Unknown),
        ("3 d\n", 1, Unknown),
        ("+3d\n", 1, Unknown),
        ("3dd\n", 1, Unknown),
        ("3,d\n", 1, Unknown),
        (",3d\n", 1, Unknown),
        ("$d\n", 1, Unknown),
        ("$,$d\n", 1, Unknown),
        ("1,2,3d\n", 1, Unknown),
        ("3,3d\n", 1, Unknown),
        ("3,$c\nx\n.\n", 1, Unknown),
        ("3,$a\nx\n.\n", 1, Unknown),
        ("3,4a\nx\n.\n", 1, Unknown),
        ("99999999999999999999999d\n", 1, Unknown),
        ("\u{e9}d\n", 1, Unknown),
        ("0d\n", 1, Lines),
        ("0c\nx\n.\n", 1, Lines),
        ("6d\n", 1, Lines),
        ("6a\nx\n.\n", 1, Lines),
        ("6,$d\n", 1, Lines),
        ("4,3d\n", 1, Lines),
        ("3,6d\n", 1, Lines),
        ("3d\n3d\n", 2, Lines),
        ("3d\n3a\nx\n.\n", 2, Lines),
        ("3d\n2,3d\n", 2, Lines),
        ("2d\n3d\n", 2, Lines),
        ("5d\n3,$d\n", 2, Lines),
        (&"0a\nx\n.\n".repeat(8), 22, TooMany),
        ("3a\n.\n", 1, EmptyBlock),
        ("3a\nx\n", 1, OpenBlock),
        ("3a\n", 1, OpenBlock),
    ] {
        let diff = with_digests(base, base, script);
        let expected = ApplyError::Command { line: line + 2, fault };
        assert_eq!(apply(base, &diff), Err(expected), "{script:?}");
    }
}

#[test]
fn digests_decide() {
    let (base, target) = ("a\nb\n", "a\nc\n");
    let diff = generate(base, target).unwrap();
    assert_eq!(apply(target, &diff), Err(ApplyError::OtherBase));
    assert_eq!(apply(base, &diff.replace("\nc\n", "\nd\n")), Err(ApplyError::OtherResult));
    assert_eq!(apply(base, diff.strip_suffix('\n').unwrap()), Err(LinesError::Unfinished.into()));
    assert_eq!(apply(base, &diff.to_lowercase()).as_deref(), Ok(target), "hexadecimal of either case");
    for (from, to) in [
        ("version 1", "version 2"),
        ("version 1", "version 10"),
        ("hash ", "hash  "),
        ("hash ", "sha3 "),
        ("hash ", "hash 00 "),
        ("\n2c", " x\n2c"),
        ("\n2c\n", "0\n2c\n"),
    ] {
        assert_eq!(apply(base, &diff.replacen(from, to, 1)), Err(ApplyError::NotADiff), "{to:?}");
    }
    assert_eq!(apply(base, ""), Err(ApplyError::NotADiff));
    assert!(is_diff(&diff) && !is_diff(CONSENSUS_NS));
}

/// A document made of few different lines, so that many are common, with some relays in order.
fn document() -> impl Strategy<Value = String> {
    let lines =
        || prop::collection::vec(prop::sample::select(vec!["", "a", "s x", "r", "r x !", "..", "é"]), 0..6);
    let relays = prop::collection::btree_map(0u8..12, lines(), 0..8);
    let signatures = prop::sample::select(vec!["", "directory-signature x\n", "directory-signature x\ny\n"]);
    (lines(), relays, prop::bool::ANY, lines(), signatures).prop_map(
        |(head, relays, footer, foot, signatures)| {
            let joined = |lines: Vec<&str>| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let mut document = joined(head);
            for (n, lines) in relays {
                document.push_str(&format!("r name {}\n{}", text::base64_unpadded(&[n; 20]), joined(lines)));
            }
            if footer {
                document.push_str("directory-footer\n");
            }
            document + &joined(foot) + signatures
        },
    )
}

proptest! {
    #[test]
    fn a_diff_makes_its_target(base in document(), target in document()) {
        let diff = generate(&base, &target).unwrap();
        prop_assert_eq!(apply(&base, &diff), Ok(target));
    }

    #[test]
    fn edited_consensuses(
        gone in prop::collection::btree_set(0usize..200, 0..30),
        new in prop::collection::btree_map(0usize..200, "[ -~]{2,40}", 0..30),
        flavor in prop::bool::ANY,
    ) {
        let base = if flavor { CONSENSUS_NS } else { CONSENSUS_MICRODESC };
        let none = BTreeSet::new();
        let edited = |gone: &BTreeSet<usize>| edit_lines(base, |n, line| {
            let line = if gone.contains(&n) { "" } else { line };
            new.get(&n).map_or_else(|| line.to_owned(), |text| format!("{line}{text}\n"))
        });
        for (a, b) in [(base, &*edited(&gone)), (&edited(&none), &edited(&gone)), (&edited(&gone), base)] {
            let diff = generate(a, b).unwrap();
            prop_assert_eq!(apply(a, &diff), Ok(b.to_owned()));
        }
    }

    #[test]
    fn hostile_diffs_do_no_harm(script in "([0-9]{1,2}(,([0-9]{1,2}|\\$))?[acdx]\n|[a.]\n|\n){0,8}") {
        let base = "1\n2\n3\n4\n5\n6\n";
        let diff = with_digests(base, "", &script);
        if let Ok(result) = apply(base, &diff) {
            prop_assert_eq!(result, "");
        }
        let _ = apply(base, &script);
    }
}
