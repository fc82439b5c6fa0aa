//! Connections to destinations: each address in turn, within bounds of time.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use glommio::net::TcpStream;
use metrics::{Counter, Histogram};
use onionring_node::log::RateLimit;
use onionring_node::metrics::table;
use onionring_proto::relay_msg::EndReason;

use super::decide::end_of_socket;
use super::stream::StreamSide;
use crate::io::net::{self, Exhausted, OutboundAddresses};
use crate::limits;

/// What a shard counts about its connections to destinations.
pub struct ConnectMetrics {
    seconds: Histogram,
    /// By family (IPv4, IPv6) and [`outcome_index`].
    attempts: [[Counter; OUTCOMES.len()]; 2],
}

/// Values of the label `outcome`.
const OUTCOMES: [&str; 7] =
    ["success", "connect_refused", "no_route", "timeout", "conn_reset", "resource_limit", "other"];

fn outcome_index(outcome: Result<(), EndReason>) -> usize {
    match outcome {
        Ok(()) => 0,
        Err(EndReason::ConnectRefused) => 1,
        Err(EndReason::NoRoute) => 2,
        Err(EndReason::Timeout) => 3,
        Err(EndReason::ConnReset) => 4,
        Err(EndReason::ResourceLimit) => 5,
        Err(_) => 6,
    }
}

impl ConnectMetrics {
    /// Registers those of `shard`.
    pub fn new(shard: usize) -> Self {
        let shard = shard.to_string();
        let attempts = |family| {
            OUTCOMES.map(|outcome| {
                table::EXIT_CONNECTS.counter(&[("shard", &shard), ("family", family), ("outcome", outcome)])
            })
        };
        ConnectMetrics {
            seconds: table::EXIT_CONNECT_SECONDS.histogram(&[("shard", &shard)]),
            attempts: [attempts("ipv4"), attempts("ipv6")],
        }
    }

    fn count(&self, target: SocketAddr, outcome: Result<(), EndReason>) {
        self.attempts[usize::from(target.is_ipv6())][outcome_index(outcome)].increment(1);
    }
}

/// Connects to the first of `targets` that answers. On failure, the reason is that of the first one tried, which is what
/// the client asked for most.
pub async fn connect_first(
    targets: &[SocketAddr],
    from: &OutboundAddresses,
    side: &impl StreamSide,
    metrics: &ConnectMetrics,
) -> Result<(TcpStream, SocketAddr), EndReason> {
    let deadline = Instant::now() + limits::EXIT_CONNECT_TIME;
    let mut first_failure = None;
    for &target in targets {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            break;
        }
        let started = Instant::now();
        let result = connect(target, from, remaining.min(limits::EXIT_CONNECT_TIME_PER_ADDRESS)).await;
        if let Err(error) = &result {
            side.no_connection(error);
            warn_of_ports(error);
        }
        match result.map_err(|error| end_of_socket(&error)) {
            Ok(stream) => {
                metrics.count(target, Ok(()));
                metrics.seconds.record(started.elapsed());
                return Ok((stream, target));
            }
            Err(reason) => {
                metrics.count(target, Err(reason));
                first_failure.get_or_insert(reason);
            }
        }
    }
    Err(first_failure.unwrap_or(EndReason::Timeout))
}

fn warn_of_ports(error: &io::Error) {
    static OUT_OF_PORTS: RateLimit = RateLimit::every(Duration::from_secs(600));
    if Exhausted::of(error.raw_os_error()) == Some(Exhausted::Ports)
        && let Some(suppressed) = OUT_OF_PORTS.check()
    {
        tracing::warn!(
            target: "net",
            "No local port is left for a connection, so streams fail. Widen net.ipv4.ip_local_port_range.{suppressed}"
        );
    }
}

async fn connect(target: SocketAddr, from: &OutboundAddresses, time: Duration) -> io::Result<TcpStream> {
    glommio::timer::timeout(time, async { Ok(net::connect(target, from).await) })
        .await
        .unwrap_or_else(|_| Err(rustix::io::Errno::TIMEDOUT.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn run<T>(future: impl Future<Output = T>) -> T {
        glommio::LocalExecutorBuilder::default().io_memory(0).make().unwrap().run(future)
    }

    #[test]
    fn the_next_address_is_tried_and_the_first_failure_reported() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let (from, metrics) = (OutboundAddresses::default(), ConnectMetrics::new(0));
        let side = crate::exit::tests::Client::default();
        run(async {
            let (stream, target) = connect_first(&[closed, open], &from, &side, &metrics).await.unwrap();
            assert_eq!((target, stream.peer_addr().unwrap()), (open, open));
            assert_eq!(
                connect_first(&[closed], &from, &side, &metrics).await.err(),
                Some(EndReason::ConnectRefused)
            );
        });
    }

    #[test]
    fn a_connection_without_answer_times_out_as_such() {
        // A full backlog leaves further connections half open.
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let _fills_backlog = std::net::TcpStream::connect(address).unwrap();
        let error =
            run(connect(address, &OutboundAddresses::default(), Duration::from_millis(50))).unwrap_err();
        assert_eq!(end_of_socket(&error), EndReason::Timeout);
    }
}
