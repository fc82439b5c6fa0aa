//! The relay under test.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use base64ct::{Base64Unpadded, Encoding as _};
use onionring_proto::link::ExpectedPeer;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use serde::{Deserialize, Serialize};

use super::ask::Ask;
use super::board::Board;
use super::error::{LoadError, own};
use super::gauge::Gauge;
use super::lane::{self, Aim, Core};
use super::onionskin::RelayKeys;
use super::standalone::Standalone;

/// How long a relay may take to open a link and say who it is.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a relay that we started may take until it has made its descriptor.
const DESCRIPTOR_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked.
const RETRY: Duration = Duration::from_millis(250);

/// What is known of the relay under test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectInfo {
    /// What it runs, `relay` if loadgen did not start it.
    pub kind: String,
    /// Where it takes links.
    pub address: SocketAddr,
    /// RSA identity fingerprint in upper-case hex.
    pub fingerprint: String,
    /// Ed25519 identity in base64.
    pub ed25519: String,
    /// What its descriptor says it is.
    pub platform: Option<String>,
    /// Its process, if that is looked at.
    pub pid: Option<u32>,
}

/// A relay to be measured: it has been reached, and said who it is.
pub struct Subject {
    info: SubjectInfo,
    pub(super) aim: Aim,
    pub(super) keys: Result<RelayKeys, String>,
    pub(super) gauge: Option<Gauge>,
    process: Option<Standalone>,
}

impl Subject {
    /// The relay at `address`. With a `descriptor` or `fingerprint` it must be that one. `pid` is its process, if it
    /// runs on this machine.
    pub fn at(
        address: SocketAddr,
        descriptor: Option<&Path>,
        fingerprint: Option<[u8; 20]>,
        pid: Option<u32>,
    ) -> Result<Subject, LoadError> {
        let described = descriptor.map(read_descriptor).transpose()?;
        let expected = ExpectedPeer {
            rsa_id: described.as_ref().map(|d| d.identity.0).or(fingerprint),
            ed_id: described.as_ref().map(|d| d.ed_identity),
        };
        let gauge = pid.map(Gauge::new).transpose()?;
        let asked = ask(Aim { address, expected })?;
        Subject::known("relay", address, described, asked, gauge, None)
    }

    /// A relay that loadgen has started.
    pub fn started(process: Standalone) -> Result<Subject, LoadError> {
        let aim = Aim { address: process.address(), expected: ExpectedPeer::default() };
        let deadline = Instant::now() + DESCRIPTOR_PATIENCE;
        let asked = loop {
            process.check()?;
            let asked = ask(aim)?;
            // Its descriptor is made some time after it listens. Most scenarios do without.
            if asked.descriptor.is_ok() || Instant::now() >= deadline {
                break asked;
            }
            thread::sleep(RETRY);
        };
        let gauge = Gauge::new(process.pid())?;
        let kind = process.kind().to_owned();
        Subject::known(&kind, aim.address, None, asked, Some(gauge), Some(process))
    }

    fn known(
        kind: &str,
        address: SocketAddr,
        described: Option<RouterDesc>,
        asked: Ask,
        gauge: Option<Gauge>,
        process: Option<Standalone>,
    ) -> Result<Subject, LoadError> {
        let no_relay = || LoadError::NoRelay { address, what: "it shows no identity".to_owned() };
        let peer = asked.peer.ok_or_else(no_relay)?;
        let descriptor = described.map_or_else(|| asked.descriptor.map(|d| *d), Ok);
        let info = SubjectInfo {
            kind: kind.to_owned(),
            address,
            fingerprint: peer.rsa_id.iter().map(|b| format!("{b:02X}")).collect(),
            ed25519: Base64Unpadded::encode_string(&peer.ed_id),
            platform: descriptor.as_ref().ok().and_then(|d| d.platform.as_deref().map(str::to_owned)),
            pid: gauge.as_ref().map(Gauge::pid),
        };
        let keys = descriptor.map(|d| RelayKeys {
            rsa_id: peer.rsa_id,
            ed_id: peer.ed_id,
            onion_key: d.ntor_onion_key,
        });
        let expected = ExpectedPeer { rsa_id: Some(peer.rsa_id), ed_id: Some(peer.ed_id) };
        Ok(Subject { info, aim: Aim { address, expected }, keys, gauge, process })
    }

    /// What is known of it.
    pub fn info(&self) -> &SubjectInfo {
        &self.info
    }

    /// Fails if its process has ended.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        match (&self.process, &self.gauge) {
            (Some(process), _) => process.check(),
            (None, Some(gauge)) if !gauge.lives() => {
                Err(LoadError::Died(format!("process {} is gone", gauge.pid())))
            }
            _ => Ok(()),
        }
    }
}

fn read_descriptor(file: &Path) -> Result<RouterDesc, LoadError> {
    let wrong = |why: String| LoadError::Descriptor { file: file.to_owned(), why };
    let text = fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    // As relays keep it: perhaps after lines that begin with `@`.
    let start = text.find("router ").ok_or_else(|| wrong("it has no line `router`".to_owned()))?;
    RouterDesc::parse(&text[start..]).map_err(|e| wrong(e.to_string()))
}

/// Opens a link and asks.
fn ask(aim: Aim) -> Result<Ask, LoadError> {
    let board = Arc::new(Board::default());
    let (done, result) = mpsc::channel();
    let lane = {
        let board = board.clone();
        thread::spawn(move || {
            let mut job = Ask::new();
            let (latencies, _) = mpsc::channel();
            let run = Core::new(aim).and_then(|mut core| lane::run(&mut core, &mut job, &board, &latencies));
            let answer = match run {
                Err(e) if job.peer.is_none() => Err(e),
                // A link that is lost once the identity is known is a relay that does not like to be asked.
                Err(e) => {
                    job.descriptor = Err(e.to_string());
                    Ok(job)
                }
                Ok(()) => Ok(job),
            };
            // The one who asked waits for it.
            let _ = done.send(answer);
        })
    };
    let answer = result.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        board.stop();
        result.recv().unwrap_or_else(|_| Err(own("asking the relay")("the thread has panicked")))
    });
    let _ = lane.join();
    let asked = answer?;
    if asked.peer.is_none() {
        let doing = format!("opening a link to {}", aim.address);
        return Err(LoadError::Stalled { after: PATIENCE, doing });
    }
    Ok(asked)
}
