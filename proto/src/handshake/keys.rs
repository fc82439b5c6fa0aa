//! Onion keys: the medium-term Curve25519 keys that circuit handshakes are made with.

use std::sync::Arc;

use curve25519_dalek::scalar::clamp_integer;
use rand_core::CryptoRng;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::crypto::x25519::{Secret, Shared};

/// An ntor onion key pair, for ntor and ntor-v3 alike. The secret half is zeroized on drop.
#[derive(Clone)]
pub struct OnionKey(Secret);

impl OnionKey {
    /// Makes a new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self::from_secret(&secret)
    }

    /// The key with this secret, which is clamped as C tor keeps it in its key files.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(Secret::new(&clamp_integer(*secret)))
    }

    /// The secret half, for the key file and the descriptor's cross-certificate.
    pub fn secret(&self) -> &[u8; 32] {
        self.0.bytes()
    }

    /// The public half: `ntor-onion-key` of the descriptor, KEYID of a handshake.
    pub fn public(&self) -> &[u8; 32] {
        self.0.public()
    }

    /// The shared secret with `theirs`. It is all zero if `theirs` is a point of low order.
    pub(crate) fn agree(&self, theirs: &[u8; 32]) -> Shared {
        self.0.agree(theirs)
    }
}

/// The onion keys a relay answers with: the current one, and for the grace period after a rotation the one before
/// (dir-spec 2.1.1). Cheap to clone.
#[derive(Clone)]
pub struct OnionKeyRing {
    current: Arc<OnionKey>,
    previous: Option<Arc<OnionKey>>,
    /// Stands in for keys that are not known, so that an answer takes as long and looks as with a known key.
    junk: Arc<OnionKey>,
}

impl OnionKeyRing {
    /// A ring of these keys; built anew whenever they change.
    pub fn new(current: OnionKey, previous: Option<OnionKey>, rng: &mut impl CryptoRng) -> Self {
        Self {
            current: Arc::new(current),
            previous: previous.map(Arc::new),
            junk: Arc::new(OnionKey::generate(rng)),
        }
    }

    /// The key that descriptors name.
    pub fn current(&self) -> &OnionKey {
        &self.current
    }

    /// The key before, while it is still accepted.
    pub fn previous(&self) -> Option<&OnionKey> {
        self.previous.as_deref()
    }

    /// The key with the public half `key_id` and true, or the junk key and false. Which of them it is does not show
    /// in the time this takes.
    pub(crate) fn find(&self, key_id: &[u8; 32]) -> (&OnionKey, Choice) {
        let keys = [&self.current, self.previous.as_ref().unwrap_or(&self.junk), &self.junk];
        let (mut found, mut known) = (2_u8, Choice::from(0));
        for (at, key) in (0_u8..2).zip(keys) {
            let hit = key.public().ct_eq(key_id);
            found.conditional_assign(&at, hit);
            known |= hit;
        }
        (keys[usize::from(found)], known)
    }
}
