//! A stock relay publishes itself to this authority's DirPort.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onionring_dirauth::admission::{AdmissionOptions, TapKey};
use onionring_dirauth::approval::Approvals;
use onionring_dirauth::directory::Directory;
use onionring_dirauth::http;
use onionring_dirauth::uploads::Uploads;
use onionring_proto::netdoc::extrainfo::ExtraInfo;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use tokio::net::TcpListener;

use crate::authority::now;
use crate::relay::Relay;

const PATIENCE: Duration = Duration::from_secs(120);

/// A directory on the state in `home`.
pub fn open(home: &std::path::Path) -> Directory {
    let options = AdmissionOptions {
        tap_key: TapKey::Required,
        minimal_version: "0.4.8.0-alpha-dev".parse().unwrap(),
        allow_private_addresses: true,
        pin_keys: true,
        us: None,
    };
    Directory::new(Uploads::open(home, options, Approvals::default(), now()).unwrap())
}

/// The body of the answer to a GET; `None` unless it is 200.
fn get(port: SocketAddr, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(port).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    head.starts_with("HTTP/1.0 200 OK\r\n").then(|| body.to_owned())
}

#[test]
fn a_stock_relay_publishes_itself() {
    let (home, relay_home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let port = listener.local_addr().unwrap();
    let directory = Arc::new(open(home.path()));
    runtime.spawn(http::serve(listener, Arc::new(http::Desk::new(directory.clone(), Arc::default()))));

    let more = "Nickname stock\nContactInfo J\u{fc}rgen\nExitRelay 0\n";
    let relay = Relay::start(relay_home.path(), port, more);
    let start = Instant::now();
    let descriptor = loop {
        if let Some(text) = get(port, "/tor/server/all") {
            break text;
        }
        assert!(start.elapsed() < PATIENCE, "tor did not publish:\n{}", relay.said());
        std::thread::sleep(Duration::from_millis(100));
    };
    drop(relay);

    // What comes back is what it said, byte by byte: its signatures hold.
    let parsed = RouterDesc::parse(&descriptor).unwrap();
    assert_eq!(parsed.nickname.as_str(), "stock");
    assert_eq!(parsed.contact.as_deref(), Some("J\u{fc}rgen"));
    assert_eq!(get(port, &format!("/tor/server/fp/{}", parsed.identity)).as_ref(), Some(&descriptor));
    assert_eq!(get(port, &format!("/tor/server/d/{}", parsed.digest)).as_ref(), Some(&descriptor));
    let extra_info = get(port, &format!("/tor/extra/d/{}", parsed.extra_info.unwrap().sha1)).unwrap();
    ExtraInfo::parse(&extra_info).unwrap().check_with(&parsed).unwrap();
    let pins = std::fs::read_to_string(home.path().join("key-pinning-journal")).unwrap();
    assert_eq!(pins.lines().filter(|line| !line.is_empty() && !line.starts_with('@')).count(), 1);

    // Another start finds them.
    runtime.shutdown_timeout(PATIENCE);
    drop(directory);
    let again = open(home.path()).documents();
    let stored = again.served.descriptors.by_digest(&parsed.digest).unwrap();
    assert_eq!(&stored.text[..], descriptor.as_bytes());
    assert_eq!(again.served.extra_infos.len(), 1);
}
