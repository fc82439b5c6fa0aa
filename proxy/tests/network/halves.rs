//! Streams whose directions end one by one (`HalfClosedStreams`), and that they do so nowhere else.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use onionring_loadgen::net::{Kind, Network, NetworkSpec, NodeSpec, Role};

use super::{PATIENCE, boot};

const OPTION: &str = "HalfClosedStreams 1";

/// How long a server listens for an end that is not to come: far less than a proxy keeps a silent stream.
const SILENCE: Duration = Duration::from_secs(3);

/// Exits of all kinds behind relays of stock tor, and a client for each; the consensus comes from authorities of both.
fn network() -> Network {
    let exit = |name: &str, kind| NodeSpec::new(Role::Exit, kind).named(name);
    let client = |name: &str, exit: &str| {
        NodeSpec::new(Role::Client, Kind::ONIONRING).named(name).pinned("", "", exit)
    };
    boot(
        NetworkSpec::new()
            .add(Role::Authority, Kind::TOR, 2)
            .add(Role::Authority, Kind::ONIONRING, 1)
            .add(Role::Relay, Kind::TOR, 3)
            .node(exit("offers", Kind::ONIONRING).torrc(OPTION))
            .node(exit("plain", Kind::ONIONRING))
            .node(exit("stock", Kind::TOR))
            .node(client("both", "offers").torrc(OPTION))
            .node(client("silent", "offers"))
            .node(client("unheard", "plain").torrc(OPTION))
            .node(client("abroad", "stock").torrc(OPTION))
            .shards(1),
    )
}

/// A server that does with one connection what the test says.
fn serve<T: Send + 'static>(
    network: &Network,
    act: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind((network.server().address().ip(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        act(stream)
    });
    (port, server)
}

fn open(network: &Network, client: &str, port: u16) -> TcpStream {
    let stream = network.node(client).socks().unwrap().connect(network.target().0, port).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn all(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    stream.read_to_end(&mut read).unwrap();
    read
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn directions_end_one_by_one_between_proxy_and_exit_and_nowhere_else() {
    let network = network();
    it_is_told_in_the_consensus(&network);
    for request in [0, 9, 1 << 20] {
        an_answer_begins_after_the_end_of_the_question(&network, request);
    }
    an_application_goes_on_after_the_end_of_the_answer(&network);
    for client in ["silent", "unheard", "abroad"] {
        the_end_of_a_question_is_not_passed_on(&network, client);
        the_end_of_an_answer_ends_the_stream(&network, client);
    }
    // Nobody took anything amiss: the same circuits still carry.
    an_answer_begins_after_the_end_of_the_question(&network, 9);
}

fn it_is_told_in_the_consensus(network: &Network) {
    let document = network.document("/tor/status-vote/current/consensus-microdesc").unwrap();
    let consensus = String::from_utf8(document).unwrap();
    let offering: Vec<_> = consensus
        .split("\nr ")
        .filter(|entry| entry.contains("X-HalfClose=1"))
        .map(|entry| entry.split(' ').next().unwrap())
        .collect();
    assert_eq!(offering, ["offers"]);
}

/// As `nc -N` does it.
fn an_answer_begins_after_the_end_of_the_question(network: &Network, request: usize) {
    let (port, server) = serve(network, |mut stream| {
        let question = all(&mut stream);
        stream.write_all(&pattern(1 << 20)).unwrap();
        question
    });
    let mut app = open(network, "both", port);
    app.write_all(&pattern(request)).unwrap();
    app.shutdown(Shutdown::Write).unwrap();
    assert!(all(&mut app) == pattern(1 << 20));
    assert!(server.join().unwrap() == pattern(request));
}

fn an_application_goes_on_after_the_end_of_the_answer(network: &Network) {
    let (port, server) = serve(network, |mut stream| {
        stream.write_all(b"that was all").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        all(&mut stream)
    });
    let mut app = open(network, "both", port);
    assert_eq!(all(&mut app), b"that was all");
    app.write_all(&pattern(1 << 20)).unwrap();
    app.shutdown(Shutdown::Write).unwrap();
    assert!(server.join().unwrap() == pattern(1 << 20));
}

fn the_end_of_a_question_is_not_passed_on(network: &Network, client: &str) {
    let (port, server) = serve(network, |mut stream| {
        stream.read_exact(&mut [0; 8]).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        let end = stream.read(&mut [0]).map_err(|error| error.kind());
        stream.write_all(b"answer").unwrap();
        end
    });
    let mut app = open(network, client, port);
    app.write_all(b"question").unwrap();
    app.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(&mut app), b"answer", "{client}");
    assert_eq!(server.join().unwrap(), Err(io::ErrorKind::WouldBlock), "{client}");
}

fn the_end_of_an_answer_ends_the_stream(network: &Network, client: &str) {
    let (port, server) = serve(network, |mut stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        all(&mut stream)
    });
    let mut app = open(network, client, port);
    assert_eq!(all(&mut app), b"", "{client}");
    // The application has not ended what it sends; the exit has closed the connection.
    assert_eq!(server.join().unwrap(), b"", "{client}");
    drop(app);
}
