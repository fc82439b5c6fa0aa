//! What client and relay agree on in an ntor-v3 handshake beside keys: only what the one asks for and the other grants.

use super::HandshakeError;
use super::extension::{self, CC_RESPONSE, Extensions, HALF_CLOSE};

/// Ways of their own that both ends of a circuit can agree on. Deployed peers know none of them, and the default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Each direction of a stream that BEGIN opens ends by itself, with an END of reason DONE (paper 4.3).
    pub half_close: bool,
}

impl Terms {
    /// What is in both.
    pub fn and(self, other: Terms) -> Terms {
        Terms { half_close: self.half_close && other.half_close }
    }

    /// The extensions with which a client asks for them.
    pub(super) fn request(self) -> Vec<u8> {
        self.list()
    }

    /// What a relay that offers these grants of what a client asks for, with the extensions that say so.
    pub(super) fn grant(self, request: &Extensions<'_>) -> (Terms, Vec<u8>) {
        let granted = Terms { half_close: self.half_close && request.get(HALF_CLOSE).is_some() };
        (granted, granted.list())
    }

    /// What a relay has granted a client that asked for these.
    ///
    /// # Errors
    /// [`HandshakeError::UnrequestedExtension`] if it grants more, or congestion control, which nobody here asks for.
    pub(super) fn granted(self, reply: &Extensions<'_>) -> Result<Terms, HandshakeError> {
        let granted = Terms { half_close: reply.get(HALF_CLOSE).is_some() };
        if reply.get(CC_RESPONSE).is_some() {
            return Err(HandshakeError::UnrequestedExtension(CC_RESPONSE));
        }
        if granted.half_close && !self.half_close {
            return Err(HandshakeError::UnrequestedExtension(HALF_CLOSE));
        }
        Ok(granted)
    }

    /// Peers expect the types in ascending order: what is ours comes last.
    fn list(self) -> Vec<u8> {
        match self.half_close {
            true => extension::encode(&[(HALF_CLOSE, &[])]),
            false => extension::encode(&[]),
        }
    }
}
