//! Replays kept inputs of fuzz targets, and mutations of them, without the fuzzer.

use std::fs;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::targets::Target;

/// Mutations of each kept input.
const MUTATIONS: u64 = 200;

/// Bytes that parsers care about.
const INTERESTING: &[u8] =
    &[0, 1, 4, 6, 0x7f, 0x80, 0xf0, 0xff, b' ', b'\n', b'-', b':', b'/', b'"', b'\\', b'$'];

/// Changes an input in one to four places: bytes and bits flipped, parts removed, repeated or cut off.
fn mutate(input: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..1 + rng.next_u32() % 4 {
        let mut below = |n: usize| rng.next_u32() as usize % n.max(1);
        if out.is_empty() {
            out.push(below(256) as u8);
        }
        let at = below(out.len());
        let end = at + below((out.len() - at).min(64));
        match below(6) {
            0 => out[at] ^= 1 << below(8),
            1 => out[at] = INTERESTING[below(INTERESTING.len())],
            2 => drop(out.drain(at..end)),
            3 => out.truncate(at),
            4 => out.insert(at, INTERESTING[below(INTERESTING.len())]),
            _ => {
                let part = out[at..end].to_vec();
                out.splice(at..at, part);
            }
        }
    }
    out
}

/// Hands every target nothing, what lies in the folder of its name in `corpus`, and mutations of that.
pub fn replay(corpus: &Path, targets: &[Target]) {
    for (name, target) in targets {
        target(&[]);
        let files =
            fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("corpus of {name}: {error}"));
        for file in files {
            let path = file.unwrap().path();
            let input = fs::read(&path).unwrap();
            target(&input);
            for seed in 0..MUTATIONS {
                let mutated = mutate(&input, &mut ChaCha8Rng::seed_from_u64(seed));
                if std::panic::catch_unwind(|| target(&mutated)).is_err() {
                    panic!("{name}: mutation {seed} of {}: {mutated:02x?}", path.display());
                }
            }
        }
    }
}
