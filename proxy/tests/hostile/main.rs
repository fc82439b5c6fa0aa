//! The running program among relays that are not to be trusted, in networks that the tests play themselves.
//!
//! - [`paper`]: authorities' keys, and the consensus that they sign;
//! - [`network`]: relays on loopback, one of which behaves in a chosen manner, and a server to fetch from;
//! - [`program`]: the proxy as a process: what it answers, its log, and what it uses;
//! - [`manners`]: all that a hostile relay does, on links, circuits and streams;
//! - [`trial`]: one manner after the other, and what must hold of the proxy;
//! - `guards`, `beyond`: the tests, with the hostile relay next to the client, or further on;
//! - `clock`: honest relays, and a proxy whose clock is wrong.

mod beyond;
mod clock;
mod guards;
mod manners;
mod network;
mod paper;
mod program;
mod trial;
#[path = "../watch/mod.rs"]
mod watch;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{LazyLock, Mutex, Once};
use std::time::{Duration, Instant};

use onionring_loadgen::net::netns;
use tokio::net::{TcpListener, TcpStream};
use watch::{Watch, may_enter};

/// How long what must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test in a network namespace, where nothing but these tests connects to anything. Without the right to make one
/// the test runs all the same, and only does not see where connections lead.
fn run(test: impl Future<Output = ()>) {
    static ENTERED: Once = Once::new();
    ENTERED.call_once(|| {
        if netns::inside() || may_enter() {
            // The program begins anew, if it was outside; all tests are here at most once by then.
            netns::enter().unwrap();
            LazyLock::force(&WATCH);
        } else {
            eprintln!("where connections lead is not seen: that needs root, or a kernel that lets users make namespaces");
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

static WATCH: LazyLock<Watch> = LazyLock::new(Watch::start);

/// Where connections may lead.
static PLACES: LazyLock<Mutex<HashMap<SocketAddr, Who>>> = LazyLock::new(Mutex::default);

/// Who may connect somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Anybody,
    /// Relays only, each from its own address. The program's connections come from the first of loopback.
    Relays,
}

/// Connections may lead there from now on.
fn allow(place: SocketAddr, who: Who) {
    PLACES.lock().unwrap().insert(place, who);
}

/// All that was ever sent is connections to places of a network.
async fn nothing_has_leaked() {
    if !netns::inside() {
        return;
    }
    // Seen like everything else, and after it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let last = listener.local_addr().unwrap();
    allow(last, Who::Anybody);
    TcpStream::connect(last).await.unwrap();
    until("the last packet", || WATCH.seen().iter().any(|packet| packet.to == last).then_some(())).await;
    let mut seen = WATCH.seen();
    let places = PLACES.lock().unwrap();
    seen.retain(|packet| match places.get(&packet.to).filter(|_| packet.is_tcp) {
        Some(Who::Anybody) => false,
        Some(Who::Relays) => packet.from.ip() == Ipv4Addr::LOCALHOST,
        None => true,
    });
    assert!(seen.is_empty(), "leaks: {seen:#?}");
}

/// Looks again and again, until there is something.
async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
