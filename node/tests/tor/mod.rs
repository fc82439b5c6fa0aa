//! A stock `tor` for tests of single connections.

use std::io::{BufRead as _, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A stock `tor`.
#[allow(dead_code)] // Not every test needs all of it.
pub struct Tor {
    child: Child,
    /// Its ORPort.
    pub or_port: SocketAddr,
    /// Its data directory.
    pub directory: tempfile::TempDir,
}

#[allow(dead_code)] // Nor all kinds.
impl Tor {
    /// A relay that talks to nobody: its only authority is a closed port on loopback.
    pub fn start() -> Tor {
        let torrc = "\
            ORPort 127.0.0.1:auto\nSocksPort 0\nAddress 127.0.0.1\nNickname tlstest\nTestingTorNetwork 1\n\
            AssumeReachable 1\nPublishServerDescriptor 0\nLog notice stdout\n\
            DirAuthority none orport=1 v3ident=1111111111111111111111111111111111111111 127.0.0.1:1 \
            2222222222222222222222222222222222222222\n";
        let (mut tor, mut lines) = Tor::spawn(torrc);
        let mut log = Vec::new();
        while let Some(line) = lines.next() {
            if let Some((_, port)) = line.split_once("Opened OR listener connection (ready) on ") {
                tor.or_port = port.trim().parse().unwrap();
                follow(lines);
                return tor;
            }
            log.push(line);
        }
        panic!("tor did not open its ORPort:\n{}", log.join("\n"));
    }

    /// A client that knows one authority: the relay with this RSA identity and ORPort.
    pub fn client(authority: SocketAddr, rsa_id: &str) -> Tor {
        let torrc = format!(
            "SocksPort 127.0.0.1:auto\nTestingTorNetwork 1\nLog notice stdout\n\
             DirAuthority ours orport={} v3ident=1111111111111111111111111111111111111111 127.0.0.1:1 {rsa_id}\n",
            authority.port()
        );
        let (tor, lines) = Tor::spawn(&torrc);
        follow(lines);
        tor
    }

    fn spawn(torrc: &str) -> (Tor, Log) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("torrc");
        std::fs::write(&file, torrc).unwrap();
        let mut child = Command::new("tor")
            .arg("-f")
            .arg(&file)
            .arg("--DataDirectory")
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the installed `tor` starts (Debian package `tor`)");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Until a relay's port is known, as for clients.
        let or_port = SocketAddr::from(([127, 0, 0, 1], 0));
        (Tor { child, or_port, directory }, lines.map(Result::unwrap))
    }
}

type Log = std::iter::Map<Lines<BufReader<ChildStdout>>, fn(std::io::Result<String>) -> String>;

/// tor exits when nobody reads its log.
fn follow(lines: Log) {
    std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
}

impl Drop for Tor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
