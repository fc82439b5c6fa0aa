//! Ports that applications talk to: `SocksPort`, `HTTPTunnelPort`, `DNSPort`, `TransPort`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::{Item, Note, Origin, Problem};
use super::{Place, contradiction, place};
use crate::policy::is_internal;

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKind {
    /// SOCKS (`SocksPort`).
    Socks,
    /// HTTP CONNECT (`HTTPTunnelPort`).
    Http,
    /// DNS (`DNSPort`).
    Dns,
    /// Whatever the application speaks; the system redirects it (`TransPort`).
    Transparent,
}

impl ClientKind {
    /// All kinds.
    pub const ALL: [ClientKind; 4] =
        [ClientKind::Socks, ClientKind::Http, ClientKind::Dns, ClientKind::Transparent];

    /// The option.
    pub const fn option(self) -> &'static str {
        match self {
            ClientKind::Socks => "SocksPort",
            ClientKind::Http => "HTTPTunnelPort",
            ClientKind::Dns => "DNSPort",
            ClientKind::Transparent => "TransPort",
        }
    }

    /// Whether it may be a socket file.
    const fn takes_files(self) -> bool {
        matches!(self, ClientKind::Socks | ClientKind::Http)
    }
}

/// Where applications find a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientPlace {
    /// An address; port 0 is any that is free (`auto`).
    Address(SocketAddr),
    /// A socket file.
    File(String),
}

/// By what streams of a port are kept on circuits of their own (`Isolate*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsolateBy {
    /// The application's address; means nothing for a socket file.
    pub client_addr: bool,
    /// User name and password.
    pub socks_auth: bool,
    /// The protocol.
    pub client_protocol: bool,
    /// The port of the destination.
    pub dest_port: bool,
    /// The destination's name or address.
    pub dest_addr: bool,
}

/// A port for applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPort {
    /// The line it comes from.
    pub origin: Origin,
    /// What is spoken there.
    pub kind: ClientKind,
    /// Where it is.
    pub place: ClientPlace,
    /// By what its streams are kept apart.
    pub isolate: IsolateBy,
    /// Its streams may share circuits with those of other ports of this group (`SessionGroup`).
    pub session_group: Option<i32>,
    /// Streams with a user name may use their circuit as long as they keep coming (`KeepAliveIsolateSOCKSAuth`).
    pub keep_alive: bool,
    /// Streams may lead to IPv4 addresses.
    pub ipv4: bool,
    /// Streams may lead to IPv6 addresses.
    pub ipv6: bool,
    /// To IPv6 rather than IPv4, where there are both.
    pub prefer_ipv6: bool,
    /// Names may be asked for that an exit has to look up.
    pub dns_request: bool,
    /// Onion services may be asked for.
    pub onion: bool,
    /// Say more about onion services that cannot be reached (proposal 304).
    pub extended_errors: bool,
    /// Of an application that offers both, no password is asked for.
    pub prefer_no_auth: bool,
    /// A socket file that the group may use.
    pub group_writable: bool,
    /// A socket file that everybody may use.
    pub world_writable: bool,
    /// The directory of a socket file may be open to readers.
    pub relax_dir_mode_check: bool,
}

impl ClientPort {
    /// A port as a line without flags makes it.
    pub fn new(origin: Origin, kind: ClientKind, place: ClientPlace) -> ClientPort {
        let isolate = IsolateBy {
            client_addr: matches!(place, ClientPlace::Address(_)),
            socks_auth: true,
            client_protocol: false,
            dest_port: false,
            dest_addr: false,
        };
        ClientPort {
            origin,
            kind,
            place,
            isolate,
            session_group: None,
            keep_alive: false,
            ipv4: true,
            ipv6: true,
            prefer_ipv6: false,
            dns_request: true,
            onion: true,
            extended_errors: false,
            prefer_no_auth: false,
            group_writable: false,
            world_writable: false,
            relax_dir_mode_check: false,
        }
    }

    /// What the operator should know of who can reach it.
    fn exposure(&self) -> Option<Note> {
        let ClientPlace::Address(address) = self.place else { return None };
        let option = self.kind.option();
        let text = match address.ip() {
            ip if ip.is_loopback() => return None,
            ip if ip.is_unspecified() || !is_internal(ip) => format!(
                "{option} {address} can be reached from other networks: anybody who finds it can use this computer as an \
                 open proxy; use a loopback address, or let SocksPolicy say who may"
            ),
            _ => format!(
                "{option} {address} can be reached by everybody in the local network, who can use this computer as a \
                 proxy; use a loopback address unless that is meant"
            ),
        };
        Some(Note { origin: self.origin.clone(), text })
    }
}

/// The ports of one kind. Without a line there is none, but for SOCKS, which then has 127.0.0.1:9050. `group_writable` is
/// the default of socket files (`UnixSocksGroupWritable`).
pub fn client_ports(
    kind: ClientKind,
    items: &[Item],
    group_writable: bool,
    problems: &mut Vec<Problem>,
    notes: &mut Vec<Note>,
) -> Vec<ClientPort> {
    if items.is_empty() && kind == ClientKind::Socks {
        let place = ClientPlace::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 9050)));
        return vec![ClientPort::new(Origin::Default, kind, place)];
    }
    let mut ports = Vec::new();
    let mut off = Vec::new();
    for item in items {
        match client_line(kind, item, group_writable, notes) {
            Ok(Some(port)) => ports.push(port),
            Ok(None) => off.push(item),
            Err(problem) => problems.push(problem),
        }
    }
    contradiction(items, &off, problems);
    notes.extend(ports.iter().filter_map(ClientPort::exposure));
    ports
}

fn client_line(
    kind: ClientKind,
    item: &Item,
    group_writable: bool,
    notes: &mut Vec<Note>,
) -> Result<Option<ClientPort>, Problem> {
    let (place, flags) = match item.value.strip_prefix("unix:") {
        Some(_) if !kind.takes_files() => {
            return Err(Problem::with(
                item,
                "a socket file is not possible here",
                "write an address and a port",
            ));
        }
        Some(rest) => {
            let (path, flags) = file(item, rest)?;
            (ClientPlace::File(path), flags)
        }
        None => {
            let (word, flags) = item.value.split_once([' ', '\t']).unwrap_or((&item.value, ""));
            match place(item, word)? {
                // The flags of a port that is off are checked too.
                Place::Off => {
                    let nowhere = ClientPlace::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
                    flags_of(ClientPort::new(item.origin.clone(), kind, nowhere), item, flags, notes)?;
                    return Ok(None);
                }
                Place::At(address, port) => {
                    let ip = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                    (ClientPlace::Address(SocketAddr::new(ip, port.to_bind())), flags)
                }
            }
        }
    };
    let mut port = ClientPort::new(item.origin.clone(), kind, place);
    port.group_writable = group_writable && matches!(port.place, ClientPlace::File(_));
    flags_of(port, item, flags, notes).map(Some)
}

/// The path after `unix:`, which may be in quotes, and what follows it.
fn file<'a>(item: &Item, rest: &'a str) -> Result<(String, &'a str), Problem> {
    let (path, flags) = match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted).ok_or_else(|| {
            Problem::with(item, "the quotes around the path do not end", "write unix:\"/path\"")
        })?,
        None => {
            let (path, flags) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
            (path.to_owned(), flags)
        }
    };
    if !path.starts_with('/') {
        return Err(Problem::with(
            item,
            "not the full path of a socket file",
            "write unix: and a path from / on",
        ));
    }
    Ok((path, flags))
}

/// The text up to the next quote that has no backslash before it, and what follows.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(chars.next()?.1),
            c => text.push(c),
        }
    }
    None
}

const FLAGS: &str = "use the flags of C tor's SocksPort (man tor), such as IsolateDestAddr or NoIPv6Traffic";

/// Of a memory for names, of which there is none.
const CACHES: [&str; 6] =
    ["cacheipv4dns", "cacheipv6dns", "cachedns", "useipv4cache", "useipv6cache", "usednscache"];

fn flags_of(
    mut port: ClientPort,
    item: &Item,
    flags: &str,
    notes: &mut Vec<Note>,
) -> Result<ClientPort, Problem> {
    let mut file_only = None;
    for word in flags.split_ascii_whitespace() {
        let lower = word.to_ascii_lowercase();
        if let Some(number) = lower.strip_prefix("sessiongroup=") {
            let group = number.parse::<i32>().ok().filter(|group| *group >= 0);
            let Some(group) = group else {
                let what = format!("{word} has no number from 0 to {}", i32::MAX);
                return Err(Problem::with(item, what, "write SessionGroup= and a number"));
            };
            if port.session_group.replace(group).is_some() {
                return Err(Problem::with(item, "more than one SessionGroup", "leave one of them"));
            }
            continue;
        }
        let (flag, on) = match lower.strip_prefix("no") {
            Some(flag) => (flag, false),
            None => (lower.as_str(), true),
        };
        match flag {
            "ipv4traffic" => port.ipv4 = on,
            "ipv6traffic" => port.ipv6 = on,
            "preferipv6" => port.prefer_ipv6 = on,
            "dnsrequest" => port.dns_request = on,
            "oniontraffic" => port.onion = on,
            "oniontrafficonly" if on => (port.ipv4, port.ipv6, port.dns_request) = (false, false, false),
            "extendederrors" => port.extended_errors = on,
            "prefersocksnoauth" => port.prefer_no_auth = on,
            "keepaliveisolatesocksauth" => port.keep_alive = on,
            cache if CACHES.contains(&cache) => {
                if on {
                    let text = format!(
                        "{word} has no effect: answers to names are not kept, which would link streams"
                    );
                    notes.push(Note { origin: item.origin.clone(), text });
                }
            }
            // Of addresses that stand for names, of which there are none.
            "preferipv6automap" => {}
            "groupwritable" => (port.group_writable, file_only) = (on, Some(word)),
            "worldwritable" => (port.world_writable, file_only) = (on, Some(word)),
            "relaxdirmodecheck" => (port.relax_dir_mode_check, file_only) = (on, Some(word)),
            _ => {
                let by = &mut port.isolate;
                // C tor takes each of these in the plural too.
                match flag.strip_suffix('s').unwrap_or(flag) {
                    "isolateclientaddr" => by.client_addr = on,
                    "isolatesocksauth" => by.socks_auth = on,
                    "isolateclientprotocol" => by.client_protocol = on,
                    "isolatedestport" => by.dest_port = on,
                    "isolatedestaddr" => by.dest_addr = on,
                    _ => return Err(Problem::with(item, format!("unknown flag {word}"), FLAGS)),
                }
            }
        }
    }
    let is_file = matches!(port.place, ClientPlace::File(_));
    if let Some(word) = file_only.filter(|_| !is_file) {
        let what = format!("{word} is about a socket file, and this is none");
        return Err(Problem::with(item, what, "remove it, or write unix: and a path"));
    }
    port.isolate.client_addr &= !is_file;
    port.prefer_no_auth |= !port.isolate.socks_auth;
    check(port, item)
}

/// Flags that leave nothing to do.
fn check(port: ClientPort, item: &Item) -> Result<ClientPort, Problem> {
    let problem = |what: &str, remedy: &str| Err(Problem::with(item, what, remedy));
    let is_dns = port.kind == ClientKind::Dns;
    let no_ip = !port.ipv4 && !port.ipv6;
    if is_dns && !port.dns_request {
        return problem("a DNSPort that may not look up names", "remove NoDNSRequest or OnionTrafficOnly");
    }
    if !is_dns && no_ip && !port.onion {
        return problem(
            "IPv4, IPv6 and onion services are all off",
            "remove one of the flags that turn them off",
        );
    }
    if !is_dns && no_ip && port.dns_request {
        return problem(
            "names may be looked up, but neither IPv4 nor IPv6 be used",
            "write OnionTrafficOnly instead",
        );
    }
    if port.keep_alive && !port.isolate.socks_auth {
        let what = "KeepAliveIsolateSOCKSAuth beside NoIsolateSOCKSAuth";
        return problem(what, "remove one of them");
    }
    Ok(port)
}
