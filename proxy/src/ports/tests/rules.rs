use std::collections::BTreeSet;

use super::*;

#[test]
fn reasons_are_told_apart() {
    let labels: BTreeSet<_> = Denied::ALL.iter().map(|denied| denied.label()).collect();
    assert_eq!(labels.len(), Denied::ALL.len());
    for (index, denied) in Denied::ALL.into_iter().enumerate() {
        assert_eq!(denied.index(), index);
        assert!(!denied.to_string().is_empty());
    }
}

#[test]
fn internal_addresses_may_be_allowed() {
    let strict = config("SocksPort 0").rules;
    let lax =
        config("SocksPort 0\nClientRejectInternalAddresses 0\nClientDNSRejectInternalAddresses 0").rules;
    for host in
        [Host::Address(ip("127.0.0.1")), Host::Address(ip("fe80::1")), name("LOCALHOST."), name("a.local")]
    {
        assert_eq!(strict.check_stream(&host, 80), Err(Refusal::Internal.into()), "{host}");
        assert_eq!(lax.check_stream(&host, 80), Ok(()), "{host}");
    }
    assert_eq!(strict.check_stream(&name("local.example"), 80), Ok(()));
    assert_eq!(strict.check_stream(&Host::Address(ip("192.0.2.1")), 80), Ok(()));
    assert_eq!(strict.check_reverse(ip("10.0.0.1")), Err(Refusal::NotFound.into()));
    assert_eq!(lax.check_reverse(ip("10.0.0.1")), Ok(()));
    assert_eq!(lax.check_stream(&name("a.example"), 0), Err(Denied::Port));
}

#[test]
fn ports_without_encryption_are_refused_where_that_is_asked_for() {
    let rules = config("SocksPort 0\nRejectPlaintextPorts 23,110\nWarnPlaintextPorts 23").rules;
    assert_eq!(rules.check_stream(&name("a.example"), 23), Err(Denied::Plaintext));
    assert_eq!(rules.check_stream(&name("a.example"), 110), Err(Denied::Plaintext));
    assert_eq!(rules.check_stream(&name("a.example"), 143), Ok(()));
}

#[test]
fn the_policy_is_about_addresses() {
    let rules = config("SocksPort 0\nSocksPolicy accept 10.0.0.0/8, reject *").rules;
    assert!(rules.admits(None), "a socket file has its own permissions");
    assert!(rules.admits(Some(ip("10.1.1.1"))) && rules.admits(Some(ip("::ffff:10.1.1.1"))));
    assert!(!rules.admits(Some(ip("127.0.0.1"))) && !rules.admits(Some(ip("::1"))));
    assert!(config("SocksPort 0").rules.admits(Some(ip("198.51.100.1"))));
}
