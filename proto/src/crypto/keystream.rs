//! AES in counter mode from a zero counter, the stream cipher of relay cells and handshakes (tor-spec 0.3).
//!
//! The one place that names the implementation: another AES-CTR is swapped in here.

use aes::{Aes128Enc, Aes256Enc};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};

/// An endless AES-128-CTR key stream that goes on where the last call stopped. Zeroized on drop.
pub(crate) struct Keystream(Ctr128BE<Aes128Enc>);

impl Keystream {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self(Ctr128BE::new(key.into(), &Default::default()))
    }

    /// XORs the next bytes of the key stream into `data`: both encryption and decryption.
    #[inline]
    pub(crate) fn apply(&mut self, data: &mut [u8]) {
        self.0.apply_keystream(data);
    }
}

/// Encrypts or decrypts one message with AES-256-CTR. The key must not be used for another message.
pub(crate) fn aes256_ctr(key: &[u8; 32], data: &mut [u8]) {
    Ctr128BE::<Aes256Enc>::new(key.into(), &Default::default()).apply_keystream(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AES of the counters 0 and 1 under a zero key, as in the test cases of GCM.
    #[test]
    fn continues_in_the_middle_of_a_block() {
        let expected =
            hex::decode("66e94bd4ef8a2c3b884cfa59ca342b2e58e2fccefa7e3061367f1d57a4e7455a").unwrap();
        for cut in 0..=32 {
            let mut data = [0; 32];
            let mut stream = Keystream::new(&[0; 16]);
            let (head, tail) = data.split_at_mut(cut);
            stream.apply(head);
            stream.apply(tail);
            assert_eq!(data[..], expected, "cut at {cut}");
        }
    }

    #[test]
    fn aes256_of_zeros() {
        let mut data = [0; 16];
        aes256_ctr(&[0; 32], &mut data);
        assert_eq!(hex::encode(data), "dc95c078a2408989ad48a21492842087");
    }
}
