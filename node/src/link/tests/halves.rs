//! Streams whose directions end one by one.

use std::io;

use onionring_proto::handshake::{Create2, Created2, OnionKey, OnionKeyRing, ServerIdentity, respond_with};
use onionring_proto::relay_msg::{Begin, BeginFlags, EndReason, Host};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::Stream;
use super::*;

const ON: Terms = Terms { half_close: true };

/// A circuit of one hop that agreed to it, and the peer's side of it.
async fn agreed() -> (Link, Circuit, Peer, CircId, RelayCircuit) {
    let (link, mut peer) = link_and_peer().await;
    let id = keys().id;
    let identity = ServerIdentity { rsa_id: id.rsa_id, ed_id: id.ed_id };
    let ring = OnionKeyRing::new(OnionKey::from_secret(&[3; 32]), None, &mut rand::rng());
    let specs = LinkSpecs { rsa_id: id.rsa_id, ed_id: Some(id.ed_id), ..target().specs };
    let onion_key = *ring.current().public();
    let target = HopTarget { specs, onion_key, handshake: HandshakeKind::NtorV3, ask: ON };
    let script = async {
        let (circ_id, command, body) = peer.receive().await;
        assert_eq!(command, Command::CREATE2);
        let create = Create2::parse(&body).unwrap();
        let (hdata, keys, granted) =
            respond_with(&mut rand::rng(), &identity, &ring, ON, create.htype, create.hdata).unwrap();
        assert_eq!(granted, ON);
        let mut created = [0; BODY_LEN];
        Created2 { hdata: &hdata }.write(&mut created);
        peer.send(circ_id, Command::CREATED2, &created).await;
        (circ_id, RelayCircuit::new(&keys, CIRCUIT_WINDOW, true))
    };
    let (circuit, (circ_id, relay)) =
        tokio::join!(link.create(FirstHop::Relay(&target), config(LONG)), script);
    (link, circuit.unwrap(), peer, circ_id, relay)
}

async fn begin(circuit: &Circuit) -> Stream {
    let begin = Begin { host: Host::Name("example.com"), port: 80, flags: BeginFlags::default() };
    circuit.begin(0, &begin, LONG).await.unwrap()
}

/// Hears BEGIN, and says CONNECTED.
async fn connect(peer: &mut Peer, circ_id: CircId, relay: &mut RelayCircuit) -> StreamId {
    let (cmd, stream, _) = peer.hear(relay).await;
    assert_eq!(cmd, RelayCmd::BEGIN);
    peer.say(circ_id, relay, RelayCmd::CONNECTED, stream, &[]).await;
    stream
}

const DONE: [u8; 1] = [EndReason::Done.to_wire()];

#[tokio::test]
async fn reading_goes_on_after_shutdown() {
    let (_link, circuit, mut peer, circ_id, mut relay) = agreed().await;
    let script = async {
        let stream = connect(&mut peer, circ_id, &mut relay).await;
        assert_eq!(peer.hear(&mut relay).await, (RelayCmd::DATA, stream, b"question".to_vec()));
        assert_eq!(peer.hear(&mut relay).await, (RelayCmd::END, stream, DONE.to_vec()));
        for part in [&b"ans"[..], b"wer"] {
            peer.say(circ_id, &mut relay, RelayCmd::DATA, stream, part).await;
        }
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &DONE).await;
    };
    let client = async {
        let mut stream = begin(&circuit).await;
        assert!(stream.has_halves());
        stream.write_all(b"question").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.write(b"x").await.err().unwrap().kind(), io::ErrorKind::BrokenPipe);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        assert!(!stream.has_halves(), "it is over");
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    };
    tokio::join!(client, script);
    assert_eq!(circuit.streams(), 0);
    assert!(circuit.failure().is_none());
}

#[tokio::test]
async fn writing_goes_on_after_the_end_of_reading() {
    let (_link, circuit, mut peer, circ_id, mut relay) = agreed().await;
    let script = async {
        let stream = connect(&mut peer, circ_id, &mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::DATA, stream, b"answer").await;
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &DONE).await;
        assert_eq!(peer.hear(&mut relay).await, (RelayCmd::DATA, stream, b"more".to_vec()));
        assert_eq!(peer.hear(&mut relay).await, (RelayCmd::END, stream, DONE.to_vec()));
    };
    let client = async {
        let mut stream = begin(&circuit).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "reading stays at the end");
        stream.write_all(b"more").await.unwrap();
        stream.shutdown().await.unwrap();
        stream
    };
    let (_stream, ()) = tokio::join!(client, script);
    assert_eq!(circuit.streams(), 0);
    assert!(circuit.failure().is_none());
}

#[tokio::test]
async fn a_reset_after_the_end_of_one_half_ends_the_other() {
    let (_link, circuit, mut peer, circ_id, mut relay) = agreed().await;
    let script = async {
        let stream = connect(&mut peer, circ_id, &mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &DONE).await;
        // Never acknowledges, so that the writer gets stuck.
        for _ in 0..500 {
            assert_eq!(peer.hear(&mut relay).await.0, RelayCmd::DATA);
        }
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &[EndReason::ConnReset.to_wire()]).await;
    };
    let client = async {
        let mut stream = begin(&circuit).await;
        let error = stream.write_all(&vec![0; 1 << 20]).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(stream.shutdown().await.is_err());
    };
    tokio::join!(client, script);
    assert_eq!(circuit.streams(), 0);
}

#[tokio::test]
async fn who_drops_a_stream_ends_what_is_left_of_it() {
    let (_link, circuit, mut peer, circ_id, mut relay) = agreed().await;
    let script = async {
        let stream = connect(&mut peer, circ_id, &mut relay).await;
        assert_eq!(peer.hear(&mut relay).await, (RelayCmd::END, stream, DONE.to_vec()));
        // MISC: nothing is to come any more.
        let (cmd, ended, reason) = peer.hear(&mut relay).await;
        assert_eq!((cmd, ended, reason), (RelayCmd::END, stream, vec![EndReason::Misc.to_wire()]));
        peer.say(circ_id, &mut relay, RelayCmd::DATA, stream, b"crossed it").await;
        peer.say(circ_id, &mut relay, RelayCmd::END, stream, &DONE).await;
    };
    let client = async {
        let mut stream = begin(&circuit).await;
        stream.shutdown().await.unwrap();
        drop(stream);
    };
    tokio::join!(client, script);
    assert_eq!(circuit.streams(), 0);
    // A look-up that is answered shows that the circuit has taken all that.
    let script = async {
        let (_, stream, _) = peer.hear(&mut relay).await;
        peer.say(circ_id, &mut relay, RelayCmd::RESOLVED, stream, &[4, 4, 192, 0, 2, 7, 0, 0, 0, 60]).await;
    };
    let name = onionring_proto::relay_msg::Resolve::Name("example.com");
    let (answer, ()) = tokio::join!(circuit.resolve(0, &name, LONG), script);
    assert_eq!(answer.unwrap().answers.len(), 1);
}
