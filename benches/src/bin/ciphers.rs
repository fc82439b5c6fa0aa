//! The ciphers of relay cells against others, in pairs whose halves take turns, so that what disturbs one disturbs both.
//! Counting instructions would not do: the counter hides the processor's own AES and SHA.

use std::hint::black_box;
use std::time::Instant;

use aes::Aes128Enc;
use aws_lc_rs::cipher::{AES_128, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use clap::Parser;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use onionring_proto::cell::{BODY_LEN, Body};
use onionring_proto::crypto::tor1::{KeyMaterial, RelayLayer};
use sha1::{Digest as _, Sha1};

/// What relays do with every cell, by the library that they use and by others.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 101)]
    rounds: usize,
    /// Cells of each half of a pair in a round
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    cells: u32,
}

/// Something to do with a cell.
type Work = Box<dyn FnMut(&mut Body)>;

fn main() {
    let arguments = Arguments::parse();
    println!("WORK                     shipped  ns/cell  other    ns/cell  other over shipped");
    let pairs: [(&str, &str, Work, &str, Work); 5] = [
        ("AES-128-CTR, 509 bytes", "aes", layer(), "aws-lc", aws_lc_ctr()),
        ("AES-128-CTR, 509 bytes", "aes", layer(), "aes+ctr", aes_ctr()),
        ("AES-128-CTR, itself", "aes", layer(), "aes", layer()),
        ("SHA-1 with a tag", "sha1", sha1(), "ring", ring_sha1()),
        ("SHA-1 with a tag", "sha1", sha1(), "aws-lc", aws_lc_sha1()),
    ];
    for (work, shipped, mut ours, other, mut theirs) in pairs {
        let rounds: Vec<[f64; 2]> = (0..arguments.rounds)
            .map(|round| {
                // Who goes first changes too.
                if round % 2 == 0 {
                    let first = time(arguments.cells, &mut ours);
                    [first, time(arguments.cells, &mut theirs)]
                } else {
                    let first = time(arguments.cells, &mut theirs);
                    [time(arguments.cells, &mut ours), first]
                }
            })
            .collect();
        let of = |figure: fn(&[f64; 2]) -> f64| median(rounds.iter().map(figure).collect());
        println!(
            "{work:24} {shipped:7} {:8.1}  {other:7} {:8.1}  {:.2}",
            of(|pair| pair[0]),
            of(|pair| pair[1]),
            of(|pair| pair[1] / pair[0])
        );
    }
}

/// Nanoseconds of a cell.
fn time(cells: u32, work: &mut Work) -> f64 {
    let mut body = [0x5a; BODY_LEN];
    let start = Instant::now();
    for _ in 0..cells {
        work(black_box(&mut body));
    }
    start.elapsed().as_nanos() as f64 / f64::from(cells)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// What ships: the layer that a relay puts on a cell which passes, and nothing but the key stream.
fn layer() -> Work {
    let keys = KeyMaterial { df: [1; 20], db: [2; 20], kf: [3; 16], kb: [7; 16], kh: [4; 20] };
    let mut layer = RelayLayer::new(&keys);
    Box::new(move |body| layer.encrypt_inbound(body))
}

/// The general counter mode on top of the same cipher.
fn aes_ctr() -> Work {
    let mut stream = Ctr128BE::<Aes128Enc>::new(&[7; 16].into(), &[0; 16].into());
    Box::new(move |body| stream.apply_keystream(body))
}

/// It cannot work in place, so the copy back belongs to it.
fn aws_lc_ctr() -> Work {
    let key = UnboundCipherKey::new(&AES_128, &[7; 16]).expect("a key");
    let context = EncryptionContext::Iv128(FixedLength::from(&[0; 16]));
    let mut stream = StreamingEncryptingKey::less_safe_ctr(key, context).expect("a stream");
    let mut out = [0; BODY_LEN + 16];
    Box::new(move |body| {
        let written = stream.update(body, &mut out).expect("room").written().len();
        body.copy_from_slice(&out[..written]);
    })
}

/// As `proto::crypto::tor1` does it: a running digest, and a tag of it after every cell.
fn sha1() -> Work {
    let mut digest = Sha1::new_with_prefix([1; 20]);
    Box::new(move |body| {
        digest.update(&body[..]);
        body[..20].copy_from_slice(&digest.clone().finalize());
    })
}

fn ring_sha1() -> Work {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(&[1; 20]);
    Box::new(move |body| {
        digest.update(&body[..]);
        body[..20].copy_from_slice(digest.clone().finish().as_ref());
    })
}

fn aws_lc_sha1() -> Work {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(&[1; 20]);
    Box::new(move |body| {
        digest.update(&body[..]);
        body[..20].copy_from_slice(digest.clone().finish().as_ref());
    })
}
