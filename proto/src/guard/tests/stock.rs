//! What stock tor makes of a state file of ours.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::{env, fs, process, thread};

use super::*;
use crate::build_times::{BuildTimeSettings, BuildTimes};
use crate::time::Mono;

/// A stock tor without network, in a directory of its own.
struct Stock {
    process: Child,
    dir: PathBuf,
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Stock {
    /// `None` if there is no tor on this machine.
    fn start(state: &str) -> Option<Stock> {
        let dir = env::temp_dir().join(format!("onionring-stock-state-{}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("state"), state).unwrap();
        let torrc = format!(
            "DataDirectory {0}\nLog notice file {0}/log\nSocksPort 0\nDisableNetwork 1\n",
            dir.display()
        );
        fs::write(dir.join("torrc"), torrc).unwrap();
        let mut tor = Command::new("tor");
        let tor = tor.arg("-f").arg(dir.join("torrc")).arg("--quiet").stdout(Stdio::null());
        Some(Stock { process: tor.spawn().ok()?, dir })
    }

    /// The state file that it leaves behind, and its log.
    fn stop(mut self) -> (String, String) {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        while !read("log").contains("Starting with guard context") {
            assert_eq!(self.process.try_wait().unwrap(), None, "tor ended at once:\n{}", read("log"));
            thread::sleep(Duration::from_millis(20));
        }
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        assert!(self.process.wait().unwrap().success());
        (read("state"), read("log"))
    }
}

#[test]
fn stock_tor_keeps_our_guards_and_build_times() {
    let mut client = Client::ready(1);
    let used = client.lose_primary();
    let n = u16::from_be_bytes([used[0].0[0], used[0].0[1]]);
    client.set(&Net::new((0..200).filter(|other| *other != n), NOW));
    let mut times = BuildTimes::new(&ConsensusParams::default(), &BuildTimeSettings::default());
    times.network_seen(Mono(5));
    (1..=150).for_each(|ms| times.built(Duration::from_millis(7 * ms), false));
    times.closed(Mono(1));
    let mut ours = StateFile::default();
    client.guards.write(&mut ours);
    times.write(&mut ours);

    let Some(tor) = Stock::start(&ours.to_string()) else {
        return eprintln!("no tor is installed: nobody to read what we write");
    };
    let (state, log) = tor.stop();
    let theirs = StateFile::read(&state);
    assert!(ours.values("Guard").count() >= 20);
    for keyword in ["Guard", "TotalBuildTimes", "CircuitBuildAbandonedCount", "CircuitBuildTimeBin"] {
        let of =
            |file: &StateFile| file.values(keyword).map(|(_, value)| value.to_owned()).collect::<Vec<_>>();
        assert_eq!(of(&theirs), of(&ours), "{keyword}; the log:\n{log}");
    }
}
