//! Two ends of a TLS session in memory.

use onionring_node::tls::{Acceptor, Connector, TlsStream, TlsVersions};
use onionring_proto::link::x509::TlsLeaf;
use rand_chacha::ChaCha20Rng;

use crate::rig::{CELL_LEN, UNIX};

/// Cells that fill a TLS record.
pub const CELLS_PER_RECORD: usize = 16 * 1024 / CELL_LEN;

/// A session: the initiator's end, and the responder's.
///
/// # Panics
/// If TLS fails, which it cannot with nobody in between.
pub fn session(rng: &mut ChaCha20Rng) -> [TlsStream; 2] {
    let leaf = TlsLeaf::generate(UNIX, rng).expect("a certificate");
    let acceptor = Acceptor::new(&leaf, TlsVersions::Tls13).expect("an acceptor");
    let connector = Connector::new(TlsVersions::Tls13).expect("a connector");
    let mut ends = [connector.connect(rng).expect("a session"), acceptor.accept().expect("a session")];
    while ends.iter().any(TlsStream::is_handshaking) {
        for [from, to] in [[0, 1], [1, 0]] {
            let ciphertext = transmit(&mut ends[from]);
            ends[to].open(&ciphertext, &mut Vec::new()).expect("a handshake");
        }
    }
    ends
}

/// All that a session has to send.
fn transmit(end: &mut TlsStream) -> Vec<u8> {
    let mut out = Vec::new();
    while end.wants_transmit() {
        end.transmit(&mut out).expect("memory");
    }
    out
}

/// Moves one record from one end to the other, as a link does: seals, hands over, and opens.
pub struct RecordPath {
    ends: [TlsStream; 2],
    plaintext: Vec<u8>,
    ciphertext: Vec<u8>,
}

impl RecordPath {
    /// A session, and a record full of cells for it.
    pub fn new(rng: &mut ChaCha20Rng) -> RecordPath {
        let plaintext = vec![0x5a; CELLS_PER_RECORD * CELL_LEN];
        RecordPath { ends: session(rng), plaintext, ciphertext: Vec::new() }
    }

    /// Seals [`CELLS_PER_RECORD`] cells and opens them.
    ///
    /// # Panics
    /// If TLS fails.
    pub fn record(&mut self) {
        let [initiator, responder] = &mut self.ends;
        initiator.seal(&self.plaintext).expect("a record");
        self.ciphertext.clear();
        while initiator.wants_transmit() {
            initiator.transmit(&mut self.ciphertext).expect("memory");
        }
        self.plaintext.clear();
        responder.open(&self.ciphertext, &mut self.plaintext).expect("a record");
    }
}
