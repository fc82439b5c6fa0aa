//! RSA keys by the thousand: the products of pairs of few primes.

use onionring_proto::crypto::rsa::{RsaError, RsaPrivate};
use rand_chacha::ChaCha20Rng;
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use rsa::traits::PrivateKeyParts as _;
use rsa::{BoxedUint, RsaPrivateKey};

const EXPONENT: u64 = 65537;

/// Keys, each by its number.
pub(super) struct Pairs {
    primes: Vec<BoxedUint>,
    /// Which two primes.
    pairs: Vec<(usize, usize)>,
}

impl Pairs {
    /// Draws primes for at least `count` keys of exactly `bits` bits.
    pub(super) fn generate(bits: usize, count: usize, rng: &mut ChaCha20Rng) -> Result<Pairs, RsaError> {
        let mut pairs = Pairs { primes: Vec::new(), pairs: Vec::new() };
        while pairs.pairs.len() < count {
            let key = RsaPrivateKey::new_with_exp(rng, bits, BoxedUint::from(EXPONENT));
            for prime in key.map_err(|_| RsaError::Operation)?.primes() {
                pairs.add(prime.as_ref());
            }
        }
        Ok(pairs)
    }

    fn add(&mut self, prime: &BoxedUint) {
        // The product of two numbers lacks no bit if the two highest of both are set.
        let is_large = prime.to_be_bytes_trimmed_vartime().first().is_some_and(|byte| *byte >= 0xc0);
        if is_large && !self.primes.contains(prime) {
            let new = self.primes.len();
            self.pairs.extend((0..new).map(|other| (other, new)));
            self.primes.push(prime.clone());
        }
    }

    /// Key number `n`.
    pub(super) fn get(&self, n: usize) -> Result<RsaPrivate, RsaError> {
        let (p, q) = *self.pairs.get(n).ok_or(RsaError::Operation)?;
        let (p, q) = (self.primes[p].clone(), self.primes[q].clone());
        let key = RsaPrivateKey::from_p_q(p, q, BoxedUint::from(EXPONENT));
        let der = key.map_err(|_| RsaError::Operation)?.to_pkcs1_der().map_err(|_| RsaError::Operation)?;
        RsaPrivate::from_der(der.as_bytes())
    }
}
