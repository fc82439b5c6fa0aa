//! The command line, run as a process, beside those of stock tor and its tools.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use onionring_dirauth::keys::{AuthorityKeys, CERTIFICATE, IDENTITY_KEY, SIGNING_KEY};
use onionring_node::lock::DataLock;
use onionring_proto::netdoc::authcert::AuthCert;
use onionring_proto::time::Unix;

const AUTHORITY: &str = "DirAuthority a orport=1 v3ident=0000000000000000000000000000000000000001 127.0.0.1:1 \
                         0000000000000000000000000000000000000002\n";
/// The machine's clock as [`AuthorityKeys::load`] wants it.
fn now() -> Unix {
    Unix(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

fn dirauth(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_onionring-dirauth")).args(words).output().unwrap()
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
    let text = format!(
        "{AUTHORITY}AuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\nContactInfo me\nAddress 192.0.2.1\n\
         ORPort 9001\nDirPort 9030\nNickname authority\nDataDirectory {}\n{lines}",
        data.display()
    );
    let path = directory.path().join("torrc");
    fs::write(&path, text).unwrap();
    (directory, path.display().to_string())
}

#[test]
fn answers_that_need_no_configuration() {
    assert!(stdout(&dirauth(&["--version"])).starts_with("onionring-dirauth 0."));
    let help = dirauth(&["-h"]);
    assert!(help.status.success());
    for word in ["--torrc-file", "--verify-config", "--list-fingerprint", "gencert", "approve", "exit codes"]
    {
        assert!(stdout(&help).contains(word), "{word}");
    }
    let options = dirauth(&["--list-torrc-options"]);
    for option in ["V3AuthVotingInterval", "AuthDirDoubleVotes"] {
        assert!(stdout(&options).lines().any(|line| line == option), "{option}");
    }
}

#[test]
fn configurations_are_verified() {
    let (_directory, path) = torrc("");
    let good = dirauth(&["-f", &path, "--verify-config"]);
    let said = (good.status.code(), stdout(&good));
    assert_eq!(said, (Some(0), "Configuration was valid\n"), "{}", stderr(&good));
    let bad = dirauth(&["-f", &path, "--verify-config", "--AuthDirDoubleVotes", "maybe", "--quiet"]);
    assert_eq!(bad.status.code(), Some(1));
    assert_eq!(
        stderr(&bad),
        "[err] command line: AuthDirDoubleVotes \"maybe\": not one of its words; write one of: alert, exclude, stop\n"
    );
    let relay = dirauth(&["-f", &path, "--verify-config", "--/V3AuthoritativeDirectory", "--quiet"]);
    assert_eq!(relay.status.code(), Some(1));
    assert!(stderr(&relay).contains("write V3AuthoritativeDirectory 1"), "{}", stderr(&relay));
}

#[test]
fn dumps_can_be_read_by_tor_and_by_us() {
    let (directory, path) = torrc("AuthDirReject 192.0.2.0/24\nV3AuthVotingInterval 2 hours\n");
    let dump = dirauth(&["-f", &path, "--dump-config", "short"]);
    assert!(dump.status.success(), "{}", stderr(&dump));
    for line in ["AuthDirReject 192.0.2.0/24", "V3AuthVotingInterval 7200", "Nickname authority"] {
        assert!(stdout(&dump).lines().any(|found| found == line), "{line} in {}", stdout(&dump));
    }
    let again = directory.path().join("again");
    fs::write(&again, stdout(&dump)).unwrap();
    let second = dirauth(&["-f", again.to_str().unwrap(), "--dump-config", "short"]);
    assert_eq!(stdout(&second), stdout(&dump));
    let Ok(tor) = Command::new("tor").args(["-f", again.to_str().unwrap(), "--verify-config"]).output()
    else {
        return eprintln!("no tor is installed: nothing to compare with");
    };
    // It reads the options before it misses the keys.
    let said = stdout(&tor);
    assert!(!said.contains("Unknown option") && !said.contains("Failed to parse"), "{said}");
}

#[test]
fn fingerprints_are_printed_as_tor_does() {
    let (directory, path) = torrc("");
    let ours = dirauth(&["-f", &path, "--list-fingerprint", "--quiet"]);
    assert!(ours.status.success(), "{}", stderr(&ours));
    let fingerprint = fs::read_to_string(directory.path().join("data/fingerprint")).unwrap();
    assert_eq!(stdout(&ours).replace(' ', ""), fingerprint.replace(' ', ""));
    assert_eq!(dirauth(&["-f", &path, "--list-fingerprint", "dsa"]).status.code(), Some(2));
}

/// Runs a program in a directory with this passphrase on its standard input.
fn with_passphrase(program: &str, words: &[&str], home: &Path, passphrase: &str) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(words).args(["--passphrase-fd", "0"]).current_dir(home);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
    // It may end before it reads, on an error.
    let _ = child.stdin.take().unwrap().write_all(format!("{passphrase}\n").as_bytes());
    Some(child.wait_with_output().unwrap())
}

fn gencert(words: &[&str], home: &Path, passphrase: &str) -> Output {
    let words = [&["gencert"], words].concat();
    with_passphrase(env!("CARGO_BIN_EXE_onionring-dirauth"), &words, home, passphrase).unwrap()
}

fn certificate(home: &Path) -> AuthCert {
    AuthCert::parse(&fs::read_to_string(home.join(CERTIFICATE)).unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn keys_and_certificates_are_made_and_renewed() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let none = gencert(&[], home, "secret");
    assert_eq!(none.status.code(), Some(2));
    assert!(stderr(&none).contains("--create-identity-key"), "{}", stderr(&none));
    let short = gencert(&["--create-identity-key"], home, "abc");
    assert!(short.status.code() == Some(2) && !home.join(IDENTITY_KEY).exists(), "{}", stderr(&short));

    let made = gencert(&["--create-identity-key", "-a", "127.0.0.1:7000", "-m", "1"], home, "secret");
    assert!(made.status.success() && stderr(&made).is_empty(), "{}", stderr(&made));
    let first = certificate(home);
    assert!(stdout(&made).starts_with(&format!("v3ident={} expires ", first.identity)), "{}", stdout(&made));
    assert_eq!((first.identity_key.bits(), first.signing_key.bits()), (3072, 2048));
    assert_eq!(first.dir_address, Some("127.0.0.1:7000".parse().unwrap()));
    assert!((28..=31).contains(&((first.expires.0 - first.published.0) / 86_400)));
    let modes = [IDENTITY_KEY, SIGNING_KEY, CERTIFICATE].map(|name| mode(&home.join(name)));
    assert_eq!(modes, [0o400, 0o600, 0o600]);
    let keys = AuthorityKeys::load(home, now()).unwrap();
    assert_eq!(keys.signer.cert, first);

    let twice = gencert(&["--create-identity-key"], home, "secret");
    assert!(stderr(&twice).contains("is there already"), "{}", stderr(&twice));
    let wrong = gencert(&[], home, "other");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("the passphrase is wrong"), "{}", stderr(&wrong));
    assert_eq!(certificate(home), first);

    assert!(gencert(&["--reuse", "-m", "12"], home, "secret").status.success());
    let second = certificate(home);
    assert_eq!((second.identity, second.signing_key_id), (first.identity, first.signing_key_id));
    assert!(second.expires > first.expires && second.dir_address.is_none());
    let renewed = gencert(&["-v"], home, "secret");
    assert!(stderr(&renewed).contains("making a signing key"), "{}", stderr(&renewed));
    let third = certificate(home);
    assert!(third.identity == first.identity && third.signing_key_id != first.signing_key_id);
    AuthorityKeys::load(home, now()).unwrap();
    assert_eq!(gencert(&["-m", "25"], home, "secret").status.code(), Some(1));
}

#[test]
fn tor_gencert_reads_ours_and_we_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let home = |name: &str| {
        let home = directory.path().join(name);
        fs::create_dir(&home).unwrap();
        home
    };
    let (ours, theirs) = (home("ours"), home("theirs"));
    let stock = |words: &[&str], home: &Path| with_passphrase("tor-gencert", words, home, "pass phrase");
    let Some(made) = stock(&["--create-identity-key"], &theirs) else {
        return eprintln!("no tor-gencert is installed: nothing to compare with");
    };
    assert!(made.status.success(), "{}", stderr(&made));
    let first = certificate(&theirs);
    AuthorityKeys::load(&theirs, now()).unwrap();
    // Our new certificate for its two keys, then a new signing key by its identity.
    let reused = gencert(&["--reuse"], &theirs, "pass phrase");
    assert!(reused.status.success(), "{}", stderr(&reused));
    let second = certificate(&theirs);
    assert_eq!((second.identity, second.signing_key_id), (first.identity, first.signing_key_id));
    assert!(gencert(&[], &theirs, "pass phrase").status.success());
    assert_eq!(certificate(&theirs).identity, first.identity);

    assert!(gencert(&["--create-identity-key"], &ours, "pass phrase").status.success());
    let first = certificate(&ours);
    let reused = stock(&["--reuse"], &ours).unwrap();
    assert!(reused.status.success(), "{}", stderr(&reused));
    let second = certificate(&ours);
    assert_eq!((second.identity, second.signing_key_id), (first.identity, first.signing_key_id));
    let renewed = stock(&["-m", "3"], &ours).unwrap();
    assert!(renewed.status.success(), "{}", stderr(&renewed));
    assert_eq!(certificate(&ours).identity, first.identity);
    AuthorityKeys::load(&ours, now()).unwrap();
}

const WAITING: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE \
                       192.0.2.1 2026-11-27 10:00:00 2026-11-27 11:00:00 alice Alice <a@example.com>\n\
                       BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI \
                       192.0.2.2 2026-11-27 09:00:00 2026-11-27 11:00:00 bob\n";

#[test]
fn relays_are_approved_and_rejected() {
    let (directory, path) = torrc("AuthDirListApprovedOnly 1\n");
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    assert_eq!(stdout(&dirauth(&["pending", "-f", &path])), "");
    fs::write(data.join("pending-relays"), WAITING).unwrap();
    let file = data.join("approved-routers");
    fs::write(&file, "# of the old days\n!badexit CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();

    let pending = dirauth(&["pending", "-f", &path]);
    let expected = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB\tbob\t192.0.2.2\t2026-11-27 09:00:00\t\n\
                    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\talice\t192.0.2.1\t2026-11-27 10:00:00\tAlice <a@example.com>\n";
    assert_eq!(stdout(&pending), expected);

    let approved = dirauth(&["approve", "alice", "-f", &path]);
    assert_eq!(approved.status.code(), Some(0), "{}", stderr(&approved));
    let ids = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\tAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(stdout(&approved), format!("approved\t{ids}\n"));
    assert!(stderr(&approved).contains("no authority runs in"), "{}", stderr(&approved));
    let data_option = data.display().to_string();
    let rejected =
        dirauth(&["reject", "DDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD", "--DataDirectory", &data_option]);
    assert_eq!(stdout(&rejected), "rejected\tDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD\n");
    let list = dirauth(&["list", "-f", &path]);
    assert_eq!(
        stdout(&list),
        "badexit\tCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC\t\n\
         approve\tAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\talice\n\
         approve\tAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\talice\n\
         reject\tDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD\t\n"
    );
    assert!(fs::read_to_string(&file).unwrap().starts_with("# of the old days\n"));
    assert_eq!(mode(&file), 0o640);

    let before = fs::read(&file).unwrap();
    let unknown = dirauth(&["approve", "bob", "carol", "-f", &path]);
    assert_eq!((unknown.status.code(), stdout(&unknown)), (Some(2), ""));
    assert!(stderr(&unknown).contains("'carol' is no relay that waits"), "{}", stderr(&unknown));
    assert_eq!(fs::read(&file).unwrap(), before);
    for words in [&["approve"][..], &["list", "x"], &["pending", "--NoSuchOption", "1"]] {
        assert_eq!(dirauth(&[words, &["-f", &path]].concat()).status.code(), Some(1), "{words:?}");
    }
}

/// Set in a child process that stands for a running authority.
const CHILD: &str = "ONIONRING_TEST_DATA_DIRECTORY";

#[test]
fn a_running_authority_is_told() {
    if let Some(data) = std::env::var_os(CHILD) {
        // SIGHUP ends this process, which is how the test knows of it.
        let _lock = DataLock::acquire(Path::new(&data)).unwrap();
        println!("locked");
        std::thread::park();
        return;
    }
    let (directory, path) = torrc("");
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_running_authority_is_told", "--nocapture"])
        .env(CHILD, &data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with("locked")));
    let told = dirauth(&["reject", "DDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD", "-f", &path]);
    assert!(told.status.success(), "{}", stderr(&told));
    let expected = format!("told the authority (process {})", child.id());
    assert!(stderr(&told).contains(&expected), "{}", stderr(&told));
    let ended = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(1));
}
