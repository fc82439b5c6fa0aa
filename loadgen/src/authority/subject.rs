//! The authority under test: a process on an address of its own, with the keys of the first authority on paper.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use tempfile::TempDir;

use super::http::{self, Answer};
use super::{AuthorityError, Figure, Settings, Step, clock};
use crate::net::block::Block;
use crate::net::process::{Process, Usage, describe};
use crate::synthetic::{Directory, Slot};

/// How long it may take until it listens.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// How often it is asked for something that is to come.
const ASK: Duration = Duration::from_millis(200);
/// It is at rest when it takes no more than so much CPU time in so long.
const REST_SECONDS: f64 = 0.02;
const REST: Duration = Duration::from_millis(600);
/// How long it may be busy after what was waited for is there.
const BUSY: Duration = Duration::from_secs(30);
/// Where files are in memory: what is measured is not the disk. An authority that writes every upload to it before it
/// answers takes longer there, and no more CPU time.
const MEMORY: &str = "/dev/shm";
const LOG_TAIL_LINES: usize = 15;
/// Last byte of the address of clients.
const CLIENT_BYTE: u8 = 200;
const OR_PORT: u16 = 5000;
const DIR_PORT: u16 = 7000;
/// What part of an interval votes, and signatures, have to go round.
const DELAYS_PER_INTERVAL: u32 = 6;

/// A running authority, which ends with this value.
pub(super) struct Subject {
    // Order matters for dropping: the process first, then its files.
    process: Mutex<Process>,
    files: TempDir,
    dir_addr: SocketAddr,
    block: Block,
    timing: Timing,
}

/// When it votes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    interval: Duration,
    delay: Duration,
    /// Seconds after multiples of the interval.
    offset: u64,
}

impl Timing {
    /// So that a period begins now.
    fn new(interval: Duration, now: Unix) -> Timing {
        Timing { interval, delay: interval / DELAYS_PER_INTERVAL, offset: now.0 % interval.as_secs().max(1) }
    }

    /// The slot under way, `number` of them after the first.
    pub(super) fn slot(&self, number: u64, now: Unix) -> Slot {
        let interval = self.interval.as_secs().max(1);
        let since = now.0.saturating_sub(self.offset) % interval;
        let delay = u32::try_from(self.delay.as_secs()).unwrap_or(u32::MAX);
        let valid_after = Unix(now.0 - since + interval);
        Slot { number, published: now, valid_after, interval: self.interval, voting_delay: (delay, delay) }
    }

    /// When votes are made, and when they are counted.
    pub(super) fn instants(&self, slot: &Slot) -> [Unix; 2] {
        [2, 1].map(|delays| Unix(slot.valid_after.0 - delays * self.delay.as_secs()))
    }
}

impl Subject {
    /// Starts it and waits until it listens.
    pub(super) fn start(settings: &Settings, directory: &Directory) -> Result<Subject, AuthorityError> {
        let block = Block::claim()?;
        let mut files = tempfile::Builder::new();
        files.prefix("onionring-authority-");
        let files = match Path::new(MEMORY).is_dir() {
            true => files.tempdir_in(MEMORY)?,
            false => files.tempdir()?,
        };
        let timing = Timing::new(settings.interval, clock());
        let dir_addr = SocketAddr::from((block.address(1), DIR_PORT));
        write_files(files.path(), directory)?;
        let mut torrc = torrc(files.path(), &block, directory, &timing);
        for line in &settings.torrc {
            torrc.push_str(line);
            torrc.push('\n');
        }
        let path = files.path().join("torrc");
        fs::write(&path, torrc)?;
        let (arguments, log) = (["-f", &path.display().to_string()], files.path().join("log"));
        let failed = |why: String| AuthorityError::Start { kind: settings.kind.clone(), why };
        let process = Process::start(&settings.program, &arguments, &[], &log);
        let process = Mutex::new(process.map_err(|error| failed(error.to_string()))?);
        let subject = Subject { process, files, dir_addr, block, timing };
        let deadline = Instant::now() + START;
        while TcpStream::connect(dir_addr).is_err() {
            if let Some(status) = subject.process().try_wait()? {
                return Err(failed(format!("{}\n{}", describe(status), subject.log_tail())));
            }
            if Instant::now() >= deadline {
                return Err(failed(subject.log_tail()));
            }
            thread::sleep(POLL);
        }
        subject.rest();
        Ok(subject)
    }

    /// A directory for a client, where files are in memory.
    pub(super) fn client_home(&self) -> Result<TempDir, AuthorityError> {
        Ok(TempDir::new_in(self.files.path())?)
    }

    /// An address for a client.
    pub(super) fn client_address(&self) -> Ipv4Addr {
        self.block.address(CLIENT_BYTE)
    }

    /// The lines that name all authorities; those that are not there have no weight if it is `for_clients`.
    pub(super) fn authority_lines(&self, directory: &Directory, for_clients: bool) -> String {
        authority_lines(&self.block, directory, for_clients)
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.timing
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Result<Usage, AuthorityError> {
        Ok(self.process().usage()?)
    }

    /// What it takes to do something and come to rest.
    pub(super) fn measured(
        &self,
        step: Step,
        work: impl FnOnce() -> Result<(), AuthorityError>,
    ) -> Result<Figure, AuthorityError> {
        let (before, began) = (self.usage()?, Instant::now());
        work()?;
        let wall_seconds = began.elapsed().as_secs_f64();
        self.rest();
        let after = self.usage()?;
        let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        Ok(Figure { step, cpu_seconds, wall_seconds, rss_max_bytes: after.rss_max_bytes })
    }

    /// Waits until it does nothing any more.
    fn rest(&self) {
        let used = || self.usage().map_or(0.0, |usage| usage.cpu_seconds);
        let (deadline, mut before) = (Instant::now() + BUSY, used());
        loop {
            thread::sleep(REST);
            let now = used();
            if now - before <= REST_SECONDS || Instant::now() >= deadline {
                return;
            }
            before = now;
        }
    }

    /// Posts something that it must take; `from` is the number of the authority that sends it.
    pub(super) fn post(
        &self,
        what: &'static str,
        from: Option<usize>,
        path: &str,
        body: &[u8],
    ) -> Result<(), AuthorityError> {
        self.post_from(what, from.map(|authority| address(&self.block, authority)), path, body)
    }

    /// The same from an address.
    pub(super) fn post_from(
        &self,
        what: &'static str,
        from: Option<Ipv4Addr>,
        path: &str,
        body: &[u8],
    ) -> Result<(), AuthorityError> {
        let answer = http::post(self.dir_addr, from, path, body)?;
        if answer.status == 200 { Ok(()) } else { Err(self.refused(what, &answer)) }
    }

    /// Asks for something, whatever the answer.
    pub(super) fn ask(&self, path: &str, headers: &str) -> Result<Answer, AuthorityError> {
        Ok(http::get(self.dir_addr, path, headers)?)
    }

    /// Waits for a document, until a time.
    pub(super) fn await_document(
        &self,
        what: &'static str,
        path: &str,
        headers: &str,
        until: Unix,
        stop: &dyn Fn() -> bool,
    ) -> Result<String, AuthorityError> {
        loop {
            let answer = self.ask(path, headers)?;
            if answer.status == 200 {
                let text = String::from_utf8(answer.body);
                return text.map_err(|error| AuthorityError::Unreadable(what, error.to_string()));
            }
            if stop() {
                return Err(AuthorityError::Interrupted);
            }
            if clock() >= until {
                return Err(AuthorityError::Late(what, self.log_tail()));
            }
            thread::sleep(ASK);
        }
    }

    pub(super) fn refused(&self, what: &'static str, answer: &Answer) -> AuthorityError {
        let (status, reason) = (answer.status, answer.reason.clone());
        AuthorityError::Refused { what, status, reason, log: self.log_tail() }
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.files.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

/// Where an authority is said to be; nobody listens there but the first.
fn address(block: &Block, authority: usize) -> Ipv4Addr {
    block.address(u8::try_from(authority + 1).unwrap_or(u8::MAX))
}

fn write_files(path: &Path, directory: &Directory) -> Result<(), AuthorityError> {
    let private = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    let (data, keys) = (path.join("data"), path.join("data/keys"));
    fs::create_dir_all(&keys)?;
    private(&data)?;
    private(&keys)?;
    let us = &directory.authorities[0];
    let secrets = [("secret_id_key", us.relay.to_pem()), ("authority_signing_key", us.signing.to_pem())];
    for (name, pem) in secrets {
        fs::write(keys.join(name), pem.as_bytes())?;
        fs::set_permissions(keys.join(name), fs::Permissions::from_mode(0o600))?;
    }
    fs::write(keys.join("authority_certificate"), us.certificate.text())?;
    fs::write(path.join("empty"), "")?;
    // The first authorities do not measure.
    let measuring = directory.authorities.len() - 1;
    fs::write(path.join("bandwidths"), directory.bandwidth_file(measuring, clock()))?;
    Ok(())
}

fn torrc(path: &Path, block: &Block, directory: &Directory, timing: &Timing) -> String {
    let (ip, at) = (block.address(1), path.display());
    let (interval, delay) = (timing.interval.as_secs(), timing.delay.as_secs());
    let torrc = format!(
        "TestingTorNetwork 1\nDataDirectory {at}/data\nNickname {}\nContactInfo nobody\nLog notice stdout\n\
         AuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\nAddress {ip}\n\
         ORPort {ip}:{OR_PORT} IPv4Only\nDirPort {ip}:{DIR_PORT} IPv4Only\n\
         V3AuthVotingInterval {interval}\nV3AuthVoteDelay {delay}\nV3AuthDistDelay {delay}\n\
         TestingV3AuthInitialVotingInterval {interval}\nTestingV3AuthInitialVoteDelay {delay}\n\
         TestingV3AuthInitialDistDelay {delay}\nTestingV3AuthVotingStartOffset {}\n\
         V3BandwidthsFile {at}/bandwidths\nConsensusParams circwindow=1000 bwweightscale=10000\n\
         AuthDirTestReachability 0\n",
        directory.authorities[0].nickname, timing.offset,
    );
    torrc + &authority_lines(block, directory, false)
}

fn authority_lines(block: &Block, directory: &Directory, for_clients: bool) -> String {
    let line = |(n, authority): (usize, &crate::synthetic::Authority)| {
        let (ip, identity) = (address(block, n), authority.identity());
        let relay = Fingerprint(authority.relay.public().rsa_id());
        let name = &authority.nickname;
        let weight = if for_clients && n > 0 { "weight=0 " } else { "" };
        format!("DirAuthority {name} orport={OR_PORT} {weight}v3ident={identity} {ip}:{DIR_PORT} {relay}\n")
    };
    directory.authorities.iter().enumerate().map(line).collect()
}
