//! Which circuit IDs each side of a link may choose (tor-spec 5.1.1).

use std::cmp::Ordering;

use rand_core::CryptoRng;
use thiserror::Error;

use crate::cell::{CircId, LinkVersion};

/// One half of the circuit IDs of a link, told by the most significant bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The bit is clear.
    Lower,
    /// The bit is set.
    Upper,
}

impl Half {
    /// The other half.
    pub const fn other(self) -> Half {
        match self {
            Half::Lower => Half::Upper,
            Half::Upper => Half::Lower,
        }
    }
}

/// What the peer of a link may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerChoice {
    Only(Half),
    /// An unauthenticated initiator on link protocol 3, whose modulus we cannot compare with ours.
    Either,
}

/// No circuit ID could be had; the circuit fails, the link stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CircIdError {
    /// None of the random candidates was usable: the link is crowded.
    #[error("no free circuit ID in {0} random tries")]
    Exhausted(u32),
    /// On link protocol 3 all IDs of a link from a client belong to the client.
    #[error("no circuits can be opened towards an unauthenticated peer on link protocol 3")]
    NotOurs,
}

/// The circuit IDs of one link: which half is ours to allocate from, and which the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircIds {
    version: LinkVersion,
    ours: Option<Half>,
    peer: PeerChoice,
}

impl CircIds {
    /// From link protocol 4 on: the initiator owns the upper half, the responder the lower.
    ///
    /// On link protocol 3 the side with the larger RSA modulus owns the upper half. `our_modulus` is how ours compares
    /// with the peer's, `None` if one of us stays anonymous; then the initiator may use any ID and the responder none.
    pub(super) fn new(version: LinkVersion, initiator: bool, our_modulus: Option<Ordering>) -> CircIds {
        let by_role = if initiator { Half::Upper } else { Half::Lower };
        let ours = match (version, our_modulus) {
            (LinkVersion::V4 | LinkVersion::V5, _) => Some(by_role),
            (LinkVersion::V3, Some(Ordering::Greater)) => Some(Half::Upper),
            (LinkVersion::V3, Some(Ordering::Less)) => Some(Half::Lower),
            // The same key on both sides: a relay that talks to itself.
            (LinkVersion::V3, Some(Ordering::Equal)) => Some(by_role),
            (LinkVersion::V3, None) => initiator.then_some(Half::Upper),
        };
        let peer = ours.map_or(PeerChoice::Either, |half| PeerChoice::Only(half.other()));
        CircIds { version, ours, peer }
    }

    /// Whether the peer may create a circuit with this ID. Zero never is one.
    pub fn peer_may_use(&self, circ_id: CircId) -> bool {
        circ_id.0 != 0
            && match self.peer {
                PeerChoice::Either => true,
                PeerChoice::Only(half) => self.half_of(circ_id) == half,
            }
    }

    /// Draws random IDs from our half until `usable` takes one, at most `tries` times
    /// ([`limits::CIRC_ID_TRIES`](crate::limits::CIRC_ID_TRIES) if `usable` only refuses IDs in use; more if it
    /// refuses most IDs for other reasons).
    ///
    /// IDs whose DESTROY has not been written to the wire yet are still in use.
    pub fn allocate(
        &self,
        tries: u32,
        rng: &mut impl CryptoRng,
        mut usable: impl FnMut(CircId) -> bool,
    ) -> Result<CircId, CircIdError> {
        let half = self.ours.ok_or(CircIdError::NotOurs)?;
        for _ in 0..tries {
            let low_bits = rng.next_u32() & (self.top_bit() - 1);
            let candidate = match half {
                Half::Lower => CircId(low_bits),
                Half::Upper => CircId(low_bits | self.top_bit()),
            };
            if candidate != CircId::LINK && usable(candidate) {
                return Ok(candidate);
            }
        }
        Err(CircIdError::Exhausted(tries))
    }

    fn half_of(&self, circ_id: CircId) -> Half {
        if circ_id.0 & self.top_bit() == 0 { Half::Lower } else { Half::Upper }
    }

    fn top_bit(&self) -> u32 {
        1 << (8 * self.version.circ_id_len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::CIRC_ID_TRIES;
    use crate::link::tests::rng;

    fn sides(version: LinkVersion, initiator_modulus: Option<Ordering>) -> (CircIds, CircIds) {
        (
            CircIds::new(version, true, initiator_modulus),
            CircIds::new(version, false, initiator_modulus.map(Ordering::reverse)),
        )
    }

    proptest! {
        #[test]
        fn the_two_sides_never_choose_the_same(
            version in prop::sample::select(&LinkVersion::ALL[..]),
            modulus in prop::sample::select(&[Ordering::Less, Ordering::Equal, Ordering::Greater][..]),
            seed: u64,
        ) {
            let (initiator, responder) = sides(version, Some(modulus));
            let theirs = initiator.allocate(CIRC_ID_TRIES, &mut rng(seed), |_| true).unwrap();
            let ours = responder.allocate(CIRC_ID_TRIES, &mut rng(seed), |_| true).unwrap();
            prop_assert!(responder.peer_may_use(theirs) && !responder.peer_may_use(ours));
            prop_assert!(initiator.peer_may_use(ours) && !initiator.peer_may_use(theirs));
            if version == LinkVersion::V3 {
                prop_assert!(ours.0 <= 0xffff && theirs.0 <= 0xffff);
            }
        }
    }

    #[test]
    fn the_top_bit_goes_by_role_from_v4_on() {
        for version in [LinkVersion::V4, LinkVersion::V5] {
            let (initiator, responder) = sides(version, Some(Ordering::Less));
            for id in [0x8000_0000, 0x8000_0001, 0xffff_ffff] {
                assert!(responder.peer_may_use(CircId(id)) && !initiator.peer_may_use(CircId(id)));
            }
            for id in [1, 0x7fff_ffff] {
                assert!(!responder.peer_may_use(CircId(id)) && initiator.peer_may_use(CircId(id)));
            }
            assert!(!responder.peer_may_use(CircId(0)) && !initiator.peer_may_use(CircId(0)));
        }
    }

    #[test]
    fn the_larger_modulus_owns_the_upper_half_on_v3() {
        let (initiator, responder) = sides(LinkVersion::V3, Some(Ordering::Less));
        assert!(initiator.peer_may_use(CircId(0x8000)) && !initiator.peer_may_use(CircId(0x7fff)));
        assert!(!responder.peer_may_use(CircId(0x8000)) && responder.peer_may_use(CircId(0x7fff)));
    }

    #[test]
    fn a_client_on_v3_may_use_both_halves_and_we_none() {
        let (client, responder) = sides(LinkVersion::V3, None);
        assert!(responder.peer_may_use(CircId(1)) && responder.peer_may_use(CircId(0xffff)));
        assert!(!responder.peer_may_use(CircId(0)));
        assert_eq!(responder.allocate(CIRC_ID_TRIES, &mut rng(0), |_| true), Err(CircIdError::NotOurs));
        assert!(client.allocate(CIRC_ID_TRIES, &mut rng(0), |_| true).is_ok());
    }

    #[test]
    fn allocation_gives_up_after_its_tries() {
        let (initiator, _) = sides(LinkVersion::V4, None);
        let mut asked = 0;
        let refused = initiator.allocate(CIRC_ID_TRIES, &mut rng(0), |_| {
            asked += 1;
            false
        });
        assert_eq!((refused, asked), (Err(CircIdError::Exhausted(64)), 64));
    }
}
