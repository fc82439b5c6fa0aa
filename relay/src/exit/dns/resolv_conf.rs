//! `resolv.conf` as resolv.conf(5) describes it.

use crate::limits;
use hickory_proto::rr::Name;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};

/// Where the system keeps its list of name servers.
pub const SYSTEM_PATH: &str = "/etc/resolv.conf";

/// What a `resolv.conf` says, as far as an exit relay uses it. Time-outs and attempts in it are not used: the
/// consensus sets them for all exits (`exit_dns_timeout`, `exit_dns_num_attempts`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// Servers in the order of the file; never empty.
    pub servers: Vec<SocketAddr>,
    /// Domains to search, used only with `ServerDNSSearchDomains`.
    pub search: Vec<Name>,
    /// Names with at least this many dots are asked as they are before the search domains are tried.
    pub ndots: usize,
    /// Whether questions go round all servers (`options rotate`) or to the first that works.
    pub rotate: bool,
}

/// Why a `resolv.conf` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ResolvConfError {
    /// The file is unreadable.
    #[error(
        "cannot read {path}: {source}; set ServerDNSResolvConfFile to a readable file with a nameserver line"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A `nameserver` line does not name an address.
    #[error("{path}, line {line}: {value:?} is not an IP address; write `nameserver 192.0.2.1`")]
    BadServer {
        /// The file.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// What stands there.
        value: String,
    },
}

impl ResolvConf {
    /// Asks the resolver of this host, as the system does without a file.
    pub fn local() -> Self {
        let servers = vec![SocketAddr::new(IpAddr::from([127, 0, 0, 1]), DNS_PORT)];
        ResolvConf { servers, search: Vec::new(), ndots: 1, rotate: false }
    }

    /// Reads `path`, and gives what is wrong in it beside the rest.
    pub fn read(path: &Path) -> Result<(Self, Vec<ResolvConfError>), ResolvConfError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ResolvConfError::Unreadable { path: path.to_owned(), source })?;
        Ok(Self::parse(path, &text))
    }

    /// Parses the text of the file `path` (named in errors only). Unknown keywords and options are ignored, as every
    /// resolver does; a file without servers means the one on this host. Lines that make no sense are left out.
    pub fn parse(path: &Path, text: &str) -> (Self, Vec<ResolvConfError>) {
        let mut bad = Vec::new();
        let mut conf = ResolvConf { servers: Vec::new(), search: Vec::new(), ndots: 1, rotate: false };
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword {
                "nameserver" => {
                    let value = words.next().unwrap_or_default();
                    let Some(server) = parse_server(value) else {
                        let (path, value) = (path.to_owned(), value.to_owned());
                        bad.push(ResolvConfError::BadServer { path, line: index + 1, value });
                        continue;
                    };
                    if conf.servers.len() < limits::DNS_SERVERS && !conf.servers.contains(&server) {
                        conf.servers.push(server);
                    }
                }
                // The last of several lines counts.
                "search" => conf.search = words.filter_map(parse_domain).collect(),
                "domain" => conf.search = words.next().and_then(parse_domain).into_iter().collect(),
                "options" => words.for_each(|option| conf.set_option(option)),
                _ => {}
            }
        }
        conf.search.truncate(limits::DNS_SEARCH_DOMAINS);
        if conf.servers.is_empty() {
            conf.servers = Self::local().servers;
        }
        (conf, bad)
    }

    fn set_option(&mut self, option: &str) {
        match option.split_once(':') {
            None if option == "rotate" => self.rotate = true,
            Some(("ndots", n)) => self.ndots = n.parse::<usize>().unwrap_or(1).min(15),
            _ => {}
        }
    }
}

const DNS_PORT: u16 = 53;

/// An address of a name server: `192.0.2.1`, `2001:db8::1`, `fe80::1%2`, and with a port `192.0.2.1:5353` or
/// `[2001:db8::1]:5353` (an extension of libevent, which C tor uses, and of the tests).
fn parse_server(value: &str) -> Option<SocketAddr> {
    if let Ok(address) = value.parse::<SocketAddr>() {
        return Some(address);
    }
    if let Ok(ip) = value.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, DNS_PORT));
    }
    let (ip, zone) = value.split_once('%')?;
    let scope = zone.parse().ok().or_else(|| interface_index(zone))?;
    Some(SocketAddr::V6(SocketAddrV6::new(ip.parse::<Ipv6Addr>().ok()?, DNS_PORT, 0, scope)))
}

fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

fn parse_domain(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (ResolvConf, Vec<ResolvConfError>) {
        ResolvConf::parse(Path::new("resolv.conf"), text)
    }

    #[test]
    fn reads_what_resolv_conf_5_describes() {
        let (conf, bad) = parse(
            "# a comment\n; another\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\nnameserver 192.0.2.1\n\
             nameserver 127.0.0.7:5353\nnameserver fe80::1%3\nsearch ignored.example\nsearch a.example b.example.\n\
             options ndots:2 timeout:9 rotate edns0\nsortlist 130.155.160.0\n",
        );
        assert!(bad.is_empty(), "{bad:?}");
        let expected: Vec<SocketAddr> =
            ["192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.7:5353", "[fe80::1%3]:53"]
                .map(|s| s.parse().unwrap())
                .to_vec();
        assert_eq!(conf.servers, expected);
        assert_eq!(conf.search, ["a.example.", "b.example."].map(|s| Name::from_ascii(s).unwrap()));
        assert_eq!((conf.ndots, conf.rotate), (2, true));
    }

    #[test]
    fn no_server_means_the_local_one() {
        assert_eq!(parse("search example\n").0.servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn a_bad_server_is_named_with_its_line_and_left_out() {
        let (conf, bad) = parse("\nnameserver dns.example\nnameserver 192.0.2.1\n");
        assert_eq!(conf.servers, ["192.0.2.1:53".parse().unwrap()]);
        assert_eq!(bad.len(), 1);
        let error = bad[0].to_string();
        assert!(error.contains("line 2") && error.contains("dns.example"), "{error}");
    }

    #[test]
    fn everything_is_bounded() {
        let mut text: String = (0..100).map(|i| format!("nameserver 192.0.2.{i}\n")).collect();
        text.push_str("search");
        text.extend((0..100).map(|i| format!(" d{i}.example")));
        text.push_str("\noptions ndots:9999\n");
        let (conf, _) = parse(&text);
        assert_eq!(conf.servers.len(), limits::DNS_SERVERS);
        assert_eq!(conf.search.len(), limits::DNS_SEARCH_DOMAINS);
        assert_eq!(conf.ndots, 15);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_keywords(words in proptest::collection::vec("(nameserver|search|domain|options|ndots:|rotate|[0-9.:%a-f]{0,12}| |\\n)", 0..40)) {
            let _ = parse(&words.concat());
        }
    }
}
