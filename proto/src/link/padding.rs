//! When to send PADDING on a quiet link (padding-spec 2), so that its end does not show when a client was active.

use std::time::Duration;

use rand_core::CryptoRng;

use super::msg::PaddingNegotiate;
use crate::cell::LinkVersion;
use crate::time::Mono;

/// The bounds of the silence before a padding cell, in milliseconds: consensus parameters `nf_ito_low` and
/// `nf_ito_high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaddingParams {
    /// Lower bound; 1500 by default.
    pub low_ms: u32,
    /// Upper bound; 9500 by default. Zero means that nobody pads.
    pub high_ms: u32,
}

/// The padding of one link.
///
/// A relay pads a client's link on link protocol 5 once a circuit on it goes on beyond the relay, until the client says
/// stop. Links between relays are padded likewise if consensus parameter `nf_pad_relays` says so; no others are.
#[derive(Clone, Debug)]
pub struct PaddingTimer {
    /// Whether this is a link that may be padded at all.
    eligible: bool,
    /// Whether the link has carried a circuit that goes on beyond us.
    used: bool,
    /// What the client asked for last.
    asked: Option<PaddingNegotiate>,
    last_sent: Mono,
    /// When it runs out, and the silence it was set for.
    pending: Option<(Mono, Duration)>,
}

impl PaddingTimer {
    /// A timer for a link that has just opened. `pad`: the peer is a client, that is, an initiator that did not
    /// authenticate; or links with relays are padded too.
    pub fn new(version: LinkVersion, pad: bool, now: Mono) -> PaddingTimer {
        let eligible = pad && version >= LinkVersion::V5;
        PaddingTimer { eligible, used: false, asked: None, last_sent: now, pending: None }
    }

    /// The client sent PADDING_NEGOTIATE; it takes effect at once.
    pub fn negotiate(
        &mut self,
        request: PaddingNegotiate,
        params: &PaddingParams,
        now: Mono,
        rng: &mut impl CryptoRng,
    ) {
        self.asked = Some(request);
        self.rearm(params, now, rng);
    }

    /// A circuit on this link was extended beyond us, or is used there, if consensus parameter `nf_pad_before_usage` is
    /// off. Once is enough.
    pub fn circuit_extended(&mut self, params: &PaddingParams, now: Mono, rng: &mut impl CryptoRng) {
        if !self.used {
            self.used = true;
            self.rearm(params, now, rng);
        }
    }

    /// Something was written to the link. Cheap enough for every write.
    #[inline]
    pub fn sent(&mut self, now: Mono) {
        self.last_sent = now;
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, `None` while the link is not padded.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.pending.map(|(at, _)| at)
    }

    /// The time has come: returns whether to send a PADDING cell now, and sets the next time.
    pub fn handle_timeout(&mut self, params: &PaddingParams, now: Mono, rng: &mut impl CryptoRng) -> bool {
        let Some((at, silence)) = self.pending else { return false };
        // What was sent since the timer was set only moved its end.
        let end = at.max(self.last_sent + silence);
        if now < end {
            self.pending = Some((end, silence));
            return false;
        }
        self.last_sent = now;
        self.rearm(params, now, rng);
        self.pending.is_some()
    }

    fn rearm(&mut self, params: &PaddingParams, now: Mono, rng: &mut impl CryptoRng) {
        self.pending = self.bounds(params).map(|(low, high)| {
            let silence = draw(low, high, rng);
            (now.max(self.last_sent) + silence, silence)
        });
    }

    /// The bounds in force, `None` if the link is not padded: the client can only ask for less than the consensus says.
    fn bounds(&self, params: &PaddingParams) -> Option<(u32, u32)> {
        if !self.eligible || !self.used || params.high_ms == 0 {
            return None;
        }
        match self.asked {
            Some(PaddingNegotiate::Stop) => None,
            None => Some((params.low_ms, params.high_ms)),
            Some(PaddingNegotiate::Start { low_ms, high_ms }) => {
                Some((params.low_ms.max(low_ms.into()), params.high_ms.max(high_ms.into())))
            }
        }
    }
}

/// The larger of two uniform draws from the range. Both ends of a link pad, so the silence that shows is the shorter of
/// two; taking the larger draw at each end makes up for that (padding-spec 2.1).
fn draw(low: u32, high: u32, rng: &mut impl CryptoRng) -> Duration {
    let width = u64::from(high.saturating_sub(low)).max(1);
    let mut uniform = || (u64::from(rng.next_u32()) * width) >> 32;
    Duration::from_millis(u64::from(low) + uniform().max(uniform()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::link::tests::rng;

    const PARAMS: PaddingParams = PaddingParams { low_ms: 1500, high_ms: 9500 };
    const START: Mono = Mono(1_000_000);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn used(version: LinkVersion, peer_is_client: bool) -> PaddingTimer {
        let mut timer = PaddingTimer::new(version, peer_is_client, START);
        timer.circuit_extended(&PARAMS, START, &mut rng(1));
        timer
    }

    #[test]
    fn only_used_v5_client_links_are_padded() {
        assert!(PaddingTimer::new(LinkVersion::V5, true, START).poll_timeout().is_none());
        assert!(used(LinkVersion::V4, true).poll_timeout().is_none());
        assert!(used(LinkVersion::V5, false).poll_timeout().is_none());
        assert!(used(LinkVersion::V5, true).poll_timeout().is_some());
    }

    #[test]
    fn the_client_can_stop_and_start_it() {
        let mut timer = used(LinkVersion::V5, true);
        let mut rng = rng(2);
        timer.negotiate(PaddingNegotiate::Stop, &PARAMS, START, &mut rng);
        assert_eq!(timer.poll_timeout(), None);
        assert!(!timer.handle_timeout(&PARAMS, START + ms(60_000), &mut rng));
        for _ in 0..100 {
            timer.negotiate(
                PaddingNegotiate::Start { low_ms: 3000, high_ms: 4000 },
                &PARAMS,
                START,
                &mut rng,
            );
            let wait = timer.poll_timeout().unwrap().since(START);
            assert!((ms(3000)..ms(9500)).contains(&wait), "{wait:?}");
        }
    }

    #[test]
    fn no_padding_where_the_consensus_says_so() {
        let off = PaddingParams { low_ms: 0, high_ms: 0 };
        let mut timer = PaddingTimer::new(LinkVersion::V5, true, START);
        timer.circuit_extended(&off, START, &mut rng(3));
        assert_eq!(timer.poll_timeout(), None);
    }

    #[test]
    fn what_is_sent_puts_padding_off() {
        let mut timer = used(LinkVersion::V5, true);
        let mut rng = rng(4);
        let first = timer.poll_timeout().unwrap();
        let busy_until = START + ms(1000);
        timer.sent(busy_until);
        assert!(!timer.handle_timeout(&PARAMS, first, &mut rng));
        let second = timer.poll_timeout().unwrap();
        assert_eq!(second, first + ms(1000));
        assert!(timer.handle_timeout(&PARAMS, second, &mut rng));
        assert!(timer.poll_timeout().unwrap() >= second + ms(1500));
    }

    proptest! {
        #[test]
        fn every_silence_lies_within_the_bounds(low in 0u32..60_000, high in 0u32..60_000, seed: u64) {
            let silence = draw(low, high, &mut rng(seed));
            prop_assert!(silence >= ms(low.into()) && silence <= ms(low.max(high).into()));
        }
    }
}
