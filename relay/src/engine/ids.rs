//! Names of things that live in one shard and are spoken of in others, and the rule that gives a circuit its home.

use std::hash::{BuildHasher, Hasher};

use onionring_proto::cell::CircId;
use siphasher::sip::SipHasher13;

/// One of the relay's shards, `0..shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex(pub u16);

/// A link, unique for the life of the process: `shard (12 bits) | serial (52 bits)`.
///
/// The shard that owns the link is part of its name, so that a cell for it finds its way without a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u64);

impl LinkId {
    const SERIAL_BITS: u32 = 52;

    /// The `serial`-th link of `shard`.
    pub fn new(shard: ShardIndex, serial: u64) -> Self {
        LinkId((u64::from(shard.0) << Self::SERIAL_BITS) | (serial & ((1 << Self::SERIAL_BITS) - 1)))
    }

    /// The shard that owns the link.
    pub fn shard(self) -> ShardIndex {
        ShardIndex((self.0 >> Self::SERIAL_BITS) as u16)
    }

    /// The name as one number, for logs and metrics.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// A circuit on its home shard: a slot, and a generation that tells it from earlier users of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircuitId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// One end of a circuit's passage through this relay: a circuit id on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leg {
    /// The link.
    pub link: LinkId,
    /// The circuit id on that link.
    pub circ: CircId,
}

/// Where circuits live: a keyed hash of link and circuit id, the same on both legs of a circuit.
///
/// The key is drawn at every start of the relay, so nobody outside can aim circuits at one core, not even with one
/// circuit id on many links.
#[derive(Clone, Debug)]
pub struct HomeRule {
    key: [u8; 16],
    shards: u16,
}

impl HomeRule {
    /// The rule for `shards` shards (at least 1) under `key`.
    pub fn new(key: [u8; 16], shards: u16) -> Self {
        assert!(shards > 0, "a relay has at least one shard");
        HomeRule { key, shards }
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The shard on which the circuit with this leg lives.
    pub fn home(&self, leg: Leg) -> ShardIndex {
        if self.shards == 1 {
            return ShardIndex(0);
        }
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u64(leg.link.0);
        hasher.write_u32(leg.circ.0);
        self.pick(hasher.finish())
    }

    /// The shard that keeps the registry entry of the peer with this RSA identity.
    pub fn registrar(&self, rsa_id: &[u8; 20]) -> ShardIndex {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(rsa_id);
        self.pick(hasher.finish())
    }

    /// Maps a hash to a shard by its high bits, which costs a multiplication instead of a division.
    pub(super) fn pick(&self, hash: u64) -> ShardIndex {
        ShardIndex(((u128::from(hash) * u128::from(self.shards)) >> 64) as u16)
    }
}

/// Hashes table keys under the same per-boot secret: peers choose circuit ids, so tables must not be steerable.
impl BuildHasher for HomeRule {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_its_shard() {
        let link = LinkId::new(ShardIndex(63), 0x000f_ffff_ffff_ffff);
        assert_eq!(link.shard(), ShardIndex(63));
        assert_ne!(link, LinkId::new(ShardIndex(62), 0x000f_ffff_ffff_ffff));
    }

    #[test]
    fn homes_spread_evenly_and_depend_on_the_key_and_the_link() {
        let rule = HomeRule::new([7; 16], 4);
        let other_key = HomeRule::new([8; 16], 4);
        let mut per_home = [0usize; 4];
        let mut moved = 0;
        // One circuit id on 10,000 links: the attack that a hash of the circuit id alone would not survive.
        for serial in 0..10_000 {
            let leg = Leg { link: LinkId::new(ShardIndex(0), serial), circ: CircId(0x8000_0001) };
            per_home[usize::from(rule.home(leg).0)] += 1;
            moved += usize::from(rule.home(leg) != other_key.home(leg));
        }
        assert!(per_home.iter().all(|&n| (2300..2700).contains(&n)), "{per_home:?}");
        assert!((7000..8000).contains(&moved), "{moved}");
    }
}
