//! What becomes of a link as time passes: padding, a handshake that takes too long, refusals that a peer does not take, idleness.

use onionring_proto::cell::{CircId, Command, write_zero_filled};
use onionring_proto::link::PaddingTimer;
use onionring_proto::time::Mono;

use super::{Link, LinkEnd, State};
use crate::engine::Engine;
use crate::engine::ids::LinkId;
use crate::engine::timer::Timer;

impl Engine {
    /// A circuit of a client went on beyond this relay, which is when its link begins to be padded.
    pub(in crate::engine) fn link_extended(&mut self, now: Mono, id: LinkId) {
        let params = self.snapshot.params.padding;
        if let Some(padding) = self.links.get_mut(&id).and_then(|link| link.padding.as_mut()) {
            padding.circuit_extended(&params, now, &mut self.rng);
            self.arm_padding(id);
        }
    }

    pub(super) fn arm_padding(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.padding.as_ref().and_then(PaddingTimer::poll_timeout) {
            Some(at) => self.timers.set(&mut link.padding_timer, at, Timer::Padding(id)),
            None => self.timers.cancel(&mut link.padding_timer),
        }
    }

    pub(in crate::engine) fn padding_timeout(&mut self, now: Mono, id: LinkId) {
        let params = self.snapshot.params.padding;
        let Some(Link { state: State::Open(facts), padding: Some(padding), queue, .. }) =
            self.links.get_mut(&id)
        else {
            return;
        };
        // What waits already will do as padding.
        if padding.handle_timeout(&params, now, &mut self.rng) && queue.is_empty() {
            let mut cell = Vec::with_capacity(facts.version.cell_len());
            write_zero_filled(facts.version, CircId::LINK, Command::PADDING, &[], &mut cell);
            queue.push_urgent(&cell);
            self.counters.padding_sent += 1;
            self.tell_writable(id);
        }
        self.arm_padding(id);
    }

    pub(in crate::engine) fn handshake_timeout(&mut self, now: Mono, id: LinkId) {
        if let Some(Link { state: State::Handshake(_), .. }) = self.links.get(&id) {
            self.close_link(now, id, LinkEnd::Timeout);
        }
    }

    pub(in crate::engine) fn overrun_timeout(&mut self, now: Mono, id: LinkId) {
        self.close_link(now, id, LinkEnd::Overrun);
    }

    pub(in crate::engine) fn idle_timeout(&mut self, now: Mono, id: LinkId) {
        if let Some(link) = self.links.get(&id)
            && link.circuits == 0
            && now.since(link.idle_since) >= link.idle_limit
        {
            self.close_link(now, id, LinkEnd::Idle);
        }
    }
}
