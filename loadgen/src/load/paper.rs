//! `paper-2004`: the measurements of the 2004 design paper's section on early experiences, on one machine as there.
//!
//! A file of 60 MB goes over four relays, and directly; so do pages of 55 KB. Of onionring, the whole network is measured:
//! authorities and the client are its own too. With any other relays these are stock tor.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use std::{fmt, io};

use super::error::LoadError;
use super::report::{Failure, Repetition, Report};
use super::run::Progress;
use super::settings::Settings;
use super::standalone::StandaloneSpec;
use super::subject::{Subject, SubjectInfo};
use crate::net::{self, Kind, Network, NetworkSpec, Node, NodeSpec, Paths, Role};
use crate::traffic::{Order, Socks, download_directly};

/// What the paper measured.
pub(super) const THEN: &str = "the paper of 2004 has: 60 MB over four nodes of one machine in 300 s, directly in 210 s, which is 1.43 \
                    times as long; pages of 55 KB in 0.6 s at best, 2.7 s at the median, 5.7 s for 80 % (over the public \
                    network of then)";
const PAGE_BYTES: u64 = 55_000;
/// Pages are small, and quantiles of a few say little.
const PAGES_MIN: u32 = 20;
const RELAYS: [&str; 4] = ["first", "second", "third", "fourth"];
const CLIENT: &str = "client";
const MIB: f64 = 1_048_576.0;
const GIB: f64 = MIB * 1024.0;

/// A private network with four relays of one kind.
pub struct Paper {
    network: Network,
    info: SubjectInfo,
}

type Tell<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

impl Paper {
    /// Boots it.
    pub fn boot(spec: &StandaloneSpec, tell: &mut Tell<'_>) -> Result<Paper, LoadError> {
        let error =
            |why: &dyn fmt::Display| LoadError::Network { kind: spec.kind.clone(), why: why.to_string() };
        // `tor` may be another one than the authorities and the client are.
        let kind = if spec.kind == "onionring" {
            Kind::ONIONRING
        } else {
            Kind::new(format!("under-test-{}", spec.kind))
        };
        let surroundings = if kind.is_onionring() { Kind::ONIONRING } else { Kind::TOR };
        let relay = |n: usize| {
            let role = if n + 1 == RELAYS.len() { Role::Exit } else { Role::Relay };
            let mut node = NodeSpec::new(role, kind.clone()).named(RELAYS[n]);
            node = spec.torrc.iter().fold(node, |node, line| node.torrc(line));
            spec.cpus.iter().fold(node, |node, cpus| node.torrc(&format!("NumCPUs {cpus}")))
        };
        let mut wanted = NetworkSpec::new().add(Role::Authority, surroundings.clone(), 3);
        if !kind.is_onionring() {
            wanted = wanted.program(&kind.to_string(), &spec.program);
        }
        for n in 0..RELAYS.len() {
            wanted = wanted.node(relay(n));
        }
        let mut client = NodeSpec::new(Role::Client, surroundings.clone()).named(CLIENT);
        if surroundings.is_onionring() {
            let [first, second, third, fourth] = RELAYS;
            client = client.pinned(first, &format!("{second},{third}"), fourth).torrc("CircuitLength 4");
        }
        wanted = wanted.node(client);
        let network = wanted.boot_with(&mut |progress| {
            let listed = match progress {
                net::Progress::Consensus { listed, .. } => *listed,
                _ => 0,
            };
            tell(Progress::Booting(listed))
        });
        let network = network.map_err(|e| match e {
            net::BootError::Interrupted => LoadError::Interrupted,
            e => error(&e),
        })?;
        let address: SocketAddr = network.node(RELAYS[0]).or_addr().expect("relays have an ORPort");
        let first = Subject::at(address, None, None, network.node(RELAYS[0]).pid())?;
        let info = SubjectInfo { kind: spec.kind.clone(), ..first.info().clone() };
        Ok(Paper { network, info })
    }

    /// What is known of the first relay.
    pub fn info(&self) -> &SubjectInfo {
        &self.info
    }

    /// Measures; see [`Target::measure`](super::Target::measure).
    pub(super) fn measure(&self, settings: &Settings, tell: &mut Tell<'_>) -> Report {
        let mut report = Report::new(settings.clone(), self.info.clone());
        report.notes.push(THEN.to_owned());
        let failure = self.repeat(settings, &mut report, tell).err();
        let failure = failure.map(|e| match e {
            LoadError::Interrupted => e,
            e => self.ended().unwrap_or(e),
        });
        report.finish(failure.as_ref().map(Failure::from))
    }

    fn repeat(&self, settings: &Settings, report: &mut Report, tell: &mut Tell<'_>) -> Result<(), LoadError> {
        let client = self.network.node(CLIENT);
        // A stock client builds no circuits of four hops by itself.
        let paths = match client.kind().is_onionring() {
            true => None,
            false => Some(Paths::of(client).map_err(|e| self.error(&e))?),
        };
        let path = match &paths {
            Some(paths) => Some(paths.build(&self.relays()).map_err(|e| self.error(&e))?),
            None => None,
        };
        let socks = match &path {
            Some(path) => path.socks(),
            None => client.socks().map_err(|e| self.error(&e))?,
        };
        let stall = Duration::from_secs_f64(settings.stall);
        let (file, downloads) = ((settings.size * MIB) as u64, settings.downloads);
        let relayed = socks.with_patience(stall);
        for n in 1..=settings.repetitions {
            let started = Instant::now();
            let (mut files, mut pages) = (Times::default(), Times::default());
            let mut cpu = 0.0;
            let mut fetch = |bytes, way: Option<&Socks>| self.fetch(bytes, way, stall, n, tell);
            for _ in 0..downloads {
                let before = self.cpu_seconds()?;
                files.relayed.push(fetch(file, Some(&relayed))?);
                cpu += self.cpu_seconds()? - before;
                files.direct.push(fetch(file, None)?);
            }
            for _ in 0..downloads.max(PAGES_MIN) {
                pages.relayed.push(fetch(PAGE_BYTES, Some(&relayed))?);
                pages.direct.push(fetch(PAGE_BYTES, None)?);
            }
            let carried = file as f64 * f64::from(downloads);
            let measures = [
                ("file_mean_seconds", mean(&files.relayed)),
                ("file_direct_mean_seconds", mean(&files.direct)),
                ("file_over_direct_ratio", mean(&files.relayed) / mean(&files.direct)),
                ("page_min_seconds", quantile(&mut pages.relayed, 0.0)),
                ("page_median_seconds", quantile(&mut pages.relayed, 0.5)),
                ("page_p80_seconds", quantile(&mut pages.relayed, 0.8)),
                ("page_direct_median_seconds", quantile(&mut pages.direct, 0.5)),
                ("goodput_bytes_per_second", carried / files.relayed.iter().sum::<f64>()),
                ("cpu_seconds_per_gib", cpu / (carried / GIB)),
            ];
            report.repetitions.push(Repetition {
                seconds: started.elapsed().as_secs_f64(),
                measures: measures.map(|(name, value)| (name.to_owned(), value)).into(),
                loadgen_at_limit: false,
            });
        }
        Ok(())
    }

    /// Downloads so many bytes through the client's port, or directly, and says how many seconds it took. Nothing may
    /// stand still for longer than `stall`.
    fn fetch(
        &self,
        bytes: u64,
        socks: Option<&Socks>,
        stall: Duration,
        repetition: u32,
        tell: &mut Tell<'_>,
    ) -> Result<f64, LoadError> {
        let started = Instant::now();
        let (mut stopped, mut there) = (false, 0);
        let mut moved = |moved: u64| {
            there = moved;
            let per_second = moved as f64 / started.elapsed().as_secs_f64().max(1e-6);
            stopped |= tell(Progress::Measuring { repetition, per_second }).is_break();
            if stopped { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        };
        let seed = rand::random();
        let got = match socks {
            Some(socks) => Order { socks, target: self.network.target(), bytes, seed }.download(&mut moved),
            None => download_directly(self.network.server().address(), bytes, seed, stall, &mut moved),
        };
        match got {
            _ if stopped => Err(LoadError::Interrupted),
            Ok(transfer) => Ok(transfer.elapsed.as_secs_f64()),
            Err(e) if e.is_silence() => {
                let way = if socks.is_some() { "over four relays" } else { "directly" };
                let doing = format!("downloading {way} ({there} of {bytes} bytes are there)");
                Err(LoadError::Stalled { after: stall, doing })
            }
            Err(e) => Err(self.error(&e)),
        }
    }

    fn relays(&self) -> [&Node; RELAYS.len()] {
        RELAYS.map(|name| self.network.node(name))
    }

    /// Of the four relays together.
    fn cpu_seconds(&self) -> Result<f64, LoadError> {
        let used = |node: &Node| node.usage().map(|usage| usage.cpu_seconds).map_err(|e| self.error(&e));
        self.relays().into_iter().map(used).sum()
    }

    /// That one of them has ended, if so.
    fn ended(&self) -> Option<LoadError> {
        let ended = self.relays().into_iter().find(|node| node.pid().is_none())?;
        Some(LoadError::Died(format!(
            "the {} relay; its log ends with:\n{}",
            ended.nickname(),
            ended.log_tail()
        )))
    }

    fn error(&self, why: &dyn fmt::Display) -> LoadError {
        LoadError::Network { kind: self.info.kind.clone(), why: why.to_string() }
    }
}

/// Seconds of downloads.
#[derive(Default)]
struct Times {
    relayed: Vec<f64>,
    direct: Vec<f64>,
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figures.len() as f64
}

/// The least figure that a share `q` of them does not exceed.
fn quantile(figures: &mut [f64], q: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[((figures.len() as f64 * q).ceil() as usize).clamp(1, figures.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut five = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!([0.0, 0.5, 0.8, 1.0].map(|q| quantile(&mut five, q)), [1.0, 3.0, 4.0, 5.0]);
        assert_eq!((quantile(&mut [7.0], 0.5), mean(&five)), (7.0, 3.0));
    }
}
