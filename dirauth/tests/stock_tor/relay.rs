//! Relays of the installed `tor`, which publish themselves to an authority of ours.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use onionring_proto::netdoc::text::Fingerprint;

/// A running relay; it does not outlive the test.
pub struct Relay {
    child: Child,
    lines: Receiver<String>,
}

impl Relay {
    /// Starts one on the state in `directory`, with these further lines in its torrc. It believes in one authority, whose
    /// DirPort is `dir_port`.
    pub fn start(directory: &Path, dir_port: SocketAddr, more: &str) -> Relay {
        let torrc = format!(
            "DataDirectory {}\nTestingTorNetwork 1\nAddress 127.0.0.1\nORPort 127.0.0.1:auto\nSocksPort 0\n\
             AssumeReachable 1\nLog info stdout\n{more}\
             DirAuthority ours orport=9 v3ident={} {dir_port} {}\n",
            directory.display(),
            Fingerprint([2; 20]),
            Fingerprint([1; 20])
        );
        std::fs::write(directory.join("torrc"), torrc).unwrap();
        let mut child = Command::new("tor")
            .arg("-f")
            .arg(directory.join("torrc"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the installed `tor` starts (Debian package `tor`)");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // tor exits when nobody reads its log.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Relay { child, lines }
    }

    /// What it has said since this was asked last.
    pub fn said(&self) -> String {
        self.lines.try_iter().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
