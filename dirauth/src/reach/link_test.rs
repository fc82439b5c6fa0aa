//! The plain test of a relay, as stock authorities make it: a link to each address that it names, on which it proves who
//! it is.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use onionring_node::link::Dialer;
use onionring_proto::link::ExpectedPeer;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use tracing::debug;

/// The address that a relay names for links over IPv4.
pub fn address_v4(descriptor: &RouterDesc) -> SocketAddrV4 {
    SocketAddrV4::new(descriptor.ipv4, descriptor.or_port)
}

/// The one for links over IPv6, if it names one.
pub fn address_v6(descriptor: &RouterDesc) -> Option<SocketAddrV6> {
    descriptor.ipv6.map(|(ip, port)| SocketAddrV6::new(ip, port, 0, 0))
}

/// What a test found at one address.
#[derive(Clone, Copy, Debug)]
pub struct Found<A> {
    /// The address.
    pub address: A,
    /// Whether the relay is there.
    pub is_there: bool,
}

/// Tests the IPv4 address of a relay, and the IPv6 address if we have `ipv6`. It must prove its Ed25519 identity too, if
/// `ed25519` says so and it can.
pub async fn run(
    dialer: &Dialer,
    descriptor: &Arc<RouterDesc>,
    ipv6: bool,
    ed25519: bool,
) -> (Found<SocketAddrV4>, Option<Found<SocketAddrV6>>) {
    let can_prove = descriptor.protocols().is_ok_and(|protocols| protocols.supports("LinkAuth", 3));
    let expected = ExpectedPeer {
        rsa_id: Some(descriptor.identity.0),
        ed_id: (ed25519 && can_prove).then_some(descriptor.ed_identity),
    };
    let v4 = async {
        let address = address_v4(descriptor);
        Found { address, is_there: is_there(dialer, SocketAddr::V4(address), expected, descriptor).await }
    };
    let v6 = async {
        let address = address_v6(descriptor).filter(|_| ipv6)?;
        Some(Found {
            address,
            is_there: is_there(dialer, SocketAddr::V6(address), expected, descriptor).await,
        })
    };
    tokio::join!(v4, v6)
}

async fn is_there(
    dialer: &Dialer,
    address: SocketAddr,
    expected: ExpectedPeer,
    descriptor: &RouterDesc,
) -> bool {
    let result = dialer.probe(address, expected).await;
    if let Err(error) = &result {
        debug!("the relay {} {} is not reached: {error}", descriptor.nickname, descriptor.identity);
    }
    result.is_ok()
}
