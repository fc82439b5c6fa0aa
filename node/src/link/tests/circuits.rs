//! Circuits and streams, and their ends.

use std::io;

use onionring_proto::cell::DestroyReason;
use onionring_proto::handshake::{HandshakeError, OnionKey, OnionKeyRing, ServerIdentity, respond};
use onionring_proto::link::LinkError;
use onionring_proto::origin::{CloseReason, OriginError};
use onionring_proto::relay_msg::{
    Begin, BeginFlags, End, EndReason, Extend2, Extended2, Host, Resolve, Resolved, ResolvedValue,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::{CircuitError, LinkFailure, StreamError};
use super::*;

const DESTROYED: CloseReason = CloseReason::Destroyed(DestroyReason::Hibernating);

fn is_destroyed(error: &CircuitError) -> bool {
    matches!(error, CircuitError::Closed(reason) if *reason == DESTROYED)
}

async fn destroy(peer: &mut Peer, circ_id: CircId) {
    peer.send(circ_id, Command::DESTROY, &[DestroyReason::Hibernating.to_wire()]).await;
}

#[tokio::test]
async fn destroy_instead_of_created() {
    let (link, mut peer) = link_and_peer().await;
    let script = async {
        let (circ_id, ..) = peer.receive().await;
        destroy(&mut peer, circ_id).await;
    };
    let (circuit, ()) = tokio::join!(link.create(FirstHop::Fast, config(LONG)), script);
    let error = circuit.err().unwrap();
    assert!(is_destroyed(&error), "{error}");
}

#[tokio::test]
async fn destroy_instead_of_extended() {
    let (_link, circuit, mut peer, circ_id, mut relay) = circuit_and_peer(LONG).await;
    let script = async {
        let (cmd, stream, _) = peer.hear(&mut relay).await;
        assert_eq!((cmd, stream), (RelayCmd::EXTEND2, StreamId::CIRCUIT));
        destroy(&mut peer, circ_id).await;
    };
    let target = target();
    let (extended, ()) = tokio::join!(circuit.extend(&target), script);
    let error = extended.err().unwrap();
    assert!(is_destroyed(&error), "{error}");
    assert!(is_destroyed(&circuit.closed().await));
}

#[tokio::test]
async fn destroy_instead_of_truncated() {
    let (_link, circuit, mut peer, circ_id, mut relay) = circuit_and_peer(LONG).await;
    let script = async {
        let (cmd, ..) = peer.hear(&mut relay).await;
        assert_eq!(cmd, RelayCmd::TRUNCATE);
        destroy(&mut peer, circ_id).await;
    };
    let (cut, ()) = tokio::join!(circuit.truncate(0, LONG), script);
    let error = cut.err().unwrap();
    assert!(is_destroyed(&error), "{error}");
}

#[tokio::test]
async fn destroy_instead_of_connected_and_on_an_open_stream() {
    let (_link, circuit, mut peer, circ_id, mut relay) = circuit_and_peer(LONG).await;
    let script = async {
        let (_, stream, _) = peer.hear(&mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::CONNECTED, stream, &[]).await;
        peer.say(circ_id, &mut relay, RelayCmd::DATA, stream, b"before").await;
        // The second one.
        peer.hear(&mut relay).await;
        destroy(&mut peer, circ_id).await;
    };
    let streams = async {
        let mut open = circuit.begin_dir(0, LONG).await.unwrap();
        let refused = circuit.begin_dir(0, LONG).await.err().unwrap();
        assert!(matches!(&refused, StreamError::Circuit(error) if is_destroyed(error)), "{refused}");
        let mut read = Vec::new();
        let error = open.read_to_end(&mut read).await.err().unwrap();
        assert_eq!((&read[..], error.kind()), (&b"before"[..], io::ErrorKind::ConnectionAborted));
        assert_eq!(open.write_all(b"x").await.err().unwrap().kind(), io::ErrorKind::ConnectionAborted);
        assert!(open.shutdown().await.is_err());
    };
    tokio::join!(streams, script);
    // Later requests hear the reason, too.
    let late = circuit.begin_dir(0, LONG).await.err().unwrap();
    assert!(matches!(&late, StreamError::Circuit(error) if is_destroyed(error)), "{late}");
    assert!(matches!(circuit.extend(&target()).await, Err(CircuitError::Refused(OriginError::Closed))));
}

#[tokio::test]
async fn a_relay_that_does_not_answer() {
    // CREATE.
    let (link, mut peer) = link_and_peer().await;
    let error = link.create(FirstHop::Fast, config(SHORT)).await.err().unwrap();
    assert!(matches!(error, CircuitError::Closed(CloseReason::Timeout { hop: 0 })), "{error}");
    let (circ_id, command, _) = peer.receive().await;
    assert_eq!(command, Command::CREATE_FAST);
    let (destroyed, command, _) = peer.receive().await;
    assert_eq!((destroyed, command), (circ_id, Command::DESTROY));
    // What comes too late is for nobody.
    peer.send(circ_id, Command::CREATED_FAST, &[1; 40]).await;

    // A stream: only that fails.
    let (circuit, (circ_id, mut relay)) =
        tokio::join!(link.create(FirstHop::Fast, config(5 * SHORT)), peer.create());
    let circuit = circuit.unwrap();
    let error = circuit.begin_dir(0, SHORT).await.err().unwrap();
    assert!(matches!(error, StreamError::Timeout(SHORT)), "{error}");
    let (_, stream, _) = peer.hear(&mut relay).await;
    let (cmd, ended, reason) = peer.hear(&mut relay).await;
    assert_eq!((cmd, ended, &reason[..]), (RelayCmd::END, stream, &[EndReason::Misc.to_wire()][..]));

    // EXTEND2, and with it the circuit.
    let error = circuit.extend(&target()).await.err().unwrap();
    assert!(matches!(error, CircuitError::Closed(CloseReason::Timeout { hop: 1 })), "{error}");
    peer.hear(&mut relay).await;
    let (destroyed, command, _) = peer.receive().await;
    assert_eq!((destroyed, command), (circ_id, Command::DESTROY));
    assert_eq!(link.circuits(), 0);

    // TRUNCATE.
    let (circuit, (circ_id, mut relay)) =
        tokio::join!(link.create(FirstHop::Fast, config(LONG)), peer.create());
    let error = circuit.unwrap().truncate(0, SHORT).await.err().unwrap();
    assert!(matches!(error, CircuitError::Timeout(SHORT)), "{error}");
    peer.hear(&mut relay).await;
    assert_eq!(peer.receive().await.0, circ_id);
}

#[tokio::test]
async fn a_handshake_that_is_wrong() {
    let (link, mut peer) = link_and_peer().await;
    let script = async {
        let (circ_id, ..) = peer.receive().await;
        peer.send(circ_id, Command::CREATED_FAST, &[1; 40]).await;
    };
    let (circuit, ()) = tokio::join!(link.create(FirstHop::Fast, config(LONG)), script);
    let error = circuit.err().unwrap();
    let wrong = CloseReason::Handshake { hop: 0, error: HandshakeError::Authentication };
    assert!(matches!(&error, CircuitError::Closed(reason) if *reason == wrong), "{error}");
}

#[tokio::test]
async fn the_link_breaks_in_every_state() {
    // While a circuit is created.
    let (link, mut peer) = link_and_peer().await;
    let script = async {
        peer.receive().await;
        drop(peer);
    };
    let (circuit, ()) = tokio::join!(link.create(FirstHop::Fast, config(LONG)), script);
    assert!(matches!(circuit.err().unwrap(), CircuitError::Link(_)));
    link.closed().await;
    assert!(matches!(link.create(FirstHop::Fast, config(LONG)).await.err().unwrap(), CircuitError::Link(_)));

    // While it is extended, a stream opens, and another is read.
    let (link, circuit, mut peer, circ_id, mut relay) = circuit_and_peer(LONG).await;
    let script = async {
        let (_, stream, _) = peer.hear(&mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::CONNECTED, stream, &[]).await;
        // One more BEGIN_DIR, and EXTEND2.
        peer.hear(&mut relay).await;
        peer.hear(&mut relay).await;
        drop(peer);
    };
    let all = async {
        let mut open = circuit.begin_dir(0, LONG).await.unwrap();
        let target = target();
        let (opening, extended, read) =
            tokio::join!(circuit.begin_dir(0, LONG), circuit.extend(&target), open.read_u8());
        assert!(matches!(opening.err().unwrap(), StreamError::Circuit(CircuitError::Link(_))));
        assert!(matches!(extended.err().unwrap(), CircuitError::Link(_)));
        assert_eq!(read.err().unwrap().kind(), io::ErrorKind::ConnectionAborted);
    };
    tokio::join!(all, script);
    drop(link);
}

#[tokio::test]
async fn cells_that_mean_nothing_are_dropped_and_lies_close_the_link() {
    let (link, circuit, mut peer, circ_id, mut relay) = circuit_and_peer(LONG).await;
    let other = CircId(circ_id.0 ^ 1);
    for command in [Command::RELAY, Command::DESTROY, Command::CREATED2, Command::CREATE2, Command(99)] {
        peer.send(other, command, &[1]).await;
    }
    peer.send(CircId::LINK, Command::PADDING, &[]).await;
    peer.send(CircId::LINK, Command::PADDING_NEGOTIATE, &[0, 2, 0, 1, 0, 2]).await;
    // A whole cell in two pieces.
    let mut cell = Vec::new();
    write_fixed(peer.version, CircId::LINK, Command::PADDING, &[0; BODY_LEN], &mut cell);
    peer.send_bytes(&cell[..100]).await;
    peer.send_bytes(&cell[100..]).await;
    let script = async {
        let (_, stream, _) = peer.hear(&mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::CONNECTED, stream, &[]).await;
    };
    let (stream, ()) = tokio::join!(circuit.begin_dir(0, LONG), script);
    let _stream = stream.unwrap();

    // A second try at authentication.
    let mut certs = circ_id.0.to_be_bytes().to_vec();
    certs[..4].fill(0);
    certs.extend_from_slice(&[Command::CERTS.0, 0, 1, 0]);
    peer.send_bytes(&certs).await;
    let failure = link.closed().await;
    let unexpected = LinkError::UnexpectedCell(Command::CERTS);
    assert!(matches!(&*failure, LinkFailure::Protocol(error) if *error == unexpected), "{failure}");
    assert!(matches!(circuit.closed().await, CircuitError::Link(_)));
}

#[tokio::test]
async fn a_relay_cell_of_garbage_closes_the_circuit_alone() {
    let (link, circuit, mut peer, circ_id, _) = circuit_and_peer(LONG).await;
    peer.send(circ_id, Command::RELAY, &[0x5a; BODY_LEN]).await;
    let error = circuit.closed().await;
    assert!(matches!(error, CircuitError::Closed(CloseReason::Violation(_))), "{error}");
    let (destroyed, command, body) = peer.receive().await;
    assert_eq!((destroyed, command, body[0]), (circ_id, Command::DESTROY, 0));
    assert!(link.failure().is_none());
}

#[tokio::test]
async fn what_is_dropped_is_closed_in_order() {
    let (link, circuit, mut peer, circ_id, mut relay) = circuit_and_peer(LONG).await;
    let script = async {
        let (_, stream, _) = peer.hear(&mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::CONNECTED, stream, &[]).await;
        stream
    };
    let (stream, id) = tokio::join!(circuit.begin_dir(0, LONG), script);
    let mut stream = stream.unwrap();
    // The stream keeps the circuit, and that the link.
    drop((link, circuit));
    peer.say(circ_id, &mut relay, RelayCmd::DATA, id, b"x").await;
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    // DESTROY says it of the stream, too.
    drop(stream);
    let (destroyed, command, body) = peer.receive().await;
    assert_eq!((destroyed, command, body[0]), (circ_id, Command::DESTROY, 0));
    peer.until_closed().await;
    assert!(peer.connection.tls.peer_has_closed());
}

#[tokio::test]
async fn begin_and_resolve_answers() {
    let (_link, circuit, mut peer, circ_id, mut relay) = circuit_and_peer(LONG).await;
    let begin = Begin { host: Host::Name("example.com"), port: 80, flags: BeginFlags::default() };
    let script = async {
        let (cmd, stream, data) = peer.hear(&mut relay).await;
        assert_eq!(cmd, RelayCmd::BEGIN);
        assert!(data.starts_with(b"example.com:80\0"), "{data:?}");
        peer.say(circ_id, &mut relay, RelayCmd::CONNECTED, stream, &[192, 0, 2, 1, 0, 0, 0, 60]).await;
        peer.say(circ_id, &mut relay, RelayCmd::DATA, stream, b"hello").await;
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &[EndReason::Done.to_wire()]).await;

        let (_, stream, _) = peer.hear(&mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &[EndReason::ConnectRefused.to_wire()]).await;

        let (_, stream, _) = peer.hear(&mut relay).await;
        let end = End { reason: EndReason::ExitPolicy, addr: Some(([192, 0, 2, 9].into(), 60)) };
        let mut forbidden = Vec::new();
        end.write(&mut forbidden);
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &forbidden).await;

        let (cmd, stream, _) = peer.hear(&mut relay).await;
        assert_eq!(cmd, RelayCmd::RESOLVE);
        let mut answer = Vec::new();
        resolved().write(&mut answer);
        peer.say(circ_id, &mut relay, RelayCmd::RESOLVED, stream, &answer).await;
    };
    let client = async {
        let mut stream = circuit.begin(0, &begin, LONG).await.unwrap();
        assert_eq!(stream.connected().addr, Some(([192, 0, 2, 1].into(), 60)));
        let mut read = String::new();
        stream.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello");
        assert_eq!(stream.write(b"x").await.err().unwrap().kind(), io::ErrorKind::ConnectionReset);
        // Reading on stays at the end.
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);

        let refused = circuit.begin(0, &begin, LONG).await.err().unwrap();
        assert!(matches!(refused, StreamError::Ended(EndReason::ConnectRefused)), "{refused}");
        assert_eq!(io::Error::from(refused).kind(), io::ErrorKind::ConnectionRefused);

        let refused = circuit.begin(0, &begin, LONG).await.err().unwrap();
        assert!(matches!(refused, StreamError::Forbidden(ip) if ip.to_string() == "192.0.2.9"), "{refused}");
        assert_eq!(refused.label(), "exit_policy");

        let answer = circuit.resolve(0, &Resolve::Name("example.com"), LONG).await.unwrap();
        assert_eq!(answer, resolved());
    };
    tokio::join!(client, script);
    assert_eq!(circuit.streams(), 0);
    assert!(circuit.failure().is_none());
}

fn resolved() -> Resolved {
    Resolved { answers: vec![(ResolvedValue::Addr([192, 0, 2, 7].into()), 60)] }
}

#[tokio::test]
async fn a_writer_hears_that_the_relay_has_ended_the_stream() {
    let (_link, circuit, mut peer, circ_id, mut relay) = circuit_and_peer(LONG).await;
    let script = async {
        let (_, stream, _) = peer.hear(&mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::CONNECTED, stream, &[]).await;
        // Never acknowledges, so that the writer gets stuck; then refuses the rest.
        for _ in 0..500 {
            assert_eq!(peer.hear(&mut relay).await.0, RelayCmd::DATA);
        }
        peer.say(circ_id, &mut relay, RelayCmd::DATA, stream, b"too much").await;
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &[EndReason::Done.to_wire()]).await;
    };
    let client = async {
        let mut stream = circuit.begin_dir(0, LONG).await.unwrap();
        let error = stream.write_all(&vec![0; 1 << 20]).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let mut read = String::new();
        stream.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "too much");
    };
    tokio::join!(client, script);
}

/// A stream of a circuit to a peer that takes a window of it and no more, and ends it after `says`.
async fn flush_of_a_stream_that_was_ended(says: &[u8], reads_first: bool) {
    let (_link, circuit, mut peer, circ_id, mut relay) = circuit_and_peer(LONG).await;
    let script = async {
        let (_, stream, _) = peer.hear(&mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::CONNECTED, stream, &[]).await;
        for _ in 0..500 {
            assert_eq!(peer.hear(&mut relay).await.0, RelayCmd::DATA);
        }
        if !says.is_empty() {
            peer.say(circ_id, &mut relay, RelayCmd::DATA, stream, says).await;
        }
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &[EndReason::Done.to_wire()]).await;
    };
    let client = async {
        let mut stream = circuit.begin_dir(0, LONG).await.unwrap();
        stream.flush().await.unwrap();
        // A window, and a little that stays behind.
        stream.write_all(&vec![0; 501 * 498]).await.unwrap();
        if reads_first {
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, says);
        }
        assert_eq!(stream.flush().await.err().unwrap().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(stream.shutdown().await.err().unwrap().kind(), io::ErrorKind::ConnectionReset);
    };
    tokio::join!(client, script);
}

#[tokio::test]
async fn what_an_end_has_thrown_away_was_not_flushed() {
    flush_of_a_stream_that_was_ended(b"", false).await;
    flush_of_a_stream_that_was_ended(b"", true).await;
    flush_of_a_stream_that_was_ended(b"enough", false).await;
    flush_of_a_stream_that_was_ended(b"enough", true).await;
}

#[tokio::test]
async fn what_was_sent_before_an_end_was_flushed() {
    let (_link, circuit, mut peer, circ_id, mut relay) = circuit_and_peer(LONG).await;
    let script = async {
        let (_, stream, _) = peer.hear(&mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::CONNECTED, stream, &[]).await;
        assert_eq!(peer.hear(&mut relay).await.0, RelayCmd::DATA);
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &[EndReason::Done.to_wire()]).await;
    };
    let client = async {
        let mut stream = circuit.begin_dir(0, LONG).await.unwrap();
        stream.write_all(b"all").await.unwrap();
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
        stream.flush().await.unwrap();
        stream.shutdown().await.unwrap();
    };
    tokio::join!(client, script);
}

/// Both hops of a circuit, played by one peer.
struct Hops {
    peer: Peer,
    circ_id: CircId,
    first: RelayCircuit,
    second: RelayCircuit,
}

impl Hops {
    /// Extends the circuit when asked to.
    async fn extend(mut peer: Peer, circ_id: CircId, mut first: RelayCircuit, keys: &OnionKeyRing) -> Hops {
        let (cmd, _, data) = peer.hear(&mut first).await;
        assert_eq!(cmd, RelayCmd::EXTEND2);
        let extend = Extend2::parse(&data).unwrap();
        let identity = ServerIdentity { rsa_id: extend.specs.rsa_id, ed_id: [0; 32] };
        let (hdata, keys) = respond(&mut rand::rng(), &identity, keys, extend.htype, extend.hdata).unwrap();
        let mut extended = Vec::new();
        Extended2 { hdata: &hdata }.write(&mut extended);
        peer.say(circ_id, &mut first, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &extended).await;
        first.set_joined(true);
        Hops { peer, circ_id, first, second: RelayCircuit::new(&keys, CIRCUIT_WINDOW, false) }
    }

    /// Receives a message at the second hop.
    async fn hear(&mut self) -> (RelayCmd, StreamId) {
        let (_, command, mut body) = self.peer.receive().await;
        assert_eq!(self.first.outbound(command, &mut body), Ok(Outbound::Forward));
        assert!(matches!(self.second.outbound(command, &mut body), Ok(Outbound::Recognised(_))));
        let msg = relay_msg::decode(&body).unwrap();
        (msg.cmd, msg.stream)
    }

    /// Sends a message from the second hop.
    async fn say(&mut self, cmd: RelayCmd, stream: StreamId, data: &[u8]) {
        let mut body = [0; BODY_LEN];
        self.second.originate(cmd, stream, data, &mut rand::rng(), &mut body);
        self.first.inbound(&mut body);
        self.peer.send(self.circ_id, Command::RELAY, &body).await;
    }
}

#[tokio::test]
async fn extended_used_and_cut() {
    let (_link, circuit, peer, circ_id, first) = circuit_and_peer(LONG).await;
    let key = OnionKey::generate(&mut rand::rng());
    let target = HopTarget { onion_key: *key.public(), ..target() };
    let keys = OnionKeyRing::new(key, None, &mut rand::rng());
    let (extended, mut hops) =
        tokio::join!(circuit.extend(&target), Hops::extend(peer, circ_id, first, &keys));
    extended.unwrap();
    assert_eq!(circuit.hops(), 2);

    // A stream of each hop; the far one is lost with its hop.
    let script = async {
        let (cmd, far) = hops.hear().await;
        assert_eq!(cmd, RelayCmd::BEGIN_DIR);
        hops.say(RelayCmd::CONNECTED, far, &[]).await;
        hops.say(RelayCmd::DATA, far, b"far").await;
        let (_, near, _) = hops.peer.hear(&mut hops.first).await;
        hops.peer.say(circ_id, &mut hops.first, RelayCmd::CONNECTED, near, &[]).await;
        let (cmd, ..) = hops.peer.hear(&mut hops.first).await;
        assert_eq!(cmd, RelayCmd::TRUNCATE);
        let reason = [DestroyReason::Requested.to_wire()];
        hops.peer.say(circ_id, &mut hops.first, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &reason).await;
        hops.peer.say(circ_id, &mut hops.first, RelayCmd::DATA, near, b"near").await;
    };
    let client = async {
        let mut far = circuit.begin_dir(1, LONG).await.unwrap();
        let mut read = [0; 3];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"far");
        let mut near = circuit.begin_dir(0, LONG).await.unwrap();
        assert_eq!(circuit.truncate(0, LONG).await.unwrap(), DestroyReason::Requested);
        assert_eq!(circuit.hops(), 1);
        assert_eq!(far.read_u8().await.err().unwrap().kind(), io::ErrorKind::ConnectionReset);
        let mut read = [0; 4];
        near.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"near");
    };
    tokio::join!(client, script);
    let no_hop = circuit.begin_dir(1, LONG).await.err().unwrap();
    let expected = OriginError::NoSuchHop(1);
    assert!(
        matches!(&no_hop, StreamError::Circuit(CircuitError::Refused(error)) if *error == expected),
        "{no_hop}"
    );
}
