//! What applications may ask for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use onionring_node::log::{RateLimit, safe};
use onionring_proto::policy::{ExitPolicy, is_internal};
use onionring_proto::relay_msg::{Resolved, ResolvedValue, is_valid_hostname};
use onionring_proto::torrc::port::ClientPort;
use thiserror::Error;
use tracing::{info, warn};

use crate::network::{Host, Refusal};

/// What holds for all ports.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Who may ask at all (`SocksPolicy`); everybody, if it is empty.
    pub policy: ExitPolicy,
    /// SOCKS requests that give an address are refused (`SafeSocks`).
    pub safe_socks: bool,
    /// For each SOCKS request, say whether it leaks names (`TestSocks`).
    pub test_socks: bool,
    /// Connections of applications at one port, and questions under way at one DNSPort
    /// ([`limits::APPLICATIONS`](crate::limits::APPLICATIONS)).
    pub applications: usize,
    /// How long a request may take to arrive, and a stream to open (`SocksTimeout`).
    pub timeout: Duration,
    /// Ports that deserve a warning (`WarnPlaintextPorts`).
    pub warn_ports: BTreeSet<u16>,
    /// Ports that are refused (`RejectPlaintextPorts`).
    pub reject_ports: BTreeSet<u16>,
    /// Internal addresses are refused (`ClientRejectInternalAddresses`).
    pub reject_internal: bool,
    /// The same for what is looked up (`ClientDNSRejectInternalAddresses`).
    pub dns_reject_internal: bool,
}

/// Why an application does not get what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    /// The request cannot be read, or did not come in time.
    #[error("a request that cannot be read")]
    Malformed,
    /// A name with unusual characters, which no exit looks up.
    #[error("not a host name that an exit would look up")]
    Name,
    /// A name that ends in `.exit`.
    #[error("names in .exit are not supported: they let others choose the exit")]
    DotExit,
    /// Port 0.
    #[error("a stream to port 0")]
    Port,
    /// An address, with `SafeSocks`.
    #[error("an address instead of a name, which SafeSocks forbids")]
    Unsafe,
    /// A port of `RejectPlaintextPorts`.
    #[error("a port that RejectPlaintextPorts forbids")]
    Plaintext,
    /// An address of a family that the port does not take.
    #[error("an address of a family that the flags of the port forbid")]
    Family,
    /// A name, or anything but an onion service, where the port forbids it.
    #[error("a name, which NoDNSRequest or OnionTrafficOnly forbids")]
    Lookup,
    /// The network does not do it.
    #[error(transparent)]
    Network(#[from] Refusal),
}

impl Denied {
    /// Every reason, in the order of the counters.
    pub const ALL: [Denied; 17] = [
        Denied::Malformed,
        Denied::Name,
        Denied::DotExit,
        Denied::Port,
        Denied::Unsafe,
        Denied::Plaintext,
        Denied::Family,
        Denied::Lookup,
        Denied::Network(Refusal::NotReady),
        Denied::Network(Refusal::NotAllowed),
        Denied::Network(Refusal::Internal),
        Denied::Network(Refusal::OnionService),
        Denied::Network(Refusal::NotFound),
        Denied::Network(Refusal::NoRoute),
        Denied::Network(Refusal::Refused),
        Denied::Network(Refusal::Timeout),
        Denied::Network(Refusal::Failed),
    ];

    /// Its place in [`Denied::ALL`].
    pub(super) fn index(self) -> usize {
        Denied::ALL.iter().position(|denied| *denied == self).expect("all are listed")
    }

    /// A short stable name for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Denied::Malformed => "malformed",
            Denied::Name => "bad_name",
            Denied::DotExit => "dot_exit",
            Denied::Port => "bad_port",
            Denied::Unsafe => "unsafe_socks",
            Denied::Plaintext => "plaintext_port",
            Denied::Family => "family",
            Denied::Lookup => "no_dns_request",
            Denied::Network(Refusal::NotReady) => "not_ready",
            Denied::Network(Refusal::NotAllowed) => "not_allowed",
            Denied::Network(Refusal::Internal) => "internal_address",
            Denied::Network(Refusal::OnionService) => "onion_service",
            Denied::Network(Refusal::NotFound) => "not_found",
            Denied::Network(Refusal::NoRoute) => "no_route",
            Denied::Network(Refusal::Refused) => "refused",
            Denied::Network(Refusal::Timeout) => "timeout",
            Denied::Network(Refusal::Failed) => "failed",
        }
    }
}

/// Whether `name` ends in the label `last`, with or without a final dot.
fn ends_in(name: &str, last: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case(last))
}

/// Names of this host and of those beside it.
fn is_local_name(name: &str) -> bool {
    name.trim_end_matches('.').eq_ignore_ascii_case("localhost") || ends_in(name, "local")
}

impl Rules {
    /// Whether this application may ask at all. Those on a socket file may: the file decides.
    pub(super) fn admits(&self, client: Option<IpAddr>) -> bool {
        // The policy is one about addresses; C tor asks it with port 1.
        client.is_none_or(|ip| self.policy.permits(ip.to_canonical(), 1))
    }

    /// Whether a host may be asked for on this port: also by those who only want it looked up.
    pub(super) fn check_host(&self, port: &ClientPort, host: &Host) -> Result<(), Denied> {
        match host {
            Host::Name(name) if !is_valid_hostname(name) => Err(Denied::Name),
            Host::Name(name) if ends_in(name, "exit") => {
                static LIMIT: RateLimit = RateLimit::every(Duration::from_secs(900));
                if let Some(suppressed) = LIMIT.check() {
                    warn!(
                        "An application asks for a name in .exit; that is refused, because it would let others choose \
                         the exit{suppressed}"
                    );
                }
                Err(Denied::DotExit)
            }
            Host::Name(name) if ends_in(name, "onion") => Err(match port.onion {
                true => Refusal::OnionService.into(),
                false => Denied::Family,
            }),
            Host::Name(_) if !port.dns_request => Err(Denied::Lookup),
            Host::Address(IpAddr::V4(_)) if !port.ipv4 => Err(Denied::Family),
            Host::Address(IpAddr::V6(_)) if !port.ipv6 => Err(Denied::Family),
            _ => Ok(()),
        }
    }

    /// Whether a stream may lead there.
    pub(super) fn check_stream(&self, host: &Host, port: u16) -> Result<(), Denied> {
        if port == 0 {
            return Err(Denied::Port);
        }
        let is_local = match host {
            Host::Name(name) => is_local_name(name),
            Host::Address(address) => is_internal(*address),
        };
        if self.reject_internal && is_local {
            static LIMIT: RateLimit = RateLimit::every(Duration::from_secs(300));
            if let Some(suppressed) = LIMIT.check() {
                warn!(
                    "An application asks for {}, which only means something on this host or its network, and which no \
                     exit can reach; that is refused. If it comes through TransPort, look for a loop in the rules that \
                     redirect{suppressed}",
                    safe(host)
                );
            }
            return Err(Refusal::Internal.into());
        }
        self.check_plaintext(port)
    }

    /// The paper's warning of protocols that tell the exit everything.
    fn check_plaintext(&self, port: u16) -> Result<(), Denied> {
        let is_refused = self.reject_ports.contains(&port);
        if self.warn_ports.contains(&port) {
            static LIMIT: RateLimit = RateLimit::every(Duration::from_secs(5));
            if let Some(suppressed) = LIMIT.check() {
                let closing = if is_refused { "; it is refused" } else { "" };
                warn!(
                    "An application asks for port {port}, where protocols are usually not encrypted: the exit can read \
                     and change what is sent{closing}{suppressed}"
                );
            }
        }
        if is_refused {
            info!("refused a stream to port {port}, which is in RejectPlaintextPorts");
            return Err(Denied::Plaintext);
        }
        Ok(())
    }

    /// Whether the name of this address may be looked up.
    pub(super) fn check_reverse(&self, address: IpAddr) -> Result<(), Denied> {
        // As if nobody knew it: that is what an exit would say.
        if self.dns_reject_internal && is_internal(address) { Err(Refusal::NotFound.into()) } else { Ok(()) }
    }
}

/// The addresses among the answers.
pub(super) fn addresses(found: &Resolved) -> impl Iterator<Item = IpAddr> + '_ {
    found.answers.iter().filter_map(|(value, _)| match value {
        ResolvedValue::Addr(address) => Some(*address),
        _ => None,
    })
}

/// The first name among the answers.
pub(super) fn name(found: Resolved) -> Option<String> {
    found.answers.into_iter().find_map(|(value, _)| match value {
        ResolvedValue::Name(name) => Some(name),
        _ => None,
    })
}
