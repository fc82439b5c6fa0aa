//! Opening links, in both roles.

use onionring_proto::link::LinkError;
use tokio::io::AsyncWriteExt as _;

use super::super::{LinkAcceptor, LinkFailure};
use super::*;

#[tokio::test]
async fn nothing_listens() {
    let (listener, address) = listen().await;
    drop(listener);
    let failure = failure_of(dialer(PATIENT).connect(address, expected()).await);
    assert!(matches!(failure, LinkFailure::Refused), "{failure}");
}

#[tokio::test]
async fn a_peer_that_is_silent_in_tls() {
    let (listener, address) = listen().await;
    let times = Times { tls: SHORT, ..PATIENT };
    let failure = failure_of(dialer(times).connect(address, expected()).await);
    assert!(matches!(failure, LinkFailure::Timeout { step: Step::Tls, limit: SHORT }), "{failure}");
    drop(listener);
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls() {
    let (listener, address) = listen().await;
    let garbage = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"220 mail.example.com ESMTP\r\n").await.unwrap();
        socket
    };
    let dialer = dialer(PATIENT);
    let (link, _socket) = tokio::join!(dialer.connect(address, expected()), garbage);
    let failure = failure_of(link);
    assert!(matches!(failure, LinkFailure::Tls(_)), "{failure}");
}

#[tokio::test]
async fn a_peer_that_closes_at_once() {
    let (listener, address) = listen().await;
    let close = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        // In order, with everything read, so that no reset is sent.
        let mut hello = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut socket, &mut hello).await.unwrap();
        socket.shutdown().await.unwrap();
        socket
    };
    let dialer = dialer(PATIENT);
    let (link, _socket) = tokio::join!(dialer.connect(address, expected()), close);
    let failure = failure_of(link);
    assert!(matches!(failure, LinkFailure::PeerClosed(Step::Tls)), "{failure}");
}

/// What comes of a peer that says this inside TLS, and then is silent or closes, within this time.
async fn after_tls(says: &[u8], closes: bool, handshake: Duration) -> LinkFailure {
    let (listener, address) = listen().await;
    let peer = async {
        let mut connection = Peer::tls(listener.accept().await.unwrap().0).await;
        connection.tls.seal(says).unwrap();
        if closes {
            connection.tls.close();
        }
        connection.flush().await.unwrap();
        connection
    };
    let dialer = dialer(Times { handshake, ..PATIENT });
    let (link, _connection) = tokio::join!(dialer.connect(address, expected()), peer);
    failure_of(link)
}

#[tokio::test]
async fn a_peer_that_goes_wrong_inside_tls() {
    const VERSIONS: &[u8] = &[0, 0, 7, 0, 4, 0, 4, 0, 5];
    let half = &VERSIONS[..6];
    for says in [&[][..], half, VERSIONS] {
        let failure = after_tls(says, false, SHORT).await;
        assert!(matches!(failure, LinkFailure::Timeout { step: Step::Handshake, .. }), "{failure}");
        let failure = after_tls(says, true, LONG).await;
        assert!(matches!(failure, LinkFailure::PeerClosed(Step::Handshake)), "{failure}");
    }
    for says in [&b"HTTP/1.0 400 Bad Request\r\n"[..], &[0, 0, 7, 0, 2, 0, 1]] {
        let failure = after_tls(says, false, LONG).await;
        assert!(matches!(failure, LinkFailure::Protocol(_)), "{failure}");
    }
}

#[tokio::test]
async fn our_two_sides_open_a_link() {
    let (listener, address) = listen().await;
    let acceptor = LinkAcceptor::new(side(), 1, PATIENT);
    let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await };
    let dialer = dialer(PATIENT);
    let (ours, theirs) = tokio::join!(dialer.connect(address, expected()), accept);
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!((ours.peer(), theirs.peer()), (Some(keys().id), None));
    assert!(ours.established().canonical);
    assert!(ours.failure().is_none());

    drop(ours);
    let failure = theirs.closed().await;
    assert!(matches!(*failure, LinkFailure::PeerClosed(Step::Open)), "{failure}");
}

#[tokio::test]
async fn relays_say_who_they_are() {
    let (listener, address) = listen().await;
    let acceptor = LinkAcceptor::new(side(), 1, PATIENT);
    let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await };
    let dialer = Dialer { identity: Some(keys().identity.clone()), ..dialer(PATIENT) };
    let (ours, theirs) = tokio::join!(dialer.connect(address, expected()), accept);
    assert_eq!((ours.unwrap().peer(), theirs.unwrap().peer()), (Some(keys().id), Some(keys().id)));
}

#[tokio::test]
async fn another_relay_than_expected() {
    let id = keys().id;
    for (wrong, error) in [
        (ExpectedPeer { rsa_id: Some([1; 20]), ed_id: Some(id.ed_id) }, LinkError::WrongRsaIdentity),
        (ExpectedPeer { rsa_id: Some(id.rsa_id), ed_id: Some([1; 32]) }, LinkError::WrongEdIdentity),
    ] {
        let (listener, address) = listen().await;
        let acceptor = LinkAcceptor::new(side(), 1, PATIENT);
        let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await };
        let dialer = dialer(PATIENT);
        let (probe, theirs) = tokio::join!(dialer.probe(address, wrong), accept);
        let failure = failure_of(probe);
        assert!(matches!(&failure, LinkFailure::WrongIdentity(found) if *found == error), "{failure}");
        assert!(theirs.is_err());
    }
}

#[tokio::test]
async fn only_so_many_handshakes_at_a_time() {
    let (listener, address) = listen().await;
    let acceptor = LinkAcceptor::new(side(), 1, Times { tls: 5 * SHORT, ..PATIENT });
    let _silent = TcpStream::connect(address).await.unwrap();
    let first = acceptor.accept(listener.accept().await.unwrap().0);
    let second = async {
        let _other = TcpStream::connect(address).await.unwrap();
        acceptor.accept(listener.accept().await.unwrap().0).await
    };
    // The first is polled first, and keeps its place until its time is over.
    let (first, second) = tokio::join!(biased; first, second);
    let first = first.err().unwrap();
    assert!(matches!(first, LinkFailure::Timeout { step: Step::Tls, .. }), "{first}");
    let second = second.err().unwrap();
    assert!(matches!(second, LinkFailure::Crowded(1)), "{second}");

    // And there is room again.
    let third = async { acceptor.accept(listener.accept().await.unwrap().0).await };
    let dialer = dialer(PATIENT);
    let (ours, theirs) = tokio::join!(dialer.connect(address, expected()), third);
    assert!(ours.is_ok() && theirs.is_ok());
}
