//! The proxy's clock is wrong: libfaketime shows it another time, while relays and people have the right one.

use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::network::Network;
use crate::paper::current;
use crate::program::{Answer, Program};
use crate::{PATIENCE, nothing_has_leaked, run, trial, until};

/// A clock that is wrong, and what comes of it.
struct Case {
    /// How libfaketime is told.
    offset: &'static str,
    /// By how many minutes people are told that it is wrong, at least and at most.
    minutes: RangeInclusive<u64>,
    /// And which way.
    way: &'static str,
    /// Whether they are told that it may be more.
    or_more: bool,
    /// Whether the consensus may be used all the same: it may be a day too old, and a day early, by that clock.
    works: bool,
}

/// Certificates of relays hold for a day from the right time on, and so do not say all of a clock that is far ahead.
const CASES: [Case; 7] = [
    Case { offset: "+2h", minutes: 119..=121, way: "ahead", or_more: false, works: true },
    Case { offset: "+3h", minutes: 179..=181, way: "ahead", or_more: false, works: true },
    Case { offset: "-3h", minutes: 179..=181, way: "behind", or_more: false, works: true },
    Case { offset: "+5d", minutes: days(4) - 120..=days(4) + 60, way: "ahead", or_more: true, works: false },
    Case { offset: "-5d", minutes: days(5) - 60..=days(5), way: "behind", or_more: false, works: false },
    Case {
        offset: "+400d",
        minutes: days(399) - 120..=days(399) + 60,
        way: "ahead",
        or_more: true,
        works: false,
    },
    Case {
        offset: "-400d",
        minutes: days(400) - 120..=days(400),
        way: "behind",
        or_more: true,
        works: false,
    },
];

/// Minutes of so many days.
const fn days(n: u64) -> u64 {
    n * 24 * 60
}

/// By how many minutes a clock is wrong, and which way, as a text for people says it.
fn told(text: &str) -> Option<(u64, &str)> {
    let words: Vec<&str> = text.split([' ', ',', ':']).collect();
    let at = words.iter().position(|word| ["ahead", "behind"].contains(word))?;
    let amount = words[..at].rchunks_exact(2).map_while(|pair| {
        let n: u64 = pair[0].parse().ok()?;
        let minutes = match pair[1].trim_end_matches('s') {
            "day" => n * days(1),
            "hour" => n * 60,
            "minute" => n,
            "second" => 0,
            _ => return None,
        };
        Some(minutes)
    });
    Some((amount.sum(), words[at]))
}

/// libfaketime, where Debian keeps it.
fn library() -> PathBuf {
    let places = fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    let found = places.into_iter().find(|place| place.exists());
    found.expect("libfaketime is there: scripts/setup installs package faketime")
}

/// A clock that a test can set while the program runs.
struct Clock {
    file: tempfile::NamedTempFile,
}

impl Clock {
    fn new(offset: &str) -> Clock {
        let clock = Clock { file: tempfile::NamedTempFile::new().unwrap() };
        clock.set(offset);
        clock
    }

    fn set(&self, offset: &str) {
        fs::write(self.file.path(), format!("{offset}\n")).unwrap();
    }

    /// Has a program go by it.
    fn show(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("FAKETIME_TIMESTAMP_FILE", self.file.path());
        command.env("FAKETIME_NO_CACHE", "1").env("NO_FAKE_STAT", "1");
        // Time passes as it does.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    }
}

impl Case {
    fn is_said_in(&self, text: &str) -> bool {
        text.lines().any(|line| {
            told(line).is_some_and(|(minutes, way)| self.minutes.contains(&minutes) && way == self.way)
                && line.contains(", or more") == self.or_more
                && line.contains("Set the clock")
        })
    }

    fn is_told_by(&self, program: &Program) -> bool {
        program.log().lines().any(|line| line.contains("[warn]") && self.is_said_in(line))
            && program.report().clock.is_some_and(|text| self.is_said_in(&text))
    }

    async fn run(&'static self) {
        let network = Network::start(current()).await;
        let clock = Clock::new(self.offset);
        let torrc = "SocksTimeout 5\n";
        let mut program = Program::with(&network, torrc, |command| clock.show(command)).await;
        let start = Instant::now();
        while !self.is_told_by(&program) {
            assert!(start.elapsed() < PATIENCE, "{}: {}", self.offset, program.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let check = program.says(&["check"], |command| clock.show(command));
        let check = String::from_utf8(check.stdout).unwrap();
        assert!(self.is_said_in(&check), "{}: {check}", self.offset);
        if self.works {
            until_fetched(&program, self.offset).await;
        } else {
            let (answer, _) = program.fetch("early").await;
            assert!(matches!(answer, Answer::Refused(_)), "{}: {answer:?}", self.offset);
            assert_eq!(program.report().circuits, 0);
        }

        // Somebody sets it.
        clock.set("+0");
        until_fetched(&program, self.offset).await;
        until("nothing speaks against it", || program.report().clock.is_none().then_some(())).await;
        // And with the right clock from the start.
        program.restart(|_| {}).await;
        until_fetched(&program, self.offset).await;
        assert_eq!(program.report().clock, None);
        program.is_well();
        nothing_has_leaked().await;
    }
}

async fn until_fetched(program: &Program, about: &str) {
    for n in 0..12 {
        let (answer, _) = program.fetch(&format!("{about}{n}")).await;
        if answer == Answer::Whole {
            return;
        }
    }
    panic!("{about}: nothing is fetched\n{}", program.log());
}

#[test]
fn a_wrong_clock_is_explained_and_survived() {
    run(trial::all(CASES.len(), CASES.iter().map(Case::run)));
}
