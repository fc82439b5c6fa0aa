//! One node: a process with its address, ports, directory and identity.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use onionring_proto::netdoc::text::Fingerprint;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::block::Block;
use super::control::{Control, ControlError};
use super::process::{Process, Usage};
use super::spec::{Kind, NodeSpec, Role};
use crate::traffic::Socks;

/// Lines of a node's log that an error quotes.
const LOG_TAIL_LINES: usize = 12;

/// A node of a running network.
pub struct Node {
    nickname: String,
    role: Role,
    kind: Kind,
    program: PathBuf,
    dir: PathBuf,
    address: Ipv4Addr,
    or_port: Option<u16>,
    dir_port: Option<u16>,
    control_port: Option<u16>,
    socks_port: Option<u16>,
    metrics_port: Option<u16>,
    pub(super) fingerprint: String,
    pub(super) v3_identity: Option<Fingerprint>,
    environment: Vec<(String, String)>,
    process: Mutex<Option<Process>>,
}

/// What `net up --json` says about a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its nickname; for clients just a name.
    pub nickname: String,
    /// What it does.
    pub role: Role,
    /// Which implementation it is.
    pub kind: Kind,
    /// The program it runs.
    pub program: PathBuf,
    /// Its process id, if it runs.
    pub pid: Option<u32>,
    /// Its own address.
    pub address: Ipv4Addr,
    /// RSA identity fingerprint in upper-case hex; empty for clients.
    pub fingerprint: String,
    /// Where it takes links.
    pub or: Option<SocketAddr>,
    /// Where it serves the directory over HTTP.
    pub dir: Option<SocketAddr>,
    /// Its control port; the cookie lies in `data_directory`.
    pub control: Option<SocketAddr>,
    /// Its SOCKS port.
    pub socks: Option<SocketAddr>,
    /// Its metrics, as a URL.
    pub metrics: Option<String>,
    /// Its data directory, which also holds `torrc` and `log`.
    pub data_directory: PathBuf,
}

impl Node {
    /// Lays the node out: address, ports and directory. Nothing is started.
    pub(super) fn lay_out(
        spec: &NodeSpec,
        program: PathBuf,
        address: Ipv4Addr,
        network: &Path,
    ) -> io::Result<Node> {
        let port = |wanted: bool, preferred| wanted.then(|| Block::free_port(address, preferred)).transpose();
        let client = spec.role == Role::Client;
        let dir = network.join(spec.nickname());
        fs::create_dir_all(dir.join("keys"))?;
        for private in [&dir, &dir.join("keys")] {
            fs::set_permissions(private, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        }
        Ok(Node {
            nickname: spec.nickname().to_owned(),
            role: spec.role,
            kind: spec.kind.clone(),
            program,
            dir,
            address,
            or_port: port(!client, 9001)?,
            dir_port: port(spec.dir_port, 9030)?,
            control_port: port(!spec.kind.is_onionring(), 9051)?,
            socks_port: port(client, 9050)?,
            metrics_port: port(!client || spec.kind.is_onionring(), 9035)?,
            fingerprint: String::new(),
            v3_identity: None,
            environment: spec.environment.clone(),
            process: Mutex::new(None),
        })
    }

    /// Its nickname.
    pub fn nickname(&self) -> &str {
        &self.nickname
    }

    /// What it does.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Which implementation it is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The program it runs.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its data directory. `torrc` and `log` are in it too.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its own address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// RSA identity fingerprint, 40 upper-case hex digits; empty for clients.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Fingerprint of the key that its votes are signed under in the end; authorities only.
    pub fn v3_identity(&self) -> Option<Fingerprint> {
        self.v3_identity
    }

    /// Where it takes links; `None` for clients.
    pub fn or_addr(&self) -> Option<SocketAddr> {
        self.at(self.or_port)
    }

    /// Where it serves the directory over HTTP: authorities, and relays that were asked to.
    pub fn dir_addr(&self) -> Option<SocketAddr> {
        self.at(self.dir_port)
    }

    /// Its control port; onionring has none.
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.at(self.control_port)
    }

    /// Its SOCKS port; clients only.
    pub fn socks_addr(&self) -> Option<SocketAddr> {
        self.at(self.socks_port)
    }

    /// Its metrics endpoint; all but stock clients.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.at(self.metrics_port)
    }

    fn at(&self, port: Option<u16>) -> Option<SocketAddr> {
        port.map(|port| (self.address, port).into())
    }

    /// A new control connection.
    pub fn control(&self) -> Result<Control, ControlError> {
        let address = self.control_addr().ok_or_else(|| self.lacks("control port"))?;
        Control::connect(address, &self.dir.join("control_auth_cookie"))
    }

    /// A SOCKS client for its port.
    pub fn socks(&self) -> io::Result<Socks> {
        self.socks_addr().map(Socks::new).ok_or_else(|| self.lacks("SOCKS port"))
    }

    fn lacks(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, format!("{} ({}) has no {what}", self.nickname, self.kind))
    }

    /// Everything it has logged, over all its runs.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// The last lines of its log, for an error message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Lines of its log that C tor marks as warnings or errors.
    pub fn warnings(&self) -> Vec<String> {
        let marked = |line: &&str| line.contains("[warn]") || line.contains("[err]");
        self.log().lines().filter(marked).map(str::to_owned).collect()
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(super) fn torrc_path(&self) -> PathBuf {
        self.dir.join("torrc")
    }

    /// Starts it, unless it runs.
    pub fn start(&self) -> io::Result<()> {
        let mut process = self.process();
        if let Some(running) = process.as_mut()
            && running.try_wait()?.is_none()
        {
            return Ok(());
        }
        let torrc = self.torrc_path().display().to_string();
        *process = Some(Process::start(&self.program, &["-f", &torrc], &self.environment, &self.log_path())?);
        Ok(())
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.process().as_mut().map_or(Ok(()), |p| p.signal(signal))
    }

    /// Ends it with SIGTERM, and with SIGKILL when `patience` is over. `None` if it never ran.
    pub fn stop(&self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        self.process().as_mut().map(|p| p.stop(patience)).transpose()
    }

    /// Ends it with SIGKILL. It can be started again, with its keys.
    pub fn kill(&self) -> io::Result<()> {
        self.process().as_mut().map_or(Ok(()), |p| p.kill().map(drop))
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> io::Result<Option<ExitStatus>> {
        self.process().as_mut().map_or(Ok(None), Process::try_wait)
    }

    /// Its process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        let mut process = self.process();
        let process = process.as_mut()?;
        matches!(process.try_wait(), Ok(None)).then(|| process.pid())
    }

    /// CPU time and memory of this run so far.
    pub fn usage(&self) -> io::Result<Usage> {
        self.process().as_ref().ok_or_else(|| self.lacks("process"))?.usage()
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's line in the network's JSON.
    pub fn info(&self) -> NodeInfo {
        NodeInfo {
            nickname: self.nickname.clone(),
            role: self.role,
            kind: self.kind.clone(),
            program: self.program.clone(),
            pid: self.pid(),
            address: self.address,
            fingerprint: self.fingerprint.clone(),
            or: self.or_addr(),
            dir: self.dir_addr(),
            control: self.control_addr(),
            socks: self.socks_addr(),
            metrics: self.metrics_addr().map(|a| format!("http://{a}/metrics")),
            data_directory: self.dir.clone(),
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} at {})", self.nickname, self.kind, self.address)
    }
}
