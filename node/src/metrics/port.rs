//! The metrics port on tokio (`MetricsPort`, `MetricsPortPolicy`); what it says is for whoever fills the [`Pages`].

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::http::{Pages, REQUEST_LEN, respond};
use crate::limits;
use crate::log::{RateLimit, safe};

/// Time between attempts to accept after one has failed, for lack of files as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests for ever, from those that `allows` lets in.
pub async fn serve<P: Pages + Send + Sync + 'static>(
    listener: TcpListener,
    allows: impl Fn(IpAddr) -> bool,
    pages: Arc<P>,
) -> Infallible {
    static REFUSED: RateLimit = RateLimit::every(Duration::from_secs(3600));
    let room = Arc::new(Semaphore::new(limits::METRICS_CONNECTIONS));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                debug!("cannot accept a connection to the metrics port: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !allows(peer) {
            if let Some(suppressed) = REFUSED.check() {
                info!(
                    "refused a request for metrics from {}; MetricsPortPolicy allows none from there{suppressed}",
                    safe(peer)
                );
            }
            continue;
        }
        let Ok(place) = room.clone().try_acquire_owned() else { continue };
        let pages = pages.clone();
        tokio::spawn(async move {
            // Who asked hears nothing of an error but the end of the connection.
            let _ = timeout(limits::METRICS_TIME, answer(stream, pages)).await;
            drop(place);
        });
    }
}

async fn answer<P: Pages + Send + Sync + 'static>(mut stream: TcpStream, pages: Arc<P>) -> io::Result<()> {
    let mut request = Vec::with_capacity(REQUEST_LEN);
    loop {
        let read = (&mut stream).take((REQUEST_LEN - request.len()) as u64).read_buf(&mut request).await?;
        if read == 0 {
            return Ok(());
        }
        // Whoever fills a page waits for locks.
        let (so_far, pages) = (request.clone(), pages.clone());
        if let Some(response) = spawn_blocking(move || respond(&so_far, &*pages)).await? {
            stream.write_all(&response).await?;
            return stream.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    struct Fixed;

    impl Pages for Fixed {
        fn own(&self) -> String {
            "onionring_x 1\n".into()
        }
    }

    /// A metrics port that lets in whom `allows` lets in.
    async fn port(allows: impl Fn(IpAddr) -> bool + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, allows, Arc::new(Fixed)));
        address
    }

    /// What a client gets for `request`, sent in two pieces.
    async fn ask(port: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(port).await.unwrap();
        let (first, second) = request.as_bytes().split_at(request.len() / 2);
        let mut answer = Vec::new();
        // The other side may have closed already.
        if stream.write_all(first).await.is_ok() && stream.write_all(second).await.is_ok() {
            let _ = stream.read_to_end(&mut answer).await;
        }
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn answers_whom_the_policy_allows() {
        let port = port(|peer| peer.is_loopback()).await;
        let answer = ask(port, "GET /metrics HTTP/1.1\r\nHost: authority\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("onionring_x 1\n"), "{answer}");
        assert!(ask(port, "GET /metrics/tor HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.1 404 "));
        let long = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(REQUEST_LEN));
        assert!(!ask(port, &long).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn closes_without_a_word_on_everybody_else() {
        assert_eq!(ask(port(|_| false).await, "GET /metrics HTTP/1.1\r\n\r\n").await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_no_place_for_those_who_ask_nothing() {
        let port = port(|_| true).await;
        let mut idle = Vec::new();
        for _ in 0..limits::METRICS_CONNECTIONS {
            idle.push(TcpStream::connect(port).await.unwrap());
        }
        assert_eq!(ask(port, "GET /metrics HTTP/1.1\r\n\r\n").await, "");
        // The clock of the test goes on when all wait: they are closed.
        for stream in &mut idle {
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        }
        assert!(ask(port, "GET /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
    }
}
