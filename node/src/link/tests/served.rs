//! Circuits that others build to us.

use std::io;

use onionring_proto::cell::DestroyReason;
use onionring_proto::crypto::tor1::ClientOnion;
use onionring_proto::handshake::{HandshakeError, OnionKey, OnionKeyRing, ServerIdentity, Terms};
use onionring_proto::origin::CloseReason;
use onionring_proto::relay_msg::{Begin, BeginFlags, EndReason, Host, Resolve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::{CircuitError, DirRequest, LinkAcceptor, LinkFailure, Service, Stream, StreamError};
use super::*;
use crate::limits;

/// A directory, and our link to it.
struct Served {
    ours: Link,
    theirs: Link,
    requests: mpsc::Receiver<DirRequest>,
    address: SocketAddr,
    listener: TcpListener,
    acceptor: LinkAcceptor,
    onion_key: [u8; 32],
}

/// `room`: requests that may wait.
async fn serve(room: usize, identity: Option<Arc<LinkIdentity>>) -> Served {
    let id = keys().id;
    let key = OnionKey::generate(&mut rand::rng());
    let onion_key = *key.public();
    let ring = OnionKeyRing::new(key, None, &mut rand::rng());
    let (sender, requests) = mpsc::channel(room);
    let service = Service::new(ServerIdentity { rsa_id: id.rsa_id, ed_id: id.ed_id }, ring, sender);
    let acceptor = LinkAcceptor::new(Side { service: Some(Arc::new(service)), ..side() }, 9, PATIENT);
    let (listener, address) = listen().await;
    let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await };
    let dialer = Dialer { identity, ..dialer(PATIENT) };
    let (ours, theirs) = tokio::join!(dialer.connect(address, expected()), accept);
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    Served { ours, theirs, requests, address, listener, acceptor, onion_key }
}

impl Served {
    fn target(&self, handshake: HandshakeKind) -> HopTarget {
        let id = keys().id;
        let specs = LinkSpecs { ipv4: None, ipv6: None, rsa_id: id.rsa_id, ed_id: Some(id.ed_id) };
        HopTarget { specs, onion_key: self.onion_key, handshake, ask: Terms::default() }
    }

    async fn circuit(&self) -> Circuit {
        self.ours.create(FirstHop::Fast, config(LONG)).await.unwrap()
    }

    /// A stream and its other end.
    async fn stream(&mut self, circuit: &Circuit) -> (Stream, Stream) {
        let (ours, theirs) = tokio::join!(circuit.begin_dir(0, LONG), self.requests.recv());
        (ours.unwrap(), theirs.unwrap().stream)
    }

    /// A scripted client on a link of its own.
    async fn client(&self) -> (Peer, Link) {
        let accept = async { self.acceptor.accept(self.listener.accept().await.unwrap().0).await.unwrap() };
        tokio::join!(Peer::connect(self.address), accept)
    }
}

/// Bytes that differ from their neighbours and between streams.
fn noise(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8 ^ seed).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_goes_both_ways_on_many_streams_and_circuits() {
    const LEN: usize = 600_000;
    let mut served = serve(9, None).await;
    let ntor = served.target(HandshakeKind::Ntor);
    let ntor_v3 = served.target(HandshakeKind::NtorV3);
    let mut clients = tokio::task::JoinSet::new();
    for (seed, first) in [(0, FirstHop::Fast), (50, FirstHop::Relay(&ntor)), (100, FirstHop::Relay(&ntor_v3))]
    {
        let circuit = Arc::new(served.ours.create(first, config(LONG)).await.unwrap());
        for seed in seed..seed + 2 {
            let circuit = circuit.clone();
            clients.spawn(async move {
                let stream = circuit.begin_dir(0, LONG).await.unwrap();
                let (mut reading, mut writing) = tokio::io::split(stream);
                let sent = noise(LEN, seed);
                let mut answer = Vec::new();
                let (written, read) =
                    tokio::join!(writing.write_all(&sent), reading.read_to_end(&mut answer));
                written.unwrap();
                read.unwrap();
                assert!(answer == sent, "stream {seed}");
            });
        }
    }
    // Echoes a known length, and ends.
    let server = tokio::spawn(async move {
        let mut echoes = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let request = served.requests.recv().await.unwrap();
            assert_eq!((request.peer, request.address), (None, [127, 0, 0, 1].into()));
            echoes.spawn(async move {
                let mut stream = request.stream;
                let mut buf = vec![0; 10_000];
                for _ in 0..LEN / buf.len() {
                    stream.read_exact(&mut buf).await.unwrap();
                    stream.write_all(&buf).await.unwrap();
                }
                stream.shutdown().await.unwrap();
            });
        }
        echoes.join_all().await;
        served
    });
    clients.join_all().await;
    let served = server.await.unwrap();
    assert!(served.ours.failure().is_none() && served.theirs.failure().is_none());
}

/// The least that a window takes: cells that are acknowledged carry a little less than they could.
const WINDOW: usize = 500 * 478;

/// A writer may be slow before that, and is taken for stuck after it.
fn patience(written: usize) -> Duration {
    if written < WINDOW { LONG } else { SHORT }
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_writer() {
    let mut served = serve(1, None).await;
    let circuit = served.circuit().await;
    let (mut writer, mut reader) = served.stream(&circuit).await;
    let chunk = noise(10_000, 0);
    let mut written = 0;
    while let Ok(len) = timeout(patience(written), writer.write(&chunk)).await {
        written += len.unwrap();
    }
    // A window, and a buffer.
    assert!((WINDOW..=500 * 498 + (64 << 10)).contains(&written), "{written}");
    let mut buf = vec![0; written];
    reader.read_exact(&mut buf).await.unwrap();
    writer.write_all(&chunk).await.unwrap();

    // And in the other direction.
    let mut back = 0;
    while let Ok(len) = timeout(patience(back), reader.write(&chunk)).await {
        back += len.unwrap();
    }
    assert!((WINDOW..=500 * 498 + (64 << 10)).contains(&back), "{back}");
    let mut buf = vec![0; back];
    writer.read_exact(&mut buf).await.unwrap();
    reader.read_exact(&mut buf[..10_000]).await.unwrap();
    assert!(buf[..10_000] == chunk);
}

#[tokio::test]
async fn everything_but_the_directory_is_refused() {
    let served = serve(1, None).await;
    let circuit = served.circuit().await;
    let begin = Begin { host: Host::Name("example.com"), port: 80, flags: BeginFlags::default() };
    let refused = circuit.begin(0, &begin, LONG).await.err().unwrap();
    assert!(matches!(refused, StreamError::Ended(EndReason::TorProtocol)), "{refused}");
    let silence = circuit.resolve(0, &Resolve::Name("example.com"), SHORT).await.err().unwrap();
    assert!(matches!(silence, StreamError::Timeout(SHORT)), "{silence}");
    assert_eq!(circuit.truncate(0, LONG).await.unwrap(), DestroyReason::Requested);
    let destroyed = circuit.extend(&target()).await.err().unwrap();
    let protocol = CloseReason::Destroyed(DestroyReason::Protocol);
    assert!(matches!(&destroyed, CircuitError::Closed(reason) if *reason == protocol), "{destroyed}");

    // An onion key that is not ours.
    let wrong = HopTarget { onion_key: [9; 32], ..served.target(HandshakeKind::Ntor) };
    let error = served.ours.create(FirstHop::Relay(&wrong), config(LONG)).await.err().unwrap();
    let junk = CloseReason::Handshake { hop: 0, error: HandshakeError::Authentication };
    assert!(matches!(&error, CircuitError::Closed(reason) if *reason == junk), "{error}");
    assert!(served.ours.failure().is_none());

    // A relay hears that we are no exit.
    let served = serve(1, Some(keys().identity.clone())).await;
    let circuit = served.circuit().await;
    let refused = circuit.begin(0, &begin, LONG).await.err().unwrap();
    assert!(matches!(refused, StreamError::Ended(EndReason::ExitPolicy)), "{refused}");
    let resolved = circuit.resolve(0, &Resolve::Name("example.com"), LONG).await.unwrap();
    assert_eq!(resolved.answers.len(), 1);
}

#[tokio::test]
async fn circuits_that_cannot_be() {
    let served = serve(1, None).await;
    let (mut client, theirs) = served.client().await;
    // TAP, a handshake nobody knows, one that is too long, and an ID of the wrong half.
    for (id, command, body) in [
        (0x8000_0001, Command::CREATE, &[1, 2, 3][..]),
        (0x8000_0002, Command::CREATE2, &[0, 99, 0, 1, 0]),
        (0x8000_0003, Command::CREATE2, &[0, 2, 0xff, 0xff]),
        (0x0000_0004, Command::CREATE_FAST, &[1; 20]),
    ] {
        client.send(CircId(id), command, body).await;
        let (circ_id, command, body) = client.receive().await;
        let protocol = DestroyReason::Protocol.to_wire();
        assert_eq!((circ_id, command, body[0]), (CircId(id), Command::DESTROY, protocol));
    }
    // One that has been made is not made again, and answers to nothing are ignored.
    let id = CircId(0x8000_0005);
    client.send(id, Command::CREATE_FAST, &[1; 20]).await;
    assert_eq!(client.receive().await.1, Command::CREATED_FAST);
    client.send(id, Command::CREATE_FAST, &[1; 20]).await;
    client.send(id, Command::CREATED2, &[1; 20]).await;
    assert_eq!(theirs.circuits(), 1);
    // A relay cell of garbage.
    client.send(id, Command::RELAY, &[0x5a; 100]).await;
    let (circ_id, command, body) = client.receive().await;
    assert_eq!((circ_id, command, body[0]), (id, Command::DESTROY, DestroyReason::Protocol.to_wire()));
    // The ID is free again.
    client.send(id, Command::CREATE_FAST, &[1; 20]).await;
    assert_eq!(client.receive().await.1, Command::CREATED_FAST);
    client.send(id, Command::DESTROY, &[]).await;
    client.send(id, Command::CREATE_FAST, &[1; 20]).await;
    assert_eq!(client.receive().await.1, Command::CREATED_FAST);
}

#[tokio::test]
async fn ends_reach_the_handler_and_the_client() {
    let mut served = serve(1, None).await;
    let circuit = served.circuit().await;

    // The handler breaks off: the answer is not whole.
    let (mut client, mut handler) = served.stream(&circuit).await;
    handler.write_all(b"half").await.unwrap();
    handler.flush().await.unwrap();
    drop(handler);
    let mut read = Vec::new();
    let error = client.read_to_end(&mut read).await.err().unwrap();
    assert_eq!((&read[..], error.kind()), (&b"half"[..], io::ErrorKind::ConnectionReset));
    drop(client);

    // The client breaks off.
    let (client, mut handler) = served.stream(&circuit).await;
    drop(client);
    let error = handler.read_u8().await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(handler.write_all(b"x").await.is_err());

    // The client's circuit ends, then its link.
    let (client, mut handler) = served.stream(&circuit).await;
    drop((client, circuit));
    let error = handler.read_u8().await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let circuit = served.circuit().await;
    let (_client, mut handler) = served.stream(&circuit).await;
    served.ours.close();
    let error = handler.read_u8().await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    served.theirs.closed().await;
    assert!(matches!(circuit.closed().await, CircuitError::Link(_)));
}

#[tokio::test]
async fn requests_that_nobody_takes_are_refused() {
    let mut served = serve(1, None).await;
    let circuit = served.circuit().await;
    let _waiting = circuit.begin_dir(0, LONG).await.unwrap();
    let refused = circuit.begin_dir(0, LONG).await.err().unwrap();
    assert!(matches!(refused, StreamError::Ended(EndReason::ResourceLimit)), "{refused}");
    served.requests.recv().await.unwrap();
    assert!(circuit.begin_dir(0, LONG).await.is_ok());
    served.requests.close();
    assert!(circuit.begin_dir(0, LONG).await.is_err());
}

#[tokio::test]
async fn streams_and_circuits_are_counted() {
    let mut served = serve(limits::SERVED_STREAMS + 1, None).await;
    let circuit = served.circuit().await;
    let mut streams = Vec::new();
    for _ in 0..limits::SERVED_STREAMS {
        streams.push(served.stream(&circuit).await);
    }
    let refused = circuit.begin_dir(0, LONG).await.err().unwrap();
    assert!(matches!(refused, StreamError::Ended(EndReason::ResourceLimit)), "{refused}");

    let mut circuits = Vec::new();
    for _ in 1..limits::SERVED_CIRCUITS {
        circuits.push(served.circuit().await);
    }
    let refused = served.ours.create(FirstHop::Fast, config(LONG)).await.err().unwrap();
    let limit = CloseReason::Destroyed(DestroyReason::ResourceLimit);
    assert!(matches!(&refused, CircuitError::Closed(reason) if *reason == limit), "{refused}");
    circuits.pop();
    served.circuit().await;
}

/// A client that asks and asks, and takes no answer: what waits for it stays within bounds.
#[tokio::test]
async fn a_client_that_reads_nothing() {
    let served = serve(1, None).await;
    let (mut client, theirs) = served.client().await;
    let id = CircId(0x8000_0001);
    let (fast, x) = fast::Client::start(&mut rand::rng());
    client.send(id, Command::CREATE_FAST, &x).await;
    let (.., created) = client.receive().await;
    let mut onion = ClientOnion::new();
    onion.push_hop(&fast.finish(&CreatedFast::parse(&created).reply).unwrap());
    // Each is refused, with an answer; together more than two sockets hold.
    for _ in 0..200 {
        let mut cells = Vec::new();
        for stream in 1..=200 {
            let mut body = [0; BODY_LEN];
            relay_msg::encode(RelayCmd::BEGIN, StreamId(stream), b"a:1\0", &mut rand::rng(), &mut body);
            onion.encrypt_outbound(0, &mut body);
            write_fixed(client.version, id, Command::RELAY, &body, &mut cells);
        }
        client.send_bytes(&cells).await;
    }
    let limit = DestroyReason::ResourceLimit.to_wire();
    loop {
        let (circ_id, command, body) = client.receive().await;
        assert_eq!(circ_id, id);
        if command == Command::DESTROY {
            assert_eq!(body[0], limit);
            break;
        }
    }
    assert!(theirs.failure().is_none());
}

/// What a handler has written, and a client did not wait for, was not flushed.
#[tokio::test]
async fn a_client_that_ends_before_all_is_sent() {
    let mut served = serve(1, None).await;
    let circuit = served.circuit().await;
    let (client, mut handler) = served.stream(&circuit).await;
    handler.flush().await.unwrap();
    // More than a window: the rest waits.
    handler.write_all(&noise(501 * 498, 0)).await.unwrap();
    assert!(timeout(SHORT, handler.flush()).await.is_err());
    let (flushed, ()) = tokio::join!(handler.flush(), async { drop(client) });
    assert_eq!(flushed.err().unwrap().kind(), io::ErrorKind::ConnectionReset);
    assert!(handler.flush().await.is_err());
    assert!(handler.shutdown().await.is_err());
}

/// A peer that takes nothing for long loses its link.
#[tokio::test]
async fn a_link_that_is_stalled() {
    let served = serve(1, None).await;
    let (mut client, theirs) = served.client().await;
    // Each is answered with DESTROY, until nobody takes those.
    let mut cells = Vec::new();
    for id in 1..=100 {
        write_fixed(client.version, CircId(0x8000_0000 | id), Command::CREATE, &[0; BODY_LEN], &mut cells);
    }
    while timeout(SHORT, client.send_bytes(&cells)).await.is_ok() {}
    assert!(theirs.failure().is_none());
    // From now on time passes whenever nothing else happens.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let failure = theirs.closed().await;
    assert!(matches!(*failure, LinkFailure::Stalled(limits::LINK_STALL)), "{failure}");
    assert!(begun.elapsed() <= limits::LINK_STALL, "{:?}", begun.elapsed());

    // One on which there is nothing to send is not stalled, however long that lasts.
    tokio::time::advance(2 * limits::LINK_STALL).await;
    assert!(served.ours.failure().is_none() && served.theirs.failure().is_none());
}
