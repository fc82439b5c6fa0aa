//! `FallbackDir` lines: `IPv4:dirport orport=PORT id=40HEX [weight=] [ipv6=[address]:port]`.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::{Item, Origin, Problem};
use crate::netdoc::text::Fingerprint;

/// A relay from which a client may fetch its first consensus.
#[derive(Clone, Debug, PartialEq)]
pub struct Fallback {
    /// The line it comes from.
    pub origin: Origin,
    /// Where its ORPort is.
    pub or: SocketAddr,
    /// Its IPv6 ORPort (`ipv6=`).
    pub ipv6: Option<SocketAddrV6>,
    /// Digest of its relay identity key (`id=`).
    pub rsa_id: Fingerprint,
    /// Weight when a client chooses among fallbacks (`weight=`), 1 by default.
    pub weight: f64,
}

const FORM: &str = "write IP:DIRPORT orport=PORT id=40HEX, as the relay's operator publishes it";

/// Parses the value of a `FallbackDir` line. Its DirPort is not used, and words of the form `key=value` that are not
/// known are passed over, both as in C tor.
pub fn parse(item: &Item) -> Result<Fallback, Problem> {
    let bad = |what: &str| Problem::with(item, what, FORM);
    let (mut address, mut or_port, mut rsa_id, mut ipv6, mut weight) = (None, None, None, None, 1.0);
    for word in item.value.split_ascii_whitespace() {
        let refused = || bad(&format!("bad word {word}"));
        let Some((key, argument)) = word.split_once('=') else {
            let only = address.replace(self::address(word).ok_or_else(refused)?).is_none();
            only.then_some(()).ok_or_else(|| bad("there is more than one address"))?;
            continue;
        };
        match key {
            "orport" => {
                or_port = Some(argument.parse().ok().filter(|&port: &u16| port != 0).ok_or_else(refused)?);
            }
            "id" => rsa_id = Some(Fingerprint::from_hex(argument).ok_or_else(refused)?),
            "weight" => {
                let number = argument.parse().ok().filter(|&w: &f64| w.is_finite() && w >= 0.0);
                weight = number.ok_or_else(refused)?;
            }
            _ if key.eq_ignore_ascii_case("ipv6") => {
                let place = argument.parse().ok().filter(|a: &SocketAddrV6| a.port() != 0);
                ipv6 = Some(place.ok_or_else(refused)?);
            }
            _ => {}
        }
    }
    let address = address.ok_or_else(|| bad("the address is missing"))?;
    let or_port = or_port.ok_or_else(|| bad("orport= is missing"))?;
    let rsa_id = rsa_id.filter(|id| id.0 != [0; 20]).ok_or_else(|| bad("id= is missing"))?;
    let or = SocketAddr::new(address, or_port);
    Ok(Fallback { origin: item.origin.clone(), or, ipv6, rsa_id, weight })
}

/// An address, with or without a port.
fn address(word: &str) -> Option<IpAddr> {
    word.parse().or_else(|_| word.parse().map(|address: SocketAddr| address.ip())).ok()
}
