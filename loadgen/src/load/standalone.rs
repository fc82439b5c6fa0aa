//! A relay without a network: started by loadgen, on an address of its own, to be measured.
//!
//! Relays only need a network to be found. One whose only directory authority does not exist, in the mode for test
//! networks, builds circuits for whoever comes. So there is nothing else that uses the CPU beside the relay under test
//! and loadgen.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::error::{LoadError, own};
use crate::net::block::Block;
use crate::net::process::{Process, describe};

/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Lines of its log that an error quotes.
const LOG_TAIL_LINES: usize = 12;
/// The port it gets, unless something on the machine occupies it.
const OR_PORT: u16 = 9001;
/// An address of the relay's block where nobody listens: the directory authority that does not exist.
const AUTHORITY_BYTE: u8 = 250;
/// Its fingerprints.
const NOBODY: &str = "0123456789012345678901234567890123456789";

const NO_EXIT: &str = "ExitRelay 0\nExitPolicy reject *:*\n";
/// Its streams come over links of relays that it has never heard of, and need no resolver.
const EXIT: &str = "ExitRelay 1\nExitPolicy accept *:*\nExitPolicyRejectPrivate 0\nRefuseUnknownExits 0\n\
                    ServerDNSDetectHijacking 0\n";

/// A relay to be started.
#[derive(Clone, Debug)]
pub struct StandaloneSpec {
    /// What it is called in results.
    pub kind: String,
    /// Its program, with C tor's command line.
    pub program: PathBuf,
    /// `NumCPUs`, if set.
    pub cpus: Option<u32>,
    /// Whether it is to be an exit to everywhere.
    pub exit: bool,
    /// More torrc lines.
    pub torrc: Vec<String>,
}

/// A running relay, which ends with this value.
pub struct Standalone {
    // Order matters for dropping: the process first, then its files.
    process: Mutex<Process>,
    directory: TempDir,
    kind: String,
    address: SocketAddr,
    _block: Block,
}

impl Standalone {
    /// Starts it and waits until it listens.
    pub fn start(spec: &StandaloneSpec) -> Result<Standalone, LoadError> {
        let block = Block::claim().map_err(own("claiming an address"))?;
        let ip = block.address(1);
        let port = Block::free_port(ip, OR_PORT).map_err(own("finding a free port"))?;
        let files = "writing the relay's files";
        let directory = tempfile::Builder::new().prefix("onionring-relay-").tempdir().map_err(own(files))?;
        let (data, empty) = (directory.path().join("data"), directory.path().join("empty"));
        fs::create_dir(&data).map_err(own(files))?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&data, private).map_err(own(files))?;
        fs::write(&empty, "").map_err(own(files))?;
        let nobody = block.address(AUTHORITY_BYTE);
        let mut torrc = format!(
            "TestingTorNetwork 1\n\
             DirAuthority nobody orport=9001 no-v2 v3ident={NOBODY} {nobody}:9030 {NOBODY}\n\
             DataDirectory {data}\n\
             Log notice stdout\n\
             Nickname subject\n\
             Address {ip}\n\
             ORPort {ip}:{port} IPv4Only\n\
             SocksPort 0\n\
             AssumeReachable 1\n\
             ExtendAllowPrivateAddresses 1\n\
             GeoIPFile {empty}\n\
             GeoIPv6File {empty}\n\
             ShutdownWaitLength 0\n",
            data = data.display(),
            empty = empty.display(),
        );
        torrc.push_str(if spec.exit { EXIT } else { NO_EXIT });
        let cpus = spec.cpus.map(|cpus| format!("NumCPUs {cpus}"));
        for line in cpus.iter().chain(&spec.torrc) {
            torrc.push_str(line);
            torrc.push('\n');
        }
        let (torrc_path, log) = (directory.path().join("torrc"), directory.path().join("log"));
        fs::write(&torrc_path, torrc).map_err(own(files))?;
        let arguments = ["-f", &torrc_path.display().to_string()];
        let start = |why| LoadError::Start { kind: spec.kind.clone(), why };
        let process =
            Process::start(&spec.program, &arguments, &[], &log).map_err(|e| start(e.to_string()))?;
        let (kind, address) = (spec.kind.clone(), SocketAddr::from((ip, port)));
        let relay = Standalone { process: Mutex::new(process), directory, kind, address, _block: block };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            relay.check().map_err(|e| start(e.to_string()))?;
            if Instant::now() >= deadline {
                return Err(start(format!("it does not listen after {PATIENCE:?}; {}", relay.log_tail())));
            }
            thread::sleep(POLL);
        }
        Ok(relay)
    }

    /// What it is called in results.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Where it takes links.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).pid()
    }

    /// Fails if it has ended.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let status = self.process.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        match status.map_err(own("looking after the relay"))? {
            None => Ok(()),
            Some(status) => Err(LoadError::Died(format!("{}; {}", describe(status), self.log_tail()))),
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.directory.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
        format!("its log ends with:\n{tail}")
    }
}
