//! The proxy as a process.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use onionring_loadgen::traffic::{Socks, SocksError};
use onionring_proxy::control::{self, Report, Request};
use tokio::task::spawn_blocking;

use crate::network::{NAME, Network, content};
use crate::{PATIENCE, Who, allow, until};

/// Words that are in no line of a log unless the program is at fault.
const FAULTS: [&str; 6] = ["panicked", "[err]", "RUST_BACKTRACE", "please report", "mistake", "must not be"];

/// The process; it does not outlive the test.
pub struct Program {
    child: Child,
    home: tempfile::TempDir,
    pub socks: SocketAddr,
    port: u16,
}

/// What an application hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All that it asked for.
    Whole,
    /// That there is nothing, with the code of SOCKS.
    Refused(u8),
    /// The stream was open and ended early.
    Broken,
    /// Other bytes than the server's.
    Forged,
}

impl Program {
    /// Starts it in a network, with these further lines in its torrc, and waits until it listens.
    pub async fn start(network: &Network, more: &str) -> Program {
        Program::with(network, more, |_| {}).await
    }

    /// The same, with a change of how it is called.
    pub async fn with(network: &Network, more: &str, change: impl FnOnce(&mut Command)) -> Program {
        let home = tempfile::tempdir().unwrap();
        let text = format!(
            "TestingTorNetwork 1\n{}DataDirectory {}\nLog info file {}\nSafeLogging 0\nSocksPort 127.0.0.1:auto\n\
             PathsNeededToBuildCircuits 0.25\nLearnCircuitBuildTimeout 0\nCircuitBuildTimeout 10\n{more}",
            network.torrc(),
            home.path().join("data").display(),
            home.path().join("log").display(),
        );
        fs::write(home.path().join("torrc"), text).unwrap();
        let mut command = command(&home);
        change(&mut command);
        let child = spawn(&mut command, &home);
        let mut program = Program { child, home, socks: ([0; 4], 0).into(), port: network.server.port() };
        program.socks = program.listens().await;
        program
    }

    /// Kills it and starts it again, with a change of how it is called.
    pub async fn restart(&mut self, change: impl FnOnce(&mut Command)) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        let mut command = command(&self.home);
        change(&mut command);
        self.child = spawn(&mut command, &self.home);
        self.socks = self.listens().await;
    }

    async fn listens(&mut self) -> SocketAddr {
        let (child, data) = (&mut self.child, self.home.path().join("data"));
        let log = self.home.path().join("log");
        let socks = until("it listens", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "it has ended:\n{}", fs::read_to_string(&log).unwrap_or_default());
            let report = Report::parse(&control::ask(&data, Request::Status).ok()?);
            report.ports_of("SocksPort").next()?.parse().ok()
        });
        let socks = socks.await;
        allow(socks, Who::Anybody);
        socks
    }

    /// How it is, by its own account; it must say so.
    pub fn report(&self) -> Report {
        let answer = control::ask(&self.home.path().join("data"), Request::Status);
        Report::parse(&answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log())))
    }

    /// What one of its commands says.
    pub fn says(&self, words: &[&str], change: impl FnOnce(&mut Command)) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onionring-proxy"));
        command.args(words).arg("-f").arg(self.home.path().join("torrc"));
        change(&mut command);
        command.output().unwrap()
    }

    pub fn log(&self) -> String {
        let said = ["log", "stdout", "stderr"].map(|name| fs::read_to_string(self.home.path().join(name)));
        said.map(Result::unwrap_or_default).concat()
    }

    /// Fetches what the server has, as an application that shares circuits with nobody; how long that took is said too.
    pub async fn fetch(&self, user: &str) -> (Answer, Duration) {
        let (socks, port) = (Socks::new(self.socks).with_user(user).with_patience(PATIENCE), self.port);
        timed(move || {
            let mut stream = socks.connect(NAME, port)?;
            let mut received = Vec::new();
            let read = stream.write_all(b"all\n").and_then(|()| stream.read_to_end(&mut received));
            Ok(match content().strip_prefix(&received[..]) {
                Some([]) if read.is_ok() => Answer::Whole,
                Some(_) => Answer::Broken,
                None => Answer::Forged,
            })
        })
        .await
    }

    /// Looks up the server's name.
    pub async fn resolve(&self, user: &str) -> (Answer, Duration) {
        let socks = Socks::new(self.socks).with_user(user).with_patience(PATIENCE);
        timed(move || socks.resolve(NAME).map(|_| Answer::Whole)).await
    }

    /// Waits until it is at rest, with no more than this open, and says what does not rest.
    pub async fn rests(&self, most_files: usize) {
        let mut before = (self.cpu_ticks(), Instant::now());
        until(&format!("it comes to rest: {} files", self.files().len()), || {
            let (ticks, since) = (self.cpu_ticks() - before.0, before.1.elapsed());
            if since < Duration::from_millis(500) {
                return None;
            }
            before = (self.cpu_ticks(), Instant::now());
            // A tick is a hundredth of a second.
            (ticks * 10 < since.as_millis() as u64 / 5 && self.files().len() <= most_files).then_some(())
        })
        .await;
    }

    /// CPU time that it has used, in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        // User and system time, fields 14 and 15 of proc(5), of which two are before the name's end.
        [fields[11], fields[12]].map(|ticks| ticks.parse::<u64>().unwrap()).iter().sum()
    }

    /// Memory in use, in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Its open files.
    pub fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).collect()
    }

    /// It lives, and has nothing to reproach itself with.
    pub fn is_well(&mut self) {
        let ended = self.child.try_wait().unwrap();
        let log = self.log();
        assert!(ended.is_none(), "it has ended:\n{log}");
        let faults: Vec<&str> =
            log.lines().filter(|line| FAULTS.iter().any(|word| line.contains(word))).collect();
        assert!(faults.is_empty(), "{faults:#?}");
        self.report();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(home: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onionring-proxy"));
    command.arg("-f").arg(home.path().join("torrc"));
    command
}

fn spawn(command: &mut Command, home: &tempfile::TempDir) -> Child {
    let file = |name| Stdio::from(fs::File::create(home.path().join(name)).unwrap());
    command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap()
}

async fn timed(ask: impl FnOnce() -> Result<Answer, SocksError> + Send + 'static) -> (Answer, Duration) {
    let start = Instant::now();
    let answer = spawn_blocking(ask).await.unwrap();
    let answer = answer.unwrap_or_else(|error| match error {
        SocksError::Refused(status) => Answer::Refused(status.0),
        error => panic!("no answer after {:?}: {error}", start.elapsed()),
    });
    (answer, start.elapsed())
}
