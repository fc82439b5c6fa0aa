//! Reproducible bytes: both ends know what to expect from a seed and a length.

use std::fmt;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest as _, Sha256};

/// Endless pseudo-random bytes that follow from a seed. They do not compress.
pub struct Pattern(ChaCha8Rng);

impl Pattern {
    /// The bytes of `seed` from the start.
    pub fn new(seed: u64) -> Pattern {
        Pattern(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Fills `buffer` with the next bytes. How the bytes are divided over calls matters to the generator: all but the
    /// last call must ask for a multiple of four.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill_bytes(buffer);
    }
}

/// A SHA-256 digest; shown as hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of everything that was fed to `hash`.
    pub(super) fn of(hash: Sha256) -> Digest {
        Digest(hash.finalize().into())
    }

    /// Of the first `bytes` bytes of `seed`.
    pub fn of_pattern(seed: u64, bytes: u64) -> Digest {
        let mut hash = Sha256::new();
        each_chunk(seed, bytes, |chunk| {
            hash.update(chunk);
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap_or_else(|never| match never {});
        Digest::of(hash)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes that are made and sent at a time.
pub(super) const CHUNK_LEN: usize = 64 * 1024;

/// Calls `each` with the first `bytes` bytes of `seed`, piece by piece.
pub(super) fn each_chunk<E>(
    seed: u64,
    bytes: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut pattern = Pattern::new(seed);
    let mut chunk = vec![0; CHUNK_LEN];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(CHUNK_LEN, |l| l.min(CHUNK_LEN));
        pattern.fill(&mut chunk[..length]);
        each(&chunk[..length])?;
        left -= length as u64;
    }
    Ok(())
}
