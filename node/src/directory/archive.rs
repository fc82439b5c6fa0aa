//! Consensuses that are over, from which there are diffs to the one in force: some of the last, in memory and on disk,
//! compressed as they were served.

use std::collections::BTreeMap;

use crate::compress::{self, EncodeError, Encoding};
use crate::docstore::{Shelf, StoreError};
use onionring_proto::netdoc::consdiff::{self, GenerateError};
use onionring_proto::netdoc::consensus::Flavor;
use onionring_proto::netdoc::text;
use onionring_proto::time::Unix;
use thiserror::Error;
use tracing::warn;

use super::snapshot::{Encoded, StoredConsensus};
use super::spool::Blob;
use crate::limits;

/// The compression of what is kept: the fastest to undo of those that are made anyway.
const PACKED: Encoding = Encoding::Zstd;

/// A consensus that is over.
#[derive(Clone, Debug)]
pub struct Past {
    /// Its flavour.
    pub flavor: Flavor,
    /// When it came into force.
    pub valid_after: Unix,
    /// SHA3-256 of its signed part.
    pub signed_sha3: [u8; 32],
    packed: Blob,
}

/// Why there is no diff from a past consensus.
#[derive(Debug, Error)]
pub enum NoDiff {
    /// It is not what it was.
    #[error("the base is damaged")]
    Damaged,
    /// The documents do not lend themselves to it.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// It would be as long as the consensus.
    #[error("it would be no shorter than the whole")]
    TooLong,
    /// There is no memory to compress it.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Past {
    /// What is kept of a consensus that was served. Copies nothing.
    pub fn new(flavor: Flavor, stored: &StoredConsensus) -> Self {
        Past {
            flavor,
            valid_after: stored.lifetime.valid_after,
            signed_sha3: stored.signed_sha3,
            packed: stored.whole.form(PACKED),
        }
    }

    /// The diff to the consensus `target`. Takes a second for the public network's.
    pub fn diff_to(&self, target: &[u8]) -> Result<Encoded, NoDiff> {
        let base = compress::decompress(PACKED, &self.packed, limits::DIR_CONSENSUS).ok();
        let base = base.and_then(|base| String::from_utf8(base).ok()).ok_or(NoDiff::Damaged)?;
        if consdiff::signed_sha3(&base) != self.signed_sha3 {
            return Err(NoDiff::Damaged);
        }
        let target = std::str::from_utf8(target).map_err(|_| NoDiff::Damaged)?;
        let diff = consdiff::generate(&base, target)?;
        drop(base);
        if diff.len() >= target.len() {
            return Err(NoDiff::TooLong);
        }
        Ok(Encoded::new(&diff, &Encoding::ALL)?)
    }

    /// Its name on disk, which says all of it but the text.
    fn name(&self) -> String {
        format!("{}-{}-{}", self.flavor.name(), self.valid_after.0, text::hex_upper(&self.signed_sha3))
    }

    /// What a name on disk says, without the text.
    fn named(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let of = parts.next()?;
        let flavor = Flavor::ALL.into_iter().find(|flavor| flavor.name() == of)?;
        let valid_after = Unix(parts.next()?.parse().ok()?);
        let signed_sha3 = text::hex_array(parts.next()?)?;
        let past = Past { flavor, valid_after, signed_sha3, packed: Blob::default() };
        (past.name() == name).then_some(past)
    }

    /// Writes it to the disk.
    pub fn store(&self, shelf: &Shelf) -> Result<(), StoreError> {
        shelf.store(&self.name(), &self.packed)
    }

    /// Removes it from the disk.
    pub fn remove(&self, shelf: &Shelf) -> Result<(), StoreError> {
        shelf.remove(&self.name())
    }
}

/// Some consensuses that are over.
#[derive(Debug, Default)]
pub struct Archive {
    /// By flavour, the newest first.
    kept: BTreeMap<Flavor, Vec<Past>>,
}

impl Archive {
    /// Those on disk, where only what is kept stays. What is damaged shows when it is used.
    pub fn load(shelf: &Shelf) -> Result<Self, StoreError> {
        let mut found: Vec<Past> = shelf.names()?.iter().filter_map(|name| Past::named(name)).collect();
        found.sort_unstable_by_key(|past| past.valid_after);
        let mut archive = Archive::default();
        for mut past in found.into_iter().rev() {
            match shelf.load(&past.name(), limits::DIR_PAST_BYTES as u64) {
                Ok(packed) => past.packed = packed.into(),
                Err(error) => {
                    warn!("an earlier consensus is of no more use: {error}");
                    continue;
                }
            }
            for gone in archive.add(past) {
                gone.remove(shelf)?;
            }
        }
        Ok(archive)
    }

    /// Those of a flavour, the newest first.
    pub fn of(&self, flavor: Flavor) -> &[Past] {
        self.kept.get(&flavor).map_or(&[], Vec::as_slice)
    }

    /// Keeps another one, and gives back those that make room for it.
    pub fn add(&mut self, past: Past) -> Vec<Past> {
        let kept = self.kept.entry(past.flavor).or_default();
        let at = kept.partition_point(|other| other.valid_after > past.valid_after);
        kept.insert(at, past);
        let mut bytes = 0;
        let fits = |past: &&Past| {
            bytes += past.packed.len();
            bytes <= limits::DIR_PAST_BYTES
        };
        let room = kept.iter().take(limits::DIR_PAST_CONSENSUSES).take_while(fits).count();
        kept.split_off(room)
    }
}

#[cfg(test)]
mod tests;
