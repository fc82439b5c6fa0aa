use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;

use glommio::LocalExecutorBuilder;
use onionring_node::compress::Encoding;
use onionring_node::docstore::Cached;
use onionring_proto::netdoc::consdiff;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;

use super::super::client::DirPorts;
use super::super::library::Library;
use super::super::port;
use super::super::snapshot::DirSnapshot;
use super::*;
use crate::dir::testdata::{self, NOW, pair};
use crate::io::net::{self, OutboundAddresses};

/// An authority that has everything.
fn good() -> SocketAddr {
    serve(&testdata::library(), NOW)
}

/// An authority that has what is in a library.
fn serve(library: &Library, now: Unix) -> SocketAddr {
    let directory = Arc::new(Directory::new(None));
    directory.set_documents(library.snapshot());
    let (address, mut listeners) = net::listen((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
    let listener = net::adopt_listener(listeners.remove(0));
    let bandwidth = Rc::new(port::Bandwidth::unlimited());
    glommio::spawn_local(port::serve(listener, directory, Clock::starting_at(now), bandwidth)).detach();
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

fn settings(authorities: Vec<Fingerprint>, addresses: [SocketAddr; 3]) -> FetchSettings {
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
        servers: authorities.into_iter().zip(addresses).map(server).collect(),
    }
}

/// Runs a client until `enough`, and gives what it has then.
async fn fetch_until(
    servers: [SocketAddr; 3],
    store: Option<&Path>,
    enough: impl Fn(&DirSnapshot, &FetchState) -> bool,
) -> (Arc<Directory>, FetchState) {
    fetch_at(NOW, settings(testdata::authorities(), servers), store, enough).await
}

async fn fetch_at(
    now: Unix,
    settings: FetchSettings,
    store: Option<&Path>,
    enough: impl Fn(&DirSnapshot, &FetchState) -> bool,
) -> (Arc<Directory>, FetchState) {
    let directory = Arc::new(Directory::new(None));
    let transport = DirPorts { from: OutboundAddresses::default() };
    let store = store.map(|path| DocStore::open(path).unwrap());
    let clock = Clock::starting_at(now);
    let client = DirClient::new(transport, settings, store, directory.clone(), clock);
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
        assert_eq!((state.kept.unfit, state.kept.disk_failing), (0, false));
        assert_eq!(state.kept.valid_after.map(|at| at.is_some()), [true, true]);
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
        assert_eq!(state.kept.answered, 0);
    });
    // A damaged file costs what is in it, no more.
    std::fs::write(disk.path().join("cached-microdescs.new"), [0xff; 100]).unwrap();
    run(async || {
        let authority = good();
        let (_, state) = fetch_until([authority; 3], Some(disk.path()), |d, _| is_whole(d)).await;
        assert_eq!(state.kept.answered, 1);
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
        let bomb = onionring_node::compress::compress(Encoding::Deflate, &vec![b'\n'; 30 << 20]).unwrap();
        let bombs =
            bad(move |_| [b"HTTP/1.0 200 OK\r\nContent-Encoding: deflate\r\n\r\n", &bomb[..]].concat());
        let servers = [lies, good(), bombs];
        let (_, state) = fetch_until(servers, None, |d, _| is_whole(d)).await;
        assert!(state.kept.failed.values().sum::<u64>() > 0);
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
        let (directory, _) = fetch_until([liar; 3], None, |_, state| state.kept.unfit >= 4).await;
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

/// What a run before left on disk: the first consensuses of the pair.
fn disk_with_the_first_of_the_pair() -> tempfile::TempDir {
    let disk = tempfile::tempdir().unwrap();
    for (file, text) in [
        (Cached::Certs, pair::CERTS),
        (Cached::Consensus, pair::NS[0]),
        (Cached::MicrodescConsensus, pair::MICRODESC[0]),
    ] {
        DocStore::open(disk.path()).unwrap().replace(file, [text.as_bytes()]).unwrap();
    }
    disk
}

const PAIRS: [(Flavor, [&str; 2]); 2] = [(Flavor::Ns, pair::NS), (Flavor::Microdesc, pair::MICRODESC)];

fn text_of(documents: &DirSnapshot, flavor: Flavor) -> String {
    let text = documents.consensus(flavor).unwrap().whole.form(Encoding::Identity);
    String::from_utf8(text.to_vec()).unwrap()
}

fn has_the_second_of_the_pair(documents: &DirSnapshot) -> bool {
    PAIRS.iter().all(|(flavor, [_, target])| {
        documents.consensus(*flavor).is_some() && text_of(documents, *flavor) == *target
    })
}

fn has_diffs(documents: &DirSnapshot) -> bool {
    has_the_second_of_the_pair(documents)
        && PAIRS.iter().all(|(flavor, [base, target])| {
            let Some(diff) = documents.consensus(*flavor).unwrap().diff_from(&[consdiff::signed_sha3(base)])
            else {
                return false;
            };
            let diff = String::from_utf8(diff.form(Encoding::Identity).to_vec()).unwrap();
            assert_eq!(consdiff::apply(base, &diff).as_deref(), Ok(*target));
            true
        })
}

#[test]
fn what_came_as_a_diff_goes_out_as_one_after_a_restart_too() {
    let disk = disk_with_the_first_of_the_pair();
    let run_against = |server: fn() -> SocketAddr, enough: fn(&DirSnapshot, &FetchState) -> bool| {
        run(async || {
            let settings = settings(pair::authorities(), [server(); 3]);
            let (_, state) = fetch_at(pair::NOW, settings, Some(disk.path()), enough).await;
            assert_eq!((state.kept.unfit, state.kept.disk_failing), (0, false));
        });
    };
    let with_diffs = || {
        let mut library = pair::library();
        PAIRS.iter().for_each(|(flavor, [a, b])| testdata::add_diff(&mut library, *flavor, a, b));
        serve(&library, pair::NOW)
    };
    run_against(with_diffs, |documents, state| has_diffs(documents) && state.kept.diffs == 2);
    assert_eq!(std::fs::read_dir(disk.path().join("past-consensuses")).unwrap().count(), 2);
    run_against(|| bad(|_| Vec::new()), |documents, state| has_diffs(documents) && state.kept.diffs == 0);
    // A directory that makes none sends the whole.
    let disk = disk_with_the_first_of_the_pair();
    run(async || {
        let settings = settings(pair::authorities(), [serve(&pair::library(), pair::NOW); 3]);
        let enough = |documents: &DirSnapshot, _: &FetchState| has_diffs(documents);
        let (_, state) = fetch_at(pair::NOW, settings, Some(disk.path()), enough).await;
        assert_eq!(state.kept.diffs, 0);
    });
}

#[test]
fn after_a_diff_of_no_use_the_whole_is_fetched() {
    /// Answers with `make(base, target)` where a diff will do, and with nothing but the whole elsewhere.
    fn liar(make: fn(&str, &str) -> String) -> SocketAddr {
        bad(move |request| {
            let [base, target] = if request.contains("-microdesc") { pair::MICRODESC } else { pair::NS };
            let body = match request {
                r if !r.contains("/consensus") => return b"HTTP/1.0 404 Not found\r\n\r\n".to_vec(),
                r if r.contains("X-Or-Diff-From-Consensus: ") => make(base, target),
                _ => target.to_owned(),
            };
            format!("HTTP/1.0 200 OK\r\n\r\n{body}").into_bytes()
        })
    }
    let cases: [fn(&str, &str) -> String; 4] = [
        |base, target| consdiff::generate(target, base).unwrap(),
        |base, target| {
            consdiff::generate(base, target).unwrap().replacen("known-flags", "known", 1) + "junk\n"
        },
        |_, _| "network-status-diff-version 1\n".to_owned(),
        // A good diff to what nobody signed.
        |base, target| {
            let forged = target.replacen("\nknown-flags ", "\nknown-flags Forged ", 1);
            consdiff::generate(base, &forged).unwrap()
        },
    ];
    for make in cases {
        let disk = disk_with_the_first_of_the_pair();
        run(async || {
            let settings = settings(pair::authorities(), [liar(make); 3]);
            let enough = |documents: &DirSnapshot, _: &FetchState| has_the_second_of_the_pair(documents);
            let (_, state) = fetch_at(pair::NOW, settings, Some(disk.path()), enough).await;
            assert!(state.kept.unfit >= 2);
        });
    }
}
