use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use onionring_node::compress::{self, Encoding};
use onionring_node::directory::testdata::{self, NOW, pair};
use onionring_node::link::ConnectError;
use onionring_proto::link::LinkError;
use onionring_proto::link::cert::CertError;
use onionring_proto::netdoc::consdiff;
use onionring_proto::torrc::Origin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::transport::{OpenError, Opened, Route};
use super::*;
use crate::network::Families;

/// What a directory says to a request.
type Answer = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

/// What a directory does with whoever connects.
#[derive(Clone)]
enum Manner {
    /// There is nobody.
    Away,
    /// Its certificates ended so many seconds ago.
    Outdated(u64),
    /// It answers so to a request.
    Answers(Answer),
    /// It takes the request and says nothing.
    Silent,
    /// It sends a byte now and then.
    Trickles,
}

fn answers(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Manner {
    Manner::Answers(Arc::new(answer))
}

/// Directories by their ports.
struct Fake {
    manner: Box<dyn Fn(u16) -> Manner + Send + Sync>,
    clock_ahead: i64,
    opened: Mutex<Vec<(u16, Instant)>>,
}

impl Fake {
    fn new(manner: impl Fn(u16) -> Manner + Send + Sync + 'static) -> Arc<Fake> {
        Arc::new(Fake { manner: Box::new(manner), clock_ahead: 0, opened: Mutex::default() })
    }

    fn asked(&self) -> Vec<u16> {
        self.opened.lock().unwrap().iter().map(|(port, _)| *port).collect()
    }
}

impl Transport for Arc<Fake> {
    async fn open(&self, route: &Route) -> Result<Opened, OpenError> {
        let port = match route {
            Route::Tunnel(place) => place.address.port(),
            Route::DirPort(address) => address.port(),
        };
        self.opened.lock().unwrap().push((port, Instant::now()));
        let manner = (self.manner)(port);
        if matches!(manner, Manner::Away) {
            return Err(OpenError::Connect(std::io::ErrorKind::ConnectionRefused.into()));
        }
        if let Manner::Outdated(seconds) = manner {
            let error = CertError::Expired { expires: NOW, now: NOW + Duration::from_secs(seconds) };
            let failure = LinkError::BadCert { cert_type: 5, error }.into();
            return Err(OpenError::Link(Arc::new(ConnectError { address: place(port), failure })));
        }
        let (ours, theirs) = duplex(1 << 16);
        tokio::spawn(attend(theirs, manner));
        Ok(Opened { stream: Box::new(ours), clock_ahead: Some(self.clock_ahead) })
    }
}

async fn attend(mut stream: DuplexStream, manner: Manner) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap_or_default());
    }
    match manner {
        Manner::Away | Manner::Outdated(_) => {}
        Manner::Answers(answer) => {
            // Who has read enough hangs up.
            let _ = stream.write_all(&answer(&String::from_utf8(request).unwrap())).await;
        }
        Manner::Silent => std::future::pending().await,
        Manner::Trickles => {
            let head = b"HTTP/1.0 200 OK\r\n\r\n".iter();
            for byte in head.chain(std::iter::repeat(&b'x')) {
                if stream.write_u8(*byte).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
    }
}

fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    [b"HTTP/1.0 200 OK\r\n\r\n", body.as_ref()].concat()
}

/// What a directory that is well has, of the recorded network.
fn well(request: &str) -> Vec<u8> {
    match request {
        r if r.contains("/consensus-microdesc") => ok(testdata::CONSENSUS_MICRODESC),
        r if r.contains("/keys/") => ok(testdata::CERTS),
        r if r.contains("/micro/") => ok(testdata::MICRODESCS),
        _ => b"HTTP/1.0 404 Not found\r\n\r\n".to_vec(),
    }
}

const FALLBACK: u16 = 1000;
const AUTHORITY: u16 = 2000;
const GUARD: u16 = 3000;

fn place(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Two fallbacks, and authorities with an ORPort each.
fn settings(cache: &Path, authorities: Vec<Fingerprint>) -> DirectorySettings {
    let authority = |(n, v3_ident): (usize, Fingerprint)| Authority {
        origin: Origin::Default,
        nickname: None,
        v3_ident: Some(v3_ident),
        or_port: Some(AUTHORITY + n as u16),
        dir: "127.0.0.1:80".parse().unwrap(),
        ipv6: None,
        rsa_id: Fingerprint([n as u8; 20]),
        is_bridge_authority: false,
        weight: 1.0,
        upload: Vec::new(),
        download: Vec::new(),
        vote: Vec::new(),
    };
    let fallback = |n: u16| Fallback {
        origin: Origin::Default,
        or: place(FALLBACK + n),
        ipv6: None,
        rsa_id: Fingerprint([0xff - n as u8; 20]),
        weight: 1.0,
    };
    DirectorySettings {
        authorities: authorities.into_iter().enumerate().map(authority).collect(),
        fallbacks: vec![fallback(0), fallback(1)],
        cache: cache.to_owned(),
        delays: Delays::NORMAL,
        schedule: Schedule::NORMAL,
        dial: Families::default(),
        from_authorities: false,
        protocols: Protocols::parse(PROTOCOLS).unwrap(),
    }
}

/// Guards that are always there, and what was said of them.
#[derive(Default)]
struct Guards {
    given: AtomicU64,
    well: AtomicU64,
    bad: AtomicU64,
}

impl DirectorySources for Guards {
    fn next(&self) -> Option<(Place, Fingerprint)> {
        self.given.fetch_add(1, Ordering::Relaxed);
        let id = Fingerprint([7; 20]);
        Some((Place { address: place(GUARD), rsa_id: id.0, ed_id: None }, id))
    }

    fn succeeded(&self, _: Fingerprint) {
        self.well.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, _: Fingerprint) {
        self.bad.fetch_add(1, Ordering::Relaxed);
    }

    fn lets_ask_any_relay(&self) -> bool {
        false
    }
}

/// A clock that shows `start` now, and goes with tokio's.
fn clock(start: Unix) -> Clock {
    let origin = Instant::now();
    Arc::new(move || start + origin.elapsed())
}

/// Waits, a day and more of the paused clock if need be, until the status or the view is such.
async fn until(directory: &Directory, enough: impl Fn(&Status, Option<&View>) -> bool) {
    let look = async {
        while !enough(&directory.status(), directory.view().borrow().as_deref()) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let patience = Duration::from_secs(30 * 3600);
    if timeout(patience, look).await.is_err() {
        panic!("not in time: {:?}", directory.status());
    }
}

fn is_ready(_: &Status, view: Option<&View>) -> bool {
    view.is_some_and(|view| view.is_sufficient)
}

fn start(fake: &Arc<Fake>, disk: &Path, sources: Arc<dyn DirectorySources>, now: Unix) -> Directory {
    Directory::over(fake.clone(), settings(disk, testdata::authorities()), sources, clock(now)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_new_client_asks_a_fallback_then_its_guards_and_starts_again_from_the_cache() {
    let disk = tempfile::tempdir().unwrap();
    let fake = Fake::new(|_| answers(well));
    let guards = Arc::new(Guards::default());
    let begun = Instant::now();
    let directory = start(&fake, disk.path(), guards.clone(), NOW);
    until(&directory, is_ready).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let status = directory.status();
    assert_eq!((status.phase, status.clock.clone()), (Phase::EnoughKnown, None));
    assert_eq!((status.kept.missing, status.known_share), (0, 1.0));
    let view = directory.view().borrow().clone().unwrap();
    assert!(view.is_live && view.network.relays().count() == 7);
    // The consensus and the certificates come from fallbacks, all else from guards.
    let asked = fake.asked();
    assert!((FALLBACK..FALLBACK + 2).contains(&asked[0]) && asked.contains(&GUARD), "{asked:?}");
    assert!(asked.iter().all(|&port| port < AUTHORITY || port == GUARD), "{asked:?}");
    assert_eq!(guards.given.load(Ordering::Relaxed), guards.well.load(Ordering::Relaxed));
    directory.note_circuit();
    assert_eq!(directory.status().phase.percent(), 100);
    drop(directory);

    let nobody = Fake::new(|_| Manner::Away);
    let directory = start(&nobody, disk.path(), Arc::new(NoSources), NOW);
    until(&directory, is_ready).await;
    assert!(nobody.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn authorities_are_asked_when_fallbacks_do_not_answer() {
    let disk = tempfile::tempdir().unwrap();
    let fake = Fake::new(|port| if port < AUTHORITY { Manner::Silent } else { answers(well) });
    let begun = Instant::now();
    let directory = start(&fake, disk.path(), Arc::new(NoSources), NOW);
    until(&directory, is_ready).await;
    let opened = fake.opened.lock().unwrap().clone();
    let first = opened.iter().find(|(port, _)| *port >= AUTHORITY).unwrap();
    assert!(first.1 - begun >= Duration::from_secs(6), "{opened:?}");
    assert!(opened.iter().filter(|(_, at)| *at < first.1).count() <= 2, "no more than there are: {opened:?}");
}

/// All that hostile directories do: each of them fails, and the one that is well is found.
#[tokio::test(start_paused = true)]
async fn hostile_directories_cost_nothing_but_time() {
    let bomb = compress::compress(Encoding::Deflate, &vec![b'\n'; 64 << 20]).unwrap();
    let bomb = [b"HTTP/1.0 200 OK\r\nContent-Encoding: deflate\r\n\r\n", &bomb[..]].concat();
    let oversized = ok(vec![b'x'; (32 << 20) + 1]);
    let consensus = testdata::CONSENSUS_MICRODESC;
    let forged = consensus.replacen("\nknown-flags ", "\nknown-flags Forged ", 1);
    let second = consensus.match_indices("directory-signature ").nth(1).unwrap().0;
    let too_few = consensus[..second].to_owned();
    let cut = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{consensus}", consensus.len() + 1);
    let instead: Vec<(&str, Manner)> = vec![
        ("bomb", answers(move |_| bomb.clone())),
        ("oversized", answers(move |_| oversized.clone())),
        ("forged", answers(move |r| if r.contains("/keys/") { well(r) } else { ok(&forged) })),
        ("too few signatures", answers(move |r| if r.contains("/keys/") { well(r) } else { ok(&too_few) })),
        ("cut", answers(move |_| cut.clone().into_bytes())),
        ("other", answers(|_| ok(testdata::CONSENSUS_NS))),
        ("garbage", answers(|_| ok([0xff; 100]))),
        ("not HTTP", answers(|_| b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())),
        ("refuses", answers(|_| b"HTTP/1.0 503 Directory busy\r\n\r\n".to_vec())),
        ("has nothing", answers(|_| b"HTTP/1.0 404 Not found\r\n\r\n".to_vec())),
        ("ends", answers(|_| Vec::new())),
        ("away", Manner::Away),
        ("silent", Manner::Silent),
        ("trickles", Manner::Trickles),
    ];
    for (name, manner) in instead {
        let disk = tempfile::tempdir().unwrap();
        let fake = Fake::new(move |port| match port {
            FALLBACK..AUTHORITY => manner.clone(),
            _ => answers(well),
        });
        let directory = start(&fake, disk.path(), Arc::new(NoSources), NOW);
        // The consensus of the recorded network does not live long; it may be used for a day.
        until(&directory, is_ready).await;
        let failed: u64 = directory.status().kept.failed.values().sum();
        let ended_by_the_race = ["silent", "trickles"].contains(&name);
        assert!(failed > 0 || ended_by_the_race, "{name}: {:?}", directory.status().kept);
        assert!(fake.asked().iter().any(|port| *port < AUTHORITY), "{name}");
    }
}

/// The same of guards, once there is a consensus: they are told of, and others are asked.
#[tokio::test(start_paused = true)]
async fn after_guards_of_no_use_others_are_asked_and_only_those_that_do_not_answer_are_told_of() {
    for (manner, answers) in [
        (Manner::Away, false),
        (Manner::Silent, false),
        (Manner::Trickles, false),
        (answers(|_| ok("onion-key\nnot a key\n")), true),
        (answers(|_| ok(testdata::MICRODESCS.replace("\nid ", "\nx\nid "))), true),
    ] {
        let disk = tempfile::tempdir().unwrap();
        let fake = Fake::new(move |port| if port == GUARD { manner.clone() } else { answers_of_others() });
        let guards = Arc::new(Guards::default());
        let directory = start(&fake, disk.path(), guards.clone(), NOW);
        until(&directory, is_ready).await;
        let (well, bad) = (guards.well.load(Ordering::Relaxed), guards.bad.load(Ordering::Relaxed));
        assert!(if answers { well >= 3 && bad == 0 } else { well == 0 && bad >= 3 }, "{well} {bad}");
        // No relay but guards learns of this client.
        assert!(
            fake.asked().iter().all(|&port| port == GUARD || port < AUTHORITY + 100),
            "{:?}",
            fake.asked()
        );
    }
}

fn answers_of_others() -> Manner {
    answers(well)
}

#[tokio::test(start_paused = true)]
async fn without_guards_any_relay_that_serves_the_directory_is_asked() {
    let disk = tempfile::tempdir().unwrap();
    let fake = Fake::new(|_| answers(well));
    let directory = start(&fake, disk.path(), Arc::new(NoSources), NOW);
    until(&directory, is_ready).await;
    let view = directory.view().borrow().clone().unwrap();
    let relays: BTreeSet<u16> = view.network.consensus().relays.iter().map(|r| r.or_port).collect();
    assert!(fake.asked().iter().any(|port| relays.contains(port)), "{:?}", fake.asked());
}

fn cache_of_the_pair(disk: &Path) {
    std::fs::write(disk.join("cached-certs"), pair::CERTS).unwrap();
    std::fs::write(disk.join("cached-microdesc-consensus"), pair::MICRODESC[0]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_consensus_that_is_over_is_used_until_the_next_comes_as_a_diff() {
    let disk = tempfile::tempdir().unwrap();
    cache_of_the_pair(disk.path());
    let [base, target] = pair::MICRODESC;
    let diff = consdiff::generate(base, target).unwrap();
    let is_back = Arc::new(AtomicBool::new(false));
    let serves = is_back.clone();
    let fake = Fake::new(move |_| match serves.load(Ordering::Relaxed) {
        false => Manner::Away,
        true => {
            let diff = diff.clone();
            answers(move |request| match request {
                r if !r.contains("/consensus-microdesc") => b"HTTP/1.0 404 Not found\r\n\r\n".to_vec(),
                r if r.contains("X-Or-Diff-From-Consensus: ") => ok(&diff),
                _ => ok(target),
            })
        }
    });
    let settings = settings(disk.path(), pair::authorities());
    // Ten seconds before it is over.
    let clock = clock(pair::NOW - Duration::from_secs(15));
    let directory = Directory::over(fake.clone(), settings, Arc::new(NoSources), clock).unwrap();
    until(&directory, |_, view| view.is_some_and(|view| view.is_live)).await;
    until(&directory, |_, view| view.is_some_and(|view| !view.is_live)).await;
    is_back.store(true, Ordering::Relaxed);
    let valid_after = |view: &View| view.network.consensus().lifetime.valid_after;
    let first = valid_after(directory.view().borrow().as_ref().unwrap());
    until(&directory, |_, view| view.is_some_and(|view| valid_after(view) > first)).await;
    assert_eq!(directory.status().kept.diffs, 1);
}

#[tokio::test(start_paused = true)]
async fn a_consensus_that_is_over_by_a_day_is_not_used_any_more() {
    let disk = tempfile::tempdir().unwrap();
    cache_of_the_pair(disk.path());
    let fake = Fake::new(|_| Manner::Away);
    let settings = settings(disk.path(), pair::authorities());
    let directory = Directory::over(fake, settings, Arc::new(NoSources), clock(pair::NOW)).unwrap();
    until(&directory, |_, view| view.is_some()).await;
    let begun = Instant::now();
    until(&directory, |_, view| view.is_none()).await;
    let hours = begun.elapsed().as_secs_f64() / 3600.0;
    assert!((23.9..24.1).contains(&hours), "{hours}");
}

#[tokio::test(start_paused = true)]
async fn people_are_told_of_a_wrong_clock() {
    let day = Duration::from_secs(86_400);
    for (now, ahead) in [(NOW + 3 * day, true), (NOW - 3 * day, false)] {
        let disk = tempfile::tempdir().unwrap();
        let fake = Fake::new(|_| answers(well));
        let directory = start(&fake, disk.path(), Arc::new(NoSources), now);
        until(&directory, |status, _| status.clock.is_some()).await;
        let problem = directory.status().clock.unwrap();
        assert_eq!((problem.source, problem.ahead > 0), (Timekeeper::Consensus, ahead));
        assert!(directory.view().borrow().is_none());
    }
    // What the directory's own clock says, even if it has no consensus.
    let disk = tempfile::tempdir().unwrap();
    let fake = Fake {
        manner: Box::new(|_| answers(|_| Vec::new())),
        clock_ahead: 2 * 3600,
        opened: Mutex::default(),
    };
    let directory = start(&Arc::new(fake), disk.path(), Arc::new(NoSources), NOW);
    until(&directory, |status, _| status.clock.is_some()).await;
    let text = directory.status().clock.unwrap().to_string();
    assert!(text.contains("2 hours behind: a fallback directory has another time"), "{text}");
    // That its certificates are over, so that there is no link on which it could say so; until another one is reached.
    let disk = tempfile::tempdir().unwrap();
    let fake =
        Fake::new(
            |port| if port < AUTHORITY { Manner::Outdated(3 * 86_400) } else { answers(|_| Vec::new()) },
        );
    let directory = start(&fake, disk.path(), Arc::new(NoSources), NOW);
    until(&directory, |status, _| status.clock.is_some()).await;
    let text = directory.status().clock.unwrap().to_string();
    assert!(
        text.contains("3 days ahead, or more: what a fallback directory proves its identity with"),
        "{text}"
    );
    until(&directory, |status, _| status.clock.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_requires_what_we_do_not_know_is_not_used() {
    let disk = tempfile::tempdir().unwrap();
    let fake = Fake::new(|_| answers(well));
    let mut settings = settings(disk.path(), testdata::authorities());
    settings.protocols = Protocols::parse("Cons=1-2 Desc=1-2 FlowCtrl=1 Microdesc=1-2 Relay=2-4").unwrap();
    let directory = Directory::over(fake, settings, Arc::new(NoSources), clock(NOW)).unwrap();
    let fatal = timeout(Duration::from_secs(60), directory.ended()).await.unwrap();
    assert!(fatal.to_string().contains("(Link=4)"), "{fatal}");
    assert!(directory.view().borrow().is_none());
    assert_eq!(directory.status().fatal, Some(fatal));
}
