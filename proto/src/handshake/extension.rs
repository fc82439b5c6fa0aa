//! The lists of extensions in ntor-v3 messages: `n u8 | n x { type u8, len u8, body }` (proposal 332).

use super::HandshakeError;

/// The client asks for congestion control (proposal 324); no body.
pub const CC_REQUEST: u8 = 1;

/// The relay grants congestion control; the body is its SENDME increment.
pub const CC_RESPONSE: u8 = 2;

/// The client demands protocol versions; the body is a list of `{ protocol u8, version u8 }` (proposal 346).
pub const SUBPROTO_REQUEST: u8 = 3;

/// Ours: the client asks for streams whose directions end one by one, and the relay grants it with the same type. No
/// body; one that comes all the same is ignored. Deployed relays ignore the type.
pub const HALF_CLOSE: u8 = 0xE0;

/// A list of extensions. Repeated types are allowed, only the first counts; so are bytes after the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions<'a> {
    /// The entries, checked to be complete.
    entries: &'a [u8],
}

impl<'a> Extensions<'a> {
    /// Reads a list. An empty message is not one: the empty list is a single zero.
    ///
    /// # Errors
    /// [`HandshakeError::MalformedExtensions`] if it is cut short.
    pub fn parse(message: &'a [u8]) -> Result<Self, HandshakeError> {
        let (count, entries) = message.split_first().ok_or(HandshakeError::MalformedExtensions)?;
        let mut rest = entries;
        for _ in 0..*count {
            (.., rest) = split_entry(rest).ok_or(HandshakeError::MalformedExtensions)?;
        }
        Ok(Self { entries: &entries[..entries.len() - rest.len()] })
    }

    /// All entries as type and body, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.entries;
        std::iter::from_fn(move || {
            let (kind, body, tail) = split_entry(rest)?;
            rest = tail;
            Some((kind, body))
        })
    }

    /// The body of the first entry of type `kind`.
    pub fn get(&self, kind: u8) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == kind).map(|(_, body)| body)
    }
}

/// The type and body of the first entry, and what follows it.
fn split_entry(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [kind, len, rest @ ..] = bytes else { return None };
    let (body, tail) = rest.split_at_checked(usize::from(*len))?;
    Some((*kind, body, tail))
}

/// Writes a list; peers expect the types in ascending order.
///
/// # Panics
/// If there are more than 255 entries, or more than 255 bytes in one.
pub fn encode(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let byte = |len: usize| u8::try_from(len).expect("an extension list that its length fields can express");
    let mut out = vec![byte(entries.len())];
    for (kind, body) in entries {
        out.extend_from_slice(&[*kind, byte(body.len())]);
        out.extend_from_slice(body);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_the_stock_client() {
        let list = Extensions::parse(&[2, 1, 0, 3, 2, 2, 6]).unwrap();
        assert_eq!(list.get(CC_REQUEST), Some(&[][..]));
        assert_eq!(list.get(SUBPROTO_REQUEST), Some(&[2, 6][..]));
        assert_eq!(list.get(CC_RESPONSE), None);
    }

    #[test]
    fn the_first_of_a_type_counts_and_a_tail_is_ignored() {
        let list = Extensions::parse(&[2, 9, 1, 7, 9, 1, 8, 3, 0]).unwrap();
        assert_eq!(list.get(9), Some(&[7][..]));
        assert_eq!(list.get(3), None);
        assert_eq!(list.iter().count(), 2);
    }

    #[test]
    fn refuses_lists_that_are_cut_short() {
        let whole = [2, 1, 0, 3, 2, 2, 6];
        for len in 0..whole.len() {
            assert_eq!(Extensions::parse(&whole[..len]), Err(HandshakeError::MalformedExtensions));
        }
        assert_eq!(Extensions::parse(&[255]), Err(HandshakeError::MalformedExtensions));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(list) = Extensions::parse(&bytes) {
                prop_assert_eq!(list.iter().count(), usize::from(bytes[0]));
            }
        }

        #[test]
        fn round_trip(
            entries in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..256)), 0..20),
        ) {
            let borrowed: Vec<_> = entries.iter().map(|(kind, body)| (*kind, &body[..])).collect();
            let encoded = encode(&borrowed);
            prop_assert_eq!(Extensions::parse(&encoded).unwrap().iter().collect::<Vec<_>>(), borrowed);
        }
    }
}
