use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;

/// Made with `openssl genrsa -traditional 1024` for these tests.
const KEY: &str = include_str!("test_key.pem");

/// `openssl rsa -RSAPublicKey_out` of the same key.
const PUBLIC: &str = "-----BEGIN RSA PUBLIC KEY-----
MIGJAoGBANaI1g7iFkG7wMHmNzwNN4bn4mCX/RtBLHbFm55E0VSFLVm4gjat4X6y
2CFyvOzEJHvxnUhyEX2gkJ4QmhVCGQFpHzQzlxM1iIyrkxwB/3+9pWNK19x54d2u
aywapB6yo7SRH0SoldhMGvmcqQiDmWolKLIRuS1AwsyFlx0yn96PAgMBAAE=
-----END RSA PUBLIC KEY-----
";

/// `openssl pkeyutl -sign -pkeyopt rsa_padding_mode:pkcs1` of these 20 bytes, without a digest named.
const DIGEST: &[u8] = b"abcdefghijklmnopqrst";
const SIGNATURE: &str = "7017f90d6023d8035607e02c76043fa5bb8bdec8dd6e64e8c96dc378ca5e9415b4f19bc3ad6a96f316d918c1c9\
    f1046a0e6f7fc3c4d2a3b2146d3a106c38a3cb4c8fb448b86117236c5b70a899ec883e04f050d851f9e2241b91753c34bc5c370ae277cdda7c\
    7c54fa337acb9cdeb974c6e1e5c73eb6a1cbfe8d2a7f8a987ea7";

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn key() -> RsaPrivate {
    RsaPrivate::from_pem(KEY).unwrap()
}

#[test]
fn agrees_with_openssl() {
    let key = key();
    assert_eq!(key.to_pem().as_str(), KEY);
    assert_eq!(key.public().to_pem(), PUBLIC);
    assert_eq!(RsaPublic::from_pem(PUBLIC).unwrap(), key.public());
    assert_eq!(key.public().fingerprint(), "A00E23FCE3170C5E1DD73393FAA7573F2740B3C1");
    assert_eq!(key.public().to_der().len(), 140);
    assert_eq!(key.public().bits(), 1024);
    assert_eq!(hex::encode(key.sign_bare(DIGEST, &mut rng()).unwrap()), SIGNATURE);
}

#[test]
fn signatures_verify_only_as_they_are() {
    let key = key();
    let public = key.public();
    let signature = hex::decode(SIGNATURE).unwrap();
    public.verify_bare(DIGEST, &signature).unwrap();
    assert_eq!(public.verify_bare(&DIGEST[..19], &signature), Err(RsaError::Signature));
    for len in 0..signature.len() {
        assert_eq!(public.verify_bare(DIGEST, &signature[..len]), Err(RsaError::Signature));
    }
    let mut longer = signature.clone();
    longer.push(0);
    assert_eq!(public.verify_bare(DIGEST, &longer), Err(RsaError::Signature));
    for byte in 0..signature.len() {
        let mut bent = signature.clone();
        bent[byte] ^= 1;
        assert_eq!(public.verify_bare(DIGEST, &bent), Err(RsaError::Signature));
    }
    assert_eq!(public.verify_bare(DIGEST, &[0xff; 128]), Err(RsaError::Signature));
    // A DigestInfo in front is another signature.
    let prefixed = key.0.sign_with_rng(&mut rng(), Pkcs1v15Sign::new::<Sha1>(), DIGEST).unwrap();
    assert_eq!(public.verify_bare(DIGEST, &prefixed), Err(RsaError::Signature));
}

#[test]
fn signs_up_to_the_room_beside_the_padding() {
    let key = key();
    let most = [7; 117];
    key.public().verify_bare(&most, &key.sign_bare(&most, &mut rng()).unwrap()).unwrap();
    assert_eq!(key.sign_bare(&[7; 118], &mut rng()), Err(RsaError::TooLong { len: 118, bits: 1024 }));
}

#[test]
fn generates_keys_of_the_size_asked_for() {
    for bits in [1024, 2048] {
        let key = RsaPrivate::generate(bits, &mut rng()).unwrap();
        assert_eq!(key.public().bits(), bits);
        let again = RsaPrivate::from_der(&key.to_der()).unwrap();
        assert_eq!(again.public(), key.public());
        let signature = again.sign_bare(DIGEST, &mut rng()).unwrap();
        assert_eq!(signature.len(), bits / 8);
        key.public().verify_bare(DIGEST, &signature).unwrap();
    }
    for bits in [0, 512, 1023, 4097, usize::MAX] {
        assert_eq!(RsaPrivate::generate(bits, &mut rng()).err(), Some(RsaError::ModulusSize(bits)));
    }
}

/// DER of a public key with any numbers.
fn der_of(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = RsaPublicKeyRef {
        modulus: UintRef::new(modulus).unwrap(),
        public_exponent: UintRef::new(exponent).unwrap(),
    };
    Document::encode_msg(&key).unwrap().into_vec()
}

#[test]
fn refuses_unusual_keys() {
    let e = [1, 0, 1];
    let modulus = |bytes: usize| {
        let mut modulus = vec![0xff; bytes];
        modulus[0] = 0x80;
        modulus
    };
    assert!(RsaPublic::from_der(&der_of(&modulus(128), &e)).is_ok());
    assert!(RsaPublic::from_der(&der_of(&modulus(512), &e)).is_ok());
    assert_eq!(RsaPublic::from_der(&der_of(&modulus(127), &e)), Err(RsaError::ModulusSize(1016)));
    assert_eq!(RsaPublic::from_der(&der_of(&modulus(513), &e)), Err(RsaError::ModulusSize(4104)));
    assert_eq!(RsaPublic::from_der(&der_of(&modulus(60_000), &e)), Err(RsaError::Malformed));
    assert_eq!(RsaPublic::from_der(&der_of(&[0x40; 128], &e)), Err(RsaError::ModulusSize(1023)));
    assert_eq!(RsaPublic::from_der(&der_of(&[0], &e)), Err(RsaError::ModulusSize(0)));
    assert_eq!(RsaPublic::from_der(&der_of(&[0x80; 128], &e)), Err(RsaError::Malformed), "an even modulus");
    for exponent in [&[3][..], &[0], &[1], &[1, 0, 3], &[1, 0, 1, 0], &[0xff; 128]] {
        assert_eq!(RsaPublic::from_der(&der_of(&modulus(128), exponent)), Err(RsaError::Exponent));
    }
    // SubjectPublicKeyInfo is not PKCS#1, nor does anything follow the key.
    let der = key().public().to_der();
    let spki = [
        &[
            0x30, 0x81, 0x9f, 0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0, 3, 0x81,
            0x8d, 0,
        ],
        &der[..],
    ]
    .concat();
    assert_eq!(RsaPublic::from_der(&spki), Err(RsaError::Malformed));
    assert_eq!(RsaPublic::from_der(&[&der[..], &[0]].concat()), Err(RsaError::Malformed));
    for len in 0..der.len() {
        assert_eq!(RsaPublic::from_der(&der[..len]), Err(RsaError::Malformed));
    }
}

#[test]
fn refuses_other_pem_and_damaged_private_keys() {
    assert_eq!(RsaPublic::from_pem(KEY), Err(RsaError::Pem(PEM_PUBLIC)));
    assert_eq!(RsaPrivate::from_pem(PUBLIC).err(), Some(RsaError::Pem(PEM_PRIVATE)));
    assert_eq!(RsaPrivate::from_pem("").err(), Some(RsaError::Pem(PEM_PRIVATE)));
    assert_eq!(RsaPrivate::from_pem(&"A".repeat(100_000)).err(), Some(RsaError::Pem(PEM_PRIVATE)));
    let mut der = key().to_der();
    der[160] ^= 1; // inside the private exponent
    assert_eq!(RsaPrivate::from_der(&der).err(), Some(RsaError::Malformed));
}

#[test]
fn oaep_round_trip() {
    let key = key();
    let ciphertext = key.public().encrypt_oaep(&mut rng(), &[9; 86]).unwrap();
    assert_eq!(key.decrypt_oaep(&mut rng(), &ciphertext).unwrap().as_slice(), [9; 86]);
    assert_eq!(
        key.public().encrypt_oaep(&mut rng(), &[9; 87]),
        Err(RsaError::TooLong { len: 87, bits: 1024 })
    );
    for bad in [&ciphertext[..127], &[0; 128], &[0xff; 128], &[]] {
        assert_eq!(key.decrypt_oaep(&mut rng(), bad).err(), Some(RsaError::Decryption));
    }
}

proptest! {
    #[test]
    fn any_bytes_as_keys_and_signatures(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = RsaPublic::from_der(&bytes);
        let _ = RsaPrivate::from_der(&bytes);
        let _ = RsaPublic::from_pem(&String::from_utf8_lossy(&bytes));
        prop_assert!(key().public().verify_bare(DIGEST, &bytes).is_err());
    }

    /// A public key that was changed anywhere either is refused or encodes to the very bytes it came from.
    #[test]
    fn accepted_public_keys_encode_to_what_was_read(at in 0usize..140, value in any::<u8>()) {
        let mut der = key().public().to_der();
        der[at] = value;
        if let Ok(public) = RsaPublic::from_der(&der) {
            prop_assert_eq!(public.to_der(), der);
            let _ = public.verify_bare(DIGEST, &[1; 128]);
        }
    }
}
