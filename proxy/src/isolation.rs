//! Which streams may share a circuit (`Isolate*`, `SessionGroup`).
//!
//! A stream carries a [`Token`]: what is known of who wants it, and which parts of that it must not share a circuit with
//! others over. A circuit keeps a [`Mark`] of the streams that it has carried.

use std::net::IpAddr;
use std::ops::BitOr;

/// Parts of a token by which a stream is kept apart from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Isolate(u8);

impl Isolate {
    /// The port of the destination.
    pub const DEST_PORT: Isolate = Isolate(1);
    /// Its name or address.
    pub const DEST_ADDR: Isolate = Isolate(1 << 1);
    /// User name and password.
    pub const AUTH: Isolate = Isolate(1 << 2);
    /// The protocol by which the application asks.
    pub const PROTOCOL: Isolate = Isolate(1 << 3);
    /// The address of the application.
    pub const CLIENT: Isolate = Isolate(1 << 4);
    /// The session group; always.
    pub const SESSION: Isolate = Isolate(1 << 5);

    /// What a port isolates by that says nothing about it.
    pub const DEFAULT: Isolate = Isolate(Self::AUTH.0 | Self::CLIENT.0 | Self::SESSION.0);

    const ALL: [Isolate; 6] =
        [Self::DEST_PORT, Self::DEST_ADDR, Self::AUTH, Self::PROTOCOL, Self::CLIENT, Self::SESSION];

    /// Whether all of `other` is in it.
    pub fn has(self, other: Isolate) -> bool {
        self.0 & other.0 == other.0
    }

    /// It without `other`.
    pub fn without(self, other: Isolate) -> Isolate {
        Isolate(self.0 & !other.0)
    }
}

impl BitOr for Isolate {
    type Output = Isolate;

    fn bitor(self, other: Isolate) -> Isolate {
        Isolate(self.0 | other.0)
    }
}

/// The protocol by which an application asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SOCKS, version 4 and 4a.
    Socks4,
    /// SOCKS, version 5.
    Socks5,
    /// HTTP CONNECT.
    Http,
    /// DNS.
    Dns,
    /// A connection that the system redirects.
    Transparent,
}

/// User name and password.
pub type Credentials = (Box<[u8]>, Box<[u8]>);

/// What is known of a stream and of who wants it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// What it must not share a circuit with others over.
    pub isolate: Isolate,
    /// Its port among the program's, or the number of a `SessionGroup`.
    pub session: i32,
    /// The application's address; `None` for a Unix socket.
    pub client: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// User name and password.
    pub auth: Option<Credentials>,
    /// The destination, in lower case.
    pub dest_addr: Box<str>,
    /// Its port.
    pub dest_port: u16,
    /// Whether a circuit for this user name and password is used for as long as there are streams for them
    /// (`KeepAliveIsolateSOCKSAuth`).
    pub keep_alive: bool,
}

impl Token {
    /// In which of its parts it is not like `other`.
    fn differs(&self, other: &Token) -> Isolate {
        let differences = [
            (Isolate::DEST_PORT, self.dest_port != other.dest_port),
            (Isolate::DEST_ADDR, self.dest_addr != other.dest_addr),
            (Isolate::AUTH, self.auth != other.auth),
            (Isolate::PROTOCOL, self.protocol != other.protocol),
            (Isolate::CLIENT, self.client != other.client),
            (Isolate::SESSION, self.session != other.session),
        ];
        differences
            .into_iter()
            .filter(|(_, differs)| *differs)
            .fold(Isolate::default(), |all, (part, _)| all | part)
    }
}

/// What a circuit knows of the streams that it has carried.
#[derive(Clone, Debug, Default)]
pub struct Mark(Option<Carried>);

#[derive(Clone, Debug)]
struct Carried {
    first: Token,
    /// Parts in which its streams were not all alike.
    mixed: Isolate,
    /// Parts over which one of them must not share.
    isolate: Isolate,
}

impl Mark {
    /// Whether the circuit has carried nothing yet.
    pub fn is_clean(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a stream with this token may join.
    pub fn admits(&self, token: &Token) -> bool {
        self.0.as_ref().is_none_or(|carried| {
            let apart = token.isolate | carried.isolate;
            let differs = carried.mixed | carried.first.differs(token);
            !Isolate::ALL.into_iter().any(|part| apart.has(part) && differs.has(part))
        })
    }

    /// A stream with this token joins.
    pub fn join(&mut self, token: &Token) {
        match &mut self.0 {
            None => {
                let (first, isolate) = (token.clone(), token.isolate);
                self.0 = Some(Carried { first, mixed: Isolate::default(), isolate });
            }
            Some(carried) => {
                carried.mixed = carried.mixed | carried.first.differs(token);
                carried.isolate = carried.isolate | token.isolate;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            isolate: Isolate::DEFAULT,
            session: -1,
            client: Some(IpAddr::from([127, 0, 0, 1])),
            protocol: Protocol::Socks5,
            auth: None,
            dest_addr: "example.com".into(),
            dest_port: 443,
            keep_alive: false,
        }
    }

    fn mark(tokens: &[&Token]) -> Mark {
        let mut mark = Mark::default();
        tokens.iter().for_each(|token| mark.join(token));
        mark
    }

    #[test]
    fn a_clean_circuit_takes_anybody() {
        assert!(Mark::default().is_clean() && Mark::default().admits(&token()));
    }

    #[test]
    fn each_part_keeps_apart_if_either_side_says_so() {
        let base = Token { isolate: Isolate::default(), ..token() };
        let others = [
            (Isolate::DEST_PORT, Token { dest_port: 80, ..base.clone() }),
            (Isolate::DEST_ADDR, Token { dest_addr: "example.org".into(), ..base.clone() }),
            (Isolate::AUTH, Token { auth: Some((b"a".as_slice().into(), [].into())), ..base.clone() }),
            (Isolate::PROTOCOL, Token { protocol: Protocol::Http, ..base.clone() }),
            (Isolate::CLIENT, Token { client: None, ..base.clone() }),
            (Isolate::SESSION, Token { session: 7, ..base.clone() }),
        ];
        for (part, other) in others {
            assert!(mark(&[&base]).admits(&other), "nobody isolates by {part:?}");
            let strict = Token { isolate: part, ..other.clone() };
            assert!(!mark(&[&base]).admits(&strict), "the second isolates by {part:?}");
            assert!(!mark(&[&strict]).admits(&base), "the first isolates by {part:?}");
            let alike = Token { isolate: part, ..base.clone() };
            assert!(mark(&[&base]).admits(&alike), "alike in {part:?}");
        }
    }

    #[test]
    fn a_mixed_circuit_takes_nobody_who_isolates_by_what_is_mixed() {
        let lax = Token { isolate: Isolate::default(), ..token() };
        let elsewhere = Token { dest_port: 80, ..lax.clone() };
        let strict = Token { isolate: Isolate::DEST_PORT, ..lax.clone() };
        let mark = mark(&[&lax, &elsewhere]);
        assert!(mark.admits(&lax) && !mark.admits(&strict));
    }
}
