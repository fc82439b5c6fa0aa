use proptest::prelude::*;

use super::*;

const LIMIT: usize = 64 << 20;

/// Text that compresses about as well as directory documents do.
fn text(lines: usize) -> Vec<u8> {
    (0..lines)
        .flat_map(|n| {
            format!("r relay{n} {:x} 2038-01-01 00:00:00\n", n.wrapping_mul(2_654_435_761)).into_bytes()
        })
        .collect()
}

#[test]
fn names_and_choices_are_c_tors() {
    let accepted = Accepted::from_header("deflate,  x-zstd ,gzip, br, X-TOR-LZMA, x-tor-lzma;q=1");
    assert!(accepted.allows(Encoding::Identity) && accepted.allows(Encoding::Gzip));
    // Letter case and weights make unknown names of known ones.
    assert!(!accepted.allows(Encoding::Lzma));
    assert_eq!(accepted.choose(&Encoding::STORED), Encoding::Zstd);
    assert_eq!(accepted.choose(&Encoding::STREAMED), Encoding::Zstd);
    assert_eq!(Accepted::ALL.choose(&Encoding::STORED), Encoding::Lzma);
    assert_eq!(Accepted::ALL.choose(&Encoding::STREAMED), Encoding::Zstd);
    assert_eq!(Accepted::from_header("gzip, deflate").choose(&Encoding::STORED), Encoding::Deflate);
    assert_eq!(Accepted::from_header("").choose(&Encoding::STORED), Encoding::Identity);
    for encoding in Encoding::ALL {
        assert_eq!(Encoding::from_token(encoding.token()), Some(encoding));
        assert!(Accepted::ALL.allows(encoding));
    }
}

#[test]
fn formats_start_as_they_must() {
    let plain = text(100);
    let start = |encoding| compress(encoding, &plain).unwrap()[..4].to_vec();
    assert_eq!(start(Encoding::Deflate)[0], 0x78);
    assert_eq!(start(Encoding::Gzip)[..3], [0x1f, 0x8b, 8]);
    assert_eq!(start(Encoding::Zstd), [0x28, 0xb5, 0x2f, 0xfd]);
    // lc=3 lp=0 pb=2, then the dictionary: 8 MiB, little endian.
    assert_eq!(compress(Encoding::Lzma, &plain).unwrap()[..5], [0x5d, 0, 0, 0x80, 0]);
}

#[test]
fn long_documents_survive_and_shrink() {
    let plain = text(40_000);
    for encoding in Encoding::ALL {
        let packed = compress(encoding, &plain).unwrap();
        assert!(encoding == Encoding::Identity || packed.len() * 2 < plain.len(), "{encoding}");
        assert_eq!(decompress(encoding, &packed, plain.len()).unwrap(), plain);
        assert_eq!(
            decompress(encoding, &packed, plain.len() - 1),
            Err(DecodeError::TooLarge { max: plain.len() - 1 }),
            "{encoding}"
        );
    }
}

#[test]
fn bombs_are_stopped_early() {
    let bomb = vec![b'a'; 3 * BOMB_SUSPICION];
    for encoding in [Encoding::Deflate, Encoding::Gzip, Encoding::Zstd, Encoding::Lzma] {
        let packed = compress(encoding, &bomb).unwrap();
        match decompress(encoding, &packed, LIMIT) {
            Err(DecodeError::Bomb { written, .. }) => {
                assert!(written <= BOMB_SUSPICION + PIECE, "{encoding}")
            }
            other => panic!("{encoding}: {:?}", other.map(|out| out.len())),
        }
    }
}

#[test]
fn cut_and_lengthened_documents_are_refused() {
    let plain = text(2000);
    for encoding in [Encoding::Deflate, Encoding::Gzip, Encoding::Zstd, Encoding::Lzma] {
        let mut packed = compress(encoding, &plain).unwrap();
        for cut in [0, 1, 10, packed.len() / 2, packed.len() - 1] {
            assert!(
                matches!(
                    decompress(encoding, &packed[..cut], LIMIT),
                    Err(DecodeError::Truncated { read, .. }) if read == cut
                ),
                "{encoding} cut at {cut}"
            );
        }
        packed.push(0);
        assert!(
            matches!(
                decompress(encoding, &packed, LIMIT),
                Err(DecodeError::Corrupt { .. } | DecodeError::Truncated { .. })
            ),
            "{encoding}"
        );
    }
}

#[test]
fn windows_that_would_take_much_memory_are_refused() {
    // A zstd frame header that asks for a window of 1 GiB, and an LZMA header with a dictionary of 1 GiB.
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0, 0];
    assert!(matches!(decompress(Encoding::Zstd, &zstd, LIMIT), Err(DecodeError::Corrupt { .. })));
    let lzma = [&[0x5d, 0, 0, 0, 0x40][..], &[0xff; 8], &[0; 16]].concat();
    assert!(matches!(decompress(Encoding::Lzma, &lzma, LIMIT), Err(DecodeError::Corrupt { .. })));
}

/// As stock authorities send several votes.
#[test]
fn several_documents_one_after_the_other_are_one() {
    for encoding in Encoding::ALL {
        let packed = [compress(encoding, b"one ").unwrap(), compress(encoding, b"two").unwrap()].concat();
        assert_eq!(decompress(encoding, &packed, LIMIT).unwrap(), b"one two", "{encoding}");
        let mut decoder = Decoder::new(encoding, LIMIT).unwrap();
        let mut out = Vec::new();
        packed.iter().for_each(|byte| decoder.push(&[*byte], &mut out).unwrap());
        decoder.finish().unwrap();
        assert_eq!(out, b"one two", "{encoding}");
        if encoding != Encoding::Identity {
            assert!(decompress(encoding, &[&packed[..], b"junk"].concat(), LIMIT).is_err(), "{encoding}");
        }
    }
}

fn encodings() -> impl Strategy<Value = Encoding> {
    prop::sample::select(Encoding::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the pieces in which input and room come, what is decoded is what was encoded.
    #[test]
    fn pieces_do_not_matter(
        encoding in encodings(),
        effort in prop::sample::select(vec![Effort::Stored, Effort::Streamed]),
        plain in prop::collection::vec(prop::sample::select(b"abcdefgh\n".to_vec()), 0..5000),
        piece in 1usize..700,
        room in 1usize..300,
    ) {
        let mut encoder = Encoder::new(encoding, effort).unwrap();
        let (mut packed, mut out) = (Vec::new(), vec![0; room]);
        let mut rest = &plain[..];
        loop {
            let now = rest.len().min(piece);
            let step = encoder.step(&rest[..now], &mut out, now == rest.len()).unwrap();
            rest = &rest[step.read..];
            packed.extend_from_slice(&out[..step.written]);
            if step.finished {
                break;
            }
        }
        prop_assert!(rest.is_empty());
        let mut decoder = Decoder::new(encoding, plain.len()).unwrap();
        let mut unpacked = Vec::new();
        for piece in packed.chunks(piece) {
            decoder.push(piece, &mut unpacked).unwrap();
        }
        decoder.finish().unwrap();
        prop_assert_eq!(unpacked, plain);
    }

    #[test]
    fn arbitrary_bytes_never_panic(encoding in encodings(), bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = decompress(encoding, &bytes, 1 << 20);
    }

    #[test]
    fn damaged_documents_never_panic(
        encoding in encodings(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut packed = compress(encoding, &text(50)).unwrap();
        let at = at.index(packed.len());
        packed[at] = value;
        let _ = decompress(encoding, &packed, 1 << 20);
    }
}
