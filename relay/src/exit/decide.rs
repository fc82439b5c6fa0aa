//! Whether a stream may have its destination, and at which addresses: rules without I/O.

use onionring_proto::policy::{Action, ExitPolicy, Family, is_internal};
use onionring_proto::relay_msg::{Begin, BeginFlags, End, EndReason, Host};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::dns::{DnsError, Families, TTL_LOOKED_UP};
use crate::limits;

/// What the operator and the consensus allow; an immutable snapshot, shared by all shards.
#[derive(Clone, Debug)]
pub struct ExitRules {
    /// `ExitPolicy` and the options around it; IPv6 rejected as a whole without `IPv6Exit`, private networks and our own
    /// addresses with `ExitPolicyRejectPrivate`.
    pub policy: ExitPolicy,
    /// ORPorts and DirPorts of the relays in the consensus and of the authorities, to which no stream may lead: traffic
    /// that re-enters the network escapes its limits on the length of paths. Empty with the consensus parameter
    /// `allow-network-reentry=1`.
    pub network: HashSet<SocketAddr>,
}

/// What to do next about a BEGIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Connect to these, in this order; never empty.
    Connect(Vec<SocketAddr>),
    /// Look the name up in these families, then ask [`ExitRules::choose`].
    Resolve(Families),
}

impl ExitRules {
    /// Whether this relay exits at all.
    pub fn is_exit(&self) -> bool {
        !Family::BOTH.into_iter().all(|family| self.policy.rejects_all(family))
    }

    /// The families in which RESOLVE is answered: those we exit to.
    pub fn resolvable_families(&self) -> Option<Families> {
        match Family::BOTH.map(|family| !self.policy.rejects_all(family)) {
            [true, true] => Some(Families::Both),
            [true, false] => Some(Families::V4),
            [false, true] => Some(Families::V6),
            [false, false] => None,
        }
    }

    /// Whether the name of `ip` may be looked up. Names of private addresses are nobody's business unless the policy
    /// makes this a private exit to them.
    pub fn may_name(&self, ip: IpAddr) -> bool {
        self.is_exit()
            && (!is_internal(ip)
                || self.policy.rules().iter().any(|rule| {
                    rule.action == Action::Accept
                        && !rule.network.is_everything()
                        && rule.network.contains(ip)
                }))
    }

    /// The first step for a BEGIN.
    pub fn plan(&self, begin: &Begin<'_>) -> Result<Plan, End> {
        match begin.host {
            // The client chose the address itself, so its flags about addresses do not apply.
            Host::Addr(ip) => {
                let (permitted, refused) = self.sort_out(&[ip], begin.port);
                if permitted.is_empty() { Err(refusal(refused)) } else { Ok(Plan::Connect(permitted)) }
            }
            Host::Name(_) => {
                self.families(begin).map(Plan::Resolve).ok_or_else(|| EndReason::ExitPolicy.into())
            }
        }
    }

    /// The addresses of a name, found for [`Plan::Resolve`], that a stream to `begin` may use; never empty.
    pub fn choose(&self, begin: &Begin<'_>, found: &[IpAddr]) -> Result<Vec<SocketAddr>, End> {
        let (permitted, refused) = self.sort_out(found, begin.port);
        let acceptable = self.families(begin);
        let (mut v4, mut v6): (Vec<_>, Vec<_>) = permitted.into_iter().partition(SocketAddr::is_ipv4);
        if acceptable == Some(Families::V4) {
            v6.clear();
        }
        if acceptable == Some(Families::V6) {
            v4.clear();
        }
        let mut chosen = match begin.flags.contains(BeginFlags::IPV6_PREFERRED) {
            true => [v6, v4].concat(),
            false => [v4, v6].concat(),
        };
        chosen.truncate(limits::EXIT_ADDRESSES_TRIED);
        if chosen.is_empty() { Err(refusal(refused)) } else { Ok(chosen) }
    }

    /// The families that the client's flags and the policy leave for a name; `None` if the port is refused in all.
    fn families(&self, begin: &Begin<'_>) -> Option<Families> {
        let v4 = !begin.flags.contains(BeginFlags::IPV4_NOT_OK);
        let v6 = begin.flags.contains(BeginFlags::IPV6_OK);
        match (
            v4 && self.policy.might_permit(Family::V4, begin.port),
            v6 && self.policy.might_permit(Family::V6, begin.port),
        ) {
            (true, true) => Some(Families::Both),
            (true, false) => Some(Families::V4),
            (false, true) => Some(Families::V6),
            (false, false) => None,
        }
    }

    /// The addresses that may be connected to, and why the first of the others may not.
    fn sort_out(&self, addresses: &[IpAddr], port: u16) -> (Vec<SocketAddr>, Option<Refused>) {
        let mut refused = None;
        let mut permitted = Vec::new();
        for address in addresses {
            // ::ffff:127.0.0.1 reaches 127.0.0.1 and must be judged like it.
            let target = SocketAddr::new(address.to_canonical(), port);
            if !self.policy.permits(target.ip(), port) {
                refused.get_or_insert(Refused::ByPolicy(target.ip()));
            } else if self.network.contains(&target) {
                refused.get_or_insert(Refused::IsRelay);
            } else if !permitted.contains(&target) {
                permitted.push(target);
            }
        }
        (permitted, refused)
    }
}

/// Why an address may not be connected to.
enum Refused {
    ByPolicy(IpAddr),
    IsRelay,
}

fn refusal(refused: Option<Refused>) -> End {
    match refused {
        // The client learns which address it was, so that it chooses its next exit better.
        Some(Refused::ByPolicy(ip)) => End { reason: EndReason::ExitPolicy, addr: Some((ip, TTL_LOOKED_UP)) },
        Some(Refused::IsRelay) => EndReason::ConnectRefused.into(),
        None => EndReason::ResolveFailed.into(),
    }
}

/// The END for a lookup that failed.
pub fn end_of_lookup(error: DnsError) -> EndReason {
    match error {
        DnsError::Overloaded => EndReason::ResourceLimit,
        _ => EndReason::ResolveFailed,
    }
}

/// The END for an error of a socket, by what the system calls it (tor-spec 6.3; the grouping is that of deployed exits).
pub fn end_of_socket(error: &std::io::Error) -> EndReason {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => EndReason::ConnectRefused,
        Some(Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE) => EndReason::ConnReset,
        Some(Errno::TIMEDOUT) => EndReason::Timeout,
        Some(
            Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::HOSTDOWN | Errno::ACCESS | Errno::PERM
            // No IPv6 on this machine.
            | Errno::AFNOSUPPORT,
        ) => EndReason::NoRoute,
        Some(
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRINUSE | Errno::ADDRNOTAVAIL,
        ) => EndReason::ResourceLimit,
        _ => EndReason::Misc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onionring_proto::policy::ExitPolicyOptions;

    fn rules(lines: &[&str], ipv6_exit: bool, reject_private: bool) -> ExitRules {
        let options = ExitPolicyOptions {
            exit_relay: Some(true),
            exit_policy: lines,
            ipv6_exit,
            reject_private,
            own_addresses: &["203.0.113.9".parse().unwrap()],
            ..ExitPolicyOptions::default()
        };
        let network =
            HashSet::from(["198.51.100.1:9001".parse().unwrap(), "[2001:db8::1]:9001".parse().unwrap()]);
        ExitRules { policy: options.build().unwrap().0, network }
    }

    fn open() -> ExitRules {
        rules(&["accept *:*"], true, true)
    }

    fn begin(target: &str, flags: u32) -> Vec<u8> {
        [target.as_bytes(), b"\0", &flags.to_be_bytes()].concat()
    }

    fn plan(rules: &ExitRules, target: &str, flags: u32) -> Result<Plan, End> {
        rules.plan(&Begin::parse(&begin(target, flags)).unwrap())
    }

    fn choose(rules: &ExitRules, flags: u32, found: &[&str]) -> Result<Vec<String>, End> {
        let found: Vec<IpAddr> = found.iter().map(|ip| ip.parse().unwrap()).collect();
        let chosen = rules.choose(&Begin::parse(&begin("name.example:443", flags)).unwrap(), &found)?;
        Ok(chosen.iter().map(|address| address.ip().to_string()).collect())
    }

    const V6_OK: u32 = 1;
    const NO_V4: u32 = 2;
    const PREFER_V6: u32 = 4;

    fn refused(ip: &str) -> End {
        End { reason: EndReason::ExitPolicy, addr: Some((ip.parse().unwrap(), TTL_LOOKED_UP)) }
    }

    #[test]
    fn an_address_is_judged_as_it_stands() {
        let connect = |target: &str| Ok(Plan::Connect(vec![target.parse().unwrap()]));
        assert_eq!(plan(&open(), "192.0.2.1:80", 0), connect("192.0.2.1:80"));
        assert_eq!(plan(&open(), "[2001:db8::2]:80", 0), connect("[2001:db8::2]:80"));
        assert_eq!(plan(&open(), "10.0.0.1:80", 0), Err(refused("10.0.0.1")));
        assert_eq!(plan(&open(), "203.0.113.9:80", 0), Err(refused("203.0.113.9")), "our own address");
        let no_mail = rules(&["reject *:25", "accept *:*"], true, true);
        assert_eq!(plan(&no_mail, "192.0.2.1:25", 0), Err(refused("192.0.2.1")));
        let only_v4 = rules(&["accept *:*"], false, true);
        assert_eq!(plan(&only_v4, "[2001:db8::2]:80", V6_OK), Err(refused("2001:db8::2")));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_judged_as_ipv4() {
        assert_eq!(plan(&open(), "[::ffff:127.0.0.1]:80", V6_OK), Err(refused("127.0.0.1")));
        assert_eq!(choose(&open(), V6_OK, &["::ffff:10.1.1.1"]), Err(refused("10.1.1.1")));
        assert_eq!(plan(&open(), "[::ffff:198.51.100.1]:9001", V6_OK), Err(EndReason::ConnectRefused.into()));
    }

    #[test]
    fn no_stream_leads_back_into_the_network() {
        assert_eq!(plan(&open(), "198.51.100.1:9001", 0), Err(EndReason::ConnectRefused.into()));
        assert_eq!(plan(&open(), "[2001:db8::1]:9001", 0), Err(EndReason::ConnectRefused.into()));
        assert!(plan(&open(), "198.51.100.1:443", 0).is_ok(), "a web site on a relay's address");
        let reentry = ExitRules { network: HashSet::new(), ..open() };
        assert!(plan(&reentry, "198.51.100.1:9001", 0).is_ok());
    }

    #[test]
    fn flags_choose_the_families_to_look_up() {
        let name = "name.example:443";
        assert_eq!(plan(&open(), name, 0), Ok(Plan::Resolve(Families::V4)));
        assert_eq!(plan(&open(), name, V6_OK), Ok(Plan::Resolve(Families::Both)));
        assert_eq!(plan(&open(), name, V6_OK | NO_V4), Ok(Plan::Resolve(Families::V6)));
        assert_eq!(plan(&open(), name, NO_V4), Err(EndReason::ExitPolicy.into()));
        let only_v4 = rules(&["accept *:*"], false, true);
        assert_eq!(plan(&only_v4, name, V6_OK), Ok(Plan::Resolve(Families::V4)));
        assert_eq!(plan(&only_v4, name, V6_OK | NO_V4), Err(EndReason::ExitPolicy.into()));
        let no_web = rules(&["accept *:80", "reject *:*"], true, true);
        assert_eq!(
            plan(&no_web, name, V6_OK),
            Err(EndReason::ExitPolicy.into()),
            "no lookup for a port we refuse"
        );
        assert_eq!(
            plan(&ExitRules { policy: ExitPolicy::middleman(), ..open() }, name, V6_OK),
            Err(EndReason::ExitPolicy.into())
        );
    }

    #[test]
    fn flags_order_the_addresses_found() {
        let found = ["192.0.2.1", "192.0.2.2", "2001:db8::2"];
        let strings = |list: &[&str]| Ok(list.iter().map(|s| (*s).to_owned()).collect());
        assert_eq!(choose(&open(), V6_OK, &found), strings(&found));
        assert_eq!(
            choose(&open(), V6_OK | PREFER_V6, &found),
            strings(&["2001:db8::2", "192.0.2.1", "192.0.2.2"])
        );
        assert_eq!(choose(&open(), 0, &found), strings(&found[..2]));
        assert_eq!(choose(&open(), V6_OK | NO_V4, &found), strings(&found[2..]));
        assert_eq!(choose(&open(), V6_OK, &["192.0.2.1", "::ffff:192.0.2.1"]), strings(&found[..1]));
    }

    #[test]
    fn forbidden_addresses_of_a_name_are_passed_over_and_named_if_there_are_no_others() {
        assert_eq!(choose(&open(), 0, &["10.0.0.1", "192.0.2.1"]), Ok(vec!["192.0.2.1".into()]));
        assert_eq!(choose(&open(), 0, &["10.0.0.1", "127.0.0.1"]), Err(refused("10.0.0.1")));
        assert_eq!(choose(&open(), 0, &["2001:db8::2"]), Err(EndReason::ResolveFailed.into()));
        assert_eq!(choose(&open(), 0, &[]), Err(EndReason::ResolveFailed.into()));
        let many: Vec<String> = (0..50).map(|i| format!("192.0.2.{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(choose(&open(), 0, &many).unwrap().len(), limits::EXIT_ADDRESSES_TRIED);
    }

    #[test]
    fn names_of_private_addresses_are_not_told() {
        let (public, private) = ("192.0.2.1".parse().unwrap(), "10.1.2.3".parse().unwrap());
        assert!(open().may_name(public) && !open().may_name(private));
        let private_exit = rules(&["accept 10.0.0.0/8:*", "reject *:*"], false, false);
        assert!(private_exit.may_name(private));
        let middleman = ExitRules { policy: ExitPolicy::middleman(), ..open() };
        assert!(!middleman.may_name(public));
        assert_eq!(middleman.resolvable_families(), None);
        assert_eq!(open().resolvable_families(), Some(Families::Both));
        assert_eq!(private_exit.resolvable_families(), Some(Families::V4));
    }

    #[test]
    fn socket_errors_have_their_reasons() {
        let of = |errno: rustix::io::Errno| end_of_socket(&errno.into());
        use rustix::io::Errno;
        assert_eq!(of(Errno::CONNREFUSED), EndReason::ConnectRefused);
        assert_eq!(of(Errno::HOSTUNREACH), EndReason::NoRoute);
        assert_eq!(of(Errno::TIMEDOUT), EndReason::Timeout);
        assert_eq!(of(Errno::CONNRESET), EndReason::ConnReset);
        assert_eq!(of(Errno::MFILE), EndReason::ResourceLimit);
        assert_eq!(of(Errno::ADDRNOTAVAIL), EndReason::ResourceLimit);
        assert_eq!(of(Errno::INVAL), EndReason::Misc);
        assert_eq!(end_of_socket(&std::io::Error::other("x")), EndReason::Misc);
    }
}
