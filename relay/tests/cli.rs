//! The command line, run as a process, beside that of stock tor.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const AUTHORITY: &str = "DirAuthority a orport=1 v3ident=0000000000000000000000000000000000000001 127.0.0.1:1 \
                         0000000000000000000000000000000000000002\n";

fn relay(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_onionring-relay")).args(words).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A directory with a torrc for a data directory in it, and the name of that torrc.
fn torrc(lines: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let text = format!("{AUTHORITY}ORPort 9001\nNickname relay\nDataDirectory {}\n{lines}", data.display());
    let path = directory.path().join("torrc");
    fs::write(&path, text).unwrap();
    (directory, path.display().to_string())
}

#[test]
fn answers_that_need_no_configuration() {
    assert!(stdout(&relay(&["--version"])).starts_with("onionring-relay 0."));
    let help = relay(&["-h"]);
    assert!(help.status.success());
    for word in [
        "--torrc-file",
        "--defaults-torrc",
        "--verify-config",
        "--dump-config",
        "--list-fingerprint",
        "exit codes",
    ] {
        assert!(stdout(&help).contains(word), "{word}");
    }
    assert!(stdout(&relay(&["--list-torrc-options"])).lines().any(|line| line == "ORPort"));
}

#[test]
fn configurations_are_verified() {
    let (_directory, path) = torrc("");
    let good = relay(&["-f", &path, "--verify-config"]);
    assert_eq!(
        (good.status.code(), stdout(&good)),
        (Some(0), "Configuration was valid\n"),
        "{}",
        stderr(&good)
    );
    let hushed = relay(&["-f", &path, "--verify-config", "--hush"]);
    assert_eq!((hushed.status.code(), stdout(&hushed)), (Some(0), ""));
    let bad = relay(&["-f", &path, "--verify-config", "--Nickname", "a b", "--ORPrt", "1", "--quiet"]);
    assert_eq!(bad.status.code(), Some(1));
    assert_eq!(
        stderr(&bad),
        "[err] command line: ORPrt: no such option; did you mean ORPort?\n\
         [err] command line: Nickname \"a b\": not a nickname; use 1 to 19 letters and digits, without accents\n"
    );
    let missing = relay(&["-f", "/nonexistent", "--verify-config"]);
    assert!(stderr(&missing).contains("cannot read /nonexistent"), "{}", stderr(&missing));
}

#[test]
fn without_authorities_the_relay_says_what_to_add() {
    let output = relay(&["-f", "/dev/null", "--defaults-torrc", "/dev/null", "--ORPort", "9001"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("DirAuthority: there is none"), "{}", stderr(&output));
}

#[test]
fn the_torrc_can_come_from_standard_input() {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_onionring-relay"))
        .args(["-f", "-", "--verify-config"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{AUTHORITY}ORPort 9001\n").as_bytes()).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
}

#[test]
fn dumps_can_be_read_by_tor_and_by_us() {
    let (directory, path) =
        torrc("ContactInfo a # comment\nExitPolicy reject *:25\nExitPolicy accept *:*\nExitRelay 1\n");
    let dump = relay(&["-f", &path, "--dump-config", "short"]);
    assert!(dump.status.success(), "{}", stderr(&dump));
    assert!(stdout(&dump).contains("ContactInfo a\n"), "{}", stdout(&dump));
    for line in ["ExitPolicy reject *:25", "ExitPolicy accept *:*", "ORPort 9001", "Nickname relay"] {
        assert!(stdout(&dump).lines().any(|found| found == line), "{line}");
    }
    let again = directory.path().join("again");
    fs::write(&again, stdout(&dump)).unwrap();
    let second = relay(&["-f", again.to_str().unwrap(), "--dump-config", "short"]);
    assert_eq!(stdout(&second), stdout(&dump));
    if let Ok(tor) = Command::new("tor").args(["-f", again.to_str().unwrap(), "--verify-config"]).output() {
        assert!(tor.status.success(), "{}", stdout(&tor));
    }
    assert_eq!(relay(&["-f", &path, "--dump-config"]).status.code(), Some(1));
}

#[test]
fn fingerprints_are_printed_as_tor_does() {
    let (directory, path) = torrc("");
    let ours = relay(&["-f", &path, "--list-fingerprint", "--quiet"]);
    assert!(ours.status.success(), "{}", stderr(&ours));
    let ed = relay(&["-f", &path, "--list-fingerprint", "ed25519", "--quiet"]);
    assert!(directory.path().join("data/keys/secret_id_key").exists());
    assert_eq!(relay(&["-f", &path, "--list-fingerprint", "dsa"]).status.code(), Some(2));
    let tor =
        |key: &str| Command::new("tor").args(["-f", &path, "--list-fingerprint", key, "--quiet"]).output();
    let Ok(theirs) = tor("rsa") else { return eprintln!("no tor is installed: nothing to compare with") };
    assert_eq!(stdout(&ours), stdout(&theirs));
    assert_eq!(stdout(&ed), stdout(&tor("ed25519").unwrap()));
}

#[test]
fn the_command_line_of_debians_unit_is_taken() {
    let unit = "/lib/systemd/system/tor@default.service";
    let Ok(unit) = fs::read_to_string(unit) else { return eprintln!("Debian's tor is not installed") };
    let (_directory, path) = torrc("");
    let verify = unit.lines().filter_map(|line| line.strip_prefix("ExecStartPre=/usr/bin/tor "));
    let words: Vec<&str> = verify.flat_map(str::split_ascii_whitespace).collect();
    assert!(words.contains(&"--verify-config"), "the unit has changed: {words:?}");
    let words: Vec<&str> =
        words.iter().map(|&word| if word == "/etc/tor/torrc" { &path } else { word }).collect();
    let output = relay(&words);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("[warn] ControlSocket"), "{}", stderr(&output));
}

#[test]
fn damaged_keys_are_named_and_kept() {
    let (directory, path) = torrc("");
    assert!(relay(&["-f", &path, "--list-fingerprint"]).status.success());
    let key = directory.path().join("data/keys/ed25519_signing_secret_key");
    fs::write(&key, "").unwrap();
    let output = relay(&["-f", &path, "--list-fingerprint"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("ed25519_signing_secret_key is empty; restore it from a backup"));
    assert_eq!(fs::read(Path::new(&key)).unwrap(), b"");
}
