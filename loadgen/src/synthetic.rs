//! A directory of any size that exists on paper only: relays with keys and documents that authorities take, and
//! authorities with certificates and votes. No process is behind any of them.
//!
//! Everything follows from the seed and the time. Documents have the lines and about the sizes of the public network's,
//! and authorities disagree about as much as real ones do: see [`Directory::vote`].
//!
//! **The keys protect nothing.** Making an RSA key takes tens of milliseconds, so moduli are products of pairs of a few
//! primes: whoever has two of the keys can compute both.

mod keys;
mod relays;
mod votes;

use std::thread;

use onionring_proto::crypto::rsa::{RsaError, RsaPrivate};
use onionring_proto::netdoc::DocError;
use onionring_proto::netdoc::authcert::{self, CertTerms};
use onionring_proto::netdoc::routerdesc::{BuildError, RouterDesc};
use onionring_proto::netdoc::tally::TallyError;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::netdoc::vote::{Certificate, VotedMicrodesc};
use onionring_proto::time::Unix;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use thiserror::Error;

pub use votes::Slot;

/// Bits of the identity of a relay, and of an authority's keys.
const RELAY_BITS: usize = 1024;
const AUTHORITY_BITS: usize = 2048;
/// How long certificates of authorities hold.
const CERT_LIFE_SECONDS: u64 = 90 * 24 * 3600;

/// Why a directory cannot be made.
#[derive(Debug, Error)]
pub enum SyntheticError {
    /// A document would not be taken.
    #[error("a synthetic document would be refused: {0}")]
    Document(#[from] BuildError),
    /// A certificate would not be taken.
    #[error("a synthetic certificate would be refused: {0}")]
    Certificate(#[from] DocError),
    /// The votes give no consensus.
    #[error("synthetic votes give no consensus: {0}")]
    Tally(#[from] TallyError),
    /// A key does not work.
    #[error("a synthetic key: {0}")]
    Key(#[from] RsaError),
}

/// How large a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Relays.
    pub relays: usize,
    /// Authorities.
    pub authorities: usize,
}

/// A relay on paper.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Its descriptor.
    pub descriptor: String,
    /// What the descriptor says.
    pub parsed: RouterDesc,
    /// Its extra-info.
    pub extra_info: String,
    /// Its microdescriptors, each once.
    pub microdescs: Vec<String>,
    voted: Vec<VotedMicrodesc>,
    nature: relays::Nature,
}

/// An authority on paper.
#[derive(Clone)]
pub struct Authority {
    /// Its nickname.
    pub nickname: String,
    /// The key that it signs with.
    pub signing: RsaPrivate,
    /// Its certificate.
    pub certificate: Certificate,
    /// Its identity as a relay.
    pub relay: RsaPrivate,
}

impl Authority {
    /// Its v3 identity.
    pub fn identity(&self) -> Fingerprint {
        self.certificate.cert().identity
    }
}

/// A directory on paper.
#[derive(Clone)]
pub struct Directory {
    /// Its relays, ascending by identity.
    pub relays: Vec<Relay>,
    /// Its authorities, ascending by v3 identity.
    pub authorities: Vec<Authority>,
    seed: u64,
}

impl Directory {
    /// Makes one, with documents made in the hours before `now`.
    ///
    /// # Errors
    /// [`SyntheticError`].
    pub fn generate(size: Size, seed: u64, now: Unix) -> Result<Directory, SyntheticError> {
        let authorities = authorities(size.authorities, seed, now)?;
        let keys = keys::Pairs::generate(RELAY_BITS, size.relays + 1, &mut rng(seed, b"identity", 0))?;
        let families = relays::Families::new(size.relays, &keys)?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let chunk = size.relays.div_ceil(threads).max(1);
        let mut relays = Vec::with_capacity(size.relays);
        thread::scope(|scope| {
            let makers: Vec<_> = (0..size.relays)
                .step_by(chunk)
                .map(|start| {
                    let (keys, families) = (&keys, &families);
                    let range = start..(start + chunk).min(size.relays);
                    scope.spawn(move || {
                        let make = |n| relays::make(n, keys, families, seed, now);
                        range.map(make).collect::<Result<Vec<Relay>, SyntheticError>>()
                    })
                })
                .collect();
            for maker in makers {
                relays.extend(maker.join().expect("making relays does not panic")?);
            }
            Ok::<_, SyntheticError>(())
        })?;
        relays.sort_by_key(|relay| relay.parsed.identity);
        Ok(Directory { relays, authorities, seed })
    }

    /// The certificates of all authorities.
    pub fn certificates(&self) -> String {
        self.authorities.iter().map(|authority| authority.certificate.text()).collect()
    }

    /// What the bandwidth authorities have measured, as a file (bandwidth-file-spec), in the name of an authority.
    pub fn bandwidth_file(&self, authority: usize, now: Unix) -> String {
        let mut file =
            format!("{}\nversion=1.4.0\nsoftware=synthetic\nsoftware_version=1.0.0\n=====\n", now.0);
        for (n, relay) in self.relays.iter().enumerate() {
            if let Some(kilobytes) = votes::measured(self, authority, n, relay, 0) {
                let (identity, nickname) = (relay.parsed.identity, relay.parsed.nickname);
                file += &format!("node_id=${identity} bw={kilobytes} nick={nickname}\n");
            }
        }
        file
    }
}

fn authorities(count: usize, seed: u64, now: Unix) -> Result<Vec<Authority>, SyntheticError> {
    let rng = &mut rng(seed, b"authorit", 0);
    let keys = keys::Pairs::generate(AUTHORITY_BITS, 2 * count, rng)?;
    let relay_keys = keys::Pairs::generate(RELAY_BITS, count, rng)?;
    let (published, expires) = (Unix(now.0 - 3600), Unix(now.0 + CERT_LIFE_SECONDS));
    let terms = CertTerms { published, expires, dir_address: None };
    let mut authorities = (0..count)
        .map(|n| {
            let (identity, signing) = (keys.get(2 * n)?, keys.get(2 * n + 1)?);
            let certificate = Certificate::parse(&authcert::build(&identity, &signing, &terms, rng)?)?;
            Ok(Authority { nickname: String::new(), signing, certificate, relay: relay_keys.get(n)? })
        })
        .collect::<Result<Vec<_>, SyntheticError>>()?;
    authorities.sort_by_key(Authority::identity);
    for (n, authority) in authorities.iter_mut().enumerate() {
        authority.nickname = format!("paper{n}");
    }
    Ok(authorities)
}

/// The random numbers for one purpose, whatever else was drawn before.
fn rng(seed: u64, purpose: &[u8; 8], n: u64) -> ChaCha20Rng {
    let mut whole = [0; 32];
    whole[..8].copy_from_slice(&seed.to_le_bytes());
    whole[8..16].copy_from_slice(purpose);
    whole[16..24].copy_from_slice(&n.to_le_bytes());
    ChaCha20Rng::from_seed(whole)
}

#[cfg(test)]
mod tests;
