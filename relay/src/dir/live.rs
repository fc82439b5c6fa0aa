//! The directory side in a network of stock tor: it fetches everything there is, what it serves is byte for byte what
//! a stock cache serves, and the authorities take what it publishes.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use glommio::LocalExecutorBuilder;
use onionring_loadgen::net::{Kind, Network, NetworkSpec, NodeSpec, Role};
use onionring_node::compress::{Encoding, decompress};
use onionring_node::docstore::DocStore;
use onionring_proto::dir::backoff::Delays;
use onionring_proto::dir::fetch::Role as FetchRole;
use onionring_proto::dir::request::DIFF_FROM_HEADER;
use onionring_proto::netdoc::authcert::AuthCert;
use onionring_proto::netdoc::consdiff;
use onionring_proto::netdoc::consensus::{Flavor, UnverifiedConsensus};
use onionring_proto::netdoc::text::{self, Fingerprint};

use super::client::{DirPorts, DirServer};
use super::clock::Clock;
use super::directory::Directory;
use super::fetch::{DirClient, FetchSettings, FetchState};
use super::port;
use super::publish::{DirPublisher, UploadState};
use super::testrelay::TestRelay;
use crate::io::net::{self, OutboundAddresses};

const PATIENCE: Duration = Duration::from_secs(120);

fn servers(net: &Network) -> Vec<DirServer> {
    let certs = String::from_utf8(net.document("/tor/keys/all").unwrap()).unwrap();
    let certs: Vec<AuthCert> = AuthCert::parse_all(&certs).map(|(_, cert)| cert.unwrap()).collect();
    let authorities = net.nodes().iter().filter(|node| node.role() == Role::Authority);
    authorities
        .map(|node| {
            let dir = node.dir_addr().unwrap();
            let cert = certs.iter().find(|c| c.dir_address.map(SocketAddr::from) == Some(dir)).unwrap();
            DirServer {
                name: node.nickname().to_owned(),
                rsa_id: Fingerprint::from_hex(node.fingerprint()).unwrap(),
                v3_ident: Some(cert.identity),
                dir,
                or: node.or_addr(),
            }
        })
        .collect()
}

struct Got {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What a directory answers, decompressed. The headers whose values cannot agree keep only their names.
fn ask(from: SocketAddr, path: &str, accept: &str) -> Got {
    ask_with(from, path, accept, "")
}

/// The same, with the client's having the consensuses in the list.
fn ask_with(from: SocketAddr, path: &str, accept: &str, has: &str) -> Got {
    let mut stream = std::net::TcpStream::connect(from).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let has = if has.is_empty() { String::new() } else { format!("{DIFF_FROM_HEADER}: {has}\r\n") };
    write!(stream, "GET {path} HTTP/1.0\r\nAccept-Encoding: {accept}\r\n{has}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..at].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| match name {
            "Date" | "Expires" => (name.to_owned(), String::new()),
            _ => (name.to_owned(), value.to_owned()),
        })
        .collect();
    let encoding = headers.iter().find(|(name, _)| name == "Content-Encoding");
    let encoding = encoding.map_or(Encoding::Identity, |(_, token)| Encoding::from_token(token).unwrap());
    let body = if status.contains(" 200 ") {
        decompress(encoding, &answer[at + 4..], 64 << 20).unwrap()
    } else {
        answer[at + 4..].to_vec()
    };
    Got { status, headers, body }
}

/// Where a stock relay serves its directory.
fn dir_port(net: &Network, relay: &str) -> SocketAddr {
    let listeners = net.node(relay).control().unwrap().get_info("net/listeners/dir").unwrap();
    let port: SocketAddr = listeners.trim_matches('"').parse().unwrap();
    SocketAddr::new(IpAddr::V4(net.node(relay).address()), port.port())
}

/// Holds what both directories say of the same consensus against each other.
fn compare(ours: SocketAddr, theirs: SocketAddr, directory: &Directory, authority: Fingerprint) {
    let consensus = "/tor/status-vote/current/consensus";
    let deadline = Instant::now() + PATIENCE;
    // Until both have the same one, before and after.
    loop {
        assert!(Instant::now() < deadline, "they never agree");
        let same = || {
            let flavors = [consensus.to_owned(), format!("{consensus}-microdesc")];
            let bodies: Vec<_> =
                flavors.iter().map(|path| (ask(ours, path, "").body, ask(theirs, path, "").body)).collect();
            bodies.iter().all(|(ours, theirs)| ours == theirs).then_some(bodies)
        };
        let Some(before) = same() else {
            thread::sleep(Duration::from_millis(200));
            continue;
        };
        let documents = directory.documents();
        let mut paths = vec![
            consensus.to_owned(),
            format!("{consensus}-microdesc"),
            format!("{consensus}-nonsense"),
            format!("{consensus}/FFFFFF+FFFFFE"),
            format!("{consensus}/diff/{}", "A".repeat(64)),
            format!("{consensus}/diff/junk"),
            "/tor/robots.txt".into(),
            "/tor/".into(),
            "/tor/nonsense".into(),
            "/tor/server/nonsense".into(),
            "/tor/server/d/nonsense".into(),
            "/tor/micro/d/nonsense".into(),
            "/tor/keys/nonsense".into(),
            "/tor/keys/fp/nonsense".into(),
            "/tor/status-vote/next/consensus".into(),
            "/tor/status-vote/current/authority".into(),
        ];
        let ids: Vec<String> = documents.certs.keys().map(|(id, _)| id.to_string()).collect();
        let sks: Vec<String> = documents.certs.keys().map(|(_, sk)| sk.to_string()).collect();
        let pairs: Vec<String> = documents.certs.keys().map(|(id, sk)| format!("{id}-{sk}")).collect();
        paths.push(format!("/tor/keys/fp/{}", ids.join("+")));
        paths.push(format!("/tor/keys/sk/{}", sks.join("+")));
        paths.push(format!("/tor/keys/fp-sk/{}", pairs.join("+")));
        paths.push(format!(
            "{consensus}-microdesc/{}",
            ids.iter().map(|id| &id[..6]).collect::<Vec<_>>().join("+")
        ));
        let network = directory.network().unwrap();
        let microdescs: Vec<String> = network
            .consensus
            .relays
            .iter()
            .filter_map(|r| r.microdesc())
            .map(|d| text::base64_unpadded(d))
            .collect();
        paths.push(format!("/tor/micro/d/{}", microdescs.join("-")));
        paths.push(format!("/tor/micro/d/{}", microdescs[0]));
        // By digest: of itself, the stock cache may know a newer one than the consensus names.
        let ns = String::from_utf8(before[0].0.clone()).unwrap();
        let ns = UnverifiedConsensus::parse(&ns).unwrap();
        let descriptors: Vec<String> =
            ns.peek().relays.iter().filter_map(|r| r.descriptor()).map(|d| d.to_string()).collect();
        paths.push(format!("/tor/server/d/{}", descriptors.join("+")));
        paths.push(format!("/tor/server/d/{}", descriptors[0].to_lowercase()));
        paths.push(format!("/tor/server/fp/{authority}"));
        let accepts = ["identity", "deflate", "deflate, gzip, x-tor-lzma, x-zstd", "x-zstd"];
        let mut differences = Vec::new();
        for path in &paths {
            for accept in accepts {
                let (a, b) = (ask(ours, path, accept), ask(theirs, path, accept));
                if a.status != b.status || a.headers != b.headers || a.body != b.body {
                    differences.push(format!(
                        "{path} with {accept:?}:\n  {} {:?} {} bytes\n  {} {:?} {} bytes",
                        a.status,
                        a.headers,
                        a.body.len(),
                        b.status,
                        b.headers,
                        b.body.len()
                    ));
                }
            }
        }
        if same() == Some(before) {
            assert!(differences.is_empty(), "ours, then theirs:\n{}", differences.join("\n"));
            return;
        }
    }
}

/// Waits for the next consensus, and holds the diffs to it that both directories make against each other.
fn compare_diffs(ours: SocketAddr, theirs: SocketAddr, flavor: &str) {
    let path = format!("/tor/status-vote/current/consensus{flavor}");
    let deadline = Instant::now() + PATIENCE;
    let whole = |from| String::from_utf8(ask(from, &path, "").body).unwrap();
    let both = || Some(whole(ours)).filter(|text| *text == whole(theirs));
    let wait_for = |condition: &dyn Fn() -> Option<String>| loop {
        assert!(Instant::now() < deadline, "they never agree");
        match condition() {
            Some(text) => return text,
            None => thread::sleep(Duration::from_millis(50)),
        }
    };
    let mut base = wait_for(&both);
    'again: loop {
        let target = wait_for(&|| both().filter(|text| *text != base));
        let name = text::hex_upper(&consdiff::signed_sha3(&base));
        let url = format!("{path}/diff/{name}");
        // C tor makes them in a minute or so of its own time; the consensus may be over by then.
        while ![ours, theirs].iter().all(|from| ask(*from, &url, "").status.contains(" 200 ")) {
            assert!(Instant::now() < deadline, "there are no diffs");
            if both().is_none_or(|text| text != target) {
                base = target;
                continue 'again;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let mut differences = Vec::new();
        for (path, has) in [
            (&url, String::new()),
            (&format!("{url}/FFFFFF"), String::new()),
            (&path, name.clone()),
            (&path, name.to_lowercase()),
            (&path, format!("{} {name}", "0".repeat(64))),
        ] {
            // Not `deflate`: C tor keeps no such diffs, and sends them as they are.
            for accept in ["identity", "x-tor-lzma", "x-zstd, gzip", "gzip"] {
                let (a, b) = (ask_with(ours, path, accept, &has), ask_with(theirs, path, accept, &has));
                let results = [&a, &b].map(|got| {
                    let diff = std::str::from_utf8(&got.body).unwrap();
                    (!diff.is_empty()).then(|| consdiff::apply(&base, diff).map(|text| text == target))
                });
                if a.status != b.status
                    || a.headers != b.headers
                    || a.body != b.body
                    || results[0] != results[1]
                {
                    differences.push(format!(
                        "{path} with {accept:?} and {has:?}:\n  {} {:?} {} bytes {:?}\n  {} {:?} {} bytes {:?}",
                        a.status, a.headers, a.body.len(), results[0],
                        b.status, b.headers, b.body.len(), results[1],
                    ));
                }
            }
        }
        if both().is_some_and(|text| text == target) {
            assert!(differences.is_empty(), "ours, then theirs:\n{}", differences.join("\n"));
            return;
        }
        base = target;
    }
}

#[test]
fn in_a_network_of_stock_tor() {
    let net = NetworkSpec::stock()
        .add(Role::Relay, Kind::TOR, 1)
        .add(Role::Exit, Kind::TOR, 1)
        .node(NodeSpec::new(Role::Relay, Kind::TOR).named("cache").torrc("DirPort auto"))
        .voting_interval(20)
        .boot()
        .unwrap_or_else(|e| panic!("{e}"));
    let disk = tempfile::tempdir().unwrap();
    let (servers, theirs) = (servers(&net), dir_port(&net, "cache"));
    let IpAddr::V4(our_address) = net.spare_address(0) else { panic!("an IPv4 network") };
    LocalExecutorBuilder::default().io_memory(0).make().unwrap().run(async {
        let directory = Arc::new(Directory::new(None));
        let clock = Clock::default();
        let transport = DirPorts { from: OutboundAddresses { ipv4: Some(our_address), ipv6: None } };
        let settings = FetchSettings {
            role: FetchRole::Cache,
            extra_infos: true,
            delays: Delays::TESTING,
            servers: servers.clone(),
        };
        let store = Some(DocStore::open(disk.path()).unwrap());
        let client = DirClient::new(transport, settings, store, directory.clone(), clock);
        let fetching = client.state();
        glommio::spawn_local(client.run(|| {})).detach();
        until(|| is_whole(&directory, &fetching)).await;
        assert_eq!(fetching.borrow().kept.unfit, 0);

        let (ours, mut listeners) = net::listen((our_address, 0).into(), 1).unwrap();
        let listener = net::adopt_listener(listeners.remove(0));
        let bandwidth = Rc::new(port::Bandwidth::unlimited());
        glommio::spawn_local(port::serve(listener, directory.clone(), clock, bandwidth)).detach();
        let compared = {
            let (directory, authority) = (directory.clone(), servers[0].rsa_id);
            thread::spawn(move || compare(ours, theirs, &directory, authority))
        };
        until(|| compared.is_finished()).await;
        compared.join().unwrap();

        let relay = TestRelay::new(SocketAddrV4::new(our_address, 9001));
        let fingerprint = relay.fingerprint();
        let publisher = DirPublisher::new(transport, servers.clone(), true, directory.clone(), relay, clock);
        let publishing = publisher.state();
        glommio::spawn_local(publisher.run()).detach();
        until(|| publishing.borrow().authorities.iter().all(|a| a.upload == UploadState::Confirmed)).await;
        assert!(publishing.borrow().failures.is_empty());
        let (own, authority) = (directory.documents().own.clone().unwrap(), servers[0].dir);
        let posted = ask(authority, &format!("/tor/server/fp/{fingerprint}"), "");
        assert_eq!(posted.body, own.descriptor.text[..]);
        let posted = ask(authority, &format!("/tor/extra/fp/{fingerprint}"), "");
        assert_eq!(posted.body, own.extra_info.text[..]);

        // The next consensus comes by itself, sooner or later as a diff.
        for flavor in ["", "-microdesc"] {
            let compared = thread::spawn(move || compare_diffs(ours, theirs, flavor));
            until(|| compared.is_finished()).await;
            compared.join().unwrap();
        }
        until(|| fetching.borrow().kept.diffs > 0).await;
        assert_eq!(fetching.borrow().kept.unfit, 0);
    });
    for file in ["cached-certs", "cached-consensus", "cached-microdesc-consensus"] {
        assert!(disk.path().join(file).exists(), "{file}");
    }
    drop(net);
}

fn is_whole(directory: &Directory, state: &Rc<RefCell<FetchState>>) -> bool {
    let (documents, state) = (directory.documents(), state.borrow());
    documents.consensus(Flavor::Ns).is_some()
        && documents.consensus(Flavor::Microdesc).is_some()
        && documents.certs.len() == 3
        && documents.descriptors.len() >= 6
        && documents.extra_infos.len() >= 6
        && state.kept.missing == 0
}

/// Waits for a condition, looking often.
async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time");
        glommio::timer::sleep(Duration::from_millis(20)).await;
    }
}
