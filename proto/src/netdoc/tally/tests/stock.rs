//! Random votes for a stock authority: it must compute what we compute.
//!
//! The network is one stock authority and four that exist only in its configuration. Their votes, which this test makes
//! up and signs, have the majority, so the consensus is about relays that nobody runs. Some of their lines are odd ones. With `ONIONRING_RECORD` naming a
//! directory, each round is written there; that is how the `made-up` recordings of the test data came about.
// It runs a process and reads its files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};
use std::{env, fs, process, thread};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::crypto::rsa::RsaPrivate;
use crate::netdoc::consensus::Lifetime;
use crate::netdoc::vote::{Certificate, Vote};

const ROUNDS: usize = 12;
const MADE_UP: u8 = 4;
const AUTHORITIES: usize = MADE_UP as usize + 1;
/// Seconds between consensuses, more than twice those for votes and for signatures to go round.
const INTERVAL: u64 = 15;
const VOTE_DELAY: u64 = 2;
const DIST_DELAY: u64 = 3;

#[test]
#[ignore = "starts the installed tor and takes minutes: `make soak`"]
fn a_stock_authority_computes_the_same() {
    let stock = Stock::start();
    let seed = now();
    let mut dice = Dice::new(seed);
    let mut seen = BTreeSet::new();
    for round in 0..ROUNDS {
        let at = stock.next_slot();
        let votes: Vec<Vote> = (0..MADE_UP)
            .map(|n| stock.made_up(&mut dice, n, at, METHODS.start() + round as u32 % 4))
            .collect();
        let texts: Vec<String> = votes
            .iter()
            .zip(&stock.keys)
            .map(|(vote, key)| random::sign(random::oddly(&mut dice, &vote.encode()), vote, key))
            .collect();
        texts.iter().for_each(|text| stock.post(text, at));
        let (texts, ns, microdesc) = stock.result(texts, at);
        let signed = votes::parsed(&texts.concat());
        // Which rounds are the first of a run of the shared random protocol only the authority knows.
        let ours = [false, true].map(|fresh| {
            let shared_random = Some(SharedRandomTerms { fresh });
            Tally::of(&signed, &Terms { authorities: AUTHORITIES, shared_random }).unwrap()
        });
        let what = format!("round {round} of seed {seed}");
        let ours = ours.iter().find(|ours| ours.ns.text == votes::unsigned(&ns)).unwrap_or(&ours[0]);
        record(at, &texts.concat(), &ns, &microdesc);
        votes::same_lines(&what, &ours.ns.text, votes::unsigned(&ns));
        votes::same_lines(&what, &ours.microdesc.text, votes::unsigned(&microdesc));
        seen.insert(ours.method);
    }
    assert!(METHODS.eq(seen), "the rounds were to be of all methods");
}

fn record(at: u64, votes: &str, ns: &str, microdesc: &str) {
    let Some(base) = env::var_os("ONIONRING_RECORD") else { return };
    let dir = Path::new(&base).join(at.to_string());
    fs::create_dir_all(&dir).unwrap();
    for (name, text) in [("votes.txt", votes), ("consensus.txt", ns), ("consensus_microdesc.txt", microdesc)]
    {
        fs::write(dir.join(name), text).unwrap();
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The stock authority, and the keys of the others.
struct Stock {
    process: Child,
    dir: PathBuf,
    directory: SocketAddrV4,
    identity: String,
    keys: Vec<RsaPrivate>,
    certificates: Vec<Certificate>,
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Stock {
    fn start() -> Stock {
        let dir = env::temp_dir().join(format!("onionring-stock-votes-{}", process::id()));
        fs::create_dir_all(dir.join("keys")).unwrap();
        let [directory, or] = [free_port(), free_port()];
        let identity = make_keys(&dir.join("keys"), directory);
        let keys: Vec<RsaPrivate> = (0..u64::from(MADE_UP))
            .map(|n| RsaPrivate::generate(2048, &mut ChaCha8Rng::seed_from_u64(n)).unwrap())
            .collect();
        let certificates: Vec<Certificate> =
            keys.iter().map(|key| random::certificate_at(key, Unix(now() - 3600))).collect();
        let basics = format!("DataDirectory {}\nNickname stock\nSocksPort 0\n", dir.display());
        let bare = dir.join("bare");
        fs::write(&bare, format!("{basics}ORPort 9001\n")).unwrap();
        run(Command::new("tor").arg("-f").arg(&bare).args(["--list-fingerprint", "--quiet"]));
        let fingerprint = fs::read_to_string(dir.join("fingerprint")).unwrap();
        let fingerprint = fingerprint.trim().strip_prefix("stock ").unwrap();
        let mut torrc = format!(
            "{basics}TestingTorNetwork 1\nLog notice file {}\nAddress 127.0.0.1\n\
             ORPort {or} IPv4Only\nDirPort {directory}\nAssumeReachable 1\nExitRelay 0\n\
             AuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\nContactInfo stock\n\
             TestingV3AuthInitialVotingInterval {INTERVAL}\nTestingV3AuthInitialVoteDelay {VOTE_DELAY}\n\
             TestingV3AuthInitialDistDelay {DIST_DELAY}\nV3AuthVotingInterval {INTERVAL}\n\
             V3AuthVoteDelay {VOTE_DELAY}\nV3AuthDistDelay {DIST_DELAY}\n\
             DirAuthority stock orport={} no-v2 v3ident={identity} {directory} {fingerprint}\n",
            dir.join("log").display(),
            or.port(),
        );
        for (n, certificate) in certificates.iter().enumerate() {
            // Nobody listens there.
            let (id, relay) = (certificate.cert().identity, Fingerprint([n as u8; 20]));
            torrc += &format!("DirAuthority made{n} orport=1 no-v2 v3ident={id} 127.0.0.1:1 {relay}\n");
        }
        fs::write(dir.join("torrc"), &torrc).unwrap();
        let mut process = Command::new("tor");
        let process = process.arg("-f").arg(dir.join("torrc")).arg("--quiet").spawn().unwrap();
        let mut stock = Stock { process, dir, directory, identity, keys, certificates };
        while TcpStream::connect(directory).is_err() {
            let ended = stock.process.try_wait().unwrap();
            assert_eq!(ended, None, "tor ended at once: see what `tor -f` says of\n{torrc}");
            thread::sleep(Duration::from_millis(100));
        }
        stock
    }

    /// The time of a consensus for which votes can be posted now.
    fn next_slot(&self) -> u64 {
        loop {
            let at = (now() / INTERVAL + 1) * INTERVAL;
            if at - now() > VOTE_DELAY + DIST_DELAY + 1 {
                return at;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The vote of one that knows no method after `newest`.
    fn made_up(&self, dice: &mut Dice, n: u8, at: u64, newest: u32) -> Vote {
        let mut vote = random::vote(dice, n + 1);
        vote.methods = (*METHODS.start()..=newest).collect();
        vote.certificate = self.certificates[usize::from(n)].clone();
        vote.authority.identity = vote.certificate.cert().identity;
        vote.published = Unix(now());
        vote.lifetime = Lifetime {
            valid_after: Unix(at),
            fresh_until: Unix(at + INTERVAL),
            valid_until: Unix(at + 3 * INTERVAL + vote.lifetime.valid_until.0 % 5),
        };
        vote
    }

    /// All votes and both consensuses without signatures, once they are computed.
    fn result(&self, mut texts: Vec<String>, at: u64) -> (Vec<String>, String, String) {
        // Only one flavour is served before it is published, but the authority keeps notes.
        let notes = |flavor| fs::read_to_string(self.dir.join(format!("my-consensus-{flavor}"))).ok();
        let own = format!("/tor/status-vote/next/{}", self.identity);
        let valid_after = format!("\nvalid-after {}\n", crate::netdoc::text::format_time(Unix(at)));
        while now() < at {
            let found = (self.get(&own), notes("ns"), notes("microdesc"));
            if let (Some(vote), Some(ns), Some(microdesc)) = found
                && [&vote, &ns, &microdesc].iter().all(|text| text.contains(&valid_after))
                && [&ns, &microdesc].iter().all(|text| text.contains("\ndirectory-footer\n"))
            {
                texts.push(vote);
                return (texts, ns, microdesc);
            }
            thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        panic!("the stock authority computed no consensus; its log:\n{log}");
    }

    fn get(&self, path: &str) -> Option<String> {
        let (head, body) = self.ask(&format!("GET {path} HTTP/1.0\r\n\r\n"));
        head.contains(" 200 ").then_some(body)
    }

    /// Posts a vote for the consensus of this time. The authority turns to a slot up to a second late, and a new one
    /// takes a little longer.
    fn post(&self, vote: &str, at: u64) {
        let length = vote.len();
        let request = format!("POST /tor/post/vote HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{vote}");
        loop {
            let (head, _) = self.ask(&request);
            if head.contains(" 200 ") {
                return;
            }
            let log = || fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let in_time = now() < at - DIST_DELAY - VOTE_DELAY;
            assert!(in_time && head.contains("Bad valid-after"), "{head}\n{}\n{vote}", log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn ask(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.directory).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (head.to_owned(), body.to_owned())
    }
}

fn free_port() -> SocketAddrV4 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port())
}

/// The keys of an authority; the fingerprint of its identity.
fn make_keys(dir: &Path, directory: SocketAddrV4) -> String {
    let file = |name: &str| dir.join(format!("authority_{name}"));
    let mut gencert = Command::new("tor-gencert");
    gencert.args(["--create-identity-key", "-m", "12", "--passphrase-fd", "0", "-a", &directory.to_string()]);
    gencert.arg("-i").arg(file("identity_key")).arg("-s").arg(file("signing_key"));
    run(gencert.arg("-c").arg(file("certificate")));
    let certificate = fs::read_to_string(file("certificate")).unwrap();
    let fingerprint = certificate.lines().find_map(|line| line.strip_prefix("fingerprint "));
    fingerprint.unwrap().to_owned()
}

fn run(command: &mut Command) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    // A passphrase, for the one that asks for it.
    let _ = child.stdin.take().unwrap().write_all(b"made up\n");
    assert!(child.wait().unwrap().success(), "{command:?}");
}
