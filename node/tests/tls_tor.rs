//! TLS against the ORPort of the installed `tor`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use onionring_node::tls::{Connector, TlsStream, TlsVersions};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// A stock relay that talks to nobody: its only authority is a closed port on loopback.
struct Tor {
    child: Child,
    or_port: String,
    _directory: tempfile::TempDir,
}

impl Tor {
    fn start() -> Tor {
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
        let mut tor = Tor { child, or_port: String::new(), _directory: directory };
        let mut lines = BufReader::new(tor.child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut log = Vec::new();
        while let Some(line) = lines.next() {
            if let Some((_, port)) = line.split_once("Opened OR listener connection (ready) on ") {
                tor.or_port = port.trim().to_owned();
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

/// Sends what the session has, then reads once.
fn exchange(socket: &mut TcpStream, tls: &mut TlsStream, plaintext: &mut Vec<u8>) {
    while tls.wants_transmit() {
        tls.transmit(socket).unwrap();
    }
    let mut buf = [0; 4096];
    let len = socket.read(&mut buf).unwrap();
    assert_ne!(len, 0, "tor closed the connection");
    tls.open(&buf[..len], plaintext).unwrap();
}

#[test]
fn stock_tor_answers_our_versions_cell_in_both_tls_versions() {
    let tor = Tor::start();
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let mut socket = TcpStream::connect(&tor.or_port).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let connector = Connector::new(versions).unwrap();
        let mut tls = connector.connect(&mut StdRng::seed_from_u64(1)).unwrap();
        let mut plaintext = Vec::new();
        while tls.is_handshaking() {
            exchange(&mut socket, &mut tls, &mut plaintext);
        }
        assert!(tls.peer_certificate().is_some());
        tls.export_keying_material(b"EXPORTER FOR TOR TLS CLIENT BINDING AUTH0003", &[0; 32], &mut [0; 32])
            .unwrap();

        // VERSIONS with 3, 4 and 5; the answer is VERSIONS too.
        tls.seal(&[0, 0, 7, 0, 6, 0, 3, 0, 4, 0, 5]).unwrap();
        while plaintext.len() < 5 {
            exchange(&mut socket, &mut tls, &mut plaintext);
        }
        assert_eq!(plaintext[..3], [0, 0, 7]);
    }
}
