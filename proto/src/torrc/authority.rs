//! `DirAuthority` lines: `[nickname] [flags] IPv4:port fingerprint`.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use super::{Item, Origin, Problem, value};
use crate::netdoc::text::{Fingerprint, Nickname};

/// A directory authority as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Authority {
    /// The line it comes from.
    pub origin: Origin,
    /// Its nickname.
    pub nickname: Option<Nickname>,
    /// Digest of its v3 identity key (`v3ident=`), which signs its votes and consensuses. Without one it is no
    /// authority of the consensus.
    pub v3_ident: Option<Fingerprint>,
    /// Where its ORPort is (`orport=`), on the address of `dir`.
    pub or_port: Option<u16>,
    /// Its DirPort.
    pub dir: SocketAddrV4,
    /// Its IPv6 ORPort (`ipv6=`).
    pub ipv6: Option<SocketAddrV6>,
    /// Digest of its relay identity key.
    pub rsa_id: Fingerprint,
    /// Whether it is an authority for bridges (`bridge`).
    pub is_bridge_authority: bool,
    /// Weight when a client chooses among authorities (`weight=`), 1 by default.
    pub weight: f64,
    /// Other places to upload descriptors to (`upload=http://ip:port/`).
    pub upload: Vec<SocketAddr>,
    /// Other places to download from (`download=`).
    pub download: Vec<SocketAddr>,
    /// Other places to exchange votes with (`vote=`).
    pub vote: Vec<SocketAddr>,
}

const FORM: &str =
    "write nickname orport=PORT v3ident=40HEX IP:DIRPORT 40HEX, as the authority's operator publishes it";

/// Parses the value of a `DirAuthority` line.
pub fn parse(item: &Item) -> Result<Authority, Problem> {
    let bad = |what: &str| Problem::with(item, what, FORM);
    let mut words = item.value.split_ascii_whitespace().peekable();
    let nickname = words.next_if(|word| Nickname::new(word).is_some()).and_then(Nickname::new);
    let mut authority = Authority {
        origin: item.origin.clone(),
        nickname,
        v3_ident: None,
        or_port: None,
        dir: SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0),
        ipv6: None,
        rsa_id: Fingerprint([0; 20]),
        is_bridge_authority: false,
        weight: 1.0,
        upload: Vec::new(),
        download: Vec::new(),
        vote: Vec::new(),
    };
    while let Some(word) = words.next_if(|word| !word.starts_with(|c: char| c.is_ascii_digit())) {
        flag(&mut authority, word).map_err(|()| bad(&format!("bad flag {word}")))?;
    }
    let dir = words.next().ok_or_else(|| bad("the address is missing"))?;
    authority.dir = match dir.parse::<SocketAddrV4>() {
        Ok(dir) if dir.port() != 0 => dir,
        _ => return Err(bad(&format!("{dir} is not an IPv4 address with a port"))),
    };
    // Published fingerprints have blanks after every fourth digit.
    let fingerprint: String = words.collect();
    authority.rsa_id = Fingerprint::from_hex(&fingerprint)
        .ok_or_else(|| bad("the fingerprint is not 40 hexadecimal digits"))?;
    Ok(authority)
}

fn flag(authority: &mut Authority, word: &str) -> Result<(), ()> {
    let (key, argument) = word.split_once('=').unwrap_or((word, ""));
    match key.to_ascii_lowercase().as_str() {
        // Left over from versions of the directory protocol that are gone.
        "hs" | "no-hs" | "no-v2" => {}
        "bridge" => authority.is_bridge_authority = true,
        "orport" => {
            authority.or_port = Some(argument.parse().ok().filter(|&port| port != 0).ok_or(())?);
        }
        "weight" => {
            let weight = argument.parse().ok().filter(|&w: &f64| w.is_finite() && w >= 0.0);
            authority.weight = weight.ok_or(())?;
        }
        "v3ident" => authority.v3_ident = Some(Fingerprint::from_hex(argument).ok_or(())?),
        "ipv6" => {
            authority.ipv6 = Some(argument.parse().ok().filter(|a: &SocketAddrV6| a.port() != 0).ok_or(())?);
        }
        "upload" => authority.upload.push(url(argument)?),
        "download" => authority.download.push(url(argument)?),
        "vote" => authority.vote.push(url(argument)?),
        _ => return Err(()),
    }
    Ok(())
}

/// `http://ip:port/`, the one form that C tor takes.
fn url(text: &str) -> Result<SocketAddr, ()> {
    let host = text.strip_prefix("http://").ok_or(())?;
    value::address_port(host.strip_suffix('/').unwrap_or(host)).map_err(|_| ())
}
