//! Key derivation: from what a handshake agreed on to the keys of a hop (tor-spec 5.2).

use hkdf::Hkdf;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use shake::XofReader;
use zeroize::Zeroizing;

use super::tor1::KeyMaterial;

/// KDF-TOR (tor-spec 5.2.1), for CREATE_FAST and TAP: SHA-1 over `secret` and a counter byte.
/// Here KH comes first, before the keys.
pub fn kdf_tor(secret: &[u8]) -> KeyMaterial {
    let mut stream = Zeroizing::new([0; KeyMaterial::LEN]);
    kdf_tor_fill(secret, &mut *stream);
    KeyMaterial::from_kh_first(&stream)
}

/// HKDF-SHA256, expansion only (tor-spec 5.2.2), for ntor: `key_seed` is the handshake's KEY_SEED, `info` its
/// m_expand.
pub fn hkdf_expand(key_seed: &[u8; 32], info: &[u8]) -> KeyMaterial {
    let mut stream = Zeroizing::new([0; KeyMaterial::LEN]);
    hkdf_fill(key_seed, info, &mut *stream);
    KeyMaterial::from_kh_last(&stream)
}

/// The next bytes of an extendable-output function, for ntor-v3 after its encryption key was read (proposal 332).
pub fn xof(stream: &mut impl XofReader) -> KeyMaterial {
    let mut bytes = Zeroizing::new([0; KeyMaterial::LEN]);
    stream.read(&mut *bytes);
    KeyMaterial::from_kh_last(&bytes)
}

fn kdf_tor_fill(secret: &[u8], out: &mut [u8]) {
    for (counter, chunk) in (0u8..).zip(out.chunks_mut(20)) {
        let block = Zeroizing::new(<[u8; 20]>::from(
            Sha1::new().chain_update(secret).chain_update([counter]).finalize(),
        ));
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
}

fn hkdf_fill(key_seed: &[u8; 32], info: &[u8], out: &mut [u8]) {
    // Refused below 32 bytes, and the type says 32.
    let hkdf = Hkdf::<Sha256>::from_prk(key_seed).expect("a PRK as long as the hash is long enough");
    // Refused above 255 blocks; `out` is the keys of one hop, which have a fixed length of under 256 bytes.
    hkdf.expand(info, out).expect("key material is far below the 8160 bytes HKDF-SHA256 can give");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of C tor's `test_crypto.c`.
    #[test]
    fn kdf_tor_vectors() {
        let cases: [(&[u8], &str); 3] = [
            (
                b"",
                "5ba93c9db0cff93f52b521d7420e43f6eda2784fbf8b4530d8d246dd74ac53a13471bba17941dff7c4ea21bb365bbeeaf5f2\
                 c654883e56d11e43c44e9842926af7ca0a8cca12604f945414f07b01e13da42c6cf1de3abfdea9b95f34687cbbe92b9a7383",
            ),
            (
                b"Tor",
                "776c6214fc647aaa5f683c737ee66ec44f03d0372e1cce69227950f236ddf1e329a7ce7c227903303f525a8c6662426e8034\
                 870642a6dabbd41b5d97ec9bf2312ea729992f48f8ea2d0ba83f45dfda1a80bdc8b80de01b23e3e0ffae099b3e4ccf28dc28",
            ),
            (
                b"AN ALARMING ITEM TO FIND ON A MONTHLY AUTO-DEBIT NOTICE",
                "a340b5d126086c3ab29c2af4179196dbf95e1c72431419d3314844bf8f6afb6098db952b95581fb6c33625709d6f4400b8e7\
                 ace18a70579fad83c0982ef73f89395bcc39493ad53a685854daf2ba9b78733b805d9a6824c907ee1dba5ac27a1e466d4d10",
            ),
        ];
        for (secret, expected) in cases {
            let mut out = [0; 100];
            kdf_tor_fill(secret, &mut out);
            assert_eq!(hex::encode(out), expected);
        }
    }

    /// From C tor's `test_crypto.c`; those start from the secret input, so the extraction happens here.
    #[test]
    fn hkdf_vectors() {
        let cases: [(&[u8], &str); 2] = [
            (
                b"Tor",
                "5521492a85139a8d9107a2d5c0d9c91610d0f95989975ebee6c02a4f8d622a6cfdf9b7c7edd3832e2760ded1eac309b76f8d\
                 66c4a3c4d6225429b3a016e3c3d45911152fc87bc2de9630c3961be9fdb9f93197ea8e5977180801926d3321fa21513e59ac",
            ),
            (
                b"AN ALARMING ITEM TO FIND ON YOUR CREDIT-RATING STATEMENT",
                "a2aa9b50da7e481d30463adb8f233ff06e9571a0ca6ab6df0fb206fa34e5bc78d063fc291501beec53b36e5a0e434561200c\
                 5f8bd13e0f88b3459600b4dc21d69363e2895321c06184879d94b18f078411be70b767c7fc40679a9440a0c95ea83a23efbf",
            ),
        ];
        for (secret, expected) in cases {
            let (key_seed, _) =
                Hkdf::<Sha256>::extract(Some(b"ntor-curve25519-sha256-1:key_extract"), secret);
            let mut out = [0; 100];
            hkdf_fill(&key_seed.into(), b"ntor-curve25519-sha256-1:key_expand", &mut out);
            assert_eq!(hex::encode(out), expected);
        }
    }

    #[test]
    fn orders_of_the_fields() {
        let bytes: [u8; KeyMaterial::LEN] = std::array::from_fn(|at| at as u8);
        let keys = KeyMaterial::from_kh_first(&bytes);
        assert_eq!((keys.kh[0], keys.df[0], keys.db[0], keys.kf[0], keys.kb[0]), (0, 20, 40, 60, 76));
        let keys = KeyMaterial::from_kh_last(&bytes);
        assert_eq!((keys.df[0], keys.db[0], keys.kf[0], keys.kb[0], keys.kh[0]), (0, 20, 40, 56, 72));
        assert_eq!(keys.kh[19], 91);
    }
}
