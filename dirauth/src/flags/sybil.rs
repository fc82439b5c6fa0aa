//! Too many relays at one address: one operator would see too much of the traffic.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use onionring_proto::netdoc::text::Fingerprint;

use super::{Relay, View, advertised};

/// The relays beyond the number that one IPv4 or IPv6 address may have: the least useful ones.
pub(super) fn find(view: &View<'_>) -> BTreeSet<Fingerprint> {
    let max = view.terms.options.max_servers_per_address;
    let mut by_address: BTreeMap<IpAddr, Vec<&Relay<'_>>> = BTreeMap::new();
    if max == 0 {
        return BTreeSet::new();
    }
    for relay in view.iter() {
        by_address.entry(relay.descriptor.ipv4.into()).or_default().push(relay);
        if let Some((ip, _)) = relay.descriptor.ipv6 {
            by_address.entry(ip.into()).or_default().push(relay);
        }
    }
    let mut sybils = BTreeSet::new();
    for relays in by_address.values_mut().filter(|relays| relays.len() > max) {
        relays.sort_by_key(|relay| (Reverse(usefulness(view, relay)), relay.descriptor.identity));
        sybils.extend(relays.iter().skip(max).map(|relay| relay.descriptor.identity));
    }
    sybils
}

/// Authorities before others, running ones before others, then by bandwidth.
fn usefulness(view: &View<'_>, relay: &Relay<'_>) -> (bool, bool, u32) {
    let identity = &relay.descriptor.identity;
    let bandwidth = view.terms.measurements.get(identity).unwrap_or(advertised(relay.descriptor) / 1000);
    (relay.is_authority, view.running.contains(identity), bandwidth)
}
