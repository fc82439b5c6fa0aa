//! The program: networks side by side, `status` and `down` from another process, and owners that die.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use onionring_loadgen::net::NetworkInfo;
use onionring_loadgen::net::process::lives;
use onionring_loadgen::traffic::{self, Socks};

const PATIENCE: Duration = Duration::from_secs(150);

/// A directory in which the program keeps its networks, apart from everybody else's.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onionring-loadgen"));
        command.args(arguments.split(' ')).env("TMPDIR", &self.0).current_dir(&self.0);
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts `net up` for a small network whose JSON appears in `NAME.json`.
    fn up(&self, name: &str, extra: &str) -> Up {
        let groups = "--authorities tor:3 --relays tor:2 --exits tor:1 --client tor:1";
        let mut command = self.command(&format!("net up --name {name} --json {name}.json {groups}{extra}"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Up { child, json: self.0.join(format!("{name}.json")) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A running `net up`.
struct Up {
    child: Child,
    json: PathBuf,
}

impl Up {
    fn wait(&mut self) -> NetworkInfo {
        until("the network to be up", || {
            assert_eq!(self.child.try_wait().unwrap(), None, "it ended while booting");
            fs::read(&self.json).ok().and_then(|json| serde_json::from_slice(&json).ok())
        })
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn pids(info: &NetworkInfo) -> Vec<u32> {
    info.nodes.iter().map(|node| node.pid.unwrap()).collect()
}

fn all_gone(pids: &[u32]) {
    until("all nodes to be gone", || pids.iter().all(|pid| !lives(*pid)).then_some(()));
}

#[test]
fn networks_side_by_side_end_in_order_and_by_force() {
    let place = Place::new("sides");
    let (mut orderly, mut killed) = (place.up("orderly", ""), place.up("killed", ""));
    let (orderly_info, killed_info) = (orderly.wait(), killed.wait());
    assert_eq!(orderly_info.nodes.len(), 7);
    let client = orderly_info.nodes.iter().find_map(|node| node.socks).unwrap();
    let target = ("sink.test", orderly_info.server.port());
    traffic::download(&Socks::new(client), target, 100_000).unwrap();

    let status = place.run("net status --output json");
    let listed: Vec<NetworkInfo> = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(listed.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["killed", "orderly"]);
    assert_eq!(place.run("net down").status.code(), Some(3), "two are up and none is named");

    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    all_gone(&pids(&killed_info));
    assert!(killed_info.directory.exists(), "nobody could remove it");

    assert!(pids(&orderly_info).into_iter().all(lives), "the other one is not touched");
    assert_eq!(place.run("net down").status.code(), Some(0));
    assert_eq!(orderly.child.wait().unwrap().code(), Some(0));
    all_gone(&pids(&orderly_info));
    assert!(!orderly_info.directory.exists());
    assert_eq!(place.run("net status").status.code(), Some(3));

    // The next network clears up after the dead one, even if it comes to nothing itself.
    let never = place.run("net up --relays tor --exits tor --authorities none:1 --kind none=/nonexistent");
    assert_eq!(never.status.code(), Some(1), "{never:?}");
    assert!(!killed_info.directory.exists());
}

#[test]
fn a_namespace_has_addresses_of_its_own() {
    let may = Command::new("unshare").args(["--net", "--user", "--map-root-user", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: this system lets nobody make network namespaces");
        return;
    }
    let place = Place::new("netns");
    let demo = place.run("demo --netns --relays tor --size 1");
    let said = String::from_utf8_lossy(&demo.stdout);
    assert_eq!(demo.status.code(), Some(0), "{demo:?}");
    assert!(said.contains("as sent"), "{said}");
    assert!(said.contains("http://198.1"), "{said}");
}

#[test]
fn wrong_usage_is_told() {
    let place = Place::new("usage");
    for (arguments, status, word) in [
        ("net up --relays nonsense:1", 2, "nonsense=PATH"),
        ("net up --relays tor:many", 2, "tor:many"),
        ("net up --relays tor:300", 2, "305"),
        ("net up --relays tor --exits tor --voting-interval 7", 2, "at least 10"),
        ("net down nowhere", 3, "nowhere"),
        ("net status", 3, "no network is up"),
    ] {
        let output = place.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments}: {said}");
        assert!(said.contains(word), "{arguments}: {said}");
    }
}
