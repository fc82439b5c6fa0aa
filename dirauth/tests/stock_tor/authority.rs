//! An authority of the installed `tor`, alone in its network.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime};

use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;
use rustix::process::{Pid, Signal, kill_process};

/// How often it votes.
pub const INTERVAL: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(120);

pub fn now() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

/// Makes the keys of an authority, and says its v3 identity.
pub fn make_keys(directory: &Path) -> Fingerprint {
    let keys = directory.join("keys");
    std::fs::create_dir(&keys).unwrap();
    let mut gencert = Command::new("tor-gencert")
        .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "1"])
        .args(["-i", "authority_identity_key", "-s", "authority_signing_key", "-c", "authority_certificate"])
        .current_dir(&keys)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the installed `tor-gencert` starts (Debian package `tor`)");
    gencert.stdin.take().unwrap().write_all(b"test\n").unwrap();
    assert!(gencert.wait().unwrap().success());
    let certificate = std::fs::read_to_string(keys.join("authority_certificate")).unwrap();
    let identity = certificate.lines().find_map(|line| line.strip_prefix("fingerprint "));
    Fingerprint::from_hex(identity.unwrap()).unwrap()
}

/// A running authority; it does not outlive the test.
pub struct Authority {
    child: Child,
    dir_port: SocketAddr,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Authority {
    /// Starts one on the state in `directory`, with these further lines in its torrc, and waits until it has said all of
    /// `awaited`.
    pub fn start(directory: &Path, v3_identity: Fingerprint, more: &str, awaited: &[&str]) -> Authority {
        // The authority's own line must name its ports: two that are free now.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [or_port, dir_port] = free.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(free);
        let torrc = format!(
            "DataDirectory {}\nTestingTorNetwork 1\nAuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\n\
             Address 127.0.0.1\nORPort 127.0.0.1:{or_port}\nDirPort 127.0.0.1:{dir_port}\nSocksPort 0\n\
             Nickname stock\nV3AuthVotingInterval 300\nTestingV3AuthInitialVotingInterval 300\nAssumeReachable 1\n\
             Log info stdout\n{more}\
             DirAuthority stock orport={or_port} v3ident={v3_identity} 127.0.0.1:{dir_port} {}\n",
            directory.display(),
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
        let dir_port = SocketAddr::from((Ipv4Addr::LOCALHOST, dir_port));
        let mut authority = Authority { child, dir_port, lines, said: Vec::new() };
        let said = |said: &[String], text: &&str| said.iter().any(|line| line.contains(text));
        while !awaited.iter().all(|text| said(&authority.said, text)) {
            match authority.lines.recv_timeout(PATIENCE) {
                Ok(line) => authority.said.push(line),
                Err(_) => panic!("tor did not say all of {awaited:?}:\n{}", authority.said.join("\n")),
            }
        }
        authority
    }

    /// Stops it, so that it writes its state. All that it said.
    pub fn stop(mut self) -> Vec<String> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let mut said = std::mem::take(&mut self.said);
        // Until the reader has seen the end.
        said.extend(self.lines.iter());
        said
    }

    /// Sends a request to its DirPort, and reads the answer to its end.
    pub fn request(&self, head: &str, body: &str) -> String {
        let mut socket = TcpStream::connect(self.dir_port).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        socket
            .write_all(format!("{head} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())
            .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
