//! The metrics port (`MetricsPort`, `MetricsPortPolicy`) on glommio; what it says is [`onionring_node::metrics`]' business.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::{TcpListener, TcpStream};
use onionring_node::log::{RateLimit, safe};
use onionring_node::metrics::http::{Pages, REQUEST_LEN, is_allowed, respond};
use onionring_proto::policy::ExitPolicy;

use crate::limits;

/// Answers requests on `listener` for ever, from those that `policy` allows.
pub async fn serve<P: Pages + 'static>(
    listener: TcpListener,
    policy: Arc<ArcSwap<ExitPolicy>>,
    pages: Rc<P>,
) {
    static REFUSED: RateLimit = RateLimit::every(Duration::from_secs(3600));
    let open = Rc::new(Cell::new(0));
    loop {
        let accepted = async {
            let stream = listener.accept().await?;
            let peer = stream.peer_addr()?.ip();
            io::Result::Ok((stream, peer))
        };
        let (stream, peer) = match accepted.await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(target: "net", "cannot accept a connection to the metrics port: {error}");
                // Out of file descriptors, most likely: no use in trying at once.
                glommio::timer::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !is_allowed(&policy.load(), peer) {
            if let Some(suppressed) = REFUSED.check() {
                tracing::info!(
                    target: "net",
                    "Refused a request for metrics from {}; MetricsPortPolicy allows none from there{suppressed}",
                    safe(peer)
                );
            }
            continue;
        }
        if open.get() < limits::METRICS_CONNECTIONS {
            let (open, pages) = (Rc::clone(&open), Rc::clone(&pages));
            open.set(open.get() + 1);
            glommio::spawn_local(async move {
                // Who asked hears nothing of an error but the end of the connection.
                let _ = glommio::timer::timeout(limits::METRICS_TIME, async {
                    Ok(answer(stream, &*pages).await)
                })
                .await;
                open.set(open.get() - 1);
            })
            .detach();
        }
    }
}

async fn answer(mut stream: TcpStream, pages: &impl Pages) -> io::Result<()> {
    let mut request = vec![0; REQUEST_LEN];
    let mut len = 0;
    loop {
        let read = stream.read(request.get_mut(len..).unwrap_or_default()).await?;
        len += read;
        if let Some(response) = respond(request.get(..len).unwrap_or_default(), pages) {
            stream.write_all(&response).await?;
            return stream.close().await;
        }
        if read == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::net;
    use std::io::{Read, Write};

    struct Fixed;

    impl Pages for Fixed {
        fn own(&self) -> String {
            "onionring_x 1\n".into()
        }

        fn ctor(&self) -> Option<String> {
            Some("tor_relay_x 1\n".into())
        }
    }

    /// What a client gets for `request`, sent in two pieces, under `policy`.
    fn ask(policy: &str, request: &str) -> String {
        let (address, mut listeners) = net::listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let listener = listeners.remove(0);
        let (policy, _) = ExitPolicy::from_torrc([policy]).unwrap();
        let request = request.to_owned();
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let (first, second) = request.split_at(request.len() / 2);
            let mut answer = String::new();
            // The other side may have closed already.
            let _ = stream.write_all(first.as_bytes()).and_then(|()| stream.write_all(second.as_bytes()));
            let _ = stream.read_to_string(&mut answer);
            answer
        });
        glommio::LocalExecutorBuilder::default().io_memory(0).make().unwrap().run(async {
            let policy = Arc::new(ArcSwap::from_pointee(policy));
            let serving = glommio::spawn_local(serve(net::adopt_listener(listener), policy, Rc::new(Fixed)));
            while !client.is_finished() {
                glommio::timer::sleep(Duration::from_millis(1)).await;
            }
            serving.cancel().await;
        });
        client.join().unwrap()
    }

    #[test]
    fn answers_whom_the_policy_allows() {
        let answer = ask("accept 127.0.0.0/8", "GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("onionring_x 1\n"), "{answer}");
        assert!(ask("accept 127.0.0.1", "GET /metrics/tor HTTP/1.0\r\n\r\n").ends_with("tor_relay_x 1\n"));
    }

    #[test]
    fn closes_without_a_word_on_everybody_else() {
        assert_eq!(ask("accept 127.0.0.2", "GET /metrics HTTP/1.1\r\n\r\n"), "");
    }
}
