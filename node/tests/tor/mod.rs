//! A stock `tor` for tests of single connections.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A stock relay that talks to nobody: its only authority is a closed port on loopback.
#[allow(dead_code)] // Not every test needs all of it.
pub struct Tor {
    child: Child,
    /// Its ORPort.
    pub or_port: SocketAddr,
    /// Its data directory.
    pub directory: tempfile::TempDir,
}

impl Tor {
    pub fn start() -> Tor {
        let directory = tempfile::tempdir().unwrap();
        let torrc = "\
            ORPort 127.0.0.1:auto\nSocksPort 0\nAddress 127.0.0.1\nNickname tlstest\nTestingTorNetwork 1\n\
            AssumeReachable 1\nPublishServerDescriptor 0\nLog notice stdout\n\
            DirAuthority none orport=1 v3ident=1111111111111111111111111111111111111111 127.0.0.1:1 \
            2222222222222222222222222222222222222222\n";
        let file = directory.path().join("torrc");
        std::fs::write(&file, torrc).unwrap();
        let child = Command::new("tor")
            .arg("-f")
            .arg(&file)
            .arg("--DataDirectory")
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the installed `tor` starts (Debian package `tor`)");
        // Until its port is known.
        let or_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut tor = Tor { child, or_port, directory };
        let mut lines = BufReader::new(tor.child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut log = Vec::new();
        while let Some(line) = lines.next() {
            if let Some((_, port)) = line.split_once("Opened OR listener connection (ready) on ") {
                tor.or_port = port.trim().parse().unwrap();
                // tor exits when nobody reads its log.
                std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
                return tor;
            }
            log.push(line);
        }
        panic!("tor did not open its ORPort:\n{}", log.join("\n"));
    }
}

impl Drop for Tor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
