use super::decide::ExitRules;
use super::*;
use crate::engine::ids::CircuitId;
use crate::engine::rate::Direction;
use crate::io::socket::Socket;
use glommio::net::TcpStream;
use onionring_proto::policy::ExitPolicy;
use onionring_proto::relay_msg::StreamId;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, UdpSocket};
use std::path::Path;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The engine's side of streams, as a client with an endless or a closed window would make it.
#[derive(Clone, Default)]
pub(super) struct Client(Rc<RefCell<ClientState>>);

#[derive(Default)]
struct ClientState {
    inbox: HashMap<StreamRef, Vec<u8>>,
    received: HashMap<StreamRef, Vec<u8>>,
    connected: HashMap<StreamRef, Connected>,
    ended: HashMap<StreamRef, End>,
    resolved: HashMap<StreamRef, Resolved>,
    room: usize,
    /// Whether directions end one by one, and those that destinations have ended.
    halves: bool,
    finished: HashSet<StreamRef>,
}

impl StreamSide for Client {
    fn connected(&self, at: StreamRef, connected: &Connected) {
        self.0.borrow_mut().connected.insert(at, *connected);
    }

    fn end(&self, at: StreamRef, end: &End) {
        assert!(self.0.borrow_mut().ended.insert(at, *end).is_none(), "ended twice");
    }

    fn finish(&self, at: StreamRef) -> bool {
        let state = &mut *self.0.borrow_mut();
        state.halves && {
            assert!(state.finished.insert(at), "finished twice");
            true
        }
    }

    fn resolved(&self, at: StreamRef, resolved: &Resolved) {
        self.0.borrow_mut().resolved.insert(at, resolved.clone());
    }

    fn read(&self, at: StreamRef, take: &mut dyn FnMut(&[u8]) -> usize) {
        let state = &mut *self.0.borrow_mut();
        let inbox = state.inbox.entry(at).or_default();
        // In pieces, as a ring buffer gives them.
        let n = take(inbox.get(..1000).unwrap_or(inbox));
        inbox.drain(..n);
    }

    fn writable(&self, _: StreamRef) -> usize {
        self.0.borrow().room
    }

    fn write(&self, at: StreamRef, data: &[u8]) {
        let state = &mut *self.0.borrow_mut();
        assert!(!data.is_empty() && data.len() <= state.room);
        state.room -= data.len();
        state.received.entry(at).or_default().extend(data);
    }

    fn poll_may_read(&self, _: &Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn poll_bandwidth(&self, _: Direction, _: IpAddr, _: &Context<'_>) -> Poll<Option<usize>> {
        Poll::Ready(None)
    }

    fn charge_bandwidth(&self, _: Direction, _: IpAddr, _: u64) {}

    fn no_connection(&self, _: &std::io::Error) {}

    fn socket(&self, connection: TcpStream) -> Socket {
        Socket::plain(connection)
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }
}

impl Client {
    fn sends(&self, exit: &Exit<Client>, at: StreamRef, data: &[u8]) {
        self.0.borrow_mut().inbox.entry(at).or_default().extend(data);
        exit.handle(StreamEvent::Readable(at));
    }

    fn opens_window(&self, exit: &Exit<Client>, at: StreamRef, room: usize) {
        self.0.borrow_mut().room += room;
        exit.handle(StreamEvent::Writable(at));
    }

    fn received(&self, at: StreamRef) -> usize {
        self.0.borrow().received.get(&at).map_or(0, Vec::len)
    }

    /// The client ends what it sends.
    fn finishes(&self, exit: &Exit<Client>, at: StreamRef) {
        assert!(exit.handle(StreamEvent::Finished(at)).is_none());
    }

    fn has_finished(&self, at: StreamRef) -> bool {
        self.0.borrow().finished.contains(&at)
    }

    fn end_of(&self, at: StreamRef) -> Option<EndReason> {
        self.0.borrow().ended.get(&at).map(|end| end.reason)
    }
}

fn at(stream: u16) -> StreamRef {
    StreamRef { circuit: CircuitId { slot: 1, generation: 1 }, stream: StreamId(stream), serial: 0 }
}

/// Waits for `condition`, which something outside this thread brings about.
async fn until(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "nothing happened");
        glommio::timer::sleep(Duration::from_millis(1)).await;
    }
}

/// Does something that blocks, beside the exit.
async fn beside<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(act);
    until(|| thread.is_finished()).await;
    thread.join().unwrap()
}

/// The destination hears that nothing more comes.
async fn hears_the_end(mut server: std::net::TcpStream) -> std::net::TcpStream {
    beside(move || {
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        server
    })
    .await
}

fn settings(server: SocketAddr) -> ExitSettings {
    ExitSettings {
        rules: ExitRules { policy: ExitPolicy::open(), network: HashSet::new() },
        resolv_conf: ResolvConf::parse(Path::new("test"), &format!("nameserver {server}")).0,
        dns: dns::Options { timeout: Duration::from_millis(100), attempts: 1, ..dns::Options::default() },
        outbound: OutboundAddresses::default(),
    }
}

/// Runs `test` with an exit whose name server never answers, and a client with a window of 1 MiB.
fn with_exit<T, F: Future<Output = T>>(test: impl FnOnce(Exit<Client>, Client) -> F) -> T {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings = Arc::new(ArcSwap::from_pointee(settings(server.local_addr().unwrap())));
    glommio::LocalExecutorBuilder::default().io_memory(0).make().unwrap().run(async {
        let client = Client::default();
        client.0.borrow_mut().room = 1 << 20;
        test(Exit::new(client.clone(), settings, 0), client).await
    })
}

fn begin(at: StreamRef, target: SocketAddr) -> StreamEvent {
    let flags = BeginFlags::default();
    StreamEvent::Begin { at, host: event::Host::Address(target.ip()), port: target.port(), flags }
}

#[test]
fn bytes_go_both_ways_until_the_destination_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let request: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    let server = std::thread::spawn({
        let len = request.len();
        move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; len];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&vec![7; 300_000]).unwrap();
            request
        }
    });
    with_exit(async |exit, client| {
        // Data may follow BEGIN at once.
        client.sends(&exit, at(5), &request[..70_000]);
        assert!(exit.handle(begin(at(5), target)).is_none());
        client.sends(&exit, at(5), &request[70_000..]);
        until(|| client.end_of(at(5)).is_some()).await;
        assert_eq!(client.end_of(at(5)), Some(EndReason::Done));
        assert_eq!(client.received(at(5)), 300_000);
        let connected = client.0.borrow().connected[&at(5)];
        assert_eq!(connected.addr, Some((target.ip(), TTL_LITERAL)));
        assert_eq!(exit.streams(), 0);
    });
    assert_eq!(server.join().unwrap(), request);
}

#[test]
fn a_destination_is_read_only_as_far_as_the_window_is_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[7; 10_000]).unwrap();
        // Keeps the connection open until the other side has ended.
        let _ = stream.read(&mut [0]);
    });
    with_exit(async |exit, client| {
        client.0.borrow_mut().room = 0;
        exit.handle(begin(at(1), target));
        until(|| client.0.borrow().connected.contains_key(&at(1))).await;
        client.opens_window(&exit, at(1), 400);
        until(|| client.received(at(1)) == 400).await;
        client.opens_window(&exit, at(1), 20_000);
        until(|| client.received(at(1)) == 10_000).await;
        exit.handle(StreamEvent::Closed { at: at(1), reason: Some(EndReason::Done) });
        until(|| client.end_of(at(1)).is_some()).await;
    });
    server.join().unwrap();
}

#[test]
fn what_the_client_sent_before_its_end_is_delivered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    with_exit(async |exit, client| {
        exit.handle(begin(at(1), target));
        let (mut server, _) = listener.accept().unwrap();
        until(|| client.0.borrow().connected.contains_key(&at(1))).await;
        // More than the sockets hold.
        let sent = vec![1; 8 << 20];
        client.sends(&exit, at(1), &sent);
        exit.handle(StreamEvent::Closed { at: at(1), reason: Some(EndReason::Done) });
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            server.read_to_end(&mut got).unwrap();
            got.len()
        });
        until(|| reader.is_finished()).await;
        assert_eq!(reader.join().unwrap(), sent.len());
        assert_eq!(client.end_of(at(1)), Some(EndReason::Done));
    });
}

#[test]
fn a_destination_that_resets_is_reported_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    with_exit(async |exit, client| {
        exit.handle(begin(at(1), target));
        let (server, _) = listener.accept().unwrap();
        until(|| client.0.borrow().connected.contains_key(&at(1))).await;
        socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        drop(server);
        until(|| client.end_of(at(1)).is_some()).await;
        assert_eq!(client.end_of(at(1)), Some(EndReason::ConnReset));
        // And one where nobody listens.
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        exit.handle(begin(at(2), closed));
        until(|| client.end_of(at(2)).is_some()).await;
        assert_eq!(client.end_of(at(2)), Some(EndReason::ConnectRefused));
    });
}

#[test]
fn a_circuit_that_goes_takes_its_connections_along() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    with_exit(async |exit, client| {
        exit.handle(begin(at(1), target));
        let (mut server, _) = listener.accept().unwrap();
        until(|| client.0.borrow().connected.contains_key(&at(1))).await;
        exit.handle(StreamEvent::Closed { at: at(1), reason: None });
        let reader = std::thread::spawn(move || server.read(&mut [0]).unwrap());
        until(|| reader.is_finished()).await;
        assert_eq!((reader.join().unwrap(), exit.streams()), (0, 0));
    });
}

#[test]
fn a_half_closed_destination_still_gets_what_was_sent_to_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    with_exit(async |exit, client| {
        client.sends(&exit, at(1), &[1; 50_000]);
        exit.handle(begin(at(1), target));
        let (mut server, _) = listener.accept().unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            server.read_to_end(&mut got).unwrap();
            got.len()
        });
        until(|| reader.is_finished()).await;
        assert_eq!(reader.join().unwrap(), 50_000);
        assert_eq!(client.end_of(at(1)), Some(EndReason::Done));
    });
}

/// A client whose streams end by halves, and a connection to a destination.
async fn by_halves(
    exit: &Exit<Client>,
    client: &Client,
    listener: &TcpListener,
    at: StreamRef,
) -> std::net::TcpStream {
    client.0.borrow_mut().halves = true;
    exit.handle(begin(at, listener.local_addr().unwrap()));
    let (server, _) = listener.accept().unwrap();
    until(|| client.0.borrow().connected.contains_key(&at)).await;
    server
}

#[test]
fn a_destination_answers_after_the_end_of_what_the_client_sends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    with_exit(async |exit, client| {
        let mut server = by_halves(&exit, &client, &listener, at(1)).await;
        // More than the sockets hold.
        let request = vec![1; 8 << 20];
        client.sends(&exit, at(1), &request);
        client.finishes(&exit, at(1));
        let answer = std::thread::spawn(move || {
            let mut got = Vec::new();
            server.read_to_end(&mut got).unwrap();
            server.write_all(&[7; 300_000]).unwrap();
            got.len()
        });
        until(|| client.has_finished(at(1))).await;
        assert_eq!((answer.join().unwrap(), client.received(at(1))), (request.len(), 300_000));
        until(|| client.end_of(at(1)).is_some()).await;
        assert_eq!((client.end_of(at(1)), exit.streams()), (Some(EndReason::Done), 0));
    });
}

#[test]
fn a_client_goes_on_after_the_end_of_what_the_destination_sends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    with_exit(async |exit, client| {
        let mut server = by_halves(&exit, &client, &listener, at(1)).await;
        server.write_all(b"first").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        until(|| client.has_finished(at(1))).await;
        assert_eq!((client.received(at(1)), client.end_of(at(1))), (5, None));
        for _ in 0..3 {
            client.sends(&exit, at(1), &[1; 100_000]);
            server = beside(move || {
                server.read_exact(&mut [0; 100_000]).unwrap();
                server
            })
            .await;
        }
        assert_eq!(client.end_of(at(1)), None);
        client.finishes(&exit, at(1));
        hears_the_end(server).await;
        until(|| client.end_of(at(1)).is_some()).await;
        assert_eq!(client.end_of(at(1)), Some(EndReason::Done));
    });
}

#[test]
fn a_destination_that_is_gone_ends_the_other_half_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    with_exit(async |exit, client| {
        let server = by_halves(&exit, &client, &listener, at(1)).await;
        drop(server);
        until(|| client.has_finished(at(1))).await;
        // The first is answered with a reset, the next one meets it.
        until(|| {
            client.sends(&exit, at(1), b"anybody?");
            client.end_of(at(1)).is_some()
        })
        .await;
        assert_eq!(client.end_of(at(1)), Some(EndReason::ConnReset));

        let server = by_halves(&exit, &client, &listener, at(2)).await;
        client.finishes(&exit, at(2));
        let server = hears_the_end(server).await;
        socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        drop(server);
        until(|| client.end_of(at(2)).is_some()).await;
        assert_eq!(client.end_of(at(2)), Some(EndReason::ConnReset));
    });
}

#[test]
fn a_client_that_gives_up_takes_both_halves_along() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    with_exit(async |exit, client| {
        let server = by_halves(&exit, &client, &listener, at(1)).await;
        client.finishes(&exit, at(1));
        let mut server = hears_the_end(server).await;
        exit.handle(StreamEvent::Closed { at: at(1), reason: Some(EndReason::Misc) });
        until(|| client.end_of(at(1)).is_some()).await;
        assert_eq!(exit.streams(), 0);
        // Nobody is there any more.
        until(|| server.write_all(&[7; 1000]).is_err()).await;
    });
}

#[test]
fn what_a_destination_does_not_take_once_both_halves_have_ended_is_not_kept_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    with_exit(async |mut exit, client| {
        Rc::get_mut(&mut exit.0).unwrap().flush_time = Duration::from_millis(500);
        let server = by_halves(&exit, &client, &listener, at(1)).await;
        // More than the sockets hold.
        client.sends(&exit, at(1), &vec![1; 8 << 20]);
        client.finishes(&exit, at(1));
        server.shutdown(std::net::Shutdown::Write).unwrap();
        until(|| exit.streams() == 0).await;
        drop(server);
    });
}

#[test]
fn a_half_on_which_nothing_moves_is_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    with_exit(async |mut exit, client| {
        let idle = Duration::from_millis(500);
        Rc::get_mut(&mut exit.0).unwrap().half_closed_idle = idle;
        let mut finished = by_halves(&exit, &client, &listener, at(1)).await;
        client.finishes(&exit, at(1));
        let both = by_halves(&exit, &client, &listener, at(2)).await;
        let started = Instant::now();
        let mut last = started;
        until(|| {
            if client.end_of(at(1)).is_some() {
                return true;
            }
            if started.elapsed() < 3 * idle {
                last = Instant::now();
                finished.write_all(b"x").unwrap();
            }
            false
        })
        .await;
        assert!(last.elapsed() >= idle, "while something moves, it stays");
        assert_eq!(client.end_of(at(1)), Some(EndReason::Timeout));
        assert_eq!(client.end_of(at(2)), None, "of which no half has ended");
        drop(both);
    });
}

#[test]
fn a_stream_id_used_again_is_another_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    with_exit(async |exit, client| {
        let name = |port| StreamEvent::Begin {
            at: at(1),
            host: event::Host::Name("silent.example".into()),
            port,
            flags: BeginFlags::default(),
        };
        exit.handle(name(80));
        exit.handle(StreamEvent::Closed { at: at(1), reason: Some(EndReason::Done) });
        until(|| client.end_of(at(1)).is_some()).await;
        client.0.borrow_mut().ended.clear();
        exit.handle(begin(at(1), target));
        until(|| client.0.borrow().connected.contains_key(&at(1))).await;
        assert_eq!(exit.streams(), 1);
        let _accepted = listener.accept().unwrap();
        assert_eq!(client.end_of(at(1)), None);
    });
}

#[test]
fn refusals_and_failed_lookups_end_the_stream_with_their_reason() {
    with_exit(async |exit, client| {
        let name = event::Host::Name("silent.example".into());
        exit.handle(StreamEvent::Begin { at: at(1), host: name, port: 80, flags: BeginFlags::default() });
        until(|| client.end_of(at(1)).is_some()).await;
        assert_eq!(client.end_of(at(1)), Some(EndReason::ResolveFailed));

        let rules = ExitRules { policy: ExitPolicy::restricted(), network: HashSet::new() };
        let settings = ExitSettings { rules, ..ExitSettings::clone(&exit.settings()) };
        exit.0.shared.store(Arc::new(settings));
        exit.handle(begin(at(2), "127.0.0.1:80".parse().unwrap()));
        until(|| client.end_of(at(2)).is_some()).await;
        let end = client.0.borrow().ended[&at(2)];
        let refused: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(end, End { reason: EndReason::ExitPolicy, addr: Some((refused, TTL_LOOKED_UP)) });
    });
}

#[test]
fn lookups_are_answered_or_fail_as_they_should() {
    with_exit(async |exit, client| {
        let resolve = |stream, lookup| exit.handle(StreamEvent::Resolve { at: at(stream), lookup });
        resolve(1, Lookup::Name("silent.example".into()));
        resolve(2, Lookup::Reverse("10.0.0.1".parse().unwrap()));
        // The client gives this one up: it is not answered.
        resolve(3, Lookup::Name("other.example".into()));
        exit.handle(StreamEvent::Closed { at: at(3), reason: Some(EndReason::Done) });
        until(|| client.0.borrow().resolved.len() == 2).await;
        let answers = |stream| client.0.borrow().resolved[&at(stream)].answers.clone();
        assert_eq!(answers(1), [(ResolvedValue::TransientError, TTL_LOOKED_UP)]);
        assert_eq!(answers(2), [(ResolvedValue::PermanentError, TTL_LOOKED_UP)]);
        assert_eq!(exit.streams(), 0);
    });
}

#[test]
fn events_about_the_directory_are_left_to_it() {
    with_exit(async |exit, _client| {
        assert!(exit.handle(StreamEvent::BeginDir { at: at(1) }).is_some());
        assert!(exit.handle(StreamEvent::Readable(at(1))).is_some());
        assert!(exit.handle(StreamEvent::Closed { at: at(1), reason: None }).is_some());
    });
}
