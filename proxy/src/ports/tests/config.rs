use super::*;

#[test]
fn defaults_are_those_of_c_tor() {
    let config = config("");
    let [port] = &config.ports[..] else { panic!("{:?}", config.ports) };
    assert_eq!(port.kind, ClientKind::Socks);
    let rules = &config.rules;
    assert_eq!(rules.timeout, Duration::from_secs(120));
    assert_eq!(rules.warn_ports.iter().copied().collect::<Vec<_>>(), [23, 109, 110, 143]);
    assert!(rules.reject_ports.is_empty() && !rules.safe_socks && !rules.test_socks);
    assert!(rules.reject_internal && rules.dns_reject_internal);
    assert_eq!(config.transparent, TransProxyType::Default);
}

#[test]
fn what_is_wrong_is_named() {
    for (line, says) in [
        ("WarnPlaintextPorts 23,smtp", "smtp is not a port"),
        ("RejectPlaintextPorts 70000", "70000 is not a port"),
        ("SocksPolicy allow *", "does not begin with accept"),
        ("TransProxyType pf-divert", "not known"),
        ("DNSPort 53 IsolateAll", "unknown flag"),
    ] {
        let (config, problems, _) = read(&format!("SocksPort 0\n{line}"));
        let [problem] = &problems[..] else { panic!("{line}: {problems:?}") };
        assert!(problem.to_string().contains(says), "{line}: {problem}");
        if line.starts_with("SocksPolicy") {
            assert!(!config.rules.admits(Some(ip("127.0.0.1"))), "nobody, rather than everybody");
        }
    }
    assert_eq!(config("SocksPort 0\nTransProxyType tproxy").transparent, TransProxyType::Tproxy);
    assert_eq!(read("SocksPort 0.0.0.0:9050").2.len(), 1, "an open proxy is worth a word");
}
