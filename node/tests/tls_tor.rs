//! TLS against the ORPort of the installed `tor`.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::Duration;

use onionring_node::tls::{Connector, TlsStream, TlsVersions};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

mod tor;

use tor::Tor;

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
        let mut socket = TcpStream::connect(tor.or_port).unwrap();
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
