//! Relay crypto "tor1": one AES-128-CTR layer and one running SHA-1 per direction and hop (tor-spec 6.1, 6.1.1).
//!
//! Outbound is away from the client. A relay takes one layer off every outbound cell and puts one on every inbound
//! cell; a cell whose digest fits ends here ("recognised"), any other is passed on. Nothing here allocates per cell.

use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Keystream;
use crate::cell::Body;

#[cfg(test)]
mod tests;

/// The field that is zero in plaintext: two bytes that sort out nearly every cell of others without hashing.
const RECOGNIZED: std::ops::Range<usize> = 1..3;

/// The first bytes of the running digest, which is computed with this field as zero.
const DIGEST: std::ops::Range<usize> = 5..9;

/// What a circuit handshake yields for one hop (tor-spec 5.2). "f" is outbound, "b" inbound.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial {
    /// Seed of the outbound digest.
    pub df: [u8; 20],
    /// Seed of the inbound digest.
    pub db: [u8; 20],
    /// Outbound AES-128 key.
    pub kf: [u8; 16],
    /// Inbound AES-128 key.
    pub kb: [u8; 16],
    /// The circuit nonce; only ESTABLISH_INTRO binds to it (rend-spec-v3 3.1.1).
    pub kh: [u8; 20],
}

impl KeyMaterial {
    /// Bytes that a key derivation function must give.
    pub const LEN: usize = 92;

    /// Order of ntor and ntor-v3: Df, Db, Kf, Kb, KH.
    pub(crate) fn from_kh_last(bytes: &[u8; Self::LEN]) -> Self {
        let [mut df, mut db, mut kh] = [[0; 20]; 3];
        let [mut kf, mut kb] = [[0; 16]; 2];
        df.copy_from_slice(&bytes[..20]);
        db.copy_from_slice(&bytes[20..40]);
        kf.copy_from_slice(&bytes[40..56]);
        kb.copy_from_slice(&bytes[56..72]);
        kh.copy_from_slice(&bytes[72..]);
        Self { df, db, kf, kb, kh }
    }

    /// Order of CREATE_FAST and TAP: KH, Df, Db, Kf, Kb.
    pub(crate) fn from_kh_first(bytes: &[u8; Self::LEN]) -> Self {
        let mut rotated = zeroize::Zeroizing::new(*bytes);
        rotated.rotate_left(20);
        Self::from_kh_last(&rotated)
    }
}

/// The running digest after a recognised or originated cell: what an authenticated SENDME quotes (proposal 289).
///
/// Comparison takes constant time.
#[derive(Clone, Copy, Debug)]
pub struct SendmeTag(pub [u8; 20]);

impl PartialEq for SendmeTag {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SendmeTag {}

/// One direction of one layer.
struct Half {
    keystream: Keystream,
    digest: Sha1,
}

impl Half {
    fn new(key: &[u8; 16], seed: &[u8; 20]) -> Self {
        Self { keystream: Keystream::new(key), digest: Sha1::new_with_prefix(seed) }
    }

    /// Fills in the digest of a cell that starts its way here; the caller encrypts afterwards.
    fn sign(&mut self, body: &mut Body) -> SendmeTag {
        debug_assert_eq!(body[RECOGNIZED], [0, 0], "a cell that nobody would recognise");
        body[DIGEST].fill(0);
        self.digest.update(&body[..]);
        let tag = SendmeTag(self.digest.clone().finalize().into());
        body[DIGEST].copy_from_slice(&tag.0[..4]);
        tag
    }

    /// Whether the decrypted cell is for this hop. A cell that is not leaves body and digest as they were.
    fn recognise(&mut self, body: &mut Body) -> Option<SendmeTag> {
        if body[RECOGNIZED] != [0, 0] {
            return None;
        }
        let mut field = [0; 4];
        field.copy_from_slice(&body[DIGEST]);
        body[DIGEST].fill(0);
        let mut digest = self.digest.clone();
        digest.update(&body[..]);
        let tag = SendmeTag(digest.clone().finalize().into());
        body[DIGEST].copy_from_slice(&field);
        if !bool::from(field[..].ct_eq(&tag.0[..4])) {
            return None;
        }
        self.digest = digest;
        Some(tag)
    }
}

/// The layer of one circuit at a relay.
pub struct RelayLayer {
    outbound: Half,
    inbound: Half,
}

impl RelayLayer {
    /// A fresh layer, as it is after the handshake.
    pub fn new(keys: &KeyMaterial) -> Self {
        Self { outbound: Half::new(&keys.kf, &keys.df), inbound: Half::new(&keys.kb, &keys.db) }
    }

    /// Takes this relay's layer off a cell from the client's side. `Some` if the cell is for this relay: `body` is
    /// plaintext then. Otherwise `body` is what goes to the next hop.
    pub fn decrypt_outbound(&mut self, body: &mut Body) -> Option<SendmeTag> {
        self.outbound.keystream.apply(body);
        self.outbound.recognise(body)
    }

    /// Puts this relay's layer on a cell that passes towards the client.
    pub fn encrypt_inbound(&mut self, body: &mut Body) {
        self.inbound.keystream.apply(body);
    }

    /// Makes a plaintext cell of this relay (recognized and digest zero) ready to go towards the client.
    pub fn originate_inbound(&mut self, body: &mut Body) -> SendmeTag {
        let tag = self.inbound.sign(body);
        self.inbound.keystream.apply(body);
        tag
    }
}

/// All layers of one circuit at the client, the first hop first.
#[derive(Default)]
pub struct ClientOnion {
    hops: Vec<RelayLayer>,
}

impl ClientOnion {
    /// A circuit without a hop.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the hop that a handshake was just completed with, as the farthest.
    pub fn push_hop(&mut self, keys: &KeyMaterial) {
        self.hops.push(RelayLayer::new(keys));
    }

    /// Forgets the hops behind the first `count`, after TRUNCATED.
    pub fn truncate_hops(&mut self, count: usize) {
        self.hops.truncate(count);
    }

    /// Number of hops.
    pub fn hops(&self) -> usize {
        self.hops.len()
    }

    /// Makes a plaintext cell (recognized and digest zero) ready to go to hop number `hop`, counted from 0.
    ///
    /// # Panics
    /// If there is no such hop.
    pub fn encrypt_outbound(&mut self, hop: usize, body: &mut Body) -> SendmeTag {
        let tag = self.hops[hop].outbound.sign(body);
        for layer in self.hops[..=hop].iter_mut().rev() {
            layer.outbound.keystream.apply(body);
        }
        tag
    }

    /// Takes the layers off a cell until a hop recognises it as its own: that hop, counted from 0, sent it
    /// ("leaky pipe"). `None` if no hop did; the circuit cannot go on then.
    pub fn decrypt_inbound(&mut self, body: &mut Body) -> Option<(usize, SendmeTag)> {
        self.hops.iter_mut().enumerate().find_map(|(hop, layer)| {
            layer.inbound.keystream.apply(body);
            layer.inbound.recognise(body).map(|tag| (hop, tag))
        })
    }
}
