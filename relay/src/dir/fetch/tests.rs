use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;

use glommio::LocalExecutorBuilder;

use super::super::client::DirPorts;
use super::super::port;
use super::super::snapshot::DirSnapshot;
use super::*;
use crate::dir::testdata::{self, NOW};
use crate::io::net::{self, OutboundAddresses};

/// An authority that has everything.
fn good() -> SocketAddr {
    let directory = Arc::new(Directory::new(None));
    directory.set_documents(testdata::library().snapshot());
    let (address, mut listeners) = net::listen((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
    let listener = net::adopt_listener(listeners.remove(0));
    glommio::spawn_local(port::serve(listener, directory, Clock::starting_at(NOW))).detach();
    address
}

/// An authority that answers everything in its own way; ends with the process.
fn bad(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let _ = stream.write_all(&answer(&String::from_utf8_lossy(&request)));
        }
    });
    address
}

fn settings(addresses: [SocketAddr; 3]) -> FetchSettings {
    let server = |(v3_ident, dir)| DirServer {
        name: format!("{dir}"),
        rsa_id: Fingerprint([1; 20]),
        v3_ident: Some(v3_ident),
        dir,
        or: None,
    };
    FetchSettings {
        role: Role::Cache,
        extra_infos: true,
        delays: Delays { base: Duration::from_millis(20), cap: Duration::from_millis(200) },
        servers: testdata::authorities().into_iter().zip(addresses).map(server).collect(),
    }
}

/// Runs a client until `enough`, and gives what it has then.
async fn fetch_until(
    servers: [SocketAddr; 3],
    store: Option<&Path>,
    enough: impl Fn(&DirSnapshot, &FetchState) -> bool,
) -> (Arc<Directory>, FetchState) {
    let directory = Arc::new(Directory::new(None));
    let transport = DirPorts { from: OutboundAddresses::default() };
    let store = store.map(|path| DocStore::open(path).unwrap());
    let clock = Clock::starting_at(NOW);
    let client = DirClient::new(transport, settings(servers), store, directory.clone(), clock);
    let state = client.state();
    let changes = Rc::new(Cell::new(0));
    let counted = changes.clone();
    let enough = async {
        while !enough(&directory.documents(), &state.borrow()) {
            glommio::timer::sleep(Duration::from_millis(5)).await;
        }
    };
    futures_lite::future::or(client.run(move || counted.set(counted.get() + 1)), enough).await;
    assert!(changes.get() > 0);
    let state = state.borrow().clone();
    (directory, state)
}

fn is_whole(documents: &DirSnapshot) -> bool {
    documents.ns.is_some()
        && documents.microdesc.is_some()
        && documents.certs.len() == 3
        && documents.descriptors.len() == testdata::descriptors().len()
        && documents.extra_infos.len() == testdata::extra_infos().len()
        && documents.microdescs.len() == testdata::microdescs().len()
}

fn run(test: impl AsyncFnOnce()) {
    LocalExecutorBuilder::default().io_memory(0).make().unwrap().run(test());
}

#[test]
fn everything_is_fetched_kept_and_there_again_after_a_restart() {
    let disk = tempfile::tempdir().unwrap();
    run(async || {
        let authority = good();
        let (directory, state) = fetch_until([authority; 3], Some(disk.path()), |d, _| is_whole(d)).await;
        assert_eq!((state.unfit, state.disk_failing), (0, false));
        assert_eq!(state.valid_after.map(|at| at.is_some()), [true, true]);
        let network = directory.network().unwrap();
        assert!(network.consensus.relays.iter().all(|r| network.relays.get(&r.identity.0).is_some()));
    });
    for (file, size) in [
        ("cached-certs", testdata::CERTS.len()),
        ("cached-consensus", testdata::CONSENSUS_NS.len()),
        ("cached-microdesc-consensus", testdata::CONSENSUS_MICRODESC.len()),
        ("cached-descriptors.new", testdata::DESCRIPTORS.len()),
        ("cached-extrainfo.new", testdata::EXTRA_INFOS.len()),
        ("cached-microdescs.new", testdata::MICRODESCS.len()),
    ] {
        assert_eq!(std::fs::metadata(disk.path().join(file)).unwrap().len() as usize, size, "{file}");
    }
    run(async || {
        let gone = bad(|_| Vec::new());
        let (_, state) = fetch_until([gone; 3], Some(disk.path()), |d, _| is_whole(d)).await;
        assert_eq!(state.answered, 0);
    });
    // A damaged file costs what is in it, no more.
    std::fs::write(disk.path().join("cached-microdescs.new"), [0xff; 100]).unwrap();
    run(async || {
        let authority = good();
        let (_, state) = fetch_until([authority; 3], Some(disk.path()), |d, _| is_whole(d)).await;
        assert_eq!(state.answered, 1);
    });
}

#[test]
fn servers_that_are_of_no_use_cost_nothing_but_time() {
    let forged = testdata::CONSENSUS_NS.replacen("\nknown-flags ", "\nknown-flags Forged ", 1);
    let ok = |body: &[u8]| [b"HTTP/1.0 200 OK\r\n\r\n", body].concat();
    run(async move || {
        let lies = bad(move |request| match request {
            r if r.contains("/consensus/") => ok(forged.as_bytes()),
            r if r.contains("/consensus-microdesc") => ok(b"network-status-version 3 microdesc\n"),
            // Documents, but not those that were asked for.
            r if r.contains("/micro/") => ok(testdata::MICRODESCS.replace("\nid ", "\nx\nid ").as_bytes()),
            r if r.contains("/server/") => ok(testdata::EXTRA_INFOS.as_bytes()),
            r if r.contains("/keys/") => ok(&[0xff; 1000]),
            _ => b"HTTP/1.0 500 broken\r\n\r\n".to_vec(),
        });
        let bomb = onionring_node::compress::compress(
            onionring_node::compress::Encoding::Deflate,
            &vec![b'\n'; 30 << 20],
        )
        .unwrap();
        let bombs =
            bad(move |_| [b"HTTP/1.0 200 OK\r\nContent-Encoding: deflate\r\n\r\n", &bomb[..]].concat());
        let servers = [lies, good(), bombs];
        let (_, state) = fetch_until(servers, None, |d, _| is_whole(d)).await;
        assert!(state.failed.values().sum::<u64>() > 0);
    });
}

#[test]
fn nothing_forged_is_ever_served() {
    let forged = testdata::CONSENSUS_NS.replacen("\nknown-flags ", "\nknown-flags Forged ", 1);
    run(async move || {
        let certs = "HTTP/1.0 200 OK\r\n\r\n".to_owned() + testdata::CERTS;
        let consensus = "HTTP/1.0 200 OK\r\n\r\n".to_owned() + &forged;
        let liar = bad(move |request| match request.contains("/keys/") {
            true => certs.clone().into_bytes(),
            false => consensus.clone().into_bytes(),
        });
        let (directory, _) = fetch_until([liar; 3], None, |_, state| state.unfit >= 4).await;
        let documents = directory.documents();
        assert!(documents.ns.is_none() && documents.microdesc.is_none() && directory.network().is_none());
    });
}

#[test]
fn our_address_is_what_most_servers_see() {
    let seen = |addresses: &[&str]| {
        let seen = addresses.iter().enumerate().map(|(server, a)| (server, a.parse().unwrap())).collect();
        FetchState { seen, ..FetchState::default() }.seen_ipv4().map(|address| address.to_string())
    };
    assert_eq!(seen(&["1.2.3.4", "1.2.3.4", "5.6.7.8"]).as_deref(), Some("1.2.3.4"));
    assert_eq!(seen(&["1.2.3.4", "2001:db8::1", "1.2.3.4"]).as_deref(), Some("1.2.3.4"));
    for undecided in
        [&["1.2.3.4"][..], &["1.2.3.4", "5.6.7.8"], &["1.2.3.4", "1.2.3.4", "5.6.7.8", "5.6.7.8"], &[]]
    {
        assert_eq!(seen(undecided), None, "{undecided:?}");
    }
}
