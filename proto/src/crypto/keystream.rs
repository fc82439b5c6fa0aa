//! AES in counter mode from a zero counter, the stream cipher of relay cells and handshakes (tor-spec 0.3).
//!
//! The one place that names the implementation: another AES-CTR is swapped in here.

use std::array::from_fn;

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Aes256Enc};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::{Zeroize, ZeroizeOnDrop};

const BLOCK: usize = 16;

/// Blocks made in one call of the cipher: what a relay cell's body needs at most. Where AES has AVX-512, each call costs as
/// much as a dozen blocks, and the general stream cipher on top of it makes two for a body.
const BLOCKS: usize = 32;

/// An endless AES-128-CTR key stream that goes on where the last call stopped. Zeroized on drop.
pub(crate) struct Keystream {
    cipher: Aes128Enc,
    /// The counter of the next block.
    next: u128,
    /// The block last begun, of which the first `used` bytes are spent.
    block: [u8; BLOCK],
    used: usize,
}

impl Keystream {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self { cipher: Aes128Enc::new(key.into()), next: 0, block: [0; BLOCK], used: BLOCK }
    }

    /// XORs the next bytes of the key stream into `data`: both encryption and decryption.
    #[inline]
    pub(crate) fn apply(&mut self, data: &mut [u8]) {
        let (begun, rest) = data.split_at_mut(data.len().min(BLOCK - self.used));
        xor(begun, &self.block[self.used..]);
        self.used += begun.len();
        for piece in rest.chunks_mut(BLOCK * BLOCKS) {
            self.apply_blocks(piece);
        }
    }

    /// The same with no block begun, for up to [`BLOCKS`] blocks.
    fn apply_blocks(&mut self, data: &mut [u8]) {
        // All of them, though the last few may not be needed: a number known here makes it one loop without a branch.
        let mut blocks: [[u8; BLOCK]; BLOCKS] = from_fn(|n| self.next.wrapping_add(n as u128).to_be_bytes());
        let blocks = &mut blocks[..data.len().div_ceil(BLOCK)];
        self.next = self.next.wrapping_add(blocks.len() as u128);
        self.cipher.encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
        xor(data, blocks.as_flattened());
        if let Some(last) = blocks.last() {
            self.block = *last;
            self.used = BLOCK - (blocks.len() * BLOCK - data.len());
        }
    }
}

impl Drop for Keystream {
    fn drop(&mut self) {
        // The cipher sees to itself.
        self.block.zeroize();
    }
}

impl ZeroizeOnDrop for Keystream {}

fn xor(data: &mut [u8], stream: &[u8]) {
    for (byte, stream) in data.iter_mut().zip(stream) {
        *byte ^= stream;
    }
}

/// Encrypts or decrypts one message with AES-256-CTR. The key must not be used for another message.
pub(crate) fn aes256_ctr(key: &[u8; 32], data: &mut [u8]) {
    Ctr128BE::<Aes256Enc>::new(key.into(), &Default::default()).apply_keystream(data);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        /// In pieces of any lengths, it is the stream of the general implementation.
        #[test]
        fn is_counter_mode(key: [u8; 16], lens in prop::collection::vec(0_usize..1100, 0..8)) {
            let mut stream = Keystream::new(&key);
            let mut expected = Ctr128BE::<Aes128Enc>::new(&key.into(), &Default::default());
            for len in lens {
                let (mut ours, mut theirs) = (vec![0x5a; len], vec![0x5a; len]);
                stream.apply(&mut ours);
                expected.apply_keystream(&mut theirs);
                prop_assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    fn aes256_of_zeros() {
        let mut data = [0; 16];
        aes256_ctr(&[0; 32], &mut data);
        assert_eq!(hex::encode(data), "dc95c078a2408989ad48a21492842087");
    }
}
