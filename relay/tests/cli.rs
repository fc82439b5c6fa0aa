//! The command line, run as a process, beside that of stock tor.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};

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

/// A relay that runs, and ends with the test.
struct Running {
    child: std::process::Child,
    log: std::path::PathBuf,
}

impl Running {
    fn start(torrc: &str, log: std::path::PathBuf) -> Running {
        let child = Command::new(env!("CARGO_BIN_EXE_onionring-relay")).args(["-f", torrc]).spawn().unwrap();
        Running { child, log }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the log has a line with `text`.
    fn says(&self, text: &str) {
        let begun = std::time::Instant::now();
        while !fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text)) {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            assert!(begun.elapsed().as_secs() < 60, "{text:?} is not in the log:\n{log}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn signals_do_what_the_help_says() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let torrc = |lines: &str| {
        let (data, log) = (at("data"), at("log"));
        let text = format!(
            "{AUTHORITY}TestingTorNetwork 1\nAddress 127.0.0.1\nNumCPUs 1\nDataDirectory {}\nLog notice file {}\n{lines}",
            data.display(),
            log.display()
        );
        fs::write(at("torrc"), text).unwrap();
        at("torrc").display().to_string()
    };
    let path = torrc("ORPort 127.0.0.1:auto\nNickname one\n");
    let mut relay = Running::start(&path, at("log"));
    relay.says("the ORPort listens on");
    let log = fs::read_to_string(at("log")).unwrap();
    let port = log.lines().find_map(|line| line.split("the ORPort listens on ").nth(1)).unwrap().to_owned();

    relay.signal(Signal::USR2);
    relay.says("everything is logged until");
    torrc("ORPort 127.0.0.1:auto\nNickname two\nNumCPUs 2\nDirPort 9030\nHeartbeatPeriod 1 hour\n");
    relay.signal(Signal::HUP);
    relay.says("the configuration has been read again");
    relay.says("DirPort has changed; the change takes effect when the relay is restarted");
    relay.says("NumCPUs has changed");
    let fingerprint = || fs::read_to_string(at("data").join("fingerprint")).unwrap();
    let begun = std::time::Instant::now();
    while !fingerprint().starts_with("two ") {
        assert!(begun.elapsed().as_secs() < 60, "{}", fingerprint());
    }
    let log = fs::read_to_string(at("log")).unwrap();
    assert!(!log.contains("HeartbeatPeriod has changed") && !log.contains("Nickname has changed"), "{log}");

    // A second relay finds the port taken, which is no fault of the configuration.
    let other = directory.path().join("other");
    let second = Command::new(env!("CARGO_BIN_EXE_onionring-relay"))
        .args(["-f", &path, "--ORPort", &port, "--DataDirectory", other.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(3), "{}", stderr(&second));

    relay.signal(Signal::TERM);
    assert_eq!(relay.child.wait().unwrap().code(), Some(0));
    relay.says("onionring-relay ends");
}
