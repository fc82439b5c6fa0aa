//! Cells on an open link that concern the link itself.

use super::LinkError;
use super::msg::PaddingNegotiate;
use crate::cell::{CircId, Command, Frame, LinkVersion};

/// What to do with a cell of an open link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to the circuit it names, if there is one.
    Circuit,
    /// It is padding, unknown, or meaningless here: drop it.
    Ignore,
    /// The client wants the link padded otherwise: tell the padding timer.
    Padding(PaddingNegotiate),
}

/// Judges a cell of an open link.
///
/// Unknown commands, circuit cells without a circuit, and a malformed or misplaced PADDING_NEGOTIATE are ignored, as
/// are a second VERSIONS or NETINFO; a second try at authentication closes the link. All of this is what C tor does.
#[inline]
pub fn judge(version: LinkVersion, frame: &Frame<'_>) -> Result<Verdict, LinkError> {
    match (frame.command(), frame) {
        (
            Command::RELAY
            | Command::RELAY_EARLY
            | Command::DESTROY
            | Command::CREATE
            | Command::CREATED
            | Command::CREATE_FAST
            | Command::CREATED_FAST
            | Command::CREATE2
            | Command::CREATED2,
            _,
        ) if frame.circ_id() != CircId::LINK => Ok(Verdict::Circuit),
        (Command::PADDING_NEGOTIATE, Frame::Fixed { body, .. }) if version >= LinkVersion::V5 => {
            Ok(PaddingNegotiate::parse(body).map_or(Verdict::Ignore, Verdict::Padding))
        }
        (command @ (Command::CERTS | Command::AUTH_CHALLENGE | Command::AUTHENTICATE), _) => {
            Err(LinkError::UnexpectedCell(command))
        }
        _ => Ok(Verdict::Ignore),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{BODY_LEN, Body};

    fn fixed(
        version: LinkVersion,
        command: Command,
        circ_id: u32,
        start: &[u8],
    ) -> Result<Verdict, LinkError> {
        let mut body: Body = [0; BODY_LEN];
        body[..start.len()].copy_from_slice(start);
        judge(version, &Frame::Fixed { circ_id: CircId(circ_id), command, body: &mut body })
    }

    #[test]
    fn circuit_cells_need_a_circuit() {
        for command in [1, 2, 3, 4, 5, 6, 9, 10, 11].map(Command) {
            assert_eq!(fixed(LinkVersion::V4, command, 7, &[]), Ok(Verdict::Circuit));
            assert_eq!(fixed(LinkVersion::V4, command, 0, &[]), Ok(Verdict::Ignore));
        }
    }

    #[test]
    fn padding_and_unknown_cells_are_ignored() {
        for command in [Command::PADDING, Command::NETINFO, Command(13), Command(127)] {
            assert_eq!(fixed(LinkVersion::V5, command, 0, &[]), Ok(Verdict::Ignore));
            assert_eq!(fixed(LinkVersion::V5, command, 9, &[]), Ok(Verdict::Ignore));
        }
        for command in [Command::VERSIONS, Command::VPADDING, Command::AUTHORIZE, Command(255)] {
            let frame = Frame::Variable { circ_id: CircId(0), command, body: &mut [] };
            assert_eq!(judge(LinkVersion::V5, &frame), Ok(Verdict::Ignore));
        }
    }

    #[test]
    fn nobody_authenticates_later() {
        for command in [Command::CERTS, Command::AUTH_CHALLENGE, Command::AUTHENTICATE] {
            let frame = Frame::Variable { circ_id: CircId(0), command, body: &mut [] };
            assert_eq!(judge(LinkVersion::V5, &frame), Err(LinkError::UnexpectedCell(command)));
        }
    }

    #[test]
    fn padding_is_negotiated_on_v5_only() {
        let negotiate = |version, start: &[u8]| fixed(version, Command::PADDING_NEGOTIATE, 0, start);
        assert_eq!(negotiate(LinkVersion::V5, &[0, 1]), Ok(Verdict::Padding(PaddingNegotiate::Stop)));
        let start = PaddingNegotiate::Start { low_ms: 0x0102, high_ms: 0x0304 };
        assert_eq!(negotiate(LinkVersion::V5, &[0, 2, 1, 2, 3, 4]), Ok(Verdict::Padding(start)));
        for malformed in [[1, 2], [0, 0], [0, 3]] {
            assert_eq!(negotiate(LinkVersion::V5, &malformed), Ok(Verdict::Ignore));
        }
        assert_eq!(negotiate(LinkVersion::V4, &[0, 1]), Ok(Verdict::Ignore));
    }
}
