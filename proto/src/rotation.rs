//! When a relay's keys are due to be replaced (tor-spec 1.1, dir-spec 2.1.1).
//!
//! Pure timetable: the driver holds the keys, asks what is due, replaces it, and asks again at
//! [`Timetable::next`].

use std::time::Duration;

use crate::time::Unix;

const DAY: Duration = Duration::from_secs(86_400);

/// Something that is replaced from time to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rotation {
    /// The onion key: make a new one, keep the present one beside it, publish.
    OnionKey,
    /// The onion key before the present one: stop accepting it.
    PreviousOnionKey,
    /// The Ed25519 signing key and its certificate, and all that hangs on them: make new ones, publish.
    SigningKey,
    /// The TLS key and certificate, and the link certificates that name them. Open links keep theirs.
    Link,
}

/// How long keys live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Life of an onion key: consensus parameter `onion-key-rotation-days`.
    pub onion: Duration,
    /// How long the previous onion key is still accepted: consensus parameter `onion-key-grace-period-days`.
    pub onion_grace: Duration,
    /// How long before its certificate expires the signing key is replaced (`TestingSigningKeySlop`).
    pub signing_slop: Duration,
    /// Life of a TLS certificate on our side.
    pub link: Duration,
    /// How long before they expire link certificates are replaced (`TestingLinkKeySlop`).
    pub link_slop: Duration,
}

impl Default for Lifetimes {
    /// C tor's defaults: 28 days and 7 days of grace, signing keys a day early, links every two hours.
    fn default() -> Self {
        Lifetimes {
            onion: 28 * DAY,
            onion_grace: 7 * DAY,
            signing_slop: DAY,
            link: Duration::from_secs(2 * 3600),
            link_slop: Duration::from_secs(3 * 3600),
        }
    }
}

impl Lifetimes {
    /// These with the onion key times of the consensus, in days, brought into their legal ranges: 1 to 90, and 1 to the
    /// life of the key (param-spec, "onion-key-rotation-days").
    pub fn with_onion_days(self, rotation: i32, grace: i32) -> Self {
        let rotation = rotation.clamp(1, 90);
        let days = |days: i32| DAY * days.unsigned_abs();
        Lifetimes { onion: days(rotation), onion_grace: days(grace.clamp(1, rotation)), ..self }
    }
}

/// The ages of the keys in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// When the onion key came into use.
    pub onion_since: Unix,
    /// Whether the onion key before it is still accepted.
    pub has_previous_onion: bool,
    /// When the signing key's certificate expires.
    pub signing_expires: Unix,
    /// When the TLS certificate came into use.
    pub link_since: Unix,
    /// When the first of the certificates shown on links expires.
    pub link_expires: Unix,
}

/// When each rotation is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timetable([Option<(Unix, Rotation)>; 4]);

impl Timetable {
    /// The timetable of keys of these ages.
    pub fn new(lifetimes: &Lifetimes, ages: &Ages) -> Self {
        let link = ages.link_since + lifetimes.link;
        let grace_ends = ages.onion_since + lifetimes.onion_grace;
        Timetable([
            Some((ages.onion_since + lifetimes.onion, Rotation::OnionKey)),
            ages.has_previous_onion.then_some((grace_ends, Rotation::PreviousOnionKey)),
            Some((ages.signing_expires - lifetimes.signing_slop, Rotation::SigningKey)),
            Some((link.min(ages.link_expires - lifetimes.link_slop), Rotation::Link)),
        ])
    }

    /// What is due, in the order in which to do it.
    pub fn due(&self, now: Unix) -> impl Iterator<Item = Rotation> {
        self.0.into_iter().flatten().filter(move |(when, _)| *when <= now).map(|(_, what)| what)
    }

    /// When to look again.
    pub fn next(&self) -> Unix {
        // The onion key is always on the timetable.
        self.0.into_iter().flatten().map(|(when, _)| when).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Unix = Unix(1_700_000_000);

    fn fresh() -> Ages {
        Ages {
            onion_since: NOW,
            has_previous_onion: true,
            signing_expires: NOW + 30 * DAY,
            link_since: NOW,
            link_expires: NOW + 2 * DAY,
        }
    }

    fn due(ages: Ages, now: Unix) -> Vec<Rotation> {
        Timetable::new(&Lifetimes::default(), &ages).due(now).collect()
    }

    #[test]
    fn keys_are_replaced_in_time() {
        let timetable = Timetable::new(&Lifetimes::default(), &fresh());
        assert_eq!(timetable.next(), NOW + Duration::from_secs(7200));
        assert_eq!(due(fresh(), NOW), []);
        assert_eq!(due(fresh(), NOW + 7 * DAY), [Rotation::PreviousOnionKey, Rotation::Link]);
        let later = NOW + 29 * DAY;
        let ages =
            Ages { has_previous_onion: false, link_since: later, link_expires: later + 2 * DAY, ..fresh() };
        assert_eq!(due(ages, later), [Rotation::OnionKey, Rotation::SigningKey]);
    }

    #[test]
    fn a_short_signing_certificate_shortens_the_life_of_links() {
        let ages = Ages { link_expires: NOW + Duration::from_secs(3 * 3600 + 60), ..fresh() };
        assert_eq!(Timetable::new(&Lifetimes::default(), &ages).next(), NOW + Duration::from_secs(60));
    }

    proptest! {
        #[test]
        fn consensus_values_are_clamped(rotation: i32, grace: i32) {
            let lifetimes = Lifetimes::default().with_onion_days(rotation, grace);
            prop_assert!(lifetimes.onion >= DAY && lifetimes.onion <= 90 * DAY);
            prop_assert!(lifetimes.onion_grace >= DAY && lifetimes.onion_grace <= lifetimes.onion);
        }

        #[test]
        fn something_is_due_exactly_from_next_on(onion: u32, signing: u32, link: u32, expires: u32, old: bool) {
            let ages = Ages {
                onion_since: Unix(onion.into()),
                has_previous_onion: old,
                signing_expires: Unix(signing.into()),
                link_since: Unix(link.into()),
                link_expires: Unix(expires.into()),
            };
            let timetable = Timetable::new(&Lifetimes::default(), &ages);
            prop_assert!(timetable.due(timetable.next()).next().is_some());
            let before = timetable.next().0.checked_sub(1);
            prop_assert!(before.is_none_or(|before| timetable.due(Unix(before)).next().is_none()));
        }
    }
}
