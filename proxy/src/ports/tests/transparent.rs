use super::*;

#[tokio::test]
async fn a_connection_that_nobody_redirected_is_closed() {
    let mut bench = Bench::new("SocksPort 0\nTransPort auto\nClientRejectInternalAddresses 0");
    assert_eq!(bench.ask(b"").await, b"");
    assert_eq!(bench.of(ClientKind::Transparent).denied(Denied::Malformed), 1);
    assert!(bench.opened.try_recv().is_err(), "or it would lead to itself, for ever");
}

/// With TPROXY a connection keeps its destination, which is what a connection to any address of this host looks like.
/// `None` without the right to listen so.
fn tproxy(options: &str) -> Option<Bench> {
    let config = config(&format!("SocksPort 0\nTransPort 0.0.0.0:auto\nTransProxyType TPROXY\n{options}"));
    match bind(&config) {
        Ok(bound) => drop(bound),
        Err(error) => {
            assert!(matches!(error, BindError::Tproxy { .. }), "{error}");
            assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
            return None;
        }
    }
    Some(Bench::with(config))
}

#[tokio::test]
async fn a_connection_that_is_handed_over_leads_where_it_was_going() {
    let Some(mut bench) = tproxy("ClientRejectInternalAddresses 0") else { return };
    let to = SocketAddr::new(ip("127.0.0.5"), bench.address().port());
    let mut app = TcpStream::connect(to).await.unwrap();
    let mut opened = bench.opened().await;
    let destination = &opened.destination;
    assert_eq!((&destination.host, destination.port), (&Host::Address(to.ip()), to.port()));
    assert_eq!(destination.families, Families { v4: true, v6: false, prefer_v6: false });
    assert_eq!(destination.token.protocol, Protocol::Transparent);
    app.write_all(b"question").await.unwrap();
    assert_eq!(take(&mut opened.far, 8).await, b"question");
    opened.far.write_all(b"answer").await.unwrap();
    drop(opened.far);
    let mut answer = Vec::new();
    app.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
}

#[tokio::test]
async fn a_loop_ends_at_internal_addresses() {
    let Some(mut bench) = tproxy("") else { return };
    let mut app = TcpStream::connect(("127.0.0.5", bench.address().port())).await.unwrap();
    assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(bench.of(ClientKind::Transparent).denied(Refusal::Internal.into()), 1);
    assert!(bench.opened.try_recv().is_err());
}
