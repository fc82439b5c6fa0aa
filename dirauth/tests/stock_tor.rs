//! The state that this authority keeps, taken over by the installed `tor` and taken back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use onionring_dirauth::approval::{ApprovedRouters, RelayId};
use onionring_dirauth::files::{self, Journal};
use onionring_dirauth::keypin::{KeyPins, Pin, Pinned};
use onionring_dirauth::shared_random::{SharedRandom, Srv};
use onionring_dirauth::stability::Stability;
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rustix::process::{Pid, Signal, kill_process};

const INTERVAL: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(120);

/// A child process that does not outlive the test.
struct Tor(Child);

impl Drop for Tor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn now() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

fn pin(n: u8) -> Pin {
    Pin { rsa: Fingerprint([n; 20]), ed25519: [n; 32] }
}

/// Makes the keys of an authority, and says its v3 identity.
fn make_keys(directory: &Path) -> Fingerprint {
    std::fs::create_dir(directory.join("keys")).unwrap();
    let mut gencert = Command::new("tor-gencert")
        .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "1"])
        .args(["-i", "authority_identity_key", "-s", "authority_signing_key", "-c", "authority_certificate"])
        .current_dir(directory.join("keys"))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the installed `tor-gencert` starts (Debian package `tor`)");
    gencert.stdin.take().unwrap().write_all(b"test\n").unwrap();
    assert!(gencert.wait().unwrap().success());
    let certificate = std::fs::read_to_string(directory.join("keys/authority_certificate")).unwrap();
    let identity = certificate.lines().find_map(|line| line.strip_prefix("fingerprint "));
    Fingerprint::from_hex(identity.unwrap()).unwrap()
}

/// Starts an authority on the state in `directory` and stops it once it has said all of `awaited`. What it said.
fn run_authority(directory: &Path, v3_identity: Fingerprint, awaited: &[&str]) -> Vec<String> {
    // The authority's own line must name its ports: two that are free now.
    let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [or_port, dir_port] = free.each_ref().map(|listener| listener.local_addr().unwrap().port());
    drop(free);
    let torrc = format!(
        "DataDirectory {}\nTestingTorNetwork 1\nAuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\n\
         Address 127.0.0.1\nORPort 127.0.0.1:{or_port}\nDirPort 127.0.0.1:{dir_port}\nSocksPort 0\nNickname stock\n\
         V3AuthVotingInterval 300\nTestingV3AuthInitialVotingInterval 300\nAssumeReachable 1\nLog info stdout\n\
         DirAuthority stock orport={or_port} v3ident={v3_identity} 127.0.0.1:{dir_port} {}\n",
        directory.display(),
        Fingerprint([1; 20])
    );
    std::fs::write(directory.join("torrc"), torrc).unwrap();
    let child = Command::new("tor")
        .arg("-f")
        .arg(directory.join("torrc"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the installed `tor` starts (Debian package `tor`)");
    let mut tor = Tor(child);
    let (sender, lines) = mpsc::channel();
    let stdout = BufReader::new(tor.0.stdout.take().unwrap());
    // tor exits when nobody reads its log.
    let reader = std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut said: Vec<String> = Vec::new();
    while !awaited.iter().all(|text| said.iter().any(|line| line.contains(text))) {
        let line = lines.recv_timeout(PATIENCE);
        said.push(
            line.unwrap_or_else(|_| panic!("tor did not say all of {awaited:?}:\n{}", said.join("\n"))),
        );
    }
    let pid = Pid::from_raw(i32::try_from(tor.0.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(tor.0.wait().unwrap().success());
    reader.join().unwrap();
    said.extend(lines.try_iter());
    said
}

/// The line with this keyword that follows the line of a relay, without its time.
fn entry<'a>(state: &'a str, relay: &Fingerprint, keyword: &str) -> &'a str {
    let mut lines = state.lines().skip_while(|line| *line != format!("R {relay}")).skip(1);
    let line = lines.find(|line| line.starts_with(keyword)).unwrap();
    line.split(" S=").next().unwrap()
}

#[test]
fn stock_tor_goes_on_with_our_state_and_we_with_its() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let v3_identity = make_keys(directory.path());
    let start = now();

    let mut journal = Journal::open(&path("key-pinning-journal"), start).unwrap();
    for n in 1..=3 {
        journal.append(&pin(n)).unwrap();
    }

    // As written by an authority that stopped an hour ago.
    let stopped = Unix(start.0 - 3600);
    let mut stability = Stability::default();
    let days = |days: u64| Unix(stopped.0 - days * 86_400);
    for n in 1..=3u8 {
        let relay = pin(n).rsa;
        stability.reached(&relay, None, days(20 + u64::from(n)), Duration::ZERO);
        stability.unreachable(&relay, days(10), days(10));
        stability.discount(days(9));
        stability.reached(&relay, None, days(5), Duration::ZERO);
        stability.unreachable(&relay, days(u64::from(n)), days(u64::from(n)));
    }
    stability.discount(stopped);
    let history = stability.write(stopped);
    files::replace(&path("router-stability"), &history).unwrap();

    let mut shared_random = SharedRandom::new(start, INTERVAL);
    let (previous, current) = (Srv { reveals: 2, value: [7; 32] }, Srv { reveals: 3, value: [8; 32] });
    let next = Unix((start.0 / INTERVAL.as_secs() + 1) * INTERVAL.as_secs());
    shared_random.prepare(next, INTERVAL, v3_identity, &[v3_identity], &mut ChaCha8Rng::seed_from_u64(1));
    shared_random.adopt(Some(previous), Some(current));
    files::replace(&path("sr-state"), &shared_random.write()).unwrap();

    let mut routers = ApprovedRouters::default();
    routers.reject(&[RelayId::Rsa(pin(1).rsa)]);
    // Other bytes than those of a key are none for C tor.
    routers.approve(&[RelayId::Ed25519(Ed25519Pair::from_seed(&[1; 32]).public())], None);
    files::replace(&path("approved-routers"), &routers.write()).unwrap();

    let awaited = [
        "Loaded 3 entries from keypin journal. Found 0 corrupt lines (ignored), 0 duplicates (harmless), and 0 conflicts",
        "SR: State loaded successfully",
        "Opened Directory listener",
    ];
    let said = run_authority(directory.path(), v3_identity, &awaited);
    for bad in [
        "Invalid fingerprint",
        "mtbf history file",
        "Couldn't scan",
        "Truncated MTBF",
        "corrupt lines (ignored), 1",
    ] {
        assert!(!said.iter().any(|line| line.contains(bad)), "{bad}");
    }

    let after = files::read(&path("router-stability")).unwrap().unwrap();
    let after = std::str::from_utf8(&after).unwrap();
    assert_ne!(after.lines().nth(1), history.lines().nth(1), "tor has written it anew");
    for n in 1..=3 {
        for keyword in ["+MTBF", "+WFU"] {
            assert_eq!(entry(after, &pin(n).rsa, keyword), entry(&history, &pin(n).rsa, keyword));
        }
    }
    let (theirs, _) = Stability::read(after, now()).unwrap();
    let (ours, _) = Stability::read(&history, stopped).unwrap();
    assert_eq!(theirs.mtbf(&pin(1).rsa, now()), ours.mtbf(&pin(1).rsa, stopped));

    let state = files::read(&path("sr-state")).unwrap().unwrap();
    let theirs = SharedRandom::read(std::str::from_utf8(&state).unwrap(), now(), INTERVAL).unwrap();
    // Should a run end just now, our current value is the previous one of the next.
    let (before, latest) = theirs.values();
    assert!(
        before == Some(current) || (before, latest) == (Some(previous), Some(current)),
        "{before:?} {latest:?}"
    );
    if latest == Some(current) && theirs.phase() == shared_random.phase() {
        assert_eq!(theirs.vote().commits, shared_random.vote().commits);
    }

    let (pins, found) = KeyPins::read(&files::read(&path("key-pinning-journal")).unwrap().unwrap());
    assert_eq!(found.damaged, 0);
    assert!((1..=3).all(|n| pins.check(&pin(n)) == Pinned::Known));
}
